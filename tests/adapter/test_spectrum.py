"""How loud a line is in each band."""

from __future__ import annotations

import numpy as np
import pytest

from trunkline.adapter.turns.spectrum import BANDS, HOP, QUIETEST_DB, RATE, Spectrum


def tone(hertz: float, amplitude: float = 8_000.0, frames: int = 20) -> bytes:
    time = np.arange(frames * HOP) / RATE
    made: bytes = np.rint(amplitude * np.sin(2 * np.pi * hertz * time)).astype("<i2").tobytes()
    return made


@pytest.mark.parametrize(("hertz", "band"), [(350.0, 0), (1000.0, 2), (3650.0, 11)])
def test_a_tone_is_in_its_band_and_as_loud_as_it_is(hertz: float, band: int) -> None:
    powers, levels = Spectrum().hear(tone(hertz))
    assert powers.shape == levels.shape == (20, BANDS)
    assert powers[5:].argmax(axis=1).tolist() == [band] * 15
    # The Hann window spreads it over three bins, which have 1.5 times the power of one.
    full_scale = 20 * np.log10(8_000 / 32_768) + 10 * np.log10(1.5)
    assert levels[10, band] == pytest.approx(full_scale, abs=0.5)


def test_silence_is_as_loud_as_the_quantiser() -> None:
    _, levels = Spectrum().hear(bytes(2 * HOP * 10))
    assert (levels == QUIETEST_DB).all()


def test_a_click_does_not_pass_the_median() -> None:
    spectrum = Spectrum()
    spectrum.hear(bytes(2 * HOP * 10))
    click = np.zeros(HOP * 10, "<i2")
    click[HOP * 4 + 100] = 30_000
    powers, levels = spectrum.hear(click.tobytes())
    assert powers.max() > 1e-5
    assert (levels == QUIETEST_DB).all()


def test_it_is_the_same_however_the_sound_is_cut() -> None:
    sound = np.random.default_rng(1).integers(-9_000, 9_000, HOP * 30).astype("<i2").tobytes()
    whole, cut = Spectrum(), Spectrum()
    powers, levels = whole.hear(sound)
    parts = [cut.hear(sound[begin : begin + 4 * HOP]) for begin in range(0, len(sound), 4 * HOP)]
    np.testing.assert_allclose(powers, np.concatenate([part[0] for part in parts]), rtol=1e-12)
    np.testing.assert_allclose(levels, np.concatenate([part[1] for part in parts]), rtol=1e-12)
