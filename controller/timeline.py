"""The recent past, for the console: one table of which events and facts are shown, and as what
text. No I/O.

:class:`~.core.Core` lets the timeline hear each event and fact before the rules hear it. So a call
that ends is still described with all that is known of it. What the table does not name costs one
look-up. Both rings are bounded, and nothing here is read by any rule. A text that is wrong shows
something wrong; one that raises counts as a fault of ours, like a rule's.

A call that comes in and ends is told like this, one entry a line (``kind``: ``text``)::

    session: opens
    number:  our override is on
    call:    its stream is up, from +14155557777 to +14155551234
    call:    over (stop)

A text is for people. It may quote words of carriers and callers, and is shown as text alone. No
secret is among them: digits that are sent may be somebody's PIN, so only their number is told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec

from trunkline.bus import messages as m

from . import events as ev
from . import live, status
from .rules import facts as f
from .rules.book import Book

#: Entries, and calls that are over, which are kept. The page keeps as many itself
#: (``web/live.js``), and a page that is opened later gets all of them at once.
ENTRIES_KEPT: Final = 2_000
CALLS_KEPT: Final = 500
#: More than a controller has entries: each start counts on from the next multiple of it. A page
#: that stays open over a restart drops entries whose ``n`` it has seen, so numbers that began at 1
#: again would hide everything new. The first entry of epoch 7 is 700,000,001. JavaScript counts to
#: 2^53 exactly, and a stack whose journal is lost goes on at the minutes of Unix time.
AN_EPOCH: Final = 10**8
#: Characters of a text. Errors quote carriers, who may send any amount.
_LONGEST: Final = 300


class Entry(msgspec.Struct, frozen=True):
    """Something that happened. ``n`` counts up, over restarts too. ``at``: Unix time. ``call``:
    trunkline's own id of the call, because a CallSid is often not known yet.

    On the page it is JSON, and there ``call``, ``session`` and ``number`` are what it is filtered
    by: ``{"n": 700000006, "at": 1700000100.0, "kind": "number", "text": "our override is on",
    "call": null, "session": "2b1f…", "number": "+14155551234"}``.
    """

    n: int
    at: float
    kind: str
    text: str
    call: str | None = None
    session: str | None = None
    number: str | None = None


#: The fields of an :class:`Entry` that a row of the table gives: ``text``, and what it is about. A
#: function that gives None has nothing to show this time.
Said = dict[str, Any]


def _of_dial(text: str) -> Callable[[Any, Book], Said | None]:
    """The text of a result that names a dial by its request, with the error if it has one. A dial
    that is not in the book was an earlier epoch's, and nobody remembers whom it was for."""

    def said(result: Any, book: Book) -> Said | None:
        dial = book.dials.get(result.request)
        if dial is None:
            return None
        error = getattr(result, "error", None)
        row = dial.row
        told = text if error is None else f"{text}: {error}"
        return {"text": told, "call": row.call, "session": row.session, "number": row.callee}

    return said


def _of_call(text: Callable[[Any], str]) -> Callable[[Any, Book], Said]:
    """The text of a fact that carries a call. ``text`` gets the fact, because some texts need its
    reason."""

    def said(fact: Any, book: Book) -> Said:
        call = fact.call
        return {"text": text(fact), "call": call.id, "session": call.session}

    return said


def _hello(hello: m.Hello, book: Book) -> Said | None:
    """A process is new, or it only said Hello once more because its connection broke."""
    if book.peers.get(hello.peer) is not None:
        return None
    return {"text": f"{hello.role} {hello.peer} is here (pid {hello.pid})"}


def _gone(gone: Any, book: Book) -> Said | None:
    peer = book.peers.get(gone.peer)
    return None if peer is None else {"text": f"{peer.role} {peer.id} has gone"}


def _dial(ask: f.Ask[m.Dial], book: Book) -> Said:
    body = ask.body
    return {"text": f"a call to {body.to} is wanted ({body.mode})", "session": body.session}


def _digits(ask: f.Ask[m.SendDigits], book: Book) -> Said:
    """How many, and not which: they may be a PIN."""
    body = ask.body
    return {"text": f"{len(body.digits)} digits are sent", "call": body.call}


def _moved(moved: m.CallMoved, book: Book) -> Said | None:
    """A gateway may say it of a call that the book does not have (any more)."""
    if moved.call not in book.calls:
        return None
    return {"text": f"runs on {moved.worker} now", "call": moved.call}


def _by_hand(act: ev.ByHand, book: Book) -> Said | None:
    if act.order == "speak":
        return None  # one comes for each half second of it; the page says when one begins
    return {"text": f"{act.order.replace('_', ' ')}, by hand", "call": act.call}


def _override(result: ev.Applied | ev.ApplyFailed, book: Book) -> Said:
    row = result.row
    text = "our override is on" if isinstance(result, ev.Applied) else f"override: {result.error}"
    return {"text": text, "number": row.number, "session": row.session}


def _restored(result: ev.Restored, book: Book) -> Said | None:
    lease = book.lease_of(result.override)
    if lease is None:
        return None
    text = "the number is as it was"
    if result.outcome == "left_alone":
        text = "the number is left alone: it is somebody else's now, or gone"
    return {"text": text, "number": lease.number}


def _lost(lost: f.SessionLost, book: Book) -> Said | None:
    """A session is lost with its client. One that closes already was shown by :func:`_closing`,
    and the end of its client is no news."""
    session = book.sessions.get(lost.session)
    if session is None or session.state == "closing":
        return None
    return {"text": f"lost: {lost.why}", "session": session.id, "number": session.number}


