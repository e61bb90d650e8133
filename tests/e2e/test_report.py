"""A live call's report says what the far end heard, by the carrier's own record."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import urllib.request

import numpy as np
import pytest

from trunkline import Line
from trunkline.bus.errors import WrongModeError
from trunkline.carrier_sim.mulaw import decode
from trunkline.ear.listen import listen

from .sound import speech
from .stack import ALICE, CALLEE, Stack, until

#: Seconds that a figure of the test's own side may differ from the far end's.
NEAR = 0.06


async def test_the_report_of_a_call_is_that_of_the_far_ends_record(stack: Stack) -> None:
    stack.sim.add_callee(CALLEE, "speech:austen-0920,when_silent=0.8,repeat")
    async with Line(ALICE, allowed_callees=[CALLEE], bus=stack.bus) as line:
        call = await line.place_call(CALLEE, timeout=20.0, attach_stream="a-leg")
        await call.send_audio(speech(3.0))
        await asyncio.sleep(2.5)
        # We break in; this far end never yields.
        await call.send_audio(speech(2.0, first=1))
        await asyncio.sleep(1.0)
        report = call.report()
        assert report.answers, "also while the call lives"
        before = heard_by_the_stack(stack)
        await call.hang_up()
        report = call.report()
        assert call.report() == report, "and is told once"
        await until(lambda: heard_by_the_stack(stack) != before, "/metrics has its figures")
    assert heard_by_the_stack(stack) - before == len(report.answers)
    sim = stack.sim
    truth = listen(decode(sim.played(call.sid)), decode(sim.said(call.sid)))
    assert report.reliable, report.unreliable_because
    assert report.frames_lost == 0 and report.jitter_ms is not None and report.jitter_ms < 100
    (answer,), (expected,) = report.answers, truth.answers
    assert answer.latency == pytest.approx(expected.latency, abs=NEAR)
    assert [each.seconds for each in report.yields] == [each.seconds for each in truth.yields]
    assert report.talk_over_seconds == pytest.approx(truth.talk_over_seconds, abs=2 * NEAR)
    ours, heard = report.sides.ours, truth.sides.ours
    assert ours.level_dbfs == pytest.approx(heard.level_dbfs, abs=0.5)
    assert np.isclose(ours.speech_seconds, heard.speech_seconds, atol=NEAR)


def heard_by_the_stack(stack: Stack) -> int:
    """How many answers /metrics has."""
    console = stack.status()["controller"]["console"]
    with urllib.request.urlopen(f"{console}/metrics", timeout=5) as answer:  # noqa: S310  # our own console
        told = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines())
    return int(float(told["trunkline_answer_latency_seconds_count"]))


async def test_a_line_without_reports_keeps_no_sound(stack: Stack) -> None:
    stack.sim.add_callee(CALLEE, "echo")
    async with Line(ALICE, allowed_callees=[CALLEE], bus=stack.bus, report=False) as line:
        call = await line.place_call(CALLEE, timeout=20.0, attach_stream="a-leg")
        await call.send_audio(speech(0.5))
        assert (await call.next_turn()).latency is None
        with pytest.raises(WrongModeError, match="keeps no sound"):
            call.report()
        await call.hang_up()


def test_a_line_that_nobody_asks_does_not_load_the_ear() -> None:
    code = "import sys; import trunkline.adapter.line; print('trunkline.ear' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
