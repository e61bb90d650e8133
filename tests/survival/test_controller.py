"""The controller dies, or is stopped: calls go on, requests wait."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from e2e.stack import BOB, CALLER, CAROL, Stack, stopped, until

from trunkline import Line

from .conversations import kill, talking

#: From the controller's return until it knows the world again (seconds).
KNOWN_WITHIN = 2.0


def answers(stack: Stack) -> dict[str, Any]:
    """The status, empty while no controller answers."""
    try:
        return stack.status()
    except OSError:
        return {}


@pytest.mark.measures
async def test_the_controller(stack: Stack) -> None:
    before = stack.status()["controller"]
    async with talking(stack, 3) as conversations, Line(BOB, bus=stack.bus) as armed:
        waiting = asyncio.ensure_future(armed.wait_for_call(30.0))
        await until(lambda: stack.armed(BOB), "the number is armed")
        writes = len(stack.sim.number_writes())
        kill(before["pid"])
        # A caller in the meantime is let wait, by a gateway that finds no controller.
        sid = stack.sim.place_call(CALLER, BOB)["sid"]

        # A new request waits, and succeeds.
        async def one_more() -> None:
            async with Line(CAROL, allowed_callees=["+14158880000"], bus=stack.bus) as line:
                call = await line.place_call("+14158880000", timeout=20.0, attach_stream="a-leg")
                await call.hang_up()

        more = asyncio.ensure_future(one_more())

        # It is known again who has what.
        await until(lambda: answers(stack), "the controller is back")
        back = time.monotonic()
        sids = {call.sid for call in conversations.calls}

        def known() -> bool:
            status = stack.status()
            rows = [row for row in status["calls"] if row["sid"] in sids]
            return (
                status["controller"]["epoch"] == before["epoch"] + 1
                and {row["sid"] for row in rows if row["state"] == "live"} == sids
                and all(row["gateway"] and row["codec_worker"] for row in rows)
                and {row["number"] for row in status["sessions"]} >= {armed.number}
                and [row["state"] for row in status["overrides"]] == ["applied"]
                and stack.complete()
            )

        await until(known, "sessions, calls and overrides are known", KNOWN_WITHIN)
        assert time.monotonic() - back <= KNOWN_WITHIN
        await more

        # What was armed stayed so; nothing was written for it.
        assert len(stack.sim.number_writes()) == writes
        async with asyncio.timeout(10.0):
            call = await waiting
        assert call.sid == sid
        await call.hang_up()
        await conversations.both_ways(0.5)
    # Calls in progress felt nothing.
    conversations.check_whole()
    conversations.check_holes(0.1)


@pytest.mark.measures
async def test_the_controller_is_stopped_while_somebody_calls(stack: Stack) -> None:
    """A gateway that gets no answer lets the caller wait and ask again."""
    async with talking(stack, 1) as conversations, Line(BOB, bus=stack.bus) as line:
        waiting = asyncio.ensure_future(line.wait_for_call(30.0))
        await until(lambda: stack.held(BOB), "the number is armed")
        with stopped(stack.status()["controller"]["pid"]):
            sid = stack.sim.place_call(CALLER, BOB)["sid"]
            await until(
                lambda: stack.sim.call(sid)["doing"] == "pause",
                "the caller is asked to wait",
            )
        call = await waiting
        assert call.sid == sid
        await call.hang_up()
    conversations.check_whole()
    conversations.check_holes(0.3)  # it stood still for more than 2 s
