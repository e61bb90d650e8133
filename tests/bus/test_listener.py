"""An HTTP listener at rest, full of strangers, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

import pytest
import uvloop
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from trunkline.bus import hosts
from trunkline.bus.listener import AT_ONCE, BoundedHttp, Bounds, Server

Stranger = tuple[asyncio.StreamReader, asyncio.StreamWriter]

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Upgraded(asyncio.Protocol):
    """What has a connection that was upgraded."""

    def __init__(self, **made: Any) -> None:
        """As uvicorn makes it."""


class Listener:
    """A server with a page that answers when it may, and one that reads what is posted."""

    def __init__(
        self, leave_within: float = 1.0, waiting: int = 10, request_within: float = 5.0
    ) -> None:
        self.may = asyncio.Event()
        self.asked = asyncio.Event()
        self.left = asyncio.Event()
        #: the addresses that asked for the page, as the application sees them
        self.asked_by: list[str | None] = []
        routes = [Route("/", self._page), Route("/", self._post, methods=["POST"])]
        #: refusals of the listener itself, in order
        self.refused: list[str] = []
        self.server = Server(
            Starlette(routes=routes),
            Bounds(
                waiting=waiting,
                request_bytes=1000,
                request_within=request_within,
                leave_within=leave_within,
            ),
            Upgraded,
            refused=self.refused.append,
        )
        listening = hosts.listen("127.0.0.1", 0)
        self.port: int = listening.getsockname()[1]
        self.serving = asyncio.create_task(self.server.serve(sockets=[listening]))

    async def _page(self, request: Request) -> Response:
        self.asked.set()
        self.asked_by.append(request.client and request.client.host)
        await self.may.wait()
        return PlainTextResponse("ok")

    async def close(self) -> None:
        self.server.leave()
        await self.serving

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


async def test_a_connection_whose_bytes_cannot_be_read_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a mistake of ours, which the loop logs."""

    def fail(self: object, data: bytes) -> None:
        raise ZeroDivisionError

    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: errors.append(told))
    async with listening() as listener:
        monkeypatch.setattr(HttpToolsProtocol, "data_received", fail)
        stranger = await connect(listener, GET)
        assert await gone(stranger)
        stranger[1].close()
    assert len(errors) == 1


async def test_nobody_names_another_address_as_its_own() -> None:
    """An address has a share of the places at the public port."""
    async with listening() as listener:
        listener.may.set()
        asks = b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.114.1\r\n\r\n"
        stranger = await connect(listener, asks)
        await stranger[0].readuntil(b"ok")
        assert listener.asked_by == ["127.0.0.1"]
        stranger[1].close()


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


# ------------------------------------------------------------------- strangers

#: Half of a head, half of a body, and nothing at all.
HALVES = (
    b"GET / HTTP/1.1\r\nHo",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf",
    b"",
)


@asynccontextmanager
async def listening(waiting: int = 10, request_within: float = 5.0) -> AsyncIterator[Listener]:
    listener = Listener(waiting=waiting, request_within=request_within)
    try:
        yield listener
    finally:
        await listener.close()


async def connect(listener: Listener, sent: bytes = b"") -> Stranger:
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(sent)
    return reader, writer


async def gone(stranger: Stranger) -> bool:
    """The listener has closed this connection."""
    try:
        return await asyncio.wait_for(stranger[0].read(), 5) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("half", HALVES, ids=["head", "body", "nothing"])
