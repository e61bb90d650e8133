"""The figures of a load test: one row for each step of the ramp. No I/O.

A step's percentiles are of all answers of all its calls, and are None under 20 answers, as in a
report of the ear.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from trunkline.ear.figures import Report, Spread, spread

from ..gates import limits as gates
from ..reports.cost import begun_minutes

#: The limit that only a load test has: how many calls of a step may fail.
FAILURES: Final = "failures"
#: How a call fails that has come up: nobody answered the question, or the far end hung up first.
SILENT: Final = "silent"
HUNG_UP: Final = "hung up"
#: Reasons that are told of one step's recordings.
_MOST_REASONS: Final = 5


def steps(most: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, … calls at a time, and ``most`` in the end."""
    found = []
    for calls in (digit * 10**zeros for zeros in range(9) for digit in (1, 2, 5)):
        if calls >= most:
            break
        found.append(calls)
    return [*found, most]


@dataclass
class Step:
    """So many calls at a time, and how they went so far."""

    concurrency: int
    dialled: int = 0
    #: calls that are up now
    up: int = 0
    #: how calls failed, and the error of the first of each kind
    failures: Counter[str] = field(default_factory=Counter)
    said: dict[str, str] = field(default_factory=dict)
    #: calls that came up and are over: CallSid, how long each lasted (seconds), its report
    sids: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)

    def fail(self, kind: str, said: str = "") -> None:
        """A call has failed."""
        self.failures[kind] += 1
        self.said.setdefault(kind, said)

    def note(self, sid: str, seconds: float, report: Report) -> None:
        """A call that came up is over."""
        self.sids.append(sid)
        self.seconds.append(seconds)
        self.reports.append(report)

    @property
    def latencies(self) -> list[float]:
        return gates.samples_of(self.reports).latency


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One step as it stands in the JSON. ``answered``: calls that came up. ``failures``: how many
    calls failed, by kind."""

    concurrency: int
    answered: int
    failures: dict[str, int]
    latency: Spread
    talk_over_seconds: float
    reliable: bool
    unreliable_because: list[str]


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """The whole load test as JSON. ``broken``: limits that were not kept. ``stopped``: why the ramp
    ended early. ``cost``: None where nobody has told the price of a minute."""

    to: str
    caller: str = msgspec.field(name="from")
    steps: list[Row]
    calls: int
    minutes: int
    cost: float | None
    broken: list[str]
    stopped: str | None


def row(step: Step) -> Row:
    """The figures of a step."""
    because = [
        f"{sid}: {reason}"
        for sid, report in zip(step.sids, step.reports, strict=True)
        for reason in report.unreliable_because
    ]
    more = len(because) - _MOST_REASONS
    return Row(
        concurrency=step.concurrency,
        answered=len(step.reports),
        failures=dict(step.failures),
        latency=spread(step.latencies),
        talk_over_seconds=max((report.talk_over_seconds for report in step.reports), default=0.0),
        reliable=bool(step.reports) and not because,
        unreliable_because=because[:_MOST_REASONS] + ([f"and {more} more"] if more > 0 else []),
    )


def read_limits(text: str) -> dict[str, float]:
    """``latency_p95=1.5,failures=0`` as a mapping. ValueError that names a part which is wrong."""
    found: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = part.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            raise ValueError(
                f"{part!r} is no limit: write, for instance, latency_p95=1.5"
            ) from None
    gates.check_names({name: n for name, n in found.items() if name != FAILURES}, "--limits")
    if FAILURES in found:
        gates.check_number(FAILURES, found[FAILURES], "--limits")
    return found


def broken(steps: Sequence[Step], limits: Mapping[str, float]) -> list[str]:
    """Where steps break the limits, one line each; a bad recording is told before anything else."""
    if not limits:
        return []
    found = []
    most = limits.get(FAILURES)
    others = {name: limit for name, limit in limits.items() if name != FAILURES}
    for step in steps:
        failed = step.failures.total()
        if most is not None and failed > most:
            found.append(_of(step, f"{FAILURES} is {failed}, over {most:g}"))
        if others:
            found += [_of(step, text) for text in gates.broken(step.reports, others)]
    return found


def _of(step: Step, text: str) -> str:
    return f"{step.concurrency} at a time: {text}"


def load(
    to: str,
    caller: str,
    steps: Sequence[Step],
    limits: Mapping[str, float],
    price: float | None,
    stopped: str | None,
) -> Load:
    """The whole load test."""
    minutes = sum(begun_minutes(seconds) for step in steps for seconds in step.seconds)
    return Load(
        to=to,
        caller=caller,
        steps=[row(step) for step in steps],
        calls=sum(step.dialled for step in steps),
        minutes=minutes,
        cost=None if price is None else round(minutes * price, 4),
        broken=broken(steps, limits),
        stopped=stopped,
    )
