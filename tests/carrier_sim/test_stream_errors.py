"""Every way in which a stream's connection can fail, by Twilio's number."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import socket
from collections.abc import Awaitable, Callable

import pytest

from trunkline.carrier_sim.sim import CarrierSim

from .bench import CONNECT
from .server import HANGUP, Customer, call_in

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def accepted(head: bytes) -> bytes:
    key = head.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
    digest = hashlib.sha1(
        key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False
    ).digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )


async def codes(sim: CarrierSim, customer: Customer, url: str) -> list[int]:
    """Errors of a call whose stream has this url; the call itself goes on and hangs up."""
    customer.pages["/on"] = HANGUP
    page = CONNECT.format("<Redirect>/on</Redirect>").replace("wss://h/s", url)
    call = await call_in(sim, customer, page)
    assert await sim.wait_for(call) == "completed"
    assert call.record.end_reason == "hangup-verb"
    return sim.judge.codes(call.sid)


async def against(sim: CarrierSim, customer: Customer, serve: Serve) -> list[int]:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        return await codes(sim, customer, f"ws://127.0.0.1:{port}/stream")
    finally:
        server.close()
        await server.wait_closed()


def replying(answer: bytes, *, upgrade: bool = True) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write((accepted(head) if upgrade else b"") + answer)
        await writer.drain()
        await reader.read()

    return serve


async def test_31901_no_answer(customer: Customer) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        await reader.read()

    async with CarrierSim(stream_connect_timeout=0.1) as sim:
        assert await against(sim, customer, silent) == [31901]


async def test_31902_refused(sim: CarrierSim, customer: Customer) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        assert await codes(sim, customer, f"ws://127.0.0.1:{port}/stream") == [31902]


async def test_31903_broken(sim: CarrierSim, customer: Customer) -> None:
    async def breaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(accepted(await reader.readuntil(b"\r\n\r\n")))
        await reader.readuntil(b"customParameters")

    assert await against(sim, customer, breaks) == [31903]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: wrong\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
async def test_31920_no_upgrade(sim: CarrierSim, customer: Customer, answer: bytes) -> None:
    assert await against(sim, customer, replying(answer, upgrade=False)) == [31920]


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (b"\x88\x02\x03\xf3", [31921]),  # closed with an error
        (b"\x81\x81\0\0\0\0x", [31924]),  # a masked frame
        (b"\x82\x01x" + b"\x81\x02{}" + b"\x88\x02\x03\xe8", [31950, 31951]),
    ],
)
async def test_frames(sim: CarrierSim, customer: Customer, answer: bytes, found: list[int]) -> None:
    assert await against(sim, customer, replying(answer)) == found


async def test_a_call_that_ends_while_its_stream_connects(customer: Customer) -> None:
    arrived = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await reader.read()
        await reader.read()
        writer.transport.abort()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with CarrierSim() as sim:
        page = CONNECT.format("").replace("wss://h", f"ws://127.0.0.1:{port}")
        call = await call_in(sim, customer, page)
        await arrived.wait()
        sim.hang_up(call)
        assert call.status == "completed" and call.streams[0].ended_by == "stop"
        assert sim.errors == []
    server.close()
    await server.wait_closed()
