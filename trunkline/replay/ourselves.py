"""Our side of a call that is played again on a stack of its own: what was said, pressed and thrown
away then is said, pressed and thrown away now, at its time."""

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

#: Sound that follows within this (seconds) after what was sent before it has been played belongs to
#: the same words.
JOINS: Final = 0.05

_DIGITS: Final = re.compile(r"<Play\b[^>]*\bdigits=\"([^\"]+)\"")


@dataclass(frozen=True)
class Action:
    """``pcm``: for say. ``digits``: for press. ``hang up`` lets the far end hear all that was said
    first, and ``abandon`` does not."""

    at: float
    kind: Literal["say", "interrupt", "press", "hang up", "abandon"]
    pcm: bytes = b""
    digits: str = ""


def actions(taped: Cassette) -> list[Action]:
    """What our side did in a call, by its time."""
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
    """Our side had nothing to say, or had sent a mark behind it, when it hung up at ``at``."""
    said = [message for then, message in _said(taped) if then <= at]
    return not said or said[-1].get("event") != "media"


def _said(taped: Cassette) -> list[tuple[float, Message]]:
    """What our side said in all streams, by its time; a mark stays behind sound of the same."""
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
                # All of it was handed over, and what the carrier had is thrown away.
                yield Action(began, "say", _pcm(bytes(run)) + bytes(LINE_RATE // 2))
                run.clear()
            yield Action(at, "interrupt")
    if run:
        yield Action(began, "say", _pcm(bytes(run)))


def _pcm(sound: bytes) -> bytes:
    """mu-law as the PCM16 that a line speaks."""
    samples = decode(sound).astype(np.float64)
    at = np.arange(len(samples) * LINE_RATE // WIRE_RATE) * WIRE_RATE / LINE_RATE
    return np.interp(at, np.arange(len(samples)), samples).round().astype("<i2").tobytes()


async def hold(
    call: Call, taped: Cassette, until: Callable[[float], Awaitable[None]], longest: float
) -> None:
    """Do our side's part in ``call`` until it is over, or ``longest`` seconds after the last of it.
    ``until`` waits for a time of the cassette."""
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
    """Until the call is over."""
    while True:
        with contextlib.suppress(TimeoutError):
            if not await call.recv_audio(1.0):
                return
