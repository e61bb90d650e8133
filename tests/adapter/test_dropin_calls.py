"""Dialling, answering and ending as scenario's users know it, on a stack of doubles."""

from __future__ import annotations

import asyncio
import logging

import pytest
from fake_stack import ACCOUNT, OURS, THEIRS, FakeStack
from later import imported, scenario
from phone import adapter, answered, dials, placed, press

from trunkline.bus import messages as m
from trunkline.bus.testing import until
from trunkline.errors import CarrierError, NumberNotFoundError, SettingsError, WrongModeError

ELSEWHERE = "+14155550999"


# --------------------------------------------------------------------------- checks and modes


async def test_the_checks_of_place_call_come_in_scenarios_order(stack: FakeStack) -> None:
    asked: list[str] = []

    class Tunnel:
        async def wait_until_edge_reachable(self) -> None:
            asked.append("tunnel")
            raise scenario.TunnelNotReadyError("mine, as it is")

    agent = adapter(stack, allowed_callees=[THEIRS], tunnel_readiness=Tunnel())
    with pytest.raises(RuntimeError, match="not connected"):
        await agent.place_call("junk", attach_stream="a-leg", attach_stream_to_self=True)
    async with agent:
        for to, how, words in [
            ("junk", {"attach_stream": "a-leg", "attach_stream_to_self": True}, r"E\.164"),
            (" " + THEIRS, {}, r"E\.164"),
            (ELSEWHERE, {"attach_stream": "a-leg", "attach_stream_to_self": True}, "conflicts"),
            (ELSEWHERE, {"attach_stream": "a-leg", "max_call_duration_seconds": 301}, "not in all"),
            (THEIRS, {"attach_stream": "a-leg", "max_call_duration_seconds": 301}, "exceeds"),
            (THEIRS, {"attach_stream": "a-leg", "max_call_duration_seconds": 0}, "positive"),
            (THEIRS, {"max_call_duration_seconds": 5}, "only supported with attach_stream"),
        ]:
            with pytest.raises(ValueError, match=words) as refused:
                await agent.place_call(to, **how)  # type: ignore[arg-type]  # as users write it
            assert to not in str(refused.value)
        assert asked == []
        with pytest.raises(scenario.TunnelNotReadyError, match="mine, as it is"):
            await agent.place_call(THEIRS, attach_stream="a-leg")
        assert asked == ["tunnel"]
    assert dials(stack) == []


async def test_a_tunnel_that_is_ready_is_asked_once_and_only_for_the_a_leg(
    stack: FakeStack,
) -> None:
    asked: list[int] = []

    class Tunnel:
        async def wait_until_edge_reachable(self) -> None:
            asked.append(len(dials(stack)))

    async with adapter(stack, allowed_callees=[THEIRS], tunnel_readiness=Tunnel()) as agent:
        await placed(stack, agent)
        assert asked == []
        await placed(stack, agent, attach_stream="a-leg")
        assert asked == [1], "asked once, before its dial"
    async with adapter(stack, allowed_callees=[], tunnel_readiness=Tunnel()) as agent:
        await answered(stack, agent)
        assert asked == [1]


async def test_without_an_allow_list_the_a_leg_dials_nobody_and_the_others_anybody(
    stack: FakeStack,
) -> None:
    async with adapter(stack) as agent:
        with pytest.raises(ValueError, match="requires allowed_callees") as refused:
            await agent.place_call(THEIRS, attach_stream="a-leg")
        assert "TwilioAgentAdapter(allowed_callees=[...])" in str(refused.value)
        assert "***0101" in str(refused.value) and THEIRS not in str(refused.value)
        await placed(stack, agent)
        await agent.place_call(THEIRS, attach_stream_to_self=False)
    # Set, it also holds for a call that only rings (scenario's would ring anybody).
    async with adapter(stack, allowed_callees=[THEIRS]) as agent:
        with pytest.raises(ValueError, match="not in allowed_callees"):
            await agent.place_call(ELSEWHERE, attach_stream_to_self=False)
    assert [dial.mode for dial in dials(stack)] == ["b-leg", "originate"]


async def test_a_call_that_failed_keeps_the_mode_and_may_be_repeated(stack: FakeStack) -> None:
    async with adapter(stack) as agent:
        for n in (1, 2):
            placing = asyncio.ensure_future(agent.place_call(THEIRS, timeout=5))
            dial = await stack.controller.wait_for(m.Dial, n)
            stack.controller.tell(m.DialFailed(request=dial.request, call="x", status="timeout"))
            with pytest.raises(asyncio.TimeoutError):
                await placing
            with pytest.raises(RuntimeError, match="already in 'call' mode"):
                await agent.wait_for_call()
        await placed(stack, agent)


