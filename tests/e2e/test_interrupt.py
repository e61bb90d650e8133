"""Speech is cut off: at once at the far end, and with an exact count of the samples sent."""

from __future__ import annotations

import asyncio
import time

import pytest

from trunkline import Line

from .sound import compare, from_pcm, from_wire, speech
from .stack import ALICE, CALLEE, Stack, until

#: Seconds of speech that the far end may still hear after an interrupt.
STOPS_WITHIN = 0.1
#: And after one of the interrupts, where the machine was busy.
ONCE_WITHIN = 0.5


@pytest.mark.measures
async def test_sound_stops_at_the_far_end_and_what_was_sent_is_told(stack: Stack) -> None:
    stack.sim.add_callee(CALLEE, "record")
    sim = stack.sim
    delays: list[float] = []
    async with Line(ALICE, allowed_callees=[CALLEE], bus=stack.bus) as line:
        call = await line.place_call(CALLEE, timeout=20.0, attach_stream="a-leg")
        stream = sim.call(call.sid)["streams"][0]["sid"]
        arrived = 0
        for n in range(5):
            speaking = asyncio.ensure_future(call.send_audio(speech(5.0, first=n)))
            queued = asyncio.ensure_future(call.send_audio(speech(5.0)))
            await until(
                lambda n=n: len(sim.arrivals(stream)) > arrived + 20,  # noqa: B023  # ends in this round
                "some of it is being played",
            )
            asked = time.monotonic()
            await call.interrupt()
            sent = await speaking
            assert await queued == 0
            await until(lambda n=n: len(sim.spans(stream)["clears"]) > n, "the carrier has cleared")
            (span,) = [s for s in sim.spans(stream)["spans"] if s["ended"] > asked]
            assert span["ended_by"] == "clear"
            delays.append(span["ended"] - asked)
            taken = sim.arrivals(stream)
            assert sent == 3 * sum(size for _, size, _ in taken[arrived:])
            arrived = len(taken)
        # One round may meet a moment in which the machine is busy with something else.
        *usual, longest = sorted(delays)
        assert usual[-1] <= STOPS_WITHIN and longest <= ONCE_WITHIN, delays
        # What is said next is heard at once, and whole.
        last = speech(1.0, first=2)
        assert await call.send_audio(last) == len(last) // 2
        await call.hang_up()
    compare(from_pcm(last), from_wire(stack.far_end_heard(call.sid))).check()
