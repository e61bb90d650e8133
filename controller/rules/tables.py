"""The transition tables of the controller: sessions, leases, dials, calls, digits, and a restart.

Each table reads: in this state, this event leads to that state. An event that a state does not list
is illegal there, and :meth:`Subject.step` refuses it with the events that led there. An event that
is listed and leads to its own state changes nothing: it may come at any time, for instance late.

Rules of a **session** (a client's hold on a number):

- It is opened once its number was found on the account. It holds nothing yet.
- It answers or it calls, never both: the first Arm or Dial decides, until it is closed. Otherwise a
  call that comes in could be taken for the one that was dialled.
- *arming*: the override is being put on. *armed*: one call is let in. *taken*: a caller was let in,
  and its stream is not up yet; a caller who hangs up before leaves it armed. *standing*: nobody
  waits; the override stays until the session closes, because putting it on again costs a read and a
  write at Twilio. Disarm while arming leaves it standing.
- Whatever state it is in, a closed or lost session closes: its calls are hung up, its numbers put
  back, and then it is gone.

For example, a test that answers one call takes its session through opening, idle, arming, armed,
taken, standing, closing, gone.

Rules of a **lease** (an override of ours on a number, and who holds the number by it):

- *applying*: the override is being put on. *applied*: Twilio has confirmed it. *restoring*: its
  holders are gone, and the number is being put back, which goes on until it succeeds. *gone*: the
  number is as it was, or as somebody else has set it meanwhile.
- *unclaimed*: the journal had it as applied when the controller started, and its session may still
  announce itself. *planned*: the same, but whether its write was made is not known, so it is put on
  again once it is claimed.
- An override that is on leaves only by being put back. There is no way from *applied* to *gone*.

Rules of a **dial** (asking Twilio for a call, once):

- *leasing* (b-leg only): the override is put on the callee's number. *waiting*: another dial's call
  is still to come there, and one of the two is a b-leg dial. *queued*: it waits for its turn,
  because Twilio starts only so many calls a second. *asking*: Twilio may have it. *unsure*: no
  answer came; callback, stream or the list of calls will tell. *taken*: its SID is known.
  *closed*: it has ended, and cannot lead to a call any more.
- A dial is never asked twice once Twilio may have it: that phone would ring twice.
- The list of calls only lets us guess: a callback or a stream names the dial, and so shows that
  another's guess was *mistaken*.

Rules of a **call**:

- *expected*: no stream yet. *live*: its stream carries it. *reconnecting*: its stream is gone, and
  it may come back: a gateway that is killed takes its streams with it, and Twilio asks another one.
  *ending*: it is being hung up. *ended*.
- A call that a restarted controller expects *had a stream* where its client has heard it.
- A call without sound (originate) is *silent* from when Twilio took it.
- If it is ended for several reasons, the first one counts.

Rules of **digits** (a row of them on its way to a leg that carries our stream; see digits.py):

- *opening*: Twilio is asked for a one-way stream. *asking*: it is given the document that plays
  the digits. *playing*: it may be running that document. *over*: whoever asked has been answered.
- *deaf*: there is no one-way stream. The digits are sent all the same, and the document asks for
  one once more.
"""

from __future__ import annotations

from collections import deque
from functools import cached_property
from typing import ClassVar, Final, Literal

from trunkline.bus.errors import WrongModeError

Table = dict[str, dict[str, str]]

