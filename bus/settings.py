"""Settings: the environment and ``.env``, checked once at start; the command line wins.

Every value that a user may set is here, with its default. A missing or wrong one raises
SettingsError with one line that names it.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, get_type_hints
from urllib.parse import urlsplit, urlunsplit

import msgspec
from msgspec import Meta

from . import env_file as dotenv
from .callers import caller_error
from .curve import ClientCurve, CurveKeys, bus_key
from .descriptors import KEEPER_FD_VARIABLE
from .endpoints import BusAddress
from .errors import SettingsError
from .hosts import bare, join, this_machine
from .redact import is_e164
from .runtime_dir import default_bus

#: What a pasted value may have around it: blanks, and characters that nobody sees (zero-width
#: blanks and joiners, a byte order mark).
_AROUND: Final = "[\\s\u200b-\u200f\u2060\ufeff]+"
_PASTED: Final = re.compile(rf"\A{_AROUND}|{_AROUND}\Z")
#: Said of a URL that has an ``@`` behind the part with password and host, because a character of
#: the password has ended that part.
_UNREADABLE: Final = (
    "unreadable as a URL: in a user name or password write %2F for a slash, %3F for a question "
    "mark and %23 for a number sign, and in a path %40 for an at sign"
)
#: A group of numbers: the digits with which all of them begin, and ``*``.
_GROUP: Final = re.compile(r"\+([1-9][0-9]{0,13})?\*\Z")
#: Words for yes and no, in any case.
_YES: Final = frozenset(("1", "true", "t", "yes", "y", "on"))
_NO: Final = frozenset(("0", "false", "f", "no", "n", "off"))
#: How a machine may be called: it travels as a Name on the bus.
_MACHINE: Final = re.compile(r"[0-9A-Za-z_.:+-]{1,128}\Z")
#: An account's SID, as Twilio gives it.
_ACCOUNT: Final = re.compile(r"AC[0-9a-f]{32}")
#: Any account's SID: the stand-in carrier takes shorter ones, too.
_ANY_ACCOUNT: Final = re.compile(r"AC[0-9A-Za-z_]+")
#: A part of a host's name: a region, an edge.
_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z")


def default_state_dir() -> Path:
    """The user's state directory. SettingsError where the user has no home to put it in."""
    import platformdirs  # for processes that keep a journal: the others start sooner without it

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


#: How our names begin.
_OURS: Final = "TRUNKLINE_"
#: That of ``--debug``, which is no setting.
_DEBUG: Final = "TRUNKLINE_DEBUG"
#: Variables of the stand-in carrier, which shares no code with us: one for each option of
#: ``trunkline carrier-sim``. It reads no ``.env``.
OF_STAND_IN: Final = tuple(
    f"TRUNKLINE_SIM_{option}"
    for option in (
        *("ACCOUNT_SID", "AUTH_TOKEN", "AUTH_TOKEN_SECONDARY", "CALLEES", "CALLER_IDS"),
        *("CALLS_PER_SECOND", "CA_FILE", "CONTRADICT", "GRACE", "HABITS", "HOST", "KEEP_AUDIO"),
        *("LINE", "NUMBERS", "PORT", "READY_FILE", "SEED"),
    )
)
#: Settings whose variables are the names that Twilio's own tools have for them.
_OF_TWILIO: Final = ("account_sid", "auth_token", "auth_token_secondary", "region", "edge")


def env_name(field: str) -> str:
    """The environment variable of a field of Settings."""
    return f"{'TWILIO' if field in _OF_TWILIO else 'TRUNKLINE'}_{field.upper()}"


# ------------------------------------------------------------------ how a value is read
#
# Each of these takes a text, or a value that a caller gives. It returns the value as a process uses
# it, or raises ValueError with the reason for which it refuses it.


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("expected a text")
    return value


def _credential(value: Any) -> str:
    text = _text(value)
    for character in text:
        if not " " <= character <= "~":
            raise ValueError(
                f"it has the character U+{ord(character):04X} in it, which no SID and no token "
                "has: copy it again, and look for a quote that is not closed"
            )
    return text


def _account_sid(value: Any) -> str:
    """An account's SID. Twilio's API keys begin with SK, and sign no webhooks."""
    text = _credential(value)
    if text.startswith("SK"):
        raise ValueError(
            "this is the SID of an API key, and webhooks are signed by the account's own token: "
            "take the Account SID (AC…) and the Auth Token that console.twilio.com shows"
        )
    if not _ANY_ACCOUNT.fullmatch(text):
        raise ValueError("this is no Account SID, which is AC and 32 hex digits")
    return text


