"""Stacks of real processes for the tests of this folder.

``stack`` has two gateways and two codec workers. All tests share it that leave it as they found it,
those of tests/survival too, which kill parts of it: the supervisor brings these back.
``new_stack`` makes one for a test alone. After each test every number has to be as before, every
call over, and the carrier must have listed no error that the test did not name in
``stack.provoked``.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path

import pytest

# For the processes of benchmarks/. Behind everything else: no room is to be found under another
# name.
sys.path.append(str(Path(__file__).parents[2]))

from .stack import STANDING, Stack, checked  # found by the path above


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/e2e/" in item.path.as_posix():
            item.add_marker(pytest.mark.e2e)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for stack in STANDING:
            report.sections.append((f"processes of {stack.directory}", stack.tails()))
    return report


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the developer's own reaches a client in this process."""
    for name in list(os.environ):
        if name.startswith(("TRUNKLINE_", "TWILIO_")):
            monkeypatch.delenv(name)


@pytest.fixture
async def stack(_shared_stack: Stack) -> AsyncIterator[Stack]:
    async for each in checked(_shared_stack, 2):
        yield each


@pytest.fixture
def new_stack() -> Iterator[Callable[..., Stack]]:
    """Makes stacks with a carrier (and options for it), not started otherwise."""
    made: list[Stack] = []

    def make(*options: str) -> Stack:
        stack = Stack()
        made.append(stack)
        stack.start_carrier(*options)
        return stack

    yield make
    for stack in made:
        stack.close()


@pytest.fixture(autouse=True)
async def _no_task_left() -> AsyncIterator[None]:
    """No task that a test started in its loop outlives the test."""
    yield
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not others, others
