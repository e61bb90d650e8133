"""The tester is tested: planted faults are found, and a good bot is not blamed."""

from __future__ import annotations

from benchmarks.ear_bots import FAULTS, LATE, LATE_ONES, QUESTIONS, call_with, measure
from trunkline.ear.listen import listen


def test_planted_faults_are_found_and_good_bots_are_not_blamed() -> None:
    scores, blamed = measure("line", 15.0, calls=3)
    assert blamed == 0
    for fault in FAULTS:
        assert (scores[fault].precision, scores[fault].recall) == (1.0, 1.0), fault


def test_the_late_bot_is_late_once_in_five_answers() -> None:
    assert QUESTIONS == 5 * LATE_ONES
    for bot, late in (("late", LATE_ONES), (None, 0)):
        answers = listen(*call_with(bot, 1).sound("clean", 0.0, 1)).answers
        assert len(answers) >= QUESTIONS
        assert sum(answer.latency > LATE for answer in answers) == late
