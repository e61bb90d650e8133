"""How cost grows with the number of calls, and what that predicts: docs/scaling.md and its picture.

It measures nothing. The curve is of what run.py found of Line and, at its end, of the most calls
that capacity.py found; growth.py tells what memory does in the long run. The numbers go into the
arithmetic of the page, so that its prose cannot say anything else than its tables.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import pairwise
from math import ceil
from typing import Any, Final

import numpy as np

from benchmarks import page

PAGE: Final = page.ROOT / "docs" / "scaling.md"
PICTURE: Final = page.ROOT / "docs" / "scaling.svg"
#: From so many calls on a wake-up serves many of them, and cost grows in a straight line.
STRAIGHT: Final = 40
#: How full a core may be so that what falls due finds it free.
FILL: Final = 0.7
#: Processes of which there are as many as one likes, and those of which there is one.
MANY: Final = {"gateway": "gateways", "codec_worker": "codec workers", "client": "test processes"}
ALONE: Final = "controller"
PREDICTED: Final = (
    *("machine", "calls", "cores", *MANY.values(), "memory"),
    *("stream messages a second", "bus messages a second, at most", "network"),
)
#: Bytes of one media message with its frame's head: from the carrier, and to it.
MEDIA_IN, MEDIA_OUT = 345, 285
#: Looks at the memory of a long run (growth.py) that are taken for one figure: a minute.
LOOKS: Final = 12


def fit(
    processes: Sequence[float], calls: Sequence[float], values: Sequence[float]
) -> tuple[float, float]:
    """What a process takes without a call, and what each call adds (least squares)."""
    each = np.column_stack([processes, calls])
    (start, slope), *_ = np.linalg.lstsq(each, np.asarray(values, float), rcond=None)
    return float(start), float(slope)


class Cost:
    """What a call costs each process: CPU in ms a second, memory in MB."""

    def __init__(self, found: page.Found) -> None:
        self.counts = found.counts(page.OURS)
        stacks = [found.median(n, page.OURS, "stack") for n in self.counts]
        names = {name for r in found.results for name in r["cpu_by_process"]}
        self.names: list[str] = sorted(names - {"up"})
        #: how many of them there were at each number of calls
        self.running = {
            name: stacks if name in ("gateway", "codec_worker") else [1.0] * len(stacks)
            for name in self.names
        }
        #: CPU at each number of calls, in ms per call-second, and of one process and one call
        self.each: dict[str, list[float]] = {}
        self.cpu: dict[str, tuple[float, float]] = {}
        self.memory: dict[str, tuple[float, float]] = {}
        first = sum(n < STRAIGHT for n in self.counts)
        # Those of capacity.py speak longer, on a machine that hardly keeps up with them. What they
        # take says nothing of one call.
        said = [found.median(n, page.OURS, "seconds") for n in self.counts]
        calm = [i for i, seconds in enumerate(said) if seconds == said[0]]
        for name, running in self.running.items():
            each = [found.median(n, page.OURS, "cpu_by_process", name) for n in self.counts]
            used = [n * ms for n, ms in zip(self.counts, each, strict=True)]
            taken = [found.median(n, page.OURS, "memory_mb", name) for n in self.counts]
            self.each[name] = each
            self.cpu[name] = fit(running[first:], self.counts[first:], used[first:])
            rows = [(running[i], self.counts[i], taken[i]) for i in calm]
            self.memory[name] = fit(*zip(*rows, strict=True))

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
        return min(self.names, key=self.one)

    def predicted(self, cores: int | None, calls: int) -> list[str]:
        """A row of the table."""
        counts = [self.processes(name, calls) for name in MANY]
        pairs = counts[0] * counts[1] + counts[1] * counts[2]
        return [
            f"{cores} cores" if cores else "as large as it takes",
            f"{calls:,}",
            str(ceil(calls * self.call / 1000 / FILL)),
            *map(str, counts),
            f"{self.memory_of(calls) / 1000:.1f} GB",
            f"{calls * 100:,}",
            f"{min(pairs * 200, calls * 200):,}",
            f"{calls * 50 * (MEDIA_IN + MEDIA_OUT) * 8 / 1e6:,.0f} Mbit/s",
        ]


def plain(name: str) -> str:
    """A process's name in words."""
    return name.replace("_", " ")


def curve(left: dict[str, Any]) -> page.Found:
    """Of what the benchmarks left: Line's results, and those of the most calls."""
    results = [r for r in left["results"]["results"] if r["side"] == page.OURS]
    if "capacity" in left:
        best = max(left["capacity"]["entries"], key=lambda entry: entry["most"])
        results += [{**r, "round": n} for n, r in enumerate(best["results"])]
    return page.Found({**left["results"], "results": results})


def edges(growth: dict[str, Any]) -> list[tuple[float, float]]:
    """MB of all processes in the second minute of each round of a long run, and in its last."""

    def mean(looks: list[dict[str, float]]) -> float:
        return statistics.fmean(sum(each.values()) for each in looks)

    rounds = [r["memory"] for r in growth["rounds"]]
    return [(mean(m[LOOKS : 2 * LOOKS] or m), mean(m[-LOOKS:])) for m in rounds]


def added(growth: dict[str, Any]) -> float:
    """MB by which memory grew in a long run while the calls were up, all rounds together."""
    return sum(end - begin for begin, end in edges(growth))


