"""The state of the streams, one rule after the other: sound, ends, later and one-way streams."""

from __future__ import annotations

import itertools

import pytest
from msgspec.structs import replace

from trunkline.bus import messages as m
from trunkline.gateway.stream import RING_FRAMES, RING_SAMPLES
from trunkline.gateway.streams import Streams

from .model import (
    G1,
    G2,
    A,
    B,
    Bench,
    C,
    PlainWire,
    accepted,
    opened,
    payload_at,
    placement,
    up,
    worker,
)


def two_up(bench: Bench, second: m.WorkerRef = A) -> None:
    """Call c1 on socket 1 at worker A, and call c2 on socket 2 at ``second``; OpenCalls taken."""
    up(bench, placement(1, A))
    bench.accept(2, accepted(placement(1, second), call="c2"))
    if second is not A:
        bench.up(second)
    bench.take(second)


def test_the_primary_is_opened_once_it_is_connected(bench: Bench) -> None:
    bench.accept(1, accepted(placement(1, A, B)))
    assert bench.opened_links == [A.endpoint, B.endpoint]
    bench.heard(1, 0, 160)
    bench.flush()
    assert bench.take(A) == []
    bench.up(B)
    assert bench.take(B) == []
    bench.up(A)
    call = opened(bench, A)
    assert (call.call, call.generation, call.ordinal, call.secret) == ("c1", G1, 1, "secret")
    assert (call.out_next, call.playback, call.lead_ms) == (0, 0, 60)
    assert [(f.position, f.payload, f.generation) for f in call.ring] == [
        (0, payload_at(0), G1),
        (160, payload_at(160), G1),
    ]
    assert bench.told == []


def test_inbound_frames_go_in_one_batch_for_all_calls(bench: Bench) -> None:
    two_up(bench)
    assert bench.streams.media(1, 0, b"x") is True
    assert bench.streams.media(2, 0, b"y") is False
    assert bench.streams.media(1, 160, b"z") is False
    bench.flush()
    assert bench.take(A) == [
        m.Inbound(
            [
                m.InFrame("c1", G1, 1, 0, b"x"),
                m.InFrame("c2", G1, 1, 0, b"y"),
                m.InFrame("c1", G1, 1, 160, b"z"),
            ]
        )
    ]
    bench.flush()
    assert bench.take(A) == []
    assert bench.streams.media(1, 320, b"x") is True


def test_outbound_sound_is_written_and_acknowledged(bench: Bench) -> None:
    two_up(bench)
    bench.say(
        A,
        m.Outbound(
            [
                m.OutFrame("c1", G1, 0, payload_at(0)),
                m.OutFrame("c2", G1, 0, payload_at(0)),
                m.OutFrame("c1", G1, 160, payload_at(160)[:80]),
            ]
        ),
    )
    assert bench.written[1] == [b"media " + payload_at(0), b"media " + payload_at(160)[:80]]
    bench.flush()
    written = [m.WrittenTo("c1", G1, 240), m.WrittenTo("c2", G1, 160)]
    assert bench.take(A) == [m.Inbound([], written)]


def test_how_much_lies_at_the_carrier_is_told_as_of_the_flush(bench: Bench) -> None:
    up(bench, placement(1, A))
    bench.sound(A, G1, 0, 160, 320)
    bench.take(A)
    bench.run(bench.streams.flush(bench.now + 0.025))  # 60 ms were written
    said = m.Inbound([], [m.WrittenTo("c1", G1, 480, 280)], bench.now + 0.025)
    assert bench.take(A) == [said]
    bench.sound(A, G1, 480)
    bench.run(bench.streams.flush(bench.now + 1.0))
    said = m.Inbound([], [m.WrittenTo("c1", G1, 640, 0)], bench.now + 1.0)
    assert bench.take(A) == [said]


