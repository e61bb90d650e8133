"""Limits of a test's calls, and how often a test passes. No I/O.

A limit has the name of its figure: ``latency_p95=1.5`` means that of 100 answers 95 come within
1.5 s. Under 20 samples there are no percentiles. Then the largest sample is judged instead, and the
message says so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trunkline.ear.figures import LEAST_SAMPLES, Report, spread

if TYPE_CHECKING:
    import pytest

#: latency_p50, latency_max, time_to_yield_p95, …
_SPREAD: Final = re.compile(r"(latency|time_to_yield)_(p50|p90|p95|max)")
#: Figures that are one number for each call. The largest of all calls is judged.
_NUMBERS: Final = ("talk_over", "silence", "false_yields", "interruptions", "frames_lost")
#: The 97.5th percentile of the normal distribution, for an interval of 95 %.
_Z: Final = 1.959964


@dataclass(frozen=True)
class Samples:
    """The samples of a test, from all of its calls, in seconds."""

    latency: list[float]
    #: None: the agent did not yield
    time_to_yield: list[float | None]


def samples_of(reports: Sequence[Report]) -> Samples:
    return Samples(
        [answer.latency for report in reports for answer in report.answers],
        [each.seconds for report in reports for each in report.yields],
    )


def check_names(
    limits: Mapping[str, float], where: str = "phone_limits", also: Sequence[str] = ()
) -> None:
    """Raise ValueError for a limit that does not exist or is not a number. The message names the
    limit, and ``where`` it was given. ``also``: limits that there are besides those of calls."""
    numbers = (*_NUMBERS, *also)
    for name, limit in limits.items():
        if not _SPREAD.fullmatch(name) and name not in numbers:
            raise ValueError(
                f"{where}: there is no limit {name!r}; there are latency_p50, _p90, _p95, "
                f"_max, time_to_yield_p50, …, {', '.join(numbers)}"
            )
        _check_number(name, limit, where)


def check_marker(marker: pytest.Mark) -> None:
    """Raise ValueError where a test's marker ``phone_limits`` has what is no limit."""
    if marker.args:
        raise ValueError(
            f"phone_limits: {marker.args[0]!r} has no name; say latency_p95=1.5, for example"
        )
    check_names(marker.kwargs)


def _check_number(name: str, limit: object, where: str) -> None:
    """Raise ValueError where the value of a limit is not a number. NaN is none either: nothing is
    over it, so the limit could never be broken."""
    number = isinstance(limit, int | float) and not isinstance(limit, bool)
    if not number or limit != limit:
        raise ValueError(f"{where}: {name}={limit!r} is not a number")


def broken(reports: Sequence[Report], limits: Mapping[str, float]) -> list[str]:
    """The limits that a test's calls break, a line for each. Faults of the recordings come first,
    because no figure can be trusted then."""
    check_names(limits)
    if not reports:
        return ["no call came up, so there is nothing to judge"]
    found = [
        f"the recording is unreliable: {reason}"
        for report in reports
        for reason in report.unreliable_because
    ]
    samples = samples_of(reports)
    for name, limit in limits.items():
        matched = _SPREAD.fullmatch(name)
        if matched is None:
            most = max(_number(report, name) for report in reports)
            if most > limit:
                found.append(f"{name} is {most:g}, over {limit:g}")
        elif matched[1] == "latency":
            if not samples.latency:
                found.append(f"{name}: there was no answer")
            found += _over(samples.latency, matched[2], limit, name)
        else:
            yielded = [seconds for seconds in samples.time_to_yield if seconds is not None]
            never = len(samples.time_to_yield) - len(yielded)
            if never:
                found.append(f"{name}: they did not yield {never} of {never + len(yielded)} times")
            found += _over(yielded, matched[2], limit, name)
    return found


def _over(seconds: list[float], which: str, limit: float, name: str) -> Iterator[str]:
    if not seconds:
        return
    found = getattr(spread(seconds), which)
    instead = ""
    if found is None:
        found = max(seconds)
        instead = f" (the largest of {len(seconds)}: a percentile needs {LEAST_SAMPLES})"
    if found > limit:
        yield f"{name} is {found:.2f} s, over {limit:g} s{instead}"


def _number(report: Report, name: str) -> float:
    if name == "talk_over":
        return report.talk_over_seconds
    if name == "silence":
        return max((each.end - each.start for each in report.silences), default=0.0)
    if name == "frames_lost":
        return report.frames_lost
    return len(report.false_yields if name == "false_yields" else report.interruptions_by_them)


def properties(reports: Sequence[Report]) -> Iterator[tuple[str, float]]:
    """The name and value of each figure that is known, for pytest's JUnit file."""
    samples = samples_of(reports)
    yielded = [seconds for seconds in samples.time_to_yield if seconds is not None]
    for name, seconds in (("latency", samples.latency), ("time_to_yield", yielded)):
        figures = spread(seconds)
        for which in figures.__struct_fields__:
            value = getattr(figures, which)
            if value is not None:
                yield f"phone_{name}_{which}", value
    for name in _NUMBERS:
        yield f"phone_{name}", max(round(_number(report, name), 3) for report in reports)


def wilson(passed: int, of: int) -> tuple[float, float]:
    """The lower and upper end of Wilson's 95 % interval of a pass rate."""
    rate, z2 = passed / of, _Z**2
    middle = (rate + z2 / (2 * of)) / (1 + z2 / of)
    half = _Z * math.sqrt(rate * (1 - rate) / of + z2 / (4 * of**2)) / (1 + z2 / of)
    return max(0.0, middle - half), min(1.0, middle + half)
