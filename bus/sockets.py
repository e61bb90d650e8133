"""The sockets of the bus: ROUTER and DEALER on an asyncio loop, with nothing that blocks or raises.

A thin shell over pyzmq that avoids one future per message: the loop watches ZeroMQ's file
descriptor, and a callback gets each message. Facts about ZeroMQ that shape it (all have a test):

- its descriptor is edge-triggered: after a wake-up everything must be read, and a send may swallow
  an edge, so the socket is looked at again after each send. A look that finds nothing is two system
  calls, and arms the edge: the next one is not needed before something was sent or received;
- messages that are queued for a dead peer reach whoever binds that endpoint next. Therefore: LINGER
  0, a new identity for each socket, nothing is sent before the handshake or after the connection's
  end, a socket does not connect a second time by itself, and it is closed once its peer is gone;
- IMMEDIATE is meant to prevent that, and is not used: where a peer has died, it drops most of the
  messages that were not read yet;
- a ROUTER drops what it cannot route in silence unless ROUTER_MANDATORY is set;
- a peer killed with -9 shows as DISCONNECTED on the socket's monitor within milliseconds.

A message that cannot be sent (peer gone, high-water mark) makes ``send`` return False; it never
raises into a paced loop.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Final, Literal

import zmq
from zmq.backend import Socket as PlainSocket
from zmq.utils.monitor import parse_monitor_message

from .curve import ClientCurve, CurveKeys

#: After this many messages in one go, other callbacks of the loop (timers) get their turn.
BURST = 128

#: At most this many messages wait in one direction of one connection.
HIGH_WATER_MARK = 20_000

#: The socket refuses a larger message: it reads only the message's length, and closes the
#: connection. On the media plane 300 s of PCM16 at 24 kHz is 14.4 MB. On the control
#: plane a client's Hello is the longest message. It has about 1 KB for each call (a codec worker
#: carries 2,000 at most), and for each session the numbers that it lets in and may call.
MAX_MESSAGE_BYTES = 32 * 1024 * 1024

#: Seconds between the tries of a DEALER that finds nobody, at first and later.
FIRST_RETRY = 0.05
LONGEST_RETRY = 0.5

#: A machine that was cut off answers no connection, and the kernel asks it ever more seldom. So a
#: try on tcp ends after this time, and the next try asks at once.
CONNECT_WITHIN_MS = 2_000

#: ZeroMQ's own tries come after an hour at least (-1, never, drops what was not read yet).
NEVER_MS = 3_600_000


# As plain numbers: pyzmq's enums cost more to combine than a message costs to send.
_NOBLOCK: Final = int(zmq.NOBLOCK)
_MORE_FOLLOWS: Final = int(zmq.NOBLOCK | zmq.SNDMORE)
_POLLIN: Final = int(zmq.POLLIN)

# pyzmq's ``getsockopt`` makes an enum of the option each time, and its ``send`` has a layer in
# Python for drafts. After a rest, when the caches are cold, those take longer than the C below
# them. So a socket is polled, the last frame says itself whether more follow, and this sends.
_send: Final = PlainSocket.send


def _descriptor(socket: zmq.Socket[bytes]) -> int:
    return int(socket.getsockopt(zmq.FD))


class BusSocket:
    """A ZeroMQ socket on a running asyncio loop. ``on_message`` gets the frames of one message.
    When messages woke the loop, ``after`` is called after each burst that was handed out."""

    #: the message that is being handed out came by a client's own key, and not by the bus's key
    by_client_key = False

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        on_message: Callable[[list[bytes]], None],
        after: Callable[[], None] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = socket
        self._on_message = on_message
        self._after = after
        #: a look at the socket is under way, or will be taken soon
        self._looks = False
        #: something may have swallowed the edge since the last look
        self._edge_lost = False
        self._on_demand = False
        #: every message begins with the identity of who sent it
        self._by_router = socket.type == zmq.ROUTER
        self._polled = [(socket, _POLLIN)]
        self.closed = False
        #: there is somebody to send to, as far as the socket knows
        self._may_send = True
        self._loop.add_reader(_descriptor(socket), self._drain)
        self._loop.call_soon(self._drain)

    def send(self, payload: bytes, to: bytes | None = None) -> bool:
        """Send one message (to the peer with identity ``to`` on a ROUTER). False: not sent."""
        if self.closed or not self._may_send:
            return False
        try:
            if to is not None:
                _send(self._socket, to, _MORE_FOLLOWS)
            _send(self._socket, payload, _NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise
            return False
        finally:
            self._edge_lost = True
            self._look_again()
        return True

    def is_up(self, peer: bytes, sign: bytes) -> bool:
        """Whether the connection with identity ``peer`` is up, on a ROUTER. ZeroMQ shows that only
        when a message is sent, so the peer gets ``sign``."""
        if self.closed:
            return False
        try:
            _send(self._socket, peer, _MORE_FOLLOWS)
            _send(self._socket, sign, _NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise
            return error.errno == zmq.EAGAIN  # the peer is there, and does not read
        finally:
            self._edge_lost = True
            self._look_again()
        return True

    def read_on_demand(self, on_demand: bool) -> None:
        """True: messages wait until ``read()``; False (the beginning): they come by themselves.

        A paced loop that wakes up anyway spares the wake-up for each message that way.
        """
        if on_demand == self._on_demand or self.closed:
            return
        self._on_demand = on_demand
        if on_demand:
            self._loop.remove_reader(_descriptor(self._socket))
        else:
            self._loop.add_reader(_descriptor(self._socket), self._drain)
            self._edge_lost = True
            self._look_again()

    def read(self) -> None:
        """Hand out all messages that are there, four bursts of them at most."""
        for _ in range(4):
            if not self._read_burst():
                return

    def _look_again(self) -> None:
        """Drain soon, if a message is there for which no edge will come."""
        if not self._looks and self._edge_lost and not self._on_demand and self.readable:
            self._looks = True
            self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        self._looks = True  # whoever sends meanwhile need not look
        try:
            self._edge_lost = True
            self._read_burst()
            if self._after is not None:
                self._after()
        finally:
            self._looks = False
            self._look_again()

    @property
    def readable(self) -> bool:
        """A message waits. Asking is cheaper than the exception of a read that finds nothing."""
        if self.closed or not zmq.zmq_poll(self._polled, 0):
            self._edge_lost = False
            return False
        return True

    def _read_burst(self) -> bool:
        """True: the burst was full, so there may be more."""
        for _ in range(BURST):
            if not self.readable:
                return False
            self._edge_lost = True
            self._on_message(self._receive())
        return True

    def _receive(self) -> list[bytes]:
        receive = self._socket.recv
        frames = [receive(_NOBLOCK)] if self._by_router else []
        while True:
            frame = receive(_NOBLOCK, copy=False)
            frames.append(frame.bytes)
            if not frame.more:
                return frames

    def close(self, linger: int = 0) -> None:
        """Close. Messages in the queue are dropped, or given ``linger`` milliseconds to leave.

        May be called twice, and from a callback.
        """
        if self.closed:
            return
        self.closed = True
        if not self._on_demand:
            self._loop.remove_reader(_descriptor(self._socket))
        self._socket.close(linger)


class KeyedRouter(BusSocket):
    """A ROUTER on tcp that knows by which key each message came."""

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        on_message: Callable[[list[bytes]], None],
        after: Callable[[], None] | None,
        of_the_bus: bytes,
    ) -> None:
        super().__init__(socket, on_message, after)
        self._of_the_bus = of_the_bus.decode()

    def _receive(self) -> list[bytes]:
        frames = self._socket.recv_multipart(_NOBLOCK, copy=False)
        # The ZAP handler sets this for the connection: the public key that it let in.
        self.by_client_key = frames[-1].get("User-Id") != self._of_the_bus
        return [frame.bytes for frame in frames]


class DealerSocket(BusSocket):
    """A DEALER with one connection in its life.

    The socket tries until the connection is up, and then calls ``on_connected``. When the
    connection ends, the socket hands out all that the peer had sent, and then calls
    ``on_disconnected``. Nothing is sent before the one call and after the other. With
    ``on_refused`` the socket stops trying once nobody listens there, and calls that.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        endpoint: str,
        on_message: Callable[[list[bytes]], None],
        on_connected: Callable[[], None],
        on_disconnected: Callable[[], None],
        on_refused: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(socket, on_message)
        self._may_send = False
        self._on_refused = on_refused
        self._tried_at = self._loop.time()
        self._endpoint = endpoint
        self._on_connected = on_connected
        self._on_disconnected = on_disconnected
        self._state: Literal["connecting", "connected", "disconnected"] = "connecting"
        self._retry_in = FIRST_RETRY
        self._retry: asyncio.TimerHandle | None = None
        try:
            self._monitor: zmq.Socket[bytes] = socket.get_monitor_socket(
                zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED
            )
        except zmq.ZMQError:
            super().close()
            raise
        self._loop.add_reader(_descriptor(self._monitor), self._read_monitor)
        self._loop.call_soon(self._read_monitor)
        try:
            socket.connect(endpoint)
        except zmq.ZMQError:
            self.close()
            raise

    def close(self, linger: int = 0) -> None:
        if not self.closed:
            if self._retry is not None:
                self._retry.cancel()
            self._loop.remove_reader(_descriptor(self._monitor))
            self._socket.disable_monitor()
            self._monitor.close(0)
        super().close(linger)

    def _read_monitor(self) -> None:
        while not self.closed:
            try:
                event = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))["event"]
            except zmq.Again:
                return
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED and self._state == "connecting":
                self._state, self._may_send = "connected", True
                self._on_connected()
            elif event == zmq.EVENT_DISCONNECTED and self._state == "connected":
                self._state, self._may_send = "disconnected", False
                while self._read_burst():
                    pass
                if not self.closed:
                    self._on_disconnected()
            elif event == zmq.EVENT_CONNECT_RETRIED and self._state == "connecting":
                if self._on_refused is not None and not self._timed_out:
                    self._state = "disconnected"
                    self._on_refused()
                    continue
                if self._retry is not None:
                    self._retry.cancel()
                self._retry = self._loop.call_later(self._retry_in, self._connect_again)
                self._retry_in = min(LONGEST_RETRY, 2 * self._retry_in)

    @property
    def _timed_out(self) -> bool:
        """The last try got no answer, rather than being refused. A refusal comes at once, so half
        of the time that a try may take is enough to tell the two apart."""
        return self._loop.time() - self._tried_at >= CONNECT_WITHIN_MS / 2000

    def _connect_again(self) -> None:
        if self._state == "connecting":
            self._tried_at = self._loop.time()
            self._socket.disconnect(self._endpoint)
            self._socket.connect(self._endpoint)


