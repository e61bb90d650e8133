"""The journal's SQLite file: made, checked, migrated. A file that is torn, or is no journal of
ours, is refused with an error that names it, and never written to.

A journal is made under another name, and gets its own once it is whole and on the disk. So an empty
file of that name was no journal that is just being made: it had rows, and somebody has cut it.

These are the files of one stack (SQLite's "Write-Ahead Logging" explains -wal and -shm)::

    journal.sqlite3        the journal
    journal.sqlite3-wal    what was committed and is not moved into it yet
    journal.sqlite3-shm    an index of that, for all who have the journal open
    journal.sqlite3.new    a journal that is being made; a start that died left it

Anybody of this user can look: ``sqlite3 -readonly journal.sqlite3 "SELECT number, state FROM
overrides"``.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

from .database import Dialect, JournalError, Outcome, Work
from .state_dir import sync_names

T = TypeVar("T")

#: "trkl": SQLite's application_id of our files, by which another program's database is told from a
#: journal before anything is read from it or written to it.
APPLICATION_ID: Final = 0x74726B6C

#: Migration n takes a file from user_version n to n + 1. What users' files have been through cannot
#: change any more, so a change is a further migration, never an edit of one that was released.
#: Times are Unix times, because another process reads them after another boot. ``prior`` and
#: ``written`` are JSON objects of strings.
MIGRATIONS: Final = (
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE epochs (epoch INTEGER PRIMARY KEY, pid INTEGER NOT NULL, started REAL NOT NULL);
    CREATE TABLE overrides (
        id TEXT PRIMARY KEY, number TEXT NOT NULL, number_sid TEXT NOT NULL,
        prior TEXT, written TEXT, session TEXT NOT NULL,
        state TEXT NOT NULL, uncertain_until REAL NOT NULL DEFAULT 0,
        since REAL NOT NULL, changed REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX overrides_open ON overrides (state)
        WHERE state IN ('planned', 'applied', 'restoring');
    CREATE TABLE holders (
        override TEXT NOT NULL REFERENCES overrides (id), session TEXT NOT NULL,
        secret_hash TEXT NOT NULL, PRIMARY KEY (override, session)
    ) WITHOUT ROWID;
    CREATE TABLE dials (
        request TEXT PRIMARY KEY, session TEXT NOT NULL, secret_hash TEXT NOT NULL,
        call TEXT NOT NULL, mode TEXT NOT NULL, callee TEXT NOT NULL, caller TEXT NOT NULL,
        timeout REAL NOT NULL, max_duration REAL NOT NULL, token_hash TEXT NOT NULL,
        sid TEXT, state TEXT NOT NULL, asked REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX dials_open ON dials (state) WHERE state != 'closed';
    """,
    """
    CREATE TABLE seen (sid TEXT PRIMARY KEY, since REAL NOT NULL) WITHOUT ROWID;
    CREATE INDEX seen_since ON seen (since);
    """,
    "ALTER TABLE dials ADD COLUMN seconds REAL;",
    """
    CREATE TABLE listening (
        call TEXT PRIMARY KEY, session TEXT NOT NULL, secret_hash TEXT NOT NULL, sid TEXT NOT NULL,
        theirs TEXT NOT NULL, name TEXT NOT NULL, since REAL NOT NULL
    ) WITHOUT ROWID;
    """,
)


#: SQLite keeps whatever it is given ("Datatypes In SQLite": a column's type is a preference), so a
#: column may have a value of another kind, and a text may be no UTF-8. A query that compared such a
#: value as a time, or decoded it, would fail for all rows because of one.
DIALECT: Final = Dialect(is_time="typeof({}) IN ('real', 'integer')", as_bytes="CAST({} AS BLOB)")

#: A journal without a file, for rows that no later process has to know: ``trunkline restore
#: --account`` makes rows of what the account's numbers say themselves.
IN_MEMORY: Final = Path(":memory:")


