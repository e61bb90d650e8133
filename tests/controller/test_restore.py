"""Overrides and restores against a carrier that fails in every way, and against other people."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace
from simulation.account import PRIOR
from simulation.memory_journal import MemoryJournal

from trunkline.bus.errors import (
    CarrierError,
    NumberBusyError,
    NumberNotFoundError,
    NumberRoutedElsewhereError,
)
from trunkline.controller.twilio.apply_restore import apply, restore
from trunkline.controller.twilio.number_settings import NumberSettings
from trunkline.controller.twilio.operations import HURRIED_PAUSE
from trunkline.controller.twilio.override import STALE_EVERY, STALE_SECONDS
from trunkline.controller.twilio.seal import Seal, SealKeys

from .bench import Bench
from .fake_carrier import ops_for, row_for


async def test_apply_and_restore() -> None:
    bench = Bench(voice_method="GET", voice_fallback_url="https://f.example.com")
    row = await bench.apply()
    fields = bench.carrier.numbers[bench.sid].fields
    seal = Seal.read(fields["voice_url"])
    assert seal is not None and (seal.override, seal.stack) == ("o1", "stack")
    assert fields["voice_method"] == "POST"
    assert (fields["voice_fallback_url"], fields["voice_fallback_method"]) == (PRIOR, "GET")
    assert row.prior == bench.before.fields
    assert await bench.restored(row) == "restored"
    assert bench.as_before and len(bench.carrier.writes) == 2
    # Any number of times, with the same result.
    assert await bench.restored(replace(row, state="restoring")) == "restored"
    assert bench.as_before and len(bench.carrier.writes) == 2


async def test_reads_that_are_out_of_date_do_not_leave_the_override_on_the_number() -> None:
    bench = Bench()
    row = replace(await bench.apply(), since=bench.time.wall())
    fresh, stale = bench.carrier.read_number, [bench.before] * 3

    async def read(sid: str) -> NumberSettings:
        return stale.pop() if stale else await fresh(sid)

    bench.carrier.read_number = read  # type: ignore[method-assign]  # one carrier's reads
    assert await bench.restored(row) == "restored"
    assert bench.as_before and len(bench.carrier.writes) == 2


@pytest.mark.parametrize("clock_was_ahead", [0.0, 864_000.0])
async def test_a_number_that_was_put_back_by_hand_is_read_again_for_a_while_only(
    clock_was_ahead: float,
) -> None:
    bench = Bench()
    row = replace(await bench.apply(), since=bench.time.wall() + clock_was_ahead)
    bench.change(**bench.before.fields)
    began = bench.time.wall()
    assert await bench.restored(row) == "restored"
    assert len(bench.carrier.writes) == 1
    assert bench.time.wall() - began == pytest.approx(STALE_SECONDS, abs=STALE_EVERY)


async def test_what_is_still_ours_goes_back_though_the_voice_url_was_put_back_by_hand() -> None:
    before = {"voice_method": "GET", "voice_fallback_url": "https://spare.example.com/"}
    bench = Bench(**before)
    row = await bench.apply()
    bench.change(voice_url=bench.before.voice_url, status_callback="https://theirs.example.com/")
    assert await bench.restored(row) == "restored"
    bench.change(status_callback=bench.before.fields["status_callback"])
    assert bench.as_before


async def test_a_put_back_is_journalled_before_the_number_is_read() -> None:
    """The next start would keep the number for its session otherwise, if Twilio does not answer."""
    bench = Bench()
    row = await bench.apply()
    states, read = [], bench.carrier.read_number

    async def looked(sid: str) -> NumberSettings:
        stands = await bench.journal.override(row.id)
        states.append(stands and stands.state)
        return await read(sid)

    bench.carrier.read_number = looked  # type: ignore[method-assign]  # one carrier's reads
    assert await bench.restored(row) == "restored"
    assert states and set(states) == {"restoring"}


def _waits(bench: Bench, operation: str, *waits: Callable[[], None]) -> None:
    """The journal's ``operation`` takes 30 s for each of ``waits``, which is called meanwhile."""
    left = list(waits)
    at_once = getattr(bench.journal, operation)

    async def slow(*args: Any) -> None:
        if left:
            left.pop(0)()
            bench.time.advance(30.0)
        await at_once(*args)

    setattr(bench.journal, operation, slow)


