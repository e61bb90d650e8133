"""A rogue on the bus: it holds a connection, knows names from the log, and sends what it likes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from msgspec.structs import replace

from trunkline.bus import messages as m
from trunkline.bus.client_keys import changing
from trunkline.bus.control import WELCOME_WITHIN
from trunkline.bus.curve import ClientCurve
from trunkline.bus.errors import InvalidRequestError
from trunkline.bus.launch import free_ports
from trunkline.bus.sockets import MAX_MESSAGE_BYTES, connect_dealer
from trunkline.bus.testing import poison, until
from trunkline.carrier_sim.sim import CarrierSim
from trunkline.controller import events as ev
from trunkline.controller.rules import sessions
from trunkline.controller.rules.book.peers import GATEWAY_LOST_AFTER, MOST_WAITING
from trunkline.controller.rules.book.workers import QUIET_AFTER

from .fake_carrier import OURS
from .stage import Stage
from .test_process import PRIOR, THEIRS, Peer, Stack, running, settings_for

_encode = msgspec.msgpack.Encoder().encode


# --------------------------------------------------------------------------- on real sockets


class Rogue:
    """A DEALER that says what the test says, and keeps what it hears."""

    def __init__(self, stack: Stack, curve: ClientCurve | None = None) -> None:
        self.heard: list[m.FromController] = []
        self.connected = self.lost = False
        self._socket = connect_dealer(
            stack.context,
            stack.settings.address.control,
            lambda payload: self.heard.append(
                msgspec.msgpack.decode(payload, type=m.FromController)
            ),
            on_connected=lambda: setattr(self, "connected", True),
            on_disconnected=lambda: setattr(self, "lost", True),
            curve=curve,
        )

    async def say(self, message: m.ToController | bytes) -> None:
        await until(lambda: self.connected)
        payload = message if isinstance(message, bytes) else _encode(message)
        assert self._socket.send(payload)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with CarrierSim() as sim:
        sim.add_number(OURS, voice_url=PRIOR)
        async with running(settings_for(tmp_path, sim)) as stack:
            yield stack


@pytest.fixture
async def rogue(stack: Stack) -> AsyncIterator[Rogue]:
    made = Rogue(stack)
    yield made
    made.close()


async def status(peer: Peer) -> dict[str, Any]:
    return (await peer.ask(m.GetStatus(), m.StatusReport)).status


async def test_a_clients_key_lets_in_a_client_alone(tmp_path: Path) -> None:
    """Whoever has the bus's key may be a gateway, or a codec worker."""
    (port,) = free_ports(1)
    async with CarrierSim() as sim:
        settings = settings_for(
            tmp_path, sim, bus=f"tcp://127.0.0.1:{port}", bus_clients=tmp_path / "clients"
        )
        assert settings.curve is not None
        client = ClientCurve.new(settings.curve.server_public)
        with changing(tmp_path / "clients") as clients:
            clients["runners"] = client.public
        async with running(settings) as stack:
            rogues = [Rogue(stack, client) for _ in range(2)]
            owner = Rogue(stack, settings.curve)
            roles: tuple[m.Role, ...] = ("gateway", "codec_worker")
            for role, rogue in zip(roles, rogues, strict=True):
                await rogue.say(m.Hello(role=role, peer=f"{role}-1", pid=1))
            await owner.say(m.Hello(role="gateway", peer="gateway-2", pid=2))
            await until(lambda: owner.heard)
            friend = Rogue(stack, client)
            await friend.say(m.Hello(role="adapter", peer="adapter-1", pid=3))
            await until(lambda: friend.heard)
            assert isinstance(friend.heard[0], m.Welcome) and isinstance(owner.heard[0], m.Welcome)
            assert [rogue.heard for rogue in rogues] == [[], []]
            asked = await stack.join("adapter")
            assert {row["id"] for row in (await status(asked))["gateways"]} == {"gateway-2"}
            for each in (*rogues, owner, friend):
                each.close()


