"""The ``trunkline`` command: its subcommands, and the exit status and error line of each.

Exit status: 0 done, 1 failed with one clear line on stderr, 2 wrong usage, 3 something is still to
be restored. ``--debug`` or TRUNKLINE_DEBUG=1 shows the traceback of a failure.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

import click

from trunkline.bus.errors import TrunklineError
from trunkline.bus.process import EXIT_DONE, EXIT_FAILED
from trunkline.bus.redact import printable
from trunkline.bus.settings import Settings

from . import progress
from .call_options import answer, call
from .calls import calls, play, show
from .completion import completion
from .init import init
from .keys import keys
from .load import load
from .numbers import PhoneNumber
from .options import (
    CODEC_WORKER,
    CONTROLLER,
    GATEWAY,
    STACK,
    Seconds,
    json_option,
    settings_options,
)
from .replay import record, replay


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="trunkline", prog_name="trunkline")
@click.option("--debug", is_flag=True, help="Show the traceback of a failure. [TRUNKLINE_DEBUG]")
def cli(debug: bool) -> None:
    """One shared phone line for tests of voice agents.

    Settings come from options, else from the environment, else from .env.

    \b
    Examples:
      trunkline demo                  see it work, without an account
      trunkline init                  begin a project: a first test, which runs offline
      trunkline up --sim              a stack to play with, without an account
      trunkline up --tunnel cloudflared
      trunkline status
    """
    if debug:
        os.environ["TRUNKLINE_DEBUG"] = "1"


@cli.command()
@click.option(
    "--gateways",
    default=2,
    show_default=True,
    type=click.IntRange(1, 64),
    help="How many gateways to run. With two, webhooks are answered while one restarts.",
)
@click.option(
    "--codec-workers",
    default=2,
    show_default=True,
    type=click.IntRange(1, 64),
    help="How many codec workers to run. With two, a call outlives the death of one without a gap.",
)
@click.option(
    "--tunnel",
    type=click.Choice(["cloudflared", "ngrok"]),
    help="Open a tunnel to the public listener, and take its URL as the public one.",
)
@click.option(
    "--sim",
    is_flag=True,
    help="Run a stand-in carrier as well, so that no account is needed. Settings that are missing "
    "are made up: credentials, free ports, the public URL, numbers (TRUNKLINE_SIM_NUMBERS) and who "
    "answers (TRUNKLINE_SIM_CALLEES). A public URL of another machine is ignored. The journal is "
    "deleted at the end.",
)
@click.option(
    "--ready-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Once every process has joined, write JSON to FILE: bus, account_sid, auth_token, "
    "public_url, console, sim, pid. Only its owner may read it. It is deleted at the end.",
)
@settings_options(*STACK)
def up(settings: Settings, **wishes: Any) -> None:
    """Run the whole stack in the foreground, supervised.

    A process that dies is started again. On SIGTERM, on Ctrl-C, and when its terminal is closed,
    the stack puts all numbers back and ends. Under `nohup` it outlives its terminal.

    \b
    Examples:
      trunkline up --tunnel cloudflared
      trunkline up --public-url https://line.example.com --gateways 2 --codec-workers 4
      trunkline up --sim                         try it out, without an account
      trunkline up --sim --ready-file up.json    for a script: wait until up.json is there

    \b
    With --sim, unless TRUNKLINE_SIM_NUMBERS or TRUNKLINE_SIM_CALLEES is set:
      +14155551234, +14155551235    numbers of the account
      +14155557777                  echoes
      +14155557778                  greets, and speaks again whenever you have spoken
      +14155557779                  is busy
      +14155557780                  does not answer
    """
    from ..stack import up as stack_up

    sys.exit(stack_up.up(settings, stack_up.Wishes(**wishes)))


_keep_alive_option = click.option(
    "--keep-alive", is_flag=True, help="Start the process again when it dies (for a Procfile)."
)


_health_dir_option = click.option(
    "--health-dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="With --keep-alive: keep two files in DIR, `alive` and `ready`, for probes. They are "
    "touched for as long as the process does its work.",
)


def _keep_alive(
    settings: Settings, role: str, health_dir: Path | None, drain: float | None = None
) -> NoReturn:
    from ..stack.keep_alive import keep_alive

    sys.exit(keep_alive(settings, role, health_dir, drain))


@cli.command()
@_keep_alive_option
@_health_dir_option
@click.option(
    "--drain",
    type=Seconds(),
    metavar="SECONDS",
    help="After SIGTERM, take no new calls, and end once those that are up have ended, or after "
    "so many seconds.",
)
@click.option("--listen-fd", type=int, hidden=True)
@settings_options(*GATEWAY)
def gateway(
    settings: Settings,
    keep_alive: bool,
    health_dir: Path | None,
    drain: float | None,
    listen_fd: int | None,
) -> None:
    """Run one gateway: Twilio's webhooks and Media Streams.

    Gateways of one bus on one machine share one listening socket.

    \b
    Examples:
      trunkline gateway --keep-alive
      trunkline gateway --http-port 9000
    """
    if keep_alive:
        _keep_alive(settings, "gateway", health_dir, drain)
    from trunkline.gateway import process

    if listen_fd is not None:
        sys.exit(process.main(settings, listen_fd=listen_fd, drain_seconds=drain))
    from ..stack.public_port import PublicPort

    port = PublicPort.claim(settings.http_host, settings.http_port, settings.bus)
    try:
        sys.exit(process.main(settings, listen_fd=port.detach(), drain_seconds=drain))
    finally:
        port.close()


@cli.command("codec-worker", short_help="Run one codec worker: resampling and paced playout.")
@_keep_alive_option
@_health_dir_option
@settings_options(*CODEC_WORKER)
def codec_worker(settings: Settings, keep_alive: bool, health_dir: Path | None) -> None:
    """Run one codec worker: resampling, mu-law, paced playout.

    \b
    Example:
      trunkline codec-worker --keep-alive
    """
    if keep_alive:
        _keep_alive(settings, "codec-worker", health_dir)
    from trunkline.codec_worker import process

    sys.exit(process.main(settings))


@cli.command(short_help="Run the controller: numbers, calls, the journal.")
@_keep_alive_option
@_health_dir_option
@settings_options(*CONTROLLER)
def controller(settings: Settings, keep_alive: bool, health_dir: Path | None) -> None:
    """Run the controller: numbers, calls, Twilio's REST, the journal.

    \b
    Example:
      trunkline controller --keep-alive
    """
    if keep_alive:
        _keep_alive(settings, "controller", health_dir)
    from trunkline.controller import process

    sys.exit(process.main(settings))


@cli.command(
    "carrier-sim",
    short_help="The stand-in carrier: Twilio's side of the wire.",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True},
)
@click.argument("argv", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def carrier_sim(context: click.Context, argv: Sequence[str]) -> None:
    """The stand-in carrier: Twilio's side of the wire, on this machine."""
    from trunkline.carrier_sim.command import command

    status = command.main(
        args=list(argv),
        prog_name=context.info_name,
        parent=context.parent,  # for `-h`, as other commands have it
        standalone_mode=False,
    )
    sys.exit(status or EXIT_DONE)


