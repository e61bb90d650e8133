"""After a restart: what is claimed, by whom, and what happens to what the journal does not know."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from trunkline.bus import messages as m
from trunkline.bus.errors import CarrierError
from trunkline.controller import events as ev
from trunkline.controller import instructions as do
from trunkline.controller.rules.book.call import STREAMS_AN_EPOCH

from .fake_carrier import OURS, SECOND, THEIRS
from .stage import Stage, again
from .test_dials import R, a_dial, live_call, waiting
from .test_sessions import a_row, restarted


def an_armed_session() -> m.SessionInfo:
    return Stage().info(armed=True, mode="answer")


def test_armed_session_that_the_journal_does_not_have_is_armed_anew() -> None:
    """It shared an override, and the controller died before it could note that."""
    info = an_armed_session()
    stage = again()
    stage.hello("adapter", "a1", sessions=[info])
    assert stage.webhook("CA1").kind == "busy"
    stage.look_up()
    stage.apply()
    assert stage.webhook("CA2").kind == "stream"
    stage.pass_time(20.0)
    assert not stage.all_work(do.Restore)


def test_armed_session_whose_number_is_being_put_back_is_armed_after_that() -> None:
    info = an_armed_session()
    stage = restarted(info, a_row(info, state="restoring"))
    stage.hello("adapter", "a1", sessions=[info])
    stage.look_up()
    assert not stage.all_work(do.Apply)
    stage.feed(ev.Restored(stage.take(do.Restore).override, "restored"))
    stage.apply()
    assert stage.webhook("CA1").kind == "stream"


def test_armed_session_that_cannot_be_armed_anew_is_told() -> None:
    info = an_armed_session()
    stage = again()
    stage.hello("adapter", "a1", sessions=[info])
    stage.look_up()
    stage.feed(ev.ApplyFailed(stage.take(do.Apply).row, CarrierError("refused"), open=False))
    (lost,) = stage.events("a1", m.SessionLost)
    assert lost.session == info.session and "refused" in lost.why


def test_arm_that_was_not_answered_yet_gets_its_answer_from_the_next_controller() -> None:
    info = an_armed_session()
    stage = again()
    stage.hello("adapter", "a1", sessions=[info])
    asked = stage.ask("a1", m.Arm(session=info.session))
    stage.look_up()
    stage.apply()
    stage.body("a1", asked, m.Armed)
    assert not stage.all_work(do.Apply)


def test_two_rows_of_one_number_are_both_put_back() -> None:
    info = Stage().info()
    rows = [a_row(info), a_row(info, id="o2")]
    stage = Stage(overrides=rows, epoch=2)

    def states() -> list[tuple[str, str]]:
        report = stage.body("a1", stage.ask("a1", m.GetStatus()), m.StatusReport)
        return [(row["number"], row["state"]) for row in report.status["overrides"]]

    assert stage.take(do.Restore).override == "o2"
    assert states() == [(OURS, "applied"), (OURS, "restoring")]
    stage.pass_time(10.0)
    assert stage.take(do.Restore).override == "o1"
    stage.feed(ev.Restored("o1", "restored"))
    assert states() == [(OURS, "restoring")] and stage.core.book.busy  # pending, and waited for
    stage.feed(ev.Restored("o2", "restored"))
    assert states() == [] and not stage.core.book.busy


def test_session_that_is_closing_is_not_opened_again() -> None:
    stage = Stage()
    info = stage.armed()
    stage.ask("a1", m.CloseSession(session=info.session))
    again = stage.ask("a1", m.OpenSession(info=info))
    assert stage.error("a1", again) == "WrongModeError"


# --------------------------------------------------------------------------- calls


def test_caller_who_was_let_in_just_before_the_restart_is_let_in_again() -> None:
    """Its stream has not come yet; it is redirected to us with a call id that nobody knows."""
    info = an_armed_session()
    stage = restarted(info, a_row(info))
    assert stage.webhook("CA1", c="f" * 32).kind == "pause"
    stage.hello("adapter", "a1", sessions=[info])
    answer = stage.webhook("CA1", c="f" * 32)
    assert answer.kind == "stream"
    assert isinstance(stage.start(answer.token, "CA1"), m.StreamAccepted)


def test_a_webhook_is_answered_as_soon_as_its_client_is_back() -> None:
    """A pause would cost the caller a second, and the client needs some milliseconds."""
    info = an_armed_session()
    stage = restarted(info, a_row(info))
    form = {"CallSid": "CA1", "From": THEIRS, "To": OURS}
    asked = stage.ask("g1", m.VoiceWebhook(form=form, query={"c": "f" * 32}))
    late = stage.ask("g1", m.VoiceWebhook(form=form | {"CallSid": "CA2"}, query={"c": "e" * 32}))
    stage.vouch()
    stage.pass_time(0.9)
    assert not stage.answered("g1", asked) and not stage.answered("g1", late)
    stage.hello("adapter", "a1", sessions=[info])
    assert stage.body("g1", asked, m.VoiceAnswer).kind == "stream"
    assert not stage.answered("g1", late)  # the session waits for one call
    stage.pass_time(0.2)
    assert stage.body("g1", late, m.VoiceAnswer).kind == "pause"


def test_redirect_of_a_dialled_call_waits_for_who_knows_its_streams() -> None:
    """Controller and gateway died together: only the client knows how many streams there were."""
    info = Stage().info()
    stage = again("g2", dials=[a_dial(info, sid="CA1", state="taken")])
    assert stage.webhook("CA1", gateway="g2", d=R).kind == "pause"
    session = replace(info, mode="call", calls=[live_call(info, 2)], allowed_callees=[THEIRS])
    stage.hello("adapter", "a1", sessions=[session])
    answer = stage.webhook("CA1", gateway="g2", d=R)
    accepted = stage.let_in(answer.token, "CA1", "g2")
    assert not accepted.first
    assert accepted.info.ordinal == 2 * STREAMS_AN_EPOCH


@pytest.mark.parametrize("who", ["client", "gateway"])
def test_a_client_hears_with_which_stream_its_call_began(who: str) -> None:
    """Whoever survives a restart knows of that stream."""
    info = Stage().info()
    stage = again("g2", dials=[a_dial(info, sid="CA1", state="taken")])
    stage.hello("codec_worker", "w2", endpoint="ipc:///w2")
    call = replace(live_call(info, 3), first=2)
    session = replace(info, mode="call", allowed_callees=[THEIRS])
    if who == "gateway":
        stream = m.StreamInfo(info=call, stream_sid="MZ1", generation=m.first_generation(3))
        stage.hello("gateway", "g9", streams=[stream])
        stage.feed(m.StreamClosed(call=call.call, ordinal=3, reason="error", gateway="g9"))
    stage.hello("adapter", "a1", sessions=[replace(session, calls=[call] * (who == "client"))])
    later = stage.let_in(stage.webhook("CA1", gateway="g2", d=R).token, "CA1", "g2").info
    assert (later.ordinal, later.first) == (2 * STREAMS_AN_EPOCH, 2)


W1 = m.WorkerRef(id="w1", endpoint="ipc:///w1")


@pytest.mark.parametrize("first", ["client", "gateway"])
@pytest.mark.parametrize("direction", ["outbound", "inbound"])
def test_a_client_hears_of_a_call_that_is_new_to_it(direction: m.Direction, first: str) -> None:
    """The controller died when it had answered the gateway, and had not told the client yet."""
    info = an_armed_session()
    call = replace(live_call(info, 1), placement=m.Placement(epoch=1, n=1, primary=W1))
    stage = restarted(info, a_row(info))
    if direction == "outbound":
        stage = Stage(epoch=2, peers=False, dials=[a_dial(info, sid="CA1", state="taken")])
        info = waiting(replace(info, armed=False))
    else:
        call = replace(call, direction=direction, dialled_sid=None, dial_request=None, mode=None)
    stream = m.StreamInfo(info=call, stream_sid="MZ1", generation=m.first_generation(1))
    if first == "client":
        stage.hello("adapter", "a1", sessions=[info])
        assert stage.events("a1", m.CallStarted) == []
    stage.hello("gateway", "g9", streams=[stream])
    if first == "gateway":
        stage.hello("adapter", "a1", sessions=[info])
    (started,) = stage.events("a1", m.CallStarted)
    assert (started.info.call, started.info.ordinal) == (call.call, 1)
    if direction == "outbound":
        return
    # It had waited for one call, and this was that call.
    stage.feed(m.StreamClosed(call=call.call, ordinal=1, reason="error", gateway="g9"))
    stage.ask("a1", m.HangUp(session=info.session, call=call.call))
    stage.hung_up()
    assert stage.webhook("CA2").kind == "busy"


def test_no_stream_has_the_ordinal_of_one_of_which_nobody_told_in_time() -> None:
    """Twice a controller lets a stream in, and its gateway dies with it. The worker that was given
    the stream is stopped, as is the client, so that the next controller hears of the first stream
    alone."""
    info = Stage().info()
    session = replace(info, mode="call", calls=[live_call(info, 1)], allowed_callees=[THEIRS])
    last = 2  # of the first controller
    for epoch in (2, 3):
        stage = Stage(epoch=epoch, peers=False, dials=[a_dial(info, sid="CA1", state="taken")])
        stage.hello("gateway", "g2")
        stage.hello("codec_worker", "w2", endpoint="ipc:///w2")
        stage.hello("adapter", "a1", sessions=[session])
        accepted = stage.let_in(stage.webhook("CA1", gateway="g2", d=R).token, "CA1", "g2")
        assert accepted.info.ordinal > last
        last = accepted.info.ordinal
    # Streams that this controller lets in follow one another.
    following = stage.start(stage.webhook("CA1", gateway="g2", d=R).token, "CA1", "g2")
    assert isinstance(following, m.StreamAccepted)
    assert following.info.ordinal == accepted.info.ordinal + 1


def test_a_standby_that_died_with_the_controller_is_replaced_while_others_settle() -> None:
    """Else a call whose active worker stalls next has nowhere to go for three seconds."""
    w1, w2 = (m.WorkerRef(id=w, endpoint=f"ipc:///{w}") for w in ("w1", "w2"))
    info = Stage().info()
    call = replace(live_call(info, 1), placement=m.Placement(epoch=1, n=1, primary=w1, standby=w2))
    stream = m.StreamInfo(
        info=call, stream_sid="MZ1", generation=m.first_generation(1) + 1, active="w2"
    )
    stage = Stage(epoch=2, peers=False, dials=[a_dial(info, sid="CA1", state="taken")])
    stage.hello("gateway", "g1", streams=[stream])
    stage.hello("codec_worker", "w3", endpoint="ipc:///w3")
    stage.pass_time(0.9)
    assert not stage.events("g1", m.CallPlaced)
    stage.pass_time(0.2)
    (placed,) = stage.events("g1", m.CallPlaced)
    assert (placed.placement.primary, placed.placement.standby) == (
        w2,
        m.WorkerRef(id="w3", endpoint="ipc:///w3"),
    )
    stage.hello("codec_worker", "w2", endpoint="ipc:///w2")
    stage.pass_time(5.0)
    assert stage.events("g1", m.CallPlaced) == [placed]


@pytest.mark.parametrize("who", ["gateway", "adapter"])
def test_the_token_of_a_stream_that_was_up_is_void(who: str) -> None:
    info = Stage().info()
    stage = Stage(epoch=2, peers=False, dials=[a_dial(info, sid="CA1", state="taken")])
    stage.hello("codec_worker", "w1", endpoint="ipc:///w1")
    call = live_call(info, 1)
    streams = []
    if who == "gateway":
        streams = [m.StreamInfo(info=call, stream_sid="MZ1", generation=m.first_generation(1))]
    stage.hello("gateway", "g1", streams=streams)
    if who == "adapter":
        session = replace(info, mode="call", calls=[call], allowed_callees=[THEIRS])
        stage.hello("adapter", "a1", sessions=[session])
    assert isinstance(stage.start("t" * 32, "CA1"), m.StreamRefused)


def test_originated_call_that_ended_while_its_client_was_away_is_told_again() -> None:
    stage = Stage()
    info = stage.open(SECOND, allowed_callees=[THEIRS])
    request, asked = stage.dial(info, mode="originate")
    stage.take(do.Create)
    stage.feed(ev.Taken(request, "CA1", "queued"))
    call = stage.body("a1", asked, m.Dialled).call
    stage.callback(request, "CA1", "completed")
    stage.sent.clear()
    stage.hello("adapter", "a1", sessions=[replace(info, mode="call")])
    assert [e.call for e in stage.events("a1", m.CallEnded)] == [call]


def test_call_that_ended_before_its_client_was_back_is_told() -> None:
    """Only the client knows that the dial had become a call: nobody else has told of its stream."""
    info = Stage().info()
    stage = Stage(epoch=2, peers=False, dials=[a_dial(info, sid="CA1", state="taken")])
    stage.hello("gateway", "g1")
    stage.callback(R, "CA1", "completed")
    call = live_call(info, 1)
    session = replace(info, mode="call", calls=[call], allowed_callees=[THEIRS])
    stage.hello("adapter", "a1", sessions=[session])
    assert {(e.call, e.reason) for e in stage.events("a1", m.CallEnded)} == {(call.call, "stop")}


def test_call_that_its_client_still_has_is_told_to_be_over_however_long_ago_that_was() -> None:
    stage = Stage()
    info = stage.armed()
    call = stage.called(info)
    stage.feed(m.StreamClosed(call=call.call, ordinal=1, reason="stop", gateway="g1"))
    stage.pass_time(60.0)
    stage.sent.clear()
    stage.hello("adapter", "a1", sessions=[replace(info, mode="answer", calls=[call])])
    assert [(e.call, e.reason) for e in stage.events("a1", m.CallEnded)] == [(call.call, "stop")]


def test_other_leg_of_a_dial_that_nobody_has_claimed_waits() -> None:
    """The dial may have its other leg already; then this one is another dial's."""
    info = Stage().info()
    row = a_dial(info, sid="CAa", state="taken", mode="b-leg", callee=SECOND)
    held = replace(a_row(info), number=SECOND, number_sid="PN2")
    stage = again(dials=[row], overrides=[held])
    assert stage.webhook("CAb", OURS, SECOND).kind == "pause"
    dial = replace(waiting(info).dials[0], to=SECOND, mode="b-leg")
    stage.hello("adapter", "a1", sessions=[replace(info, mode="call", dials=[dial])])
    assert stage.webhook("CAb", OURS, SECOND).kind == "stream"
