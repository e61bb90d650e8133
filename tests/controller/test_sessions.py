"""Sessions and leases: opening, arming, sharing a number, closing, losing, coming back."""

from __future__ import annotations

from msgspec.structs import replace

from trunkline.bus import messages as m
from trunkline.bus.errors import CarrierError, StackUnavailableError
from trunkline.bus.refusals import KINDS
from trunkline.controller import events as ev
from trunkline.controller import instructions as do
from trunkline.controller import status
from trunkline.controller.journal.rows import OverrideRow
from trunkline.controller.rules.book.peers import COUNTS_KEPT
from trunkline.controller.rules.book.tokens import digest
from trunkline.controller.rules.sessions import LEASE_SECONDS

from .fake_carrier import OURS, SECOND, THEIRS
from .stage import ACCOUNT, URL, Stage, again

OTHER = "+14155550001"


def test_open_answers_with_the_number() -> None:
    stage = Stage()
    info = stage.info()
    asked = stage.ask("a1", m.OpenSession(info=info))
    stage.look_up()
    assert stage.body("a1", asked, m.SessionOpened) == m.SessionOpened(
        session=info.session, number=OURS, number_sid="PN1", account=ACCOUNT, public_url=URL
    )
    # Again, with the same id and secret: the same session. With another secret: refused.
    again = stage.ask("a1", m.OpenSession(info=info))
    stage.body("a1", again, m.SessionOpened)
    wrong = stage.ask("a1", m.OpenSession(info=replace(info, secret="x" * 32)))
    assert stage.error("a1", wrong) == "InvalidRequestError"


def test_open_refuses_what_is_wrong() -> None:
    stage = Stage()
    asked = stage.ask("a1", m.OpenSession(info=stage.info("+1415555")))
    stage.look_up()
    assert stage.error("a1", asked) == "NumberNotFoundError"
    reply = stage.reply("a1", asked)
    assert reply.error is not None and "***5555" in reply.error.text
    asked = stage.ask("a1", m.OpenSession(info=stage.info("0415")))
    assert stage.error("a1", asked) == "InvalidRequestError"
    asked = stage.ask("a1", m.OpenSession(info=stage.info(account="AC" + "9" * 32)))
    assert stage.error("a1", asked) == "AccountMismatchError"
    for name, wrong in (("allowed_callees", "sip:alice@example.com"), ("allowed_callers", "\x1b")):
        asked = stage.ask("a1", m.OpenSession(info=stage.info(**{name: [wrong]})))
        reply = stage.reply("a1", asked)
        assert reply.error is not None and reply.error.kind == "InvalidRequestError"
        assert reply.error.text.startswith(name)
    assert not stage.core.book.sessions


def test_lookup_is_asked_once_for_many_and_remembered() -> None:
    stage = Stage()
    for _ in range(3):
        stage.ask("a1", m.OpenSession(info=stage.info()))
    assert len(stage.all_work(do.LookUp)) == 1
    stage.look_up()
    stage.open()
    assert len(stage.core.book.sessions) == 4 and not stage.all_work(do.LookUp)


def test_pool_hands_out_free_numbers() -> None:
    stage = Stage(pool=(OURS, SECOND))
    numbers = set()
    for _ in range(2):
        asked = stage.ask("a1", m.OpenSession(info=stage.info("any")))
        stage.look_up()
        numbers.add(stage.body("a1", asked, m.SessionOpened).number)
    assert numbers == {OURS, SECOND}


def test_pool_of_the_whole_account() -> None:
    stage = Stage()
    asked = stage.ask("a1", m.OpenSession(info=stage.info("any")))
    stage.take(do.ListNumbers)
    stage.feed(ev.NumbersListed(((OURS, "PN1"), (SECOND, "PN2"))))
    assert stage.body("a1", asked, m.SessionOpened).number == OURS


