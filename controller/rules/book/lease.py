"""A lease: an override of ours on a number, and the sessions that hold the number by it.

One number has one override at a time. Its holders are sessions that wait for calls to it, and
(b-leg) sessions that call it. Several may wait for calls as long as the caller tells whose a call
is: their sets of callers must be disjoint, from one another and from the numbers of those that call
it. Those that call it need not differ, because one call at a time is set up there
(:mod:`..turns`). The number is put back when its last holder leaves. Whoever wants it while it is
put back waits.

For example, a session that takes calls from Anna and one that takes calls from Ben can share a
number. A third one that takes everybody's calls is refused, and hears who holds the number.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from trunkline.bus.errors import NumberBusyError
from trunkline.bus.redact import redact_number

from ...instructions import Restore
from ...journal.rows import OverrideRow
from ..tables import LEASE, Subject


def iso(wall: float) -> str:
    """A Unix time as ISO 8601, UTC."""
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Hold:
    """Why a session holds a number: for the calls of ``callers`` (None: of everybody), or for its
    own dials to it, which come from its number (``dials``)."""

    callers: frozenset[str] | None
    dials: bool = False

    def may_share(self, other: Hold) -> bool:
        """Both may hold the number."""
        if self.dials and other.dials:
            return True
        if self.callers is None or other.callers is None:
            return False
        return not self.callers & other.callers


@dataclass(frozen=True)
class LeaseRequest:
    """A session that wants a number: to wait for calls (``dial`` None), or for a b-leg dial.

    ``callers``: whose calls it wants, None for everybody's.
    """

    session: str
    callers: frozenset[str] | None
    dial: str | None
    deadline: float

    @property
    def hold(self) -> Hold:
        """Why the session will hold the number, once this request is granted."""
        return Hold(self.callers, self.dial is not None)


@dataclass
class Lease(Subject):
    """``row``: its override, as it was planned, found or written. ``state`` alone says how the
    override stands now. ``holders``: session id -> why it holds the number.

    A session that closes goes from ``holders`` to ``leaving`` if it was the last one: it waits for
    the number to be as before, and so does whoever closed it.
    """

    TABLE, KIND = LEASE, "override"

    row: OverrideRow
    state: str = field(default="applying", kw_only=True)
    holders: dict[str, Hold] = field(default_factory=dict)
    waiting: list[LeaseRequest] = field(default_factory=list)
    #: sessions that close, and are over when the number is back
    leaving: list[str] = field(default_factory=list)
    #: when it began to be put back
    restoring_since: float | None = None
    #: an earlier controller made its override
    found: bool = False

    @property
    def number(self) -> str:
        """The number that it is on."""
        return self.row.number

    @property
    def since(self) -> str:
        """When it began, as ISO 8601 in UTC."""
        return iso(self.row.since)

    @property
    def unclaimed(self) -> bool:
        """The journal had it, and none of its sessions has announced itself yet."""
        return self.state in ("planned", "unclaimed")

    def __str__(self) -> str:
        return f"override {self.row.id} on {redact_number(self.number)}"

    # ------------------------------------------------------------------ who holds it

    def take(self, request: LeaseRequest) -> bool:
        """Add the holder. False: the lease has to become free first, and the request waits.

        NumberBusyError where another holder could mean the same calls.
        """
        if self.unclaimed or self.state == "restoring":
            if request not in self.waiting:
                self.waiting.append(request)
            return False
        for session, hold in self.holders.items():
            if session != request.session and not request.hold.may_share(hold):
                raise self._busy(session)
        # A session answers or calls, never both, so what it holds already is the same.
        self.holders[request.session] = request.hold
        return True

    def _busy(self, holder: str) -> NumberBusyError:
        """Names the holder: the one who is refused can look for it, or wait."""
        return NumberBusyError(
            f"number {redact_number(self.number)} is in use by session {holder} since "
            f"{self.since}; close that one, or let both name disjoint allowed_callers",
            number=self.number,
            holder=f"session {holder}",
            since=self.since,
        )

    def hold(self, session: str, hold: Hold) -> None:
        """After a restart: the session has the number from before."""
        self.holders[session] = hold

    def wait(self, request: LeaseRequest, *, first: bool = False) -> None:
        """The request is granted once the override is on."""
        self.waiting.insert(0 if first else len(self.waiting), request)

    def give_up(self, request: LeaseRequest) -> None:
        """Its deadline has passed, and whoever waits is refused."""
        self.waiting.remove(request)

    def take_waiting(self) -> list[LeaseRequest]:
        """Those who wait; whoever takes them grants, refuses or queues them again."""
        waiting, self.waiting = self.waiting, []
        return waiting

    def leave(self, session: str) -> bool:
        """The session closes. True: nobody holds the number any more."""
        self.waiting = [request for request in self.waiting if request.session != session]
        if session not in self.holders:
            return False
        if list(self.holders) == [session]:
            self.leaving.append(session)
        del self.holders[session]
        return not self.holders

    # ------------------------------------------------------------------ how its override stands

    def claim(self) -> None:
        """A session that held it before a restart is back."""
        self.step("claimed")

    def applied(self, row: OverrideRow) -> None:
        """Twilio has confirmed it. ``row`` has the settings from before by now."""
        self.step("applied")
        self.row = row

    def drop_holders(self) -> None:
        """The override could not be put on, so nobody holds the number."""
        self.holders.clear()

    def put_back(self, now: float) -> Restore:
        """The number is to be put back, however long that takes. No way leads back from here: a
        session that wants the number meanwhile gets a new lease afterwards."""
        self.step("put_back")
        return self.begin_restore(now)

    def begin_restore(self, now: float) -> Restore:
        """Restoring begins now. After a restart the lease may have entered as *restoring*, because
        the journal says so already."""
        self.restoring_since = now
        return Restore(self.row.id)

    def restored(self, now: float) -> float:
        """The number is as it was; the seconds that this took."""
        self.step("restored")
        assert self.restoring_since is not None, "the step is legal for a lease that is put back"
        return now - self.restoring_since
