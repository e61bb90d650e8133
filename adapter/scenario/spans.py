"""OpenTelemetry spans under the names that langwatch-scenario's users query.

Tracer ``scenario.voice``; every span has ``langwatch.span.type="span"``. An error inside a span
marks it ERROR and is raised on. An error of the exporter never reaches the call: it is one WARNING
on the logger ``scenario.voice``.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Span, Status, StatusCode

log = logging.getLogger("scenario.voice")

Attributes = Mapping[str, str | int | bool | float | None]


@contextlib.contextmanager
def voice_span(
    name: str, attributes: Attributes, *, parent: otel_context.Context | None = None
) -> Iterator[Span]:
    """A current span ``name``; attributes that are None are left out. ``parent``: the context that
    it belongs to, else the ambient one."""
    # Asked for each time: a test, or scenario.run, may have installed another provider meanwhile.
    span = trace.get_tracer("scenario.voice").start_span(name, context=parent)
    span.set_attribute("langwatch.span.type", "span")
    set_attributes(span, attributes)
    token = otel_context.attach(trace.set_span_in_context(span, parent))
    try:
        yield span
    except BaseException as error:
        span.record_exception(error)
        span.set_status(Status(StatusCode.ERROR, type(error).__name__))
        raise
    else:
        span.set_status(Status(StatusCode.OK))
    finally:
        otel_context.detach(token)
        try:
            span.end()
        except Exception:  # a user's span processor may raise anything
            log.warning("voice: span %r failed to export; dropped", name, exc_info=True)


def set_attributes(span: Span, attributes: Attributes) -> None:
    """Set the attributes that are not None, where the span records."""
    if span.is_recording():
        for key, value in attributes.items():
            if value is not None:
                span.set_attribute(key, value)
