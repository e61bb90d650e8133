"""The WAV file of a recorded call: whole at every moment, and it says whose call it is.

Several gateways may write one file, each the streams that came to it. A writer takes the file's
lock, because it looks before it writes: at the size, which the header has to tell, and at the
place, where two streams may meet.

The header has a fixed size. Between the format and the sound stands a comment (ICMT, in RIFF's LIST
INFO): a JSON object of CallSid, direction, caller, callee and the call's beginning. Every reader of
WAV files skips it, and ``trunkline calls`` reads it.
"""

from __future__ import annotations

import fcntl
import os
import struct
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from trunkline.bus.sound import FRAME, WIRE_RATE

#: The sound begins at this place.
HEADER_BYTES: Final = 1024
#: The comment begins at this place, and ends where the sound's own chunk begins.
_COMMENT_AT: Final = 56
_COMMENT_BYTES: Final = HEADER_BYTES - 8 - _COMMENT_AT
#: Of a caller's or callee's name, so that the comment has room for both, whatever they are.
_LONGEST: Final = 60
#: The most that a header can tell: 37 hours of sound.
_MOST_BYTES: Final = 2**32 - HEADER_BYTES
#: Of one moment: two samples.
MOMENT: Final = 4


class Whose(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whose call it is. ``began``: when its first stream came up (ISO 8601, UTC)."""

    sid: str = ""
    direction: str = ""
    caller: str = ""
    callee: str = ""
    began: str = ""


def read_whose(path: Path) -> Whose:
    """Whose call a recording has. All is empty where the file does not tell, because it is
    somebody else's WAV. OSError where it cannot be read."""
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    if len(head) < HEADER_BYTES or head[36:40] != b"LIST" or head[44:52] != b"INFOICMT":
        return Whose()
    text = head[_COMMENT_AT : HEADER_BYTES - 8].rstrip(b"\0")
    try:
        return msgspec.json.decode(text, type=Whose)
    except msgspec.DecodeError:
        return Whose()


def _header(whose: Whose) -> bytearray:
    """Of a file without sound."""
    short = Whose(
        whose.sid[:_LONGEST],
        whose.direction[:_LONGEST],
        whose.caller[:_LONGEST],
        whose.callee[:_LONGEST],
        whose.began[:_LONGEST],
    )
    comment = msgspec.json.encode(short)
    if len(comment) > _COMMENT_BYTES:
        comment = b"{}"
    rate = WIRE_RATE
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI4s4sI",
        *(b"RIFF", 0, b"WAVE", b"fmt ", 16, 1, 2, rate, rate * MOMENT, MOMENT, 16),
        *(b"LIST", _COMMENT_BYTES + 12, b"INFO", b"ICMT", _COMMENT_BYTES),
    )
    assert len(head) == _COMMENT_AT
    return bytearray(head + comment.ljust(_COMMENT_BYTES, b"\0") + b"data" + bytes(4))


def merged(there: bytes, pcm: bytes) -> bytes:
    """Stereo PCM16 to be written where the file has sound already. That sound stays, frame by frame
    and side by side. For example, of two streams that bring the far end, the first to write a frame
    wins, and a stream that only listens does not silence our words in the other one."""
    old, new = array("h", there), array("h", pcm)
    for begin in range(0, len(old), 2 * FRAME):
        end = min(begin + 2 * FRAME, len(old))
        for side in (begin, begin + 1):
            heard = old[side:end:2]
            if any(heard):
                new[side:end:2] = heard
    return new.tobytes()


class RecordingFile:
    """The file of a call, which other processes may write too. It is whole after each write.
    ``whose`` is for a file that is not there yet."""

    def __init__(self, path: Path, whose: Whose | None = None, *, new: bool = False) -> None:
        # A call's first stream makes the file; a later one finds it.
        flags = os.O_RDWR | os.O_CREAT | (os.O_EXCL if new else 0)
        self._descriptor = os.open(path, flags, 0o600)
        try:
            with self._locked():
                found = os.pread(self._descriptor, HEADER_BYTES, 0)
                whole = len(found) == HEADER_BYTES
                self._header = bytearray(found) if whole else _header(whose or Whose())
                self._mend()
        except OSError:  # the next block tries again, and has to find it as it was
            if new:
                path.unlink()
            self.close()
            raise

    def write(self, at: int, pcm: bytes) -> None:
        """Put stereo PCM16 at the call's position ``at``."""
        begin = HEADER_BYTES + at * MOMENT
        with self._locked():
            there = os.pread(self._descriptor, len(pcm), begin)
            if any(there):
                pcm = merged(there[: len(there) // MOMENT * MOMENT], pcm)
            os.pwrite(self._descriptor, pcm, begin)
            self._mend()

    def close(self) -> None:
        os.close(self._descriptor)

    def _mend(self) -> None:
        """Let the header tell the size that the file has. Whoever wrote last may have died before
        it could."""
        data = os.fstat(self._descriptor).st_size - HEADER_BYTES
        data = min(max(0, data), _MOST_BYTES) // MOMENT * MOMENT
        struct.pack_into("<I", self._header, 4, HEADER_BYTES - 8 + data)
        struct.pack_into("<I", self._header, HEADER_BYTES - 4, data)
        os.pwrite(self._descriptor, self._header, 0)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
