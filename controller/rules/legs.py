"""Which call at Twilio a dial has led to: evidence for the SID of our leg, and guesses at it.

The SID may become known from five sides, in any order: Twilio's answer to the request, the list of
calls, a status callback, a webhook, a stream. A SID that was found in the list of calls is a
*guess*, because two calls to one number at one time look alike there. Whatever names the dial
itself is evidence, and outweighs a guess. The dial that had the SID by guess gives it back, and is
looked for once more.

For example, two dials to one number are both *unsure*, and the list shows one call so far. The
first search takes it, by guess. Then a callback names the second dial with that very SID. The first
dial is *mistaken*. Its search begins again, and finds the other call.
"""

from __future__ import annotations

import logging

from trunkline.bus import messages as m
from trunkline.bus.redact import redact_number
from trunkline.bus.twilio_urls import DIAL_FIELD

from .. import events as ev
from .. import instructions as do
from ..twilio.calls import ENDED_STATUSES
from . import facts as f
from .book.dial import OPEN, Dial
from .facts import Ask
from .moment import Moment

log = logging.getLogger("trunkline.controller")


def taken(at: Moment, result: ev.Taken) -> None:
    """Twilio has made the call, or it was found in the list of calls."""
    dial = at.book.dials.get(result.request)
    if dial is not None:
        at.tell(f.SidShown(dial, result.sid, result.guessed, journalled=True))
        at.tell(f.LegStatus(dial, result.sid, result.status))


def status_callback(at: Moment, ask: Ask[m.StatusCallback]) -> None:
    """A callback names the dial and its leg, and says how that stands, or who has answered it. If
    it names a dial that we do not have, nobody claims its call, which is hung up."""
    form = ask.body.form
    sid, status = form.get("CallSid", ""), form.get("CallStatus", "")
    request = ask.body.query.get(DIAL_FIELD, "")
    book = at.book
    dial = book.dials.get(request) if request else book.dial_with_sid(sid)
    if dial is not None and sid:
        if dial.state in OPEN or status not in ENDED_STATUSES:
            at.tell(f.SidShown(dial, sid))
        if status:
            at.tell(f.LegStatus(dial, sid, status))
        answered_by = next((x for x in m.ANSWERERS if x == form.get("AnsweredBy")), None)
        if answered_by is not None:
            at.tell(f.AnsweredByKnown(dial, sid, answered_by))
    elif sid and request and status not in ENDED_STATUSES and not book.claiming:
        known = book.by_sid.get(sid)
        if known is not None and known.over:
            # An earlier callback had the call hung up. Somebody who has captured this one may send
            # it again and again, and REST need not be asked each time.
            at.count("callbacks of calls that are over")
            return
        log.warning("call %s: nobody claims it; it is hung up", sid)
        at.tell(f.Stray(sid))


def callback_done(at: Moment, ask: Ask[m.StatusCallback]) -> None:
    """Everything that the callback has led to is done. Twilio does not read the answer, but the
    gateway waits for it."""
    at.reply(ask.reply_to, m.Done())


def named(at: Moment, ask: Ask[m.VoiceWebhook]) -> None:
    """A webhook whose URL names the dial shows its leg, before it is answered."""
    sid = ask.body.form.get("CallSid", "")
    dial = at.book.dials.get(ask.body.query.get(DIAL_FIELD, ""))
    if sid and dial is not None:
        at.tell(f.SidShown(dial, sid))


def sid_shown(at: Moment, shown: f.SidShown) -> None:
    """Our leg's SID is known, from whichever side it came. Whatever names the dial is evidence, and
    corrects what was ``guessed``.

    A second SID for a dial that has one for certain can only mean that the same request led to two
    calls. Nobody waits for the other one, so it is hung up. So is a call that shows itself when its
    dial is closed.
    """
    dial, sid, guessed = shown.dial, shown.sid, shown.guessed
    journalled = shown.journalled and not guessed
    if dial.sid != sid:
        if dial.state == "closed" or not (dial.sid is None or dial.guessed):
            if not guessed:
                log.error("call %s of dial %s: nobody waits for it", sid, dial.request)
                at.tell(f.Stray(sid))
            return
        _take_sid(at, dial, sid, guessed)
    elif dial.guessed and not guessed:
        dial.confirm()
        journalled = False
    else:
        journalled = True  # it was known
    if not journalled and not guessed:
        at.do(do.NoteTaken(dial.request, sid))
    dial.step("taken")
    at.reply_all(dial.take_waiting(), m.Dialled(call=dial.row.call, sid=sid))
    if dial.outcome is not None:
        at.tell(f.HangUp(dial.row.call, "hang_up"))


def _take_sid(at: Moment, dial: Dial, sid: str, guessed: bool) -> None:
    """The dial has another SID than before, or its first. A guess that contradicts it, of this dial
    or of another one, is taken back."""
    if dial.sid is not None:
        log.warning("dial %s: its call is %s, not %s", dial.request, sid, dial.sid)
        at.tell(f.SidWrong(dial, dial.sid))
    for other in at.book.guesses():
        if other.sid == sid and other.state == "taken":
            at.tell(f.SidWrong(other, sid))
            other.mistaken()
            at.do(do.Settle(other.row))
    dial.take_sid(sid, guessed=guessed)
    if guessed:
        at.book.guess(dial)
    at.tell(f.SidKnown(dial, sid))
    log.info(
        "call %s from %s to %s was taken by Twilio",
        sid,
        redact_number(dial.row.caller),
        redact_number(dial.row.callee),
    )
