"""docs/benchmarks.md and its picture, from what the benchmarks left in ``out/bench``.

    python benchmarks/page.py        after run.py, and parallel.py if its table is wanted too

``run.py --page`` calls it. The page says what machine it was, so nobody takes it for theirs.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
OUT = ROOT / "out" / "bench"
PAGE = ROOT / "docs" / "benchmarks.md"
PICTURE = ROOT / "docs" / "benchmarks.svg"

#: title, key of the result, format
ROWS = (
    ("speech of {seconds:g} s took (s)", "took_s", "{:.2f}"),
    ("drift over it, worst call (ms)", "drift_ms", "{:+.1f}"),
    ("gap between frames, p50 (ms)", "gap_p50_ms", "{:.1f}"),
    ("gap, p99, median call (ms)", "gap_p99_typical_ms", "{:.1f}"),
    ("gap, p99, worst call (ms)", "gap_p99_ms", "{:.1f}"),
    ("gap, longest (ms)", "gap_max_ms", "{:.0f}"),
    ("underruns at the carrier", "underruns", "{:.0f}"),
    ("… together (ms)", "underrun_ms", "{:.0f}"),
    ("frames lost, outbound", "lost_out_frames", "{:.0f}"),
    ("frames lost, inbound", "lost_in_frames", "{:.0f}"),
    ("CPU per call-second (ms)", "cpu_ms_per_call_second", "{:.2f}"),
    ("all calls up after (s)", "setup_s", "{:.2f}"),
)
#: title of a panel, key, whether it is a sum over all calls
PANELS = (
    ("late at the end of the speech (ms)", "drift_ms", False),
    ("holes heard in a call's speech (ms)", "underrun_ms", True),
    ("until all calls were up (s)", "setup_s", False),
    ("CPU per call-second (ms)", "cpu_ms_per_call_second", False),
)
#: side, what a legend calls it, colour
SIDES = (
    ("trunkline", "trunkline", "#1f77b4"),
    ("scenario", "langwatch-scenario's adapter", "#d9772b"),
)

#: How a reader takes the same numbers of a call of their own.
EXAMPLE = """\
The stand-in carrier keeps these numbers of every call, so a test can look at its own:

