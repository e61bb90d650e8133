"""``trunkline carrier-sim``: the carrier as a process of its own.

One that a program starts writes a ready file, as ``trunkline up`` does, and ends when the pipe is
closed whose descriptor is in TRUNKLINE_PARENT_FD. Ctrl-C is then its parent's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import uvloop

from .sim import ACCOUNT_SID, AUTH_TOKEN, CarrierSim

_EPILOG = """\b
Examples:
  trunkline carrier-sim --number +14155551234=https://old.example/voice --callee +14155557777=echo
  trunkline carrier-sim --port 9081 --callee '+14155557777=wav:hello.wav,when_silent=0.7,repeat'
  trunkline carrier-sim --callee +14155550001=busy --callee +14155550002=no-answer
  trunkline carrier-sim --callee +14155550003=menu:bank.toml --callee +14155550004=voicemail
  trunkline carrier-sim --line mobile-bad --callee +14155557777=echo
  trunkline carrier-sim --callee +14155557777=speech:austen-0880,repeat@train

\b
Then, for instance:
  curl -d '{"from":"+14155550000","to":"+14155551234","bot":"echo"}' http://127.0.0.1:9080/sim/calls
  curl http://127.0.0.1:9080/sim/errors

\b
Bots: echo[:DELAY] wav:PATH speech:austen-0880 silence record noise:-50 dtmf:12#@2.5
      menu:bank.toml voicemail[:SOUNDS] hand-over:music:4+ringing:6+other-voice:austen-0930
      busy no-answer failed

\b
Options of a bot stand behind commas. All bots but no-answer: ring=2
  all that answer: hang_up_after=9, hears=digits, answered_by=unknown; @street for such a
      line, as in echo@street
  wav, speech, hand-over: loop, after=1, when_silent=0.7, repeat, greets, yields=0.4,
      hang_up_at=1.5, hang_up_when_done
  voicemail: full, silence=5, longest=120

