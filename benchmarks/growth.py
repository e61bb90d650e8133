"""Ten minutes of 100 calls: what memory does meanwhile, and whether the pace drifts.

    python benchmarks/growth.py                 10 minutes, and the pages once more
    python benchmarks/growth.py --seconds 20    the same in short, to try it

Line on one gateway and one codec worker. A call lasts five minutes at most, so there are two rounds
of calls on the same processes. Short calls come before them, as many as the controller remembers
for the console, and so long that their tapes are full: what every process keeps at any time is no
growth.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent.parent))

import click
from rich.console import Console

from benchmarks import arrivals, page
from benchmarks.measure import Trial, line
from benchmarks.write import write

ROUNDS: Final = 2
CALLS, SECONDS = 100, 285.0
#: Rounds of short calls before them, and their seconds.
BEFORE, SHORT = 5, 11.0
#: Seconds between two looks at the memory.
EVERY: Final = 5.0


def hold(trial: Trial) -> dict[str, Any]:
    """One round: ``memory``, MB by process at every look, and the pace of all calls."""
    trial.begin(keeps=False)
    began = time.monotonic()
    trial.client.tell("go")
    memory = [trial.memory()]
    while not trial.client.has_said(within=began + len(memory) * EVERY - time.monotonic()):
        memory.append(trial.memory())
    trial.client.read("done")
    _, heard, _ = trial.end()
    return {
        "memory": memory,
        "drift_ms": max((arrivals.drift(call) for call in heard), key=abs),
        "underruns": sum(arrivals.underruns(call)[0] for call in heard),
    }


@click.command()
@click.option("--calls", default=CALLS, show_default=True)
@click.option("--seconds", default=SECONDS, show_default=True, help="Speech of each round.")
def main(calls: int, seconds: float) -> None:
    """What many minutes of many calls add."""
    console = Console(width=max(100, Console().width))
    found = []
    with Trial(line(1), calls, *[SHORT] * BEFORE, *[seconds] * ROUNDS) as trial:
        for n in range(BEFORE):
            console.print(f"{calls} short calls, round {n + 1} of {BEFORE} …")
            hold(trial)
            trial.client.read("ready")
        for n in range(ROUNDS):
            if n:
                trial.client.read("ready")
            console.print(f"{calls} calls speak for {seconds:g} s, round {n + 1} of {ROUNDS} …")
            found.append(hold(trial))
            pace = "drift {drift_ms:.2f} ms, {underruns} underruns".format(**found[-1])
            memory = [round(sum(each.values())) for each in found[-1]["memory"]]
            console.print(f"{pace}; memory, MB: {memory[0]} to {memory[-1]}")
    if (calls, seconds) == (CALLS, SECONDS):
        page.keep("growth", {"calls": calls, "seconds": seconds, "rounds": found})
        write()


if __name__ == "__main__":
    main()
