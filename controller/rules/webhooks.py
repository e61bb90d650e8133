"""Voice webhooks: whose call it is, and whether it is let in.

The CallSid is looked for first: a call that is known asks once more (a redirect, or a repeated
request) and gets a new token. Else the number that was called says whose it is. The caller alone
does not: carriers cut, add and replace its digits (Twilio support, "International Voice Quirks"),
and nothing in REST ties the two legs of a b-leg dial together. The first rule that holds decides:

1. An open b-leg dial to this number comes from the caller's number: its other leg.
2. A session that answers here names the caller in ``allowed_callers``: that session's call, or busy
   while it has one. Its callers are never taken for a dial's, whatever is being dialled.
3. Exactly one b-leg dial to this number is open: its other leg, with a caller that the carrier has
   rewritten. It is warned about. (:mod:`.turns` sees to it that there are not two.)
4. A session that answers everybody's calls here: that session's call, or busy. (Nobody dials a
   number that such a session holds.)
5. Nobody's: rejected where sessions answer, else busy. The sessions and dials on the number hear
   of it.

Rule 3 also takes a stranger who calls just then, and a late webhook of a leg that is over. Until
the stream is up, the dial gives such a call up for one that comes by rule 1. Any other call that
could be the dial's has to wait while REST is asked whether the first one lives.

A webhook may also be a replay: somebody has captured it, signature and all, and sends it again when
its call is long over. So a CallSid that we know no call of is believed at once only where it cannot
have been heard before. Otherwise REST is asked whether the call lives (:func:`doubtful`), which
costs the caller a round trip to Twilio, and a pause of a second where that takes long. An honest
call meets this on a number that has been overridden since before a restart, or when it asks once
more after a pause.
"""

from __future__ import annotations

import logging
import secrets
from enum import Enum
from typing import Final

from trunkline.bus import messages as m
from trunkline.bus.callers import caller_key
from trunkline.bus.redact import redact_number
from trunkline.bus.refusals import KINDS
from trunkline.bus.twilio_urls import CALL_FIELD, DIAL_FIELD, OVERRIDE_FIELD

from .. import events as ev
from .. import instructions as do
from ..journal.rows import SEEN_KEPT
from . import facts as f
from .book import Book
from .book.call import Call
from .book.lease import Lease
from .book.session import Session
from .facts import Ask
from .moment import Moment

log = logging.getLogger("trunkline.controller")

#: A webhook that needs REST's word on its call waits for that up to HELD_FOR seconds, and gets a
#: pause then. In the first HELD_AFTER_START seconds after a start it waits as long for its client.
#: (Its gateway waits 2.5 s for the answer.)
HELD_FOR: Final = 1.0
HELD_AFTER_START: Final = 2.0
#: A token is good for this long (seconds). Twilio opens the stream at once, but it may have to wait
#: for a gateway that is just being started again.
TOKEN_GOOD_FOR: Final = 30.0


class Pending(Enum):
    """Why there is no answer yet."""

    CLIENT = "the call's client may still announce itself"
    REST = "REST is asked whether the call lives"
    STREAM = "the call's former stream ends first, and let_in answers then"


def answer(at: Moment, ask: Ask[m.VoiceWebhook]) -> None:
    """Say what Twilio is to do with the call. A dial that the webhook names knows its leg by now
    (:func:`.legs.named`)."""
    _answer_or_hold(at, ask, at.now + HELD_FOR)


def ask_again(at: Moment, heard: object) -> None:
    """A client has announced itself, or time has passed: the answer may be another one now."""
    for reply_to, webhook, until in at.book.take_held():
        _answer_or_hold(at, Ask(reply_to, webhook, until - at.now), until)


