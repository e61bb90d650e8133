"""A crash at every step of an override's life, and then recovery.

The crash is an exception that nothing catches, raised at each named fault point, and at each single
await on the carrier or the journal (counted); what was under way is dropped, as a power cut drops
it. After recovery the number is as it was, the journal has no open row, and nothing was written
that was not needed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from trunkline.bus.errors import TrunklineError
from trunkline.controller.journal.memory import MemoryJournal
from trunkline.controller.journal.rows import OverrideRow
from trunkline.controller.twilio.apply_restore import apply, restore
from trunkline.controller.twilio.carrier import RestFailure
from trunkline.controller.twilio.operations import FAULT_POINTS, Operations
from trunkline.controller.twilio.seal import Seal, SealKeys

from .fake_carrier import OURS, FakeCarrier, FakeTime


class Crash(BaseException):
    """The power is gone."""


async def nobody(base: str, stack: str) -> bool:
    return False


def ops_for(
    time: FakeTime, carrier: Any, journal: Any, faults: Callable[[str], None] = lambda _: None
) -> Operations:
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
        faults=faults,
    )


def row_for(sid: str, override: str = "o1") -> OverrideRow:
    return OverrideRow(
        id=override,
        number=OURS,
        number_sid=sid,
        session="s1",
        state="planned",
        holders={"s1": "hash"},
    )


async def recover(time: FakeTime, carrier: FakeCarrier, journal: MemoryJournal) -> None:
    """What a start does with the rows that nobody claims."""
    ops = ops_for(time, carrier, journal)
    for row in await journal.open_overrides():
        await restore(ops, row)


class Counted:
    """A carrier or journal that crashes before or after its n-th awaited operation."""

    def __init__(self, inner: Any, steps: Steps) -> None:
        self._inner = inner
        self._steps = steps

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def counted(*args: Any) -> Any:
            self._steps.step()
            result = await found(*args)
            self._steps.step()
            return result

        return counted


class Steps:
    def __init__(self, crash_at: int) -> None:
        self.taken = 0
        self.crash_at = crash_at

    def step(self) -> None:
        self.taken += 1
        if self.taken == self.crash_at:
            raise Crash


OVERRIDE_POINTS = [point for point in FAULT_POINTS if not point.startswith("dial")]


@pytest.mark.parametrize("point", OVERRIDE_POINTS)
async def test_crash_at_each_fault_point(point: str) -> None:
    time = FakeTime()
    carrier, journal = FakeCarrier(time), MemoryJournal()
    sid = carrier.add_number(OURS, voice_method="GET", voice_fallback_url="https://f.example.com")
    before = carrier.numbers[sid]

    def crash(reached: str) -> None:
        if reached == point:
            raise Crash

    ops = ops_for(time, carrier, journal, crash)
    with pytest.raises(Crash):
        await restore(ops, await apply(ops, row_for(sid), time.now + 30))
    ours_was_there = carrier.numbers[sid] != before
    written = len(carrier.writes)
    await recover(time, carrier, journal)
    assert carrier.numbers[sid] == before
    assert await journal.open_overrides() == []
    assert len(carrier.writes) - written == ours_was_there


@pytest.mark.parametrize(
    "fault",
    ["", "write:timeout_after", "write:timeout_before", "write:late", "read:500", "write:429"],
)
async def test_crash_at_each_await(fault: str) -> None:
    crash_at = 0
    while True:
        crash_at += 1
        time = FakeTime()
        carrier, journal = FakeCarrier(time), MemoryJournal()
        sid = carrier.add_number(OURS)
        before = carrier.numbers[sid]
        if fault:
            carrier.plan(*fault.split(":"))
        steps = Steps(crash_at)
        ops = ops_for(time, Counted(carrier, steps), Counted(journal, steps))
        try:
            applied = await apply(ops, row_for(sid), time.now + 30)
            assert Seal.read(carrier.numbers[sid].voice_url) is not None
            await restore(ops, applied)
        except Crash:
            written = len(carrier.writes)
            standing = carrier.numbers[sid] != before
            await recover(time, carrier, journal)
            if fault == "":
                assert len(carrier.writes) - written == standing, f"crash at {crash_at}"
        else:
            assert steps.taken < crash_at
            break
        finally:
            time.advance(100.0)
        assert carrier.numbers[sid] == before, f"crash at {crash_at}"
        assert await journal.open_overrides() == [], f"crash at {crash_at}"
    assert crash_at > 10


async def test_recovery_may_itself_crash_any_number_of_times() -> None:
    time = FakeTime()
    carrier, journal = FakeCarrier(time), MemoryJournal()
    sid = carrier.add_number(OURS)
    before = carrier.numbers[sid]
    await apply(ops_for(time, carrier, journal), row_for(sid), time.now + 30)
    crashes = 0
    for crash_at in range(1, 50):
        steps = Steps(crash_at)
        ops = ops_for(time, Counted(carrier, steps), Counted(journal, steps))
        try:
            for row in await journal.open_overrides():
                await restore(ops, row)
        except Crash:
            crashes += 1
        else:
            break
    assert crashes > 2
    assert carrier.numbers[sid] == before and await journal.open_overrides() == []
    assert len(carrier.writes) == 2


async def test_two_crashed_overrides_in_a_row_keep_the_first_prior() -> None:
    """A second override after a crash that was never recovered takes the true prior."""
    time = FakeTime()
    carrier, journal = FakeCarrier(time), MemoryJournal()
    sid = carrier.add_number(OURS)
    before = carrier.numbers[sid]
    ops = ops_for(time, carrier, journal)
    await apply(ops, row_for(sid, "o1"), time.now + 30)
    second = await apply(ops, row_for(sid, "o2"), time.now + 30)
    assert second.prior is not None and second.prior["voice_url"] == before.voice_url
    for row in await journal.open_overrides():
        await restore(ops, row)
    assert carrier.numbers[sid] == before


async def test_refused_apply_leaves_nothing_open() -> None:
    time = FakeTime()
    carrier, journal = FakeCarrier(time), MemoryJournal()
    sid = carrier.add_number(OURS)
    carrier.plan("write", "400")
    with pytest.raises(TrunklineError, match="21211"):
        await apply(ops_for(time, carrier, journal), row_for(sid), time.now + 30)
    assert await journal.open_overrides() == []
    assert isinstance(RestFailure("x"), Exception)
