"""docs/benchmarks.md, its picture and README's paragraph: what they say of what was measured.

The page says what machine it was, so that nobody takes it for theirs. write.py writes it.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent.parent))

from rich.console import Console
from rich.table import Table

from benchmarks.measure import OTHERS, PROMPT, complaint

ROOT: Final = Path(__file__).parent.parent
OUT: Final = ROOT / "out" / "bench"
PAGE: Final = ROOT / "docs" / "benchmarks.md"
PICTURE: Final = ROOT / "docs" / "benchmarks.svg"
README: Final = ROOT / "README.md"
#: README's paragraph stands between these.
BEGIN, END = "<!-- measured -->", "<!-- /measured -->"

OURS, PEER = "trunkline", "langwatch-scenario"
#: side, its colour
COLOURS: Final = {
    OURS: "#1f77b4",
    PROMPT.name: "#17becf",
    "trunkline, as up starts it": "#8fbbdc",
    "trunkline's adapter": "#2ca02c",
    PEER: "#d9772b",
    "pipecat": "#9467bd",
}
#: title, key of a result, digits behind the point
COLUMNS: Final = (
    ("CPU, ms per call-second", "cpu", 1),
    ("jitter p50, ms", "jitter_p50_ms", 1),
    ("jitter p99, ms", "jitter_p99_ms", 1),
    ("drift, ms", "drift_ms", 1),
    ("underruns", "underruns", 0),
    ("frames lost out", "lost_out", 0),
    ("in", "lost_in", 0),
    ("calls up after, s", "setup_s", 1),
)
#: title of a panel, key, logarithmic
PANELS: Final = (
    ("CPU, ms per call-second", "cpu", True),
    ("jitter p99, ms", "jitter_p99_ms", True),
    ("underruns of a call", "underruns_of_a_call", False),
    ("calls up after, s", "setup_s", False),
)

#: How a reader takes the same numbers of a call of their own.
Result = dict[str, Any]


@dataclass(frozen=True)
class Spread:
    """The same measurement of several rounds."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def text(self, digits: int) -> str:
        """Median, and (least to greatest) where they differ as they are shown."""
        least, middle, most = (
            f"{value:.{digits}f}" for value in (min(self.values), self.median, max(self.values))
        )
        return middle if least == most else f"{middle} ({least} to {most})"


class Found:
    """The results of a run, by number of calls and side, in the order in which they came."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.machine: dict[str, Any] = found["machine"]
        self.seconds: float = found["seconds"]
        self.results: list[Result] = found["results"]
        for result in self.results:
            result["underruns_of_a_call"] = result["underruns"] / result["calls"]
        keys = dict.fromkeys((r["calls"], r["side"]) for r in self.results)
        order = list(COLOURS)
        self.rows = sorted(keys, key=lambda key: (key[0], order.index(key[1])))
        self.rounds = 1 + max(r["round"] for r in self.results)

    def spread(self, calls: int, side: str, key: str, process: str = "") -> Spread | None:
        """None where it was not measured, or cannot be told. ``process``: of this one alone."""
        there = [r[key] for r in self.results if (r["calls"], r["side"]) == (calls, side)]
        values = [value.get(process, 0.0) if process else value for value in there]
        told = tuple(value for value in values if value is not None)
        return Spread(told) if told else None

    def median(self, calls: int, side: str, key: str, process: str = "") -> float:
        """Of what was measured."""
        spread = self.spread(calls, side, key, process)
        assert spread is not None
        return spread.median

    def memory(self, calls: int) -> float:
        """MB of all processes of trunkline, the median."""
        of_it = (r for r in self.results if (r["calls"], r["side"]) == (calls, OURS))
        return float(statistics.median(sum(r["memory_mb"].values()) for r in of_it))

    def counts(self, side: str) -> list[int]:
        """The numbers of calls at which a side was measured."""
        return [calls for calls, name in self.rows if name == side]

    def cells(self, calls: int, side: str) -> list[str]:
        """A row of the table."""
        cells = [str(calls), side]
        for _, key, digits in COLUMNS:
            spread = self.spread(calls, side, key)
            cells.append("–" if spread is None else spread.text(digits))
        return cells

    def warnings(self) -> list[str]:
        """What is to be known before these numbers are believed."""
        said = []
        if self.machine["busy_cores"] > OTHERS:
            said.append(
                f"The machine was not at rest: {self.machine['busy_cores']:.1f} cores were busy "
                "before the run began."
            )
        for calls, side in self.rows:
            of_it = [r for r in self.results if (r["calls"], r["side"]) == (calls, side)]
            if why := next(filter(None, map(complaint, of_it)), None):
                said.append(f"{calls} call{'s' * (calls > 1)} of {side}: {why}.")
        return said


HEAD: Final = ["calls", "", *(title for title, _, _ in COLUMNS)]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table; the first ``left`` columns are words."""
    rule = ["---"] * left + ["--:"] * (len(head) - left)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def ratios(found: Found, other: str, ours: str = OURS) -> dict[int, float]:
    """Our CPU divided by the other's, by number of calls."""
    shared = [n for n in found.counts(other) if n in found.counts(ours)]
    return {n: found.median(n, ours, "cpu") / found.median(n, other, "cpu") for n in shared}


