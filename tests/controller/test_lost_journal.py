"""A journal that is lost, or has rows that cannot be read: the numbers say what they were."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace
from simulation.account import PRIOR

from trunkline.bus.locks import FileLock
from trunkline.controller import events as ev
from trunkline.controller import instructions as do
from trunkline.controller.journal import state_dir
from trunkline.controller.journal.database import Outcome, Work
from trunkline.controller.journal.orphans import Orphans
from trunkline.controller.journal.store import Journal, peek
from trunkline.controller.twilio.apply_restore import restore
from trunkline.controller.twilio.carrier import CallState
from trunkline.controller.twilio.operations import Operations, settle, vouch
from trunkline.controller.twilio.sealed import LISTED_WITHIN, find_own

from .bench import DIAL, ORDER
from .fake_carrier import OURS, FakeCarrier, FakeTime, ops_for
from .machine import ACCOUNT, Machine, stack_id

OTHER = "+14155559999"


async def begun_anew(machine: Machine, token: str = "token") -> Operations:
    """The next start of stack aaa, whose journal is lost."""
    path = machine.directory / "stacks" / stack_id("aaa") / "journal.sqlite3"
    path.unlink()
    journal = await Journal.in_file(path, account=ACCOUNT, stack=stack_id("aaa"))
    return machine.ops(stack_id("aaa"), journal, token)


async def spoilt(machine: Machine, sql: str) -> Operations:
    """The next start of stack aaa, whose journal somebody has spoilt."""
    path = machine.directory / "stacks" / stack_id("aaa") / "journal.sqlite3"
    journal = await Journal.in_file(path, account=ACCOUNT, stack=stack_id("aaa"))
    await journal._do(lambda db: db.execute(sql))
    return machine.ops(stack_id("aaa"), journal)


async def test_own_numbers_are_found_and_put_back_and_others_left_alone(machine: Machine) -> None:
    await (await machine.overridden(OURS, stack_id("aaa"))).close()
    await (await machine.overridden(OTHER, stack_id("bbb"))).close()
    ops = await begun_anew(machine)
    await find_own(ops, [])
    (row,) = await ops.journal.open_overrides()
    assert (row.number, row.state, row.id) == (OURS, "restoring", f"o-{stack_id('aaa')}")
    await find_own(ops, [])  # a start that died in between
    assert await ops.journal.open_overrides() == [row]
    assert await restore(ops, row) == "restored"
    assert machine.voice_url(OURS) == PRIOR != machine.voice_url(OTHER)
    await ops.journal.close()


async def test_a_seal_of_another_token_is_told(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    await (await machine.overridden(OURS, stack_id("aaa"), token="former")).close()
    ops = await begun_anew(machine)
    await find_own(ops, [])
    assert await ops.journal.open_overrides() == []
    assert "***1234: its override was made with another auth token" in caplog.text
    await ops.journal.close()


async def test_a_list_that_fails_ends_no_start(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    await (await machine.overridden(OURS, stack_id("aaa"))).close()
    ops = await begun_anew(machine)
    machine.carrier.plan("list", *["500"] * 100)
    began = machine.time.now
    await find_own(ops, [])
    assert machine.time.now - began <= LISTED_WITHIN
    assert "run `trunkline restore --account`" in caplog.text
    await ops.journal.close()


@pytest.mark.parametrize("listed", [True, False])
async def test_a_row_that_cannot_be_read_is_made_anew_from_its_number(
    machine: Machine, listed: bool
) -> None:
    await (await machine.overridden(OURS, stack_id("aaa"))).close()
    ops = await spoilt(machine, "UPDATE overrides SET prior = '{'")
    if not listed:
        machine.carrier.plan("list", *["500"] * 100)
    await find_own(ops, await ops.journal.unreadable())
    assert bool(await ops.journal.unreadable()) != listed
    rows = await ops.journal.open_overrides()
    assert [row.state for row in rows] == ["restoring"] * listed
    for row in rows:
        assert await restore(ops, row) == "restored" and machine.voice_url(OURS) == PRIOR
    await ops.journal.close()


async def test_a_start_that_dies_leaves_the_row_that_cannot_be_read_or_the_new_one(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without either the next start would not look for the number's seal."""
    await (await machine.overridden(OURS, stack_id("aaa"))).close()
    ops = await spoilt(machine, "UPDATE overrides SET prior = '{'")
    transactions, run = [], ops.journal._db.run

    def watched(work: Sequence[Work]) -> list[Outcome]:
        outcomes = run(work)
        known = peek(machine.directory / "stacks" / stack_id("aaa") / "journal.sqlite3")
        transactions.append(len(known.unreadable) + len(known.overrides))
        return outcomes

    unreadable = await ops.journal.unreadable()
    monkeypatch.setattr(ops.journal._db, "run", watched)
    await find_own(ops, unreadable)
    assert transactions and set(transactions) == {1}
    await ops.journal.close()


