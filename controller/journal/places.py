"""Where journals are, by the settings: our own, and those that stacks left behind.

A journal is a file in the state directory, or has its rows in PostgreSQL. There the state
directory still says which stack is ours: its lock keeps two controllers of this machine apart, and
the lease in the database those of several machines. Files that were left are looked for in either
case, so that a stack that moves to PostgreSQL leaves no number behind.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from trunkline.bus.errors import SettingsError
from trunkline.bus.locks import LockHeldError
from trunkline.bus.settings import Settings

from ..usage import Caps
from . import state_dir, store
from .database import StackHeldError
from .reading import OpenRows
from .rows import DialRow
from .state_dir import StackDir
from .store import Journal

if TYPE_CHECKING:
    from .postgres.register import Register


class Left(Protocol):
    """The journal of a stack that seems to be gone, with its open rows.

    ``silent_for``: wait this many seconds before you open it, because the stack may still live.
    ``on_a_network``: the stack may live, but be cut off from the database, so that it cannot show
    it. ``fleet``: another controller may run the stack, so that its clients get their sessions
    back."""

    stack: str
    rows: OpenRows
    silent_for: float
    on_a_network: bool
    fleet: bool

    async def open(self) -> Journal:
        """Take it. StackHeldError: the stack lives. JournalError."""
        ...

    def release(self) -> None:
        """Its journal is closed."""
        ...


class LeftInFile:
    """A file whose lock was free."""

    silent_for = 0.0
    on_a_network = False
    fleet = False

    def __init__(self, path: Path, rows: OpenRows, account: str, holder: str) -> None:
        self.stack = path.name
        self.rows = rows
        self._path = path
        self._account = account
        self._holder = holder
        self._dir: StackDir | None = None

    async def open(self) -> Journal:
        try:
            self._dir = state_dir.take(self._path, self._holder)
        except LockHeldError as error:
            raise StackHeldError(self.stack, error.holder) from error
        return await Journal.in_file(self._dir.journal, account=self._account, stack=self.stack)

    def release(self) -> None:
        if self._dir is not None:
            self._dir.release()


@contextlib.contextmanager
def _psycopg() -> Iterator[None]:
    """Within it psycopg is imported. SettingsError: it is missing."""
    try:
        yield
    except ImportError as error:
        raise SettingsError(
            "TRUNKLINE_DATABASE_URL needs psycopg: pip install 'trunkline[postgres]' "
            f"({error.name or error} is missing)"
        ) from None


def dialled(settings: Settings) -> Iterator[Callable[[], list[DialRow]]]:
    """Functions that each read one source: a journal of this user's, or the account's rows in
    PostgreSQL. A function returns the dials that Twilio took. It takes a while, and may raise
    JournalError or SettingsError."""
    for path in state_dir.journals(settings.state_path):
        yield partial(store.dialled, path)
    if settings.database_url:
        yield partial(_in_database, settings, settings.database_url)


def _in_database(settings: Settings, url: str) -> list[DialRow]:
    with _psycopg():
        from .postgres import stacks
    return stacks.dialled(url, settings.require("account_sid"))


def register(
    settings: Settings,
    account: str,
    holder: str,
    home: str | None = None,
    *,
    serves: bool = False,
) -> Register | None:
    """The stacks in PostgreSQL; None: journals are files. ``serves``: this process is to run one or
    more of them. SettingsError: psycopg is missing."""
    if not settings.database_url:
        return None
    with _psycopg():
        from .postgres.register import Register
        from .postgres.stacks import Place
    place = None
    if serves and settings.public_url is not None:
        place = Place(
            settings.address.text,
            settings.public_url,
            Caps(settings.max_calls, settings.max_calls_per_hour, settings.max_minutes_per_day),
            settings.calls_per_second,
        )
    return Register(settings.database_url, account, holder, home, place)


def own_dir(settings: Settings, account: str, holder: str) -> StackDir:
    """The account's stack in the state directory, which is locked."""
    in_database = bool(settings.database_url)
    return state_dir.own(settings.state_path, account, holder, in_database=in_database)


async def open_own(
    settings: Settings, account: str, holder: str, stack: StackDir
) -> tuple[StackDir, Journal, Register | None]:
    """The stack of :func:`own_dir`, with its journal. ``lost``: it had one, and that is gone.

    In PostgreSQL another machine may have taken the stack while nothing of it lived here. It puts
    the numbers back, and we begin a new stack. JournalError, SettingsError; the stack is released.
    """
    try:
        passing = stack.private_root is not None
        stacks = register(settings, account, holder, stack.home, serves=not passing)
        if stacks is None:
            journal = await Journal.in_file(stack.journal, account=account, stack=stack.id)
            return stack, journal, None
        try:
            journal, new = await stacks.take(stack.id, passing=passing, runs=True)
        except StackHeldError:
            stack.forget()
            stack = own_dir(settings, account, holder)
            journal, new = await stacks.take(stack.id, passing=passing, runs=True)
    except BaseException:  # whatever ends the start, a cancellation too: the lock is let go
        stack.release()
        raise
    stack.lost = new and stack.home is not None
    stack.keep_home(stacks.home)
    return stack, journal, stacks
