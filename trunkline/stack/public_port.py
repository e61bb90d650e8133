"""The public port of a stack: one lock, one listening socket, shared by all of its gateways.

The process that starts first (``trunkline up``, or the first ``trunkline gateway``) becomes the
holder: it takes the port's lock and binds the socket. SO_REUSEPORT is not used, because two stacks
on one port would split its traffic. A further gateway *of the same bus*, as in ``honcho start -c
gateway=3``, asks the holder for a descriptor of the same socket. It does so over a Unix socket
beside the lock, the holder's door. A process of another bus is refused by name. The listening
socket lives as long as any of these processes: when the holder dies, another one takes the lock.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import threading
import time
from pathlib import Path
from typing import Final

from trunkline.bus.hosts import PortTakenError, listen
from trunkline.bus.locks import FileLock, LockHeldError
from trunkline.bus.private import WRITE, make_private
from trunkline.bus.runtime_dir import runtime_path

log = logging.getLogger("trunkline.stack.supervisor")

#: Seconds for a holder that has the lock to answer. After that the port counts as taken.
HOLDER_ANSWERS_WITHIN: Final = 3.0
#: Seconds after which the port of a dead holder is free, or has a new holder that answers.
SUCCEEDED_WITHIN: Final = 0.5
#: Seconds between two looks at a holder that is just starting or ending.
LOOK_AGAIN_AFTER: Final = 0.02
_LONGEST_BUS: Final = 4096
_YES: Final = b"y"
_NO: Final = b"n"


def locks_directory() -> Path:
    """The directory of port locks: the user's runtime directory. No other user may write to it."""
    found = runtime_path()
    make_private(found, others_may_not=WRITE)
    return found


