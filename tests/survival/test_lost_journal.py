"""A journal that was cut, or has rows that nobody can read, is told by name; the numbers themselves
say what they were before."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.stack import ALICE, BOB, Stack, until

from trunkline import Line

from .conversations import kill


async def armed_and_killed(stack: Stack) -> Path:
    """Two numbers are overridden when everything dies. Returns the stack's journal."""
    stack.up(gateways=1, codec_workers=1)
    clients = [stack.client("wait", number) for number in (ALICE, BOB)]
    await until(lambda: len(stack.changed_numbers()) == 2, "two numbers are armed")
    for client in clients:
        kill(client.pid)
    stack.kill_stack()
    for client in clients:
        client.wait()
    return journal_of(stack)


def journal_of(stack: Stack) -> Path:
    (journal,) = Path(stack.environment["TRUNKLINE_STATE_DIR"]).glob("stacks/*/journal.sqlite3")
    return journal


@pytest.mark.parametrize("how", ["cut", "moved away"])
async def test_a_journal_that_is_lost(new_stack: Callable[[], Stack], how: str) -> None:
    stack = new_stack()
    journal = await armed_and_killed(stack)
    for beside in journal.parent.glob("journal.sqlite3-*"):
        beside.unlink()
    if how == "cut":
        journal.write_bytes(b"")
    else:
        journal.rename(stack.directory / "elsewhere")

    stack.up(gateways=1, codec_workers=1)
    said = [line for line in stack.lines("up") if str(journal) in line]
    assert any("the journal is empty" in line for line in said) == (how == "cut")
    assert any(f"the journal of stack {journal.parent.name} is gone" in line for line in said)
    await until(lambda: stack.changed_numbers() == {}, "both numbers are as before")
    assert stack.status()["controller"]["epoch"] > 1_000_000, "later than what peers may know"
    # It is the same stack, and its line is served.
    assert [path.name for path in journal.parent.parent.iterdir()] == [journal.parent.name]
    async with Line(ALICE, bus=stack.bus) as line:
        waiting = asyncio.ensure_future(line.wait_for_call(30.0))
        await until(lambda: stack.armed(ALICE), "the number is armed")
        stack.sim.place_call("+14155550000", ALICE, "silence")
        await (await waiting).hang_up()
    await until(lambda: not stack.live_calls(), "the call is over")


async def test_rows_that_cannot_be_read(new_stack: Callable[[], Stack]) -> None:
    stack = new_stack()
    journal = await armed_and_killed(stack)
    with sqlite3.connect(journal) as db:
        db.execute("UPDATE overrides SET prior = 'no JSON' WHERE number = ?", (ALICE,))
        db.execute("UPDATE overrides SET written = NULL WHERE number = ?", (BOB,))
    db.close()

    # Without a stack, what to do is said.
    told = stack.command("restore")
    assert told.returncode == 3 and told.stdout.count("`trunkline restore --account`") == 2
    assert "prior: " in told.stdout and "written is not there" in told.stdout
    assert stack.held(ALICE) and stack.held(BOB)
    stack.up(gateways=1, codec_workers=1)
    await until(lambda: stack.changed_numbers() == {}, "both numbers are as before")
    said = [line for line in stack.lines("up") if "cannot be read" in line]
    assert len(said) == 2 and all(str(journal) in line for line in said)
