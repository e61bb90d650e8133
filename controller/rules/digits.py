"""Digits on a leg that carries our stream: sent by the carrier, with the far end heard throughout.

``<Play digits>`` needs a new document, and a new document ends ``<Connect><Stream>``. The document
itself ends with another stream, which is up half a second to more than a second later (others
measured 856 ms on a live call). The far end's words until then would be lost. So a second, one-way
stream listens meanwhile:

    ours           Twilio                                          the far end's sound comes by
    StartStream ─► opens a one-way stream of the inbound track     stream n
    PlayDigits ──► ends stream n, plays the digits                 stream n, then the one-way one
                   connects our stream again                       the one-way one, then n + 2
    CloseStream ─► the one-way stream is over                      stream n + 2

A stream needs as long to start in ``<Start><Stream>`` as in ``<Connect>``. So REST starts it, while
stream n is still up, and the document follows once it is heard. Both changes then find two streams
with the same sound, and the worker joins them (``codec_worker/join.py``). If REST does not start
it, the document begins with ``<Start><Stream>``. Then the far end is lost until that stream is up,
and the loss is counted.

The one-way stream waits at its gateway, which keeps the newest sound. It becomes the call's stream,
with the next ordinal, when stream n is gone (:func:`stream_lost`), or when the stream behind the
digits comes first (:func:`stream_shown`). From then on it is a stream like any other: a worker may
die, and the gateway moves it. Playout stays frozen until the next stream.

The rules (the table is DIGITS in :mod:`.tables`):

1. One row of digits is on its way in a call at a time; the next ones wait for it.
2. Digits are not idempotent. They are asked for again only where Twilio cannot have taken them.
   Where an answer is missing, the stream that the document asks for shows that it was taken.
3. While a document may move the call, a ``stop`` of its stream is not the call's end. The end
   shows as for every call without a stream, by REST; or the one-way stream shows it, because it
   stops with the call.
4. Whatever goes wrong, the call lives on: behind ``<Connect>`` stands ``<Redirect>``.
5. The call's end wins: whoever waits for digits gets an error that says so.
"""

from __future__ import annotations

import logging
from typing import Final

from trunkline.bus import messages as m
from trunkline.bus.digits import CALL_ENDED_FIRST, seconds_of
from trunkline.bus.errors import (
    StackUnavailableError,
    TimedOutError,
    TrunklineError,
    WrongModeError,
)
from trunkline.bus.twilio_urls import stream_url

from .. import events as ev
from .. import instructions as do
from ..twilio import documents
from . import facts as f
from .book.call import MAY_RETURN_FOR, Call
from .book.digits import Row, Wish
from .book.tokens import digest
from .facts import Ask
from .moment import Moment

log = logging.getLogger("trunkline.controller")

#: The stream has to be back within this time and the digits' own.
BACK_WITHIN: Final = 10.0
#: The one-way stream has to be up by then; after that the digits go without it.
LISTENS_WITHIN: Final = 4.0
#: The one-way stream goes on for this long beside the one that replaces it (seconds). The two are
#: joined within half a second.
CLOSED_AFTER: Final = 1.0


# --------------------------------------------------------------------------- what is asked


def ask(at: Moment, ask: Ask[m.SendDigits]) -> None:
    """A client sends digits. On a leg without our stream they are a document and no more."""
    body, book = ask.body, at.book
    call = book.call_of(ask.reply_to, body.session, body.call)
    document = documents.digits(body.digits)
    if call is None or call.over or call.theirs is not None:
        raise WrongModeError("no active call; send_dtmf requires an in-progress call")
    if call.digits_in_doubt:
        call.doubt_no_more()
        raise StackUnavailableError(
            "the controller was started again while digits were being sent; whether the far "
            "end heard them is not known, and they are not repeated"
        )
    if call.mode in ("b-leg", "originate"):
        if call.dialled_sid is None:
            raise WrongModeError("the leg that we dial is not known yet")
        at.do(do.Instruct(ask.reply_to, call.dialled_sid, document))
        return
    book.digits.wish(call.id, Wish(ask.reply_to, body.digits, at.now))
    _next(at, call)


