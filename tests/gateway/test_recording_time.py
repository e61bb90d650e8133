"""Ten minutes of a call on a fake clock: both sides of its recording are aligned to a frame.

The carrier of this test keeps its own books: which sample of ours it played at which moment of its
media time. Its clock runs differently from ours, frames arrive unevenly, words are interrupted, and
the stream breaks in the middle. The recording is compared with these books.
"""

from __future__ import annotations

import random
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from trunkline.bus.sound import FRAME, WIRE_RATE
from trunkline.gateway.recording import Recorder, Stereo, pcm16, place_of
from trunkline.gateway.recording_file import HEADER_BYTES, MOST_KEYS, Key, Whose, read_whose

MINUTES = 10
#: The gateway gives the recorder blocks of half a second.
BLOCK = WIRE_RATE
#: Frames are marked by their codes, which come again after more than two seconds.
CODES = 110
LEAD = 0.06
#: Frames of the far end are late by this at most.
JITTER = 0.002


def code(n: int) -> bytes:
    return bytes([1 + n % CODES]) * FRAME


class Carrier:
    """``ppm``: how much faster its clock runs than ours. ``began``: our time at its position 0."""

    def __init__(self, ppm: float, began: float) -> None:
        self._rate = WIRE_RATE * (1 + ppm / 1e6)
        self._began = began
        self._buffer_end = 0
        #: (position of the media time, code of the frame) of each frame that it has played
        self.played: list[tuple[int, int]] = []

    def now(self, time: float) -> int:
        return int((time - self._began) * self._rate)

    def time_of(self, position: int) -> float:
        return self._began + position / self._rate

    def take(self, frame: bytes, time: float) -> None:
        at = max(self._buffer_end, self.now(time))
        self.played.append((at, frame[0]))
        self._buffer_end = at + FRAME

    def clear(self, time: float) -> None:
        """What was to be played by then, or just before, is not compared: the gateway cannot know
        to the sample where the cut is."""
        now = self.now(time)
        self.played = [(at, mark) for at, mark in self.played if at < now - 3 * FRAME]
        self._buffer_end = now


def utterances(rng: random.Random, begin: float, end: float) -> Iterator[tuple[float, int, bool]]:
    """(when it begins, its frames, whether it is interrupted before it is played)"""
    at = begin + 0.5
    while at < end - 25:
        frames = rng.choice((20, 60, 200, 1000))
        yield at, frames, rng.random() < 0.2
        at += frames * 0.02 + rng.uniform(0.5, 4.0)


def stream(rng: random.Random, carrier: Carrier, stereo: Stereo, begin: float, end: float) -> None:
    """One stream of the call, from ``begin`` to ``end`` of our clock."""
    events: list[tuple[float, int, int]] = []  # (time, kind, number): 0 heard, 1 said, 2 cleared
    last = 0.0
    for n in range(int((end - begin) * 50)):
        # The order is kept: it is one connection.
        last = max(last, carrier.time_of((n + 1) * FRAME) + rng.uniform(0, JITTER))
        events.append((last, 0, n))
    count = 0
    for at, frames, interrupted in utterances(rng, begin, end):
        for k in range(frames):
            events.append((at + max(0.0, k * 0.02 - LEAD), 1, count))
            count += 1
        if interrupted:
            events.append((at + max(0.0, (frames - 1) * 0.02 - LEAD) + 0.001, 2, 0))
    for time, kind, n in sorted(events):
        if kind == 0:
            stereo.heard(n * FRAME, code(n))
        elif kind == 1:
            stereo.said(code(n))
            carrier.take(code(n), time)
        else:
            stereo.cleared()
            carrier.clear(time)


