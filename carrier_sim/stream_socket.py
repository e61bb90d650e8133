"""The socket of one Media Stream: the upgrade, the messages, every way in which it can end.

A thin shell: an asyncio.Protocol that hands text to a Stream. A connection that fails is listed
under Twilio's error number. Faults that belong to the wire (stall, jitter, lost frames, a broken
socket) are applied here.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import os
import random
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import urlsplit

from . import ws_frames
from .faults import Fault
from .signature import basic_credentials
from .stream import Stream

if TYPE_CHECKING:
    from .sim import CarrierSim

#: How long the server may take to answer our close frame.
CLOSE_SECONDS: Final = 1.0
#: Between the last message (``stop``) and our close frame: a server that is sending when the close
#: frame comes fails before it has read ``stop``.
LINGER_SECONDS: Final = 0.1
_MAX_HEAD: Final = 65536


class StreamSocket(asyncio.Protocol):
    """Connects a Stream. When the server, the network or a fault has ended the stream, it calls
    ``on_over(stream)`` once. It does not when the carrier itself ended it."""

    def __init__(
        self,
        stream: Stream,
        sim: CarrierSim,
        on_over: Callable[[Stream], None],
        on_closed: Callable[[StreamSocket], None],
    ) -> None:
        self.stream = stream
        self._sim = sim
        self._on_over = on_over
        self._on_closed = on_closed
        self._transport: asyncio.Transport | None = None
        self._head: bytearray | None = bytearray()
        self._key = base64.b64encode(os.urandom(16)).decode()
        self._reader = ws_frames.FrameReader()
        self._open = asyncio.get_running_loop().create_future()
        self._over = False
        self._closing = False
        self._finished = False
        self._close_timer: asyncio.TimerHandle | None = None
        #: What the path of a fault rule is searched in.
        self._place = f"{stream.verb.url}#{stream.call_sid}"
        self._version = -1
        self._stall: Fault | None = None
        self._stalled_until = 0.0
        self._jitter = 0.0
        self._drop_at: float | None = None
        self._random = random.Random(0)
        self._holding = False
        self._held: deque[tuple[float, bytes]] = deque()

    async def connect(self) -> None:
        """Connect and upgrade in time; a failure is listed and ends the stream."""
        url = urlsplit(self.stream.verb.url)
        secure, hold = url.scheme == "wss", self.stream.beliefs.hold
        seconds = self._sim.options.stream_connect_timeout
        if self._sim.faults.match("stream", "GET", self._place, kind="refuse") is not None:
            self._fail(31902, "refused by a fault rule")
            return
        if url.username is not None and not hold("stream-user-info"):
            self._fail(31923, f"a stream's url has no user name: {url.hostname}")
            return
        default = 443 if secure else 80
        if url.port not in (None, default) and not hold("stream-port"):
            self._fail(31901, f"no answer from {url.hostname}: port {url.port} is not reached")
            return
        context = await self._sim.tls() if secure else None
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds):
                await loop.create_connection(
                    lambda: self,
                    url.hostname or "",
                    url.port or default,
                    ssl=context,
                )
                await self._open
        except TimeoutError:
            self._fail(31901, f"no answer from {url.netloc} in {seconds:g} s")
        except ssl.SSLError as e:
            self._fail(31920, f"TLS with {url.netloc}: {e}")
        except socket.gaierror as e:
            self._fail(31902, f"host name {url.hostname}: {e.strerror}")
        except OSError as e:
            self._fail(31902, f"connection to {url.netloc}: {e}")

    def finish(self) -> None:
        """The carrier has ended the stream: close the socket behind the last message."""
        if self._head is None:
            self._finished = True
            loop = asyncio.get_running_loop()
            self._close_timer = loop.call_later(LINGER_SECONDS, self._close, 1000)
            return
        self._over = True
        self._abort()
        if not self._open.done():
            self._open.set_result(None)

    @property
    def disturbed(self) -> bool:
        """Whether ``tick`` has something to do."""
        return self._holding or self._drop_at is not None or self._stall is not None

    def abort(self) -> None:
        """Drop the connection silently: the carrier shuts down."""
        self._over = True
        self._abort()

    def drop(self) -> None:
        """Break the connection with no close frame, as a network does."""
        self._error(31903, "the connection broke (by a fault)")
        self._end("broken")

    def stall(self, seconds: float) -> None:
        """Hold everything to the server back for that long; then it goes out in one burst."""
        self._stalled_until = self._sim.now() + seconds
        self._hold_back()

    def tick(self, now: float) -> None:
        """Apply fault rules, and send messages that were held back. Called on ticks of the media
        clock while there is either."""
        if self._version != self._sim.faults.version and not self._finished:
            self._read_faults(now)
        if self._finished:
            self._drop_at = None
        if self._drop_at is not None and now >= self._drop_at:
            self._drop_at = None
            self.drop()
            return
        started = self.stream.opened_at
        if self._stall and started is not None and now >= started + self._stall.seconds:
            seconds, self._stall = self._stall.duration, None
            self.stall(seconds)
        if self._holding and now >= self._stalled_until:
            while self._held and self._held[0][0] <= now:
                self._send(self._held.popleft()[1])
            if not self._held and not self._jitter:
                self._holding = False
                self.stream.send = self._send

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports act as asyncio.Transport without being of that class.
        self._transport = cast(asyncio.Transport, transport)
        if self._over:
            self._transport.abort()
            return
        url = self.stream.verb.url
        parts = urlsplit(url)
        headers = []
        if self.stream.beliefs.hold("upgrades-are-signed"):
            headers += self._sim.signer.headers(url)
        if credentials := basic_credentials(url):
            headers.append(("Authorization", credentials))
        self._transport.write(
            "\r\n".join(
                [
                    f"GET {parts.path or '/'} HTTP/1.1",
                    f"Host: {parts.netloc.rpartition('@')[2]}",
                    "Upgrade: websocket",
                    "Connection: Upgrade",
                    f"Sec-WebSocket-Key: {self._key}",
                    "Sec-WebSocket-Version: 13",
                    *(f"{name}: {value}" for name, value in headers),
                    "User-Agent: Twilio.TmeWs/1.0",
                    "\r\n",
                ]
            ).encode("latin-1")
        )

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        if self._head is not None:
            self._head += data
            head, found, rest = bytes(self._head).partition(b"\r\n\r\n")
            if not found:
                if len(self._head) > _MAX_HEAD:
                    self._fail(31920, "the answer's head is too long")
                return
            self._head = None
            if not self._upgraded(head):
                return
            data = rest
        try:
            messages = self._reader.feed(data)
        except ws_frames.ProtocolViolation as e:
            self._error(31924, str(e))
            self._close(1002)
            self._end("error 31924")
            return
        now = self._sim.now()
        for opcode, payload in messages:
            if opcode == ws_frames.TEXT:
                self.stream.message(payload, now)
            else:
                self._control(opcode, payload)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._close_timer is not None:
            self._close_timer.cancel()
        if self._head is not None and not self._over:
            self._fail(31920, f"connection closed during the handshake ({exc or 'end of file'})")
        elif not (self._over or self._closing or self._finished):
            self._error(31903, f"the connection broke ({exc or 'end of file, no close frame'})")
            self._end("broken")
        self._on_closed(self)

    def _upgraded(self, head: bytes) -> bool:
        status, *lines = head.decode("latin-1").split("\r\n")
        fields = {
            n.strip().lower(): v.strip() for n, _, v in (line.partition(":") for line in lines)
        }
        words = status.split(" ", 2)
        if len(words) < 2 or words[1] != "101":
            self._fail(31920, f"the upgrade was answered with {status!r}, not with 101")
            return False
        if fields.get("sec-websocket-accept") != ws_frames.accept_value(self._key):
            self._fail(31920, "Sec-WebSocket-Accept is wrong")
            return False
        self.stream.send = self._hold if self._holding else self._send
        self.stream.opened(self._sim.now())
        if not self._open.done():
            self._open.set_result(None)
        return True

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == ws_frames.BINARY:
            self.stream.binary(len(payload))
        elif opcode == ws_frames.PING:
            self._write(ws_frames.frame(payload, ws_frames.PONG))
        elif opcode == ws_frames.CLOSE:
            self._closed_by_server(payload)

    def _closed_by_server(self, payload: bytes) -> None:
        code = int.from_bytes(payload[:2]) if len(payload) >= 2 else 1005
        if not self._closing:
            self._write(ws_frames.frame(payload[:2], ws_frames.CLOSE))
        if not (self._closing or self._finished):
            text = f"the server closed with code {code} {payload[2:].decode('utf-8', 'replace')}"
            add = self._sim.judge.notice if code in (1000, 1001, 1005) else self._sim.judge.error
            add(31921, text.strip(), call_sid=self.stream.call_sid, stream_sid=self.stream.sid)
            self._end("close", abort=False)
        if self._transport is not None:
            self._transport.close()

    def _read_faults(self, now: float) -> None:
        self._version = self._sim.faults.version
        self._jitter, self._drop_at, self.stream.lose = 0.0, None, None
        for rule in list(self._sim.faults.rules):
            fault = rule.fault
            if fault.where != "stream" or fault.kind == "refuse":
                continue
            if not rule.match("GET", self._place):
                continue
            self._random = random.Random(f"{fault.seed}{self.stream.sid}")
            match fault.kind:
                case "drop_socket":
                    self._drop_at = (self.stream.opened_at or now) + fault.seconds
                case "stall":
                    self._stall = fault
                case "jitter":
                    self._jitter = fault.duration
                    self._hold_back()
                case "drop_frames":
                    self.stream.lose = functools.partial(self._loses, fault.probability)

    def _hold_back(self) -> None:
        self._holding = True
        self.stream.send = self._hold

    def _loses(self, share: float) -> bool:
        return self._random.random() < share

    def _hold(self, message: bytes) -> None:
        due = self._sim.now() + self._random.uniform(0, self._jitter)
        if self._held:
            due = max(due, self._held[-1][0])
        self._held.append((due, message))

    def _send(self, message: bytes) -> None:
        if self._transport is not None:
            self._transport.write(ws_frames.frame(message))

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _close(self, code: int) -> None:
        if self._closing:
            return
        self._closing = True
        while self._held:
            self._send(self._held.popleft()[1])
        self._write(ws_frames.frame(code.to_bytes(2), ws_frames.CLOSE))
        if self._transport is not None:
            loop = asyncio.get_running_loop()
            self._close_timer = loop.call_later(CLOSE_SECONDS, self._abort)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, code: int, text: str) -> None:
        self._error(code, text)
        self._end(f"error {code}")
        if not self._open.done():
            self._open.set_result(None)
        if self._transport is None:
            self._on_closed(self)

    def _end(self, why: str, *, abort: bool = True) -> None:
        if self._over:
            return
        self._over = True
        self.stream.end(self._sim.now(), why)
        if abort:
            self._abort()
        self._on_over(self.stream)

    def _error(self, code: int, text: str) -> None:
        self._sim.judge.error(code, text, call_sid=self.stream.call_sid, stream_sid=self.stream.sid)
