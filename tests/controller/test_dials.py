"""Dials: the three modes, the queue, every way to fail, and doubt that is settled."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from trunkline.bus import messages as m
from trunkline.bus.errors import CarrierError
from trunkline.controller import events as ev
from trunkline.controller import instructions as do
from trunkline.controller.journal.rows import DialRow
from trunkline.controller.rules.book.queues import DialQueue
from trunkline.controller.rules.book.tokens import digest

from .fake_carrier import OURS, SECOND, THEIRS
from .stage import URL, Stage, again, token_of

R = "a" * 32


def caller() -> tuple[Stage, m.SessionInfo]:
    stage = Stage()
    return stage, stage.open(allowed_callees=[THEIRS])


def test_a_leg_touches_no_number() -> None:
    stage, info = caller()
    request, asked = stage.dial(info)
    create = stage.take(do.Create)
    assert not stage.work
    order = create.order
    assert (order.to, order.from_, order.time_limit) == (THEIRS, OURS, 300)
    assert order.status_callback.startswith(f"{URL}/twilio/status?d={request}")
    assert create.row.token_hash == digest(token_of(create))
    stage.feed(ev.Taken(request, "CA1", "queued"))
    dialled = stage.body("a1", asked, m.Dialled)
    assert dialled.sid == "CA1" and dialled.call == create.row.call
    accepted = stage.let_in(token_of(create), "CA1")
    call = accepted.info
    assert (call.direction, call.caller, call.callee) == ("outbound", OURS, THEIRS)
    assert (call.sid, call.dialled_sid, call.dial_request) == ("CA1", "CA1", request)
    assert call.call == dialled.call and call.mode == "a-leg"
    assert stage.events("a1", m.CallStarted)[0].info == call


def test_a_callback_without_its_query_is_known_by_the_calls_sid() -> None:
    stage, info = caller()
    request = stage.dialled(info)
    for sid in ("", "CA2", "CA1"):
        form = {"CallSid": sid, "CallStatus": "busy"}
        stage.body("g1", stage.ask("g1", m.StatusCallback(form=form)), m.Done)
    (failed,) = stage.events("a1", m.DialFailed)
    assert (failed.request, failed.status, failed.sid) == (request, "busy", "CA1")


def test_stream_that_comes_before_twilios_answer() -> None:
    stage, info = caller()
    request, asked = stage.dial(info)
    create = stage.take(do.Create)
    assert isinstance(stage.start(token_of(create), "CA1"), m.StreamAccepted)
    assert stage.body("a1", asked, m.Dialled).sid == "CA1"
    assert stage.take(do.NoteTaken) == do.NoteTaken(request, "CA1")
    stage.feed(ev.Taken(request, "CA1", "queued"))
    assert not stage.work


def test_b_leg_overrides_the_callee_and_meets_its_other_leg() -> None:
    stage, info = caller()
    request, asked = stage.dial(info, to=SECOND, mode="b-leg")
    stage.look_up()
    assert not stage.all_work(do.Create)
    row = stage.apply()
    assert (row.number, row.number_sid) == (SECOND, "PN2")
    create = stage.take(do.Create)
    assert "Polly.Joanna" in create.order.twiml
    stage.feed(ev.Taken(request, "CAa", "queued"))
    stage.body("a1", asked, m.Dialled)
    answer = stage.webhook("CAb", OURS, SECOND)
    accepted = stage.start(answer.token, "CAb")
    # A stranger calls that number meanwhile.
    assert stage.webhook("CAx", THEIRS, SECOND).kind == "busy"
    assert isinstance(accepted, m.StreamAccepted)
    assert (accepted.info.sid, accepted.info.dialled_sid) == ("CAb", "CAa")
    assert accepted.info.direction == "outbound" and accepted.info.callee == SECOND
    # Both legs are hung up; the number is put back when the session closes, not before.
    stage.ask("a1", m.HangUp(session=info.session, call=accepted.info.call))
    assert stage.take(do.End).sids == ("CAa", "CAb")
    assert not stage.all_work(do.Restore)
    stage.ask("a1", m.CloseSession(session=info.session))
    assert stage.take(do.Restore).override == row.id


def test_b_leg_second_callee_is_restored_too() -> None:
    stage, info = caller()
    stage.dial(info, to=SECOND, mode="b-leg")
    stage.look_up()
    first = stage.apply()
    stage.take(do.Create)
    stage.dial(info, to=OURS, mode="b-leg")
    stage.look_up()
    second = stage.apply()
    stage.ask("a1", m.CloseSession(session=info.session))
    assert {x.override for x in stage.all_work(do.Restore)} == {first.id, second.id}


def test_b_leg_far_end_hangs_up_and_the_other_leg_is_hung_up() -> None:
    stage, info = caller()
    request, _ = stage.dial(info, to=SECOND, mode="b-leg")
    stage.look_up()
    stage.apply()
    stage.take(do.Create)
    stage.feed(ev.Taken(request, "CAa", "queued"))
    accepted = stage.let_in(stage.webhook("CAb", OURS, SECOND).token, "CAb")
    stage.feed(m.StreamClosed(call=accepted.info.call, ordinal=1, reason="stop", gateway="g1"))
    assert stage.events("a1", m.CallEnded)[0].reason == "stop"
    assert stage.take(do.End).sids == ("CAa",)


def test_b_leg_refused_dials_nothing() -> None:
    stage, info = caller()
    _, asked = stage.dial(info, to="+14155550404", mode="b-leg")
    stage.look_up()
    assert stage.error("a1", asked) == "NumberNotFoundError"
    _, asked = stage.dial(info, to=SECOND, mode="b-leg")
    stage.look_up()
    stage.feed(ev.ApplyFailed(stage.take(do.Apply).row, CarrierError("no"), open=False))
    assert stage.error("a1", asked) == "CarrierError"
    assert not stage.all_work(do.Create)


def test_originate_is_live_once_twilio_took_it() -> None:
    stage, info = caller()
    request, asked = stage.dial(info, mode="originate", timeout=5.0)
    stage.take(do.Create)
    stage.feed(ev.Taken(request, "CA1", "queued"))
    stage.body("a1", asked, m.Dialled)
    # Neither its timeout nor the missing stream ends it; it is asked about while it says nothing.
    stage.pass_time(20.0)
    assert stage.looked("ringing") == 2
    assert not stage.work
    stage.callback(request, "CA1", "in-progress")
    stage.callback(request, "CA1", "completed")
    assert stage.events("a1", m.CallEnded)[0] == m.CallEnded(
        call=stage.body("a1", asked, m.Dialled).call, reason="stop", by_far_end=True
    )
    assert not stage.events("a1", m.DialFailed), "it was answered"
    assert stage.take(do.CloseDial).request == request


@pytest.mark.parametrize("told", [("in-progress",), ()])
def test_an_originated_call_that_was_answered_is_no_dial_that_failed(told: tuple[str, ...]) -> None:
    """However it ends, and also if only its end is heard of."""
    for by_us in (False, True) if told else (False,):
        stage, info = caller()
        request = stage.dialled(info, mode="originate")
        for status in told:
            stage.callback(request, "CA1", status)
        if by_us:
            call = stage.core.book.dials[request].row.call
            stage.ask("a1", m.HangUp(session=info.session, call=call))
            stage.hung_up()
        stage.callback(request, "CA1", "completed")
        assert not stage.events("a1", m.DialFailed)
        assert not any("failed" in count for count in stage.core.book.counts)
        (ended,) = stage.events("a1", m.CallEnded)
        (over,) = stage.core.timeline.over
        assert ended.reason == over["reason"] == ("hang_up" if by_us else "stop")


@pytest.mark.parametrize("status", ["busy", "no-answer", "failed", "canceled"])
def test_not_answered_is_told_at_once(status: str) -> None:
    stage, info = caller()
    request, asked = stage.dial(info)
    stage.take(do.Create)
    stage.feed(ev.Taken(request, "CA1", "queued"))
    stage.body("a1", asked, m.Dialled)
    stage.callback(request, "CA1", "ringing")
    stage.callback(request, "CA1", status)
    stage.callback(request, "CA1", status)
    (failed,) = stage.events("a1", m.DialFailed)
    assert (failed.request, failed.status, failed.sid) == (request, status, "CA1")
    assert stage.take(do.CloseDial).request == request
    assert not stage.events("a1", m.CallEnded) and not stage.work


def test_timeout_counts_from_when_twilio_was_asked_and_hangs_up_first() -> None:
    stage, info = caller()
    request, _ = stage.dial(info, timeout=5.0)
    stage.take(do.Create)
    stage.pass_time(3.0)
    stage.feed(ev.AskedTwilio(request))
    stage.feed(ev.Taken(request, "CA1", "queued"))
    stage.pass_time(4.5)
    assert not stage.all_work(do.End)
    stage.looked("ringing")
    stage.pass_time(1.0)
    assert stage.looked("ringing") == 1
    end = stage.take(do.End)
    assert not stage.events("a1", m.DialFailed)
    stage.feed(ev.EndTaken(end.call, end.sids))
    assert stage.events("a1", m.DialFailed)[0].status == "timeout"
    assert stage.take(do.CloseDial).request == request


@pytest.mark.parametrize("hung_up", ["canceled", "completed"])
def test_the_callback_of_our_own_hang_up_does_not_hide_the_timeout(hung_up: str) -> None:
    stage, info = caller()
    request, _ = stage.dial(info, timeout=5.0)
    stage.take(do.Create)
    stage.feed(ev.AskedTwilio(request))
    stage.feed(ev.Taken(request, "CA1", "queued"))
    stage.pass_time(5.5)
    stage.looked("ringing")
    end = stage.take(do.End)
    stage.callback(request, "CA1", hung_up)
    stage.feed(ev.EndTaken(end.call, end.sids))
    assert [(failed.status, failed.text) for failed in stage.events("a1", m.DialFailed)] == [
        ("timeout", "Twilio's last word is 'ringing', 0.0 s ago")
    ]


def test_timeout_without_a_sid_hangs_up_what_comes_later() -> None:
    stage, info = caller()
    request, asked = stage.dial(info, timeout=5.0)
    stage.take(do.Create)
    stage.pass_time(5.5)
    assert stage.events("a1", m.DialFailed)[0].status == "timeout"
    assert stage.error("a1", asked) == "TimedOutError"
    stage.feed(ev.Taken(request, "CA1", "queued"))
    assert stage.take(do.End).sids == ("CA1",)
    assert len(stage.events("a1", m.DialFailed)) == 1


def test_a_stack_that_ends_waits_for_no_callback_of_a_call_that_is_over() -> None:
    """The far end has hung up, and Twilio's word on it is still on its way: the next start would
    have to look after the dial."""
    stage, info = caller()
    request, _ = stage.dial(info, mode="a-leg")
    create = stage.take(do.Create)
    stage.feed(ev.Taken(request, "CA1", "in-progress"))
    accepted = stage.start(token_of(create), "CA1")
    assert isinstance(accepted, m.StreamAccepted)
    call = accepted.info.call
    stage.feed(m.StreamClosed(call=call, ordinal=1, reason="stop", gateway="g1"))
    assert stage.events("a1", m.CallEnded) and not stage.all_work(do.End)
    stage.feed(ev.Shutdown())
    assert stage.hung_up().sids == ("CA1",)
    assert stage.take(do.CloseDial).request == request and not stage.core.book.busy


def test_cancel_hangs_up_whatever_comes() -> None:
    stage, info = caller()
    # Twilio has it.
    request = stage.dialled(info)
    cancel = stage.ask("a1", m.CancelDial(session=info.session, request=request))
    stage.hung_up()
    stage.body("a1", cancel, m.Done)
    # Twilio is being asked.
    stage.pass_time(0.2)
    request, _ = stage.dial(info)
    create = stage.take(do.Create)
    cancel = stage.ask("a1", m.CancelDial(session=info.session, request=request))
    stage.body("a1", cancel, m.Done)
    stage.feed(ev.Taken(request, "CA2", "queued"))
    assert stage.take(do.End).sids == ("CA2",)
    assert isinstance(stage.start(token_of(create), "CA2"), m.StreamRefused)
    assert stage.webhook("CA2", d=request).kind == "hangup"
    # It is still queued.
    slow = Stage(calls_per_second=0.1)
    info = slow.open(allowed_callees=[THEIRS])
    slow.dial(info)
    slow.take(do.Create)
    request, asked = slow.dial(info)
    slow.body("a1", slow.ask("a1", m.CancelDial(session=info.session, request=request)), m.Done)
    assert slow.error("a1", asked) == "CallFailedError"
    slow.pass_time(20.0)
    assert not slow.all_work(do.Create)


def test_client_killed_while_dialling() -> None:
    stage, info = caller()
    request, _ = stage.dial(info, timeout=60.0)
    stage.take(do.Create)
    stage.beating.remove("a1")
    stage.pass_time(10.0)
    stage.feed(ev.Taken(request, "CA1", "queued"))
    assert stage.take(do.End).sids == ("CA1",)
    assert stage.core.book.sessions[info.session].state == "closing"


def test_doubt_settled_by_callback_by_stream_or_by_the_list() -> None:
    stage, info = caller()
    for n, how in enumerate(("callback", "stream", "list")):
        request, asked = stage.dial(info)
        stage.pass_time(0.1)
        create = stage.take(do.Create)
        stage.feed(ev.Unsure(request, CarrierError("no answer")))
        assert stage.take(do.Settle).row.request == request
        sid = f"CA{n}"
        if how == "callback":
            stage.callback(request, sid, "ringing")
        elif how == "stream":
            assert isinstance(stage.start(token_of(create), sid), m.StreamAccepted)
        else:
            stage.feed(ev.Taken(request, sid, "ringing"))
        assert stage.body("a1", asked, m.Dialled).sid == sid
        assert not stage.all_work(do.Create)


def test_doubt_that_ends_in_nothing() -> None:
    stage, info = caller()
    request, asked = stage.dial(info, timeout=120.0)
    stage.take(do.Create)
    stage.feed(ev.Unsure(request, CarrierError("no answer")))
    stage.feed(ev.NotFound(request))
    assert stage.error("a1", asked) == "CallFailedError"
    assert stage.events("a1", m.DialFailed)[0].status == "failed"


def test_refused_by_twilio() -> None:
    stage, info = caller()
    request, asked = stage.dial(info)
    stage.take(do.Create)
    stage.feed(ev.CreateFailed(request, CarrierError("bad number", status=400, code=21211)))
    reply = stage.reply("a1", asked)
    assert reply.error is not None and reply.error.fields["code"] == 21211


def test_second_call_of_one_request_is_hung_up() -> None:
    stage, info = caller()
    request = stage.dialled(info)
    assert stage.webhook("CA2", d=request).kind == "hangup"
    assert stage.take(do.End).sids == ("CA2",)


def test_call_that_nobody_claims() -> None:
    stage = Stage()
    stage.pass_time(10.0)
    stage.callback("f" * 32, "CA9", "ringing")
    assert stage.take(do.End).sids == ("CA9",)
    stage.callback("f" * 32, "CA9", "completed")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"to": "0415"}, "E.164"),
        ({"to": "+14155550002"}, "allowed_callees"),
        ({"mode": "originate", "to": "+14155550002"}, "allowed_callees"),
        ({"max_duration": 301.0}, "300"),
        ({"max_duration": 0.0}, "max_duration"),
        ({"max_duration": float("nan")}, "max_duration"),
        ({"timeout": 0.0}, "timeout"),
    ],
)
def test_what_is_not_dialled(fields: dict[str, object], words: str) -> None:
    stage, info = caller()
    _, asked = stage.dial(info, **fields)  # type: ignore[arg-type]  # as a user could
    reply = stage.reply("a1", asked)
    assert reply.error is not None and reply.error.kind == "InvalidRequestError"
    assert words in reply.error.text and not stage.work
    # The mode is still open.
    stage.arm(info)


def test_a_leg_without_a_list_is_denied() -> None:
    stage = Stage()
    info = stage.open()
    _, asked = stage.dial(info)
    reply = stage.reply("a1", asked)
    assert reply.error is not None and "deny-by-default" in reply.error.text
    _, asked = stage.dial(info, mode="originate")
    stage.take(do.Create)


# --------------------------------------------------------------------------- the queue


def test_calls_per_second_and_places() -> None:
    stage = Stage(calls_per_second=1.0)
    info = stage.open(allowed_callees=[THEIRS])
    for _ in range(4):
        stage.dial(info)
    assert len(stage.all_work(do.Create)) == 1
    queued = stage.events("a1", m.DialQueued)
    assert [q.place for q in queued] == [1, 2, 3]
    assert [round(q.seconds) for q in queued] == [1, 2, 3]
    stage.pass_time(1.1)
    assert len(stage.all_work(do.Create)) == 2
    stage.pass_time(2.0)
    assert len(stage.all_work(do.Create)) == 4


def test_queue_is_fair_between_sessions() -> None:
    queue = DialQueue(1.0)
    for request in ("a1", "a2", "a3", "a4"):
        queue.add("a", request)
    queue.add("b", "b1")
    queue.add("c", "c1")
    assert queue.order() == ["a1", "b1", "c1", "a2", "a3", "a4"]
    taken = [queue.take(float(second)) for second in range(7)]
    assert taken == ["a1", "b1", "c1", "a2", "a3", "a4", None]


def test_queue_keeps_its_rate_with_late_ticks() -> None:
    queue = DialQueue(10.0)
    for n in range(100):
        queue.add("a", str(n))
    now, taken = 0.0, 0
    while now < 5.0:
        while queue.take(now) is not None:
            taken += 1
        now += 0.13
    assert 35 <= taken <= 51


# --------------------------------------------------------------------------- after a restart


def a_dial(info: m.SessionInfo, **fields: object) -> DialRow:
    row = DialRow(
        request=R,
        session=info.session,
        secret_hash=digest(info.secret),
        call="c" * 32,
        mode="a-leg",
        callee=THEIRS,
        caller=OURS,
        timeout=60.0,
        max_duration=300.0,
        token_hash=digest("t" * 32),
        sid=None,
        state="asked",
        asked=1_700_000_000.0,
    )
    return replace(row, **fields)


def live_call(info: m.SessionInfo, ordinal: int) -> m.CallInfo:
    """The call that came of that dial, as a peer has it."""
    return m.CallInfo(
        call="c" * 32,
        session=info.session,
        sid="CA1",
        direction="outbound",
        caller=OURS,
        callee=THEIRS,
        secret="s" * 32,
        ordinal=ordinal,
        dialled_sid="CA1",
        dial_request=R,
        mode="a-leg",
        age=60.0,
    )


def waiting(info: m.SessionInfo) -> m.SessionInfo:
    dial = m.Dial(
        session=info.session, request=R, to=THEIRS, mode="a-leg", timeout=60.0, max_duration=300.0
    )
    return replace(info, mode="call", dials=[dial], allowed_callees=[THEIRS])


def test_controller_killed_between_request_and_answer() -> None:
    info = Stage().info()
    stage = again(dials=[a_dial(info)])
    assert stage.take(do.Settle).row.request == R
    stage.hello("adapter", "a1", sessions=[waiting(info)])
    asked = stage.ask("a1", waiting(info).dials[0])
    assert not stage.all_work(do.Create)
    # The call carries the token of its inline TwiML, which the journal knows.
    accepted = stage.let_in("t" * 32, "CA1")
    assert accepted.info.call == "c" * 32
    assert stage.body("a1", asked, m.Dialled).sid == "CA1"
    assert stage.events("a1", m.CallStarted)


def test_ringing_dial_is_asked_about() -> None:
    info = Stage().info()
    stage = Stage(epoch=2, peers=False, dials=[a_dial(info, sid="CA1", state="taken")])
    stage.hello("adapter", "a1", sessions=[waiting(info)])
    fetch = stage.take(do.Fetch)
    stage.feed(ev.Fetched(fetch.call, fetch.sid, "busy"))
    assert stage.events("a1", m.DialFailed)[0].status == "busy"


@pytest.mark.parametrize("sid", [None, "CA1"])
def test_dial_that_nobody_claims_is_hung_up(sid: str | None) -> None:
    info = Stage().info()
    state = "asked" if sid is None else "taken"
    stage = Stage(epoch=2, dials=[a_dial(info, sid=sid, state=state)])
    stage.pass_time(9.5)
    if sid is None:
        assert not stage.all_work(do.End)
        stage.feed(ev.Taken(R, "CA1", "ringing"))
    end = stage.take(do.End)
    assert end.sids == ("CA1",)
    stage.feed(ev.EndTaken(end.call, end.sids))
    assert stage.take(do.CloseDial).request == R


def test_call_that_outlived_its_dials_timeout_is_left_alone() -> None:
    """Its stream came up long ago; the journal alone does not know that."""
    info = Stage().info()
    row = a_dial(info, sid="CA1", state="taken", timeout=5.0)
    stage = Stage(epoch=2, peers=False, dials=[row], now=1000.0)
    stage.feed(ev.Tick())
    call = live_call(info, 1)
    stage.pass_time(1.0)
    stage.hello("adapter", "a1", sessions=[replace(info, mode="call", calls=[call])])
    stage.hello(
        "gateway",
        "g1",
        streams=[m.StreamInfo(info=call, stream_sid="MZ1", generation=m.first_generation(1))],
    )
    stage.pass_time(20.0)
    assert not stage.work and not stage.events("a1", m.DialFailed)
    # Its end is told, and closes the dial.
    stage.callback(R, "CA1", "completed")
    assert stage.events("a1", m.CallEnded)[0].reason == "stop"
    assert stage.take(do.CloseDial).request == R


def test_b_leg_whose_own_answer_never_came_is_answered_at_its_end() -> None:
    """Its other leg had its stream, and which call we had dialled was never told."""
    stage, info = caller()
    request, asked = stage.dial(info, to=SECOND, mode="b-leg")
    stage.look_up()
    stage.apply()
    stage.take(do.Create)
    stage.feed(ev.Unsure(request, CarrierError("no answer")))
    accepted = stage.let_in(stage.webhook("CAb", OURS, SECOND).token, "CAb")
    stage.ask("a1", m.HangUp(session=info.session, call=accepted.info.call))
    assert not stage.answered("a1", asked)
    stage.hung_up()
    assert stage.error("a1", asked) == "CallFailedError"
    assert not any(peer.working for peer in stage.core.book.peers.by_id.values())
