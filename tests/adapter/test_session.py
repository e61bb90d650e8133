"""A session in the client: what the controller says of its calls."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from trunkline.adapter.client.call_audio import READ_EVERY
from trunkline.adapter.client.media_link import MediaPlane
from trunkline.adapter.client.session import ClientSession
from trunkline.bus import messages as m
from trunkline.bus.errors import NumberBusyError, StackUnavailableError
from trunkline.bus.testing import poison


class Wires:
    """Connections to workers, all of them up at once; what is sent is kept."""

    def __init__(self) -> None:
        self.sent: list[m.ToWorker] = []
        self.up: list[Callable[[], None]] = []
        #: what a worker says, by its endpoint
        self.say: dict[str, Callable[[bytes], None]] = {}

    def connect(
        self, context: object, endpoint: str, on_message: Callable[[bytes], None], **callbacks: Any
    ) -> Wires:
        self.say[endpoint] = on_message
        self.up.append(callbacks["on_connected"])
        return self

    def send(self, payload: bytes) -> bool:
        self.sent.append(msgspec.msgpack.decode(payload, type=m.ToWorker))
        return True

    def close(self, linger: int = 0) -> None:
        """It is gone."""


class Taken:
    """A controller that takes each request."""

    async def request(self, body: m.RequestBody, expect: type[m.Done]) -> m.Done:
        return expect()


def open_session(media: MediaPlane, clock: Callable[[], float] = lambda: 100.0) -> ClientSession:
    return ClientSession(
        Taken(),  # type: ignore[arg-type]  # no more is asked
        media,
        clock,
        lambda forgotten: None,
        m.SessionInfo(session="a" * 32, secret="b" * 32, number="+14155550001"),
    )


ONE, TWO = (m.WorkerRef(id=name, endpoint=f"ipc:///{name}") for name in ("w1", "w2"))


def started(session: ClientSession, standby: m.WorkerRef | None = None) -> m.CallInfo:
    """A call that the controller has told the session of."""
    return m.CallInfo(
        call="c" * 32,
        session=session.id,
        sid="CA1",
        direction="inbound",
        caller="+16505551234",
        callee="+14155550001",
        secret="s" * 32,
        ordinal=1,
        placement=m.Placement(epoch=1, n=1, primary=ONE, standby=standby),
    )


def one_call(
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[Wires, MediaPlane, ClientSession, m.CallInfo]:
    """A session with a call, and the connection to its worker is up."""
    wires = Wires()
    monkeypatch.setattr("trunkline.adapter.client.media_link.connect_dealer", wires.connect)
    media = MediaPlane(None, "a1", None, lambda: 100.0)  # type: ignore[arg-type]  # no sockets here
    session = open_session(media)
    info = started(session)
    session.started(info)
    wires.up.pop()()
    return wires, media, session, info


async def test_a_session_whose_arming_failed_is_not_announced_as_armed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next controller would keep the override for it, though nobody waits for a call."""

    async def refuse(self: Taken, body: m.Arm, expect: object, **options: object) -> object:
        assert session.describe().armed
        raise NumberBusyError("somebody else has it")

    session = open_session(MediaPlane(None, "a1", None, lambda: 100.0))  # type: ignore[arg-type]  # no sockets here
    monkeypatch.setattr(Taken, "request", refuse)
    with pytest.raises(NumberBusyError):
        await session.arm(1.0, {})
    assert not session.describe().armed


async def test_secret_that_a_restarted_controller_made_is_told_to_the_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The one before it had let the stream in, told the client, and died before the gateway knew:
    the gateway asked again, and has the later secret."""
    wires, _, session, info = one_call(monkeypatch)
    later = m.Placement(epoch=2, n=1, primary=ONE)
    session.started(replace(info, secret="t" * 32, placement=later))
    attached = [x.secret for x in wires.sent if isinstance(x, m.Attach)]
    assert attached == ["s" * 32, "t" * 32]
    assert session.calls[info.call].describe().secret == "t" * 32


async def test_a_call_that_nobody_holds_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The sound that it kept is gone at once. No garbage has to be collected for that: in a program
    that makes little of it the sound of many calls would wait."""
    wires, _, session, info = one_call(monkeypatch)
    wires.say[ONE.endpoint](msgspec.msgpack.encode(m.Opened(info.call, 1 << 16, 1, 0)))
    call = session.incoming.take()
    assert not await call.sound.wait(0, enough=4800)
    gone = weakref.ref(call)
    gc.disable()
    try:
        session.lose(StackUnavailableError("the stack was killed"))
        del call
        assert gone() is None
    finally:
        gc.enable()