def _closing(closing: f.SessionClosing, book: Book) -> Said | None:
    session = book.sessions.get(closing.session)
    number = None if session is None else session.number
    return {"text": "closes", "session": closing.session, "number": number}


def _opened(ask: f.Ask[m.OpenSession], book: Book) -> Said | None:
    """A client that got no answer asks again. Then the session is there already."""
    info = ask.body.info
    if info.session in book.sessions:
        return None
    return {"text": "opens", "session": info.session, "number": info.number}


def _no_call(no: f.NoCall, book: Book) -> Said:
    row = no.dial.row
    text = f"no call: {no.status} {no.text}".rstrip()
    return {"text": text, "call": row.call, "session": row.session, "number": row.callee}


def _stream_up(up: f.StreamUp) -> str:
    if not up.first:
        return "its next stream is up"
    call = up.call
    return f"its stream is up, from {call.caller} to {call.callee}"


def _answered_by(known: f.AnsweredByKnown, book: Book) -> Said:
    return {"text": f"answered by {known.answered_by}", "call": known.dial.row.call}


def _leg_over(over: f.LegOver, book: Book) -> Said:
    """With Twilio's own word for how it ended, such as "busy", where Twilio has said one."""
    row, word = over.dial.row, over.dial.known.status
    text = f"our leg is over ({word})" if word else "our leg is over"
    return {"text": text, "call": row.call, "session": row.session, "number": row.callee}


def _over(over: f.CallOver, book: Book) -> Said:
    call = over.call
    return {"text": f"over ({live.reason(book, call)})", "call": call.id, "session": call.session}


def _answered(answered: f.Answered, book: Book) -> Said:
    return {"text": "the far end has picked up", "call": answered.dial.row.call}


#: Event or fact -> the kind that the page filters by, and who words it. The kinds are process,
#: session, number, dial and call. Beats and ticks are not here: they would push everything else out
#: of the ring within minutes.
TOLD: Final[dict[type, tuple[str, Callable[[Any, Book], Said | None]]]] = {
    m.Hello: ("process", _hello),
    m.Goodbye: ("process", _gone),
    ev.ConnectionLost: ("process", _gone),
    m.OpenSession: ("session", _opened),
    f.SessionLost: ("session", _lost),
    f.SessionClosing: ("session", _closing),
    ev.Applied: ("number", _override),
    ev.ApplyFailed: ("number", _override),
    ev.Restored: ("number", _restored),
    m.Dial: ("dial", _dial),
    ev.AskedTwilio: ("dial", _of_dial("Twilio is asked for it")),
    ev.Taken: ("dial", _of_dial("Twilio has it")),
    ev.CreateFailed: ("dial", _of_dial("Twilio refuses it")),
    ev.Unsure: ("dial", _of_dial("whether Twilio has it is not known")),
    f.NoCall: ("dial", _no_call),
    f.LegOver: ("dial", _leg_over),
    f.Answered: ("call", _answered),
    f.AnsweredByKnown: ("call", _answered_by),
    f.LetIn: ("call", _of_call(lambda fact: "Twilio asks for its next stream")),
    f.StreamUp: ("call", _of_call(_stream_up)),
    f.StreamLost: ("call", _of_call(lambda fact: f"its stream is gone ({fact.reason})")),
    m.CallMoved: ("call", _moved),
    m.SendDigits: ("call", _digits),
    ev.ByHand: ("call", _by_hand),
    f.CallEnding: ("call", _of_call(lambda fact: f"is hung up ({fact.call.reason})")),
    f.CallOver: ("call", _over),
}


class Timeline:
    """The last entries, and the last calls that are over, as the console shows them. ``epoch``: the
    controller's, so that a page which has seen an earlier one knows these as newer."""

    def __init__(self, epoch: int) -> None:
        self.entries: deque[Entry] = deque(maxlen=ENTRIES_KEPT)
        self.over: deque[dict[str, Any]] = deque(maxlen=CALLS_KEPT)
        #: the number of the newest entry, and how many calls have ended. Pages that are open
        #: remember up to where they were told, and ask for what came :meth:`since`
        self.count = epoch * AN_EPOCH
        self.count_over = 0

    def hear(self, heard: object, book: Book, now: float) -> None:
        """Note it, if the table says so. ``heard`` is an event, a fact, or a request in its
        envelope (``f.Ask``), which the table names by its body. ``now`` is monotonic."""
        told = TOLD.get(type(heard.body) if isinstance(heard, f.Ask) else type(heard))
        if told is None:
            return
        kind, say = told
        said = say(heard, book)
        if said is None:
            return
        self.count += 1
        said["text"] = said["text"][:_LONGEST]
        self.entries.append(Entry(self.count, book.wall(now), kind, **said))
        if isinstance(heard, f.CallOver) and status.is_known(heard.call):
            row = live.call(book, heard.call, now)
            self.over.append(row | {"over_at": round(book.wall(now), 3)})
            self.count_over += 1

    def since(self, n: int) -> list[Entry]:
        """The entries after number ``n``, the oldest first; 0: all that are kept."""
        first = self.count - len(self.entries)
        return list(self.entries)[max(0, n - first) :]

    def over_since(self, n: int) -> list[dict[str, Any]]:
        """The calls that ended after the ``n``-th did, the earliest first. If more have ended than
        are kept, the oldest of them are missing."""
        first = self.count_over - len(self.over)
        return list(self.over)[max(0, n - first) :]
