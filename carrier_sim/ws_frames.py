"""WebSocket framing, client side, for many thousands of small text messages a second.

No I/O. Source: RFC 6455. Frames to the server are masked with a key of zeros, which is a valid mask
and leaves the payload as it is: the peer still unmasks, the sender need not mask. Nothing is
compressed (Twilio offers no extension).
"""

from __future__ import annotations

import base64
import hashlib
import struct
from typing import Final

TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

MAX_MESSAGE: Final = 16 * 1024 * 1024
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class ProtocolViolation(Exception):
    """The server broke RFC 6455 (31924)."""


def accept_value(key: str) -> str:
    """The value that Sec-WebSocket-Accept has to have."""
    return base64.b64encode(
        hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    ).decode()


def frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """One whole message or control frame, masked with zeros."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, 0x80 | size)) + b"\0\0\0\0" + payload
    if size < 65536:
        return struct.pack(">BBHL", 0x80 | opcode, 0xFE, size, 0) + payload
    return struct.pack(">BBQL", 0x80 | opcode, 0xFF, size, 0) + payload


class FrameReader:
    """Bytes of the server in, whole messages out."""

    def __init__(self) -> None:
        self._rest = b""
        self._parts: list[bytes] = []
        self._opcode = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """(opcode, payload) of each message that is complete. Raises ProtocolViolation."""
        if self._rest:
            data = self._rest + data
        out: list[tuple[int, bytes]] = []
        at, end = 0, len(data)
        while end - at >= 2:
            first, second = data[at], data[at + 1]
            size, body = second & 0x7F, at + 2
            if second & 0x80:
                raise ProtocolViolation("a frame of the server is masked")
            if size == 126:
                if end - at < 4:
                    break
                size, body = data[at + 2] << 8 | data[at + 3], at + 4
            elif size == 127:
                if end - at < 10:
                    break
                size, body = int.from_bytes(data[at + 2 : at + 10]), at + 10
                if size > MAX_MESSAGE:
                    raise ProtocolViolation(f"a frame of {size} bytes")
            if end - body < size:
                break
            at = body + size
            if first == 0x81 and not self._parts:
                out.append((TEXT, data[body:at]))
            else:
                self._other(first, data[body:at], out)
        self._rest = data[at:]
        return out

    def _other(self, first: int, payload: bytes, out: list[tuple[int, bytes]]) -> None:
        opcode, final = first & 0x0F, bool(first & 0x80)
        if first & 0x70:
            raise ProtocolViolation("reserved bits are set")
        if opcode >= CLOSE:
            if not final or len(payload) > 125 or opcode > PONG:
                raise ProtocolViolation(f"control frame {opcode:#x} is fragmented, long or unknown")
            if opcode == CLOSE and len(payload) == 1:
                raise ProtocolViolation("a close frame with half a code")
            out.append((opcode, payload))
            return
        if opcode > BINARY or bool(opcode) == bool(self._parts):
            raise ProtocolViolation(f"opcode {opcode:#x} is unknown or out of place")
        self._opcode = opcode or self._opcode
        self._parts.append(payload)
        if sum(map(len, self._parts)) > MAX_MESSAGE:
            raise ProtocolViolation("a message of too many bytes")
        if final:
            out.append((self._opcode, b"".join(self._parts)))
            self._parts = []
