"""Codecs in a line: A-law, and ADPCM of 32 kbit/s, each coded and decoded again.

Source: ITU-T G.711 (A-law), and the IMA's ADPCM, which is of the same kind as ITU-T G.726 and
simpler: four bits a sample, by the difference to what was predicted, with a step that adapts.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from ..mulaw import Pcm


def _a_law(samples: npt.NDArray[np.int32]) -> Pcm:
    """Samples, coded and decoded: 13 bits, in segments that are twice as coarse each time."""
    magnitude = np.minimum(abs(samples) >> 3, 4095)
    # How many bits a magnitude has: frexp() says which power of two lies above.
    shift = np.maximum(1, np.frexp(magnitude)[1] - 5)
    decoded = ((magnitude >> shift << shift) + (1 << shift >> 1)) << 3
    signed: Pcm = np.where(samples >= 0, decoded, -decoded).astype(np.int16)
    return signed


_A_LAW: Final = _a_law(np.arange(-32768, 32768, dtype=np.int32))

_INDEX: Final = (-1, -1, -1, -1, 2, 4, 6, 8)
_STEPS: Final = tuple(min(32767, round(7 * 1.1**n)) for n in range(89))
#: By step and code: how far the prediction moves, and the next step. Looked up for each sample.
_MOVES: Final = tuple(
    tuple((step >> 3) + (step * code >> 2) for code in range(8)) for step in _STEPS
)
_NEXT: Final = tuple(tuple(max(0, min(88, n + moved)) for moved in _INDEX) for n in range(89))


class ALaw:
    """A-law. It remembers nothing."""

    def through(self, pcm: Pcm) -> Pcm:
        """These samples, as they are after it."""
        return _A_LAW[pcm.astype(np.int32) + 32768]


class Adpcm:
    """ADPCM of four bits. Each sample follows from all that went before it."""

    def __init__(self) -> None:
        self._predicted = 0
        self._index = 0

    def through(self, pcm: Pcm) -> Pcm:
        """These samples, as they are after it."""
        predicted, index = self._predicted, self._index
        # Where nobody speaks, the smallest step moves nothing.
        if index == 0 and predicted - 1 <= int(pcm.min()) and int(pcm.max()) <= predicted + 1:
            return np.full(len(pcm), predicted, dtype=np.int16)
        out = []
        for sample in pcm.tolist():
            # Comparisons instead of min() and max(), which take half of the time here.
            difference = sample - predicted
            if difference >= 0:
                code = (difference << 2) // _STEPS[index]
                code = code if code < 7 else 7
                predicted += _MOVES[index][code]
                predicted = predicted if predicted < 32767 else 32767
            else:
                code = (-difference << 2) // _STEPS[index]
                code = code if code < 7 else 7
                predicted -= _MOVES[index][code]
                predicted = predicted if predicted > -32768 else -32768
            index = _NEXT[index][code]
            out.append(predicted)
        self._predicted, self._index = predicted, index
        return np.array(out, dtype=np.int16)


def start(name: str) -> ALaw | Adpcm:
    """The codec of one call's direction."""
    return ALaw() if name == "a-law" else Adpcm()
