"""What happens outside of the rules, beside peers' messages: how instructions ended, and time.

The shell gives these to the core (:class:`~.core.Core`), as it gives it messages. Results come in
any order, and some come when nobody wants them any more: a rule looks its call or dial up, and does
nothing where that is over. :mod:`.instructions` says which result each instruction has.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from trunkline.bus import messages as m
from trunkline.bus.errors import TrunklineError

from .instructions import ReplyTo
from .journal.rows import OverrideRow

# --------------------------------------------------------------------------- results


class Result(msgspec.Struct, frozen=True):
    """How an instruction ended."""


class LookedUp(Result, frozen=True):
    """The number was looked up."""

    number: str
    sid: str | None  # None: not on this account


class NumbersListed(Result, frozen=True):
    """The numbers of the account, in Twilio's order."""

    numbers: tuple[tuple[str, str], ...]  # (number, sid)


class LookUpFailed(Result, frozen=True):
    """Twilio did not say whether the account has the number."""

    number: str
    error: TrunklineError


class Applied(Result, frozen=True):
    """Twilio has confirmed the override, and the journal has it. ``row`` has the prior fields
    now."""

    row: OverrideRow


class ApplyFailed(Result, frozen=True):
    """``open``: the row is still open, because a write may have taken effect."""

    row: OverrideRow
    error: TrunklineError
    open: bool


class Restored(Result, frozen=True):
    """The override is over. ``outcome``: "restored", or "left_alone". The number was left alone if
    somebody else had changed it, if it is gone, or if its override is another stack's, which turned
    out to live."""

    override: str
    outcome: str


class AskedTwilio(Result, frozen=True):
    """Twilio is being asked for the call now: the dial's timeout begins. ``asked``: when that was
    (Unix time), if the dial had to wait for other machines of the fleet. None: the time in the
    dial's row is right."""

    request: str
    asked: float | None = None


class Taken(Result, frozen=True):
    """``guessed``: found in the list of calls, where those of two dials look alike."""

    request: str
    sid: str
    status: str
    guessed: bool = False


class CreateFailed(Result, frozen=True):
    """Twilio has not made the call."""

    request: str
    error: TrunklineError


class Unsure(Result, frozen=True):
    """Twilio gave no answer, so it may have made the call. ``Settle`` follows."""

    request: str
    error: TrunklineError


class NotFound(Result, frozen=True):
    """The dial has led to no call, and it cannot any more."""

    request: str


class EndTaken(Result, frozen=True):
    """Twilio has taken the hang-up of these legs, or has stopped the stream of this one, or they
    were over before that."""

    call: str
    sids: tuple[str, ...]


class EndFailed(Result, frozen=True):
    """Twilio has not taken a hang-up for a while, or refuses it, and we go on trying. This result
    comes once, because somebody waits for an answer."""

    call: str
    error: TrunklineError


class Fetched(Result, frozen=True):
    """How Twilio says that the call stands, for example "in-progress" (:mod:`.twilio.calls` has the
    words). ``status`` None: Twilio did not answer, and nothing follows from that."""

    call: str
    sid: str
    status: str | None


class Vouched(Result, frozen=True):
    """``lives`` None: Twilio did not say, or does not know the call (yet)."""

    sid: str
    lives: bool | None


class Instructed(Result, frozen=True):
    """Twilio has taken the document, or refused it."""

    reply_to: ReplyTo
    error: TrunklineError | None


class StreamAsked(Result, frozen=True):
    """``serial``: of the row of digits that the stream is for. ``error`` None: Twilio opens it."""

    call: str
    serial: int
    error: TrunklineError | None


class ListeningAsked(Result, frozen=True):
    """``error`` None: Twilio opens the stream of this name."""

    call: str
    name: str
    error: TrunklineError | None


class DigitsSent(Result, frozen=True):
    """``unsure``: Twilio may have taken the document all the same."""

    call: str
    serial: int
    error: TrunklineError | None
    unsure: bool = False


# --------------------------------------------------------------------------- time, peers, people


class Tick(msgspec.Struct, frozen=True):
    """Time passes: every 100 ms, or every 500 ms while the book is at rest. The core reads no
    clock; whatever is overdue is found at a tick."""


class FleetSeen(msgspec.Struct, frozen=True):
    """The controllers of the fleet, this one too, as the database has them now."""

    controllers: list[m.ControllerRef]


class ConnectionLost(msgspec.Struct, frozen=True):
    """The connection that has the peer's name is there no longer. The process may come back on
    another one."""

    peer: str


class Look(msgspec.Struct, frozen=True):
    """Somebody looks at the console, and wants levels for so many ``seconds``, and the sound of
    these calls."""

    seconds: float
    sound: tuple[str, ...]


class ByHand(msgspec.Struct, frozen=True):
    """Somebody at the console hangs a call up, interrupts in it, or speaks into it."""

    call: str
    order: Literal["hang_up", "interrupt", "speak"]
    pcm: bytes = b""


class Shutdown(msgspec.Struct, frozen=True):
    """The stack ends: close all sessions, numbers first."""
