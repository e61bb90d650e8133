"""A peer's side of the control plane against a controller that answers, dies and comes back."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from trunkline.bus import control
from trunkline.bus import messages as m
from trunkline.bus.control import BEAT_SECONDS, DEAF_AFTER, ControlClient
from trunkline.bus.endpoints import BusAddress
from trunkline.bus.errors import (
    InternalError,
    NumberBusyError,
    ProtocolMismatchError,
    SettingsError,
    StackUnavailableError,
    TimedOutError,
    TrunklineError,
)
from trunkline.bus.sockets import FIRST_RETRY
from trunkline.bus.testing import Context, FakeClock, FakeController, poison, until


@pytest.fixture
def address(tmp_path: Path) -> BusAddress:
    return BusAddress.parse(f"ipc://{tmp_path}")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def events() -> list[m.Event]:
    return []


@pytest.fixture
async def client(
    context: Context,
    address: BusAddress,
    clock: FakeClock,
    events: list[m.Event],
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[ControlClient]:
    monkeypatch.setattr("trunkline.bus.control.BEAT_SECONDS", 0.02)
    client = ControlClient(
        context,
        address,
        peer="p1",
        hello=lambda: m.Hello(role="adapter", peer="p1", pid=2),
        beat=lambda: m.Beat(peer="p1"),
        on_event=events.append,
        clock=clock,
    )
    client.start()
    yield client
    await client.close()


async def test_hello_welcome_request_reply_event(
    context: Context, address: BusAddress, client: ControlClient, events: list[m.Event]
) -> None:
    controller = FakeController(context, address.control)
    welcome = await client.wait_welcome()
    assert (welcome.epoch, client.epoch) == (1, 1)
    assert await client.request(m.Disarm(session="s"), m.Done) == m.Done()
    controller.tell(m.SessionLost(session="s", why="lease"))
    await until(lambda: bool(events))
    assert events == [m.SessionLost(session="s", why="lease")]
    controller.stop()


async def test_a_refusal_is_raised_as_its_own_class(
    context: Context, address: BusAddress, client: ControlClient
) -> None:
    controller = FakeController(context, address.control)
    controller.answers[m.Arm] = NumberBusyError("taken", holder="session x")
    with pytest.raises(NumberBusyError, match="taken") as caught:
        await client.request(m.Arm(session="s"), m.Armed)
    assert caught.value.holder == "session x"
    del controller.answers[m.Arm]
    with pytest.raises(InternalError, match="answered Arm with Done"):
        await client.request(m.Arm(session="s"), m.Armed)
    controller.stop()


async def test_a_request_outlives_the_controller_and_is_asked_again(
    context: Context, address: BusAddress, client: ControlClient
) -> None:
    first = FakeController(context, address.control)
    first.answers[m.Arm] = None
    asked = asyncio.ensure_future(client.request(m.Arm(session="s"), m.Armed, timeout=30))
    await until(lambda: bool(first.all(m.Request)))
    first.stop()
    await until(lambda: client.welcome is None)
    second = FakeController(context, address.control)
    second.epoch = 2
    second.answers[m.Arm] = m.Armed(session="s")
    assert await asked == m.Armed(session="s")
    (before,), (after,) = first.all(m.Request), second.all(m.Request)
    assert (before.id, before.peer) == (after.id, after.peer)
    assert client.epoch == 2
    assert second.peers[0] != first.peers[0]
    second.stop()


async def test_a_lack_of_descriptors_at_a_reconnect_passes(
    context: Context, address: BusAddress, client: ControlClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no fault of the address, for which the peer would be refused for good."""
    first = FakeController(context, address.control)
    await client.wait_welcome()
    connect, lacks = control.connect_dealer, [errno.EMFILE]

    def short_of_descriptors(*given: Any, **named: Any) -> Any:
        if lacks:
            raise zmq.ZMQError(lacks.pop())
        return connect(*given, **named)

    monkeypatch.setattr(control, "connect_dealer", short_of_descriptors)
    first.stop()
    await until(lambda: client.welcome is None)
    second = FakeController(context, address.control)
    second.epoch = 2
    await until(lambda: client.epoch == 2)
    assert not lacks
    second.stop()


async def test_a_new_epoch_in_a_pulse_makes_the_peer_announce_itself_again(
    context: Context, address: BusAddress, client: ControlClient
) -> None:
    controller = FakeController(context, address.control)
    await client.wait_welcome()
    controller.epoch = 2
    await until(lambda: client.epoch == 2)
    assert len(controller.all(m.Hello)) >= 2
    controller.stop()


