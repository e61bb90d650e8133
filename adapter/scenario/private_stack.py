"""A private stack, for adapters that find no stack to join.

One private stack serves all adapters of a process that have the same account and public URL. It is
``trunkline up`` in a session of its own (so that Ctrl-C reaches the test first). It has its own bus
and its own state directory, so that it can run at the same time as any other stack of the user's.
The stack ends at the last ``release``, and also when this process ends, in whatever way. A number
that it could not put back is put back by the next stack of the account on this machine.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import threading
from dataclasses import dataclass

from trunkline.bus.launch import Launched, trunkline_argv
from trunkline.bus.redact import mask_url
from trunkline.bus.runtime_dir import temporary_directory
from trunkline.bus.settings import load, private_state_dir, spelled

from ..client import client as bus_client

log = logging.getLogger("trunkline.adapter")

#: A stack has this long (seconds) to be ready, and to end after SIGTERM.
READY_WITHIN = 30.0
END_WITHIN = 5.0

_lock = threading.Lock()


@dataclass(frozen=True)
class StackRequest:
    """The settings of a private stack. ``public_url``: "" where the user has given none."""

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
    """A running private stack. Get it with :func:`acquire`, give it back with :func:`release`."""

    def __init__(self, request: StackRequest) -> None:
        self.request = request
        self.users = 0
        self.pid = os.getpid()
        self._directory = temporary_directory("trunkline-")
        self.bus = f"ipc://{self._directory}/bus"
        try:
            self.launched = Launched(
                self._command(),
                self._directory,
                "up",
                self._environment(),
                what="the private stack",
                own_session=True,
            )
        except BaseException:
            shutil.rmtree(self._directory, ignore_errors=True)
            raise
        log.debug("a private stack starts; it writes to %s", self.launched.log)

    def _command(self) -> list[str]:
        return trunkline_argv("up", "--gateways", "1", "--codec-workers", "1")

    def _environment(self) -> dict[str, str]:
        request = self.request
        name = f"{self.pid}-{secrets.token_hex(4)}"
        return os.environ | {
            "TWILIO_ACCOUNT_SID": request.account_sid,
            "TWILIO_AUTH_TOKEN": request.auth_token,
            "TRUNKLINE_PUBLIC_URL": spelled(request.public_url),
            "TRUNKLINE_HTTP_PORT": str(request.http_port),
            "TRUNKLINE_CONSOLE_PORT": "0",
            "TRUNKLINE_BUS": self.bus,
            "TRUNKLINE_STATE_DIR": str(private_state_dir(load().state_path.absolute(), name)),
            "TRUNKLINE_VALIDATE_SIGNATURE": "1" if request.validate_signature else "0",
        }

    def stop(self) -> None:
        """End the stack; blocks for 5 s at most. Does nothing in a forked child, which does not own
        the stack."""
        if self.pid != os.getpid():
            return
        was_up = self.launched.ready_file.exists()  # otherwise its start has told the error
        try:
            status = self.launched.stop(END_WITHIN)
            if status != 0 and was_up:
                log.error(
                    "the private stack ended with %s; it said:\n%s", status, self.launched.tail()
                )
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)


#: the one that the next user gets, by account and URL
_stacks: dict[tuple[str, str], PrivateStack] = {}
#: all that have users, those that have died among them
_made: set[PrivateStack] = set()


async def acquire(request: StackRequest) -> PrivateStack:
    """The process's private stack for this account and URL, ready; ``release`` it once."""
    with _lock:
        stack = _stacks.get(request.key)
        if stack is None or stack.launched.process.poll() is not None:
            # One that has died, or was killed, stays with those who have it: their calls are lost.
            stack = _stacks[request.key] = PrivateStack(request)
            _made.add(stack)
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
        await stack.launched.until_ready(READY_WITHIN)
    except BaseException:
        await asyncio.shield(release(stack))
        raise
    return stack


async def release(stack: PrivateStack) -> None:
    """Give the stack back; the last one ends it."""
    with _lock:
        stack.users -= 1
        last = stack.users == 0
        if last:
            _made.discard(stack)
        if last and _stacks.get(stack.request.key) is stack:
            del _stacks[stack.request.key]
    if last:
        await asyncio.to_thread(stack.stop)


def _stop_all() -> None:
    with _lock:
        stacks = list(_made)
        _made.clear()
        _stacks.clear()
    for stack in stacks:
        stack.stop()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()
    for stack in _made:
        stack.launched.close_pipe()  # it is the parent's to hold
    _made.clear()
    _stacks.clear()


bus_client.after_clients.append(_stop_all)
os.register_at_fork(after_in_child=_after_fork_in_child)
