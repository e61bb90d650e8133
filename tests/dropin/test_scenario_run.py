"""``scenario.run`` of the real package, offline, through a real stack: users' scripts as they are.

Clips of about a second keep it short. What scenario reports is compared with the carrier's record.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import wave
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from beside import beside
from later import scenario
from scene import Scene, dialling
from talk import STRANGER, armed, called, clip, spoken

if TYPE_CHECKING:
    from trunkline import TwilioAgentAdapter

pytestmark = [pytest.mark.e2e, pytest.mark.carrier_sim]


def assert_about(found: float, wanted: float) -> None:
    """Two clocks tell the same time, to 0.3 s. Where the machine has more to do than it can, they
    may differ by more, but never by more than a second."""
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    apart, most = abs(found - wanted), min(1.0, 0.3 * max(1.0, load))
    busy = f"; machine too busy: {load:.1f} processes want each core" if load > 1.0 else ""
    assert apart < most, f"{found:.2f} s, and not {wanted:.2f} s{busy}"


@pytest.fixture(scope="module")
def question(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(clip(tmp_path_factory.mktemp("question") / "question.wav", 1.0, "austen-0930"))


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip(tmp_path_factory.mktemp("answer") / "answer.wav", 1.2, "austen-0880")


def pcm_of(path: str) -> bytes:
    """The sound of a clip at 24 kHz, roughly."""
    with wave.open(path) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return np.repeat(samples, 3)[::2].astype("<i2").tobytes()


def asks(path: str) -> Any:
    """A user that says one recording at each of its turns, so that scenario records it."""

    class Asks(scenario.AgentAdapter):  # type: ignore[misc]  # the package is untyped
        role = scenario.AgentRole.USER

        async def call(self, input: Any) -> Any:
            chunk = scenario.AudioChunk(data=pcm_of(path))
            return scenario.voice.create_audio_message(chunk, role="user")

    return Asks()


async def run(agent: TwilioAgentAdapter, *script: Any, user: Any = None) -> Any:
    return await scenario.run(
        name="a call",
        description="a scripted call",
        agents=[agent] if user is None else [agent, user],
        script=list(script),
        verbose=False,
    )


def agent_seconds(result: Any) -> list[float]:
    return [len(s.audio) / 48_000 for s in result.audio.segments if s.speaker == "agent"]


@beside
async def test_as_caller_several_turns_and_their_timings(
    scene: Scene,
    question: str,
    answer: Path,
) -> None:
    callee = scene.callee(f"wav:{answer},when_silent=0.4,repeat")
    agent = scene.adapter(callee)

    dial = dialling(agent, callee)
    turn = [scenario.user(), scenario.agent()]
    result = await run(
        agent, dial, *turn, *turn, scenario.succeed("both heard"), user=asks(question)
    )
    sid = scene.call(callee)["sid"]
    assert result.success and not agent.is_connected()
    heard, said = spoken(scene.sim.played(sid)), spoken(scene.sim.said(sid))
    assert len(heard) == len(said) == 2
    user = [s for s in result.audio.segments if s.speaker == "user"]
    theirs = [s for s in result.audio.segments if s.speaker == "agent"]
    assert len(user) == len(theirs) == 2
    for n in range(2):
        # The whole clip each way, and the agent's turn ends soon after its last word.
        assert_about(heard[n][1] - heard[n][0], 1.0)
        assert said[n][1] - said[n][0] - 0.1 < len(theirs[n].audio) / 48_000 < 1.2 + 1.2
        # The pause before the answer, at the carrier's clock and at scenario's.
        at_carrier = said[n][0] - heard[n][1]
        at_scenario = theirs[n].start_time - user[n].end_time
        assert_about(at_scenario, at_carrier)
    between = user[1].start_time - user[0].start_time
    assert_about(between, heard[1][0] - heard[0][0])


@beside
async def test_as_the_agent_under_test_that_is_called(
    scene: Scene,
    question: str,
    answer: Path,
) -> None:
    digits: list[str] = []
    sids: list[str] = []
    agent = scene.adapter(on_dtmf=digits.append)

    async def be_called(state: Any) -> None:
        waiting = await armed(agent, scene.sim)
        bot = {"kind": "wav", "path": str(answer), "after": 0.2, "dtmf": [[1.6, "7"]]}
        call = scene.sim.place_call(STRANGER, agent.phone_number, bot)
        sids.append(call["sid"])
        await waiting

    async def note(state: Any) -> None:
        assert scene.sim.call(sids[0])["status"] == "in-progress"

    result = await run(
        agent, be_called, scenario.agent(), note, scenario.audio(question), scenario.succeed("")
    )
    assert result.success
    assert 1.1 < agent_seconds(result)[0] < 2.6
    assert digits == ["7"]


@beside
async def test_a_turn_of_three_seconds_ends_soon_although_the_line_hisses_on(
    scene: Scene, tmp_path: Path
) -> None:
    """Scenario's own adapter, to which every frame of noise is sound, waits for its 30 s cap."""
    agent = scene.adapter()
    answer = clip(tmp_path / "answer.wav", 3.2, "austen-0890", hiss=8.0)
    sids: list[str] = []
    ended: list[float] = []

    async def be_called(state: Any) -> None:
        call = await called(agent, scene.sim, f"wav:{answer},after=0.3")
        sids.append(call["sid"])

    async def note(state: Any) -> None:
        ended.append(time.monotonic())

    result = await run(agent, be_called, scenario.agent(), note, scenario.succeed("it ended"))
    assert result.success
    call = scene.sim.call(sids[0])
    words = spoken(scene.sim.said(sids[0]))
    begin, end = words[0][0], words[-1][1]
    assert end - begin > 2.8
    assert_about(max(1.2, ended[0] - (call["media_started"] + end)), 1.2)
    (segment,) = [s for s in result.audio.segments if s.speaker == "agent"]
    assert end - begin < len(segment.audio) / 48_000 < end - begin + 1.2


