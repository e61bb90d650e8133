"""Sessions after a restart: they announce themselves again and claim what is theirs.

Open overrides are *unclaimed* until then. What nobody has claimed when the time is over is put
back, and its calls are hung up.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trunkline.bus import messages as m
from trunkline.bus.errors import InvalidRequestError, TrunklineError, WrongModeError
from trunkline.bus.redact import redact_number

from . import instructions as do
from .journal import OverrideRow
from .leases import Hold, Lease, Want
from .session import REST_WITHIN, Session
from .tokens import digest, same

if TYPE_CHECKING:
    from .core import Core
    from .sessions import SessionRules

log = logging.getLogger("trunkline.controller")


class Claims:
    """What was, and whose it is."""

    def __init__(self, core: Core, sessions: SessionRules) -> None:
        self._core = core
        self._sessions = sessions

    def recover(self, rows: Sequence[OverrideRow], orphans: Sequence[OverrideRow]) -> None:
        """Open rows of the journal: held until their sessions announce themselves, or restored.

        ``orphans``: rows of other stacks that are gone, which nobody can claim here.
        """
        leases = self._sessions.leases.by_number
        for row in rows:
            if row.number in leases:
                # An earlier override of the same number: only one of them can stand there.
                self._beside(row)
                continue
            leases[row.number] = lease = Lease(row, "unclaimed")
            if row.state == "restoring" or row.prior is None:
                self._sessions.restore(lease)
        self.adopt(orphans)

    def adopt(self, orphans: Sequence[OverrideRow]) -> None:
        """Put back what other stacks left."""
        leases = self._sessions.leases.by_number
        for row in orphans:
            if row.number in leases:
                self._beside(row)
            else:
                leases[row.number] = Lease(row, "restoring")
                self._core.do(do.Restore(row.id))

    def _beside(self, row: OverrideRow) -> None:
        self._sessions.beside[row.id] = row
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
        session = self._sessions.by_id.get(info.session)
        if session is not None:
            self._sessions.opening.same_secret(session, info)
            if session.state == "closing":
                raise WrongModeError("it is being closed")
            session.peer, session.renewed = peer, now
        else:
            if not self._core.claiming:
                raise WrongModeError("its lease is long gone")
            self._check_secret(info)
            session = self._reclaim(info, peer, now)
        self._core.streams.claimed(session, info.calls, now)
        self._core.dials.claimed(session, info.dials, now)

    def _check_secret(self, info: m.SessionInfo) -> None:
        """The journal's hashes of the secret, where it has the session."""
        rows = [lease.row for lease in self._sessions.leases.by_number.values()]
        hashes = [row.holders[info.session] for row in rows if info.session in row.holders]
        dialled = self._core.dials.secret_of(info.session)
        if dialled is not None:
            hashes.append(dialled)
        if not all(same(known, digest(info.secret)) for known in hashes):
            raise InvalidRequestError("the secret is wrong")

    def _reclaim(self, info: m.SessionInfo, peer: str, now: float) -> Session:
        session = self._sessions.opening.new(info, peer, now)
        session.state = {"answer": "standing", "call": "calling"}.get(info.mode, "idle")
        session.deadline = now + REST_WITHIN
        self._sessions.by_id[session.id] = session
        for lease in list(self._sessions.leases.by_number.values()):
            if session.id not in lease.row.holders or lease.state == "restoring":
                continue
            if lease.number == session.number and info.mode == "answer":
                session.number_sid = lease.row.number_sid
                lease.holders[session.id] = Hold(session.allowed_callers)
                if info.armed:
                    session.state = "armed" if lease.row.state == "applied" else "arming"
                    want = Want(session.id, session.allowed_callers, None, session.deadline)
                    if session.state == "arming":
                        lease.waiting.insert(0, want)
            else:
                lease.holders[session.id] = Hold(frozenset((session.number,)), dials=True)
            self._claim(lease, session.deadline)
        if info.armed and session.state == "standing":
            # The journal does not have its hold, or it is being put back: it is armed anew.
            session.state = "arming"
            self._sessions.opening.look_up(session.number, session, session.deadline, now)
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
                self._sessions.lease(
                    want, lease.number, lease.row.number_sid, self._core.claim_until
                )

    def over(self) -> None:
        """The time is over: what nobody claimed is put back."""
        for lease in self._sessions.leases.by_number.values():
            if lease.state == "unclaimed" or (lease.state == "applied" and not lease.holders):
                self._sessions.restore(lease)
