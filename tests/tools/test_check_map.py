"""What ``make lint`` says of a map that the tree contradicts."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_SPEC = importlib.util.spec_from_file_location("check_map", ROOT / "tools" / "check_map.py")
assert _SPEC is not None and _SPEC.loader is not None
check_map = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(check_map)

PAGE = """# Map

```text
rules/      the rules
  {in_tree}
shell.py
```

See `{named}`.

## State machines without I/O

| module | what it decides |
|---|---|
| `rules/calls.py`, `lines.py` | calls, with `shell.py` around them |

## More
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small tree with one room, whose rules stand in ``rules/``."""
    monkeypatch.setattr(check_map, "ROOT", tmp_path)
    monkeypatch.setattr(check_map, "ROOMS", ("rules",))
    (tmp_path / "rules").mkdir()
    for name in ("calls", "lines"):
        (tmp_path / "rules" / f"{name}.py").write_text("def tick(now: float) -> None: ...\n")
    (tmp_path / "shell.py").write_text("import asyncio\n")
    return tmp_path


def faults(
    tree: Path, named: str = "rules/calls.py", in_tree: str = "calls.py lines.py"
) -> list[str]:
    page = tree / "map.md"
    page.write_text(PAGE.format(named=named, in_tree=in_tree))
    return list(check_map.faults(page, [page]))


def test_a_true_map(tree: Path) -> None:
    assert faults(tree) == []


def test_what_is_named_and_is_not_there(tree: Path) -> None:
    assert faults(tree, named="rules/gone.py") == ["map.md names rules/gone.py, which is not there"]
    assert faults(tree, in_tree="gone.py") == ["the layout names rules/gone.py, which is not there"]


def test_a_rule_that_begins_to_read_a_clock(tree: Path) -> None:
    (tree / "rules" / "lines.py").write_text("import time\n")
    assert faults(tree) == ["rules/lines.py is listed as pure, but it imports time"]


def test_a_new_rule_that_the_map_does_not_have(tree: Path) -> None:
    (tree / "rules" / "new.py").write_text("def tick(at: Moment) -> None: ...\n")
    assert faults(tree) == ["rules/new.py is pure and is given the time, but is not listed"]


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import zmq.asyncio", "it imports zmq.asyncio"),
        ("from os import path", "it imports os"),
        ("def f():\n    import socket", "it imports socket"),
        ("async def f(): ...", "it awaits"),
        ("import math\nfrom .time import later\nfrom trunkline.bus import messages", None),
    ],
)
def test_what_is_pure(code: str, why: str | None) -> None:
    assert check_map.impure(ast.parse(code)) == why