@cli.command()
@json_option
@settings_options("bus")
def status(settings: Settings, as_json: bool) -> None:
    """Show who runs, who holds which number, and all calls.

    \b
    Examples:
      trunkline status
      trunkline status --json
    """
    from . import status as report

    sys.exit(asyncio.run(report.show(settings, as_json=as_json)))


@cli.command(short_help="Open the console in a browser.")
@click.option("--print", "show", is_flag=True, help="Print the link, and open nothing.")
@settings_options("bus")
def console(settings: Settings, show: bool) -> None:
    """Open the console in a browser: all that is in the stack, live.

    Whoever has the link can listen to calls and act on them, so keep it to yourself. It is printed
    where no browser can be opened.

    \b
    Examples:
      trunkline console
      trunkline console --print
    """
    from . import console as opened

    sys.exit(asyncio.run(opened.console(settings, show=show)))


@cli.command()
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option(
    "--account",
    is_flag=True,
    help="Besides this machine's journals, read the account's numbers themselves: the voice_url "
    "that a stack has written holds what was there before.",
)
@click.option(
    "--force",
    is_flag=True,
    help="With --account: put back numbers of a stack that is running, too.",
)
@json_option
@settings_options("state_dir", "twilio_api_url")
def restore(settings: Settings, dry_run: bool, account: bool, force: bool, as_json: bool) -> None:
    """Put numbers back as they were, with no stack running.

    Exit status 3 means that something is still to be restored. With --account, that includes
    numbers which a running stack holds.

    \b
    Examples:
      trunkline restore --dry-run
      trunkline restore --account     from another machine
      trunkline restore --dry-run --json
    """
    if force and not account:
        raise click.UsageError("--force goes with --account")
    from trunkline.controller.restore_command import restore_command

    with progress.working("asking Twilio"):
        outcome, lines = asyncio.run(
            restore_command(settings, dry_run=dry_run, account=account, force=force)
        )
    if as_json:
        click.echo(json.dumps({"done": outcome == EXIT_DONE, "dry_run": dry_run, "lines": lines}))
    else:
        for line in lines:
            click.echo(line)
    sys.exit(outcome)


