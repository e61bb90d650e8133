"""Exclusive locks for life: of a state directory, a bus directory, a public port.

``flock`` on a small file that names its holder; the kernel lets go when the process dies, however
it dies, so a lock that can be taken means that its holder is gone.

A holder may remove the file. Somebody may have opened it by then, and gets the lock of a file that
has no name any more, which keeps nobody out. So whoever gets a lock looks whether its file is still
there, and otherwise begins again.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from .private import open_private_file


class LockHeldError(Exception):
    """Another live process has the lock; ``holder`` is what it wrote about itself."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path} is held by {holder or 'another process'}")
        self.path = path
        self.holder = holder


class FileLock:
    """An exclusive ``flock``, held until ``release()`` or the end of the process.

    The descriptor is not inherited by children, so that a child that outlives us cannot keep it.
    """

    def __init__(self, path: Path, holder: str) -> None:
        """Take the lock or raise LockHeldError. ``holder``: how to name us to the next one.

        Taking the lock writes to its file. So NotPrivateError is raised where its directory is not
        ours alone, or where a link stands in the file's place.
        """
        self.path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._fd: int | None = None
        while not self._has_name():
            self.release()
            self._fd = open_private_file(path, os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                found = os.read(self._fd, 500).decode(errors="replace").strip()
                self.release()
                raise LockHeldError(path, found) from None
        assert self._fd is not None, "a file with a name is open"
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, holder.encode(), 0)

    def _has_name(self) -> bool:
        """The file that is open is the one at ``path``."""
        if self._fd is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._fd), self.path.stat(follow_symlinks=False))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let go; may be called twice. The file stays."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def remove(self) -> None:
        """Remove the file, and let go. May be called twice."""
        if self._has_name():
            self.path.unlink(missing_ok=True)
        self.release()


def holder_of(path: Path) -> str | None:
    """What the holder of the lock at ``path`` says of itself; None: nobody holds it.

    To look, this takes a shared lock for a moment. Whoever wants the lock just then finds it held.
    """
    try:
        descriptor = open_private_file(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.read(descriptor, 500).decode(errors="replace").strip() or "another process"
    else:
        return None
    finally:
        os.close(descriptor)
