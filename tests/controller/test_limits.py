"""Limits of the stack: whom it calls and lets in, and how much it dials, whatever clients ask."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from trunkline.bus import messages as m
from trunkline.controller import events as ev
from trunkline.controller import instructions as do
from trunkline.controller.journal.rows import DialRow
from trunkline.controller.rules.book.destinations import refusal
from trunkline.controller.usage import DAY, HOUR, Caps

from .bench import DIAL
from .fake_carrier import OURS, SECOND, THEIRS
from .stage import Stage

MODES: tuple[m.DialMode, ...] = ("a-leg", "b-leg", "originate")
PREMIUM = "+19005551234"


def dialled(stage: Stage, info: m.SessionInfo, sid: str, **fields: Any) -> str:
    """A dial that Twilio has taken under this SID; returns its request id."""
    request, _ = stage.dial(info, **fields)
    stage.pass_time(0.1)
    stage.take(do.Create)
    stage.feed(ev.Taken(request, sid, "queued"))
    return request


def refused(stage: Stage, info: m.SessionInfo, **fields: Any) -> str:
    """A dial is refused, and Twilio is not asked; returns why."""
    _, asked = stage.dial(info, **fields)
    reply = stage.reply("a1", asked)
    assert reply.error is not None, "it was not refused"
    assert not stage.all_work(do.Create) and not stage.all_work(do.LookUp)
    return f"{reply.error.kind}: {reply.error.text}"


# --------------------------------------------------------------------------- whom


@pytest.mark.parametrize(
    ("number", "what"),
    [
        (PREMIUM, "a premium-rate number"),
        ("+449098790000", "a premium-rate number"),
        ("+33899123456", "a premium-rate number"),
        ("+870773111632", "a satellite number (Inmarsat)"),
        ("+881612345678", "a satellite number (global mobile satellite system)"),
        ("+88213000184", "an international network's number, often a satellite's"),
        ("+883510000000000", "an international network's number, often a satellite's"),
        (
            "+87810123456789",
            "a number for personal telecommunications, billed at a rate of its own",
        ),
        ("+97912345678", "a number of the international premium-rate service"),
        ("+19115551234", "an emergency number"),
        ("+44999123456", "an emergency number"),
        ("+491121234567", "an emergency number"),
    ],
)
def test_what_costs_more_than_a_phone_call_has_to_be_listed_in_full(number: str, what: str) -> None:
    for listed in (None, ("+*",), (number[:4] + "*", THEIRS)):
        assert refusal(number, listed) == (
            f"destination ***{number[-4:]} is {what}: TRUNKLINE_ALLOWED_CALLEES has to name it in "
            "full before this stack calls it (+* beside it stands for all other numbers)"
        )
    assert refusal(number, (number,)) is None


@pytest.mark.parametrize(
    "number",
    [
        OURS,
        THEIRS,
        "+442071838750",
        "+4930123456",
        "+8613812345678",
        "+999123456789",
        "+19995550000",
        "+13335550100",
    ],
)
def test_ordinary_and_unknown_numbers_are_called(number: str) -> None:
    assert refusal(number, None) is None
    assert refusal(number, ("+*",)) is None
    assert refusal(number, ()) == (
        f"destination ***{number[-4:]} is not among the 0 entries of TRUNKLINE_ALLOWED_CALLEES, "
        "which hold for all clients of this stack: add it there"
    )


@pytest.mark.parametrize("mode", MODES)
def test_no_client_widens_the_list_of_callees(mode: m.DialMode) -> None:
    stage = Stage(callees=("+1212*",))
    info = stage.open(allowed_callees=[THEIRS, SECOND, PREMIUM])
    for to in (THEIRS, SECOND):
        assert "is not among the 1 entries" in refused(stage, info, to=to, mode=mode)
    assert "InvalidRequestError" in refused(stage, info, to=PREMIUM, mode=mode)


@pytest.mark.parametrize("mode", MODES)
def test_without_a_list_a_client_calls_no_premium_number(mode: m.DialMode) -> None:
    stage = Stage()
    info = stage.open(allowed_callees=[PREMIUM])
    assert "is a premium-rate number" in refused(stage, info, to=PREMIUM, mode=mode)


def test_the_list_of_callees_is_no_clients_list() -> None:
    """What the stack allows is still the client's to allow."""
    stage = Stage(callees=("+*", PREMIUM))
    info = stage.open(allowed_callees=[THEIRS])
    assert "not in allowed_callees" in refused(stage, info, to=PREMIUM)


