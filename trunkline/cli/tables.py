"""Tables on standard output. A cell that is too long for a terminal is folded. In a pipe none is
folded, so that ``grep`` finds a whole row by its CallSid."""

from __future__ import annotations

import sys
from typing import Final

from rich.console import Console

#: Columns, more than any row has: a voice_url alone may have 2,000 characters.
_UNFOLDED: Final = 10_000


def output() -> Console:
    """A console that tables are printed to."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _UNFOLDED)
