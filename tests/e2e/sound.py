"""Sound compared with sound: aligned, band-limited, frame by frame.

All of it at 24 kHz in floats of PCM16's size. A frame that is missing or comes twice shifts all
that follows, so the frames behind it do not match any more in their places.
"""

from __future__ import annotations

import wave
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import soxr

from trunkline.carrier_sim import mulaw
from trunkline.carrier_sim.wav import SPEECH_DIR

Floats = npt.NDArray[np.float64]

RATE: Final = 24_000
WIRE: Final = 8_000
FRAME: Final = RATE // 50
#: The band of a telephone line, in Hz.
BAND: Final = (300.0, 3_300.0)
#: Frames quieter than this (RMS) are not looked at one by one: rounding is as loud.
QUIET: Final = 60.0
#: A frame in its place is at least this much louder than what differs; elsewhere it is below 0 dB.
CLEAR_DB: Final = 6.0
#: The largest sample that mu-law knows.
LOUDEST: Final = 32_124
#: How finely delays are found, in parts of a sample.
_FINE: Final = 8

RECORDINGS: Final = ("austen-0870", "austen-0880", "austen-0890", "austen-0920", "austen-0930")


@lru_cache
def recording(name: str, rate: int = RATE) -> npt.NDArray[np.int16]:
    """A shipped recording as PCM16 at ``rate``."""
    with wave.open(str(SPEECH_DIR / f"{name}.wav")) as file:
        found = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return to_pcm16(resample(found, file.getframerate(), rate))


