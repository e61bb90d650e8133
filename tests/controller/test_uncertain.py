"""Writes that may still land: after a crash in the middle of one, and after its override's end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from trunkline.bus.errors import CarrierError, NumberNotFoundError
from trunkline.controller.journal.rows import OverrideRow
from trunkline.controller.twilio.apply_restore import apply, restore
from trunkline.controller.twilio.number_settings import VOICE_FIELDS, NumberSettings
from trunkline.controller.twilio.override import UNCERTAIN_SECONDS
from trunkline.controller.twilio.seal import Seal

from .bench import Bench
from .fake_carrier import LATE_SECONDS, OURS, FakeCarrier, ops_for, row_for


class Crash(BaseException):
    """The power is gone."""


class DiesWhileWriting:
    """The carrier's REST; the first write that it is given kills who asked, and lands late."""

    def __init__(self, carrier: FakeCarrier) -> None:
        self._carrier = carrier

    def __getattr__(self, name: str) -> Any:
        return getattr(self._carrier, name)

    async def write_number(self, sid: str, fields: dict[str, str]) -> None:
        self._carrier.plan("write", "late")
        asyncio.ensure_future(self._carrier.write_number(sid, fields)).add_done_callback(
            lambda done: done.exception()
        )
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        raise Crash


async def test_every_voice_field_is_journalled_before_the_number_is_written() -> None:
    assert set(VOICE_FIELDS) == {
        "voice_url",
        "voice_method",
        "voice_fallback_url",
        "voice_fallback_method",
        "voice_application_sid",
        "trunk_sid",
        "status_callback",
        "status_callback_method",
        "voice_receive_mode",
    }
    bench = Bench(
        status_callback="https://s.example.com", voice_fallback_url="https://f.example.com"
    )
    known: list[OverrideRow] = []
    write = bench.carrier.write_number

    async def look(sid: str, fields: dict[str, str]) -> NumberSettings:
        known.append(bench.journal.overrides["o1"])
        return await write(sid, fields)

    bench.carrier.write_number = look  # type: ignore[method-assign]  # one carrier's writes
    row = await bench.apply()
    journalled = bench.ops.opened(known[0])
    assert journalled.prior == bench.before.fields and set(journalled.prior) == set(VOICE_FIELDS)
    assert journalled.written == row.written
    assert (journalled.number_sid, journalled.session, journalled.state) == (
        bench.sid,
        "s1",
        "planned",
    )


async def test_a_restore_that_died_while_writing_keeps_the_row_until_that_write_is_in() -> None:
    """Else the late write would undo the number's next override."""
    bench = Bench()
    row = await bench.apply()
    dying = ops_for(bench.time, DiesWhileWriting(bench.carrier), bench.journal)
    with pytest.raises(Crash):
        await restore(dying, row)
    (left,) = await bench.journal.open_overrides()
    assert left.uncertain_until >= bench.time.wall() + UNCERTAIN_SECONDS - 1
    died = bench.time.now
    assert await bench.restored(left) == "restored"
    assert bench.time.now - died > LATE_SECONDS and bench.as_before


@pytest.mark.parametrize(("kind", "doubt"), [("429", 0.0), ("timeout_before", 60.0)])
async def test_the_journal_of_a_restore_knows_whether_its_last_write_may_land(
    kind: str, doubt: float
) -> None:
    """After a refusal the next start need not wait, if this process dies before it tries again."""
    bench = Bench()
    row = await bench.apply()
    bench.carrier.plan("write", kind)
    known: list[tuple[str, float]] = []

    async def sleep(seconds: float) -> None:
        left = bench.journal.overrides["o1"]
        known.append((left.state, left.uncertain_until))
        await bench.time.pause(seconds)

    bench.ops.sleep = sleep
    failed = bench.time.wall()
    assert await bench.restored(row) == "restored"
    assert known[0] == ("restoring", failed + doubt if doubt else 0.0)


async def test_a_claimed_override_whose_first_write_lands_after_its_restore() -> None:
    bench = Bench()
    dying = ops_for(bench.time, DiesWhileWriting(bench.carrier), bench.journal)
    with pytest.raises(Crash):
        await apply(dying, row_for(bench.sid), bench.time.now + 30)
    (left,) = await bench.journal.open_overrides()
    taken_up = await apply(bench.ops, left, bench.time.now + 30)
    seal = Seal.read(bench.voice_url)
    assert seal is not None and seal.override == "o1"
    # Its session closes at once; the first write comes 20 s later.
    assert await bench.restored(taken_up) == "restored"
    bench.time.advance(100.0)
    assert bench.as_before and await bench.journal.open_overrides() == []


async def test_a_claimed_override_that_is_refused_stays_open_for_its_first_write() -> None:
    bench = Bench()
    dying = ops_for(bench.time, DiesWhileWriting(bench.carrier), bench.journal)
    with pytest.raises(Crash):
        await apply(dying, row_for(bench.sid), bench.time.now + 30)
    (left,) = await bench.journal.open_overrides()
    bench.carrier.plan("write", "400")
    with pytest.raises(CarrierError):
        await apply(bench.ops, left, bench.time.now + 30)
    (left,) = await bench.journal.open_overrides()
    assert left.state == "restoring" and left.uncertain_until > bench.time.wall() + 50
    assert await bench.restored(left) == "restored"
    bench.time.advance(100.0)
    assert bench.as_before


