"""``trunkline load``: its options. :mod:`trunkline.load` has the command itself."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from trunkline.bus.settings import Settings

from .numbers import PhoneNumber
from .options import Seconds, json_option, settings_options, timeout_option


class _Limits(click.ParamType[dict[str, float]]):
    """An option such as ``latency_p95=1.5,failures=0``, as a mapping."""

    name = "limits"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, float]:
        from ..load.figures import read_limits

        try:
            return value if isinstance(value, dict) else read_limits(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(short_help="Measure an agent's latency and failures, by calls at a time.")
@click.argument("to", metavar="NUMBER", type=PhoneNumber())
@click.option(
    "--from",
    "number",
    required=True,
    type=PhoneNumber(or_any=True),
    metavar="NUMBER",
    help="A number of the account.",
)
@click.option(
    "--calls",
    "most",
    required=True,
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Most calls at a time. The ramp goes by 1, 2, 5, 10, … up to N.",
)
@click.option(
    "--say",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE.wav",
    help="The question (any sample rate).",
)
@click.option(
    "--limits",
    type=_Limits(),
    default="",
    metavar="NAME=N,…",
    help="Limits that each step has to keep, such as latency_p95=1.5,failures=0. The names are "
    "those of docs/gates.md, and `failures`: how many calls of a step may fail.",
)
@click.option(
    "--questions",
    default=1,
    show_default=True,
    type=click.IntRange(1, 100),
    help="How often each call says the question. A step has percentiles from 20 answers on.",
)
@click.option(
    "--answer-timeout",
    default=10.0,
    show_default=True,
    type=Seconds(min_open=True),
    help="Seconds after which a call without an answer fails as silent.",
)
@click.option(
    "--callee-speaks-first",
    is_flag=True,
    help="Listen to the far end's greeting to its end before --say.",
)
@click.option(
    "--max-duration",
    default=300,
    show_default=True,
    type=click.IntRange(1, 300),
    metavar="SECONDS",
    help="Longest duration of a call.",
)
@timeout_option
@json_option
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("out/load.html"),
    show_default=True,
    metavar="FILE",
    help="Page with the picture, the figures, and the calls that had the slowest answers.",
)
@settings_options("bus")
def load(
    settings: Settings,
    say: Path,
    limits: dict[str, float],
    html: Path,
    as_json: bool,
    **wishes: Any,
) -> None:
    """Measure an agent's latency and failures, by how many calls it has at a time.

    Each step of the ramp brings its calls to NUMBER up together. All of them say the question at
    the same time, listen to the answer to its end, and hang up. Answers are measured as `trunkline
    report` measures them. Ctrl-C hangs up all calls, and shows the figures of those that were up.

    Exit status 1: a limit is broken, or the ramp ended early.

    \b
    Examples:
      trunkline load +14155557778 --from +14155551234 --calls 50 --say question.wav
      trunkline load +14155557778 --from +14155551234 --calls 20 --say question.wav \\
          --questions 3 --limits latency_p95=1.5,failures=0 --json
    """
    from trunkline.bus import wav

    from ..load import command
    from ..load.ramp import Plan

    plan = Plan(
        question=wav.read(say).tobytes(),
        answer_within=wishes.pop("answer_timeout"),
        answer_call_within=wishes.pop("timeout"),
        longest=wishes.pop("max_duration"),
        **wishes,
    )
    sys.exit(command.load(settings, plan, limits, html, as_json=as_json))
