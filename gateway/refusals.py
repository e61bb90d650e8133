"""Counts what the gateway refuses, and logs it without letting strangers fill the log.

The kinds are in ``bus/refusals.py``. The first refusal of a kind is logged at once, with its
details. What follows within :data:`EVERY` is counted, and told in one line at the end of that time,
with the details of the last one. So a kind takes one line a minute, however many there are.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Final

from trunkline.bus.refusals import KINDS, Kind

log = logging.getLogger("trunkline.gateway")

#: Seconds between two lines about one kind.
EVERY: Final = 60.0

#: Calls a function after so many seconds, as a loop's ``call_later`` does.
Later = Callable[[float, Callable[[], None]], object]


class Refusals:
    """The refusals of one gateway since its start."""

    def __init__(self, later: Later) -> None:
        #: by kind
        self.counts: Counter[str] = Counter()
        self._later = later
        #: by kind that was logged less than EVERY ago: how many came since, and the last one
        self._since: dict[Kind, tuple[int, str]] = {}

    def add(
        self, kind: Kind, what: str = "a connection", details: str = "", count: int = 1
    ) -> None:
        """Refuse ``what``, ``count`` times. ``details`` may be logged: no secret is in them."""
        self.counts[kind] += count
        text = f"{what}: {KINDS[kind]}" + (f" ({details})" if details else "")
        if kind in self._since:
            self._since[kind] = (self._since[kind][0] + count, text)
            return
        log.warning("refused %s", text)
        self._begin(kind)

    def _begin(self, kind: Kind) -> None:
        self._since[kind] = (0, "")
        self._later(EVERY, lambda: self._tell(kind))

    def _tell(self, kind: Kind) -> None:
        count, text = self._since.pop(kind)
        if count:
            log.warning("refused %d more like it in %.0f s; the last: %s", count, EVERY, text)
            self._begin(kind)
