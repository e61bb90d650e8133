"""A codec worker dies, or is stopped and wakes up."""

from __future__ import annotations

import signal
import statistics

import pytest
from e2e.stack import Stack, stopped, until

from trunkline import Call

from .conversations import kill, talking, worker_of

pytestmark = pytest.mark.measures

#: The longest hole (seconds) that the far end may hear where there is a standby.
LONGEST_HOLE = 0.2


@pytest.mark.parametrize("calls", [1, pytest.param(50, marks=pytest.mark.alone)])
async def test_a_codec_worker_with_a_standby(stack: Stack, calls: int) -> None:
    async with talking(stack, calls) as conversations:
        victim = worker_of(stack, conversations.calls[0])
        kill(victim)
        await conversations.both_ways(1.5)
        assert victim != worker_of(stack, conversations.calls[0])
    conversations.check_whole()
    conversations.check_holes(LONGEST_HOLE)


async def test_a_codec_worker_that_gathers_sound_for_its_clients(stack: Stack) -> None:
    """Whoever takes 100 ms at a time gets a fifth of the messages. A kill in the middle of a piece
    loses nothing, the next worker gathers too, and 20 ms at a time come as they came before."""
    async with talking(stack, 3) as conversations:
        sizes: list[int] = []  # of all pieces of sound that come
        for talk in conversations.talks:
            talk.at_least = 0.1
            notes_sizes(talk.call, sizes)

        async def usual_size() -> float:
            await conversations.both_ways(0.5)
            sizes.clear()
            await conversations.both_ways(1.0)
            return statistics.median(sizes) / 48_000

        assert 0.1 <= await usual_size() <= 0.12
        kill(worker_of(stack, conversations.calls[0]))
        assert 0.1 <= await usual_size() <= 0.12
        for talk in conversations.talks:
            talk.at_least = 0.0
        assert await usual_size() == 0.02
    conversations.check_whole()
    conversations.check_holes(LONGEST_HOLE)


def notes_sizes(call: Call, sizes: list[int]) -> None:
    """Note the bytes of each piece of sound that a worker sends."""
    put = call.sound.put

    def noted(pcm: bytes) -> int:
        sizes.append(len(pcm))
        return put(pcm)

    call.sound.put = noted  # type: ignore[method-assign]  # of this call alone


async def test_a_codec_worker_alone(single: Stack) -> None:
    async with talking(single, 3) as conversations:
        victim = worker_of(single, conversations.calls[0])
        kill(victim)
        await conversations.both_ways(1.5)
        (back,) = single.status()["codec_workers"]
        assert (back["pid"] != victim, back["calls"]) == (True, 3)
    conversations.check_whole()
    # The far end hears nothing until the keeper's new one is up, however soon that is.
    assert conversations.holes(before=False) > 0.0
    conversations.check_holes(5.0)


async def test_a_codec_worker_is_stopped_then_wakes(stack: Stack) -> None:
    async with talking(stack, 3) as conversations:
        call = conversations.calls[0]
        victim = worker_of(stack, call)
        with stopped(victim):
            await conversations.both_ways(3.0)
            assert worker_of(stack, call) != victim
        await until(
            lambda: any(row["pid"] == victim for row in stack.status()["codec_workers"]),
            "it is well again",
        )
        await conversations.both_ways(1.0)
    conversations.check_whole()
    # It is silent for 500 ms until the calls are moved; 60 ms lie at the carrier.
    conversations.check_holes(0.5 + LONGEST_HOLE)


async def test_a_codec_worker_ends_in_an_orderly_way(stack: Stack) -> None:
    async with talking(stack, 3) as conversations:
        kill(worker_of(stack, conversations.calls[0]), signal.SIGTERM)
        await conversations.both_ways(1.5)
    conversations.check_whole()
    conversations.check_holes(LONGEST_HOLE)
