"""``trunkline load``: its options. The command itself is in :mod:`trunkline.load`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from trunkline.bus.settings import Settings

from .options import Seconds, json_option, settings_options, timeout_option


class _Limits(click.ParamType[dict[str, float]]):
    """``latency_p95=1.5,failures=0``."""

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
@click.argument("to", metavar="NUMBER")
@click.option("--from", "number", required=True, metavar="NUMBER", help="A number of the account.")
@click.option(
    "--calls",
    "most",
    required=True,
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Most calls at a time. The ramp is 1, 2, 5, 10, … and N.",
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
    help="Limits that each step has to keep, such as latency_p95=1.5,failures=0: those of "
    "docs/gates.md, and failures.",
)
@click.option(
    "--questions",
    default=1,
    show_default=True,
    type=click.IntRange(1, 100),
    help="How often each call says the question. 20 answers of a step give percentiles.",
)
@click.option(
    "--answer-timeout",
    default=10.0,
    show_default=True,
    type=Seconds(min_open=True),
    help="A call fails as silent when nobody answers within this.",
)
@click.option(
    "--callee-speaks-first", is_flag=True, help="Hear the far end's greeting out before --say."
)
@click.option(
    "--max-duration",
    default=300,
    show_default=True,
    type=click.IntRange(1, 300),
    metavar="SECONDS",
    help="The longest that a call may last.",
)
@timeout_option
@json_option
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("out/load.html"),
    show_default=True,
    metavar="FILE",
    help="The picture, with the calls that had the slowest answers.",
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

    In each step of the ramp so many calls to NUMBER are up. All say the question at once, hear the
    answer out, and hang up. The ear measures the answers. Ctrl-C hangs up all calls, and shows the
    figures of those that were up by then. Exit status 1: a limit is broken, or the ramp ended
    early.

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
