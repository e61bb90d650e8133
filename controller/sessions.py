"""Sessions and the numbers that they hold: opening, arming, closing, losing, claiming again.

The rules in prose and the literal transition table are in :mod:`.tables`. Closing is one path: asked
for, the lease lost, the stack shut down. Numbers are put back first, calls hung up beside that; the
answer waits for both, for :data:`CLOSE_WITHIN` seconds at most, and names what is pending then.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from trunkline.bus import messages as m
from trunkline.bus.errors import (
    AccountMismatchError,
    InvalidRequestError,
    NumberBusyError,
    NumberNotFoundError,
    TimedOutError,
    TrunklineError,
    WrongModeError,
)
from trunkline.bus.redact import is_e164, redact_number

from . import instructions as do
from .instructions import Asked
from .journal import OverrideRow
from .leases import Lease, Leases, Want
from .pool import SETTLES_WITHIN, Pool
from .tables import MODES, SESSION, IllegalTransition, step
from .tokens import digest, same

if TYPE_CHECKING:
    from .core import Core

log = logging.getLogger("trunkline.controller")

#: A session whose adapter was not heard of for so long is lost. With the time that a restore
#: takes this keeps within the 10 s after which a killed client's numbers are as before.
LEASE_SECONDS: Final = 9.0
#: How long CloseSession waits for restores and hang-ups before it says what is pending.
CLOSE_WITHIN: Final = 8.0
#: A number's SID is remembered this long.
LOOKUP_KEPT: Final = 60.0
#: What reading and writing a number may take, retries included, whatever the request's ttl.
REST_WITHIN: Final = 30.0
ANY: Final = "any"


@dataclass
class Session:
    """An adapter's session. ``since``: Unix time; ``renewed``: monotonic, of the last beat."""

    id: str
    secret_hash: str
    number: str
    peer: str
    since: float
    renewed: float
    allowed_callers: frozenset[str] | None = None
    allowed_callees: frozenset[str] | None = None
    number_sid: str = ""
    #: of the last Arm: what a call that comes in belongs to
    trace: dict[str, str] = field(default_factory=dict)
    state: str = "opening"
    #: requests that wait for the session's next state
    opening: list[Asked] = field(default_factory=list)
    arming: list[Asked] = field(default_factory=list)
    closing: list[Asked] = field(default_factory=list)
    #: the call that came in under the last Arm
    arm_call: str | None = None
    #: numbers that are being put back because of this session
    restoring: dict[str, str] = field(default_factory=dict)  # override -> number
    close_by: float = float("inf")
    deadline: float = float("inf")

    @property
    def mode(self) -> str:
        return MODES.get(self.state, "idle")

    def step(self, event: str) -> None:
        self.state = step(SESSION, self.state, event, f"session {self.id}")


