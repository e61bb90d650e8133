"""docs/drop-in.md has every row, and every test that it names is there."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "drop-in.md"

#: How many rows each section has.
SECTIONS = dict(
    zip("ABCDEFGHIJKLMNOP", (14, 7, 6, 5, 11, 4, 18, 7, 14, 14, 7, 10, 2, 6, 3, 4), strict=True)
)
ROW = re.compile(
    r"^\| (?P<id>[A-Z]\d+) \| (?P<what>[^|]+) \| (?P<ours>[^|]+) \| (?P<tests>[^|]+) \|$"
)


def rows() -> dict[str, re.Match[str]]:
    found = [ROW.match(line) for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    return {row["id"]: row for row in found if row is not None}


@functools.cache
def functions_of(file: str) -> frozenset[str]:
    """Names of a file's test functions; none of them may be skipped."""
    text = (ROOT / file).read_text()
    assert not re.search(r"\bskip|\bxfail", text), f"{file} skips a test"
    return frozenset(re.findall(r"^(?:async )?def (test_\w+)", text, re.MULTILINE))


def test_every_row_is_there_once() -> None:
    wanted = [f"{letter}{n}" for letter, count in SECTIONS.items() for n in range(1, count + 1)]
    assert list(rows()) == wanted
    assert len([line for line in PAGE.read_text().splitlines() if ROW.match(line)]) == len(wanted)


def test_every_row_says_what_trunkline_does_and_names_tests_that_are_there() -> None:
    for row in rows().values():
        assert row["ours"].strip()
        named = re.findall(r"`([^`]+)`", row["tests"])
        assert named, row["id"]
        for name in named:
            file, _, test = name.partition("::")
            assert test in functions_of(file), f"{row['id']} names {name}, which is not there"


@pytest.mark.parametrize("word", ["differs", "same"])
def test_rows_say_whether_they_differ(word: str) -> None:
    assert sum(word in row["ours"] for row in rows().values()) > 10
