"""Calls: webhooks and tokens, streams that come and go, placement, and every way to end."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from trunkline.bus import messages as m
from trunkline.bus.errors import CarrierError
from trunkline.controller import events as ev
from trunkline.controller import instructions as do
from trunkline.controller import status
from trunkline.controller.rules.calls import CLOSE_STREAM_AFTER
from trunkline.controller.twilio import documents

from .fake_carrier import OURS, SECOND, THEIRS
from .stage import Stage, token_of


def closed(stage: Stage, call: m.CallInfo, reason: m.StreamEndReason, ordinal: int = 1) -> None:
    stage.feed(m.StreamClosed(call=call.call, ordinal=ordinal, reason=reason, gateway="g1"))


# --------------------------------------------------------------------------- letting calls in


def test_an_inbound_call_belongs_to_the_trace_of_whoever_waits_for_it() -> None:
    stage = Stage()
    info = stage.open()
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    stage.feed(
        m.Request(peer="a1", id=999, ttl=60.0, body=m.Arm(session=info.session), trace=trace)
    )
    stage.apply()
    assert stage.called(info).trace == trace


def test_inbound_call() -> None:
    stage = Stage()
    info = stage.armed()
    answer = stage.webhook("CA1")
    assert answer.kind == "stream" and answer.token is not None
    assert len(answer.token) == 32 and int(answer.token, 16) >= 0
    accepted = stage.let_in(answer.token, "CA1")
    assert accepted.first
    call = accepted.info
    assert (call.session, call.sid, call.direction) == (info.session, "CA1", "inbound")
    assert (call.caller, call.callee, call.ordinal) == (THEIRS, OURS, 1)
    assert len(call.call) == 32 and len(call.secret) == 32
    assert call.placement is not None and call.placement.standby is not None
    assert call.placement.primary != call.placement.standby
    assert stage.events("a1", m.CallStarted)[0].info == call


def test_nobody_waits() -> None:
    stage = Stage()
    assert stage.webhook("CA1").kind == "busy"
    info = stage.armed()
    stage.body("a1", stage.ask("a1", m.Disarm(session=info.session)), m.Done)
    assert stage.webhook("CA2").kind == "busy"


def test_one_call_at_a_time_and_then_the_next() -> None:
    stage = Stage()
    info = stage.armed()
    let_in = stage.webhook("CA1")
    assert let_in.kind == "stream"
    assert stage.webhook("CA2").kind == "busy"
    again = stage.webhook("CA1", **let_in.redirect_query)
    call = stage.start(again.token, "CA1")
    assert isinstance(call, m.StreamAccepted)
    stage.arm(info)
    assert stage.webhook("CA3").kind == "busy"
    closed(stage, call.info, "stop")
    assert stage.webhook("CA4").kind == "stream"


def test_caller_that_is_not_allowed() -> None:
    stage = Stage()
    stage.armed(allowed_callers=["+14155550001"])
    assert stage.webhook("CA1", THEIRS).kind == "reject"
    assert stage.webhook("CA2", "+14155550001").kind == "stream"


def test_a_token_is_used_once_and_voided_by_the_next() -> None:
    stage = Stage()
    stage.armed()
    let_in = stage.webhook("CA1")
    first, second = let_in.token, stage.webhook("CA1", **let_in.redirect_query).token
    assert first != second
    assert isinstance(stage.start(first, "CA1"), m.StreamRefused)
    assert isinstance(stage.start(second, "CA2"), m.StreamRefused)  # another call's
    assert isinstance(stage.start(second, "CA1"), m.StreamAccepted)
    assert isinstance(stage.start(second, "CA1"), m.StreamRefused)
    for strange in ("nonsense", None, "é" * 16, second * 1000):
        assert isinstance(stage.start(strange, "CA1"), m.StreamRefused)


def test_a_refused_stream_leaves_the_call_to_the_genuine_one() -> None:
    stage = Stage()
    info = stage.armed()
    token = stage.webhook("CA1").token
    for strange in ("é" * 16, "0" * 32, None):
        assert isinstance(stage.start(strange, "CA1"), m.StreamRefused)
    assert stage.events("a1", m.CallStarted) == stage.events("a1", m.CallEnded) == []
    accepted = stage.let_in(token, "CA1")
    assert accepted.info.session == info.session


def test_a_token_is_void_once_its_call_is_over() -> None:
    stage = Stage()
    info = stage.armed()
    call = stage.called(info)
    token = stage.webhook("CA1", c=call.call).token  # its stream broke, and it comes back
    stage.ask("a1", m.HangUp(session=info.session, call=call.call))
    stage.hung_up()
    closed(stage, call, "close")
    assert stage.events("a1", m.CallEnded)[0].reason == "hang_up"
    assert isinstance(stage.start(token, "CA1"), m.StreamRefused)


def test_caller_who_leaves_before_the_stream_frees_the_line() -> None:
    stage = Stage()
    stage.armed()
    stage.webhook("CA1")
    stage.pass_time(2.2)
    fetch = stage.take(do.Fetch)
    stage.feed(ev.Fetched(fetch.call, fetch.sid, "completed"))
    assert stage.webhook("CA2").kind == "stream"


def test_call_without_a_stream_is_hung_up() -> None:
    stage = Stage()
    stage.armed()
    stage.webhook("CA1")
    stage.pass_time(15.5)
    assert len(stage.all_work(do.Fetch)) == 3
    assert stage.take(do.End).sids == ("CA1",)
    assert stage.webhook("CA1").kind == "hangup"


def test_without_a_worker_the_caller_waits() -> None:
    stage = Stage(peers=False)
    stage.hello("gateway", "g1")
    stage.hello("adapter", "a1")
    stage.armed()
    answer = stage.webhook("CA1")
    assert answer.kind == "pause" and "c" in answer.redirect_query
    stage.hello("codec_worker", "w1", endpoint="ipc:///w1")
    again = stage.webhook("CA1", c=answer.redirect_query["c"])
    assert again.kind == "stream"
    accepted = stage.let_in(again.token, "CA1")
    assert accepted.info.placement is not None
    assert accepted.info.placement.standby is None


def test_disarm_hangs_up_what_came_meanwhile() -> None:
    stage = Stage()
    info = stage.armed()
    stage.called(info)
    stage.body("a1", stage.ask("a1", m.Disarm(session=info.session)), m.Done)
    assert stage.take(do.End).sids == ("CA1",)


# --------------------------------------------------------------------------- streams


def test_a_later_stream_of_the_same_call() -> None:
    stage = Stage()
    call = stage.called()
    closed(stage, call, "error")
    assert stage.events("a1", m.CallReconnecting)[0].ordinal == 1
    answer = stage.webhook("CA1", c=call.call)
    again = stage.start(answer.token, "CA1", "g1")
    assert isinstance(again, m.StreamAccepted) and not again.first
    assert (again.info.ordinal, again.info.first) == (2, 1) and again.info.call == call.call
    assert again.info.secret == call.secret
    # The late end of the first stream means nothing any more.
    closed(stage, call, "error", ordinal=1)
    closed(stage, call, "stop", ordinal=2)
    ended = stage.events("a1", m.CallEnded)
    assert [(e.reason, e.by_far_end) for e in ended] == [("stop", True)]


def test_a_stream_that_was_cut_off_is_told_by_name_and_may_come_again() -> None:
    stage = Stage()
    call = stage.called()
    closed(stage, call, "too_fast")
    assert [e.reason for e in stage.events("a1", m.CallReconnecting)] == ["too_fast"]
    stage.pass_time(2.2)
    fetch = stage.take(do.Fetch)
    stage.feed(ev.Fetched(fetch.call, fetch.sid, "completed"))
    assert [e.reason for e in stage.events("a1", m.CallEnded)] == ["error"]


def test_redirect_that_comes_before_the_loss_is_known() -> None:
    stage = Stage()
    call = stage.called()
    answer = stage.webhook("CA1", c=call.call)
    assert answer.kind == "stream"
    assert isinstance(stage.start(answer.token, "CA1"), m.StreamAccepted)
    assert len(stage.events("a1", m.CallStarted)) == 1


def test_stream_that_does_not_come_back() -> None:
    stage = Stage()
    call = stage.called()
    closed(stage, call, "close")
    stage.pass_time(2.2)
    fetch = stage.take(do.Fetch)
    stage.feed(ev.Fetched(fetch.call, fetch.sid, None))  # Twilio did not answer
    stage.pass_time(3.0)
    fetch = stage.take(do.Fetch)
    stage.feed(ev.Fetched(fetch.call, fetch.sid, "in-progress"))
    stage.pass_time(5.0)
    fetch = stage.take(do.Fetch)
    stage.feed(ev.Fetched(fetch.call, fetch.sid, "completed"))
    assert [(e.reason, e.by_far_end) for e in stage.events("a1", m.CallEnded)] == [("close", True)]


def test_lost_notification_is_repaired_by_the_beat() -> None:
    stage = Stage()
    call = stage.called()
    stage.pass_time(2.5)
    stage.feed(m.Beat(peer="g1", streams=[]))
    assert stage.events("a1", m.CallReconnecting)
    # And the other way round: the gateway still has it.
    stage.feed(m.Beat(peer="g1", streams=[m.StreamStats(call=call.call, ordinal=1)]))
    assert stage.core.book.calls[call.call].state == "live"
    assert [started.info.ordinal for started in stage.events("a1", m.CallStarted)] == [1, 1]


def test_dead_gateway_loses_its_streams() -> None:
    stage = Stage()
    stage.hello("gateway", "g2")
    call = stage.called()
    stage.beating.remove("g1")
    stage.pass_time(3.0)
    assert len(stage.events("a1", m.CallReconnecting)) == 1
    answer = stage.webhook("CA1", gateway="g2", c=call.call)
    assert isinstance(stage.start(answer.token, "CA1", "g2"), m.StreamAccepted)


# --------------------------------------------------------------------------- placement


def test_calls_spread_over_workers() -> None:
    stage = Stage(calls_per_second=100.0)
    info = stage.open(allowed_callees=[THEIRS])
    primaries = []
    for n in range(6):
        request, _ = stage.dial(info)
        stage.pass_time(0.1)
        create = stage.take(do.Create)
        stage.feed(ev.Taken(request, f"CA{n}", "queued"))
        token = token_of(create)
        accepted = stage.let_in(token, f"CA{n}")
        assert accepted.info.placement is not None
        primaries.append(accepted.info.placement.primary.id)
    assert primaries.count("w1") == primaries.count("w2") == 3


def test_switched_call_gets_a_new_standby() -> None:
    stage = Stage()
    stage.hello("codec_worker", "w3", endpoint="ipc:///w3")
    call = stage.called()
    assert call.placement is not None and call.placement.standby is not None
    primary, standby = call.placement.primary.id, call.placement.standby.id
    stage.pass_time(3.0)
    stage.beating.remove(primary)
    generation = m.first_generation(1) + 1
    moved = m.CallMoved(call=call.call, generation=generation, worker=standby, gateway="g1")
    stage.feed(moved)
    stage.pass_time(2.5)
    for peer in ("g1", "a1"):
        placed = stage.events(peer, m.CallPlaced)[-1].placement
        assert placed.primary.id == standby
        assert placed.standby is not None and placed.standby.id not in (primary, standby)
        assert placed.n > call.placement.n


def test_only_worker_dies_and_another_comes() -> None:
    stage = Stage(peers=False)
    stage.hello("gateway", "g1")
    stage.hello("adapter", "a1")
    stage.hello("codec_worker", "w1", endpoint="ipc:///w1")
    stage.called()
    stage.pass_time(3.0)
    stage.beating.remove("w1")
    stage.pass_time(2.0)
    assert not stage.events("a1", m.CallPlaced)
    stage.hello("codec_worker", "w9", endpoint="ipc:///w9")
    for peer in ("g1", "a1"):
        assert stage.events(peer, m.CallPlaced)[-1].placement.primary.id == "w9"


def test_a_gateway_whose_connection_broke_is_told_the_placement_that_it_missed() -> None:
    """The call's worker was dead already, so without that nobody would work on the call."""
    stage = Stage(peers=False)
    stage.hello("gateway", "g1")
    stage.hello("adapter", "a1")
    stage.hello("codec_worker", "w1", endpoint="ipc:///w1")
    call = stage.called()
    generation = m.first_generation(1)
    stage.pass_time(3.0)
    stage.beating.remove("w1")
    stage.pass_time(2.0)
    stage.hello("codec_worker", "w9", endpoint="ipc:///w9")
    (missed,) = stage.events("g1", m.CallPlaced)
    stream = m.StreamInfo(info=call, stream_sid="MZ1", generation=generation)
    stage.hello("gateway", "g1", streams=[stream])
    assert stage.events("g1", m.CallPlaced) == [missed, missed]
    told = replace(stream, info=replace(call, placement=missed.placement))
    stage.hello("gateway", "g1", streams=[told])
    assert stage.events("g1", m.CallPlaced) == [missed, missed]