def _label(value: Any) -> str:
    label = _text(value).lower()
    if not _LABEL.match(label):
        raise ValueError("expected one of Twilio's names, such as ie1 (region), dublin (edge)")
    return label


def _base_url(value: Any) -> str:
    return base_url(_text(value))


def _host(value: Any) -> str:
    host = bare(_text(value)).lower()
    if not host or re.search(r"[\s/@\[\]]", host):
        raise ValueError("expected a name or an address to listen on, such as 127.0.0.1 or ::1")
    return host


def _machine(value: Any) -> str:
    text = _text(value)
    if not _MACHINE.match(text):
        raise ValueError("expected a name of letters, digits, and any of _.:+-")
    return text


def _client_key(value: Any) -> str:
    return ClientCurve.read(_text(value)).text


def _database(value: Any) -> str:
    """A URL of PostgreSQL. No error shows any of it: it may hold a password."""
    text = _text(value)
    if not text.startswith(("postgresql://", "postgres://")):
        raise ValueError("expected a URL such as postgresql://user:password@host:5432/name")
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError(_UNREADABLE) from None
    hosts = parts.netloc.rpartition("@")[2]
    ports = [port for port in re.findall(r":([^:,\]]*)(?:,|\Z)", hosts) if port]
    behind = parts.path + parts.fragment
    if "@" in behind or parts.fragment or not all(port.isdecimal() for port in ports):
        raise ValueError(_UNREADABLE)
    return text


def _bus(value: Any) -> str:
    return BusAddress.read(_text(value)).text


def _as(kind: Any, expected: str) -> Callable[[Any], Any]:
    """Reads values of the type ``kind``, or texts of them; ``expected`` says what those are."""

    def read(value: Any) -> Any:
        try:
            return msgspec.convert(value, kind, strict=False)
        except msgspec.ValidationError:
            raise ValueError(f"expected {expected}") from None

    return read


_port: Final = _as(Annotated[int, Meta(ge=0, le=65535)], "a port, from 0 to 65535")
_lead: Final = _as(Annotated[int, Meta(ge=20, le=1000)], "whole milliseconds, from 20 to 1000")
_rate: Final = _as(Annotated[float, Meta(gt=0, le=1000)], "a number above 0, and 1000 at most")
_cap: Final = _as(Annotated[int, Meta(ge=0)], "a whole number, 0 or more")
_price: Final = _as(Annotated[float, Meta(ge=0, le=1e6)], "an amount of money, 0 or more")
_limit: Final = _as(Annotated[float, Meta(gt=0, le=1e9)], "a number above 0")
_log_format: Final = _as(Literal["text", "json"], "text or json")


def _flag(value: Any) -> bool:
    word = str(value).lower()
    if word not in _YES | _NO:
        raise ValueError("expected 1 or 0")
    return word in _YES


