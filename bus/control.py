"""A peer's side of the control plane: one DEALER to the controller that survives its restarts.

:class:`ControlClient` says Hello on each new connection and at each new epoch, beats twice a
second, matches replies to requests, and asks unanswered requests again after a reconnect (to the
controller they are the same requests: it answers each once). A request waits while the controller
is away. After :data:`UNAVAILABLE_AFTER` without a controller it ends in StackUnavailableError.

A connection may be up and bring no message, for example because the controller takes another
connection for the peer's. After :data:`SILENT_BEATS` the peer drops the connection and makes a new
one. If that brings no message either, the peer is *deaf* after :data:`DEAF_AFTER`, and its process
may act on it.

Where several controllers share a database, a client may go to another controller. It does so when
its own controller has not welcomed it for :data:`PATIENCE`, and when a controller says that the
stack has moved. Gateways and codec workers are connected to all controllers (:mod:`.fleet`).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
import zmq

from . import messages as m
from .clock import Clock, monotonic, until_next
from .curve import ClientCurve
from .endpoints import BusAddress
from .errors import (
    InternalError,
    SettingsError,
    StackUnavailableError,
    TimedOutError,
    TrunklineError,
)
from .sockets import FIRST_RETRY, BusSocket, connect_dealer
from .wall import Wall

log = logging.getLogger("trunkline.bus")

BEAT_SECONDS = 0.5
#: Without an answer from any controller for this long (seconds), requests fail.
UNAVAILABLE_AFTER = 10.0
#: The same in a fleet, where another controller may run the stack after 10 to 15 s.
UNAVAILABLE_IN_FLEET_AFTER = 30.0
#: A peer is deaf when its connection is up and brought no message for this long (seconds). A
#: controller that hangs is killed by its keeper long before.
DEAF_AFTER = 25.0
#: A peer drops its connection after this many beats without a message from the controller, which
#: answers one beat in eight. Beats are counted, and not seconds, because a process that did not run
#: for a while still has its messages to read.
SILENT_BEATS = 20
#: A connection on which no Welcome came within this time (seconds) is dropped.
WELCOME_WITHIN = 2.0
#: A peer waits this long (seconds) for its own controller, which its keeper may just be starting
#: again, before it asks another controller of the fleet.
PATIENCE = 2.5

_T = TypeVar("_T")

_encoder = msgspec.msgpack.Encoder()


@dataclass
class _Pending:
    request: m.Request
    asked: float
    deadline: float | None
    future: asyncio.Future[m.ReplyBody] = field(repr=False)


class ControlClient:
    """One peer's connection to the controller, on the running asyncio loop.

    ``hello()`` describes the peer and everything that it holds. ``beat()`` makes the Beat that is
    sent twice a second; None: the peer is not healthy, and says nothing. ``on_event`` gets every
    Event, ``on_welcome`` every Welcome (a new epoch, or a reconnect). ``on_refused`` is called once
    when the controller refuses the peer for good, or when nobody may, or can, connect to the bus.
    Requests then fail with that error. ``on_moved`` is called when the controller does not run the
    stack that the Hello asks for.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: BusAddress,
        *,
        peer: str,
        hello: Callable[[], m.Hello],
        beat: Callable[[], m.Beat | None],
        on_event: Callable[[m.Event], None],
        on_welcome: Callable[[m.Welcome], None] | None = None,
        on_refused: Callable[[TrunklineError], None] | None = None,
        on_moved: Callable[[m.Moved], None] | None = None,
        curve: ClientCurve | None = None,
        clock: Clock = monotonic,
        wall: Wall | None = None,
    ) -> None:
        self.peer = peer
        self.wall = Wall(log) if wall is None else wall
        self._receive = self.wall.door(m.FromController, self._take, "the controller")
        #: shows the controller that a newer connection is the same process
        self._key = secrets.token_hex(16)
        self._context = context
        self._address = address
        self._hello = hello
        self._beat = beat
        self._on_event = on_event
        self._on_welcome = on_welcome
        self._on_refused = on_refused
        self._on_moved = on_moved
        self._curve = curve
        self._clock = clock
        self._ids = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._socket: BusSocket | None = None
        self._task: asyncio.Task[None] | None = None
        #: all controllers of the fleet, which are asked in turn while the present one does not
        #: welcome us
        self.ring: list[BusAddress] = []
        #: since when this controller has been tried
        self._tried_since = clock()
        #: starts the next try, if the last connection had ended before its Welcome
        self._retry: asyncio.TimerHandle | None = None
        self._connected_at: float | None = None
        #: how many sockets were connected so far
        self._connections = 0
        self._last_heard = clock()
        #: since when one connection or another has been up without a break
        self._unbroken_since: float | None = None
        #: beats since the controller's last message
        self._unanswered = 0
        self._welcomed = asyncio.Event()
        self._refused: TrunklineError | None = None
        #: the Welcome of the present connection; None until it comes
        self.welcome: m.Welcome | None = None
        #: how many codec workers are healthy, as the controller last said; None: it has not said it
        self.workers: int | None = None

    def start(self) -> None:
        """Connect, and stay connected until ``close()``."""
        self._last_heard = self._tried_since = self._clock()
        self._open()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Say Goodbye, close the socket, fail what is pending."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if self._socket is not None:
            if self.welcome is not None:
                self._send(m.Goodbye(peer=self.peer))
                await asyncio.sleep(0)  # ZeroMQ's own thread sends; linger below lets it
            self._socket.close(linger=100)
        self._drop()
        self._fail(StackUnavailableError("the connection to the controller was closed"))

    def abandon(self) -> None:
        """Close the socket without a Goodbye, and fail what is pending, because no controller is
        there any more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._drop()
        self.welcome = None
        self._fail(StackUnavailableError("the stack of this controller has moved, or is over"))

    def go(self, address: BusAddress) -> None:
        """Connect to the controller at this address from now on. If that is the present controller,
        it will know us soon, so ask it once more, a little later."""
        self._tried_since = self._clock()
        if address != self._address:
            self._address = address
            self._reopen()
        elif self._retry is None:
            self._drop()
            self._retry = asyncio.get_running_loop().call_later(BEAT_SECONDS, self._reopen)

    @property
    def address(self) -> BusAddress:
        return self._address

    @property
    def epoch(self) -> int | None:
        return None if self.welcome is None else self.welcome.epoch

    async def wait_welcome(self, timeout: float = UNAVAILABLE_AFTER) -> m.Welcome:
        """The controller's Welcome. Raises StackUnavailableError when none comes within ``timeout``
        seconds, and the controller's own error when it refuses this peer."""
        try:
            async with asyncio.timeout(timeout):
                while self.welcome is None and self._refused is None:
                    # Once it is set the connection may be gone again before we run.
                    await self._welcomed.wait()
        except TimeoutError:
            raise self._unavailable(timeout) from None
        if self._refused is not None:
            raise self._refused
        assert self.welcome is not None
        return self.welcome

    async def request(
        self,
        body: m.RequestBody,
        expect: type[_T],
        *,
        timeout: float | None = None,
        trace: dict[str, str] | None = None,
    ) -> _T:
        """Ask, and return the reply, an ``expect``.

        Raises the error that the controller answered with, or with which it refuses this peer;
        StackUnavailableError when no controller answers for 10 s (30 in a fleet); TimedOutError
        when ``timeout`` (seconds) passes first; InternalError when the reply is something else.
        """
        if self._refused is not None:
            raise self._refused
        now = self._clock()
        ttl = 3600.0 if timeout is None else timeout
        request = m.Request(
            peer=self.peer, id=next(self._ids), ttl=ttl, body=body, trace=trace or {}
        )
        future: asyncio.Future[m.ReplyBody] = asyncio.get_running_loop().create_future()
        pending = _Pending(request, now, None if timeout is None else now + timeout, future)
        self._pending[request.id] = pending
        try:
            if self.welcome is not None:
                self._send(request)
            async with asyncio.timeout(timeout):
                reply = await future
        except TimeoutError:
            if future.done() and not future.cancelled() and future.exception() is not None:
                raise
            raise TimedOutError(
                f"no answer to {type(body).__name__} within {timeout:g} s"
            ) from None
        finally:
            self._pending.pop(request.id, None)
        if not isinstance(reply, expect):
            raise InternalError(
                f"the controller answered {type(body).__name__} with {type(reply).__name__}"
            )
        return reply

    def notify(self, notification: m.Notification) -> bool:
        """Send a notification to the controller. False: it could not be sent, and is not sent
        again. The next Hello or Beat tells of the streams and calls that it was about. Counts,
        levels and sound in it are gone."""
        return self.welcome is not None and self._send(notification)

    def say_hello(self) -> None:
        """Announce again what this peer holds."""
        own = {"connection": self._connections, "key": self._key}
        self._send(msgspec.structs.replace(self._hello(), **own))

    @property
    def deaf(self) -> bool:
        """The connection is up, and brought no message for long. A controller that is dead, or
        stopped, has no connection."""
        if self._connected_at is None or self._unbroken_since is None:
            return False
        heard = max(self._last_heard, self._unbroken_since)
        return self._clock() - heard > DEAF_AFTER

    # ------------------------------------------------------------------ the connection

    def _open(self) -> None:
        self._connected_at = None
        if not self._is_private():
            return
        try:
            self._socket = connect_dealer(
                self._context,
                self._address.control,
                self._receive,
                on_connected=self._connected,
                on_disconnected=self._lost,
                curve=self._curve,
            )
        except zmq.ZMQError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise  # no descriptor is left: the next turn tries again
            text = f"TRUNKLINE_BUS={self._address.text!r}: nothing can connect to it: "
            self._refuse(SettingsError(f"{text}{error.strerror}"))

    def _is_private(self) -> bool:
        """Check that the bus is this user's alone, and refuse it otherwise. Each new connection is
        checked again before its Hello, because the Hello holds secrets, and another user may have
        made the directory after the first look."""
        try:
            self._address.check_directory()
        except SettingsError as error:
            self._refuse(error)
            return False
        return True

    def _connected(self) -> None:
        if not self._is_private():
            assert self._socket is not None, "it is its connection"
            self._socket.close()
            self._socket = None
            return
        self._connected_at = self._clock()
        if self._unbroken_since is None:
            self._unbroken_since = self._connected_at
        self._connections += 1
        self.say_hello()

    def _lost(self) -> None:
        """The controller's end is gone. If it ended the connection before the Welcome, do not try
        again at once: that could go on without end."""
        self._unbroken_since = None
        if self.welcome is not None:
            self._reopen()
            return
        self._drop()
        self._retry = asyncio.get_running_loop().call_later(FIRST_RETRY, self._reopen)

    def _reopen(self) -> None:
        self._drop()
        if self.welcome is not None:
            self._tried_since = self._clock()
        self.welcome = None
        self._unanswered = 0
        self._welcomed.clear()
        if self._refused is None:
            self._open()

    def _drop(self) -> None:
        """Close the connection, and forget a try that is due."""
        self._connected_at = None
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: msgspec.Struct) -> bool:
        return self._socket is not None and self._socket.send(_encoder.encode(message))

    def _take(self, message: m.FromController) -> None:
        self._last_heard, self._unanswered = self._clock(), 0
        if isinstance(message, m.Reply):
            self._settle(message)
        elif isinstance(message, m.Pulse):
            if message.workers is not None:
                self.workers = message.workers
            if self.welcome is not None and (not message.known or message.epoch != self.epoch):
                self.say_hello()  # else a Hello is on its way
        elif isinstance(message, m.Welcome):
            self._take_welcome(message)
        elif isinstance(message, m.Refused):
            self._refuse(message.error.exception())
        elif isinstance(message, m.Moved):
            if self._on_moved is not None:
                self._on_moved(message)
        else:
            self._on_event(message)

    def _take_welcome(self, welcome: m.Welcome) -> None:
        self.welcome = welcome
        self._welcomed.set()
        if self._on_welcome is not None:
            self._on_welcome(welcome)
        now = self._clock()
        for pending in list(self._pending.values()):
            if pending.deadline is None:
                self._send(pending.request)
            elif pending.deadline > now:
                ttl = pending.deadline - now
                self._send(msgspec.structs.replace(pending.request, ttl=ttl))

    def _refuse(self, error: TrunklineError) -> None:
        self._refused = error
        self._welcomed.set()
        self._fail(error)
        if self._on_refused is not None:
            self._on_refused(error)

    def _settle(self, reply: m.Reply) -> None:
        pending = self._pending.get(reply.id)
        if pending is None or pending.future.done():
            return
        if reply.error is not None:
            pending.future.set_exception(reply.error.exception())
        elif reply.body is None:
            pending.future.set_exception(InternalError("the controller sent an empty reply"))
        else:
            pending.future.set_result(reply.body)

    def _fail(self, error: TrunklineError, asked_before: float = float("inf")) -> None:
        for pending in list(self._pending.values()):
            if not pending.future.done() and pending.asked < asked_before:
                pending.future.set_exception(error)

    def _unavailable(self, tried: float = UNAVAILABLE_AFTER) -> StackUnavailableError:
        return StackUnavailableError(
            f"no controller answers at {self._address.text} (tried for {tried:g} s): "
            "start a stack with `trunkline up` (`trunkline up --sim` without an account), or set "
            "TRUNKLINE_BUS"
        )

    async def _run(self) -> None:
        while self._refused is None:
            self.wall.shield("turn of the control connection", self._turn)
            now = asyncio.get_running_loop().time()
            await asyncio.sleep(until_next(BEAT_SECONDS, now))

    def _turn(self) -> None:
        """Say that the peer is there, or try to be heard."""
        now = self._clock()
        if self._connected_at is None:
            # Nobody has taken the connection since the last turn, so the next connection has all of
            # DEAF_AFTER to bring a message.
            self._unbroken_since = None
        if self.welcome is not None:
            beat = self._beat()
            if beat is not None:
                self._send(beat)
                self._unanswered += 1
            if self._unanswered > SILENT_BEATS:
                self._reopen()
        elif len(self.ring) > 1 and now - self._tried_since > PATIENCE:
            here = self.ring.index(self._address) if self._address in self.ring else -1
            self.go(self.ring[(here + 1) % len(self.ring)])
        elif (self._socket is None and self._retry is None) or (
            self._connected_at is not None and now - self._connected_at > WELCOME_WITHIN
        ):
            self._reopen()
        waits = UNAVAILABLE_AFTER if len(self.ring) < 2 else UNAVAILABLE_IN_FLEET_AFTER
        if now - self._last_heard > waits and self._pending:
            self._fail(self._unavailable(waits), asked_before=now - waits)
