"""Whether one side has an echo of the other: the same sound again, later and softer."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from .figures import Segment
from .levels import RATE, Samples

#: An echo is no later than this (seconds), ...
LATEST: Final = 0.6
#: ... it is softer than this share of what it repeats (power; 6 dB), ...
SOFTER: Final = 0.25
#: ... and it is at least this much like that (correlation).
ALIKE: Final = 0.5
#: Compared are the first seconds of a segment, and this much beside it.
LONGEST: Final = 2
BESIDE: Final = 0.15

Floats = npt.NDArray[np.float64]


def of(ours: Samples, theirs: Samples, said: list[Segment], heard: list[Segment]) -> bool:
    """Whether some of their segments are an echo of ours. A far end that does nothing but repeat us
    has none.

    Only those can be one that begin while ours run, or right after them, so most calls cost
    nothing.
    """
    echoes = [
        any(one.start < each.start < one.end + LATEST for one in said)
        and _repeats(ours, theirs, each)
        for each in heard
    ]
    return any(echoes) and not all(echoes)


def _repeats(ours: Samples, theirs: Samples, segment: Segment) -> bool:
    lags = round(LATEST * RATE)
    begin = max(lags - 1, round((segment.start - BESIDE) * RATE))
    end = min(len(ours), len(theirs), round((segment.end + BESIDE) * RATE), begin + LONGEST * RATE)
    if end <= begin:
        return False
    echo = theirs[begin:end].astype(np.float64)
    sound = ours[begin - lags + 1 : end].astype(np.float64)
    sums = np.concatenate([[0.0], np.cumsum(sound**2)])
    # Of each lag: how much of theirs is ours, and how loud ours is in it.
    before = np.maximum(sums[len(echo) :] - sums[: -len(echo)], 1.0)
    product = _correlated(sound, echo)
    alike = product**2 / before / max(float((echo**2).sum()), 1.0)
    lag = int(alike.argmax())
    return bool(alike[lag] > ALIKE**2 and (product[lag] / before[lag]) ** 2 < SOFTER)


def _correlated(sound: Floats, echo: Floats) -> Floats:
    """The sum of ``echo`` times ``sound`` from each place on where it fits in."""
    size = 1 << (len(sound) - 1).bit_length()
    product = np.fft.irfft(np.fft.rfft(sound, size) * np.conj(np.fft.rfft(echo, size)), size)
    found: Floats = product[: len(sound) - len(echo) + 1]
    return found
