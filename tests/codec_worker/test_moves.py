"""A call that moves from worker to worker: nothing is lost, nothing comes twice."""

from __future__ import annotations

import numpy as np

from trunkline.bus import messages as m
from trunkline.codec_worker.playout import SAMPLE_NS

from .peers import (
    CALL,
    CODES,
    GATEWAY,
    MS,
    SPEECH,
    TICK,
    Bench,
    coded,
    decoded,
    heard_codes,
    opened,
    seconds,
    speaking,
)


def test_a_call_moves_to_a_standby_and_nothing_is_lost_or_doubled() -> None:
    bench = opened(workers=2)
    bench.speak(SPEECH[: seconds(4)])
    for n in range(50):
        bench.hear(n * 160, CODES[n * 160 : (n + 1) * 160])
        bench.tick()
    bench.replace(0)  # killed
    for n in range(50, 55):  # before the gateway noticed
        bench.gateway.ring.append(
            m.InFrame(CALL, bench.gateway.generation, 1, n * 160, CODES[n * 160 : (n + 1) * 160])
        )
    bench.move(1)
    for n in range(55, 100):
        bench.hear(n * 160, CODES[n * 160 : (n + 1) * 160])
        bench.tick()
    bench.from_gateway(m.StreamEnded(CALL, bench.gateway.generation, 1, "stop"))
    bench.run()
    assert bench.gateway.dropped == 0
    assert (bench.adapter.lost_in, len(bench.adapter.heard)) == (0, 96_000)
    heard = np.frombuffer(bytes(bench.adapter.heard), "<i2").astype(int)
    assert np.abs(heard - decoded(CODES[:16_000])).max() <= 1
    written = heard_codes(bench.gateway.written)
    joint = 54 * 160  # the new filter starts on silence there
    apart = np.abs(written - coded(SPEECH[: seconds(4)])[: len(written)])
    assert np.count_nonzero(apart[:joint]) <= 20
    assert np.count_nonzero(apart[joint + 40 :]) <= 20


def test_a_stopped_worker_that_wakes_up_harms_nothing() -> None:
    bench = speaking(3, workers=2)
    bench.stopped[0] = []
    bench.now += 25 * TICK
    bench.move(1)
    bench.tick(20)
    written = len(bench.gateway.written)
    bench.wake(0)
    assert len(bench.gateway.written) == written
    assert CALL not in bench.workers[0].calls
    bench.tick(150)
    assert len(bench.gateway.written) == 24_000
    assert [p for _, p in bench.gateway.frames] == [160 * n for n in range(150)]


def test_a_call_that_moves_again_and_again_keeps_its_lead() -> None:
    bench = opened(workers=2)
    bench.speak(SPEECH[: seconds(6)])
    for n in range(10):
        bench.tick(10)
        bench.move(1 - n % 2)
    assert bench.gateway.deepest <= (60 + 40) * MS
    lay_there = bench.gateway.plays_until - bench.now
    bench.new_stream("error")
    assert bench.adapter.lost_out * SAMPLE_NS == lay_there  # the last worker had sent but little


def given_back_to_the_first_worker(bench: Bench, ticks: int) -> None:
    """It is stopped, another has the call for a while, and it wakes up for a later stream. All that
    was on its way to it was lost with its gateway."""
    bench.stopped[0] = []
    bench.move(1)
    bench.tick(ticks)
    bench.stopped[0] = [x for x in bench.stopped[0] if not isinstance(x[1], m.CloseCall)]
    bench.new_stream(reason=None)
    bench.wake(0)
    bench.open(0)


def test_a_worker_whose_state_is_old_says_nothing_twice() -> None:
    bench = speaking(6, workers=2)
    given_back_to_the_first_worker(bench, 100)
    bench.tick(250)
    assert [p for _, p in bench.gateway.frames] == [160 * n for n in range(300)]


def test_a_worker_whose_state_is_old_says_the_rest_to_its_last_sample() -> None:
    """It has encoded all of it before others had the call: what its filter holds back is kept."""
    bench = speaking(2, workers=2)
    given_back_to_the_first_worker(bench, 50)
    bench.tick(60)
    last = slice(-160, None)
    assert np.array_equal(
        heard_codes(bench.gateway.written)[last], coded(SPEECH[: seconds(2)])[last]
    )


