"""What the console is told of the past and the present, by the core's own events."""

from __future__ import annotations

from typing import Any

import pytest

from trunkline.bus import messages as m
from trunkline.controller import events as ev
from trunkline.controller import instructions as do
from trunkline.controller import timeline
from trunkline.controller.core import HEARS
from trunkline.controller.live import snapshot
from trunkline.controller.timeline import AN_EPOCH, TOLD

from .fake_carrier import OURS, THEIRS
from .stage import Stage


def told(stage: Stage, kind: str = "") -> list[str]:
    return [e.text for e in stage.core.timeline.since(0) if kind in ("", e.kind)]


def test_all_that_is_told_is_heard_by_somebody() -> None:
    assert [what.__name__ for what in TOLD if what not in HEARS] == []


def test_a_call_that_comes_in_is_told_from_its_number_to_its_end() -> None:
    stage = Stage()
    info = stage.called()
    stage.feed(m.CallMoved(call=info.call, generation=2, worker="w2", gateway="g1"))
    closed = m.StreamClosed(call=info.call, ordinal=1, reason="stop", gateway="g1")
    stage.feed(closed)
    assert told(stage, "session") == ["opens"]
    assert told(stage, "number") == ["our override is on"]
    assert told(stage, "call") == [
        f"its stream is up, from {THEIRS} to {OURS}",
        "runs on w2 now",
        "over (stop)",
    ]
    (over,) = stage.core.timeline.over
    assert (over["id"], over["sid"], over["reason"]) == (info.call, "CA1", "stop")
    assert {e.call for e in stage.core.timeline.since(0) if e.kind == "call"} == {info.call}


def test_a_dial_is_told_from_its_wish_to_its_failure() -> None:
    stage = Stage()
    request = stage.dialled(stage.open(allowed_callees=[THEIRS]))
    stage.callback(request, "CA1", "busy")
    assert told(stage, "dial") == [
        f"a call to {THEIRS} is wanted (a-leg)",
        "Twilio has it",
        "our leg is over (busy)",
    ]


@pytest.mark.parametrize("word", ["busy", "no-answer", "failed", "canceled"])
@pytest.mark.parametrize("mode", ["a-leg", "originate"])
def test_a_dial_that_nobody_answers_is_over_with_twilios_word_and_its_time(
    mode: m.DialMode, word: str
) -> None:
    stage = Stage()
    info = stage.open(allowed_callees=[THEIRS])
    request = stage.dialled(info, mode=mode)
    asked = stage.core.book.dials[request].row.asked
    stage.pass_time(2.0)
    stage.callback(request, "CA1", word)
    assert told(stage, "call") == [f"over ({word})"]
    (over,) = stage.core.timeline.over
    assert (over["reason"], over["began_at"], over["seconds"]) == (word, asked, 0.0)


def test_a_dial_that_times_out_is_over_with_that() -> None:
    stage = Stage()
    request = stage.dialled(stage.open(allowed_callees=[THEIRS]), timeout=5.0)
    stage.callback(request, "CA1", "ringing")
    stage.pass_time(5.5)
    stage.looked("ringing")
    stage.hung_up()
    assert told(stage, "call") == ["is hung up (hang_up)", "over (timeout)"]


def test_a_call_began_with_its_stream() -> None:
    stage = Stage()
    call = stage.called().call
    began = stage.core.book.wall(stage.now)
    stage.pass_time(3.0)
    stage.feed(m.StreamClosed(call=call, ordinal=1, reason="stop", gateway="g1"))
    (over,) = stage.core.timeline.over
    assert (over["reason"], over["began_at"]) == ("stop", began)


def test_a_hang_up_is_told_whoever_asks_for_it_and_before_the_end() -> None:
    for asks in ("client", "session", "hand"):
        stage = Stage()
        info = stage.armed()
        call = stage.called(info).call
        before = stage.core.timeline.count
        if asks == "client":
            stage.ask("a1", m.HangUp(session=info.session, call=call))
        elif asks == "session":
            stage.ask("a1", m.CloseSession(session=info.session))
        else:
            stage.feed(ev.ByHand(call, "hang_up"))
        stage.hung_up()
        stage.feed(m.StreamClosed(call=call, ordinal=1, reason="stop", gateway="g1"))
        texts = [e.text for e in stage.core.timeline.since(before) if e.kind == "call"]
        assert texts[-2:] == ["is hung up (hang_up)", "over (hang_up)"], asks
        assert texts.count("is hung up (hang_up)") == 1