def _answer_or_hold(at: Moment, ask: Ask[m.VoiceWebhook], until: float) -> None:
    """A pause costs the caller a second. REST answers within a fraction of that, and just after a
    start clients announce themselves within milliseconds. So a webhook whose answer depends on them
    waits, for :data:`HELD_FOR` at most."""
    answer = _answer(at, ask)
    if answer is Pending.STREAM:
        return
    young = at.now - at.book.identity.started < HELD_AFTER_START
    waits = answer is Pending.REST or (answer is Pending.CLIENT and young)
    if waits and at.now < until and not at.book.stopping:
        at.book.hold(ask.reply_to, ask.body, until)
    else:
        _say(at, ask, m.VoiceAnswer(kind="pause") if isinstance(answer, Pending) else answer)


def let_in(at: Moment, due: f.LetIn) -> None:
    """The call's former stream is out of the way: it gets a token for the next one."""
    _say(at, due.ask, _let_in(at, due.call))


def _say(at: Moment, ask: Ask[m.VoiceWebhook], answer: m.VoiceAnswer) -> None:
    """Answer, and note it for the error that a dial may end with."""
    book, form = at.book, ask.body.form
    call = book.by_sid.get(form.get("CallSid", ""))
    if call is not None:
        dial = book.dial_of(call)
        dials = [] if dial is None else [dial]
    else:
        # Whose it is will be known when it asks again.
        dials = book.open_b_legs(form.get("To", "")) if answer.kind == "pause" else []
    for dial in dials:
        dial.known.tell_webhook(answer.kind, at.now)
    at.reply(ask.reply_to, answer)


def _answer(at: Moment, ask: Ask[m.VoiceWebhook]) -> m.VoiceAnswer | Pending:
    """What Twilio is to do with the call, as far as that is known. Whoever is let in is in the book
    by then."""
    form, query = ask.body.form, ask.body.query
    sid = form.get("CallSid", "")
    if not sid:
        return m.VoiceAnswer(kind="reject")
    known = at.book.by_sid.get(sid)
    if known is not None:
        return _again(at, ask, known, sid)
    caller, number = form.get("From", ""), form.get("To", "")
    lives = _lives(at, sid, number, query)
    if lives is None:
        return Pending.REST
    if not lives:
        at.count("webhooks of calls that are over")
        return m.VoiceAnswer(kind="hangup")
    if _is_redirect(query):
        lost = at.book.calls.get(query.get(CALL_FIELD, ""))
        if lost is not None and lost.lacks_b_leg:
            # We named the call when we let this leg in, before a restart.
            return _join(at, lost, sid, caller)
        return _stranger(at, sid, caller, number)
    return _incoming(at, sid, caller, number)


def _lives(at: Moment, sid: str, number: str, query: dict[str, str]) -> bool | None:
    """Whether a call that we do not know is to be believed. None: REST is being asked."""
    seen = at.book.seen
    doubt = doubtful(at.book, sid, number, query, at.now)
    if doubt or number in at.book.leases:
        _note(at, sid)
    if not doubt:
        return True
    lives = seen.lives(sid, at.now)
    if lives is None and seen.may_ask(sid, at.now):
        at.do(do.Vouch(sid))
    return lives


def doubtful(book: Book, sid: str, number: str, query: dict[str, str], now: float) -> bool:
    """A webhook under this CallSid may be a replay. Where nobody is let in, nothing is doubtful.

    A webhook is not doubtful if we still have every CallSid that was heard under the number's
    present override, and this one is not among them. One that was captured earlier names another
    override.
    """
    if _is_redirect(query):
        return True  # we have let its call in, and should know it
    lease = book.leases.get(number)
    if lease is None or lease.state == "restoring" or book.stopping:
        return False
    if book.claiming and book.identity.epoch > 1:
        # The last controller may have died before it had noted the call.
        return True
    named = query.get(OVERRIDE_FIELD, lease.row.id)
    # The time of a found override does not show that it is older: the clock may have been set back.
    is_older = lease.found or book.mono(lease.row.since) < max(book.seen.reaches, now - SEEN_KEPT)
    return sid in book.seen or named != lease.row.id or is_older


def _is_redirect(query: dict[str, str]) -> bool:
    """The webhook's URL stood in a document of ours, behind a stream or a pause: only such a URL
    names a call or a dial."""
    return CALL_FIELD in query or DIAL_FIELD in query


