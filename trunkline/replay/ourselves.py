"""Our side of a call during a replay on a stack of its own: it speaks, presses keys, interrupts and
hangs up at the times at which it did so in the cassette."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from trunkline.adapter.call import Call
from trunkline.bus.cassette_masks import mulaw
from trunkline.bus.sound import LINE_RATE, WIRE_RATE
from trunkline.carrier_sim.mulaw import decode

from .cassette import Cassette, Message
from .sound import filled, payload_of

#: Seconds after the end of what is playing within which further sound belongs to the same words.
JOINS: Final = 0.05

_DIGITS: Final = re.compile(r"<Play\b[^>]*\bdigits=\"([^\"]+)\"")


@dataclass(frozen=True)
class Action:
    """Something that our side does at the cassette's time ``at``. ``pcm``: for "say". ``digits``:
    for "press". "hang up" first lets the far end hear all that was said; "abandon" does not."""

    at: float
    kind: Literal["say", "interrupt", "press", "hang up", "abandon"]
    pcm: bytes = b""
    digits: str = ""


def actions(taped: Cassette) -> list[Action]:
    """What our side did in the cassette's call, in order of time."""
    found = [*_sound(taped), *_orders(taped)]
    return sorted(found, key=lambda action: action.at)


def _orders(taped: Cassette) -> Iterator[Action]:
    for request in taped.rest:
        if request.path.endswith("/Calls.json"):
            continue
        if request.form.get("Status"):
            yield Action(request.at, "hang up" if _waited(taped, request.at) else "abandon")
        elif pressed := _DIGITS.search(str(request.form.get("Twiml", ""))):
            yield Action(request.at, "press", digits=pressed[1].strip("w"))


def _waited(taped: Cassette, at: float) -> bool:
    """Whether our side, when it hung up at ``at``, had nothing left to say: its last message was a
    mark or a clear, or there was none."""
    said = [message for then, message in _said(taped) if then <= at]
    return not said or said[-1].get("event") != "media"


def _said(taped: Cassette) -> list[tuple[float, Message]]:
    """What our side sent in all streams, in order of time. Messages of the same time keep their
    order, so that a mark stays behind its sound."""
    said = (item for stream in taped.streams for item in stream.said)
    return sorted(said, key=lambda item: item[0])


def _sound(taped: Cassette) -> Iterator[Action]:
    run, began, plays_until = bytearray(), 0.0, 0.0
    for at, message in _said(taped):
        event = message.get("event")
        if event == "media":
            if run and at > plays_until + JOINS:
                yield Action(began, "say", _pcm(bytes(run)))
                run.clear()
            if not run:
                began = plays_until = at
            body = filled(message).get("media")
            run += mulaw(body.get("payload")) if isinstance(body, dict) else b""
            plays_until = max(plays_until, at) + payload_of(message)[0] / WIRE_RATE
        elif event == "clear":
            if run:
                # The carrier had not played all of it, and threw the rest away. A quarter of a
                # second of silence is added, so that the interrupt comes before the end here, too.
                yield Action(began, "say", _pcm(bytes(run)) + bytes(LINE_RATE // 2))
                run.clear()
            yield Action(at, "interrupt")
    if run:
        yield Action(began, "say", _pcm(bytes(run)))


def _pcm(sound: bytes) -> bytes:
    """The PCM16 at 24 kHz of mu-law sound."""
    samples = decode(sound).astype(np.float64)
    at = np.arange(len(samples) * LINE_RATE // WIRE_RATE) * WIRE_RATE / LINE_RATE
    return np.interp(at, np.arange(len(samples)), samples).round().astype("<i2").tobytes()


async def hold(
    call: Call, taped: Cassette, until: Callable[[float], Awaitable[None]], longest: float
) -> None:
    """Do our side's part in ``call`` until the call is over, or ``longest`` seconds after the last
    action. ``until`` waits for a time of the cassette."""
    sounds: asyncio.Queue[bytes] = asyncio.Queue()
    speaking = asyncio.create_task(_speak(call, sounds))
    listening = asyncio.create_task(_listen(call))
    try:
        for action in actions(taped):
            await until(action.at)
            if action.kind == "say":
                sounds.put_nowait(action.pcm)
            elif action.kind == "press":
                await call.send_dtmf(action.digits)
            elif action.kind == "interrupt":
                await call.interrupt()
            elif action.kind == "abandon":
                call.abandon()
            else:
                await call.hang_up()
        await asyncio.wait({listening}, timeout=longest)
    finally:
        for task in (speaking, listening):
            task.cancel()
        await asyncio.gather(speaking, listening, return_exceptions=True)


async def _speak(call: Call, sounds: asyncio.Queue[bytes]) -> None:
    while True:
        await call.send_audio(await sounds.get())


async def _listen(call: Call) -> None:
    """Take what is heard until the call is over."""
    while True:
        with contextlib.suppress(TimeoutError):
            if not await call.recv_audio(1.0):
                return
