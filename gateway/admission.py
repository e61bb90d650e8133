"""Who is let in: the life of a Media Streams socket until its stream is open. No I/O.

Anybody who reaches the public port may try to open a socket. It becomes a stream when the
controller knows the one-time token in its ``start``. Rules:

1. A socket begins as a *stranger*. It has START_WITHIN to send a ``start`` with a token. There are
   never more than MAX_STRANGERS sockets that have not been let in, and never more than MAX_OF_ONE
   from one address. A newcomer always gets a place: where none is left, the oldest of these sockets
   is disconnected.
2. With its ``start`` the socket is *held* while the controller is asked. What it sends meanwhile is
   kept, so that the first words of a call are not lost; what exceeds MAX_HELD is dropped and
   counted. The controller has what is left of START_WITHIN, and never less than LEAST_ANSWER.
3. Once let in the socket is *live*: its stream is opened, and gets what was held, in order.
4. A stream that *overlaps* the stream before it is opened after OVERLAP_FRAMES, or OVERLAP_WITHIN
   at the latest. At that time both streams have brought the same sound, at which the worker joins
   them.
5. A one-way stream *waits* for its turn, at most TURN_WITHIN, and only its newest MAX_WAITING
   events are kept: the worker finds the end of the stream before it among them. A call has one
   waiting stream; a newer one replaces it.
6. A socket that ends while the controller still counts on it has *left*. When the controller
   answers for it, or gives it its turn, the gateway reports how the socket ended. Otherwise the
   controller would wait for a stream that is gone. This is why a held socket is not just forgotten.
7. A stream that sends more than it may (:mod:`.pace`) counts as ended, and its socket is
   disconnected.

The shell reports each event by a method of its own, and carries out the instructions that come
back.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from dataclasses import dataclass, field
from math import inf
from typing import Final, Literal

from msgspec.structs import replace

from trunkline.bus import messages as m
from trunkline.bus.places import Places
from trunkline.bus.refusals import Kind
from trunkline.bus.twilio_urls import TOKEN_PARAMETER

from . import instructions as do
from . import media_streams as ms

#: A stranger has this long (seconds) from the socket's opening to a ``start`` with a token.
START_WITHIN: Final = 5.0
#: Sockets that have not been let in yet, at most: in all, and of one address. Each may make us keep
#: 64 KB, the part of a message that has come.
MAX_STRANGERS: Final = 1_000
MAX_OF_ONE: Final = 250
#: Events that are held while the controller is asked: 10 s of frames.
MAX_HELD: Final = 500
#: Events of a one-way stream that are kept while it waits for its turn: 2 s of frames.
MAX_WAITING: Final = 100
#: A one-way stream waits no longer than this (seconds).
TURN_WITHIN: Final = 20.0
#: An overlapping stream is opened once it has brought this many events (160 ms of frames), or after
#: this many seconds, even with fewer.
OVERLAP_FRAMES: Final = 8
OVERLAP_WITHIN: Final = 0.5
#: The controller is given at least this long for a ``start``, however late it came.
LEAST_ANSWER: Final = 0.5

State = Literal["stranger", "held", "overlaps", "waits", "live", "left", "over"]
Happening = Literal[
    "start",
    "refused",
    "let in",
    "let in to overlap",
    "let in to wait",
    "enough",
    "turn",
    "not needed",
    "ended",
]

#: state -> what happened -> the state after it
TABLE: Final[dict[State, dict[Happening, State]]] = {
    "stranger": {"start": "held", "refused": "over", "ended": "over"},
    "held": {
        "refused": "over",
        "let in": "live",
        "let in to overlap": "overlaps",
        "let in to wait": "waits",
        "ended": "left",  # the controller's answer is still to come
    },
    "overlaps": {"enough": "live", "ended": "over"},
    "waits": {"turn": "live", "not needed": "over", "ended": "left"},
    "live": {"ended": "over"},
    "left": {
        "refused": "over",
        "let in": "over",
        "let in to overlap": "over",
        "let in to wait": "over",
        "turn": "over",
        "not needed": "over",
        "ended": "left",
    },
    "over": {"ended": "over"},
}


@dataclass
class Applicant:
    """One socket. ``until``: when its state runs out."""

    number: int
    until: float
    state: State = "stranger"
    #: the socket's connection is there
    connected: bool = True
    stream_sid: str = ""
    #: the controller's answer that let the socket in
    accepted: m.StreamAccepted | None = None
    #: events that came between ``start`` and the opening of the stream
    held: deque[ms.Event] = field(default_factory=deque)
    #: the first reason for which the socket ended
    ended: m.StreamEndReason | None = None

    def step(self, happening: Happening, until: float = inf) -> None:
        """Go on to the state that follows. An event without a place in the table is our mistake."""
        after = TABLE[self.state].get(happening)
        assert after is not None, f"socket {self.number} is {self.state}, and has no {happening!r}"
        self.state, self.until = after, until


class Admission:
    """All sockets of the gateway ``gateway`` (its peer id). ``now`` is the monotonic clock.
    ``strangers``: how many sockets that were not let in there may be; fewer than MAX_STRANGERS
    where the process may have few descriptors."""

    def __init__(self, gateway: str, strangers: int = MAX_STRANGERS) -> None:
        self.gateway = gateway
        #: the gateway ends: nobody new is let in
        self.draining = False
        #: events that were not held any more, because there were too many
        self.counts: Counter[str] = Counter()
        self._numbers = itertools.count(1)
        self._applicants: dict[int, Applicant] = {}
        #: connected sockets that have not been let in, also where they are being closed
        self._strangers: Places[int] = Places(strangers, MAX_OF_ONE)
        #: by call: the one-way stream that waits, or has left while it waited
        self._waiting: dict[str, Applicant] = {}

    # ------------------------------------------------------------------ the socket's events

    def knock(
        self, now: float, owner: str | None = None
    ) -> tuple[Applicant | None, list[do.Instruction]]:
        """Somebody wants to open a socket, from the address ``owner``. The instructions make room
        for it. None: this gateway ends, and lets nobody in."""
        if self.draining:
            return None, []
        applicant = Applicant(next(self._numbers), now + START_WITHIN)
        self._applicants[applicant.number] = applicant
        goes = self._strangers.enter(applicant.number, owner)
        return applicant, [] if goes is None else [self._push_out(self._applicants[goes])]

    def _push_out(self, applicant: Applicant) -> do.Instruction:
        number = applicant.number
        if applicant.state == "stranger":
            applicant.step("refused")
        elif applicant.state == "held":
            self.ended(number, "close")
        else:  # it is being closed
            return do.DropSocket(number)
        return do.RefuseSocket(number, "socket pushed out", code=1013, at_once=True)

    def heard(self, number: int, event: ms.Event, now: float) -> list[do.Instruction]:
        """The socket sent ``event`` before its stream was open. Of an open stream only what is no
        sound, digit or mark comes here, such as ``stop``."""
        applicant = self._applicants[number]
        if isinstance(event, ms.Violation):
            return self._refuse(applicant, "bad start", event.why)
        if isinstance(event, ms.Stop):
            return [*self.ended(number, "stop"), do.CloseSocket(number)]
        if isinstance(event, ms.Start):
            return self._start(applicant, event, now)
        if applicant.state in ("held", "waits", "overlaps"):
            return self._hold(applicant, event)
        return []

    def too_fast(self, number: int) -> list[do.Instruction]:
        """The socket's stream sends more than a stream may."""
        return [*self.ended(number, "too_fast"), do.RefuseSocket(number, "too fast", at_once=True)]

    def ended(self, number: int, reason: m.StreamEndReason) -> list[do.Instruction]:
        """The socket's stream or connection ended; the first reason counts."""
        applicant = self._applicants[number]
        applicant.ended = applicant.ended or reason
        before = applicant.state
        applicant.step("ended", applicant.until)
        if applicant.state == "left":
            applicant.held.clear()  # nobody hears it any more
        if before == "live":
            return [do.EndStream(number, reason)]
        return self._not_there(applicant) if before == "overlaps" else []

    def disconnected(self, number: int) -> None:
        """The socket's connection is gone, after ``ended``."""
        applicant = self._applicants[number]
        applicant.connected = False
        self._strangers.leave(number)
        self._forget(applicant)

    @property
    def at_rest(self) -> bool:
        """No socket is here, so time changes nothing."""
        return not self._applicants

    def check(self, now: float) -> list[do.Instruction]:
        """End the sockets whose state has lasted too long; to be called every 100 ms or so."""
        out: list[do.Instruction] = []
        for applicant in [x for x in self._applicants.values() if x.until <= now]:
            if applicant.state == "stranger":
                out += self._refuse(applicant, "no start")
            elif applicant.state == "overlaps":
                out += self._enough(applicant)
            elif applicant.state in ("waits", "left"):
                assert applicant.accepted is not None
                out += self.not_needed(applicant.accepted.info.call)
        return out

    # ------------------------------------------------------------------ the controller's answers

    def unanswered(self, number: int, why: str) -> list[do.Instruction]:
        """The controller could not be asked. The close code says: try again later."""
        return self._refuse(self._applicants[number], "nobody to ask", why, 1013)

    def answered(self, number: int, answer: m.Message, now: float) -> list[do.Instruction]:
        """The controller's answer to the ``start``."""
        applicant = self._applicants[number]
        if not isinstance(answer, m.StreamAccepted):
            why = answer.why if isinstance(answer, m.StreamRefused) else type(answer).__name__
            return self._refuse(applicant, "wrong token", why)
        self._strangers.leave(number)
        left = applicant.state == "left"
        applicant.accepted = answer
        out: list[do.Instruction] = [do.Believe(number)]
        if answer.one_way:
            applicant.step("let in to wait", now + TURN_WITHIN)
            if not left:
                out += self._wait(applicant, answer.info.call)
        elif answer.overlaps:
            applicant.step("let in to overlap", now + OVERLAP_WITHIN)
            if not left and len(applicant.held) >= OVERLAP_FRAMES:
                out += self._enough(applicant)
        else:
            applicant.step("let in")
            if not left:
                out.append(self._open(applicant))
        return self._not_there(applicant) if left else out

    def turn(self, info: m.CallInfo) -> list[do.Instruction]:
        """The call's one-way stream carries the call from now on. If that stream is gone, the
        controller is told so."""
        applicant = self._waiting.pop(info.call, None)
        if applicant is None:
            return [self._closed(info, "close")]
        assert applicant.accepted is not None
        applicant.accepted = replace(applicant.accepted, info=info)
        applicant.step("turn")
        if applicant.ended is not None:
            return self._not_there(applicant)
        return [self._open(applicant)]

    def not_needed(self, call: str) -> list[do.Instruction]:
        """Close the call's one-way stream that waits for its turn, if there is one."""
        applicant = self._waiting.pop(call, None)
        if applicant is None:
            return []
        applicant.step("not needed")
        self._forget(applicant)
        return [do.CloseSocket(applicant.number)]

    # ------------------------------------------------------------------ on the way in

    def _start(self, applicant: Applicant, start: ms.Start, now: float) -> list[do.Instruction]:
        token = start.parameters.get(TOKEN_PARAMETER)
        if not token:
            return self._refuse(applicant, "bad start", "its start has no token")
        within = max(applicant.until - now, LEAST_ANSWER)
        applicant.stream_sid = start.stream_sid
        applicant.step("start")
        return [do.AskController(applicant.number, start, token, within)]

    def _hold(self, applicant: Applicant, event: ms.Event) -> list[do.Instruction]:
        held = applicant.held
        while applicant.state == "waits" and len(held) >= MAX_WAITING:
            held.popleft()
        if len(held) < MAX_HELD:
            held.append(event)
        else:
            self.counts["held-too-long"] += 1
        if applicant.state == "overlaps" and len(held) >= OVERLAP_FRAMES:
            return self._enough(applicant)
        return []

    def _wait(self, applicant: Applicant, call: str) -> list[do.Instruction]:
        older = self.not_needed(call)
        self._waiting[call] = applicant
        return older

    def _enough(self, applicant: Applicant) -> list[do.Instruction]:
        applicant.step("enough")
        return [self._open(applicant)]

    def _open(self, applicant: Applicant) -> do.Instruction:
        accepted = applicant.accepted
        assert accepted is not None
        held, applicant.held = applicant.held, deque()
        early: list[ms.Media] = []
        if accepted.one_way or accepted.overlaps:
            early = [event for event in held if isinstance(event, ms.Media)]
            held = deque(event for event in held if not isinstance(event, ms.Media))
        return do.OpenStream(applicant.number, accepted, applicant.stream_sid, early, held)

    # ------------------------------------------------------------------ on the way out

    def _refuse(
        self, applicant: Applicant, kind: Kind, why: str = "", code: int = 1008
    ) -> list[do.Instruction]:
        applicant.step("refused")
        self._forget(applicant)
        return [do.RefuseSocket(applicant.number, kind, why, code)]

    def _not_there(self, applicant: Applicant) -> list[do.Instruction]:
        """Tell the controller that a stream on which it counts has already ended."""
        assert applicant.accepted is not None and applicant.ended is not None
        self._forget(applicant)
        return [self._closed(applicant.accepted.info, applicant.ended)]

    def _closed(self, info: m.CallInfo, reason: m.StreamEndReason) -> do.Instruction:
        call, ordinal = info.call, info.ordinal
        closed = m.StreamClosed(call=call, ordinal=ordinal, reason=reason, gateway=self.gateway)
        return do.Notify(closed)

    def _forget(self, applicant: Applicant) -> None:
        """Forget the socket, if its life is over and its connection is gone."""
        if applicant.state == "over" and not applicant.connected:
            self._applicants.pop(applicant.number, None)
