"""When, how long and how loud somebody spoke in a stream, by its media messages with or without
their sound.

Sound is placed at the time at which the far end heard it: the carrier plays messages one after the
other, however early they come, and a ``clear`` throws away what is not played yet.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np

from trunkline.bus.cassette_masks import SILENT, levels, mulaw
from trunkline.bus.sound import FRAME, WIRE_RATE
from trunkline.carrier_sim.mulaw import encode

from .cassette import Message

#: The level in dBFS from which on a frame is speech.
SPEECH: Final = -45
#: Seconds: a pause of up to GAP does not end speech, and what is shorter than SHORTEST is a click.
GAP: Final = 0.3
SHORTEST: Final = 0.06
_FRAME_SECONDS: Final = FRAME / WIRE_RATE
#: The tone that stands for sound that was left out.
_TONE_HZ: Final = 400


@dataclass(frozen=True)
class Segment:
    """Somebody speaks, from ``start`` to ``end`` (seconds), at ``level`` (dBFS)."""

    start: float
    end: float
    level: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


def payload_of(message: Message) -> tuple[int, list[int]]:
    """The length in samples of a media message's sound, and the level of each frame in dBFS."""
    body = message.get("media")
    body = body if isinstance(body, dict) else {}
    if "payload" in body:
        sound = mulaw(body["payload"])
        return len(sound), levels(sound)
    told = body.get("levels")
    size = body.get("bytes")
    kept = [each for each in told if isinstance(each, int)] if isinstance(told, list) else []
    kept = [min(0, max(SILENT, each)) for each in kept]
    return min(len(kept) * FRAME, size) if isinstance(size, int) and size >= 0 else 0, kept


def spoken(messages: Iterable[tuple[float, Message]], began: float) -> list[Segment]:
    """The segments of speech in messages to the carrier, in seconds since ``began``."""
    frames: list[tuple[float, int]] = []
    plays_until = began
    for at, message in messages:
        event = message.get("event")
        if event == "clear":
            frames = [frame for frame in frames if frame[0] < at]
            plays_until = min(plays_until, at)
        elif event == "media":
            size, loud = payload_of(message)
            begin = max(at, plays_until)
            frames += [(begin + n * _FRAME_SECONDS, each) for n, each in enumerate(loud)]
            plays_until = begin + size / WIRE_RATE
    return _segments(frames, began)


def _segments(frames: list[tuple[float, int]], began: float) -> list[Segment]:
    found: list[Segment] = []
    run: list[tuple[float, int]] = []
    for at, level in [frame for frame in frames if frame[1] >= SPEECH] + [(math.inf, 0)]:
        if run and at - run[-1][0] > GAP + _FRAME_SECONDS:
            start, end = run[0][0] - began, run[-1][0] + _FRAME_SECONDS - began
            if end - start >= SHORTEST:
                power = sum(10 ** (each / 10) for _, each in run) / len(run)
                found.append(Segment(start, end, 10 * math.log10(power)))
            run = []
        run.append((at, level))
    return found


def filled(message: Message) -> Message:
    """A media message with sound: its own, or where that was left out, a tone of the same
    level."""
    body: Any = message.get("media")
    if not isinstance(body, dict) or "payload" in body:
        return message
    size, loud = payload_of(message)
    sound = b"".join(map(_tone, loud))[:size].ljust(size, b"\xff")
    kept = {name: value for name, value in body.items() if name not in ("bytes", "levels")}
    return message | {"media": kept | {"payload": base64.b64encode(sound).decode()}}


@cache
def _tone(level: int) -> bytes:
    """A frame of the tone at this level. It has whole periods, so that frames join without a
    click."""
    if level <= SILENT:
        return b"\xff" * FRAME
    peak = min(32_000.0, math.sqrt(2) * 32_768 * 10 ** (level / 20))
    step = 2 * math.pi * _TONE_HZ / WIRE_RATE
    tone = [round(peak * math.sin(step * n)) for n in range(FRAME)]
    return encode(np.array(tone, np.int16))
