"""Each test that docs/security.md names is there: no row of its tables is a promise alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "security.md"


def named() -> Iterator[tuple[str, str]]:
    """(file, test) of each row; a row names a file once, and further tests of it by ``::test``."""
    for row in PAGE.read_text().splitlines():
        file = ""
        for found, test in re.findall(r"`(tests/[\w/.]*|…)?(?:::(\w+))?`", row):
            file = found if found.startswith("tests/") else file
            if file and (found or test):
                yield file, test


@pytest.mark.parametrize(("file", "test"), sorted(set(named())))
def test_a_row_s_test_is_there(file: str, test: str) -> None:
    path = ROOT / file
    assert path.exists(), f"{file} is not there"
    if test:
        assert re.search(rf"^(async )?def {test}\b", path.read_text(), re.MULTILINE), test
