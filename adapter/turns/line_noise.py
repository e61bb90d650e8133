"""The noise of a telephone line, band by band, known in two ways. No I/O.

:class:`NoiseFloor` follows the noise at once, but roughly: it is the smallest of recent levels.
That is enough for sound that stands out clearly. :class:`KnownNoise` knows the noise's mean power
exactly, once the noise has been steady. With that, words that fade away or begin softly are
detected over 90 ms, although they are weaker than the noise in every single frame.

Both hear many frames at a time, and it makes no difference how many: a call into numpy takes about
as long for ten frames as for one.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from .spectrum import Bands

#: A floor is the smallest level of the last 9 blocks, of 100 frames each.
_FLOOR_BLOCKS = 9
_FLOOR_BLOCK_FRAMES = 100
#: A minimum over random noise lies below its mean by about this much; one of few frames less.
_FLOOR_BIAS_DB = 2.5
_FIRST_BIAS_DB = 5.0
_FIRST_FRAMES = 25
#: After this many frames, the part for few frames is too small to be added.
_BIAS_IS_CONSTANT = 50 * _FIRST_FRAMES
#: The first windows are half empty, and so no measure of the floor.
_EMPTY_FRAMES = 5
#: A line is steady if no band's level varies more than this (standard deviation, dB) ...
_STEADY_DB = 2.0
#: ... over this many frames.
STEADY_FRAMES = 40
_STEADY_SPREAD = STEADY_FRAMES * _STEADY_DB**2
#: Frames that a floor hears at once, at most.
MOST_FRAMES = 40
#: How far below the noise's mean its lowest level lies, for each of the first frames.
_BIAS = _FLOOR_BIAS_DB + _FIRST_BIAS_DB * np.exp(
    -np.arange(_BIAS_IS_CONSTANT + MOST_FRAMES)[:, np.newaxis] / _FIRST_FRAMES
)
#: The rows of a floor's input are STEADY_FRAMES earlier frames, and behind them the new ones. Row k
#: sums the STEADY_FRAMES that end with pair k of the new ones.
_STRETCHES = np.array(
    [
        [0 < row - 2 * pair - 1 <= STEADY_FRAMES for row in range(STEADY_FRAMES + MOST_FRAMES)]
        for pair in range(MOST_FRAMES // 2)
    ],
    dtype=np.float64,
)

#: The mean power of a block of this many frames is compared with the noise ...
_BLOCK = 9
#: ... without this many of the loudest of each band, which may be clicks.
_LOUDEST = 3
#: A block of plain noise stands out by more than this but for 1 or 2 of 1000.
STANDS_OUT = 1.5
#: The noise is known from this many blocks ...
_BLOCKS = 4
#: ... if none of them stands out of their mean by more than this.
_ALIKE = 1.0
#: The first of these blocks ends this many frames before the last.
_BEFORE = _BLOCK * (_BLOCKS - 1)
_BLOCK_ENDS = _BLOCK * np.arange(_BLOCKS)
#: Up to this many frames wait before they are looked at, if nobody asks earlier.
_TOGETHER = 40
#: Below this two means are of the same noise; the known mean then changes by this share.
_SAME = 0.5
_LEARN = 0.05


class NoiseFloor:
    """Each band's lowest recent level, in dB. Sound that is steady becomes the floor at once.
    Whether it is steady is looked at after each second frame, so that frames are heard two by
    two."""

    def __init__(self, bands: int) -> None:
        self._frames = 0
        self._lowest: Bands = np.full(bands, np.inf)
        #: the lowest levels of each earlier block, and of a few frames each of the present one
        self._blocks: deque[Bands] = deque(maxlen=_FLOOR_BLOCKS - 1)
        self._present: list[Bands] = []
        #: the last STEADY_FRAMES
        self._late = np.zeros((STEADY_FRAMES, bands))

    def hear(self, levels: Bands) -> tuple[Bands, list[bool]]:
        """Hear an even number of frames more, MOST_FRAMES at most: their levels in dB, of the shape
        (frames, bands).

        Returns two things. The first is how far each band of each frame stood above its floor, in
        dB and of the same shape. The floor is that which the frames before have left; where there
        are none, all sound is noise. The second says, for each two frames, whether the
        STEADY_FRAMES that end with them were steady. Steady frames become the floor, however loud
        they are.
        """
        before, count = self._frames, len(levels)
        self._frames += count
        late = np.concatenate([self._late, levels])
        self._late = late[count:]
        steady = _steady(late, before, count)
        if before < _EMPTY_FRAMES:
            levels = levels.copy()
            levels[: _EMPTY_FRAMES - before] = np.inf
        firsts = levels[::2]
        pairs = np.minimum(firsts, levels[1::2])
        floors = np.empty_like(levels)
        if True in steady or before % _FLOOR_BLOCK_FRAMES + count >= _FLOOR_BLOCK_FRAMES:
            lows = _lows(np.minimum(late[2::2], late[3::2]))
            self._one_by_one(before, levels, pairs, lows, steady, floors[::2])
        else:
            lowest = np.minimum.accumulate(np.concatenate([[self._lowest], pairs]))
            floors[::2] = lowest[:-1]
            self._lowest = lowest[-1]
            self._present.append(np.minimum.reduce(pairs))
        np.minimum(floors[::2], firsts, out=floors[1::2])
        bias = _BIAS[before : before + count] if before <= _BIAS_IS_CONSTANT else _FLOOR_BIAS_DB
        return late[STEADY_FRAMES:] - floors - bias, steady

    def _one_by_one(
        self,
        before: int,
        levels: Bands,
        pairs: Bands,
        lows: Bands,
        steady: list[bool],
        floors: Bands,
    ) -> None:
        """Fill in the floor before each two frames, where a block or a steady stretch ends."""
        lowest = self._lowest
        for i, pair in enumerate(pairs):
            floors[i] = lowest
            now = before + 2 * (i + 1)
            if now % _FLOOR_BLOCK_FRAMES == 0:  # the second frame is the first of a block
                self._blocks.append(np.minimum.reduce([*self._present, levels[2 * i]]))
                self._present.clear()
                lowest, pair = np.minimum.reduce(self._blocks), levels[2 * i + 1]
            if steady[i]:
                lowest = lows[i]
                self._blocks.clear()
                self._present = [lowest]
            else:
                lowest = np.minimum(lowest, pair)
                self._present.append(pair)
        self._lowest = lowest

    def unsteady_for(self, frames: int) -> bool:
        """Whether no steady stretch can end within the next ``frames``, because the frames before
        them, which it would have to contain, differ too much already."""
        late = self._late[frames:]
        spreads = _spread(late.sum(axis=0), np.square(late).sum(axis=0), len(late))
        return bool(spreads.max() > _STEADY_SPREAD)


def _steady(late: Bands, before: int, count: int) -> list[bool]:
    """Whether each two of the last ``count`` levels end a steady stretch, where there had been
    ``before`` frames before them."""
    stretches = _STRETCHES[: count // 2, : len(late)]
    spreads = _spread(stretches @ late, stretches @ np.square(late), STEADY_FRAMES)
    steady = np.maximum.reduce(spreads, axis=1) <= _STEADY_SPREAD
    if before < STEADY_FRAMES:
        steady[: (STEADY_FRAMES - before) // 2 - 1] = False
    found: list[bool] = steady.tolist()
    return found


def _spread(sums: Bands, squares: Bands, frames: int) -> Bands:
    """The sum of the squared differences of the levels of ``frames`` frames from their mean."""
    spread: Bands = squares - np.square(sums) / frames
    return spread


def _lows(pairs: Bands) -> Bands:
    """The lowest of each STEADY_FRAMES // 2 rows that follow one another."""
    rows, lows = 1, pairs
    while 2 * rows <= STEADY_FRAMES // 2:
        lows = np.minimum(lows[:-rows], lows[rows:])
        rows *= 2
    left = STEADY_FRAMES // 2 - rows
    lowest: Bands = np.minimum(lows[: len(lows) - left], lows[left:])
    return lowest


