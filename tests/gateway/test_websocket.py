"""The framing of RFC 6455 against the bytes of a client, and against a real one."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

from trunkline.bus import hosts
from trunkline.bus.listener import Server
from trunkline.bus.testing import until
from trunkline.gateway import websocket as ws
from trunkline.gateway.process import BOUNDS
from trunkline.gateway.sockets import Sockets

from .stack import close_code


class Recorder:
    """A handler that writes down, and echoes text."""

    def __init__(self) -> None:
        self.socket: ws.WebSocket | None = None
        self.texts: list[bytes] = []
        #: how many came together each time
        self.together: list[int] = []
        self.wrong: list[str] = []
        self.closes: list[bool] = []
        #: frames that were no messages
        self.others = 0
        self.gone = asyncio.Event()
        self.echo = True
        self.believes = False

    def opened(self, socket: ws.WebSocket) -> None:
        self.socket = socket
        if self.believes:
            socket.believe()

    def two_texts(self, first: bytes, second: bytes) -> None:
        self.text(first)
        self.text(second)
        self.together[-2:] = [2]

    def text(self, data: bytes) -> None:
        self.texts.append(data)
        self.together.append(1)
        if self.echo and self.socket is not None:
            self.socket.send_text(data)

    def binary(self) -> None:
        self.wrong.append("binary")

    def too_long(self) -> None:
        self.wrong.append("too-long")

    def no_message(self) -> None:
        self.others += 1

    def closed(self, clean: bool) -> None:
        self.closes.append(clean)
        self.gone.set()


Accept = Callable[[ws.Upgrade], Recorder | ws.Refusal]


@asynccontextmanager
async def serving(accept: Accept, sockets: Sockets | None = None) -> AsyncIterator[int]:
    async def app(scope: object, receive: object, send: object) -> None:
        raise AssertionError("no HTTP request is made here")

    socket = hosts.listen("127.0.0.1", 0)
    port: int = socket.getsockname()[1]
    server = Server(app, BOUNDS, ws.protocol_class(accept, sockets))
    task = asyncio.create_task(server.serve([socket]))
    try:
        yield port
    finally:
        server.leave()
        await task


@asynccontextmanager
async def joined(together: bool = False) -> AsyncIterator[tuple[Recorder, ClientConnection]]:
    """``together``: the socket is let in at once, and read together with others."""
    recorder = Recorder()
    recorder.believes = together
    sockets = Sockets(lambda: None) if together else None
    async with (
        serving(lambda upgrade: recorder, sockets) as port,
        connect(f"ws://127.0.0.1:{port}/x", compression=None, max_size=None, proxy=None) as client,
    ):
        yield recorder, client


either_way = pytest.mark.parametrize("together", [False, True], ids=["alone", "together"])


@either_way
async def test_text_comes_and_goes(together: bool) -> None:
    async with joined(together) as (recorder, client):
        for text in ("", "a", "é" * 100, "x" * 125, "x" * 126, "x" * 60_000):
            await client.send(text)
            assert await client.recv() == text
        await client.send(["three ", "frag", "ments"])
        assert await client.recv() == "three fragments"
        pong = await client.ping(b"hello")
        await pong
    await recorder.gone.wait()
    assert recorder.closes == [True]
    assert recorder.wrong == []


@either_way
async def test_what_is_sent_may_be_long(together: bool) -> None:
    async with joined(together) as (recorder, client):
        assert recorder.socket is not None
        recorder.socket.send_text(b"y" * 70_000)
        assert await client.recv() == "y" * 70_000


@either_way
async def test_what_the_kernel_does_not_take_at_once_stays_in_order(together: bool) -> None:
    async with joined(together) as (recorder, client):
        assert recorder.socket is not None
        texts = [chr(ord("a") + n) * 4_000_000 for n in range(2)] + ["short", "last"]
        transport = recorder.socket._transport
        assert transport is not None
        transport.set_write_buffer_limits(high=16_000_000)
        for text in texts:
            recorder.socket.send_text(text.encode())
        assert [await client.recv() for _ in texts] == texts
        await client.send("on")
        assert await client.recv() == "on"


async def test_wrong_messages_are_skipped_and_told() -> None:
    async with joined() as (recorder, client):
        assert recorder.socket is not None
        recorder.socket.believe()
        await client.send(b"binary")
        await client.send("x" * (ws.MAX_MESSAGE_BYTES + 1))
        await client.send(["x" * 40_000, "x" * 40_000, "x"])
        await client.send(["x", "x" * 100_000, "x"])
        await client.send("x" * 3_000_000)
        await client.send([b"bin", b"ary"])
        await client.send("still here")
        assert await client.recv() == "still here"
        assert recorder.wrong == ["binary", *["too-long"] * 4, "binary"]


async def test_a_stranger_may_not_send_for_ever() -> None:
    async with joined() as (recorder, client):
        recorder.echo = False
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await client.ping()
                await client.send("x" * 1000)
                await asyncio.sleep(0)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008


@either_way
async def test_a_connection_that_breaks_is_not_clean(together: bool) -> None:
    async with joined(together) as (recorder, client):
        client.transport.abort()
        await recorder.gone.wait()
        assert recorder.closes == [False]


@either_way
async def test_our_close_is_answered(together: bool) -> None:
    async with joined(together) as (recorder, client):
        assert recorder.socket is not None
        recorder.socket.close(1000, "done")
        recorder.socket.close(1001)
        recorder.socket.send_text(b"too late")
        assert not recorder.socket.is_open
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1000, "done")
        await recorder.gone.wait()
        assert recorder.closes == [True]


async def test_refusals_are_http() -> None:
    seen: list[ws.Upgrade] = []

    def accept(upgrade: ws.Upgrade) -> ws.Refusal:
        seen.append(upgrade)
        return ws.Refusal(403, "forbidden")

    async with serving(accept) as port:
        with pytest.raises(InvalidStatus) as refused:
            await connect(
                f"ws://127.0.0.1:{port}/a%2Fb?c=%20",
                additional_headers={"X-Twilio-Signature": "s"},
                proxy=None,
            )
    assert refused.value.response.status_code == 403
    assert refused.value.response.body == b"forbidden"
    assert (seen[0].path, seen[0].query) == ("/a%2Fb", "c=%20")
    assert seen[0].headers["x-twilio-signature"] == "s"


async def test_the_servers_end_closes_sockets() -> None:
    recorder = Recorder()
    async with serving(lambda upgrade: recorder) as port:
        client = await connect(f"ws://127.0.0.1:{port}/", proxy=None)
    assert await close_code(client) == 1001
    assert recorder.closes == [True]


# ------------------------------------------------------------------- without sockets


class Pipe(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.ended = False
        self.paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.ended = True

    abort = close

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return self.ended

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class State:
    def __init__(self) -> None:
        self.connections: set[object] = set()


HANDSHAKE = (
    b"GET /s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def piped() -> tuple[ws.WebSocket, Recorder, Pipe]:
    recorder = Recorder()
    recorder.echo = False
    made = ws.protocol_class(lambda upgrade: recorder)(None, State(), {})  # type: ignore[arg-type]  # unused there
    pipe = Pipe()
    made.connection_made(pipe)
    made.data_received(HANDSHAKE)
    assert pipe.written.startswith(b"HTTP/1.1 101 ")
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in pipe.written  # RFC 6455, section 1.3
    pipe.written = b""
    return made, recorder, pipe


def frame(opcode: Opcode, data: bytes, fin: bool = True, mask: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=mask)


@pytest.mark.parametrize(
    "data",
    [
        frame(Opcode.TEXT, b"x", mask=False),
        b"\xc1\x80\x00\x00\x00\x00",
        b"\x83\x80\x00\x00\x00\x00",
        b"\x8b\x80\x00\x00\x00\x00",
        frame(Opcode.CONT, b"x"),
        frame(Opcode.TEXT, b"x", fin=False) + frame(Opcode.TEXT, b"x"),
        b"\x09\x80\x00\x00\x00\x00",
        b"\x89\xfe\x00\x7e\x00\x00\x00\x00" + b"x" * 126,
        b"\x89\xff\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00",
    ],
    ids=[
        "unmasked",
        "reserved bit",
        "reserved data opcode",
        "reserved control opcode",
        "continues nothing",
        "text in fragments",
        "fragmented ping",
        "long ping",
        "ping with long length",
    ],
)
async def test_what_breaks_the_protocol_ends_the_connection_and_is_counted(data: bytes) -> None:
    socket, recorder, pipe = piped()
    refused: list[str] = []
    type(socket).refused = staticmethod(lambda kind, what, details: refused.append(kind))
    socket.data_received(data)
    assert pipe.written == b"\x88\x02\x03\xea"
    assert pipe.ended
    assert refused == ["bad start"]
    socket.connection_lost(None)
    assert recorder.closes == [False]


async def test_two_messages_of_sound_that_come_together_are_handed_on_together() -> None:
    socket, recorder, _pipe = piped()
    texts = [bytes([n]) * 150 for n in range(5)]
    sound = [frame(Opcode.TEXT, text) for text in texts]
    socket.data_received(b"".join(sound))
    assert (recorder.texts, recorder.together) == (texts, [2, 2, 1])
    recorder.together.clear()
    socket.data_received(sound[0] + frame(Opcode.PING, b"") + sound[1] + sound[2][:50])
    socket.data_received(sound[2][50:] + sound[3] + frame(Opcode.TEXT, b"short") + sound[4])
    assert recorder.together == [1, 1, 2, 1, 1]
    assert recorder.texts[5:] == [*texts[:4], b"short", texts[4]]
    assert recorder.others == 1
    socket.connection_lost(None)


async def test_a_peer_that_does_not_read_is_dropped() -> None:
    socket, _recorder, pipe = piped()
    socket.pause_writing()
    assert pipe.ended
    socket.connection_lost(None)


async def test_a_close_from_the_peer_is_echoed() -> None:
    socket, recorder, pipe = piped()
    socket.data_received(frame(Opcode.CLOSE, b"\x03\xe8bye") + frame(Opcode.TEXT, b"late"))
    assert pipe.written == b"\x88\x02\x03\xe8"
    socket.connection_lost(None)
    assert recorder.closes == [True]
    assert recorder.texts == []


@example(texts=[b"x" * 300], cuts=[1, 2, 3, 4], split=False)
@given(
    texts=st.lists(st.binary(max_size=300), max_size=8),
    cuts=st.lists(st.integers(0, 3000), max_size=12),
    split=st.booleans(),
)
def test_messages_arrive_however_the_bytes_are_cut(
    texts: list[bytes], cuts: list[int], split: bool
) -> None:
    async def run() -> None:
        socket, recorder, _pipe = piped()
        data = b""
        for text in texts:
            if split and len(text) > 1:
                data += frame(Opcode.TEXT, text[:1], fin=False) + frame(Opcode.PING, b"p")
                data += frame(Opcode.PONG, b"") + frame(Opcode.CONT, text[1:])
            else:
                data += frame(Opcode.TEXT, text)
        edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
        for start, end in itertools.pairwise(edges):
            socket.data_received(data[start:end])
        assert recorder.texts == texts
        socket.connection_lost(None)

    asyncio.run(run())


async def test_a_socket_that_says_much_leaves_turns_to_others() -> None:
    socket, recorder, pipe = piped()
    socket.believe()
    texts = [b"%d" % n for n in range(300)]
    socket.data_received(b"".join(frame(Opcode.TEXT, text) for text in texts) + b"\x81")
    assert len(recorder.texts) == 64 and pipe.paused
    for turns in range(2, 5):
        await asyncio.sleep(0)
        assert len(recorder.texts) == 64 * turns
    await asyncio.sleep(0)
    assert recorder.texts == texts and not pipe.paused
    socket.data_received(frame(Opcode.TEXT, b"on")[1:])
    assert recorder.texts[-1] == b"on"
    socket.connection_lost(None)


async def test_one_that_is_read_together_with_others_is_read_out_all_the_same() -> None:
    async with joined(together=True) as (recorder, client):
        assert recorder.socket is not None
        recorder.echo = False
        texts = [f"{n}" for n in range(1_000)]
        for text in texts:
            client.protocol.send_text(text.encode())
        client.transport.write(b"".join(client.protocol.data_to_send()))
        while not recorder.texts:  # noqa: ASYNC110  # until the first have come
            await asyncio.sleep(0)
        recorder.socket.read_out()
        assert [text.decode() for text in recorder.texts] == texts


@either_way
async def test_one_that_is_dropped_is_not_read_any_more(together: bool) -> None:
    """Whoever sends without an end is not waited for: our close is on its way, and that is all."""
    async with joined(together) as (recorder, client):
        assert recorder.socket is not None
        recorder.echo = False
        recorder.socket.close(1008, "enough")
        recorder.socket.drop()
        assert recorder.socket._descriptor < 0, "it is not read together with others any more"
        recorder.socket.drop()
        await client.send("too late")
        async with asyncio.timeout(ws.CLOSE_WITHIN / 2):
            assert await close_code(client) == 1008
            await recorder.gone.wait()
        assert recorder.texts == []


async def test_one_that_is_dropped_by_its_own_message_is_read_no_further() -> None:
    socket, recorder, pipe = piped()

    def drop(data: bytes) -> None:
        recorder.texts.append(data)
        socket.close(1008)
        socket.drop()

    recorder.text = drop  # type: ignore[method-assign]  # a handler that has heard enough
    socket.data_received(frame(Opcode.TEXT, b"x") * 100)
    assert recorder.texts == [b"x"] and pipe.paused
    socket.data_received(frame(Opcode.CLOSE, b""))
    await asyncio.sleep(0)
    assert pipe.paused and pipe.written == b"\x88\x02\x03\xf0"
    socket.connection_lost(None)


async def test_frames_that_are_no_messages_are_told() -> None:
    socket, recorder, _pipe = piped()
    socket.data_received(
        frame(Opcode.PING, b"") * 3
        + frame(Opcode.PONG, b"")
        + frame(Opcode.TEXT, b"", fin=False)
        + frame(Opcode.CONT, b"", fin=False) * 5
        + frame(Opcode.CONT, b"")
    )
    assert (recorder.others, recorder.texts) == (10, [b""])
    socket.connection_lost(None)


async def test_a_message_in_parts_without_end_is_not_kept() -> None:
    """Parts may be empty, so their bytes alone bound nothing."""
    socket, recorder, _pipe = piped()
    socket.data_received(frame(Opcode.TEXT, b"", fin=False))
    for _ in range(2_000):
        socket.data_received(frame(Opcode.CONT, b"", fin=False))
    assert socket._fragments is not None and len(socket._fragments) < 1_000
    socket.data_received(frame(Opcode.CONT, b""))
    assert (recorder.wrong, recorder.texts) == (["too-long"], [])
    socket.connection_lost(None)


async def test_a_peer_that_stays_silent_is_pinged_and_then_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ws, "PING_AFTER", 0.02)
    socket, _recorder, pipe = piped()
    await until(lambda: pipe.ended)
    assert pipe.written == b"\x89\x00"
    socket.connection_lost(None)


async def test_a_message_that_would_never_end_ends_the_connection() -> None:
    socket, recorder, pipe = piped()
    socket.data_received(b"\x81\xff" + (2**62).to_bytes(8, "big") + b"mask")
    assert pipe.written == b"\x88\x02\x03\xf1" and pipe.ended
    assert recorder.wrong == []
    socket.connection_lost(None)


async def test_a_peer_that_does_not_answer_our_close_is_disconnected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Even where it reads nothing, and our close waits to be sent."""
    monkeypatch.setattr(ws, "CLOSE_WITHIN", 0.01)
    async with joined() as (recorder, client):
        assert recorder.socket is not None
        client.transport.pause_reading()
        recorder.socket._transport.set_write_buffer_limits(high=64_000_000)  # type: ignore[union-attr]  # it is there
        recorder.socket.send_text(b"x" * 32_000_000)
        recorder.socket.close()
        async with asyncio.timeout(5):
            await recorder.gone.wait()
        client.transport.abort()  # else it waits 10 s for a close that it does not read


