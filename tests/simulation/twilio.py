"""Twilio's REST in the simulation: an account's numbers and calls, and requests that may fail.

A request travels, takes effect, and is answered, each at its own time; whoever asked may be dead by
then. ``late``: no answer, and the effect comes up to 45 s after it was given up.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from trunkline.controller.twilio.calls import CallOrder
from trunkline.controller.twilio.carrier import REST_TIMEOUT, CallState, RestFailure
from trunkline.controller.twilio.number_settings import VOICE_FIELDS, NumberSettings

from .clock import Process, SimLoop
from .memory_journal import MemoryJournal
from .writes import wrong_write

if TYPE_CHECKING:
    from .exchange import Exchange

#: What may become of a request, and how often.
FATES = {
    "429": 3,
    "refused": 2,
    "500": 2,
    "500_after": 1,
    "timeout_before": 1,
    "timeout_after": 1,
    "late": 1,
}
#: How much later than it was given up a late request takes effect.
LATEST = 45.0
_TAKES_EFFECT = ("ok", "500_after", "timeout_after")


class Twilio:
    """The account. ``trouble``: how likely a request fails."""

    def __init__(
        self,
        loop: SimLoop,
        rng: random.Random,
        say: Callable[[str], None],
        spring: Callable[[str], None],
    ) -> None:
        self.loop = loop
        self.rng = rng
        self.say = say
        self.spring = spring
        self.trouble = 0.0
        self.numbers: dict[str, NumberSettings] = {}
        #: what each number has to be in the end: as before, or as someone else wrote
        self.expected: dict[str, NumberSettings] = {}
        #: sid -> writes that may still take effect
        self.in_flight: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        #: writes that must never be made, and were
        self.wrong: list[str] = []
        self.exchange: Exchange
        self.journal: MemoryJournal

    def add_number(self, number: str, **fields: str) -> None:
        sid = f"PN{len(self.numbers) + 1}"
        known = {"voice_method": "POST", "voice_receive_mode": "voice"}
        values = {name: "" for name in VOICE_FIELDS} | known | fields
        self.numbers[sid] = self.expected[sid] = NumberSettings(sid, number, values)

    def of(self, number: str) -> NumberSettings | None:
        return next((n for n in self.numbers.values() if n.number == number), None)

    def change(self, sid: str, **fields: str) -> None:
        """Someone else changes the number in Twilio's console."""
        for settings in (self.numbers, self.expected):
            settings[sid] = replace(settings[sid], fields=settings[sid].fields | fields)

    def check_write(self, sid: str, fields: dict[str, str]) -> None:
        rows = [row for row in self.journal.overrides.values() if row.number_sid == sid]
        stands = self.numbers[sid].voice_url
        self.wrong += wrong_write(fields, rows, stands, in_flight=self.in_flight[sid] > 0)

    def wall(self) -> float:
        return 1_700_000_000.0 + self.loop.time()

    def fate(self) -> str:
        if self.rng.random() >= self.trouble:
            return "ok"
        return self.rng.choices(list(FATES), list(FATES.values()))[0]

    def write(self, sid: str, fields: dict[str, str]) -> NumberSettings:
        number = self._number(sid)
        self.numbers[sid] = replace(number, fields=number.fields | fields)
        self.say(f"twilio: {number.number} voice_url is {self.numbers[sid].voice_url[:60]}")
        return self.numbers[sid]

    def _number(self, sid: str) -> NumberSettings:
        found = self.numbers.get(sid)
        if found is None:
            raise RestFailure("not found", status=404, code=20404)
        return found