class KnownNoise:
    """The mean power of steady noise, a number for each of ``bands`` bands; ``quietest``: no
    noise is taken to be below. A frame is named by its place, from 0, in the last :meth:`hear`.

    Nothing is worked out until somebody asks, or until :data:`_TOGETHER` frames wait.
    """

    def __init__(self, bands: int, quietest: float) -> None:
        self._quietest = quietest
        self._mean: Bands | None = None
        #: powers that wait, how many frames they are, and where the last ``hear`` begins in them
        self._powers: list[Bands] = []
        self._waiting = self._begin = 0
        #: the powers with which the next frame's block begins
        self._late = np.zeros((_BLOCK - 1, bands))
        #: the mean of the block that each frame ends: of _BEFORE earlier frames, then of the frames
        #: that were looked at last
        self._means = np.zeros((_BEFORE, bands))
        #: the frames to learn from, by their places among those that were looked at last
        self._lessons: list[int] = []
        #: the results of :meth:`excess` for all frames, as long as nothing is learnt
        self._excess: list[float] | None = None

    @property
    def known(self) -> bool:
        self._catch_up()
        return self._mean is not None

    def forget(self) -> None:
        """The noise has changed."""
        self._catch_up()
        self._mean = self._excess = None

    def hear(self, powers: Bands) -> None:
        """More frames: their powers, of the shape (frames, bands)."""
        if not self._powers or self._waiting >= _TOGETHER:
            self._catch_up()
            self._waiting = 0
        self._begin = self._waiting
        self._waiting += len(powers)
        self._powers.append(powers)

    def learn(self, frame: int) -> None:
        """Learn the blocks up to this frame, if they are alike."""
        self._lessons.append(self._begin + frame)

    def excess(self, frame: int) -> float:
        """How clearly the block that this frame ends stands out of the noise: the sum over its
        bands of the squared surplus, in units of the noise. 0 where the noise is not known."""
        self._catch_up()
        if self._mean is None:
            return 0.0
        if self._excess is None:
            self._excess = _excess(self._means[_BEFORE:], self._mean).tolist()
        return self._excess[self._begin + frame]

    def differs(self, frame: int) -> bool:
        """Whether the blocks up to this frame differ from the known noise: all of them stand
        out."""
        self._catch_up()
        if self._mean is None:
            return True
        return bool(_excess(self._blocks([self._begin + frame]), self._mean).min() > _ALIKE)

    def _catch_up(self) -> None:
        if self._powers:
            late = np.concatenate([self._late, *self._powers])
            self._late = late[1 - _BLOCK :]
            self._powers.clear()
            row, item = late.strides
            shape = (self._waiting, late.shape[1], _BLOCK)
            blocks = np.ndarray(shape, late.dtype, late, 0, (row, item, row))
            quiet = np.partition(blocks, _BLOCK - _LOUDEST)[:, :, : _BLOCK - _LOUDEST]
            means = quiet.sum(axis=2) / (_BLOCK - _LOUDEST)
            self._means = np.concatenate([self._means[-_BEFORE:], means])
            self._excess = None
        if self._lessons:
            blocks = self._blocks(self._lessons)
            self._lessons.clear()
            means = np.maximum(blocks.sum(axis=1) / _BLOCKS, self._quietest)
            alike = _excess(blocks, means[:, np.newaxis]).max(axis=1) < _ALIKE
            self._take_in(means[alike])

    def _take_in(self, means: Bands) -> None:
        """The mean power was each of these, one after the other."""
        if not len(means):
            return
        self._excess = None
        if self._mean is None:
            self._mean = means[0]
        # Mostly all of it is the same noise: then the mean known before each of them is a sum.
        knew = _SHARES[: len(means) + 1, : len(means) + 1] @ np.concatenate([[self._mean], means])
        if max(_excess(means, knew[:-1]).max(), _excess(knew[:-1], means).max()) < _SAME:
            self._mean = knew[-1]
            return
        for mean in means:
            apart = max(_excess(mean, self._mean), _excess(self._mean, mean))
            self._mean = self._mean + (_LEARN if apart < _SAME else 1.0) * (mean - self._mean)

    def _blocks(self, frames: list[int]) -> Bands:
        """(frames, blocks, bands): the means of the blocks up to each frame, the oldest first."""
        return self._means[np.add.outer(frames, _BLOCK_ENDS)]


def _excess(blocks: Bands, noise: Bands) -> Bands:
    over = np.maximum(blocks / noise - 1.0, 0.0)
    excess: Bands = np.square(over).sum(axis=-1)
    return excess


def _shares(count: int) -> Bands:
    """The known mean before each of ``count`` new means, as shares of the one known at first
    (column 0) and of the new means before it."""
    shares = np.zeros((count + 1, count + 1))
    shares[0, 0] = 1.0
    for after in range(count):
        shares[after + 1] = (1 - _LEARN) * shares[after]
        shares[after + 1, after + 1] = _LEARN
    return shares


_SHARES = _shares(_TOGETHER)