```python
import pytest


@pytest.mark.phone_line(allowed_callees=["+14155557777"])
async def test_the_pace_at_the_carrier(phone_line, carrier_sim):
    call = await phone_line.place_call("+14155557777", attach_stream="a-leg")
    await call.send_audio(bytes(48_000))  # 1 s
    await call.hang_up()
    (stream,) = [s for s in carrier_sim.streams() if s["call_sid"] == call.sid]
    pace = stream["metrics"]
    assert pace["audio_out_ms"] == 1_000
    print(pace["gap_p99_ms"], "ms between two frames,", pace["underruns"], "holes")
```
"""

Results = list[dict[str, Any]]


def cell(result: dict[str, Any] | None, key: str, form: str) -> str:
    """One number as text; a dash where there is none."""
    value = None if result is None else result[key]
    return "–" if value is None else form.format(value)


def table_rows(results: Results) -> list[list[str]]:
    """A title and, for each number of calls, trunkline's and scenario's cell."""
    seconds = results[0]["trunkline"]["seconds"]
    rows = []
    for title, key, form in ROWS:
        row = [title.format(seconds=seconds)]
        for result in results:
            row += [cell(result[side], key, form) for side, _, _ in SIDES]
        rows.append(row)
    return rows


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [
        "| " + " | ".join(head) + " |",
        "|" + "|".join(["---", *["--:"] * (len(head) - 1)]) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def page(results: Results, parallel: dict[str, Any] | None) -> str:
    """The text of docs/benchmarks.md."""
    head = ["calls"]
    rows = table_rows(results)
    wanted = [0]
    for n, result in enumerate(results):
        for m, (side, name, _) in enumerate(SIDES):
            if result[side] is not None:
                head.append(f"{result[side]['calls']}: {name.split(chr(39))[0]}")
                wanted.append(1 + n * len(SIDES) + m)
    lines = [
        "# Measured",
        "",
        "`make bench` lets N calls talk full duplex, first through trunkline and then through",
        "langwatch-scenario's own `TwilioAgentAdapter`, in the same run. The load generator",
        f"(`carrier_sim`) runs on the same {os.cpu_count()} cores. This was {platform.system()},",
        f"Python {platform.python_version()}. Pace is taken at the carrier. CPU is that of all",
        "processes of a side; the carrier's is counted apart. A dash stands for a number that",
        "cannot be had from outside.",
        "",
        "![Lateness, holes, set-up and CPU, by number of calls](benchmarks.svg)",
        "",
        *_table(head, [[row[n] for n in wanted] for row in rows]),
        "",
        "CPU is the price, because a frame of a single call wakes three processes instead of one.",
        "With more calls one wake-up serves them all.",
        "",
        *EXAMPLE.splitlines(),
        "",
        "CPU of trunkline by process, ms per call-second:",
        "",
    ]
    names = sorted({n for r in results for n in r["trunkline"]["cpu_by_process"]})
    by_process = []
    for result in results:
        spent = result["trunkline"]["cpu_by_process"]
        cells = [f"{spent.get(name, 0.0):.2f}" for name in names]
        by_process.append([str(result["trunkline"]["calls"]), *cells])
    lines += _table(["calls", *names], by_process)
    if parallel is not None:
        lines += ["", *parallel_part(parallel)]
    return "\n".join([*lines, ""])


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


def parallel_part(found: dict[str, Any]) -> list[str]:
    """The section on many scenario runs at once."""
    runs, head, rows = parallel_table(found)
    return [
        f"## {runs} scenario runs at once",
        "",
        "`python benchmarks/parallel.py` measures whole runs. A run asks one question (1 s) and",
        "hears one answer (1.2 s). Scenario's own adapter has one port and one public URL, so its",
        "runs go one after the other; some are measured, and the rest is reckoned from those.",
        "",
        *_table(head, rows),
    ]


def draw(results: Results) -> None:
    """The picture: a panel for each number that people ask for first."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "trunkline"
    mpl.rcParams["svg.fonttype"] = "none"
    figure, axes = plt.subplots(1, len(PANELS), figsize=(13, 2.9))
    for axis, (title, key, is_sum) in zip(axes, PANELS, strict=True):
        for m, (side, name, colour) in enumerate(SIDES):
            there = [(n, r[side]) for n, r in enumerate(results) if r[side] is not None]
            heights = [max(0.0, r[key]) / (r["calls"] if is_sum else 1) for _, r in there]
            places = [n + (m - 0.5) * 0.38 for n, _ in there]
            bars = axis.bar(places, heights, 0.36, color=colour, label=name)
            digits = "%.0f" if max(heights, default=0) >= 100 else "%.1f"
            axis.bar_label(bars, fmt=digits, fontsize=7, padding=2)
        axis.set_title(title, fontsize=9, loc="left")
        axis.set_xticks(range(len(results)), [str(r["trunkline"]["calls"]) for r in results])
        axis.set_xlabel("calls at once", fontsize=8)
        axis.set_yticks([])
        axis.margins(y=0.15)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(labelsize=8)
    figure.legend(
        *axes[0].get_legend_handles_labels(), frameon=False, fontsize=8, loc="upper left", ncols=2
    )
    figure.tight_layout(rect=(0, 0, 1, 0.93))
    figure.savefig(PICTURE, metadata={"Date": None})
    plt.close(figure)


def write() -> None:
    """Write the page and its picture."""
    results = json.loads((OUT / "results.json").read_text())
    side_by_side = OUT / "parallel.json"
    parallel = json.loads(side_by_side.read_text()) if side_by_side.exists() else None
    PAGE.write_text(page(results, parallel))
    draw(results)


def main() -> int:
    """Write them from the results that are there."""
    if not (OUT / "results.json").exists():
        print("there are no results yet: run benchmarks/run.py first", file=sys.stderr)
        return 1
    write()
    print(f"written to {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
