"""What the noise of a line is known to be, and what stands out of it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from trunkline.adapter.turns.line_noise import STANDS_OUT, STEADY_FRAMES, KnownNoise, NoiseFloor

BANDS = 12
Bands = npt.NDArray[np.float64]


def noise_powers(frames: int, seed: int, power: float = 1.0) -> Bands:
    """(frames, bands) of noise, as 20 ms windows of a 300 Hz band have it: 6 degrees of freedom."""
    rng = np.random.default_rng(seed)
    return power * rng.chisquare(6, (frames, BANDS)) / 6


def heard(powers: Bands, quietest: float = 1e-6) -> KnownNoise:
    known = KnownNoise(BANDS, quietest)
    for power in powers:
        known.frame(power)
    return known


def learnt(seed: int = 1) -> KnownNoise:
    """Noise of power 1 that was heard for a second."""
    known = KnownNoise(BANDS, 1e-6)
    for frame, power in enumerate(noise_powers(100, seed)):
        known.frame(power)
        if frame > STEADY_FRAMES and frame % 2:
            known.learn()
    assert known.known
    return known


def test_nothing_stands_out_of_noise_that_is_not_known() -> None:
    known = heard(noise_powers(50, 1) * 100)
    assert known.excess() == 0.0
    assert not known.known


def test_sound_weaker_than_the_noise_stands_out_of_it_and_plain_noise_does_not() -> None:
    known = learnt()
    plain = []
    for power in noise_powers(300, 2):
        known.frame(power)
        plain.append(known.excess())
    assert np.mean(np.array(plain) > STANDS_OUT) < 0.02
    # Two bands of speech 1 dB below the noise's level, in no frame louder than the noise gets.
    for power in noise_powers(12, 3):
        power[3:5] += 0.8
        known.frame(power)
    assert known.excess() > STANDS_OUT


def test_a_click_hardly_stands_out() -> None:
    known = learnt()
    for power in noise_powers(20, 4):
        known.frame(power)
    for _ in range(2):  # 2 ms of it are in two windows
        known.frame(np.full(BANDS, 1e6))
        assert known.excess() < 3 * STANDS_OUT


def test_what_is_not_alike_is_not_learnt() -> None:
    powers = noise_powers(36, 5)
    powers[18:27] += 4.0
    known = heard(powers)
    assert known.learn(), "it is other than what was known: nothing"
    assert not known.known


@pytest.mark.parametrize("power", [4.0, 0.25])
def test_other_noise_is_learnt_at_once(power: float) -> None:
    known = learnt()
    fresh = noise_powers(36, 6, power)
    for frame in fresh:
        known.frame(frame)
    louder = power > 1.0
    assert (known.excess() > STANDS_OUT) == louder
    assert known.learn() == louder, "what is softer does not stand out"
    assert known.excess() < STANDS_OUT
    for frame in noise_powers(12, 7, 2 * power):
        known.frame(frame)
    assert known.excess() > STANDS_OUT


def test_words_in_a_part_of_it_are_not_other_noise() -> None:
    known = learnt()
    powers = noise_powers(36, 8)
    powers[:9, 2:6] += 2.0
    for frame in powers:
        known.frame(frame)
    assert not known.learn()


def test_what_was_forgotten_is_not_known() -> None:
    known = learnt()
    known.forget()
    assert not known.known
    assert known.excess() == 0.0


def test_no_noise_is_below_the_quietest() -> None:
    known = heard(np.full((36, BANDS), 1e-12), quietest=1e-3)
    assert known.learn()
    for _ in range(9):
        known.frame(np.full(BANDS, 1e-3))
    assert known.excess() == 0.0


def test_a_floor_is_the_lowest_of_late_levels_and_forgets_what_is_long_ago() -> None:
    floor = NoiseFloor(1)
    assert floor.above(np.array([-30.0])) < 0, "before anything was heard all of it is noise"
    for _ in range(50):
        floor.frame(np.array([-60.0]))
    rng = np.random.default_rng(9)
    for frame in range(2_000):
        floor.frame(np.array([-30.0 + 10 * rng.random()]))
        above = float(floor.above(np.array([-30.0]))[0])
        if frame < 700:
            assert above > 20.0
        elif frame > 1_000:
            assert above < 10.0


def test_what_is_steady_is_the_floor_at_once_and_stays_so() -> None:
    rng = np.random.default_rng(10)
    for before in (0, 73, 860, 899):  # wherever in its blocks it falls
        floor = NoiseFloor(1)
        for _ in range(before):
            floor.frame(np.array([-60.0]))
        for _ in range(STEADY_FRAMES):
            floor.frame(np.array([-30.0 + rng.normal()]))
        assert floor.settle()
        for _ in range(300):
            floor.frame(np.array([-10.0]))
            assert 15.0 < floor.above(np.array([-10.0]))[0] < 25.0


def test_speech_is_not_steady() -> None:
    floor = NoiseFloor(1)
    rng = np.random.default_rng(11)
    for _ in range(STEADY_FRAMES - 1):
        floor.frame(np.array([-30.0]))
    assert not floor.settle(), "too short to say"
    for _ in range(STEADY_FRAMES):
        floor.frame(np.array([-40.0 + 20 * rng.random()]))
    assert not floor.settle()
