"""What the state machine is told besides the bus's messages, and what it says to do.

Both are plain frozen values. The shell carries instructions out (:mod:`.operations`,
:mod:`.apply_restore`) and comes back with results as events.

An instruction says what is wanted, not how often it is tried. A result says what came of it in
the end. So the rules have one place for each outcome, and no clock for retries.
"""

from __future__ import annotations

from dataclasses import dataclass

from trunkline.bus import messages as m
from trunkline.bus.errors import TrunklineError

from .journal.rows import DialRow, OverrideRow
from .twilio.calls import CallOrder

# --------------------------------------------------------------------------- instructions


@dataclass(frozen=True)
class Send:
    """Send a message to a peer (by peer id)."""

    peer: str
    message: m.FromController


@dataclass(frozen=True)
class LookUp:
    """Find a number on the account -> NumberFound or LookUpFailed."""

    number: str
    deadline: float


@dataclass(frozen=True)
class ListNumbers:
    """List the account's numbers -> NumbersListed or LookUpFailed(number="any")."""

    deadline: float


@dataclass(frozen=True)
class Apply:
    """Put the override of ``row`` on its number -> Applied or ApplyFailed."""

    row: OverrideRow
    deadline: float


@dataclass(frozen=True)
class KeepHolder:
    """Journal that this session holds the override too."""

    override: str
    number: str
    session: str
    secret_hash: str


@dataclass(frozen=True)
class Restore:
    """Put the number back; goes on until it succeeds -> Restored."""

    override: str


@dataclass(frozen=True)
class Create:
    """Journal the dial and ask Twilio for the call -> Taken, CreateFailed or Unsure."""

    row: DialRow
    order: CallOrder
    deadline: float


@dataclass(frozen=True)
class Settle:
    """Look for the call of a dial whose creation is uncertain -> Taken or NotFound."""

    row: DialRow


@dataclass(frozen=True)
class NoteTaken:
    """Journal the SID of a dial that was learnt from a callback or a stream."""

    request: str
    sid: str


@dataclass(frozen=True)
class CloseDial:
    """Journal that nothing more can come of this dial."""

    request: str


@dataclass(frozen=True)
class End:
    """Hang these legs up; goes on until it succeeds -> Ended (EndFailed once, if it takes long)."""

    call: str
    sids: tuple[str, ...]


@dataclass(frozen=True)
class Fetch:
    """Ask for a call's status -> Fetched."""

    call: str
    sid: str


@dataclass(frozen=True)
class Instruct:
    """Replace a leg's TwiML -> Instructed."""

    asked: Asked
    sid: str
    twiml: str


@dataclass(frozen=True)
class StartStream:
    """Ask for a one-way stream of a call's inbound sound -> StreamAsked. ``token`` lets it in."""

    call: str
    digits: int
    sid: str
    url: str
    token: str


@dataclass(frozen=True)
class PlayDigits:
    """Replace the TwiML of a leg that carries our stream -> DigitsTold. It is tried again only
    where Twilio cannot have taken it."""

    call: str
    digits: int
    sid: str
    twiml: str
    deadline: float


Instruction = (
    Send
    | LookUp
    | ListNumbers
    | Apply
    | KeepHolder
    | Restore
    | Create
    | Settle
    | NoteTaken
    | CloseDial
    | End
    | Fetch
    | Instruct
    | StartStream
    | PlayDigits
)

# --------------------------------------------------------------------------- results


@dataclass(frozen=True)
class Asked:
    """Whom to answer: a peer, and the number of its request. It may wait for long, and be gone by
    then."""

    peer: str
    id: int


@dataclass(frozen=True)
class NumberFound:
    """The number was looked up."""

    number: str
    sid: str | None  # None: not on this account


@dataclass(frozen=True)
class NumbersListed:
    """The numbers of the account, in Twilio's order."""

    numbers: tuple[tuple[str, str], ...]  # (number, sid)


@dataclass(frozen=True)
class LookUpFailed:
    """Twilio did not say whether the account has the number."""

    number: str
    error: TrunklineError


@dataclass(frozen=True)
class Applied:
    """Twilio has confirmed the override, and the journal has it. ``row``: with what was there
    before."""

    row: OverrideRow


@dataclass(frozen=True)
class ApplyFailed:
    """``open``: the row is still open, because a write may have taken effect."""

    row: OverrideRow
    error: TrunklineError
    open: bool


@dataclass(frozen=True)
class Restored:
    """The override is over. ``outcome``: restored, or left alone because somebody else had changed
    it."""

    override: str
    outcome: str


@dataclass(frozen=True)
class AskedTwilio:
    """Twilio is being asked for the call now: the dial's timeout begins."""

    request: str


@dataclass(frozen=True)
class Taken:
    """``guessed``: found in the list of calls, where those of two dials look alike."""

    request: str
    sid: str
    status: str
    guessed: bool = False


@dataclass(frozen=True)
class CreateFailed:
    """Twilio has not made the call."""

    request: str
    error: TrunklineError


@dataclass(frozen=True)
class Unsure:
    """Whether there is a call is not known."""

    request: str
    error: TrunklineError


@dataclass(frozen=True)
class NotFound:
    """No call has come of the dial, and none can any more."""

    request: str


@dataclass(frozen=True)
class Ended:
    """Twilio has taken the hang-up of all the legs that were named."""

    call: str


@dataclass(frozen=True)
class EndFailed:
    """Twilio does not take a hang-up. It is tried on; this is told once, because somebody waits."""

    call: str
    error: TrunklineError


@dataclass(frozen=True)
class Fetched:
    """``status`` None: Twilio did not answer."""

    call: str
    sid: str
    status: str | None


@dataclass(frozen=True)
class Instructed:
    """Twilio has taken the document, or refused it."""

    asked: Asked
    error: TrunklineError | None


@dataclass(frozen=True)
class StreamAsked:
    """``error`` None: Twilio opens the one-way stream."""

    call: str
    digits: int
    error: TrunklineError | None


@dataclass(frozen=True)
class DigitsTold:
    """``unsure``: Twilio may have taken the document all the same."""

    call: str
    digits: int
    error: TrunklineError | None
    unsure: bool = False


@dataclass(frozen=True)
class Tick:
    """Time passes; each 100 ms."""


@dataclass(frozen=True)
class Shutdown:
    """The stack ends: close all sessions, numbers first."""


Result = (
    NumberFound
    | NumbersListed
    | LookUpFailed
    | Applied
    | ApplyFailed
    | Restored
    | AskedTwilio
    | Taken
    | CreateFailed
    | Unsure
    | NotFound
    | Ended
    | EndFailed
    | Fetched
    | Instructed
    | StreamAsked
    | DigitsTold
)