async def test_the_other_direction_after_connecting_anew(stack: FakeStack) -> None:
    agent = adapter(stack)
    async with agent:
        await answered(stack, agent)
    async with agent:
        await placed(stack, agent)
        assert agent.stream_ended_reason == "none"
    async with agent:
        with pytest.raises(asyncio.TimeoutError):
            await agent.wait_for_call(timeout=0.05)


async def test_without_a_live_stream(stack: FakeStack) -> None:
    async with adapter(stack) as agent:
        for doing in (
            agent.send_audio(scenario.AudioChunk(b"")),
            agent.interrupt(),
            agent.recv_audio(1),
        ):
            with pytest.raises(RuntimeError, match=r"no live media stream\. Call place_call\(\)"):
                await doing
        _, info = await answered(stack, agent)
        stack.end_call(info)
        assert (await agent.recv_audio(5)).data == b""
        for doing in (agent.send_audio(scenario.AudioChunk(bytes(960))), agent.interrupt()):
            with pytest.raises(RuntimeError, match="no live media stream"):
                await doing


async def test_each_mode_asks_for_what_it_needs(stack: FakeStack) -> None:
    async with adapter(stack, allowed_callees=[THEIRS]) as agent:
        await placed(stack, agent)
        await placed(stack, agent, attach_stream="b-leg", attach_stream_to_self=True)
        await placed(stack, agent, attach_stream="a-leg", max_call_duration_seconds=7)
        await agent.place_call(THEIRS, attach_stream_to_self=False, timeout=3)
    assert [(d.mode, d.timeout, d.max_duration) for d in dials(stack)] == [
        ("b-leg", 5.0, 300.0),
        ("b-leg", 5.0, 300.0),
        ("a-leg", 5.0, 7.0),
        ("originate", 3.0, 300.0),
    ]


async def test_a_callee_that_cannot_be_found_is_not_dialled_otherwise(stack: FakeStack) -> None:
    for error in (NumberNotFoundError("no such", number=THEIRS), CarrierError("no", status=500)):
        stack.controller.answers[m.Dial] = error
        async with adapter(stack) as agent:
            with pytest.raises(type(error)):
                await agent.place_call(THEIRS)
    assert len(dials(stack)) == 2


async def test_an_originated_call_is_not_waited_for_and_takes_digits(stack: FakeStack) -> None:
    async with adapter(stack) as agent:
        await asyncio.wait_for(agent.place_call(THEIRS, attach_stream_to_self=False), 5)
        with pytest.raises(RuntimeError, match="no live media stream"):
            await agent.recv_audio(1)
        await agent.send_dtmf("12#")
        assert (await stack.controller.wait_for(m.SendDigits)).digits == "12#"


# --------------------------------------------------------------------------- one call after another


async def test_the_next_call_hears_nothing_of_the_one_before(stack: FakeStack) -> None:
    async with adapter(stack, speech_gate=False) as agent:
        _, first = await placed(stack, agent)
        stack.workers[0].hear(first.call, bytes(960))
        assert len((await agent.recv_audio(5)).data) == 960
        stack.workers[0].hear(first.call, bytes(960))
        _, second = await placed(stack, agent)
        assert (await stack.controller.wait_for(m.HangUp)).call == first.call
        assert agent.stream_ended_reason == "none"
        with pytest.raises(asyncio.TimeoutError):
            await agent.recv_audio(0.05)
        stack.workers[0].hear(second.call, bytes(480))
        assert len((await agent.recv_audio(5)).data) == 480


async def test_a_second_inbound_call_takes_the_place_of_the_first(stack: FakeStack) -> None:
    async with adapter(stack) as agent:
        _, first = await answered(stack, agent)
        stack.end_call(first, by_far_end=True)
        assert (await agent.recv_audio(5)).data == b""
        assert not agent.is_connected()
        _, second = await answered(stack, agent)
        assert agent.is_connected() and not agent.agent_hung_up
        await agent.send_dtmf("5")
        assert (await stack.controller.wait_for(m.SendDigits)).call == second.call


