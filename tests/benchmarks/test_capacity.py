"""The search for the most calls."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from benchmarks import capacity, page
from benchmarks.measure import Side


@pytest.mark.parametrize("most", [0, 9, 10, 35, 99, 100, 140, 333, 700, 1999])
def test_it_finds_the_most_within_a_twentieth(most: int) -> None:
    tried: list[int] = []

    def holds(calls: int) -> bool:
        tried.append(calls)
        return calls <= most

    found = capacity.search(holds)
    assert found <= most
    assert most - found <= max(capacity.STEP, most // 20) + capacity.STEP
    assert len(tried) == len(set(tried)) < 12


def test_it_stops_at_its_limit() -> None:
    assert capacity.search(lambda calls: True) == capacity.LIMIT


def entry(stack: int, most: int, **failed: object) -> dict[str, object]:
    good = [{"cpu": cpu} for cpu in (5.0, 4.0, 6.0)]
    return {"stack": stack, "most": most, "results": good, "failed": [failed] if failed else []}


def test_the_section_tells_what_ended_the_search_and_where_it_shows_overhead_alone() -> None:
    found = {"cores": 2, "seconds": 15.0, "tries": 3}
    one = entry(1, 140, calls=150, complaint=None, why="3 underruns")
    said = page.most_calls_part(found | {"entries": [one]})
    assert "| 1 | 140 | 5.0 | at 150: 3 underruns |" in said
    assert "overhead" not in said
    both = page.most_calls_part(found | {"entries": [one, entry(2, 2000)]})
    assert "| 2 | 2000 | 5.0 | nothing |" in both
    assert "A stack of 2 and 2, or more, has more processes than this machine has cores." in both


def test_what_is_found_has_to_hold_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def measure(side: Side, calls: int, seconds: float) -> dict[str, Any]:
        tried.append(calls)
        good = calls <= 150 and (calls <= 140 or tried.count(calls) < 3)
        return {"calls": calls, "streams": calls, "underruns": 1 - good} | dict.fromkeys(
            ("lost_out", "lost_in", "astray", "others_cores", "carrier_late_p99_ms"), 0
        )

    monkeypatch.setattr(capacity, "measure", measure)
    found = capacity.most_calls(1, 15.0, 3, Console(quiet=True))
    assert found["most"] == 140
    assert [r["calls"] for r in found["results"]] == [140] * 3
    assert [tried.count(n) for n in (100, 200, 150, 140)] == [1, 1, 3, 3]
