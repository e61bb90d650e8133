"""What arrived at the carrier: jitter, holes, drift and loss. No I/O but reading a report.

A report (load_generator.py) holds for every stream when each message arrived, how many samples it
held, and its text. Of it:

- a message is *due* as many milliseconds after the stream's first one as there is audio before it,
  so one that holds several frames is due when the first of them is;
- *jitter* is ``|arrival - due|`` once each call is centred on its median, all calls pooled, the
  first 200 ms (10 frames: the lead is filled there) left out;
- an *underrun* is a message that arrives when all before it has been played. Playback begins with
  the first message, without any delay;
- *drift* is how much later the end of a call came than its beginning, beyond the audio between
  them, by the straight line through its tenths.
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks import chaos_code

RATE: Final = 8000
FRAME: Final = 160
#: Samples at a call's beginning that count for no jitter.
LEFT_OUT: Final = 10 * FRAME
#: Parts of a call of which each gives a point of the line by which its drift is told.
_TENTHS: Final = 10

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Arrivals:
    """One stream's: ``times`` in ms and ``sizes`` in samples of each message, and all its audio."""

    times: Floats
    sizes: Floats
    audio: bytes = b""
    call_sid: str = ""
    #: in ms too: when each frame was sent to us since the stream began, and when clears arrived
    sent_at: Floats = field(default_factory=lambda: np.zeros(0))
    clears: Floats = field(default_factory=lambda: np.zeros(0))

    @property
    def samples(self) -> float:
        return float(self.sizes.sum())

    @property
    def lateness(self) -> Floats:
        """Arrival minus due, in ms; 0 for the first message."""
        due = (self.sizes.cumsum() - self.sizes) * 1000 / RATE
        late = self.times - due
        found: Floats = late - late[:1].sum()
        return found

    @property
    def settled(self) -> Floats:
        """The lateness of what is not left out."""
        found: Floats = self.lateness[self.sizes.cumsum() - self.sizes >= LEFT_OUT]
        return found


class _Media(msgspec.Struct):
    payload: str


class _Message(msgspec.Struct):
    event: str
    media: _Media


def read(path: Path) -> list[Arrivals]:
    """All streams of a report on which something arrived. Where no texts were kept, there is no
    audio."""
    decode = msgspec.json.Decoder(_Message).decode
    found = []
    for sid, *stamps, counts, texts in msgspec.msgpack.decode(path.read_bytes()):
        times, sent_at, clears = (np.frombuffer(each, np.int64) / 1e6 for each in stamps)
        sizes = np.frombuffer(counts, np.int64).astype(np.float64)
        audio = b"".join(binascii.a2b_base64(decode(text).media.payload) for text in texts)
        if len(times):
            found.append(Arrivals(times, sizes, audio, sid, sent_at, clears))
    return found


def jitter(calls: Sequence[Arrivals]) -> Floats:
    """All calls' ``|arrival - due|`` in ms, each call centred on its median."""
    pooled = [np.abs(call.settled - np.median(call.settled)) for call in calls if len(call.settled)]
    return np.concatenate(pooled) if pooled else np.zeros(0)


def underruns(call: Arrivals) -> tuple[int, float]:
    """How often playback ran dry, and for how many ms all together."""
    latest = np.maximum.accumulate(call.lateness)
    grown = np.diff(latest)
    return int(np.count_nonzero(grown > 0)), float(grown.sum())


def drift(call: Arrivals) -> float:
    """In ms, of the messages after what is left out. Of each tenth only its earliest messages count
    (the fifth percentile), because a clock that drifts moves them too, and a busy machine does
    not. The straight line is the least squares' one: both ends alone would tell how much the
    machine had to do in them."""
    settled = call.settled
    tenth = len(settled) // _TENTHS
    if not tenth:
        return 0.0
    of_tenths = settled[: _TENTHS * tenth].reshape(_TENTHS, tenth)
    slope, _ = np.polyfit(np.arange(_TENTHS), np.percentile(of_tenths, 5, axis=1), 1)
    return float(slope) * _TENTHS


def wrong_frames(call: Arrivals, wanted: int | None) -> tuple[int, int]:
    """Of ``wanted`` numbered frames: how many did not come, and how many came twice or in another
    order. None: nobody can tell which was the first and which the last."""
    heard = chaos_code.read_ulaw(call.audio)
    turns = sum(after < before for before, after in pairwise(heard.numbers))
    lost = heard.lost if wanted is None else max(0, wanted - len(set(heard.numbers)))
    return lost, max(turns, heard.doubled)
