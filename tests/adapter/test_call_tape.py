"""A call's sound on one clock: theirs by its position, ours by when the carrier plays it."""

from __future__ import annotations

import gc
import os
import resource
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from trunkline.adapter.client.call_tape import CallTape
from trunkline.adapter.client.tape_store import Side
from trunkline.codec_worker import mulaw

FRAME = 0.02


def pcm(value: int, seconds: float = FRAME) -> bytes:
    """PCM16 at 24 kHz."""
    return np.full(round(seconds * 24_000), value, "<i2").tobytes()


def codes(value: int, seconds: float = FRAME) -> bytes:
    """Mu-law, as the carrier sends it."""
    return mulaw.encode(np.full(round(seconds * 8_000), value, np.int16)).tobytes()


def taped(frames: int = 100, began: float = 50.0, late: float = 0.01) -> CallTape:
    """The far end says 1000, 1001, …; each frame comes ``late`` after it was said."""
    tape = CallTape()
    for n in range(frames):
        tape.heard(160 * n, codes(1000 + n), began + (n + 1) * FRAME + late)
    return tape


def speak(tape: CallTape, sound: bytes) -> int:
    """An utterance goes to a worker; returns its first position."""
    first = max(0, tape._spoken_to)
    tape.spoken(first, sound, begins=True)
    return first


