"""The journal of one stack in PostgreSQL, and the lease that says which process has it.

Each transaction of a stack begins with its row of ``stacks``: it counts the row's ``beat`` up, if
the row is still ours. That one statement is four things:

- *The lease.* A stack that has nothing to write counts up every :data:`BEAT` seconds. Whoever has
  seen the same beat for :data:`SILENT` seconds, by its own clock, may take the stack. Nobody
  compares clocks, and an outage of the database lets no lease run out: until it is back nobody can
  see that a beat has not moved.
- *The fence.* Once another process has taken the stack, our next transaction changes nothing, and
  our process ends.
- *The lock.* A transaction that was cut off may still be at its end in the server. Whoever reads
  the row to know waits for it.
- *The receipt.* If the connection breaks during COMMIT, the beat says whether the transaction took
  effect. So nothing is lost, and nothing is written twice.

The row of a stack that lives, for example::

    id 3fa9c2d01b7e   owner 9b1d…   holder "controller (pid 4711, tcp://10.0.0.1:7000) on node-3"
    home 77ae…        beat 41       endpoint tcp://10.0.0.1:7000   passing false
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import psycopg

from ...usage import Caps
from ..database import DatabaseAwayError, Dialect, JournalError, Outcome, StackHeldError, Work
from ..reading import OpenRows, open_rows, read_dials
from ..rows import DialRow
from .fleet import InFleet
from .server import AWAY, Server, begin

#: How often a stack shows that it lives, and for how long it may not before it is taken for gone
#: (seconds). Four beats may be lost between: a controller that its keeper starts again is back
#: within a second or two, and must find its stack as it left it.
BEAT: Final = 2.0
SILENT: Final = 10.0
#: A start waits this long for the database, which may be just starting too.
START_WITHIN: Final = 10.0
_EVERY: Final = 0.3


class Place(NamedTuple):
    """The address of the bus at which a stack is served, and the public URL of its gateways; and
    what all stacks there may dial together."""

    endpoint: str
    public_url: str
    caps: Caps = Caps()
    calls_per_second: float = 1.0


@dataclass(frozen=True)
class Claim:
    """Who takes a stack. ``home``: its state directory, which one process at a time has, so the
    last owner of the same home is dead. ``seen``: the beat that did not move for :data:`SILENT`
    seconds. ``passing``: no start takes the stack up again, so that it goes once nothing is open.
    ``place``: where peers reach the stack from now on; None: nobody is to look for it.
    """

    owner: str
    holder: str
    home: str
    seen: int | None = None
    passing: bool = False
    place: Place | None = None


class _Transaction:
    """A connection on which a ``?`` stands for a value, as in the other database. psycopg has
    ``%s``. No statement of the journal has either sign in it for anything else. ``answered`` is
    called at each answer of the server."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        answered: Callable[[], None] = lambda: None,
    ) -> None:
        self._connection = connection
        self._answered = answered

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> psycopg.Cursor[Any]:
        cursor = self._connection.execute(sql.replace("?", "%s").encode(), values)
        self._answered()
        return cursor


