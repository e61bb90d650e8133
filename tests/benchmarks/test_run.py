"""What a run of the benchmark measures, and how long it takes."""

from __future__ import annotations

import pytest

from benchmarks import page, run


def named(*, quick: bool) -> list[tuple[str, int]]:
    return [(side.name, calls) for side, calls in run.plan(quick=quick)]


@pytest.mark.parametrize(
    ("side", "counts"),
    [
        (page.OURS, [1, 10, 40, 100, 200, 300]),
        ("trunkline, 20 ms at a time", [1, 40, 100]),
        (page.PEER, [1, 10, 40, 100]),
        ("trunkline's adapter", [1, 40]),
        ("pipecat", [1, 40]),
    ],
)
def test_a_whole_run_has_every_side_at_its_numbers_of_calls(side: str, counts: list[int]) -> None:
    assert [calls for name, calls in named(quick=False) if name == side] == counts


def test_the_page_knows_every_side() -> None:
    assert {name for name, _ in named(quick=False)} == set(page.COLOURS)
    assert set(named(quick=True)) <= set(named(quick=False))


def test_one_gateway_and_one_worker_up_to_100_calls_and_two_of_each_above() -> None:
    line = {calls: s.stack for s, calls in run.plan(quick=False) if s.name == page.OURS}
    assert line == {1: 1, 10: 1, 40: 1, 100: 1, 200: 2, 300: 2}


@pytest.mark.parametrize(("quick", "rounds", "minutes"), [(False, 3, 15), (True, 1, 3)])
def test_it_takes_no_longer_than_it_says(quick: bool, rounds: int, minutes: int) -> None:
    every = run.plan(quick=quick)
    further = 0.0 if quick else sum(run.FURTHER.values())
    spent = rounds * sum(run.estimate(s, n, run.SECONDS) for s, n in every)
    assert spent + further < minutes * 60
