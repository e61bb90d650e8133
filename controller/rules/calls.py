"""Calls: which there are, and their ends. The rules in prose and the literal table are in
:mod:`.tables`.

A webhook finds its call by the CallSid. Every call ends once, and its client hears of that once,
with the first reason that was given. While a call that should have a stream has none, REST is asked
about it a few times. After 15 s it is hung up.

For example, a client hangs up: the call is *ending*, REST is asked, and the stream may still bring
sound. The call is over when its stream is gone, or, if it had none, when REST has taken the
hang-up. A stream that stays all the same is closed by us :data:`CLOSE_STREAM_AFTER` later.

A call that is over for us may still cost money. So a hang-up is sent for every leg that is known,
and is repeated until REST takes it. A leg that we dialled is followed up even where its stream has
ended by itself, because it need not have ended with it.
"""

from __future__ import annotations

import logging
import secrets
from typing import Final

from trunkline.bus import messages as m

from .. import events as ev
from .. import instructions as do
from ..twilio.calls import ENDED_STATUSES
from . import facts as f
from .book.call import Call
from .book.dial import Dial
from .facts import Ask
from .moment import Moment

log = logging.getLogger("trunkline.controller")

#: A call that should have a stream is asked about after each of these times without one, and hung
#: up after NO_STREAM_LIMIT (seconds).
NO_STREAM_CHECKS: Final = (2.0, 5.0, 10.0)
NO_STREAM_LIMIT: Final = 15.0
#: If a stream is still there so long after REST has hung its call up, we close it (seconds).
CLOSE_STREAM_AFTER: Final = 1.5
#: The leg that we dialled should be over with its call. It is hung up when Twilio has not said so
#: within this time (seconds).
LEG_OVER_WITHIN: Final = 3.0
#: Ended calls are kept, so that a late webhook of theirs is answered with a hang-up.
ENDED_KEPT: Final = 600.0


# --------------------------------------------------------------------------- calls that we dial


def dialled(at: Moment, known: f.SidKnown) -> None:
    """Twilio took the dial under this SID."""
    call = at.book.calls[known.dial.row.call]
    hung_up = not call.live or call.end_sent
    call.dialled(known.sid)
    at.book.know(call, known.sid)
    if hung_up:
        # Its b-leg has gone, or was hung up, before Twilio said that it has our own.
        _end_dialled(at, call)


def not_dialled(at: Moment, wrong: f.SidWrong) -> None:
    """That call is not the dial's: it was a guess."""
    call = at.book.calls[wrong.dial.row.call]
    at.book.unknow(call, wrong.sid)
    call.not_dialled(wrong.sid)


def answered(at: Moment, answered: f.Answered) -> None:
    """The far end picked up: its stream should come now."""
    call = at.book.calls.get(answered.dial.row.call)
    if call is not None:
        call.answered(at.now)


def answered_by(at: Moment, known: f.AnsweredByKnown) -> None:
    """Twilio has found out who answered. The client is told at once, also while the stream of the
    call is still to come: Twilio says it once, and no controller after this one would know."""
    call = at.book.calls.get(known.dial.row.call)
    if call is None or not call.live or known.dial.sid != known.sid:
        return
    if call.answered_by_known(known.answered_by):
        at.count(f"answered by {known.answered_by}")
        event = m.AnsweredBy(call=call.id, answered_by=known.answered_by)
        at.send_session(call.session, event)


def dial_over(at: Moment, over: f.LegOver | f.DialOver) -> None:
    """The dial's call is over, or never came to be."""
    call = at.book.calls.get(over.dial.row.call)
    if call is not None and call.live:
        _conclude(at, call, call.reason or call.stopped(at.now))


def hang_up_stray(at: Moment, stray: f.Stray) -> None:
    """Hang up a call that belongs to nothing that we know. It gets an entry in the book, so that
    its hang-up is repeated and followed like any other."""
    known = at.book.by_sid.get(stray.sid)
    if known is not None and known.over:
        return
    call = Call(secrets.token_hex(16), "", "outbound", "", "", "", at.now, sid=stray.sid)
    at.book.add_call(call, stray.sid)
    _end(at, call, f.HangUp(call.id, "hang_up"))


# --------------------------------------------------------------------------- hanging up


def hang_up_asked(at: Moment, ask: Ask[m.HangUp]) -> None:
    """A client hangs up. It is answered when REST has taken it: only then is the call certain to
    end."""
    call = at.book.call_of(ask.reply_to, ask.body.session, ask.body.call)
    if call is None or not call.live:
        at.reply(ask.reply_to, m.Done())
    else:
        _end(at, call, f.HangUp(call.id, "hang_up", ask.reply_to))


def hang_up(at: Moment, due: f.HangUp) -> None:
    """Hang it up, if it is not over yet."""
    call = at.book.calls.get(due.call)
    if call is not None and call.live:
        _end(at, call, due)
    elif due.reply_to is not None:
        at.reply(due.reply_to, m.Done())


