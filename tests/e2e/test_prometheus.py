"""Debian's Prometheus watches a live stack: each query of the dashboard and of the alerts has data.

It needs ``prometheus`` and ``promtool``, which Debian has in one package.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from benchmarks.processes import ROOT, free_ports
from trunkline import Call, Line
from trunkline.controller.twilio.calls import RestFault

from .sound import speech
from .stack import ALICE, BOB, CALLEE, Stack, be_called, until

RULES = ROOT / "deploy" / "prometheus" / "trunkline.rules.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "trunkline.json"
#: Answers after a second, and says nothing between our first words and the next.
FAR_END = "echo:2"


class Prometheus:
    """One that watches the stack and evaluates the alerts."""

    def __init__(self, stack: Stack, directory: Path) -> None:
        config = {
            "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
            "rule_files": [str(RULES)],
            "scrape_configs": [
                {
                    "job_name": "trunkline",
                    "static_configs": [{"targets": [f"127.0.0.1:{stack.console}"]}],
                }
            ],
        }
        (directory / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self.process = stack.run(
            [
                "prometheus",
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
            ],
            "prometheus",
        )

    def get(self, path: str, **query: str) -> Any:
        """The data of an answer of its API; None while it does not answer."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  # our own
                return json.load(answer)["data"]
        except OSError:
            return None

    def values(self, query: str) -> list[float]:
        """What a query finds now."""
        found = self.get("query", query=query)
        rows = [] if found is None else found["result"]
        return [float(row["value"][1]) for row in rows]


async def converse(call: Call) -> None:
    """Ask, break into the answer, and hear the next one. It takes longer than 5 s, so that the
    gateways have a figure of each stream's jitter."""
    await call.send_audio(speech(1.0))
    await call.barge_in(speech(1.0, first=1), after=0.5)
    for _ in range(2):
        await call.next_turn(timeout=10)
    await call.hang_up()
    report = call.report()
    assert report.answers and report.yields


@pytest.mark.measures
async def test_every_panel_and_every_alert_has_data_of_a_live_stack(
    new_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    """And no alert begins, which a machine that is too busy for its calls would be right to give.
    So this is one of the tests that measure."""
    stack = new_stack()
    stack.environment["TRUNKLINE_MAX_CALLS"] = "50"
    stack.up()
    prometheus = Prometheus(stack, tmp_path)
    await until(lambda: prometheus.values("up == 1"), "Prometheus reads the stack")
    stack.sim.add_callee(CALLEE, FAR_END)
    lines = (Line(ALICE, allowed_callees=[CALLEE], bus=stack.bus), Line(BOB, bus=stack.bus))
    async with lines[0] as dials, lines[1] as answers:
        calls = [await dials.place_call(CALLEE, attach_stream="a-leg") for _ in range(3)]
        answered = await be_called(stack, answers, "echo")
        await asyncio.gather(*map(converse, calls))
        await answered.hang_up()
        assert promtool("check", "metrics", stdin=scrape(stack)) == "", "every name is a good one"

    def empty() -> list[str]:
        panels = [q for q in queries() if not any(map(math.isfinite, prometheus.values(q)))]
        return panels + dataless_alerts(prometheus)

    try:
        await until(lambda: not empty(), "all have data", 5.0)
    finally:
        assert empty() == []
    alerts = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert len(alerts) == RULES.read_text().count("- alert: ")
    assert {rule["name"]: (rule["health"], rule["state"]) for rule in alerts} == {
        rule["name"]: ("ok", "inactive") for rule in alerts
    }


def dataless_alerts(prometheus: Prometheus) -> list[str]:
    """Alerts whose side before the comparison finds nothing, or lacks a label that they name."""
    found = []
    for rule in (rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]):
        asked = re.fullmatch(r"(.+) (?:==|<=?|>) [0-9.]+", rule["query"], re.DOTALL)
        assert asked is not None, rule["query"]
        rows = prometheus.get("query", query=asked[1])["result"]
        named = re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"]))
        good = [row for row in rows if math.isfinite(float(row["value"][1]))]
        if not good or any(name not in row["metric"] for row in good for name in named):
            found.append(rule["name"])
    return found


def scrape(stack: Stack) -> str:
    """What /metrics says."""
    url = f"http://127.0.0.1:{stack.console}/metrics"
    with urllib.request.urlopen(url, timeout=5) as answer:  # our own console
        text: str = answer.read().decode()
        return text


def promtool(*argv: str, stdin: str = "") -> str:
    """What a command of it says; it finds nothing wrong."""
    done = subprocess.run(["promtool", *argv], input=stdin, capture_output=True, text=True)  # noqa: S607  # as users run it
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def queries() -> list[str]:
    """Those of all panels. Grafana puts a time in that fits the picture."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    found = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    assert len(found) > 20
    return [query.replace("$__rate_interval", "1m") for query in found]


def test_every_alert_fires_when_it_should() -> None:
    tests = yaml.safe_load(RULES.with_name("trunkline.rules_test.yml").read_text())["tests"]
    fires = {
        case["alertname"] for t in tests for case in t["alert_rule_test"] if case["exp_alerts"]
    }
    assert fires == set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    reasons = "|".join(re.findall(r'why=~?"(.+?)"', RULES.read_text())).split("|")
    assert set(reasons) <= set(get_args(RestFault))
    assert "SUCCESS" in promtool("check", "rules", str(RULES))
    assert "SUCCESS" in promtool("test", "rules", str(RULES.with_name("trunkline.rules_test.yml")))
    assert "SUCCESS" in promtool("check", "config", str(RULES.with_name("prometheus.yml")))
