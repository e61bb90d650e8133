"""The pages of the benchmarks, of results that were made up."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import capacity, page, scaling, targets
from benchmarks.measure import complaint, is_whole

PROCESSES = ("gateway", "codec_worker", "client", "controller")


def result(calls: int, side: str = page.OURS, stack: int = 1, **given: Any) -> dict[str, Any]:
    """A measurement in which all went well. A call takes 1 ms in the gateway, 2 in the client; a
    process takes 10 ms a second by itself, and 40 MB."""
    by = dict(zip(PROCESSES, (1.0, 1.0, 2.0, 0.01), strict=True))
    running = {name: stack if name in ("gateway", "codec_worker") else 1 for name in by}
    cpu = {name: slope + 10.0 * running[name] / calls for name, slope in by.items()}
    return {
        "side": side,
        "stack": stack,
        "calls": calls,
        "seconds": 8.0,
        "streams": calls,
        "round": 0,
        "cpu": sum(cpu.values()),
        "cpu_by_process": cpu,
        "memory_mb": {name: 40.0 * running[name] + 0.1 * calls for name in by},
        "jitter_p50_ms": 0.5,
        "jitter_p99_ms": 2.0,
        "drift_ms": 0.1,
        "underruns": 0,
        "lost_out": 0,
        "lost_in": 0,
        "astray": 0,
        "setup_s": 1.0,
        "carrier_cpu": 1.0,
        "carrier_cores": 0.1,
        "carrier_late_p99_ms": 1.0,
        "carrier_waited": 0.5,
        "others_cores": 0.0,
    } | given


MACHINE = {"cores": 2, "system": "Linux", "python": "3.11", "day": "2026-01-01", "busy_cores": 0.0}


def found(*results: dict[str, Any]) -> page.Found:
    return page.Found({"machine": MACHINE, "seconds": 8.0, "results": list(results)})


def test_a_cell_has_the_median_and_in_brackets_the_least_and_the_greatest() -> None:
    rounds = [result(40, cpu=cpu, round=n) for n, cpu in enumerate((7.0, 5.04, 6.0))]
    cells = dict(zip(page.HEAD, found(*rounds).cells(40, page.OURS), strict=True))
    assert cells["CPU, ms per call-second"] == "6.0 (5.0 to 7.0)"
    assert cells["underruns"] == "0"


def test_what_cannot_be_told_is_a_dash() -> None:
    cells = found(result(1, "pipecat", lost_in=None)).cells(1, "pipecat")
    assert cells[page.HEAD.index("in")] == "–"


def test_readme_gives_the_ratios_good_and_bad() -> None:
    said = page.paragraph(
        found(
            result(1, cpu=80.0),
            result(1, page.PEER, cpu=40.0),
            result(100, cpu=5.0),
            result(100, page.PEER, cpu=10.0, underruns=70_000, jitter_p99_ms=500.0),
            result(1, "trunkline's adapter", cpu=120.0),
            result(1, page.PROMPT.name, cpu=100.0),
        )
    )
    assert "2.00 at 1 and 0.50 at 100" in said
    assert "0 times here and 70,000 times there" in said
    assert "1.50 at 1" in said
    assert "100 ms at a time, as scenario's adapter hands it out" in said
    assert "the same is 2.50 at 1." in said


def test_a_page_warns_of_a_machine_that_was_not_at_rest() -> None:
    busy = found(result(10, others_cores=0.7))
    assert "10 calls of trunkline: other processes took 0.7 cores meanwhile." in page.page(busy)
    assert "**" not in page.page(found(result(10))).partition("- **trunkline**")[0]


def everything(*results: dict[str, Any]) -> dict[str, Any]:
    """What all benchmarks left, by name."""
    others = {"gateway": 60.0, "codec_worker": 70.0, "controller": 40.0, "up": 20.0}
    memory = [others | {"client": 73.68 + n / 60} for n in range(120)]
    rounds = [
        {"memory": memory[:60], "drift_ms": -0.2, "underruns": 0},
        {"memory": memory[60:], "drift_ms": 0.1, "underruns": 3},
    ]
    # On a machine that hardly keeps up, memory says nothing of a call.
    loudest = result(400, stack=2, seconds=15.0, memory_mb=dict.fromkeys(PROCESSES, 900.0))
    most = {"stack": 2, "most": 400, "results": [loudest] * 3, "failed": []}
    return {
        "results": {"machine": MACHINE, "seconds": 8.0, "results": list(results)},
        "capacity": {"cores": 2, "seconds": 15.0, "tries": 3, "entries": [most]},
        "growth": {"calls": 100, "seconds": 285.0, "rounds": rounds},
        "idle": {"wake_ups_per_second": 96.0},
        "set_up": [{"seconds": seconds} for seconds in (1.2, 0.8, 0.9)],
        "gate": {"energy gate (ours)": {"us": 30.0}},
        "latency": [{"calls": 100, "out_p50_ms": 8.0, "in_p50_ms": 9.0, "interrupt_p50_ms": 7.0}],
    }


LINE = [result(n, stack=1 if n <= 100 else 2) for n in (1, 10, 40, 100, 200, 300)]


def test_what_is_owed_stands_beside_what_was_measured() -> None:
    said = targets.section(everything(*LINE, result(40, page.PEER, cpu=8.1)))
    for row in (
        "| CPU ÷ langwatch-scenario's, 1 call | – | 1.6 | 1.2 |",
        "| … 40 calls | **0.62, missed** | 0.55 | 0.4 |",
        "| wake-ups a second of an idle stack (`idle.py`) | **96, missed** | 80 | 40 |",
        "| most calls (`capacity.py`) | 400 | 300 | 500 |",
        "| speech gate, ms per call-second (`gate.py`) | 1.50 | 1.5 | 0.7 |",
        "| 100 a-leg calls up, s (`set_up.py`) | 0.90 | 1 | 0.5 |",
        "| from `interrupt` to the carrier, 100 calls, p50, ms | 7.0 | 100 |  |",
    ):
        assert row in said


def test_cost_beyond_the_bend_is_a_start_and_a_slope_for_each_process() -> None:
    cost = scaling.Cost(found(*LINE))
    assert cost.cpu["client"] == (pytest.approx(10.0), pytest.approx(2.0))
    assert cost.call == pytest.approx(4.01)
    assert cost.megabytes == pytest.approx(0.4)
    assert scaling.Cost(scaling.curve(everything(*LINE))).megabytes == pytest.approx(0.4)
    assert cost.first_full == "client"
    assert cost.one("client") == pytest.approx(350, abs=1)
    assert cost.calls_on(16) == int(0.7 * 16_000 / 4.01)
    # 10,000 calls: 29 test processes, 15 gateways, 15 workers, one controller, and 0.4 MB a call.
    assert cost.memory_of(10_000) == pytest.approx(40 * (29 + 15 + 15 + 1) + 4_000)


def test_the_page_on_scaling_says_what_was_measured() -> None:
    said = scaling.text(everything(*LINE))
    assert "2.00 (client)" in said
    assert "| 400 | 2.02 |" in said  # the most calls are the curve's end
    assert "| as large as it takes | 10,000 | 58 |" in said
    assert "| 1,000,000 |" in said
    assert "grow by 1.2 MB" in said
    # 245.6 MB at the end, less 4 processes of 40 MB and 285 s of speech.
    assert "At that\nend a call takes 0.72 MB" in said
    assert "the client: it is one Python process" in said
    few = {name: left for name, left in everything(*LINE).items() if name == "results"}
    assert "{" not in scaling.text(few)


@pytest.mark.parametrize("key", ["underruns", "lost_out", "lost_in", "astray"])
def test_a_measurement_is_whole_when_nothing_ran_dry_or_was_lost(key: str) -> None:
    assert is_whole(result(10))
    assert not is_whole(result(10, **{key: 1}))
    assert not is_whole(result(10, streams=9))
    assert "1 " in capacity.why_not(result(10, **{key: 1}))


def test_a_load_generator_that_was_late_says_whether_it_was_the_bottleneck() -> None:
    assert complaint(result(10)) is None
    late = result(10, carrier_late_p99_ms=9.0)
    assert complaint(late) == (
        "the load generator waited for a core 50% of the time: its ticks came up to 9 ms late (p99)"
    )
    assert "was the bottleneck" in (complaint(late | {"carrier_cores": 0.9}) or "")
