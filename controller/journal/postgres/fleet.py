"""What all stacks of a fleet have together: who has a number, and how many calls may be dialled.

Each question is asked in the transaction that acts on its answer. They are asked one at a time in
all the database, under one lock, so that two stacks never get the same answer, and never wait for
one another in a circle.

Why a lock, and no stricter isolation: under READ COMMITTED two transactions that ask "who has this
number?" at once both see nobody, and both write. SERIALIZABLE would let one of them fail, to be
repeated by us; a lock lets it wait for a millisecond. PostgreSQL lets go of
``pg_advisory_xact_lock`` at the end of the transaction, also when its connection dies (its manual,
"Advisory Locks"). It ends the transaction of a machine that says nothing for
:data:`.server.SILENT_WITHIN` seconds. So no stack that died can hold up the others for longer.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from trunkline.bus.errors import LimitReachedError, NumberBusyError
from trunkline.bus.redact import redact_number

from ...usage import DAY, Caps, Usage
from ..database import Connection, Dialect
from ..reading import read_dials
from ..rows import DialRow

#: "trkf": the key of that lock. All programs of a database share one space of keys, so it is no
#: small number that others might pick too.
_LOCK: Final = 0x74726B66
#: The stack that has a number, by its own words and its bus. A stack without an owner has ended,
#: and one without an endpoint is of no fleet: nobody could go to it, so it keeps no number from us.
#: Its override is found on the number itself, by its seal.
_HOLDER: Final = (
    "SELECT stacks.holder, stacks.endpoint"
    " FROM overrides JOIN stacks ON stacks.id = overrides.stack"
    " WHERE number = ? AND state NOT IN ('restored', 'left_alone') AND stack != ? AND account = ?"
    " AND owner IS NOT NULL AND endpoint IS NOT NULL LIMIT 1"
)
#: Take the account's next moment for a call, and say in how many seconds the one behind it is.
#: ``clock_timestamp()`` and not ``now()``, which stands still from the transaction's beginning, and
#: so would not count the wait for the lock. The server's clock alone is asked: machines differ. At
#: one call a second, the answers of three dials at once are 1, 2 and 3 (then 1 is taken off).
_TURN: Final = (
    "INSERT INTO paces (account, next_call)"
    " VALUES (?, clock_timestamp() + make_interval(secs => ?))"
    " ON CONFLICT (account) DO UPDATE SET next_call ="
    " GREATEST(paces.next_call, clock_timestamp()) + make_interval(secs => ?)"
    " RETURNING EXTRACT(EPOCH FROM next_call - clock_timestamp())"
)


@dataclass(frozen=True)
class InFleet:
    """One stack, among the others (:class:`..database.Shared`). ``rate``: calls a second, of the
    whole account. Caps and rate are this machine's own settings, so all machines should be given
    the same."""

    account: str
    stack: str
    caps: Caps
    rate: float

    def number(self, db: Connection, number: str) -> None:
        """NumberBusyError: another stack has it. The error has that stack's ``bus``: a client
        that waits for the number's calls goes there and shares it, as it would here."""
        self._lock(db)
        found = db.execute(_HOLDER, (number, self.stack, self.account)).fetchone()
        if found is not None:
            holder, bus = found
            raise NumberBusyError(
                f"number {redact_number(number)} is in use at another machine's stack ({holder})",
                number=number,
                holder=holder,
                bus=bus,
            )

    def dial(self, db: Connection, row: DialRow) -> None:
        """LimitReachedError: this dial would pass a cap of all stacks together.

        Dials of the last 24 hours are read, the longest that a cap counts. The row is inserted
        already, and left out of the count; the error takes it back with its piece of the
        transaction.
        """
        if self.caps == Caps():
            return
        self._lock(db)
        every = Dialect()
        condition = "stack IN (SELECT id FROM stacks WHERE account = ?) AND asked >= ?"
        dials, _ = read_dials(db, every, condition, self.account, row.asked - DAY)
        usage = Usage(self.caps)
        for other in dials:
            if other.request != row.request:
                usage.accept(other)
        why = usage.refusal(row.max_duration, max(row.asked, time.time()))
        if why is not None:
            raise LimitReachedError(
                f"the call to {redact_number(row.callee)} is not dialled: {why} (all machines)"
            )

    def turn(self, db: Connection) -> float:
        """Take the account's next call; returns in how many seconds it may be asked for, 0 for now.
        A turn that is not used after all is lost: nobody is told, and one gap passes unused."""
        self._lock(db)
        gap = 1.0 / self.rate
        (until,) = db.execute(_TURN, (self.account, gap, gap)).fetchone()
        return max(0.0, float(until) - gap)

    def _lock(self, db: Connection) -> None:
        """Wait for the lock; it is held until this transaction ends, its COMMIT included. May be
        asked for twice in one transaction."""
        db.execute("SELECT pg_advisory_xact_lock(?)", (_LOCK,))
