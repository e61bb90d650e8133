"""``trunkline load``: places the calls, shows its progress, and then the figures.

Ctrl-C hangs up all calls, and shows the figures of those that were up. Exit status 1: a limit is
broken, or the ramp ended early (as it does where no call of a step comes up).
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import click
from rich.table import Table

from trunkline.adapter.line import Line
from trunkline.bus.errors import LimitReachedError
from trunkline.bus.process import EXIT_DONE, EXIT_FAILED, StoppedError, complain, run, unless
from trunkline.bus.redact import printable
from trunkline.bus.settings import Settings

from ..cli.json_text import json_text
from ..cli.numbers import of_the_account
from ..cli.tables import output
from ..reports import cost, files
from ..stack.controller_client import controller_client, get_status
from . import figures
from .figures import Load, Row, Step
from .page import COLUMNS, cells, page
from .ramp import Plan, Ramp

#: Seconds after which a terminal's line about the present step is written again.
_TELL_EVERY: Final = 0.5


def load(
    settings: Settings, plan: Plan, limits: Mapping[str, float], html: Path, *, as_json: bool
) -> int:
    """Run the load test, and show its figures; returns the exit status. Raises what Line raises,
    and LimitReachedError where the caps of the stack leave too little for the ramp."""
    files.check_option("--html", html)
    progress = _Progress(to_stderr=as_json)
    line = Line(plan.number, allowed_callees=[plan.to], bus=settings.bus)
    ramp = Ramp(line, plan, progress.begin, progress.end)

    async def main(stop: asyncio.Event) -> int:
        async with controller_client(settings) as client:
            check_caps((await get_status(client)).get("caps", []), plan)
        progress.say(_announced(plan))
        async with line, progress.shown():
            try:
                await unless(stop, ramp.run())
            except StoppedError:
                ramp.stopped = "interrupted"
        return _show(settings, plan, ramp, limits, html, as_json=as_json)

    with of_the_account(plan.number, "--from"):
        return run(main)


def check_caps(caps: list[dict[str, Any]], plan: Plan) -> None:
    """Raise LimitReachedError where the caps leave less than the ramp needs: all of its calls in an
    hour, and the calls and minutes of its last step. The stack keeps its caps in any case, but this
    says so before anything is spent."""
    needed = {
        "TRUNKLINE_MAX_CALLS": plan.most,
        "TRUNKLINE_MAX_CALLS_PER_HOUR": plan.calls,
        "TRUNKLINE_MAX_MINUTES_PER_DAY": plan.most * cost.begun_minutes(plan.longest),
    }
    for cap in caps:
        need = needed[cap["setting"]]
        if cap["left"] < need:
            raise LimitReachedError(
                f"{cap['setting']}={cap['most']} leaves {cap['left']}, and a ramp up to "
                f"{plan.most} calls at a time needs {need}, so nothing is dialled: lower --calls "
                "or --max-duration, or raise the cap"
            )


def _announced(plan: Plan) -> str:
    ramp = ", ".join(map(str, figures.steps(plan.most)))
    return (
        f"calling {plan.to} from {plan.number}: {ramp} at a time, "
        f"{cost.counted(plan.calls, 'call')} of {plan.longest} s at most"
    )


def _show(
    settings: Settings,
    plan: Plan,
    ramp: Ramp,
    limits: Mapping[str, float],
    html: Path,
    *,
    as_json: bool,
) -> int:
    """Print the table or the JSON, and write the page. Returns the exit status."""
    price = settings.price_per_minute
    found = figures.load(plan.to, plan.number, ramp.steps, limits, price, ramp.stopped)
    if as_json:
        click.echo(json_text(found))
    else:
        _print(found, ramp.steps, price)
    files.write(html, page(found, ramp.steps, ramp.worst))
    if not as_json:
        click.echo(f"-> {html}")
    wrong = [*filter(None, [found.stopped]), *found.broken]
    if not wrong:
        return EXIT_DONE
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    complain("load", f"{wrong[0]}{more}")
    return EXIT_FAILED


def _print(found: Load, steps: list[Step], price: float | None) -> None:
    table = Table(box=None)
    for column in COLUMNS:
        table.add_column(column, overflow="fold")
    for row in found.steps:
        table.add_row(*cells(row))
    output().print(table)
    for text in _reasons(found.steps, steps):
        click.echo(printable(text))
    for text in found.broken:
        click.echo(f"broken: {text}")
    click.echo(cost.text(found.calls, found.minutes, price))


def _reasons(rows: list[Row], steps: list[Step]) -> list[str]:
    """Why calls failed, by the error of the first call of each kind, and why recordings are
    unreliable."""
    said: dict[str, str] = {}
    for step in steps:
        said = step.said | said
    return [f"{kind}: {text}" for kind, text in said.items() if text] + [
        f"UNRELIABLE: {reason}" for row in rows for reason in row.unreliable_because
    ]


class _Progress:
    """Writes a line for each step when it is over. On a terminal, the line also shows how a step
    goes while it runs."""

    def __init__(self, *, to_stderr: bool) -> None:
        self._to_stderr = to_stderr
        self._step: Step | None = None
        self._live = (sys.stderr if to_stderr else sys.stdout).isatty()

    def say(self, text: str, *, over: bool = True) -> None:
        """Write a line. A line that is not ``over`` is replaced by the next."""
        begin = "\r\x1b[K" if self._live else ""
        click.echo(begin + text, err=self._to_stderr, nl=over)

    def begin(self, step: Step) -> None:
        self._step = step

    def end(self, step: Step) -> None:
        self._step = None
        slowest = max(step.latencies, default=None)
        latency = "no answer" if slowest is None else f"slowest answer {slowest:.2f} s"
        self.say(
            f"{step.concurrency} at a time: {len(step.reports)} answered, "
            f"{step.failures.total()} failed; {latency}"
        )

    @contextlib.asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """During the block, show on a terminal how the present step goes."""
        telling = asyncio.create_task(self._tell())
        try:
            yield
        finally:
            telling.cancel()

    async def _tell(self) -> None:
        while self._live:
            await asyncio.sleep(_TELL_EVERY)
            if (step := self._step) is not None:
                self.say(
                    f"{step.concurrency} at a time: {step.up} up, {step.failures.total()} failed …",
                    over=False,
                )
