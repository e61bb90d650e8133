"""Benchmark client: many a-leg calls at once on one trunkline Line, talking and listening."""

from __future__ import annotations

import asyncio
import json
import sys
import time

from benchmarks.protocol import say, wait_for
from benchmarks.speech import speech
from trunkline import Call, Line


async def listen(call: Call) -> int:
    """Take all sound until the call ends; returns its bytes."""
    total = 0
    while pcm := await call.recv_audio(timeout=30.0):
        total += len(pcm)
    return total


async def talk(call: Call, pcm: bytes) -> float:
    """Say ``pcm``; returns how long that took, in seconds."""
    began = time.monotonic()
    await call.send_audio(pcm)
    return time.monotonic() - began


async def main(number: str, callees: list[str], seconds: float) -> None:
    pcm = speech(seconds)
    async with Line(number, allowed_callees=callees) as line:
        began = time.monotonic()
        calls = await asyncio.gather(
            *(line.place_call(to, timeout=60.0, attach_stream="a-leg") for to in callees)
        )
        listeners = [asyncio.create_task(listen(call)) for call in calls]
        say(ready=len(calls), setup_seconds=time.monotonic() - began, sids=[c.sid for c in calls])
        await wait_for("go")
        took = await asyncio.gather(*(talk(call, pcm) for call in calls))
        say(done=True, took=took)
        await wait_for("end")
        await asyncio.gather(*(call.hang_up() for call in calls))
        heard = await asyncio.gather(*listeners)
        say(
            heard_seconds=[n / 48_000 for n in heard],
            lost_in_samples=sum(call.lost.inbound for call in calls),
        )


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    asyncio.run(main(**arguments))
