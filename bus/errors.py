"""Errors that cross processes: how a peer hears why its request failed.

A controller that refuses a request answers with an :class:`ErrorInfo`; the asking process raises
the same class with the same fields. Names and bases are part of the public contract, so each
class keeps its built-in base (``RuntimeError`` and so on) as well as :class:`TrunklineError`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from .wire import LONGEST_TEXT, Known, Text

#: The errors of the public contract, which trunkline.errors names to users.
__all__ = [
    "AccountMismatchError",
    "CallFailedError",
    "CarrierError",
    "InternalError",
    "InvalidRequestError",
    "LimitReachedError",
    "NumberBusyError",
    "NumberNotFoundError",
    "NumberRoutedElsewhereError",
    "ProtocolMismatchError",
    "SettingsError",
    "StackUnavailableError",
    "TimedOutError",
    "TrunklineError",
    "WrongModeError",
]


class TrunklineError(Exception):
    """Base of every error that trunkline raises on purpose."""


class NumberBusyError(TrunklineError, RuntimeError):
    """The number is leased by another session or stack.

    ``number`` is E.164 in full; ``holder`` names the session or stack that has it; ``since`` is
    when it took it (ISO 8601, UTC) or None where that cannot be known. ``bus`` is the address of
    the bus of another machine's stack, if such a stack has the number: a line may go there to share
    it. None: no such stack has it.
    """

    def __init__(
        self,
        message: str,
        *,
        number: str = "",
        holder: str = "",
        since: str | None = None,
        bus: str | None = None,
    ) -> None:
        super().__init__(message)
        self.number = number
        self.holder = holder
        self.since = since
        self.bus = bus


class NumberRoutedElsewhereError(TrunklineError, RuntimeError):
    """A TwiML app or a SIP trunk takes the number's calls, so its voice_url is not used.

    ``TRUNKLINE_TAKE_OVER_ROUTED=1`` takes such numbers over, and puts the routing back.
    """

    def __init__(self, message: str, *, number: str = "", routed_to: str = "") -> None:
        super().__init__(message)
        self.number = number
        self.routed_to = routed_to


class NumberNotFoundError(TrunklineError, RuntimeError):
    """The Twilio account has no such incoming phone number."""

    def __init__(self, message: str, *, number: str = "") -> None:
        super().__init__(message)
        self.number = number


class CallFailedError(TrunklineError, RuntimeError):
    """A dialled call was not answered.

    ``status`` is Twilio's call status: busy, no-answer, failed or canceled. ``sid`` is the call's.
    """

    def __init__(self, message: str, *, status: str = "failed", sid: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.sid = sid


class StackUnavailableError(TrunklineError, RuntimeError):
    """The stack cannot be used: no controller answers at the bus address (10 s of trying, 30 in a
    fleet), the session was lost, or a stack that was started did not come up. The message says
    which."""


class CarrierError(TrunklineError, RuntimeError):
    """Twilio's REST refused a request.

    ``status`` is the HTTP status (0: no answer at all), ``code`` Twilio's error number (0: none),
    ``message`` Twilio's words.
    """

    def __init__(self, text: str, *, status: int = 0, code: int = 0, message: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.message = message or text


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Every OSError of the block names ``path``. By itself the error of a full disk names no
    file."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


class SettingsError(TrunklineError, ValueError):
    """A setting is missing or wrong; the message names it and says what to do."""


class ProtocolMismatchError(TrunklineError, RuntimeError):
    """The peer speaks another major version of the bus protocol."""


class AccountMismatchError(TrunklineError, RuntimeError):
    """The stack that was joined belongs to another Twilio account."""


class InvalidRequestError(TrunklineError, ValueError):
    """A request is wrong in itself (a bad number, a duration over the cap, …)."""


class LimitReachedError(TrunklineError, RuntimeError):
    """A cap of the stack's would be passed; the message names it, its value and its setting."""


class WrongModeError(TrunklineError, RuntimeError):
    """The session, or its call, is in a state in which this cannot be done."""


def check_direction(wanted: str, mode: str, what: str, owner: str = "") -> None:
    """WrongModeError if ``what`` is in another ``mode`` than "idle" and the ``wanted`` one.
    ``owner`` stands at the head of the text."""
    if mode not in ("idle", wanted):
        raise WrongModeError(
            f"{owner and owner + ': '}already in {mode!r} mode; cannot switch to {wanted!r}. "
            f"Disconnect and reconnect to reuse this {what} in the other direction."
        )


class InternalError(TrunklineError, RuntimeError):
    """The other process failed in a way it did not expect; its log has the traceback."""


class TimedOutError(TrunklineError, TimeoutError):
    """The request's deadline passed before it was done."""


#: By the name under which they travel.
_KINDS: dict[str, type[TrunklineError]] = {name: globals()[name] for name in __all__}


class ErrorInfo(msgspec.Struct, frozen=True):
    """An error on the wire: the class's name, its text, and its keyword arguments."""

    kind: Known
    text: Text
    fields: dict[Known, Any] = {}

    @classmethod
    def of(cls, error: BaseException) -> ErrorInfo:
        """Describe ``error``. Any that is no :class:`TrunklineError` becomes an InternalError that
        names its type only, because its text may hold a secret of this process."""
        if isinstance(error, TrunklineError):
            fields = {k: v for k, v in vars(error).items() if not k.startswith("_")}
            return cls(type(error).__name__, str(error)[:LONGEST_TEXT], fields)
        return cls(InternalError.__name__, f"unexpected {type(error).__name__}, see its log")

    def exception(self) -> TrunklineError:
        """The exception to raise on this side."""
        cls = _KINDS.get(self.kind)
        if cls is None:
            return TrunklineError(f"{self.kind}: {self.text}")
        try:
            return cls(self.text, **self.fields)
        except TypeError:
            # A newer minor version of the peer may send fields that this one does not know.
            return cls(self.text)
