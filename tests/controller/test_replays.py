"""Webhooks that somebody has captured and sends again: when REST is asked, and what it decides."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from trunkline.bus import messages as m
from trunkline.controller import events as ev
from trunkline.controller import instructions as do
from trunkline.controller.journal.rows import SEEN_KEPT
from trunkline.controller.rules.book.seen import ASK_EVERY, LIVES_FOR, MOST, Seen
from trunkline.controller.rules.book.tokens import Tokens
from trunkline.controller.rules.calls import ENDED_KEPT
from trunkline.controller.rules.webhooks import TOKEN_GOOD_FOR

from .fake_carrier import OURS, THEIRS
from .stage import Stage
from .test_sessions import a_row

#: When the stage's clock shows 0, as Unix time.
WALL = 1_700_000_000.0


def closed(stage: Stage, call: m.CallInfo) -> None:
    stage.feed(m.StreamClosed(call=call.call, ordinal=1, reason="stop", gateway="g1"))


def override(stage: Stage) -> str:
    """The id of the override that is on the number."""
    return stage.core.book.leases[OURS].row.id


def later(info: m.SessionInfo, *, sids: tuple[str, ...] = ("CA1",), **row: Any) -> Stage:
    """The next controller, when its claims are over: the journal has these CallSids, and the
    session is armed under the same override as before."""
    since = {"since": WALL + 1000.0} | row
    stage = Stage(
        epoch=2,
        peers=False,
        now=1010.0,
        overrides=[a_row(info, **since)],
        seen=[(sid, WALL + 1005.0) for sid in sids],
    )
    stage.hello("gateway", "g1")
    stage.hello("codec_worker", "w1", endpoint="ipc:///w1")
    stage.hello("adapter", "a1", sessions=[info])
    stage.pass_time(10.0)
    return stage


@pytest.fixture
def info() -> m.SessionInfo:
    return Stage().info(armed=True, mode="answer")


# --------------------------------------------------------------------------- what costs nothing


def test_a_new_call_is_let_in_at_once_and_noted() -> None:
    stage = Stage()
    stage.armed()
    asked = stage.ask("g1", webhook("CA1", o=override(stage)))
    assert stage.body("g1", asked, m.VoiceAnswer).kind == "stream"
    assert not stage.all_work(do.Vouch)
    assert stage.noted == [do.NoteSeen("CA1", WALL + stage.now)]


def test_a_call_that_is_refused_is_noted_too() -> None:
    stage = Stage()
    info = stage.armed(allowed_callers=["+14155550001"])
    assert stage.webhook("CA1").kind == "reject"
    stage.body("a1", stage.ask("a1", m.Disarm(session=info.session)), m.Done)
    assert stage.webhook("CA2", "+14155550001").kind == "busy"
    assert [note.sid for note in stage.noted] == ["CA1", "CA2"]
    # Later somebody waits for just these callers.
    stage.arm(info)
    assert stage.webhook("CA2", "+14155550001", lives=False).kind == "hangup"


def test_a_number_that_nobody_holds_costs_no_question() -> None:
    stage = Stage()
    assert stage.webhook("CA1", o="another").kind == "busy"
    assert not stage.all_work(do.Vouch) and not stage.noted


def test_the_first_controller_of_a_stack_has_nothing_to_doubt() -> None:
    stage = Stage()
    assert stage.core.book.claiming
    stage.armed()
    stage.webhook("CA1", lives=False)
    assert "CA1" in stage.core.book.by_sid


# --------------------------------------------------------------------------- replays


def webhook(sid: str, **query: str) -> m.VoiceWebhook:
    return m.VoiceWebhook(form={"CallSid": sid, "From": THEIRS, "To": OURS}, query=query)


def test_a_call_that_is_over_is_told_so_without_a_question() -> None:
    stage = Stage()
    info = stage.armed()
    call = stage.called(info)
    closed(stage, call)
    stage.arm(info)
    assert stage.webhook("CA1").kind == "hangup"
    assert not stage.all_work(do.Vouch)
    assert stage.core.book.counts["webhooks of calls that are over"] == 1


def test_the_first_webhook_of_a_live_call_takes_nothing_from_it() -> None:
    """Whoever has captured it, and a signed upgrade, could open a stream with the token."""
    stage = Stage()
    call = stage.called()
    assert stage.webhook("CA1", o=override(stage)).kind == "pause"
    assert stage.core.book.counts["webhooks of calls that are up"] == 1
    assert stage.core.book.calls[call.call].state == "live"
    assert not stage.events("a1", m.CallReconnecting)
    # Twilio asks by the redirect, or after its query was lost, when the gateway has told.
    stage.feed(m.StreamClosed(call=call.call, ordinal=1, reason="error", gateway="g1"))
    assert stage.webhook("CA1").kind == "stream"
    assert stage.webhook("CA1", c=call.call).kind == "stream"


def test_the_first_webhook_of_a_call_whose_stream_is_on_its_way_voids_no_token() -> None:
    """Whoever replays it between its answer and the stream would keep the honest stream out."""
    stage = Stage()
    stage.armed()
    token = stage.webhook("CA1", o=override(stage)).token
    call = stage.core.book.by_sid["CA1"]
    replay = stage.ask("g1", webhook("CA1", o=override(stage)))
    answer = stage.body("g1", replay, m.VoiceAnswer)
    assert (answer.kind, answer.redirect_query) == ("pause", {"c": call.id})
    assert stage.core.book.counts["webhooks of calls that are let in"] == 1
    assert isinstance(stage.start(token), m.StreamAccepted)


def test_an_answer_that_twilio_did_not_get_is_given_again() -> None:
    stage = Stage()
    stage.armed()
    first = stage.webhook("CA1", o=override(stage)).token
    query = stage.webhook("CA1", o=override(stage)).redirect_query
    answer = stage.webhook("CA1", **query)
    assert answer.kind == "stream" and answer.token != first
    assert isinstance(stage.start(answer.token), m.StreamAccepted)


def test_when_the_call_is_forgotten_its_sid_is_not() -> None:
    stage = Stage()
    info = stage.armed()
    call = stage.called(info)
    closed(stage, call)
    stage.arm(info)
    stage.pass_time(ENDED_KEPT + 5.0)
    assert "CA1" not in stage.core.book.by_sid
    assert stage.webhook("CA1", o=override(stage), lives=False).kind == "hangup"
    assert stage.core.book.counts["webhooks of calls that are over"] == 1
    assert stage.webhook("CA2", o=override(stage)).kind == "stream", "the honest caller"


def test_after_a_restart(info: m.SessionInfo) -> None:
    stage = later(info)
    asked = stage.ask("g1", webhook("CA1", o="o1"))
    assert not stage.answered("g1", asked), "REST is asked first"
    assert stage.vouch(lives=False) == 1
    assert stage.body("g1", asked, m.VoiceAnswer).kind == "hangup"
    # Its end stands: no replay of it costs a question any more.
    for _ in range(20):
        assert stage.webhook("CA1", o="o1").kind == "hangup"
    assert not stage.all_work(do.Vouch) and not stage.events("a1", m.CallStarted)
    assert stage.webhook("CA2", o="o1").kind == "stream", "the honest caller"


def test_a_webhook_that_came_while_no_controller_was_there(info: m.SessionInfo) -> None:
    """Its gateway answered by itself, and nobody noted it."""
    stage = later(info, sids=())
    asked = stage.ask("g1", webhook("CA1", o="o1"))
    assert stage.vouch(lives=False) == 1
    assert stage.body("g1", asked, m.VoiceAnswer).kind == "hangup"


def test_of_an_override_that_this_controller_has_made_all_calls_are_known() -> None:
    stage = Stage(epoch=2)
    stage.pass_time(10.0)
    stage.armed()
    asked = stage.ask("g1", webhook("CA2", o=override(stage)))
    assert stage.body("g1", asked, m.VoiceAnswer).kind == "stream"


@pytest.mark.parametrize("made", [50.0, 3_700.0])
def test_just_after_a_restart_an_unknown_call_is_asked_about(
    info: m.SessionInfo, made: float
) -> None:
    """The last controller may have died before it had noted the call. The clock may have been set
    back since, and the override seem to be newer than this controller."""
    stage = Stage(epoch=2, overrides=[a_row(info, since=WALL + made)])
    stage.hello("adapter", "a1", sessions=[info])
    asked = stage.ask("g1", webhook("CA1", o="o1"))
    assert not stage.answered("g1", asked)
    assert stage.vouch() == 1
    assert stage.body("g1", asked, m.VoiceAnswer).kind == "stream"


def test_a_call_that_lives_is_let_in_although_it_was_heard(info: m.SessionInfo) -> None:
    """It asked the last controller, whose answer was lost with it."""
    stage = later(info)
    assert stage.webhook("CA1", o="o1", lives=True).kind == "stream"


def test_a_webhook_of_an_earlier_override() -> None:
    """It was captured when the number had another one, perhaps days ago."""
    stage = Stage()
    stage.armed()
    assert stage.webhook("CA1", o="another", lives=False).kind == "hangup"
    assert stage.webhook("CA2", o="another", lives=True).kind == "stream"


def test_an_override_that_is_older_than_what_is_kept(info: m.SessionInfo) -> None:
    stage = later(info, sids=(), since=WALL + 1000.0 - SEEN_KEPT)
    assert stage.webhook("CA1", o="o1", lives=False).kind == "hangup"


def test_a_found_override_is_older_although_the_clock_was_set_back(info: m.SessionInfo) -> None:
    """An hour, between two controllers. A call of the first may be missing in the journal."""
    stage = later(info, sids=(), since=WALL + 1000.0 + 3600.0)
    assert stage.webhook("CA1", o="o1", lives=False).kind == "hangup"
    assert stage.webhook("CA2", o="o1", lives=True).kind == "stream"


@pytest.mark.parametrize("field", ["c", "d"])
def test_a_redirect_of_a_call_that_nobody_has(info: m.SessionInfo, field: str) -> None:
    stage = later(info, sids=())
    assert stage.webhook("CA1", lives=False, **{field: "f" * 32}).kind == "hangup"
    assert stage.vouch() == 0


def test_while_rest_does_not_answer_the_caller_waits(info: m.SessionInfo) -> None:
    stage = later(info)
    asked = stage.ask("g1", webhook("CA1", o="o1"))
    stage.pass_time(1.2)
    assert stage.body("g1", asked, m.VoiceAnswer).kind == "pause"
    assert stage.webhook("CA1", o="o1", lives=None).kind == "pause"
    assert stage.webhook("CA1", o="o1", lives=None).kind == "pause"
    stage.pass_time(ASK_EVERY)
    assert stage.webhook("CA1", o="o1").kind == "stream"


def test_a_flood_of_one_replay_is_one_question(info: m.SessionInfo) -> None:
    stage = later(info)
    asked = [stage.ask("g1", webhook("CA1", o="o1")) for _ in range(100)]
    assert stage.vouch(lives=False) == 1
    kinds = {stage.body("g1", one, m.VoiceAnswer).kind for one in asked}
    assert kinds == {"hangup"}


def test_a_call_whose_note_was_lost_is_noted_at_its_end(info: m.SessionInfo) -> None:
    call = m.CallInfo(
        call="c" * 32,
        session=info.session,
        sid="CA1",
        direction="inbound",
        caller=THEIRS,
        callee=OURS,
        secret="s",
        ordinal=1,
    )
    stage = later(replace(info, calls=[call]), sids=())
    stage.feed(ev.Fetched(call.call, "CA1", "completed"))
    assert [note.sid for note in stage.noted] == ["CA1"]


def test_a_status_callback_of_a_forgotten_dial_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its call is hung up once, too."""
    stage = Stage()
    stage.pass_time(10.0)
    for _ in range(20):
        stage.callback("f" * 32, "CA1", "ringing")
    assert len(stage.all_work(do.End)) == 1
    assert caplog.text.count("nobody claims it") == 1
    assert stage.core.book.counts["callbacks of calls that are over"] == 19