@beside
async def test_a_dtmf_step_and_a_call_that_joins_by_the_environment(scene: Scene) -> None:
    """The adapter is made as a user's test makes it, and finds the running stack by itself."""
    callee = scene.callee("record")
    from trunkline import TwilioAgentAdapter

    agent = TwilioAgentAdapter(
        account_sid=os.environ["TWILIO_ACCOUNT_SID"],
        auth_token=os.environ["TWILIO_AUTH_TOKEN"],
        phone_number=scene.number(),
        allowed_callees=[callee],
    )
    heard: list[str] = []

    dial = dialling(agent, callee)

    async def note(state: Any) -> None:
        heard.append(scene.call(callee)["digits_heard"])

    result = await run(agent, dial, scenario.dtmf("1w#"), note, scenario.succeed("pressed"))
    assert result.success
    assert heard == ["1#"]
    assert agent.public_base_url is None


@beside
async def test_the_far_end_hangs_up_first_and_its_farewell_is_kept(
    scene: Scene,
    question: str,
    answer: Path,
) -> None:
    agent = scene.adapter()

    async def be_called(state: Any) -> None:
        await called(agent, scene.sim, f"wav:{answer},after=0.3,hang_up_when_done")

    result = await run(
        agent,
        be_called,
        scenario.agent(),
        scenario.audio(question),
        scenario.agent(),
        scenario.succeed("it said good-bye"),
    )
    assert result.success
    assert len(agent_seconds(result)) == 1
    assert 1.1 < agent_seconds(result)[0] < 2.6


@beside
async def test_a_call_that_reaches_its_longest_duration_ends_the_turn_and_not_the_run(
    scene: Scene, answer: Path
) -> None:
    callee = scene.callee(f"wav:{answer},loop")
    agent = scene.adapter(callee)
    ended: list[str] = []

    dial = dialling(agent, callee, max_call_duration_seconds=2)

    async def note(state: Any) -> None:
        ended.append(agent.stream_ended_reason)

    result = await run(agent, dial, scenario.agent(), note, scenario.succeed("it was cut"))
    assert result.success
    assert ended == ["max_duration"]
    assert 1.5 < agent_seconds(result)[0] < 2.6


@beside
async def test_an_interrupt_by_time(scene: Scene, question: str) -> None:
    callee = scene.callee("speech:austen-0880,after=0.2")
    agent = scene.adapter(callee)

    dial = dialling(agent, callee)
    result = await run(
        agent,
        dial,
        scenario.agent(wait=False),
        scenario.sleep(1.0),
        scenario.audio(question),
        scenario.succeed("it was interrupted"),
    )
    assert result.success
    sid = scene.call(callee)["sid"]
    (heard,) = spoken(scene.sim.played(sid))
    (said,) = spoken(scene.sim.said(sid))
    assert said[0] < heard[0] < said[1], "it was said while the agent spoke"
    assert_about(heard[1] - heard[0], 1.0)