async def test_calls_of_one_adapter_are_set_up_one_at_a_time(stack: FakeStack) -> None:
    """Two at once would both be answered, and the first would go on, heard by nobody."""
    async with adapter(stack) as agent:
        first = asyncio.ensure_future(agent.place_call(THEIRS, timeout=5))
        dial = await stack.controller.wait_for(m.Dial)
        with pytest.raises(WrongModeError, match="under way already"):
            await agent.place_call(THEIRS, timeout=5)
        info = stack.start_call(dial.session, dial=dial)
        await first
        assert agent.is_connected() and len(dials(stack)) == 1
        await agent.send_dtmf("5")
        assert (await stack.controller.wait_for(m.SendDigits)).call == info.call
        await placed(stack, agent)  # once the first one is up, the next takes its place


OTHER = "+14155558888"


async def test_lists_that_are_written_later_hold_from_the_next_call_on(stack: FakeStack) -> None:
    async with adapter(stack, allowed_callees=[THEIRS]) as agent:
        await placed(stack, agent, attach_stream="a-leg")
        agent.allowed_callees = {OTHER}
        await placed(stack, agent, OTHER, attach_stream="a-leg")
        await placed(stack, agent, OTHER, attach_stream="a-leg")  # nothing has changed since
        first, second = stack.controller.all(m.OpenSession)
        assert first.info.allowed_callees == [THEIRS]
        assert second.info.allowed_callees == [OTHER]
        assert (await stack.controller.wait_for(m.CloseSession)).session == first.info.session
    async with adapter(stack) as agent:
        agent.allowed_callers = ["+14155550001"]
        await answered(stack, agent)
        assert stack.controller.all(m.OpenSession)[-1].info.allowed_callers == ["+14155550001"]


async def test_new_lists_change_no_number_of_the_pool(stack: FakeStack) -> None:
    """The number would be somebody else's as soon as no session is on it."""
    async with adapter(stack, phone_number="any", allowed_callees=[THEIRS]) as agent:
        agent.allowed_callees = {OTHER}
        await placed(stack, agent, OTHER, attach_stream="a-leg")
        opened, opened_again, closed = stack.controller.requests[:3]
        assert isinstance(opened, m.OpenSession) and opened.info.number == "any"
        assert isinstance(opened_again, m.OpenSession) and opened_again.info.number == OURS
        assert closed == m.CloseSession(session=opened.info.session)
    async with agent:
        assert stack.controller.all(m.OpenSession)[-1].info.number == "any"


async def test_disconnect_while_new_lists_are_told_leaves_no_call(stack: FakeStack) -> None:
    agent = adapter(stack, allowed_callees=[THEIRS])
    await agent.connect()
    agent.allowed_callees = {OTHER}
    stack.controller.answers[m.OpenSession] = None  # asked, and not answered
    placing = asyncio.ensure_future(agent.place_call(OTHER, attach_stream="a-leg"))
    opening = await stack.controller.wait_for(m.OpenSession, 2)
    await agent.disconnect()
    del stack.controller.answers[m.OpenSession]
    answer = stack.controller.usual(opening)
    assert isinstance(answer, m.SessionOpened)
    stack.controller.answer_last(answer)
    with pytest.raises(WrongModeError, match="closed meanwhile"):
        await asyncio.wait_for(placing, 5)
    assert dials(stack) == [] and not agent.is_connected()
    closed = [body.session for body in stack.controller.all(m.CloseSession)]
    assert closed == [body.info.session for body in stack.controller.all(m.OpenSession)]


async def test_disconnect_before_new_lists_are_told_leaves_no_session(stack: FakeStack) -> None:
    class Tunnel:
        async def wait_until_edge_reachable(self) -> None:
            await agent.disconnect()

    agent = adapter(stack, allowed_callees=[THEIRS], tunnel_readiness=Tunnel())
    await agent.connect()
    agent.allowed_callees = {OTHER}
    with pytest.raises(WrongModeError, match="not connected"):
        await agent.place_call(OTHER, attach_stream="a-leg")
    assert len(stack.controller.all(m.OpenSession)) == 1 and not agent.is_connected()


async def test_an_adapter_without_credentials_can_be_made_and_says_so_when_it_connects() -> None:
    agent = adapter(account_sid=None, auth_token=None)
    with pytest.raises(SettingsError, match="account_sid is required"):
        await agent.connect()


async def test_a_timeout_that_is_none_leaves_the_live_call_alone(stack: FakeStack) -> None:
    async with adapter(stack) as agent:
        await placed(stack, agent)
        with pytest.raises(ValueError, match="timeout"):
            await agent.place_call(THEIRS, timeout=float("nan"))
        await agent.send_audio(scenario.AudioChunk(bytes(960)))
        assert stack.controller.all(m.HangUp) == []


