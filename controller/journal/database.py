"""The interface between the journal and the database that it is kept in: literal, and small.

:mod:`.store` knows the statements. It gives all work that waits to a :class:`Database`, which does
the work in one transaction. There are two of them: an SQLite file (:mod:`.file`), and PostgreSQL
(:mod:`.postgres.stacks`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from trunkline.bus.errors import TrunklineError

from .rows import DialRow


class JournalError(TrunklineError, RuntimeError):
    """The journal cannot be used; the message names it and says what to do."""


class DatabaseAwayError(JournalError):
    """The database does not answer. The same work may be given to it again, and is done once."""


class StackHeldError(JournalError):
    """Another process has the stack's journal; ``holder`` is what it says of itself."""

    def __init__(self, stack: str, holder: str) -> None:
        super().__init__(f"stack {stack} is held by {holder or 'another process'}")
        self.holder = holder


class Cursor(Protocol):
    """What a statement has found or changed, as much of PEP 249's cursor as sqlite3's and psycopg's
    have alike."""

    @property
    def rowcount(self) -> int: ...
    @property
    def description(self) -> Any: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """A transaction that is under way. Values stand for the ``?`` of a statement, in either
    database. No value is ever written into the SQL itself: numbers and names come from outside."""

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> Cursor: ...


#: A part of a transaction. It may be run again after a failure, so it does nothing else.
Work = Callable[[Connection], Any]


class Outcome(NamedTuple):
    """The result of a piece of work, or its error, which only whoever asked for that piece gets."""

    result: Any = None
    error: Exception | None = None


class Shared(Protocol):
    """What several stacks have together, asked within a transaction."""

    def number(self, db: Connection, number: str) -> None:
        """Asked before an override is planned. NumberBusyError: another stack has the number."""
        ...

    def dial(self, db: Connection, row: DialRow) -> None:
        """Asked when a dial is noted. LimitReachedError: it would pass a cap of all stacks
        together, and its row is not there afterwards."""
        ...

    def turn(self, db: Connection) -> float:
        """In how many seconds the next call may be asked for. The turn is taken by asking: the one
        who asks next gets the one behind it."""
        ...


@dataclass(frozen=True)
class Dialect:
    """Where statements differ. ``own``: columns by which the rows of this stack are told from those
    of others, with their values; none where a database has one stack alone. ``is_time`` and
    ``as_bytes`` take the name of a column: a condition that it has a number, and its value as
    bytes. ``shared``: None where the stack is alone."""

    own: Mapping[str, str] = field(default_factory=dict)
    is_time: str = "TRUE"
    as_bytes: str = "{}"
    shared: Shared | None = None

    def where(self, condition: str, *values: Any) -> tuple[str, tuple[Any, ...]]:
        """The condition and its values, for the rows of this stack alone."""
        mine = "".join(f" AND {column} = ?" for column in self.own)
        return f"({condition}){mine}", (*values, *self.own.values())

    def insert(self, table: str, row: Mapping[str, Any]) -> tuple[str, tuple[Any, ...]]:
        """The statement that makes a row of this stack, and its values."""
        whole = {**self.own, **row}
        marks = ", ".join("?" * len(whole))
        return f"INSERT INTO {table} ({', '.join(whole)}) VALUES ({marks})", tuple(whole.values())

    def key(self, *columns: str) -> str:
        """The columns of a unique key."""
        return ", ".join((*self.own, *columns))


class Database(Protocol):
    """One connection to where a journal is kept. All methods but ``cut`` and ``interrupt`` are
    called in the journal's own thread.

    ``name``: for messages, without a secret. ``beats``: how often it has to be given something to
    do, so that others see that this stack lives (seconds); 0: never, it is on this machine's disk.
    ``answers``: how many it has got from the database, which shows that one that is far away goes
    on. ``most``: so many pieces of work go into one transaction.
    """

    @property
    def name(self) -> str: ...
    @property
    def dialect(self) -> Dialect: ...
    @property
    def beats(self) -> float: ...
    @property
    def answers(self) -> int: ...
    @property
    def most(self) -> int: ...

    def run(self, work: Sequence[Work]) -> list[Outcome]:
        """Do all of the work in one transaction, and return once that is durable. A piece that
        fails does not undo the others.

        DatabaseAwayError: it is not known whether any of it is done. The next call has to be given
        the same work, and finds out. Any other error: nothing of it is done by this call. But an
        earlier one may have done it, after which another process took the stack.
        """
        ...

    def cut(self) -> None:
        """Have ``run`` wait no longer for an answer that does not come; DatabaseAwayError. It is
        called in another thread, and the next ``run`` begins with another connection."""
        ...

    def interrupt(self) -> None:
        """Have ``run`` wait for the database no longer. It is called in another thread while the
        journal's own one waits, at the process's end, and there is no way back."""
        ...

    def close(self) -> None: ...
