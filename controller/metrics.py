"""What ``/metrics`` has: a table of all metrics, and their values from the book, at each scrape.

:data:`METRICS` is the one list. A metric that is not in it cannot be told, and docs/metrics.md is
drawn from it. Values come from the same object as ``trunkline status --json``, from the book's
counters, and from what was measured (:mod:`.rules.book.measures`). Nothing is computed between two
scrapes.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final, Literal

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from trunkline.bus.clock import Clock

from . import status
from .rules.book import Book
from .rules.book.measures import HISTOGRAMS
from .rules.tables import CALL


@dataclass(frozen=True)
class Row:
    """One metric. ``label``: the names of its labels."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


METRICS: Final = (
    Row("trunkline_build_info", "gauge", "1, with the release of trunkline", ("version",)),
    Row("trunkline_epoch", "gauge", "Starts of the controller on this state directory"),
    Row("trunkline_gateways", "gauge", "Gateways that answer"),
    Row("trunkline_codec_workers", "gauge", "Codec workers that answer"),
    Row("trunkline_unhealthy", "gauge", "Processes that are there and do not work", ("role",)),
    Row(
        "trunkline_wakeup_lateness_seconds",
        "histogram",
        "How late a timer has woken a process; a call hears nothing of up to 60 ms",
        ("role",),
    ),
    Row(
        "trunkline_dropped_messages_total",
        "counter",
        "Messages of the bus that a process has dropped, by the reason",
        ("peer", "why"),
    ),
    Row("trunkline_sessions", "gauge", "Open sessions"),
    Row("trunkline_calls", "gauge", "Calls that are not over", ("state",)),
    Row(
        "trunkline_calls_across_hosts",
        "gauge",
        "Calls whose sound is worked on by another machine than the one that their stream reaches",
    ),
    Row(
        "trunkline_setup_seconds",
        "histogram",
        "From when Twilio was asked for a call, or asked us about one, until its stream was up",
        ("direction",),
    ),
    Row(
        "trunkline_answer_latency_seconds",
        "histogram",
        "Seconds until they answered, as the ear heard it",
    ),
    Row(
        "trunkline_time_to_yield_seconds",
        "histogram",
        "Seconds until they yielded, as the ear heard it",
    ),
    Row(
        "trunkline_jitter_seconds",
        "histogram",
        "How much later the latest frame of a stream came than its earliest one, every 5 s. Where "
        "a gateway reads two frames of a call together, 20 ms of it are the gateway's doing",
    ),
    Row("trunkline_frames_total", "counter", "Frames of 20 ms of all calls", ("direction",)),
    Row("trunkline_frames_lost_total", "counter", "Frames of the far end that never came"),
    Row(
        "trunkline_underruns_total",
        "counter",
        "Holes that a far end heard because our sound came late",
    ),
    Row("trunkline_live_frames_in", "gauge", "Frames of the live calls that came"),
    Row("trunkline_live_frames_out", "gauge", "Frames of the live calls that were sent"),
    Row("trunkline_live_frames_lost", "gauge", "Frames of the live calls that never came"),
    Row("trunkline_live_underruns", "gauge", "Holes in the live calls"),
    Row("trunkline_overrides", "gauge", "Numbers that are not as they were", ("state",)),
    Row(
        "trunkline_restore_oldest_seconds",
        "gauge",
        "For how long the number that waits longest has been on its way back; 0 if none is",
    ),
    Row(
        "trunkline_restore_seconds",
        "histogram",
        "How long it took until a number was as it was before",
    ),
    Row(
        "trunkline_rest_seconds",
        "histogram",
        "How long Twilio took to answer a request of ours, or to fail",
        ("request",),
    ),
    Row("trunkline_rest_failed_total", "counter", "Requests to Twilio that failed", ("why",)),
    Row("trunkline_cap_left", "gauge", "How much of a cap is left", ("setting",)),
    Row("trunkline_gateway_refused_total", "counter", "What gateways have refused", ("kind",)),
    Row("trunkline_events_total", "counter", "What has happened, by its name", ("event",)),
)