async def test_without_a_controller_requests_fail_after_ten_seconds(
    client: ControlClient, clock: FakeClock
) -> None:
    asked = asyncio.ensure_future(client.request(m.Arm(session="s"), m.Armed))
    await asyncio.sleep(0)  # the request is asked at this reading of the clock
    clock.now += 9.0
    done, _ = await asyncio.wait([asked], timeout=0.1)
    assert not done
    clock.now += 1.5
    with pytest.raises(StackUnavailableError, match="trunkline up"):
        await asked
    late = asyncio.ensure_future(client.request(m.Arm(session="s"), m.Armed))
    done, _ = await asyncio.wait([late], timeout=0.1)
    assert not done, "a later request has ten seconds of its own"
    clock.now += 10.5
    with pytest.raises(StackUnavailableError):
        await late


async def test_a_request_has_its_own_deadline(
    context: Context, address: BusAddress, client: ControlClient
) -> None:
    controller = FakeController(context, address.control)
    controller.answers[m.Arm] = None
    await client.wait_welcome()
    with pytest.raises(TimedOutError, match="Arm"):
        await client.request(m.Arm(session="s"), m.Armed, timeout=0.05)
    controller.stop()


async def test_another_major_version_is_refused_by_name(
    context: Context, address: BusAddress, client: ControlClient
) -> None:
    controller = FakeController(context, address.control)
    controller.refuse = ProtocolMismatchError("this controller speaks 2.0, not 1.0")
    with pytest.raises(ProtocolMismatchError, match="this controller speaks"):
        await client.wait_welcome()
    with pytest.raises(ProtocolMismatchError):
        await client.request(m.Arm(session="s"), m.Armed)
    controller.stop()


async def test_a_notification_to_an_absent_controller_is_not_sent(client: ControlClient) -> None:
    assert client.notify(m.CallMoved(call="c", generation=1, worker="w", gateway="g")) is False


async def test_a_request_that_cannot_be_encoded_is_the_callers_mistake_and_is_not_asked_again(
    context: Context, address: BusAddress, client: ControlClient
) -> None:
    controller = FakeController(context, address.control)
    await client.wait_welcome()
    with pytest.raises(UnicodeEncodeError):
        await client.request(m.Arm(session="\udc80"), m.Armed)
    assert not client._pending
    controller.stop()


@pytest.mark.parametrize("what", poison())
async def test_what_the_controller_says_cannot_end_the_beats(
    context: Context, address: BusAddress, client: ControlClient, what: str
) -> None:
    controller = FakeController(context, address.control)
    await client.wait_welcome()
    assert controller._socket.send(poison()[what], controller.peers[-1])
    await until(lambda: client.wall.dropped["undecodable"] == 1)
    beats = len(controller.all(m.Beat))
    await until(lambda: len(controller.all(m.Beat)) > beats)
    controller.stop()


async def test_a_peer_that_is_not_well_does_not_beat_and_beats_again_when_it_is(
    context: Context, address: BusAddress, client: ControlClient
) -> None:
    controller = FakeController(context, address.control)
    await until(lambda: bool(controller.all(m.Beat)))
    client._beat = lambda: None
    await asyncio.sleep(0)
    beats = len(controller.all(m.Beat))
    with pytest.raises(TimeoutError):
        await until(lambda: len(controller.all(m.Beat)) > beats + 1, seconds=0.3)
    client._beat = lambda: m.Beat(peer="p1")
    await until(lambda: len(controller.all(m.Beat)) > beats + 1)
    controller.stop()


async def test_a_beat_that_fails_is_logged_and_does_not_end_the_connection(
    context: Context, address: BusAddress, client: ControlClient, caplog: pytest.LogCaptureFixture
) -> None:
    controller = FakeController(context, address.control)
    await until(lambda: bool(controller.all(m.Beat)))
    client._beat = lambda: m.Beat(peer="p1", dropped={"x": 2**70})
    await until(lambda: client.wall.dropped["fault"] > 3)
    assert caplog.text.count("a turn of the control connection failed") == 1
    client._beat = lambda: m.Beat(peer="p1")
    beats = len(controller.all(m.Beat))
    await until(lambda: len(controller.all(m.Beat)) > beats)
    controller.stop()


async def test_a_connection_on_which_nothing_is_heard_is_thrown_away(
    context: Context, address: BusAddress, client: ControlClient
) -> None:
    """Its controller may hold another connection for the peer's."""
    controller = FakeController(context, address.control)
    await client.wait_welcome()
    controller.mute = True
    await until(lambda: client.welcome is None)
    controller.mute = False
    client._clock.now += 3.0  # type: ignore[attr-defined]  # the test's clock; no Welcome came
    await client.wait_welcome()
    first, *_, last = controller.all(m.Hello)
    assert (
        (first.connection, first.key)
        != (last.connection, last.key)
        == (
            last.connection,
            first.key,
        )
    )
    assert last.connection > 1 and len(first.key) == 32
    controller.stop()


