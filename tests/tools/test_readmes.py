"""The READMEs of the rooms name methods where they stand (`make lint` looks after the files)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def methods(path: Path) -> set[str]:
    """`Class.method` of each class at the top of a file."""
    return {
        f"{node.name}.{inner.name}"
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
        for inner in node.body
        if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize(
    "page", sorted(ROOT.glob("[a-z]*/README.md")), ids=lambda page: str(page.parent.name)
)
def test_every_method_that_is_named_stands_in_a_file_that_is_named(page: Path) -> None:
    text = page.read_text()
    files = [page.parent / name for name in re.findall(r"`([\w/]+\.py)`", text)]
    there = {name for file in files if file.exists() for name in methods(file)}
    assert set(re.findall(r"`([A-Z]\w+\.[a-z_]\w+)`", text)) <= there
