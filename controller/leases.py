"""Leases on numbers: who may take the calls of a number that we have an override on.

One number has one override at a time; its holders are sessions that wait for calls to it, and
(b-leg) sessions that call it. Several may wait for calls as long as it is clear by the caller whose
a call is: their sets of callers must be disjoint, from one another and from the numbers of those
that call it. Those that call it need not differ, because one call at a time is set up there
(:mod:`.dials`). The number is put back when its last holder leaves; whoever wants it meanwhile
waits.

States: *unclaimed* (found in the journal at start; its session may still announce itself),
*applying*, *applied*, *restoring*.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from trunkline.bus.errors import NumberBusyError
from trunkline.bus.redact import redact_number

from .journal import OverrideRow

LeaseState = Literal["unclaimed", "applying", "applied", "restoring"]


@dataclass(frozen=True)
class Hold:
    """What a session holds a number for: ``callers``' calls (None: everybody's), or its own dials
    to it, which come from its number (``dials``)."""

    callers: frozenset[str] | None
    dials: bool = False

    def beside(self, other: Hold) -> bool:
        """Both may hold the number."""
        if self.dials and other.dials:
            return True
        if self.callers is None or other.callers is None:
            return False
        return not self.callers & other.callers


@dataclass(frozen=True)
class Want:
    """A session that wants a number: to wait for calls (``dial`` None), or for a b-leg dial.

    ``callers``: whose calls it wants, None for everybody's.
    """

    session: str
    callers: frozenset[str] | None
    dial: str | None
    deadline: float

    @property
    def hold(self) -> Hold:
        return Hold(self.callers, self.dial is not None)


@dataclass
class Lease:
    """``row``: its override; ``holders``: session id -> what it holds the number for."""

    row: OverrideRow
    state: LeaseState
    holders: dict[str, Hold] = field(default_factory=dict)
    waiting: list[Want] = field(default_factory=list)

    @property
    def number(self) -> str:
        return self.row.number


class Leases:
    """All leases, by number. ``iso`` shows a time of the journal."""

    def __init__(self, iso: Callable[[float], str]) -> None:
        self.by_number: dict[str, Lease] = {}
        self._iso = iso

    def by_override(self, override: str) -> Lease | None:
        for lease in self.by_number.values():
            if lease.row.id == override:
                return lease
        return None

    def held_by(self, session: str) -> list[Lease]:
        return [lease for lease in self.by_number.values() if session in lease.holders]

    def take(self, lease: Lease, want: Want) -> bool:
        """Add the holder; False: the lease has to become free first, the want waits.

        NumberBusyError where another holder could mean the same calls.
        """
        if lease.state in ("unclaimed", "restoring"):
            if want not in lease.waiting:
                lease.waiting.append(want)
            return False
        for session, hold in lease.holders.items():
            if session != want.session and not want.hold.beside(hold):
                raise self.busy(lease, session)
        # A session answers or calls, never both, so what it holds already is the same.
        lease.holders[want.session] = want.hold
        return True

    def busy(self, lease: Lease, holder: str) -> NumberBusyError:
        since = self._iso(lease.row.since)
        return NumberBusyError(
            f"number {redact_number(lease.number)} is in use by session {holder} since {since}; "
            "close that one, or let both name disjoint allowed_callers",
            number=lease.number,
            holder=f"session {holder}",
            since=since,
        )

    def leave(self, session: str) -> list[Lease]:
        """Take the session out everywhere; returns the leases that have no holder any more."""
        left = []
        for lease in self.by_number.values():
            lease.waiting = [want for want in lease.waiting if want.session != session]
            if session in lease.holders:
                del lease.holders[session]
                if not lease.holders:
                    left.append(lease)
        return left
