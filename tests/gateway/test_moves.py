"""Which worker has a call: lost, stalled and refusing workers, and placements."""

from __future__ import annotations

import pytest

from trunkline.bus import messages as m
from trunkline.gateway import streams

from .model import (
    G1,
    A,
    B,
    Bench,
    C,
    accepted,
    opened,
    payload_at,
    placement,
    up,
)


def test_a_lost_worker_is_followed_by_its_standby_at_once(bench: Bench) -> None:
    up(bench, placement(1, A, B))
    bench.sound(A, G1, 0, 160)
    bench.heard(1, 0, 160)
    bench.run(bench.streams.digit(1, 1, "7"))
    bench.lost(A)
    call = opened(bench, B)
    assert (call.generation, call.out_next) == (G1 + 1, 320)
    assert [f.position for f in call.ring] == [0, 160]
    assert {f.generation for f in call.ring} == {G1 + 1}
    assert call.digits == [m.DigitIn(1, 1, "7")]
    assert bench.told == [m.CallMoved(call="c1", generation=G1 + 1, worker="b1", gateway="g1")]
    bench.heard(1, 320)
    bench.flush()
    assert bench.take(B) == [m.Inbound([m.InFrame("c1", G1 + 1, 1, 320, payload_at(320))])]
    bench.sound(B, G1 + 1, 320)
    assert bench.played(1) == [0, 160, 320]
    assert A.endpoint not in bench.links


def test_a_worker_without_a_tick_is_left_after_500_ms(bench: Bench) -> None:
    up(bench, placement(1, A, B))
    bench.wait(0.5, ticking=(B,))
    assert bench.take(B) == []
    bench.wait(0.1, ticking=(B,))
    assert opened(bench, B).generation == G1 + 1
    assert bench.take(A) == [m.CloseCall("c1", G1 + 1)]
    bench.sound(A, G1, 0)  # it wakes up, and goes on where it was
    bench.tick(A)
    assert bench.played(1) == []
    assert bench.streams.dropped == {"generation": 1}
    bench.sound(B, G1 + 1, 0)
    assert bench.played(1) == [0]
    bench.wait(2.0, ticking=(A, B))
    bench.flush()
    assert [type(x) for x in bench.take(B)] == [m.Inbound]


def test_a_worker_that_sends_sound_needs_no_tick(bench: Bench) -> None:
    up(bench, placement(1, A, B))
    for n in range(20):
        bench.wait(0.1, ticking=(B,))
        bench.sound(A, G1, 160 * n)
    assert bench.played(1) == [160 * n for n in range(20)]
    assert bench.take(B) == []


def test_a_stopped_worker_alone_takes_the_call_again_when_it_wakes(bench: Bench) -> None:
    up(bench, placement(1, A))
    bench.sound(A, G1, 0)
    bench.flush()
    bench.take(A)
    bench.wait(1.0)
    bench.heard(1, 0)
    bench.flush()
    assert bench.take(A) == []
    bench.sound(A, G1, 160)
    bench.tick(A)
    call = opened(bench, A)
    assert (call.generation, call.out_next) == (G1 + 1, 160)
    assert [f.position for f in call.ring] == [0]
    bench.sound(A, G1 + 1, 160)
    assert bench.played(1) == [0, 160]


def test_the_standby_is_taken_back_from_when_it_stalls_too(bench: Bench) -> None:
    up(bench, placement(1, A, B))
    bench.wait(0.6, ticking=(B,))
    bench.wait(0.6, ticking=(A,))
    assert opened(bench, A).generation == G1 + 2
    assert [type(x) for x in bench.take(B)] == [m.OpenCall, m.CloseCall]


def test_while_both_stall_the_first_that_ticks_gets_the_call(bench: Bench) -> None:
    up(bench, placement(1, A, B))
    bench.wait(2.0)
    assert bench.take(B) == []
    bench.tick(B)
    assert opened(bench, B).generation == G1 + 1


def test_a_worker_that_never_connects_is_passed_over(bench: Bench) -> None:
    bench.accept(1, accepted(placement(1, A, B)))
    bench.up(B)
    bench.wait(0.6, ticking=(B,))
    assert opened(bench, B).generation == G1
    assert bench.told == [m.CallMoved(call="c1", generation=G1, worker="b1", gateway="g1")]
    assert A.endpoint not in bench.links


def test_without_a_standby_the_call_waits_for_a_placement(bench: Bench) -> None:
    up(bench, placement(1, A))
    bench.sound(A, G1, 0)
    bench.lost(A)
    bench.heard(1, 0)
    assert bench.streams.announce(0.0)[0].active is None
    bench.run(bench.streams.call_placed(m.CallPlaced(call="c1", placement=placement(2, C)), 0.0))
    bench.up(C)
    call = opened(bench, C)
    assert (call.generation, call.out_next, len(call.ring)) == (G1 + 1, 160, 1)
    assert bench.streams.announce(0.0)[0].active == "c1"


def test_a_call_that_waits_tries_its_workers_each_second(bench: Bench) -> None:
    up(bench, placement(1, A))
    bench.lost(A)
    assert bench.opened_links == [A.endpoint]
    bench.wait(1.1)
    assert bench.opened_links == [A.endpoint] * 2
    bench.up(A)
    assert opened(bench, A).generation == G1 + 1


