"""Each test that docs/security.md names is there: no row of its tables is a promise alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "security.md"


def named() -> Iterator[tuple[str, str]]:
    """(file, test) of each name in the last column of the rows; no test: the whole file. A row may
    write the file of the name before as ``…``."""
    rows = PAGE.read_text().split("<!-- rows -->")[1].split("<!-- /rows -->")[0]
    for row in rows.splitlines():
        file = "…"
        for name in re.findall(r"`(.+?)`", row.removesuffix("|").rpartition("|")[2]):
            start, _, test = name.partition("::")
            file = file if start == "…" else start
            yield file, test


@pytest.mark.parametrize(("file", "test"), sorted(set(named())))
def test_a_row_s_test_is_there(file: str, test: str) -> None:
    path = ROOT / file
    assert re.fullmatch(r"tests/[\w/]+\.py", file) and path.is_file(), f"{file} is not there"
    if test:
        assert re.search(rf"^(async )?def {test}\b", path.read_text(), re.MULTILINE), test
