"""A far end that greets first, through ``scenario.run`` and the command line, on a real stack.

The callee says one clip when it picks up, and the same again each time the caller has spoken. What
scenario reports is compared with the carrier's record.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import pytest
import scenario
from beside import beside
from scene import Scene, dialling
from talk import clip, spoken

from trunkline import TwilioAgentAdapter

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


@pytest.mark.parametrize("gate", [True, {"hangover_ms": 600, "preroll_ms": 200}])
@beside
async def test_a_callee_that_greets_is_asked_and_answers(
    scene: Scene,
    question: str,
    greets: str,
    gate: Any,
) -> None:
    callee = scene.callee(greets)
    agent = scene.adapter(callee, speech_gate=gate)

    dial = dialling(agent, callee, callee_speaks_first=True)
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
    sid = scene.call(callee)["sid"]
    heard, said = spoken(scene.sim.played(sid)), spoken(scene.sim.said(sid))
    assert len(heard) == 1 and len(said) == 2
    assert said[0][1] < heard[0][0] and heard[0][1] < said[1][0]
    assert agent.gate_counters.onsets == 2
    assert agent.gate_counters.dropped_ms > 500


@beside
async def test_a_greeting_by_hand_is_on_the_recording_too(
    scene: Scene,
    greets: str,
    tmp_path: Path,
) -> None:
    callee = scene.callee(greets)
    record = tmp_path / "heard.wav"
    command = [sys.executable, "-m", "trunkline", "call", callee, "--from", scene.number()]
    options = ["--callee-speaks-first", "--listen", "0.1", "--record", str(record)]
    where = ["--bus", scene.stack.bus]
    done = await asyncio.to_thread(
        subprocess.run, [*command, *options, *where], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "greeted for" in done.stdout
    with wave.open(str(record)) as file:
        assert SHORTEST < file.getnframes() / file.getframerate() < LONGEST + 0.5