@beside
async def test_an_interrupt_step_waits_for_the_agents_first_words_and_clears_the_line(
    scene: Scene, question: str
) -> None:
    callee = scene.callee("speech:austen-0890,after=0.8")
    agent = scene.adapter(callee)

    dial = dialling(agent, callee)

    async def speech(text: str, voice: str) -> bytes:
        return pcm_of(question)

    scenario.voice.tts.register_tts_provider("clip", speech)
    user = scenario.UserSimulatorAgent(model="none/none", voice="clip/question")
    steps = [dial, scenario.interrupt("stop, please"), scenario.succeed("it was")]
    result = await run(agent, *steps, user=user)
    assert result.success
    call = scene.call(callee)
    assert len(scene.sim.spans(call["streams"][0]["sid"])["clears"]) == 1
    (heard,) = spoken(scene.sim.played(call["sid"]))
    (said,) = spoken(scene.sim.said(call["sid"]))
    assert said[0] < heard[0] < said[1], "it was said while the agent spoke"
    assert_about(heard[1] - heard[0], 1.0)
    (event,) = [e for e in result.timeline if e.type == "user_interrupt"]
    assert (event.metadata["native"], event.metadata["outcome"]) == (True, "fired_after_speech")


@beside
async def test_two_adapters_talk_to_each_other_in_one_process(
    scene: Scene,
    question: str,
    answer: Path,
) -> None:
    ours, theirs = scene.number(), scene.number()
    caller = scene.stack.adapter(ours, allowed_callees=[theirs])
    callee = scene.stack.adapter(theirs, allowed_callers=[ours])
    ready = threading.Event()

    async def wait(state: Any) -> None:
        waiting = await armed(callee, scene.sim)
        ready.set()
        await waiting

    async def dial(state: Any) -> None:
        await asyncio.to_thread(ready.wait, 20)
        await caller.place_call(theirs, attach_stream="a-leg")

    asks = [scenario.audio(question), scenario.agent()]
    replies = [scenario.agent(), scenario.audio(str(answer))]
    one, other = await asyncio.gather(
        run(caller, dial, *asks, scenario.succeed("answered")),
        run(callee, wait, *replies, scenario.sleep(1.5), scenario.succeed("asked")),
    )
    assert one.success and other.success
    assert 1.1 < agent_seconds(one)[0] < 2.6, "the answer, as the caller heard it"
    assert 0.9 < agent_seconds(other)[0] < 2.4, "the question, as the callee heard it"


@beside
async def test_runs_at_once_share_a_number_and_a_stack(
    scene: Scene,
    question: str,
    answer: Path,
) -> None:
    number = scene.number()
    callees = [scene.callee(f"wav:{answer},when_silent=0.4") for _ in range(8)]

    async def one(callee: str) -> Any:
        agent = scene.stack.adapter(number, allowed_callees=[callee])
        steps = [scenario.audio(question), scenario.agent(), scenario.succeed("answered")]
        return await run(agent, dialling(agent, callee), *steps)

    results = await asyncio.gather(*(one(callee) for callee in callees))
    assert all(result.success for result in results)
    assert all(1.1 < agent_seconds(result)[0] < 2.6 for result in results)
    calls = [call for call in scene.sim.calls() if call["to"] in callees]
    assert sorted(call["to"] for call in calls) == callees
    begun = [call["media_started"] for call in calls]
    over = [call["media_started"] + call["played_ms"] / 1000 for call in calls]
    assert max(begun) < min(over), "one waited for another"


@beside
async def test_words_of_a_transcript_cannot_be_waited_for(scene: Scene) -> None:
    agent = scene.adapter()
    steps: list[str] = []

    async def first(state: Any) -> None:
        steps.append("first")

    with pytest.raises(scenario.UnsupportedCapabilityError, match="streaming_transcripts"):
        await run(agent, first, scenario.interrupt("stop", after_words=3), scenario.succeed(""))
    assert steps == []
    assert not agent.is_connected()
