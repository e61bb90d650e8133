"""Noise under the words: hiss, a street, a train, an office where others talk; and levels.

Each is a loop of ten seconds, made once by its seed, as samples at 8 kHz whose level between 300
and 3400 Hz is 1. Nothing is recorded but the talk of the office, which is the shipped speech,
backwards: nobody can understand it, or take it for the far end's words.

A level is the RMS within the telephone's band, 300 to 3400 Hz (ITU-T G.712), because sound
outside of it is neither heard nor measured on a line.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from .. import wav
from ..mulaw import FRAME_BYTES, RATE, decode

Samples = npt.NDArray[np.float64]

BAND: Final = (300.0, 3400.0)
LOOP_SECONDS: Final = 10
#: Frames count as speech that lie within so many dB of the loudest.
SPEECH_WITHIN: Final = 20.0
#: Level of speech where it is not known beforehand: dBFS, as telephones have it (ITU-T P.56).
NOMINAL_SPEECH: Final = -26.0


def in_band(samples: Samples) -> Samples:
    """The samples, cut to the telephone's band."""
    spectrum = np.fft.rfft(samples)
    hertz = np.fft.rfftfreq(len(samples), 1 / RATE)
    spectrum[(hertz < BAND[0]) | (hertz > BAND[1])] = 0
    return np.asarray(np.fft.irfft(spectrum, len(samples)))


def rms(samples: Samples) -> float:
    """0.0 for none."""
    return float(np.sqrt(np.mean(samples**2))) if len(samples) else 0.0


def speech_rms(samples: Samples) -> float:
    """The level of the speech in these samples: of the frames of 20 ms within 20 dB of the loudest.
    0.0 where there is none."""
    whole = len(samples) // FRAME_BYTES * FRAME_BYTES
    if not whole:
        return 0.0
    power = np.mean(in_band(samples[:whole]).reshape(-1, FRAME_BYTES) ** 2, axis=1)
    loud = power[power >= power.max() / 10 ** (SPEECH_WITHIN / 10)]
    return float(np.sqrt(loud.mean()))


@functools.cache
def loop(kind: str, seed: int) -> Samples:
    """Ten seconds of this noise, whose end fits its beginning."""
    made = _MAKE[kind](np.random.default_rng(seed))
    return np.asarray(made / rms(in_band(made)), dtype=np.float64)


def _coloured(rng: np.random.Generator, slope: float, corner: float = 100.0) -> Samples:
    """Noise that falls by ``slope`` (1: 20 dB a decade) above the corner. It is made from its
    spectrum, so it is periodic."""
    length = LOOP_SECONDS * RATE
    hertz = np.fft.rfftfreq(length, 1 / RATE)
    spectrum = rng.standard_normal(len(hertz)) + 1j * rng.standard_normal(len(hertz))
    spectrum *= (1 + hertz / corner) ** -slope
    spectrum[hertz < 50] = 0
    return np.asarray(np.fft.irfft(spectrum, length))


def _hiss(rng: np.random.Generator) -> Samples:
    return _coloured(rng, 0.0)


def _street(rng: np.random.Generator) -> Samples:
    """Engines, tyres, and cars that come by."""
    t = np.arange(LOOP_SECONDS * RATE) / RATE
    swell = np.full(len(t), 0.5)
    for _ in range(3):
        away = (t - rng.uniform(0, LOOP_SECONDS) + LOOP_SECONDS / 2) % LOOP_SECONDS
        swell += rng.uniform(0.5, 1.0) * np.exp(-(((away - LOOP_SECONDS / 2) / 0.9) ** 2))
    return np.asarray(_coloured(rng, 1.0, 250.0) * swell)


def _train(rng: np.random.Generator) -> Samples:
    """Rumbling, and the wheels over a joint of the rails, twice in a row."""
    rumble = _coloured(rng, 1.2)
    t = np.arange(len(rumble)) / RATE
    beat = np.exp(-30 * (t % 1.25)) + 0.8 * np.exp(-30 * ((t - 0.22) % 1.25))
    return rumble + 4 * beat * _coloured(rng, 0.6, 400.0)


def _office(rng: np.random.Generator) -> Samples:
    """Five people at once, backwards."""
    length = LOOP_SECONDS * RATE
    talk = np.zeros(length)
    for name in sorted(wav.transcripts()):
        voice = decode(wav.speech(name)).astype(np.float64)[::-1]
        voice = np.tile(voice, length // len(voice) + 1)[:length]
        talk += np.roll(voice / rms(voice), int(rng.integers(length)))
    return talk + 0.1 * _coloured(rng, 0.5)


_MAKE: Final[dict[str, Callable[[np.random.Generator], Samples]]] = {
    "hiss": _hiss,
    "street": _street,
    "train": _train,
    "office": _office,
}
