"""Line and Call, against a controller and workers on real sockets."""

from __future__ import annotations

import asyncio
import re
import time

import pytest
from fake_stack import ACCOUNT, OURS, THEIRS, FakeStack

from trunkline import Call, Line
from trunkline.bus import messages as m
from trunkline.bus.testing import until
from trunkline.errors import (
    CallFailedError,
    NumberBusyError,
    NumberNotFoundError,
    StackUnavailableError,
    TimedOutError,
    WrongModeError,
)


async def answered(stack: FakeStack, line: Line) -> tuple[Call, m.CallInfo]:
    waiting = asyncio.ensure_future(line.wait_for_call(timeout=5))
    arm = await stack.controller.wait_for(m.Arm)
    info = stack.start_call(arm.session)
    return await waiting, info


async def placed(stack: FakeStack, line: Line, to: str = THEIRS, **how: object) -> Call:
    count = sum(isinstance(r, m.Dial) for r in stack.controller.requests)
    placing = asyncio.ensure_future(line.place_call(to, timeout=5, **how))  # type: ignore[arg-type]  # as given
    dial = await stack.controller.wait_for(m.Dial, count + 1)
    stack.start_call(dial.session, dial=dial)
    return await placing


def pcm(samples: int, first: int = 0) -> bytes:
    return b"".join(((first + i) % 30_000).to_bytes(2, "little") for i in range(samples))


async def test_a_call_is_answered_spoken_heard_and_ended(stack: FakeStack) -> None:
    async with Line(OURS, bus=stack.bus) as line:
        call, info = await answered(stack, line)
        assert (call.sid, call.direction) == (info.sid, "inbound")
        assert (call.caller, call.callee, call.ended_reason) == (THEIRS, OURS, None)
        worker = stack.workers[0]
        state = await worker.resumed(info.call)
        assert await call.send_audio(pcm(24_000)) == 24_000
        assert b"".join(state.spoken[p] for p in sorted(state.spoken)) == pcm(24_000)
        worker.hear(info.call, pcm(480))
        worker.hear(info.call, pcm(480, 480))
        heard = await call.recv_audio(5)
        while len(heard) < 1920:
            heard += await call.recv_audio(5)
        assert heard == pcm(960)
        worker.hear(info.call, pcm(480, 960))
        stack.end_call(info, by_far_end=True)
        assert await call.recv_audio(5) == pcm(480, 960)
        assert await call.recv_audio(5) == b""
        assert await call.recv_audio(5) == b""
        assert (call.ended_reason, call.ended_by_far_end) == ("stop", True)
        with pytest.raises(WrongModeError, match="no live media stream"):
            await call.send_audio(pcm(3))
    kinds = [type(r).__name__ for r in stack.controller.requests]
    assert kinds == ["OpenSession", "Arm", "CloseSession"]


async def test_the_account_is_taken_as_settings_take_it(stack: FakeStack) -> None:
    async with Line(OURS, bus=stack.bus, account=f" {ACCOUNT}\n"):
        opened = await stack.controller.wait_for(m.OpenSession)
    assert opened.info.account == ACCOUNT


async def test_nobody_calls(stack: FakeStack) -> None:
    async with Line(OURS, bus=stack.bus) as line:
        with pytest.raises(asyncio.TimeoutError) as nobody:
            await line.wait_for_call(timeout=0.1)
        assert re.fullmatch(
            r"nobody called \*\*\*0100 within 0\.1 s after it was armed, which took \d\.\d s",
            str(nobody.value),
        )
        await stack.controller.wait_for(m.Disarm)
        call, _ = await answered_again(stack, line)
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
        plain = await placed(stack, line)
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
    async with Line(OURS, bus=stack.bus) as line:
        call, info = await answered(stack, line)
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


async def answered_again(stack: FakeStack, line: Line) -> tuple[Call, m.CallInfo]:
    count = sum(isinstance(r, m.Arm) for r in stack.controller.requests)
    waiting = asyncio.ensure_future(line.wait_for_call(timeout=5))
    arm = await stack.controller.wait_for(m.Arm, count + 1)
    info = stack.start_call(arm.session)
    return await waiting, info


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
    stack.controller.answers[m.OpenSession] = NumberNotFoundError("no such number", number=OURS)
    with pytest.raises(NumberNotFoundError):
        await Line(OURS, bus=stack.bus).open()