def test_a_worker_that_stood_still_does_not_count_what_cannot_have_lain_there() -> None:
    bench = speaking(6)
    bench.gateway_stopped = []  # it writes on; the worker stands still, and reads nothing
    bench.now += 2_000 * MS
    bench.tick()
    bench.worker.disconnected(GATEWAY, bench.now)
    bench.gateway_stopped = None
    bench.new_stream(reason=None)
    bench.open()
    in_doubt = 1280
    assert bench.adapter.lost_out <= in_doubt + 1280


def test_an_interrupt_that_no_worker_acknowledged_is_carried_out_by_the_next() -> None:
    bench = speaking(3, workers=2)
    bench.stopped[0] = []
    bench.from_adapter(bench.adapter.interrupt())
    bench.move(1)
    assert bench.gateway.texts[-1] == "clear"
    assert bench.gateway.out_next == 24_000
    bench.speak(SPEECH[: seconds(1)])
    bench.tick(70)
    assert len(bench.gateway.written) == 32_000


def test_an_interrupt_that_was_done_before_the_move_is_not_done_again() -> None:
    bench = opened(workers=2)
    bench.speak(SPEECH[: seconds(3)])
    bench.from_adapter(bench.adapter.interrupt())
    bench.run()
    bench.speak(SPEECH[: seconds(1)])
    bench.tick(5)
    bench.move(1)
    bench.from_adapter(m.Interrupt(CALL, bench.gateway.generation, 1, 24_000))
    bench.tick(70)
    assert bench.gateway.texts.count("clear") == 1
    assert len(bench.gateway.written) == 32_000
    assert isinstance(bench.adapter.others[-1], m.Interrupted)


def test_an_interrupt_that_others_carried_out_is_not_done_again_where_the_state_is_old() -> None:
    """The gateway would go back to the interrupt's floor, and take nothing that follows."""
    bench = speaking(3, workers=2)
    bench.stopped[0] = []
    bench.move(1)
    bench.from_adapter(bench.adapter.interrupt())
    bench.speak(SPEECH[: seconds(1)])
    bench.tick(10)
    bench.stopped[0] = [x for x in bench.stopped[0] if not isinstance(x[1], m.CloseCall)]
    bench.new_stream(reason=None)
    bench.wake(0)
    bench.open(0)
    bench.tick(70)
    assert bench.gateway.texts.count("clear") == 1
    assert len(bench.gateway.written) == 32_000


def test_old_generations_are_dropped() -> None:
    bench = opened()
    old = bench.gateway.generation
    bench.gateway.generation += 1
    bench.open()
    frame = m.InFrame(CALL, old, 1, 0, CODES[:160])
    for message in (
        m.Inbound([frame], [m.WrittenTo(CALL, old, 160)]),
        m.StreamEnded(CALL, old, 1, "stop"),
        m.CloseCall(CALL, old),
        m.MarkReached(CALL, old, "x"),
        m.Digit(CALL, old, m.DigitIn(1, 1, "1")),
    ):
        bench.from_gateway(message)
    bench.from_adapter(m.Speak(CALL, old, 0, SPEECH[:960]))
    bench.run()
    assert bench.worker.dropped["generation"] == 7
    assert bench.adapter.heard == b""
    assert bench.adapter.others == []


def test_a_call_that_moved_away_comes_back_only_under_a_newer_generation() -> None:
    bench = opened(workers=2)
    first = bench.gateway.open_call()
    bench.move(1)
    bench.run()
    assert CALL not in bench.workers[0].calls
    bench.send(0, GATEWAY, first)
    assert CALL not in bench.workers[0].calls
    bench.move(0)
    assert CALL in bench.workers[0].calls
    bench.speak(SPEECH[:9600])
    bench.tick(20)
    assert len(bench.gateway.written) == 1600


def test_an_interrupt_that_went_down_with_its_worker_is_done_where_nothing_is_known() -> None:
    """It was acknowledged, and its Clear never reached the gateway, which stands before it."""
    bench = speaking(1, workers=2)
    stands_at = bench.gateway.out_next
    bench.adapter.interrupt()
    bench.adapter.acknowledged = bench.adapter.floor  # by the word of the worker that died
    bench.move(1)
    assert bench.gateway.texts[-1] == "clear"
    assert (stands_at, bench.gateway.out_next) == (2400, 8000)
    bench.speak(SPEECH[: seconds(1)])
    bench.tick(70)
    assert len(bench.gateway.written) == 16_000
