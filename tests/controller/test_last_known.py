"""A known cause is never lost to a timer: what is asked, how early a dial ends, what is told."""

from __future__ import annotations

import pytest

from trunkline.bus import messages as m
from trunkline.controller import events as ev
from trunkline.controller import instructions as do
from trunkline.controller.rules.book.last_known import LastKnown

from .fake_carrier import OURS, SECOND, THEIRS
from .stage import Stage
from .test_b_legs import another, b_leg, dialled, failure, up
from .test_dials import caller

CALLEE, ITS = f"***{THEIRS[-4:]}", f"***{SECOND[-4:]}"


def a_leg(stage: Stage, info: m.SessionInfo, status: str = "queued", **fields: object) -> str:
    request, _ = stage.dial(info, **fields)  # type: ignore[arg-type]  # as given
    stage.pass_time(0.1)
    stage.take(do.Create)
    stage.feed(ev.AskedTwilio(request))
    stage.feed(ev.Taken(request, "CA1", status))
    return request


# --------------------------------------------------------------------------- REST is asked


@pytest.mark.parametrize("status", ["busy", "no-answer", "failed", "canceled"])
@pytest.mark.parametrize("mode", ["a-leg", "b-leg"])
def test_what_rest_knows_ends_a_dial_whose_callback_never_came(mode: str, status: str) -> None:
    stage, info = caller()
    request = a_leg(stage, info) if mode == "a-leg" else dialled(stage, info, sid="CA1")
    stage.pass_time(2.9)
    assert stage.looked("ringing") == 0
    stage.pass_time(0.2)
    assert stage.looked(status) == 1
    failed = failure(stage, request)
    assert (failed.status, failed.sid) == (status, "CA1")
    assert stage.take(do.CloseDial).request == request


def test_rest_is_asked_a_few_times_and_not_while_callbacks_come() -> None:
    stage, info = caller()
    request = a_leg(stage, info, timeout=200.0)
    asked = []
    for _ in range(150):
        stage.pass_time(1.0)
        asked.append(stage.looked("ringing"))
    assert [second for second, count in enumerate(asked, 1) if count] == [4, 11, 24, 50, 101]
    stage, info = caller()
    request = a_leg(stage, info, timeout=200.0)
    for _ in range(20):
        stage.pass_time(2.0)
        stage.callback(request, "CA1", "ringing")
        assert stage.looked("ringing") == 0


def test_an_originated_call_whose_end_was_never_told_is_over() -> None:
    stage, info = caller()
    request, asked = stage.dial(info, mode="originate")
    stage.take(do.Create)
    stage.feed(ev.Taken(request, "CA1", "queued"))
    stage.pass_time(3.2)
    assert stage.looked("completed") == 1
    ended = stage.events("a1", m.CallEnded)
    assert [e.call for e in ended] == [stage.body("a1", asked, m.Dialled).call]


def test_answered_without_a_webhook_ends_before_the_timeout() -> None:
    """Another program has the callee's calls: nothing more can come to us."""
    stage, info = caller()
    request = dialled(stage, info, sid="CA1", timeout=120.0)
    stage.callback(request, "CA1", "in-progress")
    for _ in range(16):
        stage.pass_time(1.0)
        stage.looked("in-progress")
    failed = failure(stage, request)
    assert failed.status == "failed"
    assert failed.text == (
        "answered, and no stream came; Twilio's last word is 'in-progress', 15.1 s ago; "
        f"no voice webhook of {ITS} has come"
    )
    assert stage.take(do.End).sids == ("CA1",)


def test_the_callees_leg_is_over_before_its_stream_came() -> None:
    """Ours tells what became of the dial."""
    stage, info = caller()
    request = dialled(stage, info, sid="CAa")
    assert stage.webhook("CAb", "anonymous", SECOND).kind == "stream"
    stage.pass_time(2.1)
    fetch = stage.take(do.Fetch)
    assert fetch.sid == "CAb"
    stage.feed(ev.Fetched(fetch.call, fetch.sid, "no-answer"))
    assert not stage.events("a1", m.DialFailed)
    stage.pass_time(1.0)
    fetch = stage.take(do.Fetch)
    assert fetch.sid == "CAa"
    stage.feed(ev.Fetched(fetch.call, fetch.sid, "no-answer"))
    assert failure(stage, request).status == "no-answer"


# --------------------------------------------------------------------------- the last look


def test_the_call_is_looked_at_once_more_before_a_timeout() -> None:
    stage, info = caller()
    request = a_leg(stage, info, timeout=2.0)
    stage.pass_time(2.1)
    assert not stage.all_work(do.End) and not stage.events("a1", m.DialFailed)
    assert stage.looked("busy") == 1
    assert failure(stage, request).status == "busy"
    assert not stage.all_work(do.End)


@pytest.mark.parametrize("answer", ["ringing", None])
def test_a_timeout_tells_what_was_known(answer: str | None) -> None:
    stage, info = caller()
    request = a_leg(stage, info, timeout=2.0)
    stage.callback(request, "CA1", "ringing")
    stage.pass_time(2.1)
    assert stage.looked(answer) == 1
    stage.hung_up()
    failed = failure(stage, request)
    assert failed.status == "timeout"
    assert failed.text == "Twilio's last word is 'ringing', 2.1 s ago"


def test_a_last_look_without_an_answer_does_not_hold_the_timeout_up() -> None:
    stage, info = caller()
    request = a_leg(stage, info, timeout=2.0)
    stage.pass_time(2.1)
    stage.take(do.Fetch)
    stage.pass_time(3.1)
    stage.hung_up()
    assert failure(stage, request).status == "timeout"


