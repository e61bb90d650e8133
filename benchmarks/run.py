"""The benchmark: trunkline beside its peers, on one carrier, in one run.

    python benchmarks/run.py                     three rounds, 15 minutes; writes the pages
    python benchmarks/run.py --quick             one round of what matters most, 3 minutes
    python benchmarks/run.py --only trunkline --only langwatch-scenario --calls 40 --rounds 1

A round is every side at each of its numbers of calls, one measurement after the other, sides taking
turns, so that a machine that slows down does so for all. Every measurement has processes of its
own. What is told is the median of the rounds, and their least and greatest. Peers run in a virtual
environment of their own (``.venv-peers``), which is made at first use.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent.parent))

import click
from rich.console import Console

from benchmarks import page
from benchmarks.measure import (
    ADAPTER,
    OTHERS,
    PEERS,
    PIPECAT,
    PROMPT,
    SCENARIO,
    Side,
    complaint,
    line,
    measure,
    others_share,
)
from benchmarks.processes import ROOT
from benchmarks.write import write

#: The peers, as they are installed.
PACKAGES: Final = ("langwatch-scenario==1.6.0", "pipecat-ai[websocket]==1.14.0", "uvloop")
#: Of speech that every call says.
SECONDS: Final = 6.0
#: What a measurement takes beside its speech: processes that start and end, calls that come up.
OVERHEAD: Final = 6.0
#: Of those who import langwatch-scenario, and what its own adapter takes to bring a call up.
IMPORTS, OF_A_CALL = 5.0, 0.1

#: Benchmarks of one thing each that a whole run calls too, with what they take (seconds); what they
#: leave in ``out/bench`` goes into the page.
FURTHER: Final = {
    ("idle",): 30.0,
    ("set_up",): 15.0,
    ("latency",): 35.0,
    ("gate", "--only", "ours", "--seeds", "1"): 30.0,
}

Plan = list[tuple[Side, int]]


def one_line(calls: int) -> Side:
    """Line on one gateway and one worker up to 100 calls, on two of each above."""
    return line(1 if calls <= 100 else 2)


SIDES: Final = (
    one_line,
    lambda _: SCENARIO,
    lambda _: line(None),
    lambda _: PIPECAT,
    lambda _: ADAPTER,
    lambda _: PROMPT,
)


def plan(*, quick: bool) -> Plan:
    """A round, sides taking turns."""
    if quick:
        three = [(side, n) for n in (1, 40, 100) for side in (one_line(n), SCENARIO)]
        return [*three, (ADAPTER, 40), (PIPECAT, 40)]
    return [
        *((side, 1) for side in (one_line(1), SCENARIO, PIPECAT, ADAPTER, PROMPT)),
        *((side, 10) for side in (one_line(10), SCENARIO)),
        *((side, 40) for side in (one_line(40), SCENARIO, line(None), PIPECAT, ADAPTER, PROMPT)),
        *((side, 100) for side in (one_line(100), SCENARIO, PROMPT)),
        *((one_line(n), n) for n in (200, 300)),
    ]


def estimate(side: Side, calls: int, seconds: float) -> float:
    """Seconds that a measurement takes."""
    adapters = side.client == ADAPTER.client
    return seconds + OVERHEAD + adapters * IMPORTS + (side is SCENARIO) * OF_A_CALL * calls


def install_peers(console: Console) -> None:
    """Make their virtual environment, where it is not there or not as it should be."""
    wanted = "\n".join(PACKAGES)
    stamp = PEERS.parent.parent / "installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    console.print(f"installing the peers into {PEERS.parent.parent.name} (a minute or two)")
    subprocess.run([sys.executable, "-m", "venv", str(PEERS.parent.parent)], check=True)
    pip = [str(PEERS), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *PACKAGES], check=True)
    stamp.write_text(wanted)


def machine() -> dict[str, Any]:
    """Where this was measured."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
    )
    return {
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "commit": commit.stdout.strip(),
        "day": time.strftime("%Y-%m-%d"),
        "busy_cores": others_share(),
    }


def carry_out(
    every: Plan, rounds: int, seconds: float, console: Console
) -> Iterator[dict[str, Any]]:
    """All measurements; says what is measured, and how long the rest takes."""
    work = [(n, side, calls) for n in range(rounds) for side, calls in every]
    costs = [estimate(side, calls, seconds) for _, side, calls in work]
    spent = expected = 0.0
    for index, (n, side, calls) in enumerate(work):
        left = sum(costs[index:]) * (spent / expected if expected else 1.0)
        console.print(
            f"[{index + 1}/{len(work)}, {left // 60:.0f}:{left % 60:02.0f} left] "
            f"round {n + 1}: {calls} calls, {side.name}",
            end=" … ",
            markup=False,
        )
        began = time.monotonic()
        result = {**measure(side, calls, seconds), "round": n}
        spent, expected = spent + time.monotonic() - began, expected + costs[index]
        console.print(
            f"{result['cpu']:.1f} ms per call-second, jitter p99 {result['jitter_p99_ms']:.1f} ms, "
            f"{result['underruns']} underruns, {result['lost_out']} lost; "
            f"load generator {result['carrier_cores']:.2f} cores"
        )
        if why := complaint(result):
            console.print(f"  not to be trusted: {why}")
        yield result


@click.command()
@click.option("--quick", is_flag=True, help="One round of the most telling part, 3 minutes.")
@click.option("--rounds", type=int, help="Default 3; with --quick 1.")
@click.option("--seconds", default=SECONDS, show_default=True, help="Speech of each call.")
@click.option("--only", multiple=True, help="A side, by name; repeatable.")
@click.option("--calls", "counts", multiple=True, type=int, help="A number of calls; repeatable.")
@click.option("--write/--no-write", "writes", default=None, help="Write docs/ (default: if whole).")
def main(
    quick: bool,
    rounds: int | None,
    seconds: float,
    only: Sequence[str],
    counts: Sequence[int],
    writes: bool | None,
) -> None:
    """Pace, loss and CPU of N calls, trunkline beside its peers."""
    console = Console(width=max(140, Console().width))
    every = plan(quick=quick)
    if counts:
        every = [(side(n), n) for n in counts for side in SIDES]
    every = [(side, n) for side, n in every if not only or side.name in only]
    if any(side.python == PEERS for side, _ in every):
        install_peers(console)
    where = machine()
    if where["busy_cores"] > OTHERS:
        console.print(f"This machine is busy: {where['busy_cores']:.1f} cores before we begin.")
    whole = not (quick or only or counts)
    writes = whole if writes is None else writes
    results: list[dict[str, Any]] = []
    found = {"machine": where, "seconds": seconds, "results": results}
    for result in carry_out(every, rounds or (1 if quick else 3), seconds, console):
        results.append(result)
        # After each: a run that is broken off has not been in vain.
        page.keep("results" if writes else "partial", found)
    if whole:
        for name, *options in FURTHER:
            console.print(f"{name}.py …")
            script = ROOT / "benchmarks" / f"{name}.py"
            subprocess.run([sys.executable, str(script), *options], check=True)
    page.show(found, console)
    if writes:
        write()
    if any(r["streams"] != r["calls"] for r in results):
        raise SystemExit("not every call carried sound")


if __name__ == "__main__":
    main()