def _next(at: Moment, call: Call) -> None:
    """Begin the next row, if none is on its way and the call has a stream of ours."""
    book = at.book
    if book.digits.of(call.id) is not None or call.state != "live" or call.one_way:
        return
    wish = book.digits.next_wish(call.id)
    if wish is None:
        return
    deadline = at.now + BACK_WITHIN + seconds_of(wish.digits)
    row = book.digits.begin(call, wish, deadline, at.now + LISTENS_WITHIN)
    assert call.sid is not None, "a live call has a leg"
    url = stream_url(book.identity.public_url)
    token = book.tokens.make(call.id, call.sid, deadline, one_way=True)
    at.do(do.StartStream(call.id, row.serial, call.sid, url, token))


# --------------------------------------------------------------------------- what REST answers


def instructed(at: Moment, result: ev.Instructed) -> None:
    """On a leg without our stream: Twilio has taken the document, or not."""
    if result.error is None:
        at.reply(result.reply_to, m.Done())
    else:
        at.fail(result.reply_to, result.error)


def stream_asked(at: Moment, result: ev.StreamAsked) -> None:
    """Where REST does not open the one-way stream, the document itself starts it."""
    row = at.book.digits.of(result.call, result.serial)
    if row is not None and row.state == "opening" and result.error is not None:
        _play(at, row, "deaf")


def sent(at: Moment, result: ev.DigitsSent) -> None:
    """Twilio has the document, has it not, or has it perhaps."""
    row = at.book.digits.of(result.call, result.serial)
    if row is None or row.state != "asking":
        return
    if result.error is None:
        row.step("taken")
    elif result.unsure:
        row.doubted(result.error)
    else:
        row.step("refused")
        call = row.call
        if call.sid is not None and (call.one_way or call.state != "live"):
            at.do(do.Fetch(call.id, call.sid))  # its stream has stopped: is it over?
        _over(at, row, result.error)


# --------------------------------------------------------------------------- streams


def hears(at: Moment, shown: f.ListenerShown) -> None:
    """The one-way stream is up, and waits at its gateway."""
    row = at.book.digits.of(shown.token.call)
    if row is None:
        why = "the digits that it was for are over"
        at.reply(shown.ask.reply_to, m.StreamRefused(why=why))
        return
    at.book.tokens.void(shown.token.call, one_way=True)
    row.hears(shown.ask.body.gateway)
    if row.state == "opening":
        _play(at, row, "hears")
    info = at.book.info(row.call, at.now)
    at.reply(shown.ask.reply_to, m.StreamAccepted(info=info, first=False, one_way=True))


def _play(at: Moment, row: Row, event: str) -> None:
    """Give Twilio the document."""
    row.step(event)
    call, tokens = row.call, at.book.tokens
    # A document that Twilio has perhaps may reach the call late.
    until = row.deadline + MAY_RETURN_FOR
    token = tokens.make(call.id, call.sid, until)
    row.tell(digest(token))
    listener = None
    if row.listener is None:
        listener = tokens.make(call.id, call.sid, until, one_way=True)
    document = documents.digits_and_stream(
        at.book.identity.public_url, row.digits, token, at.book.query(call), listener
    )
    assert call.sid is not None, "a call whose digits began has a leg"
    at.do(do.PlayDigits(call.id, row.serial, call.sid, document, row.deadline))


def stream_lost(at: Moment, lost: f.StreamLost) -> None:
    """A call has lost its stream. If a one-way stream waits for just that, it goes on there."""
    row = at.book.digits.of(lost.call.id)
    for_digits = lost.reason == "stop" and row is not None and row.replaces_stream
    if row is not None:
        if for_digits:
            row.begins(at.now)
        if _take_listener(at, row):
            return
    if for_digits:
        return  # its stream goes because of digits, and comes again
    at.tell(f.Reconnecting(lost.call, lost.reason))


def settle(at: Moment, ask: Ask[m.StreamStart]) -> None:
    """A one-way stream that came when the call had no stream any more has its turn at once. This
    is heard behind the answer, which names the stream."""
    for row in at.book.digits.rows.values():
        if row.call.state == "reconnecting":
            _take_listener(at, row)


def _take_listener(at: Moment, row: Row) -> bool:
    """The one-way stream carries the call from now on. False: there is none, or its gateway is
    gone."""
    gateway = row.take_listener()
    peer = at.book.peers.get(gateway or "")
    if gateway is None or peer is None or not at.book.present(peer, at.now):
        return False
    at.tell(f.ListenerTaken(row.call, gateway))
    return True