def test_a_worker_that_wants_pairs_gets_two_flushes_in_one_message(bench: Bench) -> None:
    up(bench, placement(1, A))
    bench.take(A)
    bench.say(A, m.Pair(True))
    sent = []
    for n in range(4):
        bench.heard(1, 160 * n)
        if n == 2:
            bench.sound(A, G1, 0)
        bench.flush()
        assert bench.streams.waits == (n % 2 == 0)
        sent.append([message for message in bench.take(A) if isinstance(message, m.Inbound)])
    assert [len(messages) for messages in sent] == [0, 1, 0, 1]
    assert [frame.position for frame in sent[3][0].frames] == [320, 480]
    assert sent[3][0].written == [m.WrittenTo("c1", G1, 160)]
    bench.flush()
    assert not bench.streams.waits, "nothing is there"
    bench.heard(1, 640)
    bench.flush()
    bench.run(bench.streams.digit(1, 1, "5"))
    assert [type(message) for message in bench.take(A)] == [m.Inbound, m.Digit]
    bench.heard(1, 800)
    bench.run(bench.streams.flush(all_of_it=True))
    assert [type(message) for message in bench.take(A)] == [m.Inbound]
    bench.say(A, m.Pair(False))
    bench.heard(1, 960)
    bench.flush()
    assert [type(message) for message in bench.take(A)] == [m.Inbound]


def test_whoever_takes_a_call_over_gets_what_the_one_before_it_was_told(bench: Bench) -> None:
    up(bench, placement(1, A, B))
    bench.streams.media(1, 0, payload_at(0) + payload_at(160))  # two frames that came together
    bench.heard(1, 320)
    bench.streams.media(1, 480, payload_at(480)[:80])
    bench.flush()
    (told,) = bench.take(A)
    assert isinstance(told, m.Inbound)
    shape = [(frame.position, len(frame.payload)) for frame in told.frames]
    assert shape == [(0, 320), (320, 160), (480, 80)]
    bench.take(B)
    bench.run(bench.streams.call_placed(m.CallPlaced(call="c1", placement=placement(2, B)), 0.0))
    ring = [(frame.position, frame.payload) for frame in opened(bench, B).ring]
    assert ring == [(frame.position, frame.payload) for frame in told.frames]


def test_a_worker_that_is_answered_alone_decides_for_no_other_one(bench: Bench) -> None:
    """A call of it has sent all that it has. Its gateway answers at once, and it wants no pairs."""
    two_up(bench, B)
    bench.say(A, m.Pair(True))
    bench.heard(1, 0)
    bench.heard(2, 0)
    bench.flush()
    assert not bench.streams.in_pairs
    bench.sound(A, G1, 0)
    bench.run(bench.streams.flush(all_of_it=True))
    bench.say(A, m.Pair(False))
    assert not bench.streams.in_pairs


def test_pairs_are_looked_for_where_all_workers_with_sound_want_them(bench: Bench) -> None:
    two_up(bench, B)

    positions = itertools.count(0, 160)

    def looks(*sockets: int) -> bool:
        position = next(positions)
        for socket in sockets:
            bench.heard(socket, position)
        bench.flush()
        return bench.streams.in_pairs

    assert not looks(1, 2)
    bench.say(A, m.Pair(True))
    assert not looks(1, 2)
    bench.say(B, m.Pair(True))
    assert looks(1, 2)
    bench.say(B, m.Pair(False))
    assert not looks(1, 2)
    assert looks(1), "the other one gets nothing"


def test_a_call_that_is_opened_at_a_worker_ends_its_pairs(bench: Bench) -> None:
    """Nobody has said yet in what pieces its sound is taken."""
    up(bench, placement(1, A))
    bench.say(A, m.Pair(True))
    bench.accept(2, accepted(placement(1, A), call="c2"))
    bench.take(A)
    bench.heard(1, 0)
    bench.flush()
    assert [type(message) for message in bench.take(A)] == [m.Inbound]


def test_sound_out_of_position_is_dropped_and_the_position_told(bench: Bench) -> None:
    up(bench, placement(1, A))
    bench.sound(A, G1, 0)
    bench.flush()
    bench.take(A)
    bench.sound(A, G1, 0, 320)
    assert bench.played(1) == [0]
    assert bench.streams.dropped == {"position": 2}
    bench.flush()
    assert bench.take(A) == [m.Inbound([], [m.WrittenTo("c1", G1, 160)])]


