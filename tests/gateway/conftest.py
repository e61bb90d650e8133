"""A whole gateway between doubles of its peers, for tests that ask for ``stack``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .stack import Stack, running


@pytest.fixture
async def stack(short_directory: Path) -> AsyncIterator[Stack]:
    async with running(short_directory) as made:
        yield made