def test_no_client_widens_the_list_of_callers() -> None:
    stage = Stage(callers=(THEIRS, "Anonymous"))
    info = stage.armed(allowed_callers=None)
    assert stage.webhook("CA1", caller="+14155550999").kind == "reject"
    (told,) = [e for e in stage.events("a1", m.WebhooksCounted) if e.rejected]
    assert (told.session, told.why) == (info.session, "not in TRUNKLINE_ALLOWED_CALLERS")
    assert stage.webhook("CA2", caller="sip:anonymous@evil").kind == "reject"
    assert stage.webhook("CA3", caller="anonymous").kind == "stream"


def test_a_caller_that_the_stack_lets_in_is_still_the_sessions_to_let_in() -> None:
    stage = Stage(callers=(THEIRS, "+14155550999"))
    stage.armed(allowed_callers=[THEIRS])
    assert stage.webhook("CA1", caller="+14155550999").kind == "reject"
    assert stage.webhook("CA2", caller=THEIRS).kind == "stream"


def test_the_other_leg_of_our_own_dial_is_no_caller() -> None:
    stage = Stage(callers=())
    info = stage.open()
    stage.dial(info, to=SECOND, mode="b-leg")
    stage.look_up()
    stage.apply()
    assert stage.webhook("CA2", caller=OURS, to=SECOND).kind == "stream"


# --------------------------------------------------------------------------- how much


@pytest.mark.parametrize("mode", MODES)
def test_calls_at_a_time(mode: m.DialMode) -> None:
    """Those that wait for their turn count as well."""
    stage = Stage(caps=Caps(calls=2), calls_per_second=0.001)
    info = stage.open(allowed_callees=[THEIRS])
    for _ in range(2):
        stage.dial(info)
    assert refused_over(stage, info, mode) == (
        "LimitReachedError: the call to ***0002 is not dialled: TRUNKLINE_MAX_CALLS=2 calls at a "
        "time are up or being dialled"
    ).replace("***0002", shown(mode))


def shown(mode: m.DialMode) -> str:
    return f"***{(SECOND if mode == 'b-leg' else THEIRS)[-4:]}"


def refused_over(stage: Stage, info: m.SessionInfo, mode: m.DialMode) -> str:
    stage.work.clear()
    return refused(stage, info, to=SECOND if mode == "b-leg" else THEIRS, mode=mode)


def test_a_call_that_is_over_makes_room() -> None:
    stage = Stage(caps=Caps(calls=1))
    info = stage.open(allowed_callees=[THEIRS])
    request = dialled(stage, info, "CA1")
    assert "MAX_CALLS=1" in refused(stage, info)
    stage.callback(request, "CA1", "busy")
    request, _ = stage.dial(info)
    stage.pass_time(0.1)
    stage.feed(ev.CreateFailed(request, m.CallFailedError("no")))
    stage.take(do.Create)
    dialled(stage, info, "CA2")


def test_a_call_whose_end_is_never_told_makes_room_in_the_end() -> None:
    stage = Stage(caps=Caps(calls=1))
    info = stage.open(allowed_callees=[THEIRS])
    dialled(stage, info, "CA1", mode="originate", max_duration=60.0)
    stage.pass_time(60.0 + 100.0)
    stage.work.clear()
    assert "MAX_CALLS=1" in refused(stage, info)
    stage.pass_time(100.0)
    stage.work.clear()
    dialled(stage, info, "CA2")


