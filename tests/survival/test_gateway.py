"""A gateway dies: the call comes back by a new stream."""

from __future__ import annotations

import asyncio
import signal

import pytest
from e2e.stack import Stack, stopped, until

from trunkline.bus.sound import TOGETHER

from .conversations import BROKEN, Conversations, gateway_of, kill, talking

#: From a gateway's death to the new stream, while another gateway answers (seconds).
BACK_WITHIN = 1.0


def check_came_back(stack: Stack, conversations: Conversations, within: float) -> None:
    """Every call has a second stream in time, and the loss between the two was reported."""
    conversations.check(streams=2)
    for verdict in conversations.verdicts:
        streams = [s for s in stack.sim.call(verdict.sid)["streams"] if s["opened_at"] is not None]
        assert streams[1]["opened_at"] - streams[0]["ended_at"] <= within
        # The lead that lay at the carrier, and at least one frame of the far end's. Two messages
        # may be in doubt, and each brings what goes together with the frame that was due.
        assert 1 <= verdict.reported_out <= 8 + 2 * TOGETHER, verdict
        assert verdict.lost_in == 0 or verdict.reported_in > 0, verdict


@pytest.mark.measures
async def test_a_gateway_while_another_answers(stack: Stack) -> None:
    stack.provoked |= BROKEN
    async with talking(stack, 1) as conversations:
        call = conversations.calls[0]
        victim = gateway_of(stack, call)
        kill(victim)
        await conversations.both_ways(1.5)  # what was being said goes on
        assert gateway_of(stack, call) != victim
    check_came_back(stack, conversations, BACK_WITHIN)


@pytest.mark.measures
async def test_a_stream_that_breaks_comes_back(stack: Stack) -> None:
    """The network fails instead of a process."""
    stack.provoked |= BROKEN
    async with talking(stack, 1) as conversations:
        (call,) = conversations.calls
        stack.sim.drop_stream(stack.sim.call(call.sid)["streams"][0]["sid"])
        await conversations.both_ways(1.5)
    check_came_back(stack, conversations, BACK_WITHIN)


@pytest.mark.measures
async def test_a_gateway_alone_whose_socket_is_held(single: Stack) -> None:
    single.provoked |= BROKEN
    async with talking(single, 3) as conversations:
        kill(gateway_of(single, conversations.calls[0]))
        await conversations.both_ways(1.5)
    # The keeper starts it again; connections wait in the socket that it holds meanwhile.
    check_came_back(single, conversations, 5.0)


async def test_what_waits_on_a_call_ends_when_its_gateway_dies(single: Stack) -> None:
    """A send_audio, and the mark that hang_up waits for."""
    single.provoked |= BROKEN
    async with talking(single, 1) as conversations:
        (call,) = conversations.calls
        speech = asyncio.ensure_future(call.send_audio(bytes(48_000 * 10)))
        kill(gateway_of(single, call))
        async with asyncio.timeout(8.0):
            await call.hang_up()
            sent = await speech
        assert 0 <= sent < 24_000 * 10
        assert call.ended_reason == "hang_up"
        assert call.sid not in single.live_calls()
        conversations.talks.clear()
    await until(lambda: not single.live_calls(), "the call is over")


@pytest.mark.measures
async def test_a_call_ends_while_its_gateway_is_stopped(stack: Stack) -> None:
    """More of the far end's sound waits in the socket than is read in one go, and behind it the
    stream's end. The controller's word that the call is over waits as well. A hang-up takes a
    second while nothing is played, and the keeper would kill the gateway after 1.5 s."""
    async with talking(stack, 1) as conversations:
        (call,) = conversations.calls
        with stopped(gateway_of(stack, call)):
            ending = asyncio.ensure_future(call.hang_up())
            await until(lambda: stack.sim.call(call.sid)["status"] == "completed", "it is over")
        await ending
    (verdict,) = conversations.verdicts
    assert (verdict.lost_in, verdict.reported_in) == (0, 0.0), verdict


@pytest.mark.measures
async def test_a_gateway_is_stopped_then_wakes(stack: Stack) -> None:
    async with talking(stack, 1) as conversations:
        with stopped(gateway_of(stack, conversations.calls[0])):
            await asyncio.sleep(1.0)
        await conversations.both_ways(1.5)
    # Nothing is lost: sound waited in the gateway's sockets, and ours was not sent ahead.
    conversations.check_whole()
    assert conversations.holes(before=False) > 0.5
    conversations.check_holes(2.0)


@pytest.mark.measures
async def test_a_gateway_hangs(stack: Stack) -> None:
    """Its keeper kills it after 1.5 to 2 s of silence, and another one answers Twilio. The worker
    cannot know that the carrier played on meanwhile, so that more counts as lost than was."""
    stack.provoked |= BROKEN
    async with talking(stack, 1) as conversations:
        call = conversations.calls[0]
        victim = gateway_of(stack, call)
        kill(victim, signal.SIGSTOP)
        await conversations.both_ways(1.5)
        assert gateway_of(stack, call) != victim
    conversations.check(streams=2)
    assert conversations.holes(before=False) > 1.0
    conversations.check_holes(3.0)
