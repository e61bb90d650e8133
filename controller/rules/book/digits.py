"""Rows of digits on their way to legs that carry our stream, and the ones that wait their turn.

:mod:`..digits` says how they are sent, and why so.
"""

from __future__ import annotations

import itertools
from collections import defaultdict, deque
from dataclasses import dataclass, field

from trunkline.bus import messages as m
from trunkline.bus.errors import TrunklineError

from ...instructions import ReplyTo
from ..tables import DIGITS, Subject
from .call import Call


@dataclass
class Row(Subject):
    """A row of digits on its way. ``listens_by``: if no one-way stream is up by then, the digits go
    without it. ``deadline``: the call's stream has to be back by then."""

    TABLE = DIGITS

    serial: int
    call: Call
    reply_to: ReplyTo
    digits: str
    deadline: float
    listens_by: float
    state: str = field(default="opening", kw_only=True)
    #: the gateway at which the one-way stream waits
    listener: str | None = None
    #: digest of the token in the document
    token: str | None = None
    #: why it is not known whether Twilio took the document
    doubt: TrunklineError | None = None
    #: when the document took the call's stream away: the first digit began
    began: float | None = None

    def __str__(self) -> str:
        return f"digits for call {self.call.id}"

    @property
    def replaces_stream(self) -> bool:
        """Its document may take the call's stream away."""
        return self.state != "opening"

    def hears(self, gateway: str) -> None:
        """The one-way stream is up, and waits there."""
        self.listener = gateway

    def take_listener(self) -> str | None:
        """The one-way stream's gateway; it waits no longer."""
        gateway, self.listener = self.listener, None
        return gateway

    def tell(self, token_digest: str) -> None:
        """Twilio is given the document, which carries this token."""
        self.token = token_digest

    def begins(self, now: float) -> None:
        """The call's stream stops, because the document has begun."""
        if self.began is None:
            self.began = now

    def doubted(self, error: TrunklineError) -> None:
        """Twilio may have taken the document all the same."""
        self.doubt = error
        self.step("unsure")


@dataclass(frozen=True)
class Wish:
    """Digits that wait for their turn."""

    reply_to: ReplyTo
    digits: str
    since: float


class DigitRows:
    """All rows, by call: one is on its way at a time, and the next ones wait for it."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.wishes: dict[str, deque[Wish]] = defaultdict(deque)
        #: one-way streams that are to be closed: when, at which gateway
        self._closing: list[tuple[float, str, m.CloseStream]] = []
        self._serials = itertools.count(1)

    def of(self, call: str, serial: int | None = None) -> Row | None:
        """The call's row; with ``serial`` only where it is still that one."""
        row = self.rows.get(call)
        return row if row is not None and serial in (None, row.serial) else None

    def begin(self, call: Call, wish: Wish, deadline: float, listens_by: float) -> Row:
        """A row's serial tells its answers from those of the row before."""
        serial = next(self._serials)
        row = Row(serial, call, wish.reply_to, wish.digits, deadline, listens_by)
        self.rows[call.id] = row
        return row

    def drop(self, call: str) -> Row | None:
        """The call's row is over."""
        return self.rows.pop(call, None)

    def wish(self, call: str, wish: Wish) -> None:
        """It waits until the row before it is over, and the call has a stream."""
        self.wishes[call].append(wish)

    def next_wish(self, call: str) -> Wish | None:
        """The wish whose turn it is, which waits no longer."""
        wishes = self.wishes.get(call)
        return wishes.popleft() if wishes else None

    def drop_wishes(self, call: str) -> list[Wish]:
        """The call is over; whoever takes them refuses them."""
        return list(self.wishes.pop(call, ()))

    def overdue(self, before: float) -> list[Wish]:
        """Take out the wishes from before then whose call has no row on its way."""
        found = []
        for call, wishes in list(self.wishes.items()):
            while wishes and call not in self.rows and wishes[0].since <= before:
                found.append(wishes.popleft())
            if not wishes:
                del self.wishes[call]
        return found

    def close_later(self, at: float, gateway: str, close: m.CloseStream) -> None:
        """Not at once: the stream that replaces it is joined to it first."""
        self._closing.append((at, gateway, close))

    def take_due(self, now: float) -> list[tuple[str, m.CloseStream]]:
        """The one-way streams that are to be closed by now, with their gateways."""
        due = [(gateway, close) for at, gateway, close in self._closing if at <= now]
        self._closing = [closing for closing in self._closing if closing[0] > now]
        return due
