"""A Line's sound: said, heard, interrupted, and carried on by another worker."""

from __future__ import annotations

import asyncio
import time

import pytest
from fake_stack import FakeStack
from phone import numbered, on_the_line

from trunkline.bus import messages as m
from trunkline.bus.testing import until


async def test_an_interrupt_ends_the_send_that_is_under_way(paced_stack: FakeStack) -> None:
    stack = paced_stack
    async with on_the_line(stack) as (call, _, state):
        sending = asyncio.ensure_future(call.send_audio(numbered(24_000 * 5)))
        await until(lambda: state.played >= 480)
        await call.interrupt()
        sent = await asyncio.wait_for(sending, 1)
        assert 0 < sent < 24_000
        assert sent == 3 * len(state.spoken)
        assert await call.send_audio(numbered(480)) == 480
        assert len(state.interrupts) == 1


async def test_sends_are_spoken_in_order(paced_stack: FakeStack) -> None:
    async with on_the_line(paced_stack) as (call, info, _):
        began = time.monotonic()
        parts = [numbered(2400, 2400 * i) for i in range(4)]
        assert await asyncio.gather(*(call.send_audio(p) for p in parts)) == [2400] * 4
        assert time.monotonic() - began > 0.35
        state = paced_stack.workers[0].calls[info.call]
        assert b"".join(state.spoken[p] for p in sorted(state.spoken)) == b"".join(parts)


async def test_a_cancelled_send_says_no_more(paced_stack: FakeStack) -> None:
    async with on_the_line(paced_stack) as (call, _, state):
        sending = asyncio.ensure_future(call.send_audio(numbered(24_000 * 5)))
        await until(lambda: state.played >= 480)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await until(lambda: bool(state.interrupts))
        assert await call.send_audio(numbered(480)) == 480


async def test_a_cancelled_recv_loses_nothing(stack: FakeStack) -> None:
    async with on_the_line(stack) as (call, info, _):
        worker = stack.workers[0]
        await worker.resumed(info.call)
        heard = b""
        for i in range(50):
            receiving = asyncio.ensure_future(call.recv_audio(5))
            worker.hear(info.call, numbered(48, 48 * i))
            await asyncio.sleep(0.0005 * (i % 5))
            receiving.cancel()
            try:
                heard += await receiving
            except asyncio.CancelledError:
                continue
        while len(heard) < 2 * 48 * 50:
            heard += await call.recv_audio(5)
        assert heard == numbered(48 * 50)
        with pytest.raises(asyncio.TimeoutError):
            await call.recv_audio(0.05)


async def test_sound_is_waited_for_until_there_is_as_much_as_is_wanted(stack: FakeStack) -> None:
    async with on_the_line(stack) as (call, info, _):
        worker = stack.workers[0]
        await worker.resumed(info.call)
        receiving = asyncio.ensure_future(call.recv_audio(5, at_least=0.1))
        for i in range(5):
            await until(lambda i=i: len(call.sound) == 960 * i)  # type: ignore[misc]  # bound at once
            assert not receiving.done()
            worker.hear(info.call, numbered(480, 480 * i))
        assert await receiving == numbered(2400)
        worker.hear(info.call, numbered(480, 2400))
        with pytest.raises(asyncio.TimeoutError, match=r"less than 0\.1 s was heard"):
            await call.recv_audio(0.05, at_least=0.1)
        assert await call.recv_audio(5) == numbered(480, 2400), "it is left for the next time"
        for wrong in (301, "0.1", float("nan")):
            with pytest.raises(ValueError, match="at_least"):
                await call.recv_audio(5, at_least=wrong)  # type: ignore[arg-type]  # that is wrong
        worker.hear(info.call, numbered(480, 2880))
        receiving = asyncio.ensure_future(call.recv_audio(5, at_least=0.1))
        await until(lambda: len(call.sound) > 0)
        stack.end_call(info, "hang_up")
        assert await receiving == numbered(480, 2880), "the call's end leaves no more to wait for"


