"""The table of tests/conftest.py that says who runs beside whom names files and tests there are."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def test_every_name_of_the_table_is_there(request: pytest.FixtureRequest) -> None:
    conftest = request.config.pluginmanager.get_plugin(str(TESTS / "conftest.py"))
    files = {path.relative_to(TESTS.parent).as_posix(): path for path in TESTS.rglob("test_*.py")}
    text = "".join(path.read_text() for path in files.values())
    pieces = (*conftest.COMPUTE, *conftest.MEASURE, conftest.TOGETHER, conftest.LONGEST)
    for name in (name for piece in pieces for name in piece):
        if name.startswith("::"):
            assert f"def {name[2:]}" in text, name
        else:
            assert any(file.endswith(name) for file in files), name
    assert conftest.piece_of("tests/e2e/test_words.py::test_x") == "computes 0"
    assert conftest.piece_of("tests/e2e/test_up.py::test_x") == "tests/e2e/test_up.py"
    assert conftest.piece_of("tests/e2e/test_x.py::test_x") == "tests/e2e/test_x.py::test_x"
    assert conftest.piece_of("tests/bus/test_x.py::test_x") == "tests/bus/test_x.py"
