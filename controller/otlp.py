"""Pushes the metrics by OTLP, where ``OTEL_METRICS_EXPORTER=otlp`` says so (``trunkline[otlp]``).

They are those of ``/metrics``, under the same names. The endpoint, its headers and the time between
two pushes are set by OpenTelemetry's own variables (``OTEL_EXPORTER_OTLP_ENDPOINT``,
``OTEL_METRIC_EXPORT_INTERVAL``, …). A push runs in a thread, so that a collector that is slow or
away holds up nothing. OpenTelemetry's instruments are not used: they would count everything twice.

What is ``trunkline_calls{state="live"} 1.0`` at ``/metrics`` is pushed as a gauge
``trunkline_calls`` with the attribute ``state=live``. The resource of all of them is
``service.name=trunkline`` and ``service.instance.id=<stack id>``, by which stacks that push to one
collector are told apart. At ``/metrics`` Prometheus tells them apart by where it scraped.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from trunkline.bus import http
from trunkline.bus.errors import SettingsError
from trunkline.bus.wire import LONGEST_WAIT

from .twilio.threads import DaemonPool

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from .metrics import Metrics

log = logging.getLogger("trunkline.controller")

CHOICE: Final = "OTEL_METRICS_EXPORTER"
INTERVAL: Final = "OTEL_METRIC_EXPORT_INTERVAL"
#: Milliseconds between two pushes: the default of OpenTelemetry's specification ("Periodic
#: exporting MetricReader"), which our own loop has to keep to because it takes the reader's place.
_EVERY_MS: Final = "60000"
#: Seconds between two pushes, at least: each collects all metrics on the controller's loop.
_LEAST_EVERY: Final = 0.01
#: Seconds that the last push of a controller that ends may take. It ends within 4 s in all, and
#: most of that belongs to its numbers.
_LAST_WITHIN: Final = 0.5


def chosen() -> bool:
    """Somebody wants the metrics by OTLP. Any other value of the variable, such as OpenTelemetry's
    own "prometheus" or "none", is not for us: ``/metrics`` is served in any case."""
    return os.environ.get(CHOICE, "").strip().lower() == "otlp"


class Pusher:
    """Pushes ``metrics`` until it is closed. ``stack``: the stack's id. SettingsError where the
    extra is missing, or the time between two pushes is no number: whoever asked for metrics learns
    it at the start, and not from an empty dashboard.

    Make it on the running loop. The metrics are collected there, between two events, and only the
    sending is done in the thread.
    """

    def __init__(self, metrics: Metrics, stack: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
            from opentelemetry.sdk.resources import Resource
        except ImportError as error:
            raise SettingsError(
                f"{CHOICE}=otlp needs an extra ({error}): pip install 'trunkline[otlp]'"
            ) from error
        every = os.environ.get(INTERVAL) or _EVERY_MS
        try:
            self._every = float(every) / 1000
        except ValueError:
            self._every = 0.0
        if not _LEAST_EVERY <= self._every <= LONGEST_WAIT:
            raise SettingsError(
                f"{INTERVAL}={every}: milliseconds are expected, from {_LEAST_EVERY * 1000:g} to "
                f"{LONGEST_WAIT * 1000}"
            )
        self._metrics = metrics
        self._exporter = OTLPMetricExporter(session=http.Session())
        self._resource = Resource.create(
            {"service.name": "trunkline", "service.instance.id": stack}
        )
        self._began = time.time_ns()
        self._pool = DaemonPool("trunkline-otlp", 1)
        self._pushing = asyncio.create_task(self._push_on())

    async def _push_on(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            await self.push()

    async def push(self) -> None:
        """Push once, and return when the collector has answered or the exporter has given up. The
        exporter logs by itself when the collector does not take it."""
        data = metrics_data(self._metrics.collect(), self._resource, self._began, time.time_ns())
        try:
            await self._pool.run(self._exporter.export, data)
        except Exception:  # an exporter may raise anything, and must not end a controller
            log.warning("the metrics could not be pushed", exc_info=True)

    async def close(self) -> None:
        """Push what has come since the last push, if the collector takes it at once, and end. A
        stack of a test lives for seconds: without this none of its figures would ever leave."""
        self._pushing.cancel()
        await asyncio.wait({self._pushing})
        last = asyncio.create_task(self.push())
        await asyncio.wait({last}, timeout=_LAST_WITHIN)
        if not last.done():
            last.cancel()
            log.warning("the last metrics were not taken within %g s", _LAST_WITHIN)
        self._pool.close()
        self._exporter.shutdown(timeout_millis=0)


def metrics_data(families: Iterable[Metric], resource: Any, began: int, now: int) -> Any:
    """The metrics as OpenTelemetry's exporters take them. ``began`` (the start of the counts) and
    ``now`` are Unix times in ns. A collector knows by a new ``began`` that a counter was reset."""
    from opentelemetry.sdk.metrics import export as otel
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    metrics = [
        otel.Metric(
            # A counter's suffix, ``_total``, is Prometheus's own. The family's name has none, and
            # neither has OpenTelemetry's: whoever exports to Prometheus adds it.
            name=family.name,
            description=family.documentation,
            # "1" would be a ratio: exporters to Prometheus append ``_ratio`` to such a gauge.
            unit="s" if family.name.endswith("_seconds") else "",
            data=_points(otel, family, began, now),
        )
        for family in families
    ]
    scope = InstrumentationScope("trunkline")
    within = [otel.ScopeMetrics(scope=scope, metrics=metrics, schema_url="")]
    of = [otel.ResourceMetrics(resource=resource, scope_metrics=within, schema_url="")]
    return otel.MetricsData(resource_metrics=of)


def _points(otel: Any, family: Metric, began: int, now: int) -> Any:
    """The data of one metric. All is cumulative, since ``began``, as Prometheus counts: a push that
    is lost loses no counts, because the next one has them too."""
    if family.type == "histogram":
        return otel.Histogram(
            data_points=_histograms(otel, family, began, now),
            aggregation_temporality=otel.AggregationTemporality.CUMULATIVE,
        )
    points = [
        otel.NumberDataPoint(
            attributes=sample.labels,
            start_time_unix_nano=began,
            time_unix_nano=now,
            value=float(sample.value),
        )
        for sample in family.samples
    ]
    if family.type == "gauge":
        return otel.Gauge(data_points=points)
    return otel.Sum(
        data_points=points,
        aggregation_temporality=otel.AggregationTemporality.CUMULATIVE,
        is_monotonic=True,
    )


def _histograms(otel: Any, family: Metric, began: int, now: int) -> list[Any]:
    """One point for each value of the label, from Prometheus's samples: buckets that count up, and
    then the count and the sum.

    OpenTelemetry's buckets do not count up. Samples ``le=0.5`` 2, ``le=1.0`` 3, ``le=+Inf`` 3
    become ``bucket_counts=[2, 1, 0]`` and ``explicit_bounds=[0.5, 1.0]``.
    """
    found: list[Any] = []
    bounds: list[float] = []
    counts: list[int] = []
    for sample in family.samples:
        if sample.name.endswith("_bucket"):
            bounds.append(float(sample.labels["le"]))
            counts.append(int(sample.value))
        elif sample.name.endswith("_sum"):
            apart = [count - before for count, before in zip(counts, [0, *counts], strict=False)]
            point = otel.HistogramDataPoint(
                attributes=sample.labels,
                start_time_unix_nano=began,
                time_unix_nano=now,
                count=counts[-1],
                sum=sample.value,
                bucket_counts=apart,
                explicit_bounds=bounds[:-1],  # the last one is infinite
                min=None,  # neither is known
                max=None,
            )
            found.append(point)
            bounds, counts = [], []
    return found
