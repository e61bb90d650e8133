"""A Line: opening it, waiting for calls and placing them, on a stack of doubles."""

from __future__ import annotations

import asyncio
import re
import threading
from typing import Any, Literal

import pytest
from fake_stack import ACCOUNT, OURS, THEIRS, FakeStack
from phone import answered, numbered, on_the_line, placed

from trunkline import Call, Line
from trunkline.bus import messages as m
from trunkline.bus.testing import until
from trunkline.errors import (
    CallFailedError,
    NumberBusyError,
    NumberNotFoundError,
    StackUnavailableError,
    WrongModeError,
)


async def test_a_call_is_answered_spoken_heard_and_ended(stack: FakeStack) -> None:
    async with on_the_line(stack) as (call, info, _):
        assert (call.sid, call.direction) == (info.sid, "inbound")
        assert (call.caller, call.callee, call.ended_reason) == (THEIRS, OURS, None)
        worker = stack.workers[0]
        state = await worker.resumed(info.call)
        assert await call.send_audio(numbered(24_000)) == 24_000
        assert b"".join(state.spoken[p] for p in sorted(state.spoken)) == numbered(24_000)
        worker.hear(info.call, numbered(480))
        worker.hear(info.call, numbered(480, 480))
        heard = await call.recv_audio(5)
        while len(heard) < 1920:
            heard += await call.recv_audio(5)
        assert heard == numbered(960)
        worker.hear(info.call, numbered(480, 960))
        stack.end_call(info, by_far_end=True)
        assert await call.recv_audio(5) == numbered(480, 960)
        assert await call.recv_audio(5) == b""
        assert await call.recv_audio(5) == b""
        assert (call.ended_reason, call.ended_by_far_end) == ("stop", True)
        with pytest.raises(WrongModeError, match="no live media stream"):
            await call.send_audio(numbered(3))
    kinds = [type(r).__name__ for r in stack.controller.requests]
    assert kinds == ["OpenSession", "Arm", "CloseSession"]


@pytest.mark.parametrize(
    ("told", "test"),
    [
        (None, ""),
        ("test_it.py::test_a[b c] (call)", "test_it.py::test_a[b c]"),
        (f"{'x' * 300} (setup)", "x" * 200),
        # A file's name that is no UTF-8 could not be sent.
        ("test_caf\udce9.py::test_a[\x1b[2J] (call)", "test_caf\\udce9.py::test_a[\\x1b[2J]"),
    ],
)
async def test_its_session_says_which_test_of_pytests_it_serves(
    stack: FakeStack, monkeypatch: pytest.MonkeyPatch, told: str | None, test: str
) -> None:
    if told is None:
        monkeypatch.delenv("PYTEST_CURRENT_TEST")
    else:
        monkeypatch.setenv("PYTEST_CURRENT_TEST", told)
    async with Line(OURS, bus=stack.bus):
        opened = await stack.controller.wait_for(m.OpenSession)
    assert opened.info.test == test


async def test_the_account_is_taken_as_settings_take_it(stack: FakeStack) -> None:
    async with Line(OURS, bus=stack.bus, account=f" {ACCOUNT}\n"):
        opened = await stack.controller.wait_for(m.OpenSession)
    assert opened.info.account == ACCOUNT


async def up_before_its_dial_is_answered(
    stack: FakeStack, line: Line, attach_stream: Literal["a-leg", "b-leg"] = "b-leg"
) -> tuple[Call, m.CallInfo]:
    """A call whose stream is up, while Twilio's answer to its dial is still to come."""
    stack.controller.answers[m.Dial] = None
    placing = asyncio.ensure_future(line.place_call(THEIRS, timeout=5, attach_stream=attach_stream))
    dial = await stack.controller.wait_for(m.Dial)
    info = stack.start_call(dial.session, dial=dial, taken=False)
    return await placing, info


