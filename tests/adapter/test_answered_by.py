"""``place_call(…, machine_detection=…)``, ``call.answered_by`` and ``call.wait_answered_by()``."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from trunkline.adapter.call import Call
from trunkline.adapter.line import Line
from trunkline.bus import messages as m
from trunkline.bus.errors import WrongModeError

from .fake_stack import OURS, THEIRS, FakeStack


async def placed(
    stack: FakeStack, line: Line, detection: Any = "Enable"
) -> tuple[Call, m.CallInfo, m.Dial]:
    """A call that is up, as the controller sees it."""
    found: list[tuple[m.CallInfo, m.Dial]] = []

    def dial(body: m.Dial) -> m.Dialled:
        asyncio.get_running_loop().call_soon(
            lambda: found.append((stack.start_call(body.session, dial=body), body))
        )
        return m.Dialled(call=body.request[::-1], sid="CA" + body.request)

    stack.controller.answers[m.Dial] = dial
    call = await line.place_call(
        THEIRS, timeout=5, attach_stream="a-leg", machine_detection=detection
    )
    return call, *found[0]


async def test_an_answer_is_waited_for(stack: FakeStack) -> None:
    async with Line(OURS, bus=stack.bus, allowed_callees=[THEIRS]) as line:
        call, info, dial = await placed(stack, line)
        assert dial.machine_detection == "Enable"
        assert call.answered_by is None
        waiting = asyncio.create_task(call.wait_answered_by(timeout=5))
        await asyncio.sleep(0)
        stack.controller.tell(m.AnsweredBy(call=info.call, answered_by="machine_start"))
        assert await waiting == call.answered_by == "machine_start"
        assert await call.wait_answered_by(timeout=0) == "machine_start"


async def test_no_answer_in_time(stack: FakeStack) -> None:
    async with Line(OURS, bus=stack.bus, allowed_callees=[THEIRS]) as line:
        call, _, _ = await placed(stack, line)
        with pytest.raises(asyncio.TimeoutError, match=r"who answered was not told within 0\.1 s"):
            await call.wait_answered_by(timeout=0.1)


async def test_the_call_ends_first(stack: FakeStack) -> None:
    async with Line(OURS, bus=stack.bus, allowed_callees=[THEIRS]) as line:
        call, info, _ = await placed(stack, line)
        waiting = asyncio.create_task(call.wait_answered_by(timeout=5))
        await asyncio.sleep(0)
        stack.end_call(info)
        with pytest.raises(WrongModeError, match=r"the call ended \(stop\) before that was known"):
            await waiting
        assert call.answered_by is None


async def test_who_did_not_ask_is_not_told(stack: FakeStack) -> None:
    async with Line(OURS, bus=stack.bus, allowed_callees=[THEIRS]) as line:
        call, _, dial = await placed(stack, line, None)
        assert dial.machine_detection is None and call.answered_by is None
        with pytest.raises(WrongModeError, match="place_call was not given machine_detection"):
            await call.wait_answered_by(timeout=1)
        with pytest.raises(ValueError, match="timeout must be a number of seconds"):
            await call.wait_answered_by(timeout=float("nan"))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"attach_stream": "a-leg", "machine_detection": "Yes"}, "'Yes' is unknown; use 'Enable'"),
        ({"machine_detection": "Enable"}, 'only supported with attach_stream="a-leg"'),
        (
            {"attach_stream_to_self": False, "machine_detection": "Enable"},
            "not for a call in originator-only mode",
        ),
    ],
)
async def test_it_is_for_a_leg_calls(stack: FakeStack, fields: dict[str, Any], told: str) -> None:
    async with Line(OURS, bus=stack.bus, allowed_callees=[THEIRS]) as line:
        with pytest.raises(ValueError, match=told):
            await line.place_call(THEIRS, **fields)
        assert line.mode == "idle"
