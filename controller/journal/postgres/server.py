"""Connections to PostgreSQL: opened, brought to the newest schema, quoted without the password.

All tables stand in a schema of their own, ``trunkline``. Its migrations are the numbered SQL files
in this directory (``0001_journal.sql``, …). Each is applied in a transaction, whole or not at all,
and noted in ``trunkline.migrations``. Of several stacks that start at once, one does it and the
others wait.

Two kinds of error leave this file. *Away* may pass by itself, so the same work is tried again.
Everything else is *failed*: the statement, the schema or the rights are wrong, a repeat gets the
same answer, and the controller ends with one line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from importlib import resources
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

from ..database import DatabaseAwayError, JournalError

T = TypeVar("T")

#: A connection that cannot be made is given up after this long, and one whose other end has gone
#: after three to four times as long. The parameters are libpq's. Without keepalives a machine that
#: lost its power would be waited for until the kernel's own limit, which is hours.
#: ``tcp_user_timeout`` (in ms) bounds what was sent and not acknowledged, for which keepalives do
#: nothing.
SECONDS: Final = 3
_NETWORK: Final[dict[str, Any]] = {
    "application_name": "trunkline",
    # From a database in SQL_ASCII psycopg would give bytes for text.
    "client_encoding": "UTF8",
    "connect_timeout": SECONDS,
    "keepalives_idle": SECONDS,
    "keepalives_interval": SECONDS,
    "keepalives_count": SECONDS,
    "tcp_user_timeout": SECONDS * 3000,
}
#: "trkl": the advisory lock of whoever migrates.
_MIGRATING: Final = 0x74726B6C
#: Parts of a URL, or of libpq's settings, that nobody may read: errors of libpq quote what they
#: were given, and logs are shown to others.
_SECRETS: Final = ("password", "sslpassword")

#: A transaction whose machine says nothing for so long (seconds) is ended by the server. A machine
#: that loses its power in the middle of one would else keep its row, and the fleet's lock, for as
#: long as the server's kernel waits for it, which is hours.
SILENT_WITHIN: Final = 5
#: A statement that waits for a lock for so long (seconds) fails, and is tried again. While it waits
#: the server does not see that its connection is gone. If a COMMIT waits for a standby that is
#: away, for example, each new try would else leave one more process that waits for its row.
LOCKED_WITHIN: Final = 8
#: A start, or a look at all stacks, that gets neither an answer nor an error for so long (seconds)
#: is given up: a proxy may take connections for a server that stands still.
OPENS_WITHIN: Final = 30.0
#: Begins each transaction (:func:`begin`). Rows are durable before Twilio is
#: asked, whatever the server's default is: "off" becomes "on", and "remote_apply" stays. A pool of
#: connections between us and the server (pgbouncer, say) may give each transaction another one, so
#: nothing is set for longer: the third argument of ``set_config`` is ``is_local``.
_BEGIN: Final = (
    "BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE;"
    "SELECT set_config('search_path', 'trunkline', true),"
    " set_config('synchronous_commit', replace(current_setting('synchronous_commit'), 'off', 'on'),"
    " true),"
    " set_config('idle_in_transaction_session_timeout', %s, true),"
    " set_config('lock_timeout', %s, true);"
)

#: What may pass by itself. The server is not there, cannot be reached, may not be written to, or
#: has no connection or no disk space left. Or it has ended our transaction, because this process
#: stood still in the middle of it.
AWAY: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.IdleInTransactionSessionTimeout,
    psycopg.errors.TransactionTimeout,
)


def begin(
    connection: psycopg.Connection[Any], first: str = "", values: Sequence[Any] = ()
) -> psycopg.ClientCursor[Any]:
    """Begin a transaction that may write, and run its first statement; returns that one's cursor.
    All goes in one round trip, for which psycopg quotes the values itself.

    During a fail-over the server's address may lead to a standby that is not promoted yet.
    PostgreSQL refuses BEGIN as a feature which it does not support (0A000), and that passes: an
    error of :data:`AWAY`. The same error of the first statement, behind BEGIN, stays as it is."""
    cursor = psycopg.ClientCursor(connection)
    bounds = (f"{SILENT_WITHIN}s", f"{LOCKED_WITHIN}s")
    try:
        cursor.execute((_BEGIN + first).encode(), (*bounds, *values))
    except psycopg.errors.FeatureNotSupported as error:
        if connection.info.transaction_status == psycopg.pq.TransactionStatus.INERROR:
            raise
        raise psycopg.OperationalError(error.diag.message_primary or "") from None
    while cursor.nextset():  # to the last one's
        pass
    return cursor


def migrations() -> list[str]:
    """The texts of all migrations. The first one brings an empty schema to number 1. They are read
    as the package's resources, because a wheel need not be unpacked."""
    files = [f for f in resources.files(__package__).iterdir() if f.name.endswith(".sql")]
    files.sort(key=lambda file: file.name)
    numbers = [int(file.name.partition("_")[0]) for file in files]
    assert numbers == list(range(1, len(files) + 1)), "they are numbered without a gap"
    return [file.read_text() for file in files]


