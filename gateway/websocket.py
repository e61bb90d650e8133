"""The server side of a WebSocket (RFC 6455) as an asyncio protocol, without a task per socket.

uvicorn hands the connection over once it has read the request (``Config(ws=...)``); the handshake
is the ``websockets`` package's. Framing is done here. One call of ``data_received`` may bring many
messages. Each goes to the handler at once, alone or together with the next one. A message that is
sent is one write. There are no extensions (compression costs more than 20 ms of sound are worth).

The package's framing is not used, because it serves every use of WebSockets, and a frame passes
through generators and objects that a Media Stream has no need of. A gateway alone was measured with
100 calls. With the package's sans-I/O protocol, straight under uvicorn, it took 1.78 ms of CPU for
a second of one call, and with this module in its place 1.38 ms. So the package's framing costs 1.29
times as much (docs/performance.md, "Tried and given up").

A peer is a stranger until the handler says :meth:`WebSocket.believe`. Until then the number of
bytes that it may send is bounded, and more ends the connection with 1008. From then on the socket
is read together with those of the other calls (:mod:`.sockets`), and written to directly, because
asyncio's transport would do more work for a frame than the frame itself takes. The transport still
owns the socket, and sends any bytes that the kernel does not take at once.

A message over the limit is skipped, not stored, and one that is far longer ends the connection with
1009. Any other breach of the protocol ends it with 1002.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

import msgspec
from uvicorn.config import Config
from uvicorn.server import ServerState
from websockets.http11 import Request
from websockets.server import ServerProtocol

from trunkline.bus.refusals import Kind

from .sockets import Sockets

try:
    from websockets.speedups import apply_mask
except ImportError:  # a build of websockets without its C extension
    from websockets.utils import apply_mask

#: Longer messages are skipped and reported.
MAX_MESSAGE_BYTES: Final = 64 * 1024
#: Bytes that a stranger may send in all, frames' heads and pings included.
STRANGER_BYTES: Final = 256 * 1024
#: Bytes that may wait to be sent: 20 s of sound. A carrier that does not read for 20 s is gone.
MAX_UNSENT_BYTES: Final = 256 * 1024
#: A peer from which no byte came for this many seconds is pinged. If as many pass again without a
#: byte, it is given up.
PING_AFTER: Final = 10.0
#: A peer that does not answer our close within this many seconds is disconnected. A peer that ends
#: the connection itself has as long to read what still waits to be sent.
CLOSE_WITHIN: Final = 2.0

#: One read takes at most this many bytes of one socket: 0.8 s of sound.
_READ: Final = 16 * 1024
#: Messages of one socket that are handed on in one turn of the loop, so that the other sockets have
#: their turn too. One read holds fewer messages than this, if they are a carrier's.
_MOST_AT_ONCE: Final = 64
#: A message that is longer than this is not skipped: the connection is closed.
_LONGEST_SKIPPED: Final = 4 * 1024 * 1024
#: A socket is read out by this many reads at most: 1 MB, or nearly a minute of sound.
_MOST_READS: Final = 64

_TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x1, 0x2, 0x8, 0x9, 0xA
_FIN_TEXT = 0x80 | _TEXT
#: A masked payload whose length follows in two bytes.
_MASKED_126 = 0x80 | 126
_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Handler(Protocol):
    """Gets a socket's messages. Nothing here may raise."""

    def opened(self, socket: WebSocket) -> None:
        """The handshake is done."""

    def text(self, data: bytes) -> None:
        """A text message (its UTF-8 is not checked)."""

    def two_texts(self, first: bytes, second: bytes) -> None:
        """Two text messages that came together, in order."""

    def binary(self) -> None:
        """A binary message came, and was thrown away."""

    def too_long(self) -> None:
        """A message over MAX_MESSAGE_BYTES came, and was thrown away."""

    def no_message(self) -> None:
        """A frame came that is no message: a ping, a pong, a part of a message."""

    def closed(self, clean: bool) -> None:
        """The socket is gone. ``clean``: a close frame ended it, and neither a breach of the
        protocol nor a lost connection. Called once, and also for a socket whose handshake failed,
        which never was ``opened``."""


class Refusal(msgspec.Struct, frozen=True):
    """The upgrade is answered with this instead of 101."""

    status: int
    body: str


class Upgrade(msgspec.Struct, frozen=True):
    """A request for an upgrade: the path and query as they came, and the headers, their names in
    lower case. ``host``: the address from which the connection comes; None: nobody knows."""

    path: str
    query: str
    headers: dict[str, str]
    host: str | None = None

    def header(self, name: bytes) -> bytes | None:
        """The value of the header ``name`` (in lower case), as it came."""
        found = self.headers.get(name.decode())
        return None if found is None else found.encode("utf-8", "surrogateescape")


