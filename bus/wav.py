"""WAV files in and out, and the one place that changes sample rates for people's own recordings.

Python's wave module writes them. It reads PCM alone, but many recordings of calls are mu-law, and
editors of sound write floats, so files are read here.

Resampling here is for whole files (the spectrum is cut or padded, which is exact for what lies
below both Nyquist frequencies); calls use the codec worker's streaming filter.
"""

from __future__ import annotations

import struct
import wave
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt

from .errors import InvalidRequestError, naming
from .sound import LINE_RATE, LINEAR

Samples = npt.NDArray[np.int16]

#: Rates of files that are read (samples a second). A file with another one is mostly damaged.
_RATES: Final = (1_000, 768_000)
#: Formats as a file's head numbers them. An extensible one says further on which it is.
_PCM, _FLOAT, _A_LAW, _MU_LAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
#: Bytes of a sample in the formats that are read.
_WIDTHS: Final = {_PCM: (1, 2, 3, 4), _FLOAT: (4, 8), _A_LAW: (1,), _MU_LAW: (1,)}
#: Bytes of the longest description of a format.
_HEAD: Final = 40
#: Zeros put around a file while its rate is changed, so that its ends do not meet (seconds).
_MARGIN = 0.05


def read(path: Path | str, rate: int = LINE_RATE) -> Samples:
    """The file's sound as mono PCM16 at ``rate``.

    PCM of 8, 16, 24 or 32 bits, floats of 32 or 64 bits, mu-law or A-law; any rate, any number of
    channels (their mean). Raises InvalidRequestError that names the file where it is no such WAV.
    """
    frames, found = _frames(path)
    return _as_pcm16(_resample(frames.mean(axis=1), found, rate))


def read_channels(path: Path | str, rate: int = LINE_RATE) -> list[Samples]:
    """As :func:`read`, each channel by itself."""
    frames, found = _frames(path)
    return [_as_pcm16(_resample(channel, found, rate)) for channel in frames.T]


def _frames(path: Path | str) -> tuple[npt.NDArray[np.float64], int]:
    """The sound of a file, one column for each channel, and its rate."""
    with Path(path).open("rb") as file:
        head, data = _chunks(file)
    if len(head) < 16 or not any(head[2:4]):
        raise InvalidRequestError(
            f"{path} is no PCM WAV file, or it is empty, or cut off: for instance "
            "`ffmpeg -i FILE -c:a pcm_s16le OUT.wav` makes one"
        )
    kind, channels, found, _, _, bits = struct.unpack_from("<HHIIHH", head)
    if kind == _EXTENSIBLE and len(head) >= 26:
        (kind,) = struct.unpack_from("<H", head, 24)
    if kind not in _WIDTHS:
        raise InvalidRequestError(
            f"{path} is no PCM WAV file: its sound has format {kind}, and PCM, float, mu-law and "
            "A-law are read; for instance `ffmpeg -i FILE -c:a pcm_s16le OUT.wav` converts it"
        )
    width = -(-bits // 8)
    if width not in _WIDTHS[kind]:
        read = " and ".join(str(8 * each) for each in _WIDTHS[kind])
        raise InvalidRequestError(
            f"{path} has samples of {bits} bits; {read} are read: for instance "
            "`ffmpeg -i FILE -c:a pcm_s16le OUT.wav` converts it"
        )
    if not _RATES[0] <= found <= _RATES[1]:
        raise InvalidRequestError(
            f"{path} says that it has {found} samples a second; {_RATES[0]} to {_RATES[1]} are read"
        )
    whole = len(data) // (width * channels) * width * channels
    return _as_float(data[:whole], kind, width).reshape(-1, channels), found


def _chunks(file: BinaryIO) -> tuple[bytes, bytes]:
    """The format and the sound, as the file's chunks have them. Empty: there is no such chunk."""
    head = b""
    begin = file.read(12)
    if begin[:4] == b"RIFF" and begin[8:] == b"WAVE":
        while len(chunk := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", chunk)
            if name == b"data":
                return head, file.read()[:size]
            after = file.tell() + size + size % 2
            if name == b"fmt ":
                head = file.read(min(size, _HEAD))
            file.seek(after)
    return b"", b""


def resample(samples: Samples, found: int, wanted: int) -> Samples:
    """A whole recording at another rate."""
    return _as_pcm16(_resample(samples.astype(np.float64), found, wanted))


def write(path: Path, *channels: Samples, rate: int = LINE_RATE) -> None:
    """Write PCM16; several channels are padded with silence to the longest."""
    longest = max((len(channel) for channel in channels), default=0)
    frames = np.zeros((longest, len(channels)), np.int16)
    for column, channel in enumerate(channels):
        frames[: len(channel), column] = channel
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path), path.open("wb") as raw, wave.open(raw, "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(frames.astype("<i2").tobytes())


def from_bytes(pcm: bytes) -> Samples:
    """Samples of PCM16 little-endian."""
    return np.frombuffer(pcm, "<i2").astype(np.int16)


def _a_law(code: int) -> int:
    """The sample of an A-law code, which has every other bit inverted (ITU-T G.711)."""
    code ^= 0x55
    magnitude, segment = ((code & 0x0F) << 4) + 8, (code & 0x70) >> 4
    if segment:
        magnitude = (magnitude + 0x100) << (segment - 1)
    return magnitude if code & 0x80 else -magnitude


def _as_float(data: bytes, kind: int, width: int) -> npt.NDArray[np.float64]:
    """Samples of ``width`` bytes, scaled to the range of PCM16."""
    if kind == _FLOAT:
        found = np.nan_to_num(np.frombuffer(data, f"<f{width}").astype(np.float64))
        return np.clip(found, -1.0, 1.0) * 32768.0
    if kind in (_A_LAW, _MU_LAW):
        table = LINEAR if kind == _MU_LAW else [_a_law(code) for code in range(256)]
        return np.asarray(table, np.float64)[np.frombuffer(data, np.uint8)]
    if width == 1:  # unsigned, by WAV's rule
        return (np.frombuffer(data, np.uint8).astype(np.float64) - 128.0) * 256.0
    if width == 2:
        return np.frombuffer(data, "<i2").astype(np.float64)
    if width == 4:
        return np.frombuffer(data, "<i4").astype(np.float64) / 65536.0
    padded = np.zeros((len(data) // 3, 4), np.uint8)
    padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
    return padded.reshape(-1).view("<i4").astype(np.float64) / 65536.0


def _as_pcm16(samples: npt.NDArray[np.float64]) -> Samples:
    return np.clip(np.rint(samples), -32768, 32767).astype(np.int16)


def _resample(samples: npt.NDArray[np.float64], found: int, wanted: int) -> npt.NDArray[np.float64]:
    if found == wanted or len(samples) == 0:
        return samples
    length = round(len(samples) * wanted / found)
    # Margin and total are multiples of found / gcd: whole samples at the other rate too.
    step = found // int(np.gcd(found, wanted))
    margin = max(1, round(_MARGIN * found / step)) * step
    total = -(-(len(samples) + 2 * margin) // step) * step
    padded = np.zeros(total)
    padded[margin : margin + len(samples)] = samples
    spectrum = np.fft.rfft(padded)
    out_total = total * wanted // found
    kept = np.zeros(out_total // 2 + 1, np.complex128)
    n = min(len(kept), len(spectrum))
    kept[:n] = spectrum[:n]
    out = np.fft.irfft(kept, out_total) * (wanted / found)
    first = margin * wanted // found
    return out[first : first + length]
