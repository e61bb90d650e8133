"""`trunkline carrier-sim`: the carrier as a process of its own."""

from __future__ import annotations

import asyncio
import gc
import signal

import click
import uvloop

from trunkline.carrier_sim.bots import parse_bot
from trunkline.carrier_sim.exchange import Options
from trunkline.carrier_sim.sim import ACCOUNT_SID, AUTH_TOKEN, CarrierSim

_EPILOG = """\b
Examples:
  trunkline carrier-sim --number +14155551234=https://old.example/voice --callee +14155557777=echo
  trunkline carrier-sim --port 9081 --callee '+14155557777=wav:hello.wav,when_silent=0.7,repeat'
  trunkline carrier-sim --callee +14155550001=busy --callee +14155550002=no-answer

\b
Then, for instance:
  curl -d '{"from":"+14155550000","to":"+14155551234","bot":"echo"}' http://127.0.0.1:9080/sim/calls
  curl http://127.0.0.1:9080/sim/errors

\b
Bots: echo[:DELAY] wav:PATH speech:austen-0880 silence record noise:-50 dtmf:12#@2.5
      busy no-answer failed; options after commas: ring=2, hang_up_after=9, loop, after=1,
      when_silent=0.7, repeat, greets, hears=digits, hang_up_at=1.5, hang_up_when_done
"""


def _pairs(option: str, values: tuple[str, ...]) -> list[tuple[str, str]]:
    pairs = []
    for value in values:
        number, sign, rest = value.partition("=")
        if not number.startswith("+"):
            raise click.BadParameter(f"{value!r} has to begin with +NUMBER", param_hint=option)
        pairs.append((number, rest if sign else ""))
    return pairs


@click.command(name="carrier-sim", epilog=_EPILOG)
@click.option("--host", default="127.0.0.1", show_default=True, envvar="TRUNKLINE_SIM_HOST")
@click.option(
    "--port", default=9080, show_default=True, envvar="TRUNKLINE_SIM_PORT", help="0: any free port."
)
@click.option(
    "--account-sid",
    default=ACCOUNT_SID,
    show_default=True,
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
    envvar="TRUNKLINE_SIM_NUMBERS",
    help="A number of the account. Repeatable.",
)
@click.option(
    "--callee",
    "callees",
    multiple=True,
    metavar="NUMBER=BOT",
    envvar="TRUNKLINE_SIM_CALLEES",
    help="Who answers at a number outside. Repeatable.",
)
@click.option(
    "--caller-id",
    "caller_ids",
    multiple=True,
    metavar="NUMBER",
    envvar="TRUNKLINE_SIM_CALLER_IDS",
    help="A verified number that may be From. Repeatable.",
)
@click.option(
    "--calls-per-second",
    type=click.FloatRange(min=0, min_open=True),
    envvar="TRUNKLINE_SIM_CALLS_PER_SECOND",
    help="Queue outbound calls as Twilio does (it starts 1 a second). Default: no queue.",
)
@click.option(
    "--max-url-length", default=2048, show_default=True, envvar="TRUNKLINE_SIM_MAX_URL_LENGTH"
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    envvar="TRUNKLINE_SIM_SEED",
    help="For SIDs, habits and faults; 0: other ones each time.",
)
@click.option(
    "--habit",
    "habits",
    multiple=True,
    metavar="HABIT=FORM",
    envvar="TRUNKLINE_SIM_HABITS",
    help="Keep to one form of a habit of Twilio's (docs/beliefs.md), instead of drawing by seed. "
    "Repeatable.",
)
@click.option(
    "--contradict",
    multiple=True,
    metavar="BELIEF",
    envvar="TRUNKLINE_SIM_CONTRADICT",
    help="Do the opposite of what is believed of Twilio (docs/beliefs.md). Repeatable.",
)
@click.option(
    "--ca-file",
    type=click.Path(exists=True),
    envvar="TRUNKLINE_SIM_CA_FILE",
    help="Trusted for https and wss.",
)
@click.option(
    "--keep-audio/--no-keep-audio",
    default=True,
    show_default=True,
    envvar="TRUNKLINE_SIM_KEEP_AUDIO",
)
@click.option(
    "--wire-log/--no-wire-log", default=False, show_default=True, envvar="TRUNKLINE_SIM_WIRE_LOG"
)
def command(
    host: str,
    port: int,
    account_sid: str,
    auth_token: str,
    auth_token_secondary: str,
    numbers: tuple[str, ...],
    callees: tuple[str, ...],
    caller_ids: tuple[str, ...],
    calls_per_second: float | None,
    max_url_length: int,
    seed: int,
    habits: tuple[str, ...],
    contradict: tuple[str, ...],
    ca_file: str | None,
    keep_audio: bool,
    wire_log: bool,
) -> None:
    """A stand-in for Twilio on this machine: REST, webhooks, Media Streams, callees, faults.

    The control API is under /sim/ on the same port.
    """
    options = Options(
        calls_per_second=calls_per_second,
        max_url_length=max_url_length,
        keep_audio=keep_audio,
        wire_log=wire_log,
        seed=seed,
        habits={name: form for name, _, form in (habit.partition("=") for habit in habits)},
        contradict=contradict,
    )
    try:
        sim = CarrierSim(
            host=host,
            port=port,
            account_sid=account_sid,
            auth_token=auth_token,
            auth_token_secondary=auth_token_secondary,
            options=options,
            ca_file=ca_file,
        )
    except ValueError as e:
        raise click.BadParameter(str(e), param_hint="--habit, --contradict") from e
    for number, url in _pairs("--number", numbers):
        sim.add_number(number, voice_url=url)
    for number, bot in _pairs("--callee", callees):
        try:
            sim.add_callee(number, parse_bot(bot))
        except ValueError as e:
            raise click.BadParameter(str(e), param_hint="--callee") from e
    for number in caller_ids:
        sim.add_caller_id(number)
    try:
        uvloop.run(_serve(sim))
    except OSError as e:
        raise click.ClickException(f"cannot listen on {host}:{port}: {e}") from e


async def _serve(sim: CarrierSim) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    async with sim:
        # The media clock must not wait for a collection of what lives as long as the process.
        gc.collect()
        gc.freeze()
        click.echo(
            f"carrier-sim listening on {sim.base_url} (account {sim.account_sid}, "
            f"seed {sim.exchange.seed})"
        )
        await ended.wait()
