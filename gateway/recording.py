"""Recordings: one stereo WAV for each call, with the far end left, and our sound right.

:class:`Stereo` puts both directions of a stream onto the call's time without I/O. :class:`Recorder`
writes them to disk from a thread, so that a slow disk delays no call. The far end's clock is the
stream position of its sound. Our sound lies in the carrier's buffer, which plays one sample for
each sample that the far end sends; a ``clear`` empties that buffer.

A call may have several streams, one after the other or for a while at once, and each may come to
another gateway. No gateway passes a file on to another. The controller tells with each stream how
old the call is, and the gateway writes the stream at that place of the call's one file. A place
that nobody writes is zeros on the disk, which is silence (recording_file.py). Old recordings are
deleted if a limit is set (bus/retention.py).
"""

from __future__ import annotations

import logging
import queue
import re
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal

from msgspec.structs import replace

from trunkline.bus.digits import presses
from trunkline.bus.errors import SettingsError
from trunkline.bus.retention import Retention
from trunkline.bus.sound import FRAME, LINEAR, WIRE_RATE

from .recording_file import Key, RecordingFile, Whose

log = logging.getLogger("trunkline.gateway")

#: mu-law of silence.
_SILENCE: Final = b"\xff"
#: Longest hole that is filled with silence: 10 min. A longer one is taken for a mistake of the
#: carrier's, and the sound goes on without a hole.
_LONGEST_HOLE: Final = 600 * WIRE_RATE
#: Blocks that may wait for the disk: with one per call and half second, 100 calls for 50 s.
_WAITING: Final = 10_000


def place_of(age: float, earlier: int = 0) -> int:
    """Where in its call a stream lies that begins at this ``age`` of the call (seconds), or
    ``earlier`` samples before that: a position at 8 kHz, on a whole frame."""
    return max(0, round((age * WIRE_RATE - earlier) / FRAME)) * FRAME


def listened(sid: str, call: str) -> str:
    """The name of the recording of a call that is listened to. It is not the call's SID alone: the
    call may be ours and be recorded as well, and others may listen to it too."""
    return f"{sid}_listened_{call[:8]}"


class Stereo:
    """Both directions of one stream as interleaved mu-law: for each sample of time two bytes, left
    and right. ``at``: the call's position (8 kHz) at which the stream begins. ``begins``: the
    stream position there; None: that of the first sound.

    A track of a call that is listened to is one side alone, and leaves the other side silent.
    ``ours``: the track is the right side."""

    def __init__(self, at: int = 0, *, begins: int | None = None, ours: bool = False) -> None:
        self._at = at  # the position at which the sound of the next take() begins
        self._position = begins  # what the far end said up to here is in _done
        self._ours = ours
        self._playing = bytearray()  # sent, not played yet
        self._done = bytearray()

    def heard(self, position: int, payload: bytes) -> None:
        """The far end said ``payload`` (mu-law) at stream ``position``."""
        if self._position is None:
            self._position = position
        hole = position - self._position
        if 0 < hole <= _LONGEST_HOLE:
            self._advance(_SILENCE * hole)
        elif hole < 0:
            payload = payload[-hole:]  # what is there already is not written twice
        self._position = max(self._position, position) if hole <= _LONGEST_HOLE else position
        if payload:
            self._advance(payload)
            self._position += len(payload)

    def said(self, payload: bytes) -> None:
        """We sent ``payload`` (mu-law) to the carrier's buffer."""
        self._playing += payload

    def cleared(self) -> None:
        """The carrier's buffer was emptied."""
        self._playing.clear()

    def take(self) -> tuple[int, bytes]:
        """The sound that has become complete since the last time, and the call's position at which
        it begins."""
        at, done = self._at, bytes(self._done)
        self._at += len(done) // 2
        self._done.clear()
        return at, done

    @property
    def now(self) -> int:
        """The call's position up to which the far end was heard."""
        return self._at + len(self._done) // 2

    @property
    def waiting(self) -> int:
        """Bytes that ``take`` would give."""
        return len(self._done)

    def _advance(self, heard: bytes) -> None:
        said = bytes(self._playing[: len(heard)])
        del self._playing[: len(heard)]
        both = bytearray(2 * len(heard))
        both[int(self._ours) :: 2] = heard
        both[int(not self._ours) :: 2] = said + _SILENCE * (len(heard) - len(said))
        self._done += both


_LOW: Final = bytes(sample & 0xFF for sample in LINEAR)
_HIGH: Final = bytes(sample >> 8 & 0xFF for sample in LINEAR)


def pcm16(mulaw: bytes) -> bytes:
    """PCM16 little-endian of mu-law, sample by sample."""
    out = bytearray(2 * len(mulaw))
    out[0::2] = mulaw.translate(_LOW)
    out[1::2] = mulaw.translate(_HIGH)
    return bytes(out)