def _prepare(socket: zmq.Socket[bytes], endpoint: str) -> None:
    socket.linger = 0
    socket.sndhwm = HIGH_WATER_MARK
    socket.rcvhwm = HIGH_WATER_MARK
    socket.maxmsgsize = MAX_MESSAGE_BYTES
    if endpoint.startswith("tcp:"):
        # Without this ZeroMQ looks names up, and reads addresses, as IPv4 alone.
        socket.ipv6 = "[" in endpoint
        # Half-open connections (a host that vanished) show within 6 s; on one machine the kernel
        # tells at once.
        socket.connect_timeout = CONNECT_WITHIN_MS
        socket.heartbeat_ivl = 2_000
        socket.heartbeat_timeout = 6_000


def connect_dealer(
    context: zmq.Context[zmq.Socket[bytes]],
    endpoint: str,
    on_message: Callable[[bytes], None],
    *,
    on_connected: Callable[[], None],
    on_disconnected: Callable[[], None],
    on_refused: Callable[[], None] | None = None,
    curve: ClientCurve | None = None,
) -> DealerSocket:
    """A DEALER with a new identity, connected to ``endpoint``; call it on the running loop.

    After ``on_disconnected`` close it and make another: it does not connect again. ``on_refused``
    is for an endpoint that is there before anybody knows it, such as a worker's. If nobody listens
    at it, its process is dead, and nobody will. Without that it tries until somebody does.

    ZMQError: nothing can connect to an endpoint that is written so, for example ``tcp://*:7000``.
    """
    socket = context.socket(zmq.DEALER)
    _prepare(socket, endpoint)
    socket.reconnect_ivl = NEVER_MS
    socket.identity = b"d" + secrets.token_bytes(11)
    if endpoint.startswith("tcp:") and curve is not None:
        curve.apply_client(socket)
    return DealerSocket(
        socket,
        endpoint,
        lambda frames: on_message(frames[-1]),
        on_connected,
        on_disconnected,
        on_refused,
    )


