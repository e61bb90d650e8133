"""Measure a gateway alone: ``python benchmarks/gateway_alone.py [--calls 100] [--seconds 10]``.

A gateway process carries full-duplex calls between real WebSockets and a dumb worker, all of which
(carrier, controller, worker) live in this process. What is told is the gateway's own CPU time for
one second of one call, and how long a frame takes from the carrier's socket to the worker's. The
same calls then go through the same gateway with the websockets package in the place of
:mod:`trunkline.gateway.websocket`: the ratio says what our own framing is worth, on any machine.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
import uvloop
import zmq
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from trunkline.bus import hosts
from trunkline.bus import messages as m
from trunkline.bus.settings import load
from trunkline.bus.sockets import bind_router
from trunkline.bus.testing import FakeController, until
from trunkline.gateway import process
from trunkline.gateway.websocket import (
    MAX_MESSAGE_BYTES,
    Accept,
    Handler,
    Refusal,
    Upgrade,
    WebSocket,
)

FRAME = 160
TICK = 0.020
#: The carrier's sockets send in this many groups, spread over 20 ms.
GROUPS = 20

_encode = msgspec.msgpack.Encoder().encode
_from_gateway = msgspec.msgpack.Decoder(m.ToWorker)


# ------------------------------------------------------------------- the package's framing


class PackageSocket(asyncio.Protocol):
    """A WebSocket as :mod:`trunkline.gateway.websocket` is one, framed by the websockets package:
    its sans-I/O protocol, without extensions, straight under uvicorn. No task, no queue and no ASGI
    stands between the socket and the shell, so what differs is the framing alone."""

    accept: Accept

    def __init__(self, config: object, server_state: object, app_state: object) -> None:
        self._protocol = ServerProtocol(max_size=MAX_MESSAGE_BYTES)
        self._transport: asyncio.Transport | None = None
        self._handler: Handler | None = None

    @property
    def is_open(self) -> bool:
        return self._protocol.state is State.OPEN

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._handler is not None:
            self._handler.closed(True)

    def data_received(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._open(event)
            elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                assert self._handler is not None
                self._handler.text(cast(bytes, event.data))
        self._flush()

    def _open(self, request: Request) -> None:
        path, _, query = request.path.partition("?")
        headers = {name.lower(): value for name, value in request.headers.raw_items()}
        handler = self.accept(Upgrade(path, query, headers))
        assert not isinstance(handler, Refusal), handler
        self._protocol.send_response(self._protocol.accept(request))
        self._handler = handler
        handler.opened(cast(WebSocket, self))

    def believe(self) -> None:
        """Strangers are not bounded here: the bench knows its carrier."""

    def send_text(self, text: bytes) -> None:
        self._protocol.send_text(text)
        self._flush()

    def close(self, code: int = 1000, reason: str = "") -> None:
        self._protocol.send_close(code, reason)
        self._flush()

    def _flush(self) -> None:
        assert self._transport is not None
        for data in self._protocol.data_to_send():
            self._transport.write(data)


def package_class(accept: Accept, read_by: object = None) -> type[PackageSocket]:
    """In the place of :func:`trunkline.gateway.websocket.protocol_class`; the loop reads each
    socket by itself."""
    return type("Accepting", (PackageSocket,), {"accept": staticmethod(accept)})


# ------------------------------------------------------------------------ the other side


class Carrier(asyncio.Protocol):
    """One socket of the carrier. Its masking key is 0, so its frames can be made beforehand."""

    def __init__(self, number: int) -> None:
        self.call = f"{number:032x}"
        self.stream_sid = f"MZ{number:032d}"
        self.received = 0
        self.ready = asyncio.Event()
        self._transport: asyncio.Transport | None = None
        self._sent = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(
            b"GET /twilio/stream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )

    def data_received(self, data: bytes) -> None:
        if not self.ready.is_set():
            assert data.startswith(b"HTTP/1.1 101 "), data
            self.ready.set()
            return
        self.received += len(data)

    def start(self) -> None:
        self._write({"event": "connected", "protocol": "Call", "version": "1.0.0"})
        body = {
            "streamSid": self.stream_sid,
            "callSid": "CA" + self.call,
            "customParameters": {"nonce": self.call},
        }
        self._write({"event": "start", "streamSid": self.stream_sid, "start": body})

    def media(self, payload: str) -> None:
        body = {
            "track": "inbound",
            "chunk": str(self._sent + 1),
            "timestamp": str(self._sent * 20),
            "payload": payload,
        }
        self._sent += 1
        self._write(
            {
                "event": "media",
                "sequenceNumber": str(self._sent + 1),
                "media": body,
                "streamSid": self.stream_sid,
            }
        )

    def _write(self, message: dict[str, Any]) -> None:
        assert self._transport is not None
        text = msgspec.json.encode(message)
        head = b"\x81\xfe" + len(text).to_bytes(2, "big")
        if len(text) < 126:
            head = bytes((0x81, 0x80 | len(text)))
        self._transport.write(head + bytes(4) + text)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


@dataclass
class Result:
    """CPU in ms of one second of one call; latencies in ms; frames of both directions."""

    cpu: float
    latencies: list[float] = field(repr=False)
    frames_in: int
    frames_out: int

    def line(self, name: str) -> str:
        cuts = statistics.quantiles(self.latencies, n=100)
        return (
            f"{name:8} {self.cpu:6.2f} ms CPU per call-second; carrier to worker "
            f"p50 {cuts[49]:.2f} ms, p99 {cuts[98]:.2f} ms; "
            f"{self.frames_in} frames in, {self.frames_out} out"
        )


class Bench:
    """The other side of the gateway."""

    def __init__(self, directory: str, calls: int) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self.settings = load(env_file=None, bus=f"ipc://{directory}", validate_signature=False)
        self.settings.address.make_directory()
        self.controller = FakeController(
            context, self.settings.address.control, public_url="http://127.0.0.1"
        )
        self.controller.answers[m.StreamStart] = self._accept
        self.worker, self.endpoint = bind_router(
            context, self.settings.address.worker(), self._media
        )
        self.carriers = [Carrier(n) for n in range(calls)]
        self.peer: bytes | None = None
        self.positions: dict[str, int] = {}
        self.latencies: list[float] = []
        self.frames_in = 0
        self.measuring = False

    def _accept(self, body: m.StreamStart) -> m.StreamAccepted:
        """Let the stream in: its token is its call."""
        info = m.CallInfo(
            call=body.token,
            session="s",
            sid=body.call_sid,
            direction="inbound",
            caller="+14155550001",
            callee="+14155550002",
            secret="x",
            ordinal=1,
            placement=m.Placement(epoch=1, n=1, primary=m.WorkerRef("w", self.endpoint)),
        )
        return m.StreamAccepted(info=info, first=True)

    def _media(self, identity: bytes, payload: bytes) -> None:
        message = _from_gateway.decode(payload)
        self.peer = identity
        if isinstance(message, m.OpenCall):
            self.positions[message.call] = 0
        elif isinstance(message, m.Inbound) and self.measuring:
            now = time.perf_counter_ns()
            self.frames_in += len(message.frames)
            for frame in message.frames:
                sent = int.from_bytes(frame.payload[:8], "big")
                self.latencies.append((now - sent) / 1e6)

    async def run(self, pid: int, port: int, seconds: float) -> Result:
        import psutil  # for development only

        loop = asyncio.get_running_loop()
        for carrier in self.carriers:
            await loop.create_connection(lambda c=carrier: c, "127.0.0.1", port)  # type: ignore[misc]  # mypy: lambda defaults
            async with asyncio.timeout(10):
                await carrier.ready.wait()
            carrier.start()
        await until(lambda: len(self.positions) == len(self.carriers), 20)
        began = loop.time()
        gateway = psutil.Process(pid)
        jobs = [
            asyncio.create_task(self._carrier(began, seconds + 2.0)),
            asyncio.create_task(self._work(began, seconds + 2.0)),
        ]
        await asyncio.sleep(1.0)  # the first second warms up
        self.measuring = True
        out, cpu, at = sum(c.received for c in self.carriers), _cpu(gateway), loop.time()
        await asyncio.sleep(seconds)
        self.measuring = False
        used, passed = _cpu(gateway) - cpu, loop.time() - at
        out = sum(c.received for c in self.carriers) - out
        await asyncio.gather(*jobs)
        for carrier in self.carriers:
            carrier.close()
        frame = 4 + len('{"event":"media","streamSid":"","media":{"payload":""}}') + 34 + 216
        return Result(
            used * 1000 / passed / len(self.carriers), self.latencies, self.frames_in, out // frame
        )

    async def _carrier(self, began: float, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        groups = [self.carriers[n::GROUPS] for n in range(GROUPS)]
        for n in range(int(seconds / TICK * GROUPS)):
            left = began + n * TICK / GROUPS - loop.time()
            if left > 0:
                await asyncio.sleep(left)
            stamp = time.perf_counter_ns().to_bytes(8, "big") + bytes(FRAME - 8)
            payload = base64.b64encode(stamp).decode()
            for carrier in groups[n % GROUPS]:
                carrier.media(payload)

    async def _work(self, began: float, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        generation = m.first_generation(1)
        for n in range(int(seconds / TICK)):
            left = began + n * TICK - loop.time()
            if left > 0:
                await asyncio.sleep(left)
            frames = []
            for call, position in self.positions.items():
                frames.append(m.OutFrame(call, generation, position, bytes(FRAME)))
                self.positions[call] = position + FRAME
            assert self.peer is not None
            self.worker.send(_encode(m.Outbound(frames)), self.peer)
            if n % 5 == 0:
                self.worker.send(_encode(m.Tick("w", n)), self.peer)

    def close(self) -> None:
        self.controller.stop()
        self.worker.close()


def _cpu(process: Any) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def measure(kind: str, calls: int, seconds: float) -> Result:
    """Run one gateway of this kind (``trunkline`` or ``package``) in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="tl-", dir="/tmp") as directory:
        held = hosts.listen("127.0.0.1", 0)

        async def run() -> Result:
            bench = Bench(directory, calls)
            child = subprocess.Popen(  # noqa: ASYNC220  # before there is anything to hold up
                [
                    sys.executable,
                    __file__,
                    f"--child={kind}",
                    f"--listen-fd={held.fileno()}",
                    f"--bus=ipc://{directory}",
                ],
                pass_fds=[held.fileno()],
            )
            try:
                return await bench.run(child.pid, held.getsockname()[1], seconds)
            finally:
                child.terminate()
                await asyncio.to_thread(child.wait)
                bench.close()

        with held, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run())


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python benchmarks/gateway_alone.py")
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--only", choices=["trunkline", "package"])
    for internal in ("--child", "--listen-fd", "--bus"):
        parser.add_argument(internal, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        if given.child == "package":
            vars(process)["protocol_class"] = package_class
        settings = load(env_file=None, bus=given.bus, validate_signature=False)
        return process.main(settings, listen_fd=int(given.listen_fd))
    results = {
        kind: measure(kind, given.calls, given.seconds)
        for kind in ("trunkline", "package")
        if given.only in (None, kind)
    }
    for kind, result in results.items():
        print(result.line(kind))
    if len(results) == 2:
        print(f"ratio    {results['package'].cpu / results['trunkline'].cpu:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
