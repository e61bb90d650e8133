"""Where tables for a reader go: standard output. A terminal folds what is too long for it. In a
pipe nothing is folded, so that ``grep`` finds a whole row by its CallSid."""

from __future__ import annotations

import sys
from typing import Final

from rich.console import Console

#: Columns, more than any row has.
_UNFOLDED: Final = 1_000


def output() -> Console:
    """The console for one table or more."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _UNFOLDED)