async def test_a_row_that_cannot_be_read_of_a_number_that_is_not_ours_any_more(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    await (await machine.overridden(OURS, stack_id("aaa"))).close()
    await machine.run()
    assert machine.voice_url(OURS) == PRIOR
    ops = await spoilt(machine, "UPDATE overrides SET written = NULL, state = 'applied'")
    await find_own(ops, await ops.journal.unreadable())
    assert await ops.journal.unreadable() == await ops.journal.open_overrides() == []
    assert "***1234 carries no override of this stack any more" in caplog.text
    await ops.journal.close()


async def test_the_command_names_what_it_cannot_read(machine: Machine) -> None:
    await (await machine.overridden(OURS, stack_id("aaa"))).close()
    await (await machine.overridden(OTHER, stack_id("bbb"))).close()
    ops = await spoilt(machine, "UPDATE overrides SET prior = 'x'")
    await ops.journal.close()
    cut = machine.directory / "stacks" / stack_id("bbb") / "journal.sqlite3"
    cut.write_bytes(b"")
    run = await machine.run()
    assert run.pending and len(run.lines) == 2
    assert all("`trunkline restore --account`" in line for line in run.lines)
    assert any(line.startswith(f"{cut}: the journal is empty") for line in run.lines)
    await machine.run(account=True)
    assert machine.voice_url(OURS) == machine.voice_url(OTHER) == PRIOR


async def test_what_another_stack_left_unreadable_is_told_and_kept(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    await (await machine.overridden(OURS, stack_id("aaa"))).close()
    ops = await spoilt(machine, "UPDATE overrides SET prior = 'x'")
    await ops.journal.close()

    async def silent(base: str, stack: str) -> bool:
        return False

    caplog.set_level(logging.ERROR)
    assert Orphans.find(machine.directory, ACCOUNT, "us", silent).found == []
    assert f"override o-{stack_id('aaa')} (***1234) cannot be read" in caplog.text


# --------------------------------------------------------------------------- the stack's id


def test_a_stack_whose_journal_is_gone_keeps_its_id(tmp_path: Path) -> None:
    for _ in range(2):  # a start that did not get far has lost nothing
        first = state_dir.own(tmp_path, ACCOUNT, "us")
        assert first.new
        first.release()
    first.begun()
    again = state_dir.own(tmp_path, ACCOUNT, "us")
    assert again.id == first.id and not again.new
    again.journal.touch()
    again.release()
    found = state_dir.own(tmp_path, ACCOUNT, "us")
    assert found.id == first.id and not found.new
    # A stack of another account, or one that lives, is not taken for it.
    other = state_dir.own(tmp_path, "AC" + "2" * 32, "us")
    assert other.id != first.id and other.new
    found.journal.unlink()
    assert state_dir.own(tmp_path, ACCOUNT, "them").id != first.id
    with pytest.raises(Exception, match="held"):
        FileLock(first.path / "lock", "them")


# --------------------------------------------------------------------------- Twilio, and the clock


async def test_whether_a_call_lives() -> None:
    time = FakeTime()
    carrier = FakeCarrier(time)
    ops = ops_for(time, carrier, None)
    call = await carrier.create_call(ORDER)
    carrier.plan("fetch", "404")
    assert await vouch(ops, do.Vouch(call.sid)) == ev.Vouched(call.sid, None)
    assert await vouch(ops, do.Vouch(call.sid)) == ev.Vouched(call.sid, True)
    carrier.plan("fetch", "500")
    assert await vouch(ops, do.Vouch(call.sid)) == ev.Vouched(call.sid, None)
    await carrier.end_call(call.sid)
    assert await vouch(ops, do.Vouch(call.sid)) == ev.Vouched(call.sid, False)


async def test_the_call_of_a_dial_that_was_asked_for_by_a_fast_clock_is_found() -> None:
    time = FakeTime()
    carrier = FakeCarrier(time)
    call = await carrier.create_call(ORDER)
    list_calls, created = carrier.list_calls, time.wall()
    row = replace(DIAL, asked=created + 10 * 86_400.0)

    async def since(to: str, from_: str, since: float) -> list[CallState]:
        return await list_calls(to, from_, since) if since <= created else []

    carrier.list_calls = since  # type: ignore[method-assign]  # Twilio lists what is younger
    found = await settle(ops_for(time, carrier, None), row, lambda: True, lambda sid: False)
    assert isinstance(found, ev.Taken) and found.sid == call.sid
