"""The supervisor dies, or everything does; a stack ends; a machine never comes back."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from e2e.stack import ALICE, BOB, CALLEE, CALLER, CAROL, DAVE, PRIOR, Stack, until

from trunkline import Line

from .conversations import UNREACHED, kill

#: From SIGTERM, or the supervisor's death, to the end of all processes; and some.
ENDS_WITHIN = 4.0 + 0.5
#: From a start to restored numbers, after everything was killed; and some.
RESTORED_WITHIN = 12.0 + 0.5


async def in_use(stack: Stack) -> Line:
    """A line of this process on ALICE, which is armed, and a call on it."""
    line = await Line(ALICE, bus=stack.bus).open()
    waiting = asyncio.ensure_future(line.wait_for_call(20.0))
    await until(lambda: stack.armed(ALICE), "the number is armed")
    stack.sim.place_call(CALLER, ALICE, "echo")
    await waiting
    return line


def all_ended(family: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_the_supervisor_dies_or_is_asked_to_end(
    new_stack: Callable[[], Stack], number: signal.Signals
) -> None:
    """Numbers are put back first; SIGTERM twice is harmless."""
    stack = new_stack()
    up = stack.up()
    stack.provoked |= UNREACHED
    line = await in_use(stack)
    family = stack.family()
    kill(up.pid, number)
    began = time.monotonic()
    await until(lambda: stack.changed_numbers() == {}, "numbers are as before", ENDS_WITHIN)
    kill(up.pid, number)
    await until(lambda: all_ended(family), "all have ended", ENDS_WITHIN)
    assert time.monotonic() - began <= ENDS_WITHIN
    assert up.wait() == (0 if number == signal.SIGTERM else -number)
    stack.stack_process = None
    await until(lambda: not stack.live_calls(), "the call is hung up")
    await line.close()
    stack.check_nothing_left()


async def test_ctrl_c_in_a_test_with_a_private_stack(new_stack: Callable[[], Stack]) -> None:
    """The test gets it and its stack does not, so the test can still clean up."""
    stack = new_stack()
    stack.provoked |= UNREACHED
    pause = stack.directory / "pause"
    pause.touch()
    script = str(Path(__file__).parent / "interrupted_test.py")
    test = stack.run(
        [sys.executable, "-W", "ignore", script, ALICE, stack.public_url, str(pause)],
        "test",
        # No stack answers where it looks, so it starts its own.
        TRUNKLINE_BUS="",
        XDG_RUNTIME_DIR=str(stack.directory),
    )
    await until(lambda: stack.said(test), "the test is connected", 40.0)
    await until(lambda: stack.held(ALICE), "the number is armed")
    family = psutil.Process(test.pid).children(recursive=True)
    assert len(family) == 4  # a supervisor, a controller, a gateway, a codec worker
    os.killpg(test.pid, signal.SIGINT)
    await until(lambda: {"cleaning": "up"} in stack.said(test), "the test cleans up")
    assert all(os.getpgid(process.pid) != test.pid for process in family)
    assert all(process.is_running() for process in family) and stack.held(ALICE)
    pause.unlink()
    await until(lambda: stack.changed_numbers() == {}, "the number is as before", ENDS_WITHIN)
    await until(lambda: all_ended(family), "its stack has ended", ENDS_WITHIN)
    await until(lambda: test.poll() is not None, "the test has ended")
    assert stack.said(test) == [{"connected": True}, {"cleaning": "up"}, {"disconnected": True}]
    assert "KeyboardInterrupt" in stack.lines("test")[-1]
    stack.check_nothing_left()


async def test_all_of_it_is_killed_then_started_and_numbers_come_first(
    new_stack: Callable[[], Stack],
) -> None:
    stack = new_stack()
    stack.up(gateways=1, codec_workers=1)
    stack.provoked |= UNREACHED | {31903}
    stack.sim.add_callee(CALLEE, "echo")
    client = stack.client("hold", ALICE, BOB, CALLEE)
    await until(lambda: stack.armed(ALICE), "the number is armed")
    stack.sim.place_call(CALLER, ALICE, "echo")
    await until(lambda: stack.said(client), "its calls are up")
    kill(client.pid)
    stack.kill_stack()
    client.wait()
    assert stack.held(ALICE)
    before = len(stack.sim.number_writes())

    stack.up(gateways=1, codec_workers=1)
    started = time.monotonic()
    async with Line(ALICE, bus=stack.bus) as line:
        # Somebody wants the number at once: it is restored before it is armed again.
        waiting = asyncio.ensure_future(line.wait_for_call(30.0))

        def writes() -> list[str]:
            found = stack.sim.number_writes()[before:]
            return [w["after"]["voice_url"] for w in found if w["number"] == ALICE]

        await until(lambda: len(writes()) >= 2, "the number is armed again", RESTORED_WITHIN + 2)
        first, second = writes()
        assert first == PRIOR[ALICE]["voice_url"]
        assert second.startswith(stack.public_url)
        restored = stack.sim.number_writes()[before]["time"]
        assert restored - started <= RESTORED_WITHIN
        await until(lambda: not stack.live_calls(), "the old calls are hung up")
        sid = stack.sim.place_call(CALLER, ALICE)["sid"]
        call = await waiting
        assert call.sid == sid
        await call.hang_up()
    stack.check_nothing_left()


async def test_the_machine_for_ever_and_then_the_journal(new_stack: Callable[[], Stack]) -> None:
    """``restore --account`` needs the account alone, ``restore`` the journal; neither a stack."""
    stack = new_stack()
    stack.up(gateways=1, codec_workers=1)
    clients = [stack.client("wait", number) for number in (ALICE, CAROL, DAVE)]
    await until(lambda: len(stack.changed_numbers()) == 3, "three numbers are armed")
    for client in clients:
        kill(client.pid)
    stack.kill_stack()
    for client in clients:
        client.wait()
    here = stack.command("restore", "--dry-run")
    assert len(stack.changed_numbers()) == 3
    assert here.returncode == 3
    elsewhere = {"TRUNKLINE_STATE_DIR": str(stack.directory / "another-machine")}
    began = time.monotonic()
    done = stack.command("restore", "--account", **elsewhere)
    assert done.returncode == 0, done
    assert stack.changed_numbers() == {}, done
    assert time.monotonic() - began <= 15.0  # the dead stack was asked for 10 s whether it lives

    # Its own journal finds everything as before, and writes nothing.
    writes = len(stack.sim.number_writes())
    again = stack.command("restore")
    assert again.returncode == 0, again
    assert len(stack.sim.number_writes()) == writes
    stack.check_nothing_left()
