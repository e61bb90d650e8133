"""The load balancer of ``make hosts``, and its table. The hosts themselves are made by root."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from benchmarks import hosts_balancer
from benchmarks.chaos_judge import Verdict
from benchmarks.chaos_score import Score
from benchmarks.hosts_balancer import Backend, Balancer


class Gateway:
    """Says its name to whoever connects, and how it is to whoever probes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ok = True
        self.answers = True
        self.open: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.append(writer)
        said = await reader.readline()
        if not said.startswith(b"GET /healthz"):
            writer.write(self.name.encode() + said)
            return
        if self.answers:
            writer.write(b"HTTP/1.1 %d Whatever\r\n\r\n{}" % (200 if self.ok else 503))
        writer.close()


class Front:
    """A balancer, and whoever connects to it."""

    def __init__(self, port: int, backends: list[Backend]) -> None:
        self.port = port
        self.backends = backends
        self.open: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[str, asyncio.StreamReader]:
        """Who has answered, and what comes from there."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.open.append(writer)
        writer.write(b"\n")
        return (await reader.readline()).decode().strip(), reader

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110  # the balancer looks by itself
            await asyncio.sleep(0.005)


@asynccontextmanager
async def balanced(*gateways: Gateway) -> AsyncIterator[Front]:
    """A balancer in front of them."""
    servers = [await asyncio.start_server(gateway.serve, "127.0.0.1", 0) for gateway in gateways]
    backends = [Backend(f"127.0.0.1:{s.sockets[0].getsockname()[1]}") for s in servers]
    balancer = Balancer(backends)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(balancer.accept, "127.0.0.1", 0)
    front = Front(server.sockets[0].getsockname()[1], backends)
    watching = [loop.create_task(backend.watch()) for backend in backends]
    try:
        async with asyncio.timeout(10.0):
            await front.until(lambda: all(backend.ok for backend in backends))
            yield front
    finally:
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        for each in (server, *servers):
            each.close()
        for writer in (*front.open, *(w for gateway in gateways for w in gateway.open)):
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts_balancer, "PROBE_EVERY", 0.02)


async def test_connections_are_dealt_in_turn_and_break_where_a_gateway_is_silent() -> None:
    a, b = Gateway("a"), Gateway("b")
    async with balanced(a, b) as front:
        found = [await front.connect() for _ in range(4)]
        assert [name for name, _ in found] == ["a", "b", "a", "b"]
        b.answers = False
        await front.until(lambda: front.backends[1].out)
        for _, reader in found[1::2]:
            assert await reader.readline() == b"", "it was broken"
        assert not found[0][1].at_eof()
        assert [(await front.connect())[0] for _ in range(3)] == ["a", "a", "a"]


async def test_who_is_not_ok_keeps_its_connections_and_gets_others_while_nobody_is() -> None:
    a, b = Gateway("a"), Gateway("b")
    async with balanced(a, b) as front:
        name, reader = await front.connect()
        assert name == "a"
        a.ok = False
        await front.until(lambda: not front.backends[0].ok)
        assert [(await front.connect())[0] for _ in range(2)] == ["b", "b"]
        b.ok = False
        await front.until(lambda: not front.backends[1].ok)
        assert {(await front.connect())[0] for _ in range(2)} == {"a", "b"}
        assert not reader.at_eof()


def test_a_row_says_what_became_of_the_calls() -> None:
    from benchmarks.hosts import Row

    verdicts = [
        Verdict(
            "CA1", "a-leg", 9.0, 2, lost_out=8, reported_out=9.4, holes=[(9.0, 1.0), (11, 0.3)]
        ),
        Verdict("CA2", "a-leg", 9.0, 1, dropped=True),
    ]
    row = Row("host b is gone", Score(verdicts), 10.0, 2, 1, 6, 5)
    assert row.cells() == [
        *("host b is gone", "1 of 2", "1", "1", "8, 9", "0, 0", "0", "300", "5 of 6"),
    ]
