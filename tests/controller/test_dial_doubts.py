"""Dials in doubt: what is left of them, guesses that evidence corrects, and dials that are over."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from simulation.memory_journal import MemoryJournal

from trunkline.bus import messages as m
from trunkline.bus.errors import CarrierError
from trunkline.controller import events as ev
from trunkline.controller import instructions as do
from trunkline.controller.rules.calls import NO_STREAM_LIMIT
from trunkline.controller.twilio import operations

from .bench import DIAL, ORDER, Bench
from .fake_carrier import THEIRS, FakeCarrier, FakeTime, ops_for
from .stage import Stage, token_of
from .test_dials import a_dial, caller, waiting

# --------------------------------------------------------------------------- left behind


async def recovered(time: FakeTime, carrier: FakeCarrier, journal: MemoryJournal) -> None:
    """What `trunkline restore`, and the start of another stack, do with dials that were left."""
    ops = ops_for(time, carrier, journal)
    for dial in await journal.open_dials():
        await operations.hang_up_left(ops, dial)


async def test_what_is_left_of_an_old_dial_is_not_looked_for_among_todays_calls() -> None:
    bench = Bench()
    old = replace(DIAL, asked=bench.time.wall() - 7200)
    await bench.journal.dial_asked(old)
    today = await bench.carrier.create_call(ORDER)
    await recovered(bench.time, bench.carrier, bench.journal)
    assert not bench.carrier.calls[today.sid].ended
    assert await bench.journal.open_dials() == []


async def test_what_is_left_of_a_dial_is_not_the_call_of_another_one() -> None:
    """To the same number, a moment later, and over by now; its own call comes late."""
    bench = Bench()
    bench.carrier.plan("create", "late")
    await place_in_doubt(bench, "r" * 32)
    other = await bench.carrier.create_call(ORDER)
    await bench.carrier.end_call(other.sid)
    await bench.journal.dial_asked(replace(DIAL, request="s" * 32, asked=bench.time.wall()))
    await bench.journal.dial_taken("s" * 32, other.sid)
    await bench.journal.dial_closed("s" * 32)
    await recovered(bench.time, bench.carrier, bench.journal)
    assert len(bench.carrier.calls) == 2
    assert all(call.ended for call in bench.carrier.calls.values())
    assert await bench.journal.open_dials() == []


async def place_in_doubt(bench: Bench, request: str) -> None:
    row = replace(DIAL, request=request, asked=bench.time.wall())
    asked = do.Create(row, ORDER, bench.time.now + 30)
    result = await operations.create(bench.ops, asked, lambda: True, lambda told: None)
    assert isinstance(result, ev.Unsure)


# --------------------------------------------------------------------------- a dial that is over


async def test_a_dial_that_is_in_the_journal_is_not_asked_again() -> None:
    bench = Bench()
    await bench.journal.dial_asked(DIAL)
    await bench.journal.dial_closed(DIAL.request)
    asked = do.Create(DIAL, ORDER, bench.time.now + 30)
    result = await operations.create(bench.ops, asked, lambda: True, lambda told: None)
    assert isinstance(result, ev.CreateFailed) and bench.carrier.count("create") == 0
    assert await bench.journal.closed_dials(DIAL.asked) == [replace(DIAL, state="closed")]


def test_client_that_asks_a_restarted_controller_for_a_dial_that_is_over() -> None:
    info = Stage().info()
    stage = Stage(epoch=2, peers=False, dials=[a_dial(info, sid="CA1", state="closed")])
    stage.hello("gateway", "g1")
    stage.hello("adapter", "a1", sessions=[waiting(info)])
    assert stage.events("a1", m.DialFailed)[0].status == "failed"
    asked = stage.ask("a1", waiting(info).dials[0])
    assert stage.error("a1", asked) == "CallFailedError"
    stage.callback("a" * 32, "CA1", "in-progress")  # late, and told to nobody
    stage.callback("a" * 32, "CA1", "completed")
    stage.pass_time(30.0)
    assert not stage.work


def test_a_call_that_comes_of_a_dial_that_is_over_is_hung_up() -> None:
    stage, info = caller()
    request, _ = stage.dial(info, timeout=120.0)
    stage.take(do.Create)
    stage.feed(ev.Unsure(request, CarrierError("no answer")))
    stage.feed(ev.NotFound(request))
    stage.callback(request, "CA7", "ringing")
    assert stage.take(do.End).sids == ("CA7",)


def test_a_second_call_that_shows_by_its_callback_is_hung_up() -> None:
    stage, info = caller()
    request = stage.dialled(info, mode="originate")
    stage.callback(request, "CA2", "ringing")
    assert stage.take(do.End).sids == ("CA2",)
    stage.callback(request, "CA2", "completed")
    assert not stage.events("a1", m.CallEnded)


def test_a_hang_up_is_answered_when_the_leg_turns_out_to_be_over_already() -> None:
    """Its SID is not known to this controller, so REST is never asked: the leg was busy."""
    info = Stage().info()
    stage = Stage(epoch=2, peers=False, dials=[a_dial(info, mode="originate")])
    stage.hello("adapter", "a1", sessions=[replace(waiting(info), dials=[])])
    hang_up = stage.ask("a1", m.HangUp(session=info.session, call="c" * 32))
    assert not stage.answered("a1", hang_up)
    stage.feed(ev.Taken("a" * 32, "CA1", "busy", guessed=True))
    stage.body("a1", hang_up, m.Done)
    assert not stage.all_work(do.End)


def test_dials_are_claimed_with_the_secret_only() -> None:
    info = Stage().info()
    stage = Stage(epoch=2, peers=False, dials=[a_dial(info, sid="CA1", state="taken")])
    thief = replace(waiting(info), secret="f" * 32)
    stage.hello("adapter", "a1", sessions=[thief])
    assert stage.events("a1", m.Welcome)[0].unknown_sessions == [info.session]
    stage.pass_time(9.5)
    assert stage.take(do.End).sids == ("CA1",)


# --------------------------------------------------------------------------- guesses


def two_in_doubt() -> tuple[Stage, list[do.Create]]:
    """Two dials to one number; neither's request was answered."""
    stage, info = caller()
    creates = []
    for _ in range(2):
        request, _ = stage.dial(info)
        stage.pass_time(0.1)
        create = stage.take(do.Create)
        stage.feed(ev.Unsure(request, CarrierError("no answer")))
        stage.take(do.Settle)
        creates.append(create)
    return stage, creates


