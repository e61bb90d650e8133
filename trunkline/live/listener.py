"""The public side of a live run: writes down all requests of Twilio, and answers as the run says.

It listens at the public URL in place of a gateway. It refuses no request for its signature, because
the run has to find out how Twilio signs: a webhook without a signature is written down as such. It
only serves while the run lasts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from trunkline.bus import hosts
from trunkline.bus.clock import monotonic
from trunkline.bus.errors import SettingsError
from trunkline.bus.listener import Bounds, Server
from trunkline.bus.twilio_urls import HEALTH_PATH, RETRY_FRAGMENT, STATUS_PATH, VOICE_PATH
from trunkline.gateway.signature import (
    HEADER,
    SETTINGS_HEADER,
    Form,
    SignatureCheck,
    is_shared_key,
)

Signed = Literal["right", "with-fragment", "shared-key", "wrong", "missing"]

#: Seconds after which a webhook that the run has not answered is answered here. Twilio waits 15 s.
_ANSWER_WITHIN: Final = 14.0
#: A run has a handful of calls. It has to end within seconds of a signal, so connections that are
#: left at the end get little time.
_BOUNDS: Final = Bounds(waiting=64, request_bytes=64 * 1024, request_within=10.0, leave_within=0.2)
_BUSY: Final = '<Response><Reject reason="busy"/></Response>'


@dataclass(frozen=True)
class Asked:
    """A webhook or callback as it came. ``path``: from ``/twilio/`` on. ``signed``: how it was
    signed."""

    path: str
    query: str
    form: dict[str, str]
    signed: Signed

    @property
    def sid(self) -> str:
        return self.form.get("CallSid", "")


class Hook:
    """A voice webhook that waits for its answer."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.reply: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

    @property
    def is_fallback(self) -> bool:
        return self.asked.path.endswith("/fallback")

    def answer(self, inside: str) -> None:
        """Answer with TwiML that has ``inside`` in its Response."""
        self._reply(Response(f"<Response>{inside}</Response>", media_type="application/xml"))

    def fail(self) -> None:
        """Answer with an HTTP error."""
        self._reply(Response("tried on purpose", status_code=500))

    def _reply(self, response: Response) -> None:
        if not self.reply.done():  # the webhook may have been answered for want of time
            self.reply.set_result(response)


class News:
    """Lets a task wait until something that comes from outside makes a condition true."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def tell(self) -> None:
        """Let those who wait look at their condition again."""
        self._event.set()

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait up to so many seconds for the condition. Returns whether it holds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not condition():
                    self._event.clear()
                    await self._event.wait()
        return condition()


class LiveStream:
    """One Media Stream. ``refuse``: its upgrade is answered with 403."""

    def __init__(self, name: str, refuse: bool) -> None:
        self.name = name
        self.refuse = refuse
        #: how the upgrade was signed; None until it came
        self.signed: Signed | None = None
        self.asked = asyncio.Event()
        self.started = asyncio.Event()
        self.over = asyncio.Event()
        self.started_at = 0.0
        self.start: dict[str, Any] = {}
        #: each message, with the monotonic time at which it came
        self.messages: list[tuple[float, dict[str, Any]]] = []
        self.news = News()
        self._socket: WebSocket | None = None

    async def serve(self, websocket: WebSocket) -> None:
        """Read the stream to its end."""
        await websocket.accept()
        self._socket = websocket
        try:
            while True:
                message = json.loads(await websocket.receive_text())
                now = monotonic()
                self.messages.append((now, message))
                if message.get("event") == "start":
                    self.start, self.started_at = message.get("start", {}), now
                    self.started.set()
                self.news.tell()
        except WebSocketDisconnect:
            pass
        finally:
            self.over.set()
            self.news.tell()

    def events(self, name: str) -> list[tuple[float, dict[str, Any]]]:
        """The body of each message of this kind, with the time at which it came."""
        return [(at, m.get(name, {})) for at, m in self.messages if m.get("event") == name]

    @property
    def sound(self) -> list[tuple[float, int, int]]:
        """Of each frame: the time at which it came, its timestamp in ms, its length in bytes."""
        return [
            (at, int(body.get("timestamp", 0)), len(b64decode(body.get("payload", ""))))
            for at, body in self.events("media")
        ]

    def mark_at(self, name: str) -> float | None:
        """The time at which the mark came back. None: it has not."""
        return next((at for at, body in self.events("mark") if body.get("name") == name), None)

    async def wait_mark(self, name: str, seconds: float) -> float | None:
        """Wait up to so many seconds for the mark. Returns what :meth:`mark_at` does."""
        await self.news.until(lambda: self.mark_at(name) is not None or self.over.is_set(), seconds)
        return self.mark_at(name)

    async def say(self, seconds: float) -> None:
        """Send so many seconds of sound that is almost silent."""
        audio = b64encode(b"\xfe\x7e" * round(seconds * 4000)).decode()
        await self._send({"event": "media", "media": {"payload": audio}})

    async def mark(self, name: str) -> None:
        await self._send({"event": "mark", "mark": {"name": name}})

    async def clear(self) -> None:
        await self._send({"event": "clear"})

    async def _send(self, message: dict[str, Any]) -> None:
        assert self._socket is not None
        # The far end may be gone. The run notices that when no answer comes.
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await self._socket.send_text(
                json.dumps({**message, "streamSid": self.start.get("streamSid", "")})
            )

    async def close(self) -> None:
        """Close the stream with a close frame."""
        assert self._socket is not None
        with contextlib.suppress(RuntimeError):  # it is closed already
            await self._socket.close(1000)

    @property
    def peer(self) -> tuple[str, int] | None:
        """The address of the stream's peer."""
        client = self._socket.client if self._socket is not None else None
        return (client.host, client.port) if client is not None else None


