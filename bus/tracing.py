"""Spans of the stack's processes, inside the trace of the test that asked.

The context travels on the bus as a dict (W3C ``traceparent``). Only OpenTelemetry's API is used,
and only where it is installed: without it, without a context, or without an SDK that somebody has
set up in the process (``opentelemetry-instrument trunkline up`` does), nothing happens. There is
one span for a request, a stream, or a call's stay at a worker; never one for a frame.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import Any, Final

log = logging.getLogger("trunkline.bus")

Attributes = Mapping[str, str | int | float | bool | None]

#: Names the SDK that the API loads when it is first asked.
_SDK_VARIABLE: Final = "OTEL_PYTHON_TRACER_PROVIDER"


def _is_set_up() -> bool:
    """Whether there may be an SDK in this process: somebody has imported the API, which trunkline
    itself does not need, or has named an SDK to it."""
    return "opentelemetry.trace" in sys.modules or _SDK_VARIABLE in os.environ


class RoomSpan:
    """A span that was begun; ``end`` it once."""

    def __init__(self, span: Any) -> None:
        self._span = span

    def end(self, attributes: Attributes | None = None, *, error: str | None = None) -> None:
        """End it; ``error`` (a kind, nothing that may hold a secret) marks it as failed."""
        from opentelemetry.trace import Status, StatusCode

        try:
            for name, value in (attributes or {}).items():
                if value is not None:
                    self._span.set_attribute(name, value)
            if error is not None:
                self._span.set_status(Status(StatusCode.ERROR, error))
            self._span.end()
        except Exception:  # an exporter may raise anything, and must not touch a call
            log.warning("a span could not be exported", exc_info=True)


def begin(name: str, context: Mapping[str, str], attributes: Attributes) -> RoomSpan | None:
    """A span ``name`` in the trace of ``context``; None where there is no trace, or no SDK."""
    if not context or not _is_set_up():
        return None
    # Imported here, because a process where nobody else has imported them starts sooner without.
    try:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    except ImportError:  # it is named, and not installed
        return None
    try:
        parent = TraceContextTextMapPropagator().extract(dict(context))
        known = {key: value for key, value in attributes.items() if value is not None}
        tracer = trace.get_tracer("trunkline")
        span = tracer.start_span(name, context=parent, attributes=known)
    except Exception:  # a sampler or a span processor may raise anything, and must not touch a call
        log.warning("a span could not be begun", exc_info=True)
        return None
    return RoomSpan(span)