def paragraph(found: Found) -> str:
    """What README says, good and bad."""
    cpu = ratios(found, PEER)
    most = max(cpu)
    jitter = [found.median(most, side, "jitter_p99_ms") for side in (OURS, PEER)]
    dry = [found.median(most, side, "underruns") for side in (OURS, PEER)]
    said = (
        "`make bench` measures trunkline's `Line` beside langwatch-scenario's own adapter on one "
        f"carrier, on {found.machine['cores']} cores. trunkline's CPU divided by scenario's, by "
        f"calls at once: {_told(cpu)}. At {most} calls the frames reach the far end within "
        f"{jitter[0]:.1f} ms of their time here (p99) and within {jitter[1]:.0f} ms there, and the "
        f"sound of all calls runs dry {dry[0]:.0f} times here and {dry[1]:,.0f} times there."
    )
    if prompt := ratios(found, PEER, PROMPT.name):
        said += (
            " For that `Line` takes what it hears 100 ms at a time, as scenario's adapter hands it "
            f"out. Where each 20 ms are taken as they come, the same is {_told(prompt)}."
        )
    if echo := ratios(found, "pipecat"):
        said += (
            " Divided by that of a pipecat pipeline which only echoes, at 8 kHz, trunkline's CPU "
            f"is {_told(echo)}."
        )
    if adapter := {n: 1 / value for n, value in ratios(found, "trunkline's adapter").items()}:
        said += (
            " The drop-in adapter with its speech gate takes more CPU than `Line` does. Divided by "
            f"that of `Line`, it is {_told(adapter)}."
        )
    return said


def _told(by_calls: dict[int, float]) -> str:
    parts = [f"{value:.2f} at {n}" for n, value in by_calls.items()]
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def page(found: Found) -> str:
    """The text of docs/benchmarks.md, without the sections of other benchmarks."""
    warnings = [f"\n**{warning}**\n" for warning in found.warnings()]
    return template("benchmarks").format(
        **found.machine,
        seconds=found.seconds,
        rounds=found.rounds,
        warnings="".join(warnings),
        table=markdown(HEAD, [found.cells(*row) for row in found.rows], left=2),
    )


def template(name: str) -> str:
    """The prose of a page, with fields for what was measured."""
    return (ROOT / "benchmarks" / "pages" / f"{name}.md").read_text()


def parallel_table(found: dict[str, Any]) -> tuple[int, list[str], list[list[str]]]:
    """Many scenario runs at once: how many, and the table's head and rows."""
    runs = max(result["runs"] for result in found.values())
    head = ["", "measured", f"{runs} runs", "a run", "its turn", "the answer heard"]
    rows = []
    for name, result in found.items():
        whole = result["took_s"] * runs / result["runs"]
        reckoned = "" if result["runs"] == runs else "≈ "
        rows.append(
            [
                name,
                f"{result['runs']} in {result['took_s']:.1f} s",
                f"{reckoned}{whole:.0f} s",
                f"{result['run_s']:.1f} s",
                f"{result['turn_s']:.1f} s",
                f"{result['answer_s']:.1f} s",
            ]
        )
    return runs, head, rows


