"""docs/beliefs.md has each belief of carrier_sim's table, with its source and the consequence if it
is wrong; and each habit with its forms."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trunkline.carrier_sim.beliefs import BELIEFS
from trunkline.carrier_sim.habits import HABITS
from trunkline.live.verdicts import LIVE

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "beliefs.md").read_text()
ROW = re.compile(r"\| \*\*`(?P<name>[\w-]+)`\*\*(?P<live> \*live\*)?<br>(?P<rest>.*) \|")


def rows() -> dict[str, tuple[bool, list[str]]]:
    """Name -> whether it is marked live, and its three columns."""
    found = [ROW.fullmatch(line) for line in PAGE.splitlines() if line.startswith("| **")]
    assert all(found), "a row of another form"
    return {m["name"]: (bool(m["live"]), m["rest"].split(" | ")) for m in found if m}


def test_the_page_has_each_belief_once_in_the_tables_order() -> None:
    assert re.findall(r"^\| \*\*`([\w-]+)`", PAGE, re.MULTILINE) == list(BELIEFS)


@pytest.mark.parametrize("name", BELIEFS)
def test_a_row_says_what_is_believed_who_says_so_and_what_if_not(name: str) -> None:
    _, (believed, source, if_wrong) = rows()[name]
    assert len(believed.split()) >= 4 and believed.endswith(".")
    assert re.match(r"TD |package twilio |inferred\b", source)
    assert len(if_wrong.split()) >= 5 and if_wrong.endswith(".")


def test_the_live_ones_are_marked() -> None:
    assert {name for name, (live, _) in rows().items() if live} == set(LIVE)
    assert list(LIVE) == [name for name in BELIEFS if name in LIVE]


@pytest.mark.parametrize("name", BELIEFS)
def test_a_test_contradicts_it(name: str) -> None:
    """By its name, as a string in some test."""
    files = (ROOT / "tests").rglob("*.py")
    assert any(f'"{name}"' in path.read_text() for path in files if path != Path(__file__))


def test_the_page_has_each_habit_with_its_forms() -> None:
    shown = re.findall(r"^\| `([\w-]+)` \| .* \| (.*) \|$", PAGE, re.MULTILINE)
    assert {name: tuple(re.findall(r"`([^`]+)`", forms)) for name, forms in shown} == HABITS
