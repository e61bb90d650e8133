"""OpenTelemetry spans and attributes under the names that langwatch-scenario's users query.

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

from trunkline.bus.errors import CallFailedError
from trunkline.bus.redact import redact_number

log = logging.getLogger("scenario.voice")

Attributes = Mapping[str, str | int | bool | float | None]


@contextlib.contextmanager
def _voice_span(
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


@contextlib.contextmanager
def dialling(owner: str, to: str, number: str | None = None) -> Iterator[Span]:
    """The span of a call that the class ``owner`` makes from our ``number``, or (None) waits for at
    our number ``to``. The span says how a dial failed."""
    attributes = {
        "voice.adapter.class": owner,
        "voice.twilio.direction": "inbound" if number is None else "outbound",
        "voice.twilio.to": redact_number(to),
        "voice.twilio.from": None if number is None else redact_number(number),
    }
    with _voice_span("voice.adapter.dial", attributes) as span:
        try:
            yield span
        except TimeoutError:
            set_twilio(span, dial_outcome="stream_connect_timeout")
            raise
        except CallFailedError as error:
            set_twilio(span, call_sid=error.sid, dial_outcome=error.status)
            raise


def sound_arrived(owner: str, turn: otel_context.Context, size: int) -> None:
    """A span in ``turn`` for its first sound, of ``size`` bytes."""
    attributes: Attributes = {
        "voice.adapter.class": owner,
        "voice.twilio.recv.source": "background_loop",
        "voice.audio.bytes": size,
    }
    with _voice_span("voice.audio.receive", attributes, parent=turn):
        pass


def set_twilio(span: Span, **values: str | int | bool | float | None) -> None:
    """Set the attributes ``voice.twilio.*`` that are not None, where the span records."""
    set_attributes(span, {f"voice.twilio.{name}": value for name, value in values.items()})


def set_attributes(span: Span, attributes: Attributes) -> None:
    """Set the attributes that are not None, where the span records."""
    if span.is_recording():
        for key, value in attributes.items():
            if value is not None:
                span.set_attribute(key, value)
