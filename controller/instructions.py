"""Instructions and results: the orders of the state machine, and the answers that it gets.

Both are plain frozen values. The shell carries instructions out (:mod:`.twilio.operations`,
:mod:`.twilio.apply_restore`). It gives the results to the core as events, as it gives it messages.

An instruction says what is wanted, not how often it is tried. For example, ``Restore`` goes on
until Twilio has taken the number back. Its result says how it ended. So the rules have one place
for each outcome, and no clock for retries.

A ``deadline`` is on the monotonic clock: whoever asked has given up then. ``since`` and ``asked``
are Unix times, because they go into the journal. "-> X" in a docstring names the result. Results
come in any order, and some come when nobody wants them any more: a rule looks its call or dial up,
and does nothing where that is over.

An override, for example::

    Apply(row, deadline)    -> Applied(row)                     the number calls us
                            or ApplyFailed(row, error, open)    open: it is to be put back
    Restore(override)       -> Restored(override, "restored")
"""

from __future__ import annotations

from typing import Literal

import msgspec

from trunkline.bus import messages as m
from trunkline.bus.errors import TrunklineError
from trunkline.bus.wire import Shown

from .journal.rows import DialRow, ListeningRow, OverrideRow
from .twilio.calls import CallOrder

# --------------------------------------------------------------------------- instructions


class Instruction(Shown, frozen=True):
    """Something that takes time outside, or a message to a peer. Errors and logs show it without
    its secrets (:class:`trunkline.bus.wire.Shown`)."""


class Send(Instruction, frozen=True):
    """Send a message to a peer (by peer id)."""

    peer: str
    message: m.FromController


class LookUp(Instruction, frozen=True):
    """Find a number on the account -> NumberFound or LookUpFailed."""

    number: str
    deadline: float


class ListNumbers(Instruction, frozen=True):
    """List the account's numbers -> NumbersListed or LookUpFailed(number="any")."""

    deadline: float


class Apply(Instruction, frozen=True):
    """Put the override of ``row`` on its number -> Applied or ApplyFailed."""

    row: OverrideRow
    deadline: float


class KeepHolder(Instruction, frozen=True):
    """Journal that this session holds the override too. After a restart only a session that shows
    the secret behind ``secret_hash`` gets its number back."""

    override: str
    number: str
    session: str
    secret_hash: str


class Restore(Instruction, frozen=True):
    """Put the number back; goes on until it succeeds -> Restored."""

    override: str


class Create(Instruction, frozen=True):
    """Journal the dial and ask Twilio for the call -> Taken, CreateFailed or Unsure."""

    row: DialRow
    order: CallOrder
    deadline: float


class Settle(Instruction, frozen=True):
    """Look for the call of a dial whose creation is uncertain -> Taken or NotFound."""

    row: DialRow


class NoteTaken(Instruction, frozen=True):
    """Journal the SID of a dial that was learnt from a callback, a webhook or a stream."""

    request: str
    sid: str


class CloseDial(Instruction, frozen=True):
    """Journal that the dial is over: no call can follow from it any more. ``seconds``: how long it
    has cost; None: nobody knows."""

    request: str
    seconds: float | None


class End(Instruction, frozen=True):
    """Hang these legs up; goes on until Twilio takes it, or until they are over -> Ended. Before
    that EndFailed comes once, if it takes long or is refused."""

    call: str
    sids: tuple[str, ...]


class Fetch(Instruction, frozen=True):
    """Ask for a call's status -> Fetched."""

    call: str
    sid: str


class NoteSeen(Instruction, frozen=True):
    """Journal that a call's webhook was heard. ``since``: Unix time."""

    sid: str
    since: float


class Vouch(Instruction, frozen=True):
    """Ask whether a call that nobody here knows lives -> Vouched."""

    sid: str


class Instruct(Instruction, frozen=True):
    """Replace the TwiML of a leg that carries no stream of ours -> Instructed. It is asked once,
    because it plays digits, and "1" twice is "11"."""

    reply_to: ReplyTo
    sid: str
    twiml: str


class StartStream(Instruction, frozen=True):
    """Ask for a one-way stream of a call's inbound sound -> StreamAsked. ``token`` lets it in."""

    call: str
    digits: int
    sid: str
    url: str
    token: str


class PlayDigits(Instruction, frozen=True):
    """Replace the TwiML of a leg that carries our stream -> DigitsSent. It is tried again only
    where Twilio cannot have taken it."""

    call: str
    digits: int
    sid: str
    twiml: str
    deadline: float


class OpenListening(Instruction, frozen=True):
    """Journal the stream that is to bring both tracks of a call, and ask for it -> ListeningAsked.
    ``former``: the name of one that may still be there, which is stopped before; "": there is none.
    ``token`` lets the stream in."""

    row: ListeningRow
    former: str
    url: str
    token: str
    deadline: float


class StopListening(Instruction, frozen=True):
    """Stop the stream of a call that is listened to; results as of :class:`End`. The call itself
    goes on."""

    call: str
    sid: str
    name: str


class CloseListening(Instruction, frozen=True):
    """Journal that the stream of a call that is listened to is over: a restart has nothing to stop
    then."""

    call: str


class Show(Instruction, frozen=True):
    """Show whoever looks at the console how loud calls are, or let them hear one."""

    message: m.Levels | m.CallSound


# --------------------------------------------------------------------------- results


class Result(msgspec.Struct, frozen=True):
    """How an instruction ended."""


class ReplyTo(msgspec.Struct, frozen=True):
    """Whom to answer: a peer, and the number of its request. The peer may wait for minutes, and it
    may be gone when there is an answer."""

    peer: str
    id: int


class NumberFound(Result, frozen=True):
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


class Ended(Result, frozen=True):
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
    """``error`` None: Twilio opens the one-way stream."""

    call: str
    digits: int
    error: TrunklineError | None


class ListeningAsked(Result, frozen=True):
    """``error`` None: Twilio opens the stream of this name."""

    call: str
    name: str
    error: TrunklineError | None


class DigitsSent(Result, frozen=True):
    """``unsure``: Twilio may have taken the document all the same."""

    call: str
    digits: int
    error: TrunklineError | None
    unsure: bool = False


class Tick(msgspec.Struct, frozen=True):
    """Time passes: every 100 ms, or every 500 ms while the book is at rest. The core reads no
    clock; whatever is overdue is found at a tick."""


class FleetSeen(msgspec.Struct, frozen=True):
    """The controllers of the fleet, this one too, as the database has them now."""

    controllers: list[m.ControllerRef]


class Gone(msgspec.Struct, frozen=True):
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