async def test_what_somebody_sets_while_the_journal_waits_is_not_written_over() -> None:
    bench = Bench()
    row = await bench.apply()
    _waits(bench, "set_state", lambda: bench.change(voice_url="https://theirs.example.com"))
    assert await bench.restored(row) == "left_alone"
    assert bench.voice_url == "https://theirs.example.com" and len(bench.carrier.writes) == 1


async def test_what_somebody_sets_while_an_override_is_journalled_is_put_back() -> None:
    bench = Bench(voice_method="GET")
    theirs = {"voice_url": "https://theirs.example.com", "voice_method": "POST"}
    _waits(bench, "intend", lambda: bench.change(**theirs))
    row = await bench.apply(seconds=60.0)
    assert row.prior is not None and row.prior | theirs == row.prior
    assert len(bench.carrier.writes) == 1
    assert await bench.restored(row) == "restored"
    assert {name: bench.carrier.numbers[bench.sid].fields[name] for name in theirs} == theirs


@pytest.mark.parametrize("field", ["voice_method", "voice_fallback_url"])
async def test_so_it_is_where_their_voice_url_is_the_same(field: str) -> None:
    bench = Bench(voice_method="GET")
    theirs = {"voice_method": "POST", "voice_fallback_url": "https://theirs.example.com"}[field]
    _waits(bench, "intend", lambda: bench.change(**{field: theirs}))
    assert await bench.restored(await bench.apply(seconds=60.0)) == "restored"
    assert bench.carrier.numbers[bench.sid].fields[field] == theirs


async def test_a_journal_that_is_always_slow_keeps_no_number() -> None:
    bench = Bench()
    row = await bench.apply()
    _waits(bench, "set_state", *[lambda: None] * 100)
    assert await bench.restored(row) == "restored"
    assert bench.as_before and bench.carrier.count("read") < 10


async def test_number_without_a_voice_url() -> None:
    bench = Bench(voice_url="")
    row = await bench.apply()
    assert "voice_fallback_url" not in bench.carrier.writes[0]
    await bench.restored(row)
    assert bench.as_before


async def test_fallback_can_be_left_alone() -> None:
    bench = Bench()
    bench.ops.fallback_to_prior = False
    row = await bench.apply()
    assert set(bench.carrier.writes[0]) == {"voice_url", "voice_method"}
    await bench.restored(row)
    assert bench.as_before


@pytest.mark.parametrize("field", ["voice_application_sid", "trunk_sid"])
async def test_routed_elsewhere(field: str) -> None:
    bench = Bench(**{field: "XX1"})
    with pytest.raises(NumberRoutedElsewhereError, match="TRUNKLINE_TAKE_OVER_ROUTED") as caught:
        await bench.apply()
    assert caught.value.routed_to == "XX1"
    assert not bench.carrier.writes and await bench.journal.open_overrides() == []
    bench.ops.take_over_routed = True
    row = await bench.apply("o2")
    assert bench.carrier.numbers[bench.sid].fields[field] == ""
    await bench.restored(row)
    assert bench.as_before


async def test_fax_number_answers_voice_meanwhile() -> None:
    bench = Bench(voice_receive_mode="fax")
    row = await bench.apply()
    assert bench.carrier.numbers[bench.sid].fields["voice_receive_mode"] == "voice"
    await bench.restored(row)
    assert bench.as_before


# --------------------------------------------------------------------------- REST that fails


@pytest.mark.parametrize("operation", ["read", "write"])
@pytest.mark.parametrize(
    "kind", ["429", "refused", "500", "500_after", "timeout_before", "timeout_after", "late"]
)
async def test_apply_gets_through(operation: str, kind: str) -> None:
    bench = Bench()
    bench.carrier.plan(operation, kind)
    row = await bench.apply()
    seal = Seal.read(bench.voice_url)
    assert seal is not None and seal.override == "o1"
    assert row.prior is not None and row.prior["voice_url"] == PRIOR
    await bench.restored(row)
    bench.time.advance(100.0)
    assert bench.as_before and await bench.journal.open_overrides() == []


