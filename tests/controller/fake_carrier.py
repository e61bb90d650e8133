"""An account that answers at once, a clock that jumps, and the operations that use both."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from simulation.account import Account, failure

from trunkline.controller.journal.rows import OverrideRow
from trunkline.controller.twilio.operations import Operations
from trunkline.controller.twilio.seal import SealKeys

OURS = "+14155551234"
THEIRS = "+14155557777"
SECOND = "+14155559999"
LATE_SECONDS = 20.0


class FakeTime:
    """One clock for everything; ``pause`` jumps and lets what is due happen."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def clock(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1_700_000_000.0 + self.now

    def at(self, when: float, what: Callable[[], None]) -> None:
        self._due.append((when, next(self._count), what))
        self._due.sort()

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        while self._due and self._due[0][0] <= until:
            when, _, what = self._due.pop(0)
            self.now = max(self.now, when)
            what()
        self.now = until

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.advance(seconds)


class FakeCarrier(Account):
    """It answers at once; what is late comes 20 s later. ``log``: (operation, what), in order."""

    def __init__(self, time: FakeTime) -> None:
        super().__init__(time.wall)
        self.time = time
        self.log: list[tuple[str, Any]] = []

    def count(self, operation: str) -> int:
        return sum(name == operation for name, _ in self.log)

    @property
    def writes(self) -> list[dict[str, str]]:
        return [what[1] for name, what in self.log if name == "write"]

    async def _do(self, operation: str, what: Any, effect: Callable[[], Any]) -> Any:
        self.log.append((operation, what))
        await asyncio.sleep(0)
        kind = self.fate(operation, what)
        if kind == "ok":
            return effect()
        if kind == "late":
            self.time.at(self.time.now + LATE_SECONDS, effect)
        elif kind in ("timeout_after", "500_after"):
            effect()
        raise failure(kind)


async def nobody(base: str, stack: str) -> bool:
    """No other stack lives."""
    return False


def ops_for(time: FakeTime, carrier: Any, journal: Any) -> Operations:
    return Operations(
        stack="stack",
        public_url="https://line.example.com",
        carrier=carrier,
        journal=journal,
        keys=SealKeys("token"),
        wall=time.wall,
        probe=nobody,
        clock=time.clock,
        sleep=time.pause,
    )


def row_for(sid: str, override: str = "o1") -> OverrideRow:
    """An override as the rules plan it, for session s1 on OURS."""
    return OverrideRow(
        id=override,
        number=OURS,
        number_sid=sid,
        session="s1",
        state="planned",
        holders={"s1": "hash"},
    )
