"""Start a stack of one's own, wait until it is ready, end it: the one launcher.

An adapter's private stack, pytest's shared one, the demo, ``trunkline replay``, the benchmarks and
the end-to-end tests all start here. What they start is ``trunkline up``, or the stand-in carrier
alone. Both write a *ready file* as soon as they can be used, and take it away when they end::

    launched = Launched(
        trunkline_argv("up", "--sim"), directory, "up", apart(directory), what="the stack"
    )
    info = launched.wait_ready()  # StackInfo: bus, account_sid, public_url, sim, …
    status = launched.stop()

Whatever was launched also ends when this process does, however that comes about: it reads a pipe
whose writing end this process alone holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from .errors import ErrorInfo, SettingsError, StackUnavailableError, TrunklineError
from .process import PARENT_FD_VARIABLE, REFUSAL_FILE_VARIABLE
from .redact import mask_url

#: Seconds that a stack may take to be ready, and to end once it was asked to. It puts its numbers
#: back and ends within 4 s; the rest is for a machine that has much else to do.
READY_WITHIN: Final = 60.0
ENDS_WITHIN: Final = 8.0
_STEP: Final = 0.05
_SHOWN_LINES: Final = 15


class StackInfo(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach a stack that is up: the JSON object of its ready file.

    ``console``: URL of the local console. ``sim``: base URL of the stand-in carrier, None where the
    carrier is Twilio. A stand-in that was started alone names only its account, itself and its pid.
    """

    account_sid: str
    auth_token: str
    pid: int
    bus: str = ""
    public_url: str = ""
    console: str | None = None
    sim: str | None = None

    def __repr__(self) -> str:
        url = mask_url(self.public_url)
        return f"StackInfo(bus={self.bus!r}, public_url={url!r}, sim={self.sim!r})"


def check_ready_file(path: Path) -> None:
    """SettingsError where a ready file cannot be written at ``path``, or where something else
    stands there: a device, for instance, which would be replaced and then deleted."""
    if path.exists() and not path.is_file():
        raise SettingsError(f"--ready-file {path}: something is there that is no file")
    try:
        fresh = path.with_name(path.name + ".new")
        fresh.touch()
        fresh.unlink()
    except FileNotFoundError:
        raise SettingsError(f"--ready-file {path}: there is no such directory") from None
    except OSError as error:
        raise SettingsError(f"--ready-file {path}: {error.strerror}") from error


def write_ready_file(path: Path, info: StackInfo) -> None:
    """Write it whole or not at all, readable by its owner alone, because it holds the token."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(info))
    fresh.rename(path)


def read_ready_file(path: Path) -> StackInfo | None:
    """The content of the ready file; None while there is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=StackInfo)
    except FileNotFoundError:
        return None


# --------------------------------------------------------------------------- surroundings


def trunkline_argv(*arguments: str) -> list[str]:
    """The command line that runs ``trunkline`` with this interpreter.

    ``-P``: the user's working directory is not searched for modules, so that a folder there that
    has the name of a package of ours is not taken for it.
    """
    return [sys.executable, "-P", "-m", "trunkline", *arguments]


def clean_environment() -> dict[str, str]:
    """This process's environment without any setting of trunkline, Twilio or pytest."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TRUNKLINE_", "TWILIO_", "PYTEST_"))
    }


def apart(directory: Path, **settings: str) -> dict[str, str]:
    """The environment of a stack that meets no other one: an account made up for it, bus and
    journal in ``directory``, free ports. ``settings``: further variables, or others instead."""
    return {
        **clean_environment(),
        "TWILIO_ACCOUNT_SID": "AC" + secrets.token_hex(16),
        "TWILIO_AUTH_TOKEN": secrets.token_hex(16),
        "TRUNKLINE_BUS": f"ipc://{directory}/bus",
        "TRUNKLINE_STATE_DIR": f"{directory}/state",
        "TRUNKLINE_HTTP_PORT": "0",
        "TRUNKLINE_CONSOLE_PORT": "0",
        "TRUNKLINE_CALLS_PER_SECOND": "50",
        "TRUNKLINE_SIM_PORT": "0",
        **settings,
    }


def free_ports(count: int) -> list[int]:
    """Ports of the loopback for what this process starts: it holds them until it ends.

    Each is bound and does not listen. The kernel gives such a port to no other process and to no
    outgoing connection, but it lets a server listen there, because both set SO_REUSEADDR. A port
    that was looked up and let go again could be taken before its server starts.
    """
    socks = [socket.socket() for _ in range(count)]
    for sock in socks:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
    ports = [int(sock.getsockname()[1]) for sock in socks]
    for sock in socks:
        sock.detach()  # its descriptor stays open
    return ports


# --------------------------------------------------------------------------- processes


class ParentPipe:
    """A pipe from a parent to its children. They have the reading end, and notice when the parent
    closes the writing end, or dies."""

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()

    def close(self) -> None:
        os.close(self.read_fd)
        os.close(self.write_fd)


def spawn(
    argv: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    parent_fd: int,
    *,
    cwd: Path | None = None,
    own_session: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a program that ends when the pipe ``parent_fd`` is closed; all it says goes to ``log``.

    The log is locked through the very descriptor that the program and its children write to, so it
    stays locked until the last of them has ended (see :func:`lives`). BlockingIOError: one that was
    started with this log still runs. ``own_session``: Ctrl-C in the terminal does not reach it.
    """
    with log.open("ab") as out:
        fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return subprocess.Popen(  # noqa: S603  # no shell; the caller decides what is started
            argv,
            env={**environment, PARENT_FD_VARIABLE: str(parent_fd)},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            pass_fds=(parent_fd,),
            start_new_session=own_session,
        )


