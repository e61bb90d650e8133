"""The moment in which a rule hears something: the book, the time, and the rule's ways to speak.

A rule gets it as ``at``, and reads like a sentence. ``at.tell`` tells other rules a fact, ``at.do``
asks Twilio or the journal for something, and ``at.reply`` answers the peer that waits. A moment
lives for one event. A rule never keeps it, because its time would be wrong for the next event.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from trunkline.bus import messages as m
from trunkline.bus.errors import ErrorInfo, TrunklineError, WrongModeError

from ..instructions import Instruction, ReplyTo, Send
from .book import Book
from .facts import Fact
from .tables import IllegalTransition


@dataclass(frozen=True)
class Moment:
    """One event being handled. ``now``: the monotonic clock's reading, given with the event; no
    rule is given another time. ``instructions``: those given so far, in order."""

    book: Book
    now: float
    instructions: list[Instruction]
    _told: list[Fact] = field(default_factory=list)

    def tell(self, fact: Fact) -> None:
        """Others hear it once this rule has returned."""
        self._told.append(fact)

    def take_told(self) -> Sequence[Fact]:
        """The facts that no rule has heard yet, first told first."""
        if not self._told:
            return ()
        told = self._told.copy()
        self._told.clear()
        return told

    def do(self, instruction: Instruction) -> None:
        """Something is to be done outside: REST, the journal."""
        self.instructions.append(instruction)

    def count(self, what: str) -> None:
        """One more of these, for /metrics."""
        self.book.count(what)

    def send(self, peer: str | None, message: m.FromController) -> None:
        """Tell a peer. None: there is nobody to tell, for instance no gateway has the call."""
        if peer is not None:
            self.instructions.append(Send(peer, message))

    def send_session(self, session: str, message: m.FromController) -> None:
        """Tell a session's client, if the session is (still) there."""
        found = self.book.sessions.get(session)
        if found is not None:
            self.send(found.peer, message)

    # ------------------------------------------------------------------ requests

    def reply(self, reply_to: ReplyTo, body: m.ReplyBody) -> None:
        """The request is done. A peer that is gone gets nothing; it asks again when it is back."""
        self._answer(reply_to, m.Reply(id=reply_to.id, body=body))

    def reply_all(self, waiting: Iterable[ReplyTo], body: m.ReplyBody) -> None:
        """The same answer to all who waited for it."""
        for reply_to in waiting:
            self.reply(reply_to, body)

    def fail(self, reply_to: ReplyTo, error: TrunklineError) -> None:
        """The request is refused, with an error that its peer raises under the same name. An
        illegal transition is a request at the wrong time."""
        if isinstance(error, IllegalTransition):
            error = WrongModeError(str(error))
        self.count(f"failed {type(error).__name__}")
        self._answer(reply_to, m.Reply(id=reply_to.id, error=ErrorInfo.of(error)))

    def fail_all(self, waiting: Iterable[ReplyTo], error: TrunklineError) -> None:
        """The same error to all who waited."""
        for reply_to in waiting:
            self.fail(reply_to, error)

    def _answer(self, reply_to: ReplyTo, reply: m.Reply) -> None:
        """An answer is kept, so that a request that is repeated gets the same one."""
        if self.book.peers.answer(reply_to.peer, reply):
            self.send(reply_to.peer, reply)
