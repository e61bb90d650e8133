"""The benchmark's arithmetic on arrivals that were made up."""

from __future__ import annotations

from array import array
from pathlib import Path

import msgspec
import numpy as np
import pytest

from benchmarks import arrivals, chaos_code
from benchmarks.arrivals import FRAME, Arrivals
from trunkline.carrier_sim import mulaw


def call(*late: float, lead: int = 0, size: int = FRAME) -> Arrivals:
    """Messages of 20 ms, the n-th ``late[n]`` ms after it is due; the first ``lead`` come with the
    one before them."""
    ahead = np.minimum(np.arange(len(late)), lead) * 20.0
    times = 5000.0 + np.arange(len(late)) * 20.0 - ahead + np.array(late)
    return Arrivals(times, np.full(len(late), float(size)))


def test_an_even_call_with_a_lead_has_no_jitter_no_drift_no_underrun() -> None:
    even = call(*[0.0] * 100, lead=3)
    assert arrivals.jitter([even]).max() == 0.0
    assert arrivals.drift(even) == pytest.approx(0.0, abs=1e-9)
    assert arrivals.underruns(even) == (0, 0.0)


def test_the_first_ten_frames_are_left_out_of_the_jitter() -> None:
    jumpy = call(*[30.0] * 10, *[0.0] * 90)
    assert len(arrivals.jitter([jumpy])) == 90
    assert arrivals.jitter([jumpy]).max() == 0.0


def test_each_call_is_centred_on_its_own_median_before_all_are_pooled() -> None:
    one = call(*[0.0] * 10, *[100.0, 101.0, 99.0] * 20)
    other = call(*[0.0] * 10, *[-7.0] * 60)
    pooled = arrivals.jitter([one, other])
    assert len(pooled) == 120
    assert sorted(set(pooled.round(6))) == [0.0, 1.0]


def test_a_sender_that_sleeps_after_each_frame_drifts_and_runs_dry_at_every_frame() -> None:
    slow = call(*(0.9 * n for n in range(750)))
    assert arrivals.drift(slow) == pytest.approx(0.9 * 740)
    count, ms = arrivals.underruns(slow)
    assert count == 749
    assert ms == pytest.approx(0.9 * 749)


def test_a_machine_that_is_busy_in_the_middle_moves_no_end() -> None:
    for busy in ([0.0, 30.0], [30.0, 0.0], [30.0] * 20):
        late = [0.0] * 510
        late[200 : 200 + len(busy) * 4] = busy * 4
        assert abs(arrivals.drift(call(*late))) < 2.0


def test_a_frame_that_is_later_than_the_lead_is_one_underrun() -> None:
    late = [0.0] * 100
    late[50] = 75.0
    # 15 ms beyond the lead of three frames; those behind it come in time.
    assert arrivals.underruns(call(*late, lead=3)) == (1, pytest.approx(15.0))
    late[50] = 59.0
    assert arrivals.underruns(call(*late, lead=3)) == (0, 0.0)


def test_a_pace_that_is_moved_by_an_underrun_is_no_further_underrun() -> None:
    moved = [0.0] * 50 + [80.0] * 50
    assert arrivals.underruns(call(*moved, lead=3)) == (1, pytest.approx(20.0))


def test_due_counts_the_audio_and_not_the_messages() -> None:
    double = Arrivals(np.arange(50) * 40.0, np.full(50, 2.0 * FRAME))
    assert arrivals.jitter([double]).max() == 0.0
    assert len(double.settled) == 45


def numbered(*numbers: int) -> Arrivals:
    audio = b"".join(mulaw.encode(chaos_code.samples(n, 1)) for n in numbers)
    return Arrivals(np.arange(len(numbers)) * 20.0, np.full(len(numbers), float(FRAME)), audio)


@pytest.mark.parametrize(
    ("numbers", "lost", "astray"),
    [
        (range(50), 0, 0),
        ([*range(20), *range(21, 50)], 1, 0),
        ([*range(20), *range(30, 50)], 10, 0),
        ([*range(20), 19, *range(20, 50)], 0, 1),
        ([*range(20), 21, 20, *range(22, 50)], 0, 1),
        (range(30), 20, 0),
    ],
)
def test_frames_that_did_not_come_or_came_twice_or_in_another_order(
    numbers: list[int], lost: int, astray: int
) -> None:
    assert arrivals.wrong_frames(numbered(*numbers), 50) == (lost, astray)


def test_of_an_echo_only_the_gaps_are_losses() -> None:
    assert arrivals.wrong_frames(numbered(*range(7, 20), *range(22, 40)), None) == (2, 0)


def test_a_report_is_read_as_the_load_generator_writes_it(tmp_path: Path) -> None:
    text = b'{"event": "media", "streamSid": "MZ1", "media": {"payload": "//8="}}'
    stamps = array("q", [5_000_000, 25_000_000])
    times, sizes = stamps.tobytes(), array("q", [160, 320]).tobytes()
    report = [
        ("CA1", times, times, b"", array("q", [2, 2]).tobytes(), [text, text]),
        ("CA2", b"", times, b"", b"", []),
        ("CA3", times, times, times, sizes, []),
    ]
    (tmp_path / "report").write_bytes(msgspec.msgpack.encode(report))
    found, untold = arrivals.read(tmp_path / "report")
    assert found.call_sid == "CA1"
    assert found.times.tolist() == [5.0, 25.0]
    assert (found.samples, found.audio) == (4, b"\xff\xff\xff\xff")
    assert found.sent_at.tolist() == [5.0, 25.0]
    # Where the texts were not kept, there is no audio.
    assert (untold.call_sid, untold.samples, untold.audio) == ("CA3", 480, b"")
    assert untold.clears.tolist() == [5.0, 25.0]
