"""What a file of ours defines, for tests of pages that name it."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path


@cache
def defined(path: Path) -> frozenset[str]:
    """Functions, methods and classes of a file, and `Class.method` of each class."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, kinds):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{each.name}" for each in node.body if isinstance(each, kinds)}
    return frozenset(found)
