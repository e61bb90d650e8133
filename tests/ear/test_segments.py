"""Where speech begins and ends: by the definition, whatever the line adds."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.ear_calls import RATE, MadeCall, line, recordings
from trunkline.ear import segments
from trunkline.ear.figures import Segment

RANDOM = np.random.default_rng(5)


def find(sound: np.ndarray) -> list[Segment]:  # type: ignore[type-arg]  # of any numbers
    samples = line(sound)
    return segments.find(samples, segments.loudness(samples))


def made(*at: float) -> MadeCall:
    call = MadeCall(1.0)
    for n, start in enumerate(at):
        call.say("theirs", recordings()[n], start)
    return call


def test_nothing_is_found_in_nothing_or_in_noise() -> None:
    for sound in (np.zeros(0), np.zeros(100), np.zeros(5 * RATE)):
        assert find(sound) == []
    for level in (10, 100, 1000):
        assert find(RANDOM.standard_normal(20 * RATE) * level) == []


def test_a_click_is_no_speech() -> None:
    sound = np.zeros(5 * RATE)
    sound[RATE : RATE + 80] = 20_000.0
    assert find(sound) == []


@pytest.mark.parametrize("gain_db", [-18, -9, 0])
def test_the_edges_are_those_of_the_definition(gain_db: float) -> None:
    call = made(0.7, 9.1, 18.0)
    found = find(call.tracks["theirs"] * 10 ** (gain_db / 20))
    for recording in call.truth["theirs"]:
        inside = [each for each in found if each.end > recording[0].start - 1]
        inside = [each for each in inside if each.start < recording[-1].end + 1]
        assert inside[0].start == pytest.approx(recording[0].start, abs=0.012)
        assert inside[-1].end == pytest.approx(recording[-1].end, abs=0.012)


def test_a_segment_goes_on_over_a_gap_of_three_tenths_and_no_more() -> None:
    tone = 8000 * np.sin(np.arange(RATE) * 2 * np.pi * 440 / RATE)
    for gap, count in ((0.25, 1), (0.29, 1), (0.33, 2)):
        sound = np.concatenate([np.zeros(RATE), tone, np.zeros(round(gap * RATE)), tone])
        assert len(find(np.concatenate([sound, np.zeros(RATE)]))) == count


def test_an_echo_of_the_other_side_is_no_speech_of_this_one() -> None:
    call = made(1.0)
    echo = recordings()[1] * 10 ** (-34 / 20)
    call.say("theirs", echo, len(call.tracks["theirs"]) / RATE + 2)
    assert find(call.tracks["theirs"])[-1].end <= call.truth["theirs"][0][-1].end + 0.05


def test_noise_that_changes_during_a_call_is_no_speech() -> None:
    call = made(2.0)
    sound = np.concatenate([call.tracks["theirs"], np.zeros(15 * RATE)])
    noise = RANDOM.standard_normal(len(sound)) * 20
    noise[-7 * RATE :] *= 5
    found = find(sound + noise)
    end = call.truth["theirs"][0][-1].end
    assert found[-1].end == pytest.approx(end, abs=0.06), "within the first noise"