def parallel_part(found: dict[str, Any]) -> str:
    """The section on many scenario runs at once."""
    runs, head, rows = parallel_table(found)
    return template("parallel").format(runs=runs, table=markdown(head, rows))


def _ended(last: dict[str, Any]) -> str:
    """What was not whole, and in brackets why that may not be ours."""
    doubt = f" ({last['complaint']})" if last["complaint"] else ""
    return f"at {last['calls']}: {last['why']}{doubt}"


def most_calls_part(found: dict[str, Any]) -> str:
    """The section on what capacity.py found."""
    rows = []
    for entry in found["entries"]:
        last = min(entry["failed"], key=lambda r: r["calls"], default=None)
        cpu = [r["cpu"] for r in entry["results"]]
        rows.append(
            [
                str(entry["stack"]),
                str(entry["most"]),
                f"{statistics.median(cpu):.1f}" if cpu else "–",
                _ended(last) if last else "nothing",
            ]
        )
    head = ["gateways and workers", "most calls", "CPU, ms per call-second", "what ended it"]
    beyond = [e["stack"] for e in found["entries"] if 2 * e["stack"] > found["cores"]]
    overhead = template("overhead").format(most=beyond[0]) if beyond else ""
    return template("most").format(**found, table=markdown(head, rows), overhead=overhead)


def draw(found: Found) -> None:
    """The picture: a panel for each number that people ask for first."""
    plt = pyplot()
    figure, axes = plt.subplots(1, len(PANELS), figsize=(13, 3.2))
    for axis, (title, key, is_log) in zip(axes, PANELS, strict=True):
        for side, colour in COLOURS.items():
            counts = found.counts(side)
            spreads = [found.spread(n, side, key) for n in counts]
            there = [(n, s) for n, s in zip(counts, spreads, strict=True) if s is not None]
            if there:
                axis.errorbar(
                    [n for n, _ in there],
                    [s.median for _, s in there],
                    [
                        [s.median - min(s.values) for _, s in there],
                        [max(s.values) - s.median for _, s in there],
                    ],
                    color=colour,
                    label=side,
                    marker="o",
                    markersize=3,
                    capsize=2,
                    linewidth=1.2,
                )
        axis.set_xscale("log")
        axis.set_yscale("log" if is_log else "linear")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.set_title(title, fontsize=9, loc="left")
        axis.set_xlabel("calls at once", fontsize=8)
        axis.set_xticks(
            sorted({n for n, _ in found.rows}), [str(n) for n in sorted({n for n, _ in found.rows})]
        )
        axis.minorticks_off()
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    figure.legend(
        *axes[0].get_legend_handles_labels(), frameon=False, fontsize=8, loc="upper left", ncols=6
    )
    figure.tight_layout(rect=(0, 0, 1, 0.92))
    figure.savefig(PICTURE, metadata={"Date": None})
    plt.close(figure)


def pyplot() -> Any:
    """matplotlib, so that the same numbers give the same file."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "trunkline"
    mpl.rcParams["svg.fonttype"] = "none"
    return plt


def keep(name: str, found: object) -> None:
    """Leave what a benchmark found in ``out/bench``, for the pages."""
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{name}.json").write_text(json.dumps(found, indent=1))


def show(raw: dict[str, Any], console: Console) -> None:
    """The table on the terminal."""
    found = Found(raw)
    table = Table(title="at the carrier")
    for n, title in enumerate(HEAD):
        table.add_column(title, justify="left" if n == 1 else "right")
    for row in found.rows:
        table.add_row(*found.cells(*row))
    console.print(table)
    for warning in found.warnings():
        console.print(warning)
