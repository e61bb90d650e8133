"""A new session: a client's request is checked before anything of it is kept."""

from __future__ import annotations

from collections.abc import Callable

from trunkline.bus import messages as m
from trunkline.bus.callers import caller_error, caller_key
from trunkline.bus.errors import AccountMismatchError, InvalidRequestError, WrongModeError
from trunkline.bus.redact import is_e164, not_e164, redact_number

from . import Book
from .session import Session
from .tokens import digest


def new_session(book: Book, info: m.SessionInfo, peer: str, now: float) -> Session:
    """The session as it is asked for, or as its client announces it after a restart.

    If there can be no such session, it raises the TrunklineError that the client gets.
    """
    if not info.session or not info.secret:
        raise InvalidRequestError("a session needs an id and a secret")
    if info.session in book.ended:
        raise WrongModeError(f"session {info.session} is over")
    account = book.identity.account
    if info.account is not None and info.account != account:
        raise AccountMismatchError(
            f"this stack belongs to Twilio account {account}, not to {info.account}"
        )
    _check(info)
    return Session(
        id=info.session,
        secret_hash=digest(info.secret),
        number=info.number,
        peer=peer,
        since=book.wall(now),
        renewed=now,
        allowed_callers=_set(info.allowed_callers, caller_key),
        allowed_callees=_set(info.allowed_callees),
        trace=info.trace,
        test=info.test,
    )


def _check(info: m.SessionInfo) -> None:
    """InvalidRequestError where a number is none, or a caller is nothing that a carrier reports."""
    numbers = [("number", info.number)] if info.number != m.ANY_NUMBER else []
    numbers += [("allowed_callees", number) for number in info.allowed_callees or ()]
    for name, number in numbers:
        if not is_e164(number):
            raise InvalidRequestError(f"{name}: {not_e164(redact_number(number))}")
    for place, caller in enumerate(info.allowed_callers or ()):
        why = caller_error(caller)
        if why is not None:
            raise InvalidRequestError(f"allowed_callers[{place}] {why}")


def _set(numbers: list[str] | None, key: Callable[[str], str] = str) -> frozenset[str] | None:
    """The numbers by which callers or callees are compared. None stays None: the client gave no
    list.

    An empty list of callers lets nobody in, while None lets everybody in. Of callees both mean the
    same: no a-leg call is dialled, and other dials are not restricted (:func:`.dial.check`)."""
    return None if numbers is None else frozenset(key(number) for number in numbers)
