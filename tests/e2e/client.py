"""A program that uses lines of the stack at TRUNKLINE_BUS, as a test in another process does.

    client.py echo NUMBER          answers, says back all that it hears, ends with the call
    client.py wait NUMBER          waits for a call that never comes
    client.py hold NUMBER FROM TO  answers NUMBER, calls TO from FROM, holds both calls for ever
    client.py dial FROM TO         calls TO from FROM, where nobody answers, for ever

It prints one JSON object a line: {"armed": …}, {"sids": […]}.
"""

from __future__ import annotations

import asyncio
import json
import sys

from trunkline import Call, Line


def tell(**what: object) -> None:
    print(json.dumps(what), flush=True)


async def echo(number: str) -> None:
    async with Line(number) as line:
        call = await line.wait_for_call(60.0)
        tell(sids=[call.sid])
        saying: set[asyncio.Task[int]] = set()
        while pcm := await call.recv_audio(60.0):
            saying.add(asyncio.ensure_future(call.send_audio(pcm)))
        for task in saying:
            task.cancel()
        tell(ended=call.ended_reason)


async def wait(number: str) -> None:
    async with Line(number) as line:
        await line.wait_for_call(600.0)


async def hold(number: str, from_: str, to: str) -> None:
    async with Line(number) as answering, Line(from_, allowed_callees=[to]) as calling:
        calls: list[Call] = await asyncio.gather(
            answering.wait_for_call(60.0),
            calling.place_call(to, timeout=20.0, attach_stream="a-leg"),
        )
        tell(sids=[call.sid for call in calls])
        await asyncio.Event().wait()


async def dial(from_: str, to: str) -> None:
    async with Line(from_, allowed_callees=[to]) as line:
        await line.place_call(to, timeout=600.0, attach_stream="a-leg")


if __name__ == "__main__":
    programs = {"echo": echo, "wait": wait, "hold": hold, "dial": dial}
    asyncio.run(programs[sys.argv[1]](*sys.argv[2:]))