async def test_a_newcomer_has_the_place_of_the_oldest_that_is_not_whole(half: bytes) -> None:
    async with listening() as listener:
        listener.may.set()
        strangers = [await connect(listener, half) for _ in range(30)]
        answer = await connect(listener, GET)
        assert (await answer[0].readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK")
        assert all([await gone(stranger) for stranger in strangers[:21]])
        assert set(listener.refused) == {"pushed out"}
        # The newest are there still, and idle connections count as well.
        assert not any(stranger[0].at_eof() for stranger in strangers[21:])
        assert len(listener.server.server_state.connections) == 10
        for _, writer in (*strangers, answer):
            writer.close()


async def test_a_request_that_is_whole_is_no_strangers_prey() -> None:
    """It waits for its answer while ten times as many connect as there is room for."""
    async with listening() as listener:
        first = await connect(listener, GET)
        await listener.asked.wait()
        strangers = [await connect(listener) for _ in range(100)]
        listener.may.set()
        assert (await first[0].readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK")
        # Now it is idle, and newer than those who have not asked.
        strangers += [await connect(listener) for _ in range(9)]
        first[1].write(GET)
        assert (await first[0].readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK")
        for _, writer in (*strangers, first):
            writer.close()


async def test_an_address_has_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where addresses tell people apart. Here they are all the loopback's, so it is put on."""
    monkeypatch.setattr(hosts, "owner_of", lambda host: "203.0.113.7")
    async with listening(waiting=20) as listener:
        listener.server.config.http.crowd.waiting.share = 2  # type: ignore[union-attr]  # our own class
        strangers = [await connect(listener) for _ in range(3)]
        assert await gone(strangers[0])
        assert listener.refused == ["pushed out"]
        for _, writer in strangers:
            writer.close()


async def test_no_more_connections_than_there_are_descriptors() -> None:
    async with listening() as listener:
        crowd = listener.server.config.http.crowd  # type: ignore[union-attr]  # our own class
        crowd.most = 3
        asking = [await connect(listener, GET) for _ in range(2)]
        while len(listener.server.server_state.tasks) < 2:  # noqa: ASYNC110  # both are being answered
            await asyncio.sleep(0)
        idle = await connect(listener)
        newcomer = await connect(listener, GET)
        assert await gone(idle), "the oldest that waits goes"
        while len(listener.server.server_state.tasks) < 3:  # noqa: ASYNC110  # as above
            await asyncio.sleep(0)
        another = await connect(listener)
        assert await gone(another), "none of the others can"
        assert listener.refused == ["no descriptor", "no descriptor"]
        listener.may.set()
        for reader, _ in (*asking, newcomer):
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK")
        for _, writer in (*asking, newcomer, idle, another):
            writer.close()


async def test_what_is_no_request_is_counted() -> None:
    async with listening() as listener:
        for sent, answer in ((b"nonsense\r\n\r\n", b"400"), (b"G" * 1001, b"413")):
            reader, writer = await connect(listener, sent)
            assert (await reader.readline()).split()[1] == answer
            writer.close()
        assert listener.refused == ["not HTTP", "too large"]


UPGRADE = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@pytest.mark.parametrize("further", [GET * 30, UPGRADE], ids=["requests", "upgrade"])
async def test_a_further_request_waits_for_the_answer(further: bytes) -> None:
    """Else one segment begins thousands of requests at once, and a connection that was handed over
    would have a place for ever."""
    async with listening() as listener:
        reader, writer = await connect(listener, GET + further)
        assert (await reader.readline()).split()[1] == b"400"
        assert (await reader.read()).endswith(b"Invalid HTTP request received.")
        writer.close()
        listener.may.set()
        assert listener.refused == ["not HTTP"]
        assert listener.server.server_state.total_requests == 0
        crowd = listener.server.config.http.crowd  # type: ignore[union-attr]  # our own class
        while listener.server.server_state.connections:  # noqa: ASYNC110  # uvicorn tells nobody
            await asyncio.sleep(0)
        assert len(crowd.waiting) == 0


async def test_a_connection_that_was_upgraded_leaves_nothing_to_the_collector(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Live calls wait for the collector. What it need not look for is gone at once."""
    connections: list[weakref.ref[BoundedHttp]] = []
    original = BoundedHttp.handle_websocket_upgrade

    def upgrade(self: BoundedHttp) -> None:
        connections.append(weakref.ref(self))
        original(self)

    monkeypatch.setattr(BoundedHttp, "handle_websocket_upgrade", upgrade)
    async with listening() as listener:
        gc.disable()
        try:
            _, writer = await connect(listener, UPGRADE)
            async with asyncio.timeout(5):
                while not connections:  # noqa: ASYNC110  # uvicorn tells nobody
                    await asyncio.sleep(0)
                await asyncio.sleep(0)
            assert connections[0]() is None
        finally:
            gc.enable()
        writer.close()


async def test_what_was_answered_before_its_body_came_is_followed_by_a_further_request() -> None:
    async with listening() as listener:
        listener.may.set()
        head = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
        reader, writer = await connect(listener, head)
        assert b" 404 " in await reader.readuntil(b"\r\n\r\nNot Found")
        writer.write(b"body" + GET)
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK")
        writer.close()
        assert not listener.refused


async def test_who_does_not_read_the_answers_is_given_up() -> None:
    async with listening(request_within=0.2) as listener:
        listener.may.set()
        sock = socket.create_connection(("127.0.0.1", listener.port))
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        state = listener.server.server_state
        await loop.sock_sendall(sock, GET)
        async with asyncio.timeout(5):
            assert await loop.sock_recv(sock, 1_000)  # so its first request was read in time
        (connection,) = state.connections
        assert isinstance(connection, BoundedHttp)
        # As the transport does when its buffer is full.
        connection.pause_writing()
        await loop.sock_sendall(sock, GET)
        async with asyncio.timeout(5):
            while state.connections:  # noqa: ASYNC110  # uvicorn tells nobody
                await asyncio.sleep(0.01)
        assert listener.refused == ["too slow"]
        sock.close()


@pytest.mark.parametrize("sent", [b"", b"\r\n"], ids=["nothing", "an empty line"])
async def test_who_asks_nothing_further_is_gone_in_time(sent: bytes) -> None:
    """An empty line ends uvicorn's own wait for a further request."""
    async with listening(request_within=0.2) as listener:
        listener.may.set()
        stranger = await connect(listener, GET)
        await stranger[0].readuntil(b"ok")
        stranger[1].write(sent)
        assert await gone(stranger)
        stranger[1].close()


async def test_a_further_request_is_as_new_as_a_newcomers() -> None:
    """Also before its turn to be read has come."""
    async with listening() as listener:
        listener.may.set()
        crowd = listener.server.config.http.crowd  # type: ignore[union-attr]  # our own class
        first = await connect(listener, GET)
        await first[0].readuntil(b"ok")
        second = await connect(listener, GET)
        await second[0].readuntil(b"ok")
        older, newer = crowd.waiting
        older.data_received(GET)
        assert list(crowd.waiting) == [newer, older]
        assert (await first[0].readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK")
        for _, writer in (first, second):
            writer.close()


async def test_a_crowd_of_requests_leaves_turns_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Live calls are served between two turns of the loop, so a turn reads a few requests only."""
    async with listening(waiting=200) as listener:
        listener.may.set()
        read: list[int] = []
        turns = 0

        def turn() -> None:
            nonlocal turns
            turns += 1
            loop.call_soon(turn)

        loop = asyncio.get_running_loop()
        original = BoundedHttp.read
        monkeypatch.setattr(
            BoundedHttp, "read", lambda self: (read.append(turns), original(self))[1]
        )
        crowd = [await connect(listener) for _ in range(100)]
        turn()
        for _, writer in crowd:
            writer.write(GET)
        for reader, writer in crowd:
            await reader.readuntil(b"ok")
            writer.close()
    assert len(read) == 100
    assert max(read.count(turn) for turn in read) <= AT_ONCE


def test_a_turn_takes_some_of_those_who_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the loop of our processes. One a turn would be so few that the kernel's queue fills up,
    and a newcomer would wait behind a crowd, or be turned away."""
    made: Counter[int] = Counter()
    turns = 0
    original = BoundedHttp.connection_made

    def connection_made(self: BoundedHttp, transport: asyncio.Transport) -> None:
        made[turns] += 1
        original(self, transport)

    async def crowd() -> None:
        nonlocal turns
        async with listening(waiting=100) as listener:
            while not listener.server.started:  # noqa: ASYNC110  # uvicorn tells nobody
                await asyncio.sleep(0)
            address = ("127.0.0.1", listener.port)
            strangers = [socket.create_connection(address) for _ in range(40)]
            while made.total() < 40:
                turns += 1
                await asyncio.sleep(0)
            for stranger in strangers:
                stranger.close()

    monkeypatch.setattr(BoundedHttp, "connection_made", connection_made)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(crowd())
    assert set(made.values()) == {AT_ONCE}
