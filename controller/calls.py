"""Calls: webhooks, streams, ends. The rules in prose and the literal table are in :mod:`.tables`.

A call is known by its CallSid. Its stream may come and go (a gateway dies, Twilio asks again): each
webhook for a known call gets a new token, each stream the next ordinal. What has been without a stream
for 15 s is settled by REST. Every call has one end, told once, with the first reason that was given.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from trunkline.bus import messages as m
from trunkline.bus.errors import WrongModeError
from trunkline.bus.redact import redact_number

from . import instructions as do
from . import twiml
from .carrier import ENDED_STATUSES
from .instructions import Asked
from .peers import GATEWAY_LOST_AFTER
from .sessions import Session
from .tables import CALL, step
from .tokens import Tokens

if TYPE_CHECKING:
    from .core import Core
    from .dials import Dial

log = logging.getLogger("trunkline.controller")

#: A call without a stream is asked about after so many seconds, and hung up after the last of them.
NO_STREAM_CHECKS: Final = (2.0, 5.0, 10.0)
NO_STREAM_LIMIT: Final = 15.0
#: After REST has hung a call up its stream is closed by us if it is still there.
CLOSE_STREAM_AFTER: Final = 1.5
#: A beat that does not list a stream says that it is gone, once the stream is this old.
BEAT_SETTLES_AFTER: Final = 2.0
#: A leg of ours that should be over is hung up when Twilio has not said so by then.
LEG_OVER_WITHIN: Final = 3.0
#: The far end's TimeLimit and our watchdog may differ by this much.
TIME_LIMIT_SLACK: Final = 1.5
#: Ended calls are kept, so that a late webhook of theirs is answered with a hang-up.
ENDED_KEPT: Final = 600.0
#: After the start calls are not moved before their workers had time to say Hello.
SETTLING_SECONDS: Final = 3.0


@dataclass
class Call:
    """A call. ``sid``: the leg that carries (or will carry) our stream, ``dialled_sid``: the leg
    that we dialled. Times are monotonic."""

    id: str
    session: str
    direction: m.Direction
    caller: str
    callee: str
    secret: str
    created: float
    sid: str | None = None
    dialled_sid: str | None = None
    dial_request: str | None = None
    mode: m.DialMode | None = None
    max_duration: float | None = None
    trace: dict[str, str] = field(default_factory=dict)
    state: str = "expected"
    ordinal: int = 0
    placement: m.Placement | None = None
    active: str | None = None
    gateway: str | None = None
    accepted: float = 0.0
    #: when the first stream came up; None before
    started: float | None = None
    #: since when there should be a stream and is none
    missing: float | None = None
    checked: int = 0
    reason: m.EndedReason | None = None
    stream_reason: m.StreamEndReason | None = None
    #: HangUp and CancelDial requests that wait for REST
    ending: list[Asked] = field(default_factory=list)
    end_sent: bool = False
    hung_up: float | None = None
    then_failed: Dial | None = None
    ended_at: float = 0.0
    leg_check: float | None = None
    stream_stats: m.StreamStats | None = None

    def step(self, event: str) -> None:
        self.state = step(CALL, self.state, event, f"call {self.id}")

    @property
    def live(self) -> bool:
        return self.state not in ("ended",)

    def info(self, now: float) -> m.CallInfo:
        return m.CallInfo(
            call=self.id,
            session=self.session,
            sid=self.sid or self.dialled_sid or "",
            direction=self.direction,
            caller=self.caller,
            callee=self.callee,
            secret=self.secret,
            ordinal=self.ordinal,
            dialled_sid=self.dialled_sid,
            dial_request=self.dial_request,
            mode=self.mode,
            placement=self.placement,
            max_duration=self.max_duration,
            age=None if self.started is None else now - self.started,
            trace=self.trace,
        )


class CallRules:
    """All calls."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.by_id: dict[str, Call] = {}
        self._by_sid: dict[str, Call] = {}
        self._tokens = Tokens()
        #: call ids whose hang-up REST has not taken yet
        self._ends: set[str] = set()

    @property
    def ends_under_way(self) -> bool:
        return bool(self._ends)

    def knows(self, sid: str) -> bool:
        """The CallSid belongs to one of our calls."""
        return sid in self._by_sid

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
            self._tokens.put(token_digest, dial.row.call, dial.sid)

    def dialled(self, dial: Dial, sid: str) -> None:
        """Twilio took the dial under this SID."""
        call = self.by_id[dial.row.call]
        call.dialled_sid = sid
        self._by_sid[sid] = call
        if dial.row.mode != "b-leg":
            call.sid = sid
        if dial.row.mode == "originate" and call.state == "expected":
            call.step("silent")

    def answered(self, dial: Dial, now: float) -> None:
        """The far end picked up: its stream should come now."""
        call = self.by_id[dial.row.call]
        if dial.row.mode == "originate" and call.started is None:
            call.started = now
        elif dial.row.mode == "a-leg" and call.state == "expected" and call.missing is None:
            call.missing = now

    def over(self, call_id: str, now: float) -> None:
        """The call is over, or never came to be."""
        call = self.by_id.get(call_id)
        if call is not None and call.live:
            self._conclude(call, call.reason or self._stopped(call, now), now)

    def hang_up_stray(self, sid: str, now: float) -> None:
        """A call that belongs to nothing that we know."""
        if sid in self._by_sid and self._by_sid[sid].state in ("ending", "ended"):
            return
        call = Call(secrets.token_hex(16), "", "outbound", "", "", "", now, sid=sid)
        self.by_id[call.id] = self._by_sid[sid] = call
        self.end(call.id, "hang_up", now)

    # ------------------------------------------------------------------ webhooks

    def webhook(self, hook: m.VoiceWebhook, now: float) -> m.VoiceAnswer:
        form, query = hook.form, hook.query
        sid = form.get("CallSid", "")
        if not sid:
            return m.VoiceAnswer(kind="reject")
        known = self._by_sid.get(sid)
        if known is None and "d" in query:
            known = self._of_dial(query["d"], sid, now)
        if known is not None:
            return self._again(known, sid, now)
        if "d" in query or "c" in query:
            # A redirect of a call that nobody has told us of, or that we will not have.
            ours = query.get("d", "") in self._core.dials.by_request
            if self._core.claiming and not ours:
                return m.VoiceAnswer(kind="pause")
            return m.VoiceAnswer(kind="hangup")
        return self._incoming(sid, form.get("From", ""), form.get("To", ""), now)

    def _of_dial(self, request: str, sid: str, now: float) -> Call | None:
        dial = self._core.dials.by_request.get(request)
        if dial is None:
            return None
        self._core.dials.taken(dial, sid, now)
        return self.by_id.get(dial.row.call) if dial.sid == sid else None

    def _again(self, call: Call, sid: str, now: float) -> m.VoiceAnswer:
        """The same call asks once more: a redirect, or a repeated request."""
        if call.state in ("ending", "ended", "silent"):
            return m.VoiceAnswer(kind="hangup")
        if call.mode == "b-leg" and sid == call.dialled_sid:
            return m.VoiceAnswer(kind="hangup")
        if call.state == "live":
            self._lost_stream(call, call.stream_reason or "error", now)
        return self._stream_answer(call, now)

    def _stream_answer(self, call: Call, now: float) -> m.VoiceAnswer:
        if not any(self._core.workers.well(w, now) for w in self._core.workers.by_id):
            return m.VoiceAnswer(kind="pause", redirect_query=_query(call))
        assert call.sid is not None
        call.step("token")
        token = self._tokens.make(call.id, call.sid)
        return m.VoiceAnswer(kind="stream", token=token, redirect_query=_query(call))

    def _incoming(self, sid: str, caller: str, number: str, now: float) -> m.VoiceAnswer:
        lease = self._core.sessions.leases.by_number.get(number)
        if lease is None or lease.state == "restoring" or self._core.stopping:
            self._core.counts["calls nobody waits for"] += 1
            return m.VoiceAnswer(kind="busy")
        b_leg = self._b_leg(caller, number)
        if b_leg is not None:
            b_leg.sid, b_leg.missing = sid, now
            self._by_sid[sid] = b_leg
            self._count_webhook(b_leg.session)
            return self._stream_answer(b_leg, now)
        if self._core.claiming and lease.state == "unclaimed":
            return m.VoiceAnswer(kind="pause")
        holders = [self._core.sessions.by_id.get(s) for s in lease.holders]
        answering = [s for s in holders if s is not None and s.mode == "answer"]
        allowed = [s for s in answering if s.allowed_callers is None or caller in s.allowed_callers]
        if answering and not allowed:
            log.info("a call from %s is not allowed; rejected", redact_number(caller))
            self._core.counts["calls rejected"] += 1
            for session in answering:
                self._count_webhook(session.id, rejected=1)
            return m.VoiceAnswer(kind="reject")
        ready = [s for s in allowed if s.state == "armed" and not self._has_call(s.id)]
        if not ready and any(s.state == "arming" for s in allowed):
            # Twilio has the override already, but its answer to us is still on its way.
            return m.VoiceAnswer(kind="pause")
        if not ready:
            self._core.counts["calls nobody waits for"] += 1
            for session in allowed:
                self._count_webhook(session.id, rejected=1)
            return m.VoiceAnswer(kind="busy")
        session = ready[0]
        self._count_webhook(session.id)
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
        self.by_id[call.id] = self._by_sid[sid] = call
        return self._stream_answer(call, now)

    def webhooks_refused(self, told: m.WebhooksRefused) -> None:
        """Webhooks without a good signature: told to those whose number they named."""
        for number, count in told.numbers.items():
            lease = self._core.sessions.leases.by_number.get(number)
            for session in lease.holders if lease is not None else ():
                self._count_webhook(session, received=count, rejected=count)

    def _count_webhook(self, session_id: str, *, received: int = 1, rejected: int = 0) -> None:
        session = self._core.sessions.by_id.get(session_id)
        if session is not None:
            event = m.WebhooksCounted(session=session_id, received=received, rejected=rejected)
            self._core.send(session.peer, event)

    def _b_leg(self, caller: str, number: str) -> Call | None:
        """The call of a b-leg dial whose other leg this is."""
        for dial in self._core.dials.by_request.values():
            row = dial.row
            if (
                row.mode == "b-leg"
                and (row.callee, row.caller) == (number, caller)
                and dial.state in ("asking", "unsure", "taken")
                and dial.gone is None
            ):
                call = self.by_id[row.call]
                if call.sid is None and call.state == "expected":
                    return call
        return None

    def _has_call(self, session: str) -> bool:
        return any(c.session == session and c.live for c in self.by_id.values())

    # ------------------------------------------------------------------ streams

    def stream_start(self, start: m.StreamStart, now: float) -> m.StreamAccepted | m.StreamRefused:
        token = self._tokens.look(start.token)
        if token is None:
            self._core.counts["streams refused"] += 1
            return m.StreamRefused(why="its token is unknown, used up or void")
        call = self.by_id[token.call]
        if token.sid is not None and token.sid != start.call_sid:
            self._core.counts["streams refused"] += 1
            return m.StreamRefused(why="its token belongs to another call")
        if call.state in ("ending", "ended"):
            return m.StreamRefused(why="the call is over")
        placement = self._place(call, now)
        if placement is None:
            return m.StreamRefused(why="no codec worker is there")
        if call.sid is None:
            dial = self._core.dials.by_request[call.dial_request or ""]
            self._core.dials.taken(dial, start.call_sid, now)
            if call.state in ("ending", "ended"):
                return m.StreamRefused(why="the call is over")
        self._tokens.void(call.id)
        first = call.ordinal == 0
        call.step("start")
        call.ordinal += 1
        call.placement, call.gateway = placement, start.gateway
        call.active = placement.primary.id
        call.accepted, call.missing, call.checked = now, None, 0
        call.stream_reason = None
        if first:
            self._first_stream(call, now)
        else:
            self._tell_placement(call, gateway=False)
        return m.StreamAccepted(info=call.info(now), first=first)

    def _first_stream(self, call: Call, now: float) -> None:
        call.started = now
        self._core.counts[f"calls {call.direction}"] += 1
        dial = self._core.dials.by_request.get(call.dial_request or "")
        if dial is not None:
            dial.started = True
        session = self._core.sessions.by_id.get(call.session)
        if session is not None:
            if dial is None:
                session.step("started")
            self._core.send(session.peer, m.CallStarted(info=call.info(now)))

    def stream_closed(self, closed: m.StreamClosed, now: float) -> None:
        call = self.by_id.get(closed.call)
        if call is None or closed.ordinal != call.ordinal or not call.live:
            return
        if call.state == "ending":
            call.step("stream_over")
            call.gateway = None
            self._conclude(call, call.reason or "hang_up", now)
        elif closed.reason == "stop":
            self._conclude(call, self._stopped(call, now), now)
        elif call.state == "live":
            self._lost_stream(call, closed.reason, now)

    def _stopped(self, call: Call, now: float) -> m.EndedReason:
        """The far end's stop, or Twilio's TimeLimit."""
        limit, started = call.max_duration, call.started
        if limit is not None and started is not None and now - started >= limit - TIME_LIMIT_SLACK:
            return "max_duration"
        return "stop"

    def _lost_stream(self, call: Call, reason: m.StreamEndReason, now: float) -> None:
        call.step("stream_over")
        call.gateway, call.missing, call.checked = None, now, 0
        call.stream_reason = reason
        log.info("call %s: its stream is gone (%s)", call.sid, reason)
        session = self._core.sessions.by_id.get(call.session)
        if session is not None:
            event = m.CallReconnecting(call=call.id, ordinal=call.ordinal)
            self._core.send(session.peer, event)

    def switched(self, switched: m.Switched, now: float) -> None:
        call = self.by_id.get(switched.call)
        if call is None or call.placement is None or call.gateway != switched.gateway:
            return
        if switched.generation >> 16 != call.ordinal:
            return
        log.info("call %s is now worked on by %s", call.sid, switched.worker)
        self._core.counts["calls moved"] += 1
        call.active = switched.worker
        self._replace(call, now)

    def gateway_beat(self, beat: m.Beat, now: float) -> None:
        """What the gateway still has; repairs what a lost notification left wrong."""
        there = {s.call: s for s in beat.streams}
        for call in self.by_id.values():
            found = there.get(call.id)
            if found is not None and found.ordinal == call.ordinal:
                call.stream_stats = found
                if call.state == "reconnecting" and call.gateway is None:
                    # It had only been out of sight.
                    call.step("start")
                    call.gateway, call.missing = beat.peer, None
                elif call.state == "ended":
                    self._core.send(beat.peer, m.CloseStream(call=call.id))
            elif (
                found is None
                and call.state == "live"
                and call.gateway == beat.peer
                and now - call.accepted > BEAT_SETTLES_AFTER
            ):
                self._lost_stream(call, "error", now)

    # ------------------------------------------------------------------ placement

    def _loads(self) -> dict[str, float]:
        loads: dict[str, float] = {}
        for call in self.by_id.values():
            if call.placement is not None and call.state in ("live", "reconnecting"):
                active = call.active or call.placement.primary.id
                loads[active] = loads.get(active, 0.0) + 1.0
                for worker in (call.placement.primary, call.placement.standby):
                    if worker is not None and worker.id != active:
                        loads[worker.id] = loads.get(worker.id, 0.0) + 0.2
        return loads

    def _place(self, call: Call, now: float) -> m.Placement | None:
        """Where the call's next stream is worked on; None: nowhere."""
        placement = self._core.workers.place(now, self._loads(), call.placement, call.active)
        if placement is None or not self._core.workers.well(placement.primary.id, now):
            return None
        return placement

    def _replace(self, call: Call, now: float) -> None:
        placement = self._core.workers.place(now, self._loads(), call.placement, call.active)
        if placement is not None and placement is not call.placement:
            call.placement = placement
            self._tell_placement(call, gateway=True)

    def _tell_placement(self, call: Call, *, gateway: bool) -> None:
        assert call.placement is not None
        event = m.CallPlaced(call=call.id, placement=call.placement)
        if gateway:
            self._core.send(call.gateway, event)
        session = self._core.sessions.by_id.get(call.session)
        if session is not None:
            self._core.send(session.peer, event)

    def place_all(self, now: float) -> None:
        """Workers came or went: live calls get what they lack."""
        if now - self._core.identity.started < SETTLING_SECONDS:
            return
        workers = self._core.workers
        well = {w for w in workers.by_id if workers.well(w, now)}
        for call in self.by_id.values():
            placement = call.placement
            if call.state != "live" or placement is None:
                continue
            lacks = placement.primary.id not in well
            if placement.standby is None:
                lacks = lacks or len(well) > 1
            else:
                lacks = lacks or placement.standby.id not in well
            if lacks:
                self._replace(call, now)

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

    def send_digits(self, asked: Asked, body: m.SendDigits) -> None:
        call = self._of(asked.peer, body.session, body.call)
        document = twiml.digits(body.digits)
        if call is None or call.state in ("ending", "ended"):
            raise WrongModeError("no active call; send_dtmf requires an in-progress call")
        if call.mode not in ("b-leg", "originate") or call.dialled_sid is None:
            raise WrongModeError(
                "the leg carries our stream: digits by REST would end it; send them as tones"
            )
        self._core.do(do.Instruct(asked, call.dialled_sid, document))

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
        self._tokens.void(call.id)
        call.reason = call.reason or reason
        call.then_failed = call.then_failed or then_failed
        if asked is not None:
            call.ending.append(asked)
        call.step("end")
        self._send_end(call)
        if not call.end_sent and not self._may_still_come(call):
            self._conclude(call, call.reason, now)

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
        for asked in call.ending:
            self._core.reply(asked, m.Done())
        call.ending.clear()
        call.hung_up = now
        dial = self._core.dials.by_request.get(call.dial_request or "")
        if call.then_failed is not None:
            self._core.dials.failed(call.then_failed, "timeout", "", now)
            call.then_failed = None
        if call.state == "ending" and call.gateway is None:
            self._conclude(call, call.reason or "hang_up", now)
        if dial is not None:
            self._core.dials.over(dial, now)
        self._finish_session(call.session)

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

    def _conclude(self, call: Call, reason: m.EndedReason, now: float) -> None:
        by_far_end = call.reason is None and reason in ("stop", "close", "error")
        call.reason = call.reason or reason
        was_silent = call.state == "silent"
        call.step("over")
        call.ended_at = now
        self._tokens.void(call.id)
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
        self._settle_legs(call, now)
        self._finish_session(call.session)

    def _settle_legs(self, call: Call, now: float) -> None:
        """After its end: the legs that we dialled must be over too."""
        dial = self._core.dials.by_request.get(call.dial_request or "")
        if dial is None or dial.leg_over or call.end_sent:
            return
        if call.mode == "b-leg" and call.dialled_sid is not None:
            call.end_sent = True
            self._ends.add(call.id)
            self._core.do(do.End(call.id, (call.dialled_sid,)))
        elif call.dialled_sid is not None:
            call.leg_check = now + LEG_OVER_WITHIN

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
        if not sid or not request:
            return
        dial = self._core.dials.by_request.get(request)
        if dial is not None:
            if dial.sid is None and dial.state in ("asking", "unsure"):
                self._core.dials.taken(dial, sid, now)
            self._core.dials.status(dial, sid, status, now)
        elif status not in ENDED_STATUSES and not self._core.claiming:
            log.warning("call %s: nobody claims it; it is hung up", sid)
            self.hang_up_stray(sid, now)

    def fetched(self, result: do.Fetched, now: float) -> None:
        call = self.by_id.get(result.call)
        if call is None or not call.live or result.status not in ENDED_STATUSES:
            return
        dial = self._core.dials.by_request.get(call.dial_request or "")
        if dial is not None and result.sid == dial.sid:
            self._core.dials.status(dial, result.sid, result.status or "", now)
        if call.live:
            self._conclude(call, call.stream_reason or "close", now)

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
                    self._conclude(call, call.reason or "hang_up", now)
            else:
                self._watch(call, now)
        self._gateways(now)
        self.place_all(now)

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
                self._core.dials.failed(dial, "failed", "no stream came", now)
            self.end(call.id, call.stream_reason or "error", now)
        elif call.checked < len(NO_STREAM_CHECKS) and gone >= NO_STREAM_CHECKS[call.checked]:
            call.checked += 1
            if call.sid is not None:
                self._core.do(do.Fetch(call.id, call.sid))

    def _tick_ended(self, call: Call, now: float) -> None:
        dial = self._core.dials.by_request.get(call.dial_request or "")
        if call.leg_check is not None and now >= call.leg_check:
            call.leg_check = None
            if dial is not None and not dial.leg_over and call.dialled_sid is not None:
                call.end_sent = True
                self._ends.add(call.id)
                self._core.do(do.End(call.id, (call.dialled_sid,)))
        elif now - call.ended_at > ENDED_KEPT and call.id not in self._ends:
            del self.by_id[call.id]
            for sid in (call.sid, call.dialled_sid):
                if sid is not None and self._by_sid.get(sid) is call:
                    del self._by_sid[sid]

    def _gateways(self, now: float) -> None:
        """Streams of gateways that are gone."""
        there = {g.id for g in self._core.gateways() if now - g.heard < GATEWAY_LOST_AFTER}
        for call in self.by_id.values():
            if call.state == "live" and call.gateway not in there:
                self._lost_stream(call, "error", now)

    # ------------------------------------------------------------------ after a restart

    def announced(self, hello: m.Hello, now: float) -> None:
        """A gateway's streams, as it has them."""
        for stream in hello.streams:
            call = self.by_id.get(stream.info.call)
            if call is None:
                call = self._adopt(stream.info, now)
            if call.state in ("ending", "ended") or stream.info.ordinal < call.ordinal:
                self._core.send(hello.peer, m.CloseStream(call=call.id))
                continue
            self._by_sid[stream.info.sid] = call
            call.sid = stream.info.sid
            call.secret = stream.info.secret
            call.ordinal = stream.info.ordinal
            call.step("start")
            call.gateway, call.missing, call.accepted = hello.peer, None, now
            call.active = stream.active
            if stream.info.placement is not None:
                call.placement = _newer(call.placement, stream.info.placement)
            if call.started is None:
                call.started = now - (stream.info.age or 0.0)
            self._mark_started(call)
            if not self._core.claiming and call.session not in self._core.sessions.by_id:
                log.warning("call %s: nobody claims it; it is hung up", call.sid)
                self.end(call.id, "hang_up", now)

    def claimed(self, session: Session, infos: list[m.CallInfo], now: float) -> None:
        """An adapter's calls, as it has them."""
        for info in infos:
            call = self.by_id.get(info.call)
            if call is None:
                call = self._adopt(info, now)
                if info.mode == "originate":
                    call.step("silent")
                else:
                    # Its gateway has not said so yet, or is gone.
                    call.ordinal = max(info.ordinal, 1)
                    call.state, call.missing = "reconnecting", now
                    call.secret, call.placement = info.secret, info.placement
                    call.started = now - (info.age or 0.0)
                self._mark_started(call)
            elif call.state == "expected" and info.ordinal > 0:
                # A dial found in the journal, whose stream had been up.
                call.ordinal, call.secret, call.placement = (
                    info.ordinal,
                    info.secret,
                    info.placement,
                )
                call.sid = call.sid or info.sid
                self._by_sid[info.sid] = call
                call.state, call.missing = "reconnecting", now
                call.started = now - (info.age or 0.0)
                self._mark_started(call)

    def _adopt(self, info: m.CallInfo, now: float) -> Call:
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
        )
        self.by_id[call.id] = call
        for sid in (info.sid, info.dialled_sid):
            if sid:
                self._by_sid[sid] = call
        return call

    def _mark_started(self, call: Call) -> None:
        dial = self._core.dials.by_request.get(call.dial_request or "")
        if dial is not None:
            dial.started = True

    def tell_again(self, session: Session, now: float) -> None:
        """An adapter that reconnected: its calls with their newest placement."""
        for call in self.by_id.values():
            if call.session == session.id and call.started is not None and call.placement:
                if call.state in ("live", "reconnecting"):
                    self._core.send(session.peer, m.CallStarted(info=call.info(now)))
                elif call.state == "ended" and now - call.ended_at < 30.0:
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


def _query(call: Call) -> dict[str, str]:
    """What the redirect back to us carries: which call it is."""
    if call.mode == "a-leg" and call.dial_request is not None:
        return {"d": call.dial_request}
    return {"c": call.id}


def _newer(one: m.Placement | None, other: m.Placement) -> m.Placement:
    if one is None or (other.epoch, other.n) > (one.epoch, one.n):
        return other
    return one