async def test_the_worker_is_told_how_much_is_taken_at_once_whenever_that_changes(
    stack: FakeStack,
) -> None:
    async with on_the_line(stack) as (call, info, state):
        worker = stack.workers[0]
        await worker.resumed(info.call)
        for at_least in (0.0, 0.02, 0.1, 0.1, 0.5, 0.0):
            worker.hear(info.call, numbered(24_000))
            await until(lambda: len(call.sound) == 48_000)
            await call.recv_audio(5, at_least=at_least)
        await until(lambda: len(state.gathers) >= 3)
        assert state.gathers == [800, 1334, 0]  # half a second comes in three parts
        receiving = asyncio.ensure_future(call.recv_audio(5, at_least=0.2))
        await until(lambda: state.gathers[-1] == 1600)
        worker.open(info.call, state.generation + 1)
        await worker.resumed(info.call)
        await until(lambda: state.gathers == [1600])  # behind the Resume
        worker.hear(info.call, numbered(4800))
        assert await receiving == numbered(4800)


async def test_hang_up_lets_what_was_said_be_heard(paced_stack: FakeStack) -> None:
    stack = paced_stack
    async with on_the_line(stack) as (call, info, state):
        sending = asyncio.ensure_future(call.send_audio(numbered(4800)))
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
    async with on_the_line(stack) as (call, _, state):
        assert await call.send_audio(numbered(960)) == 960
    assert asked == [320]


async def test_closing_the_line_does_not_wait_for_what_is_still_being_said(
    paced_stack: FakeStack,
) -> None:
    stack = paced_stack
    async with on_the_line(stack) as (call, _, state):
        sending = asyncio.ensure_future(call.send_audio(numbered(240_000)))
        await until(lambda: bool(state.spoken))
    assert state.marks_set == []
    assert await sending < 240_000


async def test_the_call_goes_on_at_the_other_worker(paced_stack: FakeStack) -> None:
    first, second = paced_stack.workers
    async with on_the_line(paced_stack) as (call, info, _):
        state = await first.resumed(info.call)
        first.hear(info.call, numbered(480))
        assert await call.recv_audio(5) == numbered(480)
        sending = asyncio.ensure_future(call.send_audio(numbered(12_000)))
        await until(lambda: state.played >= 640)
        state.resume = None  # it plays no more
        moved = second.open(info.call, m.first_generation(1) + 1, out_next=state.played)
        await second.resumed(info.call)
        assert moved.resume is not None and moved.resume.position == 160
        second.hear(info.call, numbered(480, 480))
        assert await call.recv_audio(5) == numbered(480, 480)
        assert await sending == 12_000
        assert min(moved.spoken) == state.played
        assert max(moved.spoken) == 3999


async def test_a_worker_that_dies_is_attached_again_when_another_is_named(
    stack: FakeStack,
) -> None:
    async with on_the_line(stack) as (call, info, _):
        await stack.workers[0].resumed(info.call)
        await stack.workers[0].stop()
        sending = asyncio.ensure_future(call.send_audio(numbered(4800)))
        moved = stack.workers[1].open(info.call, m.first_generation(1) + 1)
        assert await sending == 4800
        assert len(moved.spoken) == 1600
        placement = m.Placement(epoch=1, n=2, primary=stack.workers[1].ref)
        stack.controller.tell(m.CallPlaced(call=info.call, placement=placement))
        assert await call.send_audio(numbered(480)) == 480


async def test_somebody_at_the_console_speaks_behind_what_is_queued(
    paced_stack: FakeStack,
) -> None:
    stack = paced_stack
    async with on_the_line(stack) as (call, info, state):
        sending = asyncio.ensure_future(call.send_audio(numbered(2400)))
        await until(lambda: state.played >= 160)
        stack.controller.tell(m.SpeakByHand(call=info.call, pcm=numbered(2400, 2400)))
        stack.controller.tell(m.SpeakByHand(call=info.call, pcm=b"\0"))  # no whole sample
        assert await sending == 2400
        await until(lambda: state.played >= 1600)
        said = b"".join(state.spoken[p] for p in sorted(state.spoken))
        assert said == numbered(4800)


async def test_somebody_at_the_console_interrupts_as_the_test_would(
    paced_stack: FakeStack,
) -> None:
    stack = paced_stack
    async with on_the_line(stack) as (call, info, state):
        sending = asyncio.ensure_future(call.send_audio(numbered(24_000 * 5)))
        await until(lambda: state.played >= 480)
        stack.controller.tell(m.InterruptByHand(call=info.call))
        assert 0 < await asyncio.wait_for(sending, 1) < 24_000
        assert len(state.interrupts) == 1
