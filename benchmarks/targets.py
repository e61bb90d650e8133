"""What trunkline holds itself to, beside what was measured last: a section of docs/benchmarks.md.

Each target has a least, which is owed, and some have a goal. Where a benchmark has not run there is
a dash, and what misses its least says so.
"""

from __future__ import annotations

import statistics
from typing import Any, Final, NamedTuple

from benchmarks import page, scaling

ADAPTER: Final = "trunkline's adapter"


class Target(NamedTuple):
    """``measured`` is to be ``least`` or less; or more, where ``more`` says so."""

    what: str
    measured: float | None
    least: float
    goal: float | None = None
    digits: int = 1
    more: bool = False

    @property
    def missed(self) -> bool:
        if self.measured is None:
            return False
        return self.measured < self.least if self.more else self.measured > self.least

    def cells(self) -> list[str]:
        """Its row."""
        told = "–" if self.measured is None else f"{self.measured:,.{self.digits}f}"
        told = f"**{told}, missed**" if self.missed else told
        return [self.what, told, f"{self.least:g}", "" if self.goal is None else f"{self.goal:g}"]


def targets(left: dict[str, Any]) -> list[Target]:
    """All of them, by what the benchmarks have ``left``, by name."""
    found = page.Found(left["results"])

    def median(calls: int, key: str, side: str = page.OURS) -> float | None:
        spread = found.spread(calls, side, key)
        return spread.median if spread else None

    def ratio(calls: int, side: str = page.OURS) -> float | None:
        ours, theirs = median(calls, "cpu", side), median(calls, "cpu", page.PEER)
        return ours / theirs if ours and theirs else None

    def latency(calls: int, key: str) -> float | None:
        return next((one[key] for one in left.get("latency", []) if one["calls"] == calls), None)

    generator = median(300, "carrier_cpu")
    most = max(
        (entry["most"] for entry in left.get("capacity", {}).get("entries", [])), default=None
    )
    placed = [one["seconds"] for one in left.get("set_up", [])]
    cost = scaling.Cost(scaling.curve(left))
    gate = next((each["us"] for name, each in left.get("gate", {}).items() if "ours" in name), None)
    growth: dict[str, Any] = left.get("growth", {})
    return [
        Target(f"CPU ÷ {page.PEER}'s, 1 call", ratio(1), 1.6, 1.2, 2),
        *(
            Target(f"… {calls} calls", ratio(calls), least, goal, 2)
            for calls, least, goal in ((10, 0.9, 0.6), (40, 0.55, 0.4), (100, 0.4, 0.3))
        ),
        Target("… 40 calls of the adapter with its gate", ratio(40, ADAPTER), 0.8, 0.6, 2),
        Target("CPU at 300 calls, ms per call-second", median(300, "cpu"), 2.5, 1.8, 2),
        Target(
            "wake-ups a second of an idle stack (`idle.py`)",
            left.get("idle", {}).get("wake_ups_per_second"),
            *(80, 40, 0),
        ),
        *(
            Target(f"jitter p99 at {told}, ms", median(calls, "jitter_p99_ms"), least, goal)
            for calls, told, least, goal in (
                (1, "1 call", 2, 1),
                (100, "100 calls", 5, 3),
                (300, "300 calls", 20, 10),
            )
        ),
        Target("most calls (`capacity.py`)", most, 300, 500, 0, more=True),
        Target(
            "speech gate, ms per call-second (`gate.py`)", gate and gate * 50 / 1000, 1.5, 0.7, 2
        ),
        Target(
            "100 a-leg calls up, s (`set_up.py`)",
            statistics.median(placed) if placed else None,
            *(1, 0.5, 2),
        ),
        Target("memory per call, MB", cost.megabytes, 1, None, 2),
        Target(
            "… at the end of five minutes (`growth.py`)",
            scaling.held_by_call(growth, cost) if growth else None,
            *(1, None, 2),
        ),
        Target(
            "growth of 100 calls in 9.5 minutes, MB (`growth.py`)",
            scaling.added(growth) if growth else None,
            1,
        ),
        Target(
            "drift of one call in its 285 s, ms (`growth.py`)",
            max((abs(r["drift_ms"]) for r in growth["rounds"]), default=None) if growth else None,
            1,
        ),
        *(
            Target(f"{what}, {told}, p50, ms", latency(calls, f"{key}_p50_ms"), ms)
            for calls, told in ((1, "1 call"), (100, "100 calls"))
            for what, key, ms in (
                ("from `send_audio` to the carrier", "out", 10),
                ("from the carrier to `recv_audio`", "in", 10),
                ("from `interrupt` to the carrier", "interrupt", 100),
            )
        ),
        Target(
            "load generator at 500 calls, cores, by what it takes at 300",
            generator and generator * 500 / 1000,
            *(1, None, 2),
        ),
    ]


def section(left: dict[str, Any]) -> str:
    """The table."""
    rows = [target.cells() for target in targets(left)]
    table = page.markdown(["", "measured", "least", "goal"], rows)
    return page.template("targets").format(table=table)
