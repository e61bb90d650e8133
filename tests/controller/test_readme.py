"""The way of an override, as controller/README.md tells it: the files and functions are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOM = ROOT / "controller"
HOP = re.compile(r"^\| \d+ \| `([\w/.]+)` \| (.+?) \| \w* ?\|$", re.MULTILINE)


def hops() -> list[tuple[Path, str]]:
    """(file, what happens there) of each row of the table."""
    found = HOP.findall((ROOM / "README.md").read_text())
    return [
        (ROOT / file if file.startswith("adapter/") else ROOM / file, what) for file, what in found
    ]


def names(path: Path) -> set[str]:
    """Functions, methods and classes of a file."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)}


def test_ten_files_or_fewer_from_wait_for_call_to_restored() -> None:
    files = {path for path, _ in hops()}
    assert len(hops()) > len(files) > 5
    assert len(files) <= 10


def test_every_function_that_is_named_stands_in_its_file() -> None:
    for path, what in hops():
        named = {name for name in re.findall(r"`(\w+)`", what) if name.islower()}
        missing = named - names(path)
        assert not missing, f"{path.name}: {missing}"


def test_the_last_hop_is_the_session_that_hears_that_its_number_is_back() -> None:
    path, what = hops()[-1]
    assert path == ROOM / "rules" / "sessions.py" and "`SessionClosed`" in what
