"""Whose turn it is on a number: while a b-leg dial to it is open, no other dial of ours is.

Why that must be is told in :mod:`.dials` and :mod:`.webhooks`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trunkline.bus import messages as m

from .dial import Dial
from .dial_queue import FairQueue

if TYPE_CHECKING:
    from .dials import DialRules


class Turns:
    """The dials that wait, by callee's number."""

    def __init__(self, dials: DialRules) -> None:
        self._dials = dials
        self._waiting: dict[str, FairQueue] = {}

    def __len__(self) -> int:
        return sum(len(waiting) for waiting in self._waiting.values())

    def needed(self, number: str) -> bool:
        """A b-leg dial to the number is open, or waits: a dial of any kind has to wait too."""
        return any(
            dial.may_ring or dial.state == "waiting"
            for dial in self._dials.by_request.values()
            if dial.row.callee == number and dial.row.mode == "b-leg"
        )

    def wait(self, dial: Dial, now: float) -> None:
        """Wait for as long as the dial's own timeout; its turn may be now."""
        dial.deadline = now + dial.row.timeout
        self._waiting.setdefault(dial.row.callee, FairQueue()).add(dial.row.session, dial.request)
        self.give(now)
        if dial.state == "waiting":
            self.tell(only=dial.request)

    def drop(self, dial: Dial) -> None:
        waiting = self._waiting.get(dial.row.callee)
        if waiting is not None:
            waiting.drop(dial.row.session, dial.request)

    def give(self, now: float) -> None:
        """One dial at a time to each number that others wait for."""
        if not self._waiting:
            return
        dials = self._dials.by_request
        taken = {dial.row.callee for dial in dials.values() if dial.may_ring}
        for number, waiting in list(self._waiting.items()):
            if waiting and number not in taken:
                dial = dials[waiting.pop()]
                dial.step("turn")
                dial.deadline, dial.told_place = float("inf"), 0
                self._dials.enqueue(dial, now)
            if not waiting:
                del self._waiting[number]

    def tell(self, only: str | None = None) -> None:
        """Places that have changed, to those who wait."""
        for waiting in self._waiting.values():
            for place, request in enumerate(waiting.order(), 1):
                dial = self._dials.by_request[request]
                if place != dial.told_place and only in (None, request):
                    dial.told_place = place
                    told = m.DialQueued(request=request, place=place, seconds=0.0, for_number=True)
                    self._dials.tell(dial, told)

    def why(self, dial: Dial, now: float) -> str:
        """Why the dial's turn has not come, in words."""
        text = "its turn on the callee's number has not come"
        for other in self._dials.by_request.values():
            if other.may_ring and other.row.callee == dial.row.callee:
                return (
                    f"{text}: the call of session {other.row.session} is being set up there "
                    f"({other.known.leg(now)})"
                )
        return text
