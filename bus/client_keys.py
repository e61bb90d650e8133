"""The clients of a tcp bus that have keys of their own: a file, with one of them a line.

::

    # public key                                                      name
    9f1c…                                                             ci-runners

The controller and the codec workers look at the file at each new connection, and read it again if
it has changed. So a change holds at once, on every machine that has the file. Nobody but its owner
and root may be able to write it, because whoever can write it can join the bus. A line that cannot
be read lets nobody in, and is logged.
"""

from __future__ import annotations

import contextlib
import fcntl
import hmac
import logging
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from zmq.utils import z85

from .errors import SettingsError

log = logging.getLogger("trunkline.bus")

_LINE: Final = re.compile(r"([0-9a-f]{64})\s+([A-Za-z0-9._-]{1,64})\Z")
_HEAD: Final = "# Clients of the bus that have keys of their own: public key, name.\n"
#: How a client may be called.
NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")


def read(path: Path) -> dict[str, bytes]:
    """The clients' public keys (Z85), by name. {}: there is no file.

    Raises SettingsError where others may write the file, OSError or UnicodeDecodeError where it
    cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return {}
    with os.fdopen(descriptor) as file:
        info = os.fstat(descriptor)
        if info.st_uid not in (os.geteuid(), 0) or info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise SettingsError(
                f"TRUNKLINE_BUS_CLIENTS={str(path)!r}: others may write it, and so let themselves "
                f"in: `chmod go-w {path}`, and have it belong to this user or root"
            )
        text = file.read()
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("#")[0].strip()
        match = _LINE.match(line)
        if match is not None:
            found[match[2]] = z85.encode(bytes.fromhex(match[1]))
        elif line:
            log.error("%s: line %d is no public key with a name; it lets nobody in", path, number)
    return found


@contextlib.contextmanager
def changing(path: Path) -> Iterator[dict[str, bytes]]:
    """The clients' keys, for a block that changes them. They are written when it ends, whole or not
    at all, and never where it raises. Others who change them wait meanwhile. Errors as
    :func:`read`."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        clients = read(path)
        yield clients
        new = path.with_name(f"{path.name}.new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(_HEAD)
            file.writelines(f"{z85.decode(key).hex()}  {name}\n" for name, key in clients.items())
            file.flush()
            os.fsync(file.fileno())
        new.rename(path)
        os.fsync(directory)
    finally:
        os.close(directory)


class AllowList:
    """Whose connections are let in: whoever has the bus's key, and the clients that the file names
    now. While the file cannot be read, no client of the file is let in."""

    def __init__(self, of_the_bus: bytes, path: Path | None) -> None:
        self._of_the_bus = of_the_bus
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._clients: tuple[bytes, ...] = ()

    def has(self, public: bytes) -> bool:
        return any(hmac.compare_digest(public, one) for one in (self._of_the_bus, *self._known()))

    def _known(self) -> tuple[bytes, ...]:
        if self._path is None:
            return ()
        try:
            info = self._path.stat()
            seen = (info.st_ino, info.st_mtime_ns, info.st_size)
            if seen != self._seen:
                self._clients = tuple(read(self._path).values())
                self._seen = seen
        except FileNotFoundError:
            self._seen, self._clients = None, ()
        except (OSError, UnicodeDecodeError, SettingsError) as error:
            log.error("no client with a key of its own is let in: %s", error)
            self._seen, self._clients = None, ()
        return self._clients