@either_way
@pytest.mark.parametrize("end", ["close", "breach", "end of file"])
async def test_a_peer_that_ends_and_reads_nothing_is_disconnected(
    together: bool, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits to be sent is not waited for. And whatever comes behind the end is not read."""
    monkeypatch.setattr(ws, "CLOSE_WITHIN", 0.05)
    refused: list[str] = []
    async with joined(together) as (recorder, client):
        assert recorder.socket is not None and recorder.socket._transport is not None
        monkeypatch.setattr(
            type(recorder.socket), "refused", staticmethod(lambda kind, *_: refused.append(kind))
        )
        client.transport.pause_reading()
        recorder.socket._transport.set_write_buffer_limits(high=64_000_000)
        recorder.socket.send_text(b"x" * 32_000_000)
        if end == "close":
            client.transport.write(frame(Opcode.CLOSE, b"\x03\xe8"))
        elif end == "breach":
            client.transport.write(frame(Opcode.CONT, b"x"))
            await until(lambda: refused)
            client.transport.write(frame(Opcode.CONT, b"x"))
        else:
            client.transport.write_eof()
        async with asyncio.timeout(5):
            await recorder.gone.wait()
        assert recorder.closes == [end == "close"]
        assert len(refused) == (end == "breach")
        client.transport.abort()  # else it waits 10 s for a close that it does not read


@given(st.binary(max_size=400))
def test_no_bytes_raise(data: bytes) -> None:
    async def run() -> None:
        socket, _recorder, _pipe = piped()
        socket.data_received(data)
        socket.connection_lost(None)

    asyncio.run(run())


@pytest.mark.parametrize(
    "extra",
    [b"X-A: 1\r\n" * 300, b"X-A: " + b"y" * 20_000 + b"\r\n", b"X-A: \xff\xfe\r\n", b"X A: 1\r\n"],
)
async def test_strange_heads_are_answered_or_closed(extra: bytes) -> None:
    def refuse(upgrade: ws.Upgrade) -> ws.Refusal:
        return ws.Refusal(403, "forbidden")

    async with serving(refuse) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HANDSHAKE.removesuffix(b"\r\n") + extra + b"\r\n")
        found = await asyncio.wait_for(reader.read(), 5)
        writer.close()
    assert found.startswith(b"HTTP/1.1 4")
