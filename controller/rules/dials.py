"""Dials: asking Twilio for a call, once, whatever happens on the way.

The rules in prose and the literal transition table are in :mod:`.tables`. A dial is journalled
before Twilio is asked (:mod:`.asking`). Its request id travels in the callback URLs and the voice
URL, its stream token in the TwiML. If Twilio's answer never comes, we look for the call, weigh what
shows which one it is (:mod:`.legs`), and hang up any call that nobody waits for.

We know the other leg of a b-leg dial by nothing but the number that it comes to, because carriers
rewrite callers (:mod:`.webhooks`). So only one b-leg dial to a number is open at a time: from its
turn until its stream is up, or until no call can follow from it any more. Other dials wait, each
for as long as its own timeout, and their clients hear their places (:mod:`.turns`).

Status callbacks may get lost. While nothing is heard of a dial, REST is asked about its call a few
times (:data:`POLL_AFTER`), and once more before we give the dial up.

For example, Twilio's answer to a dial never comes: the dial is *asking*, then *unsure*, and the
list of calls is searched. If a callback names its SID first, it is *taken* and the search ends. If
the search finds nothing for long enough, there can be no call any more, and the client hears that
its dial has failed.

Every dial ends once. It ends in :func:`_close` if it led to no call (refused, cancelled in time,
not found afterwards), and in :func:`leg_over` if its leg is over, or if Twilio has taken its
hang-up. Its client hears that once, with the first reason.
"""

from __future__ import annotations

import logging
import secrets
from typing import Final

from trunkline.bus import messages as m
from trunkline.bus.errors import (
    CallFailedError,
    InvalidRequestError,
    LimitReachedError,
    TrunklineError,
)
from trunkline.bus.redact import redact_number

from .. import events as ev
from .. import instructions as do
from ..journal.rows import DialRow
from ..twilio.calls import ENDED_STATUSES, NOT_ANSWERED
from . import facts as f
from .book.call import Call
from .book.dial import OPEN, Dial, check, new_dial
from .book.lease import LeaseRequest
from .book.lookups import Seeker
from .book.session import REST_WITHIN
from .book.tokens import digest
from .facts import Ask
from .moment import Moment
from .tables import WaitsFor

log = logging.getLogger("trunkline.controller")

#: A closed dial is remembered this long (seconds), so that late callbacks and streams are known.
CLOSED_KEPT: Final = 600.0
#: When nothing is heard of a dial for this long, REST is asked about it, once for each of these
#: pauses (seconds).
POLL_AFTER: Final = (3.0, 6.0, 12.0, 25.0, 50.0)
#: How long REST may take to answer once a dial's time is over.
LAST_LOOK_WITHIN: Final = 3.0


# --------------------------------------------------------------------------- asked for


def dial(at: Moment, ask: Ask[m.Dial]) -> None:
    """A client wants a call. The same request id is the same call, however often it is asked: a
    client that got no answer asks again, and must not make a second phone ring."""
    body = ask.body
    known = at.book.dials.get(body.request)
    if known is not None:
        _again(at, known, ask)
        return
    session = at.book.session_of(ask.reply_to.peer, body.session)
    check(body, session.allowed_callees, at.book.rules.callees)
    session.must_be("call")
    over_cap = at.book.usage.refusal(body.max_duration, at.book.wall(at.now))
    if over_cap is not None:
        raise LimitReachedError(f"the call to {redact_number(body.to)} is not dialled: {over_cap}")
    session.step("dial")
    token = at.book.tokens.new()
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
    shared = body.mode != "b-leg" and _is_shared(at, body.to)
    waits_for: WaitsFor = "number" if body.mode == "b-leg" else "turn" if shared else "pace"
    new = new_dial(row, at.now, waits_for, [ask.reply_to], token, body.trace)
    new.detects(body.machine_detection)
    at.book.add_dial(new, Call.of_dial(row, at.now, body.trace))
    if body.mode == "b-leg":
        deadline = at.now + min(ask.ttl, REST_WITHIN)
        at.tell(f.Sought(body.to, Seeker(session.id, body.request), deadline))
    else:
        at.tell(f.TurnWanted(new) if shared else f.TurnCome(new))


