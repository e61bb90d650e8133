"""Who hears what: the table is complete, its order is kept, and one event leads to its end."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import typing
from types import ModuleType
from typing import Any
from unittest import mock

import msgspec
import pytest
from msgspec.structs import replace

from trunkline.bus import messages as m
from trunkline.bus.errors import WrongModeError
from trunkline.controller import events as ev
from trunkline.controller import rules
from trunkline.controller.core import HEARS
from trunkline.controller.rules import facts as f
from trunkline.controller.rules.moment import Moment
from trunkline.controller.rules.sessions import CLOSE_WITHIN

from .fake_carrier import OURS, THEIRS
from .stage import Stage
from .test_sessions import a_row, restarted

#: The files of rules/ that have rules: all but what rules are made of.
MODULES = [
    importlib.import_module(f"{rules.__name__}.{file.name}")
    for file in pkgutil.iter_modules(rules.__path__)
    if file.name not in ("book", "facts", "moment", "tables")
]


def test_whatever_may_come_or_be_told_is_heard() -> None:
    from_peers = set(typing.get_args(m.ToController)) - {m.Request}
    wanted = from_peers | set(typing.get_args(m.RequestBody)) | set(ev.Result.__subclasses__())
    wanted |= {*f.Fact.__subclasses__(), ev.Tick, ev.ConnectionLost, ev.FleetSeen}
    wanted |= {ev.Shutdown, ev.Look, ev.ByHand}
    assert set(HEARS) == wanted
    assert [what.__name__ for what, row in HEARS.items() if not row] == []


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_rule_is_heard(module: ModuleType) -> None:
    """A function that takes the moment and what is heard, and is not the file's own, is a rule."""
    heard = {rule for row in HEARS.values() for rule in row}
    rules = {
        function
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__
        and not name.startswith("_")
        and "at" in inspect.signature(function).parameters
    }
    assert rules and rules <= heard


class Said(msgspec.Struct, frozen=True):
    """Something that was said, and what whoever hears it says then."""

    what: str
    then: tuple[Said, ...] = ()


def test_all_that_a_fact_leads_to_is_over_before_the_next_is_heard() -> None:
    heard: list[str] = []

    def first(at: Moment, said: Any) -> None:
        heard.append(f"first {said.what}")
        for more in said.then:
            at.tell(more)

    def second(at: Moment, said: Any) -> None:
        heard.append(f"second {said.what}")

    stage = Stage()
    said = Said("a", (Said("b", (Said("c"),)), Said("d")))
    with mock.patch.dict(HEARS, {Said: (first, second)}):
        stage.feed(said)
    assert heard == [
        "first a",
        "first b",
        "first c",
        "second c",
        "second b",
        "first d",
        "second d",
        "second a",
    ]


def test_a_rule_that_raises_fails_its_request_and_what_it_told_is_not_heard() -> None:
    heard: list[str] = []

    def refuses(at: Moment, ask: f.Ask[m.Disarm]) -> None:
        at.tell(Said("a"))
        raise WrongModeError("no")

    stage = Stage()
    rows: dict[type, Any] = {
        m.Disarm: (refuses,),
        Said: (lambda at, said: heard.append(said.what),),
    }
    with mock.patch.dict(HEARS, rows):
        asked = stage.ask("a1", m.Disarm(session="f" * 32))
        assert stage.error("a1", asked) == "WrongModeError"
        stage.feed(ev.Tick())
        assert heard == []
        stage.feed(Said("b"))
    assert heard == ["b"]


def test_whoever_waits_for_a_number_that_is_claimed_is_refused_as_of_now() -> None:
    """Two clients had been armed on one number, and the journal knows of one of them."""
    known = Stage().info(armed=True, mode="answer")
    call = m.CallInfo(
        call="c" * 32,
        session="",
        sid="CA9",
        direction="inbound",
        caller=THEIRS,
        callee=known.number,
        secret="s",
        ordinal=1,
    )
    other = Stage().info(armed=True, mode="answer")
    other = replace(other, calls=[replace(call, session=other.session)])
    stage = restarted(known, a_row(known))
    stage.hello("adapter", "a2", sessions=[other])
    stage.look_up()
    assert stage.events("a2", m.SessionLost) == []  # it waits for the number's own session
    stage.hello("adapter", "a1", sessions=[known])
    (lost,) = stage.events("a2", m.SessionLost)
    assert lost.why.startswith("its number could not be armed again: number ***")
    assert stage.core.book.sessions[other.session].close_by == stage.now + CLOSE_WITHIN


@pytest.mark.parametrize("asks", [m.VoiceWebhook, m.StatusCallback])
def test_what_names_another_stack_of_the_fleet_is_for_that_one(
    asks: type[m.VoiceWebhook | m.StatusCallback],
) -> None:
    """A gateway that knows of no fleet yet asks whoever is there. Its call is alive elsewhere."""
    stage = Stage()
    own, other = stage.core.book.identity.stack, "other"
    stage.feed(
        ev.FleetSeen([m.ControllerRef(stack=each, bus="tcp://x:1") for each in (own, other)])
    )
    form = {"CallSid": "CA1", "From": THEIRS, "To": OURS, "CallStatus": "in-progress"}

    def asked(stack: str) -> int:
        return stage.ask("g1", asks(form=form, query={"s": stack, "d": "r" * 32}))

    assert stage.error("g1", asked(other)) == "StackUnavailableError"
    assert not stage.work, "its call is not hung up"
    # Nobody has a stack that is over: whoever is asked sees to its call.
    asked(own)
    asked("over")
    assert stage.core.book.counts["failed StackUnavailableError"] == 1
