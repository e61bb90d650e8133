"""How much a stream may say, on a clock that the test moves."""

from __future__ import annotations

import pytest

from trunkline.bus.histogram import JITTER, Histogram
from trunkline.gateway import media_streams as ms
from trunkline.gateway.pace import ARREARS, MOST, WINDOW, Pace

FRAME = ms.Media(0, bytes(160))


def too_fast(pace: Pace, event: ms.Event | None, now: float) -> bool:
    return pace.judge(event, now) == "too fast"


def send(pace: Pace, times: float, seconds: float, *, since: float = 0.0) -> float | None:
    """Frames at so many times real time. When the stream is too fast; None: it is not."""
    for n in range(round(50 * times * seconds)):
        now = since + n / (50 * times)
        if too_fast(pace, FRAME, now):
            return now
    return None


@pytest.mark.parametrize("times", [1.0, 1.5, 2.0])
def test_up_to_twice_real_time_is_taken(times: float) -> None:
    assert send(Pace(0.0), times, 60.0) is None


@pytest.mark.parametrize("times", [2.5, 10.0, 100.0])
def test_more_is_cut_off_within_the_window(times: float) -> None:
    cut_off = send(Pace(0.0), times, 60.0)
    assert cut_off is not None and cut_off <= 5.0


def test_messages_that_bring_no_sound_count_too() -> None:
    for event in (None, ms.Media(0, b"\x00"), ms.Dtmf(1, "1"), ms.Stop()):
        pace = Pace(0.0)
        assert [too_fast(pace, event, 0.0) for _ in range(1_001)] == [False] * 1_000 + [True]


def test_marks_that_come_back_do_not() -> None:
    """An interrupt brings all of them back at once."""
    pace = Pace(0.0)
    assert not any(too_fast(pace, ms.MarkReturned("m"), 0.0) for _ in range(10_000))


@pytest.mark.parametrize("stood_still", [3.0, 9.0, 60.0])
def test_what_comes_late_is_not_too_fast(stood_still: float) -> None:
    """The network, or this process, stood still: all of that time's sound is read in one go."""
    pace = Pace(0.0)
    assert send(pace, 1.0, 62.5) is None  # in the middle of a window
    woke = 62.5 + stood_still
    assert not any(too_fast(pace, FRAME, woke) for _ in range(round(50 * stood_still)))
    assert send(pace, 1.0, 60.0, since=woke) is None


@pytest.mark.parametrize("into", [0.0, 2.5, 4.9])
def test_what_comes_late_of_a_slow_stream_is_not_too_fast(into: float) -> None:
    """The network let half of the sound through for 20 s, and then all the rest within a second,
    whenever in a window that was."""
    pace = Pace(0.0)
    slow = 60.0 + into
    assert send(pace, 1.0, slow) is None
    assert send(pace, 0.5, 20.0, since=slow) is None
    late = slow + 20.0
    assert send(pace, 11.0, 1.0, since=late) is None
    assert send(pace, 1.0, 60.0, since=late + 1.0) is None


def test_a_slow_stream_saves_up_no_more_than_the_arrears_allow() -> None:
    pace = Pace(0.0)
    assert send(pace, 0.1, 600.0) is None
    # A message every 200 ms, so that it never was silent for long.
    taken = 0.0
    while not too_fast(pace, FRAME, 600.0):
        taken += 0.02
    assert taken <= MOST * (WINDOW + 0.2) + ARREARS
    # Another stream shouts as soon as the network is free: what it had saved up is gone then.
    pace = Pace(0.0)
    assert send(pace, 0.1, 600.0) is None
    cut_off = send(pace, 5.0, 60.0, since=600.0)
    assert cut_off is not None and cut_off <= 600.0 + 3 * WINDOW


def place(pace: Pace, now: float, seconds: float) -> bool:
    return pace.judge(ms.Media(round(8_000 * seconds), bytes(160)), now) == "fine"


def test_a_position_may_not_run_ahead_of_the_clock_nor_back() -> None:
    pace = Pace(100.0)
    assert place(pace, 100.0, 0.0)
    assert place(pace, 105.0, 5.0)
    assert not place(pace, 105.0, 5.0), "once more the same"
    assert not place(pace, 105.0, 4.0)
    assert not place(pace, 105.1, 3_600.0)
    assert place(pace, 105.1, 5.02), "a jump harms no later frame"
    assert place(pace, 105.2, 5.03), "what overlaps is cut where it is put in place"
    assert place(pace, 120.0, 20.0), "silence may be left out"


def test_positions_count_from_the_first_frames() -> None:
    """A carrier may count from the call's creation."""
    pace = Pace(100.0)
    assert place(pace, 100.0, 7_200.0)
    assert place(pace, 101.0, 7_201.0)
    assert not place(pace, 101.0, 7_213.0)


def test_jitter_is_how_much_later_the_latest_frame_of_a_window_came_than_the_earliest() -> None:
    jitter = Histogram(JITTER)
    pace = Pace(0.0, jitter)
    late = {100: 0.09, 300: 0.03}
    for n in range(1000):  # 20 s: the last window is not over
        pace.judge(ms.Media(n * 160, bytes(160)), 1.0 + n * 0.02 + late.get(n, 0.0))
    assert sum(jitter.counts) == 3
    assert jitter.sum == pytest.approx(0.09 + 0.03 + 0.0)
