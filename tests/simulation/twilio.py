"""Twilio's REST in the simulation: what becomes of each request follows from the seed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from trunkline.controller.twilio.calls import CallOrder
from trunkline.controller.twilio.carrier import CallState
from trunkline.controller.twilio.number_settings import NumberSettings

from .account import SlowAccount
from .clock import SimLoop, current
from .database import Database
from .memory_journal import MemoryJournal

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


class Twilio(SlowAccount):
    """``trouble``: how likely a request fails. The calls are the exchange's."""

    WAY = (0.005, 0.12)
    REFUSAL = (0.01, 0.2)
    LATE = (1.0, 45.0)
    RETRY_AFTER = (0.2, 2.5)

    def __init__(
        self,
        loop: SimLoop,
        journal: MemoryJournal | Database,
        rng: random.Random,
        say: Callable[[str], None],
        spring: Callable[[str], None],
    ) -> None:
        super().__init__(loop, journal, rng)
        self.say = say
        self.spring = spring
        self.trouble = 0.0
        self.counts: Counter[str] = Counter()
        self.exchange: Exchange

    def fate(self, operation: str, what: Any) -> str:
        fate = "ok"
        if self.rng.random() < self.trouble:
            fate = self.rng.choices(list(FATES), list(FATES.values()))[0]
        self.counts[f"{operation} {fate}"] += 1
        self.say(f"{current.get()}: {operation} {what}: {fate}")
        self.spring(operation)
        return fate

    def change(self, sid: str, **fields: str) -> None:
        """Someone else changes the number in Twilio's console."""
        for settings in (self.numbers, self.expected):
            settings[sid] = replace(settings[sid], fields=settings[sid].fields | fields)

    def written(self, sid: str, fields: dict[str, str]) -> NumberSettings:
        number = super().written(sid, fields)
        self.say(f"twilio: {number.number} voice_url is {number.voice_url[:60]}")
        return number

    def make_call(self, order: CallOrder) -> CallState:
        return self.exchange.dial(order).state()

    def states(self) -> dict[str, CallState]:
        return {sid: leg.state() for sid, leg in self.exchange.legs.items()}

    async def end_call(self, sid: str) -> None:
        self.exchange.asked_to_end.add(sid)
        await super().end_call(sid)

    def over(self, sid: str) -> None:
        self.exchange.ended_by_rest(sid)
