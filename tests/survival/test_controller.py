"""The controller dies, or is stopped: calls go on, requests wait."""

from __future__ import annotations

import asyncio
import time
from typing import Any

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


async def test_the_controller(pair: Stack) -> None:
    before = pair.status()["controller"]
    async with talking(pair, 3) as conversations, Line(BOB, bus=pair.bus) as armed:
        waiting = asyncio.ensure_future(armed.wait_for_call(30.0))
        await until(lambda: pair.held(BOB), "the number is armed")
        writes = len(pair.sim.number_writes())
        kill(before["pid"])

        # A new request waits, and succeeds.
        async def one_more() -> None:
            async with Line(CAROL, allowed_callees=["+14158880000"], bus=pair.bus) as line:
                call = await line.place_call("+14158880000", timeout=20.0, attach_stream="a-leg")
                await call.hang_up()

        more = asyncio.ensure_future(one_more())

        # It is known again who has what.
        await until(lambda: answers(pair), "the controller is back")
        back = time.monotonic()
        sids = {call.sid for call in conversations.calls}

        def known() -> bool:
            status = pair.status()
            rows = [row for row in status["calls"] if row["sid"] in sids]
            return (
                status["controller"]["epoch"] == before["epoch"] + 1
                and {row["sid"] for row in rows if row["state"] == "live"} == sids
                and all(row["gateway"] and row["codec_worker"] for row in rows)
                and {row["number"] for row in status["sessions"]} >= {armed.number}
                and [row["state"] for row in status["overrides"]] == ["applied"]
                and pair.complete()
            )

        await until(known, "sessions, calls and overrides are known", KNOWN_WITHIN)
        assert time.monotonic() - back <= KNOWN_WITHIN
        await more

        # What was armed stayed so; nothing was written for it.
        assert len(pair.sim.number_writes()) == writes
        sid = pair.sim.place_call(CALLER, BOB)["sid"]
        async with asyncio.timeout(10.0):
            call = await waiting
        assert call.sid == sid
        await call.hang_up()
        await conversations.both_ways(0.5)
    # Calls in progress felt nothing.
    conversations.check_whole()
    conversations.check_holes(0.1)


async def test_the_controller_is_stopped_while_somebody_calls(pair: Stack) -> None:
    """A gateway that gets no answer lets the caller wait and ask again."""
    async with talking(pair, 1) as conversations, Line(BOB, bus=pair.bus) as line:
        waiting = asyncio.ensure_future(line.wait_for_call(30.0))
        await until(lambda: pair.held(BOB), "the number is armed")
        with stopped(pair.status()["controller"]["pid"]):
            sid = pair.sim.place_call(CALLER, BOB)["sid"]
            await until(
                lambda: pair.sim.call(sid)["doing"] == "pause",
                "the caller is asked to wait",
            )
        call = await waiting
        assert call.sid == sid
        await call.hang_up()
    conversations.check_whole()
    conversations.check_holes(0.3)  # it stood still for more than 2 s
