"""Fault rules: order, counts, seeds, ends."""

from __future__ import annotations

import pytest

from trunkline.carrier_sim.faults import Fault, Faults


def test_the_first_that_matches_wins_and_counts() -> None:
    faults = Faults()
    first = faults.add(
        Fault(where="rest", kind="status", status=500, method="POST", path=r"Calls\.json$", count=2)
    )
    faults.add(Fault(where="rest", kind="latency", seconds=1.0))
    kinds = [getattr(faults.match("rest", "POST", "/Calls.json"), "kind", None) for _ in range(3)]
    assert kinds == ["status", "status", "latency"]
    assert (first.seen, first.fired) == (3, 2)
    assert faults.match("webhook", "POST", "/Calls.json") is None
    get = faults.match("rest", "GET", "/Calls.json")
    assert get is not None and get.kind == "latency"


def test_skip_leaves_the_first_alone() -> None:
    faults = Faults()
    faults.add(Fault(where="webhook", kind="drop", skip=2, count=1))
    found = [faults.match("webhook", "POST", "u") is not None for _ in range(4)]
    assert found == [False, False, True, False]


def test_probability_repeats_with_its_seed() -> None:
    def run(seed: int) -> list[bool]:
        faults = Faults()
        faults.add(Fault(where="webhook", kind="drop", probability=0.4, seed=seed))
        return [faults.match("webhook", "POST", "u") is not None for _ in range(200)]

    assert run(7) == run(7) != run(8)
    assert 50 < sum(run(7)) < 110


def test_rules_go_with_their_block_and_change_the_version() -> None:
    faults = Faults()
    with faults.during(Fault(where="stream", kind="stall")) as rule:
        assert faults.rules == [rule] and faults.version == 1
    assert faults.rules == [] and faults.version == 2
    with pytest.raises(KeyError):
        faults.remove(rule.id)


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="no fault 'stall' for 'rest'"):
        Fault(where="rest", kind="stall")
    with pytest.raises(ValueError, match="probability"):
        Fault(where="rest", kind="status", probability=2.0)