async def test_who_hung_up_is_known_after_the_end(stack: FakeStack) -> None:
    async with adapter(stack) as agent:
        _, info = await placed(stack, agent)
        stack.end_call(info, by_far_end=True)
        assert (await agent.recv_audio(5)).data == b""
        assert not agent.is_connected()
    assert agent.agent_hung_up
    async with agent:
        assert not agent.agent_hung_up


async def test_by_hand_the_end_of_the_call_is_an_error_where_something_was_left_to_say(
    paced_stack: FakeStack,
) -> None:
    async with adapter(paced_stack) as agent:
        _, info = await placed(paced_stack, agent)
        saying = asyncio.ensure_future(agent.send_audio(scenario.AudioChunk(bytes(48_000 * 6))))
        state = paced_stack.workers[0].calls[info.call]
        await until(lambda: state.played >= 800)  # 0.1 s
        paced_stack.end_call(info, by_far_end=True)
        with pytest.raises(RuntimeError, match="no live media stream"):
            await saying


async def test_a_stream_from_before_the_wait_does_not_satisfy_it(stack: FakeStack) -> None:
    async with adapter(stack) as agent:
        await answered(stack, agent)
        waiting = asyncio.ensure_future(agent.wait_for_call(timeout=5))
        arm = await stack.controller.wait_for(m.Arm, 2)
        assert not waiting.done()
        stack.start_call(arm.session)
        await waiting


# --------------------------------------------------------------------------- the end of a call


async def test_what_was_heard_comes_first_then_empty_chunks_for_ever(stack: FakeStack) -> None:
    async with adapter(stack, speech_gate=False) as agent:
        _, info = await answered(stack, agent)
        stack.workers[0].hear(info.call, b"\1\0" * 480)
        stack.workers[0].hear(info.call, b"\2\0" * 480)
        stack.end_call(info)
        heard = b""
        while chunk := (await agent.recv_audio(5)).data:
            heard += chunk
        assert heard == b"\1\0" * 480 + b"\2\0" * 480
        for _ in range(3):
            assert (await asyncio.wait_for(agent.recv_audio(30), 1)).data == b""


async def test_who_waits_for_sound_wakes_when_the_call_ends(stack: FakeStack) -> None:
    for gated in (True, False):
        async with adapter(stack, speech_gate=gated) as agent:
            _, info = await answered(stack, agent)
            receiving = asyncio.ensure_future(agent.recv_audio(30))
            await asyncio.sleep(0)
            stack.end_call(info)
            assert (await asyncio.wait_for(receiving, 5)).data == b""


async def test_the_longest_duration_is_said_and_ends_the_call(
    stack: FakeStack, caplog: pytest.LogCaptureFixture
) -> None:
    async with adapter(stack, allowed_callees=[THEIRS]) as agent:
        _, info = await placed(stack, agent, attach_stream="a-leg", max_call_duration_seconds=1)
        stack.end_call(info, "max_duration")
        assert (await agent.recv_audio(5)).data == b""
        assert agent.stream_ended_reason == "max_duration"
        assert not agent.agent_hung_up
    warned = [r for r in caplog.records if "max call duration" in r.message]
    assert [(r.name, r.levelno) for r in warned] == [("scenario.voice.twilio", logging.WARNING)]


async def test_the_longest_duration_is_said_though_the_next_call_follows_at_once(
    stack: FakeStack, caplog: pytest.LogCaptureFixture
) -> None:
    async def slow(digit: str) -> None:
        await asyncio.sleep(0.05)

    async with adapter(stack, allowed_callees=[THEIRS], on_dtmf=slow) as agent:
        _, info = await placed(stack, agent, attach_stream="a-leg", max_call_duration_seconds=1)
        press(stack, info, "1")
        stack.end_call(info, "max_duration")
        assert (await agent.recv_audio(5)).data == b""
        await placed(stack, agent, attach_stream="a-leg")
        assert "max call duration reached" in caplog.text


async def test_digits_that_came_before_the_end_are_handed_on_after_it(stack: FakeStack) -> None:
    got: list[str] = []

    async def slow(digit: str) -> None:
        await asyncio.sleep(0.05)
        got.append(digit)

    async with adapter(stack, on_dtmf=slow) as agent:
        _, info = await answered(stack, agent)
        press(stack, info, "12")
        stack.end_call(info)
        await until(lambda: agent.stream_ended_reason == "stop")
        _, info = await answered(stack, agent)
        assert got == ["1", "2"]
        press(stack, info, "345")
        stack.end_call(info)
        await until(lambda: agent.stream_ended_reason == "stop")
    assert got == ["1", "2", "3", "4", "5"]