async def test_poison_ends_nothing(stack: Stack, rogue: Rogue) -> None:
    adapter, info = await stack.armed()
    found = poison(adapter.name)
    for payload in found.values():
        await rogue.say(payload)
    assert [s["id"] for s in (await status(adapter))["sessions"]] == [info.session]
    rogue_hello = m.Hello(role="adapter", peer="rogue", pid=1)
    await rogue.say(rogue_hello)
    await until(lambda: any(isinstance(heard, m.Welcome) for heard in rogue.heard))
    *before, _ = rogue.heard
    hellos = [payload for payload in found.values() if b"\xa5Hello" in payload]
    assert [type(heard) for heard in before] == [m.Refused] * len(hellos), "each is told by name"


async def test_nobody_speaks_in_another_peers_name(stack: Stack, rogue: Rogue) -> None:
    adapter, info = await stack.armed()
    close = m.CloseSession(session=info.session)
    for message in (
        m.Request(peer=adapter.name, id=99, ttl=9.0, body=close),
        m.Hello(role="adapter", peer=adapter.name, pid=1, connection=2**40),
        m.Request(peer=adapter.name, id=100, ttl=9.0, body=close),
        m.Beat(peer=adapter.name, sessions=[]),
        m.Goodbye(peer=adapter.name),
    ):
        await rogue.say(message)
    await rogue.say(m.Hello(role="adapter", peer="rogue", pid=1))
    await until(lambda: bool(rogue.heard))
    assert [type(heard) for heard in rogue.heard] == [m.Welcome]
    assert [s["id"] for s in (await status(adapter))["sessions"]] == [info.session]


async def test_a_gateway_in_whose_name_somebody_says_hello_still_hears(
    stack: Stack, rogue: Rogue
) -> None:
    gateway = await stack.join("gateway")
    await rogue.say(m.Hello(role="gateway", peer=gateway.name, pid=1, connection=99))
    await rogue.say(m.Hello(role="gateway", peer="rogue", pid=1))
    await until(lambda: bool(rogue.heard))
    assert [g["id"] for g in (await status(await stack.join("adapter")))["gateways"]] == [
        gateway.name,
        "rogue",
    ]
    await gateway.ask(m.VoiceWebhook(form={"CallSid": "CA1", "To": OURS}), m.VoiceAnswer)


async def test_a_name_is_free_once_its_connection_is_gone(stack: Stack, rogue: Rogue) -> None:
    first = Rogue(stack)
    hello = m.Hello(role="adapter", peer="a1", pid=1)
    await first.say(hello)
    await until(lambda: bool(first.heard))
    await rogue.say(hello)
    await rogue.say(m.Beat(peer="nobody"))
    await until(lambda: bool(rogue.heard))
    assert [type(heard) for heard in rogue.heard] == [m.Pulse], "only the name of nobody is free"
    first.close()

    async def welcomed() -> None:
        while not any(isinstance(heard, m.Welcome) for heard in rogue.heard):
            await rogue.say(hello)
            await asyncio.sleep(0.02)

    await asyncio.wait_for(welcomed(), 5.0)


async def test_a_peer_that_lost_its_connection_is_welcome_at_once(stack: Stack) -> None:
    adapter, info = await stack.armed()
    loop = asyncio.get_running_loop()
    for _ in range(5):
        began = loop.time()
        adapter.client._reopen()
        await adapter.client.wait_welcome()
        assert loop.time() - began < WELCOME_WITHIN
    assert [s["id"] for s in (await status(adapter))["sessions"]] == [info.session]


async def test_a_request_that_cannot_be_decoded_is_refused_by_name(stack: Stack) -> None:
    adapter = await stack.join("adapter")
    info = await stack.open(adapter)
    dial = m.Dial(
        session=info.session, request="r", to=THEIRS, mode="a-leg", timeout=1.0, max_duration=9.0
    )
    for wrong in (
        replace(dial, timeout=float("inf")),
        replace(dial, max_duration=float("nan")),
        replace(dial, request="a\nb"),
    ):
        with pytest.raises(InvalidRequestError, match=r"cannot be read.*\$\.body"):
            await adapter.ask(wrong, m.Dialled)
    with pytest.raises(OverflowError):
        await adapter.ask(m.HangUp(session="s", call=2**64), m.Done)  # type: ignore[arg-type]  # no text
    assert not adapter.client._pending


