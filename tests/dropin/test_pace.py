"""Twilio starts one call a second: what is more waits with us, and is told its place."""

from __future__ import annotations

import asyncio
import logging
import re

import pytest

from trunkline import Line
from trunkline.carrier_sim.client import SimClient

from .conftest import own_stack

pytestmark = [pytest.mark.e2e]

OURS = "+14155550100"
CALLEES = [f"+1415555640{n}" for n in range(6)]


async def test_dials_leave_one_a_second_and_those_who_wait_are_told_their_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "trunkline.adapter")
    with (
        own_stack(OURS, TRUNKLINE_CALLS_PER_SECOND="") as stack,  # the default
        SimClient(stack.sim or "") as sim,
    ):
        for callee in CALLEES:
            sim.add_callee(callee, "echo")
        async with Line(OURS, allowed_callees=CALLEES, bus=stack.bus) as line:
            # The time that a dial may take does not run while it waits for its turn.
            calls = await asyncio.gather(
                *(line.place_call(to, attach_stream="a-leg", timeout=4.5) for to in CALLEES)
            )
            assert sorted(call.callee for call in calls) == CALLEES
        asked = [e for e in sim.rest_log() if e["path"].endswith("/Calls.json") and e["form"]]
    assert [entry["status"] for entry in asked] == [201] * len(CALLEES)
    times = [entry["time"] for entry in asked]
    # One that came late does not hold up the next.
    assert all(at - times[0] > n - 0.2 for n, at in enumerate(times)), times
    assert times[-1] - times[0] < 3.0 * len(times), times
    told = re.findall(r"dial waits for its turn: place (\d), about ([\d.]+) s", caplog.text)
    assert {place for place, _ in told} >= {"1", "2", "3", "4", "5"}
