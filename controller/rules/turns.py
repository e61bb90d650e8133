"""Whose turn it is on a number: while a b-leg dial to it is open, no other dial of ours is.

Two b-leg dials to one number at once could not be told apart when their other legs come in, because
carriers rewrite callers (:mod:`.webhooks`, rule 3). So they take turns: one call at a time is set
up, and once its stream is up the next one's turn has come. Each waits for as long as its own
timeout, and is told its place.
"""

from __future__ import annotations

from trunkline.bus import messages as m

from . import facts as f
from .book.dial import Dial
from .moment import Moment


def wait(at: Moment, wanted: f.TurnWanted) -> None:
    """The dial waits for its turn, which may be now."""
    dial = wanted.dial
    dial.wait_turn(at.now)
    at.book.turns.add(dial.row.callee, dial.row.session, dial.request)
    give(at, wanted)
    if dial.state == "waiting":
        tell_places(at, wanted, only=dial)


def give(at: Moment, heard: object) -> None:
    """One dial at a time to each number that others wait for. A call may have come up, or ended,
    since the last tick."""
    if not at.book.turns:
        return
    taken = {dial.row.callee for dial in at.book.coming() if dial.may_ring}
    for number in at.book.turns.numbers():
        if number not in taken:
            dial = at.book.dials[at.book.turns.pop(number)]
            dial.turn()
            at.tell(f.TurnCome(dial))


def tell_places(at: Moment, heard: object, only: Dial | None = None) -> None:
    """Tell every dial that waits its place, if that has changed, in the same rhythm as in the queue
    of dials. ``only``: tell this dial alone, which begins to wait."""
    for place, request in at.book.turns.places():
        dial = at.book.dials[request]
        if only in (None, dial) and dial.tell_place(place):
            event = m.DialQueued(request=request, place=place, seconds=0.0, for_number=True)
            at.send_session(dial.row.session, event)