def _list(value: Any) -> tuple[str, ...]:
    """A text with commas between, or a sequence of texts."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return tuple(_text(each) for each in value)


def _numbers(value: Any) -> tuple[str, ...]:
    numbers = _list(value)
    for number in numbers:
        if not is_e164(number):
            raise ValueError(f"{number!r} is no E.164 number (for instance +14155551234)")
    return numbers


def _callees(value: Any) -> tuple[str, ...]:
    callees = _list(value)
    for number in callees:
        if not is_e164(number) and not _GROUP.match(number):
            raise ValueError(
                f"{number!r} is neither an E.164 number nor a group of them (for instance "
                "+14155551234, +1415*)"
            )
    return callees


def _callers(value: Any) -> tuple[str, ...]:
    callers = _list(value)
    for caller in callers:
        why = caller_error(caller)
        if why is not None:
            raise ValueError(f"{caller!r} {why}")
    return callers


# ------------------------------------------------------------------ the settings


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of one process, as :func:`load` finds them: each with its type, the function
    that reads it, and its default."""

    account_sid: Annotated[str, _account_sid] = ""
    auth_token: Annotated[str, _credential] = field(default="", repr=False)
    #: the other token during a rotation: webhooks, streams and REST take either, and seals that
    #: were made with it can be read. New seals and the keys of a tcp bus come from auth_token.
    auth_token_secondary: Annotated[str, _credential] = field(default="", repr=False)
    #: where the account's calls are handled; the token has to be that region's
    region: Annotated[str | None, _label] = None
    edge: Annotated[str | None, _label] = None
    public_url: Annotated[str | None, _base_url] = field(default=None, repr=False)
    http_host: Annotated[str, _host] = "127.0.0.1"
    http_port: Annotated[int, _port] = 8765
    console_port: Annotated[int, _port] = 8766
    bus: Annotated[str, _bus] = field(default_factory=default_bus)
    #: this machine's name: a call's sound is worked on where its stream arrives
    host: Annotated[str, _machine] = field(default_factory=this_machine)
    #: the key of a tcp bus, for a process that is not to have the token; else made from the token
    bus_key: Annotated[str, _text] = field(default="", repr=False)
    #: a client's own key on a tcp bus, instead of the bus's key
    client_key: Annotated[str, _client_key] = field(default="", repr=False)
    #: the file of the clients that have one; :attr:`clients_path` has the default
    bus_clients: Annotated[Path | None, Path] = None
    #: where journals are, if not in the state directory; it may have a password in it
    database_url: Annotated[str, _database] = field(default="", repr=False)
    #: as set; :attr:`state_path` has the default
    state_dir: Annotated[Path | None, Path] = None
    numbers: Annotated[tuple[str, ...], _numbers] = ()
    lead_ms: Annotated[int, _lead] = 60
    fallback_to_prior: Annotated[bool, _flag] = True
    take_over_routed: Annotated[bool, _flag] = False
    twilio_api_url: Annotated[str | None, _base_url] = field(default=None, repr=False)
    validate_signature: Annotated[bool, _flag] = True
    calls_per_second: Annotated[float, _rate] = 1.0
    #: who may call, whatever a client allows; None: the client alone decides
    allowed_callers: Annotated[tuple[str, ...] | None, _callers] = None
    #: who may be called: numbers, and groups of them such as ``+1415*``; None: the client alone
    #: decides
    allowed_callees: Annotated[tuple[str, ...] | None, _callees] = None
    #: caps on what all clients together dial: calls at a time, calls in any hour, and started
    #: minutes in any day; None: no cap
    max_calls: Annotated[int | None, _cap] = None
    max_calls_per_hour: Annotated[int | None, _cap] = None
    max_minutes_per_day: Annotated[int | None, _cap] = None
    #: what a started minute of a call costs, in any currency; None: nobody says what calls cost
    price_per_minute: Annotated[float | None, _price] = None
    recordings_dir: Annotated[Path | None, Path] = None
    #: recordings are kept for this many days since they were written, and up to this many MB in
    #: all; None: no limit
    recordings_keep_days: Annotated[float | None, _limit] = None
    recordings_max_mb: Annotated[float | None, _limit] = None
    cassettes_dir: Annotated[Path | None, Path] = None
    #: False: cassettes have the times and lengths of sound, and no sound
    cassettes_sound: Annotated[bool, _flag] = True
    #: as for recordings
    cassettes_keep_days: Annotated[float | None, _limit] = None
    cassettes_max_mb: Annotated[float | None, _limit] = None
    log_format: Annotated[Literal["text", "json"], _log_format] = "text"

    #: the names of the settings that were set; all others have their defaults
    given: frozenset[str] = field(default=frozenset(), repr=False, compare=False)

    def changed(self, **values: Any) -> Settings:
        """The same settings but for ``values``, which are taken as they are."""
        return replace(self, **values, given=self.given | values.keys())

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
        both = (self.auth_token, self.auth_token_secondary)
        return tuple(dict.fromkeys(token for token in both if token))

    @property
    def curve(self) -> CurveKeys | None:
        """Keys of a tcp bus, for a process of the stack; None on ipc."""
        if self.address.directory is not None:
            return None
        return CurveKeys(self.tcp_key(), self.clients_path)

    @property
    def client_curve(self) -> ClientCurve | None:
        """Keys for a client of a tcp bus, its own where it has one; None on ipc."""
        if self.address.directory is None and self.client_key:
            return ClientCurve.read(self.client_key)
        return self.curve

    @property
    def clients_path(self) -> Path | None:
        """The file of clients with keys of their own. None: no place for it is named, and the user
        has no home."""
        if self.bus_clients is not None:
            return self.bus_clients
        try:
            return self.state_path / "bus-clients"
        except SettingsError:
            return None

    def tcp_key(self) -> str:
        """The key of a tcp bus. SettingsError where neither it nor the token is set."""
        if not self.bus_key and not self.auth_token and self.client_key:
            raise SettingsError(
                "TRUNKLINE_CLIENT_KEY is a client's: a process of the stack needs the bus's own "
                "key (TRUNKLINE_BUS_KEY, or TWILIO_AUTH_TOKEN)"
            )
        return self.bus_key or bus_key(self.require("auth_token"))

    def require(self, name: str, instead: str = "") -> str:
        """The value of a field that this process cannot do without, as text.

        Raises SettingsError that names the environment variable. ``instead``: what the user may do
        if there is no value.
        """
        text = str(getattr(self, name) or "")
        if not text:
            raise SettingsError(
                f"{env_name(name)} is not set: put it into the environment or .env "
                f"({_env_file()}){instead or _WITHOUT.get(name, '')}"
            )
        return text


