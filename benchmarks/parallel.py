"""Many scenario runs at once on one stack, beside one after the other with scenario's own adapter.

    python benchmarks/parallel.py                      50 runs at once; 3 of scenario's, in a row
    python benchmarks/parallel.py --runs 10 --peer-runs 10

A run asks one question (1 s) and hears one answer (1.2 s, 0.4 s after the question), all scripted.
Scenario's own adapter has one port and one public URL, so its runs go one after the other; a few of
them are measured, and the rest is reckoned from those (``--peer-runs`` says how many). The far
ends (carrier_sim) send silence between the words, as Twilio does.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import click
from rich.console import Console
from rich.table import Table

from benchmarks import page
from benchmarks.processes import Run, callee, carrier
from trunkline.bus import wav
from trunkline.bus.sound import LINE_RATE
from trunkline.carrier_sim.wav import SPEECH_DIR

QUESTION_SECONDS, ANSWER_SECONDS, ANSWER_AFTER = 1.0, 1.2, 0.4


def clip(path: Path, name: str, seconds: float) -> Path:
    """The first words of a shipped recording."""
    begin, count = round(0.35 * LINE_RATE), round(seconds * LINE_RATE)
    wav.write(path, wav.read(SPEECH_DIR / f"{name}.wav")[begin : begin + count])
    return path


def measure(run: Run, adapter: str, runs: int, *, parallel: bool, first: int = 0) -> dict[str, Any]:
    """That many runs with an adapter ("trunkline" or "scenario")."""
    answer = clip(run.directory / "answer.wav", "austen-0880", ANSWER_SECONDS)
    question = clip(run.directory / "question.wav", "austen-0930", QUESTION_SECONDS)
    callees = [callee(first + n) for n in range(runs)]
    for number in callees:
        run.sim.add_callee(number, f"wav:{answer},when_silent={ANSWER_AFTER}")
    order = run.order(adapter, callees, question) | {"parallel": parallel}
    client = run.talk_to(Path(sys.executable), "client_parallel", json.dumps(order))
    client.read("ready")
    client.tell("go")
    done = client.read("done")
    each = done["runs"]
    return {
        "runs": runs,
        "took_s": done["took"],
        "run_s": statistics.median(r["seconds"] for r in each),
        "turn_s": statistics.median(r["turn_seconds"] for r in each),
        "answer_s": statistics.median(r["answer_seconds"] for r in each),
        "succeeded": sum(r["success"] for r in each),
        "carrier_errors": sorted({e["code"] for e in run.sim.errors()}),
    }


@click.command()
@click.option("--runs", default=50, show_default=True, help="Runs at once on one stack.")
@click.option("--rows", default=5, show_default=True, help="Of ours, one after the other; 0: none.")
@click.option("--peer-runs", default=3, show_default=True, help="Of scenario's own; 0: none.")
def main(runs: int, rows: int, peer_runs: int) -> None:
    """Many scenario runs at once, beside one after the other with scenario's own adapter."""
    console = Console(width=max(100, Console().width))
    results: dict[str, dict[str, Any]] = {}
    with carrier(0) as run:
        run.up(gateways=1, codec_workers=1)
        console.print(f"trunkline: {runs} runs at once …")
        results["trunkline, at once"] = measure(run, "trunkline", runs, parallel=True)
        if rows:
            console.print(f"trunkline: {rows} runs, one after the other …")
            results["trunkline, in a row"] = measure(
                run, "trunkline", rows, parallel=False, first=runs
            )
    if peer_runs:
        console.print(f"langwatch-scenario: {peer_runs} runs, one after the other …")
        with carrier(0) as run:
            results["scenario, in a row"] = measure(run, "scenario", peer_runs, parallel=False)
    most, head, cells = page.parallel_table(results)
    table = Table(title=f"{most} scenario runs")
    for column in head:
        table.add_column(column, justify="right" if column else "left")
    for row in cells:
        table.add_row(*row)
    console.print(table)
    page.keep("parallel", results)
    for name, found in results.items():
        if found["carrier_errors"]:
            console.print(f"{name}: the carrier lists errors {found['carrier_errors']}")
    ours = [found for name, found in results.items() if name.startswith("trunkline")]
    if any(r["succeeded"] != r["runs"] or r["carrier_errors"] for r in ours):
        raise SystemExit("not every run of ours succeeded")


if __name__ == "__main__":
    main()
