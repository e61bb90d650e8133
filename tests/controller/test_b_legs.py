"""B-leg dials: which call is the other leg, whatever the carrier makes of the caller, and whose
turn it is on the callee's number."""

from __future__ import annotations

import logging

import pytest
from msgspec.structs import replace

from trunkline.bus import messages as m
from trunkline.bus.errors import CarrierError
from trunkline.controller import events as ev
from trunkline.controller import instructions as do
from trunkline.controller.journal.rows import DialRow, OverrideRow

from .fake_carrier import OURS, SECOND, THEIRS
from .stage import Stage, again
from .test_dials import a_dial, caller, live_call

OTHER, THIRD = "+14155550999", "+14155550003"


def b_leg(stage: Stage, info: m.SessionInfo, **fields: object) -> tuple[str, int]:
    request, asked = stage.dial(info, to=SECOND, mode="b-leg", **fields)  # type: ignore[arg-type]  # as given
    stage.look_up()
    if stage.all_work(do.Apply):
        stage.apply()
    return request, asked


def dialled(stage: Stage, info: m.SessionInfo, sid: str = "CAa", **fields: object) -> str:
    """A b-leg dial that Twilio has taken."""
    request, _ = b_leg(stage, info, **fields)
    stage.pass_time(0.1)
    assert stage.take(do.Create).row.request == request
    stage.feed(ev.AskedTwilio(request))
    stage.feed(ev.Taken(request, sid, "queued"))
    return request


def doubted(stage: Stage, info: m.SessionInfo) -> str:
    """A b-leg dial that Twilio has not answered."""
    request, _ = b_leg(stage, info)
    stage.pass_time(0.1)
    stage.take(do.Create)
    stage.feed(ev.AskedTwilio(request))
    stage.feed(ev.Unsure(request, CarrierError("no answer")))
    return request


def another(stage: Stage, number: str = OURS) -> m.SessionInfo:
    return stage.open(number, allowed_callees=[THEIRS])


def up(stage: Stage, sid: str, caller: str) -> m.CallInfo:
    accepted = stage.let_in(stage.webhook(sid, caller, SECOND).token, sid)
    return accepted.info


def failure(stage: Stage, request: str) -> m.DialFailed:
    (failed,) = [f for f in stage.events("a1", m.DialFailed) if f.request == request]
    return failed


# --------------------------------------------------------------------------- the caller


@pytest.mark.parametrize(
    "reported",
    [
        "+4155551234",
        "4155550100",
        "anonymous",
        "Anonymous",
        "+266696687",
        "+811045000",
        "12345",
        "sip:gw@carrier.example",
        "",
    ],
)
def test_a_rewritten_caller_is_taken_and_warned_about(
    reported: str, caplog: pytest.LogCaptureFixture
) -> None:
    stage, info = caller()
    dialled(stage, info)
    with caplog.at_level(logging.WARNING):
        call = up(stage, "CAb", reported)
    assert (call.sid, call.dialled_sid) == ("CAb", "CAa")
    assert (call.caller, call.caller_rewritten, call.callee) == (reported, True, SECOND)
    assert stage.events("a1", m.CallStarted)[0].info == call
    assert "the carrier reports" in caplog.text and "gw@" not in caplog.text


def test_a_caller_that_is_kept_is_not_rewritten() -> None:
    stage, info = caller()
    dialled(stage, info)
    call = up(stage, "CAb", OURS)
    assert (call.caller, call.caller_rewritten) == (OURS, False)


def test_a_call_that_comes_before_the_dial_is_asked_for_is_not_its_other_leg() -> None:
    stage = Stage(calls_per_second=0.5)
    info = another(stage)
    stage.dial(info)
    request, _ = b_leg(stage, info)
    assert stage.core.book.dials[request].state == "queued"
    assert stage.webhook("CAx", THEIRS, SECOND).kind == "busy"


def test_the_other_leg_may_come_before_twilios_answer() -> None:
    stage, info = caller()
    request, asked = b_leg(stage, info)
    stage.take(do.Create)
    assert up(stage, "CAb", "anonymous").dialled_sid is None
    assert not stage.answered("a1", asked)
    stage.feed(ev.Taken(request, "CAa", "in-progress"))
    assert stage.body("a1", asked, m.Dialled).sid == "CAa", "its span has that, too"


