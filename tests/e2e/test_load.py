"""``trunkline load`` with real calls: its figures are the bot's, and Ctrl-C leaves no call up."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from trunkline.bus import wav
from trunkline.bus.launch import trunkline_argv
from trunkline.carrier_sim.mulaw import decode
from trunkline.ear.listen import listen

from .sound import speech
from .stack import ALICE, CALLEE, Stack, until

BOT = "speech:austen-0880,when_silent=0.7,repeat"


def argv(stack: Stack, *more: str) -> tuple[str, ...]:
    """The command with a question of a second."""
    question = stack.directory / "question.wav"
    wav.write(question, wav.from_bytes(speech(1.0)))
    return ("load", CALLEE, "--from", ALICE, "--say", str(question), *more)


def latency(stack: Stack, sid: str) -> float:
    """The call's only answer, by the carrier's own record."""
    sim = stack.sim
    (answer,) = listen(decode(sim.played(sid)), decode(sim.said(sid))).answers
    return answer.latency


async def test_the_latency_of_a_bot_by_calls_at_a_time(stack: Stack, tmp_path: Path) -> None:
    stack.sim.add_callee(CALLEE, BOT)
    page = tmp_path / "pages" / "load.html"
    limits = "latency_max=3,failures=0"
    done = stack.command(
        *argv(stack, "--calls", "2", "--limits", limits, "--json", "--html", str(page)),
        TRUNKLINE_PRICE_PER_MINUTE="0.5",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [step["concurrency"] for step in found["steps"]] == [1, 2]
    heard = [latency(stack, call["sid"]) for call in reversed(stack.calls_to(CALLEE))]
    assert len(heard) == 3
    for step, expected in zip(found["steps"], (heard[0], max(heard[1:])), strict=True):
        assert step["answered"] == step["concurrency"] and step["failures"] == {}
        assert step["latency"]["max"] == pytest.approx(expected, abs=0.06)
        assert step["reliable"], step["unreliable_because"]
    assert (found["calls"], found["minutes"], found["cost"]) == (3, 3, 1.5)
    assert "2 at a time: 2 answered, 0 failed" in done.stderr
    made = page.read_text()
    assert made.count("<circle") == 3 and made.count("data:audio/wav") == 3


async def test_limits_that_are_broken_and_callees_that_are_busy(stack: Stack) -> None:
    stack.sim.add_callee(CALLEE, BOT)
    done = stack.command(*argv(stack, "--calls", "1", "--limits", "latency_p95=0.1"))
    assert done.returncode == 1
    assert "trunkline load: 1 at a time: latency_p95 is " in done.stderr
    assert "at a time  answered  failed" in done.stdout, "the table is shown all the same"
    stack.sim.add_callee(CALLEE, "busy")
    done = stack.command(*argv(stack, "--calls", "5"))
    assert done.returncode == 1
    assert done.stderr.strip() == "trunkline load: no call came up with 1 at a time"
    assert "1 busy" in done.stdout


async def test_ctrl_c_hangs_up_all_calls_and_shows_what_there_is(stack: Stack) -> None:
    stack.sim.add_callee(CALLEE, "silence")
    process = stack.run(trunkline_argv(*argv(stack, "--calls", "1", "--questions", "100")), "load")
    # A stream that came behind the hang-up would be refused, and that is an error at the carrier.
    await until(
        lambda: [call["state"] for call in stack.status()["calls"]] == ["live"],
        "the call has its stream",
    )
    process.send_signal(signal.SIGINT)
    assert process.wait(4.0) == 1
    said = "\n".join(stack.lines("load"))
    assert "trunkline load: interrupted" in said and "at a time  answered" in said
    await until(lambda: not stack.live_calls(), "it is hung up")
