"""A process on the bus that sends what it likes, while calls talk: nobody hears it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import msgspec
import psutil
import pytest
import zmq
from e2e.stack import Stack, until

from trunkline.bus import messages as m
from trunkline.bus.endpoints import BusAddress
from trunkline.bus.sockets import DealerSocket, connect_dealer
from trunkline.bus.testing import poison

from .conversations import talking

pytestmark = [pytest.mark.measures, pytest.mark.alone]

_encode = msgspec.msgpack.Encoder().encode


class Rogue:
    """Connections to every socket of the stack."""

    def __init__(self, stack: Stack) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._up: list[str] = []
        directory = BusAddress.parse(stack.bus).directory
        assert directory is not None
        self.endpoints = [f"ipc://{path}" for path in sorted(directory.iterdir()) if is_bus(path)]
        self._sockets = {endpoint: self._connect(endpoint) for endpoint in self.endpoints}

    def _connect(self, endpoint: str) -> DealerSocket:
        return connect_dealer(
            self._context,
            endpoint,
            lambda payload: None,
            on_connected=lambda: self._up.append(endpoint),
            on_disconnected=lambda: None,
        )

    async def connected(self) -> None:
        await until(lambda: len(self._up) == len(self.endpoints), "all connections stand")

    def say(self, endpoint: str, payloads: Iterable[bytes]) -> None:
        for payload in payloads:
            self._sockets[endpoint].send(payload)

    def close(self) -> None:
        for socket in self._sockets.values():
            socket.close()
        self._context.term()


def is_bus(path: Path) -> bool:
    """A socket of the controller or of a worker that lives."""
    if path.name == "control":
        return True
    kind, *rest = path.name.split("-")
    return kind == "w" and psutil.pid_exists(int(rest[0]))


@pytest.fixture
async def rogue(stack: Stack) -> AsyncIterator[Rogue]:
    made = Rogue(stack)
    yield made
    made.close()


def in_names_of_others(status: dict[str, list[dict[str, object]]]) -> list[bytes]:
    """What it takes a name from the log, or from the status, to say."""
    found: list[m.ToController] = []
    (session,) = status["sessions"]
    close = m.CloseSession(session=str(session["id"]))
    for peer in (*status["gateways"], *status["codec_workers"]):
        name = str(peer["id"])
        found += [
            m.Hello(role="gateway", peer=name, pid=os.getpid(), connection=2**40),
            m.Goodbye(peer=name),
            m.Request(peer=name, id=2**40, ttl=9.0, body=close),
        ]
    own = m.Hello(role="adapter", peer="rogue", pid=os.getpid())
    found += [own, m.Request(peer="rogue", id=1, ttl=9.0, body=close)]
    return [_encode(message) for message in found]


async def test_a_rogue_on_the_bus_harms_no_call(stack: Stack, rogue: Rogue) -> None:
    await rogue.connected()
    before = stack.status()
    async with talking(stack, 3) as conversations:
        names = in_names_of_others(stack.status())
        for _ in range(3):
            for endpoint in rogue.endpoints:
                rogue.say(endpoint, [*poison().values(), *names])
            await conversations.both_ways(1.0)
        now = stack.status()
    conversations.check_whole()
    conversations.check_holes(0.1)
    for kind in ("gateways", "codec_workers"):
        pids = [{row["pid"] for row in status[kind]} for status in (before, now)]
        assert pids[0] == pids[1], "none was started again"
    assert now["controller"]["pid"] == before["controller"]["pid"]
    assert "unhealthy" not in now
    assert all(row["dropped"]["undecodable"] >= len(poison()) for row in now["codec_workers"])
