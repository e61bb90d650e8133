"""The journal: what must not be forgotten, written down before Twilio is touched.

Overrides of numbers and dials, and the epochs (one for each start of a controller). A process that
dies between a request to Twilio and its answer forgets that it asked. The next one finds here what
may have come of it, and puts it right: a number that would answer nobody, a call that nobody ends.

SQLite in WAL mode with full durability: what a method has returned from survives a power cut. A
file that is torn, or is no journal, is refused with a clear error and never written to.

The methods of :class:`SqliteJournal` are the whole interface, so that another database can stand
behind it: the simulation's journal in memory has the same ones, and passes the same tests.
:class:`SqliteJournal` runs in one thread of its own, off the event loop, because full durability
waits for the disk. What is asked for while it waits is written together afterwards: a hundred dials
at once wait for the disk a few times, and not a hundred times.

States of an override::

    planned      nothing has been written to the number, or (once `prior` is known) perhaps
    applied      Twilio has confirmed our settings
    restoring    its holders are gone; the prior settings are being put back
    restored     closed: the number is as it was
    left_alone   closed: someone else had changed the number, or it is gone

States of a dial: asked (Twilio may have it), taken (its SID is known), closed. Closed rows stay:
a late write of a closed override is recognised by its row, and so is a dial that is asked for
again under the same request id.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from ..twilio.threads import DaemonPool
from . import file
from .file import JournalError
from .rows import DialRow, OverrideRow, OverrideState

_Work = Callable[[sqlite3.Connection], Any]


class SqliteJournal:
    """Everything that the controller writes down, in one SQLite file; use :meth:`open`.

    Each method is durable once it returns. What is said of an override that is not there raises
    JournalError: it would be forgotten.
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
        """What ``work`` returns, once it is durable. A crash leaves all of it or nothing."""
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
        """What each piece of work came to; one that fails takes nothing from the others. One thread
        has the connection, so statements of two transactions cannot mix."""
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

    async def begin_epoch(self, pid: int, now: float) -> int:
        """Count up: the first is 1. Peers take a greater number for a controller that restarted."""

        def work(db: sqlite3.Connection) -> int:
            cursor = db.execute(
                "INSERT INTO epochs SELECT COALESCE(MAX(epoch), 0) + 1, ?, ? FROM epochs",
                (pid, now),
            )
            return int(cursor.lastrowid or 0)

        return int(await self._do(work))

    async def open_overrides(self) -> list[OverrideRow]:
        """The oldest first."""
        return list(await self._do(_open_overrides))

    async def override(self, override: str) -> OverrideRow | None:
        """Closed ones too."""
        found = await self._do(lambda db: _overrides(db, "id = ?", override))
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
        """What the number has, and what is to be written over it: before it is written."""
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
        return list(await self._do(_open_dials))

    async def closed_dials(self, since: float) -> list[DialRow]:
        """Closed ones of which Twilio was asked at ``since`` or later."""
        where = "state = 'closed' AND asked >= ?"
        return list(await self._do(lambda db: _dials(db, where, since)))

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


def _open_dials(db: sqlite3.Connection) -> list[DialRow]:
    """Those of which something may still come."""
    return _dials(db, "state != 'closed'")


def _dials(db: sqlite3.Connection, where: str, *values: Any) -> list[DialRow]:
    """Rows whose columns carry the names of the fields. A journal that is only looked at may be an
    earlier version's, and have fewer of them."""
    found = db.execute(f"SELECT * FROM dials WHERE {where}", values)
    names = [column[0] for column in found.description]
    return [msgspec.convert(dict(zip(names, row, strict=True)), DialRow) for row in found]


_OVERRIDE: Final = "id, number, number_sid, session, state, prior, written, uncertain_until, since"


def _open_overrides(db: sqlite3.Connection) -> list[OverrideRow]:
    """Those that may stand on a number."""
    return _overrides(db, "state IN ('planned', 'applied', 'restoring')")


def _overrides(db: sqlite3.Connection, where: str, *values: Any) -> list[OverrideRow]:
    """The oldest first. Holders stand in a table of their own, because they come one by one."""
    select = f"SELECT {_OVERRIDE} FROM overrides WHERE {where} ORDER BY since, id"
    found = []
    for row in db.execute(select, values).fetchall():
        known = dict(zip(_OVERRIDE.split(", "), row, strict=True))
        holders = "SELECT session, secret_hash FROM holders WHERE override = ?"
        known["holders"] = dict(db.execute(holders, (known["id"],)).fetchall())
        known |= {name: _fields(known[name]) for name in ("prior", "written")}
        found.append(OverrideRow(**known))
    return found


def _json(fields: dict[str, str]) -> str:
    return msgspec.json.encode(fields).decode()


def _fields(text: str | None) -> dict[str, str] | None:
    return None if text is None else msgspec.json.decode(text, type=dict[str, str])


def peek(path: Path) -> tuple[list[OverrideRow], list[DialRow]]:
    """The open overrides and dials of a journal that another process may have, read only.
    JournalError as ``open``."""
    return file.read(path, lambda db: (_open_overrides(db), _open_dials(db)))
