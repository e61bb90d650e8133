"""The noise of a telephone line, band by band, known in two ways. No I/O.

:class:`NoiseFloor` follows it at once, and roughly: the smallest of late levels. It is right about
what stands out clearly. :class:`KnownNoise` knows its mean power, once it has been steady, so well
that what is weaker than the noise in every single frame still shows over 90 ms: words that fade
away, or begin softly.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Bands = npt.NDArray[np.float64]

#: A floor is the smallest level of the last so many blocks of so many frames.
_FLOOR_BLOCKS = 9
_FLOOR_BLOCK_FRAMES = 100
#: A minimum over random noise lies below its mean by about this much; one of few frames less.
_FLOOR_BIAS_DB = 2.5
_FIRST_BIAS_DB = 5.0
_FIRST_FRAMES = 25
#: Steady: no band's level varies more than this (standard deviation, dB) over so many frames.
_STEADY_DB = 2.0
STEADY_FRAMES = 40

#: The mean power of so many frames is compared with the noise ...
_BLOCK = 9
#: ... without so many of the loudest of each band: clicks.
_LOUDEST = 3
#: A block of plain noise stands out by more than this but for 1 or 2 of 1000.
STANDS_OUT = 1.5
#: Noise is known from so many blocks, none of which stands out of their mean by more than this.
_BLOCKS = 4
_ALIKE = 1.0
#: Below this two means are of the same noise; what it is said to be then changes by this share.
_SAME = 0.5
_LEARN = 0.05


class NoiseFloor:
    """Each band's lowest late level, in dB; sound that is steady becomes the floor at once."""

    def __init__(self, bands: int) -> None:
        self._minima = np.full((_FLOOR_BLOCKS, bands), np.inf)
        self._lowest: Bands | None = None
        self._past = np.zeros((STEADY_FRAMES, bands))
        self._frames = 0

    def above(self, level: Bands) -> Bands:
        """How far above its floor each band is. Before anything was heard all of it is noise."""
        if self._lowest is None:
            return np.full(len(level), -_FLOOR_BIAS_DB)
        bias = _FLOOR_BIAS_DB + _FIRST_BIAS_DB * math.exp(-self._frames / _FIRST_FRAMES)
        return level - (self._lowest + bias)

    def frame(self, level: Bands, *, follow: bool = True) -> None:
        """The next frame; ``follow=False``: it is no measure of the floor."""
        self._past[self._frames % STEADY_FRAMES] = level
        self._frames += 1
        if not follow:
            return
        block = self._frames // _FLOOR_BLOCK_FRAMES % _FLOOR_BLOCKS
        if self._frames % _FLOOR_BLOCK_FRAMES == 0:
            self._minima[block] = np.inf
        np.minimum(self._minima[block], level, out=self._minima[block])
        self._lowest = self._minima.min(axis=0)

    def settle(self) -> bool:
        """Whether the last STEADY_FRAMES were steady: they are the floor then, however loud."""
        if self._frames < STEADY_FRAMES:
            return False
        off = self._past - self._past.sum(axis=0) / STEADY_FRAMES
        if (off * off).sum(axis=0).max() > STEADY_FRAMES * _STEADY_DB**2:
            return False
        self._lowest = self._past.min(axis=0)
        self._minima[:] = np.inf
        self._minima[self._frames // _FLOOR_BLOCK_FRAMES % _FLOOR_BLOCKS] = self._lowest
        return True


class KnownNoise:
    """The mean power of steady noise, a number for each of ``bands`` bands; ``quietest``: what no
    noise is said to be below."""

    def __init__(self, bands: int, quietest: float) -> None:
        self._quietest = quietest
        self._past = np.zeros((_BLOCK * _BLOCKS, bands))
        self._frames = 0
        self._mean: Bands | None = None

    @property
    def known(self) -> bool:
        return self._mean is not None

    def forget(self) -> None:
        """The noise is not what it was."""
        self._mean = None

    def frame(self, power: Bands) -> None:
        """The power of the next frame."""
        self._past[self._frames % len(self._past)] = power
        self._frames += 1

    def excess(self) -> float:
        """How clearly the last block stands out: the sum of the squares of what its bands have
        over the noise, in units of it. 0 where the noise is not known."""
        if self._mean is None:
            return 0.0
        return float(_excess(_means(self._last(_BLOCK)[np.newaxis]), self._mean)[0])

    def learn(self) -> bool:
        """Learn what was heard last, if it is alike. Whether it differs from what was known: all
        of it stands out."""
        blocks = _means(self._last(len(self._past)).reshape(_BLOCKS, _BLOCK, -1))
        mean = np.maximum(blocks.mean(axis=0), self._quietest)
        alike = _excess(blocks, mean).max() < _ALIKE
        known = self._mean
        if known is None:
            self._mean = mean if alike else None
            return True
        if alike:
            apart = max(_excess(mean[np.newaxis], known)[0], _excess(known[np.newaxis], mean)[0])
            self._mean = known + (_LEARN if apart < _SAME else 1.0) * (mean - known)
        return bool(_excess(blocks, known).min() > _ALIKE)

    def _last(self, frames: int) -> Bands:
        """(frames, bands), the oldest first."""
        end = self._frames % len(self._past)
        return np.concatenate([self._past[end:], self._past[:end]])[-frames:]


def _means(blocks: Bands) -> Bands:
    """(blocks, bands): the mean of (blocks, frames, bands), without the loudest."""
    quiet = np.partition(blocks, _BLOCK - _LOUDEST, axis=1)[:, : _BLOCK - _LOUDEST]
    means: Bands = quiet.sum(axis=1) / (_BLOCK - _LOUDEST)
    return means


def _excess(blocks: Bands, noise: Bands) -> Bands:
    over = np.maximum(blocks / noise - 1.0, 0.0)
    excess: Bands = (over * over).sum(axis=1)
    return excess
