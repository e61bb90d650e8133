"""What a trace is told of a call that was heard."""

from __future__ import annotations

import numpy as np
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from trunkline.adapter.client.telemetry import tell_report
from trunkline.ear.figures import Report
from trunkline.ear.listen import listen

CONTEXT = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}


def report() -> Report:
    """We hum from 1 s to 2 s, and they from 2.5 s to 4 s."""
    sides = np.zeros((2, 5 * 8_000), np.int16)
    hum = np.round(8_000 * np.sin(np.arange(5 * 8_000) * 2 * np.pi * 300 / 8_000))
    for side, begin, end in ((0, 8_000, 16_000), (1, 20_000, 32_000)):
        sides[side, begin:end] = hum[begin:end]
    return listen(sides[0], sides[1])


def test_a_report_is_a_span_with_its_figures(spans: InMemorySpanExporter) -> None:
    tell_report(CONTEXT, "CA1", report())
    (span,) = spans.get_finished_spans()
    assert span.name == "trunkline.call.report"
    assert span.context is not None and f"{span.context.trace_id:032x}" == "a" * 32
    told = dict(span.attributes or {})
    assert told["trunkline.call_sid"] == "CA1" and told["trunkline.report.reliable"] is True
    assert told["trunkline.report.latency.n"] == 1
    assert told["trunkline.report.latency.max"] == pytest.approx(0.5, abs=0.02)
    assert told["trunkline.report.time_to_yield.n"] == 0
    assert "trunkline.report.latency.p95" not in told, "under 20 samples there are no percentiles"


def test_a_call_without_a_trace_has_no_span(spans: InMemorySpanExporter) -> None:
    tell_report({}, "CA1", report())
    assert not spans.get_finished_spans()
