"""What the noise of a line is known to be, and what stands out of it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from trunkline.adapter.turns.line_noise import (
    MOST_FRAMES,
    STANDS_OUT,
    STEADY_FRAMES,
    KnownNoise,
    NoiseFloor,
)

BANDS = 12
Bands = npt.NDArray[np.float64]


def noise_powers(frames: int, seed: int, power: float = 1.0) -> Bands:
    """(frames, bands) of noise, as 20 ms windows of a 300 Hz band have it: 6 degrees of freedom."""
    rng = np.random.default_rng(seed)
    return power * rng.chisquare(6, (frames, BANDS)) / 6


def heard(powers: Bands, quietest: float = 1e-6) -> KnownNoise:
    known = KnownNoise(BANDS, quietest)
    known.hear(powers)
    return known


def learnt(seed: int = 1) -> KnownNoise:
    """Noise of power 1 that was heard for a second."""
    known = heard(noise_powers(100, seed))
    for frame in range(STEADY_FRAMES, 100, 2):
        known.learn(frame)
    assert known.known
    return known


def last(known: KnownNoise, powers: Bands) -> float:
    """How clearly the last of these stands out."""
    known.hear(powers)
    return known.excess(len(powers) - 1)


def test_nothing_stands_out_of_noise_that_is_not_known() -> None:
    known = heard(noise_powers(50, 1) * 100)
    assert known.excess(49) == 0.0
    assert not known.known


def test_sound_weaker_than_the_noise_stands_out_of_it_and_plain_noise_does_not() -> None:
    known = learnt()
    known.hear(noise_powers(300, 2))
    plain = [known.excess(frame) for frame in range(300)]
    assert np.mean(np.array(plain) > STANDS_OUT) < 0.02
    # Two bands of speech 1 dB below the noise's level, in no frame louder than the noise gets.
    faint = noise_powers(12, 3)
    faint[:, 3:5] += 0.8
    assert last(known, faint) > STANDS_OUT


def test_a_click_hardly_stands_out() -> None:
    known = learnt()
    known.hear(noise_powers(20, 4))
    for _ in range(2):  # 2 ms of it are in two windows
        assert last(known, np.full((1, BANDS), 1e6)) < 3 * STANDS_OUT


def test_what_is_not_alike_is_not_learnt() -> None:
    powers = noise_powers(36, 5)
    powers[18:27] += 4.0
    known = heard(powers)
    assert known.differs(35), "it is other than what was known: nothing"
    known.learn(35)
    assert not known.known


@pytest.mark.parametrize("power", [4.0, 0.25])
def test_other_noise_is_learnt_at_once(power: float) -> None:
    known = learnt()
    louder = power > 1.0
    assert (last(known, noise_powers(36, 6, power)) > STANDS_OUT) == louder
    assert known.differs(35) == louder, "what is softer does not stand out"
    known.learn(35)
    assert known.excess(35) < STANDS_OUT
    assert last(known, noise_powers(12, 7, 2 * power)) > STANDS_OUT


def test_words_in_a_part_of_it_are_not_other_noise() -> None:
    known = learnt()
    powers = noise_powers(36, 8)
    powers[:9, 2:6] += 2.0
    known.hear(powers)
    assert not known.differs(35)


def test_what_was_forgotten_is_not_known() -> None:
    known = learnt()
    known.forget()
    assert not known.known
    assert known.excess(0) == 0.0


def test_no_noise_is_below_the_quietest() -> None:
    known = heard(np.full((36, BANDS), 1e-12), quietest=1e-3)
    known.learn(35)
    assert known.known
    assert last(known, np.full((9, BANDS), 1e-3)) == 0.0


@pytest.mark.parametrize("power", [1.0, 3.0])
def test_noise_is_the_same_however_often_somebody_asks(power: float) -> None:
    """Learnt lesson by lesson, or many lessons at once; in noise that changes as well."""
    once, often = learnt(), learnt()
    powers = np.concatenate([noise_powers(60, 9), noise_powers(60, 10, power)])
    for begin in range(0, len(powers), 10):
        for known in (once, often):
            known.hear(powers[begin : begin + 10])
            for frame in range(1, 10, 2):
                known.learn(frame)
                if known is often:
                    known.excess(frame)
        assert once.known
    assert once.excess(9) == pytest.approx(often.excess(9), rel=1e-9)


def steady_db(seed: int, frames: int, level: float) -> Bands:
    return np.asarray(level + np.random.default_rng(seed).normal(size=(frames, 1)))


def hear(floor: NoiseFloor, levels: Bands) -> tuple[Bands, list[bool]]:
    """All of it, MOST_FRAMES at a time: how far it stands out, and where it had been steady."""
    above, steady = [], []
    for begin in range(0, len(levels), MOST_FRAMES):
        out = floor.hear(levels[begin : begin + MOST_FRAMES])
        above.append(out[0])
        steady += out[1]
    return np.concatenate(above), steady


def test_a_floor_is_the_lowest_of_late_levels_and_forgets_what_is_long_ago() -> None:
    floor = NoiseFloor(1)
    first, _ = hear(floor, np.full((6, 1), -30.0))
    assert (first < 0).all(), "before anything was heard all of it is noise"
    hear(floor, np.full((30, 1), -60.0))
    rng = np.random.default_rng(9)
    levels = -30.0 + 10 * rng.random((2_000, 1))
    above, _ = hear(floor, levels)
    over = (above - (levels + 30.0))[:, 0]
    assert (over[:700] > 20.0).all()
    assert (over[1_000:] < 10.0).all()


@pytest.mark.parametrize("before", [0, 72, 860, 898])
def test_what_is_steady_is_the_floor_at_once_and_stays_so(before: int) -> None:
    """Wherever in its blocks it falls."""
    floor = NoiseFloor(1)
    if before:
        hear(floor, np.full((before, 1), -60.0))
    _, steady = hear(floor, steady_db(10, STEADY_FRAMES, -30.0))
    assert steady[-1]
    above, _ = hear(floor, np.full((30, 1), -10.0))
    assert (above > 15.0).all()
    assert (above < 25.0).all()


def test_speech_is_not_steady() -> None:
    floor = NoiseFloor(1)
    _, steady = hear(floor, np.full((STEADY_FRAMES - 2, 1), -30.0))
    assert True not in steady, "too short to say"
    rng = np.random.default_rng(11)
    _, steady = hear(floor, -40.0 + 20 * rng.random((STEADY_FRAMES, 1)))
    assert not steady[-1]


def test_speech_cannot_be_steady_soon() -> None:
    rng = np.random.default_rng(12)
    floor = NoiseFloor(1)
    hear(floor, -40.0 + 20 * rng.random((STEADY_FRAMES, 1)))
    assert floor.unsteady_for(18)
    _, steady = hear(floor, np.full((18, 1), -40.0))
    assert True not in steady
    hear(floor, np.full((STEADY_FRAMES, 1), -40.0))
    assert not floor.unsteady_for(18)


def test_a_floor_is_the_same_however_many_frames_it_hears_at_once() -> None:
    rng = np.random.default_rng(13)
    levels = np.concatenate(
        [
            -40.0 + 20 * rng.random((130, BANDS)),
            -50.0 + rng.normal(size=(130, BANDS)),
            -30.0 + 9 * rng.random((900, BANDS)),
        ]
    )
    together, two_by_two = NoiseFloor(BANDS), NoiseFloor(BANDS)
    above, steady = hear(together, levels)
    apart = [two_by_two.hear(levels[begin : begin + 2]) for begin in range(0, len(levels), 2)]
    assert True in steady
    assert steady == [flag for _, flags in apart for flag in flags]
    np.testing.assert_allclose(above, np.concatenate([rows for rows, _ in apart]))