@pytest.mark.parametrize("mode", MODES)
def test_calls_in_any_hour(mode: m.DialMode) -> None:
    stage = Stage(caps=Caps(calls_per_hour=2))
    info = stage.open(allowed_callees=[THEIRS])
    for n in range(2):
        stage.callback(dialled(stage, info, f"CA{n}", mode="originate"), f"CA{n}", "busy")
        stage.pass_time(100.0)
    assert "TRUNKLINE_MAX_CALLS_PER_HOUR=2 calls were dialled within the last hour" in (
        refused_over(stage, info, mode)
    )
    stage.now += HOUR - 150.0  # the first of them is an hour old, the second is not
    stage.beat("a1")
    stage.work.clear()
    dialled(stage, info, "CA3", mode="originate")
    assert "PER_HOUR=2" in refused_over(stage, info, mode)


def test_a_dial_that_is_cancelled_in_time_counts_nowhere() -> None:
    stage = Stage(caps=Caps(calls_per_hour=2, minutes_per_day=10), calls_per_second=0.001)
    info = stage.open(allowed_callees=[THEIRS])
    stage.dial(info)
    for _ in range(5):
        request, _ = stage.dial(info)
        stage.ask("a1", m.CancelDial(session=info.session, request=request))
    stage.work.clear()
    stage.dial(info)
    assert "PER_HOUR=2" in refused(stage, info)


@pytest.mark.parametrize("mode", MODES)
def test_minutes_in_any_day(mode: m.DialMode) -> None:
    """A call counts with its longest duration until it is over, and with its begun minutes then."""
    stage = Stage(caps=Caps(minutes_per_day=6))
    info = stage.open(allowed_callees=[THEIRS])
    request = dialled(stage, info, "CA1", mode="originate")
    assert (
        "TRUNKLINE_MAX_MINUTES_PER_DAY=6: 0 min were used within 24 hours, calls under way may "
        "take 5 min, and this one 5 min"
    ) in refused_over(stage, info, mode)
    stage.pass_time(30.0)  # it rings
    stage.callback(request, "CA1", "in-progress")
    stage.pass_time(61.0)
    stage.callback(request, "CA1", "completed")
    stage.work.clear()
    assert (
        "=6: 2 min were used within 24 hours, calls under way may take 0 min, and this one 5 min"
    ) in refused_over(stage, info, mode)
    request = dialled(stage, info, "CA2", mode="originate", max_duration=240.0)
    stage.callback(request, "CA2", "no-answer")  # it has cost nothing
    stage.now += DAY
    stage.beat("a1")
    stage.work.clear()
    dialled(stage, info, "CA3", mode="originate")


def caps_of(stage: Stage) -> dict[str, tuple[int, int, int]]:
    """Of each cap that the status shows: most, used, left."""
    asked = stage.ask("a1", m.GetStatus())
    rows = stage.body("a1", asked, m.StatusReport).status.get("caps", [])
    return {row["setting"]: (row["most"], row["used"], row["left"]) for row in rows}


def test_the_status_tells_what_is_left_of_each_cap() -> None:
    stage = Stage(caps=Caps(calls=1, calls_per_hour=5, minutes_per_day=6))
    info = stage.open(allowed_callees=[THEIRS])
    request = dialled(stage, info, "CA1", mode="originate")
    assert caps_of(stage) == {
        "TRUNKLINE_MAX_CALLS": (1, 1, 0),
        "TRUNKLINE_MAX_CALLS_PER_HOUR": (5, 1, 4),
        "TRUNKLINE_MAX_MINUTES_PER_DAY": (6, 5, 1),
    }
    stage.callback(request, "CA1", "in-progress")
    stage.pass_time(61.0)
    stage.callback(request, "CA1", "completed")
    found = caps_of(stage)
    assert found["TRUNKLINE_MAX_CALLS"] == (1, 0, 1)
    assert found["TRUNKLINE_MAX_MINUTES_PER_DAY"] == (6, 2, 4)


def test_a_cap_that_is_not_set_is_not_shown() -> None:
    stage = Stage(caps=Caps(calls_per_hour=5))
    stage.open()
    assert caps_of(stage) == {"TRUNKLINE_MAX_CALLS_PER_HOUR": (5, 0, 5)}
    stage = Stage()
    stage.open()
    assert caps_of(stage) == {}


