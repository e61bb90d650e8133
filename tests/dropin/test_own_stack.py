"""On a stack with settings of its own: one trace through all processes, and the pace of dials."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from later import imported
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from trunkline import Line
from trunkline.bus.launch import StackInfo
from trunkline.bus.testing import until
from trunkline.carrier_sim.client import SimClient

from .conftest import own_stack

pytestmark = [pytest.mark.e2e]

OURS, CALLEE = "+14155550100", "+14155557777"
CALLEES = [f"+1415555640{n}" for n in range(6)]

#: What `opentelemetry-instrument` does for users: an SDK in each process; this one writes files.
SDK = """
import json, os, sys
if "-m" in sys.orig_argv and "trunkline" in sys.orig_argv:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

    class ToFile(SpanExporter):
        def export(self, spans):
            with open(os.path.join(os.environ["SPANS"], str(os.getpid())), "a") as file:
                for span in spans:
                    print(span.to_json(indent=None), file=file)
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(ToFile()))
    trace.set_tracer_provider(provider)
"""


@pytest.fixture(scope="module")
def span_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each process of the stack writes its spans."""
    return tmp_path_factory.mktemp("spans")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, span_files: Path) -> Iterator[StackInfo]:
    site = tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text(SDK)
    settings = {
        "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]),
        "SPANS": str(span_files),
        "TRUNKLINE_CALLS_PER_SECOND": "",  # the default
    }
    with own_stack(OURS, **settings) as info:
        yield info


async def test_all_processes_join_the_trace_of_the_dial(
    stack: StackInfo, spans: InMemorySpanExporter, span_files: Path
) -> None:
    imported()
    from trunkline import TwilioAgentAdapter

    with SimClient(stack.sim or "") as sim:
        sim.add_callee(CALLEE, "echo")
        agent = TwilioAgentAdapter(
            account_sid=stack.account_sid,
            auth_token=stack.auth_token,
            phone_number=OURS,
            allowed_callees=[CALLEE],
            bus=stack.bus,
        )
        async with agent:
            await agent.place_call(CALLEE, attach_stream="a-leg")
            (call,) = [call for call in sim.calls() if call["to"] == CALLEE]
    (dial,) = [s for s in spans.get_finished_spans() if s.name == "voice.adapter.dial"]
    assert dial.context is not None

    def written() -> list[dict[str, Any]]:
        lines = [
            line for file in span_files.iterdir() for line in file.read_text().splitlines(True)
        ]
        return [json.loads(line) for line in lines if line.endswith("\n")]

    await until(lambda: len(written()) >= 3)
    found = written()
    assert {span["context"]["trace_id"] for span in found} == {f"0x{dial.context.trace_id:032x}"}
    assert {span["parent_id"] for span in found} == {f"0x{dial.context.span_id:016x}"}
    assert sorted(span["name"] for span in found) == [
        "trunkline.codec_worker.call",
        "trunkline.controller.Dial",
        "trunkline.gateway.stream",
    ], "one for each process, and none for a frame"
    by_name = {span["name"]: span["attributes"] for span in found}
    for name in ("trunkline.controller.Dial", "trunkline.gateway.stream"):
        assert by_name[name]["trunkline.call_sid"] == call["sid"]


async def test_dials_leave_one_a_second_and_those_who_wait_are_told_their_place(
    stack: StackInfo, caplog: pytest.LogCaptureFixture
) -> None:
    """Twilio starts one call a second: what is more waits with us."""
    caplog.set_level(logging.INFO, "trunkline.adapter")
    with SimClient(stack.sim or "") as sim:
        for callee in CALLEES:
            sim.add_callee(callee, "echo")
        async with Line(OURS, allowed_callees=CALLEES, bus=stack.bus) as line:
            # The time that a dial may take does not run while it waits for its turn.
            calls = await asyncio.gather(
                *(line.place_call(to, attach_stream="a-leg", timeout=4.5) for to in CALLEES)
            )
            assert sorted(call.callee for call in calls) == CALLEES
        forms = [e for e in sim.rest_log() if e["path"].endswith("/Calls.json") and e["form"]]
    asked = [entry for entry in forms if entry["form"].get("To") in CALLEES]
    assert [entry["status"] for entry in asked] == [201] * len(CALLEES)
    times = [entry["time"] for entry in asked]
    # One that came late does not hold up the next, and the first may be such a one. Had they left
    # at once, they would have come sooner. test_dials.py has their exact pace, on a fake clock.
    assert all(at - times[0] > n - 1.5 for n, at in enumerate(times)), times
    assert times[-1] - times[0] < 3.0 * len(times), times
    told = re.findall(r"dial waits for its turn: place (\d), about ([\d.]+) s", caplog.text)
    assert {place for place, _ in told} >= {"1", "2", "3", "4", "5"}
