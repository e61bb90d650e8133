"""The two calls of the demo by langwatch-scenario: ``scenario.run`` with our TwilioAgentAdapter,
and recordings in place of models.

Imported only where ``trunkline[demo]`` is installed. The variables below keep scenario offline, and
have to be set before it is imported.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any, Final

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
os.environ["SCENARIO_BROWSER"] = "never"
os.environ["SCENARIO_DISABLE_SIMULATION_REPORT_INFO"] = "1"
os.environ.pop("LANGWATCH_API_KEY", None)

import scenario
from scenario.types import ScriptStep
from scenario.voice import AudioChunk

from trunkline.adapter.scenario.adapter import TwilioAgentAdapter
from trunkline.bus.clock import monotonic
from trunkline.bus.sound import WIRE_RATE

from .measure import CallRecord, Handed, Speaker
from .record import SET_UP_WITHIN, Stack, Watch
from .words import Recogniser, recording, transcript, word_errors

#: scenario passes its state to each step of a script.
State = Any
Step = Callable[[State], Awaitable[None]]
Script = list[ScriptStep]

#: The name of a turn in which keys are pressed, in place of a recording's.
KEYS: Final = "keys"


class TimedAdapter(TwilioAgentAdapter):
    """Our adapter, which also notes for the measurement when sound was handed over."""

    def __init__(self, watch: Watch, number: str, callees: list[str] | None = None) -> None:
        info = watch.stack.info
        super().__init__(
            account_sid=info.account_sid,
            auth_token=info.auth_token,
            phone_number=number,
            allowed_callees=callees,
            bus=info.bus,
        )
        self.handed = watch.handed

    def turn(self, speaker: Speaker, name: str) -> Step:
        """A step of a script: the sound from here on is ``speaker``'s, who says this recording."""

        async def begin(state: State) -> None:
            self.handed.append(Handed(speaker, name))

        return begin

    async def send_audio(self, chunk: AudioChunk) -> None:
        self.handed[-1].pieces.append((monotonic(), chunk.data))
        await super().send_audio(chunk)

    async def recv_audio(self, timeout: float) -> AudioChunk:
        chunk = await super().recv_audio(timeout)
        if chunk.data:
            self.handed[-1].pieces.append((monotonic(), chunk.data))
        return chunk


def test_says(adapter: TimedAdapter, name: str) -> Script:
    """Steps of a script: the test says a recording."""
    return [adapter.turn("test", name), scenario.audio(recording(name))]


def agent_says(adapter: TimedAdapter, name: str) -> Script:
    """Steps of a script: the agent at the far end has its turn, and plays this recording."""
    return [adapter.turn("agent", name), scenario.agent()]


async def answering(
    stack: Stack, number: str, caller: str, greeting: str, reply: str
) -> tuple[CallRecord, Watch]:
    """Somebody calls our number and speaks first. The test answers the call and replies."""
    watch = Watch(stack)
    adapter = TimedAdapter(watch, number)
    before = stack.sim.numbers()[number]["voice_url"]

    async def be_called(state: State) -> None:
        waiting = asyncio.create_task(adapter.wait_for_call(timeout=SET_UP_WITHIN))
        try:
            await watch.until_written(number, before, waiting)
            began = monotonic()
            bot = f"speech:{greeting},after=0.4"
            call = await asyncio.to_thread(stack.sim.place_call, caller, number, bot)
            watch.sid = call["sid"]
            await waiting
            watch.set_up = monotonic() - began
        finally:
            waiting.cancel()

    result = await scenario.run(
        name="answering",
        description="An agent calls the test's number and introduces itself.",
        verbose=False,
        agents=[adapter],
        script=[
            be_called,
            *agent_says(adapter, greeting),
            *test_says(adapter, reply),
            watch.note_loss,
            scenario.succeed("both were heard"),
        ],
    )
    return await _record(watch, result), watch


async def calling(
    stack: Stack, number: str, callee: str, turns: list[tuple[str, str]], digits: str
) -> tuple[CallRecord, Watch]:
    """The test calls an agent, talks with it in turns, and presses keys."""
    watch = Watch(stack)
    adapter = TimedAdapter(watch, number, [callee])

    async def dial(state: State) -> None:
        began = monotonic()
        await adapter.place_call(callee, timeout=SET_UP_WITHIN, attach_stream="a-leg")
        watch.set_up = monotonic() - began
        calls = await asyncio.to_thread(stack.sim.calls)
        watch.sid = next(call["sid"] for call in reversed(calls) if call["to"] == callee)

    talk: Script = []
    for said, answered in turns:
        talk += [*test_says(adapter, said), *agent_says(adapter, answered)]
    result = await scenario.run(
        name="calling",
        description="The test calls an agent, asks twice, and presses keys.",
        verbose=False,
        agents=[adapter],
        script=[
            dial,
            *talk,
            adapter.turn("test", KEYS),
            scenario.dtmf(digits),
            watch.note_loss,
            scenario.succeed("both were heard"),
        ],
    )
    return await _record(watch, result), watch


async def _record(watch: Watch, result: scenario.ScenarioResult) -> CallRecord:
    """The carrier's record of a call, with the agent's words as scenario's speech-to-text provider
    heard them."""
    record = await watch.record(success=bool(result.success))
    segments = result.audio.segments if result.audio is not None else []
    transcripts = [s.transcript or "" for s in segments if s.speaker == "agent"]
    agent_turns = [turn for turn in record.turns if turn.speaker == "agent"]
    for turn, words in zip(agent_turns, transcripts, strict=True):
        turn.words = words
    return record


async def count_errors(recogniser: Recogniser, record: CallRecord) -> None:
    """Recognise what the far end heard of the test's turns. Then count the wrong words of all
    turns, in the sound as it arrived, and in what an ideal line would have delivered."""
    for turn in record.turns:
        if turn.speaker == "test":
            turn.words = await recogniser.words(turn.pcm.astype("<i2").tobytes(), turn.rate)
        truth = transcript(turn.recording)
        turn.total_words = len(truth.split())
        turn.errors = word_errors(truth, turn.words)
        ideal = await recogniser.words(turn.ideal.astype("<i2").tobytes(), WIRE_RATE)
        turn.errors_through_ideal = word_errors(truth, ideal)
