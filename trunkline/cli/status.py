"""``trunkline status``: the controller's report, as JSON or as tables."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trunkline.bus.process import EXIT_DONE
from trunkline.bus.redact import printable
from trunkline.bus.settings import Settings

from ..stack.controller_client import controller_client, get_status
from . import progress
from .tables import output

#: Seconds to wait for an answer. A controller that is being started again is back by then.
ANSWER_WITHIN = 5.0


async def show(settings: Settings, *, as_json: bool) -> int:
    """Print the controller's report. StackUnavailableError where no controller answers."""
    with progress.working(f"asking the controller at {settings.bus}"):
        async with controller_client(settings, timeout=ANSWER_WITHIN) as client:
            status = await get_status(client)
    if as_json:
        click.echo(json.dumps(status))
    else:
        print_tables(status, output())
    return EXIT_DONE


def print_tables(status: dict[str, Any], console: Console) -> None:
    """Print the report as a table for each of its lists, with a column for each field."""
    head = status["controller"]
    console.print(f"controller  pid {head['pid']}, epoch {head['epoch']}")
    for section, rows in status.items():
        if section == "controller":
            continue
        title = section.replace("_", " ")
        if not rows:
            console.print(f"{title}  none")
            continue
        table = Table(title=title, title_justify="left", title_style="bold", box=None)
        columns = dict.fromkeys(column for row in rows for column in row)
        for column in columns:
            table.add_column(column.replace("_", " "), overflow="fold")
        for row in rows:
            table.add_row(*(_cell(row.get(column)) for column in columns))
        console.print(table)


def _cell(value: object) -> str | Text:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, dict):
        value = ", ".join(f"{name} {count}" for name, count in value.items()) or "-"
    # A caller chooses its own name. It must not act as markup, nor as a command to the terminal.
    return Text(printable(str(value)))