def test_worker_says_goodbye() -> None:
    stage = Stage()
    call = stage.called()
    assert call.placement is not None
    stage.pass_time(3.5)
    stage.feed(m.Goodbye(peer=call.placement.primary.id))
    placed = stage.events("g1", m.CallPlaced)[-1].placement
    assert placed.standby is None and placed.primary == call.placement.standby


def test_steady_workers_are_left_alone() -> None:
    stage = Stage()
    stage.called()
    stage.pass_time(30.0)
    assert not stage.events("g1", m.CallPlaced)


# --------------------------------------------------------------------------- ends


def test_hang_up() -> None:
    stage = Stage()
    info = stage.armed()
    call = stage.called(info)
    asked = stage.ask("a1", m.HangUp(session=info.session, call=call.call))
    end = stage.take(do.End)
    assert end.sids == ("CA1",) and not stage.answered("a1", asked)
    stage.feed(ev.EndTaken(end.call, end.sids))
    stage.body("a1", asked, m.Done)
    closed(stage, call, "stop")
    assert [(e.reason, e.by_far_end) for e in stage.events("a1", m.CallEnded)] == [
        ("hang_up", False)
    ]
    assert stage.webhook("CA1", c=call.call).kind == "hangup"
    again = stage.ask("a1", m.HangUp(session=info.session, call=call.call))
    stage.body("a1", again, m.Done)


