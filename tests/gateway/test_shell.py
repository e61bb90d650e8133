"""The shell without sockets: what it gathers for the workers."""

from __future__ import annotations

import base64
import json
from typing import Any
from unittest import mock

import msgspec
import pytest

from trunkline.bus import messages as m
from trunkline.gateway import instructions as do
from trunkline.gateway.authenticator import Authenticator
from trunkline.gateway.refusals import Refusals
from trunkline.gateway.shell import Shell
from trunkline.gateway.sockets import PERIOD, Sockets

NOTHING: Any = None
CALL, STREAM = "CA" + "1" * 32, "MZ" + "2" * 32
#: lets everybody in
ANYBODY = Authenticator(None, lambda: None, Refusals(lambda seconds, call: None))


class Link:
    """A connection to a worker that takes messages, or none any more."""

    def __init__(self, alive: bool = True) -> None:
        self.alive = alive
        self.sent: list[m.ToWorker] = []

    def send(self, payload: bytes) -> bool:
        if self.alive:
            self.sent.append(msgspec.msgpack.decode(payload, type=m.ToWorker))
        return self.alive


class Streams:
    """Something waits for workers a, b and c; a call moves from a to b once a is lost."""

    waits = False

    def flush(self, now: float, *, all_of_it: bool) -> list[do.Instruction]:
        return [
            do.SendToWorker(name, m.Inbound([], [m.WrittenTo(f"call of {name}", 1, 160)]))
            for name in ("a", "b", "c")
        ]

    def link_lost(self, endpoint: str, now: float) -> list[do.Instruction]:
        assert endpoint == "a"
        return [do.SendToWorker("b", m.CloseCall("c1", 2))]


async def test_a_worker_that_is_lost_by_a_flush_takes_nothing_from_the_others() -> None:
    shell = Shell("g1", ANYBODY, NOTHING, NOTHING, clock=lambda: 100.0)
    lost, other = Link(alive=False), Link()
    shell.streams = Streams()  # type: ignore[assignment]  # what the shell uses of it here
    shell._links = {"a": lost, "b": other, "c": other}  # type: ignore[dict-item]  # as a BusSocket
    shell._flush()
    told = [x.written[0].call for x in other.sent if isinstance(x, m.Inbound)]
    assert told == ["call of b", "call of c"]
    assert [type(x) for x in other.sent] == [m.CloseCall, m.Inbound, m.Inbound]


@pytest.mark.parametrize("pairs", [False, True])
async def test_what_the_clock_has_gathered_waits_for_no_other_flush(pairs: bool) -> None:
    shell = Shell("g1", ANYBODY, NOTHING, NOTHING, clock=lambda: 100.0)
    flush = mock.Mock(return_value=[])
    shell.streams.flush = flush  # type: ignore[method-assign]  # only its arguments are of interest
    with mock.patch.object(Sockets, "in_pairs", pairs):
        shell._flush()
    flush.assert_called_once_with(100.0, all_of_it=pairs)


@pytest.mark.parametrize("together", [False, True])
async def test_a_stream_has_ended_before_its_end_is_read(together: bool) -> None:
    """Where sockets are read by the clock, up to a period before: what lay unplayed at the carrier
    then is lost."""
    shell = Shell("g1", ANYBODY, NOTHING, NOTHING, clock=lambda: 100.0)
    ended = mock.Mock(return_value=[])
    shell.streams.closed = ended  # type: ignore[method-assign]  # only its arguments are of interest
    socket = shell.connect()
    assert socket is not None
    with mock.patch.object(Sockets, "clocked", together):
        shell.apply([do.EndStream(socket.number, "error")])
    ended.assert_called_once_with(socket.number, "error", 100.0 - (PERIOD if together else 0.0))


def sound(timestamp: int, size: int = 160) -> bytes:
    payload = base64.b64encode(bytes(size)).decode()
    media = {"track": "inbound", "timestamp": str(timestamp), "payload": payload}
    return json.dumps({"event": "media", "streamSid": STREAM, "media": media}).encode()


async def test_two_frames_that_are_read_together_go_on_as_one() -> None:
    shell = Shell("g1", ANYBODY, NOTHING, NOTHING, clock=lambda: 100.0)
    taken = mock.Mock(return_value=False)
    shell.streams.media = taken  # type: ignore[method-assign]  # only its arguments are of interest
    socket = shell.connect()
    assert socket is not None
    socket.opened(mock.Mock(is_open=True))
    start = {"callSid": CALL, "streamSid": STREAM, "customParameters": {}}
    socket.protocol.receive(json.dumps({"event": "start", "start": start}).encode())
    socket._applicant.state = "live"

    def read(first: bytes, second: bytes) -> list[tuple[int, int]]:
        """(position, samples) of what went on."""
        taken.reset_mock()
        socket.two_texts(first, second)
        return [(call.args[1], len(call.args[2])) for call in taken.mock_calls]

    assert read(sound(0), sound(20)) == [(0, 320)]
    assert read(sound(40), sound(80)) == [(320, 160), (640, 160)], "one between them is lost"
    assert read(sound(100, 80), sound(110)) == [(800, 80), (880, 160)], "half a frame"
    digit = {"event": "dtmf", "streamSid": STREAM, "dtmf": {"digit": "5"}}
    assert read(sound(130), json.dumps(digit).encode()) == [(1040, 160)]
    assert read(sound(130), sound(150)) == [(1200, 160)], "the first one has been here"
    assert socket.protocol.bad == {"timestamp": 1}
    socket._applicant.state = "held"
    socket._applicant.held.clear()
    assert read(sound(170), sound(190)) == []
    assert [event.position for event in socket._applicant.held] == [1360, 1520]


async def test_a_hub_looks_at_the_clock_while_somebody_is_there_and_not_before() -> None:
    now = 100.0
    shell = Shell("g1", ANYBODY, NOTHING, NOTHING, clock=lambda: now)
    assert shell._timer is None
    now = 900.0  # a long rest, which is nobody's stall
    socket = shell.connect()
    assert socket is not None
    assert shell._timer is not None
    shell._timer.cancel()
    shell._check()
    assert shell._timer is not None, "a socket is there"
    shell._timer.cancel()
    shell.ended(socket.number, "close")
    shell.disconnected(socket.number)
    shell._check()
    assert shell._timer is None