def test_sound_of_strangers_is_dropped(bench: Bench) -> None:
    up(bench, placement(1, A, B))
    bench.sound(A, G1, 0, call="other")
    bench.sound(A, G1 - 1, 0)
    bench.sound(A, G1 + 1, 0)
    bench.sound(B, G1, 0)
    bench.say(B, m.Clear("c1", G1, 0, 1))
    bench.say(B, m.Mark("c1", G1, "m"))
    assert bench.written == {}
    assert bench.streams.dropped == {"unknown-call": 1, "generation": 5}
    assert bench.take(A) == []


def test_clear_moves_the_position(bench: Bench) -> None:
    up(bench, placement(1, A))
    bench.sound(A, G1, 0)
    bench.say(A, m.Clear("c1", G1, 1600, 1))
    bench.sound(A, G1, 160, 1600)
    assert bench.written[1] == [b"media " + payload_at(0), b"clear", b"media " + payload_at(1600)]
    bench.lost(A)
    bench.run(bench.streams.call_placed(m.CallPlaced(call="c1", placement=placement(2, B)), 0.0))
    bench.up(B)
    call = opened(bench, B)
    assert (call.out_next, call.playback) == (1760, 1)


def test_a_worker_that_takes_over_is_told_what_lies_at_the_carrier(bench: Bench) -> None:
    up(bench, placement(1, A, B))
    bench.take(B)
    bench.sound(A, G1, 0, 160, 320, 480)
    bench.now += 0.05
    bench.lost(A)
    assert opened(bench, B).ahead == 240  # 80 ms were written, 50 have passed
    bench.say(B, m.Clear("c1", G1 + 1, 1600, 1))
    bench.lost(B)
    bench.now += 1.0
    bench.run(
        bench.streams.call_placed(m.CallPlaced(call="c1", placement=placement(2, C)), bench.now)
    )
    bench.up(C)
    assert opened(bench, C).ahead == 0


def test_digits_come_after_the_sound_before_them(bench: Bench) -> None:
    up(bench, placement(1, A))
    bench.heard(1, 0)
    bench.run(bench.streams.digit(1, 1, "5"))
    inbound, digit = bench.take(A)
    assert isinstance(inbound, m.Inbound)
    assert digit == m.Digit("c1", G1, m.DigitIn(1, 1, "5"))


def test_marks_come_back(bench: Bench) -> None:
    up(bench, placement(1, A))
    bench.say(A, m.Mark("c1", G1, "one"))
    assert bench.written[1] == [b"mark one"]
    bench.run(bench.streams.mark_returned(1, "one"))
    assert bench.take(A) == [m.MarkReached("c1", G1, "one")]
    bench.run(bench.streams.mark_returned(1, "one"))
    bench.run(bench.streams.mark_returned(1, "never sent"))
    assert bench.take(A) == []
    assert bench.streams.dropped == {"unknown-mark": 2}


def test_a_mark_that_a_clear_threw_out_does_not_stand_for_a_later_one(bench: Bench) -> None:
    up(bench, placement(1, A))
    bench.say(A, m.Mark("c1", G1, "one"))
    bench.say(A, m.Clear("c1", G1, 0, 1))
    bench.say(A, m.Mark("c1", G1, "one"))
    bench.run(bench.streams.mark_returned(1, "one"))
    assert bench.take(A) == []
    assert bench.streams.dropped == {"stale-mark": 1}
    bench.run(bench.streams.mark_returned(1, "one"))
    assert bench.take(A) == [m.MarkReached("c1", G1, "one")]


def test_the_ring_holds_ten_seconds(bench: Bench) -> None:
    bench.accept(1, accepted(placement(1, A)))
    bench.heard(1, *range(0, 160 * 700, 160))
    bench.up(A)
    ring = opened(bench, A).ring
    assert [f.position for f in ring] == list(range(160 * 200, 160 * 700, 160))


