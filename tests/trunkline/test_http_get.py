"""One GET for checks: a failure of the network is an answer, too, and names the proxy."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator

import pytest

from trunkline.stack import http_get


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper() in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
            monkeypatch.delenv(name)


@contextlib.asynccontextmanager
async def answering(*parts: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers so; its base URL, and the requests that it got."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        for part in parts:
            writer.write(part)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


HEAD = b"HTTP/1.1 %s\r\nDate: Thu, 26 Nov 2026 13:00:00 GMT\r\nConnection: close\r\n"


async def test_an_answer_and_its_headers() -> None:
    async with answering(HEAD % b"404 Not Found" + b"Content-Length: 2\r\n\r\n{}") as (at, asked):
        answer = await http_get.get(f"http://me:secret@{at}/healthz", {"X-Asked": "yes"})
    assert (answer.status, answer.body) == (404, b"{}")
    assert answer.date == "Thu, 26 Nov 2026 13:00:00 GMT"
    assert asked[0].startswith(b"GET /healthz HTTP/1.1\r\n")
    assert b"X-Asked: yes\r\n" in asked[0]
    assert b"Authorization: Basic bWU6c2VjcmV0\r\n" in asked[0]


async def test_a_body_in_chunks_is_read_whole_and_one_without_end_is_cut() -> None:
    chunks = HEAD % b"200 OK" + b"Transfer-Encoding: chunked\r\n\r\n"
    async with answering(chunks, b'3\r\n{"a\r\n', b'4\r\n":1}\r\n0\r\n\r\n') as (at, _):
        assert (await http_get.get(f"http://{at}/")).body == b'{"a":1}'
    async with answering(HEAD % b"200 OK" + b"\r\n", b"x" * 150_000) as (at, _):
        assert (await http_get.get(f"http://{at}/")).body == b"x" * 100_000


async def test_a_body_that_goes_on_and_on_is_not_waited_for() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD % b"200 OK" + b"\r\n" + b"x" * 150_000)
        await reader.read()  # until whoever asked has left
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        asked = http_get.get(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        assert (await asyncio.wait_for(asked, 5.0)).body == b"x" * 100_000


async def test_no_answer_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{held.getsockname()[1]}"
        answer = await http_get.get(f"http://{dead}/")
        assert (answer.status, answer.body) == (0, b"Connection refused")
        monkeypatch.setenv("ALL_PROXY", f"http://me:secret@{dead}")
        answer = await http_get.get("https://line.example.com/healthz")
        said = f"Connection refused through the proxy http://me:***@{dead} (ALL_PROXY)"
        assert (answer.status, answer.body.decode()) == (0, said)
    async with answering(b"") as (at, _):
        answer = await http_get.get(f"http://{at}/")
        assert answer.status == 0 and b"closed connection without response" in answer.body


async def test_what_is_no_url_is_an_answer_too() -> None:
    for url in ("https://line.example.com:port/", "http://", "http://[::1"):
        answer = await http_get.get(url)
        assert answer.status == 0 and answer.body
