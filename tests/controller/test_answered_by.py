"""Who has answered a dial: asked of Twilio, told to the client, known after a restart."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from trunkline.bus import messages as m
from trunkline.bus.errors import ErrorInfo
from trunkline.controller import events as ev
from trunkline.controller import instructions as do

from .fake_carrier import SECOND, THEIRS
from .stage import Stage, again, token_of
from .test_dials import a_dial, live_call


def caller() -> tuple[Stage, m.SessionInfo]:
    stage = Stage()
    return stage, stage.open(allowed_callees=[THEIRS])


def told(stage: Stage, request: str, answered_by: str, sid: str = "CA1") -> None:
    """Twilio's callback, which has neither status nor numbers."""
    form = {"CallSid": sid, "AnsweredBy": answered_by, "MachineDetectionDuration": "2400"}
    stage.body("g1", stage.ask("g1", m.StatusCallback(form=form, query={"d": request})), m.Done)


def answers(stage: Stage) -> list[str]:
    return [event.answered_by for event in stage.events("a1", m.AnsweredBy)]


def detecting(stage: Stage, info: m.SessionInfo, **fields: Any) -> tuple[str, do.Create]:
    request, _ = stage.dial(info, machine_detection="DetectMessageEnd", **fields)
    create = stage.take(do.Create)
    stage.feed(ev.Taken(request, "CA1", "queued"))
    return request, create


def test_twilio_is_asked_and_the_client_is_told() -> None:
    stage, info = caller()
    request, create = detecting(stage, info)
    assert create.order.machine_detection == "DetectMessageEnd"
    call = stage.let_in(token_of(create)).info
    assert call.answered_by is None and answers(stage) == []
    told(stage, request, "machine_end_beep")
    (event,) = stage.events("a1", m.AnsweredBy)
    assert (event.call, event.answered_by) == (call.call, "machine_end_beep")
    assert stage.core.book.calls[call.call].info(stage.now).answered_by == "machine_end_beep"


def test_nobody_asks_where_the_client_does_not() -> None:
    stage, info = caller()
    stage.dial(info)
    assert stage.take(do.Create).order.machine_detection is None


@pytest.mark.parametrize("mode", ["b-leg", "originate"])
def test_it_is_for_a_leg_calls(mode: str) -> None:
    stage, info = caller()
    to = SECOND if mode == "b-leg" else THEIRS
    _, asked = stage.dial(info, to=to, mode=mode, machine_detection="Enable")
    error = stage.reply("a1", asked).error
    assert isinstance(error, ErrorInfo) and "machine_detection is for a-leg calls" in repr(error)
    assert not stage.work


def test_an_answer_before_the_stream_is_told_at_once_and_again() -> None:
    """The next controller would not know it. The client has it meanwhile."""
    stage, info = caller()
    request, create = detecting(stage, info)
    told(stage, request, "human")
    assert answers(stage) == ["human"]
    dial = m.Dial(
        session=info.session,
        request=request,
        to=THEIRS,
        mode="a-leg",
        timeout=60.0,
        max_duration=300.0,
    )
    stage.hello("adapter", "a1", sessions=[replace(info, dials=[dial])])
    assert answers(stage) == ["human", "human"]
    stage.let_in(token_of(create))
    (started,) = stage.events("a1", m.CallStarted)
    assert started.info.answered_by == "human"


def test_the_first_answer_stays_and_what_is_none_is_ignored() -> None:
    stage, info = caller()
    request, create = detecting(stage, info)
    stage.let_in(token_of(create))
    told(stage, request, "robot")
    told(stage, request, "human", sid="CA9")
    told(stage, request, "human")
    told(stage, request, "fax")
    assert answers(stage) == ["human"]


def test_an_answer_names_the_leg_that_twilios_answer_did_not() -> None:
    """Twilio's answer to the dial is lost, and this callback comes before any other."""
    stage, info = caller()
    request, asked = stage.dial(info, machine_detection="Enable")
    create = stage.take(do.Create)
    told(stage, request, "machine_start")
    assert stage.body("a1", asked, m.Dialled).sid == "CA1"
    stage.let_in(token_of(create))
    assert stage.events("a1", m.CallStarted)[0].info.answered_by == "machine_start"


def test_an_answer_of_a_call_that_is_over_is_told_to_nobody() -> None:
    stage, info = caller()
    request, create = detecting(stage, info)
    stage.let_in(token_of(create))
    stage.callback(request, "CA1", "completed")
    told(stage, request, "human")
    assert answers(stage) == []


def test_a_client_that_was_away_is_told_again() -> None:
    stage, info = caller()
    request, create = detecting(stage, info)
    call = stage.let_in(token_of(create)).info
    told(stage, request, "human")
    stage.hello("adapter", "a1", sessions=[replace(info, mode="call", calls=[call])])
    assert answers(stage) == ["human", "human"]


def test_a_restarted_controller_learns_it_from_the_client() -> None:
    info = Stage().info(allowed_callees=[THEIRS], mode="call")
    row = a_dial(info, state="taken", sid="CA1")
    stage = again(dials=[row])
    call = replace(live_call(info, 1), answered_by="machine_start")
    stage.hello("adapter", "a1", sessions=[replace(info, calls=[call])])
    assert stage.core.book.calls[row.call].answered_by == "machine_start"
    told(stage, row.request, "human")
    assert stage.core.book.calls[row.call].answered_by == "machine_start"


def test_an_answer_that_comes_before_its_client_is_back_is_told_to_it() -> None:
    info = Stage().info(allowed_callees=[THEIRS], mode="call")
    row = a_dial(info, state="taken", sid="CA1")
    stage = again(dials=[row])
    told(stage, row.request, "fax")
    call = live_call(info, 1)
    stage.hello("adapter", "a1", sessions=[replace(info, calls=[call])])
    assert answers(stage) == ["fax"]
