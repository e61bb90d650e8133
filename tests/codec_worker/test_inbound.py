"""Inbound sound: positions, what was lost, and what a Resume asks again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.bus.sound import MOST_GATHERED
from trunkline.codec_worker import mulaw
from trunkline.codec_worker.inbound import Inbound, InboundFrame, SoundPiece, hand_out

from .peers import UP, decoded

MS = 1_000_000
T0 = 1_000_000 * MS
SPEECH = mulaw.encode(
    np.rint(
        9000 * np.sin(np.arange(400 * 160) * 0.21) * np.sin(np.arange(400 * 160) * 0.003)
    ).astype(np.int16)
).tobytes()


def frame(n: int, ordinal: int = 1, size: int = 160, at: int | None = None) -> InboundFrame:
    """The n-th frame of a stream, on time."""
    arrival = T0 + n * 20 * MS if at is None else at
    return InboundFrame(arrival, ordinal, n * 160, SPEECH[n * 160 : n * 160 + size])


def fresh() -> Inbound:
    inbound = Inbound()
    inbound.resume(0, 0, 0, 0, T0)
    return inbound


def take(inbound: Inbound) -> list[SoundPiece]:
    return hand_out(UP, [inbound])


def sound(pieces: list[SoundPiece]) -> npt.NDArray[np.int_]:
    assert all(len(p.pcm) == 6 * len(p.codes) for p in pieces)
    return np.frombuffer(b"".join(p.pcm for p in pieces), "<i2").astype(int)


def test_each_piece_has_the_codes_that_it_was_made_of() -> None:
    inbound = fresh()
    told = []
    for n in [*range(4), *range(6, 9)]:  # two frames never come
        inbound.add(frame(n))
        told += take(inbound)
    inbound.end_stream()
    told += take(inbound)
    sent = [frame(n).payload for n in range(9)]
    assert b"".join(p.codes for p in told) == b"".join(sent[:4]) + b"".join(sent[6:])
    assert len(sound(told)) == 3 * 7 * 160


def test_each_frame_is_told_at_its_call_time_two_milliseconds_late() -> None:
    inbound = fresh()
    told = []
    for n in range(3):
        inbound.add(frame(n))
        told += take(inbound)
    assert [(p.position, p.stream_end, p.lost, len(p.pcm)) for p in told] == [
        (0, 144, 0, 144 * 6),
        (144, 304, 0, 960),
        (304, 464, 0, 960),
    ]
    inbound.end_stream()
    told += take(inbound)
    assert (told[-1].position, told[-1].stream_end) == (464, 480)
    assert np.array_equal(sound(told), decoded(SPEECH[:480]))
    assert inbound.lost == 0


def test_the_first_stream_begins_at_call_time_0_wherever_its_positions_begin() -> None:
    inbound = fresh()
    inbound.add(frame(5))
    (piece,) = take(inbound)
    assert (piece.position, piece.stream_end, piece.lost) == (0, 5 * 160 + 144, 0)


def test_a_beginning_that_is_much_too_late_is_lost_sound() -> None:
    inbound = fresh()
    inbound.add(frame(100))
    (piece,) = take(inbound)
    assert (piece.position, piece.lost) == (16_000, 16_000)


def test_a_gap_is_counted_and_ends_the_sound_before_it() -> None:
    inbound = fresh()
    inbound.add(frame(0))
    first = take(inbound)
    inbound.add(frame(3))
    rest = take(inbound)
    assert [(p.position, p.lost, len(p.pcm) // 6) for p in first + rest] == [
        (0, 0, 144),
        (144, 0, 16),
        (480, 320, 144),
    ]
    assert inbound.lost == 320
    assert np.array_equal(sound(first + rest[:1]), decoded(SPEECH[:160]))


def test_a_gap_within_one_batch() -> None:
    inbound = fresh()
    for n in (0, 1, 4, 5, 9):
        inbound.add(frame(n))
    pieces = take(inbound)
    assert [(p.position, p.lost, len(p.pcm) // 6) for p in pieces] == [
        (0, 0, 320),
        (640, 320, 320),
        (1440, 480, 144),
    ]
    assert inbound.lost == 800


def test_frames_that_were_heard_are_dropped_and_overlaps_are_cut() -> None:
    inbound = fresh()
    inbound.add(frame(0))
    inbound.add(frame(0))
    inbound.add(InboundFrame(T0, 1, 80, SPEECH[80:240]))
    inbound.end_stream()
    assert np.array_equal(sound(take(inbound)), decoded(SPEECH[:240]))


def test_nothing_is_handed_out_before_the_adapter_said_what_it_has_heard() -> None:
    inbound = Inbound()
    for n in range(20):
        inbound.add(frame(n))
    assert take(inbound) == []
    inbound.resume(1, 1000, 5000, 0, T0 + 400 * MS)
    (piece,) = take(inbound)
    assert (piece.position, piece.stream_end) == (5000, 3200 - 16)
    whole = decoded(SPEECH[:3200])
    assert np.abs(sound([piece]) - whole[3000 : 3 * 3184]).max() <= 1  # the filter was warm


def test_frames_wait_for_one_another_until_there_is_a_piece() -> None:
    inbound = fresh()
    inbound.gathers = 800
    told = []
    for n in range(21):
        if inbound.add(frame(n)):
            told.append(take(inbound))
    assert [[(p.position, len(p.pcm) // 6) for p in pieces] for pieces in told] == [
        [(0, 144)],  # the beginning, as any seam
        *([(144 + 800 * n, 800)] for n in range(4)),
    ]
    for n in range(21, 23):
        assert not inbound.add(frame(n))
    inbound.end_stream()
    told.append(take(inbound))
    pieces = [piece for pieces in told for piece in pieces]
    assert np.array_equal(sound(pieces), decoded(SPEECH[: 23 * 160]))
    assert b"".join(p.codes for p in pieces) == SPEECH[: 23 * 160]


def test_two_frames_that_come_as_one_are_as_two() -> None:
    one, two = fresh(), fresh()
    one.gathers = two.gathers = 800
    pieces: tuple[list[SoundPiece], list[SoundPiece]] = [], []
    for n in range(0, 40, 2):
        if one.add(frame(n)) | one.add(frame(n + 1)):
            pieces[0].extend(take(one))
        if two.add(frame(n, size=320, at=T0 + (n + 1) * 20 * MS)):
            pieces[1].extend(take(two))
    assert pieces[0] == pieces[1] and len(pieces[0]) == 7
    assert one._last_arrival == two._last_arrival


def test_a_piece_is_whole_frames_and_no_less_than_is_wanted() -> None:
    for wanted, frames in ((1, 1), (160, 1), (161, 2), (1600, 10)):
        inbound = fresh()
        inbound.add(frame(0))
        take(inbound)
        inbound.gathers = wanted
        waited = [inbound.add(frame(n)) for n in range(1, frames + 1)]
        assert waited == [False] * (frames - 1) + [True]


def test_a_gap_takes_along_what_waits_for_a_piece() -> None:
    inbound = fresh()
    inbound.add(frame(0))
    take(inbound)
    inbound.gathers = 800
    assert not inbound.add(frame(1))
    assert inbound.add(frame(3))
    assert [(p.position, p.lost) for p in take(inbound)] == [(144, 0), (480, 160)]


def test_frames_to_which_no_other_comes_are_overdue_at_the_second_look() -> None:
    inbound = fresh()
    inbound.add(frame(0))
    take(inbound)
    inbound.gathers = 800
    looks = []
    for n in (1, 2, None, None):
        if n is not None:
            inbound.add(frame(n))
        looks.append(inbound.overdue())
    assert looks == [False, False, True, True]
    take(inbound)
    assert not inbound.overdue()


def test_a_resume_asks_again_for_what_lies_in_the_ring() -> None:
    inbound = fresh()
    for n in range(20):
        inbound.add(frame(n))
    take(inbound)
    inbound.resume(1, 1600, 1600, 0, T0 + 400 * MS)
    (piece,) = take(inbound)
    assert (piece.position, len(piece.pcm) // 6) == (1600, 3200 - 16 - 1600)


def test_the_ring_keeps_ten_seconds_and_what_is_older_is_lost() -> None:
    inbound = fresh()
    for n in range(400):
        inbound.add(InboundFrame(T0 + n * 20 * MS, 1, n * 160, bytes(160)))
    for n in range(400, 700):
        inbound.add(InboundFrame(T0 + n * 20 * MS, 1, n * 160, bytes(160)))
    take(inbound)
    inbound.resume(1, 0, 0, 0, T0 + 14_000 * MS)
    (piece,) = take(inbound)
    assert (piece.lost, piece.position) == (200 * 160, 200 * 160)


def test_between_two_streams_the_clock_says_what_was_lost() -> None:
    inbound = fresh()
    inbound.add(frame(0))
    inbound.end_stream()
    inbound.add(frame(0, ordinal=2, at=T0 + 1_020 * MS))  # it covers 1,000 to 1,020 ms
    pieces = take(inbound)
    assert [(p.ordinal, p.position, p.lost) for p in pieces] == [(1, 0, 0), (2, 8160, 8000)]
    assert pieces[1].stream_end == 144


def test_a_worker_without_state_counts_from_the_adapters_word() -> None:
    inbound = Inbound()
    now = T0 + 60_000 * MS
    inbound.replace_ring([frame(0, ordinal=2, at=now - 20 * MS), frame(1, ordinal=2, at=now)])
    inbound.resume(1, 99_000, 100_000, 540 * MS, now)
    (piece,) = take(inbound)
    assert (piece.position, piece.lost) == (100_000 + 4_000, 4_000)
    assert inbound.lost == 4_000


def test_the_gateways_ring_replaces_ours_of_that_stream() -> None:
    inbound = fresh()
    for n in (0, 1, 3):  # one did not reach this worker
        inbound.add(frame(n))
    take(inbound)
    inbound.replace_ring([frame(n) for n in range(6)])
    inbound.resume(1, 304, 304, 0, T0)
    inbound.end_stream()
    (piece,) = take(inbound)
    assert (piece.position, piece.lost, len(piece.pcm) // 6) == (304, 0, 960 - 304)


@pytest.mark.parametrize("at_once", [False, True])
@given(st.data())
def test_sound_and_losses_always_add_up_to_call_time(at_once: bool, data: st.DataObject) -> None:
    """Frames lost, doubled, cut, streams ended, the adapter away: every sample of call time is
    either heard, once and as it was, or told as lost."""
    inbound = fresh()
    told: list[SoundPiece] = []
    resume_from = (0, 0, 0)
    n, ordinal = 0, 1
    for _ in range(data.draw(st.integers(1, 40))):
        kinds = ["frame"] * 4 + ["two"] * 2 + ["lose", "double", "end", "away", "gather"]
        what = data.draw(st.sampled_from(kinds))
        enough = True
        if what == "frame":
            enough = inbound.add(frame(n, ordinal))
            n += 1
        elif what == "two":
            enough = inbound.add(frame(n, ordinal, size=320, at=T0 + (n + 1) * 20 * MS))
            n += 2
        elif what == "gather":
            inbound.gathers = data.draw(st.integers(0, MOST_GATHERED))
        elif what == "lose":
            n += data.draw(st.integers(1, 4))
        elif what == "double" and n:
            inbound.add(frame(n - 1, ordinal, size=data.draw(st.integers(1, 160))))
        elif what == "end":
            inbound.end_stream()
            told += take(inbound)
            ordinal, n = ordinal + 1, 0
        elif what == "away":
            inbound.pause()
            inbound.resume(*resume_from, 0, T0)
        if not at_once and enough:
            told += take(inbound)
        if told:
            last = told[-1]
            resume_from = (last.ordinal, last.stream_end, last.position + len(last.pcm) // 6)
    inbound.end_stream()
    told += take(inbound)
    time = 0
    for piece in told:
        assert piece.position == time + piece.lost
        time = piece.position + len(piece.pcm) // 6
        begin = piece.stream_end - len(piece.pcm) // 6
        samples = np.frombuffer(piece.pcm, "<i2").astype(int)
        whole = decoded(SPEECH[: piece.stream_end + 160])[3 * begin : 3 * piece.stream_end]
        inner = slice(60, -60) if len(samples) > 120 else slice(0, 0)
        assert np.abs(samples[inner] - whole[inner]).max(initial=0) <= 1


def test_streams_of_which_nothing_was_heard_are_lost_by_the_clock() -> None:
    inbound = Inbound()
    now = T0 + 60_000 * MS
    inbound.resume(0, 0, 0, 1_000 * MS, now)
    inbound.add(frame(0, ordinal=2, at=now + 20 * MS))  # it covers what came since the Resume
    (piece,) = take(inbound)
    assert (piece.position, piece.lost) == (8_000, 8_000)


def test_frames_that_were_heard_before_say_nothing_of_when_something_was_heard() -> None:
    """They come again with the gateway's ring; the next stream still counts from the Resume."""
    inbound = Inbound()
    now = T0 + 60_000 * MS
    inbound.replace_ring([frame(n, at=now) for n in range(5)])
    inbound.resume(1, 800, 800, 2_000 * MS, now)
    inbound.add(frame(0, ordinal=2, at=now + 20 * MS))
    pieces = take(inbound)
    assert sum(piece.lost for piece in pieces) == 16_000


def test_frames_that_waited_for_a_worker_that_did_not_run_are_as_old_as_they_are() -> None:
    inbound = fresh()
    inbound.add(frame(0))
    inbound.add(frame(1, at=T0 + 820 * MS))  # it came at 20 ms, and was read 800 ms later
    inbound.end_stream()
    inbound.add(frame(0, ordinal=2, at=T0 + 1_040 * MS))  # it covers 1,020 to 1,040 ms
    assert sum(piece.lost for piece in take(inbound)) == 8_000