def test_hang_up_of_a_call_that_is_hung_up_is_answered_before_its_stream_is_over() -> None:
    stage = Stage()
    info = stage.armed()
    call = stage.called(info)
    stage.ask("a1", m.HangUp(session=info.session, call=call.call))
    stage.hung_up()
    assert stage.core.book.calls[call.call].state == "ending"
    again = stage.ask("a1", m.HangUp(session=info.session, call=call.call))
    stage.body("a1", again, m.Done)
    assert not stage.all_work(do.End)


def test_hang_up_of_a_call_whose_gateway_died_is_over_when_it_asks_what_next() -> None:
    stage = Stage()
    info = stage.armed()
    call = stage.called(info)
    asked = stage.ask("a1", m.HangUp(session=info.session, call=call.call))
    end = stage.take(do.End)
    assert stage.webhook("CA1", c=call.call).kind == "hangup"
    assert [(e.reason, e.by_far_end) for e in stage.events("a1", m.CallEnded)] == [
        ("hang_up", False)
    ]
    stage.feed(ev.EndTaken(end.call, end.sids))
    stage.body("a1", asked, m.Done)
    closed(stage, call, "error")
    assert len(stage.events("a1", m.CallEnded)) == 1


def test_stream_that_outlives_the_hang_up_is_closed() -> None:
    stage = Stage()
    info = stage.armed()
    call = stage.called(info)
    stage.ask("a1", m.HangUp(session=info.session, call=call.call))
    stage.hung_up()
    stage.pass_time(2.0)
    assert stage.events("g1", m.CloseStream)
    (ended,) = stage.events("a1", m.CallEnded)
    assert ended.reason == "hang_up"
    assert CLOSE_STREAM_AFTER < ended.ago < 2.0


