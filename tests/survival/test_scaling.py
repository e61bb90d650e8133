"""Codec workers come and go while calls talk."""

from __future__ import annotations

import pytest
from e2e.stack import Stack, until

from trunkline.bus.launch import trunkline_argv

from .conversations import talking, worker_of
from .test_codec_worker import LONGEST_HOLE

pytestmark = pytest.mark.measures


async def test_a_worker_that_is_added_takes_new_calls_and_hands_them_over_when_it_is_drained(
    stack: Stack,
) -> None:
    async with talking(stack, 2, later=2) as conversations:
        before = {worker_of(stack, call) for call in conversations.calls}
        assert len(before) == 2, "calls spread over the workers"
        added = stack.run(trunkline_argv("codec-worker"), "codec-worker")
        await until(lambda: stack.complete(2, 3), "the new worker has joined")
        call = await conversations.add(conversations.later.pop())
        assert worker_of(stack, call) == added.pid
        await conversations.add(conversations.later.pop())
        assert len({worker_of(stack, each) for each in conversations.calls}) == 3
        await conversations.both_ways(0.5)
        added.terminate()
        await conversations.both_ways(1.5)
        assert added.wait(5.0) == 0
        assert {worker_of(stack, each) for each in conversations.calls} == before
    conversations.check_whole()
    conversations.check_holes(LONGEST_HOLE)
