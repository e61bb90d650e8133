"""An HTTP listener at rest, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from trunkline.bus import hosts
from trunkline.bus.listener import Bounds, Server

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Listener:
    """A server with a page that answers when it may, and one that reads what is posted."""

    def __init__(self, leave_within: float) -> None:
        self.may = asyncio.Event()
        self.asked = asyncio.Event()
        self.left = asyncio.Event()
        routes = [Route("/", self._page), Route("/", self._post, methods=["POST"])]
        self.server = Server(Starlette(routes=routes), Bounds(10, 1000, 5.0, leave_within))
        listening = hosts.listen("127.0.0.1", 0)
        self.port: int = listening.getsockname()[1]
        self.serving = asyncio.create_task(self.server.serve(sockets=[listening]))

    async def _page(self, request: Request) -> Response:
        self.asked.set()
        await self.may.wait()
        return PlainTextResponse("ok")

    async def _post(self, request: Request) -> Response:
        self.asked.set()
        try:
            return Response(await request.body())
        except ClientDisconnect:
            self.left.set()
            return Response(status_code=400)

    @asynccontextmanager
    async def request(self, sent: bytes = GET) -> AsyncIterator[asyncio.StreamReader]:
        """A request that the application has by now."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent)
        await self.asked.wait()
        yield reader
        writer.close()


async def test_a_request_that_is_being_answered_is_answered() -> None:
    listener = Listener(leave_within=5.0)
    async with listener.request() as reader:
        listener.server.leave()
        while listener.server.servers[0].sockets:  # noqa: ASYNC110  # until it listens no more
            await asyncio.sleep(0)
        listener.may.set()
        answer = await reader.read()
        await listener.serving
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and answer.endswith(b"\r\n\r\nok")


async def test_a_request_that_does_not_end_is_given_up_without_a_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    listener = Listener(leave_within=0.05)
    async with listener.request(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf"):
        listener.server.leave()
        async with asyncio.timeout(5):
            await listener.serving
            await listener.left.wait()
    assert not caplog.records


async def test_a_connection_that_is_idle_is_closed_at_once() -> None:
    listener = Listener(leave_within=60.0)
    listener.may.set()
    async with listener.request() as reader:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        await reader.readexactly(2)
        listener.server.leave()
        async with asyncio.timeout(5):
            assert await reader.read() == b""
            await listener.serving
    date = head.partition("date: ")[2].partition("\r\n")[0]
    assert abs(parsedate_to_datetime(date).timestamp() - time()) < 5
    assert "server:" not in head


async def test_an_idle_listener_sets_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvicorn's own would, ten times a second. The loop is asked what it schedules."""
    listener = Listener(leave_within=1.0)
    listener.may.set()
    async with listener.request() as reader:
        await reader.readuntil(b"\r\n\r\nok")
    loop = asyncio.get_running_loop()
    timers: list[float] = []
    call_at = loop.call_at

    def spy(when: float, *args: Any, **more: Any) -> asyncio.TimerHandle:
        timers.append(when)
        return call_at(when, *args, **more)

    monkeypatch.setattr(loop, "call_at", spy)
    # In this time uvicorn's own would have woken twice.
    done, _ = await asyncio.wait({listener.serving}, timeout=0.25)
    assert not done
    assert len(timers) == 1  # the wait's
    listener.server.leave()
    await listener.serving
