"""Only an entity writes its own fields: refuses what else would write them in the controller.

``make lint`` runs it. In ``controller/rules/``, and in the files that hold the book, a statement
may assign to ``self.field`` and to local names, and nothing else; ``state`` is set by
tables.Subject alone. Whoever asks what changes a field finds it in one class. For example::

    call.gateway = None            refused: Call.stream_lost does it, with what belongs to it
    at.book.calls[call.id] = call  refused: Book.add_call keeps the indices
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOM = Path(__file__).parent.parent / "controller"
#: Files beside the rules that hold the book in their hands.
SHELL = ("core.py", "status.py", "shell.py", "process.py")
#: Methods of lists, sets, dicts and deques that change them.
MUTATORS = {"append", "appendleft", "extend", "insert", "remove", "clear", "pop", "popitem"}
MUTATORS |= {"popleft", "setdefault", "update", "add", "discard"}
#: Objects of the book whose own methods have such names.
HELPERS = {"pool", "queue", "turns"}


def own(node: ast.expr) -> bool:
    """``self.field`` or a part of it, or a local name."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return isinstance(node, ast.Name) or ast.unparse(node).rpartition(".")[0] == "self"


def targets(node: ast.AST) -> Iterator[ast.expr]:
    """What the statement writes to, taken apart."""
    found: list[ast.expr] = []
    if isinstance(node, ast.Assign | ast.Delete):
        found = list(node.targets)
    elif isinstance(node, ast.AugAssign | ast.AnnAssign | ast.For):
        found = [node.target]
    while found:
        target = found.pop()
        if isinstance(target, ast.Tuple | ast.List):
            found += target.elts
        else:
            yield target.value if isinstance(target, ast.Starred) else target


def faults(tree: ast.AST, *, sets_state: bool) -> Iterator[tuple[int, str]]:
    """(line, what is wrong) of a file."""
    for node in ast.walk(tree):
        for target in targets(node):
            if not own(target):
                yield target.lineno, f"{ast.unparse(target)} is another's field"
            elif ast.unparse(target) == "self.state" and not sets_state:
                yield target.lineno, "a state is set past its table"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            helper = isinstance(owner, ast.Attribute) and owner.attr in HELPERS
            if node.func.attr in MUTATORS and not own(owner) and not helper:
                yield node.lineno, f"{ast.unparse(node.func)} changes what is another's"
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("setattr", "__setattr__")
        ):
            yield node.lineno, "a field is set by its name"


def main() -> int:
    wrong = 0
    for path in (*map(ROOM.joinpath, SHELL), *sorted((ROOM / "rules").rglob("*.py"))):
        for line, what in faults(ast.parse(path.read_text()), sets_state=path.name == "tables.py"):
            print(f"{path.relative_to(ROOM.parent)}:{line}: {what}")
            wrong = 1
    return wrong


if __name__ == "__main__":
    sys.exit(main())