Menus, sounds and lines: docs/far-end.md
"""


def _pairs(option: str, values: tuple[str, ...]) -> list[tuple[str, str]]:
    pairs = []
    for value in values:
        number, _, rest = value.partition("=")
        if not number.startswith("+"):
            raise click.BadParameter(f"{value!r} has to begin with +NUMBER", param_hint=option)
        pairs.append((number, rest))
    return pairs


@contextlib.contextmanager
def _refusing(option: str) -> Iterator[None]:
    """A ValueError within the block is wrong usage of the option."""
    try:
        yield
    except ValueError as e:
        raise click.BadParameter(str(e), param_hint=option) from e


# Each option is also taken from the environment, as TRUNKLINE_SIM_ and its parameter's name.
@click.command(
    name="carrier-sim",
    epilog=_EPILOG,
    context_settings={"auto_envvar_prefix": "TRUNKLINE_SIM", "show_default": True},
)
@click.option("--host", default="127.0.0.1")
@click.option("--port", default=9080, help="0: any free port.")
@click.option(
    "--account-sid",
    default=ACCOUNT_SID,
    envvar=["TRUNKLINE_SIM_ACCOUNT_SID", "TWILIO_ACCOUNT_SID"],
    show_envvar=True,
)
@click.option(
    "--auth-token",
    default=AUTH_TOKEN,
    envvar=["TRUNKLINE_SIM_AUTH_TOKEN", "TWILIO_AUTH_TOKEN"],
    show_envvar=True,
    help="Signs webhooks and guards REST.",
)
@click.option(
    "--auth-token-secondary",
    default="",
    envvar=["TRUNKLINE_SIM_AUTH_TOKEN_SECONDARY", "TWILIO_AUTH_TOKEN_SECONDARY"],
    show_envvar=True,
    help="The other token of a rotation: signs now and then, and is good for REST.",
)
@click.option(
    "--number",
    "numbers",
    multiple=True,
    metavar="NUMBER[=VOICE_URL]",
    help="A number of the account. Repeatable.",
)
@click.option(
    "--callee",
    "callees",
    multiple=True,
    metavar="NUMBER=BOT",
    help="Who answers at a number outside. Repeatable.",
)
@click.option(
    "--caller-id",
    "caller_ids",
    multiple=True,
    metavar="NUMBER",
    help="A verified number that may be From. Repeatable.",
)
@click.option(
    "--calls-per-second",
    type=click.FloatRange(min=0, min_open=True),
    help="Queue outbound calls as Twilio does (it starts 1 a second). Default: no queue.",
)
@click.option(
    "--seed",
    default=0,
    help="For SIDs, habits and faults; 0: other ones each time.",
)
@click.option(
    "--habit",
    "habits",
    multiple=True,
    metavar="HABIT=FORM",
    help="Keep to one form of a habit of Twilio's (docs/beliefs.md), instead of drawing by seed. "
    "Repeatable.",
)
@click.option(
    "--contradict",
    multiple=True,
    metavar="BELIEF",
    help="Do the opposite of what is believed of Twilio (docs/beliefs.md). Repeatable.",
)
@click.option(
    "--line",
    default="",
    metavar="NAME",
    help="The line of far ends that name none (docs/far-end.md): street, mobile-bad, …",
)
@click.option("--ca-file", type=click.Path(exists=True), help="Trusted for https and wss.")
@click.option("--keep-audio/--no-keep-audio", default=True)
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="After SIGTERM or Ctrl-C, go on until every number is as it was before any REST request "
    "and no call is up, but no longer than this.",
)
@click.option(
    "--ready-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Once it listens, write JSON there: account_sid, auth_token, pid, sim (its URL).",
)
def command(
    numbers: tuple[str, ...],
    callees: tuple[str, ...],
    caller_ids: tuple[str, ...],
    habits: tuple[str, ...],
    ready_file: Path | None,
    grace: float,
    **settings: Any,
) -> None:
    """A stand-in for Twilio on this machine: REST, webhooks, Media Streams, callees, faults.

    The control API is under /sim/ on the same port. Options come from the environment, too:
    TRUNKLINE_SIM_PORT, TRUNKLINE_SIM_NUMBERS, TRUNKLINE_SIM_CALLEES, … (docs/settings.md).
    """
    with _refusing("--habit, --contradict, --line"):
        pinned = {name: form for name, _, form in (habit.partition("=") for habit in habits)}
        sim = CarrierSim(habits=pinned, **settings)
    for number, url in _pairs("--number", numbers):
        sim.add_number(number, voice_url=url)
    for number, bot in _pairs("--callee", callees):
        with _refusing("--callee"):
            sim.add_callee(number, bot)
    for number in caller_ids:
        sim.add_caller_id(number)
    if ready_file is not None and not ready_file.parent.is_dir():
        raise click.BadParameter(f"{ready_file.parent} is no directory", param_hint="--ready-file")
    logging.basicConfig(format="%(asctime)s carrier_sim[%(process)d] %(levelname)s %(message)s")
    try:
        uvloop.run(_serve(sim, ready_file, grace))
    except OSError as e:
        at = f"{settings['host']}:{settings['port']}"
        raise click.ClickException(
            f"cannot listen on {at}: {e.strerror or e}; end what listens there, or choose another "
            "--port or --host"
        ) from e


async def _serve(sim: CarrierSim, ready_file: Path | None, grace: float) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    parent = os.environ.get("TRUNKLINE_PARENT_FD")
    if parent:
        # Nothing is ever written into the pipe: it becomes readable when it is closed.
        loop.add_reader(int(parent), ended.set)
        loop.add_signal_handler(signal.SIGINT, lambda: None)
    else:
        loop.add_signal_handler(signal.SIGINT, ended.set)
    async with sim:
        # The media clock must not wait for a collection of objects that live as long as we do.
        gc.collect()
        gc.freeze()
        with _announced(sim, ready_file):
            click.echo(
                f"carrier-sim listening on {sim.base_url} (account {sim.account_sid}, "
                f"seed {sim.exchange.seed})"
            )
            await ended.wait()
            # Whoever asked us to end may have asked the stack at the same moment.
            with contextlib.suppress(TimeoutError):
                await sim.wait_until(lambda: _as_before(sim), grace)


def _as_before(sim: CarrierSim) -> bool:
    """Every number is as it was before any REST request, and no call is up."""
    numbers = sim.numbers
    return not any(call.live for call in sim.calls.values()) and all(
        number.fields() == numbers.before(number, since=0.0).fields() for number in numbers.values()
    )


@contextlib.contextmanager
def _announced(sim: CarrierSim, ready_file: Path | None) -> Iterator[None]:
    """The ready file is there, whole and readable by its owner alone, as long as the block runs."""
    if ready_file is None:
        yield
        return
    said = {
        "account_sid": sim.account_sid,
        "auth_token": sim.auth_token,
        "pid": os.getpid(),
        "sim": sim.base_url,
    }
    fresh = ready_file.with_name(ready_file.name + ".new")
    fresh.unlink(missing_ok=True)
    fresh.touch(0o600)
    fresh.write_text(json.dumps(said))
    fresh.rename(ready_file)
    try:
        yield
    finally:
        ready_file.unlink(missing_ok=True)
