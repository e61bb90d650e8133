"""``trunkline calls``, ``trunkline show`` and ``trunkline play``: their options and their output.
:mod:`trunkline.calls` finds the calls."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from trunkline.bus.process import EXIT_DONE
from trunkline.bus.redact import printable
from trunkline.bus.settings import Settings

from . import progress
from .options import json_option, settings_options

if TYPE_CHECKING:
    from rich.console import Console

    from ..calls.known import Found, KnownCall
    from ..reports.recordings import Heard

_where = settings_options("bus", "state_dir", "recordings_dir")


def _find(settings: Settings) -> Found:
    from ..calls import known

    with progress.working("looking for calls"):
        found = asyncio.run(known.find(settings))
    for note in found.notes:
        click.echo(f"trunkline: {printable(note)}", err=True)
    return found


@click.command(short_help="List the calls that live, and recent ones.")
@click.option(
    "--limit",
    default=20,
    show_default=True,
    type=click.IntRange(1, 100_000),
    metavar="N",
    help="List the newest N.",
)
@json_option
@_where
def calls(settings: Settings, limit: int, as_json: bool) -> None:
    """List the calls that live, and recent ones: the newest first.

    The running stack knows its live calls and the last that ended. Journals have the calls that
    were dialled, also those of stacks that are gone. Recordings tell of the calls that they were
    made of: those in TRUNKLINE_RECORDINGS_DIR, or else those of the running stack.

    \b
    Examples:
      trunkline calls
      trunkline calls --limit 100 --json
    """
    from msgspec.structs import replace

    from .json_text import json_text

    found = _find(settings)
    found = replace(found, calls=found.calls[:limit])
    if not found.stack:
        past = f"no stack answers at {found.bus}: these are calls of the past"
        click.echo(f"trunkline: {printable(past)}", err=True)
    if as_json:
        click.echo(json_text(found))
    elif not found.calls:
        click.echo("no calls")
    else:
        _table(found.calls)
    sys.exit(EXIT_DONE)


def _state(call: KnownCall) -> str:
    return call.state if call.reason is None else f"{call.state} ({call.reason})"


def _table(found: list[KnownCall]) -> None:
    """A row for each call, or a few lines for each where the terminal is too narrow for that."""
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    from .tables import UNFOLDED, output, packed

    table = Table(box=None, pad_edge=False)
    columns = ["call", "began (UTC)", "direction", "caller", "callee", "state"]
    if of_tests := any(call.test for call in found):
        columns.append("test")
    for column in columns:
        table.add_column(column, no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("recording", no_wrap=True)
    lines: list[str] = []
    console = output()
    for call in found:
        began = (call.began or "").replace("T", " ").partition("+")[0]
        seconds = "" if call.seconds is None else f"{call.seconds:.1f}"
        recording = "" if call.recording is None else Path(call.recording).name
        if call.also_recorded:
            recording += f" and {len(call.also_recorded)} more"
        cells = [call.sid, began, call.direction, call.caller, call.callee, _state(call)]
        if of_tests:
            cells.append(call.test)
        table.add_row(*(Text(printable(cell or "-")) for cell in (*cells, seconds, recording)))
        ends = f"{call.caller or '-'} -> {call.callee or '-'}"
        times = [began and f"{began} UTC", _state(call), seconds and f"{seconds} s"]
        narrow = [call.sid, *times, call.direction, ends, call.test, recording]
        lines += packed([printable(cell) for cell in narrow if cell], console.width)
    anything = console.options.update(max_width=UNFOLDED)
    if Measurement.get(console, anything, table).maximum <= console.width:
        console.print(table)
    else:
        for line in lines:
            console.print(Text(line), soft_wrap=True)


@click.command(short_help="Show a call's course: who spoke when, answers, keys, losses.")
@click.argument("sid", metavar="SID|WAV")
@click.option(
    "--svg",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Draw both waveforms and the turns in FILE.",
)
@json_option
@_where
def show(settings: Settings, sid: str, svg: Path | None, as_json: bool) -> None:
    """Show a call's course, while it lives and afterwards.

    The running stack tells the call's state. Its recording tells who spoke when, and can be read
    while it still grows. The beginning of a CallSid is enough if no other call begins like that.

    \b
    Examples:
      trunkline show CA0123
      trunkline show CA0123 --svg call.svg
      trunkline show recordings/20260101T120000-CA0123.wav --json
    """
    from ..calls import timeline
    from .json_text import json_text

    call, path = _call(settings, sid)
    heard = None
    if path is not None:
        with progress.working(f"listening to {path.name}"):
            heard = _hear(path)
    if svg is not None:
        from trunkline.bus.errors import InvalidRequestError

        from ..reports import files, picture

        if heard is None:
            raise InvalidRequestError(
                f"{call.sid} was not recorded, so there is nothing to draw: set "
                "TRUNKLINE_RECORDINGS_DIR"
            )
        files.write(svg, picture.whole(heard))
    if as_json:
        told: dict[str, Any] = {
            "call": call,
            "moments": [] if heard is None else timeline.moments(heard.report),
            "report": None if heard is None else heard.report,
        }
        click.echo(json_text(told))
    else:
        from .tables import output

        _print(call, heard, output())
    sys.exit(EXIT_DONE)


def _call(settings: Settings, sid: str) -> tuple[KnownCall, Path | None]:
    """The call, and the path of its recording, if there is one."""
    from ..calls import known

    path = Path(sid)
    call = known.of_recording(path) if path.is_file() else None
    if call is None and path.is_file():
        return known.KnownCall(sid=path.name), path  # hear() will say what is wrong with the file
    if call is None:
        call = known.of_sid(_find(settings), sid)
    return call, None if call.recording is None else Path(call.recording)


def _hear(path: Path) -> Heard:
    from ..reports.recordings import hear

    return hear(path)


_SIDE_STYLE = {"ours": "blue", "theirs": "yellow", "": "dim"}


def _print(call: KnownCall, heard: Heard | None, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    from ..calls import timeline

    who = " -> ".join(printable(each or "?") for each in (call.caller, call.callee))
    lasted = "" if call.seconds is None else f" for {call.seconds:.1f} s"
    console.print(
        Text(f"{printable(call.sid)}  {printable(call.direction or 'call')}  {who}", style="bold")
    )
    if call.test is not None:
        console.print(Text(printable(call.test)))
    began = printable(call.began or "at a time nobody noted")
    console.print(Text(f"{printable(_state(call))}{lasted}, began {began}"))
    if call.frames_lost is not None:
        style = "bold red" if call.frames_lost or call.underruns else ""
        counted = f"{call.frames_lost} frames lost, {call.underruns or 0} underruns so far"
        console.print(Text(counted, style=style))
    for event in call.events or ():
        time = f"{datetime.fromtimestamp(event.at, UTC):%H:%M:%S.%f}"[:-3]
        console.print(Text(f"{time}  {printable(event.text)}", style="dim"))
    if heard is None:
        console.print("not recorded: TRUNKLINE_RECORDINGS_DIR keeps the sound of later calls")
        return
    console.print(Text(f"recording {printable(call.recording or heard.title)}"), soft_wrap=True)
    for path in call.also_recorded:
        also = Text(f"also recorded in {printable(path)}", style="dim")
        console.print(also, soft_wrap=True)
    report = heard.report
    for reason in report.unreliable_because:
        console.print(Text(f"UNRELIABLE: {reason}", style="bold red"))
    width = max(20, min(console.width - 10, 110))
    for side, samples in (("ours", heard.ours), ("theirs", heard.theirs)):
        line = Text(f"{side:<8}")
        line.append(timeline.strip(samples, width), style=_SIDE_STYLE[side])
        console.print(line, no_wrap=True, crop=True)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(justify="right")
    for moment in timeline.moments(report):
        at = f"{moment.at:.2f} s"
        table.add_row(at, Text(moment.side, _SIDE_STYLE[moment.side]), Text(moment.text))
    console.print(table)


@click.command(short_help="Play a call's recording.")
@click.argument("sid", metavar="SID|WAV")
@click.option(
    "--side",
    type=click.Choice(["both", "ours", "theirs"]),
    default="both",
    show_default=True,
    help="both: theirs is left and ours is right. ours, theirs: that side alone, on both ears.",
)
@json_option
@_where
def play(
    settings: Settings, sid: str, side: Literal["both", "ours", "theirs"], as_json: bool
) -> None:
    """Play a call's recording through a player of this machine.

    The player is the first of afplay, paplay, pw-play, aplay, ffplay and sox's play that is
    installed. A live call is played as far as it is recorded by now.

    \b
    Examples:
      trunkline play CA0123
      trunkline play CA0123 --side theirs
    """
    from trunkline.bus.errors import InvalidRequestError

    from ..calls import player

    call, path = _call(settings, sid)
    if path is None:
        raise InvalidRequestError(
            f"{call.sid} was not recorded: set TRUNKLINE_RECORDINGS_DIR for later calls"
        )
    with progress.working(f"playing {path.name} (Ctrl-C ends it)"):
        player.play(path, side)
    if as_json:
        click.echo(json.dumps({"played": str(path), "side": side}))
    else:
        click.echo(f"played {path} ({side})")
    sys.exit(EXIT_DONE)
