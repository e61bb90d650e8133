"""The metrics by OTLP: a collector gets those of /metrics, and one that is away holds up nobody."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from trunkline.bus.errors import SettingsError
from trunkline.bus.testing import until
from trunkline.controller import otlp
from trunkline.controller.metrics import METRICS, Metrics

from .stage import Stage


class Collector:
    """Takes what is pushed to it."""

    def __init__(self) -> None:
        self.pushed: list[ExportMetricsServiceRequest] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.pushed.append(ExportMetricsServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()

    def newest(self) -> dict[str, Metric]:
        """The metrics of the last push, by name."""
        (resource,) = self.pushed[-1].resource_metrics
        told = {one.key: one.value.string_value for one in resource.resource.attributes}
        assert (told["service.name"], told["service.instance.id"]) == ("trunkline", "stack")
        (scope,) = resource.scope_metrics
        return {metric.name: metric for metric in scope.metrics}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    made = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", made.url)
    yield made
    made.close()


async def test_a_collector_gets_every_metric_at_each_interval_and_at_the_end(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(otlp.INTERVAL, "20")
    stage = Stage()
    for seconds in (0.25, 0.25, 30.0):
        stage.core.book.measures.count("answer_latency", seconds)
    pusher = otlp.Pusher(Metrics(stage.core.book, lambda: stage.now), "stack")
    await until(lambda: collector.pushed)
    stage.called()
    await pusher.close()
    found = collector.newest()
    assert list(found) == [row.name.removesuffix("_total") for row in METRICS]
    assert {metric.unit for metric in found.values()} == {"", "s"}
    assert all((metric.unit == "s") == ("_seconds" in name) for name, metric in found.items())
    (point,) = found["trunkline_answer_latency_seconds"].histogram.data_points
    assert (point.count, point.sum, sum(point.bucket_counts)) == (3, 30.5, 3)
    assert point.bucket_counts[2] == 2 and point.explicit_bounds[2] == 0.3
    assert not point.HasField("max"), "it is not known"
    assert found["trunkline_gateways"].gauge.data_points[0].as_double == 1
    assert found["trunkline_events"].sum.is_monotonic
    live = {
        point.attributes[0].value.string_value: point.as_double
        for point in found["trunkline_calls"].gauge.data_points
    }
    assert live["live"] == 1
    late = found["trunkline_wakeup_lateness_seconds"].histogram.data_points
    roles = [point.attributes[0].value.string_value for point in late]
    assert roles == ["gateway", "codec_worker", "controller"]


async def test_a_collector_on_this_machine_is_not_reached_through_a_proxy(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as dead:
        proxy = f"http://127.0.0.1:{dead.getsockname()[1]}"
    monkeypatch.setenv("HTTP_PROXY", proxy)
    monkeypatch.setenv("http_proxy", proxy)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    pusher = otlp.Pusher(Metrics(Stage().core.book, lambda: 0.0), "stack")
    await pusher.push()
    assert len(collector.pushed) == 1
    await pusher.close()


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_collector_that_does_not_answer_or_is_away_does_not_hold_up_the_end(
    is_there: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as takes_no_connection:
        host, port = takes_no_connection.getsockname()
        if not is_there:
            takes_no_connection.close()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{host}:{port}")
        stage = Stage()
        pusher = otlp.Pusher(Metrics(stage.core.book, lambda: stage.now), "stack")
        export, over = pusher._exporter.export, threading.Event()

        def exported(data: object) -> object:
            try:
                return export(data)
            finally:
                over.set()

        monkeypatch.setattr(pusher._exporter, "export", exported)
        await pusher.close()
        assert not over.is_set(), "the end waited for the collector"
        assert "were not taken" in caplog.text
    await until(over.is_set)


@pytest.mark.parametrize("every", ["often", "0", "-5", "nan", "inf", "1e300"])
async def test_a_wrong_interval_is_named(every: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(otlp.INTERVAL, every)
    with pytest.raises(SettingsError, match=f"OTEL_METRIC_EXPORT_INTERVAL={every}: milliseconds"):
        otlp.Pusher(Metrics(Stage().core.book, lambda: 0.0), "stack")


async def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(SettingsError, match=r"pip install 'trunkline\[otlp\]'"):
        otlp.Pusher(Metrics(Stage().core.book, lambda: 0.0), "stack")


@pytest.mark.parametrize(
    ("value", "chosen"), [(None, False), ("", False), ("none", False), ("OTLP ", True)]
)
def test_only_who_chooses_it_is_pushed_to(
    monkeypatch: pytest.MonkeyPatch, value: str | None, chosen: bool
) -> None:
    monkeypatch.delenv(otlp.CHOICE, raising=False)
    if value is not None:
        monkeypatch.setenv(otlp.CHOICE, value)
    assert otlp.chosen() is chosen