@pytest.mark.parametrize("step", [0, 1, 8, 10**9])
def test_the_ring_is_bounded_whatever_the_positions(bench: Bench, step: int) -> None:
    bench.accept(1, accepted(placement(1, A)))
    for n in range(5000):
        bench.streams.media(1, n * step, b"x" * 100)
    bench.up(A)
    ring = opened(bench, A).ring
    assert 0 < len(ring) <= RING_FRAMES
    assert sum(len(f.payload) for f in ring) <= RING_SAMPLES


def test_the_end_comes_after_the_last_sound(bench: Bench) -> None:
    up(bench, placement(1, A))
    bench.heard(1, 0)
    bench.run(bench.streams.closed(1, "stop", 0.0))
    assert [type(x) for x in bench.take(A)] == [m.Inbound, m.StreamEnded]
    assert bench.told == [m.StreamClosed(call="c1", ordinal=1, reason="stop", gateway="g1")]
    bench.run(bench.streams.closed(1, "close", 0.0))
    assert bench.streams.live == 0
    assert len(bench.told) == 1
    assert bench.streams.media(1, 160, b"x") is False
    assert bench.streams.digit(1, 1, "1") == []
    assert bench.streams.mark_returned(1, "m") == []


def test_nothing_is_written_after_the_end(bench: Bench) -> None:
    up(bench, placement(1, A))
    bench.run(bench.streams.closed(1, "close", 0.0))
    bench.take(A)
    bench.sound(A, G1, 0)
    bench.say(A, m.Clear("c1", G1, 0, 1))
    assert bench.written == {}
    assert bench.take(A) == []
    assert bench.streams.dropped == {"ended": 2}


def test_a_worker_that_takes_over_after_the_end_is_told_of_it(bench: Bench) -> None:
    up(bench, placement(1, A, B))
    bench.heard(1, 0, 160)
    bench.run(bench.streams.closed(1, "stop", 0.0))
    bench.lost(A)
    call, ended = bench.take(B)
    assert isinstance(call, m.OpenCall)
    assert [f.position for f in call.ring] == [0, 160]
    assert ended == m.StreamEnded("c1", G1 + 1, 1, "stop", 0)


def test_the_end_of_a_stream_tells_what_lay_at_the_carrier_then(bench: Bench) -> None:
    """The worker does not answer any more: the one that takes over reads it later. The next stream
    may come before it has read the end, so its OpenCall tells as much."""
    up(bench, placement(1, A, B))
    bench.sound(A, G1, 0, 160, 320, 480)
    bench.now += 0.05
    bench.run(bench.streams.closed(1, "error", bench.now))
    assert bench.take(A)[-1] == m.StreamEnded("c1", G1, 1, "error", 240)  # of 80 ms 50 had passed
    bench.now += 0.4
    bench.lost(A)
    call, ended = bench.take(B)
    assert isinstance(call, m.OpenCall) and call.ahead == 240
    assert ended == m.StreamEnded("c1", G1 + 1, 1, "error", 240)


def test_a_stream_may_have_broken_as_its_gateway_began_to_stand_still(bench: Bench) -> None:
    """Neither what lay at the carrier then was played, nor what was written before the gateway read
    that the stream is gone."""
    up(bench, placement(1, A))
    bench.sound(A, G1, 0, 160, 320)
    bench.now += 5.0
    bench.sound(A, G1, 480)
    bench.run(bench.streams.closed(1, "error", bench.now))
    assert bench.take(A)[-1] == m.StreamEnded("c1", G1, 1, "error", 4 * 160)


def test_a_stream_that_outlived_a_standstill_has_played_what_lay_there(bench: Bench) -> None:
    up(bench, placement(1, A))
    bench.sound(A, G1, 0, 160, 320)
    bench.now += 5.0
    bench.sound(A, G1, 480)
    bench.wait(0.2, ticking=(A,))
    bench.sound(A, G1, 640)
    bench.run(bench.streams.closed(1, "error", bench.now))
    assert bench.take(A)[-1] == m.StreamEnded("c1", G1, 1, "error", 160)


