"""The two tracks of a call that is listened to, put side by side by their stream's own clock."""

from __future__ import annotations

import random

import numpy as np
import pytest

from trunkline.adapter.client.both_tracks import WAITS, BothTracks
from trunkline.bus.sound import MOST_KEPT, WIRE_RATE

FRAME = 160
#: The call time of a track at its worker, where its stream begins. It need not be the other's.
SHIFTS = {True: 40, False: 1_000}


def pcm(value: int, positions: int = FRAME) -> bytes:
    """PCM16 24 kHz of one value."""
    return np.full(3 * positions, value, "<i2").tobytes()


class Bench:
    """Both tracks' workers. Frame n of a stream of ours is n + 1, and of theirs -(n + 1)."""

    def __init__(self, *, taped: bool = True) -> None:
        self.both = BothTracks(taped=taped)
        self.now = 10.0
        #: call time where the streams begin, by ordinal
        self.call_time = {1: 0}

    def frame(self, n: int, *, ours: bool, ordinal: int = 1) -> None:
        self.now += 0.01
        end = (n + 1) * FRAME
        self.both.heard(
            ours=ours,
            ordinal=ordinal,
            stream_end=end,
            call_end=self.call_time[ordinal] + end + SHIFTS[ours],
            pcm=pcm(n + 1 if ours else -n - 1),
            codes=bytes([n % 256]) * FRAME,
            now=self.now,
        )

    def pair(self, *frames: int, ordinal: int = 1) -> None:
        for n in frames:
            self.frame(n, ours=True, ordinal=ordinal)
            self.frame(n, ours=False, ordinal=ordinal)

    def taken(self) -> tuple[float, list[int], list[int]]:
        """What there is: its time, and the value of each 20 ms of both sides."""
        piece = self.both.take()
        assert piece is not None
        at, ours, theirs = piece
        assert len(ours) == len(theirs)
        sides = [np.frombuffer(side, "<i2")[:: 3 * FRAME].tolist() for side in (ours, theirs)]
        return at, sides[0], sides[1]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_frames_of_the_same_time_come_together(bench: Bench) -> None:
    bench.pair(0, 1)
    assert bench.taken() == (0.0, [1, 2], [-1, -2])
    assert bench.both.take() is None
    bench.frame(2, ours=True)
    assert not bench.both.ready()
    bench.frame(2, ours=False)
    assert bench.taken() == (0.04, [3], [-3])


def test_a_track_that_begins_later_has_silence_before(bench: Bench) -> None:
    bench.frame(0, ours=True)
    bench.frame(1, ours=True)
    bench.frame(1, ours=False)
    assert bench.taken() == (0.0, [1, 2], [0, -2])


def test_what_never_came_is_silence(bench: Bench) -> None:
    bench.pair(0)
    bench.frame(1, ours=True)
    bench.frame(2, ours=True)
    bench.frame(3, ours=False)
    bench.frame(4, ours=False)
    bench.frame(4, ours=True)
    assert bench.taken() == (0.0, [1, 2, 3, 0, 5], [-1, 0, 0, -4, -5])


def test_a_track_that_brings_nothing_is_not_waited_for_without_end(bench: Bench) -> None:
    last = WAITS // FRAME + 3
    for n in range(last):
        bench.frame(n, ours=True)
    _, ours, theirs = bench.taken()
    assert ours == [1, 2, 3] and theirs == [0, 0, 0]
    # Too late for this one, and not for the report.
    bench.frame(0, ours=False)
    bench.frame(3, ours=False)
    at, ours, theirs = bench.taken()
    assert (at, ours[0], theirs[0]) == (0.06, 4, -4)
    _, kept = bench.both.sides()
    assert len(kept) == 4 * FRAME


def test_a_later_stream_has_one_place_for_both_tracks(bench: Bench) -> None:
    bench.pair(0, 1)
    bench.taken()
    # Their workers reckon the hole by their clocks, and need not agree.
    bench.call_time[2] = 10 * FRAME
    bench.pair(0, 1, ordinal=2)
    at, ours, theirs = bench.taken()
    assert at == 0.04
    assert ours == [0] * 8 + [1, 2] and theirs == [0] * 8 + [-1, -2]


def test_a_later_stream_never_runs_back(bench: Bench) -> None:
    bench.pair(0, 1, 2, 3)
    bench.taken()
    bench.call_time[2] = 0
    bench.pair(0, ordinal=2)
    assert bench.taken() == (0.08, [1], [-1])


def test_the_end_hands_out_what_one_track_alone_has(bench: Bench) -> None:
    bench.pair(0)
    bench.frame(1, ours=False)
    bench.both.track_over()
    assert not bench.both.over
    bench.both.track_over()
    assert bench.both.over and bench.taken() == (0.0, [1, 0], [-1, -2])
    assert bench.both.ready() and bench.both.take() is None


def test_what_nobody_takes_is_bounded_and_counted() -> None:
    bench = Bench(taped=False)
    frames = (MOST_KEPT + 1) * WIRE_RATE // FRAME
    bench.pair(*range(frames))
    at, ours, _ = bench.taken()
    assert at == pytest.approx(1.0, abs=0.05) and len(ours) * FRAME == MOST_KEPT * WIRE_RATE
    assert bench.both.not_taken == 2 * 6 * WIRE_RATE
    assert not bench.both.is_kept


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_the_two_tracks_gives_the_same(seed: int) -> None:
    chance = random.Random(seed)
    bench = Bench()
    left = {True: 0, False: 0}
    heard: dict[bool, list[int]] = {True: [], False: []}
    at = 0.0
    while min(left.values()) < 50:
        ours = chance.random() < 0.5
        if abs(left[ours] + 1 - left[not ours]) * FRAME > WAITS // 2:
            continue
        if chance.random() < 0.9:  # else it is lost
            bench.frame(left[ours], ours=ours)
        left[ours] += 1
        piece = bench.both.take()
        if piece is not None:
            assert piece[0] == pytest.approx(at)
            at += len(piece[1]) / 48_000
            for side, sound in ((True, piece[1]), (False, piece[2])):
                heard[side] += np.frombuffer(sound, "<i2")[:: 3 * FRAME].tolist()
    assert len(heard[True]) == len(heard[False])
    for side, values in heard.items():
        sign = 1 if side else -1
        assert all(value in (0, sign * (n + 1)) for n, value in enumerate(values)), seed
