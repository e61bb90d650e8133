"""``trunkline record``: runs a command whose stacks keep cassettes, and names the new ones."""

from __future__ import annotations

import asyncio
import contextlib
import signal
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
        status = asyncio.run(_run(command, environment))
    except OSError as error:
        raise InvalidRequestError(f"{command[0]} cannot be run: {error.strerror}") from error
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


async def _run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """The command's exit status, the signal's negative number if a signal ended it. An event loop
    waits for it: a signal that comes right before a blocking wait would be seen after it."""
    loop, asked = asyncio.get_running_loop(), asyncio.Event()
    # Whoever ends us by SIGTERM means the command: its stack has numbers to put back.
    loop.add_signal_handler(signal.SIGTERM, asked.set)
    # A terminal sends Ctrl-C to the command too, which ends in its own way. Where it is ignored, as
    # in the background of a script, the command is to ignore it too.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGINT, lambda: None)
    process = await asyncio.create_subprocess_exec(*command, env=environment)
    ended = asyncio.ensure_future(process.wait())
    while not ended.done():
        asking = asyncio.ensure_future(asked.wait())
        await asyncio.wait({ended, asking}, return_when=asyncio.FIRST_COMPLETED)
        asking.cancel()
        if asked.is_set() and not ended.done():
            with contextlib.suppress(ProcessLookupError):  # it ends just now
                process.terminate()
        asked.clear()
    return ended.result()


def _cassettes(directory: Path) -> dict[Path, int]:
    """When each cassette was last written. A stack may delete an old one meanwhile."""
    found = {}
    for path in directory.glob(f"*{SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):
            found[path] = path.stat().st_mtime_ns
    return found