class PostgresDatabase:
    """The journal of a stack, in the journal's thread (:class:`..database.Database`).

    It has one connection, which is made when it is needed, and thrown away when a transaction fails
    as a whole. What is in doubt then is kept here.
    """

    beats = BEAT
    #: Each piece takes round trips, for which the row's beat stands still and the fleet's lock is
    #: held. At 100 ms each they take 3 s, and 7 s if one fails and all are done again.
    most = 8

    def __init__(self, server: Server, account: str, stack: str, claim: Claim) -> None:
        self.name = server.name
        self.dialect = dialect(stack)
        if claim.place is not None:
            place = claim.place
            shared = InFleet(account, stack, place.caps, place.calls_per_second)
            self.dialect = replace(self.dialect, shared=shared)
        self._server = server
        self._account = account
        self._stack = stack
        self._claim = claim
        self._connection: psycopg.Connection[Any] | None = None
        #: a copy of its socket, for :meth:`cut`
        self._wire: socket.socket | None = None
        #: held while the copy is used or closed: its number may be another file's afterwards
        self._cutting = threading.Lock()
        #: what our last transaction left in the row, as far as we know
        self._beat = 0
        #: a transaction whose COMMIT got no answer: its work and the outcomes
        self._doubt: tuple[Sequence[Work], list[Outcome]] | None = None
        self._interrupted = False
        #: we have cut this connection ourselves, which libpq would call the server's end
        self._cut = False
        self.answers = 0

    def open(self) -> PostgresDatabase:
        """Take the stack, or make it; returns itself. JournalError: the database cannot be reached
        in time, or cannot be used; StackHeldError: another process has it. To try again is safe,
        because a claim that was written by a try without an answer is our own, by its owner.

        A stack that was seen to be silent is tried once: after an outage it may live, and its next
        beat be still to come."""
        until = time.monotonic() + (START_WITHIN if self._claim.seen is None else 0.0)
        while True:
            try:
                db = self._connected()
                self._server.migrate(db)
                self._server.within(db, self._take)
                return self
            except BaseException as error:  # whatever it is: nobody else closes the connection
                self._drop()
                away = isinstance(error, DatabaseAwayError)
                if not away or self._interrupted or time.monotonic() > until:
                    raise
            time.sleep(_EVERY)

    def _take(self, db: psycopg.Connection[Any]) -> None:
        """Write our claim into the stack's row, which is locked from the SELECT on: of several that
        want a dead stack at once, the second one reads what the first one wrote.

        The stack may be taken if nobody has it, or if we have it. It may be taken if its last owner
        had our state directory: that lock is ours now, so the process is dead. And it may be taken
        if its beat is still the one that we saw stand still.
        """
        claim = self._claim
        found = db.execute(
            "SELECT account, owner, holder, home, beat FROM stacks WHERE id = %s FOR UPDATE",
            (self._stack,),
        ).fetchone()
        if found is None:
            self._beat = 1
            db.execute(
                "INSERT INTO stacks (id, account, owner, holder, home, beat, passing, endpoint,"
                " public_url) VALUES (%s, %s, %s, %s, %s, 1, %s, %s, %s)",
                (
                    *(self._stack, self._account, claim.owner, claim.holder, claim.home),
                    *(claim.passing, *_of(claim.place)),
                ),
            )
            return
        account, owner, holder, home, beat = found
        if account != self._account:
            raise JournalError(
                f"{self.name}: stack {self._stack} belongs to another Twilio account"
            )
        if owner not in (None, claim.owner) and home != claim.home and beat != claim.seen:
            raise StackHeldError(self._stack, holder)
        self._beat = beat + 1
        db.execute(
            "UPDATE stacks SET owner = %s, holder = %s, home = %s, beat = %s, endpoint = %s,"
            " public_url = %s WHERE id = %s",
            (
                *(claim.owner, claim.holder, claim.home, self._beat),
                *(*_of(claim.place), self._stack),
            ),
        )

    # ------------------------------------------------------------------ transactions

    def run(self, work: Sequence[Work]) -> list[Outcome]:
        """All of the work in one transaction. After a DatabaseAwayError the same work comes again,
        and if its COMMIT got no answer before, its outcomes may be known already. At the process's
        end other work may come, because nobody waits for the former any more."""
        try:
            if self._doubt is not None:
                done, outcomes = self._doubt
                if self._took_effect() and done == work:
                    return outcomes
            return self._transaction(work)
        except Exception as error:  # noqa: BLE001  # it is raised again, as one of ours
            cut = self._drop()
            if not isinstance(error, AWAY):
                raise self._server.failed(error) from None
            if cut:
                raise DatabaseAwayError(f"{self.name}: the database does not answer") from None
            raise self._server.away(error) from None

    def _took_effect(self) -> bool:
        """Whether the transaction in doubt took effect. It is not in doubt any more then.

        The row's beat says it, once no transaction of ours is under way in the server any more: FOR
        UPDATE waits for one that is. Read without it, the beat might be counted up a moment later.
        Our COMMIT waits for what the one in doubt may not have waited for to the end: a standby
        that is to have it too.
        """
        db = self._connected()
        begin(db)
        self._answered()
        found = db.execute(
            "SELECT beat FROM stacks WHERE id = %s AND owner = %s FOR UPDATE",
            (self._stack, self._claim.owner),
        ).fetchone()
        self._answered()
        if found is None:
            raise self._taken(db)
        beat = int(found[0])
        if beat not in (self._beat, self._beat + 1):
            raise self._rows_lost()
        db.execute("COMMIT")
        took = beat != self._beat
        self._beat, self._doubt = beat, None
        return took

    def _transaction(self, work: Sequence[Work]) -> list[Outcome]:
        """Do all pieces together first, because they rarely fail. If one does, begin again and do
        each piece behind a savepoint of its own, so that a failure undoes no other piece."""
        db = self._connected()
        self._count_up(db)
        try:
            transaction = _Transaction(db, self._answered)
            outcomes = [Outcome(piece(transaction)) for piece in work]
        except AWAY:
            raise
        except Exception:  # noqa: BLE001  # it is raised again, for its own piece
            db.execute("ROLLBACK")
            self._count_up(db)
            outcomes = [self._by_itself(db, piece) for piece in work]
        # It stays in doubt at an error, too. The next run asks the beat, which knows.
        self._doubt = work, outcomes
        db.execute("COMMIT")
        self._doubt = None
        self._beat += 1
        return outcomes

    def _answered(self) -> None:
        self.answers += 1

    def _by_itself(self, db: psycopg.Connection[Any], piece: Work) -> Outcome:
        db.execute("SAVEPOINT work")
        try:
            outcome = Outcome(piece(_Transaction(db, self._answered)))
        except AWAY:
            raise
        except Exception as error:  # noqa: BLE001  # its own caller gets it
            db.execute("ROLLBACK TO work")
            outcome = Outcome(error=self._server.failed(error))
        db.execute("RELEASE work")
        return outcome

    def _count_up(self, db: psycopg.Connection[Any]) -> None:
        """Begin a transaction and count the beat up: the lease, the fence, the lock and the receipt
        in one statement. No row is changed where another process has taken the stack."""
        counted = begin(
            db,
            "UPDATE stacks SET beat = beat + 1 WHERE id = %s AND owner = %s AND beat = %s",
            (self._stack, self._claim.owner, self._beat),
        )
        self._answered()
        if counted.rowcount != 1:
            raise self._taken(db)

    def _rows_lost(self) -> JournalError:
        """The database has lost what it said was written. Our controller ends, because it would go
        on from what nobody finds any more."""
        return JournalError(
            f"{self.name}: the database is a copy that lagged: what stack {self._stack} wrote "
            "last is not in it. This process ends, and its next start reads what is there"
        )

    def _taken(self, db: psycopg.Connection[Any]) -> JournalError:
        """The error that says who has the stack now, because it did not see us live. Our controller
        ends: the numbers and calls are the other's, and whatever we did would undo its work. If we
        have it ourselves, its beat is not ours."""
        select = "SELECT holder, owner FROM stacks WHERE id = %s"
        found = db.execute(select, (self._stack,)).fetchone()
        if found is not None and found[1] == self._claim.owner:
            return self._rows_lost()
        by = found[0] if found is not None else "whoever has removed its rows"
        return JournalError(
            f"{self.name}: stack {self._stack} was silent for {SILENT:g} s or more, and was taken "
            f"by {by}, who puts its numbers back. This process ends"
        )

    # ------------------------------------------------------------------ the connection

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is None and not self._interrupted:
            connection = self._server.connect()
            try:
                wire = socket.socket(fileno=os.dup(connection.fileno()))
            except OSError as error:  # this process has no descriptor left
                connection.close()
                raise self._server.away(error) from None
            with self._cutting:
                self._connection, self._wire = connection, wire
        if self._interrupted or self._connection is None:  # perhaps while it was made
            raise DatabaseAwayError(f"{self.name}: the database is waited for no longer")
        return self._connection

    def _drop(self) -> bool:
        """Close the connection, if there is one. True: we have cut it ourselves before."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        with self._cutting:
            wire, self._wire = self._wire, None
            if wire is not None:
                wire.close()
            cut, self._cut = self._cut, False
        return cut

    def interrupt(self) -> None:
        self._interrupted = True
        self.cut()

    def cut(self) -> None:
        """Cut the connection, at which whoever waits for an answer wakes. It is done by a copy of
        its socket: libpq may close its own at any moment, in the journal's thread, and then the
        descriptor's number is soon that of another file of ours."""
        with self._cutting:
            if self._wire is not None:
                self._cut = True
                with contextlib.suppress(OSError):  # its other end is gone already
                    self._wire.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Say that the stack has ended, so that nobody has to watch its beat for 10 s to know. If
        this cannot be said, whoever comes next waits."""
        with contextlib.suppress(JournalError):
            self._server.within(self._connected(), self._leave)
        self._drop()

    def _leave(self, db: psycopg.Connection[Any]) -> None:
        """Give the row up, if it is still ours. A private stack's rows go, unless something is
        open: that is for the next controller to put back."""
        mine = (self._stack, self._claim.owner)
        left = db.execute(
            "UPDATE stacks SET owner = NULL, endpoint = NULL WHERE id = %s AND owner = %s"
            " RETURNING passing",
            mine,
        ).fetchone()
        if left == (True,) and not any(open_rows(_Transaction(db), self.dialect)):
            db.execute("DELETE FROM stacks WHERE id = %s", (self._stack,))


def _of(place: Place | None) -> tuple[str | None, str | None]:
    """The values of ``endpoint`` and ``public_url`` in a stack's row."""
    return (None, None) if place is None else (place.endpoint, place.public_url)


