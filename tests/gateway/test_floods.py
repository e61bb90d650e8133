"""Strangers crowd the public port, or shout; webhooks and calls go on as if nobody was there."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import json
import resource
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from trunkline.bus import messages as m
from trunkline.bus.testing import until
from trunkline.gateway import app as gateway_app
from trunkline.gateway import shell
from trunkline.gateway.process import BOUNDS

from .stack import FORM, Stack, event, media, running, sign
from .test_gateway import CHILD, post

#: What a stranger sends, of which more ought to follow.
HALVES = {
    "nothing": b"",
    "half a head": b"POST /twilio/voice HTTP/1.1\r\nHost: x\r\nX-Twi",
    "half a body": b"POST /twilio/voice HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nFrom",
    "a whole request": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
}


def upgrade(signature: str) -> bytes:
    """A WebSocket handshake, signed."""
    return (
        "GET /twilio/stream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        f"X-Twilio-Signature: {signature}\r\n\r\n"
    ).encode()


UPGRADE = upgrade(sign("wss://line.example.com/twilio/stream"))
SIGNED_FOR_CHILD = upgrade(sign("wss://x.example/twilio/stream", token="t"))


class Crowd:
    """Connections of strangers."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: list[asyncio.StreamWriter] = []

    async def grow(self, count: int, sent: bytes) -> None:
        for _ in range(count):
            _, writer = await asyncio.open_connection("127.0.0.1", self._port)
            writer.write(sent)
            self._writers.append(writer)

    async def leave(self) -> None:
        for writer in self._writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@pytest.fixture
def make_stack(
    short_directory: Path,
) -> Callable[[], contextlib.AbstractAsyncContextManager[Stack]]:
    """A stack that is made once its bounds are set."""
    return lambda: running(short_directory)


@contextlib.asynccontextmanager
async def crowd_of(stack: Stack) -> AsyncIterator[Crowd]:
    crowd = Crowd(stack.port)
    try:
        yield crowd
    finally:
        await crowd.leave()


async def answered(stack: Stack) -> bool:
    """An honest webhook is answered, within the time that :func:`http` gives it."""
    answer = await post(stack, "/twilio/voice", FORM)
    return answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("half", HALVES)
async def test_a_crowd_of_strangers_costs_no_webhook_its_answer(
    make_stack: Any, monkeypatch: pytest.MonkeyPatch, half: str
) -> None:
    """Three times as many as there is room for, and webhooks come all the time."""
    monkeypatch.setattr(BOUNDS, "waiting", 60)
    monkeypatch.setattr(gateway_app, "MAX_READING", 20)
    async with make_stack() as stack, crowd_of(stack) as crowd:
        for _ in range(9):
            await crowd.grow(20, HALVES[half])
            assert await answered(stack)
        await until(lambda: len(stack.gateway._server.server_state.connections) <= 60)
        refused = stack.gateway.refusals.counts
        assert refused["pushed out"] >= 100
        assert set(refused) == {"pushed out"}
        await until(lambda: [x for x in stack.controller.all(m.Beat) if x.refused == refused])


async def test_half_bodies_that_fit_into_the_room_cost_no_webhook_its_answer(stack: Stack) -> None:
    """With the bounds as they are: more half bodies than there are places to read them."""
    async with crowd_of(stack) as crowd:
        await crowd.grow(gateway_app.MAX_READING + 50, HALVES["half a body"])
        assert await answered(stack)
        assert stack.gateway.refusals.counts["pushed out"] >= 50


async def test_a_crowd_of_upgrades_without_start_keeps_no_call_out(
    make_stack: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has once seen a signed upgrade can send it again and again."""
    monkeypatch.setattr(shell, "MAX_STRANGERS", 20)
    async with make_stack() as stack, crowd_of(stack) as crowd:
        for _ in range(5):
            await crowd.grow(20, UPGRADE)
        client = await stack.up()
        await crowd.grow(40, UPGRADE)
        await client.send(media(0, bytes(160)))
        await until(lambda: len(stack.a.frames()) + len(stack.a.all(m.OpenCall)[0].ring) == 1)
        assert stack.gateway.refusals.counts["socket pushed out"] >= 100
        await until(lambda: len(stack.gateway.shell.sockets) <= 21)
        await client.close()


async def test_a_crowd_that_comes_and_goes_costs_no_pass_over_all_objects(make_stack: Any) -> None:
    """Live calls wait while Python's collector looks at all objects."""
    passes: list[int] = []

    def passed(phase: str, info: dict[str, int]) -> None:
        if phase == "stop":
            passes.append(info["generation"])

    usual = gc.get_threshold()
    gc.set_threshold(100, 5, 5)  # so that a small crowd is enough
    gc.callbacks.append(passed)
    try:
        async with make_stack() as stack:
            passes.clear()
            for _ in range(3):
                async with crowd_of(stack) as crowd:
                    await crowd.grow(100, UPGRADE)
                await until(lambda: not stack.gateway.shell.sockets)
            assert passes.count(1) > 20, "others are followed by a full one"
            assert 2 not in passes
    finally:
        gc.callbacks.remove(passed)
        gc.set_threshold(*usual)


# ---------------------------------------------------------------------- streams that were let in


async def shout(client: ClientConnection, text: str, count: int) -> None:
    """Send the same message so many times at once."""
    for _ in range(count):
        client.protocol.send_text(text.encode())
    client.transport.write(b"".join(client.protocol.data_to_send()))


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "{}",
        event("dtmf", dtmf={"digit": "1"}),
        event("mark", mark={"name": "m"}),
        media(0, bytes(160)),
        media(0, b""),
    ],
    ids=["null", "nothing", "digits", "marks", "sound", "no sound"],
)
async def test_a_stream_that_shouts_is_cut_off_and_others_are_not(stack: Stack, text: str) -> None:
    stack.controller.tokens["t2"] = stack.accepted(call="c2")
    began = time.monotonic()
    client, other = await stack.up(), await stack.stream("t2")
    await until(lambda: len(stack.a.all(m.OpenCall)) == 2)
    await shout(client, text, 20_000)
    # It may make up for the time in which it said nothing, and each message counts for 10 ms.
    late = time.monotonic() - began
    await until(lambda: stack.controller.all(m.StreamClosed))
    (closed,) = stack.controller.all(m.StreamClosed)
    assert (closed.call, closed.reason) == ("c1", "too_fast")
    await until(lambda: stack.a.all(m.StreamEnded))
    assert stack.gateway.refusals.counts["too fast"] == 1
    assert len(stack.a.all(m.Digit)) <= min(1_000 + 300 * late, 3_000)
    await until(lambda: len(stack.gateway.shell.sockets) == 1)
    await other.send(media(0, bytes(160)))
    await until(lambda: [frame for frame in stack.a.frames() if frame.call == "c2"])
    await other.close()
    with contextlib.suppress(ConnectionError):
        await client.close()


