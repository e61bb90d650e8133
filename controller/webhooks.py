"""Voice webhooks: whose call it is, and whether it is let in.

The CallSid is looked for first: a call that is known asks once more (a redirect, or a repeated
request) and gets a new token. Else the number that was called says whose it is. The caller alone
does not: carriers cut, add and replace its digits (Twilio support, "International Voice Quirks"),
and nothing in REST ties the two legs of a b-leg dial together. The first rule that holds decides:

1. An open b-leg dial to this number comes from the caller's number: its other leg.
2. A session that answers here names the caller in ``allowed_callers``: that session's call, or busy
   while it has one. Its callers are never taken for a dial's, whatever is being dialled.
3. Exactly one b-leg dial to this number is open: its other leg, with a caller that the carrier has
   rewritten. It is warned about. (:mod:`.dials` sees to it that there are not two.)
4. A session that answers everybody's calls here: that session's call, or busy. (Nobody dials a
   number that such a session holds.)
5. Nobody's: rejected where sessions answer, else busy. Whoever has a part in the number is told.

A stranger who calls just then is taken by rule 3, and so is a webhook that comes late, of a leg
that is over. Until the stream is up, the dial gives such a call up for one that comes by rule 1.
Any other that could be the dial's is let wait while REST is asked whether the first one lives.
"""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING, Final

from trunkline.bus import messages as m
from trunkline.bus.callers import caller_key
from trunkline.bus.redact import redact_number

from . import instructions as do
from .call import Call
from .dial import OPEN, Dial
from .leases import Lease
from .session import Session

if TYPE_CHECKING:
    from .core import Core

log = logging.getLogger("trunkline.controller")

#: Why a webhook was refused that Twilio did not sign, or not for this stack.
SIGNATURE: Final = "its signature was wrong"


