"""The key detector, on tones, speech and noise."""

from __future__ import annotations

import numpy as np
import pytest

from trunkline.carrier_sim import tones, wav
from trunkline.carrier_sim.mulaw import decode, encode, frames


def heard(audio: bytes) -> str:
    tracker = tones.DigitTracker()
    digits = ""
    for frame in frames(audio + b"\xff" * 800):
        digits += "".join(digit for _, digit in tones.detect([(tracker, frame)]))
    return digits


@pytest.mark.parametrize("offset", [0, 1, 37, 80, 121, 159])
def test_all_keys_at_any_alignment(offset: int) -> None:
    assert heard(b"\xff" * offset + tones.dtmf("1234567890*#ABCD")) == "1234567890*#ABCD"


@pytest.mark.parametrize("tone_ms", [50, 70, 250])
def test_short_and_long_tones(tone_ms: int) -> None:
    assert heard(tones.dtmf("55#9", tone_ms, 60)) == "55#9"


def test_too_short_is_no_key() -> None:
    assert heard(tones.dtmf("5", 20, 100)) == ""


def test_a_quieter_and_noisy_tone() -> None:
    rng = np.random.default_rng(3)
    tone = decode(tones.dtmf("42", 80, 80)) * 0.15
    noisy = np.asarray(tone + rng.normal(0, 60, len(tone)), dtype=np.int16)
    assert heard(encode(noisy)) == "42"


@pytest.mark.parametrize("name", sorted(wav.transcripts()))
def test_speech_is_no_key(name: str) -> None:
    assert heard(wav.speech(name)) == ""


@pytest.mark.parametrize("hz", [440.0, 697.0, 1209.0, 1000.0])
def test_one_tone_is_no_key(hz: float) -> None:
    assert heard(tones.sine(hz, 500)) == ""


def test_noise_is_no_key_and_has_its_level() -> None:
    audio = tones.noise(-30.0, 3.0, seed=5)
    assert heard(audio) == ""
    rms = np.sqrt(np.mean(decode(audio).astype(float) ** 2))
    assert 20 * np.log10(rms / 32768) == pytest.approx(-30.0, abs=0.3)


def test_many_calls_in_one_batch() -> None:
    lines = [tones.dtmf(d) for d in "159#"]
    trackers = [tones.DigitTracker() for _ in lines]
    out = [""] * len(lines)
    for parts in zip(*(frames(line) for line in lines), strict=True):
        for index, digit in tones.detect(list(zip(trackers, parts, strict=True))):
            out[index] += digit
    assert out == list("159#")


def test_waits_and_ends() -> None:
    assert tones.dtmf("wW") == b"\xff" * 12000
    assert tones.keys("1w2") == {4: ["1"], (800 + 800 + 4000 + 800 - 1) // 160: ["2"]}
    with pytest.raises(ValueError, match="no DTMF digit"):
        tones.dtmf("x")
