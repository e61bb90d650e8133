"""The journal: the controller writes down here what it is going to do, before it asks Twilio.

A process that dies between a request to Twilio and its answer forgets that it asked. The next one
finds the request here and repairs what it may have left behind: a number that would answer nobody,
or a call that nobody would end.

It holds overrides of numbers, dials, calls that are listened to, the epochs (one for each start of
a controller), and the CallSids of webhooks that came. By these a replayed webhook is known.

It is SQLite in WAL mode with full durability: once a method has returned, its change survives a
power cut. A file that is torn, or is no journal, is refused with a clear error and never written
to. If a row cannot be read (for example because its settings are no JSON), only
:meth:`SqliteJournal.unreadable` returns it, and all other rows can be used.

The methods of :class:`SqliteJournal` are the whole interface, so that another database can stand
behind it. :class:`SqliteJournal` runs in one thread of its own, off the event loop, because full
durability waits for the disk. Everything that is asked for during such a wait is written together
afterwards. So a hundred dials at once wait for the disk a few times, and not a hundred times.

States of an override::

    planned      nothing has been written to the number, or (once `prior` is known) perhaps
    applied      Twilio has confirmed our settings
    restoring    its holders are gone; the prior settings are being put back
    restored     closed: the number is as it was
    left_alone   closed: someone else had changed the number, or it is gone

States of a dial: asked (Twilio may have it), taken (its SID is known), closed. Closed rows stay:
a late write of a closed override is recognised by its row, and so is a dial that is asked for
again under the same request id. A call that is listened to has a row for as long as a stream of it
may be there.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec

from trunkline.bus.redact import redact_number

from ..twilio.threads import DaemonPool
from . import file
from .file import JournalError
from .rows import SEEN_KEPT, DialRow, ListeningRow, OverrideRow, OverrideState

log = logging.getLogger("trunkline.controller")

_Work = Callable[[sqlite3.Connection], Any]


class SqliteJournal:
    """Everything that the controller writes down, in one SQLite file; use :meth:`open`.

    Each method is durable once it returns. A change to an override that is not in the journal
    raises JournalError, because it would be lost.
    """

    def __init__(self, path: Path, pool: DaemonPool, connection: sqlite3.Connection) -> None:
        self.path = path
        self._pool = pool
        self._db = connection
        #: work that waits for the transaction which is under way
        self._waiting: list[tuple[_Work, asyncio.Future[Any]]] = []
        self._writing: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, path: Path, *, account: str, stack: str) -> SqliteJournal:
        """Open or make the journal of ``account`` at ``path``.

        Raises JournalError: torn, no journal of ours, another account's, or a newer version's.
        """
        pool = DaemonPool("trunkline-journal", 1)
        try:
            connection = await pool.run(file.connect, path, account, stack)
        except BaseException:
            pool.close()
            raise
        return cls(path, pool, connection)

    async def close(self) -> None:
        if self._writing is not None:
            await asyncio.wait({self._writing})
        await self._pool.run(self._db.close)
        self._pool.close(1.0)

    async def _do(self, work: _Work) -> Any:
        """Do the work and return its result, once that is durable. A crash leaves all of it or
        nothing."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((work, future))
        if self._writing is None:
            self._writing = loop.create_task(self._write())
        return await future

    async def _write(self) -> None:
        """One transaction after the other, until nothing waits."""
        while self._waiting:
            taken, self._waiting = self._waiting, []
            results = await self._pool.run(self._transaction, [work for work, _ in taken])
            for (_, future), (result, error) in zip(taken, results, strict=True):
                if future.done():  # whoever asked has given up
                    continue
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)
        self._writing = None

    def _transaction(self, taken: list[_Work]) -> list[tuple[Any, Exception | None]]:
        """Do all of the work in one transaction; each piece has its own result or error, so one
        that fails does not undo the others. One thread has the connection, so statements of two
        transactions cannot mix."""
        found: list[tuple[Any, Exception | None]] = []
        try:
            with self._db as db:
                db.execute("BEGIN")
                for work in taken:
                    db.execute("SAVEPOINT work")
                    try:
                        found.append((work(db), None))
                    except Exception as error:  # noqa: BLE001  # its own caller gets it
                        db.execute("ROLLBACK TO work")
                        found.append((None, self._failed(error)))
                    db.execute("RELEASE work")
        except sqlite3.Error as error:
            return [(None, self._failed(error))] * len(taken)
        return found

    def _failed(self, error: Exception) -> Exception:
        if not isinstance(error, sqlite3.Error):
            return error
        failed = JournalError(f"{self.path}: the journal cannot be used: {error}")
        failed.__cause__ = error
        return failed

    async def _change(self, sql: str, *values: Any) -> int:
        """One statement that changes rows; returns how many it changed."""
        return int(await self._do(lambda db: db.execute(sql, values).rowcount))

    # ------------------------------------------------------------------ epochs and overrides

    async def begin_epoch(self, pid: int, now: float, least: int = 1) -> int:
        """Count up: the first is 1, or ``least``. Peers take a greater number for a controller that
        restarted."""

        def work(db: sqlite3.Connection) -> int:
            cursor = db.execute(
                "INSERT INTO epochs SELECT MAX(COALESCE(MAX(epoch), 0) + 1, ?), ?, ? FROM epochs",
                (least, pid, now),
            )
            return int(cursor.lastrowid or 0)

        return int(await self._do(work))

    async def newest(self) -> float:
        """The latest time (Unix) of all that happened by the journal; 0: it is empty."""
        select = (
            "SELECT MAX(at) FROM (SELECT MAX(started) AS at FROM epochs"
            " UNION SELECT MAX(changed) FROM overrides UNION SELECT MAX(asked) FROM dials"
            " UNION SELECT MAX(since) FROM listening UNION SELECT MAX(since) FROM seen)"
            " WHERE typeof(at) IN ('real', 'integer')"
        )
        return float(await self._do(lambda db: db.execute(select).fetchone()[0]) or 0.0)

    async def unreadable(self) -> list[Unreadable]:
        """Open rows that cannot be read. No other method returns them."""
        return list(await self._do(lambda db: _open_rows(db).unreadable))

    async def forget(self, override: str) -> None:
        """Remove an override that cannot be read."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM holders WHERE override = ?", (override,))
            db.execute("DELETE FROM overrides WHERE id = ?", (override,))

        await self._do(work)

    async def open_overrides(self) -> list[OverrideRow]:
        """The oldest first."""
        return list(await self._do(lambda db: _open_rows(db).overrides))

    async def override(self, override: str) -> OverrideRow | None:
        """Closed ones too."""
        found, _ = await self._do(lambda db: _overrides(db, "id = ?", override))
        return found[0] if found else None

    async def plan(self, row: OverrideRow, now: float) -> None:
        """A new row, with nothing known of its number. JournalError where the id is there."""

        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT INTO overrides (id, number, number_sid, session, state, since, changed)"
                " VALUES (?, ?, ?, ?, 'planned', ?, ?)",
                (row.id, row.number, row.number_sid, row.session, row.since, now),
            )
            db.executemany(
                "INSERT INTO holders VALUES (?, ?, ?)",
                [(row.id, session, secret) for session, secret in row.holders.items()],
            )

        await self._do(work)

    async def add_holder(self, override: str, session: str, secret_hash: str) -> None:
        insert = "INSERT OR REPLACE INTO holders VALUES (?, ?, ?)"
        await self._change(insert, override, session, secret_hash)

    async def intend(
        self, override: str, prior: dict[str, str], written: dict[str, str], now: float
    ) -> None:
        """Before we write to a number: its present fields, and those that we are going to write."""
        await self._set(override, prior=_json(prior), written=_json(written), changed=now)

    async def set_state(
        self, override: str, state: OverrideState, now: float, uncertain_until: float = 0.0
    ) -> None:
        await self._set(override, state=state, uncertain_until=uncertain_until, changed=now)

    async def _set(self, override: str, **columns: Any) -> None:
        changed = ", ".join(f"{column} = ?" for column in columns)
        update = f"UPDATE overrides SET {changed} WHERE id = ?"
        if not await self._change(update, *columns.values(), override):
            raise JournalError(f"{self.path}: there is no override {override}")

    # ------------------------------------------------------------------ dials

    async def open_dials(self) -> list[DialRow]:
        return list(await self._do(lambda db: _open_rows(db).dials))

    async def closed_dials(self, since: float) -> list[DialRow]:
        """Closed dials for which Twilio was asked at ``since`` or later."""
        where = "state = 'closed' AND asked >= ?"
        return list(await self._do(lambda db: _dials(db, where, since)[0]))

    async def dial_asked(self, row: DialRow) -> bool:
        """False: a dial with this request id is there already, and stays as it is."""
        values = ", ".join("?" * len(row.__struct_fields__))
        insert = f"INSERT INTO dials VALUES ({values}) ON CONFLICT (request) DO NOTHING"
        return await self._change(insert, *msgspec.structs.astuple(row)) > 0

    async def dial_taken(self, request: str, sid: str) -> None:
        """Changes no closed dial, and none that is not there: its SID may be learnt late."""
        update = "UPDATE dials SET sid = ?, state = 'taken' WHERE request = ? AND state != 'closed'"
        await self._change(update, sid, request)

    async def dial_closed(self, request: str, seconds: float | None = None) -> None:
        """``seconds``: how long its call lasted; None: that was said before, or nobody knows."""
        update = (
            "UPDATE dials SET state = 'closed', seconds = COALESCE(?, seconds) WHERE request = ?"
        )
        await self._change(update, seconds, request)

    # ------------------------------------------------------------------ calls that are listened to

    async def open_listening(self) -> list[ListeningRow]:
        """The calls of which a stream may still be there."""
        return list(await self._do(lambda db: _open_rows(db).listening))

    async def listening_asked(self, row: ListeningRow) -> None:
        """A stream is going to be asked for. It takes the place of the call's former one."""
        values = ", ".join("?" * len(row.__struct_fields__))
        insert = f"INSERT OR REPLACE INTO listening VALUES ({values})"
        await self._change(insert, *msgspec.structs.astuple(row))

    async def listening_closed(self, call: str) -> None:
        """No stream of it is there any more."""
        await self._change("DELETE FROM listening WHERE call = ?", call)

    # ------------------------------------------------------------------ calls that were heard

    async def note_seen(self, sid: str, since: float) -> None:
        """A call's webhook is heard, for the first time. Those of :data:`SEEN_KEPT` ago go."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM seen WHERE since < ?", (since - SEEN_KEPT,))
            db.execute("INSERT INTO seen VALUES (?, ?) ON CONFLICT DO NOTHING", (sid, since))

        await self._do(work)

    async def seen(self, since: float) -> list[tuple[str, float]]:
        """CallSids that were heard at ``since`` or later, the earliest first, each with when. Rows
        that cannot be read are left out and logged. (A CallSid that is no text matches no call.)"""
        is_time = "typeof(since) IN ('real', 'integer')"
        broken = f"SELECT COUNT(*) FROM seen WHERE NOT {is_time}"
        select = f"SELECT CAST(sid AS BLOB), since FROM seen WHERE {is_time} AND since >= ?"
        (count,) = await self._do(lambda db: db.execute(broken).fetchone())
        if count:
            log.error(
                "%s: of %d calls it cannot be read when they were heard. They are left out: Twilio "
                "is asked whether they live when one of them seems to come",
                self.path,
                count,
            )
        found = await self._do(lambda db: db.execute(select, (since,)).fetchall())
        heard = [(sid.decode(errors="replace"), at) for sid, at in found]
        return sorted(heard, key=lambda call: (call[1], call[0]))


_OVERRIDE: Final = "id, number, number_sid, session, state, prior, written, uncertain_until, since"
#: Seconds, in the year 5138.
_NO_TIME: Final = 1e11
_OVERRIDES_OPEN: Final = "state NOT IN ('restored', 'left_alone')"


class Unreadable(NamedTuple):
    """A row that cannot be read, by its id; ``why`` names what is wrong with it."""

    table: Literal["override", "dial", "listening"]
    id: str
    number: str
    why: str

    def text(self, path: Path) -> str:
        """The line for the log, with advice."""
        if self.table == "listening":
            return (
                f"{path}: the row of {self.number}, which was listened to, cannot be read "
                f"({self.why}). It was left as it is: a stream of that call ends with the call"
            )
        which = f"{path}: {self.table} {self.id} ({redact_number(self.number)})"
        if self.table == "dial":
            return (
                f"{which} cannot be read ({self.why}). It was left as it is: if a call of it is "
                "still on, its time limit ends it, or Twilio's console"
            )
        return (
            f"{which} cannot be read ({self.why}). It was left as it is: `trunkline restore "
            "--account` puts the number back by what it says itself"
        )


class OpenRows(NamedTuple):
    """The open rows of a journal."""

    overrides: list[OverrideRow]
    dials: list[DialRow]
    unreadable: list[Unreadable]
    listening: list[ListeningRow]


def _open_rows(db: sqlite3.Connection) -> OpenRows:
    """Overrides that may stand on a number, dials that may still lead to a call, and calls that may
    still be listened to."""
    overrides, unreadable = _overrides(db, _OVERRIDES_OPEN)
    dials, more = _dials(db, "state != 'closed'")
    listening, most = _listening(db)
    return OpenRows(overrides, dials, unreadable + more + most, listening)


def _listening(db: sqlite3.Connection) -> tuple[list[ListeningRow], list[Unreadable]]:
    """All rows: one that is over is removed. An earlier version's journal has no such table."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'listening'").fetchone():
        return [], []
    found = db.execute("SELECT * FROM listening ORDER BY since, call")
    names = [column[0] for column in found.description]
    rows, unreadable = [], []
    for row in found:
        known = dict(zip(names, row, strict=True))
        try:
            listening = msgspec.convert(known, ListeningRow)
            _check_times(since=listening.since)
            rows.append(listening)
        except (msgspec.MsgspecError, ValueError) as error:
            why = Unreadable("listening", str(known["call"]), str(known["sid"]), str(error))
            unreadable.append(why)
    return rows, unreadable


