"""Where one side speaks: segments, with their edges to a hundredth of a second.

Two passes, because an edge can only be told once the whole utterance has been heard:

1. Windows that stand out from the noise, and are not much fainter than this side's loudest, make
   *utterances*: what stands closer together than :data:`UTTERANCE_GAP`.
2. An utterance is cut into frames of 10 ms. The loudest is its measure: frames within
   :data:`RANGE` of it are speech, and what stands closer together than :data:`GAP` is one segment.
   So soft sounds around a word (a breath, the room) belong to no segment, however quiet the line.

A word may fade away for a tenth of a second at just about that loudness. There it matters where the
frames begin, and whether noise was added to them:

- Sound that begins out of no sound at all has its own frames, from its first sample on.
- On a line that is never still, frames may begin at any of four steps, and the limit is in doubt.
  All of these are tried. If they agree within :data:`NEAR`, the middle is right to half of that. If
  they do not, a whole sound is in doubt, for example a click before a word. It counts if one grid
  in ten has it, because noise hides such a sound more often than it makes one up. If fewer have it,
  the middle is the answer that is never far off.

The noise is taken off each frame before it is compared, so a segment has the same edges on a noisy
line, as far as its edges can be heard there at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

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
#: How far that limit is in doubt on a line that is never still: 0.8 dB each way.
DOUBT: Final = 1.2
#: Edges that agree within this (seconds) are one edge.
NEAR: Final = 0.15
#: The share of the grids that is enough for a sound further out.
OUTER: Final = 0.1
#: Power ratio of a side's loudest speech and of an utterance that is too faint for speech, such as
#: the echo of the other side: 26 dB.
FAINTEST: Final = 400.0
#: A side's loudest speech is the level that its windows reach for so long in all (seconds). A click
#: is shorter.
LOUD_FOR: Final = 0.1
#: A window stands out if it has this much more than the noise.
STANDS_OUT: Final = 0.8
#: Speech lasts so long at least (seconds).
SHORTEST: Final = 0.05
#: A frame is no measure if it is this much louder than the fifth loudest: a click.
CLICK: Final = 4.0
#: No sound at all lasts for so many steps: 20 ms.
STILL: Final = 8
#: What a change of rate makes of no sound, in sample values.
RIPPLE: Final = 2

#: (first, last) frame or window of a run.
Spans = list[tuple[int, int]]
#: The step at which frames begin, their energy, and the least that stands out from the noise.
Grid = tuple[float, Floats, Floats]


def find(samples: Samples, silenced: Mask | None = None) -> list[Segment]:
    """The segments of a side. ``silenced``: steps that are no speech whatever they sound like, for
    example the tones of keys."""
    energy = levels.steps(samples)
    floor = levels.noise(energy)
    if silenced is not None:
        energy = np.where(silenced, np.float32(0.0), energy)
    heard = levels.windows(energy) - floor
    least = floor * STANDS_OUT
    loudest = _reached(heard, round(LOUD_FOR / STEP_SECONDS))
    if loudest <= 0.0:
        return []
    segments: list[Segment] = []
    candidates = np.flatnonzero(heard > np.maximum(loudest / FAINTEST, least))
    for first, last in _joined(candidates, UTTERANCE_GAP / STEP_SECONDS + WINDOW):
        begin = _begins(samples, energy, first)
        if begin is not None:
            frames = levels.frames(samples[begin : (last + 2 * WINDOW) * STEP])
            grid: Grid = (begin / STEP, frames, np.zeros_like(frames))
            segments += _cut([grid], (1.0,))
        else:
            around = range(max(0, first - WINDOW), min(len(heard), last + 2 * WINDOW))
            grids = [
                (n, heard[n : around.stop : WINDOW], least[n : around.stop : WINDOW])
                for n in around[:WINDOW]
            ]
            segments += _cut(grids, (1 / DOUBT, 1.0, DOUBT))
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


def _cut(grids: Iterable[Grid], doubts: Iterable[float]) -> list[Segment]:
    """The segments of an utterance, of its frames in each grid."""
    found = []
    for begin, frames, least in grids:
        measure = min(float(frames.max()), CLICK * _reached(frames, 5)) / RANGE
        for doubt in doubts:
            spoken = np.flatnonzero(frames >= np.maximum(measure * doubt, least))
            spans = [
                (begin + WINDOW * first, begin + WINDOW * (last + 1))
                for first, last in _joined(spoken, GAP / STEP_SECONDS / WINDOW + 1)
                if _counted(spoken, first, last) * WINDOW * STEP_SECONDS >= SHORTEST
            ]
            found.append(spans)
    counts = [len(spans) for spans in found]
    usual = max(counts, key=counts.count)
    if usual == 0:
        return []
    edges = np.array([spans for spans in found if len(spans) == usual]).reshape(-1, usual, 2)
    return [
        Segment(
            start=rounded(_edge(edges[:, n, 0], 0.0) * STEP_SECONDS),
            end=rounded(_edge(edges[:, n, 1], 1.0) * STEP_SECONDS),
        )
        for n in range(usual)
    ]


def _edge(places: npt.NDArray[np.float64], outermost: float) -> float:
    """One edge, of what several grids say of it; the quantile 0.0 or 1.0 is its outermost."""
    enough = abs(outermost - OUTER)
    least, most = float(places.min()), float(places.max())
    if (most - least) * STEP_SECONDS <= NEAR:
        return (least + most) / 2
    common, rare = np.quantile(places, (enough, outermost), method="nearest").tolist()
    return float(common + rare) / 2 if abs(common - rare) * STEP_SECONDS > NEAR else float(common)


def _reached(energy: Floats, count: int) -> float:
    """The energy that so many windows or frames reach; 0.0 where there are fewer."""
    if len(energy) < count:
        return 0.0
    return float(np.partition(energy, len(energy) - count)[len(energy) - count])


def _joined(places: npt.NDArray[np.int_], most: float) -> Spans:
    """Runs of places, each no more than ``most`` from the one before."""
    if not len(places):
        return []
    cuts = np.flatnonzero(np.diff(places) > most + 1e-6)
    firsts = places[np.concatenate([[0], cuts + 1])]
    lasts = places[np.concatenate([cuts, [len(places) - 1]])]
    return [(int(first), int(last)) for first, last in zip(firsts, lasts, strict=True)]


def _counted(places: npt.NDArray[np.int_], first: int, last: int) -> int:
    """How many of the places are in a run."""
    return int(np.searchsorted(places, last, "right") - np.searchsorted(places, first))
