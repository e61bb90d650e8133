"""Real ``scenario.run`` with our adapter: scripted steps and recordings instead of models."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import numpy as np
import psutil
import pytest

from trunkline.carrier_sim.wav import SPEECH_DIR

from .offline_scenario import TwilioAgentAdapter, scenario, stt
from .sound import RATE, compare, from_pcm, from_wire, recording
from .stack import ALICE, BOB, CALLEE, CALLER, Stack, free_ports, until


class NoWords:
    """A speech-to-text provider without a model."""

    async def transcribe(self, audio: Any) -> str:
        return f"{len(audio.data) // 2} samples"


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCENARIO_BROWSER", "never")
    monkeypatch.delenv("LANGWATCH_API_KEY", raising=False)
    monkeypatch.setattr(stt, "_provider", NoWords())


def adapter(stack: Stack, number: str, **more: Any) -> TwilioAgentAdapter:
    return TwilioAgentAdapter(
        account_sid=stack.account, auth_token=stack.token, phone_number=number, **more
    )


def agents_sound(result: Any) -> np.ndarray:
    """What scenario recorded of the agent at the far end."""
    parts = [s.audio for s in result.audio.segments if s.speaker == "agent"]
    return from_pcm(b"".join(parts))


async def test_a_scenario_answers_a_call(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_BUS", stack.bus)
    agent = adapter(stack, ALICE)
    sids = []

    async def be_called(state: Any) -> None:
        waiting = asyncio.ensure_future(agent.wait_for_call(timeout=20.0))
        await until(lambda: stack.held(ALICE) or waiting.done(), "the number is armed")
        bot = {"kind": "wav", "speech": "austen-0880", "after": 0.4}
        sids.append(stack.sim.place_call(CALLER, ALICE, bot)["sid"])
        await waiting

    result = await scenario.run(
        name="answering",
        description="An agent calls and introduces itself.",
        agents=[agent],
        script=[
            be_called,
            scenario.agent(),
            scenario.audio(SPEECH_DIR / "austen-0930.wav"),
            scenario.succeed("both were heard"),
        ],
    )
    assert result.success, result
    assert stack.changed_numbers() == {}
    sid = sids[0]
    compare(recording("austen-0930").astype(float), from_wire(stack.far_end_heard(sid))).check()
    # Of the agent's turn all speech is there, and the silence around it is not.
    heard = agents_sound(result)
    sentence = recording("austen-0880").astype(float)
    compare(sentence[RATE // 5 : -RATE // 5], heard, alone=False).check()
    assert len(heard) < len(sentence) + RATE


async def test_a_scenario_calls_presses_keys_and_talks_in_turns(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUNKLINE_BUS", stack.bus)
    stack.sim.add_callee(CALLEE, "speech:austen-0930,when_silent=0.6,repeat")
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
            scenario.audio(SPEECH_DIR / "austen-0880.wav"),
            scenario.agent(),
            scenario.succeed("both were heard"),
        ],
    )
    assert result.success, result
    (call,) = stack.calls_to(CALLEE)
    assert call["digits_heard"] == "1#"
    compare(
        recording("austen-0880").astype(float),
        from_wire(stack.far_end_heard(call["sid"])),
        alone=False,
    ).check()
    sentence = recording("austen-0930").astype(float)
    compare(sentence[RATE // 5 : -RATE // 5], agents_sound(result), alone=False).check()


async def test_an_adapter_without_a_stack_starts_one_and_takes_it_down(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, short_directory: str
) -> None:
    # Nobody answers at the default address.
    monkeypatch.setenv("XDG_RUNTIME_DIR", short_directory)
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
    stack.sim.add_callee(CALLEE, "speech:austen-0880,after=0.3")
    async with agent:
        family = ours()
        assert len(family) == 4  # a supervisor, a controller, a gateway, a codec worker
        await agent.place_call(CALLEE, timeout=20.0, attach_stream="a-leg")
        await agent.send_audio(scenario.AudioChunk(data=recording("austen-0930").tobytes()))
    _, left = psutil.wait_procs(family, 5.0)
    assert left == []
    (call,) = stack.calls_to(CALLEE)
    sent = recording("austen-0930").astype(float)
    compare(sent, from_wire(stack.far_end_heard(call["sid"]))).check()


def ours() -> list[psutil.Process]:
    """Processes of trunkline that this process has started, but for those of other fixtures."""
    return [
        process
        for process in psutil.Process(os.getpid()).children(recursive=True)
        if "trunkline" in process.cmdline()
        and "/tl-e2e-" not in process.environ().get("TRUNKLINE_BUS", "")
    ]
