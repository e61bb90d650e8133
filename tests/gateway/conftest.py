"""A whole gateway between doubles of its peers, for tests that ask for ``stack``."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from .stack import Stack, running


@pytest.fixture
def directory() -> Iterator[Path]:
    # pytest's own directories are too long for the path of a socket.
    with tempfile.TemporaryDirectory(prefix="tl-", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
async def stack(directory: Path) -> AsyncIterator[Stack]:
    async with running(directory) as made:
        yield made
