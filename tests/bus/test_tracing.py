"""Spans of the rooms: in the trace of the context that came over the bus, or none."""

from __future__ import annotations

import logging
import sys
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from trunkline.bus import tracing

CONTEXT = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}


def test_a_span_belongs_to_the_context_that_came_with_the_request(
    spans: InMemorySpanExporter,
) -> None:
    span = tracing.begin("trunkline.gateway.stream", CONTEXT, {"one": 1, "none": None})
    assert span is not None
    span.end({"two": "2", "none": None})
    (found,) = spans.get_finished_spans()
    assert found.context is not None and found.parent is not None
    assert f"{found.context.trace_id:032x}" == "a" * 32
    assert f"{found.parent.span_id:016x}" == "b" * 16
    assert dict(found.attributes or {}) == {"one": 1, "two": "2"}


def test_an_error_marks_it(spans: InMemorySpanExporter) -> None:
    span = tracing.begin("trunkline.controller.Dial", CONTEXT, {})
    assert span is not None
    span.end(error="CarrierError")
    (found,) = spans.get_finished_spans()
    assert (found.status.status_code, found.status.description) == (
        trace.StatusCode.ERROR,
        "CarrierError",
    )


def test_without_a_context_there_is_none(spans: InMemorySpanExporter) -> None:
    assert tracing.begin("trunkline.gateway.stream", {}, {}) is None


def test_where_nobody_has_imported_opentelemetry_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    assert tracing.begin("trunkline.gateway.stream", CONTEXT, {}) is None


def test_without_an_sdk_nothing_happens() -> None:
    span = tracing.begin("trunkline.gateway.stream", CONTEXT, {"one": 1})
    assert span is not None
    span.end()


def test_an_exporter_that_raises_reaches_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise OSError("no collector")

    tracing.RoomSpan(Broken()).end()
    (record,) = caplog.records
    assert (record.levelno, record.name) == (logging.WARNING, "trunkline.bus")


def test_a_span_that_cannot_be_begun_reaches_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def start_span(self, name: str, **given: object) -> Any:
            raise OSError("no collector")

    monkeypatch.setattr(trace, "get_tracer", lambda name: Broken())
    assert tracing.begin("trunkline.gateway.stream", CONTEXT, {}) is None
    (record,) = caplog.records
    assert (record.levelno, record.name) == (logging.WARNING, "trunkline.bus")