class SessionRules:
    """All sessions and leases."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.by_id: dict[str, Session] = {}
        self.leases = Leases(core.iso)
        #: sessions that ended in this epoch: they do not come back
        self._ended: dict[str, float] = {}
        self._known: dict[str, tuple[str, float]] = {}  # number -> (sid, until)
        self._looking: dict[str, list[Session | str]] = {}  # number -> sessions, dial requests
        self._pool = Pool(core.rules.pool)

    # ------------------------------------------------------------------ opening

    def open(self, asked: Asked, info: m.SessionInfo, ttl: float, now: float) -> None:
        known = self.by_id.get(info.session)
        if known is not None:
            self._same_secret(known, info)
            known.peer, known.renewed = asked.peer, now
            if known.state == "opening":
                known.opening.append(asked)
            else:
                self._opened(known, asked)
            return
        session = self._new(info, asked.peer, now)
        session.deadline = now + min(ttl, REST_WITHIN)
        session.opening.append(asked)
        self.by_id[session.id] = session
        if info.number != ANY:
            self._look_up(session.number, session, session.deadline, now)
        elif self._pool.known(now):
            session.deadline = now + ttl
            self._queue_for_pool((session,), now)
        else:
            self._look_up(ANY, session, session.deadline, now)

    def _new(self, info: m.SessionInfo, peer: str, now: float) -> Session:
        if not info.session or not info.secret:
            raise InvalidRequestError("a session needs an id and a secret")
        if info.session in self._ended:
            raise WrongModeError(f"session {info.session} is over")
        account = self._core.identity.account
        if info.account is not None and info.account != account:
            raise AccountMismatchError(
                f"this stack belongs to Twilio account {account}, not to {info.account}"
            )
        for number in (
            *((info.number,) if info.number != ANY else ()),
            *(info.allowed_callers or ()),
            *(info.allowed_callees or ()),
        ):
            if not is_e164(number):
                raise InvalidRequestError(
                    f"{redact_number(number)} is not in E.164 format (expected e.g. '+14155551234')"
                )
        return Session(
            id=info.session,
            secret_hash=digest(info.secret),
            number=info.number,
            peer=peer,
            since=self._core.wall(now),
            renewed=now,
            allowed_callers=_set(info.allowed_callers),
            allowed_callees=_set(info.allowed_callees),
            trace=info.trace,
        )

    def _same_secret(self, session: Session, info: m.SessionInfo) -> None:
        if not same(session.secret_hash, digest(info.secret)):
            raise InvalidRequestError(f"session {info.session} exists, with another secret")

    def _queue_for_pool(self, sessions: Iterable[Session], now: float) -> None:
        for session in sessions:
            if self._pool.size:
                self._pool.add(session.id)
            else:
                missing = NumberNotFoundError("the account has no phone number", number=ANY)
                self._refuse_opening(session, missing)
        self._serve_pool(now)

    def _serve_pool(self, now: float) -> None:
        """Free numbers to those who wait for one, first come first."""
        if not self._pool:
            return
        identity = self._core.identity
        if identity.epoch > 1 and now - identity.started < SETTLES_WITHIN:
            return  # sessions of before have not said yet which numbers they are on
        while True:
            used = {s.number for s in self.by_id.values()} | set(self.leases.by_number)
            found = self._pool.hand_out(used)
            if found is None:
                break
            session = self.by_id[found[0]]
            session.number = found[1]
            session.deadline = now + REST_WITHIN
            self._look_up(session.number, session, session.deadline, now)
        for session_id, place in self._pool.new_places():
            session = self.by_id[session_id]
            self._core.send(session.peer, m.PoolQueued(session=session_id, place=place))

    def _pool_overdue(self, now: float) -> None:
        """Who has waited for a number for as long as it would."""
        for session in list(self.by_id.values()):
            if session.number == ANY and session.state == "opening" and now > session.deadline:
                self._refuse_opening(
                    session,
                    NumberBusyError(
                        f"all {self._pool.size} numbers of the pool are in use",
                        number=ANY,
                        holder="the pool",
                    ),
                )

    def _opened(self, session: Session, asked: Asked) -> None:
        self._core.reply(
            asked,
            m.SessionOpened(
                session=session.id,
                number=session.number,
                number_sid=session.number_sid,
                account=self._core.identity.account,
                public_url=self._core.identity.public_url,
            ),
        )

    # ------------------------------------------------------------------ looking numbers up

    def look_up_for_dial(self, number: str, request: str, deadline: float, now: float) -> None:
        """Find the callee's SID; then the dial goes on."""
        self._look_up(number, request, deadline, now)

    def _look_up(self, number: str, who: Session | str, deadline: float, now: float) -> None:
        sid, until = self._known.get(number, ("", 0.0))
        if now < until:
            self._found(who, number, sid, now)
            return
        waiting = self._looking.setdefault(number, [])
        waiting.append(who)
        if len(waiting) == 1:
            self._core.do(
                do.ListNumbers(deadline) if number == ANY else do.LookUp(number, deadline)
            )

    def looked_up(
        self, result: do.NumberFound | do.NumbersListed | do.LookUpFailed, now: float
    ) -> None:
        if isinstance(result, do.NumbersListed):
            for number, sid in result.numbers:
                self._known[number] = (sid, now + LOOKUP_KEPT)
            self._pool.listed([number for number, _ in result.numbers], now + LOOKUP_KEPT)
            asked = [who for who in self._looking.pop(ANY, []) if isinstance(who, Session)]
            self._queue_for_pool([who for who in asked if who.state == "opening"], now)
            return
        waiting = self._looking.pop(result.number, [])
        if isinstance(result, do.LookUpFailed):
            for who in waiting:
                self._not_found(who, result.error, now)
        elif result.sid is None:
            missing = NumberNotFoundError(
                "No incoming phone number found on this Twilio account matching "
                f"'{redact_number(result.number)}'. Check that the number is purchased and in "
                "E.164.",
                number=result.number,
            )
            for who in waiting:
                self._not_found(who, missing, now)
        else:
            self._known[result.number] = (result.sid, now + LOOKUP_KEPT)
            for who in waiting:
                self._found(who, result.number, result.sid, now)

    def _found(self, who: Session | str, number: str, sid: str, now: float) -> None:
        if isinstance(who, str):
            self._core.dials.callee_found(who, sid, now)
            return
        who.number_sid = sid
        if who.state == "opening":
            who.step("opened")
            log.info("session %s opened on %s", who.id, redact_number(number))
            for asked in who.opening:
                self._opened(who, asked)
            who.opening.clear()
        elif who.state in ("arming", "disarming"):
            self._want(who, now)

    def _not_found(self, who: Session | str, error: TrunklineError, now: float) -> None:
        if isinstance(who, str):
            self._core.dials.lease_refused(who, error, now)
        elif who.state == "opening":
            self._refuse_opening(who, error)
        elif who.state in ("arming", "disarming"):
            self._arm_refused(who, error)

    def _refuse_opening(self, session: Session, error: TrunklineError) -> None:
        session.step("refused")
        self.by_id.pop(session.id, None)
        self._pool.drop(session.id)
        for asked in session.opening:
            self._core.fail(asked, error)
        session.opening.clear()

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
            self._want(session, now)
        else:
            self._look_up(session.number, session, session.deadline, now)

    def _want(self, session: Session, now: float) -> None:
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
            lease.holders[want.session] = want.callers
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
            self._arm_refused(session, error)

    def _arm_refused(self, session: Session, error: TrunklineError) -> None:
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
            self._restore(lease)
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
            self._restore(lease)
        else:
            del self.leases.by_number[lease.number]
            self._left(result.row.id)
        for want in waiting:
            self._refused(want, result.error, now)

    def _restore(self, lease: Lease) -> None:
        lease.state = "restoring"
        self._core.do(do.Restore(lease.row.id))

    def restored(self, result: do.Restored, now: float) -> None:
        self._core.counts[f"overrides {result.outcome}"] += 1
        lease = self.leases.by_override(result.override)
        if lease is not None:
            del self.leases.by_number[lease.number]
            for want in lease.waiting:
                if want.session in self.by_id:
                    self.lease(want, lease.number, lease.row.number_sid, now)
        self._left(result.override)
        self._serve_pool(now)

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
        self._pool.drop(session.id)
        for asked in (*session.opening, *session.arming):
            self._core.fail(asked, WrongModeError(f"session {session.id} was closed meanwhile"))
        session.opening.clear()
        session.arming.clear()
        for lease in self.leases.held_by(session.id):
            if list(lease.holders) == [session.id]:
                session.restoring[lease.row.id] = lease.number
        for lease in self.leases.leave(session.id):
            if lease.state == "applied":
                self._restore(lease)
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
        self._ended[session.id] = session.renewed
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
            elif session_id in self._ended:
                # It missed its SessionLost.
                self._core.send(beat.peer, m.SessionLost(session=session_id, why="it is over"))

    def shift(self, seconds: float) -> None:
        for session in self.by_id.values():
            session.renewed += seconds

    def tick(self, now: float) -> None:
        if self._pool:
            self._pool_overdue(now)
            self._serve_pool(now)
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
        return TimedOutError(f"number {shown} is still being put back after its last use")

    # ------------------------------------------------------------------ after a restart

    def recover(self, rows: Sequence[OverrideRow], orphans: Sequence[OverrideRow]) -> None:
        """Open rows of the journal: held until their sessions announce themselves, or restored.

        ``orphans``: rows of other stacks that are gone, which nobody can claim here.
        """
        for row in rows:
            self.leases.by_number[row.number] = lease = Lease(row, "unclaimed")
            if row.state == "restoring" or row.prior is None:
                self._restore(lease)
        for row in orphans:
            if row.number not in self.leases.by_number:
                self.leases.by_number[row.number] = Lease(row, "restoring")
            self._core.do(do.Restore(row.id))

    def announced(self, hello: m.Hello, now: float) -> list[str]:
        """An adapter says what it has; returns the sessions that it does not have any more."""
        unknown = []
        for info in hello.sessions:
            try:
                self._announced(info, hello.peer, now)
            except TrunklineError as error:
                log.warning("session %s is not taken back: %s", info.session, error)
                unknown.append(info.session)
        return unknown

    def _announced(self, info: m.SessionInfo, peer: str, now: float) -> None:
        session = self.by_id.get(info.session)
        if session is not None:
            self._same_secret(session, info)
            if session.state == "closing":
                raise WrongModeError("it is being closed")
            session.peer, session.renewed = peer, now
        else:
            if not self._core.claiming:
                raise WrongModeError("its lease is long gone")
            rows = [x.row for x in self.leases.by_number.values() if info.session in x.row.holders]
            for row in rows:
                if not same(row.holders[info.session], digest(info.secret)):
                    raise InvalidRequestError("the secret is wrong")
            session = self._reclaim(info, peer, now)
        self._core.calls.claimed(session, info.calls, now)
        self._core.dials.claimed(session, info.dials, now)

    def _reclaim(self, info: m.SessionInfo, peer: str, now: float) -> Session:
        session = self._new(info, peer, now)
        session.state = {"answer": "standing", "call": "calling"}.get(info.mode, "idle")
        session.deadline = now + REST_WITHIN
        self.by_id[session.id] = session
        for lease in self.leases.by_number.values():
            if session.id not in lease.row.holders or lease.state == "restoring":
                continue
            if lease.number == session.number and info.mode == "answer":
                session.number_sid = lease.row.number_sid
                lease.holders[session.id] = session.allowed_callers
                if info.armed:
                    session.state = "armed" if lease.row.state == "applied" else "arming"
                    want = Want(session.id, session.allowed_callers, None, session.deadline)
                    if session.state == "arming":
                        lease.waiting.insert(0, want)
            else:
                lease.holders[session.id] = frozenset((session.number,))
            self._claim(lease, session.deadline)
        log.info("session %s is back on %s", session.id, redact_number(session.number))
        return session

    def _claim(self, lease: Lease, deadline: float) -> None:
        if lease.state != "unclaimed":
            return
        if lease.row.state == "applied":
            lease.state = "applied"
        else:
            lease.state = "applying"
            self._core.do(do.Apply(lease.row, deadline))
        # Others that wanted the number meanwhile: it has a holder again.
        waiting, lease.waiting = lease.waiting, []
        for want in waiting:
            if want.session in lease.holders:
                lease.waiting.append(want)
            else:
                self.lease(want, lease.number, lease.row.number_sid, self._core.claim_until)

    def tell_again(self, peer: str, now: float) -> None:
        """After a Welcome: what an adapter that reconnected may have missed."""
        for session in self.by_id.values():
            if session.peer == peer:
                self._core.calls.tell_again(session, now)

    def claims_over(self, now: float) -> None:
        for lease in self.leases.by_number.values():
            if lease.state == "unclaimed" or (lease.state == "applied" and not lease.holders):
                self._restore(lease)


def _set(numbers: list[str] | None) -> frozenset[str] | None:
    # An empty list of callers lets nobody in; of callees, nobody may be called.
    return None if numbers is None else frozenset(numbers)


__all__ = ["LEASE_SECONDS", "IllegalTransition", "Session", "SessionRules"]