def by_hand(at: Moment, act: ev.ByHand) -> None:
    """Somebody at the console acts on a call, as its client might. What is said in it is the
    client's own business, which alone knows how far it has spoken: the client is asked."""
    call = at.book.calls.get(act.call)
    if call is None or not call.live:
        return
    at.count(f"by hand {act.order}")
    if act.order == "hang_up":
        at.tell(f.HangUp(call.id, "hang_up"))
    elif act.order == "interrupt":
        at.send_session(call.session, m.InterruptByHand(call=call.id))
    else:
        at.send_session(call.session, m.SpeakByHand(call=call.id, pcm=act.pcm))


def session_closes(at: Moment, closing: f.SessionClosing) -> None:
    """Hang up the calls of a session that closes. They count as pending until REST has taken
    that."""
    for call in list(at.book.calls_of(closing.session)):
        if call.live:
            _end(at, call, f.HangUp(call.id, "hang_up"))


def _end(at: Moment, call: Call, due: f.HangUp) -> None:
    """Hang it up. Where no leg is known there are two cases. If Twilio may have been asked, the SID
    will become known, and :func:`tick` hangs up then. Else there is nothing at Twilio, and the call
    is over now."""
    at.book.tokens.void_all(call.id)
    if call.state != "ending":
        at.tell(f.CallEnding(call))
    call.end(due.reason, due.reply_to, tell_timeout=due.tell_timeout)
    _send_end(at, call)
    if not call.end_sent and not _may_still_come(at, call):
        _conclude(at, call, due.reason)
    elif call.end_sent and not call.end_under_way:
        _answer_ending(at, call)  # REST took it before this one asked
    elif call.end_error is not None:
        at.fail_all(call.take_ending(), call.end_error)  # REST says it once, and has said it


def _may_still_come(at: Moment, call: Call) -> bool:
    """Twilio may have been asked for it, and its SID is not known yet."""
    dial = at.book.dial_of(call)
    return dial is not None and dial.state in ("asking", "unsure")


def _send_end(at: Moment, call: Call) -> None:
    """Hang up both its legs, as far as they are known."""
    end = None if call.end_sent else call.send_end(call.dialled_sid, call.sid)
    if end is not None:
        at.do(end)


def _end_dialled(at: Moment, call: Call) -> None:
    """Hang up the leg that we dialled."""
    end = call.send_end(call.dialled_sid)
    if end is not None:
        at.do(end)


def ended(at: Moment, result: ev.EndTaken) -> None:
    """REST took the hang-up, or the call was over before that. Where it hangs up two legs, one
    after the other, nothing follows before it has taken both. If the dial has timed out, its client
    hears of it only now, because only now Twilio will not make that phone ring any more."""
    call = at.book.calls.get(result.call)
    if call is None or not call.end_taken(result.sids, at.now):
        return
    _answer_ending(at, call)
    _tell_timeout(at, call, "")
    if call.state == "ending" and call.gateway is None:
        _conclude(at, call, call.reason or "hang_up")
    at.tell(f.LegsHungUp(call))


def end_failed(at: Moment, result: ev.EndFailed) -> None:
    """REST has not taken the hang-up for a while, or refuses it. We close the stream, at which
    Twilio asks for the next document, and that tells it to hang up."""
    call = at.book.calls.get(result.call)
    if call is None:
        return
    call.end_failed(result.error)
    at.fail_all(call.take_ending(), result.error)
    _tell_timeout(at, call, str(result.error))
    at.send(call.gateway, m.CloseStream(call=call.id))


def _answer_ending(at: Moment, call: Call) -> None:
    """Those who asked for its end have it."""
    at.reply_all(call.take_ending(), m.Done())


def _tell_timeout(at: Moment, call: Call, text: str) -> None:
    """Its dial's timeout was kept back until REST had taken, or refused, the hang-up."""
    dial = at.book.dial_of(call)
    if call.tell_timeout and dial is not None:
        at.tell(f.NoCall(dial, "timeout", text))
        call.timeout_told()


# --------------------------------------------------------------------------- its end


def finished(at: Moment, finished: f.Finished) -> None:
    """The call is over at Twilio. If it has ended here already, nothing is left to do."""
    if finished.call.live:
        _conclude(at, finished.call, finished.reason)


def _conclude(at: Moment, call: Call, reason: m.EndedReason) -> None:
    """The one place in which a call ends. No token lets a stream of it in any more, and all else
    follows from ``CallOver``. ``by_far_end``: no reason of ours had been given before.

    Those who asked for its end are answered here, unless REST is being asked and will answer them.
    For example, a leg that was busy all along ends by itself as soon as its SID is known."""
    by_far_end = call.reason is None and reason in ("stop", "close", "error")
    was_silent = call.state == "silent"
    call.conclude(reason, at.now)
    at.book.tokens.void_all(call.id)
    if not call.end_under_way:
        _answer_ending(at, call)
    at.tell(f.CallOver(call, by_far_end, was_silent))


