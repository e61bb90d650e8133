"""What ``/metrics`` has: a table of all metrics, and their values from the book, at each scrape.

:data:`METRICS` is the one list. A metric that is not in it cannot be told, and docs/metrics.md is
drawn from it. Values come from the same object as ``trunkline status --json``, from the book's
counters, and from what was measured (:mod:`.rules.book.measures`). Nothing is computed between two
scrapes. A scrape reads, for example::

    trunkline_calls{state="live"} 1.0
    trunkline_cap_left{setting="TRUNKLINE_MAX_CALLS"} 3.0
    trunkline_events_total{event="calls inbound"} 1.0
    trunkline_rest_seconds_bucket{le="0.5",request="find_number"} 1.0

Names follow Prometheus's rules (its page "Metric and label naming"): the unit is a base unit and
stands in the name (``_seconds``, never ms), and only a counter ends in ``_total``. A name is never
changed, because a dashboard that asks for the old one would show nothing and say nothing.
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
    """One metric. ``labels``: the names of its labels.

    ``help`` has no full stop: it is Prometheus's HELP line, and docs/metrics.md adds the stop, and
    the buckets of a histogram behind it.
    """

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

#: Histograms are made by :meth:`Metrics._histogram`, because their values are no single numbers.
_FAMILIES: Final = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily}
_ROWS: Final = {row.name: row for row in METRICS}
#: Values of one metric, each behind the values of its labels in the order of :attr:`Row.labels`.
#: For example ``[(("planned",), 0), (("applied",), 1)]``; ``[((), 7)]`` where there is no label.
Values = Iterable[tuple[tuple[str, ...], float]]


class Metrics(Collector):
    """All metrics of a stack, for Prometheus's client and for OTLP.

    It belongs to the controller's loop and takes no lock: it reads the book, which only the loop
    changes. The first who asks for ``/metrics`` or for OTLP makes it, and all later ones share it
    (``process.py``).
    """

    def __init__(self, book: Book, clock: Clock) -> None:
        self._book = book
        self._clock = clock
        self._version = version("trunkline")

    def describe(self) -> Iterable[Metric]:
        """Nothing. Prometheus's client asks for this when a collector is registered, to find names
        that come twice. Without it, a registry that has ``auto_describe`` would collect all of the
        metrics at that moment, for their names alone."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """One family for each row of the table. A row that nothing has a value for raises KeyError:
        a metric that is documented and never told would be found by nobody."""
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
        """Prometheus's buckets count up: each has all values up to its bound, and ``+Inf`` has all
        there are. Ours are apart, so that counting one value touches one number. Counts of 2, 1 and
        0 up to 0.5 s, up to 1 s and beyond become ``le="0.5"`` 2, ``le="1.0"`` 3, ``le="+Inf"``
        3."""
        name = row.name.removeprefix("trunkline_").removesuffix("_seconds")
        family = HistogramMetricFamily(row.name, row.help, labels=row.labels)
        for value in HISTOGRAMS[name].values:
            histogram = self._book.measures.histograms[name, value]
            up_to = [*map(str, histogram.bounds), "+Inf"]
            buckets = list(zip(up_to, itertools.accumulate(histogram.counts), strict=True))
            family.add_metric([value] if row.labels else [], buckets, histogram.sum)
        return family

    def _of_status(self, told: dict[str, Any]) -> dict[str, Values]:
        """What :func:`.status.build` shows, counted. ``told`` is that object, so ``/metrics`` and
        ``trunkline status`` can never differ."""
        silent = Counter(row["role"] for row in told.get("unhealthy", ()))
        # Each state is told, at 0 too. If a series came with the first such call and went with the
        # last, a graph would have a gap where it means 0.
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
        # These fall when a call is over, so they are gauges. `rate` needs trunkline_frames_total.
        for name in ("frames_in", "frames_out", "frames_lost", "underruns"):
            found[f"trunkline_live_{name}"] = _one(sum(call[name] for call in told["calls"]))
        # A process that has not said on which machine it runs is taken to be on none, and its calls
        # are not counted as crossing.
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
        """What has been counted since this controller's start, whichever process or call it came
        of. A restart begins at 0, which ``rate`` and ``increase`` take for a reset and not for a
        fall."""
        book, frames = self._book, self._book.measures.frames
        # Kinds of refusal and of failure are known beforehand, and begin at 0. Events have names
        # that the rules give them ("calls inbound"), so such a series begins with its first event.
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
    """The value of a metric without labels, for example of ``trunkline_epoch``: ``[((), 7)]``."""
    return [((), value)]
