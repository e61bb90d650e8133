"""Keys: those that the far end presses, and those that we send, in every mode."""

from __future__ import annotations

import asyncio

from trunkline import Call, Line

from .sound import compare, from_pcm, from_wire, speech
from .stack import ALICE, CALLEE, CAROL, Stack, be_called, called, until


async def digits_of(call: Call) -> str:
    return "".join([digit async for digit in call.dtmf])


async def test_keys_of_the_far_end_come_in_order_and_end_with_the_call(stack: Stack) -> None:
    bot = {"kind": "silence", "dtmf": [[0.4, "12#"], [1.2, "*0"]], "hang_up_after": 2.2}
    async with called(stack, bot) as call:
        async with asyncio.timeout(15.0):
            assert await digits_of(call) == "12#*0"
        assert call.ended_reason == "stop"


async def test_our_keys_can_be_tones_in_what_we_say(stack: Stack) -> None:
    """Answering, and calling by our own leg: the carrier finds them in what we say."""
    stack.sim.add_callee(CALLEE, "record")
    sim = stack.sim
    async with (
        Line(ALICE, bus=stack.bus) as answering,
        Line(CAROL, allowed_callees=[CALLEE], bus=stack.bus) as calling,
    ):
        answered, placed = await asyncio.gather(
            be_called(stack, answering, "record"),
            calling.place_call(CALLEE, timeout=20.0, attach_stream="a-leg"),
        )
        await asyncio.gather(
            answered.send_dtmf("1234567890*#", tones=True), placed.send_dtmf("15w9#", tones=True)
        )
        await until(
            lambda: sim.call(answered.sid)["digits_heard"] == "1234567890*#", "all keys were heard"
        )
        await until(lambda: sim.call(placed.sid)["digits_heard"] == "159#", "all keys were heard")
        await answered.hang_up()
        await placed.hang_up()


async def test_our_keys_are_pressed_by_the_carrier_where_another_leg_carries_the_sound(
    stack: Stack,
) -> None:
    """b-leg: our leg presses them, so the callee's leg, which has our stream, gets them."""
    async with Line(ALICE, bus=stack.bus) as line:
        call = await line.place_call(CAROL, timeout=20.0)
        digits = asyncio.ensure_future(digits_of(call))
        await call.send_dtmf("42#")
        # The call lives on, and so does its sound.
        sent = speech(1.0, first=1)
        assert await call.send_audio(sent) == len(sent) // 2
        await call.hang_up()
        assert await digits == "42#"
    compare(from_pcm(sent), from_wire(stack.far_end_heard(call.sid))).check()


async def test_our_keys_are_pressed_in_a_call_that_carries_no_sound(stack: Stack) -> None:
    stack.sim.add_callee(CALLEE, "record")
    async with Line(ALICE, bus=stack.bus) as line:
        call = await line.place_call(CALLEE, timeout=20.0, attach_stream_to_self=False)
        await asyncio.to_thread(stack.sim.wait_for, call.sid, "in-progress")
        for keys in ("1", "23"):
            await call.send_dtmf(keys)
            await until(
                lambda keys=keys: stack.sim.call(call.sid)["digits_heard"].endswith(keys),
                "the keys were pressed",
            )
        assert stack.sim.call(call.sid)["status"] == "in-progress"
        assert stack.sim.call(call.sid)["digits_heard"] == "123"
        await call.hang_up()
