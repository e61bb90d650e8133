"""Benchmark client: many a-leg calls at once on one trunkline Line, talking and listening."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from benchmarks.protocol import read_order, say, wait_for
from trunkline import Call, Line


async def listen(call: Call) -> float:
    """Take all sound until the call ends; returns how many seconds it was."""
    total = 0
    while pcm := await call.recv_audio(timeout=60.0):
        total += len(pcm)
    return total / 48_000


async def main(order: dict[str, Any], pcm: bytes) -> None:
    callees = order["callees"]
    began = time.monotonic()
    async with Line(order["number"], allowed_callees=callees) as line:
        calls = await asyncio.gather(
            *(line.place_call(to, timeout=60.0, attach_stream="a-leg") for to in callees)
        )
        listeners = [asyncio.create_task(listen(call)) for call in calls]
        say(ready=len(calls), setup_seconds=time.monotonic() - began)
        await wait_for("go")
        await asyncio.gather(*(call.send_audio(pcm) for call in calls))
        say(done=True)
        await wait_for("end")
        await asyncio.gather(*(call.hang_up() for call in calls))
        heard = await asyncio.gather(*listeners)
        say(heard={call.sid: seconds for call, seconds in zip(calls, heard, strict=True)})


if __name__ == "__main__":
    asyncio.run(main(*read_order()))
