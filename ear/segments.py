"""Where one side speaks: segments, with their edges to a hundredth of a second.

1. Windows that stand out from the noise, and are not much fainter than this side's loudest, make
   *utterances*: what stands closer together than :data:`UTTERANCE_GAP`.
2. An utterance is cut into frames of 10 ms. The loudest is its measure: frames within
   :data:`RANGE` of it are speech, and what stands closer together than :data:`GAP` is one segment.
   So soft sounds around a word (a breath, the room) belong to no segment, however quiet the line.

Sound that begins out of no sound at all has its own frames, from its first sample on, and nothing
is in doubt. On a line that is never still two things are:

- where the frames begin: at any of four steps, which is four *grids*;
- how loud a frame is without the noise. The noise's mean is taken off it. What is left is off by
  the noise's own spread, and by more where speech and noise meet, because they add up as waves. At
  15 dB of noise a frame 20 dB below the loudest is uncertain by about 1 dB.

So each frame of each grid has a *probability* that it is speech. An edge is where the first frame
begins, or the last one ends, that is speech, so its places have probabilities, too. Mostly they lie
side by side. A word that fades away at just that loudness has them over a tenth of a second, and
the middle of that is never far off. A click before a word has them on both sides of a pause.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from . import levels
from .figures import Segment, rounded
from .levels import STEP, STEP_SECONDS, WINDOW, Floats, Mask, Samples

#: A segment has no gap over this (seconds).
GAP: Final = 0.3
#: Windows further apart than this belong to two utterances (seconds).
UTTERANCE_GAP: Final = 0.35
#: Power ratio of an utterance's loudest frame and of its edges: 20 dB.
RANGE: Final = 100.0
#: Power ratio of a side's loudest speech and of an utterance that is too faint for speech, such as
#: the echo of the other side: 26 dB.
FAINTEST: Final = 400.0
#: A side's loudest speech is the level that its windows reach for so long in all (seconds). A click
#: is shorter.
LOUD_FOR: Final = 0.1
#: A window stands out if what it has above the noise is more than this share of the noise.
STANDS_OUT: Final = 0.8
#: Speech lasts so long at least (seconds).
SHORTEST: Final = 0.05
#: A frame with more than this many times the energy of the fifth loudest one is a click, and is no
#: measure.
CLICK: Final = 4.0
#: Probabilities: a frame below the first is taken for no speech, one from the second on for speech.
POSSIBLE: Final = 0.0005
SURE: Final = 0.997
#: Noise is speech only where it is this much louder than its mean (standard deviations).
LEAST: Final = 4.0
#: Between words, noise is this many times likelier than speech of the same loudness.
NOISE_ODDS: Final = 200.0
#: Where an edge's places lie within this (seconds), but for the rarest on each side, the answer is
#: the middle of them. Where they are further apart, a whole sound is in doubt, for example a click
#: before a word, and the answer is the most probable side.
NEAR: Final = 0.15
RARE: Final = 0.01
#: A sound further out that may be there moves the answer half way to it, by so many seconds at
#: most. So the answer is not far off if the noise hides that sound.
MOVES: Final = 0.115
#: A frame is compared with those that begin so many steps before and behind it, or fewer. Speech
#: changes by this share from one to another at least.
AROUND: Final = 4
CHANGES: Final = 0.2
#: Windows that overlap differ by this share of the noise's variance.
OVERLAPPING: Final = 0.6
#: The noise just outside of an utterance may have some of its sound (seconds).
BESIDE: Final = 0.05
#: No sound at all lasts for so many steps: 20 ms.
STILL: Final = 8
#: What a change of rate makes of no sound, in sample values.
RIPPLE: Final = 2

_FRAME_SECONDS: Final = WINDOW * STEP_SECONDS
#: Windows of one utterance, and of one segment, are no further apart than this.
UTTERANCES_APART: Final = UTTERANCE_GAP / STEP_SECONDS + WINDOW
_MOST_APART: Final = GAP / STEP_SECONDS + WINDOW

#: (first, last) frame or window of a run.
Spans = list[tuple[int, int]]


class Loudness(NamedTuple):
    """How loud a side is: the ``energy`` of its steps, which of them are ``lost`` (levels.faded),
    the energy of its ``windows``, the ``floor`` of the noise in each of these, and its ``loudest``
    speech above that (0 or less: it has none)."""

    energy: Floats
    lost: Mask
    windows: Floats
    floor: Floats
    loudest: float


def loudness(samples: Samples, silenced: Mask | None = None) -> Loudness:
    """``silenced``: steps that are no speech whatever they sound like, for example the tones of
    keys. They are no sound here, and count for the noise."""
    energy = levels.energies(levels.pieces(samples, STEP))
    lost = levels.faded(samples, energy)
    floor = levels.noise(energy, lost)
    if silenced is not None:
        energy = np.where(silenced, np.float32(0.0), energy)
    windows = levels.windows(energy)
    return Loudness(
        energy, lost, windows, floor, _reached(windows - floor, round(LOUD_FOR / STEP_SECONDS))
    )


def find(samples: Samples, loud: Loudness, silenced: Mask | None = None) -> list[Segment]:
    """The segments of a side that is so loud. ``silenced``: as of :func:`loudness`."""
    energy, lost, whole, floor, loudest = loud
    if loudest <= 0.0:
        return []
    candidates = np.flatnonzero(whole - floor > np.maximum(loudest / FAINTEST, floor * STANDS_OUT))
    utterances = joined(candidates, UTTERANCES_APART)
    if not utterances:
        return []
    pauses = ~levels.touched(lost, WINDOW)
    beside = round(BESIDE / STEP_SECONDS)
    for first, last in utterances:
        pauses[max(0, first - beside) : last + beside] = False
    if silenced is not None:
        pauses &= whole > 0.0
    noise = levels.Noise(whole, pauses, floor)
    segments: list[Segment] = []
    for first, last in utterances:
        begin = _begins(samples, energy, first)
        if begin is not None:
            sound = samples[begin : (last + 2 * WINDOW) * STEP]
            frames = levels.energies(levels.pieces(sound, levels.FRAME))
            segments += _in_silence(begin / STEP, frames)
        else:
            begin, end = max(0, first - WINDOW), min(len(whole), last + 2 * WINDOW)
            end = begin + (end - begin) // WINDOW * WINDOW
            segments += _in_noise(begin, whole[begin:end], *noise.around(first, last))
    return segments


def _begins(samples: Samples, energy: Floats, first: int) -> int | None:
    """The sample with which the sound around window ``first`` begins, if it begins out of no sound
    at all."""
    back = max(0, first - round(UTTERANCE_GAP / STEP_SECONDS))
    still = np.flatnonzero(
        levels.running_sum(energy[back:first], STILL) <= STILL * STEP * RIPPLE**2
    )
    if not len(still):
        return None
    after = (back + int(still[-1]) + STILL) * STEP
    return after + int(np.argmax(np.abs(samples[after : after + STEP]) > RIPPLE))


def _measure(frames: Floats) -> float:
    """The loudest frame, unless that is a click."""
    return min(float(frames.max()), CLICK * _reached(frames, 5))


def _in_silence(begin: float, frames: Floats) -> list[Segment]:
    """The segments of an utterance whose frames are known; the first begins at step ``begin``."""
    spoken = np.flatnonzero(frames >= _measure(frames) / RANGE)
    return [
        Segment(
            start=rounded((begin + WINDOW * first) * STEP_SECONDS),
            end=rounded((begin + WINDOW * (last + 1)) * STEP_SECONDS),
        )
        for first, last in joined(spoken, _MOST_APART / WINDOW)
        if np.count_nonzero((spoken >= first) & (spoken <= last)) * _FRAME_SECONDS >= SHORTEST
    ]


def _in_noise(begin: int, whole: Floats, mean: float, spread: float) -> list[Segment]:
    """The segments of an utterance on a line that is never still, of its windows from ``begin`` on.
    ``mean`` and ``spread`` (standard deviation) are those of the noise's windows."""
    probable = _probable(whole, max(mean, 1.0), max(spread, 1.0))
    spans = [
        (first, last)
        for first, last in joined(np.flatnonzero(probable >= 0.5), _MOST_APART)
        if np.count_nonzero(probable[first : last + 1] >= 0.5) * STEP_SECONDS >= SHORTEST
    ]
    end = len(whole) - 1
    backwards = probable[::-1]
    segments = []
    before = -1
    for n, (first, last) in enumerate(spans):
        after = spans[n + 1][0] if n + 1 < len(spans) else len(whole)
        start = _edge(probable, first, last, before)
        stop = end - _edge(backwards, end - last, end - first, end - after) + WINDOW
        segments.append(
            Segment(
                start=rounded((begin + start) * STEP_SECONDS),
                end=rounded((begin + stop) * STEP_SECONDS),
            )
        )
        before = last
    return segments