async def test_a_callback_that_never_ends_is_cancelled_and_said(
    stack: FakeStack, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported()
    monkeypatch.setattr("trunkline.adapter.scenario.handed_digits.HANDED_ON_WITHIN", 0.05)

    began = asyncio.Event()

    async def stuck(digit: str) -> None:
        began.set()
        await asyncio.Event().wait()

    agent = adapter(stack, on_dtmf=stuck)
    await agent.connect()
    _, info = await answered(stack, agent)
    press(stack, info, "12")
    await began.wait()
    stack.end_call(info, "max_duration")
    await until(lambda: agent.stream_ended_reason == "max_duration")
    await asyncio.wait_for(agent.disconnect(), 5)
    assert f"on_dtmf took longer than 0.05 s after the end of call {info.sid}" in caplog.text
    assert "max call duration reached" in caplog.text


async def test_a_callback_may_disconnect(stack: FakeStack) -> None:
    done = asyncio.Event()

    async def disconnect(digit: str) -> None:
        await agent.disconnect()
        await asyncio.sleep(0)
        done.set()

    agent = adapter(stack, on_dtmf=disconnect)
    await agent.connect()
    _, info = await answered(stack, agent)
    press(stack, info, "#")
    await asyncio.wait_for(done.wait(), 2)
    assert not agent.is_connected()


async def test_disconnect_when_idle_or_unconnected_asks_for_nothing(stack: FakeStack) -> None:
    agent = adapter(stack)
    await agent.disconnect()
    assert stack.controller.requests == []
    async with agent:
        pass
    assert [type(r) for r in stack.controller.requests] == [m.OpenSession, m.CloseSession]
    assert agent.frames_received == 0


async def test_a_restore_that_fails_is_said_and_does_not_stop_the_end(
    stack: FakeStack, caplog: pytest.LogCaptureFixture
) -> None:
    agent = adapter(stack)
    await agent.connect()
    await answered(stack, agent)
    stack.controller.answers[m.CloseSession] = lambda body: m.SessionClosed(
        session=body.session, pending=[OURS]
    )
    await agent.disconnect()
    assert not agent.is_connected()
    assert "***0100: not restored yet; the controller keeps trying" in caplog.text
    assert OURS not in caplog.text


# --------------------------------------------------------------------------- sound and digits


async def test_an_empty_chunk_sends_nothing(stack: FakeStack) -> None:
    async with adapter(stack) as agent:
        _, info = await answered(stack, agent)
        await agent.send_audio(scenario.AudioChunk(b""))
        assert stack.workers[0].calls[info.call].spoken == {}
        assert stack.workers[0].calls[info.call].marks == []
        await agent.send_audio(scenario.AudioChunk(bytes(960)))
        assert len(stack.workers[0].calls[info.call].spoken) == 160


async def test_digits_go_in_every_mode(stack: FakeStack) -> None:
    async with adapter(stack, allowed_callees=[THEIRS]) as agent:
        with pytest.raises(RuntimeError, match="no active call"):
            await agent.send_dtmf("bad!")
        _, by_rest = await placed(stack, agent)
        await agent.send_dtmf("1w2")
        assert not stack.workers[0].calls[by_rest.call].spoken
        _, by_rest_too = await placed(stack, agent, attach_stream="a-leg")
        for wrong in ("bad!", "1\n", "", "A"):
            with pytest.raises(ValueError, match=r"must match \[0-9\*#wW\]\+.*XML injection"):
                await agent.send_dtmf(wrong)
        await agent.send_dtmf("7")
    assert [
        (r.call, r.digits) for r in stack.controller.requests if isinstance(r, m.SendDigits)
    ] == [(by_rest.call, "1w2"), (by_rest_too.call, "7")]


# --------------------------------------------------------------------------- logs


async def test_logs_show_numbers_by_their_last_digits_and_no_secret(
    stack: FakeStack, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "scenario.voice.twilio")
    caplog.set_level(logging.DEBUG, "trunkline")
    async with adapter(stack) as agent:
        _, info = await placed(stack, agent)
    async with adapter(stack) as agent:
        await answered(stack, agent)
    told = [r.message for r in caplog.records if r.name == "scenario.voice.twilio"]
    rewrote, placed_it, webhook = told
    assert "rewrote callee ***0101 voice_url to http://me:***@127.0.0.1:1/twilio/voice" in rewrote
    assert "placed call CA" in placed_it and "from ***0100 to ***0101" in placed_it
    assert "webhook set to http://me:***@127.0.0.1:1/twilio/voice" in webhook
    for secret in ("pa55", OURS, THEIRS, "no-token", info.secret, ACCOUNT):
        assert secret not in caplog.text
