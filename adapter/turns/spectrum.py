"""How loud a line is in each of twelve bands, every 10 ms. No I/O.

Sound comes as PCM16 at 24 kHz. A window of 20 ms stands on each hop of 10 ms, and its power is
summed in bands of 300 Hz from 200 to 3800 Hz. Many hops are looked at together, because a call into
numpy costs about as much for ten of them as for one.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Bands = npt.NDArray[np.float64]

RATE: Final = 24_000
#: Samples from one frame to the next: 10 ms.
HOP: Final = 240
BANDS: Final = 12
#: Nothing below this level (dB of full scale, in one band) is speech: the quantiser's own noise.
QUIETEST_DB: Final = -66.0

_WINDOW = 2 * HOP
_LOW_HZ = 200
_HIGH_HZ = 3800
#: Bins of a window's spectrum: the first, the one past the last, and how many make a band.
_HZ_A_BIN = RATE // _WINDOW
_FIRST_BIN = _LOW_HZ // _HZ_A_BIN
_PAST_LAST_BIN = _HIGH_HZ // _HZ_A_BIN
_BINS_A_BAND = (_PAST_LAST_BIN - _FIRST_BIN) // BANDS
#: A frame is as loud as the median of so many, itself the last: a click does not pass it.
_MEDIAN_FRAMES = 5

_HANN = np.hanning(_WINDOW)
#: Scaled so that powers come out as shares of full scale.
_WINDOW_SHAPE = _HANN * (2.0 / (_HANN.sum() * 32768.0))
#: Sums the squares of each band's real and imaginary parts.
_TO_BANDS = np.kron(np.eye(BANDS), np.ones((2 * _BINS_A_BAND, 1)))
#: Keeps the logarithm of silence finite.
_LEAST_POWER = 1e-12


class Spectrum:
    """The bands of one line. The results do not depend on how the sound was cut."""

    def __init__(self) -> None:
        self._last_hop = bytes(2 * HOP)
        #: the levels of the last frames, as many as the next frame's median needs
        self._levels: Bands | None = None

    def hear(self, pcm: bytes) -> tuple[Bands, Bands]:
        """The powers (shares of full scale) and the smoothed levels (dB) of whole hops of sound,
        both of the shape (frames, bands)."""
        line = self._last_hop + pcm
        self._last_hop = line[-2 * HOP :]
        shape = (len(pcm) // (2 * HOP), _WINDOW)
        windows = np.ndarray(shape, "<i2", line, 0, (2 * HOP, 2)) * _WINDOW_SHAPE
        parts = np.fft.rfft(windows).view(np.float64)[:, 2 * _FIRST_BIN : 2 * _PAST_LAST_BIN]
        powers: Bands = np.square(parts) @ _TO_BANDS
        powers += _LEAST_POWER
        return powers, self._smooth(10 * np.log10(powers))

    def _smooth(self, levels: Bands) -> Bands:
        """The median of each frame and the four before it, by comparisons alone."""
        if self._levels is None:
            self._levels = np.tile(levels[0], (_MEDIAN_FRAMES - 1, 1))
        rows = np.concatenate([self._levels, levels])
        self._levels = rows[1 - _MEDIAN_FRAMES :]
        lower, higher = np.minimum(rows[:-1], rows[1:]), np.maximum(rows[:-1], rows[1:])
        # Of two pairs, neither the lowest nor the highest can be the median of five.
        one, other = np.maximum(lower[:-3], lower[2:-1]), np.minimum(higher[:-3], higher[2:-1])
        fifth = np.minimum(rows[4:], np.maximum(one, other))
        smooth: Bands = np.maximum(np.maximum(np.minimum(one, other), fifth), QUIETEST_DB)
        return smooth
