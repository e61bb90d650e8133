"""Options that several commands share. Most stand for settings, and have the same name, help and
check in every command.

An option wins over the environment. A setting without one comes from the environment or ``.env``.
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
    "bus": ("Address of the stack's bus: ipc:///dir or tcp://host:port.", "ADDRESS"),
    "state_dir": ("Directory of the journal.", "DIR"),
    "numbers": ("Numbers that a pool may hand out, with commas between.", "NUMBERS"),
    "lead_ms": ("Least audio to keep ahead in Twilio's buffer, in ms.", "MS"),
    "calls_per_second": ("Most outbound calls a second to ask Twilio for.", "N"),
    "allowed_callers": ("Who may call, with commas between.", "CALLERS"),
    "allowed_callees": ("Whom clients may call, with commas between.", "NUMBERS"),
    "max_calls": ("Most dialled calls at a time.", "N"),
    "max_calls_per_hour": ("Most dialled calls in any hour.", "N"),
    "max_minutes_per_day": ("Most begun minutes of dialled calls in any 24 hours.", "N"),
    "recordings_dir": ("Directory for a stereo WAV file of every call.", "DIR"),
    "recordings_keep_days": ("Delete recordings that are older than DAYS.", "DAYS"),
    "recordings_max_mb": ("Delete the oldest recordings while all together exceed MB.", "MB"),
    "cassettes_dir": ("Directory for a cassette of every call.", "DIR"),
    "cassettes_keep_days": ("Delete cassettes that are older than DAYS.", "DAYS"),
    "cassettes_max_mb": ("Delete the oldest cassettes while all together exceed MB.", "MB"),
    "twilio_api_url": ("Base URL of a stand-in carrier's REST.", "URL"),
    "log_format": ("Format of the log: text or json.", "FORMAT"),
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
    """A number within bounds. NaN is refused here, because click only compares with the bounds, and
    NaN is neither below nor above them."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number: float = super().convert(value, param, ctx)
        if number != number:
            self.fail(f"{value} is not a number.", param, ctx)
        return number


class Seconds(Number):
    """A time to wait, from 0 to the longest that the bus's messages can carry."""

    def __init__(self, *, min_open: bool = False) -> None:
        super().__init__(0.0, LONGEST_WAIT, min_open=min_open)


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
timeout_option = click.option(
    "--timeout",
    default=120.0,
    show_default=True,
    type=Seconds(min_open=True),
    help="Most seconds to wait until the call is up.",
)


def settings_options(*fields: str, later: bool = False) -> Callable[[_F], _F]:
    """Give a command the options of these fields of Settings. The command gets one argument for all
    of them, ``settings``: loaded, or with ``later`` a function that loads them."""

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
