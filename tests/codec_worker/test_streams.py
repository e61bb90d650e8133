"""A call whose stream ends, and goes on in another: what was played, what is lost, what is told."""

from __future__ import annotations

import numpy as np
import pytest

from trunkline.bus import messages as m
from trunkline.codec_worker.calls import FORGET_NS, Calls
from trunkline.codec_worker.playout import SAMPLE_NS

from .peers import (
    ADAPTER,
    CALL,
    CODES,
    GATEWAY,
    MS,
    SECRET,
    SPEECH,
    Bench,
    coded,
    heard_codes,
    opened,
    seconds,
    speaking,
)

#: What may lie at the carrier: the lead, on top of it a frame that is due before the next tick, and
#: the second frame of the message.
UNPLAYED = range(480, 800 + 1)


def test_a_new_stream_goes_on_from_the_last_acknowledged_position() -> None:
    bench = speaking(1)
    lost_before = len(bench.gateway.written)
    bench.new_stream()
    assert bench.adapter.lost_out in UNPLAYED
    bench.tick(50)
    assert len(bench.gateway.written) == lost_before
    bench.open()
    bench.tick(60)
    assert bench.gateway.dropped == 0
    apart = heard_codes(bench.gateway.written) - coded(SPEECH[: seconds(1)])
    assert np.count_nonzero(apart) <= 3
    (stats,) = bench.worker.stats(bench.now)
    assert stats.frames_lost == -(-bench.adapter.lost_out // 160)


def test_what_a_lost_gateway_may_have_written_is_passed_over_and_told() -> None:
    """It lives on for a while without us, and the carrier plays what it has."""
    bench = speaking(1)
    position = bench.gateway.out_next
    assert position is not None
    bench.gateway_stopped = []  # what is sent now is not acknowledged
    bench.tick(4)
    bench.worker.disconnected(GATEWAY, bench.now)
    bench.gateway_stopped = None
    before = len(bench.gateway.written)
    bench.new_stream(reason=None)
    bench.open()
    bench.tick(60)
    begins = next(p for _, p in bench.gateway.frames if p >= before)
    in_doubt = begins - position
    assert in_doubt == 4 * 160
    assert len(bench.gateway.written) == 8000
    assert bench.adapter.lost_out - in_doubt in UNPLAYED  # when the gateway was last heard of


def test_an_adapter_that_attaches_late_is_told_what_the_stream_before_lost() -> None:
    bench = speaking(1)
    bench.worker.disconnected(ADAPTER, bench.now)
    bench.new_stream()
    bench.tick(5)
    assert bench.adapter.lost_out == 0
    bench.send(0, ADAPTER, m.Attach(CALL, SECRET))
    bench.run()
    assert bench.adapter.lost_out in UNPLAYED


def test_what_a_stream_lost_is_told_with_the_next_one_and_again_until_it_is_resumed() -> None:
    """Whoever reads that sound goes on behind what is in doubt reads that it is lost as well."""
    bench = speaking(1)
    bench.worker.disconnected(GATEWAY, bench.now)
    bench.new_stream(reason=None)
    for again in range(2):
        bench.worker.receive(GATEWAY, bench.gateway.open_call(bench.now), bench.now)
        ((_, told),) = bench.worker.take_instructions()
        assert isinstance(told, m.Opened) and told.unplayed in UNPLAYED, again
        bench.gateway.generation += 1
    resume = m.Resume(CALL, told.generation, 0, 0, 0, 0.0, bench.adapter.acknowledged, 0, 0)
    bench.worker.receive(ADAPTER, resume, bench.now)
    bench.worker.receive(GATEWAY, bench.gateway.open_call(bench.now), bench.now)
    assert [told for _, told in bench.worker.take_instructions() if isinstance(told, m.Loss)] == []
    bench.gateway.generation += 1
    bench.worker.receive(GATEWAY, bench.gateway.open_call(bench.now), bench.now)
    assert [
        told.unplayed for _, told in bench.worker.take_instructions() if isinstance(told, m.Opened)
    ] == [0]


def test_who_is_given_a_stream_that_has_ended_tells_what_lay_at_the_carrier() -> None:
    """Another gateway brings the next stream before this one has told the end."""
    worker = Calls("w")
    worker.receive(ADAPTER, m.Attach(CALL, SECRET), MS)
    for ordinal, out_next, ahead in ((1, 8000, 480), (2, None, 0)):
        generation = m.first_generation(ordinal)
        opening = m.OpenCall(CALL, generation, ordinal, SECRET, out_next, 0, [], [], 60, {}, ahead)
        worker.receive(GATEWAY, opening, ordinal * 400 * MS)
    told = [told for _, told in worker.take_instructions() if isinstance(told, m.Opened)]
    assert [(opened.out_next, opened.unplayed) for opened in told] == [(8000, 0), (8000, 480)]


def test_a_streams_end_between_opened_and_resume_is_told_then() -> None:
    bench = speaking(1)
    bench.gateway.generation += 1
    bench.worker.receive(GATEWAY, bench.gateway.open_call(bench.now), bench.now)
    ended = m.StreamEnded(CALL, bench.gateway.generation, 1, "error", 512)
    bench.worker.receive(GATEWAY, ended, bench.now)
    assert bench.adapter.lost_out == 0
    bench.run()
    assert bench.adapter.lost_out == 512


def test_who_hears_of_a_streams_end_has_heard_what_was_written() -> None:
    bench = speaking(1)
    bench.gateway_stopped = []
    bench.tick()  # a frame is written, and the word of it comes with the stream's end
    generation, position = bench.gateway.generation, bench.gateway.out_next
    assert position is not None
    for told in (
        m.Inbound([], [m.WrittenTo(CALL, generation, position + 160)]),
        m.StreamEnded(CALL, generation, 1, "error"),
    ):
        bench.from_gateway(told)
    bench.worker.work(bench.now, bench.now)
    kinds = [type(told) for peer, told in bench.worker.take_instructions() if peer == ADAPTER]
    assert kinds == [m.Heard, m.Loss, m.StreamOver]


def test_a_streams_end_that_is_read_late_tells_what_lay_at_the_carrier() -> None:
    """The worker was stopped meanwhile: by its own clock all of it had been played."""
    bench = speaking(1)
    bench.now += 400 * MS
    bench.from_gateway(m.StreamEnded(CALL, bench.gateway.generation, 1, "error", 512))
    bench.run()
    assert bench.adapter.lost_out == 512


def test_a_gateway_that_died_while_the_worker_stood_still_is_counted_from_before() -> None:
    bench = speaking(1)
    bench.now += 400 * MS
    bench.worker.disconnected(GATEWAY, bench.now)
    bench.new_stream(reason=None)
    bench.open()
    assert bench.adapter.lost_out in UNPLAYED


def test_a_worker_that_wakes_up_may_tick_before_it_reads_what_its_gateway_had_said() -> None:
    """Those words are as old as the worker's stop, though it has ticked meanwhile."""
    bench = opened()
    bench.speak(SPEECH[: seconds(1)])
    bench.tick(10)
    bench.now += 400 * MS
    bench.worker.tick(bench.now, bench.now + 20 * MS)
    bench.worker.work(bench.now, bench.now + 20 * MS)
    ((_, sent),) = bench.worker.take_instructions()  # to the gateway, which is gone
    assert isinstance(sent, m.Outbound)
    in_doubt = sum(len(frame.payload) for frame in sent.frames)
    bench.hear(0, CODES[:160])
    bench.worker.disconnected(GATEWAY, bench.now)
    bench.new_stream(reason=None)
    bench.open()
    assert bench.adapter.lost_out - in_doubt in UNPLAYED


def test_a_gateway_that_died_unseen_is_counted_from_when_it_was_last_heard() -> None:
    """The next stream comes before anything was sent to it that could not arrive."""
    bench = opened()
    bench.speak(SPEECH[: seconds(1)])
    bench.tick(10)
    bench.now += 150 * MS
    bench.new_stream(reason=None)
    bench.open()
    assert bench.adapter.lost_out in UNPLAYED


def test_a_gateway_that_died_is_counted_from_when_it_was_missed() -> None:
    bench = speaking(1)
    bench.worker.disconnected(GATEWAY, bench.now)
    bench.new_stream(reason=None)
    bench.tick(50)
    assert bench.adapter.lost_out == 0
    bench.open()
    assert bench.adapter.lost_out in UNPLAYED
    bench.tick(60)
    assert len(bench.gateway.written) == 8000


def test_a_gateway_that_stood_still_leaves_no_deep_buffer_behind() -> None:
    bench = speaking(6, ticks=20)
    bench.gateway_stopped = []
    bench.tick(100)  # 2 s
    bench.gateway.deepest = 0
    bench.wake_gateway()
    bench.tick(50)
    assert bench.gateway.deepest <= (60 + 100 + 20) * MS  # not two seconds of it
    assert bench.gateway.plays_until - bench.now <= (60 + 60) * MS  # and soon as ever
    (stats,) = bench.worker.stats(bench.now)
    assert stats.underruns == 1
    bench.tick(250)
    assert np.array_equal(heard_codes(bench.gateway.written), coded(SPEECH[: seconds(6)]))


def test_what_lies_at_the_carrier_after_a_gateway_stood_still_is_known_when_it_dies() -> None:
    bench = speaking(6, ticks=20)
    bench.gateway_stopped = []
    bench.tick(100)
    bench.wake_gateway()
    bench.tick(2)
    lay_there = bench.gateway.plays_until - bench.now
    bench.new_stream("error")
    assert abs(bench.adapter.lost_out * SAMPLE_NS - lay_there) <= 40 * MS


def test_a_later_stream_without_state_begins_where_the_adapter_says() -> None:
    bench = speaking(1)
    bench.replace(0)
    bench.new_stream(reason=None)
    bench.open()
    bench.tick(60)
    assert len(bench.gateway.written) == 8000
    assert bench.gateway.dropped == 0


def test_what_no_stream_brought_is_counted_where_the_resume_waited_for_the_worker() -> None:
    """The Resume says since when nothing was heard, and then waits 400 ms to be read."""
    bench = opened(workers=2)
    for n in range(10):
        bench.hear(160 * n, CODES[160 * n : 160 * (n + 1)])
        bench.tick()
    bench.new_stream(reason=None)
    bench.now += 500 * MS
    bench.run()  # until now nothing waits to be read
    bench.gateway.ring.append(m.InFrame(CALL, bench.gateway.generation, 2, 0, CODES[:160]))
    bench.stopped[1] = []
    worker = bench.workers[1]
    worker.receive(GATEWAY, bench.gateway.open_call(bench.now), bench.now)
    worker.work(bench.now, bench.now)
    ((_, told),) = worker.take_instructions()
    for answer in bench.adapter.take(told, bench.now):
        bench.send(1, ADAPTER, answer)
    bench.now += 400 * MS
    bench.wake(1)
    silent = 500 + 20  # ms since the last frame was heard: a tick after it, and the pause
    assert bench.adapter.lost_in in range(8 * (silent - 20 - 20), 8 * silent + 1)


def test_a_call_is_not_forgotten_where_its_gateway_goes_before_anything_was_worked_on() -> None:
    bench = Bench()
    bench.from_gateway(bench.gateway.open_call(bench.now))
    bench.hear(0, CODES[:160])
    bench.worker.disconnected(GATEWAY, bench.now)
    bench.worker.beat(bench.now)
    assert CALL in bench.worker.calls


def test_a_call_without_a_stream_is_forgotten_in_the_end() -> None:
    bench = opened()
    bench.new_stream()
    bench.worker.beat(bench.now + FORGET_NS)
    assert CALL in bench.worker.calls
    bench.worker.beat(bench.now + FORGET_NS + 1)
    assert bench.worker.calls == {}


@pytest.mark.parametrize("first", ["its client", "its stream"])
def test_a_call_without_a_stream_is_forgotten_at_once_where_its_client_has_left_it(
    first: str,
) -> None:
    bench = opened()
    if first == "its stream":
        bench.new_stream()
    bench.from_adapter(m.Detach(CALL))
    if first == "its client":
        bench.worker.beat(bench.now)
        assert CALL in bench.worker.calls  # its gateway still has it
        bench.new_stream()
    bench.worker.beat(bench.now)
    assert bench.worker.calls == {}


@pytest.mark.parametrize("comes_back", ["its client", "its stream"])
def test_a_call_that_was_left_is_kept_where_one_comes_back(comes_back: str) -> None:
    bench = opened()
    bench.new_stream()
    bench.from_adapter(m.Detach(CALL))
    if comes_back == "its client":
        bench.from_adapter(m.Attach(CALL, SECRET))
        bench.worker.disconnected(ADAPTER, bench.now)  # for a while
    else:
        bench.open()
    bench.worker.beat(bench.now + FORGET_NS)
    assert CALL in bench.worker.calls


def test_an_interrupt_that_was_done_while_the_gateway_was_away_is_done_again() -> None:
    """The connection between gateway and worker broke; both live, and the call comes back."""
    bench = speaking(1)
    bench.worker.disconnected(GATEWAY, bench.now)
    bench.from_adapter(bench.adapter.interrupt())
    bench.run()
    assert isinstance(bench.adapter.others[-1], m.Interrupted)
    assert "clear" not in bench.gateway.texts
    bench.speak(SPEECH[: seconds(1)])
    bench.move(0)
    assert bench.gateway.texts[-1] == "media" and bench.gateway.texts.count("clear") == 1
    bench.tick(70)
    assert len(bench.gateway.written) == 16_000 and bench.gateway.dropped == 0
