"""``trunkline replay``: plays a cassette to the agent or stack that the user names, and shows the
differences.

Exit status 0: there are none. 1: there are some, or the cassette cannot be played.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from trunkline.bus.cassette_masks import ACCOUNT
from trunkline.bus.clock import monotonic
from trunkline.bus.errors import InvalidRequestError
from trunkline.bus.process import EXIT_DONE, EXIT_FAILED
from trunkline.bus.redact import mask_url, printable
from trunkline.bus.settings import Settings
from trunkline.bus.twilio_urls import STATUS_PATH, VOICE_PATH

from ..cli import progress, tables
from ..cli.json_text import json_text
from ..reports.cost import counted
from . import stack
from .call import CallPlayer, Lines, is_base
from .cassette import Cassette, is_callback, read
from .compare import LEVEL, TOLERANCE, Difference, Tolerance, differences
from .mirror import mirrored
from .ourselves import actions
from .stream import Player


@dataclass(frozen=True)
class Wishes:
    """The options of the command. ``against`` None: a stack that is started for the replay.
    ``ours``: the agent was the far end, so our side is played to it. ``to``, ``from_``: numbers to
    say in place of the masked ones. ``parameters``: custom parameters of the stream's start."""

    against: str | None = None
    ours: bool = False
    fast: bool = False
    tolerance: float = TOLERANCE
    level: float = LEVEL
    to: str | None = None
    from_: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict, repr=False)


def replay(file: Path, settings: Settings, wishes: Wishes, *, as_json: bool) -> int:
    """Play the cassette, and show what differs; returns the exit status. InvalidRequestError where
    the file is no cassette, or the other side cannot be reached."""
    taped = read(file)
    if not taped.streams:
        raise InvalidRequestError(
            f"{file} has no stream: only a call that had one can be played again"
        )
    timed = not (wishes.fast and is_socket(wishes.against))
    tolerance = Tolerance(wishes.tolerance, wishes.level, timed=timed, signals=not wishes.ours)
    with progress.working(f"playing {file.name}"):
        was, now = asyncio.run(_play(taped, settings, wishes))
    found = differences(was, now, tolerance)
    show = _show_json if as_json else _show
    show(file, taped, wishes, found)
    return EXIT_FAILED if found else EXIT_DONE


def is_socket(against: str | None) -> bool:
    """Whether a cassette is played to an agent's own WebSocket."""
    return against is not None and against.startswith(("ws://", "wss://"))


async def _play(taped: Cassette, settings: Settings, wishes: Wishes) -> tuple[Cassette, Cassette]:
    """Play the cassette. Returns the part of it that was played, and the cassette of this run."""
    if wishes.against is None:
        return taped, await stack.replay(taped, fast=wishes.fast)
    account = settings.account_sid or ACCOUNT
    player = Player(account, settings.auth_token, wishes.fast, wishes.parameters)
    if is_socket(wishes.against):
        return await _play_streams(taped, wishes.against, player, ours=wishes.ours)
    base = wishes.against.rstrip("/")
    lines = Lines(wishes.against, numbers=_numbers(taped, wishes))
    if is_base(base):
        lines.voice_url, lines.status_url = base + VOICE_PATH, base + STATUS_PATH
    if not taped.voice:
        raise InvalidRequestError(
            "the cassette has no voice webhook, because our side dialled: play our side to the "
            "agent that was called (--against ws://… --play ours), the far end to an agent that "
            "was our side (--against ws://…), or all of it to a stack of its own (no --against)"
        )
    playing = CallPlayer(taped, lines, player)
    playing.begin(taped.voice[0].at)
    now = await playing.run()
    hooks = taped.hooks if lines.status_url else taped.voice
    return replace(taped, hooks=hooks, rest=[]), now


async def _play_streams(
    taped: Cassette, url: str, player: Player, *, ours: bool
) -> tuple[Cassette, Cassette]:
    """Play the streams one after the other, without those that only listen; with ``ours``, the one
    stream that the far end had."""
    chosen = [stream for stream in taped.streams if stream.sid not in taped.by_rest]
    if chosen and ours:
        chosen = [mirrored(chosen, actions(taped))]
    if not chosen:
        raise InvalidRequestError("the cassette has no stream that an agent could answer")
    now = Cassette(taped.call)
    for stream in chosen:
        played = await player.play(url, stream, monotonic() - stream.opened)
        if ours and played.closed is not None:
            # Our side would have heard nothing of what was not played by then.
            played.said.append((played.closed, {"event": "clear"}))
        now.streams.append(played)
    return Cassette(taped.call, streams=chosen), now


def _numbers(taped: Cassette, wishes: Wishes) -> dict[str, str]:
    form = taped.hooks[0].form if taped.hooks else {}
    given = {"To": wishes.to, "From": wishes.from_}
    return {str(form[n]): number for n, number in given.items() if number and form.get(n)}


# --------------------------------------------------------------------------- shown


def _notes(taped: Cassette, wishes: Wishes) -> list[str]:
    notes = list(taped.notes)
    if is_socket(wishes.against) and not wishes.ours and taped.direction.startswith("outbound"):
        notes.append(
            "the agent heard the far end's part, and is compared with our side: an agent that was "
            "the far end itself, as one that a test has called, takes --play ours"
        )
    if not taped.sound:
        notes.append("its sound was left out: a tone of the same level is played in its place")
    return notes


def _show_json(file: Path, taped: Cassette, wishes: Wishes, found: list[Difference]) -> None:
    told = {
        "file": str(file),
        "call": taped.call,
        "against": mask_url(wishes.against) or "a stack of its own",
        "speed": "fast" if wishes.fast else "real",
        "same": not found,
        "notes": _notes(taped, wishes),
        "differences": found,
    }
    click.echo(json_text(told))


def _show(file: Path, taped: Cassette, wishes: Wishes, found: list[Difference]) -> None:
    against = mask_url(wishes.against) or "a stack of its own"
    pace = "as fast as it goes" if wishes.fast else "in real time"
    hooks = sum(not is_callback(hook) for hook in taped.hooks)
    parts = f"{counted(len(taped.streams), 'stream')}, {counted(hooks, 'voice webhook')}"
    click.echo(f"{file.name}: {parts}, played against {printable(against)} {pace}")
    for note in _notes(taped, wishes):
        click.echo(f"note: {printable(note)}")
    if not found:
        click.echo("the answers are the same")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("at", "where", "then", "now"):
        table.add_column(name, overflow="fold")
    for each in found:
        cells = (f"{each.at:.2f} s", each.where, each.was, each.now)
        # An agent writes its own documents, which must become neither markup nor a terminal's
        # command.
        table.add_row(*(Text(printable(cell)) for cell in cells))
    tables.output().print(table)
    click.echo(counted(len(found), "difference"))