def connect(path: Path, account: str, stack: str) -> sqlite3.Connection:
    """Open or make the journal of ``account`` at ``path``, as its newest version. ``stack``: the
    stack's id, which a new journal notes. JournalError where that cannot be.

    A link is refused, because somebody else could have put it there to have their file written to.
    """
    if path != IN_MEMORY:
        if path.is_symlink():
            raise JournalError(f"{path} is a link, not a journal of ours: `rm {path}`")
        if not path.exists():
            _make(path, account, stack)
        # Read only: closing another connection would move what a crash left in the -wal file into
        # a database that may not be ours.
        read(path, lambda found: _check_account(found, path, account))
    # The journal's own thread uses it, and the same thread closes it.
    return _open(path, account, stack)


class SqliteDatabase:
    """The journal's file, in the journal's thread (:class:`.database.Database`). It is always
    there, and one process alone has it, so nothing has to be shown by a beat."""

    dialect = DIALECT
    beats = 0.0
    answers = 0
    most = sys.maxsize

    def __init__(self, name: str, connection: sqlite3.Connection) -> None:
        self.name = name
        self.connection = connection

    @classmethod
    def open(cls, path: Path, account: str, stack: str) -> SqliteDatabase:
        """As :func:`connect`."""
        return cls(str(path), connect(path, account, stack))

    def run(self, work: Sequence[Work]) -> list[Outcome]:
        """All of the work in one transaction. Each piece has its own result or error.

        The savepoint takes back what a failed piece did before it failed. If the transaction as a
        whole fails, for instance because the disk is full, nothing is done.
        """
        found: list[Outcome] = []
        try:
            with self.connection as db:
                db.execute("BEGIN")
                for piece in work:
                    db.execute("SAVEPOINT work")
                    try:
                        found.append(Outcome(piece(db)))
                    except Exception as error:  # noqa: BLE001  # its own caller gets it
                        db.execute("ROLLBACK TO work")
                        found.append(Outcome(error=self.failed(error)))
                    db.execute("RELEASE work")
        except sqlite3.Error as error:
            raise self.failed(error) from error
        return found

    def failed(self, error: Exception) -> Exception:
        """SQLite's errors as ours. Any other error is one that a piece raised on purpose, such as
        NumberBusyError, and goes to its caller as it is."""
        if not isinstance(error, sqlite3.Error):
            return error
        failed = JournalError(f"{self.name}: the journal cannot be used: {error}")
        failed.__cause__ = error
        return failed

    def cut(self) -> None:
        """Nothing: a disk answers, or the machine is lost."""

    def interrupt(self) -> None:
        """Nobody asks for it: a disk of this machine's is waited for to the end, because it answers
        within the time that an end has (:meth:`.store.Journal._try`)."""

    def close(self) -> None:
        self.connection.close()


def has_listening(db: sqlite3.Connection) -> bool:
    """Its version knows of calls that are listened to. A journal that is only looked at is not
    migrated, so it may be an earlier release's."""
    found = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'listening'").fetchone()
    return found is not None


def is_cut(path: Path) -> bool:
    """There was a journal at ``path``, and nothing of it is left. SQLite would take the empty file
    for a new database, and a start would take that for a stack that has nothing to put back."""
    return path.exists() and path.stat().st_size == 0


def set_aside(path: Path) -> Path:
    """Give the file another name, so that a new journal can be made; returns that name, such as
    ``journal.sqlite3.cut-1772359200000000000``. Its -wal file goes with it: under the old name
    SQLite would take it for the new journal's."""
    aside = path.with_name(f"{path.name}.cut-{time.time_ns()}")
    for ending in ("-wal", "-shm", ""):
        beside = path.with_name(path.name + ending)
        if beside.exists():
            beside.rename(aside.with_name(aside.name + ending))
    return aside


