"""TwilioAgentAdapter as a test of langwatch-scenario's users sees it, on a stack of doubles."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import wave
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from fake_stack import ACCOUNT, OURS, THEIRS, FakeStack
from line_sound import NAMES, noise, pcm, silence, words
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from quiet_scenario import scenario

from trunkline import TwilioAgentAdapter
from trunkline.adapter import testing, twilio
from trunkline.adapter.scenario import join as joining
from trunkline.bus import messages as m
from trunkline.errors import AccountMismatchError, NumberNotFoundError

AudioChunk = scenario.voice.AudioChunk


def adapter(stack: FakeStack | None = None, **given: Any) -> TwilioAgentAdapter:
    settings: dict[str, Any] = {
        "account_sid": ACCOUNT,
        "auth_token": "no-token",
        "phone_number": OURS,
        "bus": None if stack is None else stack.bus,
    }
    return TwilioAgentAdapter(**(settings | given))


async def answered(stack: FakeStack, agent: TwilioAgentAdapter) -> m.CallInfo:
    count = sum(isinstance(r, m.Arm) for r in stack.controller.requests)
    waiting = asyncio.ensure_future(agent.wait_for_call(timeout=5))
    arm = await stack.controller.wait_for(m.Arm, count + 1)
    info = stack.start_call(arm.session)
    await waiting
    await stack.workers[0].resumed(info.call)
    return info


@contextlib.asynccontextmanager
async def line_sound(stack: FakeStack, info: m.CallInfo, sound: bytes) -> AsyncIterator[None]:
    """``sound`` comes in, 20 ms each 20 ms, then line noise for as long as the body lasts."""
    hiss = pcm(noise("line", 48_000, seed=1) * 20)

    async def play() -> None:
        loop = asyncio.get_running_loop()
        begin, n = loop.time(), 0
        while True:
            piece = sound[960 * n : 960 * (n + 1)]
            at = 960 * n % len(hiss)
            stack.workers[0].hear(info.call, (piece + hiss[at : at + 960])[:960])
            n += 1
            await asyncio.sleep(max(0.0, begin + 0.02 * n - loop.time()))

    task = asyncio.ensure_future(play())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", lambda name, *a, **k: provider.get_tracer(name))
    return exporter


def test_construction() -> None:
    agent = adapter(allowed_callers=[" " + THEIRS], allowed_callees=[])
    assert isinstance(agent, scenario.VoiceAgentAdapter)
    assert (agent.http_port, agent.validate_signature, agent.role) == (
        8765,
        True,
        scenario.AgentRole.AGENT,
    )
    assert (agent.allowed_callers, agent.allowed_callees) == ({THEIRS}, None)
    assert agent.response_tail_silence == 0.6
    assert agent.capabilities.dtmf and agent.capabilities.interruption
    assert repr(agent) == (
        f"TwilioAgentAdapter(phone_number={OURS!r}, account_sid='***', auth_token='***', "
        "public_base_url=None)"
    )
    agent.public_base_url = "https://me:pa55@x.example"
    assert repr(agent).endswith("public_base_url='https://me:***@x.example')")
    for name, wrong in (("phone_number", "4155"), ("allowed_callees", ["x"])):
        with pytest.raises(ValueError, match=rf"^{name}.* is not in E\.164"):
            adapter(**{name: wrong})


def test_no_signature_check_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    adapter(validate_signature=False)
    (record,) = caplog.records
    assert record.name == "scenario.voice.twilio"
    assert "inbound webhooks accept any payload" in record.message


def test_names_that_users_import() -> None:
    assert twilio.PLACE_CALL_A_LEG_SAY_TEXT.startswith("Thank you for calling.")
    assert "a-leg" in twilio.A_LEG_SEND_DTMF_UNSUPPORTED
    assert twilio.TunnelNotReadyError is scenario.TunnelNotReadyError
    assert isinstance(testing.CloudflareTunnel(1), twilio.TunnelReadiness)
    assert 0 < testing.free_port() < 65_536


async def test_not_connected() -> None:
    agent = adapter()
    for doing in (
        agent.place_call(THEIRS),
        agent.wait_for_call(),
        agent.send_audio(AudioChunk(b"")),
        agent.recv_audio(1),
        agent.interrupt(),
    ):
        with pytest.raises(RuntimeError, match="not connected; call connect"):
            await doing
    with pytest.raises(RuntimeError, match="no active call; send_dtmf requires"):
        await agent.send_dtmf("1")
    assert not agent.is_connected()
    with pytest.raises(RuntimeError, match="not connected"):
        await agent.call(testing.make_agent_input())
    await agent.disconnect()


async def test_no_stack_and_no_url(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.delenv("TRUNKLINE_BUS", raising=False)
    monkeypatch.setattr("trunkline.bus.settings.default_bus", lambda: f"ipc://{tmp_path}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match="public_base_url is required"):
        await adapter().connect()


async def test_the_default_stack_is_joined_where_the_account_is_the_same(
    stack: FakeStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.delenv("TRUNKLINE_BUS", raising=False)
    monkeypatch.chdir(tmp_path)
    joined = await joining._answers(joining.BusAddress.parse(stack.bus), ACCOUNT)
    other = await joining._answers(joining.BusAddress.parse(stack.bus), "AC" + "9" * 32)
    assert (joined, other) == (True, False)


async def test_what_a_joined_stack_ignores(
    stack: FakeStack, caplog: pytest.LogCaptureFixture
) -> None:
    agent = adapter(stack, http_port=1, public_base_url="https://elsewhere.example.com")
    async with agent:
        pass
    assert "http_port, public_base_url: ignored" in caplog.text


async def test_credentials_and_url_are_taken_as_settings_take_them(
    stack: FakeStack, caplog: pytest.LogCaptureFixture
) -> None:
    """They come out of the same environment, where the stack's settings are stripped too."""
    agent = adapter(
        stack,
        account_sid=f" {ACCOUNT}\n",
        auth_token="token\u200b ",
        public_base_url="HTTP://me:pa55@127.0.0.1:1/ ",  # the fake controller's
    )
    assert (agent.account_sid, agent.auth_token) == (ACCOUNT, "token")
    async with agent:
        opened = await stack.controller.wait_for(m.OpenSession)
        assert opened.info.account == ACCOUNT
    assert "ignored" not in caplog.text