def test_a_session_that_answers_keeps_its_callers_while_the_number_is_dialled() -> None:
    stage = Stage()
    answering = stage.open(SECOND, allowed_callers=[THEIRS, "anonymous"])
    stage.arm(answering)
    info = another(stage)
    request = dialled(stage, info)
    assert not stage.all_work(do.Apply)  # one override serves both
    # Its caller is its own, and hears busy while it has a call.
    theirs = up(stage, "CA1", THEIRS)
    assert (theirs.session, theirs.direction) == (answering.session, "inbound")
    assert stage.webhook("CA2", "Anonymous", SECOND).kind == "busy"
    # Who is nobody's caller is the dial's other leg.
    call = up(stage, "CAb", "+4155550100")
    assert (call.session, call.dial_request) == (info.session, request)
    # Then a stranger is rejected again.
    assert stage.webhook("CA3", OTHER, SECOND).kind == "reject"


def test_the_number_that_we_dial_from_is_the_dials_even_where_all_else_is_refused() -> None:
    stage = Stage()
    stage.arm(stage.open(SECOND, allowed_callers=[THEIRS]))
    dialled(stage, another(stage))
    assert stage.webhook("CAb", OURS, SECOND).kind == "stream"


def test_a_number_that_is_dialled_is_not_answered_for_everybody() -> None:
    stage = Stage()
    dialled(stage, another(stage))
    answering = stage.open(SECOND)
    asked = stage.ask("a1", m.Arm(session=answering.session))
    assert stage.error("a1", asked) == "NumberBusyError"


def test_a_stranger_who_came_first_gives_way_to_the_number_that_we_dialled_from() -> None:
    stage, info = caller()
    dialled(stage, info)
    stranger = stage.webhook("CAx", OTHER, SECOND)
    assert stranger.kind == "stream"
    call = up(stage, "CAb", OURS)
    assert (call.sid, call.caller, call.caller_rewritten) == ("CAb", OURS, False)
    assert stage.take(do.End).sids == ("CAx",)
    assert isinstance(stage.start(stranger.token, "CAx"), m.StreamRefused)
    assert stage.webhook("CAx", OTHER, SECOND, c=call.call).kind == "hangup"


@pytest.mark.parametrize("reported", [OURS, "anonymous"])
def test_a_webhook_that_comes_late_does_not_keep_the_other_leg_out(reported: str) -> None:
    """It is of a call of an earlier dial, which is over."""
    stage, info = caller()
    request = dialled(stage, info)
    late = stage.webhook("CAold", reported, SECOND)
    assert late.kind == "stream"
    # The other leg waits while REST is asked about the first one.
    assert stage.webhook("CAb", reported, SECOND).kind == "pause"
    fetch = stage.take(do.Fetch)
    assert fetch.sid == "CAold"
    stage.feed(ev.Fetched(fetch.call, fetch.sid, "canceled"))
    call = up(stage, "CAb", reported)
    assert (call.dial_request, call.sid, call.caller) == (request, "CAb", reported)
    assert isinstance(stage.start(late.token, "CAold"), m.StreamRefused)


def test_a_second_caller_waits_until_the_first_has_its_stream_and_hears_busy_then() -> None:
    stage, info = caller()
    dialled(stage, info)
    answer = stage.webhook("CAb", "anonymous", SECOND)
    assert stage.webhook("CAx", THEIRS, SECOND).kind == "pause"
    stage.looked("in-progress")
    assert isinstance(stage.start(answer.token, "CAb"), m.StreamAccepted)
    assert stage.webhook("CAx", THEIRS, SECOND).kind == "busy"
    assert stage.events("a1", m.CallStarted)[0].info.sid == "CAb"


# --------------------------------------------------------------------------- turns


def test_one_b_leg_dial_to_a_number_at_a_time() -> None:
    stage = Stage()
    one, two, three = another(stage), another(stage), another(stage, SECOND)
    first = dialled(stage, one)
    waiting = [b_leg(stage, info)[0] for info in (one, two, one)]
    # Another number is nobody's turn but its own.
    elsewhere, _ = stage.dial(three, to=OURS, mode="b-leg")
    stage.look_up()
    stage.apply()
    stage.pass_time(0.1)
    assert stage.take(do.Create).row.request == elsewhere
    told = [(q.request, q.place, q.for_number) for q in stage.events("a1", m.DialQueued)]
    assert told == [(waiting[0], 1, True), (waiting[1], 2, True), (waiting[2], 3, True)]
    stage.pass_time(1.0)
    assert not stage.all_work(do.Create)
    # Its stream is up: the next one's turn, and sessions take turns.
    assert up(stage, "CAb", "anonymous").dial_request == first
    for n, request in enumerate(waiting):
        stage.pass_time(1.1)
        (create,) = stage.all_work(do.Create)
        assert create.row.request == request
        stage.take(do.Create)
        stage.feed(ev.Taken(request, f"CAa{n}", "queued"))
        assert up(stage, f"CAb{n}", "anonymous").dial_request == request
    places = [q.place for q in stage.events("a1", m.DialQueued) if q.request == waiting[2]]
    assert places == [3, 2, 1]