async def test_pings_without_an_end_are_cut_off_too(stack: Stack) -> None:
    client = await stack.up()
    for _ in range(5_000):
        client.protocol.send_ping(b"")
    client.transport.write(b"".join(client.protocol.data_to_send()))
    with pytest.raises(ConnectionClosed):
        await client.recv()
    await until(lambda: stack.controller.all(m.StreamClosed))
    assert stack.controller.all(m.StreamClosed)[0].reason == "too_fast"


async def test_positions_that_cannot_be_are_thrown_away_and_counted(stack: Stack) -> None:
    client = await stack.up()
    for timestamp in (0, 20, 7 * 24 * 3600 * 1000, 40, 20, 0, 60):
        await client.send(media(timestamp, bytes(160)))
    await client.send(event("stop"))
    await until(lambda: stack.a.all(m.StreamEnded))
    ring = [frame.position for opened in stack.a.all(m.OpenCall) for frame in opened.ring]
    assert ring + [frame.position for frame in stack.a.frames()] == [0, 160, 320, 480]
    assert stack.gateway.refusals.counts == {"bad message": 3}


# ---------------------------------------------------------------------- descriptors


async def test_a_call_outlives_the_lack_of_a_descriptor(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its worker dies, and for a while no connection to another one can be opened."""
    client = await stack.up()
    connect, lacks = shell.connect_dealer, True

    def connect_or_fail(*args: Any, **more: Any) -> Any:
        if lacks:
            raise zmq.ZMQError(errno.EMFILE)
        return connect(*args, **more)

    monkeypatch.setattr(shell, "connect_dealer", connect_or_fail)
    stack.a.die()
    stack.b.die()
    await until(lambda: "can be opened: Too many open files" in caplog.text)
    c = type(stack.b)(stack.context, stack.settings, "c")
    placement = m.Placement(epoch=1, n=2, primary=c.ref)
    stack.controller.tell(m.CallPlaced(call="c1", placement=placement))
    await until(lambda: "connection to worker c can be opened" in caplog.text)
    lacks = False
    await until(lambda: c.all(m.OpenCall))
    await client.close()
    c.die()


@pytest.mark.e2e
@pytest.mark.parametrize("sent", [b"", SIGNED_FOR_CHILD], ids=["nothing", "upgrades"])
def test_a_process_that_may_have_few_descriptors_keeps_some_for_itself(
    short_directory: Path, sent: bytes
) -> None:
    """The hard limit is 1,024, and 1,500 strangers connect."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=512) as held,
        contextlib.ExitStack() as open_,
    ):
        fd = held.fileno()
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, f"ipc://{short_directory}/bus", str(fd)],
            pass_fds=[fd],
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (512, 1_024)),
        )
        try:
            address = held.getsockname()
            health(address)
            process = psutil.Process(child.pid)
            most = 0
            for n in range(1_500):
                open_.enter_context(socket.create_connection(address, timeout=20)).sendall(sent)
                if n % 50 == 0:
                    most = max(most, process.num_fds())
            assert health(address) == {"ok": False, "stack": None}
            # Half of what is for connections is for calls, a quarter for each kind of strangers.
            assert process.num_fds() < 128 + 100
            assert most < 1_024 - 256
            child.terminate()
            assert child.wait(timeout=4) == 0
        finally:
            child.kill()
            child.wait()


def health(address: tuple[str, int]) -> object:
    with socket.create_connection(address, timeout=20) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        found = b""
        while part := client.recv(1000):
            found += part
    return json.loads(found.partition(b"\r\n\r\n")[2])
