"""Keys in the sound: the tones that a carrier plays, and speech that is none."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.ear_calls import RATE, line, make_noise, recordings
from trunkline.ear import digits
from trunkline.ear.figures import Digit
from trunkline.ear.listen import listen


def tone(key: str, seconds: float, level: float = 4000.0) -> np.ndarray:  # type: ignore[type-arg]  # of floats
    row = next(n for n, keys in enumerate(digits.KEYS) if key in keys)
    low, high = digits.LOW[row], digits.HIGH[digits.KEYS[row].index(key)]
    at = np.arange(round(seconds * RATE)) / RATE * 2 * np.pi
    return level * (np.sin(low * at) + np.sin(high * at))


@pytest.mark.parametrize("seconds", [0.06, 0.1, 0.5])
def test_every_key_is_found_where_it_is_pressed(seconds: float) -> None:
    pause = np.zeros(round(0.1 * RATE))
    keys = "123A456B789C*0#D"
    sound = np.concatenate([pause, *(part for key in keys for part in (tone(key, seconds), pause))])
    found, _ = digits.find(line(sound), "theirs")
    assert "".join(digit.digit for digit in found) == keys
    for n, digit in enumerate(found):
        assert digit.at == pytest.approx(0.1 + n * (seconds + 0.1), abs=0.012)


def test_keys_are_found_in_noise() -> None:
    sound = np.concatenate([np.zeros(RATE), tone("5", 0.1), np.zeros(RATE)])
    noise = make_noise("line", len(sound), np.random.default_rng(3)) * 600
    assert [digit.digit for digit in digits.find(line(sound + noise), "ours")[0]] == ["5"]


def test_speech_has_no_keys() -> None:
    for recording in recordings():
        assert digits.find(line(recording), "ours")[0] == []


def test_keys_are_no_speech_and_no_answer() -> None:
    ours = np.concatenate([recordings()[1], np.zeros(5 * RATE)])
    theirs = np.zeros(len(ours))
    begin = len(recordings()[1]) + RATE
    theirs[begin : begin + RATE // 5] = tone("1", 0.2)
    report = listen(line(ours), line(theirs))
    assert [(digit.side, digit.digit) for digit in report.digits] == [("theirs", "1")]
    assert report.sides.theirs.segments == [] and report.answers == []


def test_a_key_that_the_line_told_of_is_the_tone_beside_it() -> None:
    """Of two keys that were told, one was heard as well, and its tone knows the time better. A key
    of the other side, or a later one, is a key of its own."""
    ours, theirs = np.zeros(5 * RATE), np.zeros(5 * RATE)
    theirs[RATE : RATE + RATE // 10] = tone("7", 0.1)
    told = [
        Digit(at=1.3, side="theirs", digit="7"),
        Digit(at=1.3, side="ours", digit="7"),
        Digit(at=1.4, side="theirs", digit="7"),
        Digit(at=0.2, side="ours", digit="#"),
    ]
    report = listen(line(ours), line(theirs), keys=told)
    found = [(digit.at, digit.side, digit.digit) for digit in report.digits]
    assert found == [
        (0.2, "ours", "#"),
        (pytest.approx(1.0, abs=0.012), "theirs", "7"),
        (1.3, "ours", "7"),
        (1.4, "theirs", "7"),
    ]
