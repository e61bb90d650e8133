"""Listening to a call of somebody else, on a fake stack: what the user of a line hears of it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator

import numpy as np
import pytest
from fake_stack import OURS, FakeStack
from phone import answered

from trunkline import Line
from trunkline.adapter.tap import Tap
from trunkline.bus import messages as m
from trunkline.bus.errors import CarrierError, TimedOutError, WrongModeError
from trunkline.bus.testing import until
from trunkline.gates.run import followed

SID = "CA" + "7" * 32
FRAME = 480


def listening(stack: FakeStack) -> list[m.CallInfo]:
    """From now on calls may be listened to; returns those that are, as they come."""
    found: list[m.CallInfo] = []

    def answer(body: m.Listen) -> m.Listening:
        info = m.CallInfo(
            call=body.call,
            session=body.session,
            sid=body.sid,
            direction="outbound",
            caller="",
            callee="",
            secret=secrets.token_hex(16),
            ordinal=1,
            placement=stack.placement,
            theirs=body.theirs,
        )
        for track in (body.call, m.outbound_track(body.call)):
            stack.workers[0].open(track, m.first_generation(1))
        found.append(info)
        return m.Listening(info=info)

    stack.controller.answers[m.Listen] = answer
    return found


def end(stack: FakeStack, info: m.CallInfo, reason: m.EndedReason) -> None:
    """The call, or the listening, is over."""
    for track in (info.call, m.outbound_track(info.call)):
        state = stack.workers[0].calls[track]
        over = m.StreamOver(track, state.generation, state.generation >> 16, "stop")
        stack.workers[0].send(track, over)
    stack.controller.tell(m.CallEnded(call=info.call, reason=reason))


@contextlib.asynccontextmanager
async def tapped(
    stack: FakeStack, theirs: str = "outbound", **line_options: bool
) -> AsyncIterator[tuple[Tap, m.CallInfo]]:
    """A tap, and the call as its workers know it."""
    found = listening(stack)

    def hang_up(body: m.HangUp) -> m.Done:
        if found and body.call == found[-1].call:
            asyncio.get_running_loop().call_soon(end, stack, found[-1], "hang_up")
        return m.Done()

    stack.controller.answers[m.HangUp] = hang_up
    async with (
        Line(OURS, bus=stack.bus, **line_options) as line,
        line.listen(SID, theirs=theirs) as tap,  # type: ignore[arg-type]  # a test's own words
    ):
        (info,) = found
        for track in (info.call, m.outbound_track(info.call)):
            await stack.workers[0].resumed(track)
        yield tap, info


def hear(stack: FakeStack, info: m.CallInfo, inbound: bytes, outbound: bytes) -> None:
    stack.workers[0].hear(info.call, inbound)
    stack.workers[0].hear(m.outbound_track(info.call), outbound)


def sound(value: int, frames: int = 1) -> bytes:
    return np.full(FRAME * frames, value, "<i2").tobytes()


@pytest.mark.parametrize("theirs", ["outbound", "inbound"])
async def test_both_sides_come_until_the_call_is_over(stack: FakeStack, theirs: str) -> None:
    async with tapped(stack, theirs) as (tap, info):
        assert (tap.sid, tap.theirs, tap.ended_reason) == (SID, theirs, None)
        hear(stack, info, sound(100), sound(-100))
        at, *sides = await anext(tap)
        assert at == 0.0
        expected = [sound(100), sound(-100)]
        assert sides == (expected if theirs == "outbound" else expected[::-1])
        hear(stack, info, sound(200, 2), sound(-200, 2))
        end(stack, info, "stop")
        rest = [piece async for piece in tap]
        assert sum(len(ours) for _, ours, _ in rest) == 2 * FRAME * 2
        assert rest[0][0] == pytest.approx(0.02)
        assert tap.ended_reason == "stop" and [piece async for piece in tap] == []
    assert stack.controller.all(m.HangUp) == [], "it was over by itself"


async def test_the_end_of_the_block_stops_listening(stack: FakeStack) -> None:
    async with tapped(stack) as (tap, info):
        hear(stack, info, sound(100), sound(-100))
        await anext(tap)
    assert [x.call for x in stack.controller.all(m.HangUp)] == [info.call]
    assert tap.ended_reason == "hang_up"
    assert [piece async for piece in tap] == []
    assert tap.report().seconds == pytest.approx(0.02), "it is kept"


async def test_a_report_and_what_was_lost(stack: FakeStack) -> None:
    async with tapped(stack) as (tap, info):
        hear(stack, info, sound(100, 50), sound(-100, 50))
        await anext(tap)
        lost = m.Sound(
            m.outbound_track(info.call),
            m.first_generation(1),
            8_320,
            1,
            8_480,
            320,
            sound(1),
            bytes(160),
        )
        stack.workers[0].send(lost.call, m.Heard([lost]))
        await until(lambda: tap.lost)
        assert tap.lost == {"never arrived": 320} or sum(tap.lost.values()) == 320
        report = tap.report()
        assert report.frames_lost == 2 and report.seconds == pytest.approx(1.06, abs=0.01)
        ours, theirs = tap.both_sides()
        assert len(ours) == 8_000 and len(theirs) == 8_480


async def test_a_line_without_reports_keeps_nothing_of_it(stack: FakeStack) -> None:
    async with tapped(stack, report=False) as (tap, info):
        hear(stack, info, sound(100), sound(-100))
        assert len((await anext(tap))[1]) == 2 * FRAME
        with pytest.raises(WrongModeError, match="keeps no sound"):
            tap.report()


async def test_it_is_announced_to_a_restarted_controller_as_one(stack: FakeStack) -> None:
    async with tapped(stack) as (_, info):
        stack.controller.stop()
        stack.controller.epoch = 2
        stack.controller.start()
        hello = await stack.controller.wait_for(m.Hello, 2)
        (session,) = hello.sessions
        (known,) = session.calls
        assert (known.call, known.sid, known.theirs) == (info.call, SID, "outbound")
        assert known.ordinal == 1


async def test_a_newer_placement_is_for_both_tracks(stack: FakeStack) -> None:
    async with tapped(stack) as (_, info):
        other = stack.workers[1]
        placement = m.Placement(epoch=1, n=2, primary=other.ref)
        stack.controller.tell(m.CallPlaced(call=info.call, placement=placement))
        both = {info.call, m.outbound_track(info.call)}
        await until(lambda: both <= set(other.attached))
        stack.controller.tell(m.CallReconnecting(call=info.call, ordinal=1))
        stack.controller.tell(m.CallStarted(info=info))


async def test_who_follows_a_tests_calls_is_told_of_it(stack: FakeStack) -> None:
    with followed() as calls:
        async with tapped(stack) as (tap, _):
            assert calls == [tap]
    async with tapped(stack):
        assert calls == [tap], "only during the block"


async def test_a_call_of_our_own_goes_on_beside_it(stack: FakeStack) -> None:
    listening(stack)
    async with Line(OURS, bus=stack.bus) as line, line.listen(SID) as tap:
        call, info = await answered(stack, line)
        assert await call.send_audio(bytes(960)) == 480
        stack.end_call(info)
        await call.wait_ended(5)
        assert tap.ended_reason is None


@pytest.mark.parametrize(
    ("sid", "theirs"),
    [("+14155550101", "outbound"), ("CA1", "outbound"), ("", "outbound"), (SID, "left")],
)
async def test_what_names_no_call_is_refused_before_anybody_is_asked(
    stack: FakeStack, sid: str, theirs: str
) -> None:
    async with Line(OURS, bus=stack.bus) as line:
        with pytest.raises(ValueError, match=r"CallSid|theirs"):
            async with line.listen(sid, theirs=theirs):  # type: ignore[arg-type]  # the point
                pass
    assert stack.controller.all(m.Listen) == []


async def test_an_error_of_the_carrier_reaches_the_user(stack: FakeStack) -> None:
    stack.controller.answers[m.Listen] = CarrierError("gone", status=404, code=20404, message="x")
    async with Line(OURS, bus=stack.bus) as line:
        with pytest.raises(CarrierError) as refused:
            async with line.listen(SID):
                pass
    assert refused.value.status == 404


async def test_a_stream_that_does_not_come_in_time_is_named(stack: FakeStack) -> None:
    stack.controller.answers[m.Listen] = None
    async with Line(OURS, bus=stack.bus) as line:
        with pytest.raises(TimedOutError, match=rf"no stream of call {SID} was up within 0\.1 s"):
            async with line.listen(SID, timeout=0.1):
                pass


@pytest.mark.parametrize("how", ["late", "cancelled"])
async def test_a_stream_that_nobody_waits_for_any_more_is_stopped(
    stack: FakeStack, how: str
) -> None:
    stack.controller.answers[m.Listen] = None
    async with Line(OURS, bus=stack.bus) as line:

        async def listen() -> None:
            async with line.listen(SID, timeout=0.2 if how == "late" else 30.0):
                pass

        waiting = asyncio.ensure_future(listen())
        asked = await stack.controller.wait_for(m.Listen)
        if how == "late":
            with pytest.raises(TimedOutError):
                await waiting
        else:
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        given_up = await stack.controller.wait_for(m.HangUp)
        assert given_up.call == asked.call


async def test_a_lost_session_ends_it(stack: FakeStack) -> None:
    listening(stack)
    async with Line(OURS, bus=stack.bus) as line, line.listen(SID) as tap:
        session = stack.controller.all(m.Listen)[0].session
        stack.controller.tell(m.SessionLost(session=session, why="test"))
        assert [piece async for piece in tap] == []
        assert tap.ended_reason == "error"


async def test_a_stream_that_comes_up_just_as_its_user_goes_away_is_stopped(
    stack: FakeStack,
) -> None:
    listening(stack)
    answer = stack.controller.answers[m.Listen]
    stack.controller.answers[m.Listen] = None
    async with Line(OURS, bus=stack.bus) as line, contextlib.AsyncExitStack() as block:
        entering = asyncio.ensure_future(block.enter_async_context(line.listen(SID)))
        asked = await stack.controller.wait_for(m.Listen)
        stack.controller.answer_last(answer(asked))
        assert line._session is not None
        while len(line._session.calls) < 2:  # in the client's thread; this loop hears nothing yet
            time.sleep(0.001)  # noqa: ASYNC251
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering
        assert (await stack.controller.wait_for(m.HangUp)).call == asked.call