def test_a_hang_up_that_is_asked_for_again_is_answered_while_rest_does_not_take_it() -> None:
    stage = Stage()
    info = stage.armed()
    call = stage.called(info)
    hang_up = m.HangUp(session=info.session, call=call.call)
    first = stage.ask("a1", hang_up)
    end = stage.take(do.End)
    stage.feed(ev.EndFailed(end.call, CarrierError("no")))
    assert stage.error("a1", first) == "CarrierError"
    assert stage.error("a1", stage.ask("a1", hang_up)) == "CarrierError"
    stage.feed(ev.EndTaken(end.call, end.sids))
    stage.body("a1", stage.ask("a1", hang_up), m.Done)
    assert not stage.all_work(do.End)


def test_hang_up_that_rest_refuses_goes_by_the_redirect() -> None:
    stage = Stage()
    info = stage.armed()
    call = stage.called(info)
    asked = stage.ask("a1", m.HangUp(session=info.session, call=call.call))
    end = stage.take(do.End)
    stage.feed(ev.EndFailed(end.call, CarrierError("no")))
    assert stage.error("a1", asked) == "CarrierError"
    assert stage.events("g1", m.CloseStream)
    assert stage.webhook("CA1", c=call.call).kind == "hangup"
    closed(stage, call, "close")
    assert stage.events("a1", m.CallEnded)[0].reason == "hang_up"


