"""``place_call(…, machine_detection=…)``, ``call.answered_by`` and ``call.wait_answered_by()``."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fake_stack import OURS, THEIRS, FakeStack
from phone import adapter, dials, placed

from trunkline import Line
from trunkline.bus import messages as m
from trunkline.errors import WrongModeError

HOW = {"attach_stream": "a-leg", "machine_detection": "Enable"}


def line_on(stack: FakeStack) -> Line:
    return Line(OURS, bus=stack.bus, allowed_callees=[THEIRS])


async def test_an_answer_is_waited_for(stack: FakeStack) -> None:
    async with line_on(stack) as line:
        call, info = await placed(stack, line, **HOW)
        assert dials(stack)[0].machine_detection == "Enable"
        assert call.answered_by is None
        waiting = asyncio.create_task(call.wait_answered_by(timeout=5))
        await asyncio.sleep(0)
        stack.controller.tell(m.AnsweredBy(call=info.call, answered_by="machine_start"))
        assert await waiting == call.answered_by == "machine_start"
        assert await call.wait_answered_by(timeout=0) == "machine_start"


async def test_an_answer_before_the_stream_is_kept(stack: FakeStack) -> None:
    """The controller that brings the stream may be another one, which was not told."""
    async with line_on(stack) as line:
        placing = asyncio.create_task(line.place_call(THEIRS, timeout=5, **HOW))
        dial = await stack.controller.wait_for(m.Dial, 1)
        stack.controller.tell(m.AnsweredBy(call=dial.request[::-1], answered_by="human"))
        info = stack.start_call(dial.session, dial=dial)
        assert info.answered_by is None
        call = await placing
        assert call.answered_by == "human"
        session = line._session
        assert session is not None and session.describe().calls[0].answered_by == "human"
        assert session._answered_by == {}


async def test_no_answer_in_time(stack: FakeStack) -> None:
    async with line_on(stack) as line:
        call, _ = await placed(stack, line, **HOW)
        with pytest.raises(asyncio.TimeoutError, match=r"who answered was not told within 0\.1 s"):
            await call.wait_answered_by(timeout=0.1)


async def test_the_call_ends_first(stack: FakeStack) -> None:
    async with line_on(stack) as line:
        call, info = await placed(stack, line, **HOW)
        waiting = asyncio.create_task(call.wait_answered_by(timeout=5))
        await asyncio.sleep(0)
        stack.end_call(info)
        with pytest.raises(WrongModeError, match=r"the call ended \(stop\) before that was known"):
            await waiting
        assert call.answered_by is None


async def test_who_did_not_ask_gets_no_answer(stack: FakeStack) -> None:
    async with line_on(stack) as line:
        call, _ = await placed(stack, line, attach_stream="a-leg")
        assert dials(stack)[0].machine_detection is None and call.answered_by is None
        with pytest.raises(WrongModeError, match="place_call was not given machine_detection"):
            await call.wait_answered_by(timeout=1)
        with pytest.raises(ValueError, match="timeout must be a number of seconds"):
            await call.wait_answered_by(timeout=float("nan"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"attach_stream": "a-leg", "machine_detection": "Yes"}, "'Yes' is unknown; use 'Enable'"),
        ({"machine_detection": "Enable"}, 'only supported with attach_stream="a-leg"'),
        (
            {"attach_stream_to_self": False, "machine_detection": "Enable"},
            "not for a call in originator-only mode",
        ),
    ],
)
async def test_it_is_for_a_leg_calls(stack: FakeStack, fields: dict[str, Any], words: str) -> None:
    async with line_on(stack) as line:
        with pytest.raises(ValueError, match=words):
            await line.place_call(THEIRS, **fields)
        assert line.mode == "idle" and dials(stack) == []


async def test_the_scenario_adapter_knows_it_too(stack: FakeStack) -> None:
    async with adapter(stack, allowed_callees=[THEIRS]) as agent:
        assert agent.answered_by is None
        with pytest.raises(WrongModeError, match="no live media stream"):
            await agent.wait_answered_by(timeout=1)
        _, info = await placed(stack, agent, **HOW)
        stack.controller.tell(m.AnsweredBy(call=info.call, answered_by="human"))
        assert await agent.wait_answered_by(timeout=5) == agent.answered_by == "human"
    assert agent.answered_by == "human", "as its report, it is there after the end"
