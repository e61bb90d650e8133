"""The trace that a request belongs to, where OpenTelemetry is installed."""

from __future__ import annotations


def trace_carrier() -> dict[str, str]:
    """W3C trace context of the current span, to travel on the bus; empty without one."""
    try:
        from opentelemetry import propagate
    except ImportError:
        return {}
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier
