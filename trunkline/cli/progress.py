"""Progress of work that may last over a second. It goes to stderr, and only to a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


@contextlib.contextmanager
def working(text: str) -> Iterator[None]:
    """Show ``text`` while the block runs."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(escape(text)):
        yield


def each(things: Sequence[T], text: str) -> Iterator[T]:
    """Iterate over ``things``, with a bar that shows how many are done."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import track

    console = Console(stderr=True)
    hidden = not console.is_terminal
    yield from track(things, escape(text), console=console, transient=True, disable=hidden)