def bind_router(
    context: zmq.Context[zmq.Socket[bytes]],
    endpoint: str,
    on_message: Callable[[bytes, bytes], None],
    *,
    after: Callable[[], None] | None = None,
    curve: CurveKeys | None = None,
    tells_keys: bool = False,
) -> tuple[BusSocket, str]:
    """A ROUTER bound to ``endpoint`` (``tcp://host:*`` takes a free port), and its real endpoint.

    ``on_message(identity, payload)``; ``after`` as for BusSocket. ``tells_keys``: it is a
    :class:`KeyedRouter`, if it has keys; each message costs a little more then. Messages that are
    not two frames are dropped: every peer of ours sends one frame. So is one of more than
    :data:`MAX_MESSAGE_BYTES`.
    """
    socket = context.socket(zmq.ROUTER)
    _prepare(socket, endpoint)
    socket.router_mandatory = 1
    keys = curve if endpoint.startswith("tcp:") else None
    if keys is not None:
        keys.apply_server(socket, context)
    try:
        socket.bind(endpoint)
    except zmq.ZMQError:
        socket.close(0)
        raise

    def receive(frames: list[bytes]) -> None:
        if len(frames) == 2:
            on_message(frames[0], frames[1])

    bound = socket.getsockopt_string(zmq.LAST_ENDPOINT)
    if keys is not None and tells_keys:
        return KeyedRouter(socket, receive, after, keys.public), bound
    return BusSocket(socket, receive, after), bound
