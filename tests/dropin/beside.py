"""Tests that are under way at the same time: a call waits for speech most of its time.

    pytestmark = [pytest.mark.e2e, pytest.mark.carrier_sim]

    @beside
    async def test_one(scene): ...

    @beside
    async def test_another(scene, tmp_path): ...

The first of them that pytest runs starts all that pytest has chosen in its file, each as a task of
one loop, and waits for their ends. Every test then passes or fails by its own outcome. They share
the fixtures, but each has a ``tmp_path`` and a ``scene`` of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from scene import Scene

from trunkline.carrier_sim.client import SimClient

Test = Callable[..., Awaitable[None]]

#: What became of each test of a module.
_outcomes: dict[object, dict[str, BaseException | None]] = {}


def beside(body: Test) -> Callable[..., None]:
    @functools.wraps(body)
    def test(request: pytest.FixtureRequest, **fixtures: Any) -> None:
        if request.module not in _outcomes:
            _outcomes[request.module] = asyncio.run(_run_all(request))
        error = _outcomes[request.module][request.node.name]
        if error is not None:
            raise error

    own = inspect.signature(body)
    asked = inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    others = [p for name, p in own.parameters.items() if name != "request"]
    test.__signature__ = own.replace(parameters=[asked, *others])  # type: ignore[attr-defined]  # inspect reads it
    del test.__wrapped__  # type: ignore[attr-defined]  # it is no coroutine function
    test.body = body  # type: ignore[attr-defined]  # found below
    return test


async def _run_all(request: pytest.FixtureRequest) -> dict[str, BaseException | None]:
    # scenario.run waits in a thread, and asyncio has few where there are few cores.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(64))
    items = [
        item
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.module is request.module
        and hasattr(item.function, "body")
    ]
    with contextlib.ExitStack() as closing:
        bodies = [item.function.body(**_given(item, request, closing)) for item in items]
        outcomes = await asyncio.gather(*bodies, return_exceptions=True)
    return dict(zip((item.name for item in items), outcomes, strict=True))


def _given(
    item: pytest.Function, request: pytest.FixtureRequest, closing: contextlib.ExitStack
) -> dict[str, Any]:
    """The arguments of this test, from the fixtures of the first one."""
    given: dict[str, Any] = dict(item.callspec.params) if hasattr(item, "callspec") else {}
    for name in inspect.signature(item.function.body).parameters:
        if name == "tmp_path":
            factory = request.getfixturevalue("tmp_path_factory")
            given[name] = factory.mktemp(item.originalname)
        elif name == "scene":  # its client has one connection, and tests use it from their threads
            stack = request.getfixturevalue("phone_stack")
            given[name] = Scene(stack, closing.enter_context(SimClient(stack.sim)))
        elif name not in given:
            given[name] = request.getfixturevalue(name)
    return given
