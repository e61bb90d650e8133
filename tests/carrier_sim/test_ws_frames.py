"""The WebSocket framing against websockets' own sans-I/O server."""

from __future__ import annotations

import pytest
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from trunkline.carrier_sim import ws_frames
from trunkline.carrier_sim.ws_frames import FrameReader, ProtocolViolation


def server() -> ServerProtocol:
    return ServerProtocol(state=OPEN, max_size=None)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 200_000])
def test_our_frames_are_read_by_others(size: int) -> None:
    peer = server()
    peer.receive_data(ws_frames.frame(b"x" * size))
    (event,) = peer.events_received()
    assert event.data == b"x" * size  # type: ignore[union-attr]  # a data frame


@pytest.mark.parametrize("step", [1, 3, 1000, 10_000_000])
def test_their_frames_are_read_by_us_however_they_arrive(step: int) -> None:
    peer = server()
    sizes = [0, 125, 126, 3000] if step == 1 else [0, 125, 126, 65535, 65536]
    for size in sizes:
        peer.send_text(b"y" * size)
    peer.send_ping(b"p")
    peer.send_text(b"ab", fin=False)
    peer.send_continuation(b"cd", fin=True)
    peer.send_binary(b"\x00")
    peer.send_close(1000, "bye")
    data = b"".join(peer.data_to_send())
    reader, got = FrameReader(), []
    for at in range(0, len(data), step):
        got += reader.feed(data[at : at + step])
    assert got == [
        *((ws_frames.TEXT, b"y" * size) for size in sizes),
        (ws_frames.PING, b"p"),
        (ws_frames.TEXT, b"abcd"),
        (ws_frames.BINARY, b"\x00"),
        (ws_frames.CLOSE, b"\x03\xe8bye"),
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"\x81\x81\0\0\0\0x",
        b"\xc1\x01x",
        b"\x83\x00",
        b"\x8b\x00",
        b"\x09\x00",
        b"\x89\x7e\x00\x7e" + b"x" * 126,
        b"\x80\x00",
        b"\x01\x01a\x81\x01b",
        b"\x88\x01x",
        b"\x81\x7f" + b"\x7f" * 8,
    ],
)
def test_violations(data: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        FrameReader().feed(data)


def test_the_accept_value_of_the_rfc() -> None:
    assert ws_frames.accept_value("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
