"""What all stacks of a fleet have together: who has a number, and how many calls may be dialled.

Each question is asked in the transaction that acts on its answer. They are asked one at a time in
all the database, under one lock, so that two stacks never get the same answer, and never wait for
one another in a circle.
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

#: "trkf"
_LOCK: Final = 0x74726B66
_HOLDER: Final = (
    "SELECT stacks.holder, stacks.endpoint"
    " FROM overrides JOIN stacks ON stacks.id = overrides.stack"
    " WHERE number = ? AND state NOT IN ('restored', 'left_alone') AND stack != ? AND account = ?"
    " AND owner IS NOT NULL AND endpoint IS NOT NULL LIMIT 1"
)
_TURN: Final = (
    "INSERT INTO paces (account, next_call)"
    " VALUES (?, clock_timestamp() + make_interval(secs => ?))"
    " ON CONFLICT (account) DO UPDATE SET next_call ="
    " GREATEST(paces.next_call, clock_timestamp()) + make_interval(secs => ?)"
    " RETURNING EXTRACT(EPOCH FROM next_call - clock_timestamp())"
)


@dataclass(frozen=True)
class InFleet:
    """One stack, among the others (:class:`..database.Shared`). ``rate``: calls a second."""

    account: str
    stack: str
    caps: Caps
    rate: float

    def number(self, db: Connection, number: str) -> None:
        """NumberBusyError: another stack has it."""
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
        """LimitReachedError: this dial would pass a cap of all stacks together."""
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
        """The account's next call; returns in how many seconds it may be asked for."""
        self._lock(db)
        gap = 1.0 / self.rate
        (until,) = db.execute(_TURN, (self.account, gap, gap)).fetchone()
        return max(0.0, float(until) - gap)

    def _lock(self, db: Connection) -> None:
        db.execute("SELECT pg_advisory_xact_lock(?)", (_LOCK,))
