"""Tones on the line: the pairs of DTMF and their detector, sines, noise.

Source: ITU-T Q.23 (frequencies), Q.24 (a receiver accepts 40 ms and more, and how much louder one
tone of a pair may be). The detector takes the frames of all calls of one tick at once, and finds
the power at the eight frequencies of all of them by one product of matrices.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from .mulaw import DECODE, FRAME_BYTES, RATE, SILENCE, encode

LOW: Final = (697, 770, 852, 941)
HIGH: Final = (1209, 1336, 1477, 1633)
KEYS: Final = ("123A", "456B", "789C", "*0#D")

#: A digit is reported when this many half-frame hops in a row agree: 160 + 2 * 80 samples = 40 ms.
_HOPS_TO_ACCEPT: Final = 3
#: Hops without the digit after which it has ended, and the same key counts again.
_HOPS_TO_END: Final = 2
#: Least mean square of a window that is looked at: about -36 dBFS.
_LEAST_POWER: Final = (0.016 * 32768) ** 2
#: Least share of the window's energy that the two tones must hold (speech fails here).
_LEAST_SHARE: Final = 0.72
#: Most that one tone of the pair may be above the other, in power (Q.24 allows 4 to 8 dB).
_MOST_TWIST: Final = 10 ** (8.5 / 10)


@functools.cache
def _kernel() -> npt.NDArray[np.float32]:
    n = np.arange(FRAME_BYTES)
    rows = [np.exp(-2j * np.pi * f * n / RATE) for f in LOW + HIGH]
    stacked = np.array([r.real for r in rows] + [r.imag for r in rows])
    return np.ascontiguousarray(stacked.T, dtype=np.float32)


class DigitTracker:
    """One call's detector state: the half frame before, and the run of hops that agreed."""

    __slots__ = ("digit", "half", "misses", "reported", "run")

    def __init__(self) -> None:
        self.half = SILENCE[:80]
        self.digit = ""
        self.run = 0
        self.misses = 0
        self.reported = False

    def hop(self, digit: str) -> str:
        """One window's verdict in, a newly heard digit (or "") out."""
        if digit and digit == self.digit:
            self.run += 1
            self.misses = 0
            if self.run >= _HOPS_TO_ACCEPT and not self.reported:
                self.reported = True
                return digit
            return ""
        self.misses += 1
        if not self.reported or self.misses >= _HOPS_TO_END:
            self.digit, self.run, self.misses, self.reported = digit, int(bool(digit)), 0, False
        return ""


def detect(batch: Sequence[tuple[DigitTracker, bytes]]) -> list[tuple[int, str]]:
    """The next frame of many calls. Returns (index into batch, digit) for digits newly heard."""
    if not batch:
        return []
    joined = b"".join([part for t, f in batch for part in (t.half, f[:80], f)])
    windows = DECODE[np.frombuffer(joined, dtype=np.uint8)].reshape(-1, FRAME_BYTES)
    samples = windows.astype(np.float32)
    energy = np.einsum("ij,ij->i", samples, samples)
    heard: list[tuple[int, str]] = []
    loud = energy > _LEAST_POWER * FRAME_BYTES
    verdicts: list[str] = [""] * len(energy)
    if loud.any():
        rows = np.flatnonzero(loud)
        product = samples[rows] @ _kernel()
        power = product[:, :8] ** 2 + product[:, 8:] ** 2
        for row, p in zip(rows.tolist(), power, strict=True):
            verdicts[row] = _verdict(p, float(energy[row]))
    for index, (tracker, frame) in enumerate(batch):
        tracker.half = frame[80:]
        for verdict in verdicts[2 * index : 2 * index + 2]:
            digit = tracker.hop(verdict)
            if digit:
                heard.append((index, digit))
    return heard


def _verdict(power: npt.NDArray[np.float32], energy: float) -> str:
    low, high = int(power[:4].argmax()), int(power[4:].argmax())
    a, b = float(power[low]), float(power[4 + high])
    if a > _MOST_TWIST * b or b > _MOST_TWIST * a:
        return ""
    # |X|² of a sine of amplitude A over N samples is (A N / 2)², its energy A² N / 2.
    if (a + b) * 2 / FRAME_BYTES < _LEAST_SHARE * energy:
        return ""
    return KEYS[low][high]


def dtmf(digits: str, tone_ms: int = 100, gap_ms: int = 100) -> bytes:
    """μ-law audio of digits; ``w`` waits half a second, ``W`` a second."""
    out = bytearray()
    for digit in digits:
        if digit in "wW":
            out += b"\xff" * (RATE // 2 if digit == "w" else RATE)
            continue
        out += _pair(digit.upper(), tone_ms) + b"\xff" * (RATE * gap_ms // 1000)
    return bytes(out)


def keys(digits: str) -> dict[int, list[str]]:
    """The digits whose tone ends in a frame of ``dtmf(digits)``, by the number of that frame."""
    at = 0
    ends: dict[int, list[str]] = {}
    for digit in digits:
        if digit in "wW":
            at += RATE // 2 if digit == "w" else RATE
            continue
        ends.setdefault((at + RATE // 10 - 1) // FRAME_BYTES, []).append(digit.upper())
        at += RATE // 5
    return ends


@functools.cache
def _pair(digit: str, ms: int) -> bytes:
    row = next((r for r, keys in enumerate(KEYS) if digit in keys), None)
    if row is None or len(digit) != 1:
        raise ValueError(f"{digit!r} is no DTMF digit: use 0-9, *, #, A-D, w or W")
    t = np.arange(RATE * ms // 1000) / RATE
    f = (LOW[row], HIGH[KEYS[row].index(digit)])
    wave = sum(8000 * np.sin(2 * np.pi * hz * t) for hz in f)
    return encode(np.asarray(np.rint(wave), dtype=np.int16))


@functools.cache
def sine(hz: float, ms: int, amplitude: int = 8000) -> bytes:
    """μ-law audio of one tone."""
    t = np.arange(RATE * ms // 1000) / RATE
    return encode(np.asarray(np.rint(amplitude * np.sin(2 * np.pi * hz * t)), dtype=np.int16))


def noise(level_dbfs: float, seconds: float, seed: int) -> bytes:
    """μ-law audio of white noise at an RMS level (comfort noise lies around -60 to -45 dBFS)."""
    rng = np.random.default_rng(seed)
    wave = rng.standard_normal(int(RATE * seconds)) * 32768 * 10 ** (level_dbfs / 20)
    return encode(np.asarray(np.clip(np.rint(wave), -32768, 32767), dtype=np.int16))
