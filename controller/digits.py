"""Digits on a leg that carries our stream: sent by the carrier, with the far end heard throughout.

``<Play digits>`` needs a new document, and a new document ends ``<Connect><Stream>``. The stream
that the document ends with is up half a second to more than a second later (measured by others on
a live call: 856 ms), and what the far end says until then would be lost. So a second, one-way
stream listens meanwhile:

    ours           Twilio                                          the far end's sound comes by
    StartStream ─► opens a one-way stream of the inbound track     stream n
    PlayDigits ──► ends stream n, plays the digits                 stream n, then the one-way one
                   connects our stream again                       the one-way one, then n + 2
    CloseStream ─► the one-way stream is over                      stream n + 2

A stream needs as long to start in ``<Start><Stream>`` as in ``<Connect>``. So REST starts it, while
stream n is still up, and the document follows once it is heard. Both changes then find two streams
with the same sound, and the worker joins them (``codec_worker/join.py``). Where REST does not start
it, the document begins with ``<Start><Stream>``. Then the far end is lost until that one is up, and
what was lost is counted.

The one-way stream waits at its gateway, which keeps the newest sound. It becomes the call's stream,
with the next ordinal, when stream n is gone (:meth:`StreamRules.turn`). From then on it is a stream
like any other: a worker may die, and the gateway moves it. Playout stays frozen until the next
stream.

The rules (the table is DIGITS in :mod:`.tables`):

1. One row of digits is on its way in a call at a time; the next ones wait for it.
2. Digits are not idempotent. They are asked for again only where Twilio cannot have taken them.
   Where an answer is missing, the stream that the document asks for shows that it was taken.
3. While a document may move the call, a ``stop`` of its stream is not the call's end. REST tells,
   as for every call without a stream, or the one-way stream does: it stops with the call.
4. Whatever goes wrong, the call lives on: behind ``<Connect>`` stands ``<Redirect>``.
5. The call's end wins: whoever waits for digits is told of it.
"""

from __future__ import annotations

import itertools
import logging
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trunkline.bus import messages as m
from trunkline.bus.digits import seconds_of
from trunkline.bus.errors import (
    StackUnavailableError,
    TimedOutError,
    TrunklineError,
    WrongModeError,
)

from . import instructions as do
from . import twiml
from .call import Call
from .instructions import Asked
from .tables import DIGITS, Subject
from .tokens import Token, digest

if TYPE_CHECKING:
    from .core import Core

log = logging.getLogger("trunkline.controller")

#: The stream has to be back within this time and the digits' own.
BACK_WITHIN: Final = 10.0
#: The one-way stream has to be up by then; after that the digits go without it.
LISTENS_WITHIN: Final = 4.0
#: How long a document may still reach the call when nobody knows whether Twilio took it.
MAY_MOVE_FOR: Final = 60.0
#: The one-way stream goes on for so long beside the one that replaces it, which is joined to it
#: within half a second.
CLOSED_AFTER: Final = 1.0


@dataclass
class Row(Subject):
    """A row of digits on its way."""

    TABLE = DIGITS

    serial: int
    call: Call
    asked: Asked
    digits: str
    deadline: float
    listens_by: float
    state: str = "opening"
    #: the gateway at which the one-way stream waits
    listener: str | None = None
    #: digest of the token in the document
    token: str | None = None
    #: why it is not known whether Twilio took the document
    doubt: TrunklineError | None = None

    def __str__(self) -> str:
        return f"digits for call {self.call.id}"


@dataclass(frozen=True)
class Wish:
    """Digits that wait for their turn."""

    asked: Asked
    digits: str
    since: float


