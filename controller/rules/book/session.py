"""A session: a client's hold on a number, as the controller keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from trunkline.bus import messages as m
from trunkline.bus.errors import InvalidRequestError, check_direction

from ...instructions import ReplyTo
from ..tables import MODES, SESSION, Subject
from .tokens import digest, same

#: Reading and writing a number may take this long, retries included, whatever the request's ttl.
REST_WITHIN: Final = 30.0
#: The client of a session whose connection is gone: no peer has an empty name.
NOBODY: Final = ""


@dataclass
class Session(Subject):
    """A client's session. ``since``: Unix time; ``renewed``: monotonic, of the last beat.

    It knows its own number and the requests that wait for it. Which overrides are put back because
    of it stands in the leases alone (:meth:`.Book.pending`).
    """

    TABLE, KIND = SESSION, "session"

    id: str
    secret_hash: str
    number: str
    peer: str
    since: float
    renewed: float
    allowed_callers: frozenset[str] | None = None
    allowed_callees: frozenset[str] | None = None
    number_sid: str = ""
    #: of the last Arm: a call that comes in belongs to this trace
    trace: dict[str, str] = field(default_factory=dict)
    #: the test that it serves, as its client says
    test: str = ""
    state: str = field(default="opening", kw_only=True)
    #: requests that wait for the session's next state
    opening: list[ReplyTo] = field(default_factory=list)
    arming: list[ReplyTo] = field(default_factory=list)
    closing: list[ReplyTo] = field(default_factory=list)
    #: the call that came in under the last Arm
    armed_call: str | None = None
    close_by: float = float("inf")
    deadline: float = float("inf")

    @property
    def mode(self) -> str:
        """What its client may ask for, by the state: "answer" or "call" once the first Arm or Dial
        has decided that, and "idle" in all other states."""
        return MODES.get(self.state, "idle")

    def __str__(self) -> str:
        return f"session {self.id}"

    # ------------------------------------------------------------------ what is checked

    def must_be(self, mode: str) -> None:
        """WrongModeError where the session has become something else already."""
        check_direction(mode, self.mode, "session")

    def must_have_secret(self, info: m.SessionInfo) -> None:
        """InvalidRequestError where somebody else uses this session's id."""
        if not same(self.secret_hash, digest(info.secret)):
            raise InvalidRequestError(f"session {info.session} exists, with another secret")

    # ------------------------------------------------------------------ its client

    def heard(self, peer: str, now: float) -> None:
        """Its client said something, and this is where answers reach it."""
        self.peer, self.renewed = peer, now

    def connection_lost(self) -> None:
        """Its peer is gone. Nobody hears of the session, or may ask for it, before its secret is
        shown again."""
        self.peer = NOBODY

    def excuse(self, seconds: float) -> None:
        """The controller itself did not run for this long, so the client is not late."""
        self.renewed += seconds

    # ------------------------------------------------------------------ its number

    def waits_until(self, deadline: float) -> None:
        """``deadline``: then it gives up whatever it waits for now."""
        self.deadline = deadline

    def gets(self, number: str, deadline: float) -> None:
        """The pool hands it a number, whose SID is looked up by the deadline."""
        self.number, self.deadline = number, deadline

    def take_number_sid(self, sid: str) -> None:
        """The account has its number, under this SID."""
        self.number_sid = sid

    # ------------------------------------------------------------------ requests that wait

    def asks_to_open(self, reply_to: ReplyTo) -> None:
        """Answered when its number was found, or is missing."""
        self.opening.append(reply_to)

    def asks_to_arm(self, reply_to: ReplyTo) -> None:
        """Answered when the override is on, or refused."""
        self.arming.append(reply_to)

    def asks_to_close(self, reply_to: ReplyTo) -> None:
        """Answered when nothing of it is left, or when it has waited for long enough."""
        self.closing.append(reply_to)

    def take_opening(self) -> list[ReplyTo]:
        """Those who wait for it to open; whoever takes them answers them."""
        waiting, self.opening = self.opening, []
        return waiting

    def take_arming(self) -> list[ReplyTo]:
        """Those who wait for it to be armed; whoever takes them answers them."""
        waiting, self.arming = self.arming, []
        return waiting

    # ------------------------------------------------------------------ answering

    def arm(self, trace: dict[str, str], deadline: float) -> None:
        """A client waits for a call. ``trace``: the part of the client's own trace that the call
        will belong to."""
        self.trace = trace
        self.step("arm")
        self.deadline = deadline

    def forget_call(self) -> None:
        """The call of the last Arm is not the next one's."""
        self.armed_call = None

    def ring(self, call: str) -> None:
        """A caller is let in."""
        self.step("ring")
        self.armed_call = call

    def close(self, close_by: float) -> None:
        """From now on it only ends. ``close_by``: until then it waits for numbers and hang-ups that
        are pending."""
        self.step("close")
        self.close_by = close_by
