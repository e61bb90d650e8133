"""A Line's digits: what is being said waits for them, and they wait for it."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import cast

import pytest
from fake_stack import OURS, THEIRS, FakeStack
from phone import numbered, on_the_line, placed, press

from trunkline import Line
from trunkline.adapter.call import Digits
from trunkline.adapter.client.call_media import CallMedia
from trunkline.adapter.client.thread_bridge import Box
from trunkline.bus import messages as m
from trunkline.bus.digits import seconds_of
from trunkline.bus.testing import until
from trunkline.errors import (
    TimedOutError,
    WrongModeError,
)


async def test_digits_can_be_tones_where_the_leg_carries_the_stream(stack: FakeStack) -> None:
    async with Line(OURS, allowed_callees=[THEIRS], bus=stack.bus) as line:
        call, _ = await placed(stack, line, attach_stream="a-leg")
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
    async with on_the_line(stack) as (call, _, state):
        first = asyncio.ensure_future(call.send_audio(numbered(24_000)))
        await until(lambda: state.played > 0)
        pressing = asyncio.ensure_future(call.send_dtmf("1"))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(call.send_audio(numbered(2_400)))
        later = asyncio.ensure_future(call.send_dtmf("2"))
        await asyncio.sleep(0)
        third = asyncio.ensure_future(call.send_audio(numbered(4_800)))
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


async def test_the_report_names_the_keys_of_both_sides(stack: FakeStack) -> None:
    """Keys that the carrier pressed for us stand at the call's age that the controller tells, and
    the far end's at what was heard by then."""
    stack.controller.answers[m.SendDigits] = m.DigitsPlayed(age=4.0)
    async with on_the_line(stack) as (call, info, _):
        stack.workers[0].hear(info.call, bytes(48_000))
        await until(lambda: call.heard_samples >= 8_000)
        press(stack, info, "9")
        assert await anext(call.dtmf) == "9"
        await call.send_dtmf("1w2")
        keys = [(key.at, key.side, key.digit) for key in call.report().digits]
        assert keys == [(1.0, "theirs", "9"), (4.0, "ours", "1"), (4.7, "ours", "2")]


async def test_what_waits_for_digits_is_said_on_the_stream_that_is_back(stack: FakeStack) -> None:
    """The controller has let it in, and the worker still has the stream that is over."""
    stack.controller.answers[m.SendDigits] = m.DigitsPlayed(age=4.0, ordinal=3)
    async with on_the_line(stack) as (call, info, state):
        pressing = asyncio.ensure_future(call.send_dtmf("1"))
        await stack.controller.wait_for(m.SendDigits)
        saying = asyncio.ensure_future(call.send_audio(numbered(2_400)))
        await until(lambda: call.report().digits)  # the answer is read
        for n in range(1, 11):  # the client has many turns in which it could say it
            stack.workers[0].hear(info.call, bytes(960))
            await until(lambda n=n: call.heard_samples >= n * 160)
        stack.workers[0].open(info.call, m.first_generation(3))
        await asyncio.gather(pressing, saying)
        assert len(state.spoken) == 800
        assert state.spoken_under == {m.first_generation(3)}


async def test_an_interrupt_drops_what_waits_for_digits(stack: FakeStack) -> None:
    stack.controller.answers[m.SendDigits] = None
    async with on_the_line(stack) as (call, _, state):
        pressing = asyncio.ensure_future(call.send_dtmf("1"))
        await stack.controller.wait_for(m.SendDigits)
        waiting = asyncio.ensure_future(call.send_audio(numbered(24_000)))
        await asyncio.sleep(0)
        await call.interrupt()
        assert await waiting == 0
        stack.controller.answer_last(m.Done())
        await pressing
        assert await call.send_audio(numbered(2_400)) == 2_400
        assert len(state.spoken) == 800


async def test_digits_fail_by_name_and_what_waits_for_them_is_said(stack: FakeStack) -> None:
    stack.controller.answers[m.SendDigits] = TimedOutError("the stream was not back")
    async with on_the_line(stack) as (call, _, _):
        with pytest.raises(TimedOutError, match="was not back"):
            await call.send_dtmf("1")
        assert await call.send_audio(numbered(2_400)) == 2_400


async def test_a_restarted_controller_is_told_that_digits_were_asked_for(
    stack: FakeStack,
) -> None:
    stack.controller.answers[m.SendDigits] = None
    async with on_the_line(stack) as (call, info, _):
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


async def test_a_row_of_digits_is_played_before_the_next_one_and_before_a_hang_up(
    stack: FakeStack,
) -> None:
    """b-leg: Twilio stops playing one document when it is given the next."""
    async with Line(OURS, bus=stack.bus) as line:
        call, _ = await placed(stack, line)
        began = time.monotonic()
        await asyncio.gather(call.send_dtmf("1w"), call.send_dtmf("2"))
        assert time.monotonic() - began >= seconds_of("1w2") / 10
        rows = [r.digits for r in stack.controller.requests if isinstance(r, m.SendDigits)]
        assert rows == ["1w", "2"]
        pressing = asyncio.ensure_future(call.send_dtmf("W" * 30))
        await stack.controller.wait_for(m.SendDigits, 3)
        waiting = asyncio.ensure_future(call.send_dtmf("3"))
        await call.hang_up()
        with pytest.raises(WrongModeError, match="hung up or ended while digits were being sent"):
            await pressing
        with pytest.raises(WrongModeError, match="the call has ended"):
            await waiting


async def test_digits_of_the_far_end(stack: FakeStack) -> None:
    async with on_the_line(stack) as (call, info, _):
        await stack.workers[0].resumed(info.call)
        press(stack, info, "4#")
        assert await anext(call.dtmf) == "4"
        assert await anext(call.dtmf) == "#"
        stack.end_call(info)
        assert [digit async for digit in call.dtmf] == []


async def test_a_digit_that_comes_just_before_the_end_is_handed_out() -> None:
    """The client's thread puts it in, and closes the box, after whoever takes digits found none."""

    class Overtaken(Box[str]):
        def take(self) -> str | None:
            found = super().take()
            if found is None and not self.closed:
                self.put("5")
                self.close()
            return found

    media = cast(CallMedia, SimpleNamespace(digits=Overtaken()))
    assert [digit async for digit in Digits(media)] == ["5"]
