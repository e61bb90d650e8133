"""Whose turn it is on a number: while a b-leg dial to it is open, no other dial of ours is.

Two b-leg dials to one number at once could not be told apart when their other legs come in, because
carriers rewrite callers (:mod:`.webhooks`, rule 3). So they take turns: one call at a time is set
up, and once its stream is up the next one's turn has come. Each waits for as long as its own
timeout, and is told its place.
"""

from __future__ import annotations

from trunkline.bus import messages as m

from .. import instructions as do
from . import facts as f
from .book.dial import Dial
from .moment import Moment


def wait(at: Moment, wanted: f.TurnWanted) -> None:
    """The dial waits for its turn, which may be now."""
    dial = wanted.dial
    dial.wait_turn(at.now)
    at.book.turns.add(dial.row.callee, dial.row.session, dial.request)
    _give(at)
    if dial.state == "waiting":
        _tell(at, only=dial)


def give(at: Moment, tick: do.Tick) -> None:
    """A call may have come up, or ended, since the last tick."""
    _give(at)


def _give(at: Moment) -> None:
    """One dial at a time to each number that others wait for."""
    if not at.book.turns:
        return
    taken = {dial.row.callee for dial in at.book.dials.values() if dial.may_ring}
    for number in at.book.turns.numbers():
        if number not in taken:
            dial = at.book.dials[at.book.turns.pop(number)]
            dial.turn()
            at.tell(f.TurnCome(dial))


def tell_places(at: Moment, due: f.PlacesDue) -> None:
    """In the same rhythm as the places in the queue of dials."""
    _tell(at)


def _tell(at: Moment, only: Dial | None = None) -> None:
    """Places that have changed, to those who wait."""
    for place, request in at.book.turns.places():
        dial = at.book.dials[request]
        if only in (None, dial) and dial.tell_place(place):
            event = m.DialQueued(request=request, place=place, seconds=0.0, for_number=True)
            at.send_session(dial.row.session, event)