async def test_many_calls_at_once_from_one_line(stack: FakeStack) -> None:
    numbers = [f"+1415555{i:04}" for i in range(20)]
    dials: list[m.Dial] = []

    def dial(body: m.Dial) -> m.Dialled:
        dials.append(body)
        asyncio.get_running_loop().call_soon(lambda: stack.start_call(body.session, dial=body))
        return m.Dialled(call=body.request[::-1], sid="CA" + body.request)

    stack.controller.answers[m.Dial] = dial
    async with Line(OURS, allowed_callees=numbers, bus=stack.bus) as line:
        calls = await asyncio.gather(
            *(line.place_call(n, timeout=5, attach_stream="a-leg") for n in numbers)
        )
        assert [call.callee for call in calls] == numbers
        assert {d.max_duration for d in dials} == {300.0}
        sent = await asyncio.gather(*(call.send_audio(pcm(2400)) for call in calls))
        assert sent == [2400] * 20


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


async def test_a_dial_that_nobody_answers_in_time(stack: FakeStack) -> None:
    async with Line(OURS, bus=stack.bus) as line:
        placing = asyncio.ensure_future(line.place_call(THEIRS, timeout=5))
        dial = await stack.controller.wait_for(m.Dial)
        stack.controller.tell(m.DialFailed(request=dial.request, call="x", status="timeout"))
        with pytest.raises(asyncio.TimeoutError):
            await placing


async def test_a_cancelled_dial_is_cancelled_at_the_controller(stack: FakeStack) -> None:
    async with Line(OURS, bus=stack.bus) as line:
        placing = asyncio.ensure_future(line.place_call(THEIRS, timeout=5))
        dial = await stack.controller.wait_for(m.Dial)
        placing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await placing
        cancel = await stack.controller.wait_for(m.CancelDial)
        assert cancel.request == dial.request


async def test_an_originated_call_carries_no_sound(stack: FakeStack) -> None:
    async with Line(OURS, bus=stack.bus) as line:
        call = await line.place_call(THEIRS, attach_stream_to_self=False)
        with pytest.raises(WrongModeError, match="originator-only"):
            await call.send_audio(pcm(3))
        await call.send_dtmf("1#")
        digits = await stack.controller.wait_for(m.SendDigits)
        assert digits.digits == "1#"
        info = m.CallEnded(call=call._media.call, reason="stop")
        stack.controller.tell(info)
        assert await call.wait_ended(5) == "stop"
        assert await call.recv_audio(1) == b""


async def test_digits_can_be_tones_where_the_leg_carries_the_stream(stack: FakeStack) -> None:
    async with Line(OURS, allowed_callees=[THEIRS], bus=stack.bus) as line:
        call = await placed(stack, line, attach_stream="a-leg")
        await call.send_dtmf("5", tones=True)
        state = next(iter(stack.workers[0].calls.values()))
        assert len(state.spoken) == 1600
        assert not [r for r in stack.controller.requests if isinstance(r, m.SendDigits)]
        with pytest.raises(ValueError, match=r"must match \[0-9\*#wW\]\+"):
            await call.send_dtmf("1\n")


async def test_digits_wait_for_what_is_being_said_and_later_words_wait_for_them(
    paced_stack: FakeStack,
) -> None:
    stack = paced_stack
    stack.controller.answers[m.SendDigits] = None  # the stream is away until the test says so
    async with Line(OURS, bus=stack.bus) as line:
        call, info = await answered(stack, line)
        state = await stack.workers[0].resumed(info.call)
        first = asyncio.ensure_future(call.send_audio(pcm(24_000)))
        await until(lambda: state.played > 0)
        pressing = asyncio.ensure_future(call.send_dtmf("1"))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(call.send_audio(pcm(2_400)))
        later = asyncio.ensure_future(call.send_dtmf("2"))
        await asyncio.sleep(0)
        third = asyncio.ensure_future(call.send_audio(pcm(4_800)))
        assert (await stack.controller.wait_for(m.SendDigits)).digits == "1"
        assert first.done() and await first == 24_000
        # All of it was heard, and nothing of what is said meanwhile has been sent.
        assert state.played == len(state.spoken) == 8_000 and state.marks_set == [8_000]
        stack.controller.answer_last(m.Done())
        await pressing
        assert (await stack.controller.wait_for(m.SendDigits, 2)).digits == "2"
        assert second.done() and len(state.spoken) == 8_800
        stack.controller.answer_last(m.Done())
        await later
        assert await third == 4_800
        assert len(state.spoken) == 10_400


