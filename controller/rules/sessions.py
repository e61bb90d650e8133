"""Sessions: opening, arming, closing, losing. :mod:`.numbers` says which numbers they get.

The rules in prose and the literal transition table are in :mod:`.tables`. Closing is one path, in
whichever way it began: asked for, the lease lost, the stack shut down. Numbers are put back first,
and calls are hung up meanwhile. The answer waits for both, for :data:`CLOSE_WITHIN` seconds at
most, and names the numbers that are still pending then.
"""

from __future__ import annotations

import logging
from typing import Final

from trunkline.bus import messages as m
from trunkline.bus.errors import InvalidRequestError, TrunklineError, WrongModeError
from trunkline.bus.redact import redact_number

from .. import events as ev
from ..instructions import ReplyTo
from . import facts as f
from .book.lease import LeaseRequest
from .book.lookups import Seeker
from .book.opening import new_session
from .book.session import REST_WITHIN, Session
from .facts import Ask
from .moment import Moment

log = logging.getLogger("trunkline.controller")

#: A session whose client was not heard of for this long is lost (seconds). A restore takes less
#: than a second more, as a rule, so a killed client's numbers are as before within 10 s.
LEASE_SECONDS: Final = 9.0
#: Sessions of one client, at most: each is a line, and takes memory here.
MOST_SESSIONS: Final = 4_000
#: How long CloseSession waits for restores and hang-ups before it says what is pending.
CLOSE_WITHIN: Final = 8.0


# --------------------------------------------------------------------------- opening


def open_(at: Moment, ask: Ask[m.OpenSession]) -> None:
    """A client wants a session. If the session is there already, the request is a repetition, and
    gets the answer that the first one gets."""
    info = ask.body.info
    known = at.book.sessions.get(info.session)
    if known is not None:
        known.must_have_secret(info)
        if known.state == "closing":
            raise WrongModeError(f"session {known.id} is being closed")
        known.heard(ask.reply_to.peer, at.now)
        if known.state == "opening":
            known.asks_to_open(ask.reply_to)
        else:
            _opened(at, known, ask.reply_to)
        return
    peer = ask.reply_to.peer
    all_sessions = at.book.sessions.values()
    if (
        len(all_sessions) >= MOST_SESSIONS
        and sum(session.peer == peer for session in all_sessions) >= MOST_SESSIONS
    ):
        raise InvalidRequestError(f"{MOST_SESSIONS} sessions are the most that a client may have")
    session = new_session(at.book, info, peer, at.now)
    session.waits_until(at.now + min(ask.ttl, REST_WITHIN))
    session.asks_to_open(ask.reply_to)
    at.book.add_session(session)
    if info.number == m.ANY_NUMBER and at.book.pool.known(at.now):
        session.waits_until(at.now + ask.ttl)  # for a free number, not for REST
        at.tell(f.PoolWanted(session.id))
    else:
        at.tell(f.Sought(session.number, Seeker(session.id), session.deadline))


def number_found(at: Moment, found: f.NumberFound) -> None:
    """The account has the session's number: it opens, or goes on to be armed."""
    session = _seeker(at, found.seeker)
    if session is None or session.number != found.number:
        return
    session.take_number_sid(found.sid)
    if session.state == "opening":
        session.step("opened")
        log.info("session %s opened on %s", session.id, redact_number(found.number))
        for reply_to in session.take_opening():
            _opened(at, session, reply_to)
    elif session.state in ("arming", "disarming"):
        _request_lease(at, session)


def number_missing(at: Moment, missing: f.NumberMissing) -> None:
    """The number is not the account's, none is free, or Twilio did not tell: the session does not
    open, or is not armed."""
    session = _seeker(at, missing.seeker)
    if session is None:
        return
    if session.state == "opening":
        session.step("refused")
        at.book.drop_session(session)
        at.book.pool.drop(session.id)
        at.fail_all(session.take_opening(), missing.error)
    elif session.state in ("arming", "disarming"):
        _arm_refused(at, session, missing.error)


def _seeker(at: Moment, seeker: Seeker) -> Session | None:
    """The session that sought a number for itself."""
    return at.book.sessions.get(seeker.session) if seeker.dial is None else None


def _opened(at: Moment, session: Session, reply_to: ReplyTo) -> None:
    """The same answer for whoever asks again."""
    at.reply(
        reply_to,
        m.SessionOpened(
            session=session.id,
            number=session.number,
            number_sid=session.number_sid,
            account=at.book.identity.account,
            public_url=at.book.identity.public_url,
        ),
    )


