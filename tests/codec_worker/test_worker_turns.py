"""When the worker does its turns: by its gateways' messages, or by its timer. Its clock is set by
hand."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest

from trunkline.bus import messages as m
from trunkline.bus.settings import Settings
from trunkline.bus.testing import Context
from trunkline.codec_worker.playout import Playout
from trunkline.codec_worker.process import CLOCKED_FROM, DENSE_FROM, WorkerProcess

from .peers import CALL, GENERATION, SECRET


class Driven:
    """A worker whose clock is set by hand, in ms. ``ticks`` are (when, until, how many frames may
    go in a message)."""

    def __init__(self, context: Context, settings: Settings) -> None:
        self.now = 1_000_000
        self.worker = WorkerProcess(context, settings, clock=lambda: self.now * 1_000_000)
        self.ticks: list[tuple[int, int, int]] = []
        self.worker.calls.tick = self._ticked  # type: ignore[method-assign]  # the test's own

    def _ticked(self, now: int, until: int, together: int) -> None:
        began = 1_000_000
        self.ticks.append((now // 1_000_000 - began, until // 1_000_000 - began, together))

    def receive(self, at: int, message: m.ToWorker) -> None:
        """A gateway's message comes by itself, at this time."""
        self.now = 1_000_000 + at
        self.worker._receive(b"g", msgspec.msgpack.encode(message))
        self.worker._came()

    def open(self, at: int, name: str) -> None:
        self.receive(at, m.OpenCall(name, GENERATION, 1, SECRET, 0, 0, [], [], 60, {}))

    def wake(self, at: int) -> None:
        """The timer rings."""
        self.now = 1_000_000 + at
        self.worker._wake()

    def taken(self) -> list[tuple[int, int, int]]:
        """The ticks since this was asked last, in ms from the beginning."""
        found, self.ticks = self.ticks, []
        return found


@pytest.fixture
async def driven(context: Context, settings: Settings) -> AsyncIterator[Driven]:
    made = Driven(context, settings)
    yield made
    made.worker.close()


async def test_with_one_call_the_messages_of_its_gateway_are_the_clock(driven: Driven) -> None:
    driven.open(0, CALL)
    sound = m.Inbound([m.InFrame(CALL, GENERATION, 1, 0, b"x")])
    for at in (21, 39, 44, 60):
        driven.receive(at, sound)
    # The times until which is sent stay on one line; a message that is too early is no tick. Each
    # second one sends pairs.
    assert driven.taken() == [(0, 20, 2), (21, 40, 1), (39, 60, 2), (60, 80, 1)]


async def test_ticks_are_as_far_apart_as_the_pairs_of_a_gateway(driven: Driven) -> None:
    driven.open(0, CALL)
    driven.worker.calls.calls[CALL].inbound.gathers = 800
    sound = m.Inbound([m.InFrame(CALL, GENERATION, 1, 0, b"x")])
    for at in (20, 40, 81, 119):
        driven.receive(at, sound)
    driven.wake(168)  # none came
    # What falls due just before the next tick is left to it.
    assert driven.taken() == [
        (0, 20, 2),
        (20, 40, 1),
        (40, 75, 2),
        (81, 115, 2),
        (119, 155, 2),
        (168, 195, 2),
    ]


async def test_the_timer_ticks_where_no_message_came_and_the_next_message_is_the_clock_again(
    driven: Driven,
) -> None:
    driven.open(0, CALL)
    driven.wake(28)
    driven.wake(48)
    assert driven.taken() == [(0, 20, 2), (28, 40, 1), (48, 60, 2)]
    sound = m.Inbound([m.InFrame(CALL, GENERATION, 1, 0, b"x")])
    driven.receive(49, sound)
    driven.receive(69, sound)
    assert driven.taken() == [(49, 69, 1), (69, 89, 1)]


