"""CallSids whose webhooks were heard: who asks under one of them again may be replaying it.

Twilio's signature has no time in it. A webhook that somebody has captured stays rightly signed for
as long as the account keeps its token, and names a call that is over. So every CallSid is kept for
:data:`SEEN_KEPT`. The journal has it too, because the next controller hears of calls that go on,
and of no others.

Where there is a doubt REST is asked whether the call lives (:func:`..webhooks.doubtful`). Its word
that a call is over stands for good. Its word that it lives stands for :data:`LIVES_FOR`, which is
enough for the webhook that waits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ...journal.rows import SEEN_KEPT

#: CallSids that are kept at most: more than a call a second for a day.
MOST: Final = 100_000
#: REST is asked about one CallSid once in this time, at most (seconds).
ASK_EVERY: Final = 1.0
#: REST's word that a call lives stands for this long (seconds).
LIVES_FOR: Final = 5.0


@dataclass(frozen=True)
class _Look:
    """A question to REST whether a CallSid lives, and the answer (None: none yet, or REST could not
    tell). ``at``: when it was asked, then when it answered."""

    at: float
    under_way: bool = True
    lives: bool | None = None


class Seen:
    """``found``: CallSids of the journal, each with when it was heard first; ``reaches``: those
    heard since then are all among them. Times are monotonic."""

    def __init__(self, found: Iterable[tuple[str, float]], reaches: float) -> None:
        #: in order of time
        self._since = dict(sorted(found, key=lambda heard: heard[1]))
        self._looks: dict[str, _Look] = {}
        self.reaches = reaches

    def __contains__(self, sid: str) -> bool:
        return sid in self._since

    def note(self, sid: str, now: float) -> bool:
        """Its webhook is heard; True: for the first time. CallSids that are too old are
        forgotten."""
        if sid in self._since:
            return False
        self._since[sid] = now
        while True:
            oldest, since = next(iter(self._since.items()))
            if since >= now - SEEN_KEPT and len(self._since) <= MOST:
                return True
            self.reaches = max(self.reaches, since)
            del self._since[oldest]
            self._looks.pop(oldest, None)

    def lives(self, sid: str, now: float) -> bool | None:
        """REST's word on a call that was noted; None: it has to be asked."""
        look = self._looks.get(sid)
        if look is None or (look.lives and now - look.at > LIVES_FOR):
            return None
        return look.lives

    def may_ask(self, sid: str, now: float) -> bool:
        """REST is to be asked now, unless it was just asked."""
        look = self._looks.get(sid)
        if look is not None and (look.under_way or now - look.at < ASK_EVERY):
            return False
        self._looks[sid] = _Look(now)
        return True

    def told(self, sid: str, lives: bool | None, now: float) -> None:
        """REST has answered; None: it has not, and may be asked again."""
        if sid in self._looks:
            self._looks[sid] = _Look(now, under_way=False, lives=lives)
