"""Where sockets and locks go that no setting names: directories whose paths fit into a socket.

A temporary one is removed by whoever made it, and by nobody if that process was killed. So one that
is *held* has a lock in it, and the next process that makes such a directory removes those whose
lock is free.

A Unix socket's path has about a hundred bytes. A long TMPDIR (macOS, some CI runners, a deep home
directory) leaves no room in it; then a directory under /tmp, named after the long one, is used.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .endpoints import fits_socket
from .locks import holder_of
from .private import NotPrivateError

_SHORT: Final = "/tmp"  # noqa: S108  # what is made in it is 0700, and checked
#: The longest name of a bus directory that is made inside of one of ours.
_INSIDE: Final = "twilio"
#: The lock in a temporary directory that is held.
_LOCK: Final = "held"


def system_runtime_path() -> Path | None:
    """The runtime directory that the system gives the user; None where there is none.

    Where the system gives none, platformdirs names one in the temporary directory and warns. The
    bus makes its directory 0700 and refuses one of another user, so the warning tells nothing new.
    """
    # Imported here, because a process of a stack is given its bus, and starts sooner without.
    import platformdirs

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = Path(platformdirs.user_runtime_path("trunkline"))
        except (OSError, RuntimeError):  # it is another user's; there is no home to put it in
            return None
    return found if found.is_absolute() else None


def runtime_path() -> Path:
    """The user's runtime directory, or a short stand-in for it that is the same each time."""
    found = system_runtime_path()
    if found is not None and fits_socket(found / _INSIDE):
        return found
    name = hashlib.sha256(os.fsencode(found or "")).hexdigest()[:8]
    return Path(_SHORT) / f"trunkline-{os.geteuid()}-{name}"


def default_bus() -> str:
    """The bus address where none is set: ``ipc://`` and a directory of the user's."""
    return f"ipc://{runtime_path()}/bus"


def temporary_directory(prefix: str) -> Path:
    """A new directory, open to this user alone, whose path is short enough for a bus directory in
    it. The caller has to remove it."""
    import tempfile  # it imports zlib, bz2 and lzma, and few processes make a directory

    return Path(tempfile.mkdtemp(prefix=prefix, dir=_base(prefix)))


@contextlib.contextmanager
def held_directory(prefix: str) -> Iterator[tuple[Path, int]]:
    """A :func:`temporary_directory` for the block, and the descriptor of its lock. A child that is
    given the descriptor holds the directory until it has ended, even if this process is killed.

    Directories of this prefix that nobody holds any more are removed.
    """
    import shutil  # for the same reason

    for each in _base(prefix).glob(f"{prefix}*"):
        with contextlib.suppress(OSError, NotPrivateError):  # somebody else removes it, or owns it
            ours = each.lstat().st_uid == os.geteuid()
            if ours and (each / _LOCK).is_file() and holder_of(each / _LOCK) is None:
                shutil.rmtree(each)
    path = temporary_directory(prefix)
    try:
        with (path / "new").open("xb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (path / "new").rename(path / _LOCK)  # whoever finds it finds it locked
            yield path, lock.fileno()
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _base(prefix: str) -> Path:
    import tempfile

    found = Path(tempfile.gettempdir())
    return found if fits_socket(found / (prefix + "x" * 8) / _INSIDE) else Path(_SHORT)
