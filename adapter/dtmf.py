"""DTMF as sound: the pairs of tones of ITU-T Q.23, for far ends that listen to sound.

Each digit lasts 100 ms, with 100 ms of silence after it; ``w`` is 0.5 s of silence, ``W`` 1 s (as
in Twilio's ``sendDigits``). The tones stand at about -8 and -6 dBm0 (the high one is the louder,
as Q.23's senders make it), so that a receiver of Q.24 knows them after mu-law.
"""

from __future__ import annotations

import numpy as np

from trunkline.bus.digits import WAIT_SECONDS, check_digits
from trunkline.bus.sound import LINE_RATE

TONE_SECONDS = 0.1
PAUSE_SECONDS = 0.1

_LOW = (697.0, 770.0, 852.0, 941.0)
_HIGH = (1209.0, 1336.0, 1477.0)
_KEYS = ("123", "456", "789", "*0#")
PAIRS: dict[str, tuple[float, float]] = {
    key: (_LOW[row], _HIGH[column])
    for row, keys in enumerate(_KEYS)
    for column, key in enumerate(keys)
}

_LOW_LEVEL = 0.27
_HIGH_LEVEL = 0.34
_RAMP_SECONDS = 0.003


def tones(digits: str) -> bytes:
    """``digits`` as PCM16 mono 24 kHz; InvalidRequestError for anything else."""
    check_digits(digits)
    parts: list[np.ndarray] = []
    for digit in digits:
        if digit in WAIT_SECONDS:
            parts.append(np.zeros(int(WAIT_SECONDS[digit] * LINE_RATE)))
        else:
            parts.append(_tone(*PAIRS[digit]))
            parts.append(np.zeros(int(PAUSE_SECONDS * LINE_RATE)))
    pcm: bytes = np.rint(np.concatenate(parts) * 32767).astype("<i2").tobytes()
    return pcm


def _tone(low: float, high: float) -> np.ndarray:
    count = int(TONE_SECONDS * LINE_RATE)
    time = np.arange(count) / LINE_RATE
    wave: np.ndarray = _LOW_LEVEL * np.sin(2 * np.pi * low * time)
    wave += _HIGH_LEVEL * np.sin(2 * np.pi * high * time)
    ramp = int(_RAMP_SECONDS * LINE_RATE)
    edge = 0.5 - 0.5 * np.cos(np.pi * np.arange(ramp) / ramp)
    wave[:ramp] *= edge
    wave[-ramp:] *= edge[::-1]
    return wave
