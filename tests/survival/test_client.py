"""A client's process dies, or stands still."""

from __future__ import annotations

import os
import time

from e2e.stack import ALICE, BOB, CALLEE, CALLER, Stack, until

from .conversations import kill, talking

#: A client whose lease lasts longer than this stall has lost nothing.
STALL = 8.0


def gone_within() -> float:
    """When a dead client's calls are hung up and its numbers as before: 10 s, and what a machine
    adds that has more to do than it can."""
    return 10.0 + max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


async def test_the_adapters_process(pair: Stack) -> None:
    pair.sim.add_callee(CALLEE, "echo")
    client = pair.client("hold", ALICE, BOB, CALLEE)
    await until(lambda: pair.held(ALICE), "the number is armed")
    pair.sim.place_call(CALLER, ALICE, "echo")
    await until(lambda: pair.said(client), "both calls are up")
    assert len(pair.live_calls()) == 2
    kill(client.pid)
    client.wait()
    died = time.monotonic()
    await until(
        lambda: not pair.live_calls() and not pair.changed_numbers(),
        "calls are hung up, numbers as before",
        gone_within(),
    )
    (restored,) = [
        write["time"] for write in pair.sim.number_writes() if not pair.held(write["number"])
    ][-1:]
    assert restored - died <= gone_within()
    await until(lambda: pair.status()["sessions"] == [], "the session is gone")


async def test_the_adapters_process_while_it_dials(pair: Stack) -> None:
    pair.sim.add_callee(CALLEE, "no-answer")
    client = pair.client("dial", BOB, CALLEE)
    await until(lambda: pair.live_calls(), "it rings")
    (sid,) = pair.live_calls()
    kill(client.pid)
    client.wait()
    await until(lambda: not pair.live_calls(), "it rings no more", gone_within())
    assert pair.sim.call(sid)["status"] in ("canceled", "completed")
    await until(lambda: pair.status()["sessions"] == [], "the session is gone")


def stand_still() -> None:
    """No task of the loop runs: nobody listens, and what is said is what was queued."""
    time.sleep(STALL)


async def test_a_client_whose_event_loop_is_blocked(pair: Stack) -> None:
    async with talking(pair, 1) as conversations:
        (call,) = conversations.calls
        heard = call.heard_samples
        stand_still()
        assert call.ended_reason is None
        # The client's own thread has heard all of it meanwhile.
        assert call.heard_samples - heard >= (STALL - 0.5) * 8_000
        await conversations.both_ways(0.5)
        assert pair.call_status(call.sid)["state"] == "live"
    conversations.check_whole()