async def test_an_interrupt_drops_what_waits_for_digits(stack: FakeStack) -> None:
    stack.controller.answers[m.SendDigits] = None
    async with Line(OURS, bus=stack.bus) as line:
        call, info = await answered(stack, line)
        state = await stack.workers[0].resumed(info.call)
        pressing = asyncio.ensure_future(call.send_dtmf("1"))
        await stack.controller.wait_for(m.SendDigits)
        waiting = asyncio.ensure_future(call.send_audio(pcm(24_000)))
        await asyncio.sleep(0)
        await call.interrupt()
        assert await waiting == 0
        stack.controller.answer_last(m.Done())
        await pressing
        assert await call.send_audio(pcm(2_400)) == 2_400
        assert len(state.spoken) == 800


async def test_digits_fail_by_name_and_what_waits_for_them_is_said(stack: FakeStack) -> None:
    stack.controller.answers[m.SendDigits] = TimedOutError("the stream was not back")
    async with Line(OURS, bus=stack.bus) as line:
        call, _ = await answered(stack, line)
        with pytest.raises(TimedOutError, match="was not back"):
            await call.send_dtmf("1")
        assert await call.send_audio(pcm(2_400)) == 2_400


async def test_a_restarted_controller_is_told_that_digits_were_asked_for(
    stack: FakeStack,
) -> None:
    stack.controller.answers[m.SendDigits] = None
    async with Line(OURS, bus=stack.bus) as line:
        call, info = await answered(stack, line)
        pressing = asyncio.ensure_future(call.send_dtmf("1"))
        await stack.controller.wait_for(m.SendDigits)
        stack.controller.stop()
        stack.controller.epoch = 2
        stack.controller.start()
        await stack.controller.wait_for(m.SendDigits, 2)
        (announced,) = stack.controller.all(m.Hello)[-1].sessions[0].calls
        assert (announced.call, announced.digits) == (info.call, True)
        stack.controller.answer_last(m.Done())
        await pressing


async def test_digits_go_by_rest_in_b_leg_mode(stack: FakeStack) -> None:
    async with Line(OURS, bus=stack.bus) as line:
        call = await placed(stack, line)
        await call.send_dtmf("12")
        assert (await stack.controller.wait_for(m.SendDigits)).digits == "12"


async def test_a_row_of_digits_is_played_before_the_next_one_and_before_a_hang_up(
    stack: FakeStack,
) -> None:
    """b-leg: Twilio stops playing one document when it is given the next."""
    async with Line(OURS, bus=stack.bus) as line:
        call = await placed(stack, line)
        began = time.monotonic()
        await asyncio.gather(call.send_dtmf("1w"), call.send_dtmf("2"))
        assert time.monotonic() - began >= 0.9
        rows = [r.digits for r in stack.controller.requests if isinstance(r, m.SendDigits)]
        assert rows == ["1w", "2"]
        pressing = asyncio.ensure_future(call.send_dtmf("WWWWW"))
        await stack.controller.wait_for(m.SendDigits, 3)
        waiting = asyncio.ensure_future(call.send_dtmf("3"))
        await call.hang_up()
        with pytest.raises(WrongModeError, match="hung up or ended while digits were being sent"):
            await pressing
        with pytest.raises(WrongModeError, match="the call has ended"):
            await waiting


