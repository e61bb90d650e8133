"""The local listener: the console, ``/metrics`` and ``/api/status``, on 127.0.0.1 only.

A Starlette application, GET only, one request for each connection; nothing here changes anything. A
browser on this machine may show a page of another site, and that site may make a name of its own
point at 127.0.0.1. So that such a page cannot read the calls, the Host has to be a local name.

Any user of this machine can open it. So nothing here lets anybody into something: it shows who
calls whom, but no token, and prior URLs without their passwords.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trunkline.bus import hosts
from trunkline.bus.listener import Bounds, Server

log = logging.getLogger("trunkline.controller")

HOST: Final = "127.0.0.1"
#: A controller that ends has put its numbers back by then, and has little time left.
BOUNDS: Final = Bounds(waiting=200, request_bytes=16 * 1024, request_within=5.0, leave_within=0.2)
_LOCAL_HOSTS: Final = frozenset(("127.0.0.1", "localhost", "[::1]"))
#: With every answer. The page needs its own style and script, and to ask for the status.
_HEADERS: Final = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
        b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"connection", b"close"),
]


class Console:
    """``status``: the object of ``trunkline status --json``. ``metrics``: what ``/metrics`` has."""

    def __init__(self, status: Callable[[], dict[str, Any]], metrics: Collector) -> None:
        registry = CollectorRegistry()
        registry.register(metrics)
        page = Path(__file__).with_name("console.html").read_bytes()

        # Coroutines, because Starlette runs functions in threads, which share no state with us.
        async def show_page(request: Request) -> Response:
            return HTMLResponse(page)

        async def show_status(request: Request) -> Response:
            return Response(json.dumps(status()), media_type="application/json")

        async def show_metrics(request: Request) -> Response:
            return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

        app = Starlette(
            routes=[
                Route("/", show_page),
                Route("/api/status", show_status),
                Route("/metrics", show_metrics),
            ]
        )
        app.router.redirect_slashes = False
        self._server = Server(_LocalOnly(app), BOUNDS)
        self._serving: asyncio.Task[None] | None = None
        #: the port that was bound (0 was asked: a free one)
        self.port = 0

    def start(self, port: int) -> None:
        """Listen. SettingsError where the port is taken."""
        listening = hosts.listen(HOST, port, f"TRUNKLINE_CONSOLE_PORT={port}")
        self.port = listening.getsockname()[1]
        self._serving = asyncio.create_task(self._server.serve(sockets=[listening]))

    async def close(self) -> None:
        """Listen no more."""
        if self._serving is not None:
            self._server.leave()
            await asyncio.wait({self._serving})
            if (error := self._serving.exception()) is not None:
                log.error("the console's listener failed: %s", error)


class _LocalOnly:
    """Lets a GET request to a local name through; :data:`_HEADERS` go with every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        answer = self._app
        names = [host.rsplit(":", 1)[0] for host in Headers(scope=scope).getlist("host")]
        if not names or not _LOCAL_HOSTS.issuperset(names):
            answer = PlainTextResponse("this listener is for local use", 403)
        elif scope["method"] != "GET":
            answer = PlainTextResponse("GET only", 405, {"allow": "GET"})
        await answer(scope, receive, with_headers)
