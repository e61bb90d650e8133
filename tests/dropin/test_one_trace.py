"""One trace from the test to every process of the stack, by the context that travels on the bus."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from trunkline.adapter.scenario.adapter import TwilioAgentAdapter
from trunkline.carrier_sim.client import SimClient

from .conftest import own_stack

pytestmark = [pytest.mark.e2e]

OURS, CALLEE = "+14155550100", "+14155557777"

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


async def test_all_processes_join_the_trace_of_the_dial(
    spans: InMemorySpanExporter, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SDK)
    (tmp_path / "spans").mkdir()
    settings = {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
        "SPANS": str(tmp_path / "spans"),
    }
    with own_stack(OURS, **settings) as stack, SimClient(stack.sim or "") as sim:
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
            (call,) = sim.calls()
    (dial,) = [s for s in spans.get_finished_spans() if s.name == "voice.adapter.dial"]
    assert dial.context is not None
    found: list[dict[str, Any]] = []
    for file in (tmp_path / "spans").iterdir():
        found += [json.loads(line) for line in file.read_text().splitlines()]
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
