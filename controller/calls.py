"""Calls: which there are, their ends, and what Twilio says of them. The rules in prose and the
literal table are in :mod:`.tables`.

A call is known by its CallSid. Every call has one end, told once, with the first reason that was
given. What has been without a stream for 15 s is settled by REST.
"""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING, Any, Final

from trunkline.bus import messages as m

from . import instructions as do
from .call import Call
from .carrier import ENDED_STATUSES
from .dial import OPEN, Dial
from .instructions import Asked
from .session import Session
from .tokens import Tokens

if TYPE_CHECKING:
    from .core import Core

log = logging.getLogger("trunkline.controller")

#: A call without a stream is asked about after so many seconds, and hung up after the last of them.
NO_STREAM_CHECKS: Final = (2.0, 5.0, 10.0)
NO_STREAM_LIMIT: Final = 15.0
#: After REST has hung a call up its stream is closed by us if it is still there.
CLOSE_STREAM_AFTER: Final = 1.5
#: A leg of ours that should be over is hung up when Twilio has not said so by then.
LEG_OVER_WITHIN: Final = 3.0
#: The far end's TimeLimit and our watchdog may differ by this much.
TIME_LIMIT_SLACK: Final = 1.5
#: Ended calls are kept, so that a late webhook of theirs is answered with a hang-up.
ENDED_KEPT: Final = 600.0
#: An adapter that was away this long is told of calls that ended meanwhile.
TOLD_AGAIN_WITHIN: Final = 30.0


