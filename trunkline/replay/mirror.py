"""A cassette's call as its far end had it: what that heard of our side, and what it said. No I/O.

An agent that a test calls is the far end of the cassette. Its own stream is not in there, but
nearly all of it follows from ours. It heard our sound in the carrier's time, it got our keys, and
what the carrier sent us was its voice. Only its marks and clears are unknown.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from trunkline.bus.cassette_masks import mulaw
from trunkline.bus.sound import FRAME, WIRE_RATE
from trunkline.carrier_sim import tones

from .cassette import Message, Stream
from .ourselves import Action
from .sound import filled
from .stream import QUIET

#: Seconds of the longest call that is played: Twilio's own limit where nobody sets another.
LONGEST: Final = 14_400.0
_FRAME_SECONDS: Final = FRAME / WIRE_RATE
_SILENCE: Final = b"\xff"


def mirrored(streams: Sequence[Stream], ours: Sequence[Action], longest: float = LONGEST) -> Stream:
    """The far end's stream, which lasted for the whole call. ``streams``: those that our side spoke
    into, at least one. ``ours``: what our side did. ``longest``: seconds; the rest of a
    longer call is left out."""
    first, last = streams[0], streams[-1]
    we_ended = any(action.kind in ("hang up", "abandon") for action in ours)
    far = Stream(first.sid, first.opened, closed=last.closed, reason=last.reason)
    for stream in streams:
        far.said += _spoken(stream)
    end = min(_end(last), first.opened + longest)
    if not we_ended:
        end += QUIET  # the far end hangs up, and hears us until it does
        far.reason = "close"
    far.heard = [item for item in first.heard if item[1].get("event") in ("connected", "start")]
    began = far.heard[-1][0] if far.heard else first.opened
    far.heard += _frames(far, _sound(streams, first.opened, end), began)
    for action in ours:
        for frame, digits in tones.keys(action.digits).items():
            at = action.at + frame * _FRAME_SECONDS
            far.heard += ((at, _message(far, "dtmf", {"digit": digit})) for digit in digits)
    far.heard.sort(key=lambda item: item[0])
    if we_ended:
        far.heard += [item for item in last.heard if item[1].get("event") == "stop"]
    return far


def _message(stream: Stream, event: str, body: Message) -> Message:
    """A message of what an agent hears of the other side."""
    track = "inbound" if event == "media" else "inbound_track"  # as Twilio calls them
    return {"event": event, "streamSid": stream.sid, event: {"track": track} | body}


def _end(stream: Stream) -> float:
    if stream.closed is not None:
        return stream.closed
    return max((side[-1][0] for side in (stream.heard, stream.said) if side), default=stream.opened)


def _sound(streams: Iterable[Stream], began: float, end: float) -> bytes:
    """Our sound as the far end heard it, from ``began`` to ``end``: one piece after the other, and
    without what a ``clear`` or the stream's end threw away."""
    sound = bytearray(_SILENCE * round((end - began) * WIRE_RATE))
    for stream in streams:
        free = 0
        for at, message in [*stream.said, (_end(stream), {"event": "clear"})]:
            place = max(0, round((at - began) * WIRE_RATE))
            body = filled(message).get("media")
            if message.get("event") == "clear":
                sound[place:free] = _SILENCE * (min(free, len(sound)) - place)
                free = min(free, place)
            elif message.get("event") == "media" and isinstance(body, dict):
                piece = mulaw(body.get("payload"))
                free = max(free, place)
                sound[free : free + len(piece)] = piece[: max(0, len(sound) - free)]
                free += len(piece)
    return bytes(sound)


def _frames(stream: Stream, sound: bytes, began: float) -> Iterator[tuple[float, Message]]:
    """The carrier's media messages from ``began`` on. Each comes once its sound is complete."""
    chunk = 0
    for start in range(0, len(sound) - FRAME + 1, FRAME):
        at = stream.opened + (start + FRAME) / WIRE_RATE
        if at >= began:
            chunk += 1
            payload = base64.b64encode(sound[start : start + FRAME]).decode()
            times = {"chunk": str(chunk), "timestamp": str(start * 1000 // WIRE_RATE)}
            yield at, _message(stream, "media", times | {"payload": payload})


def _spoken(stream: Stream) -> list[tuple[float, Message]]:
    """The far end's voice by its timestamps. Frames that came late were not spoken late."""
    found = [(at, message) for at, message in stream.heard if message.get("event") == "media"]
    late = [at - stamp for at, message in found if (stamp := _stamp(message)) is not None]
    began = min(late, default=0.0)
    return [
        (at if (stamp := _stamp(message)) is None else began + stamp, message)
        for at, message in found
    ]


def _stamp(message: Message) -> float | None:
    """A media message's timestamp in seconds."""
    body = message.get("media")
    told = body.get("timestamp") if isinstance(body, dict) else None
    if not isinstance(told, str) or not told.isdecimal() or len(told) > 9:
        return None
    return int(told) / 1000
