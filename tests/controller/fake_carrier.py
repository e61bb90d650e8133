"""Twilio's REST in memory, with faults that are said beforehand, and a clock that jumps; and the
operations that use both.

``plan("write", "timeout_after", "429")``: the next write times out after it took effect, the one
after that is answered 429. ``late``: no answer, and the effect comes 20 s later.
"""

from __future__ import annotations

import abc
import asyncio
import dataclasses
import itertools
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from trunkline.controller.journal.rows import OverrideRow
from trunkline.controller.twilio.calls import CallOrder
from trunkline.controller.twilio.carrier import CallState, RestFailure
from trunkline.controller.twilio.number_settings import VOICE_FIELDS, NumberSettings
from trunkline.controller.twilio.operations import Operations
from trunkline.controller.twilio.seal import SealKeys

OURS = "+14155551234"
THEIRS = "+14155557777"
SECOND = "+14155559999"
PRIOR = "https://user:secret@agent.example.com/voice"
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


class FakeAccount(abc.ABC):
    """Numbers and calls in memory. ``plan``: what becomes of the next requests of an operation;
    :meth:`_do` of each kind of account says how long they take."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self.wall = wall
        self.numbers: dict[str, NumberSettings] = {}
        self.calls: dict[str, CallState] = {}
        self.plans: dict[str, deque[str]] = defaultdict(deque)

    def add_number(self, number: str, **fields: str) -> str:
        sid = f"PN{len(self.numbers) + 1:032d}"
        known = {
            "voice_url": PRIOR,
            "voice_method": "POST",
            "voice_fallback_method": "POST",
            "status_callback_method": "POST",
            "voice_receive_mode": "voice",
        }
        values = {name: "" for name in VOICE_FIELDS} | known | fields
        self.numbers[sid] = NumberSettings(sid, number, values)
        return sid

    def plan(self, operation: str, *kinds: str) -> None:
        self.plans[operation].extend(kinds)

    def fate(self, operation: str) -> str:
        """What becomes of this request."""
        plan = self.plans[operation]
        return plan.popleft() if plan else "ok"

    @abc.abstractmethod
    async def _do(self, operation: str, what: Any, effect: Callable[[], Any]) -> Any:
        """Carry the request out, or let it fail as its fate says."""

    # ------------------------------------------------------------------ Carrier

    async def find_number(self, number: str) -> NumberSettings | None:
        def found() -> NumberSettings | None:
            return next((n for n in self.numbers.values() if n.number == number), None)

        return await self._do("find", number, found)

    async def list_numbers(self) -> list[NumberSettings]:
        return await self._do("list", None, lambda: list(self.numbers.values()))

    async def read_number(self, sid: str) -> NumberSettings:
        if sid not in self.numbers:
            raise failure("404")
        return await self._do("read", sid, lambda: self.numbers[sid])

    async def write_number(self, sid: str, fields: dict[str, str]) -> NumberSettings:
        def write() -> NumberSettings:
            number = self.numbers[sid]
            self.numbers[sid] = replace(number, fields=number.fields | fields)
            return self.numbers[sid]

        return await self._do("write", (sid, fields), write)

    async def create_call(self, order: CallOrder) -> CallState:
        return await self._do("create", order, lambda: self.make_call(order))

    def make_call(self, order: CallOrder) -> CallState:
        """A phone rings."""
        sid = f"CA{len(self.calls) + 1:032d}"
        self.calls[sid] = CallState(
            sid, "queued", order.to, order.from_, "outbound-api", self.wall()
        )
        return self.calls[sid]

    async def fetch_call(self, sid: str) -> CallState:
        return await self._do("fetch", sid, lambda: self.calls[sid])

    async def end_call(self, sid: str) -> None:
        await self._do("end", sid, lambda: self.over(sid))

    def over(self, sid: str) -> None:
        """The call ends, if there is one."""
        call = self.calls.get(sid)
        if call is not None:
            self.calls[sid] = dataclasses.replace(call, status="completed")

    async def instruct_call(self, sid: str, twiml: str) -> None:
        await self._do("instruct", (sid, twiml), lambda: None)

    async def start_stream(self, sid: str, url: str, token: str) -> None:
        await self._do("stream", (sid, url, token), lambda: None)

    async def list_calls(self, to: str, from_: str, since: float) -> list[CallState]:
        def found() -> list[CallState]:
            return [call for call in self.calls.values() if (call.to, call.from_) == (to, from_)]

        return await self._do("list_calls", (to, from_), found)


def failure(kind: str) -> RestFailure:
    """What whoever asked gets instead of an answer."""
    if kind == "429":
        return RestFailure(
            "Too Many Requests", status=429, code=20429, repeatable=True, retry_after=3.0
        )
    if kind == "refused":
        return RestFailure("connection refused", repeatable=True)
    refusals = {"401": 20003, "403": 20005, "404": 20404, "400": 21211}
    if kind in refusals:
        return RestFailure(f"refused ({kind})", status=int(kind), code=refusals[kind])
    status = 500 if kind.startswith("500") else 0
    return RestFailure("no answer", status=status, uncertain=True, repeatable=True)


class FakeCarrier(FakeAccount):
    """An account that answers at once. ``log``: (operation, what), in order."""

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
        kind = self.fate(operation)
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