def originating(stage: Stage, status: str) -> tuple[m.SessionInfo, str]:
    """A session whose call to SECOND has no stream, and the request id. Twilio took it as CA1."""
    other = stage.open(allowed_callees=[SECOND])
    request, _ = stage.dial(other, to=SECOND, mode="originate")
    stage.take(do.Create)
    stage.feed(ev.Taken(request, "CA1", status))
    return other, request


def test_calls_of_another_kind_to_a_number_do_not_meet_a_b_leg_dial_there() -> None:
    stage = Stage()
    ours = another(stage)
    # One is under way that has no stream: the b-leg dial waits until it is answered.
    other, ringing = originating(stage, "ringing")
    first, _ = b_leg(stage, ours)
    assert not stage.all_work(do.Create)
    stage.callback(ringing, "CA1", "in-progress")
    stage.pass_time(0.2)
    assert stage.take(do.Create).row.request == first
    stage.feed(ev.Taken(first, "CA2", "queued"))
    # The next of the other kind waits for the b-leg dial.
    a_leg, _ = stage.dial(other, to=SECOND)
    assert stage.events("a1", m.DialQueued)[-1].for_number
    stage.pass_time(0.2)
    assert not stage.all_work(do.Create)
    assert up(stage, "CAb", "").dial_request == first
    stage.pass_time(0.2)
    assert stage.take(do.Create).row.request == a_leg


def test_a_callback_that_others_have_overtaken_takes_no_answer_back() -> None:
    """A call that was answered does not ring again, so nobody has to wait for it."""
    stage = Stage()
    ours = another(stage)
    _, answered = originating(stage, "queued")
    for status in ("in-progress", "initiated", "ringing"):
        stage.callback(answered, "CA1", status)
    first, _ = b_leg(stage, ours)
    stage.pass_time(0.2)
    assert stage.take(do.Create).row.request == first


def test_our_own_leg_is_hung_up_where_it_comes_after_its_other_leg_is_over() -> None:
    stage, info = caller()
    request, _ = b_leg(stage, info)
    stage.take(do.Create)
    stage.feed(ev.Unsure(request, CarrierError("no answer")))
    call = up(stage, "CAx", "anonymous")
    stage.feed(m.StreamClosed(call=call.call, ordinal=1, reason="stop", gateway="g1"))
    assert not stage.all_work(do.End)
    stage.feed(ev.Taken(request, "CAa", "in-progress", guessed=True))
    end = stage.take(do.End)
    assert end.sids == ("CAa",)
    stage.feed(ev.EndTaken(end.call, end.sids))
    assert stage.take(do.CloseDial).request == request


@pytest.mark.parametrize("how", ["busy", "refused", "not found", "cancelled", "timed out"])
def test_the_turn_goes_on_when_nothing_more_can_come(how: str) -> None:
    stage, info = caller()
    first, _ = b_leg(stage, info, timeout=5.0)
    stage.take(do.Create)
    second, _ = b_leg(stage, info)
    stage.feed(ev.AskedTwilio(first))
    if how == "refused":
        stage.feed(ev.CreateFailed(first, CarrierError("no")))
    elif how == "not found":
        stage.feed(ev.Unsure(first, CarrierError("no answer")))
        stage.pass_time(1.0)
        assert not stage.all_work(do.Create)  # its other leg may come yet
        stage.feed(ev.NotFound(first))
    else:
        stage.feed(ev.Taken(first, "CAa", "queued"))
        if how == "busy":
            stage.callback(first, "CAa", "busy")
        elif how == "cancelled":
            stage.ask("a1", m.CancelDial(session=info.session, request=first))
        else:
            stage.pass_time(3.0)
            stage.looked("ringing")
            stage.pass_time(2.5)
            stage.looked("ringing")
        if how != "busy":
            assert not stage.all_work(do.Create)  # its other leg may come yet
            stage.hung_up()
    stage.pass_time(0.2)
    assert stage.take(do.Create).row.request == second


