"""The metrics: what the book has counted and measured, as Prometheus reads it."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric

from trunkline.bus import messages as m
from trunkline.bus.histogram import JITTER, LATENESS, Histogram
from trunkline.controller import events as ev
from trunkline.controller import instructions as do
from trunkline.controller.metrics import METRICS, Metrics
from trunkline.controller.twilio.carrier import RestFailure
from trunkline.controller.usage import Caps

from .fake_carrier import THEIRS
from .stage import Stage, token_of


def told(stage: Stage) -> dict[str, float]:
    """A scrape: metric with labels -> value."""
    registry = CollectorRegistry()
    registry.register(Metrics(stage.core.book, lambda: stage.now))
    lines = generate_latest(registry).decode().splitlines()
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))
    }


def test_every_metric_of_the_table_is_told_and_no_other() -> None:
    stage = Stage()
    families: list[Metric] = list(Metrics(stage.core.book, lambda: stage.now).collect())
    found = [each.name + ("_total" if each.type == "counter" else "") for each in families]
    assert found == [row.name for row in METRICS]
    assert all(row.help and not row.help.endswith(".") for row in METRICS)
    for row in METRICS:
        assert (row.kind == "counter") == row.name.endswith("_total"), row.name
        assert row.kind != "histogram" or row.name.endswith("_seconds"), row.name


def test_who_is_there_and_what_is_up() -> None:
    stage = Stage(epoch=7)
    stage.called(stage.armed())
    figures = told(stage)
    assert figures["trunkline_epoch"] == 7
    assert figures["trunkline_gateways"] == 1 and figures["trunkline_codec_workers"] == 2
    assert figures["trunkline_sessions"] == 1
    assert figures['trunkline_calls{state="live"}'] == 1
    assert figures['trunkline_calls{state="reconnecting"}'] == 0, "told before there is one"
    assert figures['trunkline_overrides{state="applied"}'] == 1
    assert figures['trunkline_events_total{event="calls inbound"}'] == 1


def test_how_much_is_left_of_a_cap() -> None:
    stage = Stage(caps=Caps(calls=3))
    assert told(stage)['trunkline_cap_left{setting="TRUNKLINE_MAX_CALLS"}'] == 3


def test_who_does_not_work_what_was_dropped_and_what_was_refused() -> None:
    stage = Stage()
    stage.pass_time(5.0, beat=False)
    stage.feed(m.Beat(peer="w1", dropped={"undecodable": 3, "fault": 1}))
    stage.feed(m.Beat(peer="g1", refused={"too slow": 2}))
    figures = told(stage)
    assert figures['trunkline_unhealthy{role="gateway"}'] == 0
    assert figures['trunkline_unhealthy{role="codec_worker"}'] == 1
    assert figures['trunkline_dropped_messages_total{peer="w1",why="undecodable"}'] == 3
    assert figures['trunkline_gateway_refused_total{kind="too slow"}'] == 2
    assert figures['trunkline_gateway_refused_total{kind="unsigned"}'] == 0


def test_what_clients_have_heard_of_their_calls_is_summed_up() -> None:
    stage = Stage()
    stage.open()
    stage.feed(m.CallHeard("a1", latency=[0.25, 2.5], time_to_yield=[]))
    stage.feed(m.CallHeard("a1", latency=[0.25], time_to_yield=[30.0]))
    figures = told(stage)
    assert figures['trunkline_events_total{event="calls heard"}'] == 2
    bucket = 'trunkline_answer_latency_seconds_bucket{{le="{}"}}'.format
    assert [figures[bucket(le)] for le in ("0.2", "0.3", "2.0", "3.0", "+Inf")] == [0, 2, 2, 3, 3]
    assert figures["trunkline_answer_latency_seconds_sum"] == 3.0
    assert figures['trunkline_time_to_yield_seconds_bucket{le="10.0"}'] == 0
    assert figures["trunkline_time_to_yield_seconds_count"] == 1, "beyond the last bucket"


def test_frames_of_all_calls_go_on_counting_whichever_call_is_over() -> None:
    stage = Stage()
    info = stage.armed()
    call = stage.called(info).call

    def carry(peer: str, frames: int, **more: int) -> None:
        counted = m.CallStats(call=call, generation=1, frames_in=frames, frames_out=7, **more)
        stage.feed(m.Beat(peer=peer, calls=[counted]))

    carry("w1", 5)
    carry("w1", 9, frames_lost=2)
    carry("w2", 4, underruns=1)  # the call has moved; this worker began with 0
    stage.feed(m.StreamClosed(call=call, ordinal=1, reason="stop", gateway="g1"))
    carry("w2", 6)  # of a call that is over
    figures = told(stage)
    assert figures['trunkline_frames_total{direction="in"}'] == 13
    assert figures['trunkline_frames_total{direction="out"}'] == 14
    assert figures["trunkline_frames_lost_total"] == 2 and figures["trunkline_underruns_total"] == 1
    assert figures["trunkline_live_frames_in"] == 0


def test_a_restarted_controller_counts_no_frame_again() -> None:
    stage = Stage(peers=False)
    before = m.CallStats(call="c1", generation=1, frames_in=500)
    stage.hello("codec_worker", "w1", endpoint="ipc:///w1", calls=[before])
    stage.feed(m.Beat(peer="w1", calls=[before]))
    assert told(stage)['trunkline_frames_total{direction="in"}'] == 0


def test_what_processes_measure_is_summed_by_role() -> None:
    stage = Stage()
    late = Histogram(LATENESS)
    jitter = Histogram(JITTER)

    def beat(peer: str) -> None:
        measured = {"wakeup_lateness": late.tally(), "jitter": jitter.tally()}
        stage.feed(m.Beat(peer=peer, measured=measured))

    late.count(0.5)
    beat("g1")  # its first word: an earlier controller may have counted that
    beat("w1")
    late.count(0.004)
    jitter.count(0.03)
    beat("g1")
    beat("g1")
    beat("w2")
    figures = told(stage)
    bucket = 'trunkline_wakeup_lateness_seconds_bucket{{le="{}",role="{}"}}'.format
    found = [figures[bucket(le, "gateway")] for le in ("0.002", "0.005", "+Inf")]
    assert found == [0, 1, 1], "once, however often it is told"
    assert figures['trunkline_wakeup_lateness_seconds_count{role="codec_worker"}'] == 0
    assert figures["trunkline_jitter_seconds_sum"] == 0.03


@pytest.mark.parametrize(
    "odd",
    [
        {"wakeup_lateness": m.Tally(counts=[9])},
        {"wakeup_lateness": m.Tally(counts=[0] * 12, sum=1.0)},
        {"no such thing": m.Tally(counts=[9])},
    ],
)
def test_a_tally_that_no_process_of_this_release_tells_is_left_out(odd: dict[str, m.Tally]) -> None:
    stage = Stage()
    usual = {"wakeup_lateness": m.Tally(counts=[1] * 12, sum=2.0)}
    for measured in ({}, usual, odd):
        stage.feed(m.Beat(peer="w1", measured=measured))
    figures = told(stage)
    assert figures['trunkline_wakeup_lateness_seconds_count{role="codec_worker"}'] == 12
    assert figures['trunkline_wakeup_lateness_seconds_sum{role="codec_worker"}'] == 2.0


def test_how_long_a_call_takes_to_be_up() -> None:
    stage = Stage()
    stage.armed()
    answer = stage.webhook()
    stage.now += 0.4
    stage.let_in(answer.token)
    assert told(stage)['trunkline_setup_seconds_sum{direction="inbound"}'] == pytest.approx(0.4)
    stage = Stage()
    stage.dial(stage.open(allowed_callees=[THEIRS]))
    create = stage.take(do.Create)
    stage.pass_time(5.0)  # the request waits for a connection
    stage.feed(ev.AskedTwilio(create.row.request))
    stage.pass_time(2.0)
    stage.let_in(token_of(create), "CA2")
    assert told(stage)['trunkline_setup_seconds_sum{direction="outbound"}'] == pytest.approx(2.0)


def test_how_long_a_number_is_on_its_way_back() -> None:
    stage = Stage()
    info = stage.armed()
    assert told(stage)["trunkline_restore_oldest_seconds"] == 0
    stage.ask("a1", m.CloseSession(session=info.session))
    restore = stage.take(do.Restore)
    stage.now += 12.0
    figures = told(stage)
    assert figures["trunkline_restore_oldest_seconds"] == 12.0
    assert figures['trunkline_overrides{state="restoring"}'] == 1
    stage.feed(ev.Restored(restore.override, "restored"))
    figures = told(stage)
    assert figures["trunkline_restore_oldest_seconds"] == 0
    assert figures["trunkline_restore_seconds_sum"] == 12.0
    assert figures['trunkline_overrides{state="restoring"}'] == 0


@pytest.mark.parametrize(
    ("status", "code", "fault"),
    [
        (401, 20003, "credentials"),
        (403, 0, "credentials"),
        (429, 20429, "too many"),
        (400, 21211, "refused"),
        (503, 0, "server error"),
        (0, 0, "no answer"),
    ],
)
def test_why_a_request_to_twilio_failed(status: int, code: int, fault: str) -> None:
    failure = RestFailure("it did", status=status, code=code)
    assert failure.fault == fault
    stage = Stage()
    stage.core.book.measures.asked_twilio("fetch_call", 0.2, failure.fault)
    stage.core.book.measures.asked_twilio("fetch_call", 0.4, None)
    figures = told(stage)
    assert figures[f'trunkline_rest_failed_total{{why="{fault}"}}'] == 1
    assert figures['trunkline_rest_seconds_count{request="fetch_call"}'] == 2
