"""The arithmetic of ten thousand calls, of results that were made up, and the journal's rows."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import ten_thousand
from benchmarks.control_plane import written
from benchmarks.postgres_server import Server
from benchmarks.ten_thousand import Control, bottlenecks

from .test_pages import LINE, everything


def measured(calls: int) -> dict[str, Any]:
    """A call that comes takes 3 ms, one that ends 1 ms, and a call that stands 0.1 ms a second."""
    each = {"calls": calls, "comes_ms": 3.0, "ends_ms": 1.0, "stands_ms": calls / 10}
    return each | {"of_beats_ms": calls / 20}


FOUND = {
    "calls": [measured(100), measured(1_000), measured(10_000)],
    "database": [
        {"at_once": 1, "calls_a_second": 100.0, "transactions": 4.0, "wal_bytes": 2000.0},
        {"at_once": 50, "calls_a_second": 200.0, "transactions": 0.1, "wal_bytes": 2000.0},
    ],
}


@pytest.mark.parametrize("calls", [50, 100, 550, 10_000, 100_000])
def test_the_controllers_cost_is_on_the_line_through_what_was_measured(calls: int) -> None:
    moves = 0.004 * calls / ten_thousand.LASTS
    assert Control(FOUND).cores(calls) == pytest.approx(calls / 10_000 + moves)


def test_the_fullest_comes_first() -> None:
    names = [name for name, _ in bottlenecks(100_000, Control(FOUND))]
    assert names[0] == "calls a second that Twilio starts"
    (controller,) = [times for name, times in bottlenecks(9_000, Control(FOUND)) if "core" in name]
    assert controller == pytest.approx((0.9 + 0.2) / 0.7)


def test_the_page_has_a_row_for_each_of_them() -> None:
    said = ten_thousand.text(everything(*LINE) | {"control_plane": FOUND})
    assert "| controllers | 1 | 2 | 18 |" in said
    assert "| database transactions a second, at most | 22 | 222 | 2222 |" in said
    assert "| 10,000 | 3.00 | 1.00 | 1000 | 500 |" in said


async def test_each_call_is_four_rows_and_those_of_many_go_together(postgres: Server) -> None:
    url = postgres.database()
    alone, together = await written(url, 20, 1), await written(url, 60, 20)
    assert alone["transactions"] == pytest.approx(4.0, abs=0.3)
    assert together["transactions"] < 2.0
    assert alone["wal_bytes"] > 0
