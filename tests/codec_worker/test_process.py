"""The worker's process on real sockets: it joins, carries a call, and ends when told."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import accumulate
from typing import TypeVar

import msgspec
import pytest

from trunkline.bus import messages as m
from trunkline.bus import tracing
from trunkline.bus.errors import ProtocolMismatchError
from trunkline.bus.settings import Settings
from trunkline.bus.sockets import connect_dealer
from trunkline.bus.testing import Context, FakeController, poison, until
from trunkline.codec_worker import calls, process
from trunkline.codec_worker.process import CLOCKED_FROM, WorkerProcess, main

from .peers import CALL, GENERATION, SECRET

T = TypeVar("T")


class Peer:
    """A DEALER of a gateway or an adapter."""

    def __init__(
        self, context: Context, endpoint: str, role: m.Role, kinds: msgspec.msgpack.Decoder[object]
    ) -> None:
        self.got: list[object] = []
        self.lost = False
        self._role = role
        self._decoder = kinds
        self.socket = connect_dealer(
            context,
            endpoint,
            lambda payload: self.take(self._decoder.decode(payload)),
            on_connected=self._hello,
            on_disconnected=self._gone,
        )

    def take(self, message: object) -> None:
        self.got.append(message)

    def _hello(self) -> None:
        self.send(m.MediaHello(self._role, self._role))

    def _gone(self) -> None:
        self.lost = True

    def send(self, message: m.ToWorker) -> None:
        assert self.socket.send(msgspec.msgpack.encode(message))

    def all(self, kind: type[T]) -> list[T]:
        return [message for message in self.got if isinstance(message, kind)]


class Gateway(Peer):
    """Acknowledges what it is sent."""

    def take(self, message: object) -> None:
        super().take(message)
        if isinstance(message, m.Outbound):
            written = [
                m.WrittenTo(frame.call, frame.generation, frame.position + len(frame.payload))
                for frame in message.frames
            ]
            self.send(m.Inbound([], written))


def gateway(context: Context, endpoint: str) -> Peer:
    return Gateway(context, endpoint, "gateway", msgspec.msgpack.Decoder(m.WorkerToGateway))


def adapter(context: Context, endpoint: str) -> Peer:
    return Peer(context, endpoint, "adapter", msgspec.msgpack.Decoder(m.WorkerToAdapter))


@pytest.fixture
async def worker(context: Context, settings: Settings) -> AsyncIterator[WorkerProcess]:
    made = WorkerProcess(context, settings)
    made.start()
    yield made
    await made.control.close()
    made.close()


def size(batch: m.Outbound) -> int:
    """Its samples."""
    return sum(len(frame.payload) for frame in batch.frames)


async def test_it_announces_itself_and_carries_a_call(
    context: Context, settings: Settings, worker: WorkerProcess
) -> None:
    controller = FakeController(context, settings.address.control)
    hello = await controller.wait_for(m.Hello)
    assert (hello.role, hello.endpoint, hello.pid) == ("codec_worker", worker.endpoint, os.getpid())

    client = adapter(context, worker.endpoint)
    await until(lambda: bool(client.all(m.Tick)))
    client.send(m.Attach(CALL, SECRET))
    carrier = gateway(context, worker.endpoint)
    await until(lambda: bool(carrier.all(m.Tick)))
    carrier.send(m.OpenCall(CALL, GENERATION, 1, SECRET, 0, 0, [], [], 60, {}))
    await until(lambda: bool(client.all(m.Opened)))
    client.send(m.Resume(CALL, GENERATION, 0, 0, 0, 0.0, 0, 0, 0))

    client.send(m.Speak(CALL, GENERATION, 0, bytes(6 * 3200)))
    await until(lambda: sum(map(size, carrier.all(m.Outbound))) == 3200)
    frames = [frame for batch in carrier.all(m.Outbound) for frame in batch.frames]
    *starts, end = accumulate((len(frame.payload) for frame in frames), initial=0)
    assert ([frame.position for frame in frames], end) == (starts, 3200)
    assert b"".join(frame.payload for frame in frames) == b"\xff" * 3200
    await until(
        lambda: any(to.position == 3200 for h in client.all(m.Heard) for to in h.acknowledged)
    )

    frame = m.InFrame(CALL, GENERATION, 1, 0, b"\xff" * 160)
    carrier.send(m.Inbound([frame]))
    carrier.send(m.StreamEnded(CALL, GENERATION, 1, "stop"))
    await until(lambda: bool(client.all(m.StreamOver)))
    sounds = [sound for heard in client.all(m.Heard) for sound in heard.sounds]
    assert b"".join(sound.pcm for sound in sounds) == bytes(960)

    await until(lambda: any(b.calls and b.calls[0].frames_in for b in controller.all(m.Beat)))
    controller.stop()
    for peer in (client, carrier):
        peer.socket.close()


async def test_what_it_cannot_read_is_dropped_and_a_lost_peer_is_forgotten(
    context: Context, worker: WorkerProcess
) -> None:
    peer = gateway(context, worker.endpoint)
    await until(lambda: bool(peer.all(m.Tick)))
    assert peer.socket.send(b"\xc1 no msgpack")
    assert peer.socket.send(msgspec.msgpack.encode(["NoSuchMessage", 1]))
    await until(lambda: worker.dropped["undecodable"] == 2)
    assert len(worker.calls.peers) == 1
    peer.socket.close()
    await until(lambda: not worker.calls.peers)


async def test_it_has_no_timer_while_nobody_is_connected(
    context: Context, worker: WorkerProcess
) -> None:
    assert worker._timer is None
    peer = gateway(context, worker.endpoint)
    await until(lambda: len(peer.all(m.Tick)) > 1)
    peer.socket.close()
    await until(lambda: worker._timer is None)


async def test_a_message_that_fails_costs_no_other_call(
    context: Context, worker: WorkerProcess, caplog: pytest.LogCaptureFixture
) -> None:
    peer = gateway(context, worker.endpoint)
    await until(lambda: bool(peer.all(m.Tick)))

    def fail(*_: object) -> None:
        raise RuntimeError("a defect")

    worker.calls._open = fail  # type: ignore[method-assign]  # the test's own
    peer.send(m.OpenCall(CALL, GENERATION, 1, SECRET, 0, 0, [], [], 60, {}))
    await until(lambda: "OpenCall failed" in caplog.text)
    ticks = len(peer.all(m.Tick))
    await until(lambda: len(peer.all(m.Tick)) > ticks + 1)
    peer.socket.close()


async def open_calls(
    context: Context, worker: WorkerProcess, names: list[str]
) -> tuple[Peer, Peer]:
    """A gateway and a client, with these calls."""
    client, carrier = adapter(context, worker.endpoint), gateway(context, worker.endpoint)
    await until(lambda: bool(client.all(m.Tick) and carrier.all(m.Tick)))
    for name in names:
        client.send(m.Attach(name, SECRET))
        carrier.send(m.OpenCall(name, GENERATION, 1, SECRET, 0, 0, [], [], 60, {}))
    await until(lambda: len(client.all(m.Opened)) == len(names))
    for name in names:
        client.send(m.Resume(name, GENERATION, 0, 0, 0, 0.0, 0, 0, 0))
    return client, carrier


@pytest.mark.parametrize("calls", [1, CLOCKED_FROM])
async def test_no_message_ends_the_pace_of_the_calls(
    context: Context, worker: WorkerProcess, calls: int
) -> None:
    """Whether messages are read as they come, or by the clock."""
    names = [CALL, *(f"{n:032x}" for n in range(1, calls))]
    client, carrier = await open_calls(context, worker, names)
    rogue = gateway(context, worker.endpoint)
    await until(lambda: bool(rogue.all(m.Tick)))
    seconds = 0.5
    for name in names:
        client.send(m.Speak(name, GENERATION, 0, bytes(int(seconds * 48_000))))
    found = poison(call=CALL)
    for payload in found.values():
        assert rogue.socket.send(payload)

    def sent(name: str) -> int:
        batches = carrier.all(m.Outbound)
        return sum(len(f.payload) for batch in batches for f in batch.frames if f.call == name)

    await until(lambda: all(sent(name) == seconds * 8_000 for name in names))
    assert worker.dropped == {"undecodable": len(found)}
    assert worker.healthy
    for peer in (client, carrier, rogue):
        peer.socket.close()


async def test_huge_numbers_do_not_leave_the_worker(
    context: Context, worker: WorkerProcess, settings: Settings
) -> None:
    """The largest that are let in: its answers and beats are still what msgpack carries."""
    controller = FakeController(context, settings.address.control)
    client, carrier = await open_calls(context, worker, [CALL])
    top = 2**48
    carrier.send(m.Inbound([m.InFrame(CALL, GENERATION, 1, top, b"\xff" * 160)]))
    await until(lambda: bool(client.all(m.Heard)))
    generation = 2**53
    carrier.send(m.OpenCall(CALL, generation, 2**36, SECRET, top, 2**53, [], [], 2**53, {}, top))
    await until(lambda: client.all(m.Opened)[-1].generation == generation)
    client.send(m.Resume(CALL, generation, 2**36, top, top, 1e6, top, top, 2**53))
    client.send(m.Gather(CALL, generation, 1_601))  # more than is let in
    client.send(m.Speak(CALL, generation, top, bytes(9_600)))
    client.send(m.Interrupt(CALL, generation, 2**53, top))
    client.send(m.SetMark(CALL, generation, "x" * 65_536, top))
    sound = m.InFrame(CALL, generation, 2**36, top, b"\xff" * 160)
    carrier.send(m.Inbound([sound], [m.WrittenTo(CALL, generation, top)]))
    carrier.send(m.StreamEnded(CALL, generation, 2**36, "stop", top))
    await until(lambda: bool(client.all(m.StreamOver)))
    beats = len(controller.all(m.Beat))
    await until(lambda: len(controller.all(m.Beat)) > beats + 1)
    assert controller.all(m.Beat)[-1].calls[0].generation == generation
    assert worker.dropped["fault"] == 0 and worker.healthy
    assert worker.dropped["undecodable"] == 1
    for peer in (client, carrier):
        peer.socket.close()
    controller.stop()


async def test_a_worker_whose_turns_fail_falls_silent_and_is_well_again_when_they_do_not(
    context: Context,
    worker: WorkerProcess,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    controller = FakeController(context, settings.address.control)
    client, carrier = await open_calls(context, worker, [CALL])
    await until(lambda: bool(controller.all(m.Beat)))
    failed: list[int] = []

    def fail(now: int, until: int, together: int) -> None:
        failed.append(now)
        raise ZeroDivisionError("a defect")

    with monkeypatch.context() as broken:
        broken.setattr(worker.calls, "tick", fail)
        await until(lambda: not worker.healthy)
        turns = len(failed)
        await until(lambda: len(failed) >= turns + 5)  # what was under way has come
        ticks, beats = len(carrier.all(m.Tick)), len(controller.all(m.Beat))
        await until(lambda: len(failed) >= turns + 55)  # 50 turns: a second
        assert len(carrier.all(m.Tick)) == ticks, "its gateways move its calls"
        assert len(controller.all(m.Beat)) == beats, "the controller gives it no others"
    await until(lambda: worker.healthy)
    await until(lambda: len(carrier.all(m.Tick)) > ticks and len(controller.all(m.Beat)) > beats)
    assert controller.all(m.Beat)[-1].dropped["fault"] >= 50
    assert caplog.text.count("a turn of the worker failed") == 1, "once a minute"
    assert "ZeroDivisionError: a defect" in caplog.text
    for peer in (client, carrier):
        peer.socket.close()
    controller.stop()


async def test_a_worker_gives_signs_of_life_while_it_is_healthy(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its keeper restarts it once there are none."""
    wells: list[Callable[[], bool]] = []
    monkeypatch.setattr(process, "lives_while", wells.append)
    stop = asyncio.Event()
    serving = asyncio.create_task(process.serve(settings, stop))
    await until(lambda: bool(wells))
    (well,) = wells
    assert well()
    monkeypatch.setattr(WorkerProcess, "healthy", False)
    assert not well()
    stop.set()
    assert await serving == 0
    assert not list(settings.address.directory.glob("w-*")), "its socket's file is gone"


