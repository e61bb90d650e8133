"""One side of a call's sound, as long as somebody may ask for it.

The last seconds stay in memory. Older sound goes to a file without a name (in ``TMPDIR``, or where
else Python makes temporary files), which is gone as soon as nobody can ask for the sound any more.
So a long call takes no more memory than a short one. If no file can be made, the sound stays in
memory, and the log says so.
"""

from __future__ import annotations

import errno
import logging
import os
import weakref
from collections.abc import Iterator
from typing import Final, NamedTuple

from trunkline.bus.descriptors import limits
from trunkline.bus.sound import WIRE_RATE

log = logging.getLogger("trunkline.adapter")

#: The most that stays in memory, in bytes: 8 s.
IN_MEMORY: Final = 8 * WIRE_RATE


class _Filed(NamedTuple):
    """``size`` bytes of a file, from ``at`` on."""

    file: TapeFile
    at: int
    size: int

    def read(self) -> bytes:
        return self.file.read(self.at, self.size)


class TapeFile:
    """A file without a name. It may be read by another thread than the one that writes it.

    OSError: there can be none. The test's own files and sockets need descriptors too, so tapes take
    the lower half of those that the process may have.
    """

    def __init__(self) -> None:
        import tempfile  # it imports zlib, bz2 and lzma, and a short call needs no file

        file = tempfile.TemporaryFile(buffering=0, prefix="trunkline-")  # noqa: SIM115  # see below
        self._fd = file.fileno()
        if 2 * self._fd > limits()[0]:
            file.close()
            raise OSError(errno.EMFILE, "half of this process's descriptors are taken")
        self._size = 0
        weakref.finalize(self, file.close)

    def write(self, codes: bytes) -> _Filed:
        """Add ``codes``. Raises OSError, and then nothing was added."""
        if os.pwrite(self._fd, codes, self._size) < len(codes):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        filed = _Filed(self, self._size, len(codes))
        self._size += len(codes)
        return filed

    def read(self, at: int, size: int) -> bytes:
        return os.pread(self._fd, size, at)


class Side:
    """Pieces of sound at their positions, each without a hole. One byte is a position."""

    def __init__(self) -> None:
        self._pieces: list[tuple[int, bytes | _Filed]] = []
        self._in_memory = 0
        self._most = IN_MEMORY
        self._file: TapeFile | None = None

    def add(self, begins: int, codes: bytes) -> None:
        """Keep ``codes``, which begin at this position."""
        self._pieces.append((begins, codes))
        self._in_memory += len(codes)
        if self._in_memory >= self._most:
            self._move_out()

    def _move_out(self) -> None:
        try:
            if self._file is None:
                self._file = TapeFile()
            filed = [(at, self._file.write(piece)) for at, piece in self._live()]
        except OSError as error:
            log.warning("a call's sound stays in memory, because of its file: %s", error)
            self._most *= 2
            return
        pieces = [(at, piece) for at, piece in self._pieces if isinstance(piece, _Filed)]
        # A piece that follows the last one, both in the call and in the file, is joined to it.
        for begins, fresh in filed:
            at, last = pieces[-1] if pieces else (begins, fresh)
            if (begins, fresh.at) == (at + last.size, last.at + last.size):
                pieces[-1] = (at, last._replace(size=last.size + fresh.size))
            else:
                pieces.append((begins, fresh))
        # Another thread that reads has the old list, and finds the same in it.
        self._pieces = list(pieces)
        self._in_memory = 0

    def _live(self) -> Iterator[tuple[int, bytes]]:
        return _joined([(at, each) for at, each in self._pieces if isinstance(each, bytes)])

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """All that was added, joined where there is no hole between."""
        pieces = list(self._pieces)
        return _joined([(at, x if isinstance(x, bytes) else x.read()) for at, x in pieces])


def _joined(pieces: list[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    begins, parts, end = 0, list[bytes](), -1
    for at, codes in pieces:
        if at != end and parts:
            yield begins, b"".join(parts)
            parts = []
        if not parts:
            begins = at
        parts.append(codes)
        end = at + len(codes)
    if parts:
        yield begins, b"".join(parts)
