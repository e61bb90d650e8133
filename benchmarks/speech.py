"""Speech for the benchmarks: the shipped recordings, joined and repeated, PCM16 mono 24 kHz."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import soxr

FOLDER = Path(__file__).parent.parent / "carrier_sim" / "speech"


def speech(seconds: float) -> bytes:
    """That many seconds of the recordings one after the other."""
    parts = []
    for path in sorted(FOLDER.glob("*.wav")):
        with wave.open(str(path)) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
            parts.append(soxr.resample(samples, file.getframerate(), 24_000))
    joined = np.concatenate(parts)
    wanted = round(seconds * 24_000)
    return np.resize(joined, wanted).astype("<i2").tobytes()