def _env_file() -> str:
    """Where ``.env`` was looked for. So a user in the wrong directory sees it."""
    path = Path(".env").absolute()
    if path.is_file():
        return f"{path} does not have it"
    return f"there is none in {path.parent}; `trunkline init` writes one"


_NOT_IN_FILE: Final = "the stand-in carrier's variables count in the environment alone"
#: How to do without a setting.
_WITHOUT: Final = {
    "public_url": "; `trunkline up --tunnel cloudflared` finds one by itself",
}


#: How each field is read.
_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    name: hint.__metadata__[0]
    for name, hint in get_type_hints(Settings, include_extras=True).items()
    if name != "given"
}
#: The names of all settings.
FIELDS: Final = tuple(_READERS)


def pasted(text: str) -> str:
    """``text`` without blanks and invisible characters around it, which pasting often adds."""
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
    """The base URL as settings spell it. A text that is no base URL stays as it is."""
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
        name: found[env_name(name)] for name in FIELDS if env_name(name) in found
    }
    values |= {name: value for name, value in given.items() if value is not None}
    # A value that was pasted with a blank or a line's end is meant without it. A value of nothing
    # else counts as not set.
    values = {n: pasted(value) if isinstance(value, str) else value for n, value in values.items()}
    values = {name: value for name, value in values.items() if value != ""}
    set_here = frozenset(values)
    # The default address comes from the user's directories, so it is checked like one that is set.
    if "bus" not in values:
        values["bus"] = default_bus()
    _check_not_swapped(values)
    for name in sorted(values, key=FIELDS.index):
        try:
            values[name] = _READERS[name](values[name])
        except ValueError as error:
            shown = _shown(env_name(name), values[name])
            raise SettingsError(f"{env_name(name)}{shown}: {error}") from None
    return Settings(**values, given=set_here)


class Slip(NamedTuple):
    """A variable that has no effect. ``hint``: what may be meant, or what to do; "" if unknown."""

    text: str
    hint: str


def slips(env_file: Path = Path(".env")) -> list[Slip]:
    """Names that begin with ``TRUNKLINE_`` and are ignored. As a rule each is a misspelling, and
    what was meant has its default.

    Of the environment only those are told that are close to a setting. Other programs may have put
    names there: Kubernetes gives a pod TRUNKLINE_PORT and the like, if a service has that name.
    """
    names = (*map(env_name, FIELDS), *OF_STAND_IN)
    known = {name.removeprefix(_OURS): name for name in names}
    # A pipe cannot be read twice, and the settings have been read from it.
    written = {} if env_file.is_fifo() else dotenv.read(env_file)
    found = []
    for name in sorted(written | os.environ):
        if name in OF_STAND_IN and name not in os.environ:
            found.append(Slip(f"{name} is ignored in {env_file}", _NOT_IN_FILE))
        of_ours = name.removeprefix(_OURS)
        if of_ours in known or not name.startswith(_OURS) or name.startswith(_DEBUG):
            continue
        near = difflib.get_close_matches(of_ours, known, n=1, cutoff=0.8)
        if near or name in written:
            hint = f"perhaps {known[near[0]]} is meant" if near else ""
            found.append(Slip(f"{name} is not a setting, and is ignored", hint))
    return found


def _check_not_swapped(values: dict[str, Any]) -> None:
    """SettingsError where SID and token stand in each other's place. Neither of them is shown."""
    sid, token = str(values.get("account_sid", "")), str(values.get("auth_token", ""))
    if _ACCOUNT.fullmatch(token) and not sid.startswith("AC"):
        raise SettingsError(
            "TWILIO_AUTH_TOKEN has an account's SID (AC…) in it, and TWILIO_ACCOUNT_SID has "
            "none: swap the two"
        )


def _shown(name: str, value: Any) -> str:
    """``='value'``, as far as it may be shown. A secret is left out whole. A URL, even one that
    cannot be read, loses what may be its user name and password."""
    if "TOKEN" in name or "KEY" in name or "DATABASE" in name:
        return ""
    if name == env_name("account_sid") and not str(value).startswith(("AC", "SK")):
        return ""  # it may be the token
    if isinstance(value, str):
        value = re.sub(r"\A([a-z][a-z0-9+.-]*://)?.*@", r"\1***@", value, flags=re.I | re.S)
    return f"={value!r}"
