"""Breaking into a turn, on the fake stack, with sound that is there already."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from fake_call import FakeCall
from fake_stack import FakeStack
from line_sound import pcm, silence, words
from phone import numbered, on_the_line

from trunkline.adapter.call import Call
from trunkline.adapter.turns.turns import STANDARD, Heard
from trunkline.bus.testing import until

QUIET = pcm(silence(1.5))
OURS = numbered(2_400)


@pytest.fixture(scope="module")
def said() -> bytes:
    """Two seconds of words without a pause, as a line brings them. They are made when a test needs
    them: every worker of pytest reads this file, and ``words`` imports scipy for a second."""
    return pcm(words("austen-0880.wav")[: 2 * 24_000])


def seconds(sound: bytes, count: float) -> bytes:
    return sound[: round(count * 24_000) * 2]


async def hears(stack: FakeStack, call: Call, info_call: str, sound: bytes) -> None:
    """All of ``sound`` lies there for whoever listens to the call."""
    stack.workers[0].hear(info_call, sound)
    await until(lambda: len(call.sound) == len(sound))


async def test_a_barge_in_breaks_into_words(stack: FakeStack, said: bytes) -> None:
    async with on_the_line(stack) as (call, info, state):
        await hears(stack, call, info.call, QUIET + said)
        assert await call.barge_in(OURS, after=1.2) == len(OURS) // 2
        assert b"".join(state.spoken[p] for p in sorted(state.spoken)) == OURS
        left = call.sound.take_all()
        assert left.endswith(said), "the words are left for the next turn"
        assert len(left) - len(said) == pytest.approx(STANDARD.pre_roll * 48_000, abs=2_400)


@pytest.mark.parametrize("quiet", [0.2, 1.5])
async def test_who_fell_silent_before_is_not_broken_into(
    stack: FakeStack, said: bytes, quiet: float
) -> None:
    async with on_the_line(stack) as (call, info, state):
        await hears(stack, call, info.call, seconds(said, 1.0) + seconds(QUIET, quiet))
        with pytest.raises(TimeoutError, match=r"less than after=1\.1 s"):
            await call.barge_in(OURS, after=1.1)
        assert not state.spoken
        assert call.sound.take_all() == seconds(said, 1.0) + seconds(QUIET, quiet)


async def test_a_barge_in_waits_for_the_end_of_a_pause(stack: FakeStack, said: bytes) -> None:
    async with on_the_line(stack) as (call, info, state):
        await hears(stack, call, info.call, seconds(said, 0.8) + seconds(QUIET, 0.8))
        breaking_in = asyncio.ensure_future(call.barge_in(OURS, after=1.0))
        await until(lambda: len(call.sound) == 0)
        assert not state.spoken
        stack.workers[0].hear(info.call, said)
        assert await breaking_in == len(OURS) // 2
        assert call.sound.take_all() == seconds(said, 0.8) + seconds(QUIET, 0.8) + said


async def test_words_count_from_their_first_even_where_they_have_no_whole_pre_roll(
    said: bytes,
) -> None:
    heard = Heard(cast(Call, FakeCall(seconds(QUIET, 0.1) + said)))
    await heard.next_chunk(1.0, most_silence=None, first=False)
    assert heard.since_onset == pytest.approx(2.0, abs=0.05)


async def test_a_turn_that_nobody_gets_is_heard_by_the_next_listener(
    stack: FakeStack, said: bytes
) -> None:
    """Whoever asked for it has gone away in the middle of its words."""
    async with on_the_line(stack) as (call, info, _):
        await hears(stack, call, info.call, QUIET + said)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await call.next_turn()
        assert call.sound.take_all().endswith(said)
