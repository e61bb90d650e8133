"""Where journals are, by the settings: our own, and those that stacks left behind.

A journal is a file in the state directory, or has its rows in PostgreSQL. There the state
directory still says which stack is ours: its lock keeps two controllers of this machine apart, and
the lease in the database those of several machines. Files that were left are looked for in either
case, so that a stack that moves to PostgreSQL leaves no number behind.

Only this file decides between the two, by ``TRUNKLINE_DATABASE_URL``. Everything else has a
:class:`.store.Journal`, and does not know which. psycopg is an extra, so :mod:`.postgres` is
imported here where it is needed: a stack without a database must run without it.
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
    """The journal of a stack that seems to be gone, with its open rows. There are two kinds:
    :class:`LeftInFile`, and ``LeftInDatabase`` (:mod:`.postgres.register`).

    ``silent_for``: look at it for this many seconds before you open it, because the stack may still
    live (:func:`.orphans.watch`).
    ``on_a_network``: the stack may live, but be cut off from the database, so that it cannot show
    it. ``fleet``: another controller may run the stack, so that its clients get their sessions
    back."""

    stack: str
    rows: OpenRows
    silent_for: float
    on_a_network: bool
    fleet: bool

    async def look(self) -> None:
        """StackHeldError: the stack has shown since it was found that it lives. DatabaseAwayError:
        nobody can look now."""
        ...

    async def open(self) -> Journal:
        """Take the stack, so that nobody else writes to its journal, and open that. StackHeldError:
        the stack lives. JournalError: its journal cannot be used."""
        ...

    def release(self) -> None:
        """Let go of whatever :meth:`open` took; call it once the journal is closed."""
        ...


class LeftInFile:
    """A file whose lock was free when we looked. The lock says all that can be known, so nothing
    has to be waited for: ``open`` gets it, or the stack lives. ``path``: the stack's directory."""

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

    async def look(self) -> None:
        """Nothing: ``open`` will know."""

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
    """Within it psycopg is imported. SettingsError: psycopg, or the library that it needs, is
    missing; the message says what to install."""
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
    JournalError or SettingsError.

    They are functions, so that the caller can go on with the next source where one fails.
    """
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
    """The stacks in PostgreSQL; None: journals are files. SettingsError: psycopg is missing.

    ``holder``: how this process names itself to others. ``home``: the state directory's name in the
    database, where it has one. ``serves``: this process is to run one or more of the stacks, so
    that peers may look for them at its bus. ``trunkline restore`` and private stacks do not: nobody
    shall move to one that is about to end.
    """
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
    """The account's stack in the state directory, which is locked. A directory may have stacks with
    a file and stacks in a database; only one of the kind that the settings ask for is ours."""
    in_database = bool(settings.database_url)
    return state_dir.own(settings.state_path, account, holder, in_database=in_database)


async def open_own(
    settings: Settings, account: str, holder: str, stack: StackDir
) -> tuple[StackDir, Journal, Register | None]:
    """The stack of :func:`own_dir`, with its journal.

    In PostgreSQL another machine may have taken the stack while nothing of it lived here. It puts
    the numbers back, and we begin a new stack. Raises JournalError or SettingsError, and has
    released the stack then.
    """
    try:
        passing = stack.private_root is not None
        stacks = register(settings, account, holder, stack.home, serves=not passing)
        if stacks is None:
            journal = await Journal.in_file(stack.journal, account=account, stack=stack.id)
            return stack, journal, None
        try:
            journal = await stacks.take(stack.id, passing=passing, runs=True)
        except StackHeldError:
            # Its id is another machine's from now on, and so it must not be found here again.
            stack.forget()
            stack = own_dir(settings, account, holder)
            journal = await stacks.take(stack.id, passing=passing, runs=True)
    except BaseException:  # whatever ends the start, a cancellation too: the lock is let go
        stack.release()
        raise
    # A start that found no database left the directory, and there is nothing to be lost.
    stack.new = stack.home is None
    stack.keep_home(stacks.home)
    return stack, journal, stacks
