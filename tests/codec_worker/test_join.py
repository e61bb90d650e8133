"""Two streams that brought the same sound for a while, joined to the sample."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.bus import messages as m
from trunkline.codec_worker import mulaw
from trunkline.codec_worker.inbound import Inbound, InboundFrame, SoundPiece, hand_out
from trunkline.codec_worker.join import TOLERANCE, overlap

from .peers import UP, Bench, decoded

MS = 1_000_000
T0 = 1_000_000 * MS
RNG = np.random.default_rng(11)
#: 8 s of sound that is alike nowhere, and the same with a pause between 2 and 3 s.
SOUND = mulaw.encode(np.rint(RNG.normal(0, 3000, 64_000)).astype(np.int16)).tobytes()
PAUSED = SOUND[:16_000] + bytes([0xFF]) * 8_000 + SOUND[24_000:]


def heard(pieces: list[SoundPiece]) -> npt.NDArray[np.int_]:
    return np.frombuffer(b"".join(p.pcm for p in pieces), "<i2").astype(int)


def take(inbound: Inbound) -> list[SoundPiece]:
    return hand_out(UP, [inbound])


def frames(
    ordinal: int, begin: int, end: int, *, of: bytes = SOUND, late: int = 0
) -> list[InboundFrame]:
    """Samples ``begin`` to ``end`` of the sound as a stream brings them, ``late`` ns late."""
    found = []
    for at in range(begin, end, 160):
        payload = of[at : min(at + 160, end)]
        arrival = T0 + (at + len(payload)) * MS // 8 + late
        found.append(InboundFrame(arrival, ordinal, at - begin, payload))
    return found


# ----------------------------------------------------------------------------- by the bytes


@given(st.integers(16, 8000), st.integers(16, 16_000), st.integers(-4000, 4000))
def test_the_sound_says_exactly_how_much_both_brought(old: int, new: int, guess: int) -> None:
    """Whichever of the two reaches farther, and however wrong the clock is."""
    end = 20_000
    for both in (16, 31, 400, 777, min(old, new), new + 123, old + 123):
        begin = end - both  # the new one begins `both` samples before the old one's end
        if begin < end - old and both - old > new - 16:
            continue  # less than 2 ms in common
        found = overlap(SOUND[end - old : end], SOUND[begin : begin + new], both + guess)
        if min(both, new) - max(0, both - old) >= 16:
            assert found == both


def test_a_tone_is_joined_where_the_clock_says() -> None:
    """Alike at each period: the nearest one."""
    tone = mulaw.encode(
        np.rint(8000 * np.sin(np.arange(16_000) * 2 * np.pi / 80)).astype(np.int16)
    ).tobytes()
    assert overlap(tone[:8000], tone[6400:12_000], 1610) == 1600
    assert overlap(tone[:8000], tone[6400:12_000], 1650) == 1680


@pytest.mark.parametrize(
    ("by_clock", "found"),
    [(0, 0), (TOLERANCE, 0), (-TOLERANCE, 0), (TOLERANCE + 1, TOLERANCE + 1), (-1200, -1200)],
)
def test_silence_and_sound_that_differs_are_joined_by_the_clock(by_clock: int, found: int) -> None:
    quiet = bytes([0xFF]) * 4000
    assert overlap(quiet, quiet, by_clock) == found
    other = bytes(b ^ 1 for b in SOUND)
    assert overlap(SOUND[:4000], other[2000:8000], by_clock) == found


def test_a_pause_at_the_joint_does_not_hide_the_words_before_it() -> None:
    old, new = PAUSED[8000:18_000], PAUSED[14_000:20_000]
    assert overlap(old, new, 3500) == 4000


# ----------------------------------------------------------------------------- as it is heard


@pytest.mark.parametrize("before", [0, 3, 40])
def test_two_joints_leave_every_sample_in_its_place_and_the_filter_goes_on(before: int) -> None:
    """``before``: how many frames of the stream before the client has not heard at the joint."""
    inbound = Inbound()
    inbound.resume(0, 0, 0, 0, T0)
    told: list[SoundPiece] = []
    last = [*frames(1, 0, 16_000)]
    for frame in last[: len(last) - before]:
        inbound.add(frame)
        told += take(inbound)
    for ordinal, begin, end in ((2, 9_000, 30_003), (3, 27_321, 40_000)):
        if ordinal == 2:
            for frame in last[len(last) - before :]:
                inbound.add(frame)
        inbound.join(ordinal)
        new = frames(ordinal, begin, end)
        inbound.replace_ring(new[:60])
        position = told[-1]
        now = new[59].arrival
        stop = position.position + len(position.pcm) // 6
        inbound.resume(position.ordinal, position.stream_end, stop, 30 * MS, now)
        told += take(inbound)
        for frame in new[60:]:
            inbound.add(frame)
            told += take(inbound)
    inbound.end_stream()
    told += take(inbound)
    assert inbound.lost == 0 and all(piece.lost == 0 for piece in told)
    assert np.array_equal(heard(told), decoded(SOUND[:40_000]))
    assert (told[-1].ordinal, told[-1].stream_end) == (3, 40_000 - 27_321)
    assert told[-1].position + len(told[-1].pcm) // 6 == 40_000


def test_what_no_stream_brought_is_lost_and_counted() -> None:
    """The one-way stream was up only 0.5 s after the end of the stream before it."""
    inbound = Inbound()
    inbound.resume(0, 0, 0, 0, T0)
    for frame in frames(1, 0, 16_000):
        inbound.add(frame)
    told = take(inbound)
    inbound.join(2)
    new = frames(2, 20_000, 24_000)
    inbound.replace_ring(new)
    now = new[-1].arrival
    end = told[-1].position + len(told[-1].pcm) // 6
    idle = now - (T0 + end * MS // 8)
    inbound.resume(1, told[-1].stream_end, end, idle, now)
    told += take(inbound)
    assert sum(piece.lost for piece in told) == inbound.lost == 4_000
    assert told[-1].position + len(told[-1].pcm) // 6 in range(24_000 - 20, 24_001)


# ----------------------------------------------------------------------------- a worker's call


def next_stream(bench: Bench, reason: m.StreamEndReason | None, *, one_way: bool) -> None:
    bench.new_stream(reason)
    bench.gateway.one_way, bench.gateway.joins = one_way, True
    bench.open()


def test_a_one_way_stream_takes_no_sound_and_what_is_said_waits() -> None:
    bench = Bench(1)
    bench.open()
    bench.speak(bytes(4_800))
    bench.tick(12)
    assert bench.adapter.acknowledged == 800
    next_stream(bench, "stop", one_way=True)
    bench.speak(bytes(9_600))
    bench.tick(50)
    assert (bench.adapter.acknowledged, bench.adapter.idle) == (800, False)
    bench.from_adapter(bench.adapter.interrupt())
    bench.run()
    assert "clear" not in bench.gateway.texts  # there is nothing that it could be written to
    bench.speak(bytes(4_800))
    bench.tick(20)
    assert len(bench.gateway.frames) == 5
    next_stream(bench, None, one_way=False)
    bench.tick(12)
    assert bench.adapter.acknowledged == 800 + 1600 + 800
    assert (bench.adapter.lost_in, bench.adapter.lost_out) == (0, 0)
    (stats,) = bench.worker.stats(bench.now)
    assert (stats.frames_out, stats.frames_lost) == (10, 0)


def test_a_worker_that_takes_over_in_the_seam_is_mute_too() -> None:
    bench = Bench(2)
    bench.open()
    bench.speak(bytes(960))
    bench.tick(6)
    next_stream(bench, "stop", one_way=True)
    bench.move(1)
    bench.speak(bytes(9_600))
    bench.tick(30)
    assert bench.adapter.acknowledged == len(bench.gateway.frames) * 160 == 160
    next_stream(bench, None, one_way=False)
    bench.tick(30)
    assert bench.adapter.acknowledged == 160 + 1600
    assert bench.adapter.lost_out == 0
