"""DTMF tones as sound: ITU-T Q.23 pairs at Q.24 timings, for legs that carry our own stream.

Levels are in dBm0, for which mu-law's full scale is +3.17 (ITU-T G.711). By default the high group
has -6 and the low group -8: the usual 2 dB of twist against the loss of high frequencies on real
lines, and a sum that stays well inside what mu-law can carry. Edges are raised cosines of 5 ms,
so that a tone does not click.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np
import numpy.typing as npt

from . import mulaw

LOW_HZ: Final = (697, 770, 852, 941)
HIGH_HZ: Final = (1209, 1336, 1477, 1633)
_KEYPAD: Final = ("123A", "456B", "789C", "*0#D")

#: digit -> (low, high) in Hz
FREQUENCIES: Final = {
    key: (low, high)
    for row, low in zip(_KEYPAD, LOW_HZ, strict=True)
    for key, high in zip(row, HIGH_HZ, strict=True)
}

#: Seconds of silence that these letters stand for, as in Twilio's ``<Play digits>``.
PAUSES: Final = {"w": 0.5, "W": 1.0}

_DIGITS: Final = re.compile(r"[0-9A-D*#wW]+")
_EDGE_SECONDS: Final = 0.005


def peak(level_dbm0: float) -> float:
    """The amplitude of a sine of this level, in PCM16 steps."""
    return float(mulaw.PEAK * 10 ** ((level_dbm0 - 3.17) / 20))


def dtmf(
    digits: str,
    *,
    rate: int = 24_000,
    tone: float = 0.1,
    pause: float = 0.1,
    high_dbm0: float = -6.0,
    low_dbm0: float = -8.0,
) -> npt.NDArray[np.int16]:
    """``digits`` as PCM16 at ``rate``: int16 of shape (samples,).

    Each digit is ``tone`` seconds of sound and ``pause`` seconds of silence; ``w`` is 0.5 s and
    ``W`` 1 s of silence. Raises ValueError for another character, for none at all, and for levels
    whose sum does not fit.
    """
    if not _DIGITS.fullmatch(digits):
        raise ValueError(f"DTMF digits {digits!r} must be one or more of 0-9 A-D * # w W")
    high_peak, low_peak = peak(high_dbm0), peak(low_dbm0)
    if high_peak + low_peak > mulaw.PEAK:
        raise ValueError(f"{high_dbm0:g} and {low_dbm0:g} dBm0 together exceed mu-law's full scale")
    time = np.arange(round(tone * rate)) / rate
    edge = np.minimum(1.0, np.minimum(time, tone - time) / _EDGE_SECONDS).clip(0.0)
    envelope = 0.5 - 0.5 * np.cos(np.pi * edge)
    silence = np.zeros(round(pause * rate), np.int16)
    parts: list[npt.NDArray[np.int16]] = []
    for digit in digits:
        if digit in PAUSES:
            parts.append(np.zeros(round(PAUSES[digit] * rate), np.int16))
            continue
        low, high = FREQUENCIES[digit]
        pair = low_peak * np.sin(2 * np.pi * low * time) + high_peak * np.sin(
            2 * np.pi * high * time
        )
        parts += (np.rint(pair * envelope).astype(np.int16), silence)
    return np.concatenate(parts)


def dtmf_mulaw(digits: str, *, tone: float = 0.1, pause: float = 0.1) -> bytes:
    """``digits`` as mu-law at 8 kHz, one byte a sample; errors as :func:`dtmf`."""
    return mulaw.encode(dtmf(digits, rate=8000, tone=tone, pause=pause)).tobytes()