def test_a_cancelled_waiter_leaves_the_queue() -> None:
    stage, info = caller()
    dialled(stage, info)
    second, asked = b_leg(stage, info)
    third, _ = b_leg(stage, info)
    stage.ask("a1", m.CancelDial(session=info.session, request=second))
    assert stage.error("a1", asked) == "CallFailedError"
    stage.pass_time(1.5)
    assert stage.events("a1", m.DialQueued)[-1] == m.DialQueued(
        request=third, place=1, seconds=0.0, for_number=True
    )
    up(stage, "CAb", OURS)
    stage.pass_time(0.2)
    assert stage.take(do.Create).row.request == third


def test_a_waiter_waits_as_long_as_its_own_timeout_and_is_told_for_whom() -> None:
    stage, info = caller()
    first = dialled(stage, info, timeout=60.0)
    stage.callback(first, "CAa", "ringing")
    second, asked = b_leg(stage, info, timeout=2.0)
    stage.pass_time(2.5)
    reply = stage.reply("a1", asked)
    assert reply.error is not None and reply.error.kind == "TimedOutError"
    assert reply.error.text.startswith(
        f"call to ***{SECOND[-4:]}: no stream within 2 s: its turn on the callee's number has not "
        f"come: the call of session {info.session} is being set up there (Twilio's last word is "
        "'ringing', 2."
    )
    assert failure(stage, second).status == "timeout"
    up(stage, "CAb", OURS)
    stage.pass_time(1.0)
    assert not stage.all_work(do.Create) and not stage.core.book.turns


def test_a_session_that_closes_takes_its_waiters_away() -> None:
    stage = Stage()
    one, two = another(stage), another(stage)
    dialled(stage, one)
    _, asked = b_leg(stage, two)
    stage.ask("a1", m.CloseSession(session=two.session))
    assert stage.error("a1", asked) == "CallFailedError"
    assert not stage.all_work(do.Restore)  # the other one holds the number too
    up(stage, "CAb", OURS)
    stage.pass_time(1.0)
    assert not stage.all_work(do.Create)


# --------------------------------------------------------------------------- refused meanwhile


def test_an_error_names_the_call_that_was_refused_meanwhile() -> None:
    stage = Stage()
    stage.arm(stage.open(SECOND, allowed_callers=[THEIRS]))
    up(stage, "CA1", THEIRS)
    info = another(stage)
    request = dialled(stage, info)
    assert stage.webhook("CA2", THEIRS, SECOND).kind == "busy"
    stage.callback(request, "CAa", "busy")
    failed = failure(stage, request)
    assert failed.status == "busy"
    assert failed.text == (
        f"no voice webhook of ***{SECOND[-4:]} has come; meanwhile a call was refused on "
        f"***{SECOND[-4:]}: from ***{THEIRS[-4:]} (busy: nobody waited for a call)"
    )


def test_refused_signatures_are_told_with_the_dial() -> None:
    stage, info = caller()
    request = dialled(stage, info)
    stage.feed(m.WebhooksRefused(gateway="g1", kind="wrong signature", numbers={SECOND: 3}))
    stage.feed(m.WebhooksRefused(gateway="g1", kind="shared key", numbers={SECOND: 1}))
    stage.callback(request, "CAa", "failed")
    text = failure(stage, request).text
    assert f"no voice webhook of ***{SECOND[-4:]} was accepted" in text
    assert "3 webhooks to this number refused (its signature is wrong" in text
    assert "1 webhook to this number refused (a shared key has signed it" in text


# --------------------------------------------------------------------------- after a restart


def restarted(
    info: m.SessionInfo, row: DialRow, *rows: DialRow, holders: tuple[m.SessionInfo, ...]
) -> Stage:
    override = OverrideRow(
        id="o1",
        number=SECOND,
        number_sid="PN2",
        session=holders[0].session,
        state="applied",
        since=1_700_000_000.0,
        holders={h.session: row.secret_hash if h is info else "" for h in holders},
        prior={"voice_url": "p"},
        written={"voice_url": "w"},
    )
    return again(dials=[row, *rows], overrides=[override])


def b_row(info: m.SessionInfo, **fields: object) -> DialRow:
    return a_dial(info, mode="b-leg", callee=SECOND, sid="CAa", state="taken", **fields)