class Server:
    """The server that ``TRUNKLINE_DATABASE_URL`` names; its ``name`` has no secret in it."""

    def __init__(self, url: str) -> None:
        self._url = url
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        self.name = f"postgresql://{host}{parts.path}"
        try:
            known = conninfo_to_dict(url)
        except psycopg.ProgrammingError:
            # libpq quotes the part that it cannot read, and that may be the password.
            raise JournalError(
                f"TRUNKLINE_DATABASE_URL={self.name}: PostgreSQL's library cannot read this URL"
            ) from None
        self._secrets = [str(known[name]) for name in _SECRETS if known.get(name)]
        # What the URL says itself counts more.
        self._network = {name: value for name, value in _NETWORK.items() if name not in known}

    def __repr__(self) -> str:
        return f"Server({self.name})"

    def said(self, error: Exception) -> str:
        """What an error says, in one line, and without a secret. The server's errors quote the
        statement behind their first part, and a statement may have a stack's token in it. libpq's
        errors have several lines, for example one for each address that it tried."""
        said = error.diag.message_primary if isinstance(error, psycopg.Error) else None
        text = re.sub(r"\s+", " ", said or str(error)).strip()
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text or type(error).__name__

    def away(self, error: Exception) -> DatabaseAwayError:
        """Ours for an error of :data:`AWAY`: "postgresql://db:5432/lines: the database does not
        answer (…)"."""
        return DatabaseAwayError(f"{self.name}: the database does not answer ({self.said(error)})")

    def failed(self, error: Exception) -> Exception:
        """Ours for any other error of PostgreSQL's. An error that is not PostgreSQL's stays."""
        if not isinstance(error, psycopg.Error):
            return error
        return JournalError(f"{self.name}: the journal cannot be used: {self.said(error)}")

    def connect(self) -> psycopg.Connection[Any]:
        """A connection in which transactions begin and end by their own statements: psycopg's
        ``autocommit`` means that it adds none, and ours is :func:`begin`. DatabaseAwayError: none
        can be had now."""
        try:
            # Prepared statements do not outlive a transaction behind some pools.
            return psycopg.connect(
                self._url, autocommit=True, prepare_threshold=None, **self._network
            )
        except AWAY as error:
            raise self.away(error) from None

    def once(self, ask: Callable[[psycopg.Connection[Any]], T], *, migrated: bool = False) -> T:
        """The result of ``ask``, in a transaction on a connection of its own: for what happens
        once, or every few seconds. A stack's own journal keeps its connection. ``migrated``: the
        schema has to be the newest before."""
        connection = self.connect()
        try:
            if migrated:
                self.migrate(connection)
            return self.within(connection, ask)
        finally:
            connection.close()

    def within(
        self, connection: psycopg.Connection[Any], ask: Callable[[psycopg.Connection[Any]], T]
    ) -> T:
        """The result of ``ask``, in a transaction. DatabaseAwayError or JournalError: nothing of it
        is done, or, where the very last answer was lost, all of it."""
        try:
            begin(connection)
            try:
                result = ask(connection)
            except BaseException:  # whatever it is: no transaction is left open behind it
                if not connection.broken:
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
        except AWAY as error:
            raise self.away(error) from None
        except psycopg.Error as error:
            raise self.failed(error) from None
        return result

    def migrate(self, connection: psycopg.Connection[Any]) -> None:
        """Bring the schema to its newest version. JournalError where it is newer than this, or may
        not be changed. Each step is a transaction of its own, so that a long one can be repeated
        without those before it. Where nothing is to be done, one question shows it: then nobody
        needs the right to change the schema."""
        if self.within(connection, self._newest) == len(migrations()):
            return
        self.within(connection, self._make_schema)
        for number, text in enumerate(migrations(), 1):
            self.within(connection, partial(self._apply, number=number, text=text))

    def _newest(self, db: psycopg.Connection[Any]) -> int:
        """The number of the newest migration that the schema has had; 0: none, or there is none.
        JournalError where it is newer than this."""
        (there,) = db.execute("SELECT to_regclass('trunkline.migrations')").fetchone() or (None,)
        if there is None:
            return 0
        (found,) = db.execute("SELECT MAX(number) FROM migrations").fetchone() or (None,)
        newest = int(found or 0)
        if newest > len(migrations()):
            raise JournalError(
                f"{self.name}: the journal was made by a newer trunkline (schema {newest}, this "
                f"one knows {len(migrations())}); use that version"
            )
        return newest

    def _lock(self, db: psycopg.Connection[Any]) -> None:
        """Wait until nobody else migrates: another stack's step may take as long as a start may.
        For its table a step of ours waits no longer than any statement. Meanwhile all that others
        ask of the table queues up behind it, and so do their beats."""
        bound = "SELECT set_config('lock_timeout', %s, true)"
        db.execute(bound, (f"{OPENS_WITHIN:g}s",))
        db.execute("SELECT pg_advisory_xact_lock(%s)", (_MIGRATING,))
        db.execute(bound, (f"{LOCKED_WITHIN}s",))

    def _make_schema(self, db: psycopg.Connection[Any]) -> None:
        """Make the schema, and the table that says which migrations it has had, where they are
        missing. The lock comes first: two CREATE … IF NOT EXISTS at once can both find nothing, and
        then one of them fails."""
        self._lock(db)
        # An administrator may have made the schema. Then we need no right to make one.
        (found,) = db.execute("SELECT to_regnamespace('trunkline') IS NOT NULL").fetchone() or (
            None,
        )
        if not found:
            db.execute("CREATE SCHEMA trunkline")
        db.execute(
            "CREATE TABLE IF NOT EXISTS migrations"
            " (number int PRIMARY KEY, applied timestamptz NOT NULL DEFAULT now())"
        )
        self._newest(db)

    def _apply(self, db: psycopg.Connection[Any], number: int, text: str) -> None:
        """One migration, unless another stack has done it while we waited for the lock."""
        self._lock(db)
        if db.execute("SELECT 1 FROM migrations WHERE number = %s", (number,)).fetchone() is None:
            db.execute(text.encode())
            db.execute("INSERT INTO migrations (number) VALUES (%s)", (number,))
