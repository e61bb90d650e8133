"""The stack as the repository's Procfile starts it, and a client in a process of its own."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.processes import ENDED_WITHIN
from trunkline.bus.launch import clean_environment
from trunkline.cli.wav import write

from .sound import compare, from_pcm, from_wire, recording, speech, to_pcm16
from .stack import ALICE, BOB, CALLEE, CALLER, Stack, until

#: The test of a user of langwatch-scenario. Nothing in it says where a stack is.
USERS_TEST = """
import os

import scenario
from trunkline import TwilioAgentAdapter


async def test_the_agent_greets_and_answers():
    agent = TwilioAgentAdapter(
        account_sid=os.environ["TWILIO_ACCOUNT_SID"],
        auth_token=os.environ["TWILIO_AUTH_TOKEN"],
        phone_number="+14155551234",
        allowed_callees=["+14155557777"],
    )

    async def dial(state):
        await agent.place_call("+14155557777", attach_stream="a-leg")

    result = await scenario.run(
        name="greeting",
        description="The agent greets and answers.",
        agents=[agent],
        script=[
            dial,
            scenario.agent(),
            scenario.audio("question.wav"),
            scenario.agent(),
            scenario.succeed("it did"),
        ],
    )
    assert result.success
    assert len([s for s in result.audio.segments if s.speaker == "agent"]) == 2
"""


@pytest.fixture
def honcho(new_stack: Callable[[], Stack]) -> Iterator[tuple[Stack, subprocess.Popen[bytes]]]:
    """A carrier, and ``honcho start`` with two gateways and two codec workers."""
    stack = new_stack()
    yield stack, stack.honcho("gateway=2,codec_worker=2")


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
    await until(lambda: process.poll() is not None, "honcho has ended", ENDED_WITHIN)
    assert process.returncode == 0
    assert stack.changed_numbers() == {}
    ends = [line for line in stack.lines("honcho") if "stopped (rc=" in line]
    assert len(ends) == 5
    assert all("(rc=0)" in line for line in ends), ends
    wait.kill()
    stack.check_nothing_left()


async def test_a_users_scenario_test_joins_what_honcho_runs_in_another_terminal(
    new_stack: Callable[[], Stack], short_directory: Path
) -> None:
    """Neither names a bus: both take the default address of the user."""
    stack = new_stack()
    del stack.environment["TRUNKLINE_BUS"]
    terminal = {"XDG_RUNTIME_DIR": str(short_directory)}
    stack.honcho("gateway=1,codec_worker=1", **terminal)
    greeting = speech(0.8, first=1)
    write(stack.directory / "greeting.wav", to_pcm16(from_pcm(greeting)))
    question = speech(0.7, first=4)
    write(stack.directory / "question.wav", to_pcm16(from_pcm(question)))
    bot = f"wav:{stack.directory}/greeting.wav,after=0.2,greets,when_silent=0.4,repeat"
    stack.sim.add_callee(CALLEE, bot)
    (stack.directory / "test_users.py").write_text(USERS_TEST)
    await until(lambda: stack.complete(1, 1), "the stack is complete", 30.0)
    test = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"),
        *("--import-mode=importlib", "-o", "asyncio_mode=auto", "test_users.py"),
        cwd=stack.directory,
        env=clean_environment()
        | terminal
        | {
            "TWILIO_ACCOUNT_SID": stack.account,
            "TWILIO_AUTH_TOKEN": stack.token,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "SCENARIO_BROWSER": "never",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(test.communicate(), 60.0)
    assert test.returncode == 0, said.decode()
    (call,) = stack.calls_to(CALLEE)
    compare(from_pcm(question), from_wire(stack.far_end_heard(call["sid"]))).check()
    await until(lambda: not stack.live_calls(), "the call is over")
    assert stack.status()["sessions"] == []
    stack.check_nothing_left()
