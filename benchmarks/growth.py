"""How cost grows from one call to the most: CPU and memory by process, and what that predicts.

    python benchmarks/growth.py              the curve, then 10 minutes of 100 calls; writes
                                             docs/scaling.md and its picture
    python benchmarks/growth.py --minutes 0  the curve alone
    python benchmarks/growth.py --page       the page again, from what was measured last

Line on one gateway and one codec worker. The numbers go into the arithmetic of the page, so that
its prose cannot say anything else than its tables. ``capacity.py`` adds its table where it ran.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent.parent))

import click
import numpy as np
from rich.console import Console

from benchmarks import capacity, page
from benchmarks.measure import Trial, complaint, is_whole, line, measure

PAGE: Final = page.ROOT / "docs" / "scaling.md"
PICTURE: Final = page.ROOT / "docs" / "scaling.svg"
COUNTS: Final = (1, 2, 5, 10, 20, 40, 70, 100, 140, 200, 280, 400)
#: From so many calls on a wake-up serves many of them, and cost grows in a straight line.
STRAIGHT: Final = 40
#: How full a core may be so that what falls due finds it free.
FILL: Final = 0.7
#: Processes of which there are as many as one likes, and those of which there is one.
MANY: Final = {"gateway": "gateways", "codec_worker": "codec workers", "client": "test processes"}
ALONE: Final = "controller"
#: Calls of the long run, and the speech that they repeat; the first minute is not judged.
HELD, SPEECH, SKIPPED = 100, 15.0, 60.0
PREDICTED: Final = (
    *("machine", "calls", "cores", *MANY.values(), "memory"),
    *("stream messages a second", "bus messages a second, at most", "network"),
)
#: Bytes of one media message with its frame's head: from the carrier, and to it.
MEDIA_IN, MEDIA_OUT = 345, 285


def curve(counts: Sequence[int], seconds: float, console: Console) -> list[dict[str, Any]]:
    """Each number of calls once, until one is not whole for no reason outside."""
    found = []
    for calls in counts:
        result = measure(line(1), calls, seconds)
        why = complaint(result)
        console.print(
            f"{calls} calls: {result['cpu']:.1f} ms per call-second, "
            f"jitter p99 {result['jitter_p99_ms']:.1f} ms{f' ({why})' if why else ''}"
        )
        found.append(result)
        if not is_whole(result) and why is None:
            console.print(f"  {capacity.why_not(result)}: this is where the curve ends")
            break
    return found


def hold(minutes: float, console: Console) -> list[tuple[float, dict[str, float]]]:
    """(seconds, MB by process) of a long run."""
    console.print(f"{HELD} calls for {minutes:g} minutes …")
    with Trial(line(1), HELD, SPEECH, round(minutes * 60 / SPEECH)) as trial:
        return trial.hold(every=15.0)


# ---------------------------------------------------------------------------- the arithmetic


def straight(calls: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """What is there without a call, and what each call adds (least squares)."""
    slope, start = np.polyfit(np.asarray(calls, float), np.asarray(values, float), 1)
    return float(start), float(slope)


class Cost:
    """What a call costs each process: CPU in ms a second, memory in MB."""

    def __init__(self, results: Sequence[dict[str, Any]]) -> None:
        self.results = results
        self.names: list[str] = sorted(
            {name for r in results for name in r["cpu_by_process"]} - {"up"}
        )
        high = [r for r in results if r["calls"] >= STRAIGHT] or results[-2:]
        calls = [r["calls"] for r in high]
        self.cpu = {
            name: straight(calls, [r["cpu_by_process"][name] * r["calls"] for r in high])
            for name in self.names
        }
        self.memory = {
            name: straight([r["calls"] for r in results], [r["memory_mb"][name] for r in results])
            for name in self.names
        }

    @property
    def call(self) -> float:
        """CPU that one more call takes, all processes together, in ms a second."""
        return sum(slope for _, slope in self.cpu.values())

    @property
    def megabytes(self) -> float:
        """Memory that one more call takes, all processes together."""
        return sum(slope for _, slope in self.memory.values())

    def one(self, name: str) -> int:
        """Calls that one process of this kind carries."""
        return int(FILL * 1000 / max(self.cpu[name][1], 1e-6))

    def calls_on(self, cores: int) -> int:
        """Calls on a machine of so many cores, all processes of ours on it."""
        return int(FILL * 1000 * cores / self.call)

    def processes(self, name: str, calls: int) -> int:
        return ceil(calls / self.one(name))

    def memory_of(self, calls: int) -> float:
        """MB of all processes that so many calls need."""
        fixed = sum(self.memory[name][0] * self.processes(name, calls) for name in MANY)
        return fixed + self.memory[ALONE][0] + self.megabytes * calls

    @property
    def first_full(self) -> str:
        """The kind of process that is full first."""
        return min(self.names, key=lambda name: self.one(name))


def predicted(cost: Cost, cores: int | None, calls: int) -> list[str]:
    """A row of the table."""
    needed = ceil(calls * cost.call / 1000 / FILL)
    counts = [cost.processes(name, calls) for name in MANY]
    pairs = counts[0] * counts[1] + counts[1] * counts[2]
    return [
        f"{cores} cores" if cores else "whatever it takes",
        f"{calls:,}",
        str(needed),
        *(str(count) for count in counts),
        f"{cost.memory_of(calls) / 1000:.1f} GB",
        f"{calls * 100:,}",
        f"{min(pairs * 100, calls * 200):,}",
        f"{calls * 50 * (MEDIA_IN + MEDIA_OUT) * 8 / 1e6:,.0f} Mbit/s",
    ]


def text(found: dict[str, Any]) -> str:
    """docs/scaling.md."""
    results, held = found["results"], found["held"]
    cost = Cost(results)
    rows = [
        [
            str(r["calls"]),
            *(f"{r['cpu_by_process'][name]:.2f}" for name in cost.names),
            f"{r['cpu']:.1f}",
            f"{r['carrier_cpu']:.2f}",
            f"{r['jitter_p99_ms']:.1f}",
            f"{sum(r['memory_mb'].values()):.0f}",
        ]
        for r in results
    ]
    head = [*map(plain, cost.names), "together", "load generator", "jitter p99, ms", "memory"]
    per_core = FILL * 1000 / cost.call
    capacities = [f"calls on C cores: {FILL} × 1000 × C ÷ {cost.call:.2f} = {per_core:.0f} × C"]
    capacities += [
        f"calls of one {plain(name)}: {FILL} × 1000 ÷ {cost.cpu[name][1]:.2f} = {cost.one(name):,}"
        for name in (*MANY, ALONE)
    ]
    targets = [(16, cost.calls_on(16)), (64, cost.calls_on(64)), (None, 10_000)]
    predictions = [predicted(cost, cores, calls) for cores, calls in targets]
    first = cost.first_full
    measured = page.OUT / "capacity.json"
    most = capacity.section(json.loads(measured.read_text())) if measured.exists() else ""
    return page.template("scaling").format(
        day=found["day"],
        cores=found["cores"],
        seconds=found["seconds"],
        curve=page.markdown(["calls", *head], rows),
        straight=STRAIGHT,
        terms=" + ".join(f"{slope:.2f} ({plain(n)})" for n, (_, slope) in cost.cpu.items()),
        call=cost.call,
        most=f"## The most calls\n\n{most}\n" if most else "",
        fill=FILL,
        capacities="\n".join(f"    {row}" for row in capacities),
        predictions=page.markdown(PREDICTED, predictions),
        media_in=MEDIA_IN,
        media_out=MEDIA_OUT,
        megabytes=cost.megabytes,
        first=plain(first),
        first_full=cost.one(first),
        controller=cost.cpu[ALONE][1],
        controller_full=cost.one(ALONE),
        each_memory=", ".join(
            f"{slope:.2f} in the {plain(n)}" for n, (_, slope) in cost.memory.items()
        ),
        held=f"\n{held_part(held)}" if held else "",
    )


def plain(name: str) -> str:
    """A process's name in words."""
    return name.replace("_", " ")


