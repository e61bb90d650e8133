"""What ZeroMQ does to the unwary, and what our sockets make of it. Real sockets, real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import zmq

from trunkline.bus.curve import CurveKeys
from trunkline.bus.launch import free_ports
from trunkline.bus.sockets import BURST, DealerSocket, bind_router, connect_dealer
from trunkline.bus.testing import Context, until


def nothing(*_: object) -> None:
    """A callback for what this test does not look at."""


def watched(
    context: Context, endpoint: str, curve: CurveKeys | None = None
) -> tuple[DealerSocket, list[object]]:
    """A DEALER, and all that it tells in its order: "connected", messages, "disconnected"."""
    seen: list[object] = []
    dealer = connect_dealer(
        context,
        endpoint,
        seen.append,
        on_connected=lambda: seen.append("connected"),
        on_disconnected=lambda: seen.append("disconnected"),
        curve=curve,
    )
    return dealer, seen


CHILD = """
import sys, zmq
socket = zmq.Context().socket(zmq.ROUTER)
socket.bind(sys.argv[1])
print("bound", flush=True)
while True:
    socket.send_multipart(socket.recv_multipart())
"""


def child(endpoint: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", CHILD, endpoint], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"bound\n"
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


async def test_messages_arrive_in_order_and_more_than_one_burst_of_them(
    context: Context, tmp_path: Path
) -> None:
    got: list[bytes] = []
    router, endpoint = bind_router(context, f"ipc://{tmp_path}/r", lambda _, p: got.append(p))
    dealer, seen = watched(context, endpoint)
    await until(lambda: bool(seen))
    sent = [str(n).encode() for n in range(BURST * 5 + 3)]
    assert all(dealer.send(payload) for payload in sent)
    await until(lambda: len(got) == len(sent))
    assert got == sent
    dealer.close()
    router.close()


@pytest.mark.parametrize("transport", ["ipc", "tcp"])
async def test_a_killed_peer_is_seen_at_once_and_its_last_words_come_first(
    context: Context, tmp_path: Path, transport: str
) -> None:
    endpoint = f"ipc://{tmp_path}/r"
    if transport == "tcp":
        endpoint = f"tcp://127.0.0.1:{free_ports(1)[0]}"
    process = child(endpoint)
    dealer, seen = watched(context, endpoint)
    await until(lambda: seen == ["connected"])
    dealer.send(b"echo")
    await until(lambda: b"echo" in seen)
    end(process)
    # By the kernel's news, and not by a heartbeat, which tcp has as well.
    await until(lambda: "disconnected" in seen, seconds=1.5)
    assert seen == ["connected", b"echo", "disconnected"]
    dealer.close()


@pytest.mark.parametrize("on_demand", [True, False])
async def test_all_that_a_peer_said_before_its_end_is_read(
    context: Context, tmp_path: Path, on_demand: bool
) -> None:
    """A process that was stopped meanwhile has them all unread, and the news of the end as well."""
    peers: list[bytes] = []
    router, endpoint = bind_router(
        context, f"ipc://{tmp_path}/r", lambda peer, _: peers.append(peer)
    )
    dealer, seen = watched(context, endpoint)
    await until(lambda: seen == ["connected"])
    dealer.read_on_demand(on_demand)
    dealer.send(b"hello")
    await until(lambda: len(peers) == 1)
    words = [str(n).encode() for n in range(BURST * 3 + 5)]
    assert all(router.send(word, peers[0]) for word in words)
    router.close(linger=1000)
    await until(lambda: "disconnected" in seen)
    assert seen == ["connected", *words, "disconnected"]
    dealer.close()


async def test_a_dealer_does_not_connect_again_by_itself(context: Context, tmp_path: Path) -> None:
    """Its peer's successor gets nothing, though the end has not been noticed here yet."""
    endpoint = f"ipc://{tmp_path}/r"
    process = child(endpoint)
    dealer, seen = watched(context, endpoint)
    await until(lambda: seen == ["connected"])
    # A plain one of ZeroMQ's connects again, and later than ours would by the default of 100 ms,
    # to which ZeroMQ adds as much again at most.
    plain = context.socket(zmq.DEALER)
    plain.setsockopt(zmq.RECONNECT_IVL, 300)
    plain.connect(endpoint)
    plain.send(b"")
    await until(lambda: plain.poll(0))  # it is connected, and has got its echo
    end(process)
    # No await between the peer's end and these: the loop knows nothing of it.
    for _ in range(20):
        dealer.send(b"stale")
    got: list[bytes] = []
    router, _ = bind_router(context, endpoint, lambda _, payload: got.append(payload))
    await until(lambda: "disconnected" in seen)
    assert not dealer.send(b"stale")
    plain.send(b"anew")
    await until(lambda: bool(got))
    assert got == [b"anew"]
    assert seen == ["connected", "disconnected"]
    plain.close(linger=0)
    dealer.close()
    router.close()


