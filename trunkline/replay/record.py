"""``trunkline record``: runs a command whose stacks keep cassettes, and names the new ones."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from trunkline.bus.cassettes import SUFFIX
from trunkline.bus.errors import InvalidRequestError


def run(command: Sequence[str], environment: Mapping[str, str], directory: Path) -> int:
    """Run it to its end; its exit status. InvalidRequestError: it cannot be run."""
    before = _cassettes(directory)
    try:
        process = subprocess.Popen(list(command), env=dict(environment))  # noqa: S603  # the user's
    except OSError as error:
        raise InvalidRequestError(f"{command[0]} cannot be run: {error.strerror}") from error
    status = None
    while status is None:
        try:
            status = process.wait()
        except KeyboardInterrupt:  # it has had Ctrl-C too, and ends in its own way
            continue
    new = [path for path, at in _cassettes(directory).items() if before.get(path) != at]
    for path in sorted(new):
        click.echo(f"trunkline record: {path}", err=True)
    if not new:
        click.echo("trunkline record: no call was recorded", err=True)
    return status if status >= 0 else 128 - status


def _cassettes(directory: Path) -> dict[Path, int]:
    """When each was last written."""
    return {path: path.stat().st_mtime_ns for path in directory.glob(f"*{SUFFIX}")}