def test_a_cancelled_dial_is_hung_up_once_however_often_twilio_calls_back() -> None:
    stage = Stage()
    info = stage.open(allowed_callees=[THEIRS])
    request, _ = stage.dial(info)
    stage.take(do.Create)
    stage.ask("a1", m.CancelDial(session=info.session, request=request))
    for status in ("initiated", "ringing", "ringing"):
        stage.callback(request, "CA1", status)
    assert told(stage, "call") == ["is hung up (hang_up)"]


def test_that_the_far_end_has_picked_up_is_told_once_and_before_who_it_was() -> None:
    stage = Stage()
    info = stage.open(allowed_callees=[THEIRS])
    request = stage.dialled(info, timeout=60.0, machine_detection="Enable")
    form = {"CallSid": "CA1", "CallStatus": "in-progress", "AnsweredBy": "human"}
    stage.ask("g1", m.StatusCallback(form=form, query={"d": request}))
    for _ in range(4):  # no stream comes, so REST is asked about the call
        stage.pass_time(3.0)
        stage.looked("in-progress")
    assert told(stage, "call") == ["the far end has picked up", "answered by human"]


def test_what_one_event_leads_to_is_told_first_to_last() -> None:
    """The client hears of its sessions in the same order."""
    stage = Stage()
    for _ in range(3):
        stage.open()
    before = stage.core.timeline.count
    stage.feed(ev.Shutdown())
    lost = [e.session for e in stage.core.timeline.since(before) if e.text.startswith("lost")]
    assert lost == [each.session for each in stage.events("a1", m.SessionLost)]


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        ("restored", "the number is as it was"),
        ("left_alone", "the number is left alone: it is somebody else's now, or gone"),
    ],
)
def test_what_became_of_a_number_is_told(outcome: str, text: str) -> None:
    stage = Stage()
    info = stage.armed()
    stage.ask("a1", m.CloseSession(session=info.session))
    stage.feed(ev.Restored(stage.take(do.Restore).override, outcome))
    assert told(stage, "number")[-1] == text


def test_processes_come_once_and_go() -> None:
    stage = Stage()
    stage.hello("gateway", "g1")  # the same one again
    stage.feed(m.Goodbye(peer="w2"))
    found = told(stage, "process")
    assert found.count("gateway g1 is here (pid 1)") == 1
    assert found[-1] == "codec_worker w2 has gone"


def test_digits_are_counted_and_not_shown() -> None:
    stage = Stage()
    info = stage.armed()
    call = stage.called(info)
    stage.ask("a1", m.SendDigits(session=info.session, call=call.call, digits="4711#"))
    assert "5 digits are sent" in told(stage)
    assert not any("4711" in text for text in told(stage))


def test_entries_are_bounded_and_count_on_over_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "ENTRIES_KEPT", 3)
    stage = Stage(epoch=2)
    for n in range(5):
        stage.hello("adapter", f"b{n}")
    entries = stage.core.timeline.since(0)
    assert [e.text.split()[1] for e in entries] == ["b2", "b3", "b4"]
    assert all(2 * AN_EPOCH < e.n < 3 * AN_EPOCH for e in entries)
    assert stage.core.timeline.since(entries[1].n) == entries[2:]
    assert stage.core.timeline.since(entries[2].n) == []


def test_a_page_can_tell_the_entries_of_a_stack_whose_journal_was_lost_apart() -> None:
    """Its numbers are JavaScript's."""
    in_2100 = 4_102_444_800 // 60
    stage = Stage(epoch=in_2100)
    stage.hello("adapter", "b0")
    newest = stage.core.timeline.since(0)[-1].n
    assert float(newest) != float(newest + 1)


def test_a_long_text_is_cut() -> None:
    stage = Stage()
    info = stage.open()
    stage.ask(
        "a1",
        m.Dial(
            session=info.session,
            request="a" * 32,
            to="+1" * 5_000,
            mode="a-leg",
            timeout=1.0,
            max_duration=1.0,
        ),
    )
    assert max(map(len, told(stage))) <= 300


# --------------------------------------------------------------------------- the present


def now(stage: Stage) -> dict[str, Any]:
    return snapshot(stage.core.book, stage.now)


def test_the_stack_as_it_is() -> None:
    stage = Stage(pool=(OURS,))
    info = stage.armed()
    call = stage.called(info)
    shown = now(stage)
    (row,) = shown["calls"]
    assert (row["id"], row["session"], row["mode"]) == (call.call, info.session, "answer")
    (session,) = shown["sessions"]
    assert (session["state"], session["client"]) == ("standing", "a1")
    assert (shown["pool"], shown["caps"], shown["queue"]) == ({"numbers": 1, "waiting": []}, [], [])
    waiting = stage.info("any")
    stage.ask("a1", m.OpenSession(info=waiting))
    assert now(stage)["pool"]["waiting"] == [{"session": waiting.session, "place": 1}]