def test_a_stream_that_comes_during_the_last_look_is_a_call() -> None:
    stage, info = caller()
    dialled(stage, info, timeout=2.0)
    answer = stage.webhook("CAb", "anonymous", SECOND)
    stage.pass_time(2.1)
    assert isinstance(stage.start(answer.token, "CAb"), m.StreamAccepted)
    stage.looked("in-progress")
    stage.pass_time(5.0)
    assert not stage.events("a1", m.DialFailed) and not stage.all_work(do.End)


@pytest.mark.parametrize(
    ("written", "its"),
    [
        (True, "Twilio has not said whether it has the call"),
        (False, "Twilio has not been asked: the dial waited for the database, or for its turn"),
    ],
)
def test_a_timeout_of_a_dial_that_twilio_never_answered(written: bool, its: str) -> None:
    stage, info = caller()
    request, asked = b_leg(stage, info, timeout=2.0)
    stage.take(do.Create)
    if written:
        stage.feed(ev.AskedTwilio(request))
    stage.pass_time(2.1)
    told = f"{its}; no voice webhook of {ITS} has come"
    assert failure(stage, request).text == told
    reply = stage.reply("a1", asked)
    assert reply.error is not None
    assert reply.error.text == f"call to {ITS}: no stream within 2 s: {told}"
    # A client that asks again is told the same.
    again = stage.ask("a1", dial_again(stage, info, request))
    assert stage.reply("a1", again).error == reply.error


def dial_again(stage: Stage, info: m.SessionInfo, request: str) -> m.Dial:
    row = stage.core.book.dials[request].row
    return m.Dial(
        session=info.session,
        request=request,
        to=row.callee,
        mode="b-leg",
        timeout=row.timeout,
        max_duration=row.max_duration,
    )


def test_what_the_webhook_was_answered_with_is_told() -> None:
    stage, info = caller()
    request = dialled(stage, info, timeout=4.0)
    stage.webhook("CAb", "anonymous", SECOND)
    stage.pass_time(4.1)
    assert stage.looked("in-progress") >= 1
    stage.hung_up()
    failed = failure(stage, request)
    assert f"the voice webhook of {ITS} was answered with 'stream' 4.1 s ago" in failed.text


# --------------------------------------------------------------------------- in words


def test_refused_calls_are_named_and_then_counted() -> None:
    known = LastKnown("***1235", True)
    assert known.refused() == ""
    known.tell_refused("+14155551234", "busy")
    assert known.refused() == "meanwhile a call was refused on ***1235: from ***1234 (busy)"
    for who in ("sip:alice@example.com", "Anonymous", "+14155559999", ""):
        known.tell_refused(who, "not in allowed_callers")
    assert known.refused() == (
        "meanwhile 5 calls were refused on ***1235: from ***1234 (busy), from sip:*** (not in "
        "allowed_callers), from anonymous (not in allowed_callers) and 2 more"
    )


# --------------------------------------------------------------------------- waiting for a call


def whys(stage: Stage, info: m.SessionInfo) -> list[tuple[int, str, str]]:
    told = [e for e in stage.events("a1", m.WebhooksCounted) if e.session == info.session]
    return [(e.rejected, e.caller, e.why) for e in told if e.why]


def test_who_waits_is_told_which_calls_did_not_become_its_own() -> None:
    stage = Stage()
    info = stage.armed(allowed_callers=[THEIRS, "client:joe"])
    assert stage.webhook("CA1", "sip:alice@example.com").kind == "reject"
    stage.feed(m.WebhooksRefused(gateway="g1", kind="wrong signature", numbers={OURS: 3}))
    assert stage.webhook("CA2", THEIRS).kind == "stream"
    assert stage.webhook("CA3", "client:joe").kind == "busy"
    # The first caller hangs up before the stream is there.
    stage.pass_time(2.1)
    stage.looked("completed")
    assert whys(stage, info) == [
        (1, "sip:***", "not in allowed_callers"),
        (3, "", "its signature is wrong; the gateway's log says more"),
        (1, "client:***", "busy: there was a call already"),
        (0, CALLEE, "let in, and over before its stream came"),
    ]
    stage.ask("a1", m.Disarm(session=info.session))
    assert stage.webhook("CA4", THEIRS).kind == "busy"
    assert whys(stage, info)[-1] == (1, CALLEE, "busy: nobody waited for a call")


@pytest.mark.parametrize(
    "who", ["sip:alice@example.com", "client:joe", "anonymous", "12345", "+266696687", ""]
)
def test_whoever_is_allowed_may_call(who: str) -> None:
    stage = Stage()
    stage.armed(allowed_callers=[who])
    assert stage.webhook("CA1", "+14155550998").kind == "reject"
    answer = stage.webhook("CA2", who.upper() if who == "anonymous" else who)
    accepted = stage.let_in(answer.token, "CA2")
    assert (accepted.info.caller.lower(), accepted.info.caller_rewritten) == (who, False)


def test_nobody_elses_call_is_the_dials() -> None:
    stage = Stage()
    info = another(stage)
    dialled(stage, info)
    call = up(stage, "CAb", "client:joe")
    assert call.session == info.session


def test_who_waits_for_a_number_that_is_not_put_back_yet_is_told_whose_it_was() -> None:
    stage = Stage()
    first = stage.armed()
    stage.ask("a1", m.CloseSession(session=first.session))
    asked = stage.ask("a1", m.Arm(session=stage.open().session), ttl=5.0)
    stage.pass_time(5.2)
    reply = stage.reply("a1", asked)
    assert reply.error is not None and reply.error.kind == "TimedOutError"
    assert f"after its last use by session {first.session} since 2023-" in reply.error.text