def vouched(at: Moment, result: ev.Vouched) -> None:
    """REST has said whether the call lives."""
    at.book.seen.told(result.sid, result.lives, at.now)
    if result.lives is False:
        log.warning("a webhook of call %s came, which is over: it may be a replay", result.sid)


def over(at: Moment, over: f.CallOver) -> None:
    """A call has ended: note its CallSid, so that a replay of its webhook is known. An earlier
    controller may have heard that webhook and died before it noted it."""
    call = over.call
    if call.sid is not None and call.sid != call.dialled_sid and call.theirs is None:
        _note(at, call.sid)


def _note(at: Moment, sid: str) -> None:
    """Note the CallSid. One that was heard on a number without an override need not be kept: nobody
    is let in there, and a later override has another id."""
    if at.book.seen.note(sid, at.now):
        at.do(do.NoteSeen(sid, at.book.wall(at.now)))


def _again(at: Moment, ask: Ask[m.VoiceWebhook], call: Call, sid: str) -> m.VoiceAnswer | Pending:
    """The same call asks once more."""
    if call.state == "ending" and sid == call.sid:
        # Its stream is gone (its gateway may have died, and tells nothing): this ends it.
        at.tell(f.StreamReplaced(call))
    if call.over:
        at.count("webhooks of calls that are over")
    if call.over or call.state == "silent":
        return m.VoiceAnswer(kind="hangup")
    if call.mode == "b-leg" and sid == call.dialled_sid:
        return m.VoiceAnswer(kind="hangup")
    if call.state == "expected" and at.book.unclaimed(call.session):
        # Found in the journal: whether it had a stream before is still to be told.
        return Pending.CLIENT
    if (
        call.state == "expected"
        and at.book.tokens.has_good(call.id, at.now)
        and not _is_redirect(ask.body.query)
    ):
        # This is a replay of the first webhook, or Twilio has not got our answer to it. A new token
        # would void the one that Twilio may be about to show. If it has none, it asks by the
        # redirect a second later, and gets one.
        at.count("webhooks of calls that are let in")
        return m.VoiceAnswer(kind="pause", redirect_query=at.book.query(call))
    if call.state == "live" and not call.one_way:
        if not _is_redirect(ask.body.query):
            # Twilio asks by the redirect behind the stream. This is a replay of the first webhook;
            # or the query was lost, and then the gateway says by the next one that the stream is
            # gone.
            at.count("webhooks of calls that are up")
            return m.VoiceAnswer(kind="pause")
        at.tell(f.StreamReplaced(call))
    at.tell(f.LetIn(ask, call))
    return Pending.STREAM


def _stranger(at: Moment, sid: str, caller: str, number: str) -> m.VoiceAnswer | Pending:
    """A redirect of a call that nobody has told us of: one that was let in just before a restart,
    or one that we do not want. It waits while clients may still announce themselves, because a
    pause costs the caller a second, and a hang-up the call."""
    lease = at.book.leases.get(number)
    if lease is not None and not at.book.stopping:
        ready = [s for s in _allowed(at.book, lease, caller) if _is_ready(at.book, s)]
        if ready:
            return _new_call(at, ready[0], sid, caller, number)
    return Pending.CLIENT if at.book.claiming else m.VoiceAnswer(kind="hangup")


