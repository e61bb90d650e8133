"""One stack for a whole run of tests, shared by all of its processes.

The run's first process (pytest itself, or the controller of pytest-xdist) makes a
:class:`RunDirectory` and keeps it open; whichever process needs the stack first starts it with
:func:`acquire`, the others find it there. The stack stands under a keeper process
(shared_keeper.py) that ends when the run does, however that comes about: it reads a FIFO of which
the run's first process holds the only writing end.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from trunkline.bus.errors import StackUnavailableError
from trunkline.bus.locks import FileLock, LockHeldError
from trunkline.bus.process import EXIT_DONE, EXIT_PENDING, PARENT_FD_VARIABLE
from trunkline.bus.runtime_dir import temporary_directory
from trunkline.bus.settings import Settings
from trunkline.children import settings_environment
from trunkline.shared_keeper import READY_WITHIN, StackInfo, StackRequest

__all__ = ["RunDirectory", "StackInfo", "StackRequest", "acquire", "alone", "simulated", "twilio"]

#: What the keeper may take to end the stack and its carrier.
ENDED_WITHIN: Final = 12.0
_STEP: Final = 0.05
_SHOWN_LINES: Final = 15

#: Keepers that this process started, to be reaped once they have ended.
_keepers: list[int] = []


class RunDirectory:
    """The run's own directory; what was started in it ends with :meth:`close`, or with us."""

    def __init__(self) -> None:
        # The path of a socket has to be short, and pytest's own directories are not.
        self.path = temporary_directory("trunkline-run-")
        fifo = self.path / "running"
        os.mkfifo(fifo, 0o600)
        # A FIFO can be opened for writing once it has a reader.
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._writer = os.open(fifo, os.O_WRONLY | os.O_CLOEXEC)
        os.close(reader)

    def close(self) -> list[str]:
        """End what was started; returns what went wrong (the directory is kept then)."""
        os.close(self._writer)
        problems = []
        for lock in sorted(self.path.glob("*.alive")):
            problems += self._wait_ended(lock.stem)
        while _keepers:
            os.waitpid(_keepers.pop(), 0 if not problems else os.WNOHANG)
        if not problems:
            shutil.rmtree(self.path, ignore_errors=True)
        return problems

    def _wait_ended(self, kind: str) -> list[str]:
        deadline = time.monotonic() + ENDED_WITHIN
        while _alive(self.path, kind):
            if time.monotonic() > deadline:
                return [f"the {kind} stack did not end in time (see {self.path})"]
            time.sleep(_STEP)
        ended = self.path / f"{kind}.ended"
        said = ended.read_text() if ended.exists() else "killed"
        if said == str(EXIT_DONE):
            return []
        if said == str(EXIT_PENDING):
            return [f"numbers are still to be put back: run `trunkline restore` (see {self.path})"]
        if not (self.path / f"{kind}.json").exists():
            return []  # it never came up: whoever asked for it was told why
        return [f"the {kind} stack ended badly ({said}, see {self.path})"]


def simulated(
    numbers: Mapping[str, str], callees: Mapping[str, str], **environment: str
) -> StackRequest:
    """A stack beside the stand-in carrier, with an account of its own, on free ports."""
    (public,) = _free_ports(1)
    return StackRequest(
        environment={
            "TWILIO_ACCOUNT_SID": "AC" + secrets.token_hex(16),
            "TWILIO_AUTH_TOKEN": secrets.token_hex(16),
            "TRUNKLINE_PUBLIC_URL": f"http://127.0.0.1:{public}",
            "TRUNKLINE_HTTP_PORT": str(public),
            "TRUNKLINE_CALLS_PER_SECOND": "50",
            "TRUNKLINE_NUMBERS": ",".join(numbers),
            **environment,
        },
        numbers=dict(numbers),
        callees=dict(callees),
    )


