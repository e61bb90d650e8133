"""Inside a room imports are relative; between rooms they are absolute, and name the room. The rules
of the controller import nothing of its shell.

``make lint`` runs it. So an import says at a glance whether it leaves the room, and a room can be
moved or renamed without touching its files. For example, in ``gateway/shell.py``::

    from .streams import Streams          the same room
    from trunkline.bus import messages    another one
    from trunkline.gateway import app     refused: the same room, written as if it were another
    from ..bus import messages            refused: another room, written as if it were the same

What the rules may import of the controller stands in :data:`RULES_MAY_IMPORT`, so that a new file
is none of it until somebody says so. A file of that list is held to the list itself: a rule does
not reach the shell through it, either.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
#: Rooms that stand at the top of the repository; ``trunkline`` holds all else.
ROOMS = ("adapter", "bus", "carrier_sim", "codec_worker", "controller", "ear", "gateway")
#: What the rules of the controller, and these files themselves, may import of it.
RULES_MAY_IMPORT = (
    "rules",  # as far as the contracts in pyproject.toml let them
    "instructions",
    "events",
    "journal.rows",
    "twilio.calls",
    "twilio.documents",
    "usage",
)
CONTROLLER = "trunkline.controller"


def room_of(module: str) -> str:
    """The room of an absolute module name; "" where it is none of ours."""
    first, *rest = module.split(".")
    if first != "trunkline":
        return ""
    return rest[0] if rest and rest[0] in ROOMS else "trunkline"


def faults(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """(line, what is wrong) of a module in ``package``."""
    here = room_of(package)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            parts = package.split(".")
            above = parts[: len(parts) - node.level + 1]
            names = [alias.name for alias in node.names] if node.module is None else [node.module]
            for name in names:
                if room_of(".".join([*above, name])) != here:
                    yield node.lineno, f"{ast.unparse(node)!r} leaves the room: name it in full"
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            if here in map(room_of, names):
                yield node.lineno, f"{ast.unparse(node)!r} stays in the room: make it relative"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if room_of(alias.name) == here:
                    yield node.lineno, f"{ast.unparse(node)!r} stays in the room: make it relative"


def is_for_rules(module: str) -> bool:
    """It is of :data:`RULES_MAY_IMPORT`, by its name in the controller."""
    return any(f"{module}.".startswith(f"{name}.") for name in RULES_MAY_IMPORT)


def of_the_shell(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """(line, what is wrong) of a module in ``package`` that a rule may import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            parts = package.split(".")
            above = [*parts[: len(parts) - node.level + 1], *filter(None, [node.module])]
            for alias in node.names:
                name = ".".join([*above, alias.name]).removeprefix(f"{CONTROLLER}.")
                if not is_for_rules(name):
                    yield node.lineno, f"{ast.unparse(node)!r}: no rule may import {name}"


def main() -> int:
    wrong = 0
    for room in (*ROOMS, "trunkline"):
        for path in sorted((ROOT / room).rglob("*.py")):
            folders = path.relative_to(ROOT).parent.parts
            if room == "trunkline" and len(folders) > 1 and folders[1] in ROOMS:
                continue  # by way of the symbolic link
            package = ".".join(folders if room == "trunkline" else ("trunkline", *folders))
            tree = ast.parse(path.read_text())
            found = list(faults(tree, package))
            module = f"{package}.{path.stem}".removeprefix(f"{CONTROLLER}.")
            if room == "controller" and is_for_rules(module):
                found += of_the_shell(tree, package)
            for line, what in found:
                print(f"{path.relative_to(ROOT)}:{line}: {what}")
                wrong += 1
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
