"""The journal stands in PostgreSQL, and the server dies under a stack that is at work."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from typing import Any, Final

import page_commands
import psycopg
from e2e.stack import ALICE, BOB, CALLER, CAROL, DAVE, Stack, until

from benchmarks.postgres_server import PASSWORD, Server
from trunkline import Line

from .conversations import talking

PAGE: Final = page_commands.ROOT / "docs" / "database.md"
CALLEE: Final = "+14158889999"


def rows(url: str, sql: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as db:
        return db.execute(sql.encode()).fetchall()


async def test_the_database_dies_and_stands_still_while_calls_talk(
    new_stack: Callable[[], Stack], postgres: Server
) -> None:
    stack = new_stack()
    url = stack.environment["TRUNKLINE_DATABASE_URL"] = postgres.database()
    stack.sim.add_callee(CALLEE, "silence")
    stack.up(gateways=1, codec_workers=1)
    query, *_ = page_commands.blocks(PAGE, "sql")

    async def dials() -> None:
        async with Line(CAROL, allowed_callees=[CALLEE], bus=stack.bus) as line:
            call = await line.place_call(CALLEE, timeout=20.0, attach_stream="a-leg")
            await call.hang_up()

    async with talking(stack, 2) as conversations:
        async with Line(BOB, bus=stack.bus) as line:
            waiting = asyncio.ensure_future(line.wait_for_call(30.0))
            await until(lambda: stack.held(BOB), "the number is armed")
            await until(lambda: rows(url, query), "the page's query finds it")
            ((number, state, holder),) = rows(url, query)
            assert (number, state) == (BOB, "applied") and holder.startswith("controller (pid ")
            writes, calls = len(stack.sim.number_writes()), len(stack.sim.calls())

            # Dead, and later only still: what is new waits, and nothing of it is at Twilio.
            postgres.stop(signal.SIGQUIT)
            dial = asyncio.ensure_future(dials())
            async with Line(DAVE, bus=stack.bus) as other:
                armed = asyncio.ensure_future(other.wait_for_call(30.0))
                await conversations.both_ways(0.7)
                # A call comes to a number that was armed before: that needs no database.
                sid = stack.sim.place_call(CALLER, BOB)["sid"]
                call = await waiting
                assert call.sid == sid
                assert len(stack.sim.number_writes()) == writes and not stack.held(DAVE)
                assert len(stack.sim.calls()) == calls + 1 and not dial.done()
                postgres.start()
                await dial
                await until(lambda: stack.held(DAVE), "the other number is armed")
                with postgres.stopped():
                    dial = asyncio.ensure_future(dials())
                    await conversations.both_ways(0.3)
                    assert not dial.done()
                await dial
                await call.hang_up()
                armed.cancel()
        await conversations.both_ways(0.3)
    conversations.check_whole()
    await until(lambda: stack.changed_numbers() == {}, "all numbers are as before")
    # Each override was written once, and put back once.
    assert [len(stack.sim.number_writes()) - writes, len(stack.calls_to(CALLEE))] == [3, 2]
    assert PASSWORD not in stack.tails()
    still = "SELECT 1 FROM trunkline.dials WHERE state != 'closed'"
    await until(lambda: rows(url, still) == [], "the last dial is noted to be over")


async def test_a_stack_that_ends_in_an_outage_says_what_is_left(
    new_stack: Callable[[], Stack], postgres: Server
) -> None:
    """It ends within 4 s, and the next start finds the row as it was."""
    stack = new_stack()
    url = stack.environment["TRUNKLINE_DATABASE_URL"] = postgres.database()
    stack.up(gateways=1, codec_workers=1)
    client = stack.client("wait", ALICE)
    applied = "SELECT number FROM trunkline.overrides WHERE state = 'applied'"
    await until(lambda: rows(url, applied), "the override stands in the database")
    began = time.monotonic()
    with postgres.stopped():
        assert stack.stop() == 3
    assert time.monotonic() - began < 5.0
    client.terminate()
    client.wait()
    assert stack.held(ALICE)
    assert not any("never retrieved" in line for line in stack.lines("up"))
    assert any("stands there: the next start" in line for line in stack.lines("up"))
    # The note that it is being put back was on its way.
    open_rows = "SELECT number FROM trunkline.overrides WHERE state IN ('applied', 'restoring')"
    assert rows(url, open_rows) == [(ALICE,)]
