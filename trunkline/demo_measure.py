"""What the demo measures of a call, from the carrier's record and the adapter's timestamps.

The carrier keeps what the far end heard and said, on one clock; the adapter's side keeps when it
handed sound over. Sound is found again in sound by cross-correlation, so every delay is measured on
the sound itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from trunkline import wav

Floats = npt.NDArray[np.float64]
Speaker = Literal["test", "agent"]

#: Sample rate of the phone line.
WIRE_RATE: Final = 8_000


@dataclass
class Handed:
    """PCM at 24 kHz that was handed over in one turn: (monotonic time, bytes) in order."""

    speaker: Speaker
    recording: str
    pieces: list[tuple[float, bytes]] = field(default_factory=list)

    @property
    def pcm(self) -> bytes:
        return b"".join(pcm for _, pcm in self.pieces)


@dataclass
class Turn:
    """One turn of a call, placed on the carrier's clock."""

    speaker: Speaker
    recording: str
    pcm: wav.Samples
    rate: int
    #: seconds since the call's sound began at the carrier
    start: float
    end: float
    #: seconds through the line, on the sound itself
    latency: float
    #: correlation of what was sent and what arrived
    likeness: float
    words: str = ""
    errors: int = 0
    errors_in_recording: int = 0
    total_words: int = 0


@dataclass
class CallRecord:
    """All that is known of one call of the demo."""

    sid: str
    #: what the far end heard and said, PCM16 at 8 kHz from ``started`` (monotonic) on
    played: wav.Samples
    said: wav.Samples
    started: float
    setup_seconds: float
    metrics: dict[str, Any]
    #: (time, samples, samples buffered before) of each media message at the carrier
    arrivals: list[list[float]]
    frames_lost: int
    turns: list[Turn] = field(default_factory=list)
    #: (seconds since ``started``, what happened)
    events: list[tuple[float, str]] = field(default_factory=list)
    success: bool = True

    @property
    def seconds(self) -> float:
        return max(len(self.played), len(self.said)) / WIRE_RATE

    @property
    def drift_ms(self) -> float:
        """How much later than it should be the last frame of an utterance came, the worst of all:
        its length times how far its slope is from real time."""
        return max(
            (
                (u["slope"] - 1.0) * u["audio_ms"]
                for u in self.metrics["utterances"]
                if u["slope"] is not None
            ),
            key=abs,
            default=0.0,
        )

    @property
    def gaps_ms(self) -> list[tuple[float, float]]:
        """(seconds since ``started``, ms since the message before) within utterances."""
        spans = [(u["started"], u["ended"]) for u in self.metrics["utterances"]]
        return [
            (now - self.started, (now - before) * 1000)
            for (before, *_), (now, *_) in pairwise(self.arrivals)
            if any(start - 0.5 <= before and now <= end for start, end in spans)
        ]

    def latency_ms(self, speaker: Speaker) -> float | None:
        """Median through the line for what ``speaker`` says, None where nobody spoke."""
        found = [turn.latency for turn in self.turns if turn.speaker == speaker]
        return median(found) * 1000 if found else None


def align(needle: Floats, haystack: Floats) -> tuple[int, float]:
    """Where ``needle`` is in ``haystack`` (may be negative), and their correlation there."""
    size = 1 << (len(needle) + len(haystack)).bit_length()
    spectrum = np.fft.rfft(haystack, size) * np.conj(np.fft.rfft(needle, size))
    correlation = np.fft.irfft(spectrum, size)
    best = int(np.argmax(correlation))
    offset = best - size if best > size // 2 else best
    low, high = max(0, offset), min(len(haystack), offset + len(needle))
    if high <= low:
        return offset, 0.0
    a, b = needle[low - offset : high - offset], haystack[low:high]
    norm = float(np.sqrt(np.sum(a * a) * np.sum(b * b)))
    return offset, float(np.sum(a * b)) / norm if norm else 0.0


def _wire(pcm: bytes) -> Floats:
    return wav.resample(wav.from_bytes(pcm), wav.LINE_RATE, WIRE_RATE).astype(np.float64)


def place_turn(handed: Handed, record: CallRecord) -> Turn:
    """Find a turn's sound in the carrier's record, and how long it took through the line.

    Test to far end: from handing the first sample over to the moment at which it was heard. Far end
    to test: from the moment at which a sample was said to its arrival, median of all pieces.
    """
    needle = _wire(handed.pcm)
    far = record.played if handed.speaker == "test" else record.said
    offset, likeness = align(needle, far.astype(np.float64))
    start = offset / WIRE_RATE
    if handed.speaker == "test":
        latency = record.started + start - handed.pieces[0][0]
        low = max(0, offset)
        pcm, rate = far[low : offset + len(needle)], WIRE_RATE
    else:
        delays, position = [], 0
        for at, piece in handed.pieces:
            position += len(piece) // 2
            delays.append(at - (record.started + start + position / wav.LINE_RATE))
        latency = median(delays)
        pcm, rate = wav.from_bytes(handed.pcm), wav.LINE_RATE
    return Turn(
        handed.speaker,
        handed.recording,
        pcm,
        rate,
        start,
        start + len(needle) / WIRE_RATE,
        latency,
        likeness,
    )
