"""How long it takes until many calls are up: from the first ``place_call`` to the last return.

    python benchmarks/set_up.py
    python benchmarks/set_up.py --calls 20 --rounds 5

All are a-leg calls of one Line, placed at one moment, with ``TRUNKLINE_CALLS_PER_SECOND=1000``
(its largest value). A call is up when its stream is: then a REST request, a webhook or two, and the
upgrade to a WebSocket are behind it. All processes share the machine, so the table also says how
much CPU each of them used meanwhile. The carrier's is not trunkline's: with all cores busy calls
cannot be up sooner than that and ours together allow.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import click
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import page
from benchmarks.measure import cpu_seconds
from benchmarks.processes import OWN_NUMBER, Run, callee, carrier, role
from trunkline import Line

#: Seconds between two rounds, in which the last one's calls end.
REST = 1.0


def cpu(run: Run) -> dict[str, float]:
    """CPU seconds so far, by role; ``client`` is this process."""
    found = {"client": cpu_seconds(os.getpid())}
    for top in (psutil.Process(process.pid) for process in run.processes):
        for process in (top, *top.children(recursive=True)):
            name = role(process)
            found[name] = found.get(name, 0.0) + cpu_seconds(process.pid)
    return found


async def rounds(run: Run, calls: int, count: int) -> list[dict[str, Any]]:
    """Place that many calls at once, so often; seconds and CPU of each round."""
    callees = [callee(n) for n in range(calls)]
    found = []
    async with Line(
        OWN_NUMBER, allowed_callees=callees, bus=run.environment["TRUNKLINE_BUS"]
    ) as line:
        for _ in range(count):
            before, began = cpu(run), time.monotonic()
            placed = await asyncio.gather(
                *(line.place_call(to, timeout=60.0, attach_stream="a-leg") for to in callees)
            )
            took = time.monotonic() - began
            spent = {name: used - before.get(name, 0.0) for name, used in cpu(run).items()}
            found.append({"seconds": took, "cpu_seconds": spent})
            await asyncio.gather(*(call.hang_up() for call in placed))
            await asyncio.sleep(REST)
    return found


@click.command()
@click.option("--calls", default=100, show_default=True, help="Placed at one moment.")
@click.option("--rounds", "count", default=3, show_default=True, help="So often.")
def main(calls: int, count: int) -> None:
    """Set many calls up at once."""
    console = Console(width=max(100, Console().width))
    with carrier(calls) as run:
        run.environment["TRUNKLINE_CALLS_PER_SECOND"] = "1000"
        run.up(gateways=1, codec_workers=1)
        found = asyncio.run(rounds(run, calls, count))
    names = sorted({name for one in found for name in one["cpu_seconds"]})
    table = Table(title=f"{calls} a-leg calls, placed at one moment: seconds")
    table.add_column("until the last is up", justify="right")
    for name in names:
        table.add_column(f"CPU {name}", justify="right")
    for one in found:
        spent = [f"{one['cpu_seconds'].get(name, 0.0):.2f}" for name in names]
        table.add_row(f"{one['seconds']:.2f}", *spent)
    console.print(table)
    page.keep("set_up", found)


if __name__ == "__main__":
    main()
