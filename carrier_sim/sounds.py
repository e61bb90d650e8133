"""The sounds of far ends: recorded speech, music, ringing and silence, by short texts.

A sound is one of the texts below; a row of them with ``+`` between is said one after the other, for
example ``speech:austen-0880+music:4+ringing:6``.

| text | is |
|---|---|
| ``speech:austen-0880`` | a recording of ``carrier_sim/speech``, by file name |
| ``other-voice:austen-0880`` | the same in the voice of somebody else |
| ``wav:hello.wav`` | a WAV file: PCM16, any rate |
| ``music:8`` | 8 s of music, as a caller on hold hears it |
| ``ringing:6`` | 6 s of ringing: 2 s of tone, 4 s of none (ITU-T E.180, North America) |
| ``busy:3`` | 3 s of the busy tone |
| ``beep:0.5`` | a tone of 1 kHz, as an answering machine has it |
| ``fax:3`` | a tone of 2100 Hz, as a fax has it that answers |
| ``silence:2`` | 2 s of nothing |

All of it is μ-law at 8 kHz.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from . import wav
from .mulaw import RATE, decode, encode

#: Longest row of sounds: seconds.
LONGEST: Final = 600.0
#: How much faster the other voice speaks, and how much higher. Less is taken for the same reader.
OTHER_VOICE: Final = 1.22
#: The chords that the music goes through, two seconds each: Hz.
_CHORDS: Final = (
    (261.6, 329.6, 392.0, 493.9),
    (220.0, 261.6, 329.6, 392.0),
    (293.7, 349.2, 440.0, 523.3),
    (196.0, 246.9, 293.7, 392.0),
)
_NOTE: Final = 0.25


def read(text: str, directory: Path | None = None) -> bytes:
    """The sound of a text, or of several with ``+`` between; at least one sample.

    A relative path counts from ``directory`` (default: this process's). ValueError names the
    mistake in the text, OSError the trouble with its file.
    """
    row = bytearray()
    for part in text.split("+"):
        row += _one(part.strip(), directory)
        if len(row) > LONGEST * RATE:
            raise ValueError(f"{text[:60]!r} is longer than {LONGEST:g} s")
    return bytes(row)


def _one(text: str, directory: Path | None) -> bytes:
    kind, _, argument = text.partition(":")
    if kind in _GENERATED:
        sound = _GENERATED[kind](_seconds(kind, argument))
    elif kind not in ("speech", "other-voice", "wav"):
        known = ", ".join(("speech", "other-voice", "wav", *_GENERATED))
        raise ValueError(f"{text!r} is no sound: it has to begin with one of {known}, and a colon")
    elif not argument:
        raise ValueError(f"{kind}: which recording? Write for instance {kind}:{_EXAMPLE[kind]}")
    elif kind == "wav":
        path = Path(argument) if directory is None else directory / argument
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
        sound = wav.read_cached(str(path))
    elif kind == "speech":
        sound = wav.speech(argument)
    else:
        sound = _other_voice(argument)
    if not sound:
        raise ValueError(f"{text!r} has no sound in it")
    return sound


_EXAMPLE: Final = {"speech": "austen-0880", "other-voice": "austen-0880", "wav": "hello.wav"}


def _seconds(kind: str, argument: str) -> float:
    try:
        seconds = float(argument or "nan")
    except ValueError:
        seconds = math.nan
    if not 0.02 <= seconds <= LONGEST:
        raise ValueError(f"{kind}:{argument}: seconds from 0.02 to {LONGEST:g} are wanted")
    return seconds


@functools.lru_cache(maxsize=8)
def _other_voice(name: str) -> bytes:
    """A recording in a higher voice: played faster, so that pitch and formants rise together."""
    samples = decode(wav.speech(name)).astype(np.float64)
    return encode(wav.to_line_rate(samples, round(RATE * OTHER_VOICE)))


def _tones(
    seconds: float, hz: Sequence[float], on: float, off: float, amplitude: float = 4000.0
) -> bytes:
    """Sines that sound together for ``on`` seconds and are off for ``off``, again and again."""
    t = np.arange(round(RATE * seconds)) / RATE
    wave = amplitude * sum(np.sin(2 * np.pi * each * t) for each in hz)
    return _ulaw(np.where(t % (on + off) < on, wave, 0.0))


def _music(seconds: float) -> bytes:
    """Broken chords, soft enough for a line, the same ones each time."""
    t = np.arange(round(RATE * seconds)) / RATE
    wave = np.zeros(len(t))
    for n in range(math.ceil(seconds / _NOTE)):
        chord = _CHORDS[n // 8 % len(_CHORDS)]
        start = round(n * _NOTE * RATE)
        part = t[start : start + round(2 * _NOTE * RATE)] - n * _NOTE
        hz = chord[n % len(chord)]
        tone = np.sin(2 * np.pi * hz * part) + 0.4 * np.sin(4 * np.pi * hz * part)
        wave[start : start + len(part)] += 3000 * tone * np.exp(-4 * part)
    return _ulaw(wave)


def _ulaw(wave: npt.NDArray[np.float64]) -> bytes:
    return encode(np.asarray(np.clip(np.rint(wave), -32768, 32767), dtype=np.int16))


#: The sounds that are made and not recorded, by kind: seconds in, μ-law out.
_GENERATED: Final[dict[str, Callable[[float], bytes]]] = {
    "music": functools.lru_cache(maxsize=16)(_music),
    "ringing": lambda seconds: _tones(seconds, (440, 480), 2.0, 4.0),
    "busy": lambda seconds: _tones(seconds, (480, 620), 0.5, 0.5),
    "beep": lambda seconds: _tones(seconds, (1000,), seconds, 1.0, 8000),
    "fax": lambda seconds: _tones(seconds, (2100,), seconds, 1.0, 8000),
    "silence": lambda seconds: b"\xff" * round(RATE * seconds),
}