def back(info: m.SessionInfo, row: DialRow, **fields: object) -> m.SessionInfo:
    dial = m.Dial(
        session=info.session,
        request=row.request,
        to=SECOND,
        mode="b-leg",
        timeout=60.0,
        max_duration=300.0,
    )
    return replace(info, mode="call", dials=[dial], allowed_callees=[THEIRS], **fields)


def call_of(info: m.SessionInfo, sid: str) -> m.CallInfo:
    """The call that came of the dial, as a peer has it; its caller had been rewritten."""
    return replace(
        live_call(info, 1),
        sid=sid,
        caller="anonymous",
        callee=SECOND,
        dialled_sid="CAa",
        mode="b-leg",
        caller_rewritten=True,
    )


def test_restart_between_the_dial_and_its_other_leg() -> None:
    info = Stage().info()
    row = b_row(info)
    stage = restarted(info, row, holders=(info,))
    # Nobody knows yet whose it is.
    assert stage.webhook("CAb", "anonymous", SECOND).kind == "pause"
    stage.hello("adapter", "a1", sessions=[back(info, row)])
    call = up(stage, "CAb", "anonymous")
    assert (call.call, call.caller, call.caller_rewritten) == (row.call, "anonymous", True)
    # The next dial had not been asked for, and its client asks again.
    next_one, _ = stage.dial(info, to=SECOND, mode="b-leg")
    stage.look_up()
    stage.pass_time(0.2)
    assert stage.take(do.Create).row.request == next_one
    assert not stage.all_work(do.Restore)


def test_a_waiter_waits_for_the_dial_of_before_the_restart() -> None:
    info = Stage().info()
    row = b_row(info)
    stage = restarted(info, row, holders=(info,))
    stage.hello("adapter", "a1", sessions=[back(info, row)])
    next_one, _ = stage.dial(info, to=SECOND, mode="b-leg")
    stage.look_up()
    stage.pass_time(0.5)
    assert not stage.all_work(do.Create)
    assert stage.events("a1", m.DialQueued)[0].for_number
    stage.callback(row.request, "CAa", "no-answer")
    stage.pass_time(0.2)
    assert stage.take(do.Create).row.request == next_one


def test_restart_between_the_webhook_and_its_stream() -> None:
    """The redirect names the call that we had told this leg it is."""
    info = Stage().info()
    row = b_row(info)
    stage = restarted(info, row, holders=(info,))
    assert stage.webhook("CAb", OTHER, SECOND, c=row.call).kind == "pause"
    stage.hello("adapter", "a1", sessions=[back(info, row)])
    answer = stage.webhook("CAb", OTHER, SECOND, c=row.call)
    accepted = stage.let_in(answer.token, "CAb")
    assert accepted.info.call == row.call


def test_a_held_webhook_is_answered_behind_all_sessions_of_its_client() -> None:
    """Its first session has nothing to do with the number. The second one has a call there already,
    which is not to be taken for one that still waits for its other leg."""
    info, first = Stage().info(), Stage().info()
    row = b_row(info)
    stage = restarted(info, row, holders=(info,))
    form = {"CallSid": "CAc", "From": OURS, "To": SECOND}
    held = stage.ask("g1", m.VoiceWebhook(form=form, query={}))
    stage.vouch()
    second = back(info, row, calls=[call_of(info, "CAb")])
    stage.hello("adapter", "a1", sessions=[replace(first, mode="call"), second])
    assert stage.body("g1", held, m.VoiceAnswer).kind == "busy"
    answer = stage.webhook("CAb", OURS, SECOND, c=row.call)
    accepted = stage.let_in(answer.token, "CAb")
    assert accepted.info.call == row.call


def test_a_callers_session_may_still_announce_itself() -> None:
    info, answering = Stage().info(), Stage().info(SECOND, allowed_callers=[THEIRS])
    row = b_row(info)
    stage = restarted(info, row, holders=(info, answering))
    stage.hello("adapter", "a1", sessions=[back(info, row)])
    # It may be the caller of the session that is not back yet.
    assert stage.webhook("CA1", THEIRS, SECOND).kind == "pause"
    # That the number is the one that we dial from leaves no doubt.
    assert stage.webhook("CAb", OURS, SECOND).kind == "stream"


