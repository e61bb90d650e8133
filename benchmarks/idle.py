"""What a stack costs while nobody calls: the wake-ups a second of all its processes.

    python benchmarks/idle.py
    python benchmarks/idle.py --seconds 60 --gateways 1 --codec-workers 1

A wake-up is a voluntary context switch of a thread, as Linux counts them. On an idle machine the
number of wake-ups is the cost, because each of them finds the caches cold; the work that it does
hardly counts. The stand-in carrier is there, and is not counted.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import click
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import page
from benchmarks.processes import Run, carrier, role

#: Seconds after the start in which a stack still settles.
SETTLE = 5.0


def switches(process: psutil.Process) -> dict[str, tuple[int, float]]:
    """Voluntary context switches so far, and milliseconds of CPU, by thread."""
    found = {}
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        status = (task / "status").read_text()
        voluntary = status.partition("voluntary_ctxt_switches:")[2].split(maxsplit=1)[0]
        ran_ns = int((task / "schedstat").read_text().split()[0])
        name = (task / "comm").read_text().strip()
        found[f"{name} {task.name}"] = int(voluntary), ran_ns / 1e6
    return found


def measure(run: Run, seconds: float) -> list[tuple[str, str, float, float]]:
    """(process, thread, wake-ups a second, CPU milliseconds a second) of each thread."""
    family = [process for process in run.family() if role(process) != "other"]
    before = [switches(process) for process in family]
    time.sleep(seconds)
    rows = []
    for process, earlier in zip(family, before, strict=True):
        for thread, (count, ran) in switches(process).items():
            was, had_run = earlier.get(thread, (count, ran))
            name = f"{role(process)} {process.pid}"
            rows.append((name, thread, (count - was) / seconds, (ran - had_run) / seconds))
    return rows


@click.command()
@click.option("--seconds", default=20.0, show_default=True, help="For which it is counted.")
@click.option("--gateways", default=2, show_default=True)
@click.option("--codec-workers", default=2, show_default=True)
def main(seconds: float, gateways: int, codec_workers: int) -> None:
    """The wake-ups a second of all processes of an idle stack."""
    console = Console(width=max(100, Console().width))
    if not Path("/proc/self/schedstat").exists():
        raise SystemExit("wake-ups are counted from /proc, which only Linux has")
    with carrier(0) as run:
        run.up(gateways, codec_workers)
        time.sleep(SETTLE)
        rows = measure(run, seconds)
    table = Table(title=f"idle stack: {gateways} gateways, {codec_workers} codec workers")
    for column in ("process", "thread", "wake-ups/s", "CPU ms/s"):
        table.add_column(column, justify="right" if "/" in column else "left")
    for name, thread, wakes, ran in rows:
        if wakes >= 0.1:
            table.add_row(name, thread, f"{wakes:.1f}", f"{ran:.2f}")
    total, cost = sum(row[2] for row in rows), sum(row[3] for row in rows)
    table.add_section()
    table.add_row("together", "", f"{total:.1f}", f"{cost:.2f}")
    console.print(table)
    found = {"wake_ups_per_second": total, "cpu_ms_per_second": cost, "threads": rows}
    page.keep("idle", found)


if __name__ == "__main__":
    main()
