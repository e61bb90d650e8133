"""The tester is tested: planted faults are found, and a good bot is not blamed."""

from __future__ import annotations

from benchmarks.ear_bots import FAULTS, measure


def test_planted_faults_are_found_and_good_bots_are_not_blamed() -> None:
    scores, blamed = measure("line", 15.0, calls=3)
    assert blamed == 0
    for fault in FAULTS:
        assert (scores[fault].precision, scores[fault].recall) == (1.0, 1.0), fault