def test_a_rewritten_caller_is_nobodys_where_two_dials_still_wait_for_their_other_legs() -> None:
    """The first dial's call was up, so the second one had its turn. Then the client stood still
    before it heard of the first call, and both the controller and that call's gateway died."""
    info = Stage().info()
    first = b_row(info)
    second = replace(first, request="2" * 32, call="d" * 32, sid="CAd")
    stage = restarted(info, first, second, holders=(info,))
    dials = [dial for row in (first, second) for dial in back(info, row).dials]
    stage.hello("adapter", "a1", sessions=[replace(back(info, first), dials=dials)])
    assert stage.webhook("CAb", "anonymous", SECOND).kind == "busy"


def test_a_session_that_has_closed_does_not_keep_the_other_leg_waiting() -> None:
    stage = Stage()
    answering = stage.open(SECOND, allowed_callers=[THEIRS])
    stage.arm(answering)
    dialled(stage, another(stage))
    stage.ask("a1", m.CloseSession(session=answering.session))
    assert stage.core.book.claiming
    assert stage.webhook("CAb", "anonymous", SECOND).kind == "stream"


def test_a_timeout_tells_that_the_other_leg_was_let_wait() -> None:
    info, answering = Stage().info(), Stage().info(SECOND, allowed_callers=[THEIRS])
    row = b_row(info, timeout=5.0)
    stage = restarted(info, row, holders=(info, answering))
    stage.hello("adapter", "a1", sessions=[back(info, row)])
    stage.webhook("CAb", "anonymous", SECOND)
    assert "was answered with 'pause'" in stage.core.book.dials[row.request].known.webhook(
        stage.now
    )


def test_a_rewritten_caller_is_known_after_the_next_restart_too() -> None:
    info = Stage().info()
    row = b_row(info)
    stage = restarted(info, row, holders=(info,))
    call = call_of(info, "CAb")
    stream = m.StreamInfo(info=call, stream_sid="MZ1", generation=m.first_generation(1))
    stage.hello("gateway", "g1", streams=[stream])
    known = stage.core.book.calls[row.call]
    assert (known.caller, known.caller_rewritten) == ("anonymous", True)
    assert known.info(stage.now).caller_rewritten


def test_our_own_leg_that_comes_after_its_other_leg_was_hung_up_is_hung_up_too() -> None:
    """Twilio's answer is late, and somebody's call is taken for the other leg meanwhile."""
    stage, info = caller()
    request = doubted(stage, info)
    assert stage.take(do.Settle).row.request == request
    call = up(stage, "CAb", THEIRS)
    stage.ask("a1", m.HangUp(session=info.session, call=call.call))
    assert stage.hung_up().sids == ("CAb",)
    assert not stage.all_work(do.CloseDial), "our own leg may still come"
    stage.feed(ev.Taken(request, "CAa", "ringing"))
    assert stage.hung_up().sids == ("CAa",)
    assert stage.take(do.CloseDial).request == request


def test_nobody_hears_of_a_hang_up_before_twilio_has_taken_that_of_both_legs() -> None:
    """Our own leg shows itself while its other leg is being hung up. The dial stays open until that
    leg is hung up as well: otherwise a controller that is started again would not know it."""
    stage, info = caller()
    request = doubted(stage, info)
    call = up(stage, "CAb", THEIRS)
    asked = stage.ask("a1", m.HangUp(session=info.session, call=call.call))
    stage.feed(ev.Taken(request, "CAa", "ringing"))
    assert stage.hung_up().sids == ("CAb",)
    assert not stage.answered("a1", asked)
    assert not stage.all_work(do.CloseDial), "our own leg may be ringing"
    assert stage.hung_up().sids == ("CAa",)
    stage.body("a1", asked, m.Done)
    assert stage.take(do.CloseDial).request == request


def test_a_hang_up_that_is_refused_is_answered_while_another_leg_is_hung_up() -> None:
    stage, info = caller()
    request = doubted(stage, info)
    call = up(stage, "CAb", THEIRS)
    hang_up = m.HangUp(session=info.session, call=call.call)
    asked = stage.ask("a1", hang_up)
    stage.feed(ev.EndFailed(stage.take(do.End).call, CarrierError("no")))
    assert stage.error("a1", asked) == "CarrierError"
    stage.feed(ev.Taken(request, "CAa", "ringing"))
    assert stage.hung_up().sids == ("CAa",)
    assert stage.error("a1", stage.ask("a1", hang_up)) == "CarrierError"
