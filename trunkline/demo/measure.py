"""The demo's measurements of a call, from the carrier's record and the adapter's timestamps.

The carrier records both directions at the far end, on one clock. The adapter's side notes when it
handed sound over. Cross-correlation finds that sound in the record, so every delay is measured on
the sound itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from trunkline.bus import wav
from trunkline.bus.sound import FRAME, LINE_RATE, WIRE_RATE
from trunkline.carrier_sim.mulaw import decode, encode

Floats = npt.NDArray[np.float64]
Speaker = Literal["test", "agent"]

#: Seconds of one frame of the phone line.
FRAME_SECONDS: Final = FRAME / WIRE_RATE
#: Seconds: frames that are closer together than WITHIN_LEAD belong to the lead with which an
#: utterance begins, and messages that are further apart than UTTERANCE_GAP to two utterances.
WITHIN_LEAD: Final = 0.005
UTTERANCE_GAP: Final = 0.4
#: Seconds before and after its own time in which a turn's sound is looked for. The same words may
#: come again later in the call.
_EARLIER: Final = 1.5
_LATER: Final = 3.0


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
    #: seconds that the sound took through the line
    latency: float
    #: correlation of what was sent and what arrived
    likeness: float
    #: what an ideal G.711 line would have delivered, PCM16 at 8 kHz
    ideal: wav.Samples
    words: str = ""
    errors: int = 0
    #: how many words the same recogniser gets wrong in :attr:`ideal`
    errors_through_ideal: int = 0
    total_words: int = 0


@dataclass
class CallRecord:
    """All that is known of one call of the demo."""

    sid: str
    #: what the far end heard and said: PCM16 at 8 kHz, from the monotonic time ``started`` on
    played: wav.Samples
    said: wav.Samples
    started: float
    setup_seconds: float
    metrics: dict[str, Any]
    #: of each media message at the carrier: (monotonic time, samples, samples buffered before it)
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
        """How much too late the last frame of an utterance came, in the worst utterance: its length
        times the deviation of its slope from real time."""
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
        """(seconds since ``started``, ms since the frame before) of the frames within utterances.
        The frames of one message count as 20 ms apart.

        Two kinds of gaps are no jitter, and are left out. The lead is sent at once. An utterance's
        last message is held back by playout until the carrier's buffer is about to run dry, in case
        more speech joins it. If that were too late, it would show as an underrun.
        """
        gaps = []
        for before, now, after in zip(
            self.arrivals, self.arrivals[1:], [*self.arrivals[2:], None], strict=False
        ):
            several = max(0.0, before[1] - FRAME) / WIRE_RATE
            gap, depth = now[0] - before[0] - several, now[2]
            last = after is None or after[0] - now[0] > UTTERANCE_GAP
            if depth and not last and WITHIN_LEAD < gap < UTTERANCE_GAP:
                gaps.append((now[0] - self.started, gap * 1000))
        return gaps

    def gap_ms(self, share: float) -> float:
        """The gap in ms that ``share`` (0 to 1) of all gaps do not exceed."""
        ordered = sorted(gap for _, gap in self.gaps_ms)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

    def latency_ms(self, speaker: Speaker) -> float | None:
        """The median time through the line of what ``speaker`` says. None where they did not
        speak."""
        found = [turn.latency for turn in self.turns if turn.speaker == speaker]
        return median(found) * 1000 if found else None


def align(needle: Floats, haystack: Floats) -> tuple[int, float]:
    """The sample of ``haystack`` at which ``needle`` begins (it may be negative), and how well they
    correlate there, up to 1."""
    size = 1 << (len(needle) + len(haystack)).bit_length()
    spectrum = np.fft.rfft(haystack, size) * np.conj(np.fft.rfft(needle, size))
    correlation = np.fft.irfft(spectrum, size)
    best = int(np.argmax(correlation))
    # The correlation is circular: a needle that begins before the haystack is found at its end.
    offset = best - size if best >= len(haystack) else best
    low, high = max(0, offset), min(len(haystack), offset + len(needle))
    if high <= low:
        return offset, 0.0
    a, b = needle[low - offset : high - offset], haystack[low:high]
    norm = float(np.sqrt(np.sum(a * a) * np.sum(b * b)))
    return offset, float(np.sum(a * b)) / norm if norm else 0.0


def _wire(pcm: bytes) -> Floats:
    return wav.resample(wav.from_bytes(pcm), LINE_RATE, WIRE_RATE).astype(np.float64)


def place_turn(handed: Handed, record: CallRecord) -> Turn:
    """Find a turn's sound in the carrier's record, and measure how long it took through the line.

    From the test to the far end, that is the time from handing the first sample over until it was
    heard. From the far end to the test, it is the time from the carrier's sending of a frame until
    its sound arrived; the median of all pieces. The carrier sends a frame at the beginning of the
    frame's 20 ms, so that is when the last sample of the frame left.
    """
    needle = _wire(handed.pcm)
    far = record.played if handed.speaker == "test" else record.said
    first, last = handed.pieces[0][0] - record.started, handed.pieces[-1][0] - record.started
    low = max(0, round((first - _EARLIER) * WIRE_RATE))
    high = round((last + _LATER) * WIRE_RATE) + len(needle)
    found, likeness = align(needle, far[low:high].astype(np.float64))
    offset = low + found
    start = offset / WIRE_RATE
    if handed.speaker == "test":
        latency = record.started + start - handed.pieces[0][0]
        pcm, rate = far[max(0, offset) : offset + len(needle)], WIRE_RATE
        ideal = decode(encode(needle.astype(np.int16)))
    else:
        delays, position = [], 0
        for at, piece in handed.pieces:
            position += len(piece) // 2
            end = offset + position * WIRE_RATE // LINE_RATE
            sent = record.started + (end - 1) // FRAME * FRAME_SECONDS
            delays.append(at - sent)
        latency = median(delays)
        pcm, rate = wav.from_bytes(handed.pcm), LINE_RATE
        ideal = far[max(0, offset) : offset + len(needle)]  # it is mu-law at 8 kHz already
    return Turn(
        handed.speaker,
        handed.recording,
        pcm,
        rate,
        start,
        start + len(needle) / WIRE_RATE,
        latency,
        likeness,
        ideal,
    )