async def test_retry_after_is_kept_to() -> None:
    bench = Bench()
    bench.carrier.plan("write", "429")
    began = bench.time.now
    await bench.apply()
    assert bench.time.now - began >= 3.0


async def test_a_failed_read_never_leads_to_a_write() -> None:
    bench = Bench()
    bench.carrier.plan("read", *["500"] * 100)
    with pytest.raises(CarrierError, match="HTTP 500"):
        await bench.apply()
    assert not bench.carrier.writes and await bench.journal.open_overrides() == []


async def test_refused_credentials() -> None:
    bench = Bench()
    bench.carrier.plan("read", "401")
    with pytest.raises(CarrierError, match="TWILIO_AUTH_TOKEN") as caught:
        await bench.apply()
    assert (caught.value.status, caught.value.code) == (401, 20003)
    assert bench.carrier.count("read") == 1


async def test_an_apply_that_twilio_refuses_leaves_nothing_open() -> None:
    bench = Bench()
    bench.carrier.plan("write", "400")
    with pytest.raises(CarrierError, match="21211"):
        await bench.apply()
    assert await bench.journal.open_overrides() == []


async def test_two_overrides_in_a_row_keep_the_first_prior() -> None:
    """The first was never put back: its process died, and nobody has recovered it yet."""
    bench = Bench()
    await bench.apply("o1")
    second = await bench.apply("o2")
    assert second.prior is not None and second.prior["voice_url"] == bench.before.voice_url
    for row in await bench.journal.open_overrides():
        await bench.restored(row)
    assert bench.as_before


async def test_released_number() -> None:
    bench = Bench()
    bench.carrier.plan("write", "404")
    with pytest.raises(NumberNotFoundError):
        await bench.apply()
    row = await bench.apply("o2")
    del bench.carrier.numbers[bench.sid]
    assert await bench.restored(row) == "left_alone"


async def test_apply_that_does_not_get_through_in_time_is_restored_later() -> None:
    bench = Bench()
    bench.carrier.plan("write", *["timeout_before"] * 3, "late")
    bench.carrier.plan("read", "ok", *["500"] * 50)
    with pytest.raises(CarrierError):
        await bench.apply(seconds=8.0)
    (row,) = await bench.journal.open_overrides()
    assert row.state == "restoring" and row.uncertain_until > bench.time.wall() + 50
    bench.carrier.plans.clear()
    assert await bench.restored(row) == "restored"
    bench.time.advance(100.0)
    assert bench.as_before


@pytest.mark.parametrize(
    "kinds",
    [
        ["429"] * 5,
        ["refused", "500", "timeout_before"],
        ["timeout_after"],
        ["late"],
        ["late", "late", "500_after"],
        ["401", "401"],
    ],
)
@pytest.mark.parametrize("operation", ["read", "write"])
async def test_restore_tries_until_it_succeeds(operation: str, kinds: list[str]) -> None:
    bench = Bench()
    row = await bench.apply()
    bench.carrier.plan(operation, *kinds)
    assert await bench.restored(row) == "restored"
    bench.time.advance(100.0)
    assert bench.as_before


@pytest.mark.parametrize("operation", ["read", "write"])
async def test_a_restore_keeps_to_retry_after(operation: str) -> None:
    bench = Bench()
    row = await bench.apply()
    bench.carrier.plan(operation, "429")
    began = bench.time.now
    assert await bench.restored(row) == "restored"
    assert bench.time.now - began >= 3.0


async def test_a_restore_writes_nothing_while_it_cannot_read() -> None:
    bench = Bench()
    row = await bench.apply()
    bench.carrier.plan("read", "500", "timeout_before", "401", "403", "429", "refused")
    theirs = "https://theirs.example.com"
    bench.time.at(bench.time.now + 2.0, lambda: bench.change(voice_url=theirs))
    assert await bench.restored(row) == "left_alone"
    assert bench.voice_url == theirs and len(bench.carrier.writes) == 1


