"""Whether noise that comes and goes hides where a side speaks.

Steady noise is taken off the sound. Cars, wheels and other people cannot be: they stand out from
the quietest moments as words do. They are heard in the pauses, though. So a side has such noise if
most of its pauses have some that is as loud as words that count.

Where such noise is loudest there may be no pause. But words do not go on for long without a moment
that is far softer. So a side is in doubt, too, if it goes on for longer, and is softer elsewhere.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from . import segments
from .levels import STEP_SECONDS, WINDOW, Floats, Mask
from .segments import Loudness

#: Speech comes this near to a side's loudest (power ratio; 12 dB), and stays there for so long in
#: all (seconds). The beat of a wheel is shorter.
SPEAKS: Final = 16.0
LASTS: Final = 0.15
#: It begins and fades more softly, for so long (seconds).
FADES_IN: Final = 0.25
FADES_OUT: Final = 0.3
#: A pause lasts so long at least (seconds). Longer ones are cut into pieces of about this length.
PAUSE: Final = 0.6
PIECE: Final = 1.0
#: The noise is in so many pieces at least, and in this share of them. Words that are too soft for
#: speech leave some of them free. If there are fewer pieces, and all sound so, it may be either.
LEAST_PIECES: Final = 3
MOST_PIECES: Final = 2 / 3
#: A piece is heard in stretches of this length (steps; 50 ms). If more than this share of them is
#: no sound at all, no noise is on the line.
STRETCH: Final = 20
STILL: Final = 0.1
#: The soft and the loud stretches of a piece (percentiles). Noise that moves has them this far
#: apart (power ratio; 1.5 dB).
SOFT: Final = 10
LOUD: Final = 95
MOVES: Final = 1.4

#: The longest time for which words go on (seconds) without a moment of so many steps (20 ms) that
#: is this much softer than the loudest (power ratio; 18 dB). Music goes on at the level of speech.
UNBROKEN: Final = 2.5
MOMENT: Final = 8
SOFTER: Final = 64.0
#: Steady noise may be louder than that. It is never this much softer elsewhere (power ratio; 2 dB).
#: The softest moments are those up to this percentile.
ELSEWHERE: Final = 1.6
SOFTEST: Final = 2


#: What a report says of such noise, and where there are too few pieces to know.
HIDES: Final = "noise that comes and goes hides where their speech begins and ends"
DOUBTFUL: Final = "their pauses are too short to tell noise from their words"


def doubt(loud: Loudness) -> str | None:
    """Why it is not sure where a side that is so loud speaks; None where it is."""
    loudest = loud.loudest
    if loudest <= 0.0:
        return None
    pieces = _pieces(loud, loud.windows > loudest / SPEAKS)
    moving = [_moves(piece, loudest) for piece in pieces]
    if sum(moving) >= max(LEAST_PIECES, MOST_PIECES * len(moving)):
        return HIDES
    if 0 < len(moving) < LEAST_PIECES and all(moving):
        return DOUBTFUL
    return DOUBTFUL if _unbroken(loud) else None


def _pieces(side: Loudness, loud: Mask) -> list[Floats]:
    """A side's pauses in pieces, without lost frames: the energy of their stretches. ``loud``: the
    windows that are as loud as speech."""
    pauses = []
    begin = 0
    for first, last in segments.joined(np.flatnonzero(loud), segments.UTTERANCES_APART):
        if np.count_nonzero(loud[first : last + 1]) * STEP_SECONDS >= LASTS:
            pauses.append(slice(begin, max(begin, first - round(FADES_IN / STEP_SECONDS))))
            begin = last + WINDOW + round(FADES_OUT / STEP_SECONDS)
    pauses.append(slice(begin, None))
    pieces: list[Floats] = []
    for each in pauses:
        pause = side.energy[each][~side.lost[each]]
        stretches = _sums(pause, STRETCH)
        seconds = len(stretches) * STRETCH * STEP_SECONDS
        if seconds >= PAUSE:
            pieces += np.array_split(stretches, max(1, round(seconds / PIECE)))
    return pieces


def _moves(stretches: Floats, loudest: float) -> bool:
    """Whether a piece has noise that moves, and that counts as speech where it is loud."""
    windows = stretches * (WINDOW / STRETCH)
    if np.mean(windows < 1.0) > STILL:
        return False
    soft, loud = np.percentile(windows, (SOFT, LOUD))
    return bool(loud > max(loudest / segments.FAINTEST, soft * MOVES))


def _unbroken(side: Loudness) -> bool:
    """Whether a side goes on for longer than words do, and is softer elsewhere."""
    moments = _sums(side.energy, MOMENT) * (WINDOW / MOMENT)
    count = round(UNBROKEN / (MOMENT * STEP_SECONDS))
    if len(moments) < count or np.mean(moments < 1.0) > STILL:
        return False
    held = np.lib.stride_tricks.sliding_window_view(moments, count).min(axis=1).max()
    softest = np.percentile(moments[moments >= 1.0], SOFTEST)
    lowest = max(side.loudest / SOFTER, softest * ELSEWHERE)
    return bool(lowest < held < side.loudest / SPEAKS)


def _sums(energy: Floats, count: int) -> Floats:
    """The energy of each stretch of so many steps."""
    sums: Floats = energy[: len(energy) // count * count].reshape(-1, count).sum(axis=1)
    return sums