def speech(seconds: float, first: int = 0) -> bytes:
    """So much of the recordings, one after the other from the ``first`` on, as PCM16 at 24 kHz."""
    names = RECORDINGS[first:] + RECORDINGS[:first]
    parts = [recording(name) for name in names]
    total = np.concatenate(parts * (1 + int(seconds * RATE) // sum(len(p) for p in parts)))
    return total[: int(seconds * RATE)].astype("<i2").tobytes()


def silence(seconds: float) -> Floats:
    return np.zeros(int(seconds * RATE))


def resample(samples: npt.NDArray[Any], found: int, wanted: int) -> Floats:
    """At another rate, by a resampler that is not ours."""
    return np.asarray(soxr.resample(samples.astype(np.float64), found, wanted, "VHQ"))


def to_pcm16(samples: Floats) -> npt.NDArray[np.int16]:
    return np.clip(np.rint(samples), -32768, 32767).astype(np.int16)


def from_pcm(pcm: bytes) -> Floats:
    """PCM16 at 24 kHz as floats."""
    return np.frombuffer(pcm, "<i2").astype(np.float64)


def from_wire(ulaw: bytes) -> Floats:
    """mu-law at 8 kHz as floats at 24 kHz."""
    return resample(mulaw.decode(ulaw), WIRE, RATE)


def band_limited(samples: Floats) -> Floats:
    """The band of a telephone line alone, without a delay."""
    from scipy import signal  # here, because it takes a second that most workers of pytest save

    filter_ = signal.butter(6, BAND, "bandpass", fs=RATE, output="sos")
    return np.asarray(signal.sosfiltfilt(filter_, samples))


def delay(needle: Floats, haystack: Floats, fine: int = _FINE) -> float:
    """Where ``needle`` begins in ``haystack``, in samples (it may be negative)."""
    size = 1 << (len(needle) + len(haystack)).bit_length()
    spectrum = np.fft.rfft(haystack, size) * np.conj(np.fft.rfft(needle, size))
    best = int(np.argmax(np.fft.irfft(spectrum, size * fine)))
    if best >= len(haystack) * fine:
        best -= size * fine
    return best / fine


def moved(samples: Floats, by: float) -> Floats:
    """``samples`` earlier by a part of a sample (0 to 1)."""
    if by == 0.0:
        return samples
    size = len(samples) + 256
    turn = np.exp(2j * np.pi * np.fft.rfftfreq(size) * by)
    return np.fft.irfft(np.fft.rfft(samples, size) * turn, size)[: len(samples)]


@dataclass
class Likeness:
    """How much the sound that was heard is like the sound that was sent."""

    #: samples (24 kHz) that were heard before the sent sound begins
    delay: float
    #: samples of the sent sound that were not heard, at its end and its beginning
    cut: int
    correlation: float
    #: heard / sent
    gain: float
    #: the loudest sample heard, and sent
    peaks: tuple[float, float]
    frames: int = 0
    #: frames that are not in their place
    faults: list[str] = field(default_factory=list)

    def check(self, cut: int = 0) -> Likeness:
        """AssertionError unless all of it was heard as it was sent, but for ``cut`` samples."""
        assert self.cut <= cut, self
        shown = "\n".join(self.faults[:20])
        assert not self.faults, f"{len(self.faults)} frames are not in their place:\n{shown}"
        assert self.frames > 0, self
        assert self.correlation >= 0.98, self
        assert 0.9 <= self.gain <= 1.1, self
        heard, sent = self.peaks
        assert heard < LOUDEST and heard <= 1.2 * sent, self
        return self


def compare(sent: Floats, heard: Floats, *, alone: bool = True) -> Likeness:
    """Find ``sent`` in ``heard`` and compare the two, frame by frame.

    ``alone``: there is silence around it in what was heard, or nothing; otherwise its first and
    last frame cannot be told from what stands beside them.
    """
    margin = silence(0.1)
    a = band_limited(np.concatenate([margin, sent, margin]))[len(margin) : -len(margin)]
    b = band_limited(np.concatenate([margin, heard, margin]))[len(margin) : -len(margin)]
    found = delay(a, b)
    begin = int(np.floor(found))
    b = moved(b, found - begin)
    low, high = max(0, -begin), min(len(a), len(b) - begin)
    cut = len(a) - max(0, high - low)
    if high - low < FRAME:
        return Likeness(found, cut, 0.0, 0.0, (0.0, 0.0))
    a, b = a[low:high], b[low + begin : high + begin]
    power = float(np.dot(a, a))
    gain = float(np.dot(a, b)) / power
    correlation = float(np.dot(a, b)) / float(np.sqrt(power * np.dot(b, b)))
    span = heard[low + begin : high + begin]
    peaks = float(np.max(np.abs(span))), float(np.max(np.abs(sent)))
    likeness = Likeness(found, cut, correlation, gain, peaks)
    count = len(a) // FRAME
    left = a[: count * FRAME].reshape(count, FRAME)
    right = b[: count * FRAME].reshape(count, FRAME) / (gain or 1.0)
    loud = np.sqrt(np.mean(left**2, axis=1)) > QUIET
    if not alone:
        loud[[0, -1]] = False
    # A frame off by one whole frame is as good as unlike: below 0 dB.
    with np.errstate(divide="ignore"):
        db = 10 * np.log10(np.sum(left**2, axis=1) / np.sum((right - left) ** 2, axis=1))
    likeness.frames = int(np.sum(loud))
    for n in np.flatnonzero(loud & (db < CLEAR_DB)):
        at = slice(max(0, (n - 2) * FRAME), (n + 3) * FRAME)
        around = b[max(0, at.start - 3 * FRAME) : at.stop + 3 * FRAME]
        lag = delay(a[at], around, 1) - min(at.start, 3 * FRAME)
        likeness.faults.append(f"frame {n} ({n / 50:.2f} s): {db[n]:.1f} dB, lies {lag:+.0f}")
    return likeness


def g711_line(samples: npt.NDArray[np.int16], rate: int) -> Floats:
    """The sound behind an ideal telephone line: at 8 kHz, as mu-law, and back."""
    wire = to_pcm16(resample(samples, rate, WIRE))
    return resample(mulaw.decode(mulaw.encode(wire)), WIRE, rate)[: len(samples)]
