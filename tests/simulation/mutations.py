"""Faults put into the code on purpose, to see that the simulation finds them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def mutated(name: str | None) -> Iterator[None]:
    """The code with this mutation; None: as it is."""
    yield
