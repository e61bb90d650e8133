"""``trunkline restore`` without a stack: journals, seals, live stacks, calls that were left."""

from __future__ import annotations

from collections.abc import Awaitable
from pathlib import Path

import pytest
from msgspec.structs import replace
from simulation.account import PRIOR

from trunkline.bus.errors import CarrierError, SettingsError
from trunkline.bus.locks import FileLock
from trunkline.bus.redact import mask_url
from trunkline.controller.restore_command import RestoreRun, restore_command
from trunkline.controller.twilio.seal import SealKeys

from .bench import DIAL, ORDER
from .fake_carrier import OURS
from .machine import ACCOUNT, Machine, stack_id

OTHER = "+14155559999"


async def test_a_damaged_journal_stops_nobody_elses_restore(machine: Machine) -> None:
    for name, number in (("aaa", OURS), ("bbb", OTHER)):
        await (await machine.overridden(number, stack_id(name))).close()
    damaged = machine.directory / "stacks" / stack_id("aaa") / "journal.sqlite3"
    damaged.write_bytes(b"no database" * 500)
    run = await machine.run()
    assert run.pending and machine.voice_url(OTHER) == PRIOR != machine.voice_url(OURS)
    assert any(str(damaged) in line and "left as it is" in line for line in run.lines)
    assert damaged.read_bytes() == b"no database" * 500
    # What the journal cannot tell, the seal can.
    run = await machine.run(account=True)
    assert machine.voice_url(OURS) == PRIOR


async def test_a_state_directory_that_cannot_be_used_is_said_and_none_is_made(
    machine: Machine,
) -> None:
    """No journal lies there, but the one that was meant may lie elsewhere."""

    def run(directory: Path) -> Awaitable[tuple[int, list[str]]]:
        settings = machine.settings.changed(state_dir=directory)
        return restore_command(settings, dry_run=True, account=False, force=False)

    assert await run(machine.directory) == (0, []), "nothing has run here yet"
    assert not machine.directory.exists()
    machine.directory.write_text("")
    for wrong in (machine.directory, machine.directory / "below"):
        with pytest.raises(SettingsError, match=f"='{wrong}': .*/state is not a directory"):
            await run(wrong)


async def test_calls_that_were_left_are_hung_up(machine: Machine) -> None:
    journal = await machine.overridden(OURS, stack_id("aaa"))
    call = await machine.carrier.create_call(ORDER)
    await journal.dial_asked(replace(DIAL, asked=machine.time.wall()))
    await journal.dial_asked(replace(DIAL, request="s" * 32, sid="CA9", state="taken"))
    await journal.close()
    dry = RestoreRun(machine.ops(), dry_run=True)
    await dry.journals(machine.settings, ACCOUNT)
    assert dry.pending and sum("would be hung up" in line for line in dry.lines) == 2
    assert not machine.carrier.calls[call.sid].ended
    run = await machine.run()
    assert not run.pending and machine.voice_url(OURS) == PRIOR
    assert machine.carrier.calls[call.sid].ended
    assert [what for name, what in machine.carrier.log if name == "end"].count("CA9") == 1
    assert not (await machine.run()).lines


async def test_a_stack_that_lives_here_is_left_alone_even_when_its_url_is_silent(
    machine: Machine,
) -> None:
    """The lock shows that it lives; its tunnel may be down."""
    journal = await machine.overridden(OURS, stack_id("aaa"))
    lock = FileLock(machine.directory / "stacks" / stack_id("aaa") / "lock", "controller (pid 7)")
    run = await machine.run(account=True)
    assert run.pending and machine.voice_url(OURS) != PRIOR
    assert any("controller (pid 7)" in line and "left alone" in line for line in run.lines)
    assert any("which lives" in line for line in run.lines)
    lock.release()
    await journal.close()


async def test_a_number_that_is_taken_by_force_is_not_said_to_be_left_alone(
    machine: Machine,
) -> None:
    journal = await machine.overridden(OURS, stack_id("aaa"))
    lock = FileLock(machine.directory / "stacks" / stack_id("aaa") / "lock", "controller (pid 7)")
    run = await machine.run(account=True, force=True)
    assert machine.voice_url(OURS) == PRIOR
    assert not run.pending
    assert [line.partition(": ")[2] for line in run.lines] == [f"put back to {mask_url(PRIOR)}"]
    lock.release()
    await journal.close()


async def test_account_restore_on_a_machine_that_never_saw_the_journal(
    machine: Machine,
) -> None:
    await (await machine.overridden(OURS, stack_id("aaa"))).close()
    before = machine.time.now
    run = RestoreRun(machine.ops(), dry_run=False)
    await run.seals()
    assert not run.pending and machine.voice_url(OURS) == PRIOR
    assert machine.time.now - before >= 10.0  # its stack was asked three times over 10 s
    assert [n.fields["voice_fallback_url"] for n in machine.carrier.numbers.values()] == [""]


@pytest.mark.parametrize("secondary", ["", "former"])
async def test_a_seal_of_the_former_token_needs_that_token(
    machine: Machine, secondary: str
) -> None:
    await (await machine.overridden(OURS, stack_id("aaa"), token="former")).close()
    ops = machine.ops()
    ops.keys = SealKeys("token", secondary)
    run = RestoreRun(ops, dry_run=False)
    await run.seals()
    assert run.pending != bool(secondary)
    assert (machine.voice_url(OURS) == PRIOR) == bool(secondary)
    if not secondary:
        assert "TWILIO_AUTH_TOKEN_SECONDARY" in run.lines[0]


async def test_the_journals_file_has_no_password_and_another_token_is_asked_for_by_name(
    machine: Machine,
) -> None:
    journal = await machine.overridden(OURS, stack_id("aaa"), token="former")
    files = list((machine.directory / "stacks" / stack_id("aaa")).glob("journal*"))
    assert len(files) == 3 and not any(b":secret@" in file.read_bytes() for file in files)
    await journal.close()
    run = await machine.run()
    assert run.pending and machine.voice_url(OURS) != PRIOR
    assert run.lines == [
        "number ***1234: the journal has its prior URL's password sealed with another auth token: "
        "set TWILIO_AUTH_TOKEN_SECONDARY to that one"
    ]
    ops = machine.ops()
    ops.keys = SealKeys("token", "former")
    run = await machine.run(ops=ops)
    assert not run.pending and machine.voice_url(OURS) == PRIOR


async def test_a_list_that_fails_is_an_error(machine: Machine) -> None:
    machine.carrier.plan("list", "403")
    with pytest.raises(CarrierError, match="may be suspended"):
        await RestoreRun(machine.ops(), dry_run=False).seals()
