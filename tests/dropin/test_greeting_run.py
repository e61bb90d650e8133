"""A far end that greets first, through ``scenario.run`` and the command line, on a real stack.

The callee says one clip when it picks up, and the same again each time the caller has spoken. What
scenario reports is compared with the carrier's record.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import scenario
from beside import beside
from talk import STRANGER, called, clip, spoken

from trunkline import TwilioAgentAdapter
from trunkline.carrier_sim.client import SimClient
from trunkline.pytest_plugin import PhoneStack

pytestmark = [pytest.mark.e2e, pytest.mark.carrier_sim]

#: Each clip of the callee's, with what the gate adds to it.
SHORTEST, LONGEST = 1.1, 2.6


@pytest.fixture(scope="module")
def question(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(clip(tmp_path_factory.mktemp("question") / "question.wav", 1.0, "austen-0930"))


@pytest.fixture(scope="module")
def greets(tmp_path_factory: pytest.TempPathFactory) -> str:
    greeting = clip(tmp_path_factory.mktemp("greets") / "clip.wav", 1.2)
    return f"wav:{greeting},after=0.1,greets,when_silent=0.7,repeat"


async def run(agent: TwilioAgentAdapter, *script: Any) -> Any:
    result = await scenario.run(
        name="a greeting",
        description="the far end greets, is asked, and answers",
        agents=[agent],
        script=[*script, scenario.succeed("it answered")],
        verbose=False,
    )
    assert result.success
    return result


def seconds(pcm: bytes | None) -> float:
    assert pcm is not None
    return len(pcm) / 48_000


def the_call(sim: SimClient, to: str) -> str:
    (sid,) = [call["sid"] for call in sim.calls() if call["to"] == to]
    return str(sid)


@pytest.mark.parametrize("gate", [True, {"hangover_ms": 600, "preroll_ms": 200}])
@beside
async def test_a_callee_that_greets_is_asked_and_answers(
    phone_stack: PhoneStack,
    carrier_sim: SimClient,
    own_number: Callable[[], str],
    question: str,
    greets: str,
    gate: Any,
) -> None:
    callee = f"+1415555620{1 if gate is True else 2}"
    carrier_sim.add_callee(callee, greets)
    agent = phone_stack.adapter(own_number(), allowed_callees=[callee], speech_gate=gate)

    async def dial(state: Any) -> None:
        await agent.place_call(callee, attach_stream="a-leg", callee_speaks_first=True)

    result = await run(agent, dial, scenario.audio(question), scenario.agent())
    segments = result.audio.segments
    assert [s.speaker for s in segments] == ["agent", "agent"], "scenario.audio() records none"
    greeting, answer = segments
    assert greeting.audio == agent.greeting
    assert SHORTEST < seconds(greeting.audio) < LONGEST
    assert SHORTEST < seconds(answer.audio) < LONGEST
    assert [m["role"] for m in result.messages] == ["assistant", "assistant"]
    kinds = ["agent_start_speaking", "agent_stop_speaking"]
    told = [e.type for e in result.timeline if e.type in kinds]
    assert told == kinds * 2
    # The carrier's record: greeted, asked once that was over, answered when it had been asked.
    sid = the_call(carrier_sim, callee)
    heard, said = spoken(carrier_sim.played(sid)), spoken(carrier_sim.said(sid))
    assert len(heard) == 1 and len(said) == 2
    assert said[0][1] < heard[0][0] and heard[0][1] < said[1][0]
    assert agent.gate_counters.onsets == 2
    assert agent.gate_counters.dropped_ms > 500


@beside
async def test_without_asking_for_it_the_greeting_is_the_answer_as_ever(
    phone_stack: PhoneStack,
    carrier_sim: SimClient,
    own_number: Callable[[], str],
    question: str,
    greets: str,
) -> None:
    callee = "+14155556203"
    carrier_sim.add_callee(callee, greets.replace("when_silent=0.7", "when_silent=2.5"))
    agent = phone_stack.adapter(own_number(), allowed_callees=[callee])

    async def dial(state: Any) -> None:
        await agent.place_call(callee, attach_stream="a-leg")

    result = await run(agent, dial, scenario.audio(question), scenario.agent())
    (answer,) = result.audio.segments
    assert SHORTEST < seconds(answer.audio) < LONGEST
    assert agent.greeting is None
    sid = the_call(carrier_sim, callee)
    (asked, *_), (greeted, *_) = spoken(carrier_sim.played(sid)), spoken(carrier_sim.said(sid))
    assert greeted[0] < asked[0] + 0.5, "what was taken for the answer was said at the same time"


@beside
async def test_a_caller_that_greets_is_answered(
    phone_stack: PhoneStack,
    carrier_sim: SimClient,
    own_number: Callable[[], str],
    question: str,
    greets: str,
) -> None:
    agent = phone_stack.adapter(own_number())
    sids: list[str] = []
    waiting = agent.wait_for_call

    async def wait_for_call(timeout: float) -> None:
        await waiting(timeout, callee_speaks_first=True)

    agent.wait_for_call = wait_for_call  # type: ignore[method-assign,assignment]  # as `called` asks

    async def be_called(state: Any) -> None:
        call = await called(agent, carrier_sim, greets)
        assert call["from"] == STRANGER
        sids.append(call["sid"])

    result = await run(agent, be_called, scenario.audio(question), scenario.agent())
    greeting, answer = result.audio.segments
    assert greeting.audio == agent.greeting
    assert SHORTEST < seconds(answer.audio) < LONGEST
    heard, said = spoken(carrier_sim.played(sids[0])), spoken(carrier_sim.said(sids[0]))
    assert said[0][1] < heard[0][0] and heard[0][1] < said[1][0]


@beside
async def test_a_callee_that_says_nothing_is_asked_all_the_same(
    phone_stack: PhoneStack,
    carrier_sim: SimClient,
    own_number: Callable[[], str],
    question: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    callee = "+14155556204"
    answer = clip(tmp_path / "answer.wav", 1.2)
    carrier_sim.add_callee(callee, f"wav:{answer},when_silent=0.4")
    agent = phone_stack.adapter(own_number(), allowed_callees=[callee])

    async def dial(state: Any) -> None:
        await agent.place_call(
            callee, attach_stream="a-leg", callee_speaks_first=True, greeting_timeout=1.0
        )

    result = await run(agent, dial, scenario.audio(question), scenario.agent())
    (heard,) = result.audio.segments
    assert SHORTEST < seconds(heard.audio) < LONGEST
    assert agent.greeting is None
    (warned,) = [r for r in caplog.records if "nobody spoke within 1 s" in r.message]
    assert (warned.name, warned.levelname) == ("scenario.voice.twilio", "WARNING")


@beside
async def test_a_greeting_by_hand_is_on_the_recording_too(
    phone_stack: PhoneStack,
    carrier_sim: SimClient,
    own_number: Callable[[], str],
    greets: str,
    tmp_path: Path,
) -> None:
    callee = "+14155556205"
    carrier_sim.add_callee(callee, greets)
    record = tmp_path / "heard.wav"
    command = [sys.executable, "-m", "trunkline", "call", callee, "--from", own_number()]
    options = ["--callee-speaks-first", "--listen", "0.1", "--record", str(record)]
    where = ["--bus", phone_stack.bus]
    done = await asyncio.to_thread(
        subprocess.run, [*command, *options, *where], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "greeted for" in done.stdout
    with wave.open(str(record)) as file:
        assert SHORTEST < file.getnframes() / file.getframerate() < LONGEST + 0.5