async def test_a_dealer_tries_until_its_peer_is_there(context: Context, tmp_path: Path) -> None:
    dealer, seen = watched(context, f"ipc://{tmp_path}/later")
    with pytest.raises(TimeoutError):
        await until(lambda: bool(seen), seconds=0.3)
    assert dealer.send(b"nobody there") is False
    got: list[bytes] = []
    router, _ = bind_router(context, f"ipc://{tmp_path}/later", lambda _, p: got.append(p))
    await until(lambda: bool(seen), seconds=3.0)
    assert dealer.send(b"hello")
    await until(lambda: bool(got))
    assert got == [b"hello"]
    dealer.close()
    router.close()


@pytest.mark.parametrize("scheme", ["ipc", "tcp"])
async def test_a_dealer_of_an_endpoint_that_is_never_bound_again_is_told_that_nobody_listens(
    context: Context, tmp_path: Path, scheme: str
) -> None:
    (port,) = free_ports(1)
    endpoint = {"ipc": f"ipc://{tmp_path}/w", "tcp": f"tcp://127.0.0.1:{port}"}[scheme]
    seen: list[str] = []
    dealer = connect_dealer(
        context,
        endpoint,
        nothing,
        on_connected=lambda: seen.append("connected"),
        on_disconnected=lambda: seen.append("disconnected"),
        on_refused=lambda: seen.append("refused"),
    )
    await until(lambda: bool(seen))
    router, _ = bind_router(context, endpoint, nothing)
    with pytest.raises(TimeoutError):
        await until(lambda: len(seen) > 1, seconds=0.3)
    assert seen == ["refused"] and not dealer.send(b"nobody there")
    dealer.close()
    router.close()


async def test_a_stopped_peer_is_not_seen_by_the_socket(context: Context, tmp_path: Path) -> None:
    """Why stalls are found by the peer's own tick and not by ZeroMQ."""
    process = child(f"ipc://{tmp_path}/r")
    dealer, seen = watched(context, f"ipc://{tmp_path}/r")
    await until(lambda: seen == ["connected"])
    os.kill(process.pid, signal.SIGSTOP)
    try:
        assert dealer.send(b"into the void")
        with pytest.raises(TimeoutError):
            await until(lambda: len(seen) > 1, seconds=0.5)
    finally:
        os.kill(process.pid, signal.SIGCONT)
        end(process)
    dealer.close()


async def test_a_message_to_nobody_never_raises(context: Context, tmp_path: Path) -> None:
    router, _ = bind_router(context, f"ipc://{tmp_path}/r", nothing)
    assert router.send(b"hello", b"nobody") is False
    router.close()
    assert router.send(b"after close", b"nobody") is False


async def test_a_full_peer_neither_blocks_nor_raises(context: Context, tmp_path: Path) -> None:
    process = child(f"ipc://{tmp_path}/r")
    dealer, seen = watched(context, f"ipc://{tmp_path}/r")
    await until(lambda: bool(seen))
    os.kill(process.pid, signal.SIGSTOP)
    try:
        results = [dealer.send(bytes(4000)) for _ in range(30_000)]
        assert results[0] is True and results[-1] is False
    finally:
        os.kill(process.pid, signal.SIGCONT)
        end(process)
    dealer.close()


async def test_a_router_with_a_full_peer_neither_blocks_nor_raises_and_serves_the_others(
    context: Context, tmp_path: Path
) -> None:
    """A worker's: one gateway that stands still takes nothing from the other's calls."""
    who: list[bytes] = []
    router, endpoint = bind_router(context, f"ipc://{tmp_path}/r", lambda i, _: who.append(i))
    reading, seen = watched(context, endpoint)
    await until(lambda: bool(seen))
    reading.send(b"here")
    await until(lambda: len(who) == 1)
    stopped = zmq.Context()
    deaf = stopped.socket(zmq.DEALER)
    deaf.rcvhwm = 10
    deaf.linger = 0
    deaf.connect(endpoint)
    deaf.send(b"here, and I read nothing")
    await until(lambda: len(who) == 2)
    results = [router.send(bytes(4000), who[1]) for _ in range(30_000)]
    assert results[0] is True and results[-1] is False
    assert router.send(b"to you", who[0])
    await until(lambda: seen == ["connected", b"to you"])
    deaf.close()
    stopped.term()
    reading.close()
    router.close()


async def test_a_dealer_with_two_connections_deals_in_turn(
    context: Context, tmp_path: Path
) -> None:
    """Why there is one DEALER for each peer: ours cannot be connected to a second one."""
    got: list[str] = []
    routers = [
        bind_router(context, f"ipc://{tmp_path}/{n}", lambda *_, n=n: got.append(n))  # type: ignore[misc]  # bound at once
        for n in ("one", "two")
    ]
    both = context.socket(zmq.DEALER)
    for _, endpoint in routers:
        both.connect(endpoint)
    for _ in range(4):
        both.send(b"for one alone")
    await until(lambda: len(got) == 4)
    assert sorted(got) == ["one", "one", "two", "two"]
    both.close(0)
    for router, _ in routers:
        router.close()