@cli.command()
@click.option(
    "--live",
    is_flag=True,
    help="Check by real calls what trunkline believes of Twilio.",
)
@click.option(
    "--number",
    metavar="NUMBER",
    type=PhoneNumber(),
    help="With --live: the account's number to call. [the only one of TRUNKLINE_NUMBERS]",
)
@click.option(
    "--from",
    "caller",
    metavar="NUMBER",
    type=PhoneNumber(),
    help="With --live: the number that calls it. [the number itself]",
)
@click.option("--yes", is_flag=True, help="With --live: do not ask before money is spent.")
@json_option
@click.option(
    "--tunnel",
    type=click.Choice(["cloudflared", "ngrok"]),
    help="With --live: open a tunnel for the run, and use its URL.",
)
@settings_options(
    "public_url", "http_host", "http_port", "bus", "state_dir", "twilio_api_url", later=True
)
def doctor(
    settings: Callable[[], Settings],
    live: bool,
    number: str | None,
    caller: str | None,
    yes: bool,
    as_json: bool,
    tunnel: str | None,
) -> None:
    """Say what stands in the way of a call.

    Without --live it checks settings, proxies, ports, credentials, numbers, the public URL, the
    clock, and overrides that no stack holds. It changes nothing at Twilio, and places no call.

    With --live a few real calls to a number of the account check what trunkline believes of Twilio
    (docs/beliefs.md). No stack may be running. The command says what the calls cost, and asks
    before it places them. Afterwards it puts the number back.

    \b
    Examples:
      trunkline doctor
      trunkline doctor --json
      trunkline doctor --live --number +14155551234
      trunkline doctor --live --number +14155551234 --tunnel cloudflared --yes --json
    """
    if live:
        from ..live.command import command

        run = command(settings(), number, caller, yes=yes, as_json=as_json, tunnel=tunnel)
        sys.exit(asyncio.run(run))
    if number or caller or yes or tunnel:
        raise click.UsageError("--number, --from, --yes and --tunnel go with --live")
    from ..doctor import run as checks

    sys.exit(asyncio.run(checks.run(settings, as_json=as_json)))


@cli.command(short_help="Carry two calls with real speech, without an account.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory for the recordings and pictures. [out/demo, or a new directory where that "
    "cannot be written]",
)
@click.option("--verbose", is_flag=True, help="Show the logs of all processes at the end.")
@json_option
def demo(out: Path | None, verbose: bool, as_json: bool) -> None:
    """Carry two real calls with real speech against the stand-in carrier.

    It needs no account and no network. With 'trunkline[demo]' installed, the calls go through
    langwatch-scenario, and the demo shows which words each side understood.

    \b
    Examples:
      trunkline demo
      trunkline demo --json --out demo
    """
    from ..demo import run as show

    sys.exit(show.main(out, verbose=verbose, as_json=as_json))


@cli.command(short_help="Say how both sides of a recorded call talked with each other.")
@click.argument("what", metavar="WAV|DIR|SID")
@click.option(
    "--ours",
    type=click.Choice(["left", "right"]),
    default="right",
    show_default=True,
    help="The channel that has the test's side. The other channel has the agent's.",
)
@json_option
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Also write a page with waveforms and sound to FILE.",
)
@settings_options("bus", "recordings_dir", later=True)
def report(
    settings: Callable[[], Settings],
    what: str,
    ours: Literal["left", "right"],
    as_json: bool,
    html: Path | None,
) -> None:
    """Say how both sides of a recorded call talked with each other.

    The report has latency, time to yield, talk-over, silences and keys. They are measured on the
    sound alone, so any stereo WAV file (PCM, float, mu-law or A-law) with one side on each channel
    will do. Name a file, a directory of files, or the CallSid of a call in
    TRUNKLINE_RECORDINGS_DIR or in the recordings of the stack that runs here.

    \b
    Examples:
      trunkline report call.wav
      trunkline report call.wav --ours left --json
      trunkline report recordings/ --html report.html
    """
    from . import report as reports

    sys.exit(reports.report(what, settings, ours, as_json=as_json, html=html))


