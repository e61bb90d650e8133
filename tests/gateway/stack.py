"""A dumb controller and dumb workers on a real bus, for tests of the whole gateway."""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import hmac
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
import zmq
from msgspec.structs import replace
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from trunkline.bus import hosts
from trunkline.bus import messages as m
from trunkline.bus.curve import stop_authenticator
from trunkline.bus.settings import Settings, load
from trunkline.bus.sockets import bind_router
from trunkline.bus.testing import Context, FakeController, until
from trunkline.gateway.process import Gateway
from trunkline.gateway.signature import SignatureCheck

from .model import INFO

TOKEN = "a-secret-token"
BASE = "https://line.example.com"
ACCOUNT = "AC" + "1" * 32
CALL = "CA" + "1" * 32
STREAM = "MZ" + "1" * 32
#: A voice webhook's, or a status callback's.
FORM = {
    "AccountSid": ACCOUNT,
    "CallSid": CALL,
    "CallStatus": "ringing",
    "From": "+14155551234",
    "FromCity": "",
    "To": "+14155557777",
}

_encode = msgspec.msgpack.Encoder().encode
_from_gateway = msgspec.msgpack.Decoder(m.ToWorker)

_M = TypeVar("_M", bound=msgspec.Struct)


def sign(url: str, form: dict[str, str] | None = None, token: str = TOKEN) -> str:
    text = url + "".join(name + value for name, value in sorted((form or {}).items()))
    digest = hmac.new(token.encode(), text.encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode()


class Controller(FakeController):
    """Lets in every stream whose token it knows."""

    def __init__(self, context: Context, endpoint: str) -> None:
        super().__init__(context, endpoint, account=ACCOUNT, public_url=BASE, lead_ms=80)
        #: token -> answer
        self.tokens: dict[str, m.StreamAccepted | m.StreamRefused] = {}
        #: sent right behind the answer to a StreamStart
        self.after_start: m.Event | None = None

    def usual(self, body: m.RequestBody) -> m.ReplyBody:
        if isinstance(body, m.VoiceWebhook):
            return m.VoiceAnswer(kind="busy")
        if isinstance(body, m.StreamStart):
            return self.tokens.pop(body.token, None) or m.StreamRefused(why="unknown token")
        return super().usual(body)

    def reply(self, request: m.Request, identity: bytes) -> None:
        super().reply(request, identity)
        if isinstance(request.body, m.StreamStart) and self.after_start is not None:
            self.tell(self.after_start)


class Worker:
    """Ticks while it is told to, keeps what it gets, says what the test says."""

    def __init__(self, context: Context, settings: Settings, name: str) -> None:
        self.router, endpoint = bind_router(context, settings.address.worker(), self._receive)
        self.ref = m.WorkerRef(id=name, endpoint=endpoint)
        self.heard: deque[m.ToWorker] = deque()
        self.peer: bytes | None = None
        self.ticking = True
        self._task = asyncio.get_running_loop().create_task(self._tick())

    def _receive(self, identity: bytes, payload: bytes) -> None:
        message = _from_gateway.decode(payload)
        if isinstance(message, m.MediaHello):
            assert message.role == "gateway"
            self.peer = identity
        self.heard.append(message)

    async def _tick(self) -> None:
        n = 0
        while True:
            n += 1
            if self.ticking and self.peer is not None:
                self.say(m.Tick(self.ref.id, n))
            await asyncio.sleep(0.1)

    def say(self, message: m.WorkerToGateway) -> None:
        assert self.peer is not None
        self.router.send(_encode(message), self.peer)

    def speak(self, generation: int, position: int, payload: bytes, call: str = "c1") -> None:
        self.say(m.Outbound([m.OutFrame(call, generation, position, payload)]))

    def all(self, kind: type[_M]) -> list[_M]:
        return [message for message in self.heard if isinstance(message, kind)]

    def frames(self) -> list[m.InFrame]:
        """Each of 20 ms: two that were read together came as one."""
        return [
            replace(frame, position=frame.position + at, payload=frame.payload[at : at + 160])
            for batch in self.all(m.Inbound)
            for frame in batch.frames
            for at in range(0, len(frame.payload), 160)
        ]

    def written(self) -> list[m.WrittenTo]:
        return [to for batch in self.all(m.Inbound) for to in batch.written]

    def die(self) -> None:
        self._task.cancel()
        self.router.close()


class Stack:
    """A gateway that serves on a free port, with its controller and two workers."""

    def __init__(self, settings: Settings, context: Context) -> None:
        self.settings = settings
        self.context = context
        self.controller = Controller(context, settings.address.control)
        self.a = Worker(context, settings, "a")
        self.b = Worker(context, settings, "b")
        self.stop = asyncio.Event()
        self.gateway = Gateway(settings, SignatureCheck(TOKEN), context, self.stop)
        self.port = 0
        #: the gateway's run; its exit status
        self.serving: asyncio.Task[int]

    def accepted(self, *, call: str = "c1", ordinal: int = 1) -> m.StreamAccepted:
        placement = m.Placement(epoch=1, n=1, primary=self.a.ref, standby=self.b.ref)
        info = replace(INFO, call=call, ordinal=ordinal, placement=placement)
        return m.StreamAccepted(info=info, first=ordinal == 1)

    async def stream(
        self, token: str = "t1", *, started: bool = True, tracks: tuple[str, ...] = ("inbound",)
    ) -> ClientConnection:
        """Twilio's side of a stream; started with this token."""
        headers = {"X-Twilio-Signature": sign("wss://line.example.com/twilio/stream")}
        client = await connect(
            f"ws://127.0.0.1:{self.port}/twilio/stream",
            additional_headers=headers,
            compression=None,
            proxy=None,
        )
        await client.send(json.dumps({"event": "connected", "protocol": "Call"}))
        if started:
            await client.send(start(token, tracks))
        return client

    async def up(self) -> ClientConnection:
        """The call's first stream, which worker ``a`` has."""
        self.controller.tokens["t1"] = self.accepted()
        client = await self.stream()
        await until(lambda: self.a.all(m.OpenCall))
        return client


async def close_code(client: ClientConnection) -> int:
    """The code with which the gateway closes this connection, which says nothing before."""
    with pytest.raises(ConnectionClosed) as closed:
        await client.recv()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


def start(token: str, tracks: tuple[str, ...] = ("inbound",)) -> str:
    body: dict[str, Any] = {"callSid": CALL, "streamSid": STREAM, "tracks": tracks}
    body["customParameters"] = {"nonce": token}
    return json.dumps({"event": "start", "streamSid": STREAM, "start": body})


def media(timestamp: int, payload: bytes, track: str = "inbound") -> str:
    body = {
        "track": track,
        "chunk": "1",
        "timestamp": str(timestamp),
        "payload": base64.b64encode(payload).decode(),
    }
    return json.dumps({"event": "media", "streamSid": STREAM, "media": body})


def event(name: str, **more: Any) -> str:
    return json.dumps({"event": name, "streamSid": STREAM, **more})


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Stack]:
    settings = load(
        env_file=None, bus=f"ipc://{directory}", auth_token=TOKEN, account_sid=ACCOUNT, http_port=0
    )
    settings.address.make_directory()
    context: Context = zmq.Context()
    stack = Stack(settings, context)
    listening = hosts.listen("127.0.0.1", 0)
    stack.port = listening.getsockname()[1]
    threshold = gc.get_threshold()
    task = stack.serving = asyncio.create_task(stack.gateway.run(listening))
    try:
        await until(lambda: stack.gateway.client.welcome)
        yield stack
    finally:
        stack.controller.stop()
        stack.stop.set()
        try:
            assert await task == 0
        finally:
            gc.set_threshold(*threshold)
            stack.a.die()
            stack.b.die()
            stop_authenticator(context)
            context.term()
