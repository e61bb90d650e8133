"""Settings: the environment and ``.env``, checked once at start; the command line wins.

Every value that a user may set is here, with its default. A missing or wrong one raises
SettingsError with one line that names it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit, urlunsplit

import platformdirs
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from . import env_file as dotenv
from .callers import caller_error
from .curve import CurveKeys, bus_key
from .descriptors import KEEPER_FD_VARIABLE
from .endpoints import BusAddress
from .errors import SettingsError
from .hosts import bare, join
from .redact import is_e164
from .runtime_dir import default_bus

#: What a pasted value may have around it: blanks, and characters that nobody sees (zero-width
#: blanks and joiners, a byte order mark).
_AROUND: Final = "[\\s\u200b-\u200f\u2060\ufeff]+"
_PASTED: Final = re.compile(rf"\A{_AROUND}|{_AROUND}\Z")
#: Said of a URL whose ``@`` stands behind what ends the part with host and password.
_UNREADABLE: Final = (
    "unreadable as a URL: in a user name or password write %2F for a slash, %3F for a question "
    "mark and %23 for a number sign, and in a path %40 for an at sign"
)
#: How a group of numbers is written: all that begin so.
_GROUP: Final = re.compile(r"\+([1-9][0-9]{0,13})?\*\Z")
#: A part of a host's name.
_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z")


def default_state_dir() -> Path:
    """The user's state directory. SettingsError where the user has no home to put it in."""
    try:
        found = platformdirs.user_state_path("trunkline")
    except RuntimeError:  # what platformdirs raises where there is none; older ones leave the ~
        found = Path("~")
    if not found.is_absolute():
        raise SettingsError(
            f"TRUNKLINE_STATE_DIR is not set, and this user (uid {os.geteuid()}) has no home "
            "directory for its default: set it to a directory that outlives the stack (the journal "
            "of numbers to be put back lies there), or set HOME"
        )
    return found


#: The folder of a state directory in which private stacks have theirs.
PRIVATE: Final = "private"


def private_state_dir(state_dir: Path, name: str) -> Path:
    """The state directory of a private stack, which starts beside any other one.

    Whatever stack starts on ``state_dir`` later, or on another private one there, finds its journal
    and puts back what it left.
    """
    return state_dir / PRIVATE / name


#: Settings whose variables are the names that Twilio's own tools have for them.
_OF_TWILIO: Final = ("account_sid", "auth_token", "auth_token_secondary", "region", "edge")


def env_name(field: str) -> str:
    """The environment variable of a field of Settings."""
    return f"{'TWILIO' if field in _OF_TWILIO else 'TRUNKLINE'}_{field.upper()}"


