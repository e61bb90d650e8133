"""Only an entity writes its own fields: refuses what else would write them in the controller.

``make lint`` runs it. In ``controller/rules/``, and in the files beside it that name the book, a
statement may write to ``self.field`` and to what its function has made, and to nothing else;
``state`` is set by tables.Subject alone. Whoever asks what changes a field finds it in one class.
For example::

    call.gateway = None             refused: Call.stream_lost does it, with what belongs to it
    at.book.calls[call.id] = call   refused: Book.add_call keeps the indices
    calls = at.book.calls           a second name of that dictionary makes nothing better:
    calls[call.id] = call           refused
    Wall(log, core.book.counts)     refused: the wall would count in the book's own counter
    Lease(row, state="applied")     refused: no event of its table has led there
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections import ChainMap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOM: Final = Path(__file__).parent.parent / "controller"
#: Files beside the rules that have an entity of the book's.
BESIDE: Final = ("usage.py",)
#: Methods of the builtin containers that change them.
MUTATORS = {"__delitem__", "__iadd__", "__iand__", "__imul__", "__ior__", "__isub__", "__ixor__"}
MUTATORS |= {"__setitem__", "add", "append", "appendleft", "clear", "difference_update", "discard"}
MUTATORS |= {"extend", "extendleft", "insert", "intersection_update", "move_to_end", "pop"}
MUTATORS |= {"popitem", "popleft", "remove", "reverse", "rotate", "setdefault", "sort", "subtract"}
MUTATORS |= {"symmetric_difference_update", "update"}
#: Objects of the book whose own methods have such names.
HELPERS: Final = (".book.pool", ".book.queue", ".book.turns")
#: Methods and functions that give out a part of what they are given: it stays whose it was.
PART_OF_ITS_OWNER = {"get", "items", "pop", "popitem", "popleft", "setdefault", "values"}
PART_OF_AN_ARGUMENT = {"getattr", "iter", "max", "min", "next", "vars"}
#: Functions whose result is new, and has the parts of what they were given.
SAME_PARTS = {"dict", "enumerate", "list", "reversed", "set", "sorted", "tuple", "zip"}
#: How the type of a field begins that anybody can change who is given it.
CONTAINERS: Final = ("Counter[", "defaultdict[", "deque[", "dict[", "list[", "set[")
SETTERS: Final = ("setattr", "delattr", "__setattr__", "__delattr__")
#: Nodes that have names of their own.
Scope = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Scope |= ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
#: What a function binds each of its names to, and the functions around it theirs.
Names = ChainMap[str, list[ast.AST]]


def own(node: ast.AST, names: Names, part: bool = False) -> bool:
    """``self.field``, or what the function has made. ``part``: what is in it, too. The result of a
    call is taken for new, with all that is in it."""
    match node:
        case ast.Name(id="self") | ast.Attribute(value=ast.Name(id="self")):
            return True
        case ast.Name(id=name):
            # What it gets from itself changes nothing: `rest = [each for each in rest if each]`.
            others: Names = names.new_child({name: [ast.Constant(None)]})
            bound = names.get(name, [])
            return bool(bound) and all(own(value, others, part) for value in bound)
        case ast.Subscript(value=whole):
            return own(whole, names, part=True)
        case ast.BoolOp(values=values):
            return all(own(value, names, part) for value in values)
        case ast.IfExp(body=one, orelse=other):
            return own(one, names, part) and own(other, names, part)
        case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Set(elts=parts):
            return not part or all(own(each, names) for each in parts)
        case ast.Dict(values=parts):
            return not part or all(own(each, names) for each in parts)
        case ast.ListComp(elt=each) | ast.SetComp(elt=each) | ast.GeneratorExp(elt=each):
            return not part or own(each, names.new_child(bindings(node)))
        case ast.DictComp(value=each):
            return not part or own(each, names.new_child(bindings(node)))
        case ast.Call(func=ast.Attribute(attr=name, value=whole)) if name in PART_OF_ITS_OWNER:
            return own(whole, names, part=True)
        case ast.Call(func=ast.Name(id=name), args=wholes) if name in PART_OF_AN_ARGUMENT:
            return all(own(whole, names, part=True) for whole in wholes)
        case ast.Call(func=ast.Name(id=name), args=wholes) if name in SAME_PARTS:
            return not part or all(own(whole, names, part=True) for whole in wholes)
    made = ast.Constant | ast.JoinedStr | ast.BinOp | ast.UnaryOp | ast.Compare
    return isinstance(node, made | ast.Call | ast.Await)


def inside(scope: ast.AST) -> Iterator[ast.AST]:
    """All that stands in it, but for what has names of its own: of that the head alone."""
    todo = list(ast.iter_child_nodes(scope))
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, Scope):
            todo += ast.iter_child_nodes(node)


def part_of(value: ast.expr) -> ast.expr:
    return ast.Subscript(value, ast.Slice())


def pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """The names that are bound, each with its value."""
    match target, value:
        case ast.Name(id=name), _:
            yield name, value
        case ast.Starred(value=rest), _:
            yield from pairs(rest, value)
        case ast.Tuple(elts=targets), ast.Tuple(elts=values) if len(targets) == len(values):
            for one, its in zip(targets, values, strict=True):
                yield from pairs(one, its)
        case ast.Tuple(elts=targets) | ast.List(elts=targets), _:
            for one in targets:
                yield from pairs(one, part_of(value))


def bindings(scope: ast.AST) -> dict[str, list[ast.AST]]:
    """What its names are bound to. A parameter may be anybody's, and is bound to itself."""
    names: dict[str, list[ast.AST]] = {}
    for node in inside(scope):
        found: list[tuple[ast.expr, ast.expr]] = []
        match node:
            case ast.arg(arg=name):
                names[name] = [node]
            case ast.Assign(targets=targets, value=value):
                found = [(target, value) for target in targets]
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                found = [(target, value)]
            case ast.NamedExpr(target=target, value=value):
                found = [(target, value)]
            case ast.For() | ast.AsyncFor() | ast.comprehension():
                found = [(node.target, part_of(node.iter))]
            case ast.withitem(context_expr=value, optional_vars=ast.expr() as target):
                found = [(target, value)]
        for target, value in found:
            for name, its in pairs(target, value):
                names.setdefault(name, []).append(its)
    return names


