"""Opening sessions: what they ask for is checked, their number is found on the account, or picked
from the pool. What was found is remembered for a while, and asked once for many.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from trunkline.bus import messages as m
from trunkline.bus.callers import caller_error, caller_key
from trunkline.bus.errors import (
    AccountMismatchError,
    InvalidRequestError,
    NumberBusyError,
    NumberNotFoundError,
    TrunklineError,
    WrongModeError,
)
from trunkline.bus.redact import is_e164, redact_number

from . import instructions as do
from .instructions import Asked
from .pool import SETTLES_WITHIN, Pool
from .session import ANY, REST_WITHIN, Session
from .tokens import digest, same

if TYPE_CHECKING:
    from .core import Core
    from .sessions import SessionRules

log = logging.getLogger("trunkline.controller")

#: A number's SID is remembered this long.
LOOKUP_KEPT: Final = 60.0


class Opening:
    """Sessions that are being opened, and numbers that are being looked up."""

    def __init__(self, core: Core, sessions: SessionRules) -> None:
        self._core = core
        self._sessions = sessions
        self._known: dict[str, tuple[str, float]] = {}  # number -> (sid, until)
        self._looking: dict[str, list[Session | str]] = {}  # number -> sessions, dial requests
        self._pool = Pool(core.rules.pool)

    def drop(self, session: str) -> None:
        """It waits for no number any more."""
        self._pool.drop(session)

    def tick(self, now: float) -> None:
        if self._pool:
            self._pool_overdue(now)
            self.serve_pool(now)

    def open(self, asked: Asked, info: m.SessionInfo, ttl: float, now: float) -> None:
        known = self._sessions.by_id.get(info.session)
        if known is not None:
            self.same_secret(known, info)
            if known.state == "closing":
                raise WrongModeError(f"session {known.id} is being closed")
            known.peer, known.renewed = asked.peer, now
            if known.state == "opening":
                known.opening.append(asked)
            else:
                self._opened(known, asked)
            return
        session = self.new(info, asked.peer, now)
        session.deadline = now + min(ttl, REST_WITHIN)
        session.opening.append(asked)
        self._sessions.by_id[session.id] = session
        if info.number != ANY:
            self.look_up(session.number, session, session.deadline, now)
        elif self._pool.known(now):
            session.deadline = now + ttl
            self._queue_for_pool((session,), now)
        else:
            self.look_up(ANY, session, session.deadline, now)

    def new(self, info: m.SessionInfo, peer: str, now: float) -> Session:
        if not info.session or not info.secret:
            raise InvalidRequestError("a session needs an id and a secret")
        if info.session in self._sessions.ended:
            raise WrongModeError(f"session {info.session} is over")
        account = self._core.identity.account
        if info.account is not None and info.account != account:
            raise AccountMismatchError(
                f"this stack belongs to Twilio account {account}, not to {info.account}"
            )
        _check(info)
        return Session(
            id=info.session,
            secret_hash=digest(info.secret),
            number=info.number,
            peer=peer,
            since=self._core.wall(now),
            renewed=now,
            allowed_callers=_set(info.allowed_callers, caller_key),
            allowed_callees=_set(info.allowed_callees),
            trace=info.trace,
        )

    def same_secret(self, session: Session, info: m.SessionInfo) -> None:
        if not same(session.secret_hash, digest(info.secret)):
            raise InvalidRequestError(f"session {info.session} exists, with another secret")

    def _queue_for_pool(self, sessions: Iterable[Session], now: float) -> None:
        for session in sessions:
            if self._pool.size:
                self._pool.add(session.id)
            else:
                missing = NumberNotFoundError("the account has no phone number", number=ANY)
                self._refuse_opening(session, missing)
        self.serve_pool(now)

    def serve_pool(self, now: float) -> None:
        """Free numbers to those who wait for one, first come first."""
        if not self._pool:
            return
        identity = self._core.identity
        if identity.epoch > 1 and now - identity.started < SETTLES_WITHIN:
            return  # sessions of before have not said yet which numbers they are on
        while True:
            used = {s.number for s in self._sessions.by_id.values()} | set(
                self._sessions.leases.by_number
            )
            found = self._pool.hand_out(used)
            if found is None:
                break
            session = self._sessions.by_id[found[0]]
            session.number = found[1]
            session.deadline = now + REST_WITHIN
            self.look_up(session.number, session, session.deadline, now)
        for session_id, place in self._pool.new_places():
            session = self._sessions.by_id[session_id]
            self._core.send(session.peer, m.PoolQueued(session=session_id, place=place))

    def _pool_overdue(self, now: float) -> None:
        """Who has waited for a number for as long as it would."""
        for session in list(self._sessions.by_id.values()):
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

    def look_up(self, number: str, who: Session | str, deadline: float, now: float) -> None:
        """Find a number's SID for a session, or for a dial (its request id); then that goes on."""
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
            self._sessions.want(who, now)

    def _not_found(self, who: Session | str, error: TrunklineError, now: float) -> None:
        if isinstance(who, str):
            self._core.dials.lease_refused(who, error, now)
        elif who.state == "opening":
            self._refuse_opening(who, error)
        elif who.state in ("arming", "disarming"):
            self._sessions.arm_refused(who, error, now)

    def _refuse_opening(self, session: Session, error: TrunklineError) -> None:
        session.step("refused")
        self._sessions.by_id.pop(session.id, None)
        self._pool.drop(session.id)
        for asked in session.opening:
            self._core.fail(asked, error)
        session.opening.clear()


def _check(info: m.SessionInfo) -> None:
    """InvalidRequestError where a number is none, or a caller is nothing that a carrier reports."""
    numbers = [("number", info.number)] if info.number != ANY else []
    numbers += [("allowed_callees", number) for number in info.allowed_callees or ()]
    for name, number in numbers:
        if not is_e164(number):
            raise InvalidRequestError(
                f"{name}: {redact_number(number)} is not in E.164 format (expected e.g. "
                "'+14155551234')"
            )
    for place, caller in enumerate(info.allowed_callers or ()):
        why = caller_error(caller)
        if why is not None:
            raise InvalidRequestError(f"allowed_callers[{place}] {why}")


def _set(numbers: list[str] | None, key: Callable[[str], str] = str) -> frozenset[str] | None:
    # An empty list of callers lets nobody in; of callees, nobody may be called.
    return None if numbers is None else frozenset(key(number) for number in numbers)
