"""The map is true: docs/architecture.md and the READMEs of the rooms say what the tree has.

``make lint`` runs it. A module is *pure* when it awaits nothing and imports nothing of
:data:`OUTSIDE`: no clock, loop, thread, socket, file or process. It refuses

- a row of the table of pure modules whose module is gone or is not pure, for example because
  ``gateway/streams.py`` now imports ``time``;
- a pure module of a room that is given the time (``now``, or the ``Moment`` that has it) and stands
  in no row;
- a file or folder that is named on one of these pages, or in the tree of the layout, and is not
  there.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
#: Rooms whose rules the table lists.
ROOMS: Final = ("gateway", "codec_worker", "controller", "adapter")
#: Modules by which a program reaches the world outside of its memory, or learns what time it is.
OUTSIDE = {"time", "asyncio", "uvloop", "concurrent", "threading", "multiprocessing", "queue"}
OUTSIDE |= {"socket", "select", "selectors", "ssl", "zmq", "http", "requests", "urllib3", "twilio"}
OUTSIDE |= {"starlette", "uvicorn", "websockets", "sqlite3", "os", "pathlib", "tempfile", "fcntl"}
OUTSIDE |= {"signal", "subprocess"}
TABLE: Final = "## State machines without I/O"
LAYOUT: Final = re.compile(r"^```text\n(.*?)^```$", re.DOTALL | re.MULTILINE)
#: `path/of/a/file.py`, or `folder/`
NAMED: Final = re.compile(r"`([\w.-][\w./-]*(?:\.(?:py|md|html|toml)|/))`")


def impure(tree: ast.AST) -> str | None:
    """Why this module is not pure; None where it is."""
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await):
            return "it awaits"
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found = [node.module or ""]
        for name in found:
            if name.partition(".")[0] in OUTSIDE:
                return f"it imports {name}"
    return None


def is_given_the_time(tree: ast.AST) -> bool:
    """A function of this module has a parameter ``now``, or a ``Moment``."""
    return any(
        argument.arg == "now"
        or (isinstance(argument.annotation, ast.Name) and argument.annotation.id == "Moment")
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for argument in (*function.args.args, *function.args.kwonlyargs)
    )


def named(text: str, page: Path) -> Iterator[tuple[str, Path | None]]:
    """Each path that a page names, and where it is; None: nowhere.

    A path begins in the folder of the one before it in the same paragraph or row, in the page's
    own folder, or at the root, whichever has it first.
    """
    for part in re.split(r"\n(?=\||\d+\. |- )|\n\n", text):
        beside: list[Path] = []
        for name in NAMED.findall(part):
            places = [folder / name for folder in (*beside, page.parent, ROOT)]
            found = next((place for place in places if place.exists()), None)
            if found is not None:
                beside = [found if found.is_dir() else found.parent]
            yield name, found


def layout(text: str) -> Iterator[Path]:
    """The paths of a tree: two blanks for each folder that a line stands in. A line may name
    several, one after the other, before its words."""
    for tree in LAYOUT.findall(text):
        folders: list[str] = []
        for line in tree.splitlines():
            depth = (len(line) - len(line.lstrip())) // 2
            names = re.match(r"((?:[\w.-]+(?:/|\.\w+) ?)*)", line.lstrip())
            del folders[depth:]
            for name in names[1].split() if names else ():
                yield ROOT.joinpath(*folders, name)
            if names and names[1]:
                folders.append(names[1].split()[0])


def faults(architecture: Path, pages: list[Path]) -> Iterator[str]:
    """What the pages say and the tree does not."""
    for page in pages:
        for name, place in named(page.read_text(), page):
            if place is None:
                yield f"{page.relative_to(ROOT)} names {name}, which is not there"
    text = architecture.read_text()
    for path in layout(text):
        if not path.exists():
            yield f"the layout names {path.relative_to(ROOT)}, which is not there"
    section = text[text.index(TABLE) :].split("\n## ")[0]
    rows = "\n".join(line for line in section.splitlines() if line.startswith("| `"))
    first_cells = re.sub(r"(?<=\|)(.*?)\|.*", r"\1|", rows)
    listed: set[Path] = set()
    for _, place in named(first_cells, architecture):
        if place is not None:
            listed |= set(place.rglob("*.py")) if place.is_dir() else {place}
    for path in sorted(listed):
        if (why := impure(ast.parse(path.read_text()))) is not None:
            yield f"{path.relative_to(ROOT)} is listed as pure, but {why}"
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            tree = ast.parse(path.read_text())
            if path not in listed and is_given_the_time(tree) and impure(tree) is None:
                yield f"{path.relative_to(ROOT)} is pure and is given the time, but is not listed"


def main() -> int:
    architecture = ROOT / "docs" / "architecture.md"
    found = list(faults(architecture, [architecture, *sorted(ROOT.glob("*/README.md"))]))
    for fault in found:
        print(fault)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
