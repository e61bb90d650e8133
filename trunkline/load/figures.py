"""The figures of a load test: one row for each step of the ramp. No I/O.

A step's percentiles are those of all answers in all of its calls. Under 20 answers they are None,
as in a report of the ear.
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
#: The kinds in which a call that came up may fail: nobody answered the question, or the far end
#: hung up first.
SILENT: Final = "silent"
HUNG_UP: Final = "hung up"
#: How many reasons why its recordings are unreliable a step names.
_MOST_REASONS: Final = 5


def steps(most: int) -> list[int]:
    """How many calls each step has at a time: 1, 2, 5, 10, 20, 50, … and ``most`` at the end."""
    found = []
    for calls in (digit * 10**zeros for zeros in range(9) for digit in (1, 2, 5)):
        if calls >= most:
            break
        found.append(calls)
    return [*found, most]


@dataclass
class Step:
    """A step of the ramp: how many calls it has at a time, and how they went so far."""

    concurrency: int
    dialled: int = 0
    #: calls that are up now
    up: int = 0
    #: how many calls failed, by kind, and the error of the first of each kind
    failures: Counter[str] = field(default_factory=Counter)
    said: dict[str, str] = field(default_factory=dict)
    #: of each call that came up and is over: its CallSid, its duration in seconds, its report
    sids: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)

    def fail(self, kind: str, said: str = "") -> None:
        """Note that a call has failed."""
        self.failures[kind] += 1
        self.said.setdefault(kind, said)

    def note(self, sid: str, seconds: float, report: Report) -> None:
        """Note that a call which came up is over."""
        self.sids.append(sid)
        self.seconds.append(seconds)
        self.reports.append(report)

    @property
    def latencies(self) -> list[float]:
        return gates.samples_of(self.reports).latency


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One step as it is in the JSON. ``answered``: how many calls came up. ``failures``: how many
    calls failed, by kind. ``talk_over_seconds``: the most of any call."""

    concurrency: int
    answered: int
    failures: dict[str, int]
    latency: Spread
    talk_over_seconds: float
    reliable: bool
    unreliable_because: list[str]


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """The whole load test as it is in the JSON. ``calls``: how many were dialled. ``minutes``:
    begun minutes of those that came up. ``cost``: None without TRUNKLINE_PRICE_PER_MINUTE.
    ``broken``: limits that were not kept, a line for each. ``stopped``: why the ramp ended early,
    or None."""

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
    """Read limits such as ``latency_p95=1.5,failures=0``. ValueError names the part that is
    wrong."""
    found: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = part.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            raise ValueError(
                f"{part!r} is no limit: write NAME=NUMBER, such as latency_p95=1.5"
            ) from None
    gates.check_names(found, "--limits", (FAILURES,))
    return found


def broken(steps: Sequence[Step], limits: Mapping[str, float]) -> list[str]:
    """The limits that steps break, a line for each. Of each step, faults of its recordings come
    before the limits of its answers."""
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
