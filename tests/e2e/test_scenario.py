"""Real ``scenario.run`` with our adapter: scripted steps and recordings instead of models."""

from __future__ import annotations

import asyncio
import base64
import os
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from trunkline.bus.launch import free_ports
from trunkline.carrier_sim import mulaw
from trunkline.cli.wav import write

from .sound import RATE, WIRE, compare, from_pcm, from_wire, resample, speech, to_pcm16
from .stack import ALICE, BOB, CALLEE, CALLER, Stack, until

#: The words of the test, and those of the agent at the far end.
OURS, THEIRS = speech(1.2, first=4), speech(1.6, first=1)


class NoWords:
    """A speech-to-text provider without a model."""

    async def transcribe(self, audio: Any) -> str:
        return f"{len(audio.data) // 2} samples"


@pytest.fixture
def scenario(monkeypatch: pytest.MonkeyPatch) -> Any:
    """langwatch-scenario, which takes seconds to import: only where one of these tests runs."""
    monkeypatch.setenv("SCENARIO_BROWSER", "never")
    monkeypatch.delenv("LANGWATCH_API_KEY", raising=False)
    from . import offline_scenario

    monkeypatch.setattr(offline_scenario.stt, "_provider", NoWords())
    return offline_scenario.scenario


def adapter(stack: Stack, number: str, **more: Any) -> Any:
    from trunkline import TwilioAgentAdapter

    return TwilioAgentAdapter(
        account_sid=stack.account, auth_token=stack.token, phone_number=number, **more
    )


def recording_of(pcm: bytes, directory: Path) -> Path:
    """A WAV file with this sound."""
    path = directory / "said.wav"
    write(path, to_pcm16(from_pcm(pcm)))
    return path


def playing(pcm: bytes, **how: object) -> dict[str, object]:
    """A callee or caller that plays this sound."""
    wire = mulaw.encode(to_pcm16(resample(from_pcm(pcm), RATE, WIRE)))
    return {"kind": "wav", "audio": base64.b64encode(wire).decode(), **how}


def check_turn(result: Any, said: bytes) -> None:
    """Of the agent's turn scenario has all the speech, and not the silence around it."""
    heard, sentence = agents_sound(result), from_pcm(said)
    compare(sentence[RATE // 10 : -RATE // 10], heard, alone=False).check()
    assert len(heard) < len(sentence) + RATE


def agents_sound(result: Any) -> np.ndarray:
    """scenario's recording of the agent at the far end."""
    parts = [s.audio for s in result.audio.segments if s.speaker == "agent"]
    return from_pcm(b"".join(parts))


async def test_a_scenario_answers_a_call(
    stack: Stack, scenario: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRUNKLINE_BUS", stack.bus)
    agent = adapter(stack, ALICE)
    sids = []

    async def be_called(state: Any) -> None:
        waiting = asyncio.ensure_future(agent.wait_for_call(timeout=20.0))
        await until(lambda: stack.held(ALICE) or waiting.done(), "the number is armed")
        bot = playing(THEIRS, after=0.4)
        sids.append(stack.sim.place_call(CALLER, ALICE, bot)["sid"])
        await waiting

    result = await scenario.run(
        name="answering",
        description="An agent calls and introduces itself.",
        agents=[agent],
        script=[
            be_called,
            scenario.agent(),
            scenario.audio(recording_of(OURS, tmp_path)),
            scenario.succeed("both were heard"),
        ],
    )
    assert result.success, result
    assert stack.changed_numbers() == {}
    compare(from_pcm(OURS), from_wire(stack.far_end_heard(sids[0]))).check()
    check_turn(result, THEIRS)


async def test_a_scenario_calls_presses_keys_and_talks_in_turns(
    stack: Stack, scenario: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRUNKLINE_BUS", stack.bus)
    # The far end hears the keys too. It answers the words behind them, and not the keys: our
    # stream is back 1.2 s after them at the latest.
    stack.sim.add_callee(CALLEE, playing(THEIRS, when_silent=2.0, repeat=True))
    agent = adapter(stack, BOB, allowed_callees=[CALLEE])

    async def dial(state: Any) -> None:
        await agent.place_call(CALLEE, timeout=20.0, attach_stream="a-leg")

    result = await scenario.run(
        name="calling",
        description="The test calls an agent, presses keys, and asks.",
        agents=[agent],
        script=[
            dial,
            scenario.dtmf("1#"),
            scenario.audio(recording_of(OURS, tmp_path)),
            scenario.agent(),
            scenario.succeed("both were heard"),
        ],
    )
    assert result.success, result
    (call,) = stack.calls_to(CALLEE)
    assert call["digits_heard"] == "1#"
    # Behind the tones of the keys.
    compare(from_pcm(OURS), from_wire(stack.far_end_heard(call["sid"])), alone=False).check()
    check_turn(result, THEIRS)


async def test_an_adapter_without_a_stack_starts_one_and_takes_it_down(
    stack: Stack, scenario: Any, monkeypatch: pytest.MonkeyPatch, short_directory: Path
) -> None:
    # Nobody answers at the default address.
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_directory))
    monkeypatch.setenv("TRUNKLINE_STATE_DIR", f"{short_directory}/state")
    monkeypatch.setenv("TRUNKLINE_TWILIO_API_URL", stack.sim.base_url)
    (port,) = free_ports(1)
    agent = adapter(
        stack,
        ALICE,
        allowed_callees=[CALLEE],
        public_base_url=f"http://127.0.0.1:{port}",
        http_port=port,
    )
    stack.sim.add_callee(CALLEE, playing(THEIRS, after=0.3))
    before = ours()
    async with agent:
        family = [process for process in ours() if process not in before]
        assert len(family) == 4  # a supervisor, a controller, a gateway, a codec worker
        await agent.place_call(CALLEE, timeout=20.0, attach_stream="a-leg")
        await agent.send_audio(scenario.AudioChunk(data=OURS))
    _, left = psutil.wait_procs(family, 5.0)
    assert left == []
    (call,) = stack.calls_to(CALLEE)
    compare(from_pcm(OURS), from_wire(stack.far_end_heard(call["sid"]))).check()


def ours() -> list[psutil.Process]:
    """Processes of trunkline that this process, or one of its children, has started."""
    return [
        process
        for process in psutil.Process(os.getpid()).children(recursive=True)
        if "trunkline" in process.cmdline()
    ]
