"""Stacks of real processes for the tests of this folder, most of which hit them.

The stacks are those of tests/e2e, the numbered sound is that of the chaos suite. ``stack`` has two
gateways and two codec workers, ``single`` one of each; both are shared by the tests that leave them
complete. Others start what they need with ``new_stack``.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Behind everything else: no room is to be found under another name.
sys.path += [str(ROOT), str(ROOT / "tests")]

from e2e.conftest import (  # noqa: E402, F401  # fixtures and a hook, for this folder too
    _no_task_left,
    _own_settings,
    new_stack,
    pytest_runtest_makereport,
    stack,
)
from e2e.stack import Stack, checked  # noqa: E402  # found by the path above


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        path = item.path.as_posix()
        if "/survival/" in path and "chaos_parts" not in path:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture
async def single(_shared_single: Stack) -> AsyncIterator[Stack]:
    async for each in checked(_shared_single, 1):
        yield each