def _probable(whole: Floats, mean: float, spread: float) -> Floats:
    """How probable it is, of each window, that it is speech by the definition."""
    speech = whole - np.float32(mean)
    grids = speech.reshape(-1, WINDOW)
    limits = [max(_measure(grid) / RANGE, LEAST * spread) for grid in grids.T]
    limit = np.tile(np.array(limits, np.float32), len(grids))
    # Speech s and noise n of one band meet as waves, so their sum is spread by 2 n² + 4 s n, where
    # the noise alone is by 2 n².
    off = spread * np.sqrt(1.0 + 2.0 * np.maximum(speech, 0.0) / np.float32(mean))
    speech, off = _smoothed(speech, off)
    over = _normal((speech - limit) / np.maximum(off, 0.01 * limit))
    # Noise alone is loud at times, too. The cube root of its energy is spread normally.
    narrow = np.float32((spread / mean) ** 2 / 9.0 + 1e-6)
    loud = np.clip((np.cbrt(whole / np.float32(mean)) - 1.0 + narrow) / np.sqrt(narrow), 0.0, 9.0)
    probable: Floats = over / (1.0 + NOISE_ODDS * np.exp(-0.5 * loud * loud))
    return probable


def _smoothed(speech: Floats, off: Floats) -> tuple[Floats, Floats]:
    """The energy of speech in each window, and how far that is off: its neighbours tell of it, too.

    Where a sound goes on evenly, a window that stands out from its neighbours does so because of
    the noise. Where they differ by more than noise makes them, each stands for itself."""
    width = 2 * AROUND + 1
    beside = np.pad(speech, AROUND, mode="edge")
    mean = levels.running_sum(np.maximum(beside, 0.0), width) / width
    variance = levels.running_sum(beside**2, width) / width - mean**2
    change = np.maximum(variance - OVERLAPPING * off**2, (CHANGES * mean) ** 2) + 1e-3
    own = change / (change + off**2)
    smooth = mean + own * (speech - mean)
    return smooth.astype(np.float32), (off * np.sqrt(own)).astype(np.float32)


