"""The report: its JSON, its percentiles, its price, and how exact it is."""

from __future__ import annotations

import json

import pytest

from benchmarks.ear import measure
from benchmarks.ear_calls import conversation
from trunkline.ear.figures import spread
from trunkline.ear.listen import listen

#: Every key of the report, in its order. A list has the keys of its items.
SHAPE = {
    "seconds": float,
    "reliable": bool,
    "unreliable_because": list,
    "sides": {"ours": {}, "theirs": {}},
    "answers": {"after", "start", "latency"},
    "yields": {"at", "seconds"},
    "false_yields": {"at"},
    "interruptions_by_them": {"at", "seconds"},
    "talk_over_seconds": float,
    "silences": {"start", "end"},
    "digits": {"at", "side", "digit"},
    "frames_lost": int,
    "jitter_ms": type(None),
    "latency": {"n", "p50", "p90", "p95", "max"},
    "time_to_yield": {"n", "p50", "p90", "p95", "max"},
}


def test_the_json_has_these_keys_and_no_others() -> None:
    ours, theirs = conversation(4).sound()
    report = listen(ours, theirs)
    found = json.loads(report.to_json())
    assert list(found) == list(SHAPE)
    for key, kind in SHAPE.items():
        if isinstance(kind, set):
            items = found[key] if isinstance(found[key], list) else [found[key]]
            assert all(set(item) == kind for item in items), key
        elif isinstance(kind, type):
            assert isinstance(found[key], kind), key
    side = {"segments", "speech_seconds", "level_dbfs", "clipped_frames"}
    assert set(found["sides"]) == {"ours", "theirs"}
    assert set(found["sides"]["ours"]) == side
    assert found["answers"] and found["yields"] and found["silences"]
    assert report["latency"]["max"] == report.latency.max == found["latency"]["max"]
    with pytest.raises(KeyError):
        report["nothing"]


def test_percentiles_need_twenty_samples() -> None:
    assert spread([]).max is None
    few = spread([0.5] * 19)
    assert (few.n, few.p50, few.p90, few.p95, few.max) == (19, None, None, None, 0.5)
    many = spread([n / 100 for n in range(101)])
    assert (many.n, many.p50, many.p90, many.p95, many.max) == (101, 0.5, 0.9, 0.95, 1.0)


@pytest.mark.parametrize(
    ("noise", "p95", "most"),
    [("clean", 20, 60), ("line", 50, 150), ("white", 50, 150), ("pink", 50, 150)],
)
def test_the_ear_is_as_exact_as_the_page_says(noise: str, p95: int, most: int) -> None:
    score = measure(noise, 15.0, calls=12, first=1000)
    for errors in (score.edges, score.latency, score.time_to_yield):
        assert errors.p95 <= p95
        assert errors.most <= most
        assert errors.missed == 0 and errors.made_up <= 1
