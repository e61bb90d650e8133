"""How loud one side is at each moment, and how loud its noise is there.

The unit of time is the *step* of 2.5 ms. Loudness is the energy of a *window* of 10 ms, which is
four steps; window ``n`` begins at step ``n``. Energy is in squared sample values of PCM16.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

#: The rate that the ear hears at: a telephone's.
RATE: Final = 8_000
#: Samples of a step, steps of a window, samples of a window.
STEP: Final = 20
WINDOW: Final = 4
FRAME: Final = WINDOW * STEP
STEP_SECONDS: Final = STEP / RATE

#: Noise is looked for in stretches of this length (steps): shorter than most pauses between words.
_QUIET: Final = 20
#: The quietest of so many independent stretches of even noise is below its mean by this factor.
_BELOW_MEAN: Final = 1.25
#: The noise at a moment is the quietest stretch within so many blocks of 0.5 s around it.
_NOISE_BLOCK: Final = 200
_NOISE_BLOCKS: Final = 4

#: A line fills a lost frame with what it had so many steps (20 ms) before. From the second frame in
#: a row on it is softer than this (power ratio), and this much like that (correlation).
_BEFORE: Final = 8
_SOFTER: Final = 0.8
_ALIKE: Final = 0.98

#: The noise is measured in so many windows at least, which is 0.2 s; with fewer it is guessed.
_LEAST_PAUSE: Final = 80

Samples = npt.NDArray[np.int16]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


def running_sum(values: Floats, width: int) -> Floats:
    """The sum of ``width`` values from each one on; the result is ``width - 1`` shorter."""
    sums = np.zeros(len(values) + 1)
    np.cumsum(values, out=sums[1:])
    found: Floats = np.maximum(sums[width:] - sums[:-width], 0.0).astype(np.float32)
    return found


def touched(steps: Mask, width: int) -> Mask:
    """Where one of ``width`` steps from there on is true; the result is ``width - 1`` shorter."""
    found: Mask = running_sum(steps.astype(np.float32), width) > 0.0
    return found


def energies(sound: Floats) -> Floats:
    """The energy of each of the :func:`pieces`."""
    found: Floats = np.einsum("ij,ij->i", sound, sound)
    return found


def pieces(samples: Samples, size: int) -> Floats:
    """Pieces of ``size`` samples, one after the other, as floats; a last one that is not whole is
    dropped."""
    return samples[: len(samples) // size * size].reshape(-1, size).astype(np.float32)


def windows(energy: Floats) -> Floats:
    """The energy of each window, of the energy of each step."""
    return running_sum(energy, WINDOW)


def faded(samples: Samples, energy: Floats) -> Mask:
    """Which steps are what was heard 20 ms before, again and softer: a line fills lost frames so.
    ``energy``: that of each step."""
    found = np.zeros(len(energy), np.bool_)
    if len(energy) < _BEFORE + WINDOW:
        return found
    sound = pieces(samples, STEP)
    product = np.einsum("ij,ij->i", sound[_BEFORE:], sound[:-_BEFORE])
    whole = windows(energy)
    before, now = whole[:-_BEFORE], whole[_BEFORE:]
    again = (windows(product) > _ALIKE * np.sqrt(before * now)) & (now < _SOFTER * before)
    for step in range(_BEFORE, _BEFORE + WINDOW):
        found[step : step + len(again)] |= again
    return found


def noise(energy: Floats, lost: Mask) -> Floats:
    """The energy that the noise has in each window, of the energy of each step. In steps that are
    ``lost`` (:func:`faded`) it is softer than it is on the line, so they do not count.

    Steady noise is found within 2 s, also where it changes during a call. Stretches of no sound at
    all (a carrier fills holes with them) say nothing of the noise beside them, unless there is
    nothing else.
    """
    count = max(0, len(energy) - WINDOW + 1)
    if len(energy) < _QUIET:
        return np.zeros(count, np.float32)
    quiet = running_sum(energy, _QUIET) * (WINDOW / _QUIET)
    quiet[(quiet < 1.0) | touched(lost, _QUIET)] = np.inf
    blocks = -(-len(quiet) // _NOISE_BLOCK)
    padded = np.full((blocks + 2 * _NOISE_BLOCKS) * _NOISE_BLOCK, np.inf, np.float32)
    begin = _NOISE_BLOCKS * _NOISE_BLOCK
    padded[begin : begin + len(quiet)] = quiet
    least = padded.reshape(-1, _NOISE_BLOCK).min(axis=1)
    around = np.lib.stride_tricks.sliding_window_view(least, 2 * _NOISE_BLOCKS + 1).min(axis=1)
    around = np.where(np.isinf(around), 0.0, around * _BELOW_MEAN).astype(np.float32)
    found: Floats = np.repeat(around, _NOISE_BLOCK)
    return np.concatenate([found, np.full(max(0, count - len(found)), found[-1])])[:count]


class Noise:
    """The noise beside utterances, measured where nobody speaks."""

    def __init__(self, whole: Floats, pauses: Mask, floor: Floats) -> None:
        """``whole``: the energy of each window. ``pauses``: windows without speech. ``floor``: what
        :func:`noise` found, for an utterance without a pause near it."""
        count = -(-len(whole) // _NOISE_BLOCK)
        rows = np.zeros((2, count * _NOISE_BLOCK), np.float32)
        rows[0, : len(whole)] = pauses & (whole >= 1.0)
        rows[1, : len(whole)] = whole
        there, energy = rows.reshape(2, count, _NOISE_BLOCK).astype(np.float64)
        self._count = there.sum(axis=1)
        self._sum = (there * energy).sum(axis=1)
        self._squares = (there * energy**2).sum(axis=1)
        self._floor = floor

    def around(self, first: int, last: int) -> tuple[float, float]:
        """(mean, standard deviation) of the noise's energy around windows ``first`` to ``last``."""
        begin = max(0, first // _NOISE_BLOCK - _NOISE_BLOCKS)
        blocks = slice(begin, last // _NOISE_BLOCK + _NOISE_BLOCKS + 1)
        count = float(self._count[blocks].sum())
        if count < _LEAST_PAUSE:
            mean = float(self._floor[first])
            return mean, mean / 4
        mean = float(self._sum[blocks].sum()) / count
        return mean, max(0.0, float(self._squares[blocks].sum()) / count - mean**2) ** 0.5