async def test_a_restore_says_what_it_waits_for() -> None:
    bench = Bench()
    row = await bench.apply()
    bench.carrier.plan("write", "500")
    waits: list[str] = []
    assert await restore(bench.ops, row, waits.append) == "restored"
    assert "HTTP 500" in waits[0]


async def test_shutdown_hurries() -> None:
    bench = Bench()
    bench.carrier.plan("read", *["429"] * 3)
    asked = asyncio.ensure_future(bench.apply(seconds=1000.0))
    await asyncio.sleep(0)
    bench.ops.hurry()
    with pytest.raises(CarrierError):
        await asked
    assert await bench.journal.open_overrides() == []


# --------------------------------------------------------------------------- other people


async def test_someone_elses_change_is_left_alone() -> None:
    bench = Bench()
    row = await bench.apply()
    bench.change(voice_url="https://theirs.example.com")
    assert await bench.restored(row) == "left_alone"
    assert bench.voice_url == "https://theirs.example.com" and len(bench.carrier.writes) == 1


async def test_what_is_left_alone_is_reported_with_what_we_had_set_beside_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()
    row = await bench.apply()
    bench.change(voice_url="https://theirs.example.com", voice_method="GET")
    assert await bench.restored(row) == "left_alone"
    (said,) = [r.getMessage() for r in caplog.records if "someone else" in r.getMessage()]
    assert "***1234" in said and said.endswith("; still as we set them: voice_fallback_url")


async def test_someone_elses_field_is_kept() -> None:
    bench = Bench()
    row = await bench.apply()
    bench.change(voice_fallback_url="https://new.example.com", status_callback="https://s")
    await bench.restored(row)
    fields = bench.carrier.numbers[bench.sid].fields
    assert fields["voice_url"] == PRIOR
    assert fields["voice_fallback_url"] == "https://new.example.com"
    assert fields["status_callback"] == "https://s"


async def test_another_session_override_is_not_undone() -> None:
    bench = Bench()
    first = await bench.apply("o1")
    await bench.restored(first)
    await bench.apply("o2")
    assert await bench.restored(replace(first, state="restoring")) == "left_alone"
    seal = Seal.read(bench.voice_url)
    assert seal is not None and seal.override == "o2"


@pytest.mark.parametrize("lives", [True, False])
async def test_another_stacks_seal(lives: bool) -> None:
    bench = Bench()
    other = ops_for(bench.time, bench.carrier, MemoryJournal())
    other.stack = "other"
    await apply(other, row_for(bench.sid, "theirs"), bench.time.now + 30)
    asked: list[tuple[str, str]] = []

    async def probe(base: str, stack: str) -> bool:
        asked.append((base, stack))
        return lives and len(asked) > 1  # it does not answer at once

    bench.ops.probe = probe
    if lives:
        with pytest.raises(NumberBusyError) as caught:
            await bench.apply()
        assert caught.value.holder == "stack other"
        assert len(bench.carrier.writes) == 1
    else:
        row = await bench.apply()
        await bench.restored(row)
        assert bench.as_before
    assert set(asked) == {("https://line.example.com", "other")}
    assert len(asked) == (2 if lives else 3)


async def test_whether_another_stack_lives_is_asked_once_for_a_write_that_is_repeated() -> None:
    """Asking takes 10 s, and the time of who waits for the number is not longer than 30 s."""
    bench = Bench()
    other = ops_for(bench.time, bench.carrier, MemoryJournal())
    other.stack = "other"
    await apply(other, row_for(bench.sid, "theirs"), bench.time.now + 30)
    asked: list[str] = []

    async def probe(base: str, stack: str) -> bool:
        asked.append(stack)
        return False

    bench.ops.probe = probe
    bench.carrier.plan("write", "429", "timeout_before")
    row = await bench.apply()
    assert asked == ["other"] * 3
    await bench.restored(row)
    assert bench.as_before


async def test_what_looks_like_a_seal_of_another_token_is_theirs() -> None:
    bench = Bench()
    fake = "https://x.example.com/twilio/voice?o=1&s=2&p=AAAA"
    bench.change(voice_url=fake)
    row = await bench.apply()
    await bench.restored(row)
    assert bench.voice_url == fake