def test_arm_writes_once_and_again_costs_nothing() -> None:
    stage = Stage()
    info = stage.open()
    asked = stage.ask("a1", m.Arm(session=info.session))
    joined = stage.ask("a1", m.Arm(session=info.session))
    row = stage.take(do.Apply).row
    assert (row.number, row.number_sid, row.holders) == (
        OURS,
        "PN1",
        {info.session: digest(info.secret)},
    )
    assert not stage.answered("a1", asked)
    stage.feed(ev.Applied(replace(row, state="applied", prior={}, written={})))
    stage.body("a1", asked, m.Armed)
    stage.body("a1", joined, m.Armed)
    stage.body("a1", stage.ask("a1", m.Disarm(session=info.session)), m.Done)
    stage.arm(info)
    assert not stage.work


def test_a_caller_between_the_write_and_its_answer_waits_instead_of_hearing_busy() -> None:
    stage = Stage()
    info = stage.open(allowed_callers=[OTHER])
    asked = stage.ask("a1", m.Arm(session=info.session))
    assert stage.webhook("CA1", caller=OTHER).kind == "pause"
    assert stage.webhook("CA2", caller="+14155550002").kind == "reject"
    stage.apply()
    stage.body("a1", asked, m.Armed)
    assert stage.webhook("CA1", caller=OTHER).kind == "stream"


def test_failed_arm_keeps_the_mode_and_may_be_repeated() -> None:
    stage = Stage()
    info = stage.open()
    asked = stage.ask("a1", m.Arm(session=info.session))
    row = stage.take(do.Apply).row
    stage.feed(ev.ApplyFailed(row, CarrierError("no"), open=False))
    assert stage.error("a1", asked) == "CarrierError"
    _, dialled = stage.dial(info)
    assert stage.error("a1", dialled) == "InvalidRequestError"  # no allowed_callees
    stage.arm(info)


def test_uncertain_arm_is_restored_before_anyone_gets_the_number() -> None:
    stage = Stage()
    info = stage.open()
    asked = stage.ask("a1", m.Arm(session=info.session))
    row = stage.take(do.Apply).row
    stage.feed(ev.ApplyFailed(row, CarrierError("no"), open=True))
    assert stage.error("a1", asked) == "CarrierError"
    again = stage.ask("a1", m.Arm(session=info.session))
    assert stage.take(do.Restore).override == row.id and not stage.work
    stage.feed(ev.Restored(row.id, "restored"))
    stage.apply()
    stage.body("a1", again, m.Armed)


def test_modes_are_exclusive() -> None:
    stage = Stage()
    info = stage.armed(allowed_callees=[THEIRS])
    _, asked = stage.dial(info)
    assert stage.error("a1", asked) == "WrongModeError"
    reply = stage.reply("a1", asked)
    assert reply.error is not None
    assert "already in 'answer' mode; cannot switch to 'call'" in reply.error.text
    other = stage.open(SECOND, allowed_callees=[THEIRS])
    stage.dial(other)
    assert stage.error("a1", stage.ask("a1", m.Arm(session=other.session))) == "WrongModeError"


def test_busy_number_names_holder_and_since() -> None:
    stage = Stage()
    first = stage.armed()
    second = stage.open()
    asked = stage.ask("a1", m.Arm(session=second.session))
    reply = stage.reply("a1", asked)
    assert reply.error is not None and reply.error.kind == "NumberBusyError"
    assert first.session in reply.error.text and reply.error.fields["since"].startswith("20")
    assert reply.error.fields["number"] == OURS


def test_disjoint_callers_share_one_override() -> None:
    stage = Stage()
    one = stage.armed(allowed_callers=[THEIRS])
    two = stage.open(allowed_callers=[OTHER])
    stage.arm(two)
    assert stage.take(do.KeepHolder).session == two.session
    third = stage.open(allowed_callers=[OTHER, "+14155550002"])
    busy = stage.ask("a1", m.Arm(session=third.session))
    assert stage.error("a1", busy) == "NumberBusyError"
    # Each caller reaches its own session; a stranger is rejected.
    answer = stage.webhook("CA1", OTHER)
    stage.start(answer.token, "CA1")
    assert stage.events("a1", m.CallStarted)[0].info.session == two.session
    assert stage.webhook("CA2", "+14155550009").kind == "reject"
    # The number is put back when the last of them leaves.
    stage.ask("a1", m.CloseSession(session=two.session))
    assert not stage.all_work(do.Restore)
    assert stage.webhook("CA3", THEIRS).kind == "stream"
    stage.ask("a1", m.CloseSession(session=one.session))
    assert len(stage.all_work(do.Restore)) == 1


