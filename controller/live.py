"""What a page of the console shows of the stack at one moment. No I/O.

It is the object of ``trunkline status --json`` and more: how sessions stand, and who waits for
Twilio, for a callee's number or for a number of the pool. These keys are for our own page
(``web/app.js``) and change with it. Users' scripts read the status, so that gets none of them.

:mod:`.viewers` asks for it when a page is opened, and about once a second while one is open.
"""

from __future__ import annotations

from typing import Any, Final

from . import status
from .rules.book import Book
from .rules.book.call import Call
from .rules.book.dial import Dial

#: State of a dial -> what it waits for, for the page's column "waits for". In any other state
#: nothing of ours holds the dial up: it rings, its call is up, or it is over.
_WAITS_FOR: Final = {
    "leasing": "the override on the callee's number",
    "waiting": "another call to the callee's number",
    "queued": "its turn at Twilio",
    "asking": "Twilio's answer",
    "unsure": "word whether Twilio has it",
}


def snapshot(book: Book, now: float) -> dict[str, Any]:
    """The stack at this moment. The argument ``now`` is monotonic; the key ``now`` is the same
    moment in Unix time, by the controller's clock.

    ``queue`` has the dials that wait, for example ``{"request": "…", "callee": "+14155557777",
    "state": "queued", "waits_for": "its turn at Twilio", "place": 2, "seconds": 1.4, …}``. The
    lists that the status leaves out while they are empty are always here: the page draws a table
    of each.
    """
    found = status.build(book, now)
    for row in found["sessions"]:
        session = book.sessions[row["id"]]
        row |= {"state": session.state, "client": session.peer}
    for row, call in zip(found["calls"], status.shown(book), strict=True):
        row |= _more(book, call)
    places = {request: place for place, request in enumerate(book.queue.order(), 1)}
    return found | {
        "now": round(book.wall(now), 3),
        "stack": book.identity.stack,
        "stopping": book.stopping,
        "listening": found.get("listening", []),
        "unhealthy": found.get("unhealthy", []),
        "caps": found.get("caps", []),
        "pool": {
            "numbers": book.pool.size,
            "waiting": [
                {"session": each, "place": n} for n, each in enumerate(book.pool.waiting, 1)
            ],
        },
        "queue": [
            _dial(dial, places.get(dial.request), book, now)
            for dial in book.dials.values()
            if dial.state in _WAITS_FOR
        ],
        "counts": dict(sorted(book.counts.items())),
    }


def call(book: Book, call: Call, now: float) -> dict[str, Any]:
    """One call as the page shows it, which may be over: :mod:`.timeline` keeps this row of a call
    at its end, before the book forgets it. ``began_at`` is Unix time."""
    row = status.row(book, call, now) | _more(book, call)
    return row | {"began_at": round(_began(book, call), 3)}


def reason(book: Book, call: Call) -> str | None:
    """Why the call is over, or is being hung up; None while it goes on. A dial that has not become
    a call has the word that its client got, as a rule Twilio's own: busy, no-answer, failed,
    canceled, or timeout."""
    dial = book.dial_of(call)
    if call.started is None and dial is not None and dial.outcome is not None:
        return dial.outcome
    return call.reason


def _began(book: Book, call: Call) -> float:
    """When its first stream came up. If none did: when Twilio was asked for the call, which is the
    time that the journal has of it, or else when the call came in."""
    if call.started is not None:
        return book.wall(call.started)
    dial = book.dial_of(call)
    return (0.0 if dial is None else dial.row.asked) or book.wall(call.created)


def _more(book: Book, call: Call) -> dict[str, Any]:
    """What the page knows a call by: ``id`` is trunkline's own, which its URLs name
    (``/api/calls/{id}/hang-up``), because a call has it before Twilio has given it a SID. A call
    that came in has no mode of a dial."""
    return {
        "id": call.id,
        "session": call.session,
        "mode": call.mode or "answer",
        "reason": reason(book, call),
        "answered_by": call.answered_by,
    }


def _dial(dial: Dial, place: int | None, book: Book, now: float) -> dict[str, Any]:
    """A dial that waits. ``place``: in the queue for Twilio, from 1; None where it does not stand
    in that queue. ``seconds``: until it is its turn there, at the pace of
    ``TRUNKLINE_CALLS_PER_SECOND``."""
    return {
        "request": dial.request,
        "session": dial.row.session,
        "caller": dial.row.caller,
        "callee": dial.row.callee,
        "mode": dial.row.mode,
        "state": dial.state,
        "waits_for": _WAITS_FOR[dial.state],
        "place": place,
        "seconds": None if place is None else round(book.queue.seconds(place, now), 1),
    }
