"""The demo's measurements, on sound whose delays are known."""

from __future__ import annotations

import numpy as np
import pytest

from trunkline import wav
from trunkline.demo_measure import WIRE_RATE, CallRecord, Handed, align, place_turn
from trunkline.demo_words import recording, transcript, word_errors

RNG = np.random.default_rng(7)


def speech(name: str, rate: int) -> wav.Samples:
    return wav.read(recording(name), rate)


def record(**fields: object) -> CallRecord:
    empty = np.zeros(0, np.int16)
    values: dict[str, object] = {
        "sid": "CA1",
        "played": empty,
        "said": empty,
        "started": 100.0,
        "setup_seconds": 0.1,
        "metrics": {"utterances": []},
        "arrivals": [],
        "frames_lost": 0,
    }
    return CallRecord(**values | fields)  # type: ignore[arg-type]  # as the fields are declared


def silence(seconds: float) -> wav.Samples:
    return np.zeros(round(seconds * WIRE_RATE), np.int16)


@pytest.mark.parametrize("offset", [0, 1, 500, 4_000])
def test_sound_is_found_to_the_sample(offset: int) -> None:
    needle = RNG.normal(size=3_000)
    haystack = RNG.normal(size=9_000) * 0.1
    haystack[offset : offset + 3_000] += needle
    found, likeness = align(needle, haystack)
    assert found == offset
    assert likeness > 0.98


def test_sound_that_is_cut_at_the_front_is_found_before_the_start() -> None:
    needle = RNG.normal(size=3_000)
    assert align(needle, needle[200:])[0] == -200


def test_what_the_test_says_is_timed_from_its_first_sample() -> None:
    said = speech("austen-0880", WIRE_RATE)
    # Handed over 2 s into the call, heard 60 ms later.
    played = np.concatenate([silence(2.06), said, silence(0.5)])
    pcm = speech("austen-0880", wav.LINE_RATE).tobytes()
    turn = place_turn(Handed("test", "austen-0880", [(102.0, pcm)]), record(played=played))
    assert turn.latency == pytest.approx(0.060, abs=0.001)
    assert turn.start == pytest.approx(2.06, abs=0.001)
    assert turn.likeness > 0.99


def test_what_the_far_end_says_is_timed_piece_by_piece() -> None:
    said = np.concatenate([silence(1.0), speech("austen-0880", WIRE_RATE), silence(1.0)])
    pcm = speech("austen-0880", wav.LINE_RATE).tobytes()
    pieces = []
    for n in range(0, len(pcm), 960):  # 20 ms each, 35 ms after it was said
        piece = pcm[n : n + 960]
        pieces.append((101.0 + (n + len(piece)) / 48_000 + 0.035, piece))
    turn = place_turn(Handed("agent", "austen-0880", pieces), record(said=said))
    assert turn.latency == pytest.approx(0.035, abs=0.001)
    assert turn.likeness > 0.99


def test_the_drift_is_that_of_the_worst_utterance() -> None:
    utterances = [
        {"slope": 1.001, "audio_ms": 5_000.0},
        {"slope": 0.99, "audio_ms": 1_000.0},
        {"slope": None, "audio_ms": 200.0},
    ]
    assert record(metrics={"utterances": utterances}).drift_ms == pytest.approx(-10.0)
    assert record().drift_ms == 0.0


def test_gaps_are_those_within_utterances() -> None:
    found = record(
        metrics={"utterances": [{"started": 101.0, "ended": 102.0}]},
        arrivals=[[101.0, 160, 0], [101.02, 160, 0], [101.05, 160, 0], [109.0, 160, 0]],
    )
    assert [round(gap) for _, gap in found.gaps_ms] == [20, 30]


def test_word_errors() -> None:
    assert word_errors("he was not", "he was not") == 0
    assert word_errors("he was not", "He was") == 1
    assert word_errors("he was not", "") == 3
    assert word_errors("he was", "he is now") == 2


def test_every_recording_has_its_words() -> None:
    assert transcript("austen-0880").startswith("he was not")
