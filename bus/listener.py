"""An HTTP listener: uvicorn without its signals and its clock, and with bounds on what a stranger
may do to it before any of our code sees a request.

uvicorn reads HTTP, and an ASGI application answers it. uvicorn's httptools protocol bounds neither
the size of a request nor the time that it takes to arrive; :class:`BoundedHttp` does, and the
number of connections too. The gateways' public listener and the controller's local one are both of
these.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, ClassVar, Literal

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_TOO_LARGE = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


@dataclass
class Bounds:
    """What a listener's peers may do at most; times are in seconds."""

    #: connections at a time, HTTP and WebSocket together; a further one is closed at once
    connections: int
    #: a request, head and body together
    request_bytes: int
    #: from the connection, or the first byte of a further request, to the request's end
    request_within: float
    #: from :meth:`Server.leave` until requests that are not answered yet are given up
    leave_within: float


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's HTTP protocol with bounds. The connection itself goes on to a WebSocket protocol
    when it is upgraded; the time for the request ends then."""

    bounds: ClassVar[Bounds]
    _deadline: asyncio.TimerHandle | None = None
    _received = 0
    _turned_away = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        if len(self.connections) >= self.bounds.connections:
            self._turned_away = True
            transport.abort()
            return
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        if not self._turned_away:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._turned_away:
            return
        self._received += len(data)
        if self._received > self.bounds.request_bytes:
            self._disarm()
            self.transport.write(_TOO_LARGE)
            self.transport.close()
            return
        super().data_received(data)

    def on_message_begin(self) -> None:
        # Here, because uvicorn's own clock is left out: see Server.main_loop.
        date = formatdate(usegmt=True).encode()
        self.server_state.default_headers = [(b"date", date)]
        super().on_message_begin()
        self._arm()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._disarm()
        self._received = 0

    def handle_websocket_upgrade(self) -> None:
        self._disarm()
        super().handle_websocket_upgrade()

    def _arm(self) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(self.bounds.request_within, self._too_slow)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        self.transport.abort()


class Server(uvicorn.Server):
    """A listener for ``app``: ``await server.serve(sockets=[...])`` runs it, ``leave`` ends it.

    ``websocket`` is the protocol that gets a connection once it asks for an upgrade; without one,
    an upgrade is a request like any other.
    """

    def __init__(
        self, app: Any, bounds: Bounds, websocket: type[asyncio.Protocol] | Literal["none"] = "none"
    ) -> None:
        self.bounds = bounds
        self._leaving = asyncio.Event()
        super().__init__(
            uvicorn.Config(
                app,
                http=type("Http", (BoundedHttp,), {"bounds": bounds}),
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

    def leave(self) -> None:
        """Listen no more. Requests that are being answered have ``leave_within``."""
        self._leaving.set()

    async def main_loop(self) -> None:
        """Wait for ``leave``. uvicorn's own loop looks at flags and the date ten times a second,
        and an idle process would pay for each of these wake-ups."""
        await self._leaving.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End as uvicorn does, but within the bound, without its 100 ms of sleep, and without a
        traceback for each request that is still on its way in: to its application, the peer has
        left. The process that ends has four seconds for everything."""
        for server in self.servers:
            server.close()
        for listening in sockets or []:
            listening.close()
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
