"""The chaos suite: 20 calls talk full duplex while every kind of process is killed, stopped, ended.

    python benchmarks/chaos.py                      10 minutes
    python benchmarks/chaos.py --seconds 60 --seed 7
    python benchmarks/chaos.py --alone              each kind of fault once, and no other near it

In a run of five minutes or more each kind of fault comes once alone. Then single processes are hit,
one at a time or overlapping within bounds (chaos_faults.py); calls must go on. Then the stack as a
whole is hit; calls may be lost, numbers never. Only processes that were started here are hit, by
pid, and all sound is loopback. Every frame in both directions carries its number, so that the
carrier's own records show which frames came, which came twice and which did not.

It fails unless every override is restored, no frame is doubled, every lost frame is reported, and
no call is lost but those of a killed client (hung up, and its numbers as before, within 10 s). It
fails as well where the machine is too busy to say any of that.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parent.parent))

import click
from rich.console import Console

from benchmarks.chaos_faults import WHOLE, alone, plan, whole
from benchmarks.chaos_page import page, show
from benchmarks.chaos_run import CALLS, KEPT, Chaos, MachineTooBusyError
from benchmarks.chaos_wholes import end, wholes
from benchmarks.processes import carrier

PAGE: Final = Path(__file__).parent.parent / "docs" / "chaos.md"
#: Seconds that one round of the whole stack's scenario takes.
ROUND: Final = 9.0
#: Seconds of overlapping faults at least.
SHORTEST: Final = 15.0
#: A run that lasts so long has faults that are alone, too.
LONG: Final = 300.0


@click.command()
@click.option("--seconds", default=600.0, show_default=True, type=click.FloatRange(30.0))
@click.option("--seed", type=int, help="Repeat the faults of a run. Default: a new one.")
@click.option("--alone", "only_alone", is_flag=True, help="Each kind once, and no other near it.")
@click.option("--page/--no-page", "write_page", default=False, help="Write docs/chaos.md.")
def main(seconds: float, seed: int | None, only_alone: bool, write_page: bool) -> None:
    """Kill, stop and end every kind of process while 20 calls talk."""
    if only_alone and write_page:
        raise click.UsageError("docs/chaos.md is of a whole run: --page goes without --alone")
    console = Console(width=max(100, Console().width))
    seed = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    console.print(f"seed {seed}")
    rounds = whole(seed, len(WHOLE) if only_alone else max(2, round(seconds / 100)))
    with carrier(0, keep_audio=True) as run:
        chaos = Chaos(run, seed, console.print)
        try:
            chaos.start()
            chaos.all_up()
            began = time.monotonic()
            if only_alone or seconds >= LONG:
                chaos.say("single processes are hit, each alone")
                chaos.alone(alone(seed))
            if not only_alone:
                left = seconds - (time.monotonic() - began) - ROUND * len(rounds)
                left = max(SHORTEST, left)
                chaos.say(f"{left:.0f} s: single processes are hit while {CALLS} calls talk")
                chaos.overlapping(plan(seed, left), left)
            wholes(chaos, rounds)
            end(chaos)
        except MachineTooBusyError as error:
            raise click.ClickException(str(error)) from error
        finally:
            chaos.close()
        show(chaos.score, seed, console)
        if write_page:
            PAGE.write_text(page(chaos.score, seed, seconds))
            console.print(f"written to {PAGE}")
        if chaos.score.problems:
            KEPT.mkdir(parents=True, exist_ok=True)
            (KEPT / "processes.log").write_text(run.tails(1_000_000))
            for text in chaos.score.problems:
                console.print(f"[red]{text}[/red]")
            console.print(f"{len(chaos.score.problems)} problems; repeat with --seed {seed}")
            raise SystemExit(1)
        console.print("nothing was lost that was not reported, nothing came twice")


if __name__ == "__main__":
    main()