def _dials(
    db: sqlite3.Connection, where: str, *values: Any
) -> tuple[list[DialRow], list[Unreadable]]:
    """Rows whose columns carry the names of the fields. A journal that is only looked at may be an
    earlier version's, and have fewer of them."""
    found = db.execute(f"SELECT * FROM dials WHERE {where}", values)
    names = [column[0] for column in found.description]
    rows, unreadable = [], []
    for row in found:
        known = dict(zip(names, row, strict=True))
        try:
            rows.append(_dial(known))
        except (msgspec.MsgspecError, ValueError) as error:
            why = Unreadable("dial", str(known["request"]), str(known["callee"]), str(error))
            unreadable.append(why)
    return rows, unreadable


def _overrides(
    db: sqlite3.Connection, where: str, *values: Any
) -> tuple[list[OverrideRow], list[Unreadable]]:
    """The oldest first. Holders stand in a table of their own, because they come one by one."""
    select = f"SELECT {_OVERRIDE} FROM overrides WHERE {where} ORDER BY since, id"
    rows, unreadable = [], []
    for row in db.execute(select, values).fetchall():
        known = dict(zip(_OVERRIDE.split(", "), row, strict=True))
        holders = "SELECT session, secret_hash FROM holders WHERE override = ?"
        known["holders"] = dict(db.execute(holders, (known["id"],)).fetchall())
        try:
            rows.append(_override(known))
        except (msgspec.MsgspecError, ValueError) as error:
            why = Unreadable("override", str(known["id"]), str(known["number"]), str(error))
            unreadable.append(why)
    return rows, unreadable


