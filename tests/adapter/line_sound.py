"""Sound as a telephone line brings it: the shipped recordings at 24 kHz in the telephone's band,
with noise of several kinds under it."""

from __future__ import annotations

import functools
import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt

RATE = 24_000
SPEECH = Path(__file__).resolve().parents[2] / "carrier_sim" / "speech"
NAMES = sorted(path.name for path in SPEECH.glob("*.wav"))

Samples = npt.NDArray[np.float64]


def band(sound: Samples, low: float, high: float) -> Samples:
    """What is left of ``sound`` between two frequencies, in Hz."""
    from scipy.signal import butter, sosfilt  # takes a second, which most workers of pytest save

    return np.asarray(sosfilt(butter(4, [low, high], "band", fs=RATE, output="sos"), sound))


@functools.cache
def words(name: str) -> Samples:
    """The recording ``name`` without what lies around its words: silence, and sounds of less than
    0.1 s that 0.15 s of silence or more part from the rest (one begins with a click).

    Call it inside of a test: each worker of pytest reads all modules, and would import scipy.
    """
    with wave.open(str(SPEECH / name)) as file:
        assert (file.getframerate(), file.getnchannels()) == (16_000, 1)
        sound = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float64)
    from scipy.signal import resample_poly  # as above

    sound = band(resample_poly(sound, 3, 2), 200, 3500)
    frames = np.sqrt((sound[: len(sound) // 240 * 240].reshape(-1, 240) ** 2).mean(axis=1))
    loud = np.nonzero(frames > 0.03 * frames.max())[0]
    sounds = np.split(loud, np.nonzero(np.diff(loud) > 15)[0] + 1)
    spoken = [heard for heard in sounds if heard[-1] - heard[0] >= 9]
    found: Samples = sound[spoken[0][0] * 240 : (spoken[-1][-1] + 1) * 240]
    return found


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * RATE))


@functools.lru_cache(maxsize=8)
def noise(kind: str, count: int, seed: int) -> Samples:
    """Noise of power 1: clean (none), white, line (300 to 3400 Hz), pink, hum (50 Hz and up).

    It is the same array for whoever asks for the same, and cannot be written."""
    made = _noise(kind, count, seed)
    made.flags.writeable = False
    return made


def _noise(kind: str, count: int, seed: int) -> Samples:
    if kind == "clean":
        return np.zeros(count)
    rng = np.random.default_rng(seed)
    made: Samples = rng.standard_normal(count)
    if kind == "line":
        made = band(made, 300, 3400)
    elif kind == "pink":
        made = np.cumsum(made)
        sums = np.cumsum(made)
        sums[2_400:] -= sums[:-2_400].copy()
        made = made - sums / 2_400  # less its mean of the last 0.1 s
    elif kind == "hum":
        time = np.arange(RATE // 50) / RATE
        period = np.sum([np.sin(2 * np.pi * 50 * k * time + k) / k for k in range(1, 20)], axis=0)
        made = np.resize(period, count)
    else:
        assert kind == "white"
    return made / np.sqrt((made**2).mean())


def clicks(count: int, seed: int) -> Samples:
    """One click of 1 to 8 ms each 375 ms."""
    rng = np.random.default_rng(seed)
    made = np.zeros(count)
    for begin in range(5000, count - 500, 9000):
        made[begin : begin + rng.integers(20, 200)] = 8000.0 * rng.choice([-1, 1])
    return made


def with_noise(sound: Samples, kind: str, snr_db: float, seed: int, power: float) -> Samples:
    """``sound`` with noise ``snr_db`` below ``power`` (mean square of the words)."""
    return sound + noise(kind, len(sound), seed) * np.sqrt(power) * 10 ** (-snr_db / 20)


def power(sound: Samples) -> float:
    return float((sound**2).mean())


def pcm(sound: Samples) -> bytes:
    made: bytes = np.clip(np.rint(sound), -32768, 32767).astype("<i2").tobytes()
    return made
