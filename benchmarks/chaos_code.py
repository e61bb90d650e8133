"""Sound that says where it is: each 20 ms frame carries its own number, as three tones.

A frame is 160 samples at 8 kHz, so tones on a grid of 50 Hz are orthogonal in it. Three bands of 16
tones give :data:`CODES` numbers, after which they begin again (82 s). Numbers are spread, so that
two frames in a row share no tone as a rule, and a window that straddles two frames is told from one
that does not. Resampling and mu-law leave far more than is needed to read it.

What was heard is read back by :func:`read`: the frames that are there, in order, wherever they lie;
:class:`Heard` says which came twice and which are missing. No I/O.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from trunkline.carrier_sim import mulaw

#: Numbers before they begin again.
CODES: Final = 16**3
#: Samples of a frame on the wire (8 kHz), and at the client (24 kHz).
FRAME: Final = 160
FRAME_24K: Final = 480
_SPREAD: Final = 1231  # odd, so that every number has one code
_BANDS: Final = (350, 1200, 2050)  # Hz of the first tone of each band
_STEP: Final = 50
_AMPLITUDE: Final = 5000.0
_FADE_SECONDS: Final = 0.001
#: A frame is read where its three tones have this share of the window's energy.
_CLEAR: Final = 0.85
#: … or this, where it is the one that follows in its place: a seam took the edge of it.
_SCRATCHED: Final = 0.6
#: Quieter windows (RMS) are no sound of ours.
_QUIET: Final = 500.0
#: How finely the beginning of a frame is looked for, in samples at 8 kHz.
_FINE: Final = 4

Samples = npt.NDArray[np.int16]
Floats = npt.NDArray[np.float64]


@functools.cache
def _frames(rate: int) -> Samples:
    """All frames, CODES by samples."""
    size = rate // 50
    time = np.arange(size) / rate
    edge = np.minimum(time, time[::-1]) / _FADE_SECONDS
    shape = np.sin(np.clip(edge, 0.0, 1.0) * np.pi / 2) ** 2
    tones = np.array(
        [[np.sin(2 * np.pi * (first + _STEP * n) * time) for n in range(16)] for first in _BANDS]
    )
    codes = np.arange(CODES) * _SPREAD % CODES
    digits = (codes >> 8, codes >> 4 & 15, codes & 15)
    total = sum(tones[band][digit] for band, digit in enumerate(digits))
    made: npt.NDArray[np.int16] = np.rint(total * shape * _AMPLITUDE).astype(np.int16)
    return made


def pcm(first: int, count: int) -> bytes:
    """``count`` frames from number ``first`` on, as PCM16 at 24 kHz."""
    return _frames(24_000)[np.arange(first, first + count) % CODES].astype("<i2").tobytes()


def samples(first: int, count: int) -> Samples:
    """The same at 8 kHz, for a recording that the far end plays."""
    return _frames(8_000)[np.arange(first, first + count) % CODES].reshape(-1)


@functools.cache
def _analysis() -> Floats:
    time = np.arange(FRAME) / 8_000
    frequencies = [first + _STEP * n for first in _BANDS for n in range(16)]
    angles = 2 * np.pi * np.outer(time, frequencies)
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


_NUMBER_OF_CODE: Final = np.empty(CODES, np.int64)
_NUMBER_OF_CODE[np.arange(CODES) * _SPREAD % CODES] = np.arange(CODES)


def _look(windows: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
    """The number in each window of 160 samples, and how clearly (0 to 1; 0 where it is quiet)."""
    found = windows @ _analysis()
    power = found[:, :48] ** 2 + found[:, 48:] ** 2
    bands = power.reshape(-1, 3, 16)
    digits = bands.argmax(axis=2)
    total = np.einsum("ij,ij->i", windows, windows)
    # A tone of amplitude a has energy a²·160/2 and power (a·160/2)².
    share = bands.max(axis=2).sum(axis=1) * (2 / FRAME) / np.maximum(total, 1.0)
    share[total < _QUIET**2 * FRAME] = 0.0
    codes = digits[:, 0] << 8 | digits[:, 1] << 4 | digits[:, 2]
    return _NUMBER_OF_CODE[codes], share


@dataclass
class Heard:
    """The frames of a sound: ``numbers[i]`` (counted on over CODES) begins at ``places[i]``."""

    numbers: list[int] = field(default_factory=list)
    #: samples at 8 kHz from the beginning of the sound
    places: list[int] = field(default_factory=list)

    @property
    def doubled(self) -> int:
        """Frames that came again."""
        return len(self.numbers) - len(set(self.numbers))

    @property
    def missing(self) -> list[tuple[int, int]]:
        """(first, count) of the frames that are not there between the first and the last one."""
        there = sorted(set(self.numbers))
        return [(a + 1, b - a - 1) for a, b in pairwise(there) if b > a + 1]

    @property
    def lost(self) -> int:
        """Frames that are missing, all together."""
        return sum(count for _, count in self.missing)

    def holes(self) -> list[tuple[int, int]]:
        """(place, samples) of the silence between two frames that follow one another here."""
        return [(a + FRAME, b - a - FRAME) for a, b in pairwise(self.places) if b > a + FRAME]


def read(sound: Samples) -> Heard:
    """All frames of ours in ``sound`` (8 kHz)."""
    heard = Heard()
    data = sound.astype(np.float64)
    at = 0
    while at + FRAME <= len(data):
        whole = (len(data) - at) // FRAME
        # As far as it goes on the present grid.
        block = min(whole, 4096)
        numbers, share = _look(data[at : at + block * FRAME].reshape(block, FRAME))
        bad = np.flatnonzero(share < _CLEAR)
        good = block if not len(bad) else int(bad[0])
        for n in range(good):
            _take(heard, int(numbers[n]), at + n * FRAME)
        at += good * FRAME
        if good == block:
            continue
        follows = bool(heard.numbers) and heard.places[-1] + FRAME == at
        if (
            follows
            and share[good] >= _SCRATCHED
            and numbers[good] == (heard.numbers[-1] + 1) % CODES
        ):
            _take(heard, int(numbers[good]), at)
            at += FRAME
        else:
            at = _align(data, at)
    return heard


def _take(heard: Heard, code: int, place: int) -> None:
    """Count on from the frame before; up to a quarter of the numbers may lie behind it."""
    if heard.numbers:
        following = heard.numbers[-1] + 1
        ahead = (code - following) % CODES
        if ahead >= CODES * 3 // 4:
            ahead -= CODES
        code = following + ahead
    heard.numbers.append(code)
    heard.places.append(place)


def _align(data: Floats, at: int) -> int:
    """Where the next frame begins, from ``at`` on; the end of the sound when there is none."""
    end = len(data)
    while at + FRAME <= end:
        window = data[at : at + FRAME]
        if float(np.dot(window, window)) < _QUIET**2 * FRAME / 8:
            at += FRAME
            continue
        starts = np.arange(at, min(at + FRAME, end - FRAME) + 1, _FINE)
        windows = np.lib.stride_tricks.sliding_window_view(data, FRAME)[starts]
        _, share = _look(windows)
        clear = np.flatnonzero(share >= _CLEAR)
        if len(clear):
            # The best of the first that are clear; a frame later it is clear again.
            best = int(clear[0]) + int(share[clear[0] : clear[0] + FRAME // 4 // _FINE].argmax())
            return int(starts[best])
        at += FRAME
    return end


def read_ulaw(ulaw: bytes) -> Heard:
    """All frames of ours in a sound from the wire."""
    return read(mulaw.decode(ulaw))
