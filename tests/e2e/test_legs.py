"""Which call is whose, even if carriers rewrite the caller; and the errors where no call comes."""

from __future__ import annotations

import asyncio
import time

import pytest

from trunkline import Line
from trunkline.errors import CallFailedError

from .stack import ALICE, BOB, CALLEE, CALLER, CAROL, Stack, dialled, until


async def test_b_leg_calls_are_met_whatever_caller_the_carrier_reports(stack: Stack) -> None:
    reported = []
    async with Line(ALICE, bus=stack.bus) as line:
        for _ in range(6):  # drawn anew each time
            call = await line.place_call(CAROL, timeout=20.0)
            shown = stack.sim.call(call.sid)["from"]
            assert (call.caller, call.caller_rewritten) == (shown, shown != ALICE)
            assert stack.sim.call(await dialled(call))["from"] == ALICE
            reported.append(shown)
            await call.hang_up()
    assert len(set(reported)) > 1
    assert stack.changed_numbers() == {}


async def test_three_lines_dial_one_number_at_once_and_each_gets_its_own_call(stack: Stack) -> None:
    async with (
        Line(ALICE, bus=stack.bus) as one,
        Line(ALICE, bus=stack.bus) as two,
        Line(BOB, bus=stack.bus) as three,
    ):
        placing = [line.place_call(CAROL, timeout=20.0) for line in (one, two, three, one)]
        calls = await asyncio.gather(*placing)
        for call in calls:
            # The leg that we dialled rang when the one that carries the stream began.
            ours, theirs = (stack.sim.call(sid) for sid in (await dialled(call), call.sid))
            (rang,) = [at for at, status in ours["history"] if status == "ringing"]
            assert rang == theirs["history"][0][0]
        for call in calls:
            await call.hang_up()
    assert stack.changed_numbers() == {}


async def test_a_number_that_is_dialled_keeps_its_own_callers(stack: Stack) -> None:
    async with (
        Line(CAROL, allowed_callers=[CALLER, "client:joe"], bus=stack.bus) as answering,
        Line(ALICE, bus=stack.bus) as calling,
    ):
        waiting = asyncio.ensure_future(answering.wait_for_call(20.0))
        await until(lambda: stack.held(CAROL), "the number is armed")
        placed = await calling.place_call(CAROL, timeout=20.0)
        assert placed.callee == CAROL and not waiting.done()
        sid = stack.sim.place_call("client:joe", CAROL)["sid"]
        call = await waiting
        assert (call.sid, call.caller, call.caller_rewritten) == (sid, "client:joe", False)
        await call.hang_up()
        await placed.hang_up()


# --------------------------------------------------------------------------- known causes


def drop_callbacks(stack: Stack) -> None:
    stack.sim.add_fault("status", "drop")
    stack.provoked.add(11205)


@pytest.mark.parametrize("status", ["busy", "failed"])
async def test_an_end_whose_callback_never_came_is_known_all_the_same(
    stack: Stack, status: str
) -> None:
    stack.sim.add_callee(CALLEE, status)
    drop_callbacks(stack)
    async with Line(ALICE, allowed_callees=[CALLEE], bus=stack.bus) as line:
        began = time.monotonic()
        with pytest.raises(CallFailedError) as failure:
            await line.place_call(CALLEE, timeout=60.0, attach_stream="a-leg")
        assert failure.value.status == status
        assert time.monotonic() - began < 20.0, "before REST is asked for the third time"


async def test_where_rest_does_not_show_ends_the_timeout_tells_what_it_showed(stack: Stack) -> None:
    stack.sim.add_callee(CALLEE, "busy,ring=0.1")
    drop_callbacks(stack)
    with stack.contradicting("rest-shows-ends"):
        async with Line(ALICE, allowed_callees=[CALLEE], bus=stack.bus) as line:
            with pytest.raises(asyncio.TimeoutError, match="Twilio's last word is 'ringing'"):
                await line.place_call(CALLEE, timeout=4.0, attach_stream="a-leg")


async def test_where_the_callees_number_does_not_ask_us_the_timeout_tells_so(stack: Stack) -> None:
    with stack.contradicting("own-number-asks"):
        async with Line(ALICE, bus=stack.bus) as line:
            with pytest.raises(asyncio.TimeoutError) as late:
                await line.place_call(CAROL, timeout=4.0)
    assert "Twilio's last word is 'in-progress'" in str(late.value)
    assert str(late.value).endswith("; no voice webhook of ***1236 has come")
