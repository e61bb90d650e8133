"""Options that several commands have: above all those that stand for settings, with the same name,
help and check everywhere.

An option wins over the environment; what is left out comes from the environment or ``.env``.
Credentials have no option, because other users of a machine can read command lines.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from trunkline.bus import settings
from trunkline.bus.messages import LONGEST_WAIT

_F = TypeVar("_F", bound=Callable[..., Any])

#: Field of Settings -> (help, metavar). The option has the field's name.
OPTIONS: Final[dict[str, tuple[str, str]]] = {
    "public_url": ("Base URL that Twilio reaches.", "URL"),
    "http_host": ("Address of the public listener.", "HOST"),
    "http_port": ("Port of the public listener.", "PORT"),
    "console_port": ("Port of the local console and metrics.", "PORT"),
    "bus": ("ipc:///dir or tcp://host:port of the controller.", "ADDRESS"),
    "state_dir": ("Directory of the journal.", "DIR"),
    "numbers": ("Numbers that a pool may hand out, with commas between.", "NUMBERS"),
    "lead_ms": ("Audio kept ahead in Twilio's buffer.", "MS"),
    "calls_per_second": ("Outbound calls a second.", "N"),
    "allowed_callers": ("Who may call, with commas between.", "CALLERS"),
    "allowed_callees": ("Whom all clients may call, with commas between.", "NUMBERS"),
    "max_calls": ("Most dialled calls at a time.", "N"),
    "max_calls_per_hour": ("Most dialled calls in any hour.", "N"),
    "max_minutes_per_day": ("Most begun minutes of dialled calls in any day.", "N"),
    "recordings_dir": ("Write a stereo WAV of every call there.", "DIR"),
    "recordings_keep_days": ("Delete recordings that are older.", "DAYS"),
    "recordings_max_mb": ("Delete the oldest recordings beyond this.", "MB"),
    "cassettes_dir": ("Keep a cassette of every call there.", "DIR"),
    "cassettes_keep_days": ("Delete cassettes that are older.", "DAYS"),
    "cassettes_max_mb": ("Delete the oldest cassettes beyond this.", "MB"),
    "twilio_api_url": ("REST base of a stand-in carrier.", "URL"),
    "log_format": ("text or json.", "FORMAT"),
}

#: Options of the whole stack.
STACK: Final = tuple(OPTIONS)
_RECORDINGS: Final = ("recordings_dir", "recordings_keep_days", "recordings_max_mb")
_CASSETTES: Final = ("cassettes_dir", "cassettes_keep_days", "cassettes_max_mb")
GATEWAY: Final = (
    *("public_url", "http_host", "http_port", "bus", *_RECORDINGS, *_CASSETTES),
    "log_format",
)
CODEC_WORKER: Final = ("bus", "lead_ms", "log_format")
CONTROLLER: Final = (
    "public_url",
    "console_port",
    "bus",
    "state_dir",
    "numbers",
    "lead_ms",
    "calls_per_second",
    "allowed_callers",
    "allowed_callees",
    "max_calls",
    "max_calls_per_hour",
    "max_minutes_per_day",
    *_CASSETTES,
    "twilio_api_url",
    "log_format",
)


class Number(click.FloatRange):
    """A number within bounds. NaN is refused here, because to click, which compares with the
    bounds, it is neither too small nor too large."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number: float = super().convert(value, param, ctx)
        if number != number:
            self.fail(f"{value} is not a number.", param, ctx)
        return number


class Seconds(Number):
    """A time to wait for."""

    def __init__(self, *, min_open: bool = False) -> None:
        super().__init__(0.0, LONGEST_WAIT, min_open=min_open)


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object.")
timeout_option = click.option(
    "--timeout",
    default=120.0,
    show_default=True,
    type=Seconds(min_open=True),
    help="Seconds until a call has to be up.",
)


def settings_options(*fields: str, later: bool = False) -> Callable[[_F], _F]:
    """Give a command the options of these fields; it gets the loaded ``settings`` instead, or with
    ``later`` a function that loads them."""

    def decorate(function: _F) -> _F:
        @functools.wraps(function)
        def with_settings(*args: Any, **kwargs: Any) -> Any:
            given = {field: kwargs.pop(field) for field in fields}
            load = functools.partial(settings.load, **given)
            return function(*args, settings=load if later else load(), **kwargs)

        wrapped: Any = with_settings
        for field in reversed(fields):
            text, metavar = OPTIONS[field]
            shown = f"{text} [{settings.env_name(field)}]"
            wrapped = click.option(f"--{field.replace('_', '-')}", help=shown, metavar=metavar)(
                wrapped
            )
        result: _F = wrapped
        return result

    return decorate