class DigitRules:
    """All rows of digits."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._rows: dict[str, Row] = {}
        self._wishes: dict[str, deque[Wish]] = defaultdict(deque)
        #: calls whose digits an earlier controller was asked for, and never answered
        self._doubtful: set[str] = set()
        #: one-way streams that are to be closed: when, at which gateway
        self._closing: list[tuple[float, str, m.CloseStream]] = []
        self._serials = itertools.count(1)

    # ------------------------------------------------------------------ what is asked

    def ask(self, asked: Asked, body: m.SendDigits, call: Call | None, now: float) -> None:
        document = twiml.digits(body.digits)
        if call is None or call.over:
            raise WrongModeError("no active call; send_dtmf requires an in-progress call")
        if call.id in self._doubtful:
            self._doubtful.discard(call.id)
            raise StackUnavailableError(
                "the controller was started again while digits were being sent; whether the far "
                "end heard them is not known, and they are not repeated"
            )
        if call.mode in ("b-leg", "originate"):
            if call.dialled_sid is None:
                raise WrongModeError("the leg that we dial is not known yet")
            self._core.do(do.Instruct(asked, call.dialled_sid, document))
            return
        self._wishes[call.id].append(Wish(asked, body.digits, now))
        self.next(call, now)

    def next(self, call: Call, now: float) -> None:
        """Begin the next row, if none is on its way and the call has a stream of ours."""
        wishes = self._wishes.get(call.id)
        if not wishes or call.id in self._rows or call.state != "live" or call.one_way:
            return
        wish = wishes.popleft()
        deadline = now + BACK_WITHIN + seconds_of(wish.digits)
        row = Row(
            next(self._serials), call, wish.asked, wish.digits, deadline, now + LISTENS_WITHIN
        )
        self._rows[call.id] = row
        assert call.sid is not None
        url = twiml.stream_url(self._core.identity.public_url)
        token = self._core.calls.tokens.make(call.id, call.sid, one_way=True)
        self._core.do(do.StartStream(call.id, row.serial, call.sid, url, token))

    def doubt(self, call: Call, now: float) -> None:
        """A client that announces itself waits for digits that this controller has not been asked
        for: an earlier one was, and what came of it is not known."""
        if self._core.claiming and call.id not in self._rows:
            self._doubtful.add(call.id)
            call.may_move_until = now + MAY_MOVE_FOR

    # ------------------------------------------------------------------ what REST answers

    def stream_asked(self, result: do.StreamAsked) -> None:
        row = self._row(result.call, result.digits)
        if row is not None and row.state == "opening" and result.error is not None:
            self._play(row, "deaf")

    def told(self, result: do.DigitsTold, now: float) -> None:
        row = self._row(result.call, result.digits)
        if row is None or row.state != "asking":
            return
        if result.error is None:
            row.step("taken")
        elif result.unsure:
            row.doubt = result.error
            row.step("unsure")
        else:
            row.step("refused")
            call = row.call
            if call.sid is not None and (call.one_way or call.state != "live"):
                self._core.do(do.Fetch(call.id, call.sid))  # its stream has stopped: is it over?
            self._over(row, result.error, now)

    def _row(self, call: str, serial: int) -> Row | None:
        row = self._rows.get(call)
        return row if row is not None and row.serial == serial else None

    # ------------------------------------------------------------------ streams

    def hears(
        self, token: Token, start: m.StreamStart, now: float
    ) -> m.StreamAccepted | m.StreamRefused:
        """The one-way stream is up, and waits at its gateway."""
        row = self._rows.get(token.call)
        if row is None:
            return m.StreamRefused(why="the digits that it was for are over")
        self._core.calls.tokens.void(token.call, one_way=True)
        row.listener = start.gateway
        if row.state == "opening":
            self._play(row, "hears")
        return m.StreamAccepted(info=row.call.info(now), first=False, one_way=True)

    def _play(self, row: Row, event: str) -> None:
        """Give Twilio the document."""
        row.step(event)
        call, tokens = row.call, self._core.calls.tokens
        token = tokens.make(call.id, call.sid)
        row.token = digest(token)
        listener = None
        if row.listener is None:
            listener = tokens.make(call.id, call.sid, one_way=True)
        document = twiml.digits_and_stream(
            self._core.identity.public_url, row.digits, token, call.query, listener
        )
        assert call.sid is not None
        self._core.do(do.PlayDigits(call.id, row.serial, call.sid, document, row.deadline))

    def moves(self, call: Call, now: float) -> bool:
        """A document may take the call's stream away now."""
        row = self._rows.get(call.id)
        return (row is not None and row.state != "opening") or now < call.may_move_until

    def expected(self, call: Call) -> bool:
        """Its stream goes because of digits, and comes again."""
        row = self._rows.get(call.id)
        return row is not None and row.state != "opening"

    def take_listener(self, call: Call, now: float) -> str | None:
        """The gateway whose one-way stream carries the call from now on; None: there is none."""
        row = self._rows.get(call.id)
        if row is None or row.listener is None:
            return None
        gateway, row.listener = row.listener, None
        peer = self._core.peers.get(gateway)
        return gateway if peer is not None and self._core.present(peer, now) else None

    def settle(self, now: float) -> None:
        """A one-way stream that came when the call had no stream any more has its turn at once."""
        for row in list(self._rows.values()):
            if row.listener is not None and row.call.state == "reconnecting":
                self._core.streams.turn(row.call, now)

    def back(self, call: Call, token: Token, now: float) -> None:
        """A stream of ours is up. The document's own token shows that the digits were played. One
        of the redirect behind it does so once Twilio has taken the document for certain; the
        stream of the earlier document's redirect may still be cut off by it."""
        row = self._rows.get(call.id)
        if row is None or row.state == "opening":
            self.next(call, now)
        elif token.digest == row.token:
            row.step("back")
            self._over(row, None, now)
        elif row.state == "playing" and row.doubt is None:
            row.step("back")
            call.may_move_until = now + BACK_WITHIN
            self._over(row, None, now)

    def close_later(self, call: Call, gateway: str, now: float) -> None:
        """The call's one-way stream is being replaced; for a moment both bring its sound."""
        close = m.CloseStream(call=call.id, one_way=True, ordinal=call.ordinal)
        self._closing.append((now + CLOSED_AFTER, gateway, close))

    # ------------------------------------------------------------------ ends

    def _over(self, row: Row, error: TrunklineError | None, now: float) -> None:
        call = row.call
        del self._rows[call.id]
        if row.listener is not None:
            self._core.send(row.listener, m.CloseStream(call=call.id, one_way=True))
        if error is None:
            self._core.reply(row.asked, m.Done())
        else:
            log.warning("digits for call %s: %s", call.sid, error)
            self._core.fail(row.asked, error)
            if call.one_way and call.live:
                call.missing, call.checked = now, 0
        self.next(call, now)

    def call_over(self, call: Call) -> None:
        """The call ends: nobody waits for digits any more."""
        self._doubtful.discard(call.id)
        why = WrongModeError("the call was hung up or ended while digits were being sent")
        row = self._rows.pop(call.id, None)
        if row is not None:
            row.step("ended")
            self._core.fail(row.asked, why)
        for wish in self._wishes.pop(call.id, ()):
            self._core.fail(wish.asked, why)

    def tick(self, now: float) -> None:
        for row in list(self._rows.values()):
            if now >= row.deadline:
                self._late(row, now)
            elif row.state == "opening" and now >= row.listens_by:
                log.warning("call %s: no one-way stream came; the digits go without", row.call.sid)
                self._play(row, "deaf")
        for call_id, wishes in list(self._wishes.items()):
            while wishes and call_id not in self._rows and now - wishes[0].since >= BACK_WITHIN:
                self._core.fail(
                    wishes.popleft().asked,
                    TimedOutError(f"the call had no stream for {BACK_WITHIN:g} s; no digits sent"),
                )
            if not wishes:
                del self._wishes[call_id]
        due = [closing for closing in self._closing if closing[0] <= now]
        self._closing = [closing for closing in self._closing if closing[0] > now]
        for _, gateway, close in due:
            self._core.send(gateway, close)

    def _late(self, row: Row, now: float) -> None:
        row.step("late")
        row.call.may_move_until = now + MAY_MOVE_FOR
        text = f"the stream was not back {BACK_WITHIN:g} s after the digits"
        if row.doubt is not None:
            text += f", and whether they were sent is not known ({row.doubt})"
        self._over(row, TimedOutError(text), now)
