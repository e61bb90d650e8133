"""Options of ``trunkline call`` and ``trunkline answer``. :mod:`.call_and_answer` has the calls."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from trunkline.bus.settings import Settings

from .numbers import PhoneNumber
from .options import Seconds, json_option, settings_options, timeout_option

_say = click.option(
    "--say",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE.wav",
    help="Say this recording (any sample rate).",
)
_record = click.option(
    "--record",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.wav",
    help="Write what is heard to this file (PCM16 mono 24 kHz).",
)
_listen = click.option(
    "--listen",
    type=Seconds(),
    metavar="SECONDS",
    help="Hang up so many seconds after the end of --say, or without --say after the answer. [2 "
    "after --say]",
)


@click.command(short_help="Call somebody by hand, through the running stack.")
@click.argument("to", type=PhoneNumber())
@click.option(
    "--from",
    "number",
    required=True,
    type=PhoneNumber(),
    metavar="NUMBER",
    help="A number of the account.",
)
@click.option(
    "--attach",
    type=click.Choice(["a-leg", "b-leg"]),
    default="a-leg",
    show_default=True,
    help="The leg that carries the sound. a-leg: the caller's; TO may be any number. b-leg: the "
    "callee's; TO has to be a number of the account.",
)
@click.option("--dtmf", metavar="DIGITS", help="Send these digits after the answer.")
@click.option(
    "--callee-speaks-first",
    is_flag=True,
    help="Listen to the far end's greeting to its end before --dtmf and --say.",
)
@_say
@_record
@_listen
@timeout_option
@json_option
@settings_options("bus")
def call(settings: Settings, to: str, number: str, **wishes: Any) -> None:
    """Call TO by hand, through the running stack.

    Without --say and --listen it listens until the far end hangs up, or you press Ctrl-C.

    \b
    Examples:
      trunkline call +14155557777 --from +14155551234 --say hello.wav --record heard.wav
      trunkline call +14155557777 --from +14155551234 --dtmf 1# --listen 3
    """
    from . import call_and_answer

    sys.exit(call_and_answer.call(settings, to, number, call_and_answer.Wishes(**wishes)))


@click.command(short_help="Answer a call by hand, through the running stack.")
@click.argument("number", type=PhoneNumber())
@click.option("--echo", is_flag=True, help="Say back what is heard.")
@_say
@_record
@_listen
@timeout_option
@json_option
@settings_options("bus")
def answer(settings: Settings, number: str, **wishes: Any) -> None:
    """Answer the next call to NUMBER by hand, through the running stack.

    Without --say and --listen it listens until the far end hangs up, or you press Ctrl-C.

    \b
    Examples:
      trunkline answer +14155551234 --echo
      trunkline answer +14155551234 --say hello.wav --record heard.wav
    """
    from . import call_and_answer

    if wishes["echo"] and wishes["say"]:
        raise click.UsageError("--echo and --say exclude each other")
    sys.exit(call_and_answer.answer(settings, number, call_and_answer.Wishes(**wishes)))
