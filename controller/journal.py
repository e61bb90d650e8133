"""The write-ahead journal: epochs, overrides of numbers, dials. SQLite behind one small interface.

What is to be done at Twilio is written here first and committed to disk (WAL, synchronous=FULL), so
that after any death the next start knows what may have been changed. Rows are closed, never
deleted. A file that is torn, or is not ours, is refused and left as it is.

Named fault points (``fault(name)``) surround each commit; crash tests raise there.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from trunkline.bus.errors import TrunklineError

#: planned: not yet written at Twilio, or not known to be. applied: it stands there. restoring:
#: being put back. restored, left_alone: closed; left_alone: someone else's change stands.
OverrideState = Literal["planned", "applied", "restoring", "restored", "left_alone"]
DialState = Literal["planned", "asked", "live", "ended"]
OPEN_STATES = ("planned", "applied", "restoring")

_APPLICATION_ID = 0x7472756E  # "trun"


class JournalError(TrunklineError, RuntimeError):
    """The journal cannot be used; the message names the file and says what to do."""


class Override(msgspec.Struct, frozen=True, kw_only=True):
    """One override of one number. Times are Unix seconds.

    ``prior``: every voice field before, by Twilio's names; None: not read yet, so nothing was
    written. ``written``: the fields as we wrote them. ``secret_hash``: of the session's secret.
    """

    id: str
    number: str
    number_sid: str
    session: str
    secret_hash: str
    state: OverrideState
    since: float
    prior: dict[str, str | None] | None = None
    written: dict[str, str | None] | None = None


class DialRow(msgspec.Struct, frozen=True, kw_only=True):
    """One call that we asked Twilio to place, under our own request id."""

    request: str
    call: str
    session: str
    to: str
    from_: str
    mode: str
    state: DialState
    since: float
    sid: str | None = None


class Journal(Protocol):
    """What the controller needs of its journal; every method returns once it is durable."""

    def next_epoch(self) -> int: ...
    def put_override(self, override: Override) -> None: ...
    def open_overrides(self) -> list[Override]: ...
    def put_dial(self, dial: DialRow) -> None: ...
    def open_dials(self) -> list[DialRow]: ...
    def close(self) -> None: ...


_MIGRATIONS = (
    """
    CREATE TABLE epochs (n INTEGER PRIMARY KEY AUTOINCREMENT, pid INTEGER NOT NULL);
    CREATE TABLE overrides (
        id TEXT PRIMARY KEY, number TEXT NOT NULL, number_sid TEXT NOT NULL,
        session TEXT NOT NULL, secret_hash TEXT NOT NULL, state TEXT NOT NULL,
        since REAL NOT NULL, prior TEXT, written TEXT
    ) STRICT;
    CREATE INDEX overrides_open ON overrides (state);
    CREATE TABLE dials (
        request TEXT PRIMARY KEY, call TEXT NOT NULL, session TEXT NOT NULL, callee TEXT NOT NULL,
        caller TEXT NOT NULL, mode TEXT NOT NULL, state TEXT NOT NULL, since REAL NOT NULL, sid TEXT
    ) STRICT;
    CREATE INDEX dials_open ON dials (state);
    """,
)


def _nothing(_: str) -> None:
    """The fault hook of production: no faults."""


class SqliteJournal:
    """A Journal in one SQLite file (mode 0600), for one process and one thread at a time.

    Raises JournalError where the file is torn, foreign, or of a newer version.
    """

    def __init__(self, path: Path, *, fault: Callable[[str], None] = _nothing) -> None:
        self.path = path
        self._fault = fault
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise JournalError(
                f"{path} cannot be read as trunkline's journal ({error}); it was left as it is: "
                "move it away, and run `trunkline restore --account`"
            ) from error
        except JournalError:
            self._db.close()
            raise

    def _open(self) -> None:
        (mine,) = self._db.execute("PRAGMA application_id").fetchone()
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if mine != _APPLICATION_ID and (tables or version):
            raise JournalError(
                f"{self.path} is another program's database; it was left as it is: set "
                "TRUNKLINE_STATE_DIR to a directory of trunkline's own"
            )
        if version > len(_MIGRATIONS):
            raise JournalError(
                f"{self.path} was written by a newer trunkline (version {version} of the journal, "
                f"this one knows {len(_MIGRATIONS)}): upgrade trunkline"
            )
        (verdict,) = self._db.execute("PRAGMA quick_check").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        for number in range(version, len(_MIGRATIONS)):
            self._db.executescript(
                f"BEGIN; {_MIGRATIONS[number]} PRAGMA application_id = {_APPLICATION_ID};"
                f" PRAGMA user_version = {number + 1}; COMMIT;"
            )

    def next_epoch(self) -> int:
        """Count the epoch up; the first is 1."""
        cursor = self._db.execute("INSERT INTO epochs (pid) VALUES (?)", (os.getpid(),))
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def put_override(self, override: Override) -> None:
        """Write the row (new, or over its older state)."""
        self._fault(f"before {override.state}")
        self._db.execute(
            "INSERT OR REPLACE INTO overrides VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                override.id,
                override.number,
                override.number_sid,
                override.session,
                override.secret_hash,
                override.state,
                override.since,
                _text(override.prior),
                _text(override.written),
            ),
        )
        self._fault(f"after {override.state}")

    def open_overrides(self) -> list[Override]:
        """Rows that are not closed, oldest first."""
        rows = self._db.execute(
            "SELECT id, number, number_sid, session, secret_hash, state, since, prior, written"
            " FROM overrides WHERE state IN (?, ?, ?) ORDER BY since, id",
            OPEN_STATES,
        )
        return [
            Override(
                id=row[0],
                number=row[1],
                number_sid=row[2],
                session=row[3],
                secret_hash=row[4],
                state=row[5],
                since=row[6],
                prior=_fields(row[7]),
                written=_fields(row[8]),
            )
            for row in rows
        ]

    def put_dial(self, dial: DialRow) -> None:
        """Write the row (new, or over its older state)."""
        self._fault(f"before dial {dial.state}")
        self._db.execute(
            "INSERT OR REPLACE INTO dials VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                dial.request,
                dial.call,
                dial.session,
                dial.to,
                dial.from_,
                dial.mode,
                dial.state,
                dial.since,
                dial.sid,
            ),
        )
        self._fault(f"after dial {dial.state}")

    def open_dials(self) -> list[DialRow]:
        """Dials whose call may still be ringing or live, oldest first."""
        rows = self._db.execute(
            "SELECT request, call, session, callee, caller, mode, state, since, sid"
            " FROM dials WHERE state != 'ended' ORDER BY since, request"
        )
        return [
            DialRow(
                request=row[0],
                call=row[1],
                session=row[2],
                to=row[3],
                from_=row[4],
                mode=row[5],
                state=row[6],
                since=row[7],
                sid=row[8],
            )
            for row in rows
        ]

    def close(self) -> None:
        self._db.close()


def _text(fields: dict[str, str | None] | None) -> str | None:
    return None if fields is None else json.dumps(fields)


def _fields(text: str | None) -> dict[str, str | None] | None:
    return None if text is None else msgspec.json.decode(text, type=dict[str, str | None])
