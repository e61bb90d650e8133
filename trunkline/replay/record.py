"""``trunkline record``: runs a command whose stacks keep cassettes, and names the new ones."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from trunkline.bus.cassettes import SUFFIX
from trunkline.bus.errors import InvalidRequestError


def run(command: Sequence[str], environment: Mapping[str, str], directory: Path) -> int:
    """Run the command to its end, and return its exit status: 128 and the signal's number where a
    signal ended it. InvalidRequestError where the command cannot be run."""
    before = _cassettes(directory)
    try:
        process = subprocess.Popen(list(command), env=dict(environment))  # noqa: S603  # the user's
    except OSError as error:
        raise InvalidRequestError(f"{command[0]} cannot be run: {error.strerror}") from error
    # Whoever ends us by SIGTERM means the command: its stack has numbers to put back.
    handler = signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number))
    try:
        status = _wait(process)
    finally:
        signal.signal(signal.SIGTERM, handler)
    new = [path for path, at in _cassettes(directory).items() if before.get(path) != at]
    for path in sorted(new):
        click.echo(f"trunkline record: {path}", err=True)
    if not new:
        click.echo(
            "trunkline record: no call was recorded. A stack that ran before keeps no cassettes: "
            "end it, or start it by `trunkline record trunkline up`",
            err=True,
        )
    return status if status >= 0 else 128 - status


def _wait(process: subprocess.Popen[bytes]) -> int:
    while True:
        # A terminal sends Ctrl-C to the command too, which ends in its own way.
        with contextlib.suppress(KeyboardInterrupt):
            return process.wait()


def _cassettes(directory: Path) -> dict[Path, int]:
    """When each cassette was last written. A stack may delete an old one meanwhile."""
    found = {}
    for path in directory.glob(f"*{SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):
            found[path] = path.stat().st_mtime_ns
    return found
