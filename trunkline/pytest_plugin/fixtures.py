"""The fixtures for users' tests. They are synchronous, so they need no plugin for asyncio. That is
possible because a line may be used from any event loop."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import pytest

from .run import RUN
from .stack import PhoneStack, option, run_apart

if TYPE_CHECKING:
    from trunkline.carrier_sim.client import SimClient

    from .. import Line


@pytest.fixture
def _phone_repeat(request: pytest.FixtureRequest) -> object:
    """The number of this repetition (``--phone-repeat``), from 0."""
    return request.param


def _simulated(request: pytest.FixtureRequest) -> bool:
    return (
        request.node.get_closest_marker("carrier_sim") is not None
        or "carrier_sim" in request.fixturenames
        or bool(option(request.config, "phone_sim"))
    )


@pytest.fixture
def phone_stack(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> PhoneStack:
    """The stack of this test. During the test, TRUNKLINE_BUS, TWILIO_ACCOUNT_SID and
    TWILIO_AUTH_TOKEN name it, so that a Line or an adapter which the test makes joins it."""
    stack = request.config.stash[RUN].stack(simulated=_simulated(request))
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    return stack


@pytest.fixture
def carrier_sim(phone_stack: PhoneStack) -> Iterator[SimClient]:
    """The stand-in carrier of this test: ``place_call``, ``add_callee``, ``played``, faults, …

    All tests and workers of the run share it.
    """
    from trunkline.carrier_sim.client import SimClient

    assert phone_stack.sim is not None
    with SimClient(phone_stack.sim) as client:
        yield client


@pytest.fixture
def open_phone_line(
    request: pytest.FixtureRequest, phone_stack: PhoneStack
) -> Iterator[Callable[..., Line]]:
    """``open_phone_line(number=None, allowed_callers=None, allowed_callees=None)`` opens a further
    line. After the test it is closed, and its number is put back."""
    from .. import Line

    config = request.config
    lines: list[Line] = []

    def open_line(
        number: str | None = None,
        allowed_callers: Iterable[str] | None = None,
        allowed_callees: Iterable[str] | None = None,
    ) -> Line:
        if allowed_callees is None:
            allowed_callees = config.getini("phone_callees") or None
        line = Line(
            number or option(config, "phone_number") or "any",
            allowed_callers=allowed_callers,
            allowed_callees=allowed_callees,
            bus=phone_stack.bus,
            auth_token=phone_stack.auth_token,
        )
        run_apart(_open(line, seconds(config.getini("phone_wait"))))
        lines.append(line)
        return line

    yield open_line
    with contextlib.ExitStack() as closing:
        for line in lines:
            closing.callback(run_apart, line.close())


def seconds(text: str) -> float:
    """The setting ``phone_wait`` as a number; pytest.UsageError where it is none."""
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not found >= 0.0:  # NaN is wrong, too
        raise pytest.UsageError(f"phone_wait = {text!r}: expected seconds, such as 300")
    return found


async def _open(line: Line, within: float) -> None:
    try:
        async with asyncio.timeout(within):
            await line.open()
    except TimeoutError:
        pytest.fail(f"no number of the pool became free within {within:g} s (phone_wait)")


@pytest.fixture
def phone_line(request: pytest.FixtureRequest, open_phone_line: Callable[..., Line]) -> Line:
    """An open :class:`~trunkline.Line` for this test. The marker ``@pytest.mark.phone_line(
    number=…, allowed_callers=…, allowed_callees=…)`` gives its arguments."""
    return _as_marked(open_phone_line, request.node.get_closest_marker("phone_line"))


def _as_marked(open_phone_line: Callable[..., Line], marker: pytest.Mark | None) -> Line:
    """Open the line with the arguments of the marker, or fail in a line that names those it can
    have."""
    if marker is None:
        return open_phone_line()
    try:
        inspect.signature(open_phone_line).bind(*marker.args, **marker.kwargs)
    except TypeError as error:
        takes = ", ".join(inspect.signature(open_phone_line).parameters)
        pytest.fail(f"@pytest.mark.phone_line takes {takes}: {error}", pytrace=False)
    return open_phone_line(*marker.args, **marker.kwargs)
