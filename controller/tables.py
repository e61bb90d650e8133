"""The transition tables of the controller: sessions, dials and calls.

Rules of a **session** (an adapter's hold on a number):

- It is opened once its number was found on the account. It holds nothing yet.
- It answers or it calls, never both: the first Arm or Dial decides, until it is closed.
- *arming*: the override is being put on. *armed*: one call is let in. *taken*: a caller was let in,
  and its stream is not up yet; a caller who hangs up before leaves it armed. *standing*: nobody
  waits; the override stays until the session closes. Disarm while arming leaves it standing.
- Whatever state it is in, a closed or lost session closes: its calls are hung up, its numbers put
  back, and then it is gone.

Rules of a **dial** (asking Twilio for a call, once):

- *leasing* (b-leg only): the override is put on the callee's number. *queued*: it waits for its
  turn. *asking*: Twilio may have it. *unsure*: no answer came; callback, stream or the list of
  calls will tell. *taken*: its SID is known. *closed*: nothing more can come of it.
- A dial is never asked twice once Twilio may have it.
- The list of calls only lets us guess: a callback or a stream names the dial, and so shows that
  another's guess was *mistaken*.

Rules of a **call**:

- *expected*: no stream yet. *live*: its stream carries it. *reconnecting*: its stream is gone, and
  it may come back. *ending*: it is being hung up. *ended*.
- A call without sound (originate) is *silent* from when Twilio took it.
- The first reason to end it that was given is the one that is told.

Rules of **digits** (a row of them on its way to a leg that carries our stream; see digits.py):

- *opening*: Twilio is asked for a one-way stream. *asking*: it is given the document that plays
  the digits. *playing*: it may be running that document. *over*: whoever asked has been answered.
- *deaf*: there is no one-way stream. The digits are sent all the same, and the document asks for
  one once more.
"""

from __future__ import annotations

from typing import Final

from trunkline.bus.errors import WrongModeError

Table = dict[str, dict[str, str]]

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

DIAL: Final[Table] = {
    "leasing": {"leased": "queued", "refused": "closed", "cancel": "closed"},
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

CALL: Final[Table] = {
    "expected": {
        "token": "expected",
        "start": "live",
        "silent": "silent",
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

DIGITS: Final[Table] = {
    "opening": {"hears": "asking", "deaf": "asking", "late": "over", "ended": "over"},
    "asking": {
        "taken": "playing",
        "unsure": "playing",
        "refused": "over",
        "back": "over",
        "late": "over",
        "ended": "over",
    },
    "playing": {
        "back": "over",
        "late": "over",
        "ended": "over",
    },
    "over": {},
}

#: The mode that C2's message names, by state.
MODES: Final = {
    "arming": "answer",
    "disarming": "answer",
    "armed": "answer",
    "taken": "answer",
    "standing": "answer",
    "calling": "call",
}


class IllegalTransition(WrongModeError):
    """An event that the state has no place for; names state, event and what it happened to."""


def step(table: Table, state: str, event: str, whose: str) -> str:
    """The next state. IllegalTransition where the table has none."""
    after = table[state].get(event)
    if after is None:
        raise IllegalTransition(f"{whose}: {event!r} has no place in state {state!r}")
    return after
