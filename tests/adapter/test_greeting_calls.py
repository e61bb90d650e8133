"""``callee_speaks_first`` on Line and on TwilioAgentAdapter, on a stack of doubles."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import phone
import pytest
from fake_stack import OURS, THEIRS, FakeStack
from later import scenario
from line_sound import NAMES, noise, pcm, silence, words

from trunkline import Call, Line
from trunkline.adapter.turns.greeting import greet, hear_greeting
from trunkline.bus import messages as m
from trunkline.bus.testing import until
from trunkline.errors import WrongModeError

if TYPE_CHECKING:
    from trunkline import TwilioAgentAdapter

QUIET = pcm(silence(0.5))
PAUSE = pcm(silence(1.5))


def hello() -> bytes:
    """The far end's greeting."""
    return pcm(words(NAMES[1]))


def more() -> bytes:
    """What it says later."""
    return pcm(words(NAMES[4]))


def both() -> bytes:
    """Its greeting, a pause, and something more."""
    return QUIET + hello() + PAUSE + more() + PAUSE


def adapter(stack: FakeStack, **given: Any) -> TwilioAgentAdapter:
    return phone.adapter(stack, allowed_callees=[THEIRS], **given)


def hear(stack: FakeStack, info: m.CallInfo, sound: bytes) -> None:
    """The far end says ``sound``."""
    for begin in range(0, len(sound), 4_800):
        stack.workers[0].hear(info.call, sound[begin : begin + 4_800])


async def dialled(stack: FakeStack, sound: bytes, age: float | None = None) -> m.CallInfo:
    """The next dial is answered, and its far end says ``sound``."""
    info = await phone.dialled(stack, age)
    hear(stack, info, sound)
    return info


async def called(stack: FakeStack, sound: bytes) -> m.CallInfo:
    """Somebody calls as soon as a call is waited for, and says ``sound``."""
    info = await phone.called(stack)
    hear(stack, info, sound)
    return info


async def all_heard(call: Call, size: int) -> bytes:
    """The next ``size`` bytes that the call hears."""
    heard = b""
    while len(heard) < size:
        heard += await call.recv_audio(5)
    return heard


def is_greeting(pcm_: bytes | None, said: bytes | None = None) -> bool:
    """It has the words, a pre-roll and a hangover, and nothing of what came later."""
    said = hello() if said is None else said
    return (
        pcm_ is not None
        and said[2_400:-14_400] in pcm_
        and len(said) - 19_200 < len(pcm_) < len(said) + 2 * 24_000 * 0.9
    )


LINES = ["place_call", "wait_for_call"]


async def begun(
    stack: FakeStack, line: Any, how: str, sound: bytes, **given: Any
) -> tuple[asyncio.Future[Any], m.CallInfo]:
    """``line``'s method ``how`` under way, the far end of its call having said ``sound``."""
    given = {"callee_speaks_first": True} | given
    if how == "place_call":
        asked = line.place_call(THEIRS, attach_stream="a-leg", timeout=5, **given)
        return asyncio.ensure_future(asked), await dialled(stack, sound)
    asked = line.wait_for_call(5, **given)
    return asyncio.ensure_future(asked), await called(stack, sound)


async def greeted(stack: FakeStack, line: Any, how: str, sound: bytes, **given: Any) -> Any:
    """What ``line``'s method ``how`` returns where the far end says ``sound`` first."""
    async with asyncio.timeout(10):
        asked, _ = await begun(stack, line, how, sound, **given)
        return await asked


@pytest.mark.parametrize("how", LINES)
async def test_a_line_keeps_it_and_hears_on_behind_it(stack: FakeStack, how: str) -> None:
    async with Line(OURS, allowed_callees=[THEIRS], bus=stack.bus) as line:
        call = await greeted(stack, line, how, both())
        assert is_greeting(call.greeting)
        at = both().index(call.greeting) + len(call.greeting)
        assert await all_heard(call, len(both()) - at) == both()[at:]
        with pytest.raises(asyncio.TimeoutError):
            await call.recv_audio(0.05)


