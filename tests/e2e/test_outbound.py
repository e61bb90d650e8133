"""A test calls: by its own leg, by the callee's, or only to make it ring."""

from __future__ import annotations

import asyncio
import time

import pytest

from trunkline import Line
from trunkline.errors import CallFailedError

from .sound import compare, from_pcm, from_wire, speech
from .stack import ALICE, CALLEE, CAROL, Ear, Stack, calling, dialled, until


async def test_an_a_leg_call_carries_sound_both_ways_and_touches_no_number(stack: Stack) -> None:
    sent = speech(2.5, first=3)
    async with calling(stack, "speech:austen-0890,ring=0.2") as call:
        assert (call.direction, call.caller, call.callee) == ("outbound", ALICE, CALLEE)
        (at_carrier,) = stack.calls_to(CALLEE)
        assert at_carrier["sid"] == call.sid == await dialled(call)
        ear = Ear(call)
        assert await call.send_audio(sent) == len(sent) // 2
        await call.hang_up()
        assert call.ended_reason == "hang_up"
        heard = await ear.all()
    compare(from_pcm(sent), from_wire(stack.far_end_heard(call.sid))).check()
    compare(from_pcm(heard), from_wire(stack.sim.said(call.sid)), alone=False).check()
    assert stack.sim.number_writes() == []
    # A call that we place always has a limit at the carrier.
    (created,) = [r for r in stack.sim.rest_log() if r["path"].endswith("/Calls.json")]
    assert created["form"]["TimeLimit"] == "300"


async def test_a_b_leg_call_is_carried_by_the_callees_number_and_puts_it_back(
    stack: Stack,
) -> None:
    sent = speech(2.0, first=1)
    async with Line(ALICE, bus=stack.bus) as line:
        call = await line.place_call(CAROL, timeout=20.0)
        assert (call.direction, call.callee) == ("outbound", CAROL)
        assert stack.held(CAROL) and not stack.held(ALICE)
        legs = {leg["direction"]: leg["sid"] for leg in stack.calls_to(CAROL)}
        assert legs == {"inbound": call.sid, "outbound-api": await dialled(call)}
        ear = Ear(call)
        assert await call.send_audio(sent) == len(sent) // 2
        await call.hang_up()
        heard = await ear.all()
    assert stack.changed_numbers() == {}
    compare(from_pcm(sent), from_wire(stack.far_end_heard(call.sid))).check()
    # Our own leg says its sentence to the callee's, which hears it.
    compare(from_pcm(heard), from_wire(stack.sim.said(call.sid)), alone=False).check()
    for leg in legs.values():
        assert stack.sim.call(leg)["status"] == "completed"


async def test_ten_calls_at_once_from_one_number_hear_each_their_own_callee(stack: Stack) -> None:
    callees = [f"+141566600{n:02d}" for n in range(10)]
    names = [f"austen-{n}" for n in ("0870", "0880", "0890", "0920", "0930")] * 2
    for number, name in zip(callees, names, strict=True):
        stack.sim.add_callee(number, f"speech:{name},ring=0.1")
    sent = [speech(2.5, first=(n + 1) % 5) for n in range(10)]
    async with Line(ALICE, allowed_callees=callees, bus=stack.bus) as line:
        calls = await asyncio.gather(
            *(line.place_call(to, timeout=20.0, attach_stream="a-leg") for to in callees)
        )
        assert [call.callee for call in calls] == callees
        assert len({call.sid for call in calls}) == 10
        ears = [Ear(call) for call in calls]
        told = await asyncio.gather(*(c.send_audio(s) for c, s in zip(calls, sent, strict=True)))
        assert told == [len(pcm) // 2 for pcm in sent]
        await asyncio.gather(*(call.hang_up() for call in calls))
        heard = [await ear.all() for ear in ears]
    for call, mine, theirs in zip(calls, sent, heard, strict=True):
        compare(from_pcm(mine), from_wire(stack.far_end_heard(call.sid))).check()
        compare(from_pcm(theirs), from_wire(stack.sim.said(call.sid)), alone=False).check()
    assert stack.sim.number_writes() == []


@pytest.mark.parametrize("status", ["busy", "failed"])
async def test_a_call_that_is_not_taken_fails_at_once_with_its_status(
    stack: Stack, status: str
) -> None:
    stack.sim.add_callee(CALLEE, status)
    async with Line(ALICE, allowed_callees=[CALLEE], bus=stack.bus) as line:
        with pytest.raises(CallFailedError) as failure:
            await line.place_call(CALLEE, timeout=60.0, attach_stream="a-leg")
        assert failure.value.status == status
        (call,) = stack.calls_to(CALLEE)
        ended, last = call["history"][-1]
        assert last == status
        assert time.monotonic() - ended < 5.0


async def test_a_b_leg_call_that_is_not_taken_fails_at_once_and_puts_the_number_back(
    stack: Stack,
) -> None:
    # Nothing of the callee's own answers: our webhook is not reached, and there is no other.
    stack.sim.add_fault("webhook", "drop")
    stack.provoked.add(11205)
    async with Line(ALICE, bus=stack.bus) as line:
        with pytest.raises(CallFailedError) as failure:
            await line.place_call(CAROL, timeout=60.0)
        assert failure.value.status in ("failed", "no-answer")
    assert stack.changed_numbers() == {}


async def test_a_cancelled_place_call_hangs_up(stack: Stack) -> None:
    stack.sim.add_callee(CALLEE, "no-answer")
    async with Line(ALICE, allowed_callees=[CALLEE], bus=stack.bus) as line:
        placing = line.place_call(CALLEE, timeout=60.0, attach_stream="a-leg")
        dialling = asyncio.ensure_future(placing)
        await until(lambda: stack.calls_to(CALLEE), "the carrier was asked to call")
        dialling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialling
        sid = stack.calls_to(CALLEE)[0]["sid"]
        assert (await asyncio.to_thread(stack.sim.wait_for, sid))["status"] == "canceled"