async def test_a_gateway_that_stood_still_leaves_the_carriers_buffer_no_deeper(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes all that waited for it in one go, to a buffer that had run dry, and says so in one
    message. So the timeline has to move by the underrun."""
    del driven.worker.calls.tick
    monkeypatch.setattr(driven.worker._socket, "send", lambda payload, to: True)
    for peer, role in ((b"g", "gateway"), (b"a", "adapter")):
        driven.worker._receive(peer, msgspec.msgpack.encode(m.MediaHello(role, role)))
    driven.open(0, CALL)
    for said in (
        m.Attach(CALL, SECRET),
        m.Resume(CALL, GENERATION, 0, 0, 0, 0.0, 0, 0, 0),
        m.Speak(CALL, GENERATION, 0, bytes(6 * 8000)),
    ):
        driven.worker._receive(b"a", msgspec.msgpack.encode(said))
    driven.worker._came()
    playout = driven.worker.calls.calls[CALL].playout
    assert playout is not None and playout.position == 640  # the lead, and the next frame
    driven.receive(1, m.Inbound([], [m.WrittenTo(CALL, GENERATION, playout.position)]))
    for at in range(20, 440, 20):
        driven.wake(at)
    assert playout.position - playout.acknowledged == 1280  # no more may wait for it
    driven.receive(441, m.Inbound([], [m.WrittenTo(CALL, GENERATION, playout.position)]))
    # The carrier had the first 80 ms at 0, and was dry from then on. At 420 nothing had come yet.
    assert (playout.underruns, playout.underrun_ns) == (1, (420 - 80) * 1_000_000)


async def test_with_many_calls_the_timer_is_the_clock(driven: Driven) -> None:
    for n in range(CLOCKED_FROM):
        driven.open(0, f"{n:032x}")
    driven.taken()
    driven.wake(2)
    driven.receive(5, m.Inbound([]))  # it waits for the timer
    for at in (12, 22, 32, 42):
        driven.wake(at)
    assert driven.taken() == [(2, 22, 1), (22, 42, 2), (42, 62, 1)]  # 2 ms after the gateways
    for n in range(CLOCKED_FROM):
        driven.worker.calls._forget(driven.worker.calls.calls[f"{n:032x}"], GENERATION)
    driven.wake(52)
    driven.taken()
    driven.open(61, CALL)
    assert driven.taken() == [(61, 82, 2)]  # as it comes again


async def test_with_many_calls_in_pairs_ticks_stand_between_the_looks_of_gateways(
    driven: Driven,
) -> None:
    """A gateway looks at its sockets at 0, 40, 80, …"""
    for n in range(DENSE_FROM):
        driven.open(0, f"{n:032x}")
        driven.worker.calls.calls[f"{n:032x}"].inbound.gathers = 800
    for at in (2, 12):
        driven.wake(at)
    driven.taken()
    wakes = []
    for _ in range(6):
        at = driven.worker._timer_at // 1_000_000 - 1_000_000
        wakes.append(at)
        driven.wake(at)
    assert wakes == [22, 42, 62, 82, 102, 122]  # whoever speaks or interrupts waits 20 ms at most
    # What falls due in the last 5 ms before a tick is left to it.
    assert driven.taken() == [(22, 57, 2), (62, 97, 2), (102, 137, 2)]
    for call in driven.worker.calls.calls.values():
        call.playout = Playout()
        call.playout.speak(0, bytes(8_000))
    wakes.clear()
    for _ in range(4):
        at = driven.worker._timer_at // 1_000_000 - 1_000_000
        wakes.append(at)
        driven.wake(at)
    assert wakes == [142, 162, 182, 222]  # nobody begins to speak now


async def test_the_end_of_pairs_moves_no_tick_that_sends_them(driven: Driven) -> None:
    """And the first one after it still sends all that falls due before the next."""
    for n in range(CLOCKED_FROM):
        driven.open(0, f"{n:032x}")
        driven.worker.calls.calls[f"{n:032x}"].inbound.gathers = 800

    def until(last: int) -> list[tuple[int, int, int]]:
        """The ticks until then."""
        driven.taken()
        while (at := driven.worker._timer_at // 1_000_000 - 1_000_000) <= last:
            driven.wake(at)
        return driven.taken()

    until(12)
    assert until(102) == [(22, 57, 2), (62, 97, 2), (102, 137, 2)]
    driven.worker.calls.calls[f"{0:032x}"].inbound.gathers = 0
    assert until(182) == [(142, 177, 2), (162, 182, 1), (182, 202, 2)]


async def test_frames_that_are_due_leave_before_anything_else_is_worked_on(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(CLOCKED_FROM):
        driven.open(0, f"{n:032x}")
    calls, done = driven.worker.calls, []
    monkeypatch.setattr(calls, "tick", lambda now, until, together: done.append("tick"))
    monkeypatch.setattr(calls, "work", lambda now, until: done.append("work"))
    monkeypatch.setattr(driven.worker, "_send", lambda: done.append("send"))
    driven.wake(2)
    assert done == ["tick", "send", "work", "send"]


async def test_a_clock_that_jumped_is_caught_up_with_in_one_tick(driven: Driven) -> None:
    driven.worker._clocked, driven.worker._deadline = True, 1_000_020 * 1_000_000
    for at in (20, 270):
        driven.now = 1_000_000 + at
        driven.worker._tick(driven.now * 1_000_000)
    assert [until for _, until, _ in driven.taken()] == [40, 280]


async def test_a_turn_that_fails_sets_the_timer_of_the_next_one(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(CLOCKED_FROM):
        driven.open(n, f"{n:032x}")
    worker = driven.worker

    def fail(*_: object) -> None:
        raise MemoryError

    for name in ("read", "readable"):
        with monkeypatch.context() as broken:
            broken.setattr(type(worker._socket), name, property(fail) if name != "read" else fail)
            for at in (100, 120, 140):
                driven.wake(at)
                assert worker._timer is not None and worker._timer_at > driven.now * 1_000_000
    driven.wake(160)
    assert worker.dropped["fault"] == 6 and worker.healthy


@pytest.mark.parametrize("calls", [0, 1, CLOCKED_FROM])
async def test_a_turn_that_fails_is_not_tried_again_without_a_pause(
    driven: Driven, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """Whichever clock it has: it would take all of a core."""
    worker = driven.worker
    worker.start()
    worker._receive(b"g", msgspec.msgpack.encode(m.MediaHello("gateway", "g")))
    for n in range(calls):
        driven.open(0, f"{n:032x}")

    def fail(*_: object) -> None:
        raise MemoryError

    for name in ("_beat", "_tick", "_work"):
        monkeypatch.setattr(worker, name, fail)
    driven.wake(10_000)
    assert worker.dropped["fault"] == 1
    assert worker._timer_at >= (driven.now + 20) * 1_000_000
    await worker.control.close()


async def test_a_worker_at_rest_is_well_however_long(driven: Driven) -> None:
    driven.now += 3_600_000
    assert driven.worker.healthy
    driven.open(3_600_000, CALL)
    assert driven.worker.healthy
    driven.now += 600
    assert not driven.worker.healthy, "no turn came, though a call is there"
