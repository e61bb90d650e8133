"""The local listener: the console, ``/metrics`` and ``/api/status``, on 127.0.0.1 only.

A Starlette application, one request for each connection. A browser on this machine may show a page
of another site, and that site may make a name of its own point at 127.0.0.1. So that such a page
cannot read the calls, the Host has to be a local name, and an Origin has to be this listener's own.

Any user of this machine can open it. It shows who calls whom, but no token, and prior URLs without
their passwords. To hear a call or to act takes more: see :mod:`.pages`.

For example, on port 8766::

    GET /api/status   Host: 127.0.0.1:8766                       -> 200, the status as JSON
    GET /api/status   Host: rebound.example                      -> 403 (a name that leads here)
    GET /api/status   Host: localhost:8766, Origin: http://x.y   -> 403 (another site's page)
    POST /metrics     Host: localhost:8766                       -> 405
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trunkline.bus import hosts
from trunkline.bus.listener import Bounds, Server

from .pages import Pages

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

log = logging.getLogger("trunkline.controller")

#: Never 0.0.0.0: whoever reached it could read all numbers and callers. For another machine there
#: is `ssh -L`.
HOST: Final = "127.0.0.1"
#: 128 KB hold two seconds of PCM (``pages.MOST_PCM``) and a head. ``leave_within`` is short: the
#: listener is closed after the numbers were put back, which may have taken most of the 4 s in which
#: a controller has to end.
BOUNDS: Final = Bounds(waiting=200, request_bytes=128 * 1024, request_within=5.0, leave_within=0.2)
#: What a browser may have in its address bar for this listener, without the port.
_LOCAL_HOSTS: Final = frozenset(("127.0.0.1", "localhost", "[::1]"))
#: Headers of every answer, also of a refusal. The page has its own files and asks this listener
#: alone. ``blob:`` is a recording that it has fetched. No text may become markup or script, whoever
#: wrote it: callers choose their own names. ``no-store``: a browser that kept a page of calls on
#: its disk would keep it for whoever uses the disk next.
_HEADERS: Final = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
        b"connect-src 'self'; media-src blob:; base-uri 'none'; form-action 'none'; "
        b"frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"connection", b"close"),
]


class Console:
    """``status``: gives the object of ``trunkline status --json``. ``metrics``: gives the collector
    of ``/metrics``, and is asked at each scrape. ``pages``: what else is served; None in tests of
    this file.

    Use it as ``start``, then read ``port``, and ``close`` in the end.
    """

    def __init__(
        self,
        status: Callable[[], dict[str, Any]],
        metrics: Callable[[], Collector],
        pages: Pages | None = None,
    ) -> None:
        self._pages = pages

        # Coroutines, because Starlette runs functions in threads, which share no state with us.
        async def show_status(request: Request) -> Response:
            return Response(json.dumps(status()), media_type="application/json")

        async def show_metrics(request: Request) -> Response:
            # Imported here, because most controllers are never asked, and start sooner without.
            from prometheus_client import CollectorRegistry, generate_latest
            from prometheus_client.exposition import CONTENT_TYPE_LATEST

            registry = CollectorRegistry()
            registry.register(metrics())
            return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

        app = Starlette(
            routes=[
                Route("/api/status", show_status),
                Route("/metrics", show_metrics),
                *([] if pages is None else pages.routes()),
            ]
        )
        # Starlette redirects "/api/status/" by itself. Here each thing has one URL, others are 404.
        app.router.redirect_slashes = False
        self._server = Server(_LocalOnly(app), BOUNDS)
        self._serving: asyncio.Task[None] | None = None
        #: the port that was bound (0 was asked: a free one)
        self.port = 0

    def start(self, port: int) -> None:
        """Listen on ``port``; 0: on a free one, which ``self.port`` has afterwards. SettingsError
        names the setting where the port is taken."""
        listening = hosts.listen(HOST, port, f"TRUNKLINE_CONSOLE_PORT={port}")
        self.port = listening.getsockname()[1]
        self._serving = asyncio.create_task(self._server.serve(sockets=[listening]))

    async def close(self) -> None:
        """End what is pushed, and listen no more. An error of the listener's is logged and not
        raised: numbers and calls do not depend on a page."""
        if self._pages is not None:
            self._pages.close()
        if self._serving is not None:
            self._server.leave()
            await asyncio.wait({self._serving})
            if (error := self._serving.exception()) is not None:
                log.error("the console's listener failed: %s", error)


class _LocalOnly:
    """Lets requests to a local name through that no other site has made; :data:`_HEADERS` go with
    every answer. Only an action is POSTed.

    A Host header is what the browser has in its address bar, and no script can change it. So a
    site's own name that was made to point at 127.0.0.1 (DNS rebinding) shows itself there. A page
    of another port has a local Host but another Origin. curl sends no Origin, and may ask.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        answer = self._app
        headers = Headers(scope=scope)
        hosts_named = headers.getlist("host")
        # "[::1]:8766" -> "[::1]". Of two Host headers both have to be right.
        names = [host.rsplit(":", 1)[0] for host in hosts_named]
        own = {f"http://{host}" for host in hosts_named}
        if not names or not _LOCAL_HOSTS.issuperset(names):
            answer = PlainTextResponse("this listener is for local use", 403)
        elif not own.issuperset(headers.getlist("origin")):
            answer = PlainTextResponse("another site's page has no business here", 403)
        elif scope["method"] != "GET" and not (
            scope["method"] == "POST" and scope["path"].startswith("/api/calls/")
        ):
            answer = PlainTextResponse("GET only", 405, {"allow": "GET"})
        await answer(scope, receive, with_headers)