async def test_another_account_is_an_error(stack: FakeStack) -> None:
    stack.controller.answers[m.OpenSession] = AccountMismatchError("another account")
    with pytest.raises(AccountMismatchError):
        await adapter(stack).connect()


async def test_a_number_that_is_not_on_the_account(stack: FakeStack) -> None:
    stack.controller.answers[m.OpenSession] = NumberNotFoundError("no", number=OURS)
    with pytest.raises(RuntimeError, match=r"No incoming phone number found.*\*\*\*0100"):
        await adapter(stack).connect()


async def test_connect_twice_disconnect_and_the_other_direction(stack: FakeStack) -> None:
    agent = adapter(stack)
    await agent.connect()
    await agent.connect()
    assert sum(isinstance(r, m.OpenSession) for r in stack.controller.requests) == 1
    with pytest.raises(asyncio.TimeoutError):
        await agent.wait_for_call(timeout=0.05)
    with pytest.raises(RuntimeError, match="already in 'answer' mode; cannot switch to 'call'"):
        await agent.place_call(THEIRS)
    await agent.disconnect()
    await agent.disconnect()
    async with agent:
        with pytest.raises(ValueError, match="only supported with attach_stream"):
            await agent.place_call(THEIRS, max_call_duration_seconds=5)
        with pytest.raises(asyncio.TimeoutError):  # a wrong place_call has not chosen the mode
            await agent.wait_for_call(timeout=0.05)


async def test_a_tunnel_that_is_not_ready_dials_nothing(stack: FakeStack) -> None:
    class Tunnel:
        asked = 0

        async def wait_until_edge_reachable(self) -> None:
            self.asked += 1
            raise OSError("no edge")

    tunnel = Tunnel()
    agent = adapter(stack, tunnel_readiness=tunnel, allowed_callees=[THEIRS])
    async with agent:
        with pytest.raises(ValueError, match="not in allowed_callees"):
            await agent.place_call("+14155550999", attach_stream="a-leg")
        assert tunnel.asked == 0
        with pytest.raises(scenario.TunnelNotReadyError, match="Not originating") as caught:
            await agent.place_call(THEIRS, attach_stream="a-leg")
        assert isinstance(caught.value.__cause__, OSError)
    assert not any(isinstance(r, m.Dial) for r in stack.controller.requests)


async def test_digits_reach_the_callback(
    stack: FakeStack, caplog: pytest.LogCaptureFixture
) -> None:
    got: list[str] = []
    done = asyncio.Event()

    async def on_dtmf(digit: str) -> None:
        if digit == "x":
            raise ValueError("mine")
        got.append(digit)
        if digit == "#":
            done.set()

    async with adapter(stack, on_dtmf=on_dtmf) as agent:
        info = await answered(stack, agent)
        for index, digit in enumerate("4x#", 1):
            stack.workers[0].send(
                info.call,
                m.DigitHeard(info.call, m.first_generation(1), m.DigitIn(1, index, digit)),
            )
        await asyncio.wait_for(done.wait(), 5)
    assert got == ["4", "#"]
    assert "on_dtmf callback raised; continuing" in caplog.text


