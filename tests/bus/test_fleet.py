"""A gateway's connections to several controllers, and a client that goes from one to another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Container
from pathlib import Path

import pytest

from trunkline.bus import messages as m
from trunkline.bus.control import ControlClient
from trunkline.bus.endpoints import BusAddress
from trunkline.bus.errors import StackUnavailableError
from trunkline.bus.fleet import Fleet
from trunkline.bus.testing import Context, FakeController, until


class Host(FakeController):
    """The controller of the stack ``name``, on a bus of its own."""

    def __init__(self, context: Context, directory: Path, name: str) -> None:
        self.bus = f"ipc://{directory / name}"
        (directory / name).mkdir(mode=0o700, exist_ok=True)
        self.name = name
        super().__init__(context, f"{self.bus}/control", stack=name, fleet=[])

    @property
    def ref(self) -> m.ControllerRef:
        return m.ControllerRef(stack=self.name, bus=self.bus)

    @property
    def hellos(self) -> list[m.Hello]:
        return [message for message in self.got if isinstance(message, m.Hello)]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline.bus.control.BEAT_SECONDS", 0.02)
    monkeypatch.setattr("trunkline.bus.control.PATIENCE", 0.1)


@pytest.fixture
async def one(context: Context, short_directory: Path) -> Host:
    return Host(context, short_directory, "one")


@pytest.fixture
async def two(context: Context, short_directory: Path) -> Host:
    return Host(context, short_directory, "two")


@pytest.fixture
async def fleet(context: Context, one: Host) -> AsyncIterator[Fleet]:
    """Of a gateway, whose home is "one". It has a stream of either stack."""

    def stream(stack: str) -> m.StreamInfo:
        info = m.CallInfo(
            call=f"call-{stack}",
            session="s",
            sid="CA1",
            direction="inbound",
            caller="",
            callee="",
            secret="",
            stack=stack,
        )
        return m.StreamInfo(info=info, stream_sid="MZ1", generation=1)

    def hello(elsewhere: Container[str]) -> m.Hello:
        streams = [stream(stack) for stack in ("one", "two") if stack not in elsewhere]
        return m.Hello(role="gateway", peer="g1", pid=2, streams=streams)

    fleet = Fleet(
        context,
        BusAddress.parse(one.bus),
        peer="g1",
        hello=hello,
        beat=lambda: m.Beat(peer="g1"),
        on_event=lambda event: None,
        on_welcome=lambda welcome: None,
        on_refused=lambda error: None,
    )
    fleet.start()
    yield fleet
    await fleet.close()


def announced(hello: m.Hello) -> list[str]:
    return [stream.info.stack for stream in hello.streams]


async def test_a_gateway_asks_the_controller_that_runs_the_stack(
    one: Host, two: Host, fleet: Fleet
) -> None:
    """Without a fleet all streams are home's, as they were before there were fleets."""
    await until(lambda: fleet.welcome)
    assert fleet.stacks is None and announced(one.hellos[-1]) == ["one", "two"]
    one.tell(m.Fleet(controllers=[one.ref, two.ref]))
    await until(lambda: fleet.stacks == ["one", "two"])
    assert announced(two.hellos[-1]) == ["two"] and two.hellos[-1].stack == "two"
    fleet.home.say_hello()
    await until(lambda: announced(one.hellos[-1]) == ["one"])

    callback = m.StatusCallback(form={})
    for stack in ("one", "two", "two", "nobody's"):
        await fleet.request(callback, m.Done, timeout=5.0, stack=stack)
    # One that waits while a Welcome comes is asked again, under its number.
    assert [len({request.id for request in host.all(m.Request)}) for host in (one, two)] == [2, 2]
    assert fleet.notify(m.StreamClosed(gateway="g1", call="c", ordinal=1, reason="stop"))
    await one.wait_for(m.StreamClosed)
    await two.wait_for(m.StreamClosed)
    for host in (one, two):
        host.stop()


async def test_a_stack_that_is_run_elsewhere_is_asked_there(
    context: Context, short_directory: Path, one: Host, two: Host, fleet: Fleet
) -> None:
    """Its controller is dead, and the one of the third stack runs it. While nobody does, a request
    waits for it, and is asked of no other."""
    await until(lambda: fleet.welcome)
    one.tell(m.Fleet(controllers=[one.ref, two.ref]))
    await until(lambda: fleet.stacks == ["one", "two"])
    two.stop()
    await until(lambda: fleet.stacks == ["one"])
    callback = m.StatusCallback(form={})
    waits = asyncio.ensure_future(fleet.request(callback, m.Done, timeout=5.0, stack="two"))
    three = Host(context, short_directory, "three")
    three.welcome["stack"] = "two"
    # What is asked after it is answered, and "one" has had nothing before that.
    await fleet.request(m.GetStatus(), m.Done, timeout=5.0, stack="one")
    assert not waits.done() and one.all(m.StatusCallback) == []
    one.tell(m.Fleet(controllers=[one.ref, m.ControllerRef(stack="two", bus=three.bus)]))
    with pytest.raises(StackUnavailableError):  # Twilio asks again
        await waits
    await until(lambda: fleet.stacks == ["one", "two"])
    await fleet.request(callback, m.Done, timeout=5.0, stack="two")
    assert len(three.all(m.StatusCallback)) == 1
    three.tell(m.Moved(stack="two"))
    await until(lambda: fleet.stacks == ["one"])
    for host in (one, three):
        host.stop()


async def test_home_may_die_and_the_others_are_there(one: Host, two: Host, fleet: Fleet) -> None:
    await until(lambda: fleet.welcome)
    one.tell(m.Fleet(controllers=[one.ref, two.ref]))
    await until(lambda: fleet.stacks == ["one", "two"])
    one.stop()
    await until(lambda: fleet.stacks == ["two"])
    assert fleet.welcome is not None and not fleet.deaf
    # Another controller runs home's stack: that is a connection of its own.
    two.tell(m.Fleet(controllers=[m.ControllerRef(stack="one", bus=two.bus), two.ref]))
    await until(lambda: [hello.stack for hello in two.hellos] == ["two", "one"])
    assert announced(two.hellos[-1]) == ["one"]
    two.stop()


async def test_a_client_asks_the_others_where_its_stack_is(
    context: Context, one: Host, two: Host
) -> None:
    """One that waits for its own controller's restart finds that first."""
    client = ControlClient(
        context,
        BusAddress.parse(one.bus),
        peer="p1",
        hello=lambda: m.Hello(role="adapter", peer="p1", pid=2, stack="one"),
        beat=lambda: m.Beat(peer="p1"),
        on_event=lambda event: None,
        on_moved=lambda moved: client.go(BusAddress.parse(moved.bus or "")),
    )
    client.ring = [BusAddress.parse(one.bus), BusAddress.parse(two.bus)]
    client.start()
    await client.wait_welcome()
    one.stop()
    await until(lambda: two.hellos)
    one.start()
    two.tell(m.Moved(stack="one", bus=one.bus))
    await until(lambda: client.address.text == one.bus and client.welcome)
    one.stop()
    await until(lambda: len(two.hellos) > 1 and client.welcome)
    # It is about to be run where it was asked for: it is asked for there once more.
    asked = len(two.hellos)
    two.tell(m.Moved(stack="one", bus=two.bus))
    await until(lambda: len(two.hellos) > asked)
    await client.close()
    two.stop()
