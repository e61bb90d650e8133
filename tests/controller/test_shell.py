"""The controller's shell without a socket: where answers go, and how long it may take to end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from unittest import mock

import msgspec
import pytest
from simulation.memory_journal import MemoryJournal

from trunkline.bus import messages as m
from trunkline.bus.process import EXIT_FAILED
from trunkline.controller import events as ev
from trunkline.controller import instructions as do
from trunkline.controller.core import HEARS
from trunkline.controller.journal.database import JournalError
from trunkline.controller.rules import facts as f
from trunkline.controller.rules.book.session import NOBODY
from trunkline.controller.rules.moment import Moment
from trunkline.controller.shell import MAY_BE_TAKEN, STOP_WITHIN, Shell
from trunkline.controller.twilio.apply_restore import apply
from trunkline.controller.twilio.seal import Seal

from .fake_carrier import OURS, FakeCarrier, FakeTime, ops_for, row_for
from .stage import Stage


class FakeRouter:
    """Keeps what was sent, and to which identity."""

    by_client_key = False

    def __init__(self, on_message: Callable[[bytes, bytes], None]) -> None:
        self.on_message = on_message
        self.sent: list[tuple[bytes, m.FromController]] = []
        self.gone: set[bytes] = set()

    def hear(self, identity: bytes, message: m.ToController) -> None:
        self.on_message(identity, msgspec.msgpack.encode(message))

    def send(self, payload: bytes, to: bytes) -> bool:
        self.sent.append((to, msgspec.msgpack.decode(payload, type=m.FromController)))
        return True

    def is_up(self, identity: bytes, sign: bytes) -> bool:
        return identity not in self.gone

    def close(self, linger: int = 0) -> None:
        """Nothing is open."""


class Served:
    """A shell around a core that has nobody yet."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time = FakeTime()
        self.carrier = FakeCarrier(self.time)
        self.ops = ops_for(self.time, self.carrier, MemoryJournal())
        self.core = Stage(peers=False).core
        self.clock: Callable[[], float] = lambda: 100.0
        self.shell = Shell(self.core, self.ops, asyncio.Event(), clock=lambda: self.clock())
        self.router: FakeRouter

        def bind(
            context: Any, endpoint: str, on_message: Callable[[bytes, bytes], None], **_: Any
        ) -> tuple[FakeRouter, str]:
            self.router = FakeRouter(on_message)
            return self.router, endpoint

        monkeypatch.setattr("trunkline.controller.shell.bind_router", bind)
        self.shell.listen(None, "ipc:///nowhere", None)  # type: ignore[arg-type]  # it is not used


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    yield Served(monkeypatch)


def hello(connection: int, **fields: Any) -> m.Hello:
    return m.Hello(role="adapter", peer="a1", pid=1, connection=connection, key="k1", **fields)


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


