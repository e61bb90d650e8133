"""Where sockets and locks go that no setting names: directories whose paths fit into a socket.

A Unix socket's path has about a hundred bytes. A long TMPDIR (macOS, some CI runners, a deep home
directory) leaves no room in it; then a directory under /tmp, named after the long one, is used.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from pathlib import Path
from typing import Final

from .endpoints import fits_socket

_SHORT: Final = "/tmp"  # noqa: S108  # what is made in it is 0700, and checked
#: The longest name of a bus directory that is made inside of one of ours.
_INSIDE: Final = "twilio"


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

    name = Path(tempfile.gettempdir()) / (prefix + "x" * 8) / _INSIDE
    return Path(tempfile.mkdtemp(prefix=prefix, dir=None if fits_socket(name) else _SHORT))
