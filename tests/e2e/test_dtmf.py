"""Keys: those that the far end presses, and those that we send, in every mode."""

from __future__ import annotations

import asyncio

from trunkline import Call, Line

from .sound import compare, from_pcm, from_wire, speech
from .stack import ALICE, CALLEE, CAROL, Stack, until


async def digits_of(call: Call) -> str:
    return "".join([digit async for digit in call.dtmf])


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