def test_an_ended_stream_is_forgotten_after_two_seconds(bench: Bench) -> None:
    up(bench, placement(1, A, B))
    bench.run(bench.streams.closed(1, "stop", 0.0))
    bench.wait(1.9, ticking=(A, B))
    bench.take(A)
    bench.wait(0.2, ticking=(A, B))
    assert bench.take(A) == []  # the worker keeps its state: the call may come back
    bench.lost(A)
    assert bench.take(B) == []
    bench.wait(5.2, ticking=(B,))
    assert bench.links == set()


def test_a_stream_that_ends_while_nobody_has_it(bench: Bench) -> None:
    bench.accept(1, accepted(placement(1, A)))
    bench.heard(1, 0)
    bench.run(bench.streams.closed(1, "close", 0.0))
    bench.up(A)
    assert [type(x) for x in bench.take(A)] == [m.OpenCall, m.StreamEnded]


def test_the_controller_closes_a_stream(bench: Bench) -> None:
    up(bench, placement(1, A))
    bench.run(bench.streams.close_stream("c1", 0.0))
    assert bench.closed == [1]
    assert bench.take(A) == [m.StreamEnded("c1", G1, 1, "stop", 0)]
    bench.run(bench.streams.close_stream("c1", 0.0))
    bench.run(bench.streams.close_stream("never heard of", 0.0))
    assert bench.closed == [1]
    bench.wait(2.1, ticking=(A,))
    assert bench.take(A) == [m.CloseCall("c1", G1)]


def test_a_later_stream_supersedes_the_earlier(bench: Bench) -> None:
    up(bench, placement(1, A))
    bench.sound(A, G1, 0)
    bench.flush()
    bench.take(A)
    bench.accept(2, accepted(placement(1, A), ordinal=2, first=False))
    assert bench.closed == [1]
    assert bench.told == [m.StreamClosed(call="c1", ordinal=1, reason="close", gateway="g1")]
    ended, call = bench.take(A)
    assert ended == m.StreamEnded("c1", G1, 1, "close", 160)
    assert isinstance(call, m.OpenCall)
    assert (call.generation, call.ordinal, call.out_next) == (G2, 2, None)
    bench.sound(A, G1, 160)
    bench.sound(A, G2, 1600, 1760, 320)
    assert bench.played(1) == [0]
    assert bench.played(2) == [1600, 1760]
    bench.run(bench.streams.closed(1, "close", 0.0))  # the old socket is gone at last
    assert bench.streams.live == 1


def test_an_earlier_stream_does_not_come_after_a_later(bench: Bench) -> None:
    bench.accept(2, accepted(placement(1, A), ordinal=2, first=False))
    bench.accept(1, accepted(placement(1, A), ordinal=1))
    assert bench.closed == [1]
    assert bench.told == [m.StreamClosed(call="c1", ordinal=1, reason="close", gateway="g1")]
    assert bench.streams.live == 1


def test_a_later_stream_elsewhere_takes_the_call_from_the_former_worker(bench: Bench) -> None:
    up(bench, placement(1, A))
    bench.run(bench.streams.closed(1, "error", 0.0))
    bench.take(A)
    bench.accept(2, accepted(placement(2, B), ordinal=2, first=False))
    bench.up(B)
    assert opened(bench, B).generation == G2
    assert bench.take(A) == [m.CloseCall("c1", G2)]


def test_what_is_told_to_a_new_controller(bench: Bench) -> None:
    up(bench, placement(1, A, B))
    bench.heard(1, 0, 160)
    bench.sound(A, G1, 0)
    bench.lost(A)
    (info,) = bench.streams.announce(12.0)
    assert (info.stream_sid, info.generation, info.active) == ("MZ1", G1 + 1, "b1")
    assert info.info.age == 12.0
    assert info.info.placement == placement(1, A, B)
    assert bench.streams.stats() == [m.StreamStats(call="c1", ordinal=1, frames_in=2, frames_out=1)]


