"""Voice webhooks: whose call it is, and whether it is let in.

The CallSid is looked for first: a call that is known asks once more (a redirect, or a repeated
request) and gets a new token. Else the number and the caller say which session it is for.
"""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING

from trunkline.bus import messages as m
from trunkline.bus.redact import redact_number

from .call import Call
from .dial import OPEN
from .leases import Lease
from .session import Session

if TYPE_CHECKING:
    from .core import Core

log = logging.getLogger("trunkline.controller")


class WebhookRules:
    """Answers to voice webhooks."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def answer(self, hook: m.VoiceWebhook, now: float) -> m.VoiceAnswer:
        form, query = hook.form, hook.query
        sid = form.get("CallSid", "")
        if not sid:
            return m.VoiceAnswer(kind="reject")
        dial = self._core.dials.by_request.get(query.get("d", ""))
        if dial is not None:
            self._core.dials.taken(dial, sid, now)
        known = self._core.calls.by_sid.get(sid)
        if known is not None:
            return self._again(known, sid, now)
        caller, number = form.get("From", ""), form.get("To", "")
        if "d" in query or "c" in query:
            return self._stranger(sid, caller, number, now)
        return self._incoming(sid, caller, number, now)

    def _again(self, call: Call, sid: str, now: float) -> m.VoiceAnswer:
        """The same call asks once more."""
        if call.state == "ending" and sid == call.sid:
            # Its stream is gone (its gateway may have died, and tells nothing): this ends it.
            self._core.streams.over(call, now)
        if call.over or call.state == "silent":
            return m.VoiceAnswer(kind="hangup")
        if call.mode == "b-leg" and sid == call.dialled_sid:
            return m.VoiceAnswer(kind="hangup")
        if call.state == "expected" and self._is_unclaimed(call):
            # Found in the journal: whether it had a stream before is still to be told.
            return m.VoiceAnswer(kind="pause")
        if call.state == "live" and not call.one_way:
            self._core.streams.lose(call, call.stream_reason or "error", now)
        return self._let_in(call, now)

    def _stranger(self, sid: str, caller: str, number: str, now: float) -> m.VoiceAnswer:
        """A redirect of a call that nobody has told us of: one that was let in just before a
        restart, or that we will not have."""
        lease = self._core.sessions.leases.by_number.get(number)
        if lease is not None and not self._core.stopping:
            ready = [s for s in self._allowed(lease, caller) if self._is_ready(s)]
            if ready:
                return self._new_call(ready[0], sid, caller, number, now)
        return m.VoiceAnswer(kind="pause" if self._core.claiming else "hangup")

    def _incoming(self, sid: str, caller: str, number: str, now: float) -> m.VoiceAnswer:
        lease = self._core.sessions.leases.by_number.get(number)
        if lease is None or lease.state == "restoring" or self._core.stopping:
            self._core.counts["calls nobody waits for"] += 1
            return m.VoiceAnswer(kind="busy")
        b_leg = self._b_leg(caller, number)
        if b_leg is not None:
            if self._is_unclaimed(b_leg):
                # It may have its other leg already, and this be another dial's.
                return m.VoiceAnswer(kind="pause")
            b_leg.sid, b_leg.missing = sid, now
            self._core.calls.by_sid[sid] = b_leg
            self._count(b_leg.session)
            return self._let_in(b_leg, now)
        if self._core.claiming and lease.state == "unclaimed":
            return m.VoiceAnswer(kind="pause")
        allowed = self._allowed(lease, caller)
        answering = self._answering(lease)
        if answering and not allowed:
            log.info("a call from %s is not allowed; rejected", redact_number(caller))
            self._core.counts["calls rejected"] += 1
            for session in answering:
                self._count(session.id, rejected=1)
            return m.VoiceAnswer(kind="reject")
        ready = [s for s in allowed if self._is_ready(s)]
        if ready:
            return self._new_call(ready[0], sid, caller, number, now)
        if any(s.state == "arming" for s in allowed):
            # Twilio has the override already, but its answer to us is still on its way.
            return m.VoiceAnswer(kind="pause")
        self._core.counts["calls nobody waits for"] += 1
        for session in allowed:
            self._count(session.id, rejected=1)
        return m.VoiceAnswer(kind="busy")

    # ------------------------------------------------------------------ whose call it is

    def _is_unclaimed(self, call: Call) -> bool:
        """After a restart: its session may still announce itself, and tell more of it."""
        return self._core.claiming and call.session not in self._core.sessions.by_id

    def _answering(self, lease: Lease) -> list[Session]:
        holders = [self._core.sessions.by_id.get(s) for s in lease.holders]
        return [s for s in holders if s is not None and s.mode == "answer"]

    def _allowed(self, lease: Lease, caller: str) -> list[Session]:
        return [
            s
            for s in self._answering(lease)
            if s.allowed_callers is None or caller in s.allowed_callers
        ]

    def _is_ready(self, session: Session) -> bool:
        calls = self._core.calls.by_id.values()
        return session.state == "armed" and not any(
            call.session == session.id and call.live for call in calls
        )

    def _b_leg(self, caller: str, number: str) -> Call | None:
        """The call of a b-leg dial whose other leg this is: of one that Twilio has taken, before
        those of which it is not known."""
        dials = sorted(self._core.dials.by_request.values(), key=lambda dial: dial.state != "taken")
        for dial in dials:
            row = dial.row
            if (
                row.mode == "b-leg"
                and (row.callee, row.caller) == (number, caller)
                and dial.state in OPEN
                and dial.gone is None
            ):
                call = self._core.calls.by_id[row.call]
                if call.sid is None and call.state == "expected":
                    return call
        return None

    # ------------------------------------------------------------------ letting it in

    def _new_call(
        self, session: Session, sid: str, caller: str, number: str, now: float
    ) -> m.VoiceAnswer:
        self._count(session.id)
        session.step("ring")
        call = Call(
            id=secrets.token_hex(16),
            session=session.id,
            direction="inbound",
            caller=caller,
            callee=number,
            secret=secrets.token_hex(16),
            created=now,
            sid=sid,
            missing=now,
            trace=session.trace,
        )
        session.arm_call = call.id
        self._core.calls.by_id[call.id] = self._core.calls.by_sid[sid] = call
        return self._let_in(call, now)

    def _let_in(self, call: Call, now: float) -> m.VoiceAnswer:
        workers = self._core.workers
        if not any(workers.well(w, now) for w in workers.by_id):
            return m.VoiceAnswer(kind="pause", redirect_query=call.query)
        assert call.sid is not None
        if not call.one_way:
            call.step("token")
        token = self._core.calls.tokens.make(call.id, call.sid)
        return m.VoiceAnswer(kind="stream", token=token, redirect_query=call.query)

    # ------------------------------------------------------------------ counted for the sessions

    def refused(self, told: m.WebhooksRefused) -> None:
        """Webhooks without a good signature: told to those whose number they named."""
        for number, count in told.numbers.items():
            lease = self._core.sessions.leases.by_number.get(number)
            for session in lease.holders if lease is not None else ():
                self._count(session, received=count, rejected=count)

    def _count(self, session_id: str, *, received: int = 1, rejected: int = 0) -> None:
        session = self._core.sessions.by_id.get(session_id)
        if session is not None:
            event = m.WebhooksCounted(session=session_id, received=received, rejected=rejected)
            self._core.send(session.peer, event)