def _incoming(at: Moment, sid: str, caller: str, number: str) -> m.VoiceAnswer | Pending:
    """A call that is new to us: the rules at the top of this file, one after the other."""
    book = at.book
    lease = book.leases.get(number)
    if lease is None or lease.state == "restoring" or book.stopping:
        at.count("calls nobody waits for")
        return m.VoiceAnswer(kind="busy")
    b_leg = _b_leg(book, caller, number, lease)
    if b_leg is not None:
        if _is_rewritten(book, b_leg, caller) and _has_unclaimed(book, lease):
            # It may be a caller of a session that has not announced itself again.
            return Pending.CLIENT
        return _join(at, b_leg, sid, caller)
    if book.claiming and lease.unclaimed:
        return Pending.CLIENT
    allowed = _allowed(book, lease, caller)
    joined = _joined(book, number)
    if joined is not None and not any(s.allowed_callers is not None for s in allowed):
        assert joined.sid is not None, "a leg that was let in has a SID"
        at.do(do.Fetch(joined.id, joined.sid))
        return m.VoiceAnswer(kind="pause")
    answering = _answering(book, lease)
    if answering and not allowed:
        log.info("a call from %s is not allowed; rejected", redact_number(caller))
        at.count("calls rejected")
        of_stack = book.admits(caller)
        why = f"not in {'allowed_callers' if of_stack else 'TRUNKLINE_ALLOWED_CALLERS'}"
        _refuse(at, answering, caller, number, why)
        return m.VoiceAnswer(kind="reject")
    ready = [s for s in allowed if _is_ready(book, s)]
    if ready:
        return _new_call(at, ready[0], sid, caller, number)
    if any(s.state == "arming" for s in allowed):
        # Twilio has the override already, but its answer to us is still on its way.
        return m.VoiceAnswer(kind="pause")
    at.count("calls nobody waits for")
    has_call = any(s.state in ("armed", "taken") for s in allowed)
    why = "busy: there was a call already" if has_call else "busy: nobody waited for a call"
    _refuse(at, allowed, caller, number, why if allowed else "busy: no dial expected it")
    return m.VoiceAnswer(kind="busy")


# --------------------------------------------------------------------------- whose call it is


def _has_unclaimed(book: Book, lease: Lease) -> bool:
    """After a restart: a session that held the number may still announce itself."""
    known = book.sessions.keys() | book.ended.keys()
    return book.claiming and not known >= lease.row.holders.keys()


def _is_rewritten(book: Book, call: Call, caller: str) -> bool:
    """The carrier reports another caller than the number that the dial comes from."""
    return caller_key(caller) != book.dials[call.dial_request or ""].row.caller


def _answering(book: Book, lease: Lease) -> list[Session]:
    """The sessions that wait for calls on the number."""
    holders = [book.sessions.get(session) for session in lease.holders]
    return [s for s in holders if s is not None and s.mode == "answer"]


def _allowed(book: Book, lease: Lease, caller: str) -> list[Session]:
    """The sessions that wait for calls on the number and let this caller in. There are none where
    the stack itself does not admit the caller."""
    if not book.admits(caller):
        return []
    return [
        s
        for s in _answering(book, lease)
        if s.allowed_callers is None or caller_key(caller) in s.allowed_callers
    ]


def _is_ready(book: Book, session: Session) -> bool:
    """It waits for a call, and has none: an Arm lets in one call, and no more."""
    calls = (call for call in book.calls_of(session.id) if call.theirs is None)
    return session.state == "armed" and not any(call.live for call in calls)


def _b_leg(book: Book, caller: str, number: str, lease: Lease) -> Call | None:
    """The call of a b-leg dial whose other leg this is (rules 1 to 3), or None."""
    dials = [dial for dial in book.open_b_legs(number) if dial.outcome is None]
    key = caller_key(caller)
    for dial in dials:
        call = book.calls[dial.row.call]
        guessed = call.state == "expected" and call.caller_rewritten
        if dial.row.caller == key and (call.lacks_b_leg or guessed):
            return call
    if any(s.allowed_callers is not None for s in _allowed(book, lease, caller)):
        return None
    waiting = [book.calls[dial.row.call] for dial in dials]
    waiting = [call for call in waiting if call.lacks_b_leg]
    return waiting[0] if len(waiting) == 1 else None


def _joined(book: Book, number: str) -> Call | None:
    """The call of a dial to the number whose other leg has been let in, and has no stream."""
    for dial in book.open_b_legs(number):
        call = book.calls[dial.row.call]
        if dial.outcome is None and call.sid is not None and call.state == "expected":
            return call
    return None


