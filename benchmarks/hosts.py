"""Three hosts behind one load balancer: 50 calls talk while hosts are cut off, killed, far away.

    sudo python benchmarks/hosts.py                       under 5 minutes
    sudo python benchmarks/hosts.py --calls 6 --only "a host is killed"

The hosts are network namespaces of this machine (hosts_network.py), with a gateway and a codec
worker on each, and the controller on one (hosts_run.py). The bus is tcp with CURVE, the journal is
in PostgreSQL, and a load balancer deals connections out in turn (hosts_balancer.py), so a call's
webhook and its stream reach different hosts as a rule. Each fault has calls of its own, which end
while it lasts, so that numbers are put back in spite of it. The chaos suite's clients and judge
look after the calls: each 20 ms frame has its number, and the carrier records show which came.

It fails unless every call is kept, no frame comes twice, every lost frame is reported, and every
number is as before. It fails as well where the machine is too busy to say any of that.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parent.parent))

import click
from rich.console import Console
from rich.table import Table

from benchmarks.chaos_run import KEPT, Chaos, MachineTooBusyError
from benchmarks.chaos_score import Score
from benchmarks.hosts_network import NotPossibleError
from benchmarks.hosts_run import HostsRun
from trunkline.bus.process import EXIT_DONE

PAGE: Final = Path(__file__).parent.parent / "docs" / "hosts.md"
#: Between these the page has the table.
MARKS: Final = ("<!-- hosts -->", "<!-- /hosts -->")
CALLS: Final = 50
#: Calls last until they are asked to end.
CALL_SECONDS: Final = (600.0, 600.0)
#: Frames (20 ms) by which the ways of two streams may differ. With a host its worker is lost, so
#: the client counts from when it last heard, and a frame waits up to 10 ms at the worker as well.
#: The rest is the balancer's loop, beside all other calls, and the network.
APART: Final = 1.0
#: Seconds of talk before a fault.
BEFORE: Final = 1.5
#: Seconds until somebody who looks after hosts starts the controller elsewhere.
NOTICED_AFTER: Final = 3.0
#: Seconds that a host is cut off.
CUT: Final = 5.0
HEAD: Final = (
    *("fault", "calls kept", "streams again", "across hosts", "lost to the far end, reported"),
    *("lost to the client, reported", "doubled", "longest hole (ms)", "numbers restored"),
)


@dataclass(frozen=True)
class Fault:
    """What happens ``at`` each second from its beginning, for how long calls then talk, and how all
    is mended once they have ended."""

    name: str
    seconds: float
    steps: tuple[tuple[float, Callable[[HostsRun], None]], ...] = ()
    mend: Callable[[HostsRun], object] = lambda run: None


def _slow(milliseconds: int) -> Callable[[HostsRun], None]:
    return lambda run: run.network.delay(milliseconds, run.directory / "relay.log")


#: The controller is on host a until the last one.
FAULTS: Final = (
    Fault("none", 6.0),
    Fault(
        f"host b is cut off for {CUT:g} s",
        13.0,
        ((0.0, lambda run: run.network.cut("b")), (CUT, lambda run: run.network.join("b"))),
    ),
    Fault(
        "host b is cut off for good",
        9.0,
        ((0.0, lambda run: run.network.cut("b")),),
        lambda run: run.network.join("b"),
    ),
    Fault(
        "host c is killed",
        8.0,
        ((0.0, lambda run: run.kill_host("c")),),
        lambda run: run.up(),
    ),
    *(
        Fault(
            f"{percent} % loss between hosts",
            8.0,
            ((0.0, lambda run, percent=percent: run.network.lose(percent)),),  # type: ignore[misc]
            lambda run: run.network.lose_nothing(),
        )
        for percent in (1, 5)
    ),
    *(
        Fault(
            f"{milliseconds} ms each way between hosts",
            8.0,
            ((0.0, _slow(milliseconds)),),
            lambda run: run.network.delay_nothing(),
        )
        for milliseconds in (20, 80)
    ),
    Fault(
        f"host a, the controller's, is killed; {NOTICED_AFTER:g} s later that starts on b",
        14.0,
        (
            (0.0, lambda run: run.kill_host("a")),
            (NOTICED_AFTER, lambda run: run.start_controller("b")),
        ),
        lambda run: run.up(),
    ),
)


@dataclass
class Row:
    """What became of the calls of one fault."""

    fault: str
    score: Score
    #: when it began (monotonic)
    at: float
    calls: int
    across: int
    numbers: int
    restored: int

    @property
    def holes(self) -> list[float]:
        return [s for v in self.score.verdicts for at, s in v.holes if at >= self.at - 0.1]

    def cells(self) -> list[str]:
        verdicts = self.score.verdicts
        kept = [v for v in verdicts if not v.dropped]

        def total(name: str) -> float:
            return float(sum(getattr(v, name) for v in verdicts))

        return [
            self.fault,
            f"{len(kept)} of {self.calls}",
            f"{total('streams') - len(verdicts):.0f}",
            f"{self.across}",
            f"{total('lost_out'):.0f}, {total('reported_out'):.0f}",
            f"{total('lost_in'):.0f}, {total('reported_in'):.0f}",
            f"{total('doubled_out') + total('doubled_in'):.0f}",
            f"{max(self.holes, default=0.0) * 1000:.0f}",
            f"{self.restored} of {self.numbers}",
        ]


def across(run: HostsRun) -> int:
    """Calls whose gateway and codec worker are on different hosts."""
    status = run.status()
    hosts = {row["id"]: row["host"] for row in (*status["gateways"], *status["codec_workers"])}
    ends = [(hosts.get(c["gateway"]), hosts.get(c["codec_worker"])) for c in status["calls"]]
    return sum(here != there for here, there in ends if here is not None and there is not None)


def hit(run: HostsRun, fault: Fault, seed: int, calls: int, say: Callable[[str], None]) -> Row:
    """Calls of its own talk, the fault comes, the calls end, all is mended."""
    say(f"{fault.name}")
    chaos = Chaos(run, seed, say, CALL_SECONDS, calls, APART)
    try:
        chaos.start()
        chaos.all_up()
        chaos.during(BEFORE)
        began = time.monotonic()
        for after, step in fault.steps:
            chaos.during(began + after - time.monotonic())
            step(run)
        chaos.during(began + fault.seconds - time.monotonic())
        crossing = across(run)
        numbers = chaos.stack.overridden()
        chaos.leave()
        chaos.until(lambda: not chaos.stack.changed(), "numbers are as before", 5.0)
        changed = chaos.stack.changed()
        fault.mend(run)
        chaos.until(run.complete, "three hosts have joined", 30.0)
    finally:
        chaos.close()
    if len(chaos.score.verdicts) != calls:
        chaos.problem(f"{len(chaos.score.verdicts)} of {calls} calls were judged")
    restored = len(numbers) - len(changed)
    return Row(fault.name, chaos.score, began, calls, crossing, len(numbers), restored)


def show(rows: list[Row], console: Console) -> None:
    table = Table(title="three hosts")
    for n, head in enumerate(HEAD):
        table.add_column(head, justify="right" if n else "left")
    for row in rows:
        table.add_row(*row.cells())
    console.print(table)


def write(rows: list[Row], calls: int) -> None:
    """The table, between its marks in docs/hosts.md."""
    lines = [
        f"`make hosts`: {calls} calls talk full duplex in each row. {platform.system()}, "
        f"{os.cpu_count()} cores",
        "for three hosts, the carrier, the database and the clients.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|---|" + "---:|" * (len(HEAD) - 1),
        *("| " + " | ".join(row.cells()) + " |" for row in rows),
    ]
    before, _, rest = PAGE.read_text().partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    PAGE.write_text("\n".join([before + MARKS[0], *lines, MARKS[1] + after]))


@click.command()
@click.option("--calls", default=CALLS, show_default=True, type=click.IntRange(6, 200))
@click.option("--only", multiple=True, help="Only faults with this in their names.")
@click.option("--seed", default=1, show_default=True)
@click.option("--page/--no-page", "write_page", default=False, help="Write docs/hosts.md.")
def main(calls: int, only: tuple[str, ...], seed: int, write_page: bool) -> None:
    """Cut hosts off, kill them, and make the network between them bad, while calls talk."""
    if write_page and only:
        raise click.UsageError("docs/hosts.md is of all faults: --page goes without --only")
    console = Console(width=max(160, Console().width))
    faults = [f for f in FAULTS if not only or any(word in f.name for word in only)]
    if not faults:
        raise click.UsageError(f"--only: there are {', '.join(f.name for f in FAULTS)}")
    began = time.monotonic()
    rows: list[Row] = []
    try:
        run = HostsRun()
    except NotPossibleError as error:
        raise click.ClickException(str(error)) from error
    try:
        run.begin()
        rows.extend(hit(run, fault, seed, calls, console.print) for fault in faults)
        statuses = run.end_stack()
    except MachineTooBusyError as error:
        raise click.ClickException(str(error)) from error
    except BaseException:
        print(run.tails(), file=sys.stderr)
        raise
    finally:
        KEPT.mkdir(parents=True, exist_ok=True)
        (KEPT / "hosts.log").write_text(run.tails(100_000))
        run.close()
    show(rows, console)
    if write_page:
        write(rows, calls)
        console.print(f"written to {PAGE}")
    problems = [text for row in rows for text in row.score.problems]
    if any(status != EXIT_DONE for status in statuses):
        problems.append(f"processes ended with {statuses}")
    for text in problems:
        console.print(f"[red]{text}[/red]")
    console.print(f"{time.monotonic() - began:.0f} s, {len(problems)} problems")
    raise SystemExit(bool(problems))


if __name__ == "__main__":
    main()