# --------------------------------------------------------------------------- arming


def arm(at: Moment, ask: Ask[m.Arm]) -> None:
    """The session waits for a call: its number gets our override, if it has not got it already.

    Three ways lead on. The session may hold the number with the override on it, from the last time:
    then it is armed at once. It may know its number's SID: then it wants the number. Else it looks
    the number up.
    """
    session = at.book.session_of(ask.reply_to.peer, ask.body.session)
    session.must_be("answer")
    was = session.state
    session.arm(ask.trace, at.now + min(ask.ttl, REST_WITHIN))
    if session.state in ("armed", "taken"):
        at.reply(ask.reply_to, m.Armed(session=session.id))
        return
    session.asks_to_arm(ask.reply_to)
    if was in ("arming", "disarming"):
        return
    session.forget_call()
    lease = at.book.leases.get(session.number)
    if lease is not None and session.id in lease.holders and lease.state == "applied":
        _armed(at, session)
    elif session.number_sid:
        _request_lease(at, session)
    else:
        at.tell(f.Sought(session.number, Seeker(session.id), session.deadline))


def _request_lease(at: Moment, session: Session) -> None:
    """Ask for our override on the session's own number, for the calls that it lets in."""
    request = LeaseRequest(session.id, session.allowed_callers, None, session.deadline)
    at.tell(f.Wanted(request, session.number, session.number_sid))


def granted(at: Moment, granted: f.Granted) -> None:
    """Twilio has confirmed the override on the number that the session holds."""
    session = _requester(at, granted.request)
    if session is not None:
        _armed(at, session)


def refused(at: Moment, refused: f.Refused) -> None:
    """The number is another session's, or Twilio does not take the override."""
    session = _requester(at, refused.request)
    if session is not None and session.state in ("arming", "disarming"):
        _arm_refused(at, session, refused.error)


def _requester(at: Moment, request: LeaseRequest) -> Session | None:
    """The session that wanted a number to wait for calls there."""
    return at.book.sessions.get(request.session) if request.dial is None else None


def _armed(at: Moment, session: Session) -> None:
    """Everybody who asked for it hears that a call may come."""
    session.step("armed")
    at.reply_all(session.take_arming(), m.Armed(session=session.id))


def _arm_refused(at: Moment, session: Session, error: TrunklineError) -> None:
    """Whoever asked is refused. The session itself stays: its client may arm it again."""
    if session.state == "arming" and not session.arming:
        # Armed before a restart, so nobody asks: its client must hear that it is no more.
        at.tell(f.SessionLost(session.id, f"its number could not be armed again: {error}"))
        return
    session.step("refused")
    at.fail_all(session.take_arming(), error)


def disarm(at: Moment, ask: Ask[m.Disarm]) -> None:
    """Nobody waits for a call any more. The override stays until the session closes: putting it on
    again would cost a read and a write at Twilio, each time that a test waits for its next call."""
    session = at.book.session_of(ask.reply_to.peer, ask.body.session)
    session.must_be("answer")
    session.step("disarm")
    at.reply(ask.reply_to, m.Done())
    at.fail_all(session.take_arming(), WrongModeError("disarmed meanwhile"))
    if session.armed_call is not None:
        # It came in for somebody who does not wait any more.
        at.tell(f.HangUp(session.armed_call, "hang_up"))
        session.forget_call()


# --------------------------------------------------------------------------- its calls


def call_up(at: Moment, up: f.StreamUp) -> None:
    """A call's first stream is up: tell its client."""
    session = at.book.sessions.get(up.call.session)
    if not up.first or session is None or up.call.theirs is not None:
        return
    if up.call.dial_request is None:
        session.step("started")
    at.send(session.peer, m.CallStarted(info=up.call.info(at.now)))


def reconnecting(at: Moment, lost: f.Reconnecting) -> None:
    """The client stops expecting sound until the next stream is up."""
    call = lost.call
    event = m.CallReconnecting(call=call.id, ordinal=call.ordinal, reason=lost.reason)
    at.send_session(call.session, event)


def call_over(at: Moment, over: f.CallOver) -> None:
    """Tell the client that a call has ended, if it has heard of the call at all."""
    call = over.call
    session = at.book.sessions.get(call.session)
    if session is None:
        return
    if call.started is not None or over.was_silent or call.mode == "originate":
        log.info("call %s is over (%s)", call.sid, call.reason)
        at.send(session.peer, call.ended_message(at.now, by_far_end=over.by_far_end))
    elif call.direction == "inbound" and session.state in ("taken", "standing"):
        session.step("missed")
        at.tell(f.CallMissed(call))