def settle_legs(at: Moment, over: f.CallOver) -> None:
    """A call is over: see to it that the leg which we dialled is over too. In a b-leg call the
    stream was on another leg, and the one that we dialled goes on until we hang it up, so we do
    that now. In any other call it ends by itself as a rule, so :func:`tick` looks at it later."""
    call = over.call
    dial = at.book.dial_of(call)
    if dial is None or dial.leg_over or call.end_sent:
        return
    if call.mode == "b-leg":
        _end_dialled(at, call)
    elif call.dialled_sid is not None:
        call.check_leg(at.now + LEG_OVER_WITHIN)


def leave_no_leg(at: Moment, closing: f.AllClosing) -> None:
    """The stack ends. It does not wait for Twilio to say that the legs of calls which are over have
    ended: it hangs them up. Otherwise their dials would be left to the next start."""
    for call in list(at.book.calls.values()):
        if call.leg_check is not None:
            _leg_has_to_be_over(at, call)


def _leg_has_to_be_over(at: Moment, call: Call) -> None:
    """Hang up the leg that we dialled, unless Twilio has said that it is over."""
    call.check_leg(None)
    dial = at.book.dial_of(call)
    if dial is not None and not dial.leg_over:
        _end_dialled(at, call)


# --------------------------------------------------------------------------- what REST says


def fetched(at: Moment, result: ev.Fetched) -> None:
    """How one of its legs stands (``status`` None: Twilio did not answer)."""
    call = at.book.calls.get(result.call)
    if call is None or not call.live:
        return
    is_over = result.status in ENDED_STATUSES
    dial = at.book.dial_of(call)
    if dial is not None:
        if result.sid == dial.sid and result.status is not None:
            at.tell(f.LegStatus(dial, result.sid, result.status))
        elif is_over and call.state == "expected":
            _part(at, call, dial, result.sid)
            return
        at.tell(f.Looked(dial))
    if is_over:
        at.tell(f.Finished(call, call.stream_reason or "close"))


def _part(at: Moment, call: Call, dial: Dial, sid: str) -> None:
    """The b-leg of a dial is over before its stream came. It may have been an earlier dial's, whose
    webhook came late. Our own leg will say how this dial ends. So the call is again as if that leg
    had not come."""
    if call.sid != sid:
        return
    log.info("call %s, taken for the other leg of dial %s, is over", sid, dial.request)
    at.book.unknow(call, sid)
    at.book.tokens.void(call.id)
    call.part(dial.row.caller, at.now if dial.known.status == "in-progress" else None)


# --------------------------------------------------------------------------- in time


def tick(at: Moment, tick: ev.Tick) -> None:
    """Calls that end, calls that have ended, and calls that wait for a stream."""
    for call in at.book.call_rounds.now:
        if call.state == "ended":
            _tick_ended(at, call)
        elif call.state == "ending":
            if not call.end_sent:
                _send_end(at, call)  # its SID has become known
            elif call.hung_up is not None and at.now - call.hung_up > CLOSE_STREAM_AFTER:
                at.send(call.gateway, m.CloseStream(call=call.id))
                _conclude(at, call, call.reason or "hang_up")
        else:
            _watch(at, call)


def _watch(at: Moment, call: Call) -> None:
    """Its longest duration, and streams that do not come."""
    limit = call.max_duration
    if limit is not None and call.started is not None and at.now - call.started >= limit:
        log.warning("call %s has reached its longest duration (%g s)", call.sid, limit)
        _end(at, call, f.HangUp(call.id, "max_duration"))
        return
    if call.missing is None:
        return
    seconds = at.now - call.missing
    if seconds >= NO_STREAM_LIMIT:
        log.warning("call %s: no stream for %g s; it is hung up", call.sid, NO_STREAM_LIMIT)
        dial = at.book.dial_of(call)
        if dial is not None and not dial.started:
            at.tell(f.NoCall(dial, "failed", "answered, and no stream came"))
        _end(at, call, f.HangUp(call.id, call.stream_reason or "error"))
    elif call.checked < len(NO_STREAM_CHECKS) and seconds >= NO_STREAM_CHECKS[call.checked]:
        call.check()
        leg = call.sid or call.dialled_sid
        if leg is not None:
            at.do(do.Fetch(call.id, leg))


def _tick_ended(at: Moment, call: Call) -> None:
    """A call that is over is kept for a while, for two reasons. The leg that we dialled has to end
    too, and is hung up if Twilio has not said in time that it did. And a late webhook of the call
    must be answered with a hang-up, and not be taken for a new call."""
    if call.leg_check is not None and at.now >= call.leg_check:
        _leg_has_to_be_over(at, call)
    elif at.now - call.ended_at > ENDED_KEPT and not call.end_under_way:
        at.book.forget_call(call)
