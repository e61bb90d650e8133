"""A client's process dies, or stands still."""

from __future__ import annotations

import time

from e2e.stack import ALICE, BOB, CALLEE, CALLER, CAROL, Stack, until

from .conversations import kill, talking

#: A client whose lease lasts longer than this stall has lost nothing.
STALL = 8.0


#: A dead client's calls are hung up and its numbers as before within the lease's 10 s, and two
#: seconds for the carrier to be asked.
GONE_WITHIN = 10.0 + 2.0


async def test_the_adapters_process(stack: Stack) -> None:
    """One that holds two calls, and one that is dialling."""
    ringing = "+14158880009"
    stack.sim.add_callee(CALLEE, "echo")
    stack.sim.add_callee(ringing, "no-answer")
    clients = [stack.client("hold", ALICE, BOB, CALLEE), stack.client("dial", CAROL, ringing)]
    await until(lambda: stack.held(ALICE), "the number is armed")
    stack.sim.place_call(CALLER, ALICE, "echo")
    await until(lambda: stack.said(clients[0]), "both calls are up")
    await until(lambda: stack.calls_to(ringing), "the other one's rings")
    assert len(stack.live_calls()) == 3
    for client in clients:
        kill(client.pid)
        client.wait()
    died = time.monotonic()
    await until(
        lambda: not stack.live_calls() and not stack.changed_numbers(),
        "calls are hung up, numbers as before",
        GONE_WITHIN,
    )
    restored = [
        write["time"] for write in stack.sim.number_writes() if not stack.held(write["number"])
    ][-1]
    assert restored - died <= GONE_WITHIN
    (rang,) = stack.calls_to(ringing)
    assert stack.sim.call(rang["sid"])["status"] in ("canceled", "completed")
    await until(lambda: stack.status()["sessions"] == [], "the sessions are gone")


def stand_still() -> None:
    """No task of the loop runs, so nobody listens, and only sound from the queue is said."""
    time.sleep(STALL)


async def test_a_client_whose_event_loop_is_blocked(stack: Stack) -> None:
    async with talking(stack, 1) as conversations:
        (call,) = conversations.calls
        heard = call.heard_samples
        stand_still()
        assert call.ended_reason is None
        # The client's own thread has heard all of it meanwhile.
        assert call.heard_samples - heard >= (STALL - 0.5) * 8_000
        await conversations.both_ways(0.5)
        assert stack.call_status(call.sid)["state"] == "live"
    conversations.check_whole()