# --------------------------------------------------------------------------- what is kept


def test_callsids_are_kept_for_a_day_and_in_bounds() -> None:
    seen = Seen([("CA2", 5.0), ("CA1", 1.0)], reaches=0.0)
    assert not seen.note("CA1", 6.0) and seen.note("CA3", 7.0)
    assert seen.note("CA4", SEEN_KEPT + 2.0)
    assert "CA1" not in seen and "CA2" in seen and seen.reaches == 1.0
    for n in range(MOST + 1):
        seen.note(f"{n}", SEEN_KEPT + 3.0)
    assert seen.reaches == SEEN_KEPT + 3.0 and "CA4" not in seen


def test_how_long_rests_word_stands() -> None:
    seen = Seen([("CA1", 0.0), ("CA2", 0.0)], reaches=0.0)
    assert seen.lives("CA1", 1.0) is None and seen.may_ask("CA1", 1.0)
    assert not seen.may_ask("CA1", 60.0), "it is being asked"
    seen.told("CA1", True, 60.0)
    assert seen.lives("CA1", 60.0 + LIVES_FOR) is True
    assert seen.lives("CA1", 60.1 + LIVES_FOR) is None
    assert seen.may_ask("CA2", 1.0)
    seen.told("CA2", False, 2.0)
    assert seen.lives("CA2", 80_000.0) is False


