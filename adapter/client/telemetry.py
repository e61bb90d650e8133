"""What OpenTelemetry is told, where it is installed: a request's trace, a report's figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trunkline.ear.figures import Report

    from .client import BusClient


def trace_carrier() -> dict[str, str]:
    """W3C trace context of the current span, to travel on the bus; empty without one."""
    try:
        from opentelemetry import propagate
    except ImportError:
        return {}
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier


def tell(client: BusClient, trace: Mapping[str, str], sid: str, report: Report) -> None:
    """The first report of a call that is over is told: to its trace, and to /metrics."""
    tell_report(trace, sid, report)
    client.tell_heard(
        [answer.latency for answer in report.answers],
        [each.seconds for each in report.yields if each.seconds is not None],
    )


def tell_report(trace: Mapping[str, str], sid: str, report: Report) -> None:
    """A span with a report's figures, in the trace of the call; nothing where it has none."""
    if not trace:
        return
    from trunkline.bus import tracing

    span = tracing.begin("trunkline.call.report", trace, figures(sid, report))
    if span is not None:
        span.end()


def figures(sid: str, report: Report) -> dict[str, str | float | bool | None]:
    """A report's figures as the attributes of a span."""
    found: dict[str, str | float | bool | None] = {
        "trunkline.call_sid": sid,
        "trunkline.report.reliable": report.reliable,
        "trunkline.report.talk_over_seconds": report.talk_over_seconds,
        "trunkline.report.frames_lost": report.frames_lost,
        "trunkline.report.jitter_ms": report.jitter_ms,
    }
    for name in ("latency", "time_to_yield"):
        spread = report[name]
        for which in spread.__struct_fields__:
            found[f"trunkline.report.{name}.{which}"] = spread[which]
    return found
