"""A private stack beside another one of the same user, and its number after it was killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from e2e.stack import ALICE, BOB, CALLER, PRIOR, Stack, until
from later import trunkline

from trunkline import Line
from trunkline.bus.launch import free_ports
from trunkline.controller.journal.store import peek

from .conversations import UNREACHED, kill
from .test_whole_stack import RESTORED_WITHIN


@pytest.fixture
def home(stack_of_mine: Stack, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own directories, for the stack and for this process."""
    directory = stack_of_mine.directory
    del stack_of_mine.environment["TRUNKLINE_STATE_DIR"]
    for name in ("XDG_STATE_HOME", "XDG_RUNTIME_DIR", "TMPDIR"):
        stack_of_mine.environment[name] = str(directory)
        monkeypatch.setenv(name, str(directory))
    monkeypatch.setenv("TRUNKLINE_TWILIO_API_URL", stack_of_mine.sim.base_url)
    return directory


@pytest.fixture
def stack_of_mine(new_stack: Callable[[], Stack]) -> Stack:
    return new_stack()


def private_state(home: Path) -> list[Path]:
    """State directories of private stacks."""
    return list((home / "trunkline" / "private").glob("*"))


def states(home: Path) -> list[str]:
    """The states of the overrides in the journals of private stacks."""
    journals = [path for each in private_state(home) for path in each.rglob("journal.sqlite3")]
    return [row.state for path in journals for row in peek(path).overrides]


async def test_it_starts_beside_any_other_stack_and_both_make_calls(
    stack_of_mine: Stack, home: Path
) -> None:
    stack = stack_of_mine
    stack.up(gateways=1, codec_workers=1)
    assert (home / "trunkline" / "lock").exists()  # the first one has the default directory
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    agent = trunkline.TwilioAgentAdapter(
        account_sid=stack.account,
        auth_token=stack.token,
        phone_number=BOB,
        public_base_url=url,
        http_port=port,
    )
    async with Line(ALICE, bus=stack.bus) as line, agent:
        mine = asyncio.ensure_future(line.wait_for_call(20.0))
        theirs = asyncio.ensure_future(agent.wait_for_call(timeout=20.0))
        await until(lambda: stack.held(ALICE), "the first stack has its number")
        await until(lambda: stack.voice(BOB)["voice_url"].startswith(url), "the private one too")
        assert len(private_state(home)) == 1
        for number in (ALICE, BOB):
            stack.sim.place_call(CALLER, number, "speech:austen-0880")
        call = await mine
        await theirs
        assert await call.recv_audio(5.0)
        assert (await agent.recv_audio(5.0)).data
    # Both calls are over, both numbers as before, and the private stack has left nothing.
    assert stack.changed_numbers() == {}
    assert private_state(home) == []
    assert stack.complete(1, 1)
    await until(lambda: not stack.live_calls(), "the calls are over")
    stack.check_nothing_left()


async def test_what_a_killed_one_left_the_next_start_puts_back(
    stack_of_mine: Stack, home: Path
) -> None:
    stack = stack_of_mine
    stack.provoked |= UNREACHED
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    script = str(Path(__file__).parent / "interrupted_test.py")
    argv = [sys.executable, "-W", "ignore", script, BOB, url, os.devnull]
    test = stack.run(argv, "test", TRUNKLINE_BUS="")
    # Killed before it has noted that its write was answered, it would leave a doubt for a minute.
    await until(lambda: states(home) == ["applied"], "it is armed", 40.0)
    assert stack.voice(BOB)["voice_url"].startswith(url)
    family = [psutil.Process(test.pid), *psutil.Process(test.pid).children(recursive=True)]
    assert len(family) == 5
    for process in family:
        process.suspend()
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            kill(process.pid)
    test.wait()
    assert stack.voice(BOB)["voice_url"].startswith(url)
    assert len(private_state(home)) == 1
    # The user's own stack starts, on the default directory.
    stack.up(gateways=1, codec_workers=1)
    await until(lambda: stack.changed_numbers() == {}, "it is as before", RESTORED_WITHIN)
    assert stack.voice(BOB)["voice_url"] == PRIOR[BOB]["voice_url"]
    stack.check_nothing_left()
