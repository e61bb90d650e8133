"""Stacks of real processes for the tests of this folder, most of which hit them.

The stacks are those of tests/e2e, the numbered sound is that of the chaos suite. ``pair`` is a
stack of two gateways and two codec workers, ``single`` one of one each; both are shared by the
tests that leave them complete. Others start what they need with ``new_stack``.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Behind everything else: no room is to be found under another name.
sys.path += [str(ROOT), str(ROOT / "tests")]

from e2e.conftest import (  # noqa: E402, F401  # fixtures and a hook, for this folder too
    _checked,
    _no_task_left,
    _own_settings,
    new_stack,
    pytest_runtest_makereport,
)
from e2e.stack import Stack, until  # noqa: E402  # found by the path above


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        path = item.path.as_posix()
        if "/survival/" in path and "chaos_parts" not in path:
            item.add_marker(pytest.mark.e2e)


def _standing(processes: int) -> Iterator[Stack]:
    stack = Stack()
    try:
        stack.start_carrier()
        stack.up(gateways=processes, codec_workers=processes)
        yield stack
    finally:
        stack.close()


@pytest.fixture(scope="session")
def _shared_pair() -> Iterator[Stack]:
    yield from _standing(2)


@pytest.fixture(scope="session")
def _shared_single() -> Iterator[Stack]:
    yield from _standing(1)


async def _complete_again(stack: Stack, processes: int) -> AsyncIterator[Stack]:
    async for each in _checked(stack):
        yield each
        await until(lambda: stack.complete(processes, processes), "what was hit is back", 20.0)


@pytest.fixture
async def pair(_shared_pair: Stack) -> AsyncIterator[Stack]:
    async for each in _complete_again(_shared_pair, 2):
        yield each


@pytest.fixture
async def single(_shared_single: Stack) -> AsyncIterator[Stack]:
    async for each in _complete_again(_shared_single, 1):
        yield each