#: *armed* and *refused* may come in *disarming* and *closing*: Twilio's answer to an override comes
#: when it comes. *missed* leads back to *armed*: nobody was answered, so the Arm still stands.
SESSION: Final[Table] = {
    "opening": {"opened": "idle", "refused": "gone", "close": "closing"},
    "idle": {"arm": "arming", "dial": "calling", "disarm": "idle", "close": "closing"},
    "arming": {
        "arm": "arming",
        "armed": "armed",
        "refused": "standing",
        "disarm": "disarming",
        "close": "closing",
    },
    "disarming": {
        "arm": "arming",
        "armed": "standing",
        "refused": "standing",
        "disarm": "disarming",
        "close": "closing",
    },
    "armed": {"arm": "armed", "ring": "taken", "disarm": "standing", "close": "closing"},
    "taken": {
        "arm": "taken",
        "started": "standing",
        "missed": "armed",
        "disarm": "standing",
        "close": "closing",
    },
    "standing": {
        "arm": "arming",
        "started": "standing",
        "missed": "standing",
        "disarm": "standing",
        "close": "closing",
    },
    "calling": {"dial": "calling", "close": "closing"},
    "closing": {
        "close": "closing",
        "opened": "closing",
        "refused": "closing",
        "armed": "closing",
        "started": "closing",
        "missed": "closing",
        "closed": "gone",
    },
    "gone": {},
}

#: From *unclaimed* and *planned* there are two ways, a session's claim and the end of the claims.
#: Nothing leads back from *restoring*. A session that wants the number meanwhile gets a new lease
#: afterwards, with settings that were read afresh.
LEASE: Final[Table] = {
    "planned": {"claimed": "applying", "put_back": "restoring"},
    "unclaimed": {"claimed": "applied", "put_back": "restoring"},
    "applying": {"applied": "applied", "failed": "gone", "put_back": "restoring"},
    "applied": {"put_back": "restoring"},
    "restoring": {"restored": "gone"},
    "gone": {},
}

#: *cancel* closes a dial only if Twilio was never asked. From *asking* on Twilio may have it, so a
#: dial that nobody waits for goes on until its call is known and hung up, or until there can be
#: none.
#:
#: *closed* takes late news of every kind. A callback may overtake the answer to the request, and
#: the search for a call may end after the call itself.
DIAL: Final[Table] = {
    "leasing": {"leased": "waiting", "refused": "closed", "cancel": "closed"},
    "waiting": {"turn": "queued", "refused": "closed", "cancel": "closed"},
    "queued": {"ask": "asking", "cancel": "closed"},
    "asking": {
        "taken": "taken",
        "unsure": "unsure",
        "refused": "closed",
        "cancel": "asking",
        "over": "closed",
    },
    "unsure": {
        "taken": "taken",
        "unsure": "unsure",
        "not_found": "closed",
        "cancel": "unsure",
        "over": "closed",
    },
    "taken": {
        "taken": "taken",
        "unsure": "taken",
        "mistaken": "unsure",
        "not_found": "taken",
        "cancel": "taken",
        "over": "closed",
    },
    "closed": {
        "taken": "closed",
        "unsure": "closed",
        "not_found": "closed",
        "refused": "closed",
        "cancel": "closed",
        "over": "closed",
    },
}

#: *token* says that Twilio asks what next for the call, and gets a stream. If the call is *live*
#: then, its stream must be gone, whatever its gateway says. A stream that *starts* while another is
#: *live* is the next one; the former one's end is then told about an ordinal of the past.
#:
#: *ending* has no way back: a call that is being hung up is not let in again.
CALL: Final[Table] = {
    "expected": {
        "token": "expected",
        "start": "live",
        "silent": "silent",
        "had_stream": "reconnecting",
        "end": "ending",
        "over": "ended",
    },
    "silent": {"end": "ending", "over": "ended"},
    "live": {
        "token": "reconnecting",
        "start": "live",
        "stream_over": "reconnecting",
        "end": "ending",
        "over": "ended",
    },
    "reconnecting": {
        "token": "reconnecting",
        "start": "live",
        "stream_over": "reconnecting",
        "end": "ending",
        "over": "ended",
    },
    "ending": {"end": "ending", "stream_over": "ending", "over": "ended"},
    "ended": {"over": "ended", "end": "ended"},
}

