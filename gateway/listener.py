"""The public listener: a bound socket, uvicorn without its signals and exits, and bounds on what a
stranger may do to it before any of our code sees a request.

uvicorn's httptools protocol bounds neither the size of a request nor the time that it takes to
arrive; :class:`BoundedHttp` does, and the number of connections too.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from trunkline.bus.errors import SettingsError

#: Connections, HTTP and WebSocket together; a further one is closed at once.
MAX_CONNECTIONS: Final = 2_000
#: A request, head and body together.
MAX_REQUEST_BYTES: Final = 96 * 1024
#: Seconds from the connection, or the first byte of a further request, to the request's end.
REQUEST_WITHIN: Final = 10.0

_TOO_LARGE = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


def inherited(descriptor: int) -> socket.socket:
    """The listening socket that a supervisor holds and handed down as ``descriptor``."""
    try:
        found = socket.socket(fileno=descriptor)
        listening = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise SettingsError(f"descriptor {descriptor} is no listening socket: {error}") from None
    if not listening:
        found.close()
        raise SettingsError(f"descriptor {descriptor} is a socket that does not listen")
    found.setblocking(False)
    return found


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's HTTP protocol with bounds. The connection itself goes on to a WebSocket protocol
    when it is upgraded; the time for the request ends then."""

    _deadline: asyncio.TimerHandle | None = None
    _received = 0
    _turned_away = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        if len(self.connections) >= MAX_CONNECTIONS:
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
        if self._received > MAX_REQUEST_BYTES:
            self._disarm()
            self.transport.write(_TOO_LARGE)
            self.transport.close()
            return
        super().data_received(data)

    def on_message_begin(self) -> None:
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
        self._deadline = self.loop.call_later(REQUEST_WITHIN, self._too_slow)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        self.transport.abort()


class Server(uvicorn.Server):
    """uvicorn that leaves signals to its process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server(app: Callable[..., Any], websocket: type[asyncio.Protocol]) -> Server:
    """A uvicorn server for ``app`` with ``websocket`` as its WebSocket protocol; run it with
    ``await server.serve(sockets=[...])`` and end it by ``should_exit``."""
    return Server(
        uvicorn.Config(
            app,
            http=BoundedHttp,
            ws=websocket,
            interface="asgi3",
            lifespan="off",
            log_level="error",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=1,
        )
    )
