"""``trunkline status`` as tables."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from trunkline.cli.status import print_tables
from trunkline.cli.tables import output


def test_what_a_gateway_has_refused_stands_in_its_row() -> None:
    console = Console(record=True, width=120)
    gateways = [
        {"id": "gateway-1", "pid": 11, "streams": 2},
        {"id": "gateway-2", "pid": 12, "streams": 0, "refused": {"shared key": 3, "unsigned": 1}},
    ]
    print_tables({"controller": {"pid": 1, "epoch": 4}, "gateways": gateways}, console)
    rows = [line.split(maxsplit=3) for line in console.export_text().splitlines()]
    assert ["gateway-1", "11", "2", "-"] in [[cell.strip() for cell in row] for row in rows]
    assert ["gateway-2", "12", "0", "shared key 3, unsigned 1"] in [
        [cell.strip() for cell in row] for row in rows
    ]


def test_what_a_caller_calls_itself_is_shown_as_it_is_and_obeyed_by_nobody() -> None:
    told = io.StringIO()
    status = {
        "controller": {"pid": 1, "epoch": 2},
        "calls": [{"sid": "CA1", "caller": "[red]client:joe[/red]\x1b[2J", "seconds": 1.25}],
    }
    print_tables(status, Console(file=told, width=200, force_terminal=False))
    assert "[red]client:joe[/red]\\x1b[2J" in told.getvalue()
    assert "\x1b" not in told.getvalue() and "1.2" in told.getvalue()


def test_in_a_pipe_a_row_is_one_line_however_long_its_urls_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """``grep`` finds it whole. A voice_url may have 2,000 characters."""
    row = {"number": "+14155551234", "prior_voice_url": "https://x/" + "y" * 1_990}
    print_tables({"controller": {"pid": 1, "epoch": 4}, "overrides": [row]}, output())
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "+14155551234" in line)
    assert "y" * 1_990 in line
