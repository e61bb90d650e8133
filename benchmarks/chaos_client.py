"""A client process of the chaos suite: calls that talk and listen full duplex, one after the other.

Started with one JSON object: ``slots`` (each: kind a-leg, b-leg or inbound; number; callee; first
frame number), ``shortest`` and ``longest`` call in seconds, ``seed``. It prints a line of JSON for
whatever happens: ``waiting`` (an inbound slot may be called), ``up`` (a call is), ``over`` (with
what was said, heard, and reported as lost), ``failed`` (a request did not succeed). On stdin
``renew`` makes it hang up and call again, ``stop`` makes it hang up, leave, and print ``bye``.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import deque
from typing import Any, Final, Literal

import numpy as np

from benchmarks import chaos_code
from benchmarks.protocol import say
from trunkline import Call, Line
from trunkline.bus.process import StoppedError, unless
from trunkline.errors import TrunklineError

#: Frames in one send_audio: a second.
PIECE: Final = 50
#: Utterances that are queued ahead, so that they join.
AHEAD: Final = 2
#: An inbound slot waits so long for its caller.
CALLED_WITHIN: Final = 60.0
#: Seconds of sound that calls take at a time: as it comes, or in pieces.
TAKEN: Final = (0.0, 0.1)
#: So long (seconds) calls that begin take it in one way, then in the other, and then each second
#: one. Gateways and workers have a slower clock while all calls are taken in pieces.
TAKEN_SO_FOR: Final = 20.0


class Orders:
    """The orders that came on stdin so far."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        #: counts ``renew`` and ``stop``
        self.count = 0

    async def read(self) -> None:
        """Take orders until ``stop``, or until nobody is left to give any."""
        while not self.stop.is_set():
            word = (await asyncio.to_thread(sys.stdin.readline)).strip()
            self.count += 1
            if word != "renew":
                self.stop.set()


class Talk:
    """One call: it says numbered frames from ``first`` on, ``piece`` of them in one send_audio, and
    keeps all that it hears (8 kHz), which it takes ``at_least`` seconds at a time (0: as it
    comes)."""

    def __init__(
        self, call: Call, first: int, piece: int = PIECE, *, at_least: float = 0.0
    ) -> None:
        self.call = call
        self.first = first
        self.piece = piece
        self.at_least = at_least
        #: samples (24 kHz) that were sent, by the word of send_audio
        self.sent = 0
        self.began = time.monotonic()
        self._heard: list[np.ndarray[Any, np.dtype[np.int16]]] = []
        self._listening = asyncio.ensure_future(self._listen())

    async def _listen(self) -> None:
        rest = b""
        while pcm := await self.call.recv_audio(None, at_least=self.at_least):
            # Every third sample will do, because a phone line has nothing above 4 kHz.
            pcm = rest + pcm
            whole = len(pcm) // 6 * 6
            rest = pcm[whole:]
            self._heard.append(np.frombuffer(pcm[:whole], "<i2")[::3].copy())

    async def say(self, seconds: float, orders: Orders, count: int) -> None:
        """Speak without a pause until the time is over, an order after ``count`` of them, or the
        call's end."""
        queued: deque[asyncio.Task[int]] = deque()
        frame = self.first
        until = time.monotonic() + seconds
        try:
            while time.monotonic() < until and count == orders.count and not self.call.ending:
                while len(queued) < AHEAD:
                    sound = chaos_code.pcm(frame, self.piece)
                    queued.append(asyncio.create_task(self.call.send_audio(sound)))
                    frame += self.piece
                self.sent += await queued.popleft()
        finally:
            for result in await asyncio.gather(*queued, return_exceptions=True):
                self.sent += result if isinstance(result, int) else 0

    async def end(self) -> dict[str, Any]:
        """Hang up, and report the call."""
        by_us = not self.call.ending
        problem = ""
        try:
            await self.call.hang_up()
        except (TrunklineError, TimeoutError) as error:
            problem = f"hang_up: {error!r}"
        try:
            async with asyncio.timeout(15.0):
                await self._listening
        except TimeoutError:
            self._listening.cancel()
            problem = problem or "the call's sound has no end"
        return self.report() | {"hung_up": by_us, "problem": problem}

    def report(self) -> dict[str, Any]:
        heard = chaos_code.read(
            np.concatenate(self._heard) if self._heard else np.zeros(0, np.int16)
        )
        return {
            "sid": self.call.sid,
            "first": self.first,
            "began": self.began,
            "ended": time.monotonic(),
            "reason": self.call.ended_reason,
            "sent_frames": self.sent / chaos_code.FRAME_24K,
            "heard_first": heard.numbers[0] if heard.numbers else None,
            "heard_span": heard.numbers[-1] - heard.numbers[0] + 1 if heard.numbers else 0,
            "heard_missing": heard.missing,
            "heard_doubled": heard.doubled,
            "lost_in": self.call.lost.inbound / chaos_code.FRAME,
            "lost_out": self.call.lost.outbound / chaos_code.FRAME,
            "lost_why": self.call.lost.reasons,
        }


async def slot(
    n: int, wish: dict[str, Any], lengths: tuple[float, float], seed: int, orders: Orders
) -> None:
    """One call after the other, until ``stop``."""
    stop = orders.stop
    rng = random.Random(f"{seed} {n}")
    kind, number, callee = wish["kind"], wish["number"], wish.get("callee")
    first = int(wish["first"])
    while not stop.is_set():
        asked = time.monotonic()
        try:
            async with Line(number, allowed_callees=[callee] if callee else None) as line:
                while not stop.is_set():
                    count, asked = orders.count, time.monotonic()
                    call = await connect(line, n, kind, number, callee, stop)
                    if call is None:
                        break
                    say(up=call.sid, slot=n, kind=kind, asked=asked, at=time.monotonic())
                    talk = Talk(call, first, at_least=taken(n, time.monotonic()))
                    await talk.say(rng.uniform(*lengths), orders, count)
                    say(over=await talk.end() | {"slot": n, "kind": kind})
                    first += 211
        except (TrunklineError, TimeoutError) as error:
            say(failed=repr(error), slot=n, kind=kind, asked=asked, at=time.monotonic())
            await asyncio.sleep(0.3)


def taken(n: int, now: float) -> float:
    """How a call of slot ``n`` takes its sound that begins now."""
    return (*TAKEN, TAKEN[n % 2])[int(now // TAKEN_SO_FOR) % 3]


async def connect(
    line: Line, n: int, kind: str, number: str, callee: str | None, stop: asyncio.Event
) -> Call | None:
    """The slot's next call; None when it is to stop."""
    if kind == "inbound":
        say(waiting=number, slot=n)
        asked = line.wait_for_call(CALLED_WITHIN)
    else:
        assert callee is not None
        leg: Literal["a-leg", "b-leg"] = "a-leg" if kind == "a-leg" else "b-leg"
        asked = line.place_call(callee, timeout=60.0, attach_stream=leg)
    try:
        return await unless(stop, asked)
    except StoppedError:
        return None


async def main(slots: list[dict[str, Any]], shortest: float, longest: float, seed: int) -> None:
    orders = Orders()
    tasks = [
        asyncio.create_task(slot(n, wish, (shortest, longest), seed, orders))
        for n, wish in enumerate(slots)
    ]
    await orders.read()
    await asyncio.gather(*tasks)
    say(bye=True)


if __name__ == "__main__":
    asyncio.run(main(**json.loads(sys.argv[1])))