async def test_the_sid_of_our_leg_may_be_known_after_the_stream_of_the_other_one(
    stack: FakeStack,
) -> None:
    async with Line(OURS, bus=stack.bus) as line:
        call, info = await up_before_its_dial_is_answered(stack, line)
        assert call.dialled_sid is None
        stack.controller.answer_last(m.Dialled(call=info.call, sid="CA1"))
        await until(lambda: call.dialled_sid == "CA1")


async def test_keys_for_our_leg_wait_until_twilio_has_answered_the_dial(stack: FakeStack) -> None:
    async with Line(OURS, bus=stack.bus) as line:
        call, info = await up_before_its_dial_is_answered(stack, line)
        pressing = asyncio.ensure_future(call.send_dtmf("42"))
        await asyncio.wait({pressing}, timeout=0.05)
        assert stack.controller.all(m.SendDigits) == []
        stack.controller.answer_last(m.Dialled(call=info.call, sid="CA1"))
        assert (await stack.controller.wait_for(m.SendDigits)).digits == "42"
        await pressing


async def test_a_leg_that_has_the_stream_is_the_one_that_we_dialled(stack: FakeStack) -> None:
    """Also where a new controller has found it by its stream, and Twilio's answer is lost."""
    async with Line(OURS, allowed_callees=[THEIRS], bus=stack.bus) as line:
        call, info = await up_before_its_dial_is_answered(stack, line, "a-leg")
        assert (info.dialled_sid, call.dialled_sid) == (None, info.sid)
        stack.controller.answer_last(m.Dialled(call=info.call, sid=info.sid))


async def test_nobody_calls(stack: FakeStack) -> None:
    async with Line(OURS, bus=stack.bus) as line:
        with pytest.raises(asyncio.TimeoutError) as nobody:
            await line.wait_for_call(timeout=0.1)
        assert re.fullmatch(
            r"nobody called \*\*\*0100 within 0\.1 s after it was armed, which took \d\.\d s",
            str(nobody.value),
        )
        await stack.controller.wait_for(m.Disarm)
        call, _ = await answered(stack, line)
        assert call.ended_reason is None


async def test_who_waited_in_vain_is_told_who_called(stack: FakeStack) -> None:
    def arm(body: m.Arm) -> m.Armed:
        why = "not in allowed_callers"
        for caller in ("***1234", "client:***"):
            told = m.WebhooksCounted(
                session=body.session, received=1, rejected=1, caller=caller, why=why
            )
            stack.controller.tell(told)
        unsigned = "its signature was wrong"
        told = m.WebhooksCounted(session=body.session, received=3, rejected=3, why=unsigned)
        stack.controller.tell(told)
        return m.Armed(session=body.session)

    stack.controller.answers[m.Arm] = arm
    async with Line(OURS, bus=stack.bus) as line:
        for _ in range(2):  # each wait tells of its own
            with pytest.raises(asyncio.TimeoutError) as nobody:
                await line.wait_for_call(timeout=0.2)
            assert str(nobody.value).endswith(
                "; 2 calls came meanwhile: from ***1234 (not in allowed_callers), from client:*** "
                "(not in allowed_callers); 3 webhooks to this number refused (its signature was "
                "wrong)"
            )
    assert (line.webhooks, line.webhooks_rejected) == (10, 10)


async def test_a_rewritten_caller_is_shown_as_it_came(
    stack: FakeStack, caplog: pytest.LogCaptureFixture
) -> None:
    def dial(body: m.Dial) -> m.Dialled:
        asyncio.get_running_loop().call_soon(
            lambda: stack.start_call(body.session, dial=body, reported="anonymous")
        )
        return m.Dialled(call=body.request[::-1], sid="CA" + body.request)

    stack.controller.answers[m.Dial] = dial
    async with Line(OURS, bus=stack.bus) as line:
        call = await line.place_call(THEIRS, timeout=5)
        assert (call.caller, call.caller_rewritten) == ("anonymous", True)
        assert "the carrier reports its caller as anonymous" in caplog.text
        await call.hang_up()
        del stack.controller.answers[m.Dial]
        plain, _ = await placed(stack, line)
        assert (plain.caller, plain.caller_rewritten) == (OURS, False)


