"""WAV files of any kind become PCM16 mono 24 kHz, with their sound unchanged."""

from __future__ import annotations

import struct
import wave
from pathlib import Path

import numpy as np
import pytest

from trunkline.bus import wav
from trunkline.bus.errors import InvalidRequestError


def sine(rate: int, seconds: float = 0.5, hertz: float = 440.0) -> wav.Samples:
    t = np.arange(round(rate * seconds)) / rate
    return np.rint(10_000 * np.sin(2 * np.pi * hertz * t)).astype(np.int16)


def write_raw(path: Path, data: bytes, *, rate: int, width: int, channels: int = 1) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(data)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000])
def test_every_rate_keeps_the_sound(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "a.wav"
    wav.write(path, sine(rate), rate=rate)
    found = wav.read(path)
    assert len(found) == round(len(sine(rate)) * 24_000 / rate)
    middle = slice(1_200, -1_200)  # the ends ring: a sine that begins at once has no band limit
    expected = sine(24_000)[: len(found)][middle].astype(float)
    assert np.max(np.abs(found[middle] - expected)) < 60


@pytest.mark.parametrize(("width", "bound"), [(1, 200), (3, 1), (4, 1)])
def test_every_width(tmp_path: Path, width: int, bound: int) -> None:
    samples = sine(24_000).astype(np.int32)
    data = {
        1: ((samples // 256) + 128).astype(np.uint8).tobytes(),
        3: np.stack([samples * 256 >> s & 255 for s in (0, 8, 16)], -1).astype(np.uint8).tobytes(),
        4: (samples * 65_536).astype("<i4").tobytes(),
    }[width]
    write_raw(tmp_path / "a.wav", data, rate=24_000, width=width)
    assert np.max(np.abs(wav.read(tmp_path / "a.wav") - samples)) <= bound + 255 * (width == 1)


def as_wav(path: Path, kind: int, bits: int, data: bytes, *, extensible: bool = False) -> Path:
    """A file of two channels at 8 kHz, with a chunk of odd length before its sound."""
    head = struct.pack("<HHIIHH", kind, 2, 8_000, 2_000 * bits, bits // 4, bits)
    if extensible:
        guid = kind.to_bytes(2, "little") + bytes.fromhex("000000001000800000aa00389b71")
        head = b"\xfe\xff" + head[2:] + struct.pack("<HHI", 22, bits, 3) + guid
    chunks = ((b"fmt ", head), (b"LIST", b"INFOx\0"[:5]), (b"data", data))
    body = b"".join(
        name + struct.pack("<I", len(chunk)) + chunk + b"\0" * (len(chunk) % 2)
        for name, chunk in chunks
    )
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body) + 4) + b"WAVE" + body)
    return path


@pytest.mark.parametrize(
    ("kind", "dtype", "scale"), [(1, "<i2", 1), (3, "<f4", 1 / 32_768), (3, "<f8", 1 / 32_768)]
)
@pytest.mark.parametrize("extensible", [False, True])
def test_what_editors_of_sound_write_is_read(
    tmp_path: Path, kind: int, dtype: str, scale: float, extensible: bool
) -> None:
    both = np.stack([sine(8_000), -sine(8_000)], axis=1)
    data = (both * scale).astype(dtype).tobytes()
    path = as_wav(tmp_path / "a.wav", kind, 8 * int(dtype[2]), data, extensible=extensible)
    left, right = wav.read_channels(path, 8_000)
    assert np.array_equal(left, both[:, 0]) and np.array_equal(right, both[:, 1])


@pytest.mark.parametrize(
    ("kind", "codes", "samples"),
    # as alaw2lin and ulaw2lin of Python's former audioop have them
    [
        (6, b"\xd5\x55\x80\x00\xaa\x2a\xf5\x65", [8, -8, 5504, -5504, 32256, -32256, 528, -1056]),
        (7, b"\xff\x7f\x80\x00\xf0\x70\xef\x8f", [0, 0, 32124, -32124, 120, -120, 132, 16764]),
    ],
)
def test_the_laws_of_telephones_are_read(
    tmp_path: Path, kind: int, codes: bytes, samples: list[int]
) -> None:
    path = as_wav(tmp_path / "a.wav", kind, 8, codes)
    left, right = wav.read_channels(path, 8_000)
    assert [int(each) for pair in zip(left, right, strict=True) for each in pair] == samples


def test_floats_that_are_no_sound_are_silent_or_as_loud_as_can_be(tmp_path: Path) -> None:
    data = np.array([np.nan, np.inf, -np.inf, 1e30], "<f4").tobytes()
    left, right = wav.read_channels(as_wav(tmp_path / "a.wav", 3, 32, data), 8_000)
    assert (left.tolist(), right.tolist()) == ([0, -32768], [32767, 32767])


def test_another_format_is_named(tmp_path: Path) -> None:
    path = as_wav(tmp_path / "bad.wav", 0x55, 16, bytes(320))  # MP3
    with pytest.raises(InvalidRequestError, match=r"bad\.wav is no PCM WAV file: .* format 85"):
        wav.read(path)


def test_sound_that_is_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = as_wav(tmp_path / "a.wav", 1, 16, bytes(320))
    path.write_bytes(path.read_bytes()[:-161])
    assert [len(each) for each in wav.read_channels(path, 8_000)] == [39, 39]


def test_channels_are_mixed(tmp_path: Path) -> None:
    left, right = sine(24_000), np.zeros(12_000, np.int16)
    wav.write(tmp_path / "a.wav", left, right)
    assert np.max(np.abs(wav.read(tmp_path / "a.wav") - left / 2)) <= 1


def test_channels_of_different_length_are_padded(tmp_path: Path) -> None:
    wav.write(tmp_path / "new" / "a.wav", sine(24_000), sine(24_000, 0.1))
    with wave.open(str(tmp_path / "new" / "a.wav")) as file:
        assert (file.getnchannels(), file.getnframes()) == (2, 12_000)


@pytest.mark.parametrize("content", [b"", b"RIFF....", b"not a wav at all, but long enough" * 10])
def test_what_is_no_wav_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.wav"
    path.write_bytes(content)
    with pytest.raises(InvalidRequestError, match=r"bad\.wav is no PCM WAV file.*ffmpeg"):
        wav.read(path)


@pytest.mark.parametrize("bits", [40, 48, 64])
def test_samples_that_are_too_wide_are_named(tmp_path: Path, bits: int) -> None:
    """Python's wave module takes any width from a file's head."""
    write_raw(tmp_path / "bad.wav", bytes(960), rate=8_000, width=2)
    head = bytearray((tmp_path / "bad.wav").read_bytes())
    head[34:36] = bits.to_bytes(2, "little")
    (tmp_path / "bad.wav").write_bytes(head)
    with pytest.raises(InvalidRequestError, match=rf"bad\.wav has samples of {bits} bits"):
        wav.read(tmp_path / "bad.wav")


@pytest.mark.parametrize("rate", [1, 2_000_000_000])
def test_a_rate_that_no_sound_has_is_named(tmp_path: Path, rate: int) -> None:
    write_raw(tmp_path / "bad.wav", bytes(320), rate=rate, width=2)
    with pytest.raises(InvalidRequestError, match=rf"bad\.wav says that it has {rate} samples"):
        wav.read(tmp_path / "bad.wav")


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="only Linux has a full device")
def test_a_full_disk_names_the_file_that_was_not_written() -> None:
    with pytest.raises(OSError, match="/dev/full"):
        wav.write(Path("/dev/full"), sine(8_000))


def test_an_empty_wav_is_no_sound(tmp_path: Path) -> None:
    wav.write(tmp_path / "a.wav", np.zeros(0, np.int16), rate=8_000)
    assert len(wav.read(tmp_path / "a.wav")) == 0
