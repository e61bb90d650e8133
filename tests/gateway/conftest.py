"""The streams alone on a fake clock (``bench``), and a gateway between doubles (``stack``)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .model import Bench
from .stack import Stack, running


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
async def stack(short_directory: Path) -> AsyncIterator[Stack]:
    async with running(short_directory) as made:
        yield made
