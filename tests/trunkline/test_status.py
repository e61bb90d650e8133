"""``trunkline status`` as tables."""

from __future__ import annotations

import io

from rich.console import Console

from trunkline.status import print_tables


def test_what_a_caller_calls_itself_is_shown_as_it_is_and_obeyed_by_nobody() -> None:
    told = io.StringIO()
    status = {
        "controller": {"pid": 1, "epoch": 2},
        "calls": [{"sid": "CA1", "caller": "[red]client:joe[/red]\x1b[2J", "seconds": 1.25}],
    }
    print_tables(status, Console(file=told, width=200, force_terminal=False))
    assert "[red]client:joe[/red]\\x1b[2J" in told.getvalue()
    assert "\x1b" not in told.getvalue() and "1.2" in told.getvalue()