# --------------------------------------------------------------------------- letting it in


def _join(at: Moment, call: Call, sid: str, caller: str) -> m.VoiceAnswer | Pending:
    """This is the other leg of a b-leg dial."""
    book = at.book
    if book.unclaimed(call.session):
        # This dial may already have its b-leg, in which case the webhook belongs to another
        # dial. Wait until its session has announced itself again.
        return Pending.CLIENT
    dial = book.dials[call.dial_request or ""]
    if call.sid is not None:
        log.warning("call %s was not the other leg of dial %s", call.sid, dial.request)
        book.unknow(call, call.sid)
        at.tell(f.Stray(call.sid))
    call.join(sid, caller, at.now, rewritten=_is_rewritten(book, call, caller))
    if call.caller_rewritten:
        log.warning(
            "call %s: the carrier reports %s as the caller of our dial from %s to %s",
            sid,
            redact_number(caller),
            redact_number(dial.row.caller),
            redact_number(dial.row.callee),
        )
    book.know(call, sid)
    _count(at, call.session)
    return _let_in(at, call)


def _new_call(at: Moment, session: Session, sid: str, caller: str, number: str) -> m.VoiceAnswer:
    """A caller for a session that waits for one."""
    _count(at, session.id)
    call = Call(
        id=secrets.token_hex(16),
        session=session.id,
        direction="inbound",
        caller=caller,
        callee=number,
        secret=secrets.token_hex(16),
        created=at.now,
        sid=sid,
        missing=at.now,
        trace=session.trace,
    )
    session.ring(call.id)
    at.book.add_call(call, sid)
    return _let_in(at, call)


def _let_in(at: Moment, call: Call) -> m.VoiceAnswer:
    """A stream with a new token; or a pause, while no worker could take the sound. The pause brings
    the same call back, with the name that we gave it."""
    if not at.book.workers.healthy(at.now):
        return m.VoiceAnswer(kind="pause", redirect_query=at.book.query(call))
    assert call.sid is not None, "a call that asks has a leg"
    if not call.one_way:
        call.let_in()
    token = at.book.tokens.make(call.id, call.sid, at.now + TOKEN_GOOD_FOR)
    return m.VoiceAnswer(kind="stream", token=token, redirect_query=at.book.query(call))


# --------------------------------------------------------------------------- counted for sessions


def refused(at: Moment, counted: m.WebhooksRefused) -> None:
    """Webhooks that a gateway refused: told to those whose number they named."""
    why = f"{KINDS[counted.kind]}; the gateway's log says more"
    for number, count in counted.numbers.items():
        lease = at.book.leases.get(number)
        for session in lease.holders if lease is not None else ():
            _count(at, session, received=count, rejected=count, why=why)
        for dial in at.book.open_b_legs(number):
            dial.known.tell_refused_webhooks(why, count)


def _refuse(at: Moment, sessions: list[Session], caller: str, number: str, why: str) -> None:
    """A call was refused. Tell the sessions that answer there, and note it for the number's dials:
    a dial that fails later names these calls, because a rewritten caller is the first thing to look
    for."""
    for session in sessions:
        _count(at, session.id, rejected=1, caller=redact_number(caller), why=why)
    for dial in at.book.open_b_legs(number):
        dial.known.tell_refused(caller, why)


def missed(at: Moment, missed: f.CallMissed) -> None:
    """A call was let in, and is over before its stream came. It was counted when it was let in, so
    only the reason is told now."""
    call = missed.call
    why = "let in, and over before its stream came"
    _count(at, call.session, received=0, caller=redact_number(call.caller), why=why)


def _count(
    at: Moment,
    session: str,
    *,
    received: int = 1,
    rejected: int = 0,
    caller: str = "",
    why: str = "",
) -> None:
    """Tell a session's client of a webhook, so that a test which waits in vain can say what came
    instead."""
    at.send_session(
        session,
        m.WebhooksCounted(
            session=session, received=received, rejected=rejected, caller=caller, why=why
        ),
    )
