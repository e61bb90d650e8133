"""What two sides' segments say of each other, one rule after the other."""

from __future__ import annotations

import pytest

from trunkline.ear import turns
from trunkline.ear.figures import Segment


def speech(*spans: tuple[float, float]) -> list[Segment]:
    return [Segment(start=start, end=end) for start, end in spans]


def latencies(ours: list[Segment], theirs: list[Segment]) -> list[tuple[float, float]]:
    return [(each.after, each.latency) for each in turns.answers(ours, theirs)]


def test_an_answer_is_their_first_segment_after_ours() -> None:
    ours, theirs = speech((1, 2), (6, 7)), speech((2.8, 3.5), (4, 5), (7.5, 8))
    assert latencies(ours, theirs) == [(2, 0.8), (7, 0.5)]


def test_of_two_of_ours_in_a_row_the_second_is_answered() -> None:
    assert latencies(speech((1, 2), (2.4, 3)), speech((3.5, 4))) == [(3, 0.5)]


def test_a_greeting_and_what_is_said_over_ours_are_no_answers() -> None:
    assert latencies(speech((3, 5)), speech((1, 2), (4, 6))) == []


def test_the_rest_of_what_they_were_saying_is_no_answer() -> None:
    assert latencies(speech((2, 4)), speech((1, 5), (5.6, 8))) == []
    assert latencies(speech((2, 4)), speech((1, 5), (5.9, 8))) == [(4, 1.9)]


def test_what_they_say_after_a_backchannel_is_no_answer() -> None:
    assert latencies(speech((2, 2.4)), speech((1, 4), (5, 6))) == []
    assert latencies(speech((2, 2.4)), speech((5, 6))) == [(2.4, 2.6)], "a short question"


def test_a_yield_is_timed_to_where_they_end() -> None:
    yields, false, interruptions = turns.yields(speech((2, 4)), speech((1, 2.6), (5, 6)))
    assert [(each.at, each.seconds) for each in yields] == [(2, 0.6)]
    assert not false and not interruptions


@pytest.mark.parametrize(
    "theirs",
    [
        [(1, 4.1)],
        # They draw breath: 0.5 s is no end.
        [(1, 2.5), (3, 5)],
    ],
)
def test_they_do_not_yield_where_theirs_outlasts_ours(theirs: list[tuple[float, float]]) -> None:
    yields, _, interruptions = turns.yields(speech((2, 4)), speech(*theirs))
    assert [each.seconds for each in yields] == [None]
    assert not interruptions, "they only went on"


def test_who_yields_and_comes_back_over_us_interrupts() -> None:
    yields, _, interruptions = turns.yields(speech((2, 6)), speech((1, 2.5), (4, 5)))
    assert [each.seconds for each in yields] == [0.5]
    assert [(each.at, each.seconds) for each in interruptions] == [(4, 1)]


def test_a_backchannel_is_no_barge_in() -> None:
    yields, false, _ = turns.yields(speech((2, 2.5)), speech((1, 5)))
    assert not yields and not false


def test_they_stop_for_a_backchannel() -> None:
    for end in (2.3, 2.9):
        yields, false, _ = turns.yields(speech((2, 2.5)), speech((1, end), (4, 6)))
        assert not yields
        assert [each.at for each in false] == [2]


def test_a_pause_of_a_speaker_is_no_false_yield() -> None:
    assert turns.yields(speech((2, 2.5)), speech((1, 2.6), (3, 6)))[1] == []


def test_they_interrupt_until_one_of_both_ends() -> None:
    _, _, interruptions = turns.yields(speech((1, 3), (5, 9)), speech((2, 4), (6, 7)))
    assert [(each.at, each.seconds) for each in interruptions] == [(2, 1), (6, 1)]


def test_talk_over_is_what_both_say() -> None:
    assert turns.talk_over(speech((1, 3), (5, 9)), speech((2, 4), (6, 7))) == 2.0


def test_silences_last_a_second_and_the_ends_of_a_call_count() -> None:
    found = turns.silences(speech((1, 2)), speech((1.5, 4), (4.9, 6)), 7.0)
    assert [(each.start, each.end) for each in found] == [(0, 1), (6, 7)]