def _dial(known: dict[str, Any]) -> DialRow:
    """A row of its columns. ValueError, or msgspec's error, says what is wrong with them."""
    row = msgspec.convert(known, DialRow)
    _check_times(asked=row.asked, timeout=row.timeout, max_duration=row.max_duration)
    _check_times(seconds=row.seconds or 0.0)
    return row


def _check_times(**times: float) -> None:
    """ValueError if one of these is no time: it would overflow where it is shown."""
    for name, seconds in times.items():
        if not 0.0 <= seconds < _NO_TIME:
            raise ValueError(f"{name}: {seconds:g} is no time")


def _override(known: dict[str, Any]) -> OverrideRow:
    """A row of its columns. ValueError, or msgspec's error, says what is wrong with them."""
    for name in ("prior", "written"):
        try:
            known[name] = _fields(known[name])
        except (msgspec.MsgspecError, UnicodeDecodeError, TypeError) as error:
            raise ValueError(f"{name}: {error}") from error
    row = msgspec.convert(known, OverrideRow)
    _check_times(since=row.since, uncertain_until=row.uncertain_until)
    if (row.prior is None) != (row.written is None):
        missing = "prior" if row.prior is None else "written"
        raise ValueError(f"{missing} is not there, and the other one of prior and written is")
    if row.prior is not None and row.written is not None:
        unknown = {"voice_url", *row.written} - row.prior.keys()
        if unknown or "voice_url" not in row.written:
            raise ValueError(f"prior or written lacks {', '.join(sorted(unknown)) or 'voice_url'}")
    return row


def _json(fields: dict[str, str]) -> str:
    return msgspec.json.encode(fields).decode()


def _fields(text: str | None) -> dict[str, str] | None:
    return None if text is None else msgspec.json.decode(text, type=dict[str, str])


def peek(path: Path) -> OpenRows:
    """The open rows of a journal that another process may have, read only. JournalError as
    ``open``."""
    return file.read(path, _open_rows)