class Settings(BaseModel):
    """All settings of one process, as :func:`load` finds them."""

    model_config = ConfigDict(frozen=True, validate_default=True)

    account_sid: str = ""
    auth_token: SecretStr = SecretStr("")
    #: the other token during a rotation: webhooks, streams and REST take either, and seals that
    #: were made with it can be read. New seals and the keys of a tcp bus come from auth_token.
    auth_token_secondary: SecretStr = SecretStr("")
    #: where the account's calls are handled; the token has to be that region's
    region: str | None = None
    edge: str | None = None
    public_url: str | None = Field(None, repr=False)
    http_host: str = "127.0.0.1"
    http_port: int = Field(8765, ge=0, le=65535)
    console_port: int = Field(8766, ge=0, le=65535)
    bus: str = Field(default_factory=default_bus)
    #: the key of a tcp bus, for a process that is not to have the token; else made from the token
    bus_key: SecretStr = SecretStr("")
    #: as set; :attr:`state_path` has the default
    state_dir: Path | None = None
    numbers: tuple[str, ...] = ()
    lead_ms: int = Field(60, ge=20, le=1000)
    fallback_to_prior: bool = True
    take_over_routed: bool = False
    twilio_api_url: str | None = Field(None, repr=False)
    validate_signature: bool = True
    calls_per_second: float = Field(1.0, gt=0, le=1000)
    #: who may call, and who may be called, whatever a client allows; None: the client alone says
    allowed_callers: tuple[str, ...] | None = None
    #: numbers, and groups of them such as ``+1415*``
    allowed_callees: tuple[str, ...] | None = None
    #: what all clients together may dial: calls at a time, calls in any hour, and begun minutes in
    #: any day; None: no cap
    max_calls: int | None = Field(None, ge=0)
    max_calls_per_hour: int | None = Field(None, ge=0)
    max_minutes_per_day: int | None = Field(None, ge=0)
    #: of a call, in whichever currency; None: nobody says what calls cost
    price_per_minute: float | None = Field(None, ge=0, allow_inf_nan=False)
    recordings_dir: Path | None = None
    log_format: Literal["text", "json"] = "text"

    @field_validator("numbers", "allowed_callers", "allowed_callees", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("numbers")
    @classmethod
    def _numbers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for number in value:
            if not is_e164(number):
                raise ValueError(f"{number!r} is no E.164 number (for instance +14155551234)")
        return value

    @field_validator("allowed_callees")
    @classmethod
    def _callees(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for number in value or ():
            if not is_e164(number) and not _GROUP.match(number):
                raise ValueError(
                    f"{number!r} is neither an E.164 number nor a group of them (for instance "
                    "+14155551234, +1415*)"
                )
        return value

    @field_validator("allowed_callers")
    @classmethod
    def _callers(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for caller in value or ():
            why = caller_error(caller)
            if why is not None:
                raise ValueError(f"{caller!r} {why}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _strip(cls, values: Any) -> Any:
        """A value that was pasted with a blank or a line's end is meant without it; one of nothing
        else is not set."""
        if not isinstance(values, Mapping):
            return values
        stripped = {
            name: pasted(value) if isinstance(value, str) else value
            for name, value in values.items()
        }
        return {name: value for name, value in stripped.items() if value != ""}

    @field_validator("account_sid", "auth_token", "auth_token_secondary")
    @classmethod
    def _credential(cls, value: str | SecretStr) -> str | SecretStr:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        for character in text:
            if not " " <= character <= "~":
                raise ValueError(
                    f"it has the character U+{ord(character):04X} in it, which no SID and no token "
                    "has: copy it again, and look for a quote that is not closed"
                )
        return value

    @field_validator("public_url", "twilio_api_url")
    @classmethod
    def _base_url(cls, value: str | None) -> str | None:
        return None if value is None else base_url(value)

    @field_validator("http_host")
    @classmethod
    def _host(cls, value: str) -> str:
        host = bare(value).lower()
        if not host or re.search(r"[\s/@\[\]]", host):
            raise ValueError("expected a name or an address to listen on, such as 127.0.0.1 or ::1")
        return host

    @field_validator("region", "edge")
    @classmethod
    def _label(cls, value: str | None) -> str | None:
        if value is not None and not _LABEL.match(value := value.lower()):
            raise ValueError("expected one of Twilio's names, such as ie1 (region), dublin (edge)")
        return value

    @field_validator("bus")
    @classmethod
    def _bus_address(cls, value: str) -> str:
        return BusAddress.read(value).text

    @property
    def state_path(self) -> Path:
        """The state directory. SettingsError where none is set and the user has no home."""
        return self.state_dir or default_state_dir()

    @property
    def address(self) -> BusAddress:
        return BusAddress.parse(self.bus)

    @property
    def auth_tokens(self) -> tuple[str, ...]:
        """The tokens that Twilio may sign with and may take, the primary first: one or two."""
        both = (self.auth_token.get_secret_value(), self.auth_token_secondary.get_secret_value())
        return tuple(dict.fromkeys(token for token in both if token))

    @property
    def curve(self) -> CurveKeys | None:
        """Keys for a tcp bus; None on ipc."""
        if self.address.directory is not None:
            return None
        return CurveKeys(self.tcp_key())

    def tcp_key(self) -> str:
        """The key of a tcp bus. SettingsError where neither it nor the token is set."""
        return self.bus_key.get_secret_value() or bus_key(self.require("auth_token"))

    def require(self, field: str) -> str:
        """The value of a field that this process cannot do without, as plain text.

        Raises SettingsError that names the environment variable.
        """
        value = getattr(self, field)
        text = value.get_secret_value() if isinstance(value, SecretStr) else str(value or "")
        if not text:
            raise SettingsError(
                f"{env_name(field)} is not set: put it into the environment or .env"
            )
        return text


def pasted(text: str) -> str:
    """``text`` without the blanks, and what else nobody sees, that it was pasted with."""
    return _PASTED.sub("", text)


def base_url(text: str) -> str:
    """``text`` rebuilt from its parts: scheme and host in lower case, no slash at the end.

    Raises ValueError for what is no base URL of http or https.
    """
    if re.search(r"[\s\x00-\x1f\x7f]", text):
        raise ValueError("a URL has no blanks and no line's end in it")
    if not text.isprintable():
        raise ValueError("a URL has no invisible characters in it: type it in")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        # What the error quotes may be a part of a password.
        raise ValueError(_UNREADABLE if "@" in text else f"unreadable as a URL: {error}") from None
    if "@" in parts.path + parts.query + parts.fragment:
        raise ValueError(_UNREADABLE)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected a base URL such as https://line.example.com")
    if parts.query or parts.fragment:
        raise ValueError("a base URL has no query and no fragment")
    user, sign, _ = parts.netloc.rpartition("@")
    host = parts.hostname if ":" not in parts.hostname else f"[{parts.hostname}]"
    netloc = user + sign + (host if port is None else join(parts.hostname, port))
    return urlunsplit((parts.scheme, netloc, parts.path.rstrip("/"), "", ""))


def same_url(one: str, other: str) -> bool:
    """Both are spellings of one base URL."""
    return spelled(one) == spelled(other)


def spelled(url: str) -> str:
    """The base URL as settings spell it; what is none stays as it is."""
    text = pasted(url)
    try:
        return base_url(text)
    except ValueError:
        return text


def load(*, env_file: str | Path | None = ".env", **given: Any) -> Settings:
    """Read the settings; ``given`` (by field name; None is left out) wins over the environment, and
    that over ``env_file``. A process that another one keeps running has all that it needs in its
    environment. It reads no file, because one that was edited since the stack was started would
    split the stack when the process is started again.

    Raises SettingsError with one line for the first thing that is wrong.
    """
    kept = KEEPER_FD_VARIABLE in os.environ
    found = {} if env_file is None or kept else dotenv.read(Path(env_file))
    found |= {name.upper(): value for name, value in os.environ.items() if value.strip()}
    values: dict[str, Any] = {
        field: found[name] for field in Settings.model_fields if (name := env_name(field)) in found
    }
    values |= {k: v for k, v in given.items() if v is not None}
    try:
        return Settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        if name in Settings.model_fields:
            name = env_name(name)
        reason = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{name}{_shown(name, first['input'])}: {reason}") from None


def _shown(name: str, value: Any) -> str:
    """``='value'``, as far as it may be shown: a URL, even one that cannot be read, stands without
    what may be its password."""
    if "TOKEN" in name or "KEY" in name:
        return ""
    if isinstance(value, str):
        value = re.sub(r"\A([a-z][a-z0-9+.-]*://)?.*@", r"\1***@", value, flags=re.I | re.S)
    return f"={value!r}"
