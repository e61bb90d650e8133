"""The last that we knew of a dial, in words: for the error that it may end with.

A timer only says that something did not happen. So the error also says what did: Twilio's last word
on our leg, our answer to the callee's voice webhook, and the calls that were refused on the
callee's number meanwhile.

For example: "call to ***7777: no stream within 30 s; Twilio's last word is 'in-progress', 24.1 s
ago; no voice webhook of ***7777 has come". Whoever reads that looks at the number's voice_url
first, and not at the network.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from trunkline.bus.callers import listed
from trunkline.bus.redact import redact_number

#: The statuses of a call that has not ended, in the order in which it can have them. "": none is
#: known.
_ORDER: Final = ("", "queued", "initiated", "ringing", "answered", "in-progress")


@dataclass
class LastKnown:
    """``callee``: the number that was called, already redacted. ``has_webhook``: the calls of that
    number come to us (b-leg), so a voice webhook is to be expected.

    Times are monotonic. ``heard``: when Twilio last said something of our leg. ``unasked``: Twilio
    will be asked once the dial is in the journal, and its turn has come.
    """

    callee: str
    has_webhook: bool
    heard: float = 0.0
    unasked: bool = False
    status: str = ""
    status_since: float = 0.0
    _webhook: tuple[str, float] | None = None
    _refused: list[str] = field(default_factory=list)
    #: why a gateway refused webhooks to the callee's number -> how many
    _unheard: Counter[str] = field(default_factory=Counter)

    def tell_unasked(self) -> None:
        """Twilio is going to be asked for the call."""
        self.unasked = True

    def tell_asking(self) -> None:
        """The request for the call leaves now."""
        self.unasked = False

    def tell_status(self, status: str, now: float) -> bool:
        """A callback, the answer to create, or a fetch has this status. False: that is no news.
        Callbacks may overtake one another, so a status that the call has left behind changes
        nothing: a call that was answered does not ring again."""
        self.heard = now
        is_news = _rank(status) > _rank(self.status)
        if is_news:
            self.status, self.status_since = status, now
        return is_news

    def forget_status(self) -> None:
        """It was the status of another call."""
        self.status = ""

    def tell_asked(self, now: float) -> None:
        """REST is asked about it; the silence is counted from now on."""
        self.heard = now

    def tell_webhook(self, answer: str, now: float) -> None:
        """A voice webhook of the call was answered like this."""
        self._webhook = (answer, now)

    def tell_refused(self, caller: str, how: str) -> None:
        """Another call on the callee's number was refused (``how``)."""
        self._refused.append(f"from {redact_number(caller)} ({how})")

    def tell_refused_webhooks(self, why: str, count: int) -> None:
        """A gateway refused webhooks to the callee's number, before anything in them counted."""
        self._unheard[why] += count

    def refused(self) -> str:
        """Calls and webhooks that were refused on the callee's number meanwhile; "" where there
        were none."""
        parts, count = [], len(self._refused)
        if count:
            calls = "a call was" if count == 1 else f"{count} calls were"
            parts.append(f"meanwhile {calls} refused on {self.callee}: {listed(self._refused)}")
        for why, number in self._unheard.items():
            hooks = "1 webhook" if number == 1 else f"{number} webhooks"
            parts.append(f"{hooks} to this number refused ({why})")
        return "; ".join(parts)

    def leg(self, now: float) -> str:
        """Our leg as Twilio last told it."""
        if not self.status and self.unasked:
            return "Twilio has not been asked: the dial waited for the database, or for its turn"
        if not self.status:
            return "Twilio has not said whether it has the call"
        return f"Twilio's last word is {self.status!r}, {now - self.status_since:.1f} s ago"

    def webhook(self, now: float) -> str:
        """The voice webhook of the callee's number and our answer; "" where it does not ask us."""
        if not self.has_webhook:
            return ""
        if self._webhook is None:
            come = "was accepted" if self._unheard else "has come"
            return f"no voice webhook of {self.callee} {come}"
        answer, at = self._webhook
        ago = f"{now - at:.1f} s ago"
        return f"the voice webhook of {self.callee} was answered with {answer!r} {ago}"


def _rank(status: str) -> int:
    """How far a call with this status has come."""
    return _ORDER.index(status) if status in _ORDER else len(_ORDER)