async def test_digits_of_the_far_end(stack: FakeStack) -> None:
    async with Line(OURS, bus=stack.bus) as line:
        call, info = await answered(stack, line)
        await stack.workers[0].resumed(info.call)
        for index, digit in enumerate("4#", 1):
            heard = m.DigitHeard(info.call, m.first_generation(1), m.DigitIn(1, index, digit))
            stack.workers[0].send(info.call, heard)
        assert await anext(call.dtmf) == "4"
        assert await anext(call.dtmf) == "#"
        stack.end_call(info)
        assert [digit async for digit in call.dtmf] == []


async def test_an_interrupt_ends_the_send_that_is_under_way(paced_stack: FakeStack) -> None:
    stack = paced_stack
    async with Line(OURS, bus=stack.bus) as line:
        call, info = await answered(stack, line)
        state = await stack.workers[0].resumed(info.call)
        sending = asyncio.ensure_future(call.send_audio(pcm(24_000 * 5)))
        await until(lambda: state.played >= 480)
        await call.interrupt()
        sent = await asyncio.wait_for(sending, 1)
        assert 0 < sent < 24_000
        assert sent == 3 * len(state.spoken)
        assert await call.send_audio(pcm(480)) == 480
        assert len(state.interrupts) == 1


async def test_sends_are_spoken_in_order(paced_stack: FakeStack) -> None:
    async with Line(OURS, bus=paced_stack.bus) as line:
        call, info = await answered(paced_stack, line)
        began = time.monotonic()
        parts = [pcm(2400, 2400 * i) for i in range(4)]
        assert await asyncio.gather(*(call.send_audio(p) for p in parts)) == [2400] * 4
        assert time.monotonic() - began > 0.35
        state = paced_stack.workers[0].calls[info.call]
        assert b"".join(state.spoken[p] for p in sorted(state.spoken)) == b"".join(parts)


async def test_a_cancelled_send_says_no_more(paced_stack: FakeStack) -> None:
    async with Line(OURS, bus=paced_stack.bus) as line:
        call, info = await answered(paced_stack, line)
        state = await paced_stack.workers[0].resumed(info.call)
        sending = asyncio.ensure_future(call.send_audio(pcm(24_000 * 5)))
        await until(lambda: state.played >= 480)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await until(lambda: bool(state.interrupts))
        assert await call.send_audio(pcm(480)) == 480


async def test_what_send_audio_refuses(stack: FakeStack) -> None:
    async with Line(OURS, bus=stack.bus) as line:
        call, _ = await answered(stack, line)
        assert await call.send_audio(b"") == 0
        with pytest.raises(ValueError, match="PCM16"):
            await call.send_audio(b"123")
        with pytest.raises(ValueError, match="PCM16"):
            await call.send_audio("no bytes")  # type: ignore[arg-type]  # what a user may do


async def test_a_cancelled_recv_loses_nothing(stack: FakeStack) -> None:
    async with Line(OURS, bus=stack.bus) as line:
        call, info = await answered(stack, line)
        worker = stack.workers[0]
        await worker.resumed(info.call)
        heard = b""
        for i in range(50):
            receiving = asyncio.ensure_future(call.recv_audio(5))
            worker.hear(info.call, pcm(48, 48 * i))
            await asyncio.sleep(0.0005 * (i % 5))
            receiving.cancel()
            try:
                heard += await receiving
            except asyncio.CancelledError:
                continue
        while len(heard) < 2 * 48 * 50:
            heard += await call.recv_audio(5)
        assert heard == pcm(48 * 50)
        with pytest.raises(asyncio.TimeoutError):
            await call.recv_audio(0.05)


async def test_hang_up_lets_what_was_said_be_heard(paced_stack: FakeStack) -> None:
    stack = paced_stack
    async with Line(OURS, bus=stack.bus) as line:
        call, info = await answered(stack, line)
        state = await stack.workers[0].resumed(info.call)
        sending = asyncio.ensure_future(call.send_audio(pcm(4800)))
        await until(lambda: bool(state.spoken))

        def hang_up(body: m.HangUp) -> m.Done:
            assert state.played == 1600
            asyncio.get_running_loop().call_soon(lambda: stack.end_call(info, "hang_up"))
            return m.Done()

        stack.controller.answers[m.HangUp] = hang_up
        await call.hang_up()
        assert call.ended_reason == "hang_up"
        assert await sending == 4800
        await call.hang_up()