def _is_shared(at: Moment, number: str) -> bool:
    """A b-leg dial to the number is open, or waits: a dial of any kind has to wait too."""
    return any(
        dial.may_ring or dial.state == "waiting"
        for dial in at.book.coming()
        if dial.row.callee == number and dial.row.mode == "b-leg"
    )


def _again(at: Moment, dial: Dial, ask: Ask[m.Dial]) -> None:
    """A client asks for a dial that we have: it gets the answer that we know by now. It cannot turn
    the dial into one to another number, because Twilio may have the first one already."""
    if dial.row.session != ask.body.session or dial.row.callee != ask.body.to:
        raise InvalidRequestError(f"dial {ask.body.request} exists, to another number")
    at.book.session_of(ask.reply_to.peer, ask.body.session)
    if dial.state == "closed" or dial.outcome is not None:
        raise dial.error()
    if dial.sid is not None:
        at.reply(ask.reply_to, m.Dialled(call=dial.row.call, sid=dial.sid))
    else:
        dial.wait(ask.reply_to)


# --------------------------------------------------------------------------- the callee's number


def number_found(at: Moment, found: f.NumberFound) -> None:
    """The callee's number is the account's: a b-leg dial can have our override there."""
    dial = _leasing(at, found.seeker.dial)
    session = at.book.sessions.get(found.seeker.session)
    if dial is not None and session is not None:
        callers = frozenset((session.number,))
        request = LeaseRequest(session.id, callers, dial.request, at.now + REST_WITHIN)
        at.tell(f.Wanted(request, dial.row.callee, found.sid))


def number_missing(at: Moment, missing: f.NumberMissing) -> None:
    """Nothing is dialled: a b-leg without our override would reach somebody else."""
    _no_number(at, _leasing(at, missing.seeker.dial), missing.error)


def granted(at: Moment, granted: f.Granted) -> None:
    """Twilio has confirmed the override on the callee's number."""
    dial = _leasing(at, granted.request.dial)
    if dial is not None:
        dial.step("leased")
        at.tell(f.TurnWanted(dial))


def refused(at: Moment, refused: f.Refused) -> None:
    """Somebody else takes the calls of the callee's number."""
    _no_number(at, _leasing(at, refused.request.dial), refused.error)


def _leasing(at: Moment, request: str | None) -> Dial | None:
    """The dial, if it is one and still waits for its callee's number."""
    dial = None if request is None else at.book.dials[request]
    return dial if dial is not None and dial.state == "leasing" else None


def _no_number(at: Moment, dial: Dial | None, error: TrunklineError) -> None:
    """The dial ends here. It never came to Twilio, so nothing has to be hung up."""
    if dial is not None:
        dial.step("refused")
        _close(at, dial, error)


# --------------------------------------------------------------------------- what Twilio says


def unsure(at: Moment, result: ev.Unsure) -> None:
    """No answer came, so Twilio may have made the call: it is looked for, never asked again."""
    dial = at.book.dials.get(result.request)
    if dial is None:
        return
    log.warning("dial %s: whether Twilio took it is not known: %s", dial.request, result.error)
    dial.step("unsure")
    if dial.state == "unsure":
        at.do(do.Settle(dial.row))


def not_created(at: Moment, result: ev.CreateFailed) -> None:
    """Twilio has refused the dial: nothing rings, and there will be no call."""
    dial = at.book.dials.get(result.request)
    if dial is not None and dial.state != "closed":
        dial.step("refused")
        _close(at, dial, result.error)


def not_found(at: Moment, result: ev.NotFound) -> None:
    """The request has led to no call, and it cannot any more."""
    dial = at.book.dials.get(result.request)
    if dial is None:
        return
    dial.step("not_found")
    if dial.state == "closed":
        _failed(at, dial, "failed", "the request to Twilio got lost")
        _close(at, dial, dial.error())


