"""A carrier, a journal and operations on one clock, and a dial that Twilio is asked for."""

from __future__ import annotations

from msgspec.structs import replace
from simulation.memory_journal import MemoryJournal

from trunkline.controller.journal.rows import DialRow, OverrideRow
from trunkline.controller.twilio.apply_restore import apply, restore
from trunkline.controller.twilio.calls import CallOrder
from trunkline.controller.twilio.operations import Operations

from .fake_carrier import OURS, THEIRS, FakeCarrier, FakeTime, ops_for, row_for

DIAL = DialRow(
    request="r" * 32,
    session="s1",
    secret_hash="h",
    call="c1",
    mode="a-leg",
    callee=THEIRS,
    caller=OURS,
    timeout=30.0,
    max_duration=300.0,
    token_hash="t",
    sid=None,
    state="asked",
    asked=1_700_001_000.0,
)
ORDER = CallOrder(THEIRS, OURS, "<Response/>", 300, 30, "https://line.example.com/twilio/status")


class Bench:
    """A carrier, a journal and operations on one clock."""

    def __init__(self, **fields: str) -> None:
        self.time = FakeTime()
        self.carrier = FakeCarrier(self.time)
        self.journal = MemoryJournal()
        self.sid = self.carrier.add_number(OURS, **fields)
        self.before = self.carrier.numbers[self.sid]
        self.ops: Operations = ops_for(self.time, self.carrier, self.journal)

    @property
    def voice_url(self) -> str:
        return self.carrier.numbers[self.sid].voice_url

    @property
    def as_before(self) -> bool:
        return self.carrier.numbers[self.sid] == self.before

    def change(self, **fields: str) -> None:
        number = self.carrier.numbers[self.sid]
        self.carrier.numbers[self.sid] = replace(number, fields=number.fields | fields)

    async def apply(self, override: str = "o1", seconds: float = 30.0) -> OverrideRow:
        return await apply(self.ops, row_for(self.sid, override), self.time.now + seconds)

    async def restored(self, row: OverrideRow) -> str:
        return await restore(self.ops, row)