def _make(path: Path, account: str, stack: str) -> None:
    """Make a new journal. A death meanwhile leaves none.

    The file is made with mode 0600 before SQLite opens it, because SQLite gives its -wal and -shm
    files the mode of the database. The directory is synced too: otherwise a power cut may take the
    new name back, and with it all that was written to the file since.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    for ending in ("-wal", "-shm", ""):
        new.with_name(new.name + ending).unlink(missing_ok=True)
    os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    # Closing moves everything into the file itself.
    _open(new, account, stack).close()
    new.rename(path)
    sync_names(path.parent)


def _open(path: Path, account: str, stack: str) -> sqlite3.Connection:
    """A connection on which each commit is on the disk before it returns.

    With WAL, ``synchronous = NORMAL`` loses the last commits in a power cut; FULL syncs each one
    (SQLite's documentation of that PRAGMA). In WAL mode those who only look do not keep us from
    writing. The 5 s are for a look that has the file locked.
    """
    db: sqlite3.Connection | None = None
    try:
        db = sqlite3.connect(path, timeout=5.0)
        db.text_factory = _text
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        _migrate(db, account, stack)
    except sqlite3.Error as error:
        if db is not None:
            db.close()
        raise _unreadable(path, error) from error
    except BaseException:
        if db is not None:
            db.close()
        raise
    return db


def _check(db: sqlite3.Connection, path: Path) -> None:
    """JournalError if the file is not ours, of a newer release, or damaged. It is left as it is.

    A newer release's file is not read even where its rows would fit: what they mean may have
    changed, and a wrong guess writes to somebody's number. ``quick_check`` reads the whole file,
    and finds torn pages that a query of one table would not touch.
    """
    application = db.execute("PRAGMA application_id").fetchone()[0]
    version = db.execute("PRAGMA user_version").fetchone()[0]
    tables = db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
    if application != APPLICATION_ID and (tables or application):
        raise JournalError(
            f"{path}: this is another program's database. It was left as it is: move it away, or "
            "set TRUNKLINE_STATE_DIR to another directory"
        )
    if version > len(MIGRATIONS):
        raise JournalError(
            f"{path}: the journal was made by a newer trunkline (schema {version}, this one knows "
            f"{len(MIGRATIONS)}); use that version"
        )
    verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise JournalError(
            f"{path}: the journal is damaged ({verdict}). It was left as it is: move it away to "
            "start anew, then run `trunkline restore --account` to put numbers back"
        )


def _check_account(db: sqlite3.Connection, path: Path, account: str) -> None:
    """JournalError: numbers of one account must never be put back with another's token."""
    if db.execute("PRAGMA user_version").fetchone()[0] == 0:
        return  # it was made, and nothing was written to it
    found = dict(db.execute("SELECT name, value FROM meta").fetchall())
    if found.get("account") != account:
        raise JournalError(
            f"{path}: the journal belongs to another Twilio account; set TRUNKLINE_STATE_DIR to "
            "another directory, or TWILIO_ACCOUNT_SID to that account"
        )


def _migrate(db: sqlite3.Connection, account: str, stack: str) -> None:
    """Bring an older file up to date, each step whole or not at all: in SQLite a transaction covers
    changes of the schema and the version as well. The BEGIN is ours, because Python's sqlite3
    begins a transaction by itself only before rows are changed, and not before CREATE."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    for number in range(version, len(MIGRATIONS)):
        steps = [s for s in MIGRATIONS[number].split(";") if s.strip()]
        with db:
            db.execute("BEGIN IMMEDIATE")
            for step in steps:
                db.execute(step)
            if number == 0:
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.executemany(
                    "INSERT INTO meta VALUES (?, ?)", [("account", account), ("stack", stack)]
                )
            db.execute(f"PRAGMA user_version = {number + 1}")


def read(path: Path, ask: Callable[[sqlite3.Connection], T]) -> T:
    """The result of ``ask`` on the journal at ``path``, read only: another process may have it
    open. JournalError as :func:`connect`."""
    if is_cut(path):
        raise JournalError(
            f"{path}: the journal is empty, and it was not when it got this name: somebody has cut "
            "it. It was left as it is: move it away, then run `trunkline restore --account` to put "
            "numbers back"
        )
    try:
        db = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=5.0)
        db.text_factory = _text
        try:
            _check(db, path)
            return ask(db)
        finally:
            db.close()
    except sqlite3.Error as error:
        raise _unreadable(path, error) from error


def _text(data: bytes) -> str | bytes:
    """A text as it is read. SQLite keeps one that is no UTF-8, and Python would give up all rows of
    a query for it: as bytes it spoils its own row alone."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _unreadable(path: Path, error: sqlite3.Error) -> JournalError:
    """One text for every error of SQLite's, with advice; and one for that of a full disk, which is
    no reason to move anything away."""
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return JournalError(f"{path}: the disk is full, so the journal cannot be used: make room")
    return JournalError(
        f"{path}: this is no readable trunkline journal ({error}). It was left as it is: move "
        "it away to start anew, then run `trunkline restore --account` to put numbers back"
    )