async def test_one_message_that_cannot_be_encoded_keeps_none_of_the_others(
    context: Context, worker: WorkerProcess
) -> None:
    client, carrier = await open_calls(context, worker, [CALL])
    worker.calls._batches.instructions += [
        (next(iter(worker.calls.peers)), m.Loss(CALL, GENERATION, "inbound", 2**70, "")),
    ]
    client.send(m.Speak(CALL, GENERATION, 0, bytes(6 * 1600)))
    await until(lambda: sum(map(size, carrier.all(m.Outbound))) == 1600)
    assert worker.dropped["fault"] == 1
    for peer in (client, carrier):
        peer.socket.close()


class Span:
    def __init__(self) -> None:
        self.ended = 0

    def end(self) -> None:
        self.ended += 1


async def test_the_span_of_a_call_that_is_forgotten_ends(
    context: Context, worker: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway that dies sends neither StreamEnded nor CloseCall."""
    span = Span()
    monkeypatch.setattr(tracing, "begin", lambda name, trace, attributes: span)
    monkeypatch.setattr(calls, "FORGET_NS", 100_000_000)
    client, carrier = await open_calls(context, worker, [CALL])
    assert not span.ended
    carrier.socket.close()
    await until(lambda: not worker.calls.calls)
    await until(lambda: bool(span.ended))
    client.socket.close()


@pytest.fixture
def spawned(settings: Settings) -> Iterator[subprocess.Popen[str]]:
    environment = {
        **os.environ,
        "TRUNKLINE_BUS": settings.bus,
        "TRUNKLINE_STATE_DIR": str(settings.state_dir),
    }
    child = subprocess.Popen(
        [sys.executable, "-m", "trunkline.codec_worker.process"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield child
    child.kill()
    child.communicate()


@pytest.mark.e2e
async def test_sigterm_says_goodbye_and_ends_with_status_0(
    context: Context, settings: Settings, spawned: subprocess.Popen[str]
) -> None:
    controller = FakeController(context, settings.address.control)
    hello = await controller.wait_for(m.Hello)
    assert hello.pid == spawned.pid
    assert hello.endpoint is not None
    carrier = gateway(context, hello.endpoint)
    await until(lambda: bool(carrier.all(m.Tick)))
    carrier.send(m.OpenCall(CALL, GENERATION, 1, SECRET, 0, 0, [], [], 60, {}))
    await until(lambda: any(beat.calls for beat in controller.all(m.Beat)))
    spawned.send_signal(signal.SIGTERM)
    spawned.send_signal(signal.SIGTERM)  # twice is harmless
    await controller.wait_for(m.Goodbye)
    carrier.send(m.CloseCall(CALL, GENERATION + 1))  # moved elsewhere
    assert await asyncio.to_thread(spawned.wait, 20) == 0
    await until(lambda: carrier.lost)
    controller.stop()
    carrier.socket.close()


@pytest.mark.e2e
async def test_a_refused_worker_says_why_and_ends_with_status_1(
    context: Context, settings: Settings, spawned: subprocess.Popen[str]
) -> None:
    controller = FakeController(context, settings.address.control)
    controller.refuse = ProtocolMismatchError("protocol 1 is not spoken here")
    _, errors = await asyncio.to_thread(spawned.communicate, timeout=20)
    assert spawned.returncode == 1
    assert "trunkline codec-worker: protocol 1 is not spoken here" in errors
    controller.stop()


def test_a_wrong_setting_ends_it_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRUNKLINE_BUS", "nonsense")
    assert main() == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "TRUNKLINE_BUS" in error
