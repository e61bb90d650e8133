"""The map is true: docs/architecture.md and the READMEs of the rooms say what the tree has.

``make lint`` runs it. A module is *pure* when it awaits nothing and imports nothing but what
:data:`INSIDE` names and what is pure itself: no clock, loop, thread, socket, file or process. It
refuses

- a row of the table of pure modules whose module is gone or is not pure, for example because
  ``gateway/streams.py`` now imports ``time``, or ``monotonic`` of ``bus/clock.py``;
- a pure module of a room that is given the time (``now``, or the ``Moment`` that has it) and stands
  in no row;
- a file or folder that is named on one of these pages, or in the tree of the layout, and is not
  there.
"""

from __future__ import annotations

import ast
import functools
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
#: Rooms whose rules the table lists.
ROOMS: Final = ("gateway", "codec_worker", "controller", "adapter")
#: What a pure module may import of others: modules that compute, and do nothing else.
INSIDE = {"__future__", "binascii", "bisect", "collections", "dataclasses", "enum", "functools"}
INSIDE |= {"hashlib", "hmac", "html", "itertools", "math", "msgspec", "numpy", "phonenumbers", "re"}
INSIDE |= {"typing", "urllib.parse", "prometheus_client.core", "prometheus_client.registry"}
#: What does more, and is allowed. A line of the log never comes back to a rule. No rule decides by
#: a token that was drawn. Dates are made of a time that was given (see READS). The release of
#: trunkline stays what it is while we run.
INSIDE |= {"logging", "secrets", "datetime", "importlib.metadata"}
#: Builtins, and names of what is allowed, that reach outside. Dates and numpy go by these names.
READS = {"open", "print", "input", "breakpoint", "exec", "eval", "__import__"}
READS |= {"datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
READS |= {"np.load", "np.save", "np.memmap", "np.random"}
#: A file of ours that a pure module may import all the same. A tape answers the same whether its
#: old sound lies in a file or in memory.
ALLOWED: Final = ("adapter/client/tape_store.py",)
TABLE: Final = "## State machines without I/O"
LAYOUT: Final = re.compile(r"^```text\n(.*?)^```$", re.DOTALL | re.MULTILINE)
#: `path/of/a/file.py`, or `folder/`
NAMED: Final = re.compile(r"`([\w.-][\w./-]*(?:\.(?:py|md|html|toml)|/))`")


def file_of(module: str) -> Path | None:
    """The file of a module of ours: None where it is none."""
    place = ROOT.joinpath(*module.split("."))
    found = (place.with_suffix(".py"), place / "__init__.py")
    return next((path.resolve() for path in found if path.is_file()), None)


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Those of a module, each import with one name. What TYPE_CHECKING guards is not run."""
    for node in body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from statements(node.orelse)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield ast.ImportFrom(node.module, [alias], node.level)
        else:
            yield node


def defines(statement: ast.stmt) -> set[str]:
    """The names to which a statement of a module gives something. "*": any."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    found: set[str] = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.alias):
            found.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


@functools.cache
def read(path: Path) -> list[tuple[ast.stmt, set[str]]]:
    """The statements of a module, each with the names that it defines."""
    return [(node, defines(node)) for node in statements(ast.parse(path.read_text()).body)]


@functools.cache
def needed(path: Path, name: str) -> list[ast.stmt]:
    """The statements of a module without which it has not this name. "*": all of them."""
    left = read(path)
    if name == "*":
        return [node for node, _ in left]
    found: list[ast.stmt] = []
    names = {name}
    while new := [node for node, defined in left if defined & {*names, "*"}]:
        found += new
        left = [each for each in left if each[0] not in new]
        names = {each.id for node in new for each in ast.walk(node) if isinstance(each, ast.Name)}
    return found


#: Names of modules that were looked at for one question.
Seen = set[tuple[Path, str]]


def impure(path: Path, name: str = "*", seen: Seen | None = None) -> str | None:
    """Why this module is not pure, or this name of it; None where it is. Imports of ours are
    followed, each to what its name needs: ``Clock`` of ``bus/clock.py`` is a type, and
    ``monotonic`` of the same module reads the clock. What was ``seen`` needs no second look."""
    seen = set() if seen is None else seen
    if (path, name) in seen:
        return None
    seen.add((path, name))
    return next(reasons(path, name, seen), None)


def reasons(path: Path, name: str, seen: Seen) -> Iterator[str]:
    """Why it is not pure."""
    for statement in needed(path, name):
        for node in ast.walk(statement):
            match node:
                case ast.AsyncFunctionDef() | ast.Await():
                    yield "it awaits"
                case ast.Name(ctx=ast.Load()) | ast.Attribute(ctx=ast.Load()):
                    mentioned = ".".join(ast.unparse(node).split(".")[-2:])
                    if mentioned in READS:
                        yield f"it has {mentioned}"
                case ast.Import(names=aliases):
                    for alias in aliases:
                        yield from imports(alias.name, "*", seen)
                case ast.ImportFrom(module=module, names=aliases, level=level):
                    package = path.relative_to(ROOT).parts[:-level] if level else ()
                    for alias in aliases:
                        whole = ".".join([*package, *filter(None, [module])])
                        yield from imports(whole, alias.name, seen)


def imports(module: str, name: str, seen: Seen) -> Iterator[str]:
    """Why the module, or its name, must not be imported."""
    within, itself = file_of(f"{module}.{name}"), file_of(module)
    if (found := within or itself) is None:
        parents = itertools.accumulate([*module.split("."), name], "{}.{}".format)
        if not INSIDE & set(parents):
            yield f"it imports {module}"
    elif str(found.relative_to(ROOT)) not in ALLOWED:
        why = impure(found, "*" if within else name, seen)
        if why is not None:
            yield f"it imports {name} of {found.relative_to(ROOT)}: {why}"


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
        if (why := impure(path.resolve())) is not None:
            yield f"{path.relative_to(ROOT)} is listed as pure, but {why}"
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            tree = ast.parse(path.read_text())
            if path not in listed and is_given_the_time(tree) and impure(path) is None:
                yield f"{path.relative_to(ROOT)} is pure and is given the time, but is not listed"


def main() -> int:
    architecture = ROOT / "docs" / "architecture.md"
    found = list(faults(architecture, [architecture, *sorted(ROOT.glob("*/README.md"))]))
    for fault in found:
        print(fault)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