def test_close_restores_and_answers_when_all_is_done() -> None:
    stage = Stage()
    info = stage.armed()
    call = stage.called(info)
    asked = stage.ask("a1", m.CloseSession(session=info.session))
    assert [type(x) for x in stage.work] == [do.Restore, do.End]  # numbers first
    stage.feed(ev.Restored(stage.take(do.Restore).override, "restored"))
    assert not stage.answered("a1", asked)
    stage.hung_up()
    stage.feed(m.StreamClosed(call=call.call, ordinal=1, reason="stop", gateway="g1"))
    assert stage.body("a1", asked, m.SessionClosed).pending == []
    # Again: nothing is left to do.
    again = stage.ask("a1", m.CloseSession(session=info.session))
    assert stage.body("a1", again, m.SessionClosed).pending == []
    assert stage.webhook("CA9").kind == "busy"


def test_close_names_what_is_pending() -> None:
    stage = Stage()
    info = stage.armed()
    asked = stage.ask("a1", m.CloseSession(session=info.session))
    stage.pass_time(8.2)
    assert stage.body("a1", asked, m.SessionClosed).pending == [OURS]
    # Someone who wants the number waits for it.
    other = stage.open()
    arming = stage.ask("a1", m.Arm(session=other.session))
    stage.feed(ev.Restored(stage.take(do.Restore).override, "restored"))
    stage.apply()
    stage.body("a1", arming, m.Armed)


def test_close_while_arming() -> None:
    stage = Stage()
    info = stage.open()
    arming = stage.ask("a1", m.Arm(session=info.session))
    closing = stage.ask("a1", m.CloseSession(session=info.session))
    assert stage.error("a1", arming) == "WrongModeError"
    assert not stage.answered("a1", closing) and not stage.all_work(do.Restore)
    row = stage.apply()
    assert stage.take(do.Restore).override == row.id
    stage.feed(ev.Restored(row.id, "restored"))
    stage.body("a1", closing, m.SessionClosed)


def test_disarm_while_arming_leaves_the_override_on_and_lets_nobody_in() -> None:
    stage = Stage()
    info = stage.open()
    arming = stage.ask("a1", m.Arm(session=info.session))
    stage.body("a1", stage.ask("a1", m.Disarm(session=info.session)), m.Done)
    assert stage.error("a1", arming) == "WrongModeError"
    stage.apply()
    assert stage.webhook("CA1").kind == "busy"
    stage.arm(info)
    assert not stage.work


def test_lost_lease_is_the_same_path() -> None:
    stage = Stage()
    info = stage.armed()
    stage.called(info)
    stage.beating.remove("a1")
    stage.pass_time(LEASE_SECONDS - 0.5)
    assert not stage.work
    stage.pass_time(1.0)
    assert [type(x) for x in stage.work] == [do.Restore, do.End]
    assert stage.events("a1", m.SessionLost)[0].session == info.session


def test_client_that_beats_is_never_lost() -> None:
    stage = Stage()
    stage.armed()
    stage.pass_time(60.0)
    assert not stage.work and len(stage.core.book.sessions) == 1


def test_controller_that_was_stopped_blames_nobody() -> None:
    stage = Stage()
    stage.armed()
    stage.now += 30.0
    stage.feed(ev.Tick())
    stage.pass_time(2.0)
    assert not stage.work and len(stage.core.book.sessions) == 1


def test_lost_session_that_beats_again_is_told() -> None:
    stage = Stage()
    info = stage.armed()
    stage.beating.remove("a1")
    stage.pass_time(LEASE_SECONDS + 1.0)
    stage.feed(ev.Restored(stage.take(do.Restore).override, "restored"))
    stage.sent.clear()
    stage.feed(m.Beat(peer="a1", sessions=[info.session]))
    assert stage.events("a1", m.SessionLost)[0].session == info.session
    stage.hello("adapter", "a1", sessions=[info])
    assert stage.events("a1", m.Welcome)[0].unknown_sessions == [info.session]