# --------------------------------------------------------------------------- how it ends


def leg_status(at: Moment, fact: f.LegStatus) -> None:
    """A status of our leg, from a callback, the answer to create, or a fetch."""
    dial = fact.dial
    if fact.sid != dial.sid or dial.leg_over:
        return
    is_news = dial.known.tell_status(fact.status, at.now)
    if fact.status not in ENDED_STATUSES:
        if is_news and fact.status == "in-progress":
            dial.pick_up(at.book.wall(at.now))
            at.tell(f.Answered(dial))
        return
    dial.end_leg()
    if fact.status in NOT_ANSWERED:
        _failed(at, dial, fact.status, "")
    else:
        # After a timeout this is our own hang-up.
        text = "" if dial.timed_out else f"the call ended ({fact.status}) without a stream"
        _failed(at, dial, "failed", text)
    at.tell(f.LegOver(dial))


def no_call(at: Moment, fact: f.NoCall) -> None:
    """Another rule knows that there will be no call, or that the dial's hang-up is done."""
    _failed(at, fact.dial, fact.status, fact.text)


def _failed(at: Moment, dial: Dial, status: str, text: str) -> None:
    """The dial ends without a call. Its client hears that once, with ``text`` and the last facts
    that we knew of it."""
    if dial.outcome is not None or dial.became_call:
        return
    status = "timeout" if dial.timed_out else status
    dial.fail(status, text, at.now)
    at.count(f"dials {status}")
    at.send_session(dial.row.session, dial.failed())
    at.fail_all(dial.take_waiting(), dial.error())


def leg_over(at: Moment, over: f.LegOver | f.LegsHungUp) -> None:
    """Our leg is over for good: Twilio says so, or has taken its hang-up. A dial that had not ended
    yet fails with that."""
    dial = over.dial if isinstance(over, f.LegOver) else at.book.dial_of(over.call)
    if dial is None or dial.state not in OPEN:
        return
    if dial.sid is None:
        # The other leg was hung up, or a call that we took for it. We do not know our own leg yet,
        # and it may still come. So the dial stays open, and our leg will be hung up once it shows
        # itself. Answer those who wait for its SID now, because nothing else would.
        dial.nobody_waits("canceled")
        at.fail_all(dial.take_waiting(), dial.error())
        return
    dial.step("over")
    _failed(at, dial, "failed", "its leg is over")
    at.fail_all(dial.take_waiting(), dial.error())
    _closed(at, dial)


def _closed(at: Moment, dial: Dial) -> None:
    """Count how long the dial has cost. The journal has a row of it only if Twilio was asked, so
    only then the row is closed."""
    dial.close(at.book.wall(at.now))
    if dial.row.asked:
        at.do(do.CloseDial(dial.request, dial.row.seconds))
    at.book.close_dial(dial, at.now)


def _close(at: Moment, dial: Dial, error: TrunklineError) -> None:
    """The dial has stepped to its end, and led to no call."""
    at.fail_all(dial.take_waiting(), error)
    dial.nobody_waits("failed")
    at.book.queue.drop(dial.row.session, dial.request)
    at.book.turns.drop(dial.row.callee, dial.row.session, dial.request)
    at.tell(f.DialOver(dial))
    _closed(at, dial)


# --------------------------------------------------------------------------- given up


def cancel(at: Moment, ask: Ask[m.CancelDial]) -> None:
    """A client does not want the dial any more. If our leg's SID is known, the answer waits until
    REST has taken the hang-up. Otherwise the answer comes at once: nothing can be hung up yet, and
    a call that still comes of the dial is hung up as soon as its SID is known."""
    at.book.session_of(ask.reply_to.peer, ask.body.session)
    dial = at.book.dials.get(ask.body.request)
    if dial is None or dial.row.session != ask.body.session:
        at.reply(ask.reply_to, m.Done())
        return
    _give_up(at, dial)
    if dial.sid is not None and not dial.leg_over:
        at.tell(f.HangUp(dial.row.call, "hang_up", ask.reply_to))
    else:
        at.reply(ask.reply_to, m.Done())