async def test_no_message_of_a_worker_ends_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    wires, media, _, info = one_call(monkeypatch)
    say = wires.say[ONE.endpoint]
    found = poison(call=info.call)
    for payload in found.values():
        say(payload)
    assert media.wall.dropped == {"undecodable": len(found)}
    say(msgspec.msgpack.encode(m.Opened(info.call, 1 << 16, 1, 0)))
    assert any(isinstance(message, m.Resume) for message in wires.sent)


@pytest.mark.parametrize("stopped", [True, False])
async def test_a_client_that_was_stopped_hears_the_old_worker_out(
    monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    """It reads the new worker's word first, but the old one had acknowledged more before that."""
    wires, now = Wires(), [100.0]
    monkeypatch.setattr("trunkline.adapter.client.media_link.connect_dealer", wires.connect)
    media = MediaPlane(None, "a1", None, lambda: now[0])  # type: ignore[arg-type]  # no sockets here
    session = open_session(media)
    info = started(session, standby=TWO)
    session.started(info)
    for up in wires.up:
        up()

    def say(worker: m.WorkerRef, message: m.WorkerToAdapter) -> None:
        wires.say[worker.endpoint](msgspec.msgpack.encode(message))

    audio = session.calls[info.call].audio
    first, second = 1 << 16, 2 << 16
    say(ONE, m.Opened(info.call, first, 1, 0))
    audio.say(bytes(48_000), now[0])
    session.calls[info.call].act()
    if stopped:
        now[0] += 2.0
    say(TWO, m.Opened(info.call, second, 2, None))
    say(TWO, m.Loss(info.call, second, "outbound", 480, "unplayed"))
    assert audio.active == ("w1" if stopped else "w2")
    say(ONE, m.Heard([], [m.AcknowledgedTo(info.call, first, 4000, False)]))
    say(ONE, m.StreamOver(info.call, first, 1, "error"))
    media.poll(now[0])
    now[0] += 0.1
    media.poll(now[0])
    assert audio.active == "w2"
    assert audio.lost.reasons["unplayed"] == 480
    resumed = [x.acknowledged for x in wires.sent if isinstance(x, m.Resume)]
    # Without its last word, 160 ms may have been played.
    assert resumed == [0, 4000 if stopped else 1280]


async def test_a_call_began_with_its_first_stream_though_the_client_hears_of_a_later_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The client stood still while the first stream came up and was lost with its worker. All that
    was said since then is missing."""
    wires = Wires()
    monkeypatch.setattr("trunkline.adapter.client.media_link.connect_dealer", wires.connect)
    session = open_session(MediaPlane(None, "a1", None, lambda: 100.0))  # type: ignore[arg-type]  # no sockets here
    info = replace(started(session), first=17, ordinal=18, age=1.5)
    session.started(info)
    wires.up.pop()()
    opened = m.Opened(info.call, m.first_generation(18), 18, None)
    wires.say[ONE.endpoint](msgspec.msgpack.encode(opened))
    (resume,) = [x for x in wires.sent if isinstance(x, m.Resume)]
    assert (resume.ordinal, resume.idle) == (0, 1.5)
    assert session.calls[info.call].describe().first == 17


async def test_a_call_is_over_when_its_hang_up_was_taken_whoever_tells_of_it_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The gateway and the controller were killed right behind the hang-up. The next controller
    finds 5 s later that the call is over, and cannot tell since when."""
    wires, now = Wires(), [100.0]
    monkeypatch.setattr("trunkline.adapter.client.media_link.connect_dealer", wires.connect)
    media = MediaPlane(None, "a1", None, lambda: now[0])  # type: ignore[arg-type]  # no sockets here
    session = open_session(media, lambda: now[0])
    info = started(session)
    session.started(info)
    wires.up.pop()()
    call, say = session.calls[info.call], wires.say[ONE.endpoint]
    say(msgspec.msgpack.encode(m.Opened(info.call, 1 << 16, 1, 0)))
    sound = m.Sound(info.call, 1 << 16, 0, 1, 160, 0, bytes(960))
    say(msgspec.msgpack.encode(m.Heard([sound], [])))
    now[0] += 0.5
    await session.hang_up(call)
    now[0] += 5.0
    session.ended(m.CallEnded(call=info.call, reason="close"))
    now[0] += 1.0
    session.poll(now[0])
    assert call.ended_reason == "close"
    assert call.audio.lost.inbound == pytest.approx((0.5 + READ_EVERY) * 8000)


async def test_the_log_says_once_that_a_session_is_lost(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _, _, session, _ = one_call(monkeypatch)
    session.told(m.SessionLost(session=session.id, why="the stack is being shut down"))
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert said.endswith(" is lost: the stack is being shut down")
    assert said.count("lost") == 1
