"""WAV files: PCM16 of any rate to the line's μ-law, and μ-law to PCM16; the shipped speech."""

from __future__ import annotations

import functools
import io
import json
import math
import wave
import zlib
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from .mulaw import RATE, decode, encode

SPEECH_DIR: Final = Path(__file__).parent / "speech"
#: Taps on each side of the resampler's windowed sinc, in samples of the lower rate.
_HALF_WIDTH: Final = 24


def read(source: Path | bytes) -> bytes:
    """A mono or stereo PCM16 WAV of any rate (channels are averaged) as μ-law at 8 kHz.

    Raises ValueError when it is no PCM16 WAV.
    """
    data = source if isinstance(source, bytes) else source.read_bytes()
    try:
        with wave.open(io.BytesIO(data)) as w:
            if w.getsampwidth() != 2:
                raise ValueError(f"a WAV of {8 * w.getsampwidth()} bits: 16-bit PCM is wanted")
            rate, channels = w.getframerate(), w.getnchannels()
            pcm = np.frombuffer(w.readframes(w.getnframes()), dtype="<i2")
    except (wave.Error, EOFError) as e:
        raise ValueError(f"not a PCM WAV file: {e}") from e
    mono = pcm.reshape(-1, channels).mean(axis=1)
    return encode(to_line_rate(mono, rate))


@functools.lru_cache(maxsize=32)
def read_cached(path: str) -> bytes:
    """``read`` of a path. It is kept, because many calls may play one recording."""
    return read(Path(path))


def to_line_rate(samples: npt.NDArray[np.float64], rate: int) -> npt.NDArray[np.int16]:
    """Resample to 8 kHz with a windowed sinc (Kaiser, cut off at 0.92 of the lower Nyquist)."""
    ratio = min(1.0, RATE / rate)
    width = int(np.ceil(_HALF_WIDTH / ratio))
    if rate == RATE:
        out = samples
    elif rate % RATE == 0:
        # Every output sample falls on an input sample: one filter, then every n-th value.
        taps = _taps(np.arange(-width, width + 1.0), ratio, width)
        out = np.convolve(samples, taps)[width : width + len(samples) : rate // RATE]
    else:
        padded = np.concatenate([np.zeros(width), samples, np.zeros(width + 1)])
        out = np.empty(len(samples) * RATE // rate)
        offsets = np.arange(-width, width + 1)
        # Output samples lie at few places between two input samples: at 44.1 kHz at 80.
        places = np.arange(min(len(out), RATE // math.gcd(rate, RATE)))
        filters = _taps(offsets - (places * rate % RATE / RATE)[:, None], ratio, width)
        for start in range(0, len(out), 4096):
            n = np.arange(start, min(start + 4096, len(out)))
            picked = padded[(n * rate // RATE)[:, None] + width + offsets]
            out[n] = (filters[n % len(places)] * picked).sum(axis=1)
    return np.asarray(np.clip(np.rint(out), -32768, 32767), dtype=np.int16)


def _taps(t: npt.NDArray[np.float64], ratio: float, width: int) -> npt.NDArray[np.float64]:
    cutoff = 0.92 * ratio
    window = np.i0(8.0 * np.sqrt(np.clip(1 - (t / (width + 1)) ** 2, 0, 1))) / np.i0(8.0)
    return np.asarray(cutoff * np.sinc(cutoff * t) * window)


def write_pcm(ulaw: bytes | bytearray) -> bytes:
    """μ-law as the bytes of a PCM16 mono 8 kHz WAV."""
    out = io.BytesIO()
    with wave.open(out, "wb") as w:
        w.setnchannels(1)
        w.setsampwidth(2)
        w.setframerate(RATE)
        w.writeframes(decode(ulaw).astype("<i2").tobytes())
    return out.getvalue()


@functools.cache
def transcripts() -> dict[str, str]:
    """The words of each shipped recording, by file name."""
    loaded: dict[str, str] = json.loads((SPEECH_DIR / "transcripts.json").read_text("utf-8"))
    return loaded


def speech(name: str) -> bytes:
    """A shipped recording as μ-law, by file name (with or without .wav)."""
    file = name if name.endswith(".wav") else f"{name}.wav"
    if file not in transcripts():
        raise ValueError(f"no recording {name!r}: there are {', '.join(sorted(transcripts()))}")
    return read_cached(str(SPEECH_DIR / file))


def say(text: str) -> bytes:
    """The sound of <Say>: the recording of these words, or else one chosen by the text."""
    plain = " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())
    names = sorted(transcripts())
    for name in names:
        if transcripts()[name] == plain:
            return speech(name)
    return speech(names[zlib.crc32(plain.encode()) % len(names)])