async def test_closing_the_line_lets_the_last_words_be_heard(paced_stack: FakeStack) -> None:
    stack = paced_stack
    asked: list[int] = []

    def close(body: m.CloseSession) -> m.SessionClosed:
        asked.extend(state.marks_set)
        return m.SessionClosed(session=body.session)

    stack.controller.answers[m.CloseSession] = close
    async with Line(OURS, bus=stack.bus) as line:
        call, info = await answered(stack, line)
        state = await stack.workers[0].resumed(info.call)
        assert await call.send_audio(pcm(960)) == 960
    assert asked == [320]


async def test_closing_the_line_does_not_wait_for_what_is_still_being_said(
    paced_stack: FakeStack,
) -> None:
    stack = paced_stack
    async with Line(OURS, bus=stack.bus) as line:
        call, info = await answered(stack, line)
        state = await stack.workers[0].resumed(info.call)
        sending = asyncio.ensure_future(call.send_audio(pcm(240_000)))
        await until(lambda: bool(state.spoken))
    assert state.marks_set == []
    assert await sending < 240_000


async def test_the_call_goes_on_at_the_other_worker(paced_stack: FakeStack) -> None:
    first, second = paced_stack.workers
    async with Line(OURS, bus=paced_stack.bus) as line:
        call, info = await answered(paced_stack, line)
        state = await first.resumed(info.call)
        first.hear(info.call, pcm(480))
        assert await call.recv_audio(5) == pcm(480)
        sending = asyncio.ensure_future(call.send_audio(pcm(12_000)))
        await until(lambda: state.played >= 640)
        state.resume = None  # it plays no more
        moved = second.open(info.call, m.first_generation(1) + 1, out_next=state.played)
        await second.resumed(info.call)
        assert moved.resume is not None and moved.resume.position == 160
        second.hear(info.call, pcm(480, 480))
        assert await call.recv_audio(5) == pcm(480, 480)
        assert await sending == 12_000
        assert min(moved.spoken) == state.played
        assert max(moved.spoken) == 3999


async def test_a_worker_that_dies_is_attached_again_when_another_is_named(
    stack: FakeStack,
) -> None:
    async with Line(OURS, bus=stack.bus) as line:
        call, info = await answered(stack, line)
        await stack.workers[0].resumed(info.call)
        await stack.workers[0].stop()
        sending = asyncio.ensure_future(call.send_audio(pcm(4800)))
        moved = stack.workers[1].open(info.call, m.first_generation(1) + 1)
        assert await sending == 4800
        assert len(moved.spoken) == 1600
        placement = m.Placement(epoch=1, n=2, primary=stack.workers[1].ref)
        stack.controller.tell(m.CallPlaced(call=info.call, placement=placement))
        assert await call.send_audio(pcm(480)) == 480


async def test_a_restarted_controller_is_told_everything(stack: FakeStack) -> None:
    async with Line(OURS, bus=stack.bus) as line:
        call, info = await answered(stack, line)
        stack.controller.stop()
        await stack.workers[0].resumed(info.call)
        assert await call.send_audio(pcm(480)) == 480
        stack.controller.epoch += 1
        stack.controller.got.clear()
        stack.controller.start()
        (session,) = (await stack.controller.wait_for(m.Hello)).sessions
        assert (session.number, session.mode) == (OURS, "answer")
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


async def test_beats_go_on_while_the_users_loop_is_blocked(stack: FakeStack) -> None:
    # The controller's double runs on another loop than the blocked one.
    def blocked() -> None:
        async def main() -> None:
            async with Line(OURS, bus=stack.bus):
                time.sleep(1.2)  # noqa: ASYNC251  # the very thing that is tried

        asyncio.run(main())

    await asyncio.to_thread(blocked)
    assert len(stack.controller.all(m.Beat)) >= 2


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
        call = await placed(stack, line)
        assert call.direction == "outbound"


async def test_a_line_of_the_pool(stack: FakeStack) -> None:
    async with Line.any(bus=stack.bus) as line:
        assert line.number == OURS
