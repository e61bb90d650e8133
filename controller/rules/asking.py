"""Asking Twilio for calls: a few each second, fair between sessions.

Twilio starts as many calls a second as the account may, and queues the rest in an order of its own,
out of our reach. So dials wait here, where they can still be cancelled. Sessions take turns: one
that dials a hundred numbers at once does not hold up another that dials one. Clients hear the place
of each dial that waits, and how long that will take.

A dial is journalled before Twilio is asked (:class:`..instructions.Create`), because from then on a
phone may ring.
"""

from __future__ import annotations

from trunkline.bus import messages as m

from .. import events as ev
from .. import instructions as do
from . import facts as f
from .book.dial import Dial, order
from .book.tokens import digest
from .moment import Moment


def enqueue(at: Moment, come: f.TurnCome) -> None:
    """Put the dial into our own queue, where it can still be cancelled, and tell its client its
    place there. Twilio would queue it in an order of its own."""
    dial = come.dial
    at.book.queue.add(dial.row.session, dial.request)
    _ask_next(at)
    if dial.state == "queued":
        tell_places(at, come, only=dial)


def serve(at: Moment, tick: ev.Tick) -> None:
    """Ask Twilio for whoever is next; now and then tell the others their places."""
    _ask_next(at)
    if at.book.places_due(at.now):
        at.tell(f.PlacesDue())


def _ask_next(at: Moment) -> None:
    """Ask for as many calls as the rate allows now."""
    while (request := at.book.queue.take(at.now)) is not None:
        dial = at.book.dials[request]
        dial.ask(at.book.wall(at.now), at.now)
        at.book.usage.asked(request, dial.row.asked)
        if dial.row.mode == "a-leg":
            # Its inline TwiML carries this token.
            at.book.tokens.put(digest(dial.token), dial.row.call)
        asked_for = order(dial, at.book.identity.public_url, at.book.identity.query)
        at.do(do.Create(dial.row, asked_for, dial.deadline))


def asked_twilio(at: Moment, result: ev.AskedTwilio) -> None:
    """The request leaves now. It may have waited behind others for its turn on the connection, and
    the dial's own timeout must not pay for that."""
    dial = at.book.dials.get(result.request)
    if dial is not None:
        dial.rings_from(at.now, result.asked)
        at.book.usage.asked(dial.request, dial.row.asked)


def tell_places(at: Moment, heard: object, only: Dial | None = None) -> None:
    """Tell every dial that waits its place, if that has changed. ``only``: tell this dial alone,
    which begins to wait."""
    for place, request in enumerate(at.book.queue.order(), 1):
        dial = at.book.dials[request]
        if only in (None, dial) and dial.tell_place(place):
            seconds = at.book.queue.seconds(place, at.now)
            event = m.DialQueued(request=request, place=place, seconds=seconds)
            at.send_session(dial.row.session, event)
