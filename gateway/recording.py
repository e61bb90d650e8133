"""Recordings: a stereo WAV of each stream, the far end left, what it was played right.

:class:`Stereo` puts both directions onto the stream's own time without I/O; :class:`Recorder`
writes what it has to disk from a thread, so that a slow disk delays no call. The far end's clock is
the stream position of what it sent. What we sent lies in the carrier's buffer and is played one
sample for each sample that the far end sends; a ``clear`` empties that buffer.
"""

from __future__ import annotations

import logging
import queue
import re
import struct
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

from trunkline.bus.errors import SettingsError
from trunkline.bus.sound import WIRE_RATE

log = logging.getLogger("trunkline.gateway")

#: mu-law of silence.
_SILENCE: Final = b"\xff"
#: Longest hole that is filled in one go: 10 min. A carrier whose positions jump further is not
#: believed.
_LONGEST_HOLE: Final = 600 * WIRE_RATE
#: Blocks that may wait for the disk: with one per call and half second, 100 calls for 50 s.
_WAITING: Final = 10_000


class Stereo:
    """Both directions of one stream, interleaved mu-law, two bytes a moment (left, right)."""

    def __init__(self) -> None:
        self._position: int | None = None  # what the far end said up to here is in _done
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

    def take(self) -> bytes:
        """What is complete since the last time."""
        done = bytes(self._done)
        self._done.clear()
        return done

    @property
    def waiting(self) -> int:
        """Bytes that ``take`` would give."""
        return len(self._done)

    def _advance(self, left: bytes) -> None:
        right = bytes(self._playing[: len(left)])
        del self._playing[: len(left)]
        both = bytearray(2 * len(left))
        both[0::2] = left
        both[1::2] = right + _SILENCE * (len(left) - len(right))
        self._done += both


def _linear(code: int) -> bytes:
    """One mu-law code as PCM16 little-endian (ITU-T G.711)."""
    code = ~code & 0xFF
    magnitude = (((code & 0x0F) << 3) + 0x84) << ((code & 0x70) >> 4)
    return struct.pack("<h", 0x84 - magnitude if code & 0x80 else magnitude - 0x84)


_LOW: Final = bytes(_linear(code)[0] for code in range(256))
_HIGH: Final = bytes(_linear(code)[1] for code in range(256))


def pcm16(mulaw: bytes) -> bytes:
    """PCM16 little-endian of mu-law, sample by sample."""
    out = bytearray(2 * len(mulaw))
    out[0::2] = mulaw.translate(_LOW)
    out[1::2] = mulaw.translate(_HIGH)
    return bytes(out)


def _header(data_bytes: int) -> bytes:
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", 36 + data_bytes, b"WAVE", b"fmt ", 16, 1, 2, WIRE_RATE, WIRE_RATE * 4, 4, 16),
        *(b"data", data_bytes),
    )


class _File:
    """A WAV file that is whole after each write."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("xb")
        path.chmod(0o600)
        self._bytes = 0
        self._file.write(_header(0))

    def write(self, pcm: bytes) -> None:
        self._file.write(pcm)
        self._bytes += len(pcm)
        self._file.seek(0)
        self._file.write(_header(self._bytes))
        self._file.seek(0, 2)
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class Recorder:
    """Writes recordings into a directory from a thread of its own; ``close()`` ends it.

    Raises SettingsError where the directory cannot be made.
    """

    def __init__(self, directory: Path) -> None:
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(
                f"TRUNKLINE_RECORDINGS_DIR={directory}: it cannot be made: {error.strerror}"
            ) from error
        self._directory = directory
        #: blocks that were dropped because the disk did not keep up
        self.dropped = 0
        self._blocks: queue.Queue[tuple[str, bytes | None] | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._write, name="recordings", daemon=True)
        self._thread.start()

    def name(self, sid: str, ordinal: int) -> str:
        """A file name for a new recording: when, CallSid, which stream of the call."""
        when = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        return f"{when}-{re.sub(r'[^A-Za-z0-9]', '_', sid)}-{ordinal}.wav"

    def write(self, name: str, mulaw: bytes) -> None:
        """Append interleaved mu-law; never waits."""
        self._put((name, mulaw))

    def end(self, name: str) -> None:
        """The recording is complete."""
        self._put((name, None))

    def _put(self, block: tuple[str, bytes | None]) -> None:
        try:
            self._blocks.put_nowait(block)
        except queue.Full:
            if not self.dropped:
                log.error("the disk does not keep up: recordings have holes from now on")
            self.dropped += 1

    def close(self) -> None:
        """Write what waits, and end the thread."""
        self._blocks.put(None)
        self._thread.join()

    def _write(self) -> None:
        files: dict[str, _File | None] = {}
        while (block := self._blocks.get()) is not None:
            name, mulaw = block
            try:
                if name not in files:
                    files[name] = _File(self._directory / name)
                file = files[name]
                if file is None:
                    continue
                if mulaw is None:
                    file.close()
                    del files[name]
                else:
                    file.write(pcm16(mulaw))
            except OSError as error:
                log.error("recording %s ends here: %s", name, error)
                files[name] = None
        for file in files.values():
            if file is not None:
                file.close()