def sids(stage: Stage, creates: list[do.Create]) -> list[str | None]:
    dials = stage.core.book.dials
    return [dials[create.row.request].sid for create in creates]


def test_a_guess_is_not_journalled_and_evidence_confirms_it() -> None:
    stage, creates = two_in_doubt()
    request = creates[0].row.request
    stage.feed(ev.Taken(request, "CA1", "ringing", guessed=True))
    assert not stage.all_work(do.NoteTaken)
    stage.callback(request, "CA1", "ringing")
    assert stage.take(do.NoteTaken) == do.NoteTaken(request, "CA1")
    stage.callback(request, "CA1", "ringing")
    assert not stage.work and sids(stage, creates) == ["CA1", None]


@pytest.mark.parametrize("how", ["callback", "stream", "webhook"])
def test_guesses_that_were_crossed_are_put_right(how: str) -> None:
    stage, creates = two_in_doubt()
    for create, sid in zip(creates, ("CA2", "CA1"), strict=True):
        stage.feed(ev.Taken(create.row.request, sid, "ringing", guessed=True))
    first, second = creates
    if how == "callback":
        stage.callback(first.row.request, "CA1", "ringing")
    elif how == "webhook":
        assert stage.webhook("CA1", d=first.row.request).kind == "stream"
    else:
        assert isinstance(stage.start(token_of(first), "CA1"), m.StreamAccepted)
    # The second's guess was wrong, then: it is looked for again.
    assert sids(stage, creates) == ["CA1", None]
    assert stage.take(do.Settle).row.request == second.row.request
    stage.callback(second.row.request, "CA2", "ringing")
    assert sids(stage, creates) == ["CA1", "CA2"]
    assert not stage.all_work(do.End)
    for create, sid in zip(creates, ("CA1", "CA2"), strict=True):
        if how != "stream" or create is second:
            accepted = stage.start(token_of(create), sid)
            if how == "webhook" and create is first:
                continue  # the webhook's token voided this one
            assert isinstance(accepted, m.StreamAccepted) and accepted.info.sid == sid


def test_a_wrong_guess_leaves_no_status_behind() -> None:
    stage, (first, second) = two_in_doubt()
    stage.feed(ev.Taken(first.row.request, "CA2", "in-progress", guessed=True))
    stage.callback(second.row.request, "CA2", "in-progress")
    stage.callback(first.row.request, "CA1", "ringing")
    assert stage.core.book.dials[first.row.request].known.status == "ringing"
    # Nor is it taken for a call that was answered: neither for its stream, nor for its minutes.
    assert stage.core.book.dials[first.row.request].answered is None
    stage.pass_time(NO_STREAM_LIMIT + 1.0)
    assert all("CA1" not in end.sids for end in stage.all_work(do.End))


def test_a_guess_that_was_hung_up_does_not_save_the_real_call() -> None:
    stage, creates = two_in_doubt()
    request = creates[0].row.request
    stage.feed(ev.Taken(request, "CA9", "ringing", guessed=True))
    session = creates[0].row.session
    cancel = stage.ask("a1", m.CancelDial(session=session, request=request))
    assert stage.take(do.End).sids == ("CA9",)
    stage.callback(request, "CA1", "ringing")
    stage.pass_time(0.1)
    assert stage.hung_up().sids == ("CA1",)
    stage.body("a1", cancel, m.Done)


async def test_the_list_is_asked_once_evidence_had_its_time() -> None:
    bench = Bench()
    row = replace(DIAL, asked=bench.time.wall())
    await bench.journal.dial_asked(row)
    call = await bench.carrier.create_call(ORDER)
    began = bench.time.now
    found = await operations.settle(bench.ops, row, lambda: True, lambda sid: False)
    assert found == ev.Taken(row.request, call.sid, "queued", guessed=True)
    assert bench.time.now - began >= operations.EVIDENCE_WITHIN
    (left,) = await bench.journal.open_dials()
    assert left.sid is None and left.callee == THEIRS