def test_a_refusal_goes_to_the_standby(bench: Bench) -> None:
    up(bench, placement(1, A, B))
    bench.say(A, m.OpenRefused("c1", G1, "draining"))
    assert opened(bench, B).generation == G1 + 1
    bench.say(A, m.OpenRefused("c1", G1, "draining"))
    assert bench.take(B) == []
    assert bench.take(A) == []  # it never had the call


def test_a_refusal_alone_is_tried_again_and_logged_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    up(bench, placement(1, A))
    bench.say(A, m.OpenRefused("c1", G1, "too many"))
    bench.wait(0.5, ticking=(A,))
    assert bench.take(A) == []
    bench.wait(0.6, ticking=(A,))
    assert opened(bench, A).generation == G1 + 1
    bench.say(A, m.OpenRefused("c1", G1 + 1, "too many"))
    assert caplog.messages == ["call CA-c1: codec worker a1 refuses it: too many"]


def test_another_protocol_is_as_good_as_a_lost_connection(bench: Bench) -> None:
    up(bench, placement(1, A, B))
    bench.say(A, m.MediaRefused("major 2"))
    assert opened(bench, B).generation == G1 + 1
    assert A.endpoint not in bench.links


def test_a_gateway_that_stood_still_does_not_blame_the_workers(bench: Bench) -> None:
    up(bench, placement(1, A, B))
    bench.wait(0.3, ticking=(A, B))
    bench.now += 5.0
    bench.run(bench.streams.check(bench.now))
    assert bench.take(B) == []
    bench.wait(0.3, ticking=(A, B))
    assert bench.take(B) == []
    bench.wait(0.6, ticking=(B,))
    assert opened(bench, B).generation == G1 + 1


def test_one_worker_lost_moves_all_its_calls(bench: Bench) -> None:
    up(bench, placement(1, A, B))
    for n in range(2, 6):
        bench.accept(n, accepted(placement(1, A, B), call=f"c{n}"))
    bench.lost(A)
    moved = [x.call for x in bench.take(B) if isinstance(x, m.OpenCall)]
    assert moved == ["c1", "c2", "c3", "c4", "c5"]


def test_too_many_moves_end_the_stream(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert streams._LAST_MOVE == 0xFFFF, "the lower half of a generation counts its moves"
    monkeypatch.setattr(streams, "_LAST_MOVE", 0xF)
    up(bench, placement(1, A))
    for _ in range(0xF):
        bench.say(A, m.OpenRefused("c1", opened_generation(bench), "no"))
        bench.now += 1.1
        bench.tick(A)
        bench.run(bench.streams.check(bench.now))
    bench.say(A, m.OpenRefused("c1", opened_generation(bench), "no"))
    assert bench.closed == [1]


def opened_generation(bench: Bench) -> int:
    return bench.streams.announce(bench.now)[0].generation


def placed(bench: Bench, where: m.Placement) -> None:
    bench.run(bench.streams.call_placed(m.CallPlaced(call="c1", placement=where), bench.now))


def test_a_placement_that_keeps_the_active_worker_moves_nothing(bench: Bench) -> None:
    up(bench, placement(1, A, B))
    placed(bench, placement(2, C, A))
    assert bench.take(A) == []
    assert C.endpoint in bench.links
    bench.up(C)
    assert bench.take(C) == []
    bench.lost(A)
    assert opened(bench, C).generation == G1 + 1


def test_a_placement_without_the_active_worker_moves_the_call(bench: Bench) -> None:
    up(bench, placement(1, A))
    bench.sound(A, G1, 0)
    bench.flush()
    bench.take(A)
    placed(bench, placement(2, C, B))
    bench.sound(A, G1, 160)
    assert bench.take(A) == []
    bench.up(C)
    assert opened(bench, C).out_next == 160
    assert bench.take(A) == [m.CloseCall("c1", G1 + 1)]
    assert bench.played(1) == [0]


def test_old_placements_are_ignored(bench: Bench) -> None:
    up(bench, placement(5, A, epoch=2))
    placed(bench, placement(5, B, epoch=2))
    placed(bench, placement(4, B, epoch=2))
    placed(bench, placement(9, B, epoch=1))
    assert bench.streams.dropped == {"placement": 3}
    assert bench.opened_links == [A.endpoint]
    placed(bench, placement(1, B, epoch=3))
    assert bench.opened_links == [A.endpoint, B.endpoint]
    bench.run(bench.streams.call_placed(m.CallPlaced(call="x", placement=placement(1, A)), 0.0))
    assert bench.streams.dropped["unknown-call"] == 1


def test_unused_connections_are_closed_after_a_while(bench: Bench) -> None:
    up(bench, placement(1, A, B))
    placed(bench, placement(2, A, C))
    bench.up(C)
    bench.wait(4.9, ticking=(A, B, C))
    assert B.endpoint in bench.links
    bench.wait(0.3, ticking=(A, B, C))
    assert bench.links == {A.endpoint, C.endpoint}