@dataclass
class Listener:
    """Takes and keeps all requests of a run. ``tokens``: the account's auth tokens. ``stack``: the
    id that ``/healthz`` tells, by which the run and other stacks know us."""

    tokens: tuple[str, ...] = field(repr=False)
    stack: str
    public_url: str = ""
    hooks: list[Asked] = field(default_factory=list)
    callbacks: list[Asked] = field(default_factory=list)
    streams: dict[str, LiveStream] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check = SignatureCheck(*self.tokens)
        self._calls: dict[str, asyncio.Queue[Hook]] = {}
        self._newcomer: asyncio.Future[Hook] | None = None
        self._server: Server | None = None
        self.news = News()

    @contextlib.asynccontextmanager
    async def serving(self, host: str, port: int) -> AsyncIterator[int]:
        """Listen during the block; yields the port. SettingsError where the port is taken."""
        app = Starlette(
            routes=[
                WebSocketRoute("/{rest:path}", self._stream),
                Route("/{rest:path}", self._http, methods=["GET", "POST"]),
            ]
        )
        try:
            listening = hosts.listen(host, port)
        except hosts.PortTakenError as error:
            raise SettingsError(
                f"{hosts.join(host, port)} cannot be had: end the stack, or whatever else listens "
                "there, while --live runs, or set TRUNKLINE_HTTP_PORT"
            ) from error
        server = self._server = Server(app, _BOUNDS, WebSocketsSansIOProtocol)
        serving = asyncio.create_task(server.serve([listening]))
        try:
            yield int(listening.getsockname()[1])
        finally:
            server.leave()
            await serving

    # ------------------------------------------------------------------ for the run

    def newcomer(self) -> asyncio.Future[Hook]:
        """The first webhook of the next call that is new."""
        self._newcomer = asyncio.get_running_loop().create_future()
        return self._newcomer

    async def next_hook(self, sid: str, seconds: float) -> Hook | None:
        """The next webhook of a known call. None: none came within so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                return await self._calls[sid].get()
        except TimeoutError:
            return None

    def stream(self, name: str, *, refuse: bool = False) -> LiveStream:
        """Expect a stream at ``/twilio/stream/<name>``. ``refuse``: its upgrade is refused."""
        self.streams[name] = LiveStream(name, refuse)
        return self.streams[name]

    def break_stream(self, stream: LiveStream) -> None:
        """Break the stream's connection, without a close frame."""
        assert self._server is not None
        for connection in list(self._server.server_state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None and transport.get_extra_info("peername")[:2] == stream.peer:
                transport.abort()

    # ------------------------------------------------------------------ HTTP

    async def _http(self, request: Request) -> Response:
        path = _own(request.url.path)
        if request.method == "GET":
            if request.url.path.endswith(HEALTH_PATH):
                return JSONResponse({"ok": True, "stack": self.stack})
            return Response(status_code=404)
        form = Form.parse(await request.body())
        asked = Asked(
            path,
            request.url.query,
            form.first(),
            self._signed(path, request.url.query, form, request.headers),
        )
        if path.startswith(STATUS_PATH):
            self.callbacks.append(asked)
            self.news.tell()
            return Response(status_code=204)
        if not path.startswith((VOICE_PATH, "/twilio/fallback")):
            return Response(status_code=404)
        return await self._hook(asked)

    async def _hook(self, asked: Asked) -> Response:
        hook = Hook(asked)
        queue = self._calls.get(asked.sid)
        if queue is not None:
            queue.put_nowait(hook)
        elif self._newcomer is not None and not self._newcomer.done():
            self._calls[asked.sid] = asyncio.Queue()
            self._newcomer.set_result(hook)
        else:
            # Somebody else calls the number during the run.
            return Response(_BUSY, media_type="application/xml")
        self.hooks.append(asked)
        try:
            async with asyncio.timeout(_ANSWER_WITHIN):
                return await hook.reply
        except TimeoutError:
            return Response("<Response><Hangup/></Response>", media_type="application/xml")

    def _signed(self, path: str, query: str, form: Form, headers: Headers) -> Signed:
        early, signature = _by_headers(headers)
        if early is not None:
            return early
        base = self.public_url
        if self._check.form(base, path, query, form, signature):
            return "right"
        whole = (path, query + RETRY_FRAGMENT) if query else (path + RETRY_FRAGMENT, "")
        if self._check.form(base, *whole, form, signature):
            return "with-fragment"
        return "wrong"

    # ------------------------------------------------------------------ Media Streams

    async def _stream(self, websocket: WebSocket) -> None:
        path = _own(websocket.url.path)
        stream = self.streams.get(path.rpartition("/")[2])
        if stream is None or stream.asked.is_set():
            await websocket.close()
            return
        early, signature = _by_headers(websocket.headers)
        right = self._check.upgrade(self.public_url, path, websocket.url.query, signature)
        stream.signed = early or ("right" if right else "wrong")
        stream.asked.set()
        if stream.refuse:
            await websocket.close()
            return
        await stream.serve(websocket)


def _by_headers(headers: Headers) -> tuple[Signed | None, bytes]:
    """How a request is signed as far as its headers tell alone, or None; and the signature that is
    to be checked then."""
    given = headers.get(HEADER.decode())
    settings = headers.get(SETTINGS_HEADER.decode())
    if is_shared_key(None if settings is None else settings.encode()):
        return "shared-key", b""
    return ("missing", b"") if given is None else (None, given.encode())


def _own(path: str) -> str:
    """The path from ``/twilio/`` on. A proxy may have cut the public URL's own path off, or not."""
    found = path.rfind("/twilio/")
    return path[found:] if found > 0 else path