class WebhookRules:
    """Answers to voice webhooks."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def answer(self, hook: m.VoiceWebhook, now: float) -> m.VoiceAnswer:
        answer = self._answer(hook, now)
        call = self._core.calls.by_sid.get(hook.form.get("CallSid", ""))
        if call is not None:
            dial = self._core.dials.by_request.get(call.dial_request or "")
            dials = [] if dial is None else [dial]
        else:
            # Whose it is will be known when it asks again.
            waits = answer.kind == "pause"
            dials = self._open_dials(hook.form.get("To", "")) if waits else []
        for dial in dials:
            dial.known.tell_webhook(answer.kind, now)
        return answer

    def _answer(self, hook: m.VoiceWebhook, now: float) -> m.VoiceAnswer:
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
            lost = self._core.calls.by_id.get(query.get("c", ""))
            if lost is not None and self._lacks_b_leg(lost):
                # We named the call when we let this leg in, before a restart.
                return self._join(lost, sid, caller, now)
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
        b_leg = self._b_leg(caller, number, lease)
        if b_leg is not None:
            if self._is_rewritten(b_leg, caller) and self._has_unclaimed(lease):
                # It may be a caller of a session that has not announced itself again.
                return m.VoiceAnswer(kind="pause")
            return self._join(b_leg, sid, caller, now)
        if self._core.claiming and lease.state == "unclaimed":
            return m.VoiceAnswer(kind="pause")
        allowed = self._allowed(lease, caller)
        joined = self._joined(number)
        if joined is not None and not any(s.allowed_callers is not None for s in allowed):
            assert joined.sid is not None
            self._core.do(do.Fetch(joined.id, joined.sid))
            return m.VoiceAnswer(kind="pause")
        answering = self._answering(lease)
        if answering and not allowed:
            log.info("a call from %s is not allowed; rejected", redact_number(caller))
            self._core.counts["calls rejected"] += 1
            self._refuse(answering, caller, number, "not in allowed_callers")
            return m.VoiceAnswer(kind="reject")
        ready = [s for s in allowed if self._is_ready(s)]
        if ready:
            return self._new_call(ready[0], sid, caller, number, now)
        if any(s.state == "arming" for s in allowed):
            # Twilio has the override already, but its answer to us is still on its way.
            return m.VoiceAnswer(kind="pause")
        self._core.counts["calls nobody waits for"] += 1
        has_call = any(s.state in ("armed", "taken") for s in allowed)
        why = "busy: there was a call already" if has_call else "busy: nobody waited for a call"
        self._refuse(allowed, caller, number, why if allowed else "busy: no dial expected it")
        return m.VoiceAnswer(kind="busy")

    # ------------------------------------------------------------------ whose call it is

    def _is_unclaimed(self, call: Call) -> bool:
        """After a restart: its session may still announce itself, and tell more of it."""
        return self._core.claiming and call.session not in self._core.sessions.by_id

    def _has_unclaimed(self, lease: Lease) -> bool:
        """After a restart: a session that held the number may still announce itself."""
        sessions = self._core.sessions
        known = sessions.by_id.keys() | sessions.ended.keys()
        return self._core.claiming and not known >= lease.row.holders.keys()

    def _is_rewritten(self, call: Call, caller: str) -> bool:
        """The carrier reports another caller than the number that the dial comes from."""
        return caller_key(caller) != self._core.dials.by_request[call.dial_request or ""].row.caller

    def _answering(self, lease: Lease) -> list[Session]:
        holders = [self._core.sessions.by_id.get(s) for s in lease.holders]
        return [s for s in holders if s is not None and s.mode == "answer"]

    def _allowed(self, lease: Lease, caller: str) -> list[Session]:
        return [
            s
            for s in self._answering(lease)
            if s.allowed_callers is None or caller_key(caller) in s.allowed_callers
        ]

    def _is_ready(self, session: Session) -> bool:
        calls = self._core.calls.by_id.values()
        return session.state == "armed" and not any(
            call.session == session.id and call.live for call in calls
        )

    def _open_dials(self, number: str) -> list[Dial]:
        """The b-leg dials to the number of which something may still come, those that Twilio has
        taken first."""
        found = [
            dial
            for dial in self._core.dials.by_request.values()
            if dial.row.mode == "b-leg" and dial.row.callee == number and dial.state in OPEN
        ]
        return sorted(found, key=lambda dial: dial.state != "taken")

    def _b_leg(self, caller: str, number: str, lease: Lease) -> Call | None:
        """The call of a b-leg dial whose other leg this is (rules 1 to 3), or None."""
        dials = [dial for dial in self._open_dials(number) if dial.gone is None]
        calls = self._core.calls.by_id
        key = caller_key(caller)
        for dial in dials:
            call = calls[dial.row.call]
            guessed = call.state == "expected" and call.caller_rewritten
            if dial.row.caller == key and (self._lacks_b_leg(call) or guessed):
                return call
        if any(s.allowed_callers is not None for s in self._allowed(lease, caller)):
            return None
        waiting = [calls[dial.row.call] for dial in dials]
        waiting = [call for call in waiting if self._lacks_b_leg(call)]
        return waiting[0] if len(waiting) == 1 else None

    def _joined(self, number: str) -> Call | None:
        """The call of a dial to the number whose other leg has been let in, and has no stream."""
        calls = self._core.calls.by_id
        for dial in self._open_dials(number):
            call = calls[dial.row.call]
            if dial.gone is None and call.sid is not None and call.state == "expected":
                return call
        return None

    def _lacks_b_leg(self, call: Call) -> bool:
        return call.mode == "b-leg" and call.sid is None and call.state == "expected"

    def _join(self, call: Call, sid: str, caller: str, now: float) -> m.VoiceAnswer:
        """This is the other leg of a b-leg dial."""
        if self._is_unclaimed(call):
            # This dial may already have its b-leg, in which case the webhook belongs to another
            # dial. Wait until its session has announced itself again.
            return m.VoiceAnswer(kind="pause")
        dial = self._core.dials.by_request[call.dial_request or ""]
        if call.sid is not None:
            log.warning("call %s was not the other leg of dial %s", call.sid, dial.request)
            del self._core.calls.by_sid[call.sid]
            self._core.calls.hang_up_stray(call.sid, now)
        call.caller, call.caller_rewritten = caller, self._is_rewritten(call, caller)
        if call.caller_rewritten:
            log.warning(
                "call %s: the carrier reports %s as the caller of our dial from %s to %s",
                sid,
                redact_number(caller),
                redact_number(dial.row.caller),
                redact_number(dial.row.callee),
            )
        call.sid, call.missing = sid, now
        self._core.calls.by_sid[sid] = call
        self._count(call.session)
        return self._let_in(call, now)

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
                self._count(session, received=count, rejected=count, why=SIGNATURE)
            for dial in self._open_dials(number):
                dial.known.tell_refused("", f"{count} × {SIGNATURE}")

    def _refuse(self, sessions: list[Session], caller: str, number: str, why: str) -> None:
        """A call was refused: the sessions that answer there, and the number's dials, are told."""
        for session in sessions:
            self._count(session.id, rejected=1, caller=redact_number(caller), why=why)
        for dial in self._open_dials(number):
            dial.known.tell_refused(caller, why)

    def missed(self, call: Call) -> None:
        """A call was let in, and is over before its stream came."""
        why = "let in, and over before its stream came"
        self._count(call.session, received=0, caller=redact_number(call.caller), why=why)

    def _count(
        self,
        session_id: str,
        *,
        received: int = 1,
        rejected: int = 0,
        caller: str = "",
        why: str = "",
    ) -> None:
        session = self._core.sessions.by_id.get(session_id)
        if session is not None:
            event = m.WebhooksCounted(
                session=session_id, received=received, rejected=rejected, caller=caller, why=why
            )
            self._core.send(session.peer, event)