async def test_a_turn_ends_soon_after_its_last_word(stack: FakeStack) -> None:
    said = pcm(words(NAMES[1]))
    async with adapter(stack) as agent:
        info = await answered(stack, agent)
        async with line_sound(stack, info, pcm(silence(0.5)) + said):
            loop = asyncio.get_running_loop()
            began = loop.time()
            chunk = await agent._drain_agent_response()
            lasted = loop.time() - began
        last_word = 0.5 + len(said) / 48_000
        assert last_word < lasted < last_word + 1.2
        assert said[4800:-9600] in chunk.data
        # The far end says good-bye and hangs up: the farewell is heard, then the call is over.
        stack.workers[0].hear(info.call, said)
        stack.end_call(info, by_far_end=True)
        assert agent.is_connected()
        message = await agent.call(testing.make_agent_input(AudioChunk(bytes(960))))
        assert message["role"] == "assistant"  # type: ignore[index,call-overload]  # one message
        assert not agent.is_connected()
        assert agent.agent_hung_up
        assert await agent.call(testing.make_agent_input()) == []
        with pytest.raises(RuntimeError, match="no live media stream"):
            await agent.send_audio(AudioChunk(bytes(960)))
        assert (await agent.recv_audio(1)).data == b""


async def test_a_silent_turn_is_handed_its_silence(stack: FakeStack) -> None:
    async with adapter(stack) as agent:
        agent.response_max_duration = 0.5
        agent.response_timeout = 0.2
        info = await answered(stack, agent)
        async with line_sound(stack, info, b""):
            message = await agent.call(testing.make_agent_input())
        assert message["role"] == "assistant"  # type: ignore[index,call-overload]  # one message
        chunk = scenario.voice.extract_audio(message)
        assert chunk is not None and chunk.duration_seconds >= 0.5


async def test_a_dead_line_is_a_first_chunk_timeout(stack: FakeStack) -> None:
    async with adapter(stack) as agent:
        agent.response_timeout = 0.6
        await answered(stack, agent)
        with pytest.raises(scenario.voice.FirstChunkTimeoutError, match="phase=first-chunk"):
            await agent.call(testing.make_agent_input())


async def test_without_the_gate_everything_is_handed_out(stack: FakeStack) -> None:
    async with adapter(stack, speech_gate=False) as agent:
        info = await answered(stack, agent)
        quiet = pcm(silence(0.2))
        stack.workers[0].hear(info.call, quiet)
        assert (await agent.recv_audio(5)).data == quiet
        with pytest.raises(asyncio.TimeoutError):
            await agent.recv_audio(0.05)


async def test_recv_wakes_when_disconnect_runs(stack: FakeStack) -> None:
    for gated in (True, False):
        agent = adapter(stack, speech_gate=gated)
        await agent.connect()
        await answered(stack, agent)
        receiving = asyncio.ensure_future(agent.recv_audio(30))
        await asyncio.sleep(0)
        await agent.disconnect()
        assert (await asyncio.wait_for(receiving, 5)).data == b""
        with pytest.raises(RuntimeError, match="not connected"):
            await agent.recv_audio(1)


async def test_spans(stack: FakeStack, spans: InMemorySpanExporter) -> None:
    agent = adapter(stack)
    tracer = trace.get_tracer("test")
    with tracer.start_as_current_span("connect"):
        await agent.connect()
    info = await answered(stack, agent)
    stack.workers[0].hear(info.call, pcm(silence(0.1)))
    await asyncio.wait_for(agent._call.sound.bell.wait_until(agent._call.sound.ready, 5), 5)  # type: ignore[union-attr]  # it is there
    with pytest.raises(asyncio.TimeoutError):
        await agent.recv_audio(0.05)
    with tracer.start_as_current_span("disconnect"):
        await agent.disconnect()
    found = {span.name: dict(span.attributes or {}) for span in spans.get_finished_spans()}
    assert found["connect"]["voice.twilio.phone_number_sid"] == "PN" + "2" * 32
    dial = found["voice.adapter.dial"]
    assert dial["voice.twilio.direction"] == "inbound"
    assert dial["voice.twilio.to"] == "***0100"
    assert dial["langwatch.span.type"] == "span"
    assert isinstance(dial["voice.twilio.stream_connect_latency_ms"], int)
    end = found["disconnect"]
    assert end["voice.twilio.frames_received"] == 5
    assert end["voice.twilio.rest_restore_failed"] is False


