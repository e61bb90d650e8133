"""A stack of one's own, for adapters that find none to join: child processes, ended with the last.

One private stack serves all adapters of a process that have the same account and public URL. It is
``trunkline up`` in a session of its own (so that Ctrl-C reaches the test first), on a bus directory
of its own; it ends on SIGTERM at the last ``release``, and by itself when this process's end of a
pipe is closed, however that comes about.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

from trunkline.bus.endpoints import BusAddress
from trunkline.bus.errors import StackUnavailableError, TrunklineError
from trunkline.bus.process import PARENT_FD_VARIABLE
from trunkline.bus.redact import mask_url
from trunkline.bus.runtime_dir import temporary_directory
from trunkline.bus.settings import spelled

from . import client as bus_client

log = logging.getLogger("trunkline.adapter")

#: How long a stack may take to be ready, and to end after SIGTERM: seconds.
READY_WITHIN = 30.0
END_WITHIN = 5.0
_STEP = 0.1
_SHOWN_LINES = 12

_lock = threading.Lock()


@dataclass(frozen=True)
class StackRequest:
    """What a private stack is made of."""

    account_sid: str
    auth_token: str
    public_url: str
    http_port: int
    validate_signature: bool

    def __repr__(self) -> str:
        return f"StackRequest(public_url={mask_url(self.public_url)!r}, http_port={self.http_port})"

    @property
    def key(self) -> tuple[str, str]:
        return self.account_sid, spelled(self.public_url)


class PrivateStack:
    """The child processes. Get one with :func:`acquire`, give it back with :func:`release`."""

    def __init__(self, request: StackRequest) -> None:
        self.request = request
        self.users = 0
        self.pid = os.getpid()
        self._directory = temporary_directory("trunkline-")
        self.bus = f"ipc://{self._directory}"
        self._last_lines: collections.deque[str] = collections.deque(maxlen=_SHOWN_LINES)
        ours, self._parent_end = os.pipe()
        try:
            self._process = subprocess.Popen(
                self._command(),
                env=self._environment(ours),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(ours,),
                start_new_session=True,
                text=True,
                errors="replace",
            )
        except BaseException:
            os.close(self._parent_end)
            shutil.rmtree(self._directory, ignore_errors=True)
            raise
        finally:
            os.close(ours)
        self._reader = threading.Thread(
            target=self._read_output, name="trunkline-private-stack", daemon=True
        )
        self._reader.start()

    def _command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "trunkline", "up"),
            *("--gateways", "1", "--codec-workers", "1"),
        ]

    def _environment(self, parent_fd: int) -> dict[str, str]:
        request = self.request
        return os.environ | {
            "TWILIO_ACCOUNT_SID": request.account_sid,
            "TWILIO_AUTH_TOKEN": request.auth_token,
            "TRUNKLINE_PUBLIC_URL": spelled(request.public_url),
            "TRUNKLINE_HTTP_PORT": str(request.http_port),
            "TRUNKLINE_CONSOLE_PORT": "0",
            "TRUNKLINE_BUS": self.bus,
            "TRUNKLINE_VALIDATE_SIGNATURE": "1" if request.validate_signature else "0",
            PARENT_FD_VARIABLE: str(parent_fd),
        }

    def _read_output(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._last_lines.append(line.rstrip())
            log.debug("private stack: %s", line.rstrip())

    async def wait_ready(self) -> None:
        """Wait until controller, gateway and worker are there.

        StackUnavailableError, with the last lines that the stack wrote, when it ends or does not
        get ready in time.
        """
        deadline = time.monotonic() + READY_WITHIN
        client = await asyncio.to_thread(
            bus_client.acquire, BusAddress.parse(self.bus), lambda: None
        )
        try:
            while True:
                if self._process.poll() is not None:
                    raise self._failed(f"ended with status {self._process.returncode}")
                if time.monotonic() > deadline:
                    raise self._failed(f"was not ready within {READY_WITHIN:g} s")
                try:
                    await client.welcome(_STEP)
                    status = (await client.status(_STEP * 10)).status
                except TrunklineError:
                    continue  # not there yet; the deadline above ends this
                if status.get("gateways") and status.get("codec_workers"):
                    return
                await asyncio.sleep(_STEP)
        finally:
            await client.release()

    def _failed(self, how: str) -> StackUnavailableError:
        self._reader.join(1.0 if self._process.poll() is not None else 0.0)
        said = "\n".join(f"    {line}" for line in self._last_lines) or "    (nothing)"
        return StackUnavailableError(f"the private stack {how}; it said:\n{said}")

    def stop(self) -> None:
        """SIGTERM, wait, then SIGKILL for what is left of its session; blocks for 5 s at most."""
        if self.pid != os.getpid():
            return
        try:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGTERM)
                try:
                    self._process.wait(END_WITHIN)
                except subprocess.TimeoutExpired:
                    log.error("the private stack did not end within %g s; killed", END_WITHIN)
            if self._process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait(1.0)
        finally:
            os.close(self._parent_end)
            self._reader.join(1.0)
            if self._process.stdout is not None and not self._reader.is_alive():
                self._process.stdout.close()
            shutil.rmtree(self._directory, ignore_errors=True)
        if self._process.returncode not in (0, None):
            shown = "; ".join(self._last_lines)
            log.error("the private stack ended with %s: %s", self._process.returncode, shown)

    def close_inherited(self) -> None:
        """In a forked child: the pipe is the parent's to hold."""
        os.close(self._parent_end)


_stacks: dict[tuple[str, str], PrivateStack] = {}


async def acquire(request: StackRequest) -> PrivateStack:
    """The process's private stack for this account and URL, ready; ``release`` it once."""
    with _lock:
        stack = _stacks.get(request.key)
        if stack is None:
            stack = _stacks[request.key] = PrivateStack(request)
        stack.users += 1
    if (stack.request.http_port, stack.request.validate_signature) != (
        request.http_port,
        request.validate_signature,
    ):
        log.warning(
            "this process's private stack serves %s on port %d; http_port and validate_signature "
            "of a further adapter are ignored",
            mask_url(stack.request.public_url),
            stack.request.http_port,
        )
    try:
        await stack.wait_ready()
    except BaseException:
        await asyncio.shield(release(stack))
        raise
    return stack


async def release(stack: PrivateStack) -> None:
    """Give the stack back; the last one ends it."""
    with _lock:
        stack.users -= 1
        last = stack.users == 0
        if last and _stacks.get(stack.request.key) is stack:
            del _stacks[stack.request.key]
    if last:
        await asyncio.to_thread(stack.stop)


def _stop_all() -> None:
    with _lock:
        stacks = list(_stacks.values())
        _stacks.clear()
    for stack in stacks:
        stack.stop()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()
    for stack in _stacks.values():
        stack.close_inherited()
    _stacks.clear()


bus_client.after_clients.append(_stop_all)
os.register_at_fork(after_in_child=_after_fork_in_child)
