"""A PostgreSQL server for tests: Debian's package, a new cluster in a directory of its own.

It listens on the loopback and in that directory, with a password, and runs as a user of its own,
because PostgreSQL refuses root. It ends when its ``with`` block does, and with the tests' process.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from trunkline.bus.launch import free_ports

#: Who runs it where the tests are root's: the user that Debian's package makes.
USER = "postgres"
PASSWORD = "pa55-w0rd"  # noqa: S105  # of a server that lives as long as a test


@functools.cache
def programs() -> Path:
    """The directory of the newest server's programs."""
    found = shutil.which("initdb")
    if found is not None and (Path(found).resolve().with_name("postgres")).exists():
        return Path(found).resolve().parent
    versions = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"),
        key=lambda path: int(re.sub(r"\D", "", path.parts[-3]) or 0),
    )
    assert versions, "these tests need PostgreSQL's server: apt-get install postgresql"
    return versions[-1].parent


class Server:
    """One server. ``url``: as its superuser, with a password; ``database()`` makes more of them.

    ``host``: where it listens. ``network``: who may come there, beside the loopback (a CIDR).
    ``sync``: whether a transaction waits for the disk, as it does in earnest."""

    def __init__(
        self, host: str = "127.0.0.1", network: str | None = None, *, sync: bool = False
    ) -> None:
        self.host = host
        self._sync = "on" if sync else "off"
        self.directory = Path(tempfile.mkdtemp(prefix="tl-pg-"))
        self._data = self.directory / "data"
        self._password = self.directory / "password"
        self._password.write_text(PASSWORD)
        (self.port,) = free_ports(1)
        self._as: dict[str, object] = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam(USER)
            os.chown(self.directory, user.pw_uid, user.pw_gid)
            os.chown(self._password, user.pw_uid, user.pw_gid)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None
        # No template is synced, and the data are not either until the server runs.
        self._run(
            *(programs() / "initdb", "-D", self._data, "--no-sync", "-E", "UTF8"),
            *("--locale", "C", "-U", USER, "-A", "scram-sha-256"),
            f"--pwfile={self._password}",
        )
        if network is not None:
            with (self._data / "pg_hba.conf").open("a") as rules:
                rules.write(f"host all all {network} scram-sha-256\n")

    def _run(self, *argv: object) -> None:
        subprocess.run(
            [str(part) for part in argv],
            check=True,
            capture_output=True,
            cwd=self.directory,
            **self._as,  # type: ignore[call-overload]  # the user's ids, or nothing
        )

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql://{USER}:{PASSWORD}@{self.host}:{self.port}/{database}"

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"t{secrets.token_hex(6)}"
        with psycopg.connect(self.url, autocommit=True) as db:
            db.execute(f"CREATE DATABASE {name}".encode())
        return self.url_of(name)

    def start(self) -> None:
        """Start it; returns once it answers."""
        log = (self.directory / "log").open("ab")
        self._process = subprocess.Popen(
            [
                *(str(programs() / "postgres"), "-D", str(self._data), "-p", str(self.port)),
                *("-k", str(self.directory), "-c", f"listen_addresses={self.host}"),
                *("-c", "max_connections=60", "-c", "shared_buffers=16MB"),
                # In tests the server dies, and never the machine.
                *("-c", f"fsync={self._sync}", "-c", "autovacuum=off"),
            ],
            cwd=self.directory,
            stdout=log,
            stderr=log,
            start_new_session=True,
            **self._as,  # type: ignore[call-overload]  # the user's ids, or nothing
        )
        log.close()
        # It ends when our end of this pipe is closed, whatever has become of us.
        self._watcher = subprocess.Popen(
            ["/bin/sh", "-c", "read _; kill -QUIT $0", str(self._process.pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        until = time.monotonic() + 30.0
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                assert time.monotonic() < until, (self.directory / "log").read_text()
                time.sleep(0.03)

    def _family(self) -> list[int]:
        """The server and its children, which have process groups of their own."""
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        return [pid, *map(int, children.read_text().split())]

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """It stands still, all of it: connections stay, and nobody gets an answer."""
        family = self._family()

        def tell(how: signal.Signals) -> None:
            for pid in family:
                with contextlib.suppress(ProcessLookupError):  # of a connection that is over
                    os.kill(pid, how)

        tell(signal.SIGSTOP)
        try:
            yield
        finally:
            tell(signal.SIGCONT)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT breaks all connections at once, SIGQUIT leaves the rest to recovery."""
        assert self._process is not None and self._watcher is not None
        assert self._watcher.stdin is not None
        self._watcher.kill()
        self._watcher.wait()
        self._watcher.stdin.close()
        self._process.send_signal(how)
        self._process.wait(20.0)
        self._process = None

    def stand_by(self) -> None:
        """Be a standby from now on, as the address that a fail-over leads to: it can be read, and
        not written to until it is promoted. It has no primary, and so it stays as it is."""
        self.stop()
        (self._data / "standby.signal").touch()
        self.start()

    def promote(self) -> None:
        """End the time as a standby; returns once it can be written to."""
        with psycopg.connect(self.url, autocommit=True) as db:
            db.execute("SELECT pg_promote()")

    def close(self) -> None:
        if self._process is not None:
            self.stop(signal.SIGQUIT)
        shutil.rmtree(self.directory)


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """A new server that runs."""
    server = Server()
    try:
        server.start()
        yield server
    finally:
        server.close()
