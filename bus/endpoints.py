"""Addresses of the bus: TRUNKLINE_BUS in, ZeroMQ endpoints out.

``ipc:///dir``: the directory (0700) holds the controller's socket ``control`` and one socket for
each worker process. ``tcp://host:port``: the controller's control socket; workers bind free ports
on the same host.
"""

from __future__ import annotations

import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

from .errors import SettingsError

#: Room for a socket's path in sockaddr_un, less the ending zero byte.
_MAX_IPC_PATH = 103 if sys.platform == "darwin" else 107


@dataclass(frozen=True)
class BusAddress:
    """A parsed bus address; ``directory`` on ipc, ``host`` and ``port`` on tcp."""

    text: str
    directory: Path | None = None
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> BusAddress:
        if text.startswith("ipc://"):
            path = text.removeprefix("ipc://")
            if not path.startswith("/"):
                raise SettingsError(
                    f"TRUNKLINE_BUS={text!r}: an ipc address is ipc:// and an absolute directory, "
                    "for instance ipc:///run/user/1000/trunkline"
                )
            longest = len(os.fsencode(path.rstrip("/"))) + len("/w-4194304-00000000")
            if longest > _MAX_IPC_PATH:
                raise SettingsError(
                    f"TRUNKLINE_BUS={text!r}: the directory's path is too long for a socket "
                    f"(at most {_MAX_IPC_PATH - 19} bytes)"
                )
            return cls(text, directory=Path(path))
        if text.startswith("tcp://"):
            host, _, port = text.removeprefix("tcp://").rpartition(":")
            if host and port.isdecimal() and 0 < int(port) < 65536:
                return cls(text, host=host, port=int(port))
        raise SettingsError(f"TRUNKLINE_BUS={text!r}: expected ipc:///directory or tcp://host:port")

    @property
    def control(self) -> str:
        """The endpoint of the controller's ROUTER."""
        if self.directory is not None:
            return f"ipc://{self.directory}/control"
        return f"tcp://{self.host}:{self.port}"

    def worker(self) -> str:
        """An endpoint for a worker's media ROUTER that no process has used before."""
        if self.directory is not None:
            return f"ipc://{self.directory}/w-{os.getpid()}-{secrets.token_hex(4)}"
        return f"tcp://{self.host}:*"

    def make_directory(self) -> None:
        """Make the ipc directory, 0700; refuse one that others may enter.

        Raises SettingsError where it is another user's or open to others.
        """
        if self.directory is None:
            return
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self.directory.stat()
        except OSError as error:
            raise SettingsError(
                f"TRUNKLINE_BUS={self.text!r}: {self.directory} cannot be made: {error.strerror}"
            ) from error
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise SettingsError(
                f"TRUNKLINE_BUS={self.text!r}: {self.directory} must belong to you alone "
                f"(chmod 700 {self.directory})"
            )
