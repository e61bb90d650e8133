"""The WAV file of a recorded call. It can be read at every moment, and says whose call it is.

Several gateways may write one file, each the streams that came to it. A writer takes the file's
lock, because it looks before it writes. It looks at the file's size, which the header has to state,
and at the place where it writes, because two streams may meet there.

The header has a fixed size. Between the format and the sound stands a comment (ICMT, in RIFF's LIST
INFO): a JSON object of CallSid, direction, caller, callee, the call's beginning, the test, and the
keys that were pressed, which no stream brings as sound. Every reader of WAV files skips it;
``trunkline calls``, ``show`` and ``report`` read it.
"""

from __future__ import annotations

import fcntl
import os
import struct
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from trunkline.bus.sound import FRAME, WIRE_RATE

#: The sound begins at this place.
HEADER_BYTES: Final = 8192
#: The comment begins at this place, and ends where the sound's own chunk begins.
_COMMENT_AT: Final = 56
_COMMENT_BYTES: Final = HEADER_BYTES - 8 - _COMMENT_AT
#: Each text of the comment is cut at this many characters, so that there is room for all of them. A
#: caller or callee may be a long SIP address.
_LONGEST: Final = 60
#: The same for the name of the test.
_LONGEST_TEST: Final = 180
#: A comment has room for this many keys, whatever else stands in it. Later ones are left out.
MOST_KEYS: Final = 200
#: A header cannot state more sound than this: 37 hours.
_MOST_BYTES: Final = 2**32 - HEADER_BYTES
#: Bytes of one moment: a sample of 16 bits for each side.
MOMENT: Final = 4


class Key(msgspec.Struct, frozen=True, array_like=True):
    """A key that a side pressed ``at`` this second of the recording."""

    at: float
    side: Literal["ours", "theirs"]
    digit: str


class Whose(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whose call it is, and its keys. ``began``: when its first stream came up (ISO 8601, UTC).
    ``test``: the test that made or answered it, if one did."""

    sid: str = ""
    direction: str = ""
    caller: str = ""
    callee: str = ""
    began: str = ""
    keys: tuple[Key, ...] = ()
    test: str = ""


def read_whose(path: Path) -> Whose:
    """Whose call a recording has. All is empty where the file does not tell, because it is
    somebody else's WAV. OSError where it cannot be read."""
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    if len(head) < HEADER_BYTES or head[36:40] != b"LIST" or head[44:52] != b"INFOICMT":
        return Whose()
    return _decoded(head[_COMMENT_AT : HEADER_BYTES - 8])


def _decoded(comment: bytes) -> Whose:
    try:
        return msgspec.json.decode(comment.rstrip(b"\0"), type=Whose)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # another program's file
        return Whose()


def _comment(whose: Whose) -> bytes:
    """The comment of a header: JSON, and zeros behind it."""
    short = Whose(
        whose.sid[:_LONGEST],
        whose.direction[:_LONGEST],
        whose.caller[:_LONGEST],
        whose.callee[:_LONGEST],
        whose.began[:_LONGEST],
        whose.keys[:MOST_KEYS],
        whose.test[:_LONGEST_TEST],
    )
    return msgspec.json.encode(short).ljust(_COMMENT_BYTES, b"\0")


def _header(whose: Whose) -> bytes:
    """The header of a file without sound."""
    rate = WIRE_RATE
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI4s4sI",
        *(b"RIFF", 0, b"WAVE", b"fmt ", 16, 1, 2, rate, rate * MOMENT, MOMENT, 16),
        *(b"LIST", _COMMENT_BYTES + 12, b"INFO", b"ICMT", _COMMENT_BYTES),
    )
    assert len(head) == _COMMENT_AT
    return head + _comment(whose) + b"data" + bytes(4)


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
    """The file of a call, which other processes may write too. It is a complete WAV after each
    write. ``whose`` is for a file that is not there yet."""

    def __init__(self, path: Path, whose: Whose | None = None, *, new: bool = False) -> None:
        # A call's first stream makes the file; a later one finds it.
        flags = os.O_RDWR | os.O_CREAT | (os.O_EXCL if new else 0)
        self._descriptor = os.open(path, flags, 0o600)
        try:
            with self._locked():
                if os.fstat(self._descriptor).st_size < HEADER_BYTES:
                    os.pwrite(self._descriptor, _header(whose or Whose()), 0)
                self._mend()
        except OSError:  # the next block tries again, and has to find the file as it was
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

    def press(self, keys: Iterable[Key]) -> None:
        """Add these keys to the keys that the comment names already."""
        with self._locked():
            whose = _decoded(os.pread(self._descriptor, _COMMENT_BYTES, _COMMENT_AT))
            whole = replace(whose, keys=tuple(sorted({*whose.keys, *keys}, key=lambda key: key.at)))
            os.pwrite(self._descriptor, _comment(whole), _COMMENT_AT)

    def close(self) -> None:
        os.close(self._descriptor)

    def _mend(self) -> None:
        """Write the file's size into the header. That is done also when a file is opened, because
        the last writer may have died before it could. The size of the whole file goes first, so
        that the header never states more sound than file."""
        data = os.fstat(self._descriptor).st_size - HEADER_BYTES
        data = min(max(0, data), _MOST_BYTES) // MOMENT * MOMENT
        os.pwrite(self._descriptor, struct.pack("<I", HEADER_BYTES - 8 + data), 4)
        os.pwrite(self._descriptor, struct.pack("<I", data), HEADER_BYTES - 4)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
