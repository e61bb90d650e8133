"""Listening in: both tracks of a call that exists already, whoever has placed it.

A client names the call by its CallSid, for example a call of its own agent platform. REST opens a
one-way stream of both tracks on it (``twilio/carrier.py``), and our token, in a parameter, lets
that stream in. From then on it is a stream like any other: workers carry it, a gateway moves it,
and the client hears when it is gone.

In the book it is a :class:`~.book.call.Call` whose ``theirs`` is set. To *hang it up* means to stop
the stream, and never the call, which belongs to somebody else (``Call.send_end``). For the same
reason it is found by no CallSid: a webhook or a callback about that call is not about our
listening.

Twilio goes on with a one-way stream for as long as the call lasts, so nobody but us stops it. The
stream's name is journalled before REST is asked for it, and whoever starts next stops what nobody
claims, as it puts numbers back.

For example, a gateway is killed. The call's :func:`tick` finds that its stream is missing, has the
former stream stopped, in case that is still there, and asks for another one under a new name. What
was said meanwhile is counted as lost. If no stream comes within 15 s, :mod:`.calls` ends the
listening, as it ends any call without a stream.
"""

from __future__ import annotations

import logging
import secrets
from typing import Final

from trunkline.bus import messages as m
from trunkline.bus.errors import (
    CarrierError,
    InvalidRequestError,
    TimedOutError,
    TrunklineError,
    WrongModeError,
)
from trunkline.bus.twilio_urls import stream_url

from .. import events as ev
from .. import instructions as do
from ..journal.rows import ListeningRow
from . import facts as f
from .book.call import Call
from .facts import Ask
from .moment import Moment

log = logging.getLogger("trunkline.controller")

#: REST has this long to open the stream, and the stream to come up (seconds). Then another one is
#: asked for.
UP_WITHIN: Final = 8.0
#: A restarted controller waits this long for a stream that may be up at a gateway, before it asks
#: for another one.
FOUND_WITHIN: Final = 2.0
#: One listening asks for this many streams at most: where so many have not helped, another one will
#: not.
MOST_STREAMS: Final = 20


def ask(at: Moment, ask: Ask[m.Listen]) -> None:
    """A client wants to listen to a call. The same id is the same listening, however often it is
    asked for."""
    body, book = ask.body, at.book
    session = book.session_of(ask.reply_to.peer, body.session)
    known = book.calls.get(body.call)
    if known is not None:
        if known.session != session.id or known.theirs is None or known.sid != body.sid:
            raise InvalidRequestError(f"call {body.call} exists, and is another one")
        if known.over:
            raise WrongModeError(f"listening to {body.sid} is over")
        known.wants_listening(ask.reply_to, at.now)
        if known.state == "live":
            _tell(at, known)
        return
    if session.state == "closing":
        raise WrongModeError(f"session {session.id} is being closed")
    call = Call.listened(body, session.secret_hash, at.now)
    call.wants_listening(ask.reply_to, at.now)
    book.add_call(call)
    at.count("calls listened to")
    _open(at, call)


def found(at: Moment, found: f.Found) -> None:
    """At the start: a stream that an earlier controller asked for may still be there."""
    for row in found.listening:
        call = Call.found_listening(row, at.now).found_in(at.book.identity.epoch, secret=False)
        at.book.add_call(call)


def _open(at: Moment, call: Call) -> None:
    """Ask REST for a stream. A former one is stopped before, because it may still be there, for
    instance at a gateway that was stopped and wakes up."""
    assert call.sid is not None and call.theirs is not None
    former = call.stream_asked(f"trunkline-{secrets.token_hex(12)}")
    deadline = at.now + UP_WITHIN
    token = at.book.tokens.make(call.id, call.sid, deadline)
    row = ListeningRow(
        call=call.id,
        session=call.session,
        secret_hash=call.holder_hash,
        sid=call.sid,
        theirs=call.theirs,
        name=call.stream_name,
        since=at.book.wall(at.now),
    )
    url = stream_url(at.book.identity.public_url)
    at.do(do.OpenListening(row, former, url, token, deadline))


def asked(at: Moment, result: ev.ListeningAsked) -> None:
    """REST opens the stream, or does not. Whoever waits hears why."""
    call = at.book.calls.get(result.call)
    if call is None or call.over or call.state == "live" or call.stream_name != result.name:
        return
    if result.error is None:
        return
    at.book.tokens.void(call.id)
    if call.started is None or call.streams_asked >= MOST_STREAMS:
        at.fail_all(call.take_listening(), _clear(call, result.error))
        at.tell(f.HangUp(call.id, "error"))
    else:
        assert call.sid is not None
        at.do(do.Fetch(call.id, call.sid))  # the call itself may be over


def _clear(call: Call, error: TrunklineError) -> TrunklineError:
    """What Twilio's answer means to somebody who has named a call."""
    if isinstance(error, CarrierError) and error.status == 404:
        return CarrierError(
            f"there is no call {call.sid} on this account that could be listened to: {error}",
            status=error.status,
            code=error.code,
            message=error.message,
        )
    return error


def stream_up(at: Moment, up: f.StreamUp) -> None:
    """Whoever waits hears the call from now on."""
    _tell(at, up.call)


def _tell(at: Moment, call: Call) -> None:
    waiting = call.take_listening()
    if waiting:
        at.reply_all(waiting, m.Listening(info=call.info(at.now)))


def ends(at: Moment, ends: f.CallEnding | f.CallOver) -> None:
    """The listening ends: whoever waits for its stream waits in vain."""
    call = ends.call
    why: TrunklineError = WrongModeError(f"call {call.sid} is over")
    if call.reason == "error":
        why = TimedOutError(f"no stream of call {call.sid} has come; Twilio was asked for one")
    elif call.state == "ending":
        why = WrongModeError(f"listening to call {call.sid} was given up")
    at.fail_all(call.take_listening(), why)


def over(at: Moment, over: f.CallOver) -> None:
    """Unless REST is still asked to stop the stream, nothing is left of the listening."""
    if over.call.theirs is not None and not over.call.end_under_way:
        at.do(do.CloseListening(over.call.id))


def ended(at: Moment, result: ev.EndTaken) -> None:
    """REST has stopped the stream."""
    call = at.book.calls.get(result.call)
    if call is not None and call.theirs is not None:
        at.do(do.CloseListening(call.id))


def unclaimed(at: Moment, over: f.ClaimsOver) -> None:
    """Stop streams that no client waits for. The client is back, but went away before the stream
    came, and does not know of the listening any more. (Listenings whose clients are not back end
    with all other unclaimed calls.)"""
    for call in list(at.book.calls.values()):
        if call.theirs is not None and call.state == "expected" and not call.listening:
            at.tell(f.HangUp(call.id, "hang_up"))


def tick(at: Moment, tick: ev.Tick) -> None:
    """Streams that are missing are asked for. After a restart those who wait are told of a stream
    that a gateway has brought."""
    book = at.book
    since = at.now - (FOUND_WITHIN if book.claiming and book.identity.epoch > 1 else 0.0)
    for call in book.call_rounds.now:
        if call.theirs is None or call.over:
            continue
        if call.state == "live":
            _tell(at, call)
            continue
        due = call.missing is not None and call.missing <= since
        wanted = call.session in book.sessions and call.streams_asked < MOST_STREAMS
        if due and wanted and not book.tokens.has_good(call.id, at.now):
            _open(at, call)