def say(tape: CallTape, begins: float, sound: bytes) -> None:
    """A whole utterance."""
    first = speak(tape, sound)
    tape.said(begins, first, first + len(sound) // 6)


def test_what_they_said_stands_at_its_position_and_holes_are_silence() -> None:
    tape = taped(10)
    tape.heard(160 * 15, codes(2000), 50.33)
    _, theirs = tape.sides()
    assert len(theirs) == 16 * 160
    assert theirs[80] == pytest.approx(1000, rel=0.03)
    assert not theirs[1600 : 15 * 160].any()
    assert theirs[-1] == pytest.approx(2000, rel=0.03)


def test_ours_stands_where_the_carrier_plays_it() -> None:
    tape = taped()
    # The far end's position 0 came at 50.01, so 51.01 is position 8000.
    say(tape, 51.01, pcm(3000, 0.5))
    ours, theirs = tape.sides()
    assert len(theirs) == 16_000
    assert not ours[:8000].any()
    assert ours[8000:12_000] == pytest.approx(np.full(4000, 3000), rel=0.03)
    assert len(ours) == 12_000


def test_sound_that_came_late_moves_nothing() -> None:
    tape = taped()
    for n in range(100, 110):  # 0.3 s late, as after a stall
        tape.heard(160 * n, codes(1), 50.0 + (n + 1) * FRAME + 0.31)
    say(tape, 51.01, pcm(3000))
    ours, _ = tape.sides()
    assert np.flatnonzero(ours)[0] == 8000
    assert tape.jitter_ms == pytest.approx(300, abs=1)


def test_an_acknowledgement_that_is_late_makes_no_hole_in_an_utterance() -> None:
    tape = taped()
    speak(tape, pcm(3000, 2 * FRAME))
    tape.said(51.01, 0, 160)
    tape.said(51.15, 160, 320)
    say(tape, 51.50, pcm(5000))
    ours, _ = tape.sides()
    assert ours[8000:8320] == pytest.approx(np.full(320, 3000), rel=0.03)
    assert not ours[8320:11_920].any() and ours[11_920:].any()


def test_an_interrupt_takes_back_what_was_not_played() -> None:
    tape = taped()
    say(tape, 51.01, pcm(3000, 0.1))
    tape.cut(51.05)
    say(tape, 51.05, pcm(-4000, 0.1))
    ours, _ = tape.sides()
    assert ours[8000:8320] == pytest.approx(np.full(320, 3000), rel=0.03)
    assert ours[8320:9120] == pytest.approx(np.full(800, -4000), rel=0.03)
    assert len(ours) == 9120


def test_a_call_without_sound_has_none() -> None:
    tape = CallTape()
    ours, theirs = tape.sides()
    assert (len(ours), len(theirs), tape.jitter_ms) == (0, 0, None)


RAMP = np.arange(24_000, dtype="<i2")


def longer(seconds: int) -> CallTape:
    """Both sides speak all the time: they a constant for each second, we a ramp."""
    tape = CallTape()
    for n in range(50 * seconds):
        tape.heard(160 * n, codes(1000 + 10 * (n // 50)), 50.01 + (n + 1) * FRAME)
        if n % 50 == 0:
            tape.spoken(160 * n, RAMP.tobytes(), begins=n == 0)
        tape.said(50.01 + n * FRAME, 160 * n, 160 * (n + 1))
    return tape


def whole(tape: CallTape, seconds: int) -> bool:
    """The tape has all that :func:`longer` said, and nothing else."""
    ours, theirs = tape.sides()
    told = np.repeat(1000 + 10 * np.arange(seconds), 8_000)
    said = np.tile(RAMP[::3].astype(np.int64), seconds)
    return bool(
        len(ours) == len(theirs) == 8_000 * seconds
        and np.allclose(theirs, told, rtol=0.035)
        and np.allclose(ours, said, rtol=0.035, atol=8)
    )


def test_a_long_call_takes_no_more_memory_than_a_short_one() -> None:
    longer(20)  # what is made once
    sizes = []
    for seconds in (20, 324):  # 4 s behind the last that went to the file
        tracemalloc.start()
        tape = longer(seconds)
        sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        assert whole(tape, seconds)
    assert max(sizes) < 2 * 20 * 8_000
    assert sizes[1] < sizes[0] + 16_000


def test_the_file_of_an_unbroken_call_is_one_piece() -> None:
    side = Side()
    sound = [bytes([n % 256]) * 8_000 for n in range(100)]
    for n, codes in enumerate(sound[:50]):
        side.add(8_000 * n, codes)
    for n, codes in enumerate(sound[50:], 55):  # behind a hole of 5 s
        side.add(8_000 * n, codes)
    assert list(side.pieces()) == [(0, b"".join(sound[:50])), (440_000, b"".join(sound[50:]))]
    in_file = [piece for _, piece in side._pieces if not isinstance(piece, bytes)]
    assert [piece.size for piece in in_file] == [400_000, 368_000]


def test_the_file_of_a_long_call_goes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def files() -> int:
        every = [fd for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]
        return sum(fd.readlink().is_relative_to(tmp_path) for fd in every)

    tape = longer(40)
    assert files() == 2  # one for each side
    assert not list(tmp_path.iterdir())  # and nobody else can find them
    del tape
    gc.collect()
    assert files() == 0


def test_where_no_file_can_be_had_the_sound_stays_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "not there"))
    assert whole(longer(40), 40)
    assert len(caplog.messages) == 6  # at 8, 16 and 32 s of each side
    assert "stays in memory" in caplog.text and "not there" in caplog.text


def test_tapes_leave_the_half_of_all_descriptors_to_the_test(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = len([*Path("/proc/self/fd").iterdir()])
    monkeypatch.setattr(resource, "getrlimit", lambda which: (4, -1))
    assert whole(longer(20), 20)
    assert "half of this process's descriptors are taken" in caplog.text
    assert len([*Path("/proc/self/fd").iterdir()]) == before
    monkeypatch.setattr(resource, "getrlimit", lambda which: (-1, -1))
    caplog.clear()
    assert whole(longer(20), 20)
    assert not caplog.messages


def test_a_disk_that_fills_up_costs_no_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwrite
    monkeypatch.setattr(
        os, "pwrite", lambda fd, data, at: write(fd, data[: max(0, 200_000 - at)], at)
    )
    assert whole(longer(60), 60)


def test_an_interrupt_takes_back_some_of_a_long_utterance() -> None:
    tape = taped()
    speak(tape, pcm(3000, 2.5))
    for first in range(0, 20_000, 160):
        tape.said(51.01 + first / 8_000, first, first + 160)
    tape.cut(52.51)
    ours, _ = tape.sides()
    assert len(ours) == 8000 + 12_000 and ours[8000:].all()
    say(tape, 52.51, pcm(-4000))
    assert tape.sides()[0][20_000:] == pytest.approx(np.full(160, -4000), rel=0.03)


def test_it_may_be_asked_for_while_it_is_added_to() -> None:
    tape = taped(frames=30)
    speak(tape, pcm(3000, 3.0))
    tape.said(50.51, 0, 4000)
    for _ in range(2):  # the first look changes nothing
        ours, theirs = tape.sides()
        assert (len(ours), len(theirs)) == (4000 + 4000, 30 * 160)
    tape.said(51.01, 4000, 24_000)
    assert len(tape.sides()[0]) == 4000 + 24_000


def test_what_goes_to_another_worker_too_is_kept_once() -> None:
    tape = taped()
    speak(tape, pcm(3000, 0.1))
    tape.spoken(0, pcm(3000, 0.1), begins=True)
    tape.spoken(400, pcm(3000, 0.1), begins=False)  # half of it is new
    tape.said(51.01, 0, 1200)
    assert len(tape._speaking[1]) == 1200
    ours, _ = tape.sides()
    assert ours[8000:] == pytest.approx(np.full(1200, 3000), rel=0.03)


def test_an_utterance_that_follows_within_one_acknowledgement_has_its_own_words() -> None:
    tape = taped()
    speak(tape, pcm(3000, 0.1))
    speak(tape, pcm(-4000, 0.1))
    tape.said(51.01, 0, 400)
    tape.said(51.06, 400, 1600)
    ours, _ = tape.sides()
    assert ours[8000:8800] == pytest.approx(np.full(800, 3000), rel=0.03)
    assert ours[8800:] == pytest.approx(np.full(800, -4000), rel=0.03)


def test_positions_that_an_interrupt_passed_over_have_no_sound() -> None:
    tape = taped()
    speak(tape, pcm(3000, 0.1))
    tape.spoken(8000, pcm(-4000, 0.1), begins=True)
    tape.said(51.01, 8000, 8800)
    ours, _ = tape.sides()
    assert len(ours) == 8800 and ours[8000:] == pytest.approx(np.full(800, -4000), rel=0.03)