async def test_a_doubt_that_a_clock_left_days_ahead_is_over_after_sixty_seconds() -> None:
    """The clock was fast when the row was written, and has been set right since."""
    bench = Bench()
    row = await bench.apply()
    ten_days = bench.time.wall() + 10 * 86_400.0
    await bench.journal.set_state("o1", "restoring", 0.0, ten_days)
    began = bench.time.now
    assert await bench.restored(replace(row, state="restoring", uncertain_until=ten_days)) == (
        "restored"
    )
    assert UNCERTAIN_SECONDS <= bench.time.now - began < UNCERTAIN_SECONDS + 1.0
    assert bench.as_before and bench.journal.overrides["o1"].state == "restored"


@pytest.mark.parametrize("hours", [-24.0, 24.0])
async def test_a_clock_that_is_set_meanwhile_changes_no_doubt(hours: float) -> None:
    bench = Bench()
    bench.carrier.plan("write", "late")  # it lands 20 s later
    bench.carrier.plan("read", "ok", *["500"] * 50)
    with pytest.raises(CarrierError):
        await bench.apply(seconds=1.0)
    bench.carrier.plans.clear()
    (row,) = await bench.journal.open_overrides()
    shift, began = 0.0, bench.time.now
    bench.ops.wall = lambda: bench.time.wall() + shift

    async def sleep(seconds: float) -> None:
        nonlocal shift
        shift = hours * 3600.0
        await bench.time.pause(seconds)

    bench.ops.sleep = sleep
    assert await bench.restored(row) == "restored"
    assert LATE_SECONDS < bench.time.now - began < UNCERTAIN_SECONDS + 1.0
    assert bench.as_before and len(bench.carrier.writes) == 2


async def test_what_somebody_else_wrote_between_our_read_and_our_write_is_put_back() -> None:
    bench = Bench()
    bench.carrier.plan("write", "429")
    theirs = "https://theirs.example.com"
    bench.time.at(bench.time.now + 1.0, lambda: bench.change(voice_url=theirs))
    row = await bench.apply()
    seal = Seal.read(bench.voice_url)
    assert seal is not None and seal.override == "o1"
    assert row.prior == bench.before.fields | {"voice_url": theirs}
    assert bench.ops.keys.prior(seal, OURS) == {
        name: row.prior[name] for name in bench.carrier.writes[-1]
    }
    assert await bench.restored(row) == "restored"
    assert bench.carrier.numbers[bench.sid].fields == row.prior


async def test_fields_of_ours_beside_somebody_elses_url_do_not_become_theirs() -> None:
    """Our write landed without an answer, and they changed voice_url before we looked again."""
    bench = Bench(voice_fallback_url="https://f.example.com")
    bench.carrier.plan("write", "timeout_after")
    theirs = "https://theirs.example.com"
    bench.time.at(bench.time.now + 0.1, lambda: bench.change(voice_url=theirs))
    row = await bench.apply()
    assert row.prior == bench.before.fields | {"voice_url": theirs}
    await bench.restored(row)
    bench.time.advance(100.0)
    assert bench.carrier.numbers[bench.sid].fields == row.prior
    assert await bench.journal.open_overrides() == []


async def test_a_write_that_misses_something_else_is_no_released_number() -> None:
    """404 to a write may mean the TwiML app that is to be put back: the number is still ours."""
    bench = Bench(voice_application_sid="AP1")
    bench.ops.take_over_routed = True
    row = await bench.apply()
    bench.carrier.plan("write", "404", "404")
    assert await bench.restored(row) == "restored"
    assert bench.as_before


async def test_a_number_that_is_gone_when_it_is_read() -> None:
    bench = Bench()
    bench.carrier.plan("read", "404")
    with pytest.raises(NumberNotFoundError, match=r"\*\*\*1234 is not on this Twilio account"):
        await bench.apply()
    assert not bench.carrier.writes and await bench.journal.open_overrides() == []


async def test_a_suspended_account() -> None:
    """Everything is refused with 403: clear errors, and the journal keeps what is to be done."""
    bench = Bench()
    row = await bench.apply()
    bench.carrier.plan("read", *["403"] * 6)
    seen: list[list[str]] = []
    waits: list[str] = []

    async def pause(seconds: float) -> None:
        seen.append([row.id for row in await bench.journal.open_overrides()])
        await bench.time.pause(seconds)

    bench.ops.sleep = pause
    assert await restore(bench.ops, row, waits.append) == "restored" and bench.as_before
    assert seen == [["o1"]] * 6
    assert len(waits) == 6 and all("may be suspended" in why for why in waits)
    other = Bench()
    other.carrier.plan("read", "403")
    with pytest.raises(CarrierError, match="may be suspended") as caught:
        await other.apply()
    assert caught.value.status == 403 and other.carrier.count("read") == 1


async def test_back_off_never_ends() -> None:
    bench = Bench()
    row = await bench.apply()
    bench.carrier.plan("read", *["500"] * 200)
    began = bench.time.now
    assert await bench.restored(row) == "restored"
    assert bench.time.now - began > 3600 and bench.as_before