def end(
    process: subprocess.Popen[bytes], within: float = ENDS_WITHIN, *, own_session: bool = False
) -> int:
    """SIGTERM, then SIGKILL if it is still there after ``within`` seconds; its exit status.
    ``own_session``: it was spawned so, and SIGKILL reaches all of its session.

    Blocks. May be called again.
    """
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(within)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                if own_session:
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.kill()
    return process.wait()


def lives(log: Path) -> bool:
    """Whether a process that was started with this log still runs, whoever started it."""
    with log.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


class Launched:
    """A stack, or a stand-in carrier, that was started and not yet stopped.

    ``argv`` is its command without ``--ready-file``. Ready file and log are ``name`` with .json and
    .log in ``directory``. ``what`` names it in errors. ``parent_fd`` is a pipe that somebody else
    looks after; without it, what was launched ends with this process.
    """

    def __init__(
        self,
        argv: Sequence[str],
        directory: Path,
        name: str,
        environment: Mapping[str, str],
        *,
        what: str,
        cwd: Path | None = None,
        parent_fd: int | None = None,
        own_session: bool = False,
    ) -> None:
        self.log = directory / f"{name}.log"
        self.ready_file = directory / f"{name}.json"
        self._refusal_file = directory / f"{name}.refusal"
        self._what = what
        self._own_session = own_session
        self._parent: ParentPipe | None = None
        for left in (self.ready_file, self._refusal_file):  # by one before
            left.unlink(missing_ok=True)
        if parent_fd is None:
            self._parent = ParentPipe()
            parent_fd = self._parent.read_fd
        try:
            self.process = spawn(
                [*argv, "--ready-file", str(self.ready_file)],
                {**environment, REFUSAL_FILE_VARIABLE: str(self._refusal_file)},
                self.log,
                parent_fd,
                cwd=cwd,
                own_session=own_session,
            )
        except BaseException:
            self.close_pipe()
            raise

    def look(self) -> StackInfo | None:
        """How to reach it; None: it is not ready yet. Where it has ended instead: the CarrierError
        by which Twilio refused it, else StackUnavailableError, with the last lines that it said."""
        if self.process.poll() is not None:
            raise self._failed(f"it ended with status {self.process.returncode}")
        return read_ready_file(self.ready_file)

    def wait_ready(self) -> StackInfo:
        """Block until it is ready. Errors as ``look``, and StackUnavailableError when it takes
        longer than :data:`READY_WITHIN`."""
        deadline = time.monotonic() + READY_WITHIN
        while (info := self.look()) is None:
            if time.monotonic() > deadline:
                raise self._failed(f"it was not ready within {READY_WITHIN:g} s")
            time.sleep(_STEP)
        return info

    async def until_ready(self, within: float = READY_WITHIN) -> StackInfo:
        """``wait_ready`` for an event loop, which may wait for ``within`` seconds."""
        try:
            async with asyncio.timeout(within):
                while (info := self.look()) is None:  # noqa: ASYNC110  # another process makes it
                    await asyncio.sleep(_STEP)
        except TimeoutError:
            raise self._failed(f"it was not ready within {within:g} s") from None
        return info

    def tail(self) -> str:
        """The last lines that it said."""
        said = self.log.read_text(errors="replace").splitlines()[-_SHOWN_LINES:]
        return "\n".join(f"    {line}" for line in said) or "    (nothing)"

    def _failed(self, how: str) -> TrunklineError:
        why = f"{self._what} did not come up: {how}; it said:\n{self.tail()}"
        try:
            told = msgspec.json.decode(self._refusal_file.read_bytes(), type=ErrorInfo)
        except (FileNotFoundError, msgspec.DecodeError):  # a full disk leaves a part of it
            return StackUnavailableError(why)
        refusal = told.exception()
        refusal.add_note(why)
        return refusal

    def stop(self, within: float = ENDS_WITHIN) -> int:
        """:func:`end` it, and let go of its pipe; its exit status. May be called again."""
        try:
            return end(self.process, within, own_session=self._own_session)
        finally:
            self.close_pipe()

    def close_pipe(self) -> None:
        """Let go of our end of its pipe; may be called again. A forked child calls it to leave the
        pipe to its parent."""
        parent, self._parent = self._parent, None
        if parent is not None:
            parent.close()