def twilio(settings: Settings, tunnel: str | None) -> StackRequest:
    """A stack with the user's own settings, at the real carrier."""
    environment = {
        name: value
        for name, value in settings_environment(settings).items()
        if name.startswith(("TRUNKLINE_", "TWILIO_"))
        # The bus is the run's own, and nobody looks at its console.
        and name not in ("TRUNKLINE_BUS", "TRUNKLINE_CONSOLE_PORT", PARENT_FD_VARIABLE)
    }
    return StackRequest(environment=environment, tunnel=tunnel)


def acquire(directory: Path, kind: str, request: StackRequest) -> StackInfo:
    """The run's stack of this kind: started if there is none (then as ``request`` says).

    Blocks until it is up. StackUnavailableError, with what it said, when it does not come up.
    """
    with _locked(directory / f"{kind}.lock"):
        found = directory / f"{kind}.json"
        if not (found.exists() and _alive(directory, kind)):
            for left in (found, directory / f"{kind}.ended"):
                left.unlink(missing_ok=True)
            _start(directory, kind, request)
        return msgspec.json.decode(found.read_bytes(), type=StackInfo)


@contextlib.contextmanager
def alone(directory: Path, kind: str, request: StackRequest) -> Iterator[StackInfo]:
    """A stack of its own, for one test: it ends with the block (or with the run)."""
    info = acquire(directory, kind, request)
    try:
        yield info
    finally:
        keeper = _keepers.pop()
        os.kill(keeper, signal.SIGTERM)
        os.waitpid(keeper, 0)


def _start(directory: Path, kind: str, request: StackRequest) -> None:
    own = {
        "TRUNKLINE_BUS": f"ipc://{directory}/{kind}",
        "TRUNKLINE_CONSOLE_PORT": "0",
    }
    if request.numbers:
        own["TRUNKLINE_STATE_DIR"] = str(directory / f"{kind}-state")
    request = msgspec.structs.replace(request, environment=own | request.environment)
    content = msgspec.json.encode(request)
    asked = directory / f"{kind}.request.json"
    with os.fdopen(os.open(asked, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TRUNKLINE_", "TWILIO_", "PYTEST_"))
    }
    alive = os.open(directory / "running", os.O_RDONLY | os.O_NONBLOCK)
    try:
        os.set_inheritable(alive, True)
        # No Popen: the keeper outlives the worker of pytest-xdist that started it.
        keeper = os.posix_spawn(
            sys.executable,
            [sys.executable, "-P", "-m", "trunkline.shared_keeper", str(directory), kind],
            environment | {PARENT_FD_VARIABLE: str(alive)},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (
                    *(os.POSIX_SPAWN_OPEN, 1, str(directory / f"{kind}-keeper.log")),
                    *(os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                ),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
        )
    finally:
        os.close(alive)
    deadline = time.monotonic() + 2 * READY_WITHIN + 10.0
    while not (directory / f"{kind}.json").exists():
        ended, _ = os.waitpid(keeper, os.WNOHANG)
        if ended or time.monotonic() > deadline:
            raise StackUnavailableError(
                f"the {kind} stack for these tests did not come up; it said:\n"
                f"{_tails(directory, kind)}"
            )
        time.sleep(_STEP)
    _keepers.append(keeper)


def _tails(directory: Path, kind: str) -> str:
    parts = []
    for log in sorted(directory.glob(f"{kind}-*.log")):
        lines = log.read_text(errors="replace").splitlines()[-_SHOWN_LINES:]
        parts += [f"    {log.name}: {line}" for line in lines]
    return "\n".join(parts) or "    (nothing)"


def _alive(directory: Path, kind: str) -> bool:
    """The keeper of this kind runs."""
    try:
        FileLock(directory / f"{kind}.alive", "looked at").release()
    except LockHeldError:
        return True
    return False


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; waits for the others."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on; all are held until all are found."""
    with contextlib.ExitStack() as held:
        socks = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(sock.getsockname()[1]) for sock in socks]