def dialect(stack: str) -> Dialect:
    """The statements for one stack: each of its rows has its id in the column ``stack``. A column
    holds only what it is made for, so ``is_time`` needs no condition here."""
    return Dialect(own={"stack": stack}, as_bytes="convert_to({}, 'UTF8')")


class Found(NamedTuple):
    """A stack with open rows. ``owner``: None where it has ended, and said so."""

    stack: str
    owner: str | None
    holder: str
    home: str
    beat: int
    rows: OpenRows
    #: it is of our fleet
    fleet: bool


class Look(NamedTuple):
    """``fleet``: the stacks that are served at our public URL, ours too, each with the address of
    its bus. ``found``: those that a look at the stacks is for."""

    fleet: list[tuple[str, str]]
    found: list[Found]


def look(url: str, account: str, public_url: str | None, beats: Beats | None = None) -> Look:
    """All stacks of the account that have open rows, or are of the fleet; with ``beats``, those of
    them that are silent. ``public_url``: None where we are of no fleet. Errors: as of
    ``PostgresDatabase.open``, at once."""

    def ask(db: psycopg.Connection[Any]) -> Look:
        stacks = db.execute(
            "SELECT id, owner, holder, home, beat, endpoint, (owner IS NOT NULL AND public_url = %s"
            " AND endpoint IS NOT NULL) IS TRUE FROM stacks WHERE account = %s ORDER BY id",
            (public_url, account),
        ).fetchall()
        fleet = [(row[0], row[5]) for row in stacks if row[6]]
        if beats is not None:
            silent = beats.silent({row[0]: row[4] for row in stacks}, time.monotonic())
            stacks = [row for row in stacks if row[0] in silent]
        found = []
        for stack, owner, holder, home, beat, _, in_fleet in stacks:
            rows = open_rows(_Transaction(db), dialect(stack))
            if in_fleet or any(rows):
                found.append(Found(stack, owner, holder, home, beat, rows, in_fleet))
        return Look(fleet, found)

    return Server(url).once(ask, migrated=beats is None)


