"""The way of an override, as controller/README.md tells it: files and functions are there, and each
rule hears what the row before it leads on by."""

from __future__ import annotations

import re
from pathlib import Path

from definitions import defined

from trunkline.controller.core import HEARS

ROOT = Path(__file__).parents[2]
ROOM = ROOT / "controller"
HOP = re.compile(r"^\| \d+ \| `([\w/.]+)` \| (.+?) \| (?:`(\w+)` )?\|(?: \w+)? \|$", re.MULTILINE)


def hops() -> list[tuple[Path, str, str]]:
    """Of each row: the file, what happens there, and by what it leads on."""
    found = HOP.findall((ROOM / "README.md").read_text())
    return [
        (ROOT / file if file.startswith("adapter/") else ROOM / file, what, by)
        for file, what, by in found
    ]


def test_no_row_is_passed_over() -> None:
    rows = re.findall(r"^\| \d+ \|", (ROOM / "README.md").read_text(), re.MULTILINE)
    assert len(hops()) == len(rows) > 15


def test_ten_files_or_fewer_from_wait_for_call_to_restored() -> None:
    files = {path for path, _, _ in hops()}
    assert len(hops()) > len(files) > 5
    assert len(files) <= 10


def test_every_function_that_is_named_stands_in_its_file() -> None:
    for path, what, _ in hops():
        named = {name for name in re.findall(r"`(\w+)`", what) if name.islower()}
        missing = named - defined(path)
        assert not missing, f"{path.name}: {missing}"


def test_the_last_hop_is_the_session_that_hears_that_its_number_is_back() -> None:
    path, what, _ = hops()[-1]
    assert path == ROOM / "rules" / "sessions.py" and "`SessionClosed`" in what


def test_each_row_leads_on_by_what_its_file_says_and_the_next_rule_hears() -> None:
    said, rules = "", 0
    for path, what, by in hops():
        if path.parent.name == "rules":
            rule = what.split("`")[1]
            (heard,) = [row for event, row in HEARS.items() if event.__name__ == said]
            assert (path.stem, rule) in {(r.__module__.split(".")[-1], r.__name__) for r in heard}
            rules += 1
        if by:
            assert re.search(rf"\b{by}\b", path.read_text()), f"{path.name} never says {by}"
            said = by
    assert rules == 8
