"""Calls on the fake stack, for whoever holds the phone: a ``Line`` or a ``TwilioAgentAdapter``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import numpy as np
from fake_stack import ACCOUNT, OURS, THEIRS, FakeCall, FakeStack
from later import trunkline

from trunkline import Call, Line
from trunkline.bus import messages as m

if TYPE_CHECKING:
    from trunkline import TwilioAgentAdapter

CREDENTIALS = {"account_sid": ACCOUNT, "auth_token": "no-token", "phone_number": OURS}


def adapter(stack: FakeStack | None = None, **given: Any) -> TwilioAgentAdapter:
    settings: dict[str, Any] = CREDENTIALS | {"bus": None if stack is None else stack.bus}
    return trunkline.TwilioAgentAdapter(**(settings | given))


def dials(stack: FakeStack) -> list[m.Dial]:
    return stack.controller.all(m.Dial)


async def dialled(stack: FakeStack, age: float | None = None) -> m.CallInfo:
    """The next dial is answered; ``age`` is how long ago its stream came up."""
    dial = await stack.controller.wait_for(m.Dial, len(dials(stack)) + 1)
    info = stack.start_call(dial.session, dial=dial, age=age)
    await stack.workers[0].resumed(info.call)
    return info


async def called(stack: FakeStack) -> m.CallInfo:
    """Somebody calls as soon as a call is waited for."""
    arm = await stack.controller.wait_for(m.Arm, len(stack.controller.all(m.Arm)) + 1)
    info = stack.start_call(arm.session)
    await stack.workers[0].resumed(info.call)
    return info


async def placed(
    stack: FakeStack, phone: Any, to: str = THEIRS, **how: Any
) -> tuple[Any, m.CallInfo]:
    """``place_call``, and the callee's stream comes up: what it returned, and the call."""
    placing = asyncio.ensure_future(phone.place_call(to, timeout=5, **how))
    info = await dialled(stack)
    return await placing, info


async def answered(stack: FakeStack, phone: Any) -> tuple[Any, m.CallInfo]:
    """``wait_for_call``, and somebody calls: what it returned, and the call."""
    waiting = asyncio.ensure_future(phone.wait_for_call(timeout=5))
    info = await called(stack)
    return await waiting, info


@contextlib.asynccontextmanager
async def on_the_line(stack: FakeStack) -> AsyncIterator[tuple[Call, m.CallInfo, FakeCall]]:
    """A line of our own that somebody has called, and what the first worker knows of the call."""
    async with Line(OURS, bus=stack.bus) as line:
        call, info = await answered(stack, line)
        yield call, info, await stack.workers[0].resumed(info.call)


def numbered(samples: int, first: int = 0) -> bytes:
    """PCM whose samples tell their place."""
    places = np.arange(first, first + samples) % 30_000
    return bytes(places.astype("<u2").tobytes())


def press(stack: FakeStack, info: m.CallInfo, digits: str) -> None:
    """The far end presses these keys."""
    for index, digit in enumerate(digits, 1):
        heard = m.DigitIn(1, index, digit)
        stack.workers[0].send(info.call, m.DigitHeard(info.call, m.first_generation(1), heard))