@pytest.mark.parametrize("ppm", [-100.0, 100.0])
def test_both_sides_are_aligned_to_a_frame_after_ten_minutes(tmp_path: Path, ppm: float) -> None:
    rng = random.Random(int(ppm))
    recorder = Recorder(tmp_path)
    halves = []
    for ordinal, (begin, end) in enumerate(((0.0, 300.0), (303.0, 60.0 * MINUTES)), 1):
        carrier, stereo = Carrier(ppm, begin), Stereo(place_of(begin))
        track = recorder.begin("CA1", ordinal, first=ordinal == 1, age=begin)
        stream(rng, carrier, stereo, begin, end)
        at, sound = stereo.take()
        for offset in range(0, len(sound), BLOCK):
            recorder.write(track, at + offset // 2, sound[offset : offset + BLOCK])
        recorder.end(track)
        halves.append((place_of(begin), carrier))
    recorder.close()

    (path,) = tmp_path.iterdir()
    with wave.open(str(path)) as file:
        both = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    theirs, ours = both[0::2], both[1::2]
    begins = np.flatnonzero((ours[1:] != ours[:-1]) & (ours[1:] != 0)) + 1
    of_code = {
        byte: int(np.frombuffer(pcm16(bytes([byte])), "<i2")[0]) for byte in range(1, CODES + 1)
    }
    starts = {byte: begins[ours[begins] == value] for byte, value in of_code.items()}
    off = [
        int(np.abs(starts[mark] - (place + at)).min())
        for place, carrier in halves
        for at, mark in carrier.played
    ]
    assert len(off) > 8_000
    # It is known to a frame which of the far end's sound has come, and that came a bit late.
    assert max(off) <= FRAME + JITTER * WIRE_RATE
    assert max(off[-500:]) <= max(off[:500]) + FRAME // 2, "it is no worse at the end"
    # The far end's sound is its own clock: frame by frame, without a seam.
    for n in range(len(theirs) // FRAME // 2 - 200):
        assert theirs[n * FRAME] == theirs[(n + 1) * FRAME - 1] == of_code[1 + n % CODES]
    assert len(theirs) / WIRE_RATE == pytest.approx(60 * MINUTES, abs=0.1)


def test_a_recording_says_whose_call_it_has(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    whose = Whose(direction="inbound", caller="sip:ü@example.com", callee="+14155551234")
    recorder.begin("CA1", 1, first=True, age=0.0, whose=whose)
    recorder.begin("CA2", 1, first=True, age=0.0, whose=Whose(caller="\0ü" * 200))
    recorder.close()
    one, two = sorted(tmp_path.iterdir(), key=lambda path: path.name[16:])
    found = read_whose(one)
    assert (found.sid, found.direction, found.caller) == ("CA1", "inbound", whose.caller)
    assert found.began.endswith("+00:00")
    assert read_whose(two).caller.startswith("\0ü")
    with wave.open(str(two)) as file:
        assert file.getnframes() == 0


def test_keys_of_both_gateways_are_named_by_their_time(tmp_path: Path) -> None:
    """The far end's come with a stream, at the place of its sound. Ours were played between two
    streams, the later of which another gateway has."""
    one, two = Recorder(tmp_path), Recorder(tmp_path)
    first = one.begin(
        "CA1", 1, first=True, age=0.0, whose=Whose(caller="+14155551234", test="a::b")
    )
    sound = Stereo()
    sound.heard(0, code(1) * 50)
    one.press(first, sound.now, "theirs", "5")
    one.close()
    later = two.begin("CA1", 2, first=False, age=4.0)
    two.press(later, place_of(2.5), "ours", "1w#")
    two.write(later, place_of(4.0), bytes(320))
    two.end(later)
    two.close()
    (path,) = tmp_path.iterdir()
    found = read_whose(path)
    assert (found.caller, found.test) == ("+14155551234", "a::b")
    theirs, *ours = found.keys
    assert theirs == Key(1.0, "theirs", "5")
    assert ours == [Key(2.5, "ours", "1"), Key(3.2, "ours", "#")]
    with wave.open(str(path)) as file:
        assert file.getnframes() == place_of(4.0) + 160


def test_there_are_as_many_keys_as_the_comment_has_room_for(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    whose = Whose(*["\0" * 200] * 4, test="\0" * 200)
    track = recorder.begin("CA1", 1, first=True, age=0.0, whose=whose)
    for n in range(MOST_KEYS + 5):
        recorder.press(track, place_of(133_000.123 + n / 2), "theirs", "9")
    recorder.close()
    (path,) = tmp_path.iterdir()
    found = read_whose(path)
    assert found.callee == "\0" * 60 and len(found.keys) == MOST_KEYS
    assert found.test == "\0" * 180
    assert found.keys[-1].at == round(133_000.123 + (MOST_KEYS - 1) / 2, 2)
    with wave.open(str(path)) as file:
        assert file.getnframes() == 0


def _commented(comment: bytes) -> bytes:
    """The beginning of a WAV file with this comment, as other programs may write it."""
    head = b"RIFF\0\0\0\0WAVEfmt ".ljust(36, b"\0") + b"LIST\0\0\0\0INFOICMT\0\0\0\0"
    return (head + comment).ljust(HEADER_BYTES, b"\0")


@pytest.mark.parametrize(
    "content",
    [b"", b"RIFF", b"\0" * 2000, _commented(b'{"sid":"\xe9"}'), _commented(b'{"x":' + b"[" * 1200)],
)
def test_another_file_says_nothing_of_a_call(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.wav").write_bytes(content)
    assert read_whose(tmp_path / "x.wav") == Whose()
