"""A fifth of the controller's lines explains the others: comments and docstrings.

``make lint`` runs it. A line explains if it lies in a docstring and is not blank, or has a comment.
Of all lines the blank ones are counted, too. A comment that speaks to a tool explains nothing, nor
does a heading, but the reason beside it does::

    found = find(name)  # noqa: S608                                    no
    found = find(name)  # noqa: S608  # columns are literals of ours    yes

It prints the share, and the five files with the least, where the next explanation is wanted most.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOM: Final = Path(__file__).resolve().parent.parent / "controller"
LEAST: Final = 0.20
HAVE_DOCSTRINGS = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
#: How a comment begins that speaks to a tool, or is the heading of a part of a file.
NO_REASON: Final = ("noqa", "type:", "---")


def explaining(text: str) -> set[int]:
    """The numbers of the lines of this module that explain."""
    return {*_in_docstrings(text), *_with_comments(text)}


def _in_docstrings(text: str) -> Iterator[int]:
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, HAVE_DOCSTRINGS) and ast.get_docstring(node) is not None:
            said = node.body[0]
            last = said.end_lineno or said.lineno
            yield from (n for n in range(said.lineno, last + 1) if lines[n - 1].strip())


def _with_comments(text: str) -> Iterator[int]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            parts = filter(None, map(str.strip, token.string.split("#")))
            if not all(part.startswith(NO_REASON) for part in parts):
                yield token.start[0]


def main() -> int:
    explained, lines = 0, 0
    shares: list[tuple[float, str]] = []
    for path in sorted(ROOM.rglob("*.py")):
        text = path.read_text()
        of_file, explain = len(text.splitlines()), len(explaining(text))
        explained, lines = explained + explain, lines + of_file
        if of_file:
            shares.append((explain / of_file, str(path.relative_to(ROOM.parent))))
    enough = explained >= LEAST * lines
    wanted = "" if enough else f": {LEAST:.0%} is wanted, {LEAST * lines - explained:.0f} more"
    print(f"{explained / lines:.2%} of {lines:,} lines of {ROOM.name}/ explain{wanted}")
    for share, name in sorted(shares)[:5]:
        print(f"  {share:.0%} of {name}")
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
