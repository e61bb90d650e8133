"""What is wrong with a recording itself: sound that is clipped, lost or late."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from .figures import Segment
from .levels import RATE, Mask, Samples

#: A frame, as the line counts them: 20 ms.
FRAME: Final = 160
#: The loudest code of mu-law begins here, and so does clipping.
FULL: Final = 31_600
#: So many samples in a row at full scale are clipped. A wave that is not clipped touches it for
#: fewer.
FLAT: Final = 4
#: Samples up to this size are no sound: the smallest of mu-law, and what a change of rate leaves.
NOTHING: Final = 8
#: A hole in the words has HOLE samples at least, and LONGEST_HOLE at most.
HOLE: Final = FRAME
LONGEST_HOLE: Final = RATE
#: Sound breaks off into a hole at once, so this many samples right beside it are speech still.
BESIDE: Final = 40
#: Where their RMS is less, mu-law turns them into no sound now and then, and nothing is missing.
SOFT: Final = 4.0 * NOTHING
#: They are speech if their power is within 20 dB of the whole segment's.
_WITHIN: Final = 100.0


def clipped(samples: Samples) -> int:
    """How many frames of 20 ms lie flat against full scale."""
    runs = _runs((samples >= FULL) | (samples <= -FULL), FLAT)
    frames: set[int] = set()
    for begin, end in runs:
        frames.update(range(begin // FRAME, (end - 1) // FRAME + 1))
    return len(frames)


def holes(samples: Samples, segments: list[Segment]) -> int:
    """How many frames of 20 ms are missing inside of segments.

    A hole is silence that the words break off into, and come out of, at once. A pause of a speaker
    fades on one side of it at least."""
    lost = 0
    for segment in segments:
        sound = samples[round(segment.start * RATE) : round(segment.end * RATE)]
        for begin, end in _runs((sound <= NOTHING) & (sound >= -NOTHING), HOLE):
            before, after = sound[max(0, begin - BESIDE) : begin], sound[end : end + BESIDE]
            least = max(_power(sound) / _WITHIN, SOFT**2)
            if end - begin <= LONGEST_HOLE and min(_power(before), _power(after)) > least:
                lost += max(1, round((end - begin) / FRAME))
    return lost


def _power(sound: Samples) -> float:
    return float((sound.astype(np.float64) ** 2).mean()) if len(sound) else 0.0


def _runs(mask: Mask, least: int) -> list[tuple[int, int]]:
    """(begin, end) of each run of at least ``least`` that are true."""
    if not mask.any():
        return []
    flat = np.zeros(len(mask) + 2, np.int8)
    flat[1:-1] = mask
    edges: npt.NDArray[np.int_] = np.flatnonzero(np.diff(flat))
    begins, ends = edges[::2], edges[1::2]
    long = ends - begins >= least
    return list(zip(begins[long].tolist(), ends[long].tolist(), strict=True))
