"""Addresses of the bus: TRUNKLINE_BUS in, ZeroMQ endpoints out.

``ipc:///dir``: the directory (0700) holds the controller's socket ``control`` and one socket for
each worker process. ``tcp://host:port``: the controller's control socket. A worker binds a free
port at its own machine's address, which is the one by which the controller's machine reaches it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from .errors import SettingsError
from .hosts import bare, join, own_address
from .private import check_private, for_setting, make_private

#: Room for a socket's path in sockaddr_un, less the ending zero byte.
_MAX_IPC_PATH = 103 if sys.platform == "darwin" else 107
#: What the longest socket in a bus directory adds to its path.
_LONGEST_NAME = len("/w-4194304-00000000")
#: A socket that is younger than this may not be listened at yet (seconds).
_JUST_MADE = 60.0


def fits_socket(directory: Path) -> bool:
    """The paths of the sockets in this bus directory are short enough."""
    return len(os.fsencode(directory)) + _LONGEST_NAME <= _MAX_IPC_PATH


@dataclass(frozen=True)
class BusAddress:
    """A parsed bus address; ``directory`` on ipc, ``host`` and ``port`` on tcp."""

    text: str
    directory: Path | None = None
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> BusAddress:
        """The address that ``text`` names. SettingsError if it names no address."""
        try:
            return cls.read(text)
        except ValueError as error:
            raise SettingsError(f"TRUNKLINE_BUS={text!r}: {error}") from None

    @classmethod
    def read(cls, text: str) -> BusAddress:
        """As ``parse``, for a caller that names the setting itself: raises ValueError. The result
        has one spelling, so that two spellings of one address are equal."""
        scheme, sign, rest = text.partition("://")
        kind = scheme.lower() + sign
        if kind == "ipc://":
            if not rest.startswith("/"):
                raise ValueError(
                    "an ipc address is ipc:// and an absolute directory, for instance "
                    "ipc:///run/user/1000/trunkline"
                )
            directory = Path(rest)
            if not fits_socket(directory):
                raise ValueError(
                    "the directory's path is too long for a socket "
                    f"(at most {_MAX_IPC_PATH - _LONGEST_NAME} bytes)"
                )
            return cls(f"ipc://{directory}", directory=directory)
        if kind == "tcp://":
            given, _, port = rest.rpartition(":")
            host = bare(given).lower()
            if ":" in host and host == given.lower():
                raise ValueError("an IPv6 address stands in brackets, as in tcp://[::1]:7000")
            if host and port.isascii() and port.isdecimal() and 0 < int(port) < 65536:
                return cls(f"tcp://{join(host, int(port))}", host=host, port=int(port))
        raise ValueError("expected ipc:///directory or tcp://host:port")

    @property
    def control(self) -> str:
        """The endpoint of the controller's ROUTER."""
        if self.directory is not None:
            return f"ipc://{self.directory}/control"
        return f"tcp://{join(self.host, self.port)}"

    def worker(self) -> str:
        """An endpoint on this machine that no process has used before, for a worker's media ROUTER.
        SettingsError where no way leads to the controller's machine."""
        if self.directory is not None:
            return f"ipc://{self.directory}/w-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            return f"tcp://{join(own_address(self.host, self.port), '*')}"
        except OSError as error:
            raise SettingsError(
                f"TRUNKLINE_BUS={self.text!r}: no way leads there: {error.strerror or error}"
            ) from None

    def clear_away(self) -> None:
        """Remove the sockets of workers that were killed: ZeroMQ leaves its files behind. Nobody
        listens at such a socket. One that was just made stays, because its worker may be about to
        listen."""
        if self.directory is None:
            return
        for path in self.directory.glob("w-*"):
            with contextlib.suppress(OSError):  # its worker has just ended, or it is not ours
                old = time.time() - path.stat().st_mtime > _JUST_MADE
                if old and path.is_socket() and not listened_at(path):
                    path.unlink()

    def make_directory(self) -> None:
        """Make the ipc directory, 0700. SettingsError where it is not, or may be replaced by one
        that is not, this user's alone (:mod:`.private`)."""
        if self.directory is not None:
            for_setting(f"TRUNKLINE_BUS={self.text!r}", make_private, self.directory)

    def check_directory(self) -> None:
        """Check the ipc directory in the same way, for whoever connects there. It is not made."""
        if self.directory is not None:
            for_setting(f"TRUNKLINE_BUS={self.text!r}", check_private, self.directory)


def listened_at(path: Path) -> bool:
    """Whether a process listens at a socket. False: there is none, or a process has left it behind.
    OSError if this user may not ask."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True


def remove_socket(endpoint: str) -> None:
    """Remove the file of an ipc endpoint that a process of ours has listened at."""
    if endpoint.startswith("ipc://"):
        Path(endpoint.removeprefix("ipc://")).unlink(missing_ok=True)
