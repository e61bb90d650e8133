"""Counts what the gateway refuses, and logs it without letting strangers fill the log.

Calls that the controller turns away are logged in the same way, because whoever has captured a
webhook can send it again and again. It is the controller that counts those.

The kinds are in ``bus/refusals.py``. The first refusal of a kind is logged at once, with its
details. Those that follow within :data:`EVERY` are counted, and told in one line at the end of that
time, with the details of the last one. So a kind takes one line a minute, however many there are.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Final

from trunkline.bus.refusals import KINDS, Kind

log = logging.getLogger("trunkline.gateway")

#: At most one line in this many seconds is logged about one kind.
EVERY: Final = 60.0

#: Calls a function after a number of seconds, as a loop's ``call_later`` does.
Later = Callable[[float, Callable[[], None]], object]


class Refusals:
    """The refusals of one gateway since its start."""

    def __init__(self, later: Later) -> None:
        #: how many refusals there were, by kind
        self.counts: Counter[str] = Counter()
        self._later = later
        #: by kind, if it was logged less than EVERY ago: how many came since, and the last one
        self._since: dict[str, tuple[int, str]] = {}

    def add(
        self, kind: Kind, what: str = "a connection", details: str = "", count: int = 1
    ) -> None:
        """Refuse ``what``, ``count`` times. ``details`` may be logged: no secret is in them."""
        self.counts[kind] += count
        text = f"{what}: {KINDS[kind]}" + (f" ({details})" if details else "")
        self._log(kind, logging.WARNING, "refused", text, count)

    def turned_away(self, answer: str, caller: str) -> None:
        """The controller has a call answered with ``busy`` or ``reject``."""
        self._log(answer, logging.INFO, f"answered with {answer}", f"a call from {caller}", 1)

    def _log(self, kind: str, level: int, done: str, text: str, count: int) -> None:
        if kind in self._since:
            self._since[kind] = (self._since[kind][0] + count, text)
            return
        log.log(level, "%s %s", done, text)
        self._begin(kind, level, done)

    def _begin(self, kind: str, level: int, done: str) -> None:
        self._since[kind] = (0, "")
        self._later(EVERY, lambda: self._tell(kind, level, done))

    def _tell(self, kind: str, level: int, done: str) -> None:
        count, text = self._since.pop(kind)
        if count:
            log.log(level, "%s %d more like it in %.0f s; the last: %s", done, count, EVERY, text)
            self._begin(kind, level, done)