async def test_a_hello_that_cannot_be_decoded_is_refused_by_name(
    stack: Stack, rogue: Rogue
) -> None:
    hello = m.Hello(role="codec_worker", peer="w9", pid=1, endpoint="ipc:///a\nb")
    await rogue.say(hello)
    await until(lambda: bool(rogue.heard))
    (refused,) = rogue.heard
    assert isinstance(refused, m.Refused)
    error = refused.error.exception()
    assert isinstance(error, InvalidRequestError)
    assert str(error).startswith("the Hello of w9 cannot be read: ") and "endpoint" in str(error)
    await rogue.say(replace(hello, endpoint="ipc:///a b"))
    await until(lambda: len(rogue.heard) == 2)
    assert isinstance(rogue.heard[1], m.Welcome)


async def test_a_hello_of_many_sessions_with_long_lists_is_welcome(
    stack: Stack, rogue: Rogue
) -> None:
    callees = [f"+1415555{n:04}" for n in range(700)]
    sessions = [
        m.SessionInfo(session=f"{n:032x}", secret="s", number="any", allowed_callees=callees)
        for n in range(500)
    ]
    hello = m.Hello(role="adapter", peer="rogue", pid=1, sessions=sessions)
    assert len(msgspec.msgpack.encode(hello)) > 2**22
    await rogue.say(hello)
    await until(lambda: bool(rogue.heard))
    assert isinstance(rogue.heard[0], m.Welcome)


async def test_a_message_that_is_too_large_is_not_read(stack: Stack, rogue: Rogue) -> None:
    adapter = await stack.join("adapter")
    before = psutil.Process().memory_info().rss
    await rogue.say(m.Hello(role="adapter", peer="p" * MAX_MESSAGE_BYTES, pid=1))
    await until(lambda: rogue.lost)
    await status(adapter)
    # The rogue's own copy is in this process too.
    assert psutil.Process().memory_info().rss - before < 4 * MAX_MESSAGE_BYTES


