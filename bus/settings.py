"""Settings: the environment and ``.env``, checked once at start; the command line wins.

Every value that a user may set is here, with its default. A missing or wrong one raises
SettingsError with one line that names it.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import platformdirs
from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from .curve import CurveKeys
from .endpoints import BusAddress
from .errors import SettingsError
from .redact import is_e164


def default_bus() -> str:
    """``ipc://`` and a directory in the user's runtime directory.

    Where the system gives the user none, platformdirs names one under /tmp and warns; the bus makes
    its directory 0700 and refuses one of another user, so the warning tells nothing new.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        warnings.simplefilter("ignore", UserWarning)
        return f"ipc://{platformdirs.user_runtime_path('trunkline')}/bus"


def default_state_dir() -> Path:
    return platformdirs.user_state_path("trunkline")


#: The folder of a state directory in which private stacks have theirs.
PRIVATE: Final = "private"


def private_state_dir(state_dir: Path, name: str) -> Path:
    """The state directory of a private stack, which starts beside any other one.

    Whatever stack starts on ``state_dir`` later, or on another private one there, finds its journal
    and puts back what it left.
    """
    return state_dir / PRIVATE / name


def _env(name: str) -> Any:
    """A field that is read from the environment variable ``name``, or given by its own name."""
    return AliasChoices(name)


class Settings(BaseSettings):
    """All settings of one process. Field names are those of the environment without TRUNKLINE_."""

    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", populate_by_name=True, frozen=True, env_ignore_empty=True
    )

    account_sid: str = Field("", validation_alias=_env("TWILIO_ACCOUNT_SID"))
    auth_token: SecretStr = Field(SecretStr(""), validation_alias=_env("TWILIO_AUTH_TOKEN"))
    #: a former or secondary token: marks written under it can still be read
    auth_token_secondary: SecretStr = Field(
        SecretStr(""), validation_alias=_env("TWILIO_AUTH_TOKEN_SECONDARY")
    )
    public_url: str | None = Field(None, validation_alias=_env("TRUNKLINE_PUBLIC_URL"))
    http_host: str = Field("127.0.0.1", validation_alias=_env("TRUNKLINE_HTTP_HOST"))
    http_port: int = Field(8765, ge=0, le=65535, validation_alias=_env("TRUNKLINE_HTTP_PORT"))
    console_port: int = Field(8766, ge=0, le=65535, validation_alias=_env("TRUNKLINE_CONSOLE_PORT"))
    bus: str = Field(default_factory=default_bus, validation_alias=_env("TRUNKLINE_BUS"))
    state_dir: Path = Field(
        default_factory=default_state_dir, validation_alias=_env("TRUNKLINE_STATE_DIR")
    )
    numbers: Annotated[tuple[str, ...], NoDecode] = Field(
        (), validation_alias=_env("TRUNKLINE_NUMBERS")
    )
    lead_ms: int = Field(60, ge=20, le=1000, validation_alias=_env("TRUNKLINE_LEAD_MS"))
    fallback_to_prior: bool = Field(True, validation_alias=_env("TRUNKLINE_FALLBACK_TO_PRIOR"))
    take_over_routed: bool = Field(False, validation_alias=_env("TRUNKLINE_TAKE_OVER_ROUTED"))
    twilio_api_url: str | None = Field(None, validation_alias=_env("TRUNKLINE_TWILIO_API_URL"))
    validate_signature: bool = Field(True, validation_alias=_env("TRUNKLINE_VALIDATE_SIGNATURE"))
    calls_per_second: float = Field(
        1.0, gt=0, le=100, validation_alias=_env("TRUNKLINE_CALLS_PER_SECOND")
    )
    recordings_dir: Path | None = Field(None, validation_alias=_env("TRUNKLINE_RECORDINGS_DIR"))
    log_format: Literal["text", "json"] = Field(
        "text", validation_alias=_env("TRUNKLINE_LOG_FORMAT")
    )

    @field_validator("numbers", mode="before")
    @classmethod
    def _split_numbers(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = tuple(part.strip() for part in value.split(",") if part.strip())
        for number in value:
            if not is_e164(number):
                raise ValueError(f"{number!r} is no E.164 number (for instance +14155551234)")
        return value

    @field_validator("public_url", "twilio_api_url")
    @classmethod
    def _base_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected a base URL such as https://line.example.com")
        if parts.query or parts.fragment:
            raise ValueError("a base URL has no query and no fragment")
        return value.rstrip("/")

    @field_validator("bus")
    @classmethod
    def _bus_address(cls, value: str) -> str:
        BusAddress.parse(value)
        return value

    @property
    def address(self) -> BusAddress:
        return BusAddress.parse(self.bus)

    @property
    def curve(self) -> CurveKeys | None:
        """Keys for a tcp bus; None on ipc."""
        if self.address.directory is not None:
            return None
        token = self.require("auth_token")
        return CurveKeys(token)

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


def env_name(field: str) -> str:
    """The environment variable of a field of Settings."""
    alias = Settings.model_fields[field].validation_alias
    if isinstance(alias, AliasChoices):
        return str(alias.choices[0])
    return field


def load(*, env_file: str | Path | None = ".env", **given: Any) -> Settings:
    """Read the settings; ``given`` (by field name; None is left out) wins over the environment.

    Raises SettingsError with one line for the first thing that is wrong.
    """
    values = {k: v for k, v in given.items() if v is not None}
    try:
        return Settings(_env_file=env_file, **values)  # type: ignore[call-arg]  # pydantic-settings' own
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        if name in Settings.model_fields:
            name = env_name(name)
        shown = "" if "TOKEN" in name else f"={first['input']!r}"
        reason = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{name}{shown}: {reason}") from None
