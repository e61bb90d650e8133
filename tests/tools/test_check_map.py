"""What ``make lint`` says of a map that the tree contradicts."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import tool

ROOT = Path(__file__).parents[2]
check_map = tool.load("check_map")

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


CLOCK = """import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import zmq

Clock = Callable[[], float]
LATE = 1.0
monotonic: Clock = time.monotonic

def is_late(at: float, context: zmq.Context) -> bool:
    return at > LATE

def waited(since: float) -> float:
    return monotonic() - since
"""


def why_impure(tree: Path, code: str) -> str | None:
    """Why a rule with this code is not pure. Beside it are lines.py, which is pure, and clock.py.
    Others name what these have."""
    (tree / "rules" / "clock.py").write_text(CLOCK)
    (tree / "rules" / "all.py").write_text("from .lines import *\nfrom .clock import *\n")
    (tree / "rules" / "through.py").write_text("from .clock import Clock, monotonic\n")
    (tree / "rules" / "tried.py").write_text(
        "try:\n    from fast import late\nexcept ImportError:\n    from .clock import LATE\n"
    )
    (tree / "rules" / "calls.py").write_text(code)
    why: str | None = check_map.impure(tree / "rules" / "calls.py")
    return why


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import zmq.asyncio", "it imports zmq.asyncio"),
        ("from os import path", "it imports os"),
        ("from urllib import request", "it imports urllib"),
        ("import urllib.request", "it imports urllib.request"),
        ("def f():\n    import socket", "it imports socket"),
        ("import a_package_that_nobody_knows", "it imports a_package_that_nobody_knows"),
        ("async def f(): ...", "it awaits"),
        ("def f(): print(1)", "it has print"),
        ("def f(): return open", "it has open"),
        ("from datetime import datetime\ndef f(): return datetime.now()", "it has datetime.now"),
        ("import datetime\nnow = datetime.datetime.now", "it has datetime.now"),
    ],
)
def test_what_is_not_pure(tree: Path, code: str, why: str) -> None:
    assert why_impure(tree, code) == why


@pytest.mark.parametrize("name", ["time", "random", "io", "shutil", "psycopg", "http", "_thread"])
def test_what_no_pure_module_may_import(tree: Path, name: str) -> None:
    assert why_impure(tree, f"import {name}") == f"it imports {name}"


@pytest.mark.parametrize(
    "code",
    [
        "import math\nfrom urllib.parse import quote\nfrom urllib import parse",
        "from datetime import UTC, datetime\ndef f(at): return datetime.fromtimestamp(at, UTC)",
        "from .lines import tick",
        "from . import lines",
        "from .clock import Clock",
        "from .through import Clock",
        "from .clock import is_late",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import zmq",
        "class Call:\n    open = 1\n    def print(self): self.print()",
    ],
)
def test_what_is_pure(tree: Path, code: str) -> None:
    assert why_impure(tree, code) is None


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("from .clock import monotonic", "monotonic of rules/clock.py: it imports time"),
        ("from .clock import waited", "waited of rules/clock.py: it imports time"),
        ("from .tried import late", "late of rules/tried.py: it imports fast"),
        ("from . import clock", "clock of rules/clock.py: it imports time"),
        ("def f():\n    from .clock import waited", "waited of rules/clock.py: it imports time"),
        (
            "from .through import monotonic",
            "monotonic of rules/through.py: "
            "it imports monotonic of rules/clock.py: it imports time",
        ),
        (
            "from .all import monotonic",
            "monotonic of rules/all.py: it imports * of rules/clock.py: it imports time",
        ),
        (
            "from . import all as everything",
            "all of rules/all.py: it imports * of rules/clock.py: it imports time",
        ),
    ],
)
def test_a_pure_module_reads_no_clock_through_another_of_ours(
    tree: Path, code: str, why: str
) -> None:
    assert why_impure(tree, code) == f"it imports {why}"


def test_modules_that_import_one_another_are_each_looked_at(tree: Path) -> None:
    lines = tree / "rules" / "lines.py"
    lines.write_text("from . import calls\nimport time")
    why = "it imports lines of rules/lines.py: it imports time"
    assert why_impure(tree, "from . import lines") == why
    assert check_map.impure(lines) == "it imports time"
    calls = tree / "rules" / "calls.py"
    assert check_map.impure(calls) == why, "also behind that question"


def test_main_tells_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check_map, "faults", lambda architecture, pages: iter(["a page lies"]))
    assert check_map.main() == 1
    assert capsys.readouterr().out == "a page lies\n"
