"""``trunkline init``: its options and its output. :mod:`trunkline.starter` writes the files."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from trunkline.bus.process import EXIT_DONE

from .options import json_option


@click.command(short_help="Begin a project: settings, pytest's part, a first test.")
@click.argument(
    "directory", type=click.Path(path_type=Path, file_okay=False), default=Path(), metavar="[DIR]"
)
@json_option
def init(directory: Path, as_json: bool) -> None:
    """Begin a project: write .env, pytest's part, and a first test that passes offline.

    Settings of pytest go to the end of pyproject.toml if there is one, else into pytest.ini. Files
    and settings that are there stay as they are, and the command names them. `pytest --phone-sim`
    runs the test.

    \b
    Examples:
      trunkline init
      trunkline init line-tests
    """
    from ..starter.write import write
    from .json_text import json_text

    done = write(directory)
    if as_json:
        click.echo(json_text(done))
        sys.exit(EXIT_DONE)
    for path in done.wrote:
        click.echo(f"wrote  {path}")
    for left in done.left:
        click.echo(f"left   {left.path}: {left.why}")
    click.echo("next:")
    wide = max(len(command) for command, _ in done.next)
    for command, purpose in done.next:
        click.echo(f"  {command:<{wide}}  # {purpose}")
