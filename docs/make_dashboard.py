"""Writes the Grafana dashboard (deploy/grafana/dashboards/trunkline.json) from the panels below.

Run by ``make docs``; with ``--check`` it changes nothing and exits 1 where the file is out of date.
tests/e2e/test_prometheus.py asks a Prometheus that watches a live stack for each panel's queries.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from make_bus import keep

DASHBOARD: Final = Path(__file__).parents[1] / "deploy/grafana/dashboards/trunkline.json"
_SOURCE: Final = {"type": "prometheus", "uid": "${source}"}
#: Grafana's grid is 24 wide.
_WIDTH: Final = 24


@dataclass(frozen=True)
class Panel:
    """``queries``: PromQL -> legend. ``one``: a single number instead of a curve. ``red``: from
    this value on something is wrong."""

    title: str
    queries: dict[str, str]
    unit: str = "short"
    one: bool = False
    red: float | None = None
    help: str = ""


def quantiles(metric: str, *, by: str = "", of: tuple[float, ...] = (0.5, 0.95)) -> dict[str, str]:
    """These quantiles of a histogram, apart by a label."""
    labels = f"{by}, le" if by else "le"
    rate = f"sum by ({labels}) (rate(trunkline_{metric}_seconds_bucket[$__rate_interval]))"
    shown = f"{{{{{by}}}}} " if by else ""
    return {f"histogram_quantile({q}, {rate})": f"{shown}p{100 * q:g}" for q in of}


def rates(metric: str, by: str, times: str = "") -> dict[str, str]:
    """How many a second, apart by a label."""
    return {f"sum by ({by}) (rate(trunkline_{metric}[$__rate_interval])){times}": f"{{{{{by}}}}}"}


ROWS: Final[dict[str, tuple[Panel, ...]]] = {
    "Now": (
        Panel("Calls", {"sum(trunkline_calls)": ""}, one=True),
        Panel("Sessions", {"trunkline_sessions": ""}, one=True),
        Panel("Gateways", {"trunkline_gateways": ""}, one=True),
        Panel("Codec workers", {"trunkline_codec_workers": ""}, one=True),
        Panel("Processes that hang", {"sum(trunkline_unhealthy)": ""}, one=True, red=1),
        Panel(
            "Restores pending",
            {'sum(trunkline_overrides{state="restoring"})': ""},
            one=True,
            red=1,
            help="Numbers on their way back to the settings that they had before",
        ),
    ),
    "Calls": (
        Panel("Calls by state", {"sum by (state) (trunkline_calls)": "{{state}}"}),
        Panel(
            "Calls begun a minute",
            rates('events_total{event=~"calls (inbound|outbound)"}', "event", " * 60"),
        ),
        Panel("Set-up", quantiles("setup", by="direction"), "s"),
        Panel(
            "Webhooks and streams that were refused, a minute",
            rates("gateway_refused_total", "kind", " * 60"),
        ),
    ),
    "Conversations": (
        Panel(
            "Latency of answers, as heard",
            quantiles("answer_latency"),
            "s",
            help="Of calls whose report somebody has looked at",
        ),
        Panel("Time to yield, as heard", quantiles("time_to_yield"), "s"),
    ),
    "Sound": (
        Panel("Frames a second", rates("frames_total", "direction")),
        Panel(
            "Frames lost, and holes that far ends heard, a second",
            {
                "sum(rate(trunkline_frames_lost_total[$__rate_interval]))": "lost",
                "sum(rate(trunkline_underruns_total[$__rate_interval]))": "holes",
            },
        ),
        Panel("Jitter of Twilio's frames", quantiles("jitter", of=(0.5, 0.99)), "s"),
        Panel(
            "How late processes are woken (p99)",
            quantiles("wakeup_lateness", by="role", of=(0.99,)),
            "s",
            red=0.06,
        ),
    ),
    "Numbers and Twilio": (
        Panel("Overrides", {"sum by (state) (trunkline_overrides)": "{{state}}"}),
        Panel(
            "Restores",
            quantiles("restore") | {"trunkline_restore_oldest_seconds": "the oldest pending"},
            "s",
        ),
        Panel("Requests to Twilio (p95)", quantiles("rest", by="request", of=(0.95,)), "s"),
        Panel("Failed requests to Twilio, a minute", rates("rest_failed_total", "why", " * 60")),
    ),
    "The stack": (
        Panel("What is left of the caps", {"trunkline_cap_left": "{{setting}}"}),
        Panel("Starts of the controller", {"trunkline_epoch": ""}),
        Panel(
            "Messages of the bus that were dropped, a second",
            {
                "sum by (why) (rate(trunkline_dropped_messages_total[$__rate_interval])) "
                "or vector(0)": "{{why}}"
            },
        ),
    ),
}


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.red is not None:
        steps.append({"color": "red", "value": panel.red})
    return {
        "id": number,
        "type": "stat" if panel.one else "timeseries",
        "title": panel.title,
        "description": panel.help,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "thresholds": {"mode": "absolute", "steps": steps},
            },
            "overrides": [],
        },
        "targets": [
            {"refId": chr(65 + n), "datasource": _SOURCE, "expr": query, "legendFormat": legend}
            for n, (query, legend) in enumerate(panel.queries.items())
        ],
    }


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        header = {"h": 1, "w": _WIDTH, "x": 0, "y": top}
        panels.append({"id": len(panels) + 1, "type": "row", "title": title, "gridPos": header})
        top += 1
        width, height = _WIDTH // len(row), 4 if row[0].one else 8
        for n, panel in enumerate(row):
            place = {"h": height, "w": width, "x": n * width, "y": top}
            panels.append(_panel(panel, len(panels) + 1, place))
        top += height
    return {
        "uid": "trunkline",
        "title": "trunkline",
        "tags": ["trunkline"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [{"name": "source", "type": "datasource", "query": "prometheus", "hide": 2}]
        },
        "panels": panels,
    }


if __name__ == "__main__":
    sys.exit(keep(DASHBOARD, json.dumps(dashboard(), indent=2) + "\n"))
