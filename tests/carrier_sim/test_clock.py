"""The media clock rests while ticks have nothing to do. Its loop's time is made by the test."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from itertools import pairwise
from typing import Any

import pytest

from trunkline.carrier_sim.account import CallOptions
from trunkline.carrier_sim.bots import Record, Silence
from trunkline.carrier_sim.call import Call
from trunkline.carrier_sim.circuit import TICK_SECONDS, Circuit
from trunkline.carrier_sim.exchange import Fetched
from trunkline.carrier_sim.leg import Fetch
from trunkline.carrier_sim.mulaw import FRAME_SECONDS
from trunkline.carrier_sim.sim import CarrierSim

from .server import CALLEE, CALLER, OURS

PAUSE = CallOptions(twiml='<Response><Pause length="60"/></Response>')


class Time(selectors.SelectSelector):
    """Where the loop would wait for a timer, the time passes at once."""

    now = 1000.0
    #: How much sooner than asked a wait ends (seconds).
    early = 0.0
    #: How often the loop waited, and how many timers were set.
    waits = 0
    timers = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(timeout if timeout is None else 0)
        if not ready and timeout:
            self.waits += 1
            self.now += max(0.0, timeout - self.early)
        return ready


class Loop(asyncio.SelectorEventLoop):
    def __init__(self, clock: Time) -> None:
        super().__init__(clock)
        self._clock = clock
        self._clock_resolution = 0.0004  # timers may come so much before their time

    def time(self) -> float:
        return self._clock.now

    def call_at(self, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        self._clock.timers += 1
        return super().call_at(*args, **kwargs)


def run(test: Callable[[CarrierSim, Time], Coroutine[None, None, None]]) -> None:
    """The test, on a carrier whose time is made."""
    clock = Time()

    async def started() -> None:
        sim = CarrierSim()
        sim.now = asyncio.get_running_loop().time
        async with sim:
            await test(sim, clock)

    with asyncio.Runner(loop_factory=lambda: Loop(clock)) as runner:
        runner.run(started())


def test_nothing_is_scheduled_at_rest() -> None:
    async def test(sim: CarrierSim, clock: Time) -> None:
        await asyncio.sleep(60.0)
        assert (clock.waits, clock.timers) == (1, 1) and not sim.lateness

    run(test)


def test_a_clock_rests_while_it_rings_and_after_the_call() -> None:
    async def test(sim: CarrierSim, clock: Time) -> None:
        sim.add_callee(CALLEE, Record(ring=30.0, hang_up_after=1.0))
        call = sim.exchange.outbound(OURS, CALLEE, PAUSE, sim.now())
        await asyncio.sleep(29.0)
        assert call.status == "ringing" and clock.waits <= 3
        await asyncio.sleep(3.0)
        assert call.status == "completed"
        waits = clock.waits
        await asyncio.sleep(3000.0)
        assert clock.waits <= waits + 3  # one of them for the end of its ringing

    run(test)


def test_what_is_scheduled_at_rest_comes_at_its_time() -> None:
    async def test(sim: CarrierSim, clock: Time) -> None:
        came: list[tuple[float, float]] = []
        began = sim.now()
        await asyncio.sleep(100.0013)
        timers, scheduled = clock.timers, sim.now()
        for delay in (50.0, 10.0, 20.0):  # the second is due while the clock rests for the first
            sim.exchange.at(scheduled + delay, lambda now: came.append((now, sim.now())))
        await asyncio.sleep(60.0)
        assert clock.timers - timers <= 7  # a sleep, two for each, and the first was set once
        for delay, (tick, now) in zip((10.0, 20.0, 50.0), came, strict=True):
            point = (tick - began) / TICK_SECONDS
            assert point == pytest.approx(round(point), abs=1e-4)
            assert 0.0 <= tick - (scheduled + delay) < TICK_SECONDS
            assert now == pytest.approx(tick, abs=1e-6)

    run(test)


def test_what_a_tick_schedules_wakes_no_clock_twice() -> None:
    async def test(sim: CarrierSim, clock: Time) -> None:
        came = []

        def again(now: float) -> None:
            came.append(now)
            sim.exchange.at(now + 10.0, again)

        sim.exchange.at(sim.now() + 10.0, again)
        await asyncio.sleep(101.0)
        assert len(came) == 10 and clock.timers <= 21 and len(sim.lateness) <= 20

    run(test)


def test_a_tick_that_was_due_at_rest_is_made_up_for() -> None:
    async def test(sim: CarrierSim, clock: Time) -> None:
        came: list[float] = []
        when = sim.now() + 10.0
        sim.exchange.at(when, came.append)
        await asyncio.sleep(9.0)
        clock.now += 1.1  # something else has the core, and then comes before the clock
        sim.exchange.at(sim.now() + 1.0, came.append)
        await asyncio.sleep(2.0)
        assert len(came) == 2 and 0.0 <= came[0] - when < TICK_SECONDS
        assert max(sim.lateness) == pytest.approx(0.1, abs=TICK_SECONDS)

    run(test)


def test_what_is_due_on_a_point_of_the_grid_comes_on_it() -> None:
    async def test(sim: CarrierSim, clock: Time) -> None:
        came: list[float] = []
        points = [sim.now() + n * TICK_SECONDS for n in range(200, 2_000, 99)]
        for when in points:
            sim.exchange.at(when, came.append)
        await asyncio.sleep(20.0)
        assert came == pytest.approx(points, abs=1e-6)

    run(test)


def test_a_tick_that_came_early_comes_once() -> None:
    async def test(sim: CarrierSim, clock: Time) -> None:
        clock.early = 0.0003
        came: list[float] = []

        def twice(now: float) -> None:
            came.append(now)
            asyncio.get_running_loop().call_soon(lambda: sim.exchange.at(now, came.append))

        for n in range(20):
            sim.exchange.at(sim.now() + 1.0013 * (n + 1), twice)
        await asyncio.sleep(30.0)
        assert len(came) == 40 and min(sim.lateness) < -0.0002
        assert all(later - tick > 0.0 for tick, later in pairwise(came))

    run(test)


def test_a_carrier_that_was_stopped_is_not_woken() -> None:
    async def test(sim: CarrierSim, clock: Time) -> None:
        await sim.stop()
        came: list[float] = []
        sim.exchange.at(sim.now() + 1.0, came.append)
        await asyncio.sleep(2.0)
        assert clock.waits == 1 and not came

    run(test)


def test_a_socket_that_outlives_its_call_has_its_ticks() -> None:
    class Lingering:
        disturbed = True
        ticks = 0

        def tick(self, now: float) -> None:
            self.ticks += 1

        def abort(self) -> None:
            pass

    async def test(sim: CarrierSim, clock: Time) -> None:
        socket = Lingering()
        sim._sockets["socket"] = socket  # type: ignore[index, assignment]  # as a StreamSocket
        sim._disturbed = True
        sim.exchange.at(sim.now(), lambda now: None)
        await asyncio.sleep(0.1)
        assert socket.ticks == pytest.approx(0.1 / TICK_SECONDS, abs=1)
        sim._sockets.clear()
        waits = clock.waits
        await asyncio.sleep(10.0)
        assert clock.waits <= waits + 2

    run(test)


def test_a_call_that_comes_in_at_rest_lets_its_pauses_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(sim: CarrierSim, clock: Time) -> None:
        fetched: list[tuple[Call, Fetch, int]] = []
        monkeypatch.setattr(sim, "fetch", lambda *fetch: fetched.append(fetch))
        sim.add_number(OURS, voice_url="https://h/voice")
        await asyncio.sleep(3600.0013)
        call = await sim.place_inbound_call(CALLER, OURS, Silence())
        document = b'<Response><Pause length="2"/><Reject/></Response>'
        sim.exchange.fetched(*fetched[0], Fetched(document, "text/xml"), sim.now())
        await asyncio.sleep(1.9)
        assert call.status == "ringing"
        await asyncio.sleep(0.2)
        assert call.status == "no-answer"

    run(test)


def test_a_condition_is_looked_at_while_nothing_else_is_to_be_done() -> None:
    async def test(sim: CarrierSim, clock: Time) -> None:
        await asyncio.sleep(10.0013)
        until = sim.now() + 1.0
        await sim.wait_until(lambda: sim.now() >= until)
        assert sim.now() - until < 2 * TICK_SECONDS
        waits = clock.waits
        await asyncio.sleep(10.0)
        assert clock.waits <= waits + 2

    run(test)


def test_a_call_after_an_hour_of_rest_has_its_frames_on_the_grid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frames: list[float] = []
    tick = Circuit.tick

    def noted(circuit: Circuit, now: float, heard: Any) -> None:
        frames.append(now)
        tick(circuit, now, heard)

    monkeypatch.setattr(Circuit, "tick", noted)

    async def test(sim: CarrierSim, clock: Time) -> None:
        sim.add_callee(CALLEE, Record())
        began = sim.now()
        await asyncio.sleep(3600.0013)
        placed = sim.now()
        call = sim.exchange.outbound(OURS, CALLEE, PAUSE, placed)
        await asyncio.sleep(1.0)
        assert max(sim.lateness) < 1e-6 and len(sim.lateness) <= 1.0 / TICK_SECONDS + 1
        clock.now += 0.1  # something else has the core meanwhile
        await asyncio.sleep(1.0)
        assert placed <= frames[0] < placed + FRAME_SECONDS + TICK_SECONDS
        assert len(frames) == pytest.approx((sim.now() - placed) / FRAME_SECONDS, abs=2)
        assert len(call.played) == 160 * len(frames)
        for number, frame in enumerate(frames):
            assert frame == pytest.approx(frames[0] + number * FRAME_SECONDS, abs=1e-6)
        point = (frames[0] - began) / TICK_SECONDS
        assert point == pytest.approx(round(point), abs=1e-4)

    run(test)