@pytest.mark.parametrize("how", LINES)
async def test_a_line_on_which_nobody_speaks_goes_on(
    stack: FakeStack, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    hiss = pcm(noise("line", 24_000, seed=1) * 30)
    async with Line(OURS, allowed_callees=[THEIRS], bus=stack.bus) as line:
        call = await greeted(stack, line, how, hiss, greeting_timeout=0.3)
        assert (call.greeting, call.ended_reason) == (None, None)
        assert await all_heard(call, len(hiss)) == hiss
    assert "nobody spoke within 0.3 s" in caplog.text


@pytest.mark.parametrize("how", LINES)
async def test_without_being_asked_nothing_is_waited_for(stack: FakeStack, how: str) -> None:
    async with Line(OURS, allowed_callees=[THEIRS], bus=stack.bus) as line:
        call = await greeted(stack, line, how, both(), callee_speaks_first=False)
        assert call.greeting is None
        assert await all_heard(call, len(both())) == both()


async def test_the_time_for_it_began_with_the_stream(
    stack: FakeStack, caplog: pytest.LogCaptureFixture
) -> None:
    async with Line(OURS, allowed_callees=[THEIRS], bus=stack.bus) as line:
        placing = line.place_call(
            THEIRS, attach_stream="a-leg", callee_speaks_first=True, greeting_timeout=60
        )
        async with asyncio.timeout(10):
            call, _ = await asyncio.gather(placing, dialled(stack, b"", age=59.8))
        assert call.greeting is None
    assert "nobody spoke within 60 s" in caplog.text


@pytest.mark.parametrize("how", LINES)
async def test_cancelled_during_it_the_call_is_hung_up(
    stack: FakeStack, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listening = asyncio.Event()

    async def told(*args: Any) -> None:
        listening.set()
        await greet(*args)

    monkeypatch.setattr("trunkline.adapter.line.greet", told)
    async with Line(OURS, allowed_callees=[THEIRS], bus=stack.bus) as line:
        asked, info = await begun(stack, line, how, QUIET + hello()[:24_000])
        await listening.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        hung_up = await stack.controller.wait_for(m.HangUp)
        assert hung_up.call == info.call
        # The line may be used again.
        call = await greeted(stack, line, how, both())
        assert is_greeting(call.greeting)


@pytest.mark.parametrize("how", LINES)
async def test_the_far_end_hangs_up_in_the_middle_of_it(stack: FakeStack, how: str) -> None:
    async with Line(OURS, allowed_callees=[THEIRS], bus=stack.bus) as line:
        asked, info = await begun(stack, line, how, QUIET + hello()[:48_000])
        stack.end_call(info, by_far_end=True)
        async with asyncio.timeout(10):
            call = await asked
        assert call.greeting is not None and hello()[2_400:43_200] in call.greeting
        assert (call.ended_reason, call.ended_by_far_end) == ("stop", True)
        assert await call.recv_audio(1) == b""
        with pytest.raises(WrongModeError, match="the call has ended"):
            await call.send_audio(bytes(960))


async def test_digits_that_come_during_it_are_kept(stack: FakeStack) -> None:
    async with Line(OURS, allowed_callees=[THEIRS], bus=stack.bus) as line:
        waiting = asyncio.ensure_future(line.wait_for_call(5, callee_speaks_first=True))
        info = await called(stack, QUIET + hello())
        phone.press(stack, info, "7")
        stack.workers[0].hear(info.call, PAUSE)
        call = await waiting
        assert is_greeting(call.greeting)
        assert await anext(call.dtmf) == "7"


def refusals(stack: FakeStack) -> list[Callable[[], Any]]:
    return [
        lambda: Line(OURS, allowed_callees=[THEIRS], bus=stack.bus),
        lambda: adapter(stack),
    ]


@pytest.mark.parametrize("which", [0, 1], ids=["line", "adapter"])
async def test_what_makes_no_sense_is_refused_before_anything_is_dialled(
    stack: FakeStack, which: int
) -> None:
    async with refusals(stack)[which]() as line:
        with pytest.raises(ValueError, match="needs a call with sound"):
            await line.place_call(THEIRS, attach_stream_to_self=False, callee_speaks_first=True)
        for how in (line.place_call, line.wait_for_call):
            with pytest.raises(ValueError, match="greeting_timeout must be a positive number"):
                await how(*([THEIRS] if how == line.place_call else []), greeting_timeout=0)
    assert not any(isinstance(r, m.Dial | m.Arm) for r in stack.controller.requests)


# ---------------------------------------------------------------- the scenario adapter


@pytest.mark.parametrize("gate", [True, False, {"hangover_ms": 300}])
@pytest.mark.parametrize("how", LINES)
async def test_an_adapter_keeps_it_and_the_answer_is_the_answer(
    stack: FakeStack, how: str, gate: Any
) -> None:
    async with adapter(stack, speech_gate=gate) as agent:
        await greeted(stack, agent, how, both())
        greeting = agent.greeting
        assert greeting is not None and is_greeting(greeting)
        heard = (await agent.recv_audio(5)).data
        at = both().index(greeting) + len(greeting)
        begin = both().index(heard, at)
        if gate is False:
            assert begin == at, "without the gate everything behind it is handed out"
        else:
            answer = both().index(more())
            assert answer - 2 * 24_000 * 0.35 < begin < answer + 2_400
    assert agent.greeting == greeting, "it outlives the call"


async def test_each_call_has_its_own(stack: FakeStack) -> None:
    async with adapter(stack) as agent:
        await greeted(stack, agent, "place_call", both())
        assert is_greeting(agent.greeting)
        await greeted(stack, agent, "place_call", both(), callee_speaks_first=False)
        assert agent.greeting is None
        await greeted(stack, agent, "place_call", QUIET + more() + PAUSE)
        assert is_greeting(agent.greeting, more())
    await agent.connect()
    assert agent.greeting is None
    await agent.disconnect()


async def test_an_adapter_cancelled_during_it_hangs_up_and_has_no_call(
    stack: FakeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    listening = asyncio.Event()

    async def told(*args: Any, **given: Any) -> bytes | None:
        listening.set()
        return await hear_greeting(*args, **given)

    monkeypatch.setattr("trunkline.adapter.scenario.adapter.hear_greeting", told)
    async with adapter(stack) as agent:
        asked = asyncio.ensure_future(
            agent.place_call(THEIRS, attach_stream="a-leg", callee_speaks_first=True)
        )
        info = await dialled(stack, QUIET + hello()[:24_000])
        await listening.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert (await stack.controller.wait_for(m.HangUp)).call == info.call
        assert agent.stream_ended_reason == "none"
        with pytest.raises(RuntimeError, match="no live media stream"):
            await agent.send_audio(scenario.AudioChunk(bytes(960)))


async def test_digits_during_it_reach_the_callback_at_once(stack: FakeStack) -> None:
    pressed: asyncio.Queue[str] = asyncio.Queue()
    async with adapter(stack, on_dtmf=pressed.put_nowait) as agent:
        waiting = asyncio.ensure_future(agent.wait_for_call(5, callee_speaks_first=True))
        info = await called(stack, QUIET + hello())
        phone.press(stack, info, "7")
        assert await asyncio.wait_for(pressed.get(), 5) == "7"
        assert not waiting.done()
        stack.workers[0].hear(info.call, PAUSE)
        await waiting
        assert is_greeting(agent.greeting)


async def test_it_ends_as_the_adapters_turns_end(
    stack: FakeStack, caplog: pytest.LogCaptureFixture
) -> None:
    """Its tail silence and its longest duration are those of the adapter's turns."""
    async with adapter(stack) as agent:
        agent.response_tail_silence = 2.0
        sound = QUIET + hello() + PAUSE + more() + pcm(silence(3.0))
        await greeted(stack, agent, "place_call", sound)
        assert agent.greeting is not None and more()[2_400:-14_400] in agent.greeting
        agent.response_max_duration = 1.0
        await greeted(stack, agent, "place_call", sound)
        assert agent.greeting is not None
        assert 1.0 <= len(agent.greeting) / 48_000 < 1.3
    assert "has not ended within 1 s; it is cut there" in caplog.text


async def test_disconnect_says_what_the_gate_held_back_in_all_calls(stack: FakeStack) -> None:
    agent = adapter(stack)
    await agent.connect()
    await greeted(stack, agent, "place_call", both())
    first = len(both()) // 48
    await greeted(stack, agent, "place_call", QUIET, callee_speaks_first=False)
    await agent.disconnect()
    assert agent.greeting is None
    counters = agent.gate_counters
    assert counters.onsets == 2
    spoken = (len(hello()) + len(more())) // 48
    assert first + 500 - spoken - 2_500 < counters.dropped_ms < first + 500 - len(hello()) // 48
    assert counters.dropped_chunks == counters.dropped_ms // 100
    await agent.connect()
    assert agent.gate_counters.onsets == 0
    await agent.disconnect()


async def run_scenario(
    stack: FakeStack, agent: TwilioAgentAdapter, sound: bytes, question: bytes, **given: Any
) -> Any:
    """A scripted run: dial, ask, hear the answer. The far end says ``sound`` at once, and hears."""

    async def far_end() -> None:
        # scenario.run has a loop and a thread of its own; the doubles stay on this one.
        info = await dialled(stack, sound)
        await until(lambda: bool(stack.workers[0].calls[info.call].spoken))
        stack.workers[0].hear(info.call, more() + PAUSE)
        await stack.controller.wait_for(m.CloseSession)

    async def dial(state: Any) -> None:
        await agent.place_call(THEIRS, attach_stream="a-leg", **given)

    class Asks(scenario.AgentAdapter):  # type: ignore[misc]  # the package is untyped
        role = scenario.AgentRole.USER
        seen: list[Any] = []  # noqa: RUF012  # one instance

        async def call(self, input: Any) -> Any:
            self.seen.extend(input.new_messages)
            return scenario.voice.create_audio_message(scenario.AudioChunk(question), role="user")

    chunks: list[Any] = []
    events: list[Any] = []
    running = scenario.run(
        name="greeting",
        description="the callee greets, is asked, and answers",
        agents=[agent, Asks()],
        script=[dial, scenario.user(), scenario.agent(), scenario.succeed("answered")],
        on_audio_chunk=chunks.append,
        on_voice_event=events.append,
        verbose=False,
    )
    result, _ = await asyncio.gather(running, far_end())
    assert result.success
    return result, Asks.seen, chunks, events


async def test_in_a_run_it_is_the_far_ends_first_turn_and_no_answer(stack: FakeStack) -> None:
    agent = adapter(stack)
    question = pcm(words(NAMES[0])[:12_000])
    result, seen, chunks, events = await run_scenario(
        stack, agent, QUIET + hello() + PAUSE, question, callee_speaks_first=True
    )
    segments = result.audio.segments
    assert [s.speaker for s in segments] == ["agent", "user", "agent"]
    assert segments[0].audio == agent.greeting and is_greeting(agent.greeting)
    assert is_greeting(segments[2].audio, more())
    assert segments[0].start_time <= segments[0].end_time <= segments[1].start_time
    assert [message["role"] for message in result.messages] == ["assistant", "user", "assistant"]
    heard = [scenario.voice.extract_audio(message) for message in result.messages]
    assert [chunk.data for chunk in heard] == [s.audio for s in segments]
    assert [scenario.voice.extract_audio(message).data for message in seen] == [agent.greeting]
    assert [chunk.data for chunk in chunks] == [s.audio for s in segments]
    spoke = ["agent_start_speaking", "agent_stop_speaking"]
    asked = ["user_start_speaking", "user_stop_speaking"]
    assert [e.type for e in result.timeline] == [*spoke, *asked, *spoke]
    assert events == result.timeline
    assert result.timeline[0].latency is None, "it answers nobody"


async def test_in_a_run_that_does_not_ask_for_it_it_is_the_answer_as_ever(
    stack: FakeStack,
) -> None:
    agent = adapter(stack)
    question = pcm(words(NAMES[0])[:12_000])
    result, seen, _, _ = await run_scenario(stack, agent, QUIET + hello() + PAUSE, question)
    segments = result.audio.segments
    assert [s.speaker for s in segments] == ["user", "agent"]
    assert is_greeting(segments[1].audio)
    assert (agent.greeting, seen) == (None, [])


async def test_what_is_done_by_hand_after_a_run_in_the_same_task_is_none_of_its_steps(
    stack: FakeStack,
) -> None:
    """scenario.arun leaves its run behind as the task's context."""
    agent = adapter(stack)

    async def far_end() -> None:
        await dialled(stack, QUIET + hello() + PAUSE)
        await stack.controller.wait_for(m.CloseSession)

    async def dial(state: Any) -> None:
        await agent.place_call(THEIRS, attach_stream="a-leg", callee_speaks_first=True)

    calling = asyncio.ensure_future(far_end())
    result = await scenario.arun(
        name="greeting",
        description="the callee greets",
        agents=[agent],
        script=[dial, scenario.succeed("it did")],
        verbose=False,
    )
    await calling
    assert [s.speaker for s in result.audio.segments] == ["agent"]
    async with agent:
        asked, info = await begun(stack, agent, "place_call", QUIET + more() + PAUSE)
        await asked
        assert is_greeting(agent.greeting, more())
        stack.end_call(info, by_far_end=True)
        assert agent._call is not None
        await agent._call.wait_ended(5)
        with pytest.raises(RuntimeError, match="no live media stream"):
            await agent.send_audio(scenario.AudioChunk(bytes(960)))
    assert len(result.audio.segments) == len(result.messages) == 1