# --------------------------------------------------------------------------- tokens


def test_a_token_is_good_for_a_time() -> None:
    tokens = Tokens()
    text = tokens.make("c1", "CA1", until=TOKEN_GOOD_FOR)
    assert tokens.look(text, TOKEN_GOOD_FOR) is not None
    assert tokens.has_good("c1", TOKEN_GOOD_FOR)
    assert tokens.look(text, TOKEN_GOOD_FOR + 0.1) is None
    assert not tokens.has_good("c1", TOKEN_GOOD_FOR + 0.1)


def test_a_webhooks_token_has_a_time_limit() -> None:
    stage = Stage()
    call = stage.called()
    token = stage.webhook("CA1", c=call.call).token or ""  # a replay while the call is live
    good = stage.core.book.tokens.look(token, stage.now)
    assert good is not None and good.until == stage.now + TOKEN_GOOD_FOR


def test_a_token_is_shown_by_a_gateway_in_its_own_name() -> None:
    stage = Stage()
    stage.armed()
    stage.hello("gateway", "g2")
    token = stage.webhook("CA1").token or ""
    start = m.StreamStart(token=token, call_sid="CA1", stream_sid="MZ1", gateway="g1")
    asked = stage.ask("g2", start)
    assert "another gateway" in stage.body("g2", asked, m.StreamRefused).why
    # Twilio's connection comes to whichever of them.
    asked = stage.ask("g2", replace(start, gateway="g2"))
    stage.body("g2", asked, m.StreamAccepted)