def test_messages_of_unknown_connections_are_ignored() -> None:
    streams = Streams("g1", 0.0)
    who = worker("z")
    assert streams.from_worker(who.endpoint, m.Tick(who.id, 1), 0.0) == []
    assert streams.link_up(who.endpoint, 0.0) == []
    assert streams.link_lost(who.endpoint, 0.0) == []


def joined(where: m.Placement, ordinal: int, *, one_way: bool) -> m.StreamAccepted:
    answer = accepted(where, ordinal=ordinal, first=False)
    return replace(answer, one_way=one_way, overlaps=not one_way)


def test_nothing_is_written_to_a_one_way_stream(bench: Bench) -> None:
    up(bench, placement(1, A, B))
    bench.run(bench.streams.closed(1, "stop", bench.now))
    bench.take(A)
    early = [(n, payload_at(n)) for n in (0, 160)]
    answer = joined(placement(1, A, B), 2, one_way=True)
    bench.run(bench.streams.accept(2, PlainWire(), answer, "MZ2", bench.now, (), early))
    call = opened(bench, A)
    # What it had brought by then stands in the OpenCall, so that the worker can join it.
    assert (call.one_way, call.joins, call.out_next) == (True, True, None)
    assert [f.position for f in call.ring] == [0, 160]
    bench.sound(A, G2, 0)
    bench.say(A, m.Clear("c1", G2, 160, 1))
    bench.say(A, m.Mark("c1", G2, "m"))
    assert 2 not in bench.written and bench.take(A) == []
    assert bench.streams.dropped["one-way"] == 3
    (told,) = bench.streams.announce(bench.now)
    assert (told.one_way, told.info.ordinal) == (True, 2)


def test_a_one_way_stream_is_moved_like_any_other(bench: Bench) -> None:
    up(bench, placement(1, A, B))
    bench.run(bench.streams.closed(1, "stop", bench.now))
    bench.accept(2, joined(placement(1, A, B), 2, one_way=True))
    bench.heard(2, 0, 160)
    bench.take(B)
    bench.lost(A)
    call = opened(bench, B)
    assert (call.generation, call.one_way, call.joins) == (G2 + 1, True, True)
    assert [f.position for f in call.ring] == [0, 160]


def test_to_the_worker_a_stream_that_is_joined_does_not_end(bench: Bench) -> None:
    """Else it would hand out the end of its sound as if silence followed."""
    up(bench, placement(1, A, B))
    bench.run(bench.streams.closed(1, "stop", bench.now))
    bench.accept(2, joined(placement(1, A, B), 2, one_way=True))
    bench.take(A)
    bench.heard(2, 0)
    bench.accept(3, joined(placement(1, A, B), 3, one_way=False))
    last, call = bench.take(A)
    assert isinstance(last, m.Inbound) and isinstance(call, m.OpenCall)
    assert (call.ordinal, call.one_way, call.joins) == (3, False, True)
    assert bench.closed == [2]
    ended = m.StreamClosed(call="c1", ordinal=2, reason="close", gateway="g1")
    assert ended in bench.told


def test_only_the_one_way_stream_that_is_named_is_closed(bench: Bench) -> None:
    up(bench, placement(1, A, B))
    bench.run(bench.streams.close_one_way("c1", 2, bench.now))
    bench.run(bench.streams.close_one_way("c9", 1, bench.now))
    assert bench.closed == []
    bench.run(bench.streams.closed(1, "stop", bench.now))
    bench.accept(2, joined(placement(1, A, B), 2, one_way=True))
    bench.run(bench.streams.close_one_way("c1", 1, bench.now))
    assert bench.closed == []
    bench.run(bench.streams.close_one_way("c1", 2, bench.now))
    assert bench.closed == [2] and bench.streams.live == 0
    # The call goes on elsewhere: its worker is not told to forget it.
    bench.take(A)
    bench.wait(2.2, (A, B))
    assert not [x for x in bench.take(A) if isinstance(x, m.CloseCall)]
