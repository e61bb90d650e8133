"""Tables on standard output. On a terminal a cell that is too long for its column is folded, or a
row is put on several lines. In a pipe a row is one line, so that ``grep`` finds it by its CallSid.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from rich.console import Console

#: Columns, more than any row has: a voice_url alone may have 2,000 characters.
UNFOLDED: Final = 10_000


def output() -> Console:
    """A console that tables are printed to."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else UNFOLDED)


def packed(cells: Sequence[str], width: int) -> list[str]:
    """The cells of a row on as few lines as have room for them, the later ones indented. No cell is
    broken, so it can be copied: one that is wider than a line has a line of its own."""
    from rich.cells import cell_len

    lines = [""]
    for cell in cells:
        if lines == [""]:
            lines = [cell]
        elif cell_len(f"{lines[-1]}  {cell}") <= width:
            lines[-1] += f"  {cell}"
        else:
            lines.append(f"  {cell}")
    return lines