def held_part(held: Sequence[tuple[float, dict[str, float]]]) -> str:
    """What memory did in the long run."""
    settled = [(at, mb) for at, mb in held if at >= SKIPPED]
    judged = [(at, sum(mb.values())) for at, mb in (settled if len(settled) > 1 else held)]
    _, slope = straight([at for at, _ in judged], [mb for _, mb in judged])
    grown = slope * (judged[-1][0] - judged[0][0])
    each = "; ".join(
        f"{plain(name)} {held[0][1][name]:.0f}, then {held[-1][1][name]:.0f}"
        for name in sorted(held[0][1])
    )
    return (
        f"{HELD} calls that talk for {held[-1][0] / 60:.0f} minutes take {judged[0][1]:.0f} MB "
        f"{judged[0][0]:.0f} s after they began, and {grown:+.1f} MB at their end, "
        f"{grown / HELD * 1000:+.0f} kB for each call. By process, at the beginning and at the "
        f"end, MB: {each}."
    )


def draw(results: Sequence[dict[str, Any]]) -> None:
    """CPU by process: per call-second, and in cores beside the straight line."""
    plt = page.pyplot()
    cost = Cost(results)
    calls = [r["calls"] for r in results]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6))
    for name in cost.names:
        each = [r["cpu_by_process"][name] for r in results]
        (drawn,) = left.plot(calls, each, marker="o", markersize=3, label=plain(name))
        cores = [value * n / 1000 for value, n in zip(each, calls, strict=True)]
        right.plot(calls, cores, "o", markersize=3, color=drawn.get_color())
        start, slope = cost.cpu[name]
        ends = [STRAIGHT, calls[-1]]
        right.plot(
            ends, [(start + slope * n) / 1000 for n in ends], linewidth=1, color=drawn.get_color()
        )
    left.set_xscale("log")
    left.set_yscale("log")
    left.yaxis.set_major_formatter("{x:g}")
    left.set_xticks(calls, [str(n) for n in calls])
    left.minorticks_off()
    left.set_title("CPU, ms per call-second", fontsize=9, loc="left")
    right.set_title(f"cores; the lines are fitted from {STRAIGHT} calls on", fontsize=9, loc="left")
    for axis in (left, right):
        axis.set_xlabel("calls at once", fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    left.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(PICTURE, metadata={"Date": None})
    plt.close(figure)


@click.command()
@click.option("--calls", "counts", multiple=True, type=int, help="Repeatable.")
@click.option("--seconds", default=10.0, show_default=True, help="Speech of each call.")
@click.option("--minutes", default=10.0, show_default=True, help="Of the long run; 0: none.")
@click.option("--page", "only_page", is_flag=True, help="Only write the page again.")
def main(counts: Sequence[int], seconds: float, minutes: float, only_page: bool) -> None:
    """How CPU and memory grow with the number of calls."""
    console = Console(width=max(140, Console().width))
    path = page.OUT / "growth.json"
    if not only_page:
        results = curve(counts or COUNTS, seconds, console)
        held = hold(minutes, console) if minutes else []
        found = {
            "results": results,
            "held": held,
            "seconds": seconds,
            "cores": os.cpu_count(),
            "day": time.strftime("%Y-%m-%d"),
        }
        page.OUT.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1))
    if not path.exists():
        console.print(f"{PAGE.name} wants the curve too: run benchmarks/growth.py")
        return
    found = json.loads(path.read_text())
    PAGE.write_text(text(found))
    draw(found["results"])
    console.print(f"written to {PAGE.relative_to(page.ROOT)}")


if __name__ == "__main__":
    main()
