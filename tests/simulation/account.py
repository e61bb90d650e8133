"""An account at Twilio, in memory: its numbers and calls, and REST requests that may fail.

All doubles of a Carrier stand on it. ``Account`` has the numbers, the calls and the requests;
whoever derives from it says how a request is carried out. ``SlowAccount`` does that on the
simulation's loop: a request travels, takes effect, and is answered, each at its own time, and
whoever asked may be dead by then.
"""

from __future__ import annotations

import abc
import asyncio
import dataclasses
import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from typing import Any, ClassVar

from msgspec.structs import replace

from trunkline.controller.twilio.calls import CallOrder
from trunkline.controller.twilio.carrier import REST_TIMEOUT, CallState, RestFailure
from trunkline.controller.twilio.number_settings import VOICE_FIELDS, NumberSettings

from .clock import SimLoop
from .database import Database
from .memory_journal import MemoryJournal
from .writes import wrong_write

PRIOR = "https://user:secret@agent.example.com/voice"
Range = tuple[float, float]


def failure(kind: str, retry_after: float = 3.0) -> RestFailure:
    """What whoever asked gets instead of an answer."""
    if kind == "429":
        return RestFailure(
            "Too Many Requests", status=429, code=20429, repeatable=True, retry_after=retry_after
        )
    if kind == "refused":
        return RestFailure("connection refused", repeatable=True)
    refusals = {"401": 20003, "403": 20005, "404": 20404, "400": 21211}
    if kind in refusals:
        return RestFailure(f"refused ({kind})", status=int(kind), code=refusals[kind])
    status = 500 if kind.startswith("500") else 0
    return RestFailure("no answer", status=status, uncertain=True, repeatable=True)


class Account(abc.ABC):
    """The methods of a Carrier. :meth:`_do` carries a request out.

    What becomes of a request is its *fate*: "ok", a refusal ("429", see :func:`failure`),
    "timeout_before" or "timeout_after" it took effect, or "late": no answer, and it takes effect
    after it was given up. A test plans them: ``plan("write", "timeout_after", "429")``.
    """

    def __init__(self, wall: Callable[[], float]) -> None:
        self.wall = wall
        self.numbers: dict[str, NumberSettings] = {}
        self.calls: dict[str, CallState] = {}
        self.plans: dict[str, deque[str]] = defaultdict(deque)

    def plan(self, operation: str, *fates: str) -> None:
        """The fates of the operation's next requests."""
        self.plans[operation].extend(fates)

    def fate(self, operation: str, what: Any) -> str:
        """What becomes of this request, which is about to leave."""
        plan = self.plans[operation]
        return plan.popleft() if plan else "ok"

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

    def of(self, number: str) -> NumberSettings | None:
        return next((n for n in self.numbers.values() if n.number == number), None)

    # ------------------------------------------------------------------ what a request changes

    @abc.abstractmethod
    async def _do(self, operation: str, what: Any, effect: Callable[[], Any]) -> Any:
        """Carry the request out, or let it fail."""

    def number(self, sid: str) -> NumberSettings:
        if sid not in self.numbers:
            raise failure("404")
        return self.numbers[sid]

    def written(self, sid: str, fields: dict[str, str]) -> NumberSettings:
        number = self.number(sid)
        self.numbers[sid] = replace(number, fields=number.fields | fields)
        return self.numbers[sid]

    def make_call(self, order: CallOrder) -> CallState:
        """A phone rings."""
        sid = f"CA{len(self.calls) + 1:032d}"
        self.calls[sid] = CallState(
            sid, "queued", order.to, order.from_, "outbound-api", self.wall()
        )
        return self.calls[sid]

    def states(self) -> dict[str, CallState]:
        """All calls, by SID."""
        return self.calls

    def state(self, sid: str) -> CallState:
        found = self.states().get(sid)
        if found is None:
            raise failure("404")
        return found

    def over(self, sid: str) -> None:
        """The call ends, if there is one."""
        call = self.calls.get(sid)
        if call is not None:
            self.calls[sid] = dataclasses.replace(call, status="completed")

    # ------------------------------------------------------------------ Carrier

    async def find_number(self, number: str) -> NumberSettings | None:
        return await self._do("find", number, lambda: self.of(number))

    async def list_numbers(self) -> list[NumberSettings]:
        return await self._do("list", None, lambda: list(self.numbers.values()))

    async def read_number(self, sid: str) -> NumberSettings:
        return await self._do("read", sid, lambda: self.number(sid))

    async def write_number(self, sid: str, fields: dict[str, str]) -> NumberSettings:
        return await self._do("write", (sid, fields), lambda: self.written(sid, fields))

    async def create_call(self, order: CallOrder) -> CallState:
        return await self._do("create", order, lambda: self.make_call(order))

    async def fetch_call(self, sid: str) -> CallState:
        return await self._do("fetch", sid, lambda: self.state(sid))

    async def end_call(self, sid: str) -> None:
        await self._do("end", sid, lambda: self.over(sid))

    async def instruct_call(self, sid: str, twiml: str) -> None:
        await self._do("instruct", (sid, twiml), lambda: None)

    async def start_stream(self, sid: str, url: str, token: str) -> None:
        await self._do("stream", (sid, url, token), lambda: None)

    async def listen(self, sid: str, url: str, token: str, name: str) -> None:
        await self._do("listen", (sid, url, token, name), lambda: self.state(sid))

    async def stop_stream(self, sid: str, name: str) -> None:
        await self._do("stop", (sid, name), lambda: None)

    async def list_calls(self, to: str, from_: str, since: float) -> list[CallState]:
        def found() -> list[CallState]:
            of_both = [c for c in self.states().values() if (c.to, c.from_) == (to, from_)]
            return [call for call in of_both if (call.created or 0.0) >= since - 2.0]

        return await self._do("list_calls", (to, from_), found)