async def test_each_socket_has_an_identity_of_its_own(context: Context, tmp_path: Path) -> None:
    """A ROUTER ignores a reused identity in silence, so none is ever used again."""
    who: list[bytes] = []
    router, endpoint = bind_router(context, f"ipc://{tmp_path}/r", lambda i, _: who.append(i))
    for n in range(1, 4):
        dealer, seen = watched(context, endpoint)
        await until(lambda seen=seen: bool(seen))  # type: ignore[misc]  # bound at once
        dealer.send(b"x")
        await until(lambda n=n: len(who) == n)  # type: ignore[misc]  # bound at once
        dealer.close()
    assert len(set(who)) == 3
    router.close()


async def test_on_tcp_only_the_holder_of_the_token_gets_in(context: Context) -> None:
    got: list[bytes] = []
    router, endpoint = bind_router(
        context, "tcp://127.0.0.1:*", lambda _, p: got.append(p), curve=CurveKeys("token")
    )
    contexts: list[Context] = [zmq.Context() for _ in range(3)]
    keys = (CurveKeys("token"), CurveKeys("another"), None)
    dealers = [watched(one, endpoint, key) for one, key in zip(contexts, keys, strict=True)]
    friend, *strangers = (seen for _, seen in dealers)
    await until(lambda: friend == ["connected"])
    for dealer, _ in dealers:
        dealer.send(b"hello")
    await until(lambda: bool(got))
    with pytest.raises(TimeoutError):
        await until(lambda: len(got) > 1 or any(strangers), seconds=0.3)
    for (dealer, _), one in zip(dealers, contexts, strict=True):
        dealer.close()
        one.destroy(linger=0)
    router.close()


async def test_tcp_over_ipv6(context: Context) -> None:
    heard: list[bytes] = []
    router, endpoint = bind_router(context, "tcp://[::1]:*", lambda _, text: heard.append(text))
    assert endpoint.startswith("tcp://[::1]:")
    dealer, seen = watched(context, endpoint)
    try:
        await until(lambda: seen == ["connected"])
        assert dealer.send(b"over six")
        await until(lambda: heard == [b"over six"])
    finally:
        dealer.close()
        router.close()


async def test_a_router_tells_whether_a_connection_is_up(context: Context, tmp_path: Path) -> None:
    """Also of one whose messages were not read yet."""
    who: list[bytes] = []
    router, endpoint = bind_router(context, f"ipc://{tmp_path}/r", lambda i, _: who.append(i))
    dealer, seen = watched(context, endpoint)
    await until(lambda: seen == ["connected"])
    dealer.send(b"hello")
    await until(lambda: bool(who))
    assert router.is_up(who[0], b"sign") and not router.is_up(b"nobody", b"sign")
    await until(lambda: seen == ["connected", b"sign"])
    router.read_on_demand(True)
    for _ in range(10):
        dealer.send(b"more")
    dealer.close(linger=100)
    await until(lambda: not router.is_up(who[0], b"sign"))
    router.read()
    assert len(who) == 11
    router.close()
    assert not router.is_up(who[0], b"sign")


async def test_a_message_over_the_bound_is_not_read_and_ends_its_connection(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline.bus.sockets.MAX_MESSAGE_BYTES", 1_000)
    got: list[int] = []
    router, endpoint = bind_router(context, f"ipc://{tmp_path}/r", lambda _, p: got.append(len(p)))
    (dealer, seen), (other, others) = watched(context, endpoint), watched(context, endpoint)
    await until(lambda: bool(seen and others))
    dealer.send(bytes(1_000))
    dealer.send(bytes(1_001))
    await until(lambda: "disconnected" in seen)
    other.send(b"x")
    await until(lambda: len(got) == 2)
    assert sorted(got) == [1, 1_000] and others == ["connected"]
    for each in (dealer, other, router):
        each.close()


async def test_a_message_of_more_parts_is_dropped(context: Context, tmp_path: Path) -> None:
    got: list[bytes] = []
    router, endpoint = bind_router(context, f"ipc://{tmp_path}/r", lambda _, p: got.append(p))
    with context.socket(zmq.DEALER) as dealer:
        dealer.connect(endpoint)
        dealer.send_multipart([b"one", b"two"])
        dealer.send(b"whole")
        await until(lambda: bool(got))
    assert got == [b"whole"]
    router.close()


async def test_a_host_that_vanished_shows_on_tcp(context: Context) -> None:
    """Its kernel says nothing, so the connection is asked for a sign of life."""
    router, endpoint = bind_router(context, "tcp://127.0.0.1:*", lambda *_: None)
    dealer, _ = watched(context, endpoint)
    for each in (router, dealer):
        assert each._socket.heartbeat_timeout == 6_000 > each._socket.heartbeat_ivl > 0
        each.close()


async def test_a_second_bind_steals_an_ipc_path(context: Context, tmp_path: Path) -> None:
    """Why the bus directory is locked: ZeroMQ itself refuses nothing here."""
    got: list[str] = []
    first, endpoint = bind_router(context, f"ipc://{tmp_path}/r", lambda *_: got.append("first"))
    second, _ = bind_router(context, endpoint, lambda *_: got.append("second"))
    dealer, seen = watched(context, endpoint)
    await until(lambda: bool(seen))
    dealer.send(b"x")
    await until(lambda: bool(got))
    assert got == ["second"]
    for each in (dealer, first, second):
        each.close()
