"""Benchmark client: like client_line.py, but each call says much that is short, interrupts it, and
notes when it did so and when it heard what."""

from __future__ import annotations

import asyncio
import random
import time

from benchmarks.client_line import main
from benchmarks.protocol import read_order
from trunkline import Call

TURNS = 8
#: Seconds until a turn is interrupted, and from there to the next one.
TALKS, PAUSES = 0.4, 0.4


async def talk(call: Call, pcm: bytes) -> list[tuple[int, int]]:
    """Take turns; when each began and when it was interrupted, in ns."""
    # Calls are not to beat together.
    await asyncio.sleep(random.Random(call.sid).uniform(0.0, TALKS + PAUSES))
    noted = []
    for _ in range(TURNS):
        began = time.time_ns()
        saying = asyncio.ensure_future(call.send_audio(pcm))
        await asyncio.sleep(TALKS)
        noted.append((began, time.time_ns()))
        await call.interrupt()
        await saying
        await asyncio.sleep(PAUSES)
    return noted


async def listen(call: Call) -> list[tuple[int, int]]:
    """When sound was heard, in ns, and how many bytes there had been by then."""
    total, noted = 0, []
    while pcm := await call.recv_audio(timeout=60.0):
        total += len(pcm)
        noted.append((time.time_ns(), total))
    return noted


if __name__ == "__main__":
    asyncio.run(main(*read_order(), talk, listen))
