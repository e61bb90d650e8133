"""The machine of a menu, event by event, on a clock that the test gives it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.carrier_sim.menu.steps import Menu, Step, Visit
from trunkline.carrier_sim.menu.walk import HUSH, TABLE, HangUp, PassOn, Say, Walk, match

HELLO, SORRY = b"\x01" * 160, b"\x02" * 160


def start(**steps: Step) -> Walk:
    """A call at the first of these steps, whose prompt has begun."""
    walk = Walk(Menu(name="t", start=next(iter(steps)), steps=steps))
    walk.begin(0.0)
    return walk


def asks(**fields: Any) -> Walk:
    """A step that asks for 1 or 2."""
    main = Step(sound=HELLO, digits={"1": "sales", "2": "sales"}, **fields)
    return start(main=main, sales=Step(sound=SORRY), other=Step(sound=SORRY))


def steps_of(walk: Walk) -> list[str]:
    return [visit.step for visit in walk.way]


def test_a_key_after_the_prompt_leads_on() -> None:
    walk = asks()
    assert walk.said(1.0) == [] and walk.state == "waiting"
    assert walk.key("1", 3.0) == [Say(SORRY)]
    assert walk.way == [Visit(0.0, "main", ""), Visit(3.0, "sales", "1")]
    assert walk.said(4.0) == [HangUp()] and walk.state == "over"


def test_a_key_ends_the_prompt_where_it_may() -> None:
    assert asks().key("1", 0.1) == [Say(SORRY)]


def test_a_key_is_not_noticed_during_a_prompt_that_has_to_be_heard() -> None:
    walk = asks(barge_in=False)
    assert walk.key("1", 0.1) == [] and walk.state == "saying"
    walk.said(1.0)
    assert walk.key("1", 1.1) == [Say(SORRY)]


def test_no_key_says_the_prompt_again_and_then_hangs_up() -> None:
    walk = asks(timeout=2.0, repeats=2)
    for at in (10.0, 20.0):
        walk.said(at)
        assert walk.tick(at + 1.99) == []
        assert walk.tick(at + 2.0) == [Say(HELLO)]
    walk.said(30.0)
    assert walk.tick(32.0) == [HangUp()]
    assert [visit.how for visit in walk.way] == ["", "again", "again"]


def test_after_the_last_repeat_it_leads_where_the_step_says() -> None:
    walk = asks(timeout=2.0, repeats=0, on_timeout="other")
    walk.said(1.0)
    assert walk.tick(3.0) == [Say(SORRY)]
    assert walk.way[-1] == Visit(3.0, "other", "no key")


def test_a_wrong_key_counts_as_none_unless_it_leads_somewhere() -> None:
    walk = asks(repeats=1, on_timeout="other")
    assert walk.key("9", 0.5) == [Say(HELLO)]
    assert walk.key("9", 0.6) == [Say(SORRY)]
    assert walk.way[-1] == Visit(0.6, "other", "wrong key")
    walk = asks(on_wrong="other")
    assert walk.key("9", 0.5) == [Say(SORRY)]


def test_keys_are_collected_until_they_are_one_of_the_steps() -> None:
    digits = {"1": "one", "12": "two", "...#": "account"}
    steps = {name: Step(sound=SORRY) for name in ("one", "two", "account")}

    def at(typed: str) -> Walk:
        walk = start(main=Step(sound=HELLO, digits=digits, between=2.0), **steps)
        for key in typed:
            walk.key(key, 1.0)
        return walk

    walk = at("1")
    assert walk.state == "waiting", "12 may still come"
    assert walk.tick(2.9) == [] and walk.tick(3.0) == [Say(SORRY)]
    assert walk.way[-1] == Visit(3.0, "one", "1")
    walk = at("12")
    walk.tick(3.0)
    assert walk.way[-1] == Visit(3.0, "two", "12")
    assert at("123#").way[-1] == Visit(1.0, "account", "123#")
    assert at("123").tick(3.0) == [Say(HELLO)], "half an account is a wrong key"
    assert at("1").key("*", 1.5) == [Say(HELLO)]


def test_a_first_key_hushes_the_prompt_while_more_may_come() -> None:
    walk = start(main=Step(sound=HELLO, digits={"12": "main"}))
    assert walk.key("1", 0.1) == [HUSH]


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("1", ("one", True)),
        ("12", ("exact", True)),
        ("13", ("any", True)),
        ("1#", ("", False)),
        ("123", ("", True)),
        ("*", ("", False)),
    ],
)
def test_the_most_literal_keys_win(typed: str, found: tuple[str, bool]) -> None:
    digits = {"1": "one", "1.": "any", "12": "exact", "....": "four"}
    assert match(digits, typed) == found


def test_a_message_ends_when_the_caller_falls_silent() -> None:
    walk = start(
        main=Step(sound=HELLO, listen=60.0, silence=2.0, then="bye"), bye=Step(sound=SORRY)
    )
    walk.said(1.0)
    assert walk.state == "listening"
    assert walk.sound(True, 30.0) == [], "the caller has not spoken yet"
    assert walk.sound(False, 31.0) == [] and walk.sound(True, 32.9) == []
    assert walk.sound(True, 33.0) == [Say(SORRY)]


def test_a_message_ends_when_its_time_is_up_or_by_a_key() -> None:
    walk = start(main=Step(listen=60.0, digits={"#": "bye"}), bye=Step(sound=SORRY))
    assert walk.state == "listening", "there is nothing to say first"
    assert walk.key("5", 1.0) == [], "that is no key of the step"
    assert walk.key("#", 2.0) == [Say(SORRY)]
    walk = start(main=Step(listen=60.0))
    assert walk.tick(59.9) == [] and walk.tick(60.0) == [HangUp()]


def test_a_call_is_passed_on_and_nothing_leads_back() -> None:
    walk = start(main=Step(sound=HELLO, bot={"kind": "echo"}))
    assert walk.said(1.0) == [PassOn({"kind": "echo"})]
    assert walk.key("1", 2.0) == walk.said(2.0) == walk.tick(99.0) == walk.sound(True, 99.0) == []


def test_a_dead_end_stays_on_the_line() -> None:
    walk = start(main=Step(sound=HELLO, end="dead"))
    assert walk.said(1.0) == [] and walk.state == "dead"
    assert walk.tick(600.0) == []


EVENTS = st.one_of(
    st.tuples(st.just("key"), st.sampled_from("0129*#")),
    st.tuples(st.just("sound"), st.booleans()),
    st.tuples(st.sampled_from(["said", "tick"]), st.none()),
)
TARGETS = st.sampled_from(["a", "b", "c", ""])


DIGITS = st.dictionaries(st.sampled_from(["0", "1", "12", "..", "*#"]), st.sampled_from("abc"))
STEPS = st.builds(
    Step,
    sound=st.sampled_from([b"", HELLO]),
    digits=DIGITS.map(lambda digits: digits or {"#": "a"}),
    timeout=st.floats(0, 5),
    repeats=st.integers(0, 2),
    on_timeout=TARGETS,
    on_wrong=TARGETS,
    barge_in=st.booleans(),
    listen=st.sampled_from([0.0, 3.0]),
    then=TARGETS,
    bot=st.sampled_from([None, {"kind": "echo"}]),
    end=st.sampled_from(["hang-up", "dead"]),
)
MENUS = st.builds(
    Menu,
    name=st.just("t"),
    start=st.just("a"),
    steps=st.fixed_dictionaries(dict.fromkeys("abc", STEPS)),
)


@given(MENUS, st.lists(st.tuples(st.floats(0, 4), EVENTS), max_size=40))
@settings(max_examples=300, deadline=None)
def test_no_row_of_events_breaks_the_machine(menu: Menu, events: list[Any]) -> None:
    walk, now = Walk(menu), 0.0
    walk.begin(now)
    for after, (event, argument) in events:
        now += after
        given_too = () if argument is None else (argument,)
        done = getattr(walk, event)(*given_too, now)
        assert walk.state in TABLE
        assert (HangUp() in done) == (walk.state == "over" and bool(done))
    assert {visit.step for visit in walk.way} <= set(menu.steps)


@pytest.mark.parametrize(
    "menu",
    [
        {"start": "b", "steps": {"a": {"listen": 1}}},
        {"start": "a", "steps": {"a": {"digits": {"1": "b"}}}},
        {"start": "a", "steps": {"a": {"then": "a"}}},
    ],
)
def test_a_menu_that_leads_nowhere_or_round_and_round_is_none(menu: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError, match=r"no step|nothing happens"):
        msgspec.convert({"name": "t", **menu}, Menu)


def test_every_row_of_the_table_leads_to_a_state_of_it() -> None:
    assert {to for row in TABLE.values() for to in row.values()} <= set(TABLE)