def test_the_name_of_a_test_is_on_its_session_and_on_its_calls_to_the_end() -> None:
    """Also on a call whose session is over first. Without a test there is no such key."""
    for test in ("", "test_it.py::test_a_call"):
        expected = {"test": test} if test else {}
        stage = Stage()
        info = stage.armed(test=test)
        call = stage.called(info).call

        def named(row: dict[str, Any]) -> dict[str, Any]:
            return {key: row[key] for key in row if key == "test"}

        shown = now(stage)
        assert [named(row) for row in (*shown["sessions"], *shown["calls"])] == [expected] * 2
        stage.ask("a1", m.CloseSession(session=info.session))
        stage.pass_time(10.0)
        assert info.session not in stage.core.book.sessions
        stage.hung_up()
        stage.feed(m.StreamClosed(call=call, ordinal=1, reason="stop", gateway="g1"))
        (over,) = stage.core.timeline.over
        assert named(over) == expected


def test_dials_that_wait_say_for_what() -> None:
    stage = Stage(calls_per_second=0.5)
    info = stage.open(allowed_callees=[THEIRS])
    for _ in range(3):
        stage.dial(info)
    stage.pass_time(0.1)
    queue = now(stage)["queue"]
    assert [(row["waits_for"], row["place"]) for row in queue] == [
        ("Twilio's answer", None),
        ("its turn at Twilio", 1),
        ("its turn at Twilio", 2),
    ]
    assert queue[1]["seconds"] < queue[2]["seconds"] <= 4.0


def test_nothing_that_is_shown_holds_a_secret() -> None:
    stage = Stage()
    info = stage.armed()
    call = stage.called(info)
    book = stage.core.book
    shown = f"{now(stage)} {stage.core.timeline.since(0)} {stage.core.timeline.over}"
    for secret in (info.secret, call.secret, book.console_token):
        assert secret and secret not in shown


# --------------------------------------------------------------------------- who looks, and acts


def test_each_gateway_hears_that_somebody_looks_and_what_it_tells_is_shown() -> None:
    stage = Stage()
    stage.feed(ev.Look(5.0, ("c1",)))
    assert stage.events("g1", m.Watch) == [m.Watch(seconds=5.0, sound=["c1"])]
    assert stage.events("w1", m.Watch) == stage.events("a1", m.Watch) == []
    levels = m.Levels(gateway="g1", levels=[])
    stage.feed(levels)
    assert stage.take(do.Show) == do.Show(levels)
    # Whoever is no gateway shows nothing.
    stage.feed(m.Levels(gateway="a1", levels=[]))
    assert stage.all_work(do.Show) == []


def test_a_call_is_hung_up_by_hand_as_its_client_would() -> None:
    stage = Stage()
    call = stage.called()
    stage.feed(ev.ByHand(call.call, "hang_up"))
    assert stage.take(do.End).sids == ("CA1",)
    assert stage.core.book.calls[call.call].reason == "hang_up"


def test_what_is_said_by_hand_is_said_by_the_client() -> None:
    stage = Stage()
    call = stage.called()
    stage.feed(ev.ByHand(call.call, "interrupt"))
    stage.feed(ev.ByHand(call.call, "speak", b"\0\0"))
    assert stage.events("a1", m.InterruptByHand) == [m.InterruptByHand(call=call.call)]
    assert stage.events("a1", m.SpeakByHand) == [m.SpeakByHand(call=call.call, pcm=b"\0\0")]
    stage.feed(ev.ByHand("nobody's", "speak", b"\0\0"))
    assert len(stage.events("a1", m.SpeakByHand)) == 1


def test_whoever_reaches_the_bus_gets_the_link() -> None:
    stage = Stage()
    asked = stage.ask("a1", m.GetConsole())
    assert stage.error("a1", asked) == "StackUnavailableError"
    stage.core.book.console_at("http://127.0.0.1:8766")
    link = stage.body("g1", stage.ask("g1", m.GetConsole()), m.ConsoleLink)
    assert (link.url, link.token) == ("http://127.0.0.1:8766", stage.core.book.console_token)
    assert link.token not in repr(link)
    assert Stage().core.book.console_token != link.token, "each controller has its own"
