"""Dials: asking Twilio for a call, once, whatever happens on the way.

The rules in prose and the literal transition table are in :mod:`.tables`. A dial is journalled
before Twilio is asked; its request id travels in the callback URLs and the voice URL, its stream
token in the TwiML. After an answer that never came the call is looked for, and whatever is found
that nobody waits for is hung up.

The other leg of a b-leg dial is known by nothing but the number that it comes to, since carriers
rewrite callers (:mod:`.webhooks`). So while a b-leg dial to a number is open no other dial of ours
to it is: from its turn until its stream is up, or until nothing more can come of it. Others wait,
fairly and told their places, each for as long as its own timeout.

Status callbacks may get lost. While nothing is heard of a dial REST is asked about its call, a few
times (:data:`POLL_AFTER`), and once more before it is given up.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from trunkline.bus import messages as m
from trunkline.bus.errors import CallFailedError, InvalidRequestError, TrunklineError
from trunkline.bus.redact import redact_number

from . import instructions as do
from .carrier import ENDED_STATUSES
from .dial import NOT_ANSWERED, OPEN, Dial, check, new_dial, order
from .dial_queue import DialQueue
from .instructions import Asked
from .journal import DialRow
from .leases import Want
from .session import REST_WITHIN, Session
from .tokens import digest
from .turns import Turns

if TYPE_CHECKING:
    from .core import Core

log = logging.getLogger("trunkline.controller")

#: Places in the queue are told again when they changed, at most this often.
TELL_PLACES_EVERY: Final = 1.0
#: A closed dial is remembered this long, so that what comes late is known.
CLOSED_KEPT: Final = 600.0
#: REST is asked about a dial of which nothing was heard for so long, one after the other (seconds).
POLL_AFTER: Final = (3.0, 6.0, 12.0, 25.0, 50.0)
#: How long REST may take to answer once a dial's time is over.
LAST_LOOK_WITHIN: Final = 3.0


class DialRules:
    """All dials of this epoch, and the open ones of earlier epochs."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.by_request: dict[str, Dial] = {}
        self.queue = DialQueue(core.rules.calls_per_second)
        self.turns = Turns(self)
        self._told_at = float("-inf")
        self._closed_at: list[tuple[float, str]] = []

    # ------------------------------------------------------------------ asked for

    def dial(self, asked: Asked, body: m.Dial, ttl: float, now: float) -> None:
        known = self.by_request.get(body.request)
        if known is not None:
            self._again(known, asked, body)
            return
        session = self._core.sessions.of(asked.peer, body.session)
        check(body, session.allowed_callees)
        self._core.sessions.check_mode(session, "call")
        session.step("dial")
        token = secrets.token_hex(16)
        row = DialRow(
            request=body.request,
            session=session.id,
            secret_hash=session.secret_hash,
            call=secrets.token_hex(16),
            mode=body.mode,
            callee=body.to,
            caller=session.number,
            timeout=body.timeout,
            max_duration=body.max_duration,
            token_hash=digest(token),
            sid=None,
            state="asked",
            asked=0.0,
        )
        shared = body.mode != "b-leg" and self.turns.needed(body.to)
        state = "leasing" if body.mode == "b-leg" else "waiting" if shared else "queued"
        new = new_dial(row, state, now, [asked], token)
        new.trace = body.trace
        self.by_request[body.request] = new
        self._core.calls.expect(new, now)
        if body.mode == "b-leg":
            deadline = now + min(ttl, REST_WITHIN)
            self._core.sessions.opening.look_up(body.to, body.request, deadline, now)
        elif shared:
            self.turns.wait(new, now)
        else:
            self.enqueue(new, now)

    def _again(self, dial: Dial, asked: Asked, body: m.Dial) -> None:
        if dial.row.session != body.session or dial.row.callee != body.to:
            raise InvalidRequestError(f"dial {body.request} exists, to another number")
        self._core.sessions.of(asked.peer, body.session)
        if dial.state == "closed" or dial.gone is not None:
            raise dial.error()
        if dial.sid is not None:
            self._core.reply(asked, m.Dialled(call=dial.row.call, sid=dial.sid))
        else:
            dial.asked.append(asked)

    # ------------------------------------------------------------------ the callee's number (b-leg)

    def callee_found(self, request: str, sid: str, now: float) -> None:
        dial = self.by_request[request]
        session = self._core.sessions.by_id.get(dial.row.session)
        if dial.state != "leasing" or session is None:
            return
        want = Want(session.id, frozenset((session.number,)), request, now + REST_WITHIN)
        self._core.sessions.lease(want, dial.row.callee, sid, now)

    def leased(self, request: str, now: float) -> None:
        dial = self.by_request[request]
        if dial.state == "leasing":
            dial.step("leased")
            self.turns.wait(dial, now)

    def lease_refused(self, request: str, error: TrunklineError, now: float) -> None:
        dial = self.by_request[request]
        if dial.state == "leasing":
            dial.step("refused")
            self._close(dial, error, now)

    # ------------------------------------------------------------------ the queue

    def enqueue(self, dial: Dial, now: float) -> None:
        self.queue.add(dial.row.session, dial.request)
        self._ask_next(now)
        if dial.state == "queued":
            self._tell_places(now, only=dial.request)

    def _ask_next(self, now: float) -> None:
        while (request := self.queue.take(now)) is not None:
            dial = self.by_request[request]
            dial.step("ask")
            dial.row = replace(dial.row, asked=self._core.wall(now))
            dial.deadline = now + dial.row.timeout
            self._core.calls.good_token(dial, digest(dial.token))
            asked_for = order(dial.row, dial.token, self._core.identity.public_url)
            self._core.do(do.Create(dial.row, asked_for, dial.deadline))

    def _tell_places(self, now: float, only: str | None = None) -> None:
        for place, request in enumerate(self.queue.order(), 1):
            dial = self.by_request[request]
            if place != dial.told_place and only in (None, request):
                dial.told_place = place
                seconds = self.queue.seconds(place, now)
                self.tell(dial, m.DialQueued(request=request, place=place, seconds=seconds))

    def tell(self, dial: Dial, event: m.DialQueued | m.DialFailed) -> None:
        session = self._core.sessions.by_id.get(dial.row.session)
        if session is not None:
            self._core.send(session.peer, event)

    # ------------------------------------------------------------------ what Twilio says

    def result(
        self,
        result: do.AskedTwilio | do.Taken | do.CreateFailed | do.Unsure | do.NotFound,
        now: float,
    ) -> None:
        dial = self.by_request.get(result.request)
        if dial is None:
            return
        if isinstance(result, do.AskedTwilio):
            dial.deadline = now + dial.row.timeout
        elif isinstance(result, do.Taken):
            self.taken(dial, result.sid, now, journalled=True, guessed=result.guessed)
            self.status(dial, result.sid, result.status, now)
        elif isinstance(result, do.Unsure):
            log.warning(
                "dial %s: whether Twilio took it is not known: %s", dial.request, result.error
            )
            dial.step("unsure")
            if dial.state == "unsure":
                self._core.do(do.Settle(dial.row))
        elif isinstance(result, do.CreateFailed):
            if dial.state != "closed":
                dial.step("refused")
                self._close(dial, result.error, now)
        else:
            dial.step("not_found")
            if dial.state == "closed":
                self.failed(dial, "failed", "the request to Twilio got lost", now)
                self._close(dial, dial.error(), now)

    def taken(
        self, dial: Dial, sid: str, now: float, *, journalled: bool = False, guessed: bool = False
    ) -> None:
        """Our leg's SID is known, from whichever side it came. Whatever names the dial is
        evidence, and corrects what was ``guessed``."""
        if dial.sid != sid and (dial.state == "closed" or not (dial.sid is None or dial.guessed)):
            if not guessed:
                # A call that nobody claims: it came of the same request all the same.
                log.error("dial %s led to another call, %s; it is hung up", dial.request, sid)
                self._core.calls.hang_up_stray(sid, now)
            return
        if dial.sid != sid:
            self._take_sid(dial, sid, guessed)
            journalled = journalled and not guessed
        elif dial.guessed and not guessed:
            dial.guessed, journalled = False, False
        else:
            journalled = True  # it was known
        if not journalled and not guessed:
            self._core.do(do.NoteTaken(dial.request, sid))
        dial.step("taken")
        for asked in dial.asked:
            self._core.reply(asked, m.Dialled(call=dial.row.call, sid=sid))
        dial.asked.clear()
        if dial.gone is not None:
            self._core.calls.end(dial.row.call, "hang_up", now)

    def _take_sid(self, dial: Dial, sid: str, guessed: bool) -> None:
        if dial.sid is not None:
            log.warning("dial %s: its call is %s, not %s", dial.request, sid, dial.sid)
            self._core.calls.not_dialled(dial, dial.sid)
        for other in self.by_request.values():
            if other.sid == sid and other.guessed and other.state == "taken":
                self._core.calls.not_dialled(other, sid)
                other.row = replace(other.row, sid=None)
                other.guessed = False
                other.step("mistaken")
                self._core.do(do.Settle(other.row))
        dial.row = replace(dial.row, sid=sid)
        dial.guessed = guessed
        self._core.calls.dialled(dial, sid)
        log.info(
            "call %s from %s to %s was taken by Twilio",
            sid,
            redact_number(dial.row.caller),
            redact_number(dial.row.callee),
        )

    def with_sid(self, sid: str) -> Dial | None:
        """The dial whose leg this is: for a callback that came without its query."""
        return next((d for d in self.by_request.values() if sid and d.sid == sid), None)

    def status(self, dial: Dial, sid: str, status: str, now: float) -> None:
        """A status of our leg, from a callback, the answer to create, or a fetch."""
        if sid != dial.sid or dial.leg_over:
            return
        dial.known.tell_status(status, now)
        if status not in ENDED_STATUSES:
            if status == "in-progress":
                self._core.calls.answered(dial, now)
            return
        dial.leg_over = True
        if status in NOT_ANSWERED:
            self.failed(dial, status, "", now)
        else:
            # After a timeout this is our own hang-up.
            text = "" if dial.timed_out else f"the call ended ({status}) without a stream"
            self.failed(dial, "failed", text, now)
        self._core.calls.over(dial.row.call, now)
        self.over(dial, now)

    def failed(self, dial: Dial, status: str, text: str, now: float) -> None:
        """The dial ends without a call; tell once, with ``text`` and what was known of it."""
        if dial.gone is not None or dial.started:
            return
        if dial.timed_out:
            status = "timeout"
        parts = [text]
        if dial.row.asked:
            leg = "" if dial.leg_over else dial.known.leg(now)
            parts += [dial.last_word or leg, dial.known.webhook(now)]
        parts.append(dial.known.refused())
        dial.gone = status
        dial.gone_text = "; ".join(part for part in parts if part)
        self._core.counts[f"dials {status}"] += 1
        self._tell_failed(dial)
        self._fail(dial, dial.error())

    def _fail(self, dial: Dial, error: TrunklineError) -> None:
        for asked in dial.asked:
            self._core.fail(asked, error)
        dial.asked.clear()

    def _tell_failed(self, dial: Dial) -> None:
        event = m.DialFailed(
            request=dial.request,
            call=dial.row.call,
            status=dial.gone or "failed",
            sid=dial.sid,
            text=dial.gone_text,
        )
        self.tell(dial, event)

    def over(self, dial: Dial, now: float) -> None:
        """Nothing more can come of our leg."""
        if dial.state in OPEN:
            dial.step("over")
            self.failed(dial, "failed", "its leg is over", now)
            # The b-leg may have come up before we learned our own leg's SID. Then nothing else will
            # answer this request.
            self._fail(dial, dial.error())
            self._core.do(do.CloseDial(dial.request))
            self._closed_at.append((now, dial.request))

    def _close(self, dial: Dial, error: TrunklineError, now: float) -> None:
        self._fail(dial, error)
        dial.gone = dial.gone or "failed"
        self.queue.drop(dial.row.session, dial.request)
        self.turns.drop(dial)
        self._core.calls.over(dial.row.call, now)
        if dial.row.asked:
            self._core.do(do.CloseDial(dial.request))
        self._closed_at.append((now, dial.request))

    # ------------------------------------------------------------------ given up

    def cancel(self, asked: Asked, body: m.CancelDial, now: float) -> None:
        self._core.sessions.of(asked.peer, body.session)
        dial = self.by_request.get(body.request)
        if dial is None or dial.row.session != body.session:
            self._core.reply(asked, m.Done())
            return
        self.give_up(dial, "canceled", now)
        if dial.sid is not None and not dial.leg_over:
            self._core.calls.end(dial.row.call, "hang_up", now, asked=asked)
        else:
            self._core.reply(asked, m.Done())

    def give_up(self, dial: Dial, why: str, now: float) -> None:
        """Nobody waits for it any more: hang up what comes of it."""
        if dial.gone is None:
            dial.gone = why
        error = CallFailedError("the dial was cancelled", status="canceled")
        never_asked = dial.state in ("leasing", "waiting", "queued")
        dial.step("cancel")
        if never_asked:
            self._close(dial, error, now)
        else:
            self._fail(dial, error)

    def close_session(self, session: str, now: float) -> None:
        for dial in list(self.by_request.values()):
            if dial.row.session == session and dial.state != "closed":
                self.give_up(dial, "canceled", now)

    def tick(self, now: float) -> None:
        self.turns.give(now)
        self._ask_next(now)
        if now - self._told_at >= TELL_PLACES_EVERY:
            self._told_at = now
            self._tell_places(now)
            self.turns.tell()
        for dial in list(self.by_request.values()):
            if dial.started or dial.gone is not None:
                continue
            if now >= dial.deadline:
                self._timed_out(dial, now)
            else:
                self._poll(dial, now)
        while self._closed_at and now - self._closed_at[0][0] > CLOSED_KEPT:
            self.by_request.pop(self._closed_at.pop(0)[1], None)

    def _timed_out(self, dial: Dial, now: float) -> None:
        if dial.state == "closed":
            return
        if dial.row.mode == "originate" and dial.state == "taken":
            self._poll(dial, now)
            return  # its call is live since Twilio took it
        if dial.state == "waiting":
            self.failed(dial, "timeout", self.turns.why(dial, now), now)
            dial.step("refused")
            self._close(dial, dial.error(), now)
        elif dial.sid is not None and not dial.last_look:
            dial.last_look, dial.deadline = True, now + LAST_LOOK_WITHIN
            self._core.do(do.Fetch(dial.row.call, dial.sid))
        else:
            self._time_over(dial, now)

    def looked(self, dial: Dial, now: float) -> None:
        """REST has said what it knows of the dial's call, or has not answered."""
        waits = dial.gone is None and not dial.started and not dial.timed_out
        if dial.last_look and waits and dial.state != "closed":
            self._time_over(dial, now)

    def _poll(self, dial: Dial, now: float) -> None:
        """Ask REST about a dial of which nothing was heard for a while."""
        if dial.state != "taken" or dial.sid is None or dial.leg_over or dial.last_look:
            return
        if dial.polled < len(POLL_AFTER) and now - dial.known.heard >= POLL_AFTER[dial.polled]:
            dial.polled += 1
            dial.known.heard = now
            self._core.do(do.Fetch(dial.row.call, dial.sid))

    def _time_over(self, dial: Dial, now: float) -> None:
        log.info("dial %s: no stream within %g s", dial.request, dial.row.timeout)
        dial.timed_out, dial.last_word = True, dial.known.leg(now)
        if dial.sid is None:
            self.failed(dial, "timeout", "", now)
        else:
            # Hung up first, told then.
            dial.deadline = float("inf")
            self._core.calls.end(dial.row.call, "hang_up", now, then_failed=dial)

    # ------------------------------------------------------------------ after a restart

    def recover(self, rows: Sequence[DialRow], now: float) -> None:
        """Open rows of the journal, and closed ones that a client may still ask about."""
        for row in rows:
            if row.state == "closed":
                closed = self.by_request[row.request] = new_dial(row, "closed", now)
                closed.gone = "failed"
                self._closed_at.append((now, row.request))
                continue
            state = "taken" if row.sid is not None else "unsure"
            dial = new_dial(row, state, now)
            # Whether it has its stream by now is the gateways' and adapters' to say.
            dial.deadline = max(self._core.claim_until, self._core.mono(row.asked) + row.timeout)
            self.by_request[row.request] = dial
            self._core.calls.expect(dial, now)
            self._core.calls.good_token(dial, row.token_hash)
            if row.sid is not None:
                self._core.calls.dialled(dial, row.sid)
            else:
                self._core.do(do.Settle(row))

    def claimed(self, session: Session, dials: list[m.Dial], now: float) -> None:
        """A session that is back says which dials it waits for."""
        wanted = {dial.request for dial in dials}
        for dial in list(self.by_request.values()):
            if dial.row.session != session.id:
                continue
            if dial.request in wanted and dial.gone is not None:
                self._tell_failed(dial)  # it may have missed that
            if dial.state == "closed":
                continue
            if dial.request in wanted or dial.started or dial.row.mode == "originate":
                if dial.sid is not None and not dial.started:
                    # Callbacks may have come while no controller was there.
                    self._core.do(do.Fetch(dial.row.call, dial.sid))
                continue
            call = self._core.calls.by_id.get(dial.row.call)
            if call is None or call.state == "expected":
                self.give_up(dial, "canceled", now)
                self._core.calls.end(dial.row.call, "hang_up", now)

    def has(self, sid: str, *, but: str) -> bool:
        """The call came of a dial of ours, of another one than ``but``; it may be over."""
        return any(d.sid == sid and d.request != but for d in self.by_request.values())

    def secret_of(self, session: str) -> str | None:
        """The hash of the session's secret, as a dial of it has it in the journal."""
        for dial in self.by_request.values():
            if dial.row.session == session:
                return dial.row.secret_hash
        return None

    def claims_over(self, now: float) -> None:
        """What no session has claimed is hung up."""
        for dial in list(self.by_request.values()):
            if dial.state != "closed" and dial.row.session not in self._core.sessions.by_id:
                if dial.gone is None:
                    log.warning("dial %s: nobody claims it; its call is hung up", dial.request)
                self.give_up(dial, "canceled", now)
                self._core.calls.end(dial.row.call, "hang_up", now)
