"""Keys that are pressed as tones (ITU-T Q.23), found in one side's sound."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from . import levels
from .figures import Digit, rounded
from .levels import RATE, STEP, Floats, Mask, Samples

LOW: Final = (697.0, 770.0, 852.0, 941.0)
HIGH: Final = (1209.0, 1336.0, 1477.0, 1633.0)
KEYS: Final = ("123A", "456B", "789C", "*0#D")
#: A tone is looked for in windows of 20 ms, one each 10 ms.
_WINDOW: Final = 160
_HOP: Final = 80
#: It is there in so many windows one after the other: 40 ms.
_LEAST: Final = 3
#: Both tones together have more than this share of a window's energy, and neither has more than
#: _TWIST times the energy of the other.
_PURE: Final = 0.8
_TWIST: Final = 10.0
#: A key that the line told of, and a tone of it within this time (seconds), are one key.
SAME_WITHIN: Final = 1.0
#: Fainter windows are not looked at (mean square of PCM16).
_FAINT: Final = 2_500.0
#: Windows in one product. BLAS shares a large product out to all cores, which takes more CPU in all
#: than it saves of the time.
_AT_ONCE: Final = 100


def _waves() -> Floats:
    at = np.arange(_WINDOW) / RATE * 2 * np.pi
    rows = [wave(hertz * at) for hertz in (*LOW, *HIGH) for wave in (np.cos, np.sin)]
    # Scaled so that the square of a product is the mean square of that tone in the window.
    waves: Floats = (np.array(rows).T * (np.sqrt(2.0) / _WINDOW)).astype(np.float32)
    return waves


_WAVES: Final = _waves()


def _keys(heard: Floats, power: Floats) -> npt.NDArray[np.int_]:
    """The key whose tones each window (row) is, as a number, or -1."""
    squares = (heard @ _WAVES) ** 2
    tones = squares[:, ::2] + squares[:, 1::2]
    low, high = tones[:, :4], tones[:, 4:]
    strong_low, strong_high = low.max(axis=1), high.max(axis=1)
    there = (
        (strong_low + strong_high > _PURE * power)
        & (strong_low < _TWIST * strong_high)
        & (strong_high < _TWIST * strong_low)
    )
    keys: npt.NDArray[np.int_] = np.where(there, 4 * low.argmax(axis=1) + high.argmax(axis=1), -1)
    return keys


def find(samples: Samples, side: str) -> tuple[list[Digit], Mask]:
    """The keys of a side, and the steps in which their tones sound."""
    silenced = np.zeros(len(samples) // STEP, np.bool_)
    if len(samples) < _WINDOW:
        return [], silenced
    hops = levels.pieces(samples, _HOP)
    energy = levels.energies(hops)
    power: Floats = (energy[:-1] + energy[1:]) / np.float32(_WINDOW)
    loud = np.flatnonzero(power > _FAINT)
    key = np.full(len(power), -1)
    for begin in range(0, len(loud), _AT_ONCE):
        some = loud[begin : begin + _AT_ONCE]
        heard = np.concatenate([hops[some], hops[some + 1]], axis=1)
        key[some] = _keys(heard, power[some])
    digits: list[Digit] = []
    edges = np.flatnonzero(np.diff(key)) + 1
    for begin, end in zip([0, *edges], [*edges, len(key)], strict=True):
        if key[begin] >= 0 and end - begin >= _LEAST:
            at, until = begin * _HOP, (end - 1) * _HOP + _WINDOW
            pressed = KEYS[key[begin] // 4][key[begin] % 4]
            digits.append(Digit(at=rounded(at / RATE), side=side, digit=pressed))
            # The tone begins and ends within the windows around it.
            silenced[max(0, at - _WINDOW) // STEP : (until + _WINDOW) // STEP] = True
    return digits, silenced


def joined(heard: list[Digit], told: Iterable[Digit]) -> list[Digit]:
    """All keys in the order of their times. One that was both heard and told of stands once, with
    the time at which it was heard, because that is the more exact one."""
    rest, found = list(heard), list(heard)
    for key in sorted(told, key=lambda key: key.at):
        same = next(
            (
                tone
                for tone in rest
                if (tone.side, tone.digit) == (key.side, key.digit)
                and abs(tone.at - key.at) < SAME_WITHIN
            ),
            None,
        )
        if same is None:
            found.append(key)
        else:
            rest.remove(same)
    return sorted(found, key=lambda key: key.at)
