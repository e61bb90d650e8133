"""Spans of the stack's processes, inside the trace of the test that asked.

The context travels on the bus as a dict (W3C ``traceparent``). Only OpenTelemetry's API is used,
and only where it is installed: without it, without a context, or without an SDK that somebody has
set up in the process (``opentelemetry-instrument trunkline up`` does), nothing happens. There is
one span for a request, a stream, or a call's stay at a worker; never one for a frame.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

log = logging.getLogger("trunkline.bus")

Attributes = Mapping[str, str | int | float | bool | None]

try:
    from opentelemetry import trace as _trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:  # trunkline does not need it
    _trace = None  # type: ignore[assignment]  # asked for below


class RoomSpan:
    """A span that was begun; ``end`` it once."""

    def __init__(self, span: Any) -> None:
        self._span = span

    def end(self, attributes: Attributes | None = None, *, error: str | None = None) -> None:
        """End it; ``error`` (a kind, nothing that may hold a secret) marks it as failed."""
        assert _trace is not None
        try:
            for name, value in (attributes or {}).items():
                if value is not None:
                    self._span.set_attribute(name, value)
            if error is not None:
                self._span.set_status(_trace.Status(_trace.StatusCode.ERROR, error))
            self._span.end()
        except Exception:  # an exporter may raise anything, and must not touch a call
            log.warning("a span could not be exported", exc_info=True)


def begin(name: str, context: Mapping[str, str], attributes: Attributes) -> RoomSpan | None:
    """A span ``name`` in the trace of ``context``; None where there is nothing to belong to."""
    if _trace is None or not context:
        return None
    parent = TraceContextTextMapPropagator().extract(dict(context))
    span = _trace.get_tracer("trunkline").start_span(name, context=parent)
    for key, value in attributes.items():
        if value is not None:
            span.set_attribute(key, value)
    return RoomSpan(span)
