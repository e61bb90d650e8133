"""The moment in which a rule hears something: the book, the time, and where what it says goes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from trunkline.bus import messages as m
from trunkline.bus.errors import ErrorInfo, TrunklineError, WrongModeError

from ..instructions import Asked, Instruction, Send
from .book import Book
from .facts import Fact
from .tables import IllegalTransition


@dataclass(frozen=True)
class Moment:
    """One event being handled. ``now``: the monotonic clock's reading, given with the event; no
    rule is given another time. ``out``: what is to be done, in this order."""

    book: Book
    now: float
    out: list[Instruction]
    _told: list[Fact] = field(default_factory=list)

    def tell(self, fact: Fact) -> None:
        """Others hear it once this rule has returned."""
        self._told.append(fact)

    def take_told(self) -> list[Fact]:
        """The facts that no rule has heard yet, first told first."""
        told = self._told.copy()
        self._told.clear()
        return told

    def do(self, instruction: Instruction) -> None:
        self.out.append(instruction)

    def count(self, what: str) -> None:
        """One more of these, for /metrics."""
        self.book.count(what)

    def send(self, peer: str | None, message: m.FromController) -> None:
        if peer is not None:
            self.out.append(Send(peer, message))

    def send_session(self, session: str, message: m.FromController) -> None:
        """Tell a session's client, if the session is (still) there."""
        found = self.book.sessions.get(session)
        if found is not None:
            self.send(found.peer, message)

    # ------------------------------------------------------------------ requests

    def reply(self, asked: Asked, body: m.ReplyBody) -> None:
        self._answer(asked, m.Reply(id=asked.id, body=body))

    def reply_all(self, waiting: Iterable[Asked], body: m.ReplyBody) -> None:
        for asked in waiting:
            self.reply(asked, body)

    def fail(self, asked: Asked, error: TrunklineError) -> None:
        if isinstance(error, IllegalTransition):
            error = WrongModeError(str(error))
        self.count(f"failed {type(error).__name__}")
        self._answer(asked, m.Reply(id=asked.id, error=ErrorInfo.of(error)))

    def fail_all(self, waiting: Iterable[Asked], error: TrunklineError) -> None:
        for asked in waiting:
            self.fail(asked, error)

    def _answer(self, asked: Asked, reply: m.Reply) -> None:
        if self.book.peers.answer(asked.peer, reply):
            self.send(asked.peer, reply)