def test_goodbye_closes_what_was_left_open() -> None:
    stage = Stage()
    stage.armed()
    stage.feed(m.Goodbye(peer="a1"))
    stage.take(do.Restore)


def test_shutdown_restores_all_and_refuses_the_rest() -> None:
    stage = Stage()
    stage.armed()
    stage.armed(number=SECOND)
    stage.feed(ev.Shutdown())
    stage.feed(ev.Shutdown())
    assert len(stage.all_work(do.Restore)) == 2 and stage.core.book.busy
    asked = stage.ask("a1", m.OpenSession(info=stage.info()))
    assert stage.error("a1", asked) == StackUnavailableError.__name__
    assert stage.webhook("CA1").kind == "busy"
    for _ in range(2):
        stage.feed(ev.Restored(stage.take(do.Restore).override, "restored"))
    assert not stage.core.book.busy


# --------------------------------------------------------------------------- after a restart


def a_row(info: m.SessionInfo, **fields: object) -> OverrideRow:
    row = OverrideRow(
        id="o1",
        number=OURS,
        number_sid="PN1",
        session=info.session,
        state="applied",
        prior={"voice_url": "p"},
        written={"voice_url": "w"},
        holders={info.session: digest(info.secret)},
    )
    return replace(row, **fields)


def restarted(info: m.SessionInfo, row: OverrideRow) -> Stage:
    return again(overrides=[row])


def test_armed_session_stays_armed() -> None:
    info = Stage().info(armed=True, mode="answer")
    stage = restarted(info, a_row(info))
    assert stage.webhook("CA1").kind == "pause"  # not known yet
    stage.hello("adapter", "a1", sessions=[info])
    assert stage.events("a1", m.Welcome)[0].unknown_sessions == []
    assert stage.webhook("CA1").kind == "stream"
    stage.pass_time(20.0)
    assert not stage.all_work(do.Restore)


def test_a_session_that_comes_back_still_names_its_test_and_so_does_its_call() -> None:
    before = Stage()
    info = before.armed(test="test_it.py::test_a")
    call = before.called(info)
    stage = restarted(info, a_row(info))
    stage.hello("adapter", "a1", sessions=[replace(info, mode="answer", calls=[call])])
    shown = status.build(stage.core.book, stage.now)
    rows = (*shown["sessions"], *shown["calls"])
    assert [row.get("test") for row in rows] == ["test_it.py::test_a"] * 2


def test_repeated_arm_finds_it_armed() -> None:
    info = Stage().info(armed=True, mode="answer")
    stage = restarted(info, a_row(info))
    stage.hello("adapter", "a1", sessions=[info])
    stage.body("a1", stage.ask("a1", m.Arm(session=info.session)), m.Armed)
    assert not stage.work


def test_planned_override_is_taken_up() -> None:
    info = Stage().info(armed=True, mode="answer")
    stage = restarted(info, a_row(info, state="planned"))
    stage.hello("adapter", "a1", sessions=[info])
    asked = stage.ask("a1", m.Arm(session=info.session))
    assert stage.apply().id == "o1"
    stage.body("a1", asked, m.Armed)


def test_wrong_secret_claims_nothing() -> None:
    info = Stage().info(armed=True, mode="answer")
    stage = restarted(info, a_row(info))
    thief = replace(info, secret="f" * 32)
    stage.hello("adapter", "a1", sessions=[thief])
    assert stage.events("a1", m.Welcome)[0].unknown_sessions == [info.session]
    stage.pass_time(10.0)
    assert stage.take(do.Restore).override == "o1"


def test_unclaimed_override_is_restored_and_others_wait_for_that() -> None:
    info = Stage().info(armed=True, mode="answer")
    stage = restarted(info, a_row(info))
    stage.hello("adapter", "a2")
    other = stage.open(peer="a2")
    asked = stage.ask("a2", m.Arm(session=other.session))
    stage.pass_time(8.5)
    assert not stage.work and not stage.answered("a2", asked)
    stage.pass_time(1.0)
    assert stage.take(do.Restore).override == "o1"
    stage.feed(ev.Restored("o1", "restored"))
    stage.apply()
    stage.body("a2", asked, m.Armed)


