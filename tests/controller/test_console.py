"""The local listener: what it shows, to whom, and what it does not bear."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from trunkline.bus.errors import SettingsError
from trunkline.controller.console import BOUNDS, Console
from trunkline.controller.metrics import Metrics

from .stage import Stage

STATUS: dict[str, Any] = {
    "controller": {"pid": 1, "epoch": 7},
    "gateways": [{"id": "g1", "pid": 2, "streams": 1}],
    "codec_workers": [],
    "sessions": [],
    "calls": [
        {"state": state, "frames_in": 3, "frames_out": 5, "frames_lost": 1, "underruns": 0}
        for state in ("live", "live", "dialling")
    ],
    "overrides": [{"state": "applied"}],
}


def a_console(status: dict[str, Any]) -> Console:
    """One that shows this, and the metrics of a stack without a call."""
    book = Stage().core.book
    return Console(lambda: status, lambda: Metrics(book, lambda: 100.0))


@pytest.fixture
async def console() -> AsyncIterator[Console]:
    made = a_console(STATUS)
    made.start(0)
    yield made
    await made.close()


async def send(console: Console, request: bytes) -> bytes:
    """All that the listener says to these bytes; it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", console.port)
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()


async def ask(
    console: Console, path: str = "/", method: str = "GET", host: str | None = "127.0.0.1"
) -> tuple[int, dict[str, str], bytes]:
    where = "" if host is None else f"Host: {host}\r\n"
    found = await send(console, f"{method} {path} HTTP/1.1\r\n{where}\r\n".encode())
    head, _, body = found.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body


async def test_the_status_is_json(console: Console) -> None:
    status, headers, body = await ask(console, "/api/status?x=1")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body) == STATUS


async def test_the_metrics(console: Console) -> None:
    status, headers, body = await ask(console, "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=")
    assert "trunkline_gateways 1.0" in body.decode().splitlines()


@pytest.mark.parametrize(
    ("method", "path", "host", "expected"),
    [
        ("GET", "/metrics", "localhost:8766", 200),
        ("GET", "/metrics", "[::1]:8766", 200),
        # A name of somebody else's that leads here, and none at all.
        ("GET", "/api/status", "rebound.example", 403),
        ("GET", "/api/status", "127.0.0.1.example", 403),
        ("GET", "/api/status", "", 403),
        ("GET", "/api/status", None, 403),
        ("GET", "/api/status", "127.0.0.1\r\nHost: rebound.example", 403),
        ("POST", "/", "rebound.example", 403),
        ("POST", "/api/status", "127.0.0.1", 405),
        ("HEAD", "/", "127.0.0.1", 405),
        ("OPTIONS", "/", "127.0.0.1", 405),
        ("GET", "/api/status/", "127.0.0.1", 404),
        ("GET", "/healthz", "127.0.0.1", 404),
        ("GET", "/docs", "127.0.0.1", 404),
    ],
)
async def test_who_is_answered_what(
    console: Console, method: str, path: str, host: str | None, expected: int
) -> None:
    status, headers, body = await ask(console, path, method, host)
    assert status == expected
    assert b'"epoch": 7' not in body
    # Whatever the answer is, nobody keeps it, and the connection is closed.
    shown = {name: headers[name] for name in ("cache-control", "x-content-type-options")}
    assert shown == {"cache-control": "no-store", "x-content-type-options": "nosniff"}
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert (headers["connection"], "server" in headers) == ("close", False)
    assert headers.get("allow") == ("GET" if expected == 405 else None)


async def test_an_upgrade_is_a_request_like_any_other(console: Console) -> None:
    found = await send(
        console,
        b"GET /api/status HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    assert found.startswith(b"HTTP/1.1 200 ")


async def test_what_is_not_http_large_or_slow_is_cut_off(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await send(console, b"nonsense\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
    head = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"y" * BOUNDS.request_bytes
    assert (await send(console, head)).startswith(b"HTTP/1.1 413 ")
    monkeypatch.setattr(BOUNDS, "request_within", 0.05)
    with pytest.raises(ConnectionResetError):
        assert await send(console, b"GET / HTTP/1.1\r\nHost: 127.0") == b""
        raise ConnectionResetError


async def test_connections_that_do_nothing_keep_nobody_out(console: Console) -> None:
    idle = [
        await asyncio.open_connection("127.0.0.1", console.port) for _ in range(BOUNDS.waiting + 1)
    ]
    assert await ask(console, "/api/status")
    assert await idle[0][0].read() == b""
    for _, writer in idle:
        writer.close()


async def test_one_that_goes_on_asking_does_not_hold_up_the_end(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody works on its request, and so it is cut off at once."""
    monkeypatch.setattr(BOUNDS, "leave_within", 3600.0)
    monkeypatch.setattr(BOUNDS, "request_within", 3600.0)
    _, writer = await asyncio.open_connection("127.0.0.1", console.port)
    with contextlib.closing(writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: 127")
        assert (await ask(console, "/metrics"))[0] == 200  # the listener has it by now
        async with asyncio.timeout(10.0):
            await console.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", console.port)


async def test_a_port_that_is_taken_is_named(console: Console) -> None:
    with pytest.raises(SettingsError, match=f"^TRUNKLINE_CONSOLE_PORT={console.port}: .* taken"):
        a_console({}).start(console.port)
