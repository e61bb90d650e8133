"""Somebody calls a number that a test answers."""

from __future__ import annotations

import asyncio

import pytest

from trunkline import Line

from .sound import compare, from_pcm, from_wire, speech
from .stack import ALICE, BOB, CALLER, Ear, Stack, be_called, called, until


async def test_sound_goes_both_ways_whole_until_the_far_end_hangs_up(stack: Stack) -> None:
    sent = speech(3.0, first=1)
    async with Line(ALICE, bus=stack.bus) as line:
        bot = {"kind": "wav", "speech": "austen-0870", "after": 0.2}
        call = await be_called(stack, line, bot)
        assert (call.direction, call.caller, call.callee) == ("inbound", CALLER, ALICE)
        assert [c["sid"] for c in stack.calls_to(ALICE)] == [call.sid]
        assert call.ended_reason is None
        ear = Ear(call)
        assert await call.send_audio(sent) == len(sent) // 2
        await until(lambda: ear.seconds > 3.5, "our sentence was played to its end")
        stack.sim.hang_up(call.sid)
        heard = await ear.all()
        assert call.ended_reason == "stop"
        assert await call.recv_audio(1.0) == b""
    compare(from_pcm(sent), from_wire(stack.far_end_heard(call.sid))).check()
    check_heard_all(stack, call.sid, heard)


async def test_what_was_said_before_the_far_end_hangs_up_mid_sentence_is_heard_to_the_end(
    stack: Stack,
) -> None:
    async with Line(ALICE, bus=stack.bus) as line:
        bot = {"kind": "wav", "speech": "austen-0920", "after": 0.2, "hang_up_at": 3.37}
        call = await be_called(stack, line, bot)
        # We are speaking too; that is cut off, and says how far it came.
        speaking = asyncio.ensure_future(call.send_audio(speech(10.0)))
        await until(lambda: call.ended_reason, "the call has ended")
        sent = await speaking
        assert sent / 24_000 > 0.5
        (stream,) = stack.sim.call(call.sid)["streams"]
        arrived = sum(size for _, size, _ in stack.sim.arrivals(stream["sid"]))
        assert sent / 24_000 == pytest.approx(arrived / 8_000, abs=1.0), "but what was on its way"
        # Nobody listened until now: all of it was kept.
        heard = await Ear(call).all()
        assert [await call.recv_audio(1.0) for _ in range(3)] == [b"", b"", b""]
        assert call.ended_reason == "stop"
        assert call.ended_by_far_end
    check_heard_all(stack, call.sid, heard)


def check_heard_all(stack: Stack, sid: str, heard: bytes) -> None:
    """Every frame was heard that the carrier sent, in a call with one stream."""
    (stream,) = stack.sim.call(sid)["streams"]
    said = stack.sim.said(sid)[-160 * stream["frames_in"] :]
    assert len(heard) == 6 * len(said)
    # The line's own delay may be cut off: the filter's 2 ms at most.
    compare(from_wire(said), from_pcm(heard)).check(cut=48)


async def test_hanging_up_lets_the_last_word_be_heard(stack: Stack) -> None:
    sent = speech(1.0, first=3)
    async with called(stack, "record") as call:
        await call.send_audio(sent)
        await call.hang_up()
        assert call.ended_reason == "hang_up"
    assert stack.sim.wait_for(call.sid)["status"] == "completed"
    compare(from_pcm(sent), from_wire(stack.far_end_heard(call.sid))).check()


async def test_two_calls_at_once_on_two_numbers_do_not_hear_each_other(stack: Stack) -> None:
    async with Line(ALICE, bus=stack.bus) as one, Line(BOB, bus=stack.bus) as other:
        bots = [{"kind": "wav", "speech": f"austen-{n}", "after": 0.2} for n in ("0870", "0890")]
        calls = await asyncio.gather(
            be_called(stack, one, bots[0], "+14155550001"),
            be_called(stack, other, bots[1], "+14155550002"),
        )
        assert [call.caller for call in calls] == ["+14155550001", "+14155550002"]
        ears = [Ear(call) for call in calls]
        sent = [speech(2.5, first=1), speech(2.5, first=4)]
        await asyncio.gather(*(c.send_audio(pcm) for c, pcm in zip(calls, sent, strict=True)))
        await asyncio.gather(*(call.hang_up() for call in calls))
        heard = [await ear.all() for ear in ears]
    for call, mine, theirs in zip(calls, sent, heard, strict=True):
        compare(from_pcm(mine), from_wire(stack.far_end_heard(call.sid))).check()
        # The beginning was said before the stream was up, the end after we had hung up.
        said = from_wire(stack.sim.said(call.sid))
        compare(from_pcm(theirs), said, alone=False).check()
