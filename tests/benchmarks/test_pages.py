"""The pages of the benchmarks, of results that were made up."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import capacity, page
from benchmarks.measure import complaint, is_whole


def result(calls: int, side: str = page.OURS, **given: Any) -> dict[str, Any]:
    """A measurement in which all went well. A call takes 1 ms in the gateway, 2 in the client; a
    process takes 10 ms a second by itself."""
    by = {"gateway": 1.0, "codec_worker": 1.0, "client": 2.0, "controller": 0.01}
    cpu = {name: slope + 10.0 / calls for name, slope in by.items()}
    return {
        "side": side,
        "calls": calls,
        "streams": calls,
        "round": 0,
        "cpu": sum(cpu.values()),
        "cpu_by_process": cpu,
        "memory_mb": {name: 40.0 + 0.1 * calls for name in by},
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
        )
    )
    assert "2.00 at 1 and 0.50 at 100" in said
    assert "0 times here and 70,000 times there" in said
    assert "1.50 at 1" in said


def test_a_page_warns_of_a_machine_that_was_not_at_rest() -> None:
    busy = found(result(10, others_cores=0.7))
    assert "10 calls of trunkline: other processes took 0.7 cores meanwhile." in page.page(busy)
    assert "**" not in page.page(found(result(10))).partition("- **trunkline**")[0]


def test_what_an_idle_stack_a_set_up_and_the_gate_take_is_a_section() -> None:
    idle = {"wake_ups_per_second": 29.6, "cpu_ms_per_second": 4.04}
    gate = {"energy gate (ours)": {"us": 30.0}}
    said = page.also(idle, [{"seconds": seconds} for seconds in (1.2, 0.8, 0.9)], gate)
    assert "wakes 30 times a second" in said
    assert "takes 4.0 ms of CPU" in said
    assert "after 0.90 s, the median of 3 rounds" in said
    assert "takes 1.50 ms per call-second" in said


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