def test_claimed_number_is_busy_for_who_waited() -> None:
    info = Stage().info(armed=True, mode="answer")
    stage = restarted(info, a_row(info))
    stage.hello("adapter", "a2")
    other = stage.open(peer="a2")
    asked = stage.ask("a2", m.Arm(session=other.session))
    stage.hello("adapter", "a1", sessions=[info])
    assert stage.error("a2", asked) == "NumberBusyError"


def test_restoring_rows_go_on_at_once() -> None:
    info = Stage().info(mode="answer")
    stage = restarted(info, a_row(info, state="restoring"))
    assert stage.take(do.Restore).override == "o1"


def test_late_client_is_not_taken_back() -> None:
    info = Stage().info(mode="call")
    stage = Stage(epoch=2)
    stage.pass_time(10.0)
    stage.hello("adapter", "a1", sessions=[info])
    assert stage.events("a1", m.Welcome)[-1].unknown_sessions == [info.session]


# --------------------------------------------------------------------------- requests and peers


def test_repeated_request_gets_the_same_answer_once() -> None:
    stage = Stage()
    info = stage.info()
    request = m.Request(peer="a1", id=7, ttl=5.0, body=m.OpenSession(info=info))
    stage.feed(request)
    stage.feed(request)  # under way: joined
    assert len(stage.all_work(do.LookUp)) == 1
    stage.look_up()
    first = stage.reply("a1", 7)
    stage.sent.clear()
    stage.feed(request)
    assert stage.reply("a1", 7) == first


def test_stranger_is_asked_to_say_hello() -> None:
    stage = Stage()
    stage.ask("nobody", m.GetStatus())
    assert stage.sent["nobody"] == [m.Pulse(epoch=1, stack="stack", known=False)]
    stage.feed(m.Beat(peer="nobody"))
    assert not stage.events("nobody", m.Pulse)[-1].known


def test_one_beat_in_4_s_is_answered() -> None:
    stage = Stage()
    stage.hello("gateway", "g9")
    pulses = 0
    for _ in range(24):  # 12 s
        stage.now += 0.5
        stage.feed(m.Beat(peer="g9"))
        pulses += len(stage.events("g9", m.Pulse))
        stage.sent.clear()
    assert pulses == 3


def test_the_core_is_at_rest_until_somebody_has_a_session_and_once_all_of_it_is_over() -> None:
    stage = Stage()
    assert not stage.core.book.at_rest, "sessions of an earlier epoch may announce themselves"
    stage.pass_time(10.0)
    assert stage.core.book.at_rest
    info = stage.open()
    assert not stage.core.book.at_rest
    stage.ask("a1", m.CloseSession(session=info.session))
    stage.pass_time(1.0)
    assert stage.core.book.at_rest


def test_other_protocol_and_other_account_are_refused() -> None:
    stage = Stage()
    major = m.PROTOCOL[0]
    stage.hello("gateway", "g9", version=(major + 1, 0))
    assert stage.sent["g9"][0].error.kind == "ProtocolMismatchError"
    text = stage.sent["g9"][0].error.text
    assert f"version {major + 1}.0" in text and f"controller {major}." in text
    stage.hello("gateway", "g8", account="AC" + "9" * 32)
    assert stage.sent["g8"][0].error.kind == "AccountMismatchError"


def test_request_out_of_time_is_not_begun() -> None:
    stage = Stage()
    asked = stage.ask("a1", m.OpenSession(info=stage.info()), ttl=0.0)
    assert stage.error("a1", asked) == "TimedOutError" and not stage.work


def test_only_gateways_bring_webhooks() -> None:
    stage = Stage()
    asked = stage.ask("a1", m.VoiceWebhook(form={}))
    assert stage.error("a1", asked) == "InvalidRequestError"
    asked = stage.ask("g1", m.OpenSession(info=stage.info()))
    assert stage.error("g1", asked) == "InvalidRequestError"
    stage.body("g1", stage.ask("g1", m.GetStatus()), m.StatusReport)