async def test_late_write_of_an_earlier_override_of_ours_is_undone() -> None:
    bench = Bench()
    first = await bench.apply("o1")
    url = bench.voice_url
    await bench.restored(first)
    second = await bench.apply("o2")
    bench.change(voice_url=url)  # o1's write lands once more
    assert await bench.restored(second) == "restored"
    assert bench.as_before


async def test_taken_up_after_a_change_by_someone_else() -> None:
    bench = Bench()
    await bench.journal.plan(row_for(bench.sid), 0.0)
    written = {"voice_url": "https://line.example.com/twilio/voice?o=o1&s=stack&p=x"}
    await bench.journal.intend("o1", bench.before.fields, written, 0.0)
    bench.change(voice_url="https://theirs.example.com")
    row = await bench.journal.override("o1")
    assert row is not None
    taken = await apply(bench.ops, row, bench.time.now + 30)
    assert taken.prior is not None and taken.prior["voice_url"] == "https://theirs.example.com"
    await bench.restored(taken)
    assert bench.voice_url == "https://theirs.example.com"


# --------------------------------------------------------------------------- passwords


async def test_the_journal_has_passwords_sealed_and_none_once_an_override_is_over() -> None:
    """Of the prior voice_url, and of the fallback that an override writes."""
    bench = Bench()
    assert ":secret@" in bench.before.fields["voice_url"]
    row = await bench.apply()
    assert row.prior is not None and row.prior["voice_url"] == PRIOR
    journalled = bench.journal.overrides["o1"]
    for fields in (journalled.prior, journalled.written):
        assert "secret" not in str(fields) and ":trunkline-sealed." in str(fields)
    # The next controller has only the journal.
    assert await bench.restored(journalled) == "restored"
    assert bench.as_before
    closed = bench.journal.overrides["o1"]
    for fields in (closed.prior, closed.written):
        assert "secret" not in str(fields) and "sealed" not in str(fields)


async def test_an_override_that_never_got_on_leaves_no_password() -> None:
    bench = Bench()
    bench.carrier.plan("write", "400")
    with pytest.raises(CarrierError):
        await bench.apply()
    assert "sealed" not in str(bench.journal.overrides["o1"])
    assert bench.as_before


async def test_with_another_token_the_number_waits_and_the_right_one_is_named() -> None:
    """A password that cannot be opened must not be written: the number would answer nobody."""
    bench = Bench()
    row = await bench.apply()
    bench.ops.keys = SealKeys("rotated")
    said: list[str] = []
    waiting = asyncio.ensure_future(restore(bench.ops, bench.journal.overrides["o1"], said.append))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert said == [
        "number ***1234: the journal has its prior URL's password sealed with another auth token: "
        "set TWILIO_AUTH_TOKEN_SECONDARY to that one"
    ]
    assert not waiting.done() and len(bench.carrier.writes) == 1
    waiting.cancel()
    bench.ops.keys = SealKeys("rotated", "token")
    assert await bench.restored(bench.journal.overrides["o1"]) == "restored"
    assert bench.as_before and row.state == "applied"


async def test_a_late_write_of_an_override_whose_password_is_gone_is_undone_by_its_seal() -> None:
    bench = Bench()
    await bench.restored(await bench.apply("o1"))
    late = bench.carrier.writes[0]
    bench.change(**late)  # the first write takes effect now
    row = await bench.apply("o2")
    assert row.prior is not None and row.prior["voice_url"] == PRIOR
    assert await bench.restored(row) == "restored"
    assert bench.voice_url == PRIOR


async def test_the_log_says_how_long_a_pause_of_a_hurried_restore_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()
    row = await bench.apply()
    bench.ops.hurry()
    bench.carrier.plan("write", *["500"] * 6)
    await bench.restored(row)
    waits = {
        message.rpartition("again in ")[2] for message in caplog.messages if "again" in message
    }
    assert waits == {"0.25 s", f"{HURRIED_PAUSE:g} s"}