@pytest.mark.parametrize("late", [False, True])
def test_longest_duration(late: bool) -> None:
    """Our watchdog, or Twilio's TimeLimit just before it: the reason is the same, told once."""
    stage = Stage()
    info = stage.open(allowed_callees=[THEIRS])
    request, _ = stage.dial(info, max_duration=10.0)
    create = stage.take(do.Create)
    assert create.order.time_limit == 10
    stage.feed(ev.Taken(request, "CA1", "queued"))
    accepted = stage.let_in(token_of(create), "CA1")
    if late:
        stage.pass_time(10.2)
        stage.hung_up()
        closed(stage, accepted.info, "close")
    else:
        stage.pass_time(9.5)
        closed(stage, accepted.info, "stop")
    assert [e.reason for e in stage.events("a1", m.CallEnded)] == ["max_duration"]


def test_the_longest_duration_of_a_call_that_is_over_ends_no_other() -> None:
    stage = Stage(calls_per_second=100.0)
    info = stage.open(allowed_callees=[THEIRS])
    calls = []
    for n, longest in enumerate((10.0, 300.0), 1):
        request, _ = stage.dial(info, max_duration=longest)
        create = stage.take(do.Create)
        stage.feed(ev.Taken(request, f"CA{n}", "queued"))
        accepted = stage.let_in(token_of(create), f"CA{n}")
        calls.append(accepted.info)
        stage.pass_time(0.2)
    closed(stage, calls[0], "stop")
    stage.callback(calls[0].dial_request or "", "CA1", "completed")
    stage.pass_time(30.0)
    assert [(e.call, e.reason) for e in stage.events("a1", m.CallEnded)] == [
        (calls[0].call, "stop")
    ]
    assert stage.all_work(do.End) == []