async def test_a_pulse_says_how_many_workers_are_healthy(
    context: Context, address: BusAddress, client: ControlClient
) -> None:
    controller = FakeController(context, address.control)
    await client.wait_welcome()
    assert client.workers is None
    controller._send(m.Pulse(epoch=1, stack="stack-1", workers=2), controller.peers[-1])
    await until(lambda: client.workers == 2)
    await until(lambda: len(controller.all(m.Beat)) > 2)
    assert client.workers == 2, "a Pulse without the number says nothing of it"
    controller.stop()


@pytest.mark.parametrize("bus", ["tcp://*:7000", "tcp://a b:7000"])
async def test_an_address_that_nothing_can_connect_to_is_named_and_leaves_no_socket(
    context: Context, bus: str
) -> None:
    """A socket that stayed on the loop would end the process when the loop is closed."""
    refused: list[TrunklineError] = []
    client = ControlClient(
        context,
        BusAddress.parse(bus),
        peer="p1",
        hello=lambda: m.Hello(role="adapter", peer="p1", pid=2),
        beat=lambda: None,
        on_event=lambda event: None,
        on_refused=refused.append,
    )
    client.start()
    with pytest.raises(SettingsError, match=r"^TRUNKLINE_BUS='tcp://.*': nothing can connect"):
        await client.wait_welcome()
    assert len(refused) == 1
    await client.close()
    await asyncio.wait_for(asyncio.to_thread(context.term), 5)  # it waits for open sockets


async def test_closing_fails_what_waits(client: ControlClient) -> None:
    asked = asyncio.ensure_future(client.request(m.Arm(session="s"), m.Armed))
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises(StackUnavailableError, match="closed"):
        await asked


class Wires:
    """Connections in memory: what the client says is kept, what it hears is told by the test."""

    def __init__(self) -> None:
        self.sent: list[m.ToController] = []

    def connect(
        self,
        context: object,
        endpoint: str,
        on_message: Callable[[bytes], None],
        *,
        on_connected: Callable[[], None],
        on_disconnected: Callable[[], None],
        curve: object = None,
    ) -> Wires:
        self.hear, self.connected, self.disconnected = on_message, on_connected, on_disconnected
        return self

    def send(self, payload: bytes) -> bool:
        self.sent.append(msgspec.msgpack.decode(payload, type=m.ToController))
        return True

    def close(self, linger: int = 0) -> None:
        """The client is done with this one."""

    def welcome(self) -> None:
        told = m.Welcome(epoch=1, stack="c", pid=1, account="AC1", public_url=None, lead_ms=60)
        self.hear(msgspec.msgpack.encode(told))


def client_of(role: m.Role, **given: Any) -> ControlClient:
    """A client of a controller that the test plays."""
    return ControlClient(
        zmq.Context.instance(),
        BusAddress.parse("ipc:///nowhere"),
        peer="p1",
        hello=lambda: m.Hello(role=role, peer="p1", pid=2),
        beat=lambda: m.Beat(peer="p1"),
        on_event=lambda event: None,
        **given,
    )


@pytest.fixture
async def wires(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Wires, ControlClient]]:
    wires = Wires()
    monkeypatch.setattr("trunkline.bus.control.connect_dealer", wires.connect)
    client = client_of("adapter")
    client.start()
    yield wires, client
    await client.close()


async def test_a_connection_that_is_lost_right_after_its_welcome_is_waited_for_again(
    wires: tuple[Wires, ControlClient],
) -> None:
    wire, client = wires
    waiting = asyncio.ensure_future(client.wait_welcome())
    await asyncio.sleep(0)
    wire.connected()
    wire.welcome()
    wire.disconnected()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    wire.connected()
    wire.welcome()
    assert (await waiting).epoch == 1