Accept = Callable[[Upgrade], Handler | Refusal]
#: ``Refusals.add``: kind, what was refused, details.
Refused = Callable[[Kind, str, str], object]


class WebSocket(asyncio.Protocol):
    """One connection, from its request on. uvicorn makes it; see :func:`protocol_class`."""

    accept: Accept
    refused: Refused
    #: reads the sockets that were let in, together; None: the loop reads each by itself
    sockets: Sockets | None = None

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connections = cast(set[Any], server_state.connections)
        self._transport: asyncio.Transport | None = None
        #: the socket's descriptor, which is read and written directly; -1: the transport does both
        self._descriptor = -1
        #: the transport still has something to send, and new messages have to wait behind that
        self._queued = False
        self._handler: Handler | None = None
        self._handshaking = True
        #: bytes that came and are not handed on yet
        self._buffer = b""
        #: bytes of a message over the limit that are still to come
        self._skip = 0
        #: the fragments of a message that is not whole yet; None: there is no such message
        self._fragments: list[bytes] | None = None
        self._fragments_size = 0
        self._fragments_text = False
        #: bytes that the peer may still send while it is a stranger; None: it is none any more
        self._stranger: int | None = STRANGER_BYTES
        self._heard = self._loop.time()
        self._pinged = False
        #: whole messages wait in the buffer for the next turn of the loop
        self._more = False
        self._close_sent = False
        #: nothing more is read
        self._dropped = False
        self._clean = False
        self._timer: asyncio.TimerHandle | None = None

    # ------------------------------------------------------------------ for the handler

    @property
    def is_open(self) -> bool:
        """False once a close was sent or the connection is gone."""
        return self._transport is not None and not self._close_sent

    def believe(self) -> None:
        """The peer is no stranger any more."""
        self._stranger = None
        transport = self._transport
        if (
            self.sockets is not None
            and self._descriptor < 0
            and not self._dropped
            and transport is not None
            and not transport.is_closing()
        ):
            transport.pause_reading()
            self._descriptor = transport.get_extra_info("socket").fileno()
            self._queued = True
            self.sockets.add(self._descriptor, self._readable)

    def read_out(self) -> None:
        """Hand on what has come and waits to be read, up to _MOST_READS reads of it."""
        reads = 0
        while self._descriptor >= 0 and reads < _MOST_READS and self._readable():
            reads += 1

    def send_text(self, text: bytes) -> None:
        """Write one text message; nothing when the socket is closing."""
        if self._close_sent or self._transport is None:
            return
        size = len(text)
        if size < 126:
            head = bytes((_FIN_TEXT, size))
        elif size < 65536:
            head = b"\x81\x7e" + size.to_bytes(2, "big")
        else:
            head = b"\x81\x7f" + size.to_bytes(8, "big")
        self._write(head + text)

    def _write(self, data: bytes) -> None:
        """Write in order. The transport sends later whatever the kernel does not take at once."""
        transport = self._transport
        assert transport is not None
        if self._queued and not transport.get_write_buffer_size():
            self._queued = False
        if self._descriptor >= 0 and not self._queued:
            try:
                sent = os.write(self._descriptor, data)
            except BlockingIOError:
                sent = 0
            except OSError:  # the peer is gone
                transport.abort()
                return
            if sent == len(data):
                return
            data = data[sent:]
            self._queued = True
        transport.write(data)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Send a close frame and wait a little for the answer. May be called twice."""
        if self._close_sent or self._transport is None:
            return
        if not self._handshaking:
            payload = code.to_bytes(2, "big") + reason.encode()[:123]
            self._control(_CLOSE, payload)
            self._clean = True
        self._close_sent = True
        self._set_timer(CLOSE_WITHIN, self._transport.abort)

    def drop(self) -> None:
        """Read nothing more, and disconnect after this turn of the loop, in which our close frame
        still leaves. The peer's answer is not waited for, because a crowd of peers that are dropped
        would hold on to many descriptors meanwhile."""
        transport = self._transport
        if transport is None or self._dropped:
            return
        self._close_sent = self._dropped = True
        self._read_no_more()
        if not transport.is_closing():
            transport.pause_reading()
        self._loop.call_soon(transport.abort)

    # ------------------------------------------------------------------ asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=MAX_UNSENT_BYTES)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._read_no_more()
        self._transport = None
        self._close_sent = True
        if self._timer is not None:
            self._timer.cancel()
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.closed(self._clean)

    def pause_writing(self) -> None:
        """More than MAX_UNSENT_BYTES wait: the peer does not read."""
        if self._transport is not None:
            self._transport.abort()

    def shutdown(self) -> None:
        """uvicorn ends: who has not answered a close by now is disconnected."""
        if self._close_sent and self._transport is not None:
            self._transport.close()
        self.close(1001, "going away")

    def _readable(self) -> bool:
        """Read the socket, which the transport does not read any more. False: there was nothing to
        read."""
        assert self._transport is not None
        if self._more:
            self._go_on()
            return True
        try:
            data = os.read(self._descriptor, _READ)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if data:
            self.data_received(data)
        else:
            self._end()
        return True

    def _read_no_more(self) -> None:
        if self._descriptor >= 0 and self.sockets is not None:
            self.sockets.remove(self._descriptor)
            self._descriptor = -1

    def _end(self) -> None:
        """Read nothing more, and disconnect once everything has been sent. A peer that does not
        read is not waited for: its connection, and with it the handler, would stay for ever."""
        self._close_sent = True
        self._read_no_more()
        if self._transport is not None:
            self._set_timer(CLOSE_WITHIN, self._transport.abort)
            self._transport.close()

    def eof_received(self) -> None:
        """The peer sends nothing more, on a socket that the transport reads."""
        self._end()

    def data_received(self, data: bytes) -> None:
        if self._handshaking:
            self._handshake(data)
            return
        if self._dropped:
            return
        self._heard = self._loop.time()
        self._pinged = False
        if self._stranger is not None:
            self._stranger -= len(data)
            if self._stranger < 0:
                self.refused("bad start", "a stream socket", "too much before start")
                self.close(1008, "too much before start")
                self.drop()
                return
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        self._parse(data)

    def _handshake(self, data: bytes) -> None:
        assert self._transport is not None
        connection = ServerProtocol(max_size=MAX_MESSAGE_BYTES)
        connection.receive_data(data)
        request = next((e for e in connection.events_received() if isinstance(e, Request)), None)
        if request is None:  # a head that uvicorn takes and websockets does not
            self._close_sent = True
            self.refused("not HTTP", "a WebSocket", "")
            self._transport.write(_BAD_REQUEST)
            self._transport.close()
            return
        path, _, query = request.path.partition("?")
        headers = {name.lower(): value for name, value in request.headers.raw_items()}
        peer = self._transport.get_extra_info("peername")
        host = peer[0] if isinstance(peer, tuple) else None
        handler = self.accept(Upgrade(path, query, headers, host))
        if isinstance(handler, Refusal):
            response = connection.reject(handler.status, handler.body)
        else:
            response = connection.accept(request)
        connection.send_response(response)
        self._transport.write(b"".join(connection.data_to_send()))
        if response.status_code != 101 or isinstance(handler, Refusal):
            self._close_sent = True
            self._transport.close()
            if not isinstance(handler, Refusal):
                self.refused("not HTTP", "a WebSocket", "")
                handler.closed(False)
            return
        self._handshaking = False
        self._handler = handler
        self._set_timer(PING_AFTER, self._watch)
        handler.opened(self)

    def _set_timer(self, seconds: float, call: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, call)

    def _watch(self) -> None:
        """Ping a peer that is silent. Disconnect it if it stays silent."""
        if self._transport is None or self._close_sent:
            return
        silent = self._loop.time() - self._heard
        if silent < PING_AFTER:
            self._set_timer(PING_AFTER - silent, self._watch)
        elif not self._pinged:
            self._pinged = True
            self._control(_PING, b"")
            self._set_timer(PING_AFTER, self._watch)
        else:
            self._transport.abort()

    # ------------------------------------------------------------------ frames

    def _parse(self, data: bytes) -> None:
        at, size = 0, len(data)
        left = _MOST_AT_ONCE
        waits: bytes | None = None  # a text whose neighbour may be here too
        while size - at >= 2 and not self._dropped:
            if not left:
                self._go_on_later()
                break
            left -= 1
            first, second = data[at], data[at + 1]
            handler = self._handler
            if (
                first == _FIN_TEXT
                and second == _MASKED_126
                and size - at > 8
                and (end := at + 8 + (data[at + 2] << 8 | data[at + 3])) <= size
                and not self._close_sent
                and self._fragments is None
                and handler is not None
            ):  # a frame of sound: two of them come together where sockets are read every 40 ms
                text = apply_mask(data[at + 8 : end], data[at + 4 : at + 8])
                at = end
                if waits is not None:
                    handler.two_texts(waits, text)
                    waits = None
                elif at < size:
                    waits = text
                else:
                    handler.text(text)
                continue
            if waits is not None and handler is not None:
                handler.text(waits)
                waits = None
                continue
            length, start = second & 0x7F, at + 2
            if length == 126:
                start += 2
                if start > size:
                    break
                length = int.from_bytes(data[at + 2 : start], "big")
            elif length == 127:
                start += 8
                if start > size:
                    break
                length = int.from_bytes(data[at + 2 : start], "big")
            if not second & 0x80 or first & 0x70:
                self._broken()
                return
            end = start + 4 + length
            if length > MAX_MESSAGE_BYTES and not self._too_long(first, length):
                return
            if end > size:
                if length > MAX_MESSAGE_BYTES:
                    self._skip = end - size
                    return
                break
            if length <= MAX_MESSAGE_BYTES:
                payload = apply_mask(data[start + 4 : end], data[start : start + 4])
                if first == _FIN_TEXT and self._fragments is None:
                    if self._close_sent or handler is None:
                        pass  # what comes after our close is not read
                    else:
                        handler.text(payload)
                elif not self._other(first, payload):
                    return
            at = end
        if waits is not None and self._handler is not None:
            self._handler.text(waits)
        self._buffer = data[at:]

    def _go_on_later(self) -> None:
        """Whole messages are left in the buffer. Have the next turn of the loop hand them on, and
        read nothing more from the socket before that."""
        assert self._transport is not None
        self._more = True
        if self._descriptor < 0 and not self._transport.is_closing():
            self._transport.pause_reading()
        self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if not self._more or self._transport is None or self._dropped:
            return
        self._more = False
        data, self._buffer = self._buffer, b""
        self._parse(data)
        if self._more or self._dropped or self._descriptor >= 0 or self._transport.is_closing():
            return  # the transport is not to read on
        self._transport.resume_reading()

    def _too_long(self, first: int, length: int) -> bool:
        """A frame over the limit begins. Tell the handler, or end the connection (False)."""
        if length > _LONGEST_SKIPPED:
            self._broken(1009)
            return False
        if first & 0x0F >= _CLOSE:
            self._broken()
            return False
        whole = bool(first & 0x80)
        if self._fragments is None and whole:
            self._report_too_long()
        elif whole:
            self._fragments = None
            self._report_too_long()
        else:
            self._fragments = []
            self._fragments_size = MAX_MESSAGE_BYTES + 1
        return True

    def _report_too_long(self) -> None:
        if self._handler is not None and not self._close_sent:
            self._handler.too_long()

    def _other(self, first: int, payload: bytes) -> bool:
        """Take any frame but a whole text message. False: the connection was ended."""
        opcode, final = first & 0x0F, bool(first & 0x80)
        if opcode >= _CLOSE:
            if not final or len(payload) > 125 or opcode > _PONG:
                self._broken()
                return False
            if opcode == _CLOSE:
                self._answer_close(payload)
                return False
            if opcode == _PING:
                self._control(_PONG, payload)
            self._tell_no_message()
            return True
        if opcode in (_TEXT, _BINARY):
            if self._fragments is not None:
                self._broken()
                return False
            self._fragments_text = opcode == _TEXT
            self._fragments_size = 0
            self._fragments = []
        elif opcode != 0 or self._fragments is None:
            self._broken()
            return False
        self._fragments_size += len(payload)
        if self._fragments_size <= MAX_MESSAGE_BYTES and len(self._fragments) < 1000:
            self._fragments.append(payload)
        else:
            self._fragments.clear()
            self._fragments_size = MAX_MESSAGE_BYTES + 1
        if not final:
            self._tell_no_message()
        else:
            fragments, self._fragments = self._fragments, None
            if self._handler is None or self._close_sent:
                return True
            if self._fragments_size > MAX_MESSAGE_BYTES:
                self._handler.too_long()
            elif self._fragments_text:
                self._handler.text(b"".join(fragments))
            else:
                self._handler.binary()
        return True

    def _tell_no_message(self) -> None:
        if self._handler is not None and not self._close_sent:
            self._handler.no_message()

    def _control(self, opcode: int, payload: bytes) -> None:
        if self._transport is not None and not self._close_sent:
            self._write(bytes((0x80 | opcode, len(payload))) + payload)

    def _answer_close(self, payload: bytes) -> None:
        self._clean = True
        if not self._close_sent:
            self._control(_CLOSE, payload[:2] if len(payload) >= 2 else b"")
        self._end()

    def _broken(self, code: int = 1002) -> None:
        kind: Kind = "bad message" if self._stranger is None else "bad start"
        self.refused(kind, "a stream socket", "it broke the WebSocket protocol")
        self._control(_CLOSE, code.to_bytes(2, "big"))
        self._end()


def protocol_class(
    accept: Accept,
    read_by: Sockets | None = None,
    refused: Refused = lambda kind, what, details: None,
) -> type[WebSocket]:
    """The class to give to uvicorn; ``accept`` decides on each upgrade, ``read_by`` reads the
    sockets of those who are let in, and ``refused`` hears of the others."""

    class Accepting(WebSocket):
        sockets = read_by

    Accepting.accept = staticmethod(accept)
    Accepting.refused = staticmethod(refused)
    return Accepting