async def test_a_timeout_tells_what_the_controller_knew(stack: FakeStack) -> None:
    told = "Twilio's last word is 'ringing', 5.0 s ago"

    def dial(body: m.Dial) -> m.Dialled:
        failed = m.DialFailed(
            request=body.request, call=body.request[::-1], status="timeout", text=told
        )
        asyncio.get_running_loop().call_soon(lambda: stack.controller.tell(failed))
        return m.Dialled(call=body.request[::-1], sid="CA" + body.request)

    stack.controller.answers[m.Dial] = dial
    async with Line(OURS, bus=stack.bus) as line:
        with pytest.raises(asyncio.TimeoutError) as caught:
            await line.place_call(THEIRS, timeout=5)
        assert str(caught.value) == f"call to ***0101: no stream within 5 s: {told}"


async def test_a_controller_that_tells_nothing_of_a_dial_is_said_to(
    stack: FakeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline.adapter.client.session.DIAL_GRACE", 0.1)
    async with Line(OURS, bus=stack.bus) as line:
        with pytest.raises(asyncio.TimeoutError) as caught:
            await line.place_call(THEIRS, timeout=0.1)
        assert str(caught.value) == (
            "call to ***0101: no stream within 0.1 s, and the controller has not told within "
            "0.1 s more what became of it"
        )


async def test_what_was_waited_for_in_vain_tells_the_state_of_the_call(stack: FakeStack) -> None:
    async with on_the_line(stack) as (call, info, _):
        with pytest.raises(asyncio.TimeoutError, match=r"within 0\.1 s \(its stream is up\)"):
            await call.wait_ended(0.1)
        stack.controller.tell(m.CallReconnecting(call=info.call, ordinal=1))
        with pytest.raises(asyncio.TimeoutError) as caught:
            await call.recv_audio(0.2)
        assert re.fullmatch(
            r"nothing was heard for 0\.2 s \(its stream has been gone for 0\.\d s, and may come "
            r"again\)",
            str(caught.value),
        )
        gone = r"no speech for 0\.2 s \(its stream has been gone for 0\.\d s, and may come again\)"
        with pytest.raises(asyncio.TimeoutError, match=gone):
            await call.next_turn(timeout=0.2)


async def test_a_stream_that_was_cut_off_is_named_in_the_log(
    stack: FakeStack, caplog: pytest.LogCaptureFixture
) -> None:
    async with on_the_line(stack) as (_, info, _):
        told = m.CallReconnecting(call=info.call, ordinal=1, reason="too_fast")
        stack.controller.tell(told)
        await until(lambda: "cut off, because it sent more than twice real time" in caplog.text)


async def test_a_cancelled_wait_hangs_up_who_called_meanwhile(stack: FakeStack) -> None:
    async with Line(OURS, bus=stack.bus) as line:
        waiting = asyncio.ensure_future(line.wait_for_call(timeout=5))
        arm = await stack.controller.wait_for(m.Arm)
        stack.controller.answers[m.Disarm] = lambda body: (
            stack.start_call(arm.session, open_at=None),
            m.Done(),
        )[1]
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await stack.controller.wait_for(m.HangUp)


async def test_errors_of_arming_come_through(stack: FakeStack) -> None:
    stack.controller.answers[m.Arm] = NumberBusyError("it is taken", number=OURS, holder="s1")
    async with Line(OURS, bus=stack.bus) as line:
        with pytest.raises(NumberBusyError) as caught:
            await line.wait_for_call(timeout=1)
        assert caught.value.holder == "s1"


async def test_a_number_that_is_not_there(stack: FakeStack) -> None:
    with pytest.raises(ValueError, match=r"E\.164"):
        Line("4155550100", bus=stack.bus)
    stack.controller.answers[m.OpenSession] = NumberNotFoundError("no such number", number=OURS)
    with pytest.raises(NumberNotFoundError):
        await Line(OURS, bus=stack.bus).open()


@pytest.mark.parametrize("status", ["busy", "no-answer", "failed", "canceled"])
async def test_a_dial_that_fails_says_how(stack: FakeStack, status: str) -> None:
    async with Line(OURS, bus=stack.bus) as line:
        placing = asyncio.ensure_future(line.place_call(THEIRS, timeout=5))
        dial = await stack.controller.wait_for(m.Dial)
        stack.controller.tell(
            m.DialFailed(request=dial.request, call="x", status=status, sid="CAx")
        )
        with pytest.raises(CallFailedError) as caught:
            await placing
        assert (caught.value.status, caught.value.sid) == (status, "CAx")


async def test_a_cancelled_dial_is_cancelled_at_the_controller(stack: FakeStack) -> None:
    async with Line(OURS, bus=stack.bus) as line:
        placing = asyncio.ensure_future(line.place_call(THEIRS, timeout=5))
        dial = await stack.controller.wait_for(m.Dial)
        placing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await placing
        cancel = await stack.controller.wait_for(m.CancelDial)
        assert cancel.request == dial.request


async def test_whoever_waits_while_the_line_is_closed_is_told(stack: FakeStack) -> None:
    """Nobody has cancelled that task, so it does not end as if somebody had."""
    line = await Line(OURS, bus=stack.bus).open()
    placing = asyncio.ensure_future(line.place_call(THEIRS, timeout=30))
    await stack.controller.wait_for(m.Dial)
    await line.close()
    with pytest.raises(WrongModeError, match="closed meanwhile"):
        await placing
    line = await Line(OURS, bus=stack.bus).open()
    waiting = asyncio.ensure_future(line.wait_for_call(timeout=30))
    await stack.controller.wait_for(m.Arm)
    await line.close()
    with pytest.raises(WrongModeError, match="closed meanwhile"):
        await waiting


async def test_an_originated_call_carries_no_sound(stack: FakeStack) -> None:
    async with Line(OURS, bus=stack.bus) as line:
        call = await line.place_call(THEIRS, attach_stream_to_self=False)
        with pytest.raises(WrongModeError, match="originator-only"):
            await call.send_audio(numbered(3))
        await call.send_dtmf("1#")
        digits = await stack.controller.wait_for(m.SendDigits)
        assert digits.digits == "1#"
        info = m.CallEnded(call=call._media.call, reason="stop")
        stack.controller.tell(info)
        assert await call.wait_ended(5) == "stop"
        assert await call.recv_audio(1) == b""


async def test_a_restarted_controller_is_told_everything(
    stack: FakeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "test_it.py::test_a (call)")
    async with on_the_line(stack) as (call, info, _):
        stack.controller.stop()
        await stack.workers[0].resumed(info.call)
        assert await call.send_audio(numbered(480)) == 480
        stack.controller.epoch += 1
        stack.controller.got.clear()
        stack.controller.start()
        (session,) = (await stack.controller.wait_for(m.Hello)).sessions
        assert (session.number, session.mode) == (OURS, "answer")
        assert session.test == "test_it.py::test_a"
        assert [c.call for c in session.calls] == [info.call]
        assert session.secret != ""


async def test_a_session_that_is_lost_ends_its_calls(stack: FakeStack) -> None:
    async with Line(OURS, bus=stack.bus) as line:
        call, info = await answered(stack, line)
        stack.controller.tell(m.SessionLost(session=info.session, why="the lease ran out"))
        assert await call.recv_audio(5) == b""
        assert call.ended_reason == "error"
        with pytest.raises(StackUnavailableError, match="lease ran out"):
            await line.wait_for_call(timeout=1)


async def test_a_beat_that_comes_behind_a_sessions_end_loses_no_session(
    stack: FakeStack, caplog: pytest.LogCaptureFixture
) -> None:
    """The controller answers it before the line has heard that it is closed."""

    def close(body: m.CloseSession) -> m.SessionClosed:
        stack.controller.tell(m.SessionLost(session=body.session, why="it is over"))
        return m.SessionClosed(session=body.session)

    stack.controller.answers[m.CloseSession] = close
    async with Line(OURS, bus=stack.bus):
        pass
    assert "is lost" not in caplog.text


async def test_beats_go_on_while_the_users_loop_is_blocked(
    stack: FakeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline.bus.control.BEAT_SECONDS", 0.1)

    stands, go_on = threading.Event(), threading.Event()

    # The controller's double runs on another loop than the blocked one.
    def blocked() -> bool:
        async def main() -> bool:
            async with Line(OURS, bus=stack.bus):
                stands.set()
                return go_on.wait(20.0)  # the loop stands still meanwhile

        return asyncio.run(main())

    blocking = asyncio.ensure_future(asyncio.to_thread(blocked))
    await until(stands.is_set)
    # The first of these may have been under way before.
    await stack.controller.wait_for(m.Beat, len(stack.controller.all(m.Beat)) + 3)
    go_on.set()
    assert await blocking


async def test_no_stack_at_all(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline.adapter.line.UNAVAILABLE_AFTER", 0.2)
    with pytest.raises(StackUnavailableError, match="trunkline up"):
        await Line(OURS, bus=f"ipc://{tmp_path}").open()


async def test_a_line_answers_or_calls(stack: FakeStack) -> None:
    line = Line(OURS, bus=stack.bus)
    with pytest.raises(WrongModeError, match="not connected"):
        await line.wait_for_call()
    async with line:
        with pytest.raises(asyncio.TimeoutError):
            await line.wait_for_call(timeout=0.01)
        with pytest.raises(RuntimeError, match="already in 'answer' mode; cannot switch to 'call'"):
            await line.place_call(THEIRS)
    async with line:
        call, _ = await placed(stack, line)
        assert call.direction == "outbound"


async def test_a_line_of_the_pool(stack: FakeStack) -> None:
    async with Line.any(bus=stack.bus) as line:
        assert line.number == OURS


NONE = [float("inf"), float("nan"), 1e300, None, "5", True]


@pytest.mark.parametrize("wrong", NONE, ids=repr)
async def test_a_time_that_is_none_is_refused_before_anything_is_done(
    stack: FakeStack, wrong: Any
) -> None:
    says = "timeout must be a number of seconds, 2592000 at most, got "
    async with Line(OURS, bus=stack.bus, allowed_callees=[THEIRS]) as line:
        with pytest.raises(ValueError, match=says):
            await line.wait_for_call(timeout=wrong)
        for mode in ("a-leg", "b-leg"):
            with pytest.raises(ValueError, match=says):
                await line.place_call(THEIRS, timeout=wrong, attach_stream=mode)  # type: ignore[arg-type]  # str
        with pytest.raises(ValueError, match=says):
            await line.place_call(THEIRS, timeout=wrong, attach_stream_to_self=False)
        if wrong is not None:
            with pytest.raises(ValueError, match="max_call_duration_seconds"):
                await line.place_call(
                    THEIRS, attach_stream="a-leg", max_call_duration_seconds=wrong
                )
        assert line.mode == "idle"
        call, _ = await answered(stack, line)
        if wrong is not None:  # which waits for ever there
            for waits in (call.recv_audio, call.wait_ended):
                with pytest.raises(ValueError, match=says):
                    await waits(wrong)
        with pytest.raises(ValueError, match=says):
            await call.next_turn(wrong)
        with pytest.raises(ValueError, match=says):
            await call.barge_in(bytes(960), timeout=wrong)
        with pytest.raises(ValueError, match="after must be a number of seconds"):
            await call.barge_in(bytes(960), after=wrong)
    kinds = [type(r).__name__ for r in stack.controller.requests]
    assert "Dial" not in kinds


@pytest.mark.parametrize("late", [0, -1.0, float("-inf")])
async def test_a_time_that_is_over_already_is_over_at_once(stack: FakeStack, late: float) -> None:
    """Whoever counts down to a deadline may come late."""
    async with Line(OURS, bus=stack.bus) as line:
        call, _ = await answered(stack, line)
        with pytest.raises(asyncio.TimeoutError):
            await call.recv_audio(late)
    async with Line(OURS, bus=stack.bus) as line:
        with pytest.raises(ValueError, match="timeout must be a positive number of seconds"):
            await line.place_call(THEIRS, timeout=late)
