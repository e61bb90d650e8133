"""What a thousand, ten thousand and a hundred thousand calls take: docs/ten-thousand.md.

It measures nothing. What sound takes is of the curve of scaling.py, and what the controller and its
database take is of control_plane.py. The numbers go into the arithmetic of the page.
"""

from __future__ import annotations

from itertools import count, pairwise
from math import ceil
from typing import Any, Final

from benchmarks import page, scaling

PAGE: Final = page.ROOT / "docs" / "ten-thousand.md"
SIZES: Final = (1_000, 10_000, 100_000)
#: How long a call lasts (seconds): so many calls at once are that many by this in a second.
LASTS: Final = 180.0
#: Calls a second that Twilio starts for an account which has asked for nothing else.
TWILIO_A_SECOND: Final = 1.0


class Control:
    """What calls take of the controller and of the database."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.measured = found["calls"]
        self.one, *_, self.many = found["database"]

    def at(self, calls: int, name: str) -> float:
        """A figure of so many calls: between those that were measured on a straight line, and
        beyond the largest on the line of the last two."""
        pairs = list(pairwise(self.measured))
        lower, upper = next((p for p in pairs if calls <= p[1]["calls"]), pairs[-1])
        share = (calls - lower["calls"]) / (upper["calls"] - lower["calls"])
        return float(lower[name] + share * (upper[name] - lower[name]))

    def cores(self, calls: int) -> float:
        """Of the controller's rules, for so many calls that last LASTS seconds each."""
        moves = (self.at(calls, "comes_ms") + self.at(calls, "ends_ms")) * calls / LASTS
        return (self.at(calls, "stands_ms") + moves) / 1000

    def controllers(self, calls: int) -> int:
        """The least number of them that share so many calls, with room on the core of each."""
        return next(n for n in count(1) if self.cores(ceil(calls / n)) <= scaling.FILL)


def bottlenecks(calls: int, control: Control) -> list[tuple[str, float]]:
    """What there is one of, and how many times over it is full; the fullest first."""
    found = [
        ("calls a second that Twilio starts", calls / LASTS / TWILIO_A_SECOND),
        ("one controller's core", control.cores(calls) / scaling.FILL),
        ("one controller's journal", calls / LASTS / control.many["calls_a_second"]),
    ]
    return sorted(found, key=lambda each: -each[1])


def text(left: dict[str, Any]) -> str:
    """docs/ten-thousand.md."""
    cost, control = scaling.Cost(scaling.curve(left)), Control(left["control_plane"])
    columns = [cost.predicted(None, calls)[1:] for calls in SIZES]
    rows = [
        [name, *values]
        for name, values in zip(scaling.PREDICTED[1:], zip(*columns, strict=True), strict=True)
        if name != "calls"
    ]
    paces = [calls / LASTS for calls in SIZES]
    controllers = [control.controllers(calls) for calls in SIZES]
    rules = [
        n * control.cores(ceil(calls / n)) for n, calls in zip(controllers, SIZES, strict=True)
    ]
    rows += [
        ["calls that begin in a second", *(f"{pace:.1f}" for pace in paces)],
        ["controllers", *map(str, controllers)],
        ["cores that their rules take", *(f"{cores:.2f}" for cores in rules)],
        [
            "database transactions a second, at most",
            *(f"{control.one['transactions'] * pace:.0f}" for pace in paces),
        ],
        [
            "database log, MB a second",
            *(f"{control.one['wal_bytes'] * pace / 1e6:.2f}" for pace in paces),
        ],
    ]
    full = [
        [f"{calls:,}", *(f"{name}: {times:.2f}" for name, times in bottlenecks(calls, control))]
        for calls in SIZES
    ]
    measured = [
        [
            f"{found['calls']:,}",
            f"{found['comes_ms']:.2f}",
            f"{found['ends_ms']:.2f}",
            f"{found['stands_ms']:.0f}",
            f"{found['of_beats_ms']:.0f}",
        ]
        for found in control.measured
    ]
    return page.template("ten_thousand").format(
        lasts=LASTS / 60,
        sizes=page.markdown(["calls at once", *(f"{calls:,}" for calls in SIZES)], rows),
        full=page.markdown(["calls at once", "fullest", "next", "then"], full),
        measured=page.markdown(
            [
                *("calls", "one that comes, ms", "one that ends, ms"),
                *("all that stand, ms a second", "of it beats"),
            ],
            measured,
        ),
        at_once=control.many["at_once"],
        transactions_alone=control.one["transactions"],
        transactions=control.many["transactions"],
        alone=control.one["calls_a_second"],
        together=control.many["calls_a_second"],
        wal=control.many["wal_bytes"] / 1000,
        fill=scaling.FILL,
        media_in=scaling.MEDIA_IN,
        media_out=scaling.MEDIA_OUT,
        twilio=TWILIO_A_SECOND,
        least=f"{TWILIO_A_SECOND:g}",
        twilio_calls=TWILIO_A_SECOND * LASTS,
    )


def write(left: dict[str, Any]) -> None:
    """Write the page, where both of its sources have been measured."""
    if "control_plane" in left:
        PAGE.write_text(text(left))