def between(growth: dict[str, Any]) -> float:
    """MB by which it grew between the rounds, while the calls ended and others came."""
    return sum(after[0] - before[1] for before, after in pairwise(edges(growth)))


def held_by_call(growth: dict[str, Any], cost: Cost) -> float:
    """MB of one call at the end of a long run: less what the processes are by themselves, and less
    the speech that the calls of the client share."""
    last: list[dict[str, float]] = growth["rounds"][-1]["memory"][-LOOKS:]
    whole = statistics.fmean(sum(each.values()) - each.get("up", 0.0) for each in last)
    alone = sum(start for start, _ in cost.memory.values())
    speech: float = growth["seconds"] * 48_000 / 1e6
    return (whole - alone - speech) / float(growth["calls"])


def held(growth: dict[str, Any], cost: Cost) -> str:
    """What a long run showed."""
    grown, calls = added(growth), growth["calls"]
    first, *_, last = growth["rounds"]
    each = "; ".join(
        f"{plain(name)} {first['memory'][0][name]:.0f}, then {last['memory'][-1][name]:.0f}"
        for name in sorted(first["memory"][0])
    )
    return page.template("held").format(
        calls=calls,
        minutes=growth["seconds"] * len(growth["rounds"]) / 60,
        rounds=len(growth["rounds"]),
        grown=grown,
        between=between(growth),
        megabytes=held_by_call(growth, cost),
        kilobytes=grown / calls * 1000,
        each=each,
        seconds=growth["seconds"],
        drift=max((r["drift_ms"] for r in growth["rounds"]), key=abs),
        underruns=sum(r["underruns"] for r in growth["rounds"]),
    )


def text(left: dict[str, Any]) -> str:
    """docs/scaling.md."""
    found = curve(left)
    cost = Cost(found)
    of_all = [*map(plain, cost.names), "together", "load generator", "jitter p99, ms", "memory"]
    rows = [
        [
            str(calls),
            *(f"{each[n]:.2f}" for each in cost.each.values()),
            f"{found.median(calls, page.OURS, 'cpu'):.1f}",
            f"{found.median(calls, page.OURS, 'carrier_cpu'):.2f}",
            f"{found.median(calls, page.OURS, 'jitter_p99_ms'):.1f}",
            f"{found.memory(calls):.0f}",
        ]
        for n, calls in enumerate(cost.counts)
    ]
    capacities = [
        f"calls on C cores: {FILL} × 1000 × C ÷ {cost.call:.2f} = {FILL * 1000 / cost.call:.0f} × C"
    ]
    capacities += [
        f"calls of one {plain(name)}: {FILL} × 1000 ÷ {cost.cpu[name][1]:.4f} = {cost.one(name):,}"
        for name in (*MANY, ALONE)
    ]
    targets = [(16, cost.calls_on(16)), (64, cost.calls_on(64)), (None, 10_000)]
    first = cost.first_full
    return page.template("scaling").format(
        **found.machine,
        warnings="".join(f"\n**{warning}**\n" for warning in found.warnings()),
        curve=page.markdown(["calls", *of_all], rows),
        straight=STRAIGHT,
        terms=" + ".join(f"{slope:.2f} ({plain(n)})" for n, (_, slope) in cost.cpu.items()),
        call=cost.call,
        most=page.most_calls_part(left["capacity"]) + "\n" if "capacity" in left else "",
        fill=FILL,
        fill_ms=FILL * 1000,
        **{name: cost.one(name) for name in MANY},
        capacities="\n".join(f"    {row}" for row in capacities),
        predictions=page.markdown(PREDICTED, [cost.predicted(*each) for each in targets]),
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
        held="\n" + held(left["growth"], cost) if "growth" in left else "",
    )


def draw(left: dict[str, Any]) -> None:
    """CPU by process: per call-second, and in cores beside the straight line."""
    plt = page.pyplot()
    cost = Cost(curve(left))
    figure, (per_call, cores) = plt.subplots(1, 2, figsize=(11, 3.6))
    for name, each in cost.each.items():
        (drawn,) = per_call.plot(cost.counts, each, marker="o", markersize=3, label=plain(name))
        colour = drawn.get_color()
        cores.plot(
            cost.counts, np.multiply(each, cost.counts) / 1000, "o", markersize=3, color=colour
        )
        start, slope = cost.cpu[name]
        fitted = [
            (start * processes + slope * n) / 1000
            for n, processes in zip(cost.counts, cost.running[name], strict=True)
            if n >= STRAIGHT
        ]
        cores.plot(cost.counts[-len(fitted) :], fitted, linewidth=1, color=colour)
    per_call.set_xscale("log")
    per_call.set_yscale("log")
    per_call.yaxis.set_major_formatter("{x:g}")
    per_call.set_xticks(cost.counts, [str(n) for n in cost.counts])
    per_call.minorticks_off()
    per_call.set_title("CPU, ms per call-second", fontsize=9, loc="left")
    cores.set_title(f"cores; the lines are fitted from {STRAIGHT} calls on", fontsize=9, loc="left")
    for axis in (per_call, cores):
        axis.set_xlabel("calls at once", fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    per_call.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(PICTURE, metadata={"Date": None})
    plt.close(figure)


def write(left: dict[str, Any]) -> None:
    """Write the page and its picture."""
    PAGE.write_text(text(left))
    draw(left)
