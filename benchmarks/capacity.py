"""The most calls: how many may begin to say 15 s at one moment, and all of it arrive whole.

    python benchmarks/capacity.py                1, 2 and 4 gateways and codec workers
    python benchmarks/capacity.py --stack 1 --seconds 5 --tries 1

Whole is: all calls are up, no far end's sound runs dry, no frame is lost in either direction, and
that three times of three. The search doubles until it fails once and halves the interval then,
until it is a twentieth. What it finds has to be whole in the other tries too; else a twentieth less
is tried.
Where the machine has fewer cores than the stack has processes, more of them show
their overhead rather than scaling, and the table says so.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent.parent))

import click
from rich.console import Console

from benchmarks import page
from benchmarks.measure import complaint, is_whole, line, measure
from benchmarks.write import write

#: The first number that is tried, and what all numbers are multiples of.
FIRST: Final = 100
STEP: Final = 10
#: More calls than this are not tried.
LIMIT: Final = 2000
SECONDS, TRIES = 15.0, 3


def search(holds: Callable[[int], bool], first: int = FIRST) -> int:
    """The greatest number, in steps of a twentieth (and of STEP), that ``holds``; 0: not even STEP
    does. What holds, holds for less too."""
    good, bad = 0, 0
    trial = first
    while not bad or bad - good > max(STEP, good // 20):
        if holds(trial):
            good = trial
        else:
            bad = trial
        if not bad:
            if good >= LIMIT:
                break
            trial = min(2 * good, LIMIT)
        else:
            trial = max(STEP, (good + bad) // 2 // STEP * STEP)
            if trial in (good, bad):
                break
    return good


def why_not(result: dict[str, Any]) -> str:
    """What was not whole."""
    found = [f"{result['streams']} of {result['calls']} calls were up"]
    found = found if result["streams"] != result["calls"] else []
    for key, words in (
        ("underruns", "underruns"),
        ("lost_out", "frames lost outbound"),
        ("lost_in", "frames lost inbound"),
        ("astray", "frames twice or out of order"),
    ):
        if result[key]:
            found.append(f"{result[key]} {words}")
    return ", ".join(found)


def most_calls(count: int, seconds: float, tries: int, console: Console) -> dict[str, Any]:
    """The search for so many gateways and workers."""
    good: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []

    def holds(calls: int, times: int = 1) -> bool:
        results = [r for r in good if r["calls"] == calls]
        while len(results) < times:
            console.print(f"  {calls} calls, try {len(results) + 1} of {tries}", end=" … ")
            result = measure(line(count), calls, seconds)
            whole = is_whole(result)
            console.print("whole" if whole else why_not(result), end="")
            why = complaint(result)
            console.print(f" (not to be trusted: {why})" if why else "")
            if not whole:
                failed.append({**result, "why": why_not(result), "complaint": why})
                return False
            results.append(result)
        good[:] = results
        return True

    most = search(holds)
    while most and not holds(most, tries):
        most -= max(STEP, most // 20 // STEP * STEP)
    results = good if most else []
    return {"stack": count, "most": most, "results": results, "failed": failed}


@click.command()
@click.option("--stack", "counts", multiple=True, type=int, help="Repeatable; default 1 2 4.")
@click.option("--seconds", default=SECONDS, show_default=True, help="Speech of each call.")
@click.option("--tries", default=TRIES, show_default=True, help="That all have to be whole.")
def main(counts: Sequence[int], seconds: float, tries: int) -> None:
    """The most calls that arrive whole."""
    console = Console(width=max(140, Console().width))
    entries = []
    for count in counts or (1, 2, 4):
        console.print(f"gateways and codec workers, {count} of each:")
        entries.append(most_calls(count, seconds, tries, console))
        console.print(f"  the most: {entries[-1]['most']} calls")
    found = {"entries": entries, "seconds": seconds, "tries": tries, "cores": os.cpu_count()}
    console.print(page.most_calls_part(found), markup=False)
    if not counts and (seconds, tries) == (SECONDS, TRIES):
        page.keep("capacity", found)
        write()


if __name__ == "__main__":
    main()