def beat_of(url: str, stack: str) -> int | None:
    """The stack's beat as it is now; None: its rows are gone. Errors: as of :func:`look`."""

    def ask(db: psycopg.Connection[Any]) -> int | None:
        found = db.execute("SELECT beat FROM stacks WHERE id = %s", (stack,)).fetchone()
        return None if found is None else int(found[0])

    return Server(url).once(ask)


def dialled(url: str, account: str) -> list[DialRow]:
    """The dials of all stacks of the account that Twilio took, closed ones too. Rows that cannot be
    read are left out. Errors: as of ``PostgresDatabase.open``, at once."""

    def ask(db: psycopg.Connection[Any]) -> list[DialRow]:
        found: list[DialRow] = []
        for (stack,) in db.execute("SELECT id FROM stacks WHERE account = %s", (account,)):
            rows, _ = read_dials(_Transaction(db), dialect(stack), "sid IS NOT NULL")
            found += rows
        return found

    return Server(url).once(ask)


class Beats:
    """Which stacks have not moved their beat for :data:`SILENT` seconds, as one watches them. It
    goes by the watcher's monotonic clock alone, so machines whose clocks differ agree.

    An outage lets nobody look, and no beat move. So after a gap of half a lease between two looks
    the watch begins anew."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, float]] = {}
        self._looked_at = 0.0

    def silent(self, beats: dict[str, int], now: float) -> set[str]:
        """Those of the stacks that have been silent for so long. ``beats``: of all stacks, as they
        are now; ``now``: monotonic. A stack that is seen for the first time is not silent yet."""
        before = self._seen if now - self._looked_at <= SILENT / 2 else {}
        self._looked_at = now
        self._seen = {
            stack: before[stack] if stack in before and before[stack][0] == beat else (beat, now)
            for stack, beat in beats.items()
        }
        return {stack for stack, (_, since) in self._seen.items() if now - since >= SILENT}
