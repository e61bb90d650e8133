"""What the contract gives ten seconds, or nearly so: all of it at once, and a test for each.

A lease is 10 s long, a restarted stack waits 9 s for sessions to come back, and a bus that nobody
answers is asked for 10 s. The fixture lets these pass side by side; each test tells what came of
its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from trunkline import Line
from trunkline.errors import StackUnavailableError

from .stack import ALICE, BOB, CALLEE, CALLER, Stack, until

#: What the carrier notes when a stream's socket breaks, or a webhook meets nobody.
BROKEN = {31903, 31921}
UNREACHED = {11200, 11205, 11210}

Outcomes = dict[str, BaseException | None]


@pytest.fixture(scope="module")
def outcomes(_shared_frail_stack: Stack) -> Iterator[Outcomes]:
    """What each of the coroutines below ended with, by its name."""
    own = Stack()
    try:
        own.start_carrier()
        own.up(gateways=1, codec_workers=1)
        yield asyncio.run(
            side_by_side(
                lambda: a_bus_that_nobody_answers(_shared_frail_stack),
                lambda: a_killed_client(_shared_frail_stack),
                lambda: a_killed_stack(own),
            )
        )
    finally:
        own.close()


async def side_by_side(*works: Callable[[], Awaitable[None]]) -> Outcomes:
    tasks = [asyncio.ensure_future(work()) for work in works]
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    names = [task.get_coro().__name__ for task in tasks]  # type: ignore[union-attr]  # coroutines
    return dict(zip(names, ended, strict=True))


def tell(outcomes: Outcomes, what: Callable[..., object]) -> None:
    error = outcomes[what.__name__]
    if error is not None:
        raise error


def test_a_bus_that_nobody_answers_is_said_after_10_s(outcomes: Outcomes) -> None:
    tell(outcomes, a_bus_that_nobody_answers)


async def a_bus_that_nobody_answers(stack: Stack) -> None:
    nowhere = f"ipc://{stack.directory}/nowhere"
    asked = asyncio.to_thread(stack.command, "status", TRUNKLINE_BUS=nowhere)
    with pytest.raises(StackUnavailableError, match=nowhere):
        await Line(ALICE, bus=nowhere).open()
    status = await asked
    assert status.returncode == 1
    (line,) = status.stderr.splitlines()
    assert nowhere in line


def test_a_killed_client_has_its_calls_hung_up_and_its_numbers_put_back(
    outcomes: Outcomes,
) -> None:
    tell(outcomes, a_killed_client)


async def a_killed_client(stack: Stack) -> None:
    async with holding(stack) as (client, sids):
        client.kill()
        killed = time.monotonic()
        await until(lambda: over(stack, sids), "all is put back", 20.0)
        ends = [stack.sim.call(sid)["history"][-1][0] for sid in sids]
        written = [write["time"] for write in stack.sim.number_writes()]
        # A lease is 10 s long.
        assert max(ends + written) - killed < 12.0
        await until(lambda: stack.status()["sessions"] == [], "the session is gone")
    stack.check_nothing_left()


def test_a_killed_stack_that_starts_again_puts_numbers_back(outcomes: Outcomes) -> None:
    tell(outcomes, a_killed_stack)


async def a_killed_stack(stack: Stack) -> None:
    async with holding(stack) as (client, sids):
        client.kill()
        stack.kill_stack()
        assert stack.held(ALICE)
        stack.up(gateways=1, codec_workers=1)
        await until(lambda: over(stack, sids), "all is put back", 20.0)
    assert stack.stop() == 0
    stack.provoked |= BROKEN | UNREACHED
    stack.check_nothing_left()


@contextlib.asynccontextmanager
async def holding(stack: Stack) -> AsyncIterator[tuple[subprocess.Popen[bytes], list[str]]]:
    """A client process with a call to ALICE and one from BOB: the process, and the calls' SIDs."""
    stack.sim.add_callee(CALLEE, "silence")
    client = stack.client("hold", ALICE, BOB, CALLEE)
    try:
        await until(lambda: stack.held(ALICE), "the number is armed")
        stack.sim.place_call(CALLER, ALICE, "silence")
        told = await until(lambda: stack.said(client), "both calls are up")
        yield client, told[0]["sids"]
    finally:
        client.kill()
        client.wait()


def over(stack: Stack, sids: list[str]) -> bool:
    """No number is changed any more, and none of the calls lives."""
    return not stack.changed_numbers() and not set(sids) & set(stack.live_calls())
