"""A stream of the load generator, at a socket of the loopback."""

from __future__ import annotations

import base64
import json
import select
import socket
import sys
import time
from collections.abc import Iterator

import pytest

if sys.platform != "linux":
    pytest.skip("the load generator needs Linux", allow_module_level=True)

from benchmarks.load_generator import Stream, sound_of

#: Their base64 is AAAA and BBBB.
SOUND = [b"\0\0\0", b"\x04\x10A"]


class Wire:
    """The server's end of a stream."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname())
            self.sock, _ = listener.accept()
        self.stream = Stream(client, SOUND, 0, "CA1", "AC1")
        stamped = False
        while not stamped:  # the kernel begins to stamp a moment after it was asked to
            self.sock.sendall(b"x")
            select.select([client], [], [], 5.0)
            stamped = bool(client.recvmsg(1, 64)[1])

    def send(self, *messages: bytes, opcode: int = 1) -> bool:
        """The server sends these in one piece; whether the stream is still open once it has read
        them."""
        frames = b""
        for text in messages:
            size = len(text)
            head = bytes((size,)) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
            frames += bytes((0x80 | opcode,)) + head + text
        return self.send_raw(frames)

    def send_raw(self, data: bytes) -> bool:
        self.sock.sendall(data)
        select.select([self.stream.sock], [], [], 5.0)
        return self.stream.read()

    def media(self, samples: int = 160) -> bytes:
        payload = "A" * (samples * 4 // 3)
        return json.dumps({"event": "media", "media": {"payload": payload}}).encode()

    def received(self, count: int) -> list[dict[str, object]]:
        """The next so many messages that the carrier has sent; no more have come."""
        data, found = b"", []
        while len(found) < count:
            data += self.sock.recv(1 << 20)
            while len(data) >= 4 and (frame := self._first(data)) is not None:
                found.append(json.loads(frame[0]))
                data = data[frame[1] :]
        assert (len(found), data) == (count, b"")
        return found

    def _first(self, data: bytes) -> tuple[bytes, int] | None:
        """The text of the first frame, and where the next one begins."""
        size, at = data[1] & 0x7F, 2
        if size == 126:
            size, at = int.from_bytes(data[2:4], "big"), 4
        end = at + 4 + size
        return (data[at + 4 : end], end) if len(data) >= end else None


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.sock.close()
    wire.stream.close()


def test_frames_are_numbered_from_one_and_the_sound_is_a_loop(wire: Wire) -> None:
    wire.stream.start({"nonce": "x"})
    for _ in range(3):
        wire.stream.send_frame()
    connected, start, *media = wire.received(5)
    assert connected["event"] == "connected"
    assert start["start"]["customParameters"] == {"nonce": "x"}  # type: ignore[index]  # JSON
    bodies = [message["media"] for message in media]
    assert [(b["chunk"], b["timestamp"], b["payload"]) for b in bodies] == [  # type: ignore[index]  # JSON
        ("1", "0", "AAAA"),
        ("2", "20", "BBBB"),
        ("3", "40", "AAAA"),
    ]
    numbers = [int(str(m["sequenceNumber"])) for m in (start, *media)]
    assert numbers == [1, 2, 3, 4]


def test_an_arrival_is_when_the_kernel_had_it_and_not_when_it_was_read(wire: Wire) -> None:
    sent = time.time_ns()
    wire.sock.sendall(b"\x81\x7e" + len(wire.media()).to_bytes(2, "big") + wire.media())
    arrived = time.time_ns()
    time.sleep(0.05)
    wire.stream.read()
    assert sent - 1_000_000 <= wire.stream.times[0] <= arrived + 1_000_000
    assert wire.stream.texts == [wire.media()]


def test_messages_that_come_together_or_in_pieces_are_all_noted(wire: Wire) -> None:
    wire.send(wire.media(), wire.media(80), wire.media())
    whole = b"\x81\x7e" + len(wire.media()).to_bytes(2, "big") + wire.media()
    for piece in (whole[:1], whole[1:40], whole[40:]):
        wire.send_raw(piece)
    assert wire.stream.texts == [wire.media(), wire.media(80), wire.media(), wire.media()]


def test_the_size_of_a_message_is_its_samples(wire: Wire) -> None:
    wire.stream.keeps = False
    for size in (160, 320, 480, 1, 160):
        payload = base64.b64encode(bytes(size)).decode()
        wire.send(json.dumps({"event": "media", "media": {"payload": payload}}).encode())
    assert wire.stream.sizes.tolist() == [160, 320, 480, 1, 160]
    assert wire.stream.texts == []


def test_a_mark_returns_when_what_came_before_it_has_been_played(wire: Wire) -> None:
    mark = b'{"event":"mark","streamSid":"MZ1","mark":{"name":"m"}}'
    wire.send(wire.media(24_000), mark)
    wire.stream.send_frame()
    assert [m["event"] for m in wire.received(1)] == ["media"]
    wire.send(b'{"event":"clear","streamSid":"MZ1"}')
    assert [m["event"] for m in wire.received(1)] == ["mark"]
    wire.send(mark)
    wire.stream.send_frame()
    assert [m["event"] for m in wire.received(2)] == ["media", "mark"]


def test_a_ping_is_answered_and_a_close_ends_the_stream(wire: Wire) -> None:
    assert wire.send(b'"hello"', opcode=9)
    assert wire.received(1) == ["hello"]
    assert not wire.send(b"\x03\xe8", opcode=8)


@pytest.mark.parametrize("kind", ["speech", "numbered"])
def test_the_sounds_are_frames_of_20_ms(kind: str) -> None:
    sound = sound_of(kind)
    assert {len(frame) for frame in sound} == {160}