def stream_shown(at: Moment, shown: f.StreamShown) -> None:
    """The document's stream has come. Perhaps the end of stream n is not told yet, because its
    gateway stands still. The one-way stream has its turn all the same, or what it has heard since
    that end would be lost."""
    row = at.book.digits.of(shown.token.call)
    if row is not None and shown.token.digest == row.token and not row.call.one_way:
        _take_listener(at, row)


def stream_up(at: Moment, up: f.StreamUp) -> None:
    """A stream of ours is up, and its token tells what has become of the digits.

    With the token of the row's document, Twilio has run the document, so the digits were played.
    With any other token, the stream came by a redirect. Once Twilio has taken the document for
    certain, that is the redirect behind the document's own stream, so the digits were played too.
    Until then it may be the redirect of the former document. Twilio may still run ours and cut
    this stream off, so the row goes on."""
    call, row = up.call, at.book.digits.of(up.call.id)
    if row is None or row.state == "opening":
        _next(at, call)
    elif up.token.digest == row.token:
        row.step("stream_up")
        _played(at, row)
    elif row.state == "playing" and row.doubt is None:
        row.step("stream_up")
        call.expect_document(at.now + BACK_WITHIN)
        _played(at, row)


def close_later(at: Moment, replaced: f.ListenerReplaced) -> None:
    """The call's one-way stream is being replaced; for a moment both bring its sound."""
    close = m.CloseStream(call=replaced.call.id, one_way=True, ordinal=replaced.ordinal)
    at.book.digits.close_later(at.now + CLOSED_AFTER, replaced.gateway, close)


# --------------------------------------------------------------------------- ends


def _played(at: Moment, row: Row) -> None:
    """The far end has heard them: the call's recording is to name them, and its client too. Where
    nobody has told when the stream before them stopped, they ended just now."""
    began = at.now - seconds_of(row.digits) if row.began is None else row.began
    age = row.call.press(row.digits, began)
    _over(at, row, m.DigitsPlayed(age=age, ordinal=row.call.ordinal))


def _over(at: Moment, row: Row, answer: m.DigitsPlayed | TrunklineError) -> None:
    """Whoever asked is answered, the one-way stream is not needed any more, and the next row
    begins."""
    call = row.call
    at.book.digits.drop(call.id)
    if row.listener is not None:
        at.send(row.listener, m.CloseStream(call=call.id, one_way=True))
    if isinstance(answer, m.DigitsPlayed):
        at.reply(row.reply_to, answer)
    else:
        log.warning("digits for call %s: %s", call.sid, answer)
        at.fail(row.reply_to, answer)
        if call.one_way and call.live:
            call.stream_missing(at.now)
    _next(at, call)


def call_ends(at: Moment, ends: f.CallEnding | f.CallOver) -> None:
    """The call ends: nobody waits for digits any more."""
    call = ends.call
    call.doubt_no_more()
    why = WrongModeError(CALL_ENDED_FIRST)
    row = at.book.digits.drop(call.id)
    if row is not None:
        row.step("ended")
        at.fail(row.reply_to, why)
    at.fail_all([wish.reply_to for wish in at.book.digits.drop_wishes(call.id)], why)


def tick(at: Moment, tick: ev.Tick) -> None:
    """End rows of digits that take too long and requests that have waited too long, and close
    one-way streams that are not needed any more."""
    for row in list(at.book.digits.rows.values()):
        if at.now >= row.deadline:
            _late(at, row)
        elif row.state == "opening" and at.now >= row.listens_by:
            log.warning("call %s: no one-way stream came; the digits go without", row.call.sid)
            _play(at, row, "deaf")
    late = [wish.reply_to for wish in at.book.digits.overdue(at.now - BACK_WITHIN)]
    no_stream = TimedOutError(f"the call had no stream for {BACK_WITHIN:g} s; no digits sent")
    at.fail_all(late, no_stream)
    for gateway, close in at.book.digits.take_due(at.now):
        at.send(gateway, close)


def _late(at: Moment, row: Row) -> None:
    """The stream is not back. Twilio may still run the document, so for a while a stop of the
    stream need not be the call's end."""
    row.step("late")
    row.call.expect_document(at.now + MAY_RETURN_FOR)
    text = f"the stream was not back {BACK_WITHIN:g} s after the digits"
    if row.doubt is not None:
        text += f", and whether they were sent is not known ({row.doubt})"
    else:
        text += "; Twilio has taken them, and the stream may still come again"
    _over(at, row, TimedOutError(text))