_FAMILIES: Final = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily}
_ROWS: Final = {row.name: row for row in METRICS}
#: Values by those of the labels.
Values = Iterable[tuple[tuple[str, ...], float]]


class Metrics(Collector):
    """All metrics of a stack, for Prometheus's client and for OTLP."""

    def __init__(self, book: Book, clock: Clock) -> None:
        self._book = book
        self._clock = clock
        self._version = version("trunkline")

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering it need not collect once more."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All of them, as they are now."""
        now = self._clock()
        told = status.build(self._book, now)
        found = self._of_status(told) | self._of_book(now)
        for row in METRICS:
            if row.kind == "histogram":
                yield self._histogram(row)
                continue
            family: Any = _FAMILIES[row.kind](row.name, row.help, labels=row.labels)
            for labels, value in found[row.name]:
                family.add_metric(labels, value)
            yield family

    def _histogram(self, row: Row) -> Metric:
        name = row.name.removeprefix("trunkline_").removesuffix("_seconds")
        family = HistogramMetricFamily(row.name, row.help, labels=row.labels)
        for value in HISTOGRAMS[name].values:
            histogram = self._book.measures.histograms[name, value]
            up_to = [*map(str, histogram.bounds), "+Inf"]
            buckets = list(zip(up_to, itertools.accumulate(histogram.counts), strict=True))
            family.add_metric([value] if row.labels else [], buckets, histogram.sum)
        return family

    def _of_status(self, told: dict[str, Any]) -> dict[str, Values]:
        silent = Counter(row["role"] for row in told.get("unhealthy", ()))
        by_state = {
            "calls": dict.fromkeys((state for state in CALL if state != "ended"), 0),
            "overrides": dict.fromkeys(("planned", "applied", "restoring"), 0),
        }
        for name, states in by_state.items():
            for row in told[name]:
                states[row["state"]] += 1
        found: dict[str, Values] = {
            f"trunkline_{name}": [((state,), count) for state, count in states.items()]
            for name, states in by_state.items()
        }
        for name in ("gateways", "codec_workers", "sessions"):
            found[f"trunkline_{name}"] = _one(len(told[name]))
        for name in ("frames_in", "frames_out", "frames_lost", "underruns"):
            found[f"trunkline_live_{name}"] = _one(sum(call[name] for call in told["calls"]))
        hosts = {row["id"]: row.get("host") for row in (*told["gateways"], *told["codec_workers"])}
        ends = [
            [hosts.get(call[name]) for name in ("gateway", "codec_worker")]
            for call in told["calls"]
        ]
        return found | {
            "trunkline_calls_across_hosts": _one(
                sum(None not in (here, there) and here != there for here, there in ends)
            ),
            "trunkline_epoch": _one(told["controller"]["epoch"]),
            "trunkline_unhealthy": [
                ((role,), silent[role]) for role in ("gateway", "codec_worker")
            ],
            "trunkline_dropped_messages_total": [
                ((row["id"], why), number)
                for row in (*told["gateways"], *told["codec_workers"])
                for why, number in sorted(row.get("dropped", {}).items())
            ],
            "trunkline_cap_left": [
                ((cap["setting"],), cap["left"]) for cap in told.get("caps", ())
            ],
        }

    def _of_book(self, now: float) -> dict[str, Values]:
        book, frames = self._book, self._book.measures.frames
        counters = {
            "trunkline_gateway_refused_total": book.refused,
            "trunkline_events_total": book.counts,
            "trunkline_rest_failed_total": book.measures.rest_failed,
            "trunkline_frames_total": {"in": frames["frames_in"], "out": frames["frames_out"]},
        }
        found: dict[str, Values] = {
            name: [((value,), number) for value, number in sorted(counts.items())]
            for name, counts in counters.items()
        }
        return found | {
            "trunkline_build_info": [((self._version,), 1)],
            "trunkline_frames_lost_total": _one(frames["frames_lost"]),
            "trunkline_underruns_total": _one(frames["underruns"]),
            "trunkline_restore_oldest_seconds": _one(book.oldest_restore(now)),
        }


def _one(value: float) -> Values:
    """The value of a metric without labels."""
    return [((), value)]