class Rest:
    """The REST client of one controller process (a Carrier)."""

    def __init__(self, twilio: Twilio, process: Process) -> None:
        self._twilio = twilio
        self._process = process

    def close(self) -> None:
        """There is nothing to close."""

    async def _do(self, operation: str, what: str, effect: Callable[[], Any]) -> Any:
        twilio = self._twilio
        fate = twilio.fate()
        twilio.counts[f"{operation} {fate}"] += 1
        twilio.say(f"{self._process}: {operation} {what}: {fate}")
        twilio.spring(operation)
        answer: asyncio.Future[Any] = twilio.loop.create_future()
        world = twilio.loop.world.context
        now = twilio.loop.time()
        arrives = now + twilio.rng.uniform(0.005, 0.12)
        if operation == "write":
            twilio.in_flight[what] += 1
        late = twilio.rng.uniform(1.0, LATEST)

        def happen() -> Any:
            result: Any = None
            if operation == "write":
                twilio.in_flight[what] -= 1
            try:
                if fate in _TAKES_EFFECT or fate == "late":
                    result = effect()
            except RestFailure as failure:
                result = failure
            if fate == "ok":
                back = twilio.rng.uniform(0.005, 0.12)
                twilio.loop.call_later(back, self._answer, answer, result, context=world.copy())

        when = now + REST_TIMEOUT + late if fate == "late" else arrives
        twilio.loop.call_at(when, happen, context=world.copy())
        if fate != "ok":
            failure = self._failure(fate)
            slow = fate in ("timeout_before", "timeout_after", "late")
            takes = REST_TIMEOUT if slow else twilio.rng.uniform(0.01, 0.2)
            twilio.loop.call_later(takes, self._answer, answer, failure, context=world.copy())
        return await answer

    def _answer(self, answer: asyncio.Future[Any], result: Any) -> None:
        if answer.done() or not self._process.alive:
            return
        if isinstance(result, RestFailure):
            answer.set_exception(result)
        else:
            answer.set_result(result)

    def _failure(self, fate: str) -> RestFailure:
        if fate == "429":
            wait = self._twilio.rng.uniform(0.2, 2.5)
            return RestFailure("busy", status=429, code=20429, repeatable=True, retry_after=wait)
        if fate == "refused":
            return RestFailure("connection refused", repeatable=True)
        status = 500 if fate.startswith("500") else 0
        return RestFailure("no answer", status=status, uncertain=True, repeatable=True)

    # ------------------------------------------------------------------ Carrier

    async def find_number(self, number: str) -> NumberSettings | None:
        return await self._do("find", number, lambda: self._twilio.of(number))

    async def list_numbers(self) -> list[NumberSettings]:
        return await self._do("list", "", lambda: list(self._twilio.numbers.values()))

    async def read_number(self, sid: str) -> NumberSettings:
        return await self._do("read", sid, lambda: self._twilio._number(sid))

    async def write_number(self, sid: str, fields: dict[str, str]) -> NumberSettings:
        self._twilio.check_write(sid, fields)
        return await self._do("write", sid, lambda: self._twilio.write(sid, fields))

    async def create_call(self, order: CallOrder) -> CallState:
        exchange = self._twilio.exchange
        return await self._do("create", order.to, lambda: exchange.dial(order).state())

    async def fetch_call(self, sid: str) -> CallState:
        return await self._do("fetch", sid, lambda: self._twilio.exchange.leg(sid).state())

    async def end_call(self, sid: str) -> None:
        exchange = self._twilio.exchange
        exchange.asked_to_end.add(sid)
        await self._do("end", sid, lambda: exchange.ended_by_rest(sid))

    async def instruct_call(self, sid: str, twiml: str) -> None:
        await self._do("instruct", sid, lambda: None)

    async def start_stream(self, sid: str, url: str, token: str) -> None:
        await self._do("stream", sid, lambda: None)

    async def list_calls(self, to: str, from_: str, since: float) -> list[CallState]:
        legs = self._twilio.exchange.legs

        def found() -> list[CallState]:
            states = [leg.state() for leg in legs.values() if (leg.to, leg.from_) == (to, from_)]
            return [s for s in states if (s.created or 0.0) >= since - 2.0]

        return await self._do("list_calls", to, found)
