"""Sessions and the numbers that they hold: arming, leases, closing, losing.

The rules in prose and the literal transition table are in :mod:`.tables`. Closing is one path:
asked for, the lease lost, the stack shut down. Numbers are put back first, calls hung up beside
that; the answer waits for both, for :data:`CLOSE_WITHIN` seconds at most, and names what is pending
then.
"""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING, Final

from trunkline.bus import messages as m
from trunkline.bus.errors import NumberBusyError, TimedOutError, TrunklineError, WrongModeError
from trunkline.bus.redact import redact_number

from . import instructions as do
from .claims import Claims
from .instructions import Asked
from .journal import OverrideRow
from .leases import Lease, Leases, Want
from .opening import Opening
from .session import REST_WITHIN, Session

if TYPE_CHECKING:
    from .core import Core

log = logging.getLogger("trunkline.controller")

#: A session whose adapter was not heard of for so long is lost. With the time that a restore
#: takes this keeps within the 10 s after which a killed client's numbers are as before.
LEASE_SECONDS: Final = 9.0
#: How long CloseSession waits for restores and hang-ups before it says what is pending.
CLOSE_WITHIN: Final = 8.0
#: Sessions that are over and are remembered, at most.
ENDED_KEPT: Final = 10_000


class SessionRules:
    """All sessions and leases."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.by_id: dict[str, Session] = {}
        self.leases = Leases(core.iso)
        #: overrides that are being put back beside the lease on their number: a journal had two
        self.beside: dict[str, OverrideRow] = {}
        self.opening = Opening(core, self)
        self.claims = Claims(core, self)
        #: sessions that ended in this epoch: they do not come back
        self.ended: dict[str, None] = {}

    # ------------------------------------------------------------------ arming

    def of(self, peer: str, session_id: str) -> Session:
        """The peer's session. WrongModeError where it has none of that id (any more)."""
        session = self.by_id.get(session_id)
        if session is None or session.peer != peer:
            raise WrongModeError(
                f"session {session_id} is not known here: it was closed, or its lease ran out"
            )
        return session

    def check_mode(self, session: Session, mode: str) -> None:
        if session.mode not in ("idle", mode):
            raise WrongModeError(
                f"already in {session.mode!r} mode; cannot switch to {mode!r}. Disconnect and "
                "reconnect to reuse this session in the other direction."
            )

    def arm(
        self,
        asked: Asked,
        session_id: str,
        ttl: float,
        now: float,
        *,
        trace: dict[str, str] | None = None,
    ) -> None:
        session = self.of(asked.peer, session_id)
        session.trace = trace or {}
        self.check_mode(session, "answer")
        was = session.state
        session.step("arm")
        session.deadline = now + min(ttl, REST_WITHIN)
        if session.state in ("armed", "taken"):
            self._core.reply(asked, m.Armed(session=session.id))
            return
        session.arming.append(asked)
        if was in ("arming", "disarming"):
            return
        session.arm_call = None
        lease = self.leases.by_number.get(session.number)
        if lease is not None and session.id in lease.holders and lease.state == "applied":
            self._armed(session)
        elif session.number_sid:
            self.want(session, now)
        else:
            self.opening.look_up(session.number, session, session.deadline, now)

    def want(self, session: Session, now: float) -> None:
        want = Want(session.id, session.allowed_callers, None, session.deadline)
        self.lease(want, session.number, session.number_sid, now)

    def lease(self, want: Want, number: str, sid: str, now: float) -> None:
        """Take the number for ``want``; it is told by granted or refused, now or later."""
        lease = self.leases.by_number.get(number)
        if lease is None:
            session = self.by_id[want.session]
            row = OverrideRow(
                id=secrets.token_hex(8),
                number=number,
                number_sid=sid,
                session=want.session,
                state="planned",
                since=self._core.wall(now),
                holders={want.session: session.secret_hash},
            )
            lease = self.leases.by_number[number] = Lease(row, "applying")
            lease.holders[want.session] = want.hold
            lease.waiting.append(want)
            self._core.do(do.Apply(row, want.deadline))
            return
        new = want.session not in lease.holders
        try:
            if not self.leases.take(lease, want):
                return
        except NumberBusyError as error:
            self._refused(want, error, now)
            return
        if new:
            session = self.by_id[want.session]
            self._core.do(do.KeepHolder(lease.row.id, number, session.id, session.secret_hash))
        if lease.state == "applied":
            self._granted(want, now)
        else:
            lease.waiting.append(want)

    def _granted(self, want: Want, now: float) -> None:
        if want.dial is not None:
            self._core.dials.leased(want.dial, now)
            return
        session = self.by_id.get(want.session)
        if session is not None:
            self._armed(session)

    def _armed(self, session: Session) -> None:
        session.step("armed")
        for asked in session.arming:
            self._core.reply(asked, m.Armed(session=session.id))
        session.arming.clear()

    def _refused(self, want: Want, error: TrunklineError, now: float) -> None:
        if want.dial is not None:
            self._core.dials.lease_refused(want.dial, error, now)
            return
        session = self.by_id.get(want.session)
        if session is not None and session.state in ("arming", "disarming"):
            self.arm_refused(session, error, now)

    def arm_refused(self, session: Session, error: TrunklineError, now: float) -> None:
        if session.state == "arming" and not session.arming:
            # Armed before a restart, so nobody asks: its client must hear that it is no more.
            self.lose(session, f"its number could not be armed again: {error}", now)
            return
        session.step("refused")
        for asked in session.arming:
            self._core.fail(asked, error)
        session.arming.clear()

    def disarm(self, asked: Asked, session_id: str, now: float) -> None:
        session = self.of(asked.peer, session_id)
        self.check_mode(session, "answer")
        session.step("disarm")
        self._core.reply(asked, m.Done())
        for waiting in session.arming:
            self._core.fail(waiting, WrongModeError("disarmed meanwhile"))
        session.arming.clear()
        if session.arm_call is not None:
            # It came in for somebody who waits no more.
            self._core.calls.end(session.arm_call, "hang_up", now)
            session.arm_call = None

    # ------------------------------------------------------------------ what REST says

    def applied(self, row: OverrideRow, now: float) -> None:
        lease = self.leases.by_override(row.id)
        assert lease is not None, "an override was applied that nobody holds"
        lease.row = row
        lease.state = "applied"
        waiting, lease.waiting = lease.waiting, []
        if not lease.holders:
            self.restore(lease)
            lease.waiting = waiting
            return
        for want in waiting:
            if want.session in lease.holders:
                self._granted(want, now)

    def apply_failed(self, result: do.ApplyFailed, now: float) -> None:
        lease = self.leases.by_override(result.row.id)
        assert lease is not None
        waiting, lease.waiting = lease.waiting, []
        lease.holders.clear()
        if result.open:
            self.restore(lease)
        else:
            del self.leases.by_number[lease.number]
            self._left(result.row.id)
        for want in waiting:
            self._refused(want, result.error, now)

    def restore(self, lease: Lease) -> None:
        lease.state = "restoring"
        self._core.do(do.Restore(lease.row.id))

    def restored(self, result: do.Restored, now: float) -> None:
        self._core.counts[f"overrides {result.outcome}"] += 1
        self.beside.pop(result.override, None)
        lease = self.leases.by_override(result.override)
        if lease is not None:
            del self.leases.by_number[lease.number]
            for want in lease.waiting:
                if want.session in self.by_id:
                    self.lease(want, lease.number, lease.row.number_sid, now)
        self._left(result.override)
        self.opening.serve_pool(now)

    def _left(self, override: str) -> None:
        for session in list(self.by_id.values()):
            if session.restoring.pop(override, None) is not None:
                self.perhaps_closed(session)

    # ------------------------------------------------------------------ closing

    def close_asked(self, asked: Asked, session_id: str, now: float) -> None:
        session = self.by_id.get(session_id)
        if session is None or session.peer != asked.peer:
            # Closed already, or lost: there is nothing left to do for it.
            self._core.reply(asked, m.SessionClosed(session=session_id))
            return
        session.closing.append(asked)
        self.close(session, now)

    def close(self, session: Session, now: float) -> None:
        """Put its numbers back, hang up its calls; then it is gone."""
        if session.state == "closing":
            return
        session.step("close")
        session.close_by = now + CLOSE_WITHIN
        self.opening.drop(session.id)
        for asked in (*session.opening, *session.arming):
            self._core.fail(asked, WrongModeError(f"session {session.id} was closed meanwhile"))
        session.opening.clear()
        session.arming.clear()
        for lease in self.leases.held_by(session.id):
            if list(lease.holders) == [session.id]:
                session.restoring[lease.row.id] = lease.number
        for lease in self.leases.leave(session.id):
            if lease.state == "applied":
                self.restore(lease)
        self._core.dials.close_session(session.id, now)
        self._core.calls.close_session(session.id, now)
        self.perhaps_closed(session)

    def perhaps_closed(self, session: Session, *, give_up: bool = False) -> None:
        """Finish a closing session that has nothing left (or, ``give_up``, waits no longer)."""
        if session.state != "closing":
            return
        if not give_up and (session.restoring or self._core.calls.has_live(session.id)):
            return
        pending = list(session.restoring.values())
        for asked in session.closing:
            self._core.reply(asked, m.SessionClosed(session=session.id, pending=pending))
        session.step("closed")
        self.by_id.pop(session.id, None)
        self.ended[session.id] = None
        if len(self.ended) > ENDED_KEPT:
            del self.ended[next(iter(self.ended))]
        log.info("session %s on %s is over", session.id, redact_number(session.number))

    def close_all(self, why: str, now: float) -> None:
        for session in list(self.by_id.values()):
            self.lose(session, why, now)

    def lose(self, session: Session, why: str, now: float) -> None:
        """The same path as closing, and the adapter is told (if it is there)."""
        if session.state == "closing":
            return
        log.warning("session %s on %s is lost: %s", session.id, redact_number(session.number), why)
        self._core.counts["sessions lost"] += 1
        self._core.send(session.peer, m.SessionLost(session=session.id, why=why))
        self.close(session, now)

    def peer_left(self, peer: str, now: float) -> None:
        """An adapter said Goodbye: what it left open is closed."""
        for session in list(self.by_id.values()):
            if session.peer == peer:
                self.close(session, now)

    # ------------------------------------------------------------------ leases in time

    def renew(self, beat: m.Beat, now: float) -> None:
        for session_id in beat.sessions:
            session = self.by_id.get(session_id)
            if session is not None and session.peer == beat.peer:
                session.renewed = now
            elif session_id in self.ended:
                # It missed its SessionLost.
                self._core.send(beat.peer, m.SessionLost(session=session_id, why="it is over"))

    def shift(self, seconds: float) -> None:
        for session in self.by_id.values():
            session.renewed += seconds

    def tick(self, now: float) -> None:
        self.opening.tick(now)
        for session in list(self.by_id.values()):
            if session.state == "closing":
                if now >= session.close_by:
                    self.perhaps_closed(session, give_up=True)
            elif now - session.renewed > LEASE_SECONDS:
                self.lose(session, "its client was not heard of any more", now)
        for lease in list(self.leases.by_number.values()):
            for want in [w for w in lease.waiting if now > w.deadline]:
                if lease.state in ("restoring", "unclaimed"):
                    lease.waiting.remove(want)
                    self._refused(want, self._still(lease), now)

    def _still(self, lease: Lease) -> TrunklineError:
        shown = redact_number(lease.number)
        since = self._core.iso(lease.row.since)
        if lease.state == "unclaimed":
            return TimedOutError(
                f"number {shown} is held for session {lease.row.session}, which has it since "
                f"{since} and has not announced itself since this controller started"
            )
        return TimedOutError(
            f"number {shown} is still being put back after its last use by session "
            f"{lease.row.session} since {since}; Twilio has not taken it yet (the controller's "
            "log says why)"
        )
