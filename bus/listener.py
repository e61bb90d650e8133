"""An HTTP listener: uvicorn without its signals and its clock, and with bounds on what a stranger
may do to it before any of our code sees a request.

uvicorn reads HTTP, and an ASGI application answers it. uvicorn's httptools protocol bounds neither
the size of a request nor the time that it takes to arrive; :class:`BoundedHttp` does. It bounds too
how many connections wait for the rest of a request: a newcomer is always let in, and where there is
no room the connection that has waited longest is dropped (:mod:`.places`). A connection whose
request is complete does not count while it is answered, and neither does an upgraded connection.

The gateways' public listener and the controller's local one are both of these.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, ClassVar, Final, Literal

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from . import descriptors, hosts
from .places import Places
from .refusals import Kind

_TOO_LARGE = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

#: At most this many bytes of a request are kept before its head is complete. Twilio's heads have
#: some 2 KB.
HEAD_BYTES: Final = 32 * 1024
#: One turn of the loop takes at most this many connections, and reads the bytes of as many. Between
#: two turns live calls are served, so a crowd cannot hold up their sound.
AT_ONCE: Final = 4


@dataclass
class Bounds:
    """What a listener's peers may do at most; times are in seconds."""

    #: this many connections may wait for a request, or for the rest of one
    waiting: int
    #: a request may have this many bytes, head and body together
    request_bytes: int
    #: a request has to be complete within this time of the connection, or of the first byte of a
    #: further request. A peer that does not read its answer, or asks nothing further, has as long
    request_within: float
    #: after :meth:`Server.leave` requests have this long to be answered
    leave_within: float
    #: this many of the waiting connections may have one owner (hosts.owner_of: an address, or a /64
    #: network); None: as many as ``waiting``
    waiting_of_one: int | None = None