class PublicPort:
    """The listening socket, and the right to it. ``claim()`` makes one, and ``close()`` lets go."""

    def __init__(self, listening: socket.socket, port: int, bus: str, directory: Path) -> None:
        self.listening = listening
        self._bus = bus
        self._lock_path = directory / f"port-{port}.lock"
        self._door_path = directory / f"port-{port}.sock"
        self._lock: FileLock | None = None
        self._door: socket.socket | None = None
        self._holder: socket.socket | None = None
        self._sharers: list[socket.socket] = []
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._watch, name="public-port", daemon=True)

    @classmethod
    def claim(cls, host: str, port: int, bus: str, directory: Path | None = None) -> PublicPort:
        """Bind the port, or share the socket of this bus's stack.

        Port 0 stands for any free port. Raises PortTakenError where another stack or program has
        the port.
        """
        directory = locks_directory() if directory is None else directory
        if port == 0:
            listening = listen(host, 0)
            port = int(listening.getsockname()[1])
            public = cls(listening, port, bus, directory)
            public._take_lock()
            public._thread.start()
            return public
        public = cls._first_or_shared(host, port, bus, directory)
        public._thread.start()
        return public

    @classmethod
    def _first_or_shared(cls, host: str, port: int, bus: str, directory: Path) -> PublicPort:
        began = time.monotonic()
        while True:
            try:
                lock = FileLock(directory / f"port-{port}.lock", _describe_holder(bus))
            except LockHeldError as held:
                try:
                    shared = _ask_holder(directory / f"port-{port}.sock", bus)
                except _OtherStackError:
                    raise _taken(port, held.holder) from None
                if shared is not None:
                    listening, holder = shared
                    public = cls(listening, port, bus, directory)
                    public._holder = holder
                    return public
                if time.monotonic() - began > HOLDER_ANSWERS_WITHIN:
                    raise _taken(port, held.holder) from None
                time.sleep(LOOK_AGAIN_AFTER)  # the holder has its lock and has not opened its door
                continue
            try:
                public = cls(listen(host, port), port, bus, directory)
            except PortTakenError:
                lock.remove()
                if time.monotonic() - began > SUCCEEDED_WITHIN:
                    raise
                time.sleep(LOOK_AGAIN_AFTER)  # the holder died; a sharer may be taking over
                continue
            except BaseException:
                lock.remove()
                raise
            public._hold(lock)
            return public

    @property
    def fd(self) -> int:
        return self.listening.fileno()

    def detach(self) -> int:
        """A second descriptor of the socket, for a part of this process that will close it."""
        return os.dup(self.fd)

    @property
    def address(self) -> tuple[str, int]:
        """Host (an address, without brackets) and port that the socket listens on."""
        host, port = self.listening.getsockname()[:2]
        return str(host), int(port)

    @property
    def first(self) -> bool:
        """Whether this process is the holder. False: it shares another process's socket."""
        return self._lock is not None

    def close(self) -> None:
        """Let go of lock and socket. May be called twice."""
        if self._wake.fileno() < 0:
            return
        self._wake.close()
        if self._thread.ident is not None:
            self._thread.join()
        self._woken.close()
        if self._lock is not None:
            self._door_path.unlink(missing_ok=True)
        for each in (self._door, self._holder, *self._sharers, self.listening):
            if each is not None:
                each.close()
        if self._lock is not None:
            self._lock.remove()

    # ------------------------------------------------------------------ the thread

    def _watch(self) -> None:
        while True:
            wanted = self._door if self._door is not None else self._holder
            with selectors.DefaultSelector() as selector:
                selector.register(self._woken, selectors.EVENT_READ)
                if wanted is not None:
                    selector.register(wanted, selectors.EVENT_READ)
                ready = {key.fileobj for key, _ in selector.select()}
            if self._woken in ready:
                return
            if self._door is not None:
                self._hand_out(self._door)
            else:
                self._succeed()

    def _hand_out(self, door: socket.socket) -> None:
        """Answer one process that asks for the socket. The connection stays open, so that it tells
        that process when we die."""
        # OSError: the process has gone away meanwhile, or says nothing.
        with contextlib.suppress(OSError), contextlib.ExitStack() as unless_kept:
            asking, _ = door.accept()
            unless_kept.callback(asking.close)
            asking.settimeout(1.0)
            if asking.recv(_LONGEST_BUS).decode(errors="replace") != self._bus:
                asking.sendall(_NO)
                return
            socket.send_fds(asking, [_YES], [self.listening.fileno()])
            asking.setblocking(False)
            for gone in [each for each in self._sharers if not _is_connected(each)]:
                self._sharers.remove(gone)
                gone.close()
            self._sharers.append(asking)
            unless_kept.pop_all()

    def _succeed(self) -> None:
        """The holder is gone. Take its place, or follow the process that has taken it."""
        if self._holder is not None:
            self._holder.close()
            self._holder = None
        while True:
            shared = None
            if self._take_lock():
                log.info("took over the lock of the public port")
                return
            # Another bus took the lock, but it cannot bind while we hold the socket: keep waiting.
            with contextlib.suppress(_OtherStackError):
                shared = _ask_holder(self._door_path, self._bus)
            if shared is not None:
                shared[0].close()  # we have the same socket already
                self._holder = shared[1]
                return
            with selectors.DefaultSelector() as selector:
                selector.register(self._woken, selectors.EVENT_READ)
                if selector.select(LOOK_AGAIN_AFTER):
                    return

    def _take_lock(self) -> bool:
        try:
            self._hold(FileLock(self._lock_path, _describe_holder(self._bus)))
        except LockHeldError:
            return False
        return True

    def _hold(self, lock: FileLock) -> None:
        self._lock = lock
        self._door_path.unlink(missing_ok=True)
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(str(self._door_path))
        self._door.listen(16)


class _OtherStackError(Exception):
    """The holder of the port belongs to another bus."""


def _is_connected(sharer: socket.socket) -> bool:
    """Whether a process that shares the socket is still there. It never sends anything more."""
    try:
        return sharer.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def _taken(port: int, holder: str) -> PortTakenError:
    return PortTakenError(
        f"TRUNKLINE_HTTP_PORT={port}: the port is held by {holder or 'another stack'}; "
        "end it or choose another port"
    )


def _describe_holder(bus: str) -> str:
    return f"the trunkline stack at {bus} (pid {os.getpid()})"


def _ask_holder(door: Path, bus: str) -> tuple[socket.socket, socket.socket] | None:
    """The stack's listening socket, and the connection to its holder. None: nobody answers.

    Raises _OtherStackError where the holder belongs to another bus.
    """
    asking = socket.socket(socket.AF_UNIX)
    asking.settimeout(1.0)
    try:
        asking.connect(str(door))
        asking.sendall(bus.encode())
        answer, descriptors, _, _ = socket.recv_fds(asking, 1, 1)
    except OSError:
        asking.close()
        return None
    if answer != _YES or not descriptors:
        asking.close()
        if answer == _NO:
            raise _OtherStackError
        return None
    return socket.socket(fileno=descriptors[0]), asking