def fault(node: ast.AST, names: Names) -> str | None:
    """What is wrong with it."""
    match node:
        case ast.Subscript(ctx=ast.Store() | ast.Del(), value=whole) if not own(whole, names):
            return f"{ast.unparse(node)} is another's field"
        case ast.Attribute(ctx=ast.Store() | ast.Del()) if not own(node, names):
            return f"{ast.unparse(node)} is another's field"
        case ast.AugAssign(target=ast.Name() as target) if not own(target, names):
            return f"{target.id} may be another's"
        case ast.Attribute(attr=name, value=whole) if name in MUTATORS:
            if not own(whole, names) and not f".{ast.unparse(whole)}".endswith(HELPERS):
                return f"{ast.unparse(node)} changes what is another's"
        case ast.Call(func=function) if ast.unparse(function).endswith(SETTERS):
            return "a field is set by its name"
    return None


def fields(scope: ast.AST, around: Names) -> Iterator[tuple[int, str]]:
    """(line, what is wrong) of what is written in a file."""
    names: Names = around.new_child(bindings(scope))
    for node in inside(scope):
        if isinstance(node, Scope):
            yield from fields(node, names)
        elif (what := fault(node, names)) is not None:
            assert isinstance(node, ast.expr | ast.stmt)
            yield node.lineno, what


def states(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, what is wrong) where a file sets a state. An entity's own file may say in which state
    one begins; the entities take a state by its name alone. The rows of the journal have a state
    that is no entity's."""
    nodes = list(ast.walk(tree))
    classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
    begin = {each.name for each in classes if "Subject" in map(ast.unparse, each.bases)}
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    rows = {a.name for node in imports if node.module == "journal.rows" for a in node.names}
    for node in nodes:
        match node:
            case ast.Attribute(attr="state", value=ast.Name(id="self"), ctx=ast.Store()):
                yield node.lineno, "a state is set past its table"
            case ast.Call(func=function, keywords=given) if "state" in {k.arg for k in given}:
                if ast.unparse(function) not in begin | rows:
                    yield node.lineno, "a state is given past its table"


def faults(tree: ast.AST, *, sets_state: bool = False) -> list[tuple[int, str]]:
    """(line, what is wrong) of a file."""
    return sorted([*fields(tree, ChainMap()), *(() if sets_state else states(tree))])


def containers(book: ast.AST) -> set[str]:
    """The fields of the book that anybody can change who is given them."""
    return {
        node.target.attr
        for node in ast.walk(book)
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Attribute)
        and ast.unparse(node.annotation).startswith(CONTAINERS)
    }


def handed_out(tree: ast.AST, fields: set[str]) -> Iterator[tuple[int, str]]:
    """(line, what is wrong) where one of these fields is given away. A builtin only reads it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and not hasattr(builtins, ast.unparse(node.func)):
            for given in (*node.args, *(keyword.value for keyword in node.keywords)):
                if ast.unparse(given).endswith(tuple(f"book.{field}" for field in fields)):
                    yield given.lineno, f"{ast.unparse(given)} is handed out to be changed"


def holds_the_book(tree: ast.AST) -> bool:
    """It names the book: no file comes to the entities without that."""
    names = (getattr(node, "id", getattr(node, "attr", "")) for node in ast.walk(tree))
    return any(name.lstrip("_").lower() == "book" for name in names)


def main() -> int:
    wrong = 0
    handed = containers(ast.parse((ROOM / "rules" / "book" / "__init__.py").read_text()))
    for path in (*sorted(ROOM.glob("*.py")), *sorted((ROOM / "rules").rglob("*.py"))):
        tree = ast.parse(path.read_text())
        if path.parent == ROOM and path.name not in BESIDE and not holds_the_book(tree):
            continue
        found = faults(tree, sets_state=path.name == "tables.py")
        for line, what in (*found, *handed_out(tree, handed)):
            print(f"{path.relative_to(ROOM.parent)}:{line}: {what}")
            wrong = 1
    return wrong


if __name__ == "__main__":
    sys.exit(main())
