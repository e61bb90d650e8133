"""The two calls of the demo: real ``scenario.run`` with our TwilioAgentAdapter, scripted steps and
recordings instead of models.

Imported only with ``trunkline[demo]`` installed; scenario is told beforehand to stay offline.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
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
from trunkline.bus.errors import TrunklineError
from trunkline.bus.launch import StackInfo
from trunkline.bus.settings import load
from trunkline.bus.sound import WIRE_RATE
from trunkline.carrier_sim.client import SimClient
from trunkline.carrier_sim.mulaw import decode

from ..stack.controller_client import controller_client, get_status
from .measure import CallRecord, Handed, Speaker, place_turn
from .words import Recogniser, recording, transcript, word_errors

#: scenario hands its state to each step of a script.
State = Any
Step = Callable[[State], Awaitable[None]]
Script = list[ScriptStep]

#: Stands for the recording where keys are pressed.
KEYS: Final = "keys"
#: Seconds for a call to be set up.
SET_UP_WITHIN: Final = 15.0
#: Seconds after the hang-up for the carrier to have closed its record.
RECORDED_WITHIN: Final = 5.0


@dataclass(frozen=True)
class Stack:
    """The demo's stack, and the carrier beside it."""

    info: StackInfo
    sim: SimClient

    async def status(self) -> dict[str, Any]:
        """The object that ``trunkline status --json`` prints."""
        async with controller_client(load(env_file=None, bus=self.info.bus)) as client:
            return await get_status(client)


class TimedAdapter(TwilioAgentAdapter):
    """Our adapter, with a note of when sound was handed over, for the measurement."""

    def __init__(self, stack: Stack, number: str, callees: list[str] | None = None) -> None:
        super().__init__(
            account_sid=stack.info.account_sid,
            auth_token=stack.info.auth_token,
            phone_number=number,
            allowed_callees=callees,
            bus=stack.info.bus,
        )
        self.handed: list[Handed] = []
        self.set_up = 0.0

    def turn(self, speaker: Speaker, name: str) -> Step:
        """A step: from here on ``speaker`` says this recording."""

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
    """Steps: the test says a recording."""
    return [adapter.turn("test", name), scenario.audio(recording(name))]


def agent_says(adapter: TimedAdapter, name: str) -> Script:
    """Steps: the agent at the far end has its turn; it plays this recording."""
    return [adapter.turn("agent", name), scenario.agent()]


class Watch:
    """The notes of a script's own steps about the call, made while it lives."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.sid = ""
        self.frames_lost = 0
        #: the number's voice_url while trunkline holds it
        self.during = ""

    async def note_loss(self, state: State) -> None:
        """A step before the call ends: take down the losses that trunkline itself has counted."""
        for call in (await self._stack.status())["calls"]:
            if call["sid"] == self.sid:
                self.frames_lost = int(call["frames_lost"])


async def answering(
    stack: Stack, number: str, caller: str, greeting: str, reply: str
) -> tuple[CallRecord, Watch]:
    """Somebody calls our number and speaks first; the test answers and replies."""
    adapter = TimedAdapter(stack, number)
    watch = Watch(stack)
    before = stack.sim.numbers()[number]["voice_url"]

    async def be_called(state: State) -> None:
        waiting = asyncio.create_task(adapter.wait_for_call(timeout=SET_UP_WITHIN))
        try:
            watch.during = await _until_written(stack, number, before, waiting)
            began = monotonic()
            bot = f"speech:{greeting},after=0.4"
            call = await asyncio.to_thread(stack.sim.place_call, caller, number, bot)
            watch.sid = call["sid"]
            await waiting
            adapter.set_up = monotonic() - began
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
    return await _record(stack, adapter, watch, result), watch


async def calling(
    stack: Stack, number: str, callee: str, turns: list[tuple[str, str]], digits: str
) -> tuple[CallRecord, Watch]:
    """The test calls an agent, presses keys, and talks with it in turns."""
    adapter = TimedAdapter(stack, number, [callee])
    watch = Watch(stack)

    async def dial(state: State) -> None:
        began = monotonic()
        await adapter.place_call(callee, timeout=SET_UP_WITHIN, attach_stream="a-leg")
        adapter.set_up = monotonic() - began
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
    return await _record(stack, adapter, watch, result), watch


async def _until_written(
    stack: Stack, number: str, before: str, waiting: asyncio.Task[None]
) -> str:
    """The number's voice_url once it is not what it was; raises what ``waiting`` raises."""
    while not waiting.done():
        found: str = (await asyncio.to_thread(stack.sim.numbers))[number]["voice_url"]
        if found != before:
            return found
        await asyncio.sleep(0.02)
    await waiting
    raise TrunklineError(f"{number} was answered before its voice_url was written")


async def _record(
    stack: Stack, adapter: TimedAdapter, watch: Watch, result: scenario.ScenarioResult
) -> CallRecord:
    """The carrier's record of a call that has ended."""
    sim = stack.sim
    call = await asyncio.to_thread(sim.wait_for, watch.sid, timeout=RECORDED_WITHIN)
    if not call["streams"]:
        raise TrunklineError(f"the call {watch.sid} had no media stream")
    stream = call["streams"][0]
    record = CallRecord(
        sid=watch.sid,
        played=decode(await asyncio.to_thread(sim.played, watch.sid)),
        said=decode(await asyncio.to_thread(sim.said, watch.sid)),
        started=call["media_started"],
        setup_seconds=adapter.set_up,
        metrics=stream["metrics"],
        arrivals=await asyncio.to_thread(sim.arrivals, stream["sid"]),
        frames_lost=watch.frames_lost,
        success=bool(result.success),
    )
    record.events = _events(call, stream, record.started)
    record.turns = [place_turn(handed, record) for handed in adapter.handed if handed.pieces]
    # The words that scenario's speech-to-text provider found in each of the agent's turns.
    segments = result.audio.segments if result.audio is not None else []
    transcripts = [s.transcript or "" for s in segments if s.speaker == "agent"]
    agent_turns = [turn for turn in record.turns if turn.speaker == "agent"]
    for turn, words in zip(agent_turns, transcripts, strict=True):
        turn.words = words
    return record


def _events(
    call: dict[str, Any], stream: dict[str, Any], started: float
) -> list[tuple[float, str]]:
    events = [(at - started, str(status)) for at, status in call["history"]]
    events.append((stream["opened_at"] - started, "stream opened"))
    if stream["ended_at"] is not None:
        events.append((stream["ended_at"] - started, f"stream ended ({stream['ended_by']})"))
    return sorted(events)


async def count_errors(recogniser: Recogniser, record: CallRecord) -> None:
    """Recognise what the far end heard of the test's turns, and count the wrong words of all, as
    heard and as an ideal line would have let them be heard."""
    for turn in record.turns:
        if turn.speaker == "test":
            turn.words = await recogniser.words(turn.pcm.astype("<i2").tobytes(), turn.rate)
        truth = transcript(turn.recording)
        turn.total_words = len(truth.split())
        turn.errors = word_errors(truth, turn.words)
        ideal = await recogniser.words(turn.ideal.astype("<i2").tobytes(), WIRE_RATE)
        turn.errors_through_ideal = word_errors(truth, ideal)
