"""Which codec workers carry a call, with gateways and workers on several machines."""

from __future__ import annotations

from trunkline.bus import messages as m
from trunkline.controller import events as ev
from trunkline.controller import instructions as do
from trunkline.controller import status
from trunkline.controller.metrics import Metrics
from trunkline.controller.rules.book.peers import Peers
from trunkline.controller.rules.book.workers import APART, Workers

from .stage import THEIRS, Stage, token_of


def several(*workers: str, gateways: tuple[str, ...] = ("ga", "gb")) -> Stage:
    """Gateways and workers on the machines that the last letters of their names say."""
    stage = Stage(peers=False, calls_per_second=1000.0)
    for name in gateways:
        stage.hello("gateway", name, host=name[-1])
    for name in workers:
        stage.hello("codec_worker", name, endpoint=f"tcp://{name[-1]}:1", host=name[-1])
    stage.hello("adapter", "a1")
    stage.sent.clear()
    return stage


def dialled(stage: Stage, info: m.SessionInfo, sid: str, gateway: str) -> m.Placement:
    """A call whose stream comes to this gateway: its placement."""
    request, _ = stage.dial(info)
    stage.pass_time(0.5)
    create = stage.take(do.Create)
    stage.feed(ev.Taken(request, sid, "queued"))
    placement = stage.let_in(token_of(create), sid, gateway).info.placement
    assert placement is not None
    return placement


def both(placement: m.Placement) -> tuple[str, str | None]:
    standby = placement.standby
    return placement.primary.id, None if standby is None else standby.id


def across(stage: Stage) -> float:
    (metric,) = (
        each
        for each in Metrics(stage.core.book, lambda: stage.now).collect()
        if each.name == "trunkline_calls_across_hosts"
    )
    return float(metric.samples[0].value)


def test_a_call_is_worked_on_where_its_stream_arrives_and_stands_by_elsewhere() -> None:
    stage = several("w1a", "w2a", "w1b", "w2b")
    info = stage.open(allowed_callees=[THEIRS])
    for n in range(8):
        host, other = ("a", "b") if n % 2 else ("b", "a")
        primary, standby = both(dialled(stage, info, f"CA{n}", f"g{host}"))
        assert primary[-1] == host and standby is not None and standby[-1] == other
    loads = [row["calls"] for row in status.build(stage.core.book, stage.now)["codec_workers"]]
    assert loads == [2, 2, 2, 2] and across(stage) == 0.0


def test_the_streams_gateway_decides_and_not_the_webhooks() -> None:
    stage = several("wa", "wb")
    stage.armed()
    answer = stage.webhook("CA1", gateway="ga")
    placement = stage.let_in(answer.token, "CA1", "gb").info.placement
    assert placement is not None and both(placement) == ("wb", "wa")


def test_a_far_worker_gets_the_call_where_the_near_one_carries_much_more() -> None:
    stage = several("wa", "wb")
    info = stage.open(allowed_callees=[THEIRS])
    primaries = [dialled(stage, info, f"CA{n}", "ga").primary.id for n in range(30)]
    assert primaries[: int(APART)] == ["wa"] * int(APART)
    near, far = primaries.count("wa"), primaries.count("wb")
    assert far > 0 and 0 < near - far <= 2 * APART
    assert across(stage) == far


def test_a_call_that_comes_back_elsewhere_stays_with_its_worker_which_knows_what_was_said() -> None:
    stage = several("wa", "wb")
    stage.armed()
    call = stage.let_in(stage.webhook("CA1", gateway="ga").token, "CA1", "ga").info
    answer = stage.webhook("CA1", gateway="gb", c=call.call)
    again = stage.let_in(answer.token, "CA1", "gb").info.placement
    assert again is not None and both(again) == ("wa", "wb")
    assert across(stage) == 1.0


def test_a_call_whose_machine_is_gone_is_worked_on_where_it_comes_back() -> None:
    stage = several("wa", "wb", "wc", gateways=("ga", "gb", "gc"))
    stage.armed()
    call = stage.let_in(stage.webhook("CA1", gateway="gb").token, "CA1", "gb").info
    assert call.placement is not None and both(call.placement) == ("wb", "wa")
    for gone in ("gb", "wb"):
        stage.beating.remove(gone)
    stage.pass_time(2.5)
    answer = stage.webhook("CA1", gateway="gc", c=call.call)
    again = stage.let_in(answer.token, "CA1", "gc").info.placement
    assert again is not None
    # Its standby is attached already; the machine where it came back stands by.
    assert both(again) == ("wa", "wc")


def test_where_nobody_says_on_which_machine_it_is_only_the_load_counts() -> None:
    stage = Stage(calls_per_second=1000.0)
    info = stage.open(allowed_callees=[THEIRS])
    primaries = [dialled(stage, info, f"CA{n}", "g1").primary.id for n in range(6)]
    assert primaries.count("w1") == primaries.count("w2") == 3
    assert across(stage) == 0.0


def test_a_call_that_is_hung_up_counts_for_its_worker_until_it_is_over() -> None:
    stage = Stage(calls_per_second=1000.0)
    info = stage.open(allowed_callees=[THEIRS])
    on: dict[str, list[str]] = {"w1": [], "w2": []}
    for n in range(12):
        on[dialled(stage, info, f"CA{n}", "g1").primary.id].append(f"CA{n}")
    assert len(on["w1"]) == len(on["w2"]) == 6
    tokens = []
    for sid in ("CA20", "CA21"):
        request, _ = stage.dial(info)
        stage.pass_time(0.5)
        tokens.append((token_of(stage.take(do.Create)), sid))
        stage.feed(ev.Taken(request, sid, "queued"))

    def hang_up(sid: str) -> None:
        call = stage.core.book.by_sid[sid]
        stage.ask("a1", m.HangUp(session=info.session, call=call.id))

    def is_over(sid: str) -> None:
        call = stage.core.book.by_sid[sid]
        stage.feed(m.StreamClosed(gateway="g1", call=call.id, ordinal=1, reason="stop"))

    for sid in on["w2"][:5]:
        hang_up(sid)
        is_over(sid)
    for sid in on["w1"][:3]:
        hang_up(sid)
    stage.pass_time(0.5)
    primaries = []
    for token, sid in tokens:
        placement = stage.let_in(token, sid).info.placement
        assert placement is not None
        primaries.append(placement.primary.id)
        for ending in on["w1"][:3]:
            is_over(ending)
    # Three live calls are on w1, and one was on w2.
    assert primaries == ["w2", "w2"]


def test_after_a_restart_the_standby_is_on_another_machine() -> None:
    peers = Peers()
    for name in ("w1a", "w2a", "w1b"):
        at = {"endpoint": f"tcp://{name}:1", "host": name[-1]}
        peers.hello(m.Hello(role="codec_worker", peer=name, pid=1, **at), 0.0)
    present = m.Placement(epoch=1, n=1, primary=m.WorkerRef(id="w1a", endpoint="tcp://w1a:1"))
    workers = Workers(2, peers)
    found = workers.with_standby(0.0, {}, present, "w1a")
    assert found is not None and both(found) == ("w1a", "w1b")
    loaded = workers.with_standby(0.0, {"w1b": APART + 1.0}, present, "w1a")
    assert loaded is not None and both(loaded) == ("w1a", "w2a")
