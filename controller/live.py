"""What a page of the console shows of the stack at one moment. No I/O.

It is the object of ``trunkline status --json`` and more: how sessions stand, who waits for Twilio,
for a callee's number or for a number of the pool, and the calls that are over.
"""

from __future__ import annotations

from typing import Any, Final

from . import status
from .rules.book import Book
from .rules.book.call import Call
from .rules.book.dial import Dial

#: A dial in one of these states waits for its turn.
_WAITS_FOR: Final = {
    "leasing": "the override on the callee's number",
    "waiting": "another call to the callee's number",
    "queued": "its turn at Twilio",
    "asking": "Twilio's answer",
    "unsure": "word whether Twilio has it",
}


def snapshot(book: Book, now: float) -> dict[str, Any]:
    """The stack at this moment."""
    found = status.build(book, now)
    for row in found["sessions"]:
        session = book.sessions[row["id"]]
        row |= {"state": session.state, "client": session.peer}
    for row, call in zip(found["calls"], status.shown(book), strict=True):
        row |= _more(call)
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
    """One call, which may be over."""
    return status.row(book, call, now) | _more(call)


def _more(call: Call) -> dict[str, Any]:
    return {
        "id": call.id,
        "session": call.session,
        "mode": call.mode or "answer",
        "reason": call.reason,
        "answered_by": call.answered_by,
    }


def _dial(dial: Dial, place: int | None, book: Book, now: float) -> dict[str, Any]:
    """``place``: in the queue for Twilio."""
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
