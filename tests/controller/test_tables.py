"""The transition tables, exhaustively: every pair of state and event is legal or named illegal."""

from __future__ import annotations

import itertools

import pytest

from trunkline.bus.errors import WrongModeError
from trunkline.controller.tables import CALL, DIAL, SESSION, IllegalTransition, Table, step

TABLES = {"session": SESSION, "dial": DIAL, "call": CALL}
#: the first state of each, and the last
ENDS = {
    "session": ({"opening"}, {"gone"}),
    "dial": ({"leasing", "queued", "unsure", "taken"}, {"closed"}),
    "call": ({"expected"}, {"ended"}),
}


@pytest.mark.parametrize("name", TABLES)
def test_every_state_and_event(name: str) -> None:
    table = TABLES[name]
    events = sorted({event for row in table.values() for event in row})
    for state, event in itertools.product(table, events):
        if event in table[state]:
            assert step(table, state, event, f"{name} x1") == table[state][event]
        else:
            with pytest.raises(IllegalTransition) as caught:
                step(table, state, event, f"{name} x1")
            assert isinstance(caught.value, WrongModeError)
            for word in (repr(state), repr(event), f"{name} x1"):
                assert word in str(caught.value)


@pytest.mark.parametrize("name", TABLES)
def test_every_state_is_reached_and_leads_to_the_end(name: str) -> None:
    table: Table = TABLES[name]
    first, last = ENDS[name]
    assert {after for row in table.values() for after in row.values()} <= set(table)
    reached = set(first)
    while True:
        more = {after for state in reached for after in table[state].values()} - reached
        if not more:
            break
        reached |= more
    # Calls that are found after a restart begin as reconnecting.
    assert reached | {"reconnecting"} == set(table) | {"reconnecting"}
    for state in table:
        seen = {state}
        while not seen & last:
            more = {after for s in seen for after in table[s].values()} - seen
            assert more, f"{state} never ends"
            seen |= more


def test_modes_are_exclusive() -> None:
    assert "dial" not in SESSION["armed"] and "arm" not in SESSION["calling"]
    for state, row in SESSION.items():
        assert state == "gone" or "close" in row
