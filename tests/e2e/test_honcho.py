"""The stack as the repository's Procfile starts it, and a client in a process of its own."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator

import psutil
import pytest

from benchmarks.processes import ROOT
from trunkline.bus.launch import ENDS_WITHIN, free_ports
from trunkline.bus.testing import hanging_up

from .sound import compare, from_wire, recording
from .stack import ALICE, BOB, CALLER, Stack, until


@pytest.fixture
def honcho(new_stack: Callable[[], Stack]) -> Iterator[tuple[Stack, subprocess.Popen[bytes]]]:
    """A carrier, and ``honcho start`` with two gateways and two codec workers."""
    stack = new_stack()
    yield stack, stack.honcho("-c", "gateway=2,codec_worker=2")


@pytest.fixture
def without_carrier() -> Iterator[Stack]:
    """Nothing of it is started."""
    stack = Stack()
    yield stack
    stack.close()


async def test_a_call_through_honchos_stack_to_another_process_and_an_orderly_end(
    honcho: tuple[Stack, subprocess.Popen[bytes]],
) -> None:
    stack, process = honcho
    await until(stack.complete, "the stack is complete", 30.0)
    echo = stack.client("echo", ALICE)
    wait = stack.client("wait", BOB)
    await until(lambda: stack.held(ALICE) and stack.held(BOB), "the numbers are armed")
    bot = {"kind": "wav", "speech": "austen-0880", "after": 0.2}
    sid = stack.sim.place_call(CALLER, ALICE, bot)["sid"]
    sent = recording("austen-0880").astype(float)
    heard_again = len(sent) / 24_000 + 0.3
    await until(lambda: stack.played_seconds(sid) > heard_again, "all of it came back")
    stack.sim.hang_up(sid)
    await until(lambda: echo.poll() is not None, "the client has ended with its call")
    assert echo.returncode == 0
    assert stack.said(echo) == [{"sids": [sid]}, {"ended": "stop"}]
    compare(sent, from_wire(stack.far_end_heard(sid))).check()
    # The numbers come first. honcho gives its children 5 s, and each of them ends by itself.
    process.send_signal(signal.SIGTERM)
    await until(lambda: process.poll() is not None, "honcho has ended", ENDS_WITHIN)
    assert process.returncode == 0
    assert stack.changed_numbers() == {}
    ends = [line for line in stack.lines("honcho") if "stopped (rc=" in line]
    assert len(ends) == 5
    assert all("(rc=0)" in line for line in ends), ends
    wait.kill()
    stack.check_nothing_left()


async def test_the_stack_beside_the_stand_in_puts_its_numbers_back_before_that_ends(
    without_carrier: Stack,
) -> None:
    """honcho asks all of them to end at once."""
    stack = without_carrier
    (port,) = free_ports(1)
    own = stack.environment | {"TRUNKLINE_SIM_PORT": str(port)}
    own["TRUNKLINE_TWILIO_API_URL"] = f"http://127.0.0.1:{port}"
    lines = (ROOT / ".env.sim").read_text().splitlines()
    named = [
        (name, value)
        for name, equals, value in (line.partition("=") for line in lines)
        if equals and name[0] != "#"
    ]
    env = "".join(f"{name}={own.get(name, value)}\n" for name, value in named)
    process = stack.honcho(procfile="Procfile.sim", env=env)
    await until(lambda: stack.complete(1, 1), "the stack is complete", 30.0)
    wait = stack.client("wait", ALICE)
    await until(lambda: stack.overrides().get(ALICE) == "applied", "the number is armed")
    process.send_signal(signal.SIGTERM)
    await until(lambda: process.poll() is not None, "honcho has ended", ENDS_WITHIN)
    said = stack.lines("honcho")
    assert any("is as it was before" in line for line in said), said
    ends = [line for line in said if "stopped (rc=" in line]
    assert len(ends) == 4
    assert all("(rc=0)" in line for line in ends), ends
    wait.kill()


async def test_honchos_processes_end_when_its_terminal_is_closed(
    new_stack: Callable[[], Stack],
) -> None:
    """SIGHUP ends honcho, and the process of its own that it has for each of ours. Ours have
    sessions of their own, so nothing else tells them."""
    stack = new_stack()
    with hanging_up(signal.SIG_DFL):
        process = stack.honcho("-c", "gateway=1,codec_worker=1")
    await until(lambda: stack.complete(1, 1), "the stack is complete", 30.0)
    wait = stack.client("wait", ALICE)
    await until(lambda: stack.held(ALICE), "the number is armed")
    (honcho,) = psutil.Process(process.pid).children()
    family = honcho.children(recursive=True)
    assert len(family) == 9  # honcho's, a keeper and its process, three times
    for one in (honcho, *honcho.children()):
        one.send_signal(signal.SIGHUP)
    _, alive = psutil.wait_procs(family, ENDS_WITHIN)
    assert not alive
    assert stack.changed_numbers() == {}
    wait.kill()
    stack.check_nothing_left()