class CallRules:
    """All calls."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.by_id: dict[str, Call] = {}
        self.by_sid: dict[str, Call] = {}
        self.tokens = Tokens()
        #: call ids whose hang-up REST has not taken yet
        self._ends: set[str] = set()

    @property
    def ends_under_way(self) -> bool:
        return bool(self._ends)

    def knows(self, sid: str) -> bool:
        """The CallSid belongs to one of our calls."""
        return sid in self.by_sid

    # ------------------------------------------------------------------ calls that we dial

    def expect(self, dial: Dial, now: float) -> None:
        """The call that a dial is to become."""
        row = dial.row
        self.by_id[row.call] = Call(
            id=row.call,
            session=row.session,
            direction="outbound",
            caller=row.caller,
            callee=row.callee,
            secret=secrets.token_hex(16),
            created=now,
            dial_request=row.request,
            mode=row.mode,  # type: ignore[arg-type]  # the journal keeps DialMode as text
            max_duration=row.max_duration,
            trace=dial.trace,
        )

    def good_token(self, dial: Dial, token_digest: str) -> None:
        """The a-leg's inline TwiML carries this token."""
        if dial.row.mode == "a-leg":
            self.tokens.put(token_digest, dial.row.call, None)

    def dialled(self, dial: Dial, sid: str) -> None:
        """Twilio took the dial under this SID."""
        call = self.by_id[dial.row.call]
        call.dialled_sid = sid
        self.by_sid[sid] = call
        if dial.row.mode != "b-leg":
            call.sid = sid
        if dial.row.mode == "originate" and call.state == "expected":
            call.step("silent")
        elif call.state == "ended":
            # Its b-leg has come and gone before Twilio said that it has our own.
            self._end_dialled(call)

    def not_dialled(self, dial: Dial, sid: str) -> None:
        """That call is not the dial's: it was a guess."""
        call = self.by_id[dial.row.call]
        if self.by_sid.get(sid) is call:
            del self.by_sid[sid]
        call.dialled_sid = None
        if dial.row.mode != "b-leg":
            call.sid = None
        call.end_sent = False

    def answered(self, dial: Dial, now: float) -> None:
        """The far end picked up: its stream should come now."""
        call = self.by_id.get(dial.row.call)
        if call is None:
            return
        if dial.row.mode == "originate" and call.started is None:
            call.started = now
        elif dial.row.mode != "originate" and call.state == "expected" and call.missing is None:
            call.missing = now

    def over(self, call_id: str, now: float) -> None:
        """The call is over, or never came to be."""
        call = self.by_id.get(call_id)
        if call is not None and call.live:
            self.conclude(call, call.reason or self.stopped(call, now), now)

    def hang_up_stray(self, sid: str, now: float) -> None:
        """A call that belongs to nothing that we know."""
        if sid in self.by_sid and self.by_sid[sid].state in ("ending", "ended"):
            return
        call = Call(secrets.token_hex(16), "", "outbound", "", "", "", now, sid=sid)
        self.by_id[call.id] = self.by_sid[sid] = call
        self.end(call.id, "hang_up", now)

    # ------------------------------------------------------------------ what users ask

    def _of(self, peer: str, session: str, call_id: str) -> Call | None:
        self._core.sessions.of(peer, session)
        call = self.by_id.get(call_id)
        return call if call is not None and call.session == session else None

    def hang_up(self, asked: Asked, body: m.HangUp, now: float) -> None:
        call = self._of(asked.peer, body.session, body.call)
        if call is None or not call.live:
            self._core.reply(asked, m.Done())
        else:
            self.end(call.id, "hang_up", now, asked=asked)

    def send_digits(self, asked: Asked, body: m.SendDigits, now: float) -> None:
        call = self._of(asked.peer, body.session, body.call)
        self._core.digits.ask(asked, body, call, now)

    # ------------------------------------------------------------------ ends

    def end(
        self,
        call_id: str,
        reason: m.EndedReason,
        now: float,
        *,
        asked: Asked | None = None,
        then_failed: Dial | None = None,
    ) -> None:
        """Hang up. ``then_failed``: a dial whose timeout is told once it is done."""
        call = self.by_id.get(call_id)
        if call is None or call.state == "ended":
            if asked is not None:
                self._core.reply(asked, m.Done())
            return
        self.tokens.void_all(call.id)
        self._core.digits.call_over(call)
        call.reason = call.reason or reason
        call.then_failed = call.then_failed or then_failed
        if asked is not None:
            call.ending.append(asked)
        call.step("end")
        self._send_end(call)
        if not call.end_sent and not self._may_still_come(call):
            self.conclude(call, call.reason, now)
            self._answer_ending(call)
        elif call.hung_up is not None:
            self._answer_ending(call)  # REST took it before this one asked

    def _may_still_come(self, call: Call) -> bool:
        """Twilio may have been asked for it, and its SID is not known yet."""
        dial = self._core.dials.by_request.get(call.dial_request or "")
        return dial is not None and dial.state in ("asking", "unsure")

    def _send_end(self, call: Call) -> None:
        sids = tuple(dict.fromkeys(s for s in (call.dialled_sid, call.sid) if s is not None))
        if sids and not call.end_sent:
            call.end_sent = True
            self._ends.add(call.id)
            self._core.do(do.End(call.id, sids))

    def ended(self, call_id: str, now: float) -> None:
        """REST took the hang-up."""
        self._ends.discard(call_id)
        call = self.by_id.get(call_id)
        if call is None:
            return
        self._answer_ending(call)
        call.hung_up = now
        dial = self._core.dials.by_request.get(call.dial_request or "")
        if call.then_failed is not None:
            self._core.dials.failed(call.then_failed, "timeout", "", now)
            call.then_failed = None
        if call.state == "ending" and call.gateway is None:
            self.conclude(call, call.reason or "hang_up", now)
        if dial is not None:
            self._core.dials.over(dial, now)
        self._finish_session(call.session)

    def _answer_ending(self, call: Call) -> None:
        for asked in call.ending:
            self._core.reply(asked, m.Done())
        call.ending.clear()

    def end_failed(self, result: do.EndFailed, now: float) -> None:
        """REST does not take it; it is tried on, and the stream is closed meanwhile: then Twilio
        asks what next, and is told to hang up."""
        call = self.by_id.get(result.call)
        if call is None:
            return
        for asked in call.ending:
            self._core.fail(asked, result.error)
        call.ending.clear()
        if call.then_failed is not None:
            self._core.dials.failed(call.then_failed, "timeout", str(result.error), now)
            call.then_failed = None
        self._core.send(call.gateway, m.CloseStream(call=call.id))

    def stopped(self, call: Call, now: float) -> m.EndedReason:
        """The far end's stop, or Twilio's TimeLimit."""
        limit, started = call.max_duration, call.started
        if limit is not None and started is not None and now - started >= limit - TIME_LIMIT_SLACK:
            return "max_duration"
        return "stop"

    def conclude(self, call: Call, reason: m.EndedReason, now: float) -> None:
        by_far_end = call.reason is None and reason in ("stop", "close", "error")
        call.reason = call.reason or reason
        was_silent = call.state == "silent"
        call.step("over")
        call.ended_at = now
        self.tokens.void_all(call.id)
        self._core.digits.call_over(call)
        self._core.workers.forget_call(call.id)
        session = self._core.sessions.by_id.get(call.session)
        if session is not None:
            if call.started is not None or was_silent or call.mode == "originate":
                log.info("call %s is over (%s)", call.sid, call.reason)
                self._core.send(
                    session.peer,
                    m.CallEnded(call=call.id, reason=call.reason, by_far_end=by_far_end),
                )
            elif call.direction == "inbound" and session.state in ("taken", "standing"):
                session.step("missed")
                self._core.webhooks.missed(call)
        self._settle_legs(call, now)
        self._finish_session(call.session)

    def _settle_legs(self, call: Call, now: float) -> None:
        """After its end: the legs that we dialled must be over too."""
        dial = self._core.dials.by_request.get(call.dial_request or "")
        if dial is None or dial.leg_over or call.end_sent:
            return
        if call.mode == "b-leg":
            self._end_dialled(call)
        elif call.dialled_sid is not None:
            call.leg_check = now + LEG_OVER_WITHIN

    def _end_dialled(self, call: Call) -> None:
        """Hang up the leg that we dialled."""
        if call.dialled_sid is not None:
            call.end_sent = True
            self._ends.add(call.id)
            self._core.do(do.End(call.id, (call.dialled_sid,)))

    def _finish_session(self, session_id: str) -> None:
        session = self._core.sessions.by_id.get(session_id)
        if session is not None:
            self._core.sessions.perhaps_closed(session)

    def close_session(self, session: str, now: float) -> None:
        for call in list(self.by_id.values()):
            if call.session == session and call.live:
                self.end(call.id, "hang_up", now)

    def has_live(self, session: str) -> bool:
        """Calls of the session that are not over, or whose hang-up REST has not taken."""
        return any(
            c.session == session and (c.live or c.id in self._ends) for c in self.by_id.values()
        )

    # ------------------------------------------------------------------ callbacks and REST

    def status_callback(self, callback: m.StatusCallback, now: float) -> None:
        sid = callback.form.get("CallSid", "")
        status = callback.form.get("CallStatus", "")
        request = callback.query.get("d", "")
        dials = self._core.dials
        dial = dials.by_request.get(request) if request else dials.with_sid(sid)
        if dial is not None and sid:
            if dial.state in OPEN or status not in ENDED_STATUSES:
                self._core.dials.taken(dial, sid, now)
            self._core.dials.status(dial, sid, status, now)
        elif sid and request and status not in ENDED_STATUSES and not self._core.claiming:
            log.warning("call %s: nobody claims it; it is hung up", sid)
            self.hang_up_stray(sid, now)

    def fetched(self, result: do.Fetched, now: float) -> None:
        call = self.by_id.get(result.call)
        if call is None or not call.live:
            return
        dials = self._core.dials
        dial = dials.by_request.get(call.dial_request or "")
        if dial is not None:
            if result.sid == dial.sid and result.status is not None:
                dials.status(dial, result.sid, result.status, now)
            elif result.status in ENDED_STATUSES and call.state == "expected":
                self._part(call, dial, result.sid, now)
                return
            dials.looked(dial, now)
        if call.live and result.status in ENDED_STATUSES:
            self.conclude(call, call.stream_reason or "close", now)

    def _part(self, call: Call, dial: Dial, sid: str, now: float) -> None:
        """The b-leg of a dial is over before its stream came. Its webhook may have come late, for
        an earlier dial; what becomes of this one is our own leg's to tell."""
        if call.sid != sid:
            return
        log.info("call %s, taken for the other leg of dial %s, is over", sid, dial.request)
        del self.by_sid[sid]
        self.tokens.void(call.id)
        call.sid, call.caller, call.caller_rewritten = None, dial.row.caller, False
        call.missing = now if dial.known.status == "in-progress" else None
        call.checked = 0

    # ------------------------------------------------------------------ time

    def tick(self, now: float) -> None:
        for call in list(self.by_id.values()):
            if call.state == "ended":
                self._tick_ended(call, now)
            elif call.state == "ending":
                if not call.end_sent:
                    self._send_end(call)  # its SID has become known
                elif call.hung_up is not None and now - call.hung_up > CLOSE_STREAM_AFTER:
                    self._core.send(call.gateway, m.CloseStream(call=call.id))
                    self.conclude(call, call.reason or "hang_up", now)
            else:
                self._watch(call, now)

    def _watch(self, call: Call, now: float) -> None:
        limit = call.max_duration
        if limit is not None and call.started is not None and now - call.started >= limit:
            log.warning("call %s has reached its longest duration (%g s)", call.sid, limit)
            self.end(call.id, "max_duration", now)
            return
        if call.missing is None:
            return
        gone = now - call.missing
        if gone >= NO_STREAM_LIMIT:
            log.warning("call %s: no stream for %g s; it is hung up", call.sid, NO_STREAM_LIMIT)
            dial = self._core.dials.by_request.get(call.dial_request or "")
            if dial is not None and not dial.started:
                self._core.dials.failed(dial, "failed", "answered, and no stream came", now)
            self.end(call.id, call.stream_reason or "error", now)
        elif call.checked < len(NO_STREAM_CHECKS) and gone >= NO_STREAM_CHECKS[call.checked]:
            call.checked += 1
            leg = call.sid or call.dialled_sid
            if leg is not None:
                self._core.do(do.Fetch(call.id, leg))

    def _tick_ended(self, call: Call, now: float) -> None:
        dial = self._core.dials.by_request.get(call.dial_request or "")
        if call.leg_check is not None and now >= call.leg_check:
            call.leg_check = None
            if dial is not None and not dial.leg_over:
                self._end_dialled(call)
        elif now - call.ended_at > ENDED_KEPT and call.id not in self._ends:
            del self.by_id[call.id]
            for sid in (call.sid, call.dialled_sid):
                if sid is not None and self.by_sid.get(sid) is call:
                    del self.by_sid[sid]

    # ------------------------------------------------------------------ after a restart

    def adopt(self, info: m.CallInfo, now: float) -> Call:
        call = Call(
            id=info.call,
            session=info.session,
            direction=info.direction,
            caller=info.caller,
            callee=info.callee,
            secret=info.secret,
            created=now,
            sid=info.sid,
            dialled_sid=info.dialled_sid,
            dial_request=info.dial_request,
            mode=info.mode,
            max_duration=info.max_duration,
            trace=info.trace,
            caller_rewritten=info.caller_rewritten,
        )
        self.by_id[call.id] = call
        for sid in (info.sid, info.dialled_sid):
            if sid:
                self.by_sid[sid] = call
        return call

    def tell_again(self, session: Session, now: float) -> None:
        """An adapter that reconnected: its calls with their newest placement."""
        for call in self.by_id.values():
            if call.session != session.id or (call.started is None and call.mode != "originate"):
                continue
            if call.state in ("live", "reconnecting") and call.placement is not None:
                self._core.send(session.peer, m.CallStarted(info=call.info(now)))
            elif call.state == "ended" and now - call.ended_at < TOLD_AGAIN_WITHIN:
                assert call.reason is not None
                self._core.send(session.peer, m.CallEnded(call=call.id, reason=call.reason))

    def claims_over(self, now: float) -> None:
        for call in list(self.by_id.values()):
            if call.live and call.session not in self._core.sessions.by_id:
                log.warning("call %s: nobody claims it; it is hung up", call.sid)
                self.end(call.id, "hang_up", now)

    # ------------------------------------------------------------------ for status

    def status(self, now: float) -> list[dict[str, Any]]:
        """The contract's ``calls``: those that are not over."""
        found = []
        for call in self.by_id.values():
            if call.state == "ended" or (not call.caller and not call.callee):
                continue
            stats = self._stats(call)
            found.append(
                {
                    "sid": call.sid or call.dialled_sid,
                    "direction": call.direction,
                    "caller": call.caller,
                    "callee": call.callee,
                    "state": call.state,
                    "gateway": call.gateway,
                    "codec_worker": call.active,
                    "seconds": 0.0 if call.started is None else round(now - call.started, 3),
                    "frames_in": stats.frames_in,
                    "frames_out": stats.frames_out,
                    "frames_lost": stats.frames_lost,
                    "underruns": stats.underruns,
                }
            )
        return found

    def _stats(self, call: Call) -> m.CallStats:
        """What all workers that had the call counted."""
        of = [w.stats[call.id] for w in self._core.workers.by_id.values() if call.id in w.stats]
        return m.CallStats(
            call=call.id,
            generation=0,
            frames_in=sum(s.frames_in for s in of),
            frames_out=sum(s.frames_out for s in of),
            frames_lost=sum(s.frames_lost for s in of),
            underruns=sum(s.underruns for s in of),
        )
