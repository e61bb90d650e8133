"""``trunkline doctor --live``: tells the cost, asks, runs, and prints the verdicts.

Exit status: 0 when all beliefs hold, 1 when one does not or could not be judged (one line on stderr
names it), 3 when the number is still to be put back. On a signal the run hangs its calls up, puts
the number back, and then ends early.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from typing import Final

import click
from rich.console import Console
from rich.text import Text

from trunkline.bus.errors import SettingsError
from trunkline.bus.process import EXIT_DONE, EXIT_FAILED, EXIT_PENDING, complain
from trunkline.bus.redact import printable
from trunkline.bus.settings import Settings

from .run import COST, LeftBehindError, Outcome, Plan, run
from .verdicts import LIVE, Judgement

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SIGNS: dict[Judgement, tuple[str, str]] = {
    "holds": ("ok  ", "green"),
    "contradicted": ("FAIL", "bold red"),
    "unknown": ("?   ", "yellow"),
}


async def command(
    settings: Settings,
    number: str | None,
    caller: str | None,
    *,
    yes: bool,
    as_json: bool,
    tunnel: str | None = None,
) -> int:
    """Ask, run, and print the verdicts; returns the exit status."""
    number = _which(settings, number)
    plan = Plan(number, caller or number, tunnel)
    if not agreed(plan, yes=yes):
        click.echo("trunkline doctor: you did not agree, so nothing was done", err=True)
        return EXIT_FAILED
    with _signals_cancel() as signalled:
        try:
            outcome = await run(settings, plan, lambda text: click.echo(text, err=True))
        except LeftBehindError as error:
            click.echo(f"trunkline doctor: interrupted; {error}", err=True)
            return EXIT_PENDING
        except asyncio.CancelledError:
            if not signalled.is_set():
                raise
            click.echo(
                f"trunkline doctor: interrupted; {plan.number} is as it was before", err=True
            )
            return EXIT_FAILED
    if as_json:
        click.echo(json.dumps(as_object(plan, outcome), indent=2))
    else:
        show(outcome)
    return _status(plan, outcome)


@contextlib.contextmanager
def _signals_cancel() -> Iterator[asyncio.Event]:
    """Cancel this task on SIGINT, SIGTERM or SIGHUP, and set the event. Further signals do nothing,
    because a second cancellation would stop the number from being put back."""
    signalled, task = asyncio.Event(), asyncio.current_task()
    loop = asyncio.get_running_loop()

    def cancel() -> None:
        if not signalled.is_set() and task is not None:
            signalled.set()
            task.cancel()

    for number in _SIGNALS:
        loop.add_signal_handler(number, cancel)
    try:
        yield signalled
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


def _which(settings: Settings, number: str | None) -> str:
    if number is not None:
        return number
    if len(settings.numbers) != 1:
        raise click.UsageError("--live needs --number: the number of the account to call")
    return settings.numbers[0]


def agreed(plan: Plan, *, yes: bool) -> bool:
    """Tell the cost, and ask. Returns whether the user agrees. SettingsError where there is no
    terminal to ask at."""
    click.echo(
        f"This places {COST}.\nThe voice_url and voice_fallback_url of {plan.number} are changed "
        "meanwhile, and put back afterwards. Other callers hear busy for about half a minute.",
        err=True,
    )
    if yes:
        return True
    if not sys.stdin.isatty():
        raise SettingsError("--live asks before it spends; without a terminal, add --yes")
    return click.confirm("Go on?", default=False, err=True)


def show(outcome: Outcome) -> None:
    """Print a line for each belief, and where it does not hold a second line with what that
    means."""
    console = Console(highlight=False)
    for name, verdict in outcome.verdicts.all.items():
        sign, style = _SIGNS[verdict.judgement]
        line = (Text(sign, style=style), Text(f"{name:<30}"), Text(printable(verdict.seen)))
        console.print(*line, soft_wrap=True)
        if verdict.judgement == "contradicted":
            console.print(Text(f"{'':5}it means: {LIVE[name]}", style="bold"), soft_wrap=True)
    if outcome.back:
        console.print(Text("ok   the number is as it was before"), soft_wrap=True)


def as_object(plan: Plan, outcome: Outcome) -> dict[str, object]:
    """The outcome as it is in the JSON."""
    return {
        "number": plan.number,
        "number_is_back": outcome.back,
        "error": None if outcome.error is None else str(outcome.error),
        "beliefs": {
            name: {
                "verdict": verdict.judgement,
                "seen": verdict.seen,
                "means": LIVE[name] if verdict.judgement == "contradicted" else None,
            }
            for name, verdict in outcome.verdicts.all.items()
        },
    }


def _status(plan: Plan, outcome: Outcome) -> int:
    """Returns the exit status, and prints its line on stderr."""
    wrong = outcome.verdicts.named("contradicted")
    unknown = outcome.verdicts.named("unknown")
    if not outcome.back:
        text = f"{plan.number} is not put back yet; run `trunkline restore`"
    elif wrong:
        text = f"what trunkline believes of Twilio does not hold: {', '.join(wrong)}"
    elif outcome.error is not None:
        text = str(outcome.error)
    elif unknown:
        text = f"it could not be told whether these hold: {', '.join(unknown)}"
    else:
        return EXIT_DONE
    complain("doctor", text)
    return EXIT_FAILED if outcome.back else EXIT_PENDING