@cli.command(short_help="Show a menu of the stand-in carrier, and a call's way through it.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.toml")
@click.option(
    "--svg",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Draw the menu in FILE.",
)
@click.option("--call", "call_sid", metavar="SID", help="Also show the way that this call took.")
@json_option
@settings_options("twilio_api_url")
def menu(
    settings: Settings, file: Path, svg: Path | None, call_sid: str | None, as_json: bool
) -> None:
    """Check a menu's file, and show its steps and where each key leads.

    A menu is a far end of the stand-in carrier, for example
    `trunkline carrier-sim --callee +14155557777=menu:bank.toml`. With --call, the carrier at
    --twilio-api-url is asked which way a call took.

    \b
    Examples:
      trunkline menu bank.toml
      trunkline menu bank.toml --svg bank.svg
      trunkline menu bank.toml --call CA0123… --svg call.svg --twilio-api-url http://127.0.0.1:9080
    """
    from . import menu as menus

    sys.exit(menus.menu(settings, file, svg, call_sid, as_json=as_json))


for _command in (answer, call, calls, completion, init, keys, load, play, record, replay, show):
    cli.add_command(_command)


@cli.command("with-parent", hidden=True)
@click.option("--grace", type=float, default=2.0)
@click.argument("argv", nargs=-1, required=True)
def with_parent(argv: Sequence[str], grace: float) -> None:
    """Run a program, and end it when the parent ends."""
    from ..stack.with_parent import run_with_parent

    sys.exit(run_with_parent(argv, grace))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; always ends in SystemExit."""
    _open_standard_streams()
    _print_in_every_encoding()
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        # Treat a closed terminal (the end of an ssh connection, for instance) like Ctrl-C: hang
        # calls up, put numbers back, write recordings.
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        # click returns the status of ctx.exit(), which --help and --version call, or None.
        outcome = cli.main(args=argv, prog_name="trunkline", standalone_mode=False)
        sys.exit(outcome if isinstance(outcome, int) else EXIT_DONE)
    except click.ClickException as error:
        if error.format_message().startswith("Usage: "):  # no command was given: show them all
            click.echo(error.format_message(), err=True)
            sys.exit(error.exit_code)
        sys.exit(_failed(_usage(error), error.exit_code))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(_failed("interrupted"))
    except BrokenPipeError:
        # The reader of our output has had enough, as in `trunkline calls | head`. Python flushes
        # the rest of it at the end, which must not fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)
    except TimeoutError as error:
        sys.exit(_failed(str(error) or "it took too long"))
    except (TrunklineError, ValueError) as error:
        sys.exit(_failed(str(error)))
    except OSError as error:
        named = error.filename is not None and error.strerror is not None
        sys.exit(_failed(f"{error.filename}: {error.strerror}" if named else str(error)))
    except Exception as error:  # noqa: BLE001  # the last stop: users get a line, not a traceback
        sys.exit(_failed(f"unexpected {type(error).__name__}: {error} (--debug shows where)"))


def _open_standard_streams() -> None:
    """Open /dev/null in place of each standard stream that the shell has closed (``<&-``, ``>&-``).
    Otherwise the next socket would get its number, and what is meant for the stream."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115  # until the end


def _print_in_every_encoding() -> None:
    """Write a character that standard output's encoding does not have as an escape. It may be a
    block of a waveform, or belong to a file's name. Python sets standard error up like that."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _usage(error: click.ClickException) -> str:
    """The error of the command line, and the ``--help`` that shows correct ones."""
    if not isinstance(error, click.UsageError):
        return error.format_message()
    path = "trunkline" if error.ctx is None else error.ctx.command_path
    return f"{error.format_message().rstrip('.')} (`{path} --help` has examples)"


def _failed(text: str, status: int = EXIT_FAILED) -> int:
    if os.environ.get("TRUNKLINE_DEBUG", "") not in ("", "0"):
        traceback.print_exc()
    click.echo(f"trunkline: {printable(' '.join(text.split()))}", err=True)
    return status
