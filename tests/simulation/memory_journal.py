"""The journal, on a database in memory and without a thread, for tests that would wait for a disk
too often.

It is the journal's own code, because the tests that kill a controller at every step run on this
one: on another they would prove nothing.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

from trunkline.controller.journal import file, reading, store
from trunkline.controller.journal.database import Work
from trunkline.controller.journal.rows import DialRow, OverrideRow
from trunkline.controller.twilio.threads import DaemonPool


@functools.cache
def _empty() -> bytes:
    """A new journal's database. To copy it takes a tenth of the time that it takes to make one."""
    db = file.connect(file.IN_MEMORY, "", "")
    made = db.serialize()
    db.close()
    return made


class MemoryJournal(store.Journal):
    """A journal that is gone with its object. Nothing in it takes time, so each piece of work is a
    transaction by itself."""

    def __init__(self) -> None:
        # It may be collected in any thread.
        db = sqlite3.connect(file.IN_MEMORY, isolation_level=None, check_same_thread=False)
        db.deserialize(_empty())
        self._file = file.SqliteDatabase(str(file.IN_MEMORY), db)
        super().__init__(self._file, DaemonPool("unused", 0))

    async def _do(self, work: Work) -> Any:
        try:
            return work(self._file.connection)
        except sqlite3.Error as error:
            raise self._file.failed(error) from error

    async def close(self) -> None:
        self._file.close()

    def __del__(self) -> None:
        self._file.close()

    # ------------------------------------------------------------------ for whoever looks on

    @property
    def overrides(self) -> dict[str, OverrideRow]:
        """All that there have been, by id."""
        found, _ = reading.read_overrides(self._file.connection, file.DIALECT, "TRUE")
        return {row.id: row for row in found}

    @property
    def dials(self) -> dict[str, DialRow]:
        """All that there have been, by request id."""
        found, _ = reading.read_dials(self._file.connection, file.DIALECT, "TRUE")
        return {row.request: row for row in found}

    @property
    def changes(self) -> int:
        """How many rows have been written."""
        return self._file.connection.total_changes

    @property
    def left(self) -> reading.OpenRows:
        """The rows that are open."""
        return reading.open_rows(self._file.connection, file.DIALECT)


class SlowJournal:
    """A process's hold on a journal that outlives it. Each operation has a ``pause`` before it and
    another one behind it, and a process that dies in one of them may have done it or not."""

    def __init__(self, journal: MemoryJournal, pause: Callable[[], Awaitable[None]]) -> None:
        self._journal = journal
        self._pause = pause
        #: the process ends, and waits for the database no longer
        self.given_up = False

    shared: bool = False

    async def turn(self) -> float:
        """Without a step of its own: there is one stack."""
        return 0.0

    async def give_up(self, within: float) -> None:
        self.given_up = True

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._journal, name)

        async def slowly(*args: Any) -> Any:
            await self._pause()
            result = await operation(*args)
            await self._pause()
            return result

        return slowly