class SlowAccount(Account):
    """``problems``: what must never happen, and did. Whoever derives from it says how long things
    take, each from the least to the most seconds."""

    #: a request, or its answer, is under way for so long
    WAY: ClassVar[Range]
    #: a refusal is there after so long
    REFUSAL: ClassVar[Range]
    #: so much later than it was given up a late request takes effect
    LATE: ClassVar[Range]
    #: what the answer 429 says
    RETRY_AFTER: ClassVar[Range] = (3.0, 3.0)

    def __init__(
        self, loop: SimLoop, journal: MemoryJournal | Database, rng: random.Random
    ) -> None:
        super().__init__(lambda: 1_700_000_000.0 + loop.time())
        self.loop = loop
        self.journal = journal
        self.rng = rng
        #: what each number has to be in the end: as before, or as someone else wrote
        self.expected: dict[str, NumberSettings] = {}
        #: sid -> writes that may still take effect
        self.in_flight: Counter[str] = Counter()
        #: sid -> when it was read last, by the simulation's clock
        self.read_at: dict[str, float] = {}
        self.problems: list[str] = []

    def add_number(self, number: str, **fields: str) -> str:
        sid = super().add_number(number, **fields)
        self.expected[sid] = self.numbers[sid]
        return sid

    async def write_number(self, sid: str, fields: dict[str, str]) -> NumberSettings:
        rows = [row for row in self.journal.left.overrides if row.number_sid == sid]
        stands = self.numbers[sid].voice_url
        self.problems += wrong_write(fields, rows, stands, in_flight=self.in_flight[sid] > 0)
        return await super().write_number(sid, fields)

    async def _do(self, operation: str, what: Any, effect: Callable[[], Any]) -> Any:
        fate = self.fate(operation, what)
        answer: asyncio.Future[Any] = self.loop.create_future()
        number = what[0] if operation == "write" else ""
        self.in_flight[number] += 1
        arrives, late = self.rng.uniform(*self.WAY), self.rng.uniform(*self.LATE)

        def happen() -> None:
            self.in_flight[number] -= 1
            if operation == "read":
                self.read_at[what] = self.loop.time()
            result: Any = None
            try:
                if fate in ("ok", "500_after", "timeout_after", "late"):
                    result = effect()
            except RestFailure as refused:
                result = refused
            if fate == "ok":
                self._later(self.rng.uniform(*self.WAY), _settle, answer, result)

        self._later(REST_TIMEOUT + late if fate == "late" else arrives, happen)
        if fate != "ok":
            wait = self.rng.uniform(*self.RETRY_AFTER) if fate == "429" else 0.0
            slow = fate in ("timeout_before", "timeout_after", "late")
            takes = REST_TIMEOUT if slow else self.rng.uniform(*self.REFUSAL)
            self._later(takes, _settle, answer, failure(fate, wait))
        return await answer

    def _later(self, seconds: float, what: Callable[..., None], *args: Any) -> None:
        """It happens out in the world, whether or not whoever asked still lives."""
        self.loop.call_later(seconds, what, *args, context=self.loop.world.context.copy())


def _settle(answer: asyncio.Future[Any], result: Any) -> None:
    if answer.done():
        return
    if isinstance(result, RestFailure):
        answer.set_exception(result)
    else:
        answer.set_result(result)