# --------------------------------------------------------------------------- closing


def close_asked(at: Moment, ask: Ask[m.CloseSession]) -> None:
    """A client closes its session. The answer waits until everything of it is over, so that a test
    which has closed its line finds the number as it was before."""
    session = at.book.sessions.get(ask.body.session)
    if session is None or session.peer != ask.reply_to.peer:
        # Closed already, or lost: there is nothing left to do for it.
        at.reply(ask.reply_to, m.SessionClosed(session=ask.body.session))
        return
    session.asks_to_close(ask.reply_to)
    _close(at, session)


def _close(at: Moment, session: Session) -> None:
    """Put its numbers back, hang up its calls; then it is gone."""
    if session.state == "closing":
        return
    session.close(at.now + CLOSE_WITHIN)
    at.book.pool.drop(session.id)
    waiting = [*session.take_opening(), *session.take_arming()]
    at.fail_all(waiting, WrongModeError(f"session {session.id} was closed meanwhile"))
    at.tell(f.SessionClosing(session.id))


def closes(at: Moment, closing: f.SessionClosing) -> None:
    """The last in its row: if there was nothing to put back or to hang up, it is over now."""
    _perhaps_closed(at, closing.session)


def number_back(at: Moment, restored: f.NumberBack) -> None:
    """A closing session may have waited for just that number."""
    for session in restored.sessions:
        _perhaps_closed(at, session)


def call_settled(at: Moment, settled: f.CallOver | f.LegsHungUp) -> None:
    """A closing session may have waited for just that call."""
    _perhaps_closed(at, settled.call.session)


def _perhaps_closed(at: Moment, session_id: str, *, give_up: bool = False) -> None:
    """Finish a closing session that has nothing left (or, ``give_up``, waits no longer)."""
    session = at.book.sessions.get(session_id)
    if session is None or session.state != "closing":
        return
    pending = at.book.pending(session.id)
    if not give_up and (pending or at.book.has_live_calls(session.id)):
        return
    at.reply_all(session.closing, m.SessionClosed(session=session.id, pending=pending))
    session.step("closed")
    at.book.end_session(session)
    log.info("session %s on %s is over", session.id, redact_number(session.number))


def lose(at: Moment, lost: f.SessionLost) -> None:
    """Close it as if the client had asked, and tell the client, if it is there."""
    session = at.book.sessions.get(lost.session)
    if session is None or session.state == "closing":
        return
    shown = redact_number(session.number)
    log.warning("session %s on %s is lost: %s", session.id, shown, lost.why)
    at.count("sessions lost")
    at.send(session.peer, m.SessionLost(session=session.id, why=lost.why))
    _close(at, session)


def close_all(at: Moment, closing: f.AllClosing) -> None:
    """The stack ends. Each client hears of it before its numbers are put back, because a message
    costs no time."""
    for session in at.book.sessions.values():
        at.tell(f.SessionLost(session.id, "the stack is being shut down"))


def peer_left(at: Moment, left: f.ClientLeft) -> None:
    """A client said Goodbye: close the sessions that it left open."""
    for session in list(at.book.sessions.values()):
        if session.peer == left.peer:
            _close(at, session)


# --------------------------------------------------------------------------- in time


def renew(at: Moment, heard: f.ClientBeat) -> None:
    """A client's beat keeps its sessions. A client that lists a session which is over has missed
    our message. Tell it again; otherwise it would go on for ever with nothing behind it."""
    beat = heard.beat
    for session_id in beat.sessions:
        session = at.book.sessions.get(session_id)
        if session is not None and session.peer == beat.peer:
            session.heard(beat.peer, at.now)
        elif session_id in at.book.ended:
            at.send(beat.peer, m.SessionLost(session=session_id, why="it is over"))


def tick(at: Moment, tick: ev.Tick) -> None:
    """Sessions whose clients are not heard of are lost, because a client that was killed cannot
    close them. A closing session waits until its ``close_by`` and no longer. Its answer names the
    numbers that are pending then, and these are put back without it."""
    for session in at.book.session_rounds.now:
        if session.state == "closing":
            if at.now >= session.close_by:
                _perhaps_closed(at, session.id, give_up=True)
        elif at.now - session.renewed > LEASE_SECONDS:
            at.tell(f.SessionLost(session.id, "its client was not heard of any more"))