def test_sessions_of_other_peers_are_out_of_reach() -> None:
    stage = Stage()
    info = stage.open()
    stage.hello("adapter", "a2")
    assert stage.error("a2", stage.ask("a2", m.Arm(session=info.session))) == "WrongModeError"
    stage.body("a2", stage.ask("a2", m.CloseSession(session=info.session)), m.SessionClosed)
    assert info.session in stage.core.book.sessions


def test_status_is_the_contracts_object() -> None:
    stage = Stage()
    info = stage.armed()
    call = stage.called(info)
    stats = m.CallStats(call=call.call, generation=1, frames_in=5, frames_out=7, underruns=1)
    stage.feed(m.Beat(peer="w1", calls=[stats]))
    asked = stage.ask("a1", m.GetStatus())
    status = stage.body("a1", asked, m.StatusReport).status
    assert list(status) == [
        "controller",
        "gateways",
        "codec_workers",
        "sessions",
        "calls",
        "overrides",
    ]
    assert status["gateways"] == [{"id": "g1", "pid": 1, "streams": 0}]
    assert {w["id"]: w["calls"] for w in status["codec_workers"]} == {"w1": 1, "w2": 0}
    (shown,) = status["calls"]
    assert shown["gateway"] == "g1" and shown["codec_worker"] == "w1"
    assert (shown["frames_in"], shown["frames_out"], shown["underruns"]) == (5, 7, 1)
    assert list(shown) == [
        "sid",
        "direction",
        "caller",
        "callee",
        "state",
        "gateway",
        "codec_worker",
        "seconds",
        "frames_in",
        "frames_out",
        "frames_lost",
        "underruns",
    ]
    (override,) = status["overrides"]
    assert (override["number"], override["state"]) == (OURS, "applied")
    assert override["session"] == info.session
    # What a gateway has refused, once there is something to tell.
    stage.feed(m.Beat(peer="g1", refused={"shared key": 2}))
    asked = stage.ask("a1", m.GetStatus())
    status = stage.body("a1", asked, m.StatusReport).status
    assert status["gateways"] == [
        {"id": "g1", "pid": 1, "streams": 0, "refused": {"shared key": 2}}
    ]


def test_what_gateways_have_refused_is_summed_up_whoever_comes_and_goes() -> None:
    stage = Stage()
    for peer, count in (("g1", 2), ("g1", 2), ("g1", 5)):
        stage.feed(m.Beat(peer=peer, refused={"shared key": count, "no such kind": 7}))
    assert stage.core.book.refused["shared key"] == 5
    stage.feed(m.Goodbye(peer="g1"))
    stage.feed(m.Hello(role="gateway", peer="g2", pid=2))
    stage.feed(m.Beat(peer="g2", refused={"shared key": 1, "too slow": 3}))
    told = {kind: count for kind, count in stage.core.book.refused.items() if count}
    assert told == {"shared key": 6, "too slow": 3}
    assert list(stage.core.book.refused) == list(KINDS), "those that never came are told as 0"


def test_what_a_gateway_has_refused_counts_once_on_whichever_connection_it_is_told() -> None:
    stage = Stage()
    stage.feed(m.Beat(peer="g1", refused={"shared key": 5}))
    stage.feed(ev.ConnectionLost("g1"))
    assert stage.core.book.peers.get("g1") is None
    stage.hello("gateway", "g1")
    stage.feed(ev.ConnectionLost("g1"))  # before a beat of it was heard
    stage.hello("gateway", "g1")
    stage.feed(m.Beat(peer="g1", refused={"shared key": 6}))
    assert stage.core.book.refused["shared key"] == 6
    for n in range(COUNTS_KEPT + 10):
        stage.hello("gateway", f"x{n}")
        stage.feed(m.Beat(peer=f"x{n}", refused={"shared key": 1}))
        stage.feed(ev.ConnectionLost(f"x{n}"))
    assert len(stage.core.book.peers._refused) == COUNTS_KEPT