async def test_a_controller_that_ends_connections_before_their_welcome_is_not_asked_without_end(
    wires: tuple[Wires, ControlClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    wire, client = wires
    wire.connected()
    opened: list[float] = []
    began = asyncio.get_running_loop().time()
    monkeypatch.setattr(
        client, "_open", lambda: opened.append(asyncio.get_running_loop().time() - began)
    )
    wire.disconnected()
    client._turn()
    assert not opened
    await until(lambda: bool(opened))
    assert opened[0] >= FIRST_RETRY / 2


async def test_each_hello_says_which_connection_it_came_on(
    wires: tuple[Wires, ControlClient],
) -> None:
    wire, client = wires
    wire.connected()
    client.say_hello()
    wire.welcome()
    wire.disconnected()
    wire.connected()
    hellos = [x for x in wire.sent if isinstance(x, m.Hello)]
    assert [hello.connection for hello in hellos] == [1, 1, 2]


# --------------------------------------------------------------------------- deaf


@pytest.fixture
async def patient(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Wires, ControlClient]]:
    """A client on a clock of the test's, whose own turns the test takes."""
    wires = Wires()
    monkeypatch.setattr("trunkline.bus.control.connect_dealer", wires.connect)
    client = client_of("gateway", clock=FakeClock())
    client._last_heard = client._clock()
    client._open()
    yield wires, client


def wait(client: ControlClient, seconds: float, *, up: Wires | None = None) -> bool:
    """So long nothing is heard; each new connection of ``up`` stands. Whether it is deaf then."""
    for _ in range(round(seconds / BEAT_SECONDS)):
        client._clock.now += BEAT_SECONDS  # type: ignore[attr-defined]  # the test's clock
        socket = client._connected_at
        client._turn()
        if up is not None and socket is not None and client._connected_at is None:
            up.connected()
    return client.deaf


async def test_a_peer_is_deaf_when_connections_stand_and_no_word_comes(
    patient: tuple[Wires, ControlClient],
) -> None:
    wire, client = patient
    wire.connected()
    wire.welcome()
    assert not wait(client, DEAF_AFTER - 1.0, up=wire)
    assert wait(client, 2.0, up=wire)
    wire.welcome()
    assert not client.deaf


async def test_no_peer_is_deaf_while_the_controller_is_away(
    patient: tuple[Wires, ControlClient],
) -> None:
    wire, client = patient
    wire.connected()
    wire.welcome()
    wire.disconnected()
    assert not wait(client, 10 * DEAF_AFTER)
    wire.connected()  # it is back, and its Welcome is on its way
    assert not client.deaf and not wait(client, 1.0, up=wire)


async def test_no_peer_is_deaf_whose_controller_is_stopped(
    patient: tuple[Wires, ControlClient],
) -> None:
    """The connection stands until the peer throws it away; the next one never stands."""
    wire, client = patient
    wire.connected()
    wire.welcome()
    assert not wait(client, 10 * DEAF_AFTER)
    assert client.welcome is None
    wire.connected()  # it runs again, and its Welcome is on its way
    assert not client.deaf and not wait(client, 1.0, up=wire)


# --------------------------------------------------------------------------- whose bus it is


async def test_no_secret_goes_to_a_controller_in_another_users_directory(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / "bus"
    theirs.mkdir(mode=0o700)
    controller = FakeController(context, f"ipc://{theirs}/control")
    if os.geteuid() == 0:
        os.chown(theirs, 4711, -1)
    else:
        me = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    await asks_in_vain(context, BusAddress.parse(f"ipc://{theirs}"), controller)


async def test_no_secret_goes_to_a_directory_that_others_made_while_a_client_waited_for_it(
    context: Context, tmp_path: Path
) -> None:
    bus = tmp_path / "bus"
    controllers = []

    def made_by_others() -> None:
        bus.mkdir()
        bus.chmod(0o755)
        controllers.append(FakeController(context, f"ipc://{bus}/control"))

    asyncio.get_running_loop().call_later(0.1, made_by_others)
    await asks_in_vain(context, BusAddress.parse(f"ipc://{bus}"), controllers)


async def asks_in_vain(
    context: Context, address: BusAddress, controllers: FakeController | list[FakeController]
) -> None:
    """A client is refused there by its own side, and says nothing to the controller."""
    refused: list[Exception] = []
    client = ControlClient(
        context,
        address,
        peer="p1",
        hello=lambda: m.Hello(role="adapter", peer="p1", pid=2),
        beat=lambda: m.Beat(peer="p1"),
        on_event=lambda event: None,
        on_refused=refused.append,
    )
    client.start()
    with pytest.raises(SettingsError, match=f"TRUNKLINE_BUS='{address.text}': .*chmod 700|chown"):
        await client.wait_welcome(5.0)
    with pytest.raises(SettingsError):
        await client.request(m.GetStatus(), m.StatusReport)
    assert [type(error) for error in refused] == [SettingsError]
    await client.close()
    for controller in [controllers] if isinstance(controllers, FakeController) else controllers:
        # What another one says afterwards is the first that the controller hears.
        witness = context.socket(zmq.DEALER)
        witness.connect(f"ipc://{address.directory}/control")
        witness.send(msgspec.msgpack.encode(m.Beat(peer="witness")))
        await controller.wait_for(m.Beat)
        assert controller.got == [m.Beat(peer="witness")]
        witness.close(linger=0)
        controller.stop()