@dataclass(frozen=True)
class Track:
    """One stream's part in the recording of its call. ``began``: when the call's first stream came
    up (UTC). ``whose``: who calls whom, which a new file tells."""

    call_sid: str
    ordinal: int
    first: bool
    began: datetime
    whose: Whose | None = field(default=None, compare=False)


@dataclass(frozen=True)
class _Block:
    """A piece of work for the thread: sound to write, or keys that were pressed. A block without
    either says that the stream is over."""

    track: Track
    at: int = 0
    mulaw: bytes | None = None
    keys: tuple[Key, ...] = ()

    @property
    def is_end(self) -> bool:
        return self.mulaw is None and not self.keys


class Recorder:
    """Writes recordings into a directory from a thread of its own; ``close()`` ends it.

    Raises SettingsError where the directory cannot be made.
    """

    def __init__(self, directory: Path, retention: Retention | None = None) -> None:
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(
                f"TRUNKLINE_RECORDINGS_DIR={directory}: it cannot be made: {error.strerror}"
            ) from error
        self._directory = directory
        self._retention = retention or Retention()
        #: blocks that were dropped because the disk did not keep up
        self.dropped = 0
        #: blocks that the disk refused
        self.failed = 0
        #: the kinds of errors that were logged; each is logged once
        self._told: set[int | None] = set()
        self._files: dict[Track, RecordingFile] = {}
        self._blocks: queue.SimpleQueue[_Block | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="recordings", daemon=True)
        self._thread.start()

    def begin(
        self, name: str, ordinal: int, *, first: bool, age: float, whose: Whose | None = None
    ) -> Track:
        """A stream of a call comes up; the call is ``age`` seconds old. Its file is there from now
        on, so that a later stream finds it. ``name``: the CallSid, or what :func:`listened` makes
        of it. ``whose``: CallSid, direction, caller, callee and test."""
        began = datetime.now(UTC) - timedelta(seconds=age)
        whose = whose or Whose()
        began_at = began.isoformat(timespec="seconds")
        whose = replace(whose, sid=whose.sid or name, began=began_at)
        track = Track(re.sub(r"[^A-Za-z0-9]", "_", name), ordinal, first, began, whose)
        self.write(track, 0, b"")
        return track

    def write(self, track: Track, at: int, mulaw: bytes) -> None:
        """Put interleaved mu-law at the call's position ``at``; never waits."""
        self._put(_Block(track, at, mulaw))

    def press(self, track: Track, at: int, side: Literal["ours", "theirs"], digits: str) -> None:
        """Name the keys that this side pressed from the call's position ``at`` on; never waits."""
        keys = tuple(
            Key(round(at / WIRE_RATE + after, 3), side, digit) for after, digit in presses(digits)
        )
        if keys:  # waits alone are none
            self._put(_Block(track, keys=keys))

    def end(self, track: Track) -> None:
        """The stream is over."""
        self._put(_Block(track))

    def _put(self, block: _Block) -> None:
        """Pass a block to the thread. If too many wait, sound and keys are dropped. The end of a
        stream is not, because it closes the stream's file."""
        if block.is_end or self._blocks.qsize() < _WAITING:
            self._blocks.put(block)
            return
        if not self.dropped:
            log.error("the disk does not keep up: recordings have holes from now on")
        self.dropped += 1

    def close(self) -> None:
        """Write what waits, and end the thread."""
        self._blocks.put(None)
        self._thread.join()

    # ------------------------------------------------------------------ in the thread

    def _write(self) -> None:
        self._retention.apply(self._directory)
        while (block := self._blocks.get()) is not None:
            try:
                self._take(block)
            except OSError as error:
                self.failed += 1
                if error.errno not in self._told:
                    self._told.add(error.errno)
                    log.error("recordings have holes from now on: %s", error)
            if block.is_end:
                self._retention.apply(self._directory)
        for file in self._files.values():
            file.close()

    def _take(self, block: _Block) -> None:
        track = block.track
        if block.is_end:
            file = self._files.pop(track, None)
            if file is not None:
                file.close()
            return
        if track not in self._files:
            self._files[track] = self._open(track)
        if block.mulaw:
            self._files[track].write(block.at, pcm16(block.mulaw))
        if block.keys:
            self._files[track].press(block.keys)

    def _open(self, track: Track) -> RecordingFile:
        """The call's file. Its name says when the call began, because a directory of recordings is
        read by time; a later stream looks for the newest one of its CallSid."""
        if not track.first:
            found = sorted(self._directory.glob(f"*-{track.call_sid}.wav"))
            if found:
                return RecordingFile(found[-1])
        name = f"{track.began:%Y%m%dT%H%M%S}-{track.call_sid}.wav"
        return RecordingFile(self._directory / name, track.whose, new=track.first)
