"""What makes a recording unreliable is found, and good ones are not blamed."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.ear_calls import RATE, MadeCall, conversation, line, recordings
from trunkline.ear.listen import listen


def call() -> MadeCall:
    made = MadeCall(1.0)
    made.say("ours", recordings()[2], 1.0)
    made.say("theirs", recordings()[3], 9.0)
    return made


def test_good_calls_are_reliable() -> None:
    for seed in range(30):
        report = listen(*conversation(seed).sound())
        assert report.reliable and report.unreliable_because == []
        assert (report.frames_lost, report.jitter_ms) == (0, None)


@pytest.mark.parametrize("gain_db", [-18, -24, -30])
def test_a_far_end_that_is_too_quiet_has_lost_nothing(gain_db: int) -> None:
    for seed in range(6):
        made = conversation(seed)
        made.tracks["theirs"] *= 10 ** (gain_db / 20)
        report = listen(*made.sound())
        assert report.frames_lost == 0 and report.reliable, report.unreliable_because


@pytest.mark.parametrize("frames", [1, 3, 10])
def test_lost_sound_is_found_in_the_words(frames: int) -> None:
    made = call()
    theirs = made.tracks["theirs"]
    middle = round((made.truth["theirs"][0][0].start + 1.0) * RATE)
    loud = np.argmax(np.convolve(theirs[middle : middle + RATE] ** 2, np.ones(1600), "valid"))
    begin = middle + int(loud) + 200
    theirs[begin : begin + frames * 160] = 0.0
    report = listen(*made.sound())
    assert not report.reliable
    assert report.frames_lost == pytest.approx(frames, abs=1)
    assert "lost or late in their speech" in report.unreliable_because[0]


def test_what_the_line_itself_lost_comes_first() -> None:
    ours, _ = call().sound()
    report = listen(ours, np.zeros(len(ours), np.int16), frames_lost=7, jitter_ms=1.234)
    assert report.unreliable_because == [
        "the line lost 7 frames of 20 ms",
        "there is no speech on their side",
    ]
    assert (report.frames_lost, report.jitter_ms) == (7, 1.2)


def test_what_reached_the_far_end_late_makes_a_call_unreliable() -> None:
    report = listen(*call().sound(), frames_late=4)
    assert report.unreliable_because == ["our speech reached the far end 4 frames of 20 ms late"]
    assert (report.reliable, report.frames_lost) == (False, 0)
    # 60 ms are no more than the ear itself may be wrong.
    assert listen(*call().sound(), frames_late=3).reliable


def test_clipping_is_found() -> None:
    made = call()
    made.tracks["ours"] *= 15
    report = listen(*made.sound())
    assert report.sides.ours.clipped_frames > 10 and report.sides.theirs.clipped_frames == 0
    assert "our speech is clipped" in report.unreliable_because[0]


def test_an_empty_recording_is_unreliable() -> None:
    nothing = np.zeros(0, np.int16)
    report = listen(nothing, nothing)
    assert (report.seconds, report.reliable, len(report.unreliable_because)) == (0.0, False, 2)


def test_a_level_is_that_of_the_speech_alone() -> None:
    made = call()
    report = listen(*made.sound())
    words = line(made.tracks["ours"])
    (first, *_), last = made.truth["ours"][0], made.truth["ours"][0][-1]
    spoken = words[round(first.start * RATE) : round(last.end * RATE)].astype(float)
    expected = 10 * np.log10((spoken**2).mean() / 32768**2)
    assert report.sides.ours.level_dbfs == pytest.approx(expected, abs=0.5)
