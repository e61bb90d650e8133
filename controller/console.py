"""The local listener: the console, ``/metrics`` and ``/api/status``, on 127.0.0.1 only.

Plain HTTP/1.1, one request for each connection, GET only, nothing that changes anything. A page of
another site must not read it by a name that it makes point here, so the Host has to be local.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from trunkline.bus.errors import SettingsError

log = logging.getLogger("trunkline.controller")

HOST: Final = "127.0.0.1"
_REQUEST_WITHIN: Final = 5.0
_LONGEST_REQUEST: Final = 16 * 1024
_LOCAL_HOSTS: Final = frozenset(("127.0.0.1", "localhost", "[::1]"))
_REASONS: Final = {200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found"}
_REASONS_METHOD: Final = 405


class Console:
    """``status``: the object of ``trunkline status --json``; ``counts``: what happened so far."""

    def __init__(
        self, status: Callable[[], dict[str, Any]], counts: Callable[[], dict[str, int]]
    ) -> None:
        self._status = status
        self._registry = CollectorRegistry()
        self._registry.register(_Figures(status, counts))
        self._page = Path(__file__).with_name("console.html").read_bytes()
        self._server: asyncio.Server | None = None
        #: the port that was bound (0 was asked: a free one)
        self.port = 0

    async def start(self, port: int) -> None:
        """Listen. SettingsError where the port is taken."""
        try:
            self._server = await asyncio.start_server(
                self._serve, HOST, port, limit=_LONGEST_REQUEST
            )
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            why = "the port is taken by another process" if taken else str(error)
            raise SettingsError(
                f"TRUNKLINE_CONSOLE_PORT={port}: {why}; choose another (0 takes a free one)"
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_WITHIN):
                head = await reader.readuntil(b"\r\n\r\n")
                status, kind, body = self._answer(head.decode("latin-1"))
                writer.write(_response(status, kind, body))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError) as e:
            log.debug("a request to the console was not answered: %s", type(e).__name__)
        finally:
            writer.close()

    def _answer(self, head: str) -> tuple[int, str, bytes]:
        lines = head.split("\r\n")
        words = lines[0].split(" ")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines[1:])
        }
        host = headers.get("host", "").rsplit(":", 1)[0]
        if len(words) != 3:
            return 400, "text/plain", b"bad request"
        if host not in _LOCAL_HOSTS:
            return 403, "text/plain", b"this listener is for local use"
        if words[0] != "GET":
            return _REASONS_METHOD, "text/plain", b"GET only"
        path = words[1].partition("?")[0]
        if path == "/":
            return 200, "text/html; charset=utf-8", self._page
        if path == "/api/status":
            return 200, "application/json", json.dumps(self._status()).encode()
        if path == "/metrics":
            return 200, CONTENT_TYPE_LATEST, generate_latest(self._registry)
        return 404, "text/plain", b"not found"


def _response(status: int, kind: str, body: bytes) -> bytes:
    reason = _REASONS.get(status, "Method Not Allowed")
    head = (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
        "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline'; connect-src 'self'\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


class _Figures(Collector):
    """Prometheus metrics from the status object and the counters, at each scrape."""

    def __init__(
        self, status: Callable[[], dict[str, Any]], counts: Callable[[], dict[str, int]]
    ) -> None:
        self._status = status
        self._counts = counts

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        status = self._status()
        for name, what in (
            ("gateways", "Gateways that answer"),
            ("codec_workers", "Codec workers that answer"),
            ("sessions", "Open sessions"),
        ):
            yield GaugeMetricFamily(f"trunkline_{name}", what, value=len(status[name]))
        calls = GaugeMetricFamily("trunkline_calls", "Calls that are not over", labels=["state"])
        for state, number in _tally(status["calls"]).items():
            calls.add_metric([state], number)
        yield calls
        overrides = GaugeMetricFamily(
            "trunkline_overrides", "Numbers that are not as they were", labels=["state"]
        )
        for state, number in _tally(status["overrides"]).items():
            overrides.add_metric([state], number)
        yield overrides
        for name in ("frames_in", "frames_out", "frames_lost", "underruns"):
            total = sum(call[name] for call in status["calls"])
            yield GaugeMetricFamily(f"trunkline_live_{name}", "Of the live calls", value=total)
        epoch = status["controller"]["epoch"]
        yield GaugeMetricFamily("trunkline_epoch", "Starts of the controller", value=epoch)
        events = CounterMetricFamily(
            "trunkline_events", "What has happened since the start", labels=["event"]
        )
        for event, number in sorted(self._counts().items()):
            events.add_metric([event], number)
        yield events


def _tally(rows: list[dict[str, Any]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in rows:
        found[row["state"]] = found.get(row["state"], 0) + 1
    return found