def test_digits_where_the_leg_carries_no_stream() -> None:
    stage = Stage()
    info = stage.open(allowed_callees=[THEIRS])
    request, _ = stage.dial(info, mode="originate")
    stage.feed(ev.Taken(request, "CA1", "queued"))
    call = next(iter(stage.core.book.calls))
    asked = stage.ask("a1", m.SendDigits(session=info.session, call=call, digits="1w#*W9"))
    instruct = stage.take(do.Instruct)
    assert (instruct.sid, instruct.twiml) == (
        "CA1",
        '<Response><Play digits="1w#*W9"/><Pause length="120"/></Response>',
    )
    stage.feed(ev.Instructed(instruct.reply_to, None))
    stage.body("a1", asked, m.Done)
    for bad in ("", "1\n", '1"/>', "١", "a"):
        asked = stage.ask("a1", m.SendDigits(session=info.session, call=call, digits=bad))
        assert stage.error("a1", asked) == "InvalidRequestError"


# --------------------------------------------------------------------------- after a restart


def announced(call: m.CallInfo, active: str = "w1") -> list[m.StreamInfo]:
    stream = m.StreamInfo(
        info=call, stream_sid="MZ1", generation=m.first_generation(1), active=active
    )
    return [stream]


@pytest.mark.parametrize("adapter_first", [True, False])
def test_live_calls_are_known_again(adapter_first: bool) -> None:
    old = Stage()
    info = old.armed()
    call = old.called(info)
    stage = Stage(epoch=2, peers=False)
    session = replace(info, mode="answer", calls=[call])
    if adapter_first:
        stage.hello("adapter", "a1", sessions=[session])
    stage.hello("gateway", "g1", streams=announced(call))
    if not adapter_first:
        stage.hello("adapter", "a1", sessions=[session])
    stage.hello("codec_worker", "w1", endpoint="ipc:///w1")
    stage.hello("codec_worker", "w2", endpoint="ipc:///w2")
    stage.pass_time(20.0)
    assert not stage.work and not stage.events("g1", m.CallPlaced)
    (shown,) = (
        status.row(stage.core.book, call, stage.now) for call in status.shown(stage.core.book)
    )
    assert (shown["sid"], shown["state"], shown["gateway"]) == ("CA1", "live", "g1")
    asked = stage.ask("a1", m.HangUp(session=info.session, call=call.call))
    stage.hung_up()
    stage.body("a1", asked, m.Done)


def test_call_that_nobody_claims_is_hung_up() -> None:
    old = Stage()
    call = old.called()
    stage = Stage(epoch=2, peers=False)
    stage.hello("gateway", "g1", streams=announced(call))
    stage.pass_time(8.5)
    assert not stage.work
    stage.pass_time(1.0)
    assert stage.take(do.End).sids == ("CA1",)


def test_redirect_while_nobody_has_said_whose_call_it_is() -> None:
    stage = Stage(epoch=2)
    assert stage.webhook("CA1", c="f" * 32).kind == "pause"
    stage.pass_time(10.0)
    assert stage.webhook("CA1", c="f" * 32).kind == "hangup"


def test_documents_of_the_dials() -> None:
    assert documents.connect("https://h.example.com/", "0" * 32, {"d": "r&"}) == (
        '<?xml version="1.0" encoding="UTF-8"?><Response><Connect>'
        '<Stream url="wss://h.example.com/twilio/stream"><Parameter name="nonce" '
        'value="00000000000000000000000000000000"/></Stream></Connect><Redirect method="POST">'
        "https://h.example.com/twilio/voice?d=r%26#rc=3&amp;rp=all</Redirect></Response>"
    )
    assert documents.HOLD_THE_LINE == (
        '<?xml version="1.0" encoding="UTF-8"?><Response><Say voice="Polly.Joanna">Thank you for '
        "calling. I will hold the line while you complete your scenario.</Say>"
        '<Pause length="120"/></Response>'
    )
    assert SECOND != OURS
