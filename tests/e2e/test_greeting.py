"""A far end that greets first, on a Line; also where the carrier leaves silence out."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from trunkline import Line

from .sound import compare, from_pcm, from_wire, speech
from .stack import ALICE, CALLEE, Stack

RATE = 24_000


@pytest.mark.parametrize("contradict", [[], ["silence-is-sent"]])
async def test_a_greeting_is_kept_and_the_rest_of_the_call_is_heard_behind_it(
    stack: Stack, contradict: list[str]
) -> None:
    stack.sim.add_callee(CALLEE, "speech:austen-0880,after=0.3,greets,when_silent=0.5,repeat")
    question = speech(1.5, first=3)
    with stack.contradicting(*contradict):
        async with Line(ALICE, allowed_callees=[CALLEE], bus=stack.bus) as line:
            call = await line.place_call(
                CALLEE, timeout=20.0, attach_stream="a-leg", callee_speaks_first=True
            )
            greeting = call.greeting
            assert greeting is not None
            # The recording lasts 3 s, of which a third is left out where its pauses are.
            assert (1.5 if contradict else 2.5) < len(greeting) / 2 / RATE < 4.5
            assert await call.send_audio(question) == len(question) // 2
            answer = b""
            # The same words again; with what is silent before them it is 5 s to their middle.
            enough = len(greeting) * 0.9 if contradict else 5.0 * 2 * RATE
            async with asyncio.timeout(20):
                while len(answer) < enough:
                    answer += await call.recv_audio()
            await call.hang_up()
            while more := await call.recv_audio(5):
                answer += more
    compare(from_pcm(question), from_wire(stack.far_end_heard(call.sid))).check()
    loud = np.abs(np.frombuffer(greeting + answer, "<i2").astype(np.float64)) > 300
    assert loud[: len(greeting) // 2].sum() > 0.3 * loud.sum(), "the greeting's words"
    assert loud[len(greeting) // 2 :].sum() > 0.3 * loud.sum(), "and the answer's"