async def test_who_stood_still_asks_first_whether_the_stack_is_still_his(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another controller may have its calls by now, and they must not be hung up here."""
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    monkeypatch.setattr(MemoryJournal, "shared", True)
    monkeypatch.setattr(MemoryJournal, "confirm", lambda journal: answer)
    served.router.hear(b"a", hello(1))
    assert "a1" in served.core.book.peers.by_id
    served.clock = lambda: 100.0 + MAY_BE_TAKEN + 0.1
    served.shell._feed(ev.ConnectionLost("a1"))
    served.shell._feed(ev.Tick())
    assert "a1" in served.core.book.peers.by_id, "nothing is done before the answer"
    answer.set_result(None)
    await asyncio.gather(*served.shell._tasks)
    assert "a1" not in served.core.book.peers.by_id

    served.router.hear(b"b", hello(2))
    answer = asyncio.get_running_loop().create_future()
    served.clock = lambda: 200.0
    served.shell._feed(ev.ConnectionLost("a1"))
    answer.set_exception(JournalError("taken"))
    await asyncio.gather(*served.shell._tasks, return_exceptions=True)
    assert "a1" in served.core.book.peers.by_id and str(served.shell._fatal) == "taken"


async def test_a_hello_says_for_which_stack_it_is(served: Served) -> None:
    """A controller that runs another one's stack beside its own serves both on its socket."""
    own = served.core.book.identity.stack
    fleet = [m.ControllerRef(stack=stack, bus=f"tcp://{stack}:1") for stack in (own, "dead")]
    served.shell.fleet_seen(fleet)
    router = served.router

    def told(identity: bytes, said: m.ToController) -> list[m.FromController]:
        router.sent.clear()
        router.hear(identity, said)
        return [message for to, message in router.sent if to == identity]

    asked = hello(1, stack="dead")
    assert told(b"a", asked) == [m.Moved(stack="dead", bus="tcp://dead:1")]
    core = Stage(peers=False).core
    core.book.identity = replace(core.book.identity, stack="dead")
    guest = Shell(core, served.ops, asyncio.Event(), clock=lambda: 100.0)
    hosting = asyncio.ensure_future(served.shell.host(guest))
    await asyncio.sleep(0)
    (welcome,) = told(b"a", asked)
    assert isinstance(welcome, m.Welcome) and (welcome.stack, welcome.fleet) == ("dead", fleet)
    assert list(guest.core.book.peers.by_id) == ["a1"] and not served.core.book.peers.by_id
    (pulse,) = told(b"a", m.Beat(peer="a1"))
    assert isinstance(pulse, m.Pulse) and (pulse.stack, pulse.known) == ("dead", True)
    # A connection may ask for the other stack.
    for stack in (own, "dead", "", "dead"):
        (welcome,) = told(b"a", hello(1, stack=stack))
        assert isinstance(welcome, m.Welcome) and welcome.stack == (stack or own)
    # The same process may have another connection, for the other stack.
    (welcome,) = told(b"b", hello(1, stack=own))
    assert isinstance(welcome, m.Welcome) and welcome.stack == own

    # Once nothing is left of it, whoever asks for it joins the stack that is here.
    guest.core.book.end_claims()
    await hosting
    (pulse,) = told(b"a", m.Beat(peer="a2"))
    assert isinstance(pulse, m.Pulse) and (pulse.stack, pulse.known) == (own, False)
    served.shell.fleet_seen(fleet[:1])
    assert told(b"g", m.Hello(role="gateway", peer="g1", pid=1, stack="dead")) == [
        m.Moved(stack="dead")
    ]
    (welcome,) = told(b"c", hello(2, stack="dead"))
    assert isinstance(welcome, m.Welcome) and welcome.stack == own


async def test_a_connection_that_goes_to_another_stack_leaves_the_one_before(
    served: Served,
) -> None:
    """Else that stack would keep the name, and tell a client of another one about its sessions."""
    own = served.core.book.identity.stack
    core = Stage(peers=False).core
    core.book.identity = replace(core.book.identity, stack="dead")
    guest = Shell(core, served.ops, asyncio.Event(), clock=lambda: 100.0)
    hosting = asyncio.ensure_future(served.shell.host(guest))
    await asyncio.sleep(0)
    info = Stage().info()
    router, shells = served.router, {own: served.shell, "dead": guest}
    for here, there in ((own, "dead"), ("dead", own)):
        router.hear(b"a", hello(1, stack=here, sessions=[info]))
        router.hear(b"a", hello(1, stack=there))
        left = shells[here].core.book
        assert not left.peers.by_id["a1"].connected and left.sessions[info.session].peer == NOBODY
        router.sent.clear()
        shells[here]._carry_out(do.Send("a1", m.SessionLost(session=info.session, why="w")))
        assert router.sent == []
        # Where it has nothing, no name is left either: anybody may say it.
        router.hear(b"a", hello(1, stack=here))
        assert "a1" not in shells[there].core.book.peers.by_id
        assert shells[there]._names.unknown("a1")
    hosting.cancel()
    await asyncio.gather(hosting, return_exceptions=True)


async def test_the_end_does_not_wait_for_what_is_left_of_its_time_in_ever_smaller_pieces(
    served: Served,
) -> None:
    readings = iter([100.0])
    served.clock = lambda: next(readings, 100.0 + STOP_WITHIN - 1e-9)
    served.shell._noting = 1  # a note to the journal that does not come to its end
    async with asyncio.timeout(2.0):
        await served.shell._shut_down()


# --------------------------------------------------------------------------- one write at a time


async def test_a_number_gets_its_next_override_behind_what_is_being_put_back_there(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write that puts it back lands late, and would undo the override that had overtaken it."""
    sid = served.carrier.add_number(OURS)
    await apply(served.ops, row_for(sid, "former"), served.time.now + 30)
    results: list[ev.Result] = []
    monkeypatch.setattr(served.shell, "_feed", results.append)
    served.carrier.plan("write", "late")
    await asyncio.gather(
        served.shell._work(do.Restore("former")),
        served.shell._work(do.Apply(row_for(sid, "next"), served.time.now + 300)),
    )
    assert [type(result) for result in results] == [ev.Restored, ev.Applied]
    served.time.advance(300.0)
    seal = Seal.read(served.carrier.numbers[sid].voice_url)
    assert seal is not None and seal.override == "next"


# --------------------------------------------------------------------------- faults of ours


def broken(at: Moment, heard: object) -> None:
    raise KeyError("a rule that is wrong")


@contextlib.contextmanager
def wrong_rule(*heard: type) -> Iterator[None]:
    with mock.patch.dict(HEARS, {what: (broken,) for what in heard}):
        yield


def test_a_request_that_cannot_be_handled_is_refused_by_name_and_the_others_are_served(
    served: Served,
) -> None:
    router = served.router
    router.hear(b"one", hello(1))
    with wrong_rule(m.Disarm):
        router.hear(b"one", m.Request(peer="a1", id=1, ttl=9.0, body=m.Disarm(session="s")))
    router.hear(b"one", m.Request(peer="a1", id=2, ttl=9.0, body=m.GetStatus()))
    refused, status = [x for _, x in router.sent if isinstance(x, m.Reply)]
    assert refused.error is not None and refused.error.kind == "InternalError"
    assert isinstance(status.body, m.StatusReport)


def test_a_peer_whose_hello_cannot_be_handled_is_refused_by_name(served: Served) -> None:
    with wrong_rule(f.ClientHere):
        served.router.hear(b"one", hello(1))
    ((_, refused),) = served.router.sent
    assert isinstance(refused, m.Refused) and refused.error.kind == "InternalError"
    served.router.hear(b"two", m.Hello(role="gateway", peer="g1", pid=1))
    assert isinstance(served.router.sent[-1][1], m.Welcome)


@pytest.mark.parametrize("event", [ev.Tick, m.Beat, ev.Fetched])
async def test_any_other_fault_in_the_core_ends_the_controller(
    served: Served, event: type, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither numbers nor calls are touched any more: what was half changed is not to be trusted.
    The journal has what the next start needs."""
    served.router.hear(b"one", hello(1))
    served.router.sent.clear()
    with wrong_rule(event):
        serving = asyncio.create_task(served.shell.serve())
        if event is m.Beat:
            served.router.hear(b"one", m.Beat(peer="a1"))
        elif event is ev.Fetched:
            served.carrier.plan("fetch", "500")
            served.shell._carry_out(do.Fetch("c1", "CA1"))
        assert await asyncio.wait_for(serving, 2.0) == EXIT_FAILED
    assert f"{event.__name__} could not be handled; the controller ends" in caplog.text
    served.router.hear(b"one", m.Request(peer="a1", id=1, ttl=9.0, body=m.GetStatus()))
    assert served.router.sent == []
