"""``trunkline record`` and ``trunkline replay``: their options. :mod:`trunkline.replay` has the
commands themselves."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from trunkline.bus.settings import Settings, env_name

from .options import Number, Seconds, json_option, settings_options


@click.command(
    short_help="Run a command, and keep a cassette of each call.",
    # Options after COMMAND are the command's own.
    context_settings={"allow_interspersed_args": False},
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("out/cassettes"),
    show_default=True,
    help="Directory for the cassettes.",
)
@click.option(
    "--no-sound", is_flag=True, help="Keep when and how loud each side spoke, but not its sound."
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def record(directory: Path, no_sound: bool, command: Sequence[str]) -> None:
    """Run COMMAND, and keep a cassette of each call of the stack that it starts.

    TRUNKLINE_CASSETTES_DIR is set for COMMAND. A stack that runs already keeps cassettes only if
    that was set when it was started. The exit status is that of COMMAND.

    \b
    Examples:
      trunkline record pytest --phone-sim tests/
      trunkline record --dir cassettes --no-sound trunkline up
    """
    from ..replay.record import run

    found = {env_name("cassettes_dir"): str(directory.absolute())}
    if no_sound:
        found[env_name("cassettes_sound")] = "0"
    sys.exit(run(command, os.environ | found, directory))


@click.command(short_help="Play a cassette again, and say where the answers differ.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
@click.option(
    "--against",
    metavar="URL",
    help="Whom to play the cassette to. ws:// or wss://: an agent's own WebSocket. http:// or "
    "https://: a stack's public URL, or the voice webhook of any agent. [a stack of its own]",
)
@click.option(
    "--play",
    type=click.Choice(["theirs", "ours"]),
    default="theirs",
    show_default=True,
    help="Whose part to play to an agent's WebSocket. ours: the agent was the far end of the call, "
    "as one that a test calls. theirs: the agent was our side.",
)
@click.option(
    "--speed",
    type=click.Choice(["real", "fast"]),
    default="real",
    show_default=True,
    help="fast: send messages to an agent's WebSocket without waiting for their times. At a stack "
    "or a webhook streams keep real time, and only the waits between them are left out.",
)
@click.option(
    "--tolerance",
    default=0.5,
    show_default=True,
    type=Seconds(),
    help="Seconds by which a time or a length may differ: when sound begins, how long it lasts, "
    "and when a stream ends.",
)
@click.option(
    "--level",
    default=6.0,
    show_default=True,
    type=Number(0, 90),
    help="Decibels by which sound may be louder or quieter.",
)
@click.option(
    "--to",
    metavar="NUMBER",
    help="The number that is called, for a webhook. [the masked one of the cassette]",
)
@click.option(
    "--from",
    "from_",
    metavar="NUMBER",
    help="The number that calls, for a webhook. [the masked one of the cassette]",
)
@click.option(
    "--parameter",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    help="A custom parameter of the stream's start, for an agent's WebSocket. Repeatable.",
)
@json_option
@settings_options(later=True)
def replay(
    settings: Callable[[], Settings],
    file: Path,
    as_json: bool,
    speed: str,
    play: str,
    parameters: Sequence[str],
    **wishes: Any,
) -> None:
    """Play a cassette again, and say where the answers differ.

    trunkline plays the carrier's part of the call as FILE has it. Without --against it starts a
    stack for the replay, and our side says again what it said then. With --against, requests are
    signed with TWILIO_AUTH_TOKEN if that is set. An agent that a test has called is compared with
    what it did in the call by --against ws://… --play ours.

    Exit status 0: the answers are the same. 1: they differ, or FILE cannot be played.

    \b
    Examples:
      trunkline replay out/cassettes/CA0123….cassette
      trunkline replay CA0123….cassette --against wss://agent.example/media --speed fast
      trunkline replay CA0123….cassette --against ws://127.0.0.1:9000/media --play ours
      trunkline replay CA0123….cassette --against http://127.0.0.1:8765 --to +14155551234
    """
    from ..replay import command

    against = wishes["against"]
    if against and not against.startswith(("ws://", "wss://", "http://", "https://")):
        raise click.UsageError(f"--against {against}: expected a URL of ws, wss, http or https")
    if play == "ours" and not command.is_socket(against):
        raise click.UsageError(
            "--play ours takes --against ws://… or wss://…, the agent's WebSocket"
        )
    if play == "ours" and speed == "fast":
        raise click.UsageError("--play ours is in real time: it compares when the agent answers")
    if any("=" not in each for each in parameters):
        raise click.UsageError("--parameter takes NAME=VALUE")
    given = {name: value for name, _, value in (each.partition("=") for each in parameters)}
    chosen = command.Wishes(fast=speed == "fast", ours=play == "ours", parameters=given, **wishes)
    sys.exit(command.replay(file, settings(), chosen, as_json=as_json))