def given_up(at: Moment, given: f.GivenUp) -> None:
    """After a restart: its client is not there, or does not know it."""
    _give_up(at, given.dial)


def session_closes(at: Moment, closing: f.SessionClosing) -> None:
    """A session that closes waits for none of its dials."""
    for dial in at.book.dials_of(closing.session):
        if dial.state != "closed":
            _give_up(at, dial)


def _give_up(at: Moment, dial: Dial) -> None:
    """Nobody waits for the dial any more. If it still leads to a call, that is hung up once its SID
    is known."""
    dial.nobody_waits("canceled")
    error = CallFailedError("the dial was cancelled", status="canceled")
    never_asked = dial.state in ("leasing", "waiting", "queued")
    dial.step("cancel")
    if never_asked:
        _close(at, dial, error)
    else:
        at.fail_all(dial.take_waiting(), error)


# --------------------------------------------------------------------------- in time


def watch(at: Moment, tick: ev.Tick) -> None:
    """End dials whose time is over, and ask REST about those that have fallen silent."""
    for dial in at.book.coming():
        if dial.outcome is not None:
            continue
        if at.now >= dial.deadline:
            _timed_out(at, dial)
        else:
            _poll(at, dial)
    at.book.forget_dials(at.now - CLOSED_KEPT)


def _timed_out(at: Moment, dial: Dial) -> None:
    """The dial's time is over. Before it fails, REST is asked once more: the callback about a busy
    callee may be lost, and "busy" says more than "timeout"."""
    if dial.state == "closed":
        return
    if dial.row.mode == "originate" and dial.state == "taken":
        _poll(at, dial)
        return  # its call is live since Twilio took it
    if dial.state == "waiting":
        _failed(at, dial, "timeout", at.book.why_no_turn(dial, at.now))
        dial.step("refused")
        _close(at, dial, dial.error())
    elif dial.sid is not None and not dial.last_look:
        dial.look_once_more(at.now + LAST_LOOK_WITHIN)
        at.do(do.Fetch(dial.row.call, dial.sid))
    else:
        _time_over(at, dial)


def looked(at: Moment, looked: f.Looked) -> None:
    """REST has said what it knows of the dial's call, or has not answered. If the dial's time was
    over and it waited for this last look, it fails now."""
    dial = looked.dial
    waits = dial.outcome is None and not dial.started and not dial.timed_out
    if dial.last_look and waits and dial.state != "closed":
        _time_over(at, dial)


def _poll(at: Moment, dial: Dial) -> None:
    """Ask REST about a dial that has been silent for a while. The pauses grow: most callbacks come,
    and each question counts against the account's limit."""
    if dial.state != "taken" or dial.sid is None or dial.leg_over or dial.last_look:
        return
    silent = at.now - dial.known.heard
    if dial.polled < len(POLL_AFTER) and silent >= POLL_AFTER[dial.polled]:
        dial.poll(at.now)
        at.do(do.Fetch(dial.row.call, dial.sid))


def _time_over(at: Moment, dial: Dial) -> None:
    """The dial fails now. If Twilio has it, hang it up first and tell the client then. Otherwise
    the client could dial again while the first phone still rings."""
    log.info("dial %s: no stream within %g s", dial.request, dial.row.timeout)
    dial.time_over(at.now)
    if dial.sid is None:
        _failed(at, dial, "timeout", "")
    else:
        dial.hang_up_first()
        at.tell(f.HangUp(dial.row.call, "hang_up", tell_timeout=True))


def stream_up(at: Moment, up: f.StreamUp) -> None:
    """The dial has become a call. Its timeout does not count any more, and its turn on the callee's
    number is over."""
    dial = at.book.dial_of(up.call)
    if up.first and dial is not None:
        dial.stream_up(at.book.wall(at.now))
