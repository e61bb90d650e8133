"""The counts of a chaos run, and its two tables: by kind of fault, and in all. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from benchmarks.chaos_faults import WHOLE
from benchmarks.chaos_judge import Verdict

#: A hole at a far end belongs to a fault that ended so many seconds before it at most.
BELONGS: Final = 2.5
#: Seconds without another fault around one that is alone: no hole can belong to both.
QUIET: Final = 2 * BELONGS + 0.5
FAULT_HEAD: Final = ["process", "signal", "times", "longest hole (ms)", "alone (times)"]
#: Faults that end calls, so that they leave no hole in them.
_ENDS_CALLS: Final = {tuple(what.split(",")[0].split()) for what in WHOLE}


@dataclass
class Injected:
    """A fault as it was carried out. ``at``, ``until``: monotonic."""

    kind: str
    how: str
    pid: int
    at: float
    until: float

    def owns(self, hole: float) -> bool:
        """A hole that began then belongs to the fault."""
        return self.at - 0.1 <= hole <= self.until + BELONGS

    def meets(self, other: Injected) -> bool:
        """They are so near in time that a hole may be of both."""
        near = 2 * BELONGS
        return self.at <= other.until + near and other.at <= self.until + near


@dataclass
class Score:
    """The counts of one run."""

    verdicts: list[Verdict] = field(default_factory=list)
    faults: list[Injected] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    #: (monotonic time, seconds) of each call that came up, and how long after it was asked for
    ups: list[tuple[float, float]] = field(default_factory=list)
    #: calls that ended with a client, or in the scenario of the whole stack
    with_client: int = 0
    with_stack: int = 0
    #: dials that a killed controller had journalled and did not get to the carrier
    never_sent: int = 0
    most_at_once: int = 0
    restores: int = 0
    #: the longest wait in seconds, by its subject
    took: dict[str, float] = field(default_factory=dict)

    def waited(self, what: str, seconds: float) -> None:
        """Keep the longest of each."""
        self.took[what] = max(seconds, self.took.get(what, 0.0))

    def holes(self, kind: str, how: str, *, alone: bool = False) -> list[float]:
        """The longest hole (seconds) after each fault of a kind, or after those that were alone."""
        holes = [hole for verdict in self.verdicts for hole in verdict.holes]
        return [
            max((seconds for at, seconds in holes if fault.owns(at)), default=0.0)
            for fault in self.faults
            if (fault.kind, fault.how) == (kind, how)
            and not (alone and any(f is not fault and f.meets(fault) for f in self.faults))
        ]

    def fault_rows(self) -> list[list[str]]:
        """By kind and signal: how often, and the longest hole that a far end heard after it."""
        rows = []
        for kind, how in dict.fromkeys((fault.kind, fault.how) for fault in self.faults):
            each, single = self.holes(kind, how), self.holes(kind, how, alone=True)
            if (kind, how) in _ENDS_CALLS:
                shown = ["its calls end", "its calls end"]
            else:
                alone = f"{max(single) * 1000:.0f} ({len(single)})" if single else "–"
                shown = [f"{max(each) * 1000:.0f}", alone]
            rows.append([kind, how, str(len(each)), *shown])
        return rows

    def total_rows(self) -> list[list[str]]:
        """The fate of all calls."""
        verdicts = self.verdicts
        kept = [v for v in verdicts if not v.dropped]
        lost = len(verdicts) - len(kept) - self.with_stack
        longest, at = max(((s, at) for v in kept for at, s in v.holes), default=(0.0, 0.0))
        before = [fault for fault in self.faults if fault.at <= at]
        after = (
            f", {at - before[-1].at:.1f} s after {before[-1].kind} {before[-1].how}"
            if before
            else ""
        )

        def total(name: str) -> float:
            return float(sum(getattr(v, name) for v in kept))

        def all_of(name: str) -> int:
            return int(sum(getattr(v, name) for v in verdicts))

        broken = total("streams") - len(kept)
        rows = {
            "faults injected": f"{len(self.faults)}",
            "calls": f"{len(verdicts) + self.with_client}, {self.most_at_once} at once",
            "seconds of calls": f"{sum(v.seconds for v in verdicts):.0f}",
            "calls kept": f"{len(kept)}",
            "calls that ended with their killed client": f"{self.with_client}",
            "calls that ended with the whole stack": f"{self.with_stack}",
            "calls lost otherwise": f"{lost}",
            "dials that a killed controller did not send": f"{self.never_sent}",
            "streams (reconnections)": f"{total('streams'):.0f} ({broken:.0f})",
            "frames doubled, to the far end / to the client": (
                f"{all_of('doubled_out')} / {all_of('doubled_in')}"
            ),
            "frames lost to the far end, reported": (
                f"{total('lost_out'):.0f}, {total('reported_out'):.0f}"
            ),
            "frames lost to the client, reported": (
                f"{total('lost_in'):.0f}, {total('reported_in'):.0f}"
            ),
            "calls with a loss that was not reported": (
                f"{sum(' frames lost ' in p for p in self.problems)}"
            ),
            "longest hole at a far end (ms)": f"{longest * 1000:.0f}{after}",
            "overrides put back": f"{self.restores}",
            "overrides not as before": f"{sum('as they were' in p for p in self.problems)}",
        } | {what: f"{seconds:.1f} s" for what, seconds in sorted(self.took.items())}
        return [list(row) for row in rows.items()]
