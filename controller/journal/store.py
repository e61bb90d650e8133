"""The journal: the controller writes down here what it is going to do, before it asks Twilio.

A process that dies between a request to Twilio and its answer forgets that it asked. The next one
finds the request here and repairs what it may have left behind: a number that would answer nobody,
or a call that nobody would end.

It holds overrides of numbers, dials, calls that are listened to, the epochs (one for each start of
a controller), and the CallSids of webhooks that came. By these a replayed webhook is known.

It is kept in SQLite, or in PostgreSQL (:mod:`.database` has the interface between). Once a method
has returned, its change survives a power cut of the database's machine. If a row cannot be read
(for example because its settings are no JSON), only :meth:`Journal.unreadable` returns it, and all
other rows can be used.

The database is used in one thread, off the event loop, because full durability waits for a disk,
and here and there for a network. Everything that is asked for during such a wait is written
together afterwards. So a hundred dials at once wait for the disk a few times, and not a hundred
times. While a database does not answer, all that is asked for waits, however long that takes:
nothing is done at Twilio that is not written down.

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
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from ..twilio.threads import DaemonPool
from . import file
from .database import Connection, Database, DatabaseAwayError, JournalError, Outcome, Work
from .reading import DIALS_OPEN, OpenRows, Unreadable, open_rows, read_dials, read_overrides
from .rows import SEEN_KEPT, DialRow, ListeningRow, OverrideRow, OverrideState

log = logging.getLogger("trunkline.controller")

#: Between two tries of a database that does not answer (seconds). It is short, because all that is
#: new waits for it, and constant, because only one connection of each stack asks.
AGAIN_AFTER: Final = 0.5
#: A database that gives not one answer for so long (seconds) is not waited for on this connection.
ANSWERS_WITHIN: Final = 10.0
#: At the process's end, once no time is left, a database is waited for no longer than this
#: (seconds).
LAST_WAIT: Final = 0.15


class Journal:
    """Everything that the controller writes down; use :meth:`on`, or :meth:`in_file`.

    Each method is durable once it returns. A change to an override that is not in the journal
    raises JournalError, because it would be lost. So does every method once the journal cannot be
    used any more, and the controller ends then: it must not ask Twilio for what nobody would find.

    The life of an override, as the methods write it::

        plan            planned                      before the number is read
        intend          planned, prior and written   before it is written
        set_state       applied                      Twilio has confirmed
        add_holder      applied, one more holder     another session joins
        set_state       restoring, uncertain_until   before each write of the prior fields
        set_state       restored
    """

    def __init__(
        self,
        database: Database,
        pool: DaemonPool,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._db = database
        self._dialect = database.dialect
        self._pool = pool
        self._sleep = sleep
        #: work that waits for the transaction which is under way
        self._waiting: list[tuple[Work, asyncio.Future[Any]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._beating: asyncio.Task[None] | None = None
        #: the process ends, and from then on no answer of the database is waited for
        self._ends = asyncio.Event()
        self._ends_at = 0.0
        #: the end's time is over, and the thread is asked for nothing any more
        self._left = False

    @classmethod
    async def on(
        cls,
        connect: Callable[[], Database],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> Journal:
        """Open the journal on a database, which ``connect`` opens in the journal's thread."""
        pool = DaemonPool("trunkline-journal", 1)
        try:
            database = await pool.run(connect)
        except BaseException:
            pool.close()
            raise
        journal = cls(database, pool, sleep)
        if database.beats:
            journal._beating = asyncio.get_running_loop().create_task(journal._beat())
        return journal

    @classmethod
    async def in_file(cls, path: Path, *, account: str, stack: str) -> Journal:
        """Open or make the journal of ``account`` at ``path``.

        Raises JournalError: torn, no journal of ours, another account's, or a newer version's.
        """
        return await cls.on(lambda: file.SqliteDatabase.open(path, account, stack))

    @property
    def name(self) -> str:
        """Where it is, for messages: a path, or the database's URL without its password."""
        return self._db.name

    @property
    def shared(self) -> bool:
        """Other machines reach it, and may take it if this process does not show that it lives."""
        return self._db.beats > 0.0

    async def confirm(self) -> None:
        """Return once it is known that nobody has taken it. JournalError: somebody has. An empty
        transaction tells that, because each begins with the lease (:mod:`.postgres.stacks`)."""
        await self._do(lambda db: None)

    async def give_up(self, within: float = 0.0) -> None:
        """The process ends. What is asked for is tried once more, and its answer is waited for
        until ``within`` seconds from now. Whoever has got none by then gets DatabaseAwayError."""
        self._ends_at = time.monotonic() + within
        self._ends.set()

    async def close(self) -> None:
        """End what is under way, and let go of the database. If that stands still, this takes as
        long as :meth:`give_up` has left (or a second), and little more: a controller has 4 s to
        end. A thread that waits for a connection then ends with the process."""
        if not self._ends.is_set():
            await self.give_up(1.0)
        if self._beating is not None:
            self._beating.cancel()
        if self._writing is not None:
            await asyncio.wait({self._writing})
        if not self._left:
            closing = asyncio.ensure_future(self._pool.run(self._db.close))
            if await self._wait_or_leave(closing) and (error := closing.exception()) is not None:
                log.error("%s: the journal could not be closed: %s", self.name, error)
        self._pool.close()

    async def _do(self, work: Work) -> Any:
        """Do the work and return its result, once that is durable. A crash leaves all of it or
        nothing. Work that is asked for in one order is done in that order, so a row that was
        planned is there for whatever comes behind it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((work, future))
        if self._writing is None:
            self._writing = loop.create_task(self._write())
        return await future

    async def _write(self) -> None:
        """One transaction after the other, until nothing waits."""
        while self._waiting:
            # At the end there is time for one try, and not for several.
            most = len(self._waiting) if self._ends.is_set() else self._db.most
            taken, self._waiting = self._waiting[:most], self._waiting[most:]
            outcomes = await self._until_done([work for work, _ in taken])
            for (_, future), (result, error) in zip(taken, outcomes, strict=True):
                if future.done():  # whoever asked has given up
                    continue
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)
        self._writing = None

    async def _until_done(self, work: Sequence[Work]) -> list[Outcome]:
        """The work in one transaction, which is tried for as long as the database is away. The log
        has two lines for an outage, however long: its beginning and its end. Any other error goes
        to all who asked for this work. Otherwise they would wait for ever."""
        began = None
        while True:
            try:
                outcomes = await self._try(work)
            except DatabaseAwayError as error:
                if self._ends.is_set():
                    return [Outcome(error=error)] * len(work)
                if began is None:
                    began = time.monotonic()
                    log.error("%s. What is new waits for it, and calls that are on go on", error)
                await self._pause()
            except Exception as error:  # noqa: BLE001  # whoever asked gets it
                return [Outcome(error=error)] * len(work)
            else:
                if began is not None:
                    log.warning(
                        "%s: it answers again after %.1f s", self.name, time.monotonic() - began
                    )
                return outcomes

    async def _try(self, work: Sequence[Work]) -> list[Outcome]:
        """Try once, in the journal's thread. If not one answer comes for :data:`ANSWERS_WITHIN`
        seconds, the connection is cut, and the next try makes another one: a proxy may keep a
        connection up that leads to no server any more. A database that is only far away goes on
        answering, so its connection stays. At the process's end the try is given up when the time
        is over."""
        away = DatabaseAwayError(f"{self.name}: the database does not answer")
        if self._left:
            raise away
        trying = asyncio.ensure_future(self._pool.run(self._db.run, work))
        ends = asyncio.ensure_future(self._ends.wait())
        while not trying.done() and not ends.done():
            answers = self._db.answers
            done, _ = await asyncio.wait(
                {trying, ends}, timeout=ANSWERS_WITHIN, return_when=asyncio.FIRST_COMPLETED
            )
            if not done and self._db.answers == answers:
                self._db.cut()
        ends.cancel()
        if not await self._wait_or_leave(trying):
            raise away
        return trying.result()

    async def _wait_or_leave(self, asked: asyncio.Future[Any]) -> bool:
        """Wait for the thread until the time of the process's end is over; True: it has done what
        it is asked for. False: it is interrupted, and left alone from now on. A disk of this
        machine's is waited for."""
        left = max(self._ends_at - time.monotonic(), LAST_WAIT)
        await asyncio.wait({asked}, timeout=left if self._db.beats else None)
        if asked.done():
            return True
        asked.cancel()
        self._left = True
        self._db.interrupt()
        return False

    async def _pause(self) -> None:
        """Wait until the next try is due, or until the process ends."""
        sleep: asyncio.Future[Any] = asyncio.ensure_future(self._sleep(AGAIN_AFTER))
        either = {sleep, asyncio.ensure_future(self._ends.wait())}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        for waiter in either:
            waiter.cancel()

    async def _beat(self) -> None:
        """Show others that this stack lives, also while it has nothing to write. An error is told
        to whoever asks next."""
        while True:
            await self._sleep(self._db.beats)
            await asyncio.gather(self.confirm(), return_exceptions=True)

    async def _change(self, sql: str, values: Sequence[Any]) -> int:
        """One statement that changes rows, in a transaction with whatever else waits; returns how
        many it changed."""
        return int(await self._do(lambda db: db.execute(sql, values).rowcount))

    # ------------------------------------------------------------------ epochs and overrides

    async def begin_epoch(self, pid: int, now: float, least: int = 1) -> int:
        """Count up: the first is 1, or ``least``. Peers take a greater number for a controller that
        restarted. ``now``: Unix time. The pid is for whoever reads the journal by hand."""

        def work(db: Connection) -> int:
            where, values = self._dialect.where("TRUE")
            select = f"SELECT COALESCE(MAX(epoch), 0) FROM epochs WHERE {where}"
            epoch = max(int(db.execute(select, values).fetchone()[0]) + 1, least)
            row = {"epoch": epoch, "pid": pid, "started": now}
            db.execute(*self._dialect.insert("epochs", row))
            return epoch

        return int(await self._do(work))

    async def has_epochs(self) -> bool:
        """A controller has begun an epoch on this journal. A start reads the numbers' seals before
        that, if it has to. So one that died meanwhile has left a journal without an epoch, and is
        done from the beginning."""
        where, values = self._dialect.where("TRUE")
        select = f"SELECT EXISTS (SELECT 1 FROM epochs WHERE {where})"
        return bool(await self._do(lambda db: db.execute(select, values).fetchone()[0]))

    async def newest(self) -> float:
        """The latest time (Unix) of all that happened by the journal; 0: it is empty. If it is
        ahead of our clock, that was set back since. A value that is no time, which SQLite keeps as
        it is, comes out as the greatest of its table, and that table is left out."""
        where, own = self._dialect.where("TRUE")
        times = (("started", "epochs"), ("changed", "overrides"), ("asked", "dials"))
        newest = " UNION ".join(
            f"SELECT MAX({column}) AS at FROM {table} WHERE {where}"
            for column, table in (*times, ("since", "listening"), ("since", "seen"))
        )
        is_time = self._dialect.is_time.format("at")
        select = f"SELECT MAX(at) FROM ({newest}) AS newest WHERE {is_time}"
        values = own * (len(times) + 2)
        return float(await self._do(lambda db: db.execute(select, values).fetchone()[0]) or 0.0)

    async def unreadable(self) -> list[Unreadable]:
        """Open rows that cannot be read. No other method returns them."""
        return list((await self.open_rows()).unreadable)

    async def open_rows(self) -> OpenRows:
        """All that the next start would have to put back, hang up or stop."""
        found: OpenRows = await self._do(lambda db: open_rows(db, self._dialect))
        return found

    async def forget(self, override: str) -> None:
        """Remove an override that cannot be read, because no number carries its seal."""
        await self._do(lambda db: self._forget(db, override))

    def _forget(self, db: Connection, override: str) -> None:
        """Its holders go first, because they refer to it."""
        where, values = self._dialect.where("override = ?", override)
        db.execute(f"DELETE FROM holders WHERE {where}", values)
        where, values = self._dialect.where("id = ?", override)
        db.execute(f"DELETE FROM overrides WHERE {where}", values)

    async def found(
        self, row: OverrideRow, prior: dict[str, str], written: dict[str, str], now: float
    ) -> None:
        """An override that its number's own seal describes, in the place of a row that cannot be
        read, if there is one. All of it is one transaction: the journal never has a part of what
        the seal says. ``prior`` and ``written``, and errors, as of :meth:`intend` and :meth:`plan`.
        """
        fields = {"prior": _json(prior), "written": _json(written)}

        def work(db: Connection) -> None:
            self._forget(db, row.id)
            self._insert(db, row, state=row.state, changed=now, **fields)

        await self._do(work)

    async def open_overrides(self) -> list[OverrideRow]:
        """Overrides that may stand on a number, the oldest first. If there are two of one number,
        the book sets one of them aside, which is only put back."""
        return list((await self.open_rows()).overrides)

    async def override(self, override: str) -> OverrideRow | None:
        """The override with this id, closed or not; None: there is none, or it cannot be read. A
        seal on a number may name one that we closed, when a write of it took effect late."""
        found, _ = await self._do(lambda db: read_overrides(db, self._dialect, "id = ?", override))
        return found[0] if found else None

    async def plan(self, row: OverrideRow, now: float) -> None:
        """A new row, with nothing known of its number. JournalError where the id is there,
        NumberBusyError where another stack of the fleet has the number."""

        def work(db: Connection) -> None:
            self._insert(db, row, state="planned", changed=now)
            for session, secret in row.holders.items():
                self._hold(db, row.id, session, secret)

        await self._do(work)

    def _insert(self, db: Connection, row: OverrideRow, **columns: Any) -> None:
        """A row for the number and the session of ``row``, with these columns. NumberBusyError
        where another stack of the fleet has the number."""
        if self._dialect.shared is not None:
            self._dialect.shared.number(db, row.number)
        names = ("id", "number", "number_sid", "session", "since")
        known = {name: getattr(row, name) for name in names}
        db.execute(*self._dialect.insert("overrides", {**known, **columns}))

    async def add_holder(self, override: str, session: str, secret_hash: str) -> None:
        """Another session holds the override too, and may claim it after a restart."""
        await self._do(lambda db: self._hold(db, override, session, secret_hash))

    def _hold(self, db: Connection, override: str, session: str, secret_hash: str) -> None:
        row = {"override": override, "session": session, "secret_hash": secret_hash}
        insert, values = self._dialect.insert("holders", row)
        key = self._dialect.key("override", "session")
        newer = "DO UPDATE SET secret_hash = excluded.secret_hash"
        db.execute(f"{insert} ON CONFLICT ({key}) {newer}", values)

    async def intend(
        self, override: str, prior: dict[str, str], written: dict[str, str], now: float
    ) -> None:
        """Before we write to a number: its present fields, and those that we are going to write.
        Passwords in them are sealed by the caller (:meth:`..twilio.operations.Operations.intend`).
        """
        await self._set(override, prior=_json(prior), written=_json(written), changed=now)

    async def set_state(
        self, override: str, state: OverrideState, now: float, uncertain_until: float = 0.0
    ) -> None:
        """Times are Unix times. ``uncertain_until``: a write of ours that got no answer may take
        effect until then; 0: none may."""
        await self._set(override, state=state, uncertain_until=uncertain_until, changed=now)

    async def _set(self, override: str, **columns: Any) -> None:
        changed = ", ".join(f"{column} = ?" for column in columns)
        where, values = self._dialect.where("id = ?", override)
        update = f"UPDATE overrides SET {changed} WHERE {where}"
        if not await self._change(update, (*columns.values(), *values)):
            raise JournalError(f"{self.name}: there is no override {override}")

    # ------------------------------------------------------------------ dials

    async def open_dials(self) -> list[DialRow]:
        """Dials of which a call may be up, or may still come."""
        found, _ = await self._do(lambda db: read_dials(db, self._dialect, DIALS_OPEN))
        return list(found)

    async def closed_dials(self, since: float) -> list[DialRow]:
        """Closed dials for which Twilio was asked at ``since`` or later."""
        condition = "state = 'closed' AND asked >= ?"
        found, _ = await self._do(lambda db: read_dials(db, self._dialect, condition, since))
        return list(found)

    async def dial_asked(self, row: DialRow) -> bool:
        """Note that Twilio is going to be asked. False: a dial with this request id is there
        already, and stays as it is: an earlier controller asked, and asking again would ring twice.
        LimitReachedError: the dial would pass a cap of the fleet's, and its row is not kept."""
        insert, values = self._dialect.insert("dials", msgspec.structs.asdict(row))

        def work(db: Connection) -> bool:
            new = db.execute(f"{insert} ON CONFLICT DO NOTHING", values).rowcount > 0
            if new and self._dialect.shared is not None:
                self._dialect.shared.dial(db, row)
            return new

        return bool(await self._do(work))

    async def turn(self) -> float:
        """Take the next turn of all stacks together: in how many seconds Twilio may be asked for a
        call. 0 where a stack is alone: the core keeps to ``TRUNKLINE_CALLS_PER_SECOND`` itself."""
        shared = self._dialect.shared
        return 0.0 if shared is None else float(await self._do(shared.turn))

    async def dial_taken(self, request: str, sid: str) -> None:
        """Twilio has the dial, under this SID. A dial that is closed or not there stays as it is,
        because a SID may be learnt late."""
        where, values = self._dialect.where("request = ? AND state != 'closed'", request)
        await self._change(
            f"UPDATE dials SET sid = ?, state = 'taken' WHERE {where}", (sid, *values)
        )

    async def dial_closed(self, request: str, seconds: float | None = None) -> None:
        """The dial is over. ``seconds``: how long its call lasted; None: that was said before, or
        nobody knows."""
        where, values = self._dialect.where("request = ?", request)
        closed = "state = 'closed', seconds = COALESCE(?, seconds)"
        await self._change(f"UPDATE dials SET {closed} WHERE {where}", (seconds, *values))

    # ------------------------------------------------------------------ calls that are listened to

    async def listening_asked(self, row: ListeningRow) -> None:
        """A stream is going to be asked for. It takes the place of the call's former one."""
        insert, values = self._dialect.insert("listening", msgspec.structs.asdict(row))
        newer = "DO UPDATE SET name = excluded.name, since = excluded.since"
        await self._change(f"{insert} ON CONFLICT ({self._dialect.key('call')}) {newer}", values)

    async def listening_closed(self, call: str) -> None:
        """No stream of it is there any more."""
        where, values = self._dialect.where("call = ?", call)
        await self._change(f"DELETE FROM listening WHERE {where}", values)

    # ------------------------------------------------------------------ calls that were heard

    async def note_seen(self, sid: str, since: float) -> None:
        """A call's webhook is heard, for the first time. Those of :data:`SEEN_KEPT` ago go."""

        def work(db: Connection) -> None:
            where, values = self._dialect.where("since < ?", since - SEEN_KEPT)
            db.execute(f"DELETE FROM seen WHERE {where}", values)
            insert, values = self._dialect.insert("seen", {"sid": sid, "since": since})
            db.execute(f"{insert} ON CONFLICT DO NOTHING", values)

        await self._do(work)

    async def seen(self, since: float) -> list[tuple[str, float]]:
        """CallSids that were heard at ``since`` or later, the earliest first, each with when. Rows
        that cannot be read are left out and logged. (A CallSid that is no text matches no call.)"""
        is_time = self._dialect.is_time.format("since")
        where, values = self._dialect.where(f"NOT {is_time}")
        broken = f"SELECT COUNT(*) FROM seen WHERE {where}"
        (count,) = await self._do(lambda db: db.execute(broken, values).fetchone())
        if count:
            log.error(
                "%s: of %d calls it cannot be read when they were heard. They are left out: Twilio "
                "is asked whether they live when one of them seems to come",
                self.name,
                count,
            )
        where, asked = self._dialect.where(f"{is_time} AND since >= ?", since)
        select = f"SELECT {self._dialect.as_bytes.format('sid')}, since FROM seen WHERE {where}"
        found = await self._do(lambda db: db.execute(select, asked).fetchall())
        heard = [(sid.decode(errors="replace"), at) for sid, at in found]
        return sorted(heard, key=lambda call: (call[1], call[0]))


def _json(fields: dict[str, str]) -> str:
    """As a column has them: ``{"voice_url":"https://agent.example.com/","voice_method":"GET"}``."""
    return msgspec.json.encode(fields).decode()


def peek(path: Path) -> OpenRows:
    """The open rows of a journal that another process may have, read only. JournalError as
    ``in_file``."""
    return file.read(path, lambda db: open_rows(db, file.DIALECT, file.has_listening(db)))


def dialled(path: Path) -> list[DialRow]:
    """The dials of the journal at ``path`` that Twilio took, closed ones too; read only, as
    :func:`peek`. Rows that cannot be read are left out. JournalError as :func:`peek`."""
    return file.read(path, lambda db: read_dials(db, file.DIALECT, "sid IS NOT NULL")[0])