class Crowd:
    """What all connections of one listener share: their places, and whose turn it is."""

    def __init__(self, bounds: Bounds, refused: Callable[[Kind], object]) -> None:
        self.bounds = bounds
        self.refused = refused
        #: at most this many connections at a time, HTTP and WebSocket together
        self.most = descriptors.for_connections(descriptors.limits()[0])
        room = descriptors.for_strangers(bounds.waiting)
        self.waiting: Places[BoundedHttp] = Places(room, bounds.waiting_of_one)
        #: connections that were given up, and are gone after this turn of the loop
        self.going: set[BoundedHttp] = set()
        self._to_read: deque[BoundedHttp] = deque()
        self._reading = False

    def has_bytes(self, connection: BoundedHttp) -> None:
        """Read ``connection`` when its turn comes."""
        self._to_read.append(connection)
        if not self._reading:
            self._reading = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(min(AT_ONCE, len(self._to_read))):
            # Each in a callback of its own, so that a connection whose bytes cannot be read does
            # not cost the next one its turn.
            loop.call_soon(self._to_read.popleft().read)
        self._reading = bool(self._to_read)
        if self._reading:
            loop.call_soon(self._next)


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's HTTP protocol with bounds. The connection itself goes on to a WebSocket protocol
    when it is upgraded; the time for the request ends then."""

    crowd: ClassVar[Crowd]
    _deadline: asyncio.TimerHandle | None = None
    _received = 0
    _in_head = False
    _unread = b""
    _owner: str | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        crowd = self.crowd
        self._owner = None if self.client is None else hosts.owner_of(self.client[0])
        if len(self.connections) - len(crowd.going) > crowd.most:
            goes = crowd.waiting.oldest or self
            goes.give_up("no descriptor")
            if goes is self:
                return
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self.crowd.waiting.leave(self)
        self.crowd.going.discard(self)
        super().connection_lost(exc)

    def give_up(self, kind: Kind) -> None:
        """Close the connection at once; ``kind`` says why."""
        self.crowd.waiting.leave(self)
        self.crowd.going.add(self)
        self._refuse(kind)
        self.transport.abort()

    def _refuse(self, kind: Kind) -> None:
        self._disarm()
        self.crowd.refused(kind)

    def _wait(self) -> None:
        """Give this connection the newest place among those that wait for a request, for a bounded
        time."""
        self._arm()
        goes = self.crowd.waiting.enter(self, self._owner)
        if goes is not None:
            goes.give_up("pushed out")

    def data_received(self, data: bytes) -> None:
        if not self._received and self.cycle is not None and self in self.crowd.waiting:
            # A further request begins. It is as new as a newcomer's, though its turn to be read
            # has yet to come.
            self._wait()
        self._received += len(data)
        if self._received > self.crowd.bounds.request_bytes:
            self._too_large()
            return
        if not self._unread:
            self.crowd.has_bytes(self)
        self._unread += data

    def read(self) -> None:
        """Read the bytes that have come."""
        data, self._unread = self._unread, b""
        if self.transport.is_closing():
            return
        try:
            super().data_received(data)
        except BaseException:  # raised on: the loop logs it, and nobody would close the connection
            self.transport.abort()
            raise
        if self._in_head and self._received > HEAD_BYTES:
            self._too_large()

    def _too_large(self) -> None:
        if not self.transport.is_closing():
            self._refuse("too large")
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        self._refuse("not HTTP")
        super().send_400_response(msg)

    def on_message_begin(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            # httptools makes an HttpParserError of it, which is answered with 400. Neither Twilio
            # nor a common proxy sends a request before it has the answer to the last one, and one
            # segment has room for thousands of them: all would be begun in one turn of the loop.
            raise ValueError("a further request before the answer")
        # Here, because uvicorn's own clock is left out: see Server.main_loop.
        date = formatdate(usegmt=True).encode()
        self.server_state.default_headers = [(b"date", date)]
        super().on_message_begin()
        self._in_head = True
        self._arm()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._received = 0
        if self.cycle is not None and not self.cycle.response_complete:
            if not self.flow.write_paused:  # else the last answer is not read yet
                self._disarm()
            self.crowd.waiting.leave(self)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._arm()  # it is closed once the answer has been read
        else:
            self._wait()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._arm()  # as above

    def pause_writing(self) -> None:
        super().pause_writing()
        self._arm()  # its answer is not read: that may take as long as a request

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.cycle is not None and not (self.cycle.response_complete or self.cycle.more_body):
            self._disarm()  # its request is whole, and its answer goes on

    def handle_websocket_upgrade(self) -> None:
        self._disarm()
        self.crowd.waiting.leave(self)
        super().handle_websocket_upgrade()
        # The parser and this protocol hold each other. uvicorn parts them when the connection is
        # lost, but of one that was upgraded this protocol never hears again.
        self.parser = None  # type: ignore[assignment]  # as uvicorn does

    def _arm(self) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(self.crowd.bounds.request_within, self._too_slow)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self.give_up("too slow")


class Server(uvicorn.Server):
    """A listener for ``app``: ``await server.serve(sockets=[...])`` runs it, ``leave`` ends it.

    ``websocket`` is the protocol that gets a connection once it asks for an upgrade; without one,
    an upgrade is a request like any other. ``refused`` hears of each request and connection that is
    refused before ``app`` sees it.
    """

    def __init__(
        self,
        app: Any,
        bounds: Bounds,
        websocket: type[asyncio.Protocol] | Literal["none"] = "none",
        refused: Callable[[Kind], object] = lambda kind: None,
    ) -> None:
        self.bounds = bounds
        self._leaving = asyncio.Event()
        self._sockets: list[socket.socket] = []
        super().__init__(
            uvicorn.Config(
                app,
                http=type("Http", (BoundedHttp,), {"crowd": Crowd(bounds, refused)}),
                ws=websocket,
                interface="asgi3",
                lifespan="off",
                log_level="error",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=5,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process: it has other things to end first."""
        yield

    def stop_listening(self) -> None:
        """Take no new connections. Present connections are served until ``leave``. Another process
        that shares the socket takes new connections, and those that nobody has taken yet."""
        if self.started:  # else ``serve`` still works on these sockets, and sees to them itself
            for server in self.servers:
                server.close()
            for listening in self._sockets:
                listening.close()

    def leave(self) -> None:
        """Listen no more. Requests that are being answered have ``leave_within``."""
        self._leaving.set()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen on ``sockets``, which are closed in the end, until ``leave``.

        uvloop takes one connection of each listening socket in a turn of its loop. A crowd that
        connects faster would fill the kernel's queue, in which everybody else waits as well, and
        where that is full the kernel turns newcomers away. So each socket is listened to by several
        descriptors.
        """
        shared = [s.dup() for s in sockets or [] for _ in range(AT_ONCE - 1)]
        self._sockets = [*(sockets or []), *shared]
        await super().serve(self._sockets)

    async def main_loop(self) -> None:
        """Wait for ``leave``. uvicorn's own loop looks at flags and the date ten times a second,
        and an idle process would pay for each of these wake-ups."""
        await self._leaving.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End as uvicorn does, but within the bound, without its 100 ms of sleep, and without a
        traceback for each request that is still on its way in: to its application, the peer has
        left. The process that ends has four seconds for everything."""
        self.stop_listening()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        try:
            async with asyncio.timeout(self.bounds.leave_within):
                while state.connections or state.tasks:  # noqa: ASYNC110  # uvicorn tells nobody
                    await asyncio.sleep(0.01)
        except TimeoutError:
            for connection in list(state.connections):
                if isinstance(connection, BoundedHttp):
                    connection.transport.abort()
