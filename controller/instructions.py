"""Instructions: what the rules have done outside.

They are plain frozen values. The shell carries them out (:mod:`.twilio.operations`,
:mod:`.twilio.apply_restore`), and gives the core their results (:mod:`.events`).

An instruction says what is wanted, not how often it is tried. For example, ``Restore`` goes on
until Twilio has taken the number back. Its result says how it ended. So the rules have one place
for each outcome, and no clock for retries.

A ``deadline`` is on the monotonic clock: whoever asked has given up then. ``since`` and ``asked``
are Unix times, because they go into the journal. "-> X" in a docstring names the result.

An override, for example::

    Apply(row, deadline)    -> Applied(row)                     the number calls us
                            or ApplyFailed(row, error, open)    open: it is to be put back
    Restore(override)       -> Restored(override, "restored")
"""

from __future__ import annotations

import msgspec

from trunkline.bus import messages as m
from trunkline.bus.wire import Shown

from .journal.rows import DialRow, ListeningRow, OverrideRow
from .twilio.calls import CallOrder


class ReplyTo(msgspec.Struct, frozen=True):
    """Whom to answer: a peer, and the number of its request. The peer may wait for minutes, and it
    may be gone when there is an answer."""

    peer: str
    id: int


class Instruction(Shown, frozen=True):
    """Something that takes time outside, or a message to a peer. Errors and logs show it without
    its secrets (:class:`trunkline.bus.wire.Shown`)."""


class Send(Instruction, frozen=True):
    """Send a message to a peer (by peer id)."""

    peer: str
    message: m.FromController


class LookUp(Instruction, frozen=True):
    """Find a number on the account -> LookedUp or LookUpFailed."""

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
    """Hang these legs up; goes on until Twilio takes it, or until they are over -> EndTaken. Before
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
    """Ask for a one-way stream of a call's inbound sound -> StreamAsked. ``serial``: of the row of
    digits that it is for. ``token`` lets it in."""

    call: str
    serial: int
    sid: str
    url: str
    token: str


class PlayDigits(Instruction, frozen=True):
    """Replace the TwiML of a leg that carries our stream -> DigitsSent. It is tried again only
    where Twilio cannot have taken it."""

    call: str
    serial: int
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
