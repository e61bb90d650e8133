"""A load balancer in front of several gateways: each connection goes to the next of them.

    python -m benchmarks.hosts_balancer HOST:PORT BACKEND:PORT …

It knows nothing of calls, so a call's webhook and its stream reach different hosts as a rule. Every
:data:`PROBE_EVERY` it asks each gateway's /healthz?ready:

- A gateway that does not answer, :data:`FAILURES` times in a row, is out. The connections to it are
  broken, because whoever waits on them has to notice.
- One that answers 503 keeps its connections, because its calls go on. It gets new ones only while
  nobody answers 200.

A connection that a gateway does not take goes to the next one. It prints ``ready``, and ends when
its stdin does.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
from functools import partial
from typing import Final, cast

import uvloop

#: Seconds between two looks at a gateway, for an answer, and for a connection.
PROBE_EVERY: Final = 0.5
ANSWERS_WITHIN: Final = 1.0
CONNECTS_WITHIN: Final = 0.5
#: Missing answers in a row, after which a gateway is out.
FAILURES: Final = 2
_PROBE: Final = b"GET /healthz?ready HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n"


class Backend:
    """One gateway, and the connections to it."""

    def __init__(self, address: str) -> None:
        self.host, _, port = address.rpartition(":")
        self.port = int(port)
        self.failures = FAILURES
        self.ok = False
        #: the ends of connections that stand
        self.sides: set[Side] = set()

    @property
    def out(self) -> bool:
        return self.failures >= FAILURES

    async def watch(self) -> None:
        """Look at it for ever."""
        while True:
            before = self.ok, self.out
            try:
                async with asyncio.timeout(ANSWERS_WITHIN):
                    self.ok = await self._ready()
                self.failures = 0
            except (OSError, TimeoutError, ValueError):
                self.failures += 1
                self.ok = self.ok and not self.out
            if (self.ok, self.out) != before:
                how = "out" if self.out else "ok" if self.ok else "there"
                print(f"{self.host} is {how}", file=sys.stderr, flush=True)
            if self.out and not before[1]:
                for side in list(self.sides):
                    side.abort()
            await asyncio.sleep(PROBE_EVERY)

    async def _ready(self) -> bool:
        """Calls should come here. OSError or ValueError where there is no answer."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(_PROBE)
            answer = await reader.read()
        finally:
            writer.close()
        if not answer.startswith(b"HTTP/1.1 "):
            raise ValueError("no answer of HTTP")
        return answer.startswith(b"HTTP/1.1 200 ")


class Side(asyncio.Protocol):
    """One end of a connection: what comes here goes to the other one, which gets ours as ``other``
    once it stands."""

    def __init__(self, other: Side | None = None, among: set[Side] | None = None) -> None:
        self.other = other
        #: where it stands for as long as it does
        self._among: set[Side] = set() if among is None else among
        self.transport: asyncio.Transport | None = None
        #: what came before the other end stood
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's has no such base
        self._among.add(self)

    def joined(self, other: Side) -> None:
        """The other end stands."""
        self.other = other
        for data in self._early:
            self.data_received(data)
        if self.transport is not None and self.transport.is_closing():
            other.abort()

    def data_received(self, data: bytes) -> None:
        if self.other is None or self.other.transport is None:
            self._early.append(data)
        else:
            self.other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._among.discard(self)
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()

    def abort(self) -> None:
        """Break both ends."""
        for side in (self, self.other):
            if side is not None and side.transport is not None:
                side.transport.abort()


class Balancer:
    """Deals connections out in turn."""

    def __init__(self, backends: list[Backend]) -> None:
        self._backends = backends
        self._turn = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self) -> Side:
        side = Side()
        task = asyncio.get_running_loop().create_task(self._connect(side))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return side

    async def _connect(self, side: Side) -> None:
        first = next(self._turn) % len(self._backends)
        order = [*self._backends[first:], *self._backends[:first]]
        loop = asyncio.get_running_loop()
        for backend in sorted(order, key=lambda backend: not backend.ok):
            if backend.out:
                continue
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(CONNECTS_WITHIN):
                    _, far = await loop.create_connection(
                        partial(Side, side, backend.sides), backend.host, backend.port
                    )
                side.joined(far)
                return
        side.abort()


async def main(listen: str, *addresses: str) -> None:
    backends = [Backend(address) for address in addresses]
    balancer = Balancer(backends)
    host, _, port = listen.rpartition(":")
    loop = asyncio.get_running_loop()
    server = await loop.create_server(balancer.accept, host, int(port), backlog=512)
    watching = [loop.create_task(backend.watch()) for backend in backends]
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for task in watching:
        task.cancel()
    server.close()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