#: *stream_up* may come before *taken*: the stream that the document asks for shows that Twilio has
#: the document, even where the answer to our request is still on its way or lost.
DIGITS: Final[Table] = {
    "opening": {"hears": "asking", "deaf": "asking", "late": "over", "ended": "over"},
    "asking": {
        "taken": "playing",
        "unsure": "playing",
        "refused": "over",
        "stream_up": "over",
        "late": "over",
        "ended": "over",
    },
    "playing": {
        "stream_up": "over",
        "late": "over",
        "ended": "over",
    },
    "over": {},
}

#: What a new dial has to wait for first, and the state in which it enters its table. Every other
#: new thing has one beginning: a session is *opening*, a lease *applying*, a call *expected*, and
#: digits are *opening*.
#:
#: *number*: our override on the callee's number. *turn*: the b-leg dial that is open to the same
#: number. *pace*: Twilio starts only so many calls a second.
WaitsFor = Literal["number", "turn", "pace"]
NEW_DIAL: Final[dict[WaitsFor, str]] = {"number": "leasing", "turn": "waiting", "pace": "queued"}

#: How a restarted controller finds a thing, and the state in which the thing enters its table.
#:
#: A session is found as its client announces it, an override and a dial as the journal has them. A
#: call enters as *expected*: its gateway and its client tell the rest. Three choices need a reason:
#:
#: - An override that was never written enters as *restoring* all the same. To close its row is a
#:   restore without a write, and there is one path for the end of an override.
#: - A planned one may have been written, so its session cannot just have it. It is put on again
#:   once it is claimed, under the same id, and a late effect of the first write changes nothing.
#: - A dial that was asked for is *unsure*, whatever the last controller knew: the answer is lost.
RESTART: Final[Table] = {
    "session": {
        "idle": "idle",
        "answer": "standing",
        "answer, its override on": "armed",
        "answer, its override not on": "arming",
        "call": "calling",
    },
    "override": {
        "nothing written": "restoring",
        "planned": "planned",
        "applied": "unclaimed",
        "restoring": "restoring",
        "another stack's": "restoring",
    },
    "dial": {"asked": "unsure", "taken": "taken", "closed": "closed"},
}

#: The mode of a session, by its state; "idle" in any other. WrongModeError names it to a client
#: that wants the other direction.
MODES: Final = {
    "arming": "answer",
    "disarming": "answer",
    "armed": "answer",
    "taken": "answer",
    "standing": "answer",
    "calling": "call",
}


#: How many events a subject remembers. That is enough to see how it came into its state, and no
#: more, because a stack holds hundreds of calls.
EVENTS_KEPT: Final = 10


class IllegalTransition(WrongModeError):
    """An event that the state has no place for. Its text names subject, state, event, and the
    events before it.

    It is a fault of ours, or a peer's request that came at the wrong time. The text goes to that
    peer and into the log. The events before it are the only trace by which a fault can be found.
    """


class Subject:
    """A thing that has a table: a session, a lease, a dial, a call, a row of digits. Only
    :meth:`step` changes its state, and it follows the table."""

    TABLE: ClassVar[Table]
    #: what RESTART calls it
    KIND: ClassVar[str] = ""
    state: str

    @cached_property
    def story(self) -> deque[tuple[str, str]]:
        """The last events, each with the state that it met."""
        return deque(maxlen=EVENTS_KEPT)

    def enter(self, found: str) -> None:
        """Begin in the state that RESTART has for a thing found so, instead of the first one."""
        assert not self.story, f"{self} has begun already"
        self.state = RESTART[self.KIND][found]

    def step(self, event: str) -> None:
        """Go to the next state. IllegalTransition, with nothing changed, where there is none."""
        after = self.TABLE[self.state].get(event)
        if after is None:
            before = ", ".join(f"{event} in {state}" for event, state in self.story)
            raise IllegalTransition(
                f"{self}: {event!r} has no place in state {self.state!r}; "
                f"before that came {before or 'nothing'}"
            )
        self.story.append((event, self.state))
        self.state = after
