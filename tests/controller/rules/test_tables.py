"""The transition tables, by what they allow and forbid, and what an illegal event says."""

from __future__ import annotations

import pytest

from trunkline.bus.errors import WrongModeError
from trunkline.controller.rules.book.call import Call
from trunkline.controller.rules.book.session import Session
from trunkline.controller.rules.tables import (
    CALL,
    DIAL,
    DIGITS,
    LEASE,
    RESTART,
    SESSION,
    IllegalTransition,
    Subject,
    Table,
)

TABLES = {"session": SESSION, "override": LEASE, "dial": DIAL, "call": CALL, "digits": DIGITS}
#: the first state of each, and the last
ENDS = {
    "session": ({"opening"}, {"gone"}),
    "override": ({"planned", "unclaimed", "applying", "restoring"}, {"gone"}),
    "dial": ({"leasing", "queued", "unsure", "taken"}, {"closed"}),
    "call": ({"expected"}, {"ended"}),
    "digits": ({"opening"}, {"over"}),
}


def of(name: str, state: str) -> Subject:
    """A subject of this table in this state."""

    class Any(Subject):
        TABLE = TABLES[name]

        def __str__(self) -> str:
            return f"{name} x1"

    subject = Any()
    subject.state = state
    return subject


FORBIDDEN = [
    ("an armed session may not dial", "session", "armed dial"),
    ("nor may one that waits for nobody", "session", "standing dial"),
    ("a calling session may not be armed", "session", "calling arm"),
    ("nobody is let in before it is armed", "session", "arming ring"),
    ("nor a second caller", "session", "taken ring"),
    ("nor anybody after a Disarm", "session", "standing ring"),
    ("a closing session is not armed again", "session", "closing arm"),
    ("nor does it dial", "session", "closing dial"),
    ("a session that is gone stays gone", "session", "gone opened"),
    ("an override that is on cannot just be forgotten", "override", "applied failed"),
    ("nor one that is being put back", "override", "restoring failed"),
    ("a number that is being put back cannot be claimed", "override", "restoring claimed"),
    ("nor is it put back twice", "override", "restoring put_back"),
    ("a dial is not asked twice", "dial", "asking ask"),
    ("nor once more in doubt", "dial", "unsure ask"),
    ("nor after its end", "dial", "closed ask"),
    ("a b-leg dial is not asked without its number", "dial", "leasing ask"),
    ("nor while another rings there", "dial", "waiting ask"),
    ("what was never asked cannot be taken", "dial", "queued taken"),
    ("a call without sound gets no stream", "call", "silent start"),
    ("a call that is hung up gets no stream", "call", "ending start"),
    ("nor does one that has ended", "call", "ended start"),
    ("a stream cannot end before it began", "call", "expected stream_over"),
]


@pytest.mark.parametrize(
    ("name", "path"), [(n, p) for _, n, p in FORBIDDEN], ids=[what for what, _, _ in FORBIDDEN]
)
def test_forbidden(name: str, path: str) -> None:
    state, event = path.split()
    subject = of(name, state)
    with pytest.raises(IllegalTransition) as caught:
        subject.step(event)
    assert isinstance(caught.value, WrongModeError)
    assert str(caught.value).startswith(f"{name} x1: {event!r} has no place in state {state!r}")
    assert subject.state == state and not subject.story


def test_an_illegal_event_tells_the_last_ten_events_of_its_subject() -> None:
    session = Session("s1", "hash", "+14155551234", "a1", 0.0, 0.0)
    for event in ("opened", "arm", "armed", "ring", "missed", "disarm", "arm", "armed", "ring"):
        session.step(event)
    for event in ("started", "disarm", "arm"):
        session.step(event)
    with pytest.raises(IllegalTransition) as caught:
        session.step("ring")
    assert str(caught.value) == (
        "session s1: 'ring' has no place in state 'arming'; before that came "
        "armed in arming, ring in armed, missed in taken, disarm in armed, arm in standing, "
        "armed in arming, ring in armed, started in taken, disarm in standing, arm in standing"
    )


def test_each_subject_has_a_story_of_its_own() -> None:
    calls = [Call(name, "s1", "inbound", "", "", "", 0.0) for name in ("c1", "c2")]
    calls[0].step("start")
    with pytest.raises(IllegalTransition, match=r"^call c2: .* before that came nothing$"):
        calls[1].step("stream_over")


@pytest.mark.parametrize("name", TABLES)
def test_every_state_is_reached_and_leads_to_the_end(name: str) -> None:
    table: Table = TABLES[name]
    first, last = ENDS[name]
    assert {after for row in table.values() for after in row.values()} <= set(table)
    assert reached(table, first) == set(table)
    for state in table:
        assert reached(table, {state}) & last, f"{state} never ends"


def reached(table: Table, states: set[str]) -> set[str]:
    """Every state that can come of these."""
    found = set(states)
    while more := {after for state in found for after in table[state].values()} - found:
        found |= more
    return found


@pytest.mark.parametrize("name", RESTART)
def test_what_a_restart_finds_enters_in_a_state_that_its_table_has(name: str) -> None:
    assert set(RESTART[name].values()) <= set(TABLES[name])


def test_an_override_that_may_be_on_never_enters_as_one_that_is_not() -> None:
    """Else a number would be left with our settings after a restart."""
    for state in RESTART["override"].values():
        assert "restoring" in reached(LEASE, {state})


def test_a_subject_that_has_begun_enters_no_other_state() -> None:
    session = Session("s1", "hash", "+14155551234", "a1", 0.0, 0.0)
    session.enter("answer")
    assert session.state == "standing"
    session.step("arm")
    with pytest.raises(AssertionError):
        session.enter("answer, its override on")


def test_whatever_a_session_does_it_can_be_closed() -> None:
    assert {state for state in SESSION if "close" not in SESSION[state]} == {"gone"}


def test_the_first_request_decides_whether_a_session_answers_or_calls() -> None:
    """No way leads from the states of one mode into those of the other."""
    answers = reached(SESSION, {"arming"}) - {"closing", "gone"}
    calls = reached(SESSION, {"calling"}) - {"closing", "gone"}
    assert answers == {"arming", "armed", "taken", "standing", "disarming"}
    assert calls == {"calling"}
