"""TwilioAgentAdapter as a test of langwatch-scenario's users sees it, on a stack of doubles."""

from __future__ import annotations

import asyncio
import contextlib
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fake_stack import ACCOUNT, OURS, THEIRS, FakeStack
from later import scenario, testing
from line_sound import NAMES, noise, pcm, silence, words
from phone import adapter, answered, called, press

from trunkline.bus import messages as m
from trunkline.errors import AccountMismatchError, NumberNotFoundError


def said() -> bytes:
    """A second of words."""
    return pcm(words(NAMES[1])[:24_000])


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


def test_the_repr_masks_the_public_url_and_an_error_names_the_parameter() -> None:
    agent = adapter(public_base_url="https://me:pa55@x.example")
    assert repr(agent).endswith("public_base_url='https://me:***@x.example')")
    for name, wrong in (("phone_number", "4155"), ("allowed_callees", ["x"])):
        with pytest.raises(ValueError, match=rf"^{name}.* is not in E\.164"):
            adapter(**{name: wrong})


async def test_not_connected() -> None:
    agent = adapter()
    for doing in (
        agent.place_call(THEIRS),
        agent.wait_for_call(),
        agent.send_audio(scenario.AudioChunk(b"")),
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
    stack: FakeStack, short_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (short_directory / "trunkline").mkdir()
    (short_directory / "trunkline" / "bus").symlink_to(short_directory)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_directory))
    monkeypatch.delenv("TRUNKLINE_BUS", raising=False)
    monkeypatch.chdir(short_directory)
    async with adapter():
        assert len(stack.controller.all(m.OpenSession)) == 1
    with pytest.raises(RuntimeError, match="public_base_url is required"):
        await adapter(account_sid="AC" + "9" * 32).connect()
    assert len(stack.controller.all(m.OpenSession)) == 1


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
    assert len(stack.controller.all(m.OpenSession)) == 1
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


@pytest.mark.parametrize("coroutine", [True, False])
async def test_digits_reach_the_callback_in_order(
    stack: FakeStack, caplog: pytest.LogCaptureFixture, coroutine: bool
) -> None:
    got: list[str] = []
    done = asyncio.Event()

    def on_dtmf(digit: str) -> None:
        if digit == "x":
            raise ValueError("mine")
        got.append(digit)
        if digit == "#":
            done.set()

    async def on_dtmf_later(digit: str) -> None:
        on_dtmf(digit)

    async with adapter(stack, on_dtmf=on_dtmf_later if coroutine else on_dtmf) as agent:
        _, info = await answered(stack, agent)
        press(stack, info, "19x*#")
        await asyncio.wait_for(done.wait(), 5)
    assert got == list("19*#")
    assert "on_dtmf callback raised; continuing" in caplog.text


async def test_a_turn_ends_soon_after_its_last_word(stack: FakeStack) -> None:
    async with adapter(stack) as agent:
        _, info = await answered(stack, agent)
        async with line_sound(stack, info, pcm(silence(0.5)) + said()):
            loop = asyncio.get_running_loop()
            began = loop.time()
            chunk = await agent._drain_agent_response()
            lasted = loop.time() - began
        last_word = 0.5 + len(said()) / 48_000
        assert last_word < lasted < last_word + 1.2
        assert said()[4800:-9600] in chunk.data
        # The far end says good-bye and hangs up: the farewell is heard, then the call is over.
        stack.workers[0].hear(info.call, said())
        stack.end_call(info, by_far_end=True)
        assert agent.is_connected()
        message = await agent.call(testing.make_agent_input(scenario.AudioChunk(bytes(960))))
        assert message["role"] == "assistant"  # type: ignore[index,call-overload]  # one message
        assert not agent.is_connected()
        assert agent.agent_hung_up
        assert await agent.call(testing.make_agent_input()) == []
        with pytest.raises(RuntimeError, match="no live media stream"):
            await agent.send_audio(scenario.AudioChunk(bytes(960)))
        assert (await agent.recv_audio(1)).data == b""


async def test_a_report_is_of_the_last_call_also_after_disconnect(stack: FakeStack) -> None:
    agent = adapter(stack)
    with pytest.raises(RuntimeError, match="no live media stream"):
        agent.report()
    async with agent:
        _, info = await answered(stack, agent)
        stack.workers[0].hear(info.call, pcm(silence(0.5)) + said() + pcm(silence(0.5)))
        assert (await agent.recv_audio(5)).data
        stack.end_call(info, by_far_end=True)  # else the time until we hang up counts as lost
    report = agent.report()
    assert report.unreliable_because == ["there is no speech on our side"]
    begin, end = report.sides.theirs.segments[0].start, report.sides.theirs.segments[-1].end
    assert 0.45 < begin < 0.7 and 1.2 < end < 1.6


async def test_a_silent_turn_is_handed_its_silence(stack: FakeStack) -> None:
    async with adapter(stack) as agent:
        agent.response_max_duration = 0.5
        agent.response_timeout = 0.2
        _, info = await answered(stack, agent)
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


async def test_a_turn_that_speaks_to_a_far_end_that_hung_up_says_nothing(
    stack: FakeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it hangs up between the look at the call and the first word."""
    question = testing.make_agent_input(scenario.AudioChunk(bytes(960)))
    async with adapter(stack) as agent:
        _, info = await answered(stack, agent)
        stack.workers[0].hear(info.call, said())
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
        assert chunk is not None and said()[4800:-9600] in chunk.data, "its farewell is heard"
        assert stack.workers[0].calls[info.call].spoken == {}
        with pytest.raises(RuntimeError, match="no live media stream"):
            await agent.send_audio(scenario.AudioChunk(bytes(960)))


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
        info = await called(stack)
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
        _, info = await answered(stack, agent)
        stack.end_call(info, by_far_end=True)
        assert agent._call is not None
        await agent._call.wait_ended(5)
        with pytest.raises(RuntimeError, match="no live media stream"):
            await agent.send_audio(scenario.AudioChunk(bytes(960)))
