"""WAV files in and out."""

from __future__ import annotations

import io
import wave

import numpy as np
import pytest

from trunkline.carrier_sim import wav
from trunkline.carrier_sim.mulaw import decode


def pcm_wav(samples: np.ndarray, rate: int, channels: int = 1, width: int = 2) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as w:
        w.setnchannels(channels)
        w.setsampwidth(width)
        w.setframerate(rate)
        w.writeframes(samples.astype("<i2").tobytes())
    return out.getvalue()


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 24000, 44100, 48000])
def test_a_tone_keeps_its_place_and_level(rate: int) -> None:
    t = np.arange(rate) / rate
    ulaw = wav.read(pcm_wav(np.rint(10000 * np.sin(2 * np.pi * 1000 * t)), rate))
    assert abs(len(ulaw) - 8000) <= 1
    got = decode(ulaw).astype(float)[200:7800]
    want = 10000 * np.sin(2 * np.pi * 1000 * np.arange(200, 7800) / 8000)
    error = np.sqrt(np.mean((got - want) ** 2))
    assert 20 * np.log10(error / (10000 / np.sqrt(2))) < -35


def test_what_lies_above_the_line_is_filtered_off() -> None:
    t = np.arange(16000) / 16000
    ulaw = wav.read(pcm_wav(np.rint(10000 * np.sin(2 * np.pi * 5000 * t)), 16000))
    assert np.abs(decode(ulaw).astype(int)[100:-100]).max() < 100


def test_stereo_is_averaged() -> None:
    both = np.stack([np.full(800, 4000), np.full(800, 2000)], axis=1)
    assert abs(int(decode(wav.read(pcm_wav(both, 8000, 2)))[400]) - 3000) < 130


@pytest.mark.parametrize("data", [b"", b"RIFFxxxx", pcm_wav(np.zeros(8), 8000, width=1)])
def test_what_is_no_pcm16_wav_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="WAV"):
        wav.read(data)


def test_written_files_read_back() -> None:
    ulaw = wav.speech("austen-0880")
    assert wav.read(wav.write_pcm(ulaw)) == ulaw.replace(b"\x7f", b"\xff")


def test_say_finds_the_recording_of_its_words() -> None:
    assert wav.say("He was NOT an ill-disposed young man.") == wav.speech("austen-0880")
    assert wav.say("Thank you for calling.") == wav.say("thank you, for calling")
    with pytest.raises(ValueError, match="no recording"):
        wav.speech("nobody")
