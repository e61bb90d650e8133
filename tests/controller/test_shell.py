"""The controller's shell without a socket: where answers go, and how long it may take to end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from trunkline.bus import messages as m
from trunkline.controller import instructions as do
from trunkline.controller.journal.memory import MemoryJournal
from trunkline.controller.shell import STOP_WITHIN, Shell

from .fake_carrier import FakeCarrier, FakeTime
from .stage import Stage
from .test_crashes import ops_for


class FakeRouter:
    """Keeps what was sent, and to which identity."""

    def __init__(self, on_message: Callable[[bytes, bytes], None]) -> None:
        self.on_message = on_message
        self.sent: list[tuple[bytes, m.FromController]] = []

    def hear(self, identity: bytes, message: m.ToController) -> None:
        self.on_message(identity, msgspec.msgpack.encode(message))

    def send(self, payload: bytes, to: bytes) -> bool:
        self.sent.append((to, msgspec.msgpack.decode(payload, type=m.FromController)))
        return True


class Served:
    """A shell around a core that has nobody yet."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time = FakeTime()
        ops = ops_for(self.time, FakeCarrier(self.time), MemoryJournal())
        self.core = Stage(peers=False).core
        self.clock: Callable[[], float] = lambda: 100.0
        self.shell = Shell(self.core, ops, asyncio.Event(), clock=lambda: self.clock())
        self.router: FakeRouter

        def bind(
            context: Any, endpoint: str, on_message: Callable[[bytes, bytes], None], *, curve: Any
        ) -> tuple[FakeRouter, str]:
            self.router = FakeRouter(on_message)
            return self.router, endpoint

        monkeypatch.setattr("trunkline.controller.shell.bind_router", bind)
        self.shell.listen(None, "ipc:///nowhere", None)  # type: ignore[arg-type]  # it is not used


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    yield Served(monkeypatch)


def hello(connection: int, **fields: Any) -> m.Hello:
    return m.Hello(role="adapter", peer="a1", pid=1, connection=connection, **fields)


@pytest.mark.parametrize("late", [hello(1), m.Beat(peer="a1")])
def test_answers_go_to_the_newest_connection_whatever_is_read_late(
    served: Served, late: m.ToController
) -> None:
    """The controller stood still: a ROUTER reads its connections in turn, not by their age."""
    router = served.router
    if isinstance(late, m.Beat):
        router.hear(b"old", hello(1))
    router.hear(b"new", hello(2))
    router.hear(b"old", late)
    router.sent.clear()
    served.shell._carry_out(do.Send("a1", m.SessionLost(session="s", why="w")))
    assert [to for to, _ in router.sent] == [b"new"]


def test_a_hello_that_is_read_late_says_nothing_of_what_its_peer_has(served: Served) -> None:
    info = Stage().info()
    served.router.hear(b"new", hello(2))
    served.router.hear(b"old", hello(1, sessions=[info]))
    assert not served.core.book.sessions
    served.router.hear(b"new", hello(2, sessions=[info]))
    assert list(served.core.book.sessions) == [info.session]


async def test_the_end_does_not_wait_for_what_is_left_of_its_time_in_ever_smaller_pieces(
    served: Served,
) -> None:
    readings = iter([100.0])
    served.clock = lambda: next(readings, 100.0 + STOP_WITHIN - 1e-9)
    served.shell._noting = 1  # a note to the journal that does not come to its end
    async with asyncio.timeout(2.0):
        await served.shell._shut_down()