def _normal(z: Floats) -> Floats:
    """The normal distribution's integral, to three decimals."""
    z = np.clip(z, -6.0, 6.0)
    integral = 1.0 / (1.0 + np.exp(-z * (1.5976 + 0.07056 * z * z)))
    return integral.astype(np.float32)


def _edge(probable: Floats, first: int, last: int, before: int) -> float:
    """The window with which the run from ``first`` to ``last`` begins, behind window ``before``."""
    # Outwards from the run, as far as possible places hang together; inwards, until speech is sure
    # in every grid.
    possible = before + 1 + np.flatnonzero(probable[before + 1 : first + 1] >= POSSIBLE)
    outermost = joined(possible, _MOST_APART)[-1][0]
    sure = np.lib.stride_tricks.sliding_window_view(probable[first : last + 1], WINDOW) >= SURE
    found = np.flatnonzero(sure.all(axis=1))
    innermost = first + int(found[0]) + WINDOW - 1 if len(found) else last
    rows = -(-(innermost + 1 - outermost) // WINDOW)
    chance = np.zeros((rows, WINDOW))
    there = probable[outermost : outermost + rows * WINDOW]
    chance.flat[: len(there)] = np.where(there >= POSSIBLE, there, 0.0)
    chance[-1] = 1.0
    # A grid's edge is the first window of it that is speech.
    chance[1:] *= np.cumprod(1.0 - chance, axis=0)[:-1]
    beyond = np.cumsum(chance) / WINDOW
    least, middle, most = np.searchsorted(beyond, (RARE, 0.5, 1 - RARE)).tolist()
    near = NEAR / STEP_SECONDS
    if most - least <= near:
        middle = (least + most) / 2
    elif middle - least > near:
        middle -= min((middle - least) / 2, MOVES / STEP_SECONDS)
    return float(outermost + middle)


def _reached(energy: Floats, count: int) -> float:
    """The energy that so many windows or frames reach; 0.0 where there are fewer."""
    if len(energy) < count:
        return 0.0
    return float(np.partition(energy, len(energy) - count)[len(energy) - count])


def joined(places: npt.NDArray[np.int_], most: float) -> Spans:
    """Runs of places, each no more than ``most`` from the one before."""
    if not len(places):
        return []
    cuts = np.flatnonzero(np.diff(places) > most + 1e-6)
    firsts = places[np.concatenate([[0], cuts + 1])]
    lasts = places[np.concatenate([cuts, [len(places) - 1]])]
    return [(int(first), int(last)) for first, last in zip(firsts, lasts, strict=True)]
