"""Benchmark client: many a-leg calls at once on one trunkline Line, talking and listening.

A call's sound is taken ``at_least`` seconds at a time. The benchmark has 0.1 s, because
langwatch-scenario's own adapter hands out 100 ms at a time too. 0 is as it comes, every 20 ms.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.protocol import read_order, say, wait_for
from trunkline import Call, Line


async def take_all(call: Call, at_least: float) -> float:
    """Take all sound until the call ends; returns how many seconds it was."""
    total = 0
    while pcm := await call.recv_audio(timeout=60.0, at_least=at_least):
        total += len(pcm)
    return total / 48_000


async def main(
    order: dict[str, Any],
    pcm: bytes,
    talk: Callable[[Call, bytes], Awaitable[Any]] = Call.send_audio,
    listen: Callable[[Call], Awaitable[Any]] | None = None,
) -> None:
    """Each round has calls of its own, which say the first seconds of ``pcm``. What ``talk`` and
    ``listen`` return is told by call."""
    callees = order["callees"]
    if listen is None:
        listen = functools.partial(take_all, at_least=order["at_least"])
    async with Line(order["number"], allowed_callees=callees) as line:
        for seconds in order["rounds"]:
            speech = pcm[: round(seconds * 48_000)]
            began = time.monotonic()
            calls = await asyncio.gather(
                *(line.place_call(to, timeout=60.0, attach_stream="a-leg") for to in callees)
            )
            sids = [call.sid for call in calls]
            listeners = [asyncio.ensure_future(listen(call)) for call in calls]
            say(ready=len(calls), setup_seconds=time.monotonic() - began)
            await wait_for("go")
            said = await asyncio.gather(*(talk(call, speech) for call in calls))
            say(done=dict(zip(sids, said, strict=True)))
            await wait_for("end")
            await asyncio.gather(*(call.hang_up() for call in calls))
            heard = await asyncio.gather(*listeners)
            say(heard=dict(zip(sids, heard, strict=True)))


if __name__ == "__main__":
    asyncio.run(main(*read_order()))