async def test_hellos_of_connections_that_are_gone_are_forgotten(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline.controller.shell.LOOK_SECONDS", 0.1)
    adapter, info = await stack.armed()
    for n in range(20):
        one = Rogue(stack)
        await one.say(m.Hello(role="gateway", peer=f"g{n}", pid=1))
        await until(lambda one=one: bool(one.heard))  # type: ignore[misc]  # bound at once
        one.close()
    gone = asyncio.get_running_loop().time()
    while (await status(adapter))["gateways"]:  # noqa: ASYNC110  # nothing tells of it
        await asyncio.sleep(0.05)
    assert asyncio.get_running_loop().time() - gone < 2 * GATEWAY_LOST_AFTER
    assert [s["id"] for s in (await status(adapter))["sessions"]] == [info.session]


# --------------------------------------------------------------------------- the rules alone


def test_a_session_is_nobodys_while_its_connection_is_gone() -> None:
    """Whoever gets the name then has to show the secret; else he would hear of its calls."""
    stage = Stage()
    info = stage.armed()
    stage.feed(ev.ConnectionLost("a1"))
    stage.sent.clear()
    stage.hello("adapter", "a1")
    assert stage.error("a1", stage.ask("a1", m.Disarm(session=info.session))) == "WrongModeError"
    stage.body("a1", stage.ask("a1", m.CloseSession(session=info.session)), m.SessionClosed)
    stage.webhook()
    assert stage.events("a1", m.WebhooksCounted) == []
    stage.hello("adapter", "a1", sessions=[replace(info, secret="x", armed=True, mode="answer")])
    assert stage.events("a1", m.Welcome)[-1].unknown_sessions == [info.session]
    stage.hello("adapter", "a1", sessions=[replace(info, armed=True, mode="answer")])
    assert stage.events("a1", m.Welcome)[-1].unknown_sessions == []
    stage.body("a1", stage.ask("a1", m.Disarm(session=info.session)), m.Done)


def test_a_peer_that_has_nothing_here_is_forgotten_with_its_connection() -> None:
    stage = Stage()
    call = stage.called()
    for peer in ("g1", "w1", "a1"):
        stage.feed(ev.ConnectionLost(peer))
    assert set(stage.core.book.peers.by_id) == {"g1", "w1", "w2", "a1"}
    stage.hello("gateway", "g2")
    stage.hello("adapter", "a2")
    for peer in ("g2", "a2", "nobody"):
        stage.feed(ev.ConnectionLost(peer))
    assert set(stage.core.book.peers.by_id) == {"g1", "w1", "w2", "a1"}
    assert stage.core.book.calls[call.call].state == "live", "a connection may come back"


def test_only_the_gateway_of_a_stream_says_how_it_stands() -> None:
    stage = Stage()
    call = stage.called()
    stage.hello("gateway", "g2")
    closed = m.StreamClosed(call=call.call, ordinal=1, reason="stop", gateway="g2")
    stage.feed(closed)
    stage.feed(replace(closed, gateway="a1"))
    stage.feed(replace(closed, gateway="nobody"))
    assert stage.core.book.calls[call.call].state == "live"
    assert stage.core.book.counts["not a gateway"] == 2
    stage.beating.remove("g1")
    stage.pass_time(GATEWAY_LOST_AFTER + 0.2)
    assert stage.core.book.calls[call.call].state == "reconnecting"
    stage.feed(m.Beat(peer="g2", streams=[m.StreamStats(call=call.call, ordinal=1)]))
    assert stage.core.book.calls[call.call].state == "reconnecting"
    stage.feed(m.Beat(peer="g1", streams=[m.StreamStats(call=call.call, ordinal=1)]))
    assert stage.core.book.calls[call.call].state == "live"


def test_a_peer_keeps_its_role() -> None:
    """A worker that called itself a client had no endpoint any more, and ended the controller."""
    stage = Stage()
    stage.called()
    stage.hello("adapter", "w1")
    (refused,) = stage.events("w1", m.Refused)
    assert "is a codec_worker" in refused.error.text
    stage.pass_time(5.0)
    assert stage.core.book.peers.by_id["w1"].ref.endpoint == "ipc:///w1"


def test_a_gateway_asks_in_its_own_name() -> None:
    stage = Stage()
    stage.armed()
    stage.hello("gateway", "g2")
    start = m.StreamStart(
        token=stage.webhook().token or "", call_sid="CA1", stream_sid="MZ1", gateway="g1"
    )
    stage.body("g2", stage.ask("g2", start), m.StreamRefused)
    stage.body("g1", stage.ask("g1", start), m.StreamAccepted)


def test_a_gateway_that_claims_a_stream_shows_the_calls_secret() -> None:
    stage = Stage()
    call = stage.called()
    stage.hello("gateway", "g2")
    stolen = replace(call, secret="x" * 32, ordinal=9)
    claim = m.StreamInfo(info=stolen, stream_sid="MZ2", generation=9 << 16)
    stage.hello("gateway", "g2", streams=[claim])
    found = stage.core.book.calls[call.call]
    assert (found.gateway, found.ordinal, found.secret) == ("g1", 1, call.secret)
    assert stage.events("g2", m.CloseStream) == [m.CloseStream(call=call.call)]


def test_a_client_speaks_for_its_own_calls_only() -> None:
    stage = Stage()
    call = stage.called()
    stage.hello("adapter", "a2")
    other = stage.info()
    stage.ask("a2", m.OpenSession(info=other))
    stage.core.handle(ev.LookedUp(OURS, "PN1"), stage.now)
    before = stage.core.book.calls[call.call].ordinal
    for claimed in (
        replace(call, ordinal=7),  # another session's
        replace(call, ordinal=7, session=other.session),  # the same, as if it were its own
        replace(call, call="d" * 32, session=other.session),  # its own, on another call's leg
    ):
        stage.hello("adapter", "a2", sessions=[replace(other, calls=[claimed])])
    assert list(stage.core.book.calls) == [call.call]
    assert stage.core.book.calls[call.call].ordinal == before
    assert stage.core.book.by_sid[call.sid].id == call.call


def test_what_workers_count_of_calls_that_are_unknown_is_not_kept() -> None:
    stage = Stage()
    call = stage.called()
    known = m.CallStats(call=call.call, generation=1, frames_in=5)
    unknown = [m.CallStats(call=f"{n}", generation=1) for n in range(100)]
    stage.feed(m.Beat(peer="w1", calls=[known, *unknown]))
    stage.hello("codec_worker", "w2", endpoint="ipc:///w2", calls=unknown)
    assert stage.core.book.peers.by_id["w1"].stats == {call.call: known}
    assert stage.core.book.peers.by_id["w2"].stats == {}


def test_requests_that_wait_are_bounded() -> None:
    stage = Stage()
    info = stage.open()
    for _ in range(MOST_WAITING):
        stage.ask("a1", m.Arm(session=info.session))
    last = stage.ask("a1", m.Arm(session=info.session))
    assert stage.error("a1", last) == "StackUnavailableError"
    stage.hello("adapter", "a2")
    stage.body("a2", stage.ask("a2", m.GetStatus()), m.StatusReport)


def test_sessions_of_one_client_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MOST_SESSIONS", 3)
    stage = Stage()
    for _ in range(3):
        stage.ask("a1", m.OpenSession(info=stage.info()))
    one_more = stage.ask("a1", m.OpenSession(info=stage.info()))
    assert stage.error("a1", one_more) == "InvalidRequestError"
    stage.hello("adapter", "a2")
    stage.ask("a2", m.OpenSession(info=stage.info()))
    assert len(stage.core.book.sessions) == 4


def test_the_answer_to_a_status_request_is_not_kept() -> None:
    stage = Stage()
    for _ in range(3):
        stage.body("a1", stage.ask("a1", m.GetStatus()), m.StatusReport)
    peer = stage.core.book.peers.by_id["a1"]
    assert not peer.answers and not peer.working


# --------------------------------------------------------------------------- health


def unhealthy(stage: Stage) -> list[tuple[str, str]]:
    asked = stage.ask("a1", m.GetStatus())
    rows = stage.body("a1", asked, m.StatusReport).status.get("unhealthy", [])
    assert all(row["silent_seconds"] > 1.0 and row["pid"] == 1 for row in rows)
    return [(row["role"], row["id"]) for row in rows]


def test_who_holds_a_connection_and_is_not_heard_is_shown_as_unhealthy() -> None:
    stage = Stage()
    assert unhealthy(stage) == []
    stage.beating.remove("w1")
    stage.beating.remove("g1")
    stage.pass_time(QUIET_AFTER + 0.2)
    assert unhealthy(stage) == [("codec_worker", "w1")]
    stage.pass_time(GATEWAY_LOST_AFTER - QUIET_AFTER + 0.2)
    assert unhealthy(stage) == [("gateway", "g1"), ("codec_worker", "w1")]
    stage.feed(ev.ConnectionLost("w1"))
    assert unhealthy(stage) == [("gateway", "g1")], "it is not silent, it is not there"
    stage.beat("g1")
    assert unhealthy(stage) == []


def test_gateways_hear_at_once_how_many_workers_are_healthy() -> None:
    stage = Stage()

    def told() -> list[int | None]:
        found = [pulse.workers for pulse in stage.events("g1", m.Pulse)]
        assert stage.events("a1", m.Pulse) == []
        stage.sent.clear()
        return found

    stage.pass_time(0.2, beat=False)
    assert told() == [], "both were there at the gateway's Hello"
    stage.pass_time(QUIET_AFTER - 0.3, beat=False)
    stage.feed(m.Beat(peer="w2"))
    stage.pass_time(0.2, beat=False)
    assert told() == [1]
    stage.feed(m.Beat(peer="g1"))
    assert told() == [1], "it hears it in answer to its beats, too"
    stage.feed(m.Goodbye(peer="w2"))
    stage.feed(ev.Tick())
    assert told() == [0]
    stage.hello("codec_worker", "w3", endpoint="ipc:///w3")
    assert told() == [1]


def test_what_peers_have_dropped_is_shown() -> None:
    stage = Stage()
    stage.feed(m.Beat(peer="w1", dropped={"undecodable": 3}))
    found = stage.body("a1", stage.ask("a1", m.GetStatus()), m.StatusReport).status
    assert [row.get("dropped") for row in found["codec_workers"]] == [{"undecodable": 3}, None]
