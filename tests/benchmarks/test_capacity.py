"""The search for the most calls."""

from __future__ import annotations

import pytest

from benchmarks import capacity


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