async def test_a_dial_that_times_out_marks_its_span(
    stack: FakeStack, spans: InMemorySpanExporter
) -> None:
    async with adapter(stack) as agent:
        with pytest.raises(asyncio.TimeoutError):
            await agent.wait_for_call(timeout=0.05)
    (dial,) = [s for s in spans.get_finished_spans() if s.name == "voice.adapter.dial"]
    assert (dial.attributes or {})["voice.twilio.dial_outcome"] == "stream_connect_timeout"
    assert dial.status.status_code is trace.StatusCode.ERROR


async def test_scenario_run_hears_two_turns_and_disconnects(
    stack: FakeStack, caplog: pytest.LogCaptureFixture, tmp_path: Any
) -> None:
    caplog.set_level(logging.WARNING)
    agent = adapter(stack)
    said = pcm(words(NAMES[1]))
    question = tmp_path / "question.wav"
    with wave.open(str(question), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(24_000)
        file.writeframes(pcm(np.concatenate([words(NAMES[4])[:12_000]])))

    async def carrier() -> None:
        # scenario.run has a loop and a thread of its own; the doubles stay on this one.
        arm = await stack.controller.wait_for(m.Arm)
        info = stack.start_call(arm.session)
        await stack.workers[0].resumed(info.call)
        sound = pcm(silence(0.3)) + said + pcm(silence(1.6)) + said
        async with line_sound(stack, info, sound):
            await stack.controller.wait_for(m.CloseSession)

    async def dial(state: Any) -> None:
        await agent.wait_for_call(timeout=5)

    calling = asyncio.ensure_future(carrier())
    result = await scenario.run(
        name="greeting",
        description="the agent speaks twice",
        agents=[agent],
        script=[
            dial,
            scenario.agent(),
            scenario.audio(str(question)),
            scenario.agent(),
            scenario.succeed("done"),
        ],
    )
    await calling
    assert result.success
    spoken = [s for s in result.audio.segments if s.speaker == "agent"]
    assert len(spoken) == 2
    for segment in spoken:
        assert abs(len(segment.audio) / 2 / 24_000 - len(said) / 48_000) < 0.9
    assert not agent.is_connected()
    assert any(isinstance(r, m.CloseSession) for r in stack.controller.requests)


async def test_a_turn_that_speaks_to_a_far_end_that_hung_up_says_nothing(
    stack: FakeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it hangs up between the look at the call and the first word."""
    said = pcm(words(NAMES[1]))
    question = testing.make_agent_input(AudioChunk(bytes(960)))
    async with adapter(stack) as agent:
        info = await answered(stack, agent)
        stack.workers[0].hear(info.call, said)
        call = agent._call
        assert call is not None
        speak = call.send_audio

        async def late(pcm: bytes) -> int:
            stack.end_call(info, by_far_end=True)
            await call.wait_ended(5)
            return await speak(pcm)

        monkeypatch.setattr(call, "send_audio", late)
        message = await agent.call(question)
        chunk = scenario.voice.extract_audio(message)
        assert chunk is not None and said[4800:-9600] in chunk.data, "its farewell is heard"
        assert stack.workers[0].calls[info.call].spoken == {}
        with pytest.raises(RuntimeError, match="no live media stream"):
            await agent.send_audio(AudioChunk(bytes(960)))


async def test_a_script_that_goes_on_after_a_hang_up_comes_to_its_end(
    stack: FakeStack, tmp_path: Any
) -> None:
    """Scenario's own steps speak outside call(), too. By hand, it is an error."""
    agent = adapter(stack)
    question = tmp_path / "question.wav"
    with wave.open(str(question), "wb") as file:
        file.setparams((1, 2, 24_000, 0, "NONE", ""))
        file.writeframes(bytes(4_800))

    async def carrier() -> None:
        arm = await stack.controller.wait_for(m.Arm)
        info = stack.start_call(arm.session)
        await stack.workers[0].resumed(info.call)
        stack.end_call(info, by_far_end=True)
        await stack.controller.wait_for(m.CloseSession)

    async def wait(state: Any) -> None:
        await agent.wait_for_call(timeout=5)
        assert agent._call is not None
        await agent._call.wait_ended(5)

    calling = asyncio.ensure_future(carrier())
    result = await scenario.run(
        name="hung up",
        description="the far end hangs up, then the script speaks",
        agents=[agent],
        script=[wait, scenario.audio(str(question)), scenario.agent(), scenario.succeed("done")],
    )
    await calling
    assert result.success
    async with agent:
        info = await answered(stack, agent)
        stack.end_call(info, by_far_end=True)
        assert agent._call is not None
        await agent._call.wait_ended(5)
        with pytest.raises(RuntimeError, match="no live media stream"):
            await agent.send_audio(AudioChunk(bytes(960)))
