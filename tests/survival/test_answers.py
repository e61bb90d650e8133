"""Who has answered is told, whatever dies while Twilio tells it."""

from __future__ import annotations

import asyncio
import time

import pytest
from e2e.stack import ALICE, CALLEE, Stack, until

from trunkline import Line

from .conversations import BROKEN, kill

#: Twilio knows who has answered so long after the answer: one second of sound, then silence.
KNOWN_AFTER = 2.2
#: A machine that is busy just then misses the moment, and the call is placed again.
TRIES = 5


@pytest.mark.parametrize("victim", ["controller", "gateways"])
async def test_an_answer_that_comes_while_nobody_listens_comes_later(
    stack: Stack, victim: str
) -> None:
    stack.sim.add_callee(CALLEE, "hand-over:music:1")
    async with Line(ALICE, allowed_callees=[CALLEE], bus=stack.bus) as line:
        for _ in range(TRIES):
            call = await line.place_call(
                CALLEE, timeout=20.0, attach_stream="a-leg", machine_detection="Enable"
            )
            status = stack.status()
            found = [status["controller"]] if victim == "controller" else status["gateways"]
            answered = stack.sim.call(call.sid)["media_started"]
            await asyncio.sleep(max(0.0, answered + KNOWN_AFTER - 0.5 - time.monotonic()))
            if call.answered_by is None:
                break
            await call.hang_up()
        assert call.answered_by is None
        if victim == "gateways":
            stack.provoked |= BROKEN
        for process in found:
            kill(process["pid"])
        assert await call.wait_answered_by(15.0) == "human"
        assert stack.sim.call(call.sid)["status"] == "in-progress"
        await until(stack.complete, "everything is back")
        await call.hang_up()
