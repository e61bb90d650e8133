"""DTMF: a detector (Goertzel) hears each digit after mu-law, at its level, without clicks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from trunkline.codec_worker import mulaw, tones


def level_dbm0(samples: npt.NDArray[np.int16], hz: int, rate: int) -> float:
    angle = 2 * np.pi * hz / rate * np.arange(len(samples))
    amplitude = 2 * abs(np.mean(samples * np.exp(-1j * angle)))
    return float(20 * np.log10(amplitude / mulaw.PEAK + 1e-9) + 3.17)


@pytest.mark.parametrize("digit", "0123456789ABCD*#")
def test_each_digit_is_its_pair_after_mulaw(digit: str) -> None:
    codes = tones.dtmf_mulaw(digit)
    assert len(codes) == 1600
    heard = mulaw.decode(np.frombuffer(codes, np.uint8))
    steady = heard[80:720]
    levels = {hz: level_dbm0(steady, hz, 8000) for hz in tones.LOW_HZ + tones.HIGH_HZ}
    low, high = tones.FREQUENCIES[digit]
    assert levels.pop(low) == pytest.approx(-8, abs=0.3)
    assert levels.pop(high) == pytest.approx(-6, abs=0.3)
    assert max(levels.values()) < -24
    assert not heard[800:].any()


def test_the_keypad_is_q23s() -> None:
    assert tones.FREQUENCIES["1"] == (697, 1209)
    assert tones.FREQUENCIES["0"] == (941, 1336)
    assert tones.FREQUENCIES["D"] == (941, 1633)


def test_pauses_and_lengths() -> None:
    assert len(tones.dtmf("1w2W#")) == round(24_000 * (3 * 0.2 + 0.5 + 1.0))
    assert len(tones.dtmf("5", rate=8000, tone=0.05, pause=0.03)) == 640
    assert not tones.dtmf("w").any()


def test_edges_are_smooth() -> None:
    tone = tones.dtmf("9").astype(int)
    assert abs(tone[:12]).max() < 700
    assert abs(tone[2388:2400]).max() < 700


@pytest.mark.parametrize("digits", ["", "1\n", "x", "1 2", "١"])
def test_what_is_no_digit_is_refused(digits: str) -> None:
    with pytest.raises(ValueError, match="must be one or more of"):
        tones.dtmf(digits)


def test_levels_that_would_clip_are_refused() -> None:
    with pytest.raises(ValueError, match="exceed"):
        tones.dtmf("1", high_dbm0=0, low_dbm0=-2)
