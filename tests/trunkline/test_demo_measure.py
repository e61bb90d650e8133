"""The demo's measurements, on sound whose delays are known."""

from __future__ import annotations

import numpy as np
import pytest
from rich.console import Console

from trunkline.bus import wav
from trunkline.bus.sound import LINE_RATE, WIRE_RATE
from trunkline.demo.measure import CallRecord, Handed, align, place_turn
from trunkline.demo.report import show_reports
from trunkline.demo.words import dictionary, recording, transcript, word_errors

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


def test_the_last_words_of_a_long_call_are_found() -> None:
    haystack = RNG.normal(size=30_000)
    assert align(haystack[-2_000:], haystack)[0] == 28_000


def test_sound_that_is_cut_at_the_front_is_found_before_the_start() -> None:
    needle = RNG.normal(size=3_000)
    assert align(needle, needle[200:])[0] == -200


def test_what_the_test_says_is_timed_from_its_first_sample() -> None:
    said = speech("austen-0880", WIRE_RATE)
    # Handed over 2 s into the call, heard 60 ms later; the same words come again afterwards.
    played = np.concatenate([silence(2.06), said, silence(6.0), said])
    pcm = speech("austen-0880", LINE_RATE).tobytes()
    turn = place_turn(Handed("test", "austen-0880", [(102.0, pcm)]), record(played=played))
    assert turn.latency == pytest.approx(0.060, abs=0.001)
    assert turn.start == pytest.approx(2.06, abs=0.001)
    assert turn.likeness > 0.99


def test_what_the_far_end_says_is_timed_piece_by_piece() -> None:
    words = speech("austen-0880", WIRE_RATE)
    said = np.concatenate([silence(1.0), words, silence(6.0), words])
    pcm = speech("austen-0880", LINE_RATE).tobytes()
    # The carrier sends each frame at the beginning of its 20 ms; it arrives 35 ms later.
    pieces = [
        (101.0 + index * 0.02 + 0.035, pcm[n : n + 960])
        for index, n in enumerate(range(0, len(pcm), 960))
    ]
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
        arrivals=[
            [101.000, 160, 0],  # the lead: three at once
            [101.001, 160, 160],
            [101.002, 160, 320],
            [101.020, 160, 320],
            [101.050, 320, 160],
            [101.090, 160, 160],
            [101.150, 160, 160],  # the last one, held back
            [109.000, 160, 0],
            [109.020, 160, 160],
            [109.040, 160, 160],
        ],
    )
    assert [round(gap) for _, gap in found.gaps_ms] == [18, 30, 20, 20]
    assert found.gap_ms(1.0) == pytest.approx(30.0)
    assert record().gap_ms(0.99) == 0.0


def test_word_errors() -> None:
    assert word_errors("he was not", "he was not") == 0
    assert word_errors("he was not", "He was") == 1
    assert word_errors("he was not", "") == 3
    assert word_errors("he was", "he is now") == 2


def test_every_recording_has_its_words() -> None:
    assert transcript("austen-0880").startswith("he was not")


def test_the_recogniser_knows_the_recordings_words_in_each_pronunciation() -> None:
    ours = ["might M AY T\n", "to T UW\n", "to(2) T IH\n", "to(3) T AH\n"]
    others = ["mighty M AY T IY\n", "toe T OW\n", "tow(2) T AW\n"]
    assert dictionary([*ours[:2], *others, *ours[2:]]) == ours


def test_the_demo_shows_how_both_sides_of_each_call_talked() -> None:
    played = np.concatenate([silence(1.0), speech("austen-0880", WIRE_RATE), silence(8.0)])
    said = np.concatenate([silence(5.0), speech("austen-0930", WIRE_RATE), silence(3.0)])
    console = Console(record=True, width=120)
    calls = {"calling": record(played=played, said=said, frames_lost=2)}
    show_reports(console, calls)
    told = console.export_text().splitlines()
    assert told[1].strip().startswith("heard by the ear")
    assert told[2].strip() == "calling: 12.0 s"
    assert told[3].strip() == "UNRELIABLE: the line lost 2 frames of 20 ms", "before all else"
    assert any("latency" in line and "of 1" in line for line in told)