def test_how_long_a_call_has_cost_is_journalled() -> None:
    stage = Stage()
    info = stage.open(allowed_callees=[THEIRS])
    request = dialled(stage, info, "CA1", mode="originate")
    stage.callback(request, "CA1", "in-progress")
    stage.pass_time(42.0)
    stage.callback(request, "CA1", "completed")
    closed = stage.take(do.CloseDial)
    assert closed.seconds == pytest.approx(42.0)
    request = dialled(stage, info, "CA2", mode="originate")
    stage.pass_time(1.0)
    stage.callback(request, "CA2", "busy")
    assert stage.take(do.CloseDial) == do.CloseDial(request, 0.0)


ROW = replace(DIAL, sid="CA9", state="closed", asked=1_700_000_000.0, seconds=90.0)


@pytest.mark.parametrize(
    ("row", "used", "held"),
    [
        (ROW, 2, 0),
        (replace(ROW, asked=ROW.asked - HOUR - 1.0), 2, 0),
        (replace(ROW, asked=ROW.asked - DAY - 200.0), 0, 0),
        # Nobody noted how long it lasted, since it was hung up by another process.
        (replace(ROW, seconds=None), 5, 0),
        (replace(ROW, seconds=None, sid=None), 0, 0),
        (replace(ROW, seconds=None, state="taken"), 0, 5),
    ],
)
def test_a_restart_forgets_nothing(row: DialRow, used: int, held: int) -> None:
    caps = Caps(calls_per_hour=1, minutes_per_day=4)
    stage = Stage(dials=[row], caps=caps, epoch=2)
    info = stage.open(allowed_callees=[THEIRS])
    stage.work.clear()
    if row.asked == ROW.asked:
        assert "TRUNKLINE_MAX_CALLS_PER_HOUR=1" in refused(stage, info)
    else:
        says = f"=4: {used} min were used within 24 hours, calls under way may take {held} min, "
        assert says in refused(stage, info)
    stage = Stage(dials=[row], caps=replace_hours(caps), epoch=2)
    info = stage.open(allowed_callees=[THEIRS])
    stage.work.clear()
    says = f"=4: {used} min were used within 24 hours, calls under way may take {held} min, "
    assert says in refused(stage, info)


@pytest.mark.parametrize("state", ["closed", "taken"])
def test_a_clock_that_was_set_back_makes_no_dial_count_for_longer(state: str) -> None:
    row = replace(ROW, asked=ROW.asked + 7 * DAY, state=state)
    stage = Stage(dials=[row], caps=Caps(calls_per_hour=1), epoch=2)
    info = stage.open(allowed_callees=[THEIRS])
    stage.work.clear()
    assert "TRUNKLINE_MAX_CALLS_PER_HOUR=1" in refused(stage, info)
    stage.now += HOUR + 1.0
    stage.beat("a1")
    stage.work.clear()
    dialled(stage, info, "CA1", mode="originate")


def test_a_clock_that_was_set_back_makes_no_call_free() -> None:
    row = replace(ROW, asked=ROW.asked + 7 * DAY, state="taken", seconds=None, mode="originate")
    stage = Stage(dials=[row], epoch=2)
    stage.pass_time(61.0)
    stage.callback(row.request, "CA9", "completed")
    assert stage.take(do.CloseDial).seconds == pytest.approx(61.0)


def replace_hours(caps: Caps) -> Caps:
    return Caps(minutes_per_day=caps.minutes_per_day)


# --------------------------------------------------------------------------- numbers that are none


@pytest.mark.parametrize("wrong", [float("inf"), float("nan"), float("-inf"), 0.0, -1.0, 1e300])
@pytest.mark.parametrize("field", ["timeout", "max_duration"])
def test_a_dial_with_a_number_that_is_none_is_refused_by_name(field: str, wrong: float) -> None:
    stage = Stage()
    info = stage.open(allowed_callees=[THEIRS])
    said = refused(stage, info, **{field: wrong})
    assert said.startswith(f"InvalidRequestError: {field}={wrong:g} ")


@pytest.mark.parametrize("wrong", [float("inf"), float("nan"), 1e300])
def test_a_request_that_may_take_for_ever_is_refused_by_name(wrong: float) -> None:
    stage = Stage()
    asked = stage.ask("a1", m.OpenSession(info=stage.info()), ttl=wrong)
    assert stage.error("a1", asked) == "InvalidRequestError"
    assert not stage.core.book.sessions
