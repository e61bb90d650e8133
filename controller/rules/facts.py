"""What one rule tells the others. ``HEARS`` in ``core.py`` says who hears it.

A fact says what has happened or what is needed, never what is to be done about it, so that whoever
tells it need not know who cares. For example, ``SessionClosing`` is told once; the numbers are put
back, dials are given up and calls are hung up because three rules hear it.

Facts are heard at once and depth first: everything that a fact leads to is over before the next one
is heard. A rule that must wait for the consequences of its own fact tells a second one, which comes
back to it (``StreamShown`` and ``LetIn`` are such).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from trunkline.bus import messages as m
from trunkline.bus.errors import TrunklineError

from ..instructions import Asked
from ..rows import DialRow, OverrideRow
from .book.call import Call
from .book.dial import Dial
from .book.lease import Want
from .book.lookups import Seeker
from .book.tokens import Token

Body = TypeVar("Body", bound=m.RequestBody)


@dataclass(frozen=True)
class Ask(Generic[Body]):
    """A peer's request, heard by its body's type. ``asked``: whom to answer."""

    asked: Asked
    body: Body
    ttl: float
    trace: dict[str, str] = field(default_factory=dict)


# --------------------------------------------------------------------------- peers and the clock


@dataclass(frozen=True)
class AdapterHere:
    """A client has said Hello."""

    hello: m.Hello


@dataclass(frozen=True)
class GatewayHere:
    """A gateway has said Hello, and lists its streams."""

    hello: m.Hello


@dataclass(frozen=True)
class WorkerHere:
    """A codec worker has said Hello, and lists its calls."""

    hello: m.Hello


@dataclass(frozen=True)
class AdapterBeat:
    beat: m.Beat


@dataclass(frozen=True)
class GatewayBeat:
    beat: m.Beat


@dataclass(frozen=True)
class WorkerBeat:
    beat: m.Beat


@dataclass(frozen=True)
class AdapterLeft:
    """A client has said Goodbye."""

    peer: str


@dataclass(frozen=True)
class WorkerLeft:
    """A codec worker has said Goodbye."""

    peer: str


@dataclass(frozen=True)
class AllClosing:
    """The stack ends."""


# --------------------------------------------------------------------------- a restart


@dataclass(frozen=True)
class Found:
    """What the journals have open at the start. ``orphans``: rows of stacks that are gone."""

    overrides: Sequence[OverrideRow]
    dials: Sequence[DialRow]
    orphans: Sequence[OverrideRow]


@dataclass(frozen=True)
class SessionBack:
    """A client has announced a session that is known or was claimed. ``info``: what it has."""

    info: m.SessionInfo


@dataclass(frozen=True)
class Announced:
    """Everything that a client announced has been taken in. ``unknown``: sessions it has not."""

    hello: m.Hello
    unknown: list[str]


@dataclass(frozen=True)
class StreamFound:
    """A gateway that said Hello has this stream."""

    gateway: str
    stream: m.StreamInfo


@dataclass(frozen=True)
class ClaimsOver:
    """No session announces itself any more. What nobody has claimed is nobody's."""


# --------------------------------------------------------------------------- numbers


@dataclass(frozen=True)
class Sought:
    """A number's SID is needed (of "any": the account's numbers)."""

    number: str
    seeker: Seeker
    deadline: float


@dataclass(frozen=True)
class NumberFound:
    """The account has the number that was sought."""

    seeker: Seeker
    number: str
    sid: str


@dataclass(frozen=True)
class NumberMissing:
    """There is no such number, none is free, or Twilio does not tell."""

    seeker: Seeker
    error: TrunklineError


@dataclass(frozen=True)
class PoolWanted:
    """A session waits for whichever number is free."""

    session: str


@dataclass(frozen=True)
class Wanted:
    """A session wants our override on a number, to wait for calls or for a b-leg dial."""

    want: Want
    number: str
    sid: str


@dataclass(frozen=True)
class Granted:
    """Our override is on the number, and the session holds it."""

    want: Want


@dataclass(frozen=True)
class Refused:
    """The session does not get the number."""

    want: Want
    error: TrunklineError


@dataclass(frozen=True)
class NumberBack:
    """A number is as it was. ``sessions``: those that close, and have waited for it."""

    sessions: tuple[str, ...]


@dataclass(frozen=True)
class SessionLost:
    """A session is over although its client has not closed it. ``why``: what the client is told."""

    session: str
    why: str


@dataclass(frozen=True)
class SessionClosing:
    """A session closes, or is lost: nothing of it may be left."""

    session: str


# --------------------------------------------------------------------------- dials


@dataclass(frozen=True)
class TurnWanted:
    """A dial waits until no other dial's call can come to its callee's number."""

    dial: Dial


@dataclass(frozen=True)
class TurnCome:
    """The callee's number is the dial's."""

    dial: Dial


@dataclass(frozen=True)
class PlacesDue:
    """Those who wait in a queue are told their places again, where these changed."""


@dataclass(frozen=True)
class SidShown:
    """Something names the SID of a dial's leg: Twilio's answer, a callback, a webhook, a stream.

    ``guessed``: it was found in the list of calls, where those of two dials look alike.
    ``journalled``: the journal has it already.
    """

    dial: Dial
    sid: str
    guessed: bool = False
    journalled: bool = False


@dataclass(frozen=True)
class SidKnown:
    """The dial's leg has this SID."""

    dial: Dial
    sid: str


@dataclass(frozen=True)
class SidWrong:
    """The SID that the dial had by guess is not its leg's."""

    dial: Dial
    sid: str


@dataclass(frozen=True)
class LegStatus:
    """Twilio says how a leg of ours stands: by callback, in its answer, or because we asked."""

    dial: Dial
    sid: str
    status: str


@dataclass(frozen=True)
class Looked:
    """REST has said what it knows of the dial's call, or has not answered."""

    dial: Dial


@dataclass(frozen=True)
class Answered:
    """The far end has picked up."""

    dial: Dial


@dataclass(frozen=True)
class LegOver:
    """Twilio says that our leg of the dial is over."""

    dial: Dial


@dataclass(frozen=True)
class DialOver:
    """The dial has ended, and no call came of it."""

    dial: Dial


@dataclass(frozen=True)
class GivenUp:
    """Nobody waits for the dial any more."""

    dial: Dial
    why: str


@dataclass(frozen=True)
class NoCall:
    """A dial ends without a call. ``text``: what is known of it."""

    dial: Dial
    status: str
    text: str


@dataclass(frozen=True)
class Stray:
    """A call at Twilio that belongs to nothing that we know."""

    sid: str


# --------------------------------------------------------------------------- calls


@dataclass(frozen=True)
class HangUp:
    """A call is not wanted any more. ``asked``: who is told once Twilio has taken it;
    ``then_failed``: its dial's timeout is told then."""

    call: str
    reason: m.EndedReason
    asked: Asked | None = None
    then_failed: bool = False


@dataclass(frozen=True)
class CallEnding:
    """A call is being hung up."""

    call: Call


@dataclass(frozen=True)
class Finished:
    """A call is over at Twilio."""

    call: Call
    reason: m.EndedReason


@dataclass(frozen=True)
class CallOver:
    """A call has ended, told once. ``was_silent``: it was one without sound."""

    call: Call
    by_far_end: bool
    was_silent: bool


@dataclass(frozen=True)
class LegsHungUp:
    """REST has taken the hang-up of a call."""

    call: Call


@dataclass(frozen=True)
class CallMissed:
    """A call was let in, and is over before its stream came."""

    call: Call


@dataclass(frozen=True)
class LetIn:
    """A webhook is to be answered with a stream for the call, once its former one is out of the
    way."""

    ask: Ask[m.VoiceWebhook]
    call: Call


# --------------------------------------------------------------------------- streams and digits


@dataclass(frozen=True)
class StreamShown:
    """A stream came with a good token. Which leg it shows has been taken in."""

    ask: Ask[m.StreamStart]
    token: Token
    placement: m.Placement


@dataclass(frozen=True)
class StreamUp:
    """A stream is its call's from now on; the gateway is answered last. ``overlaps``: a one-way
    stream goes on beside it for a moment."""

    ask: Ask[m.StreamStart]
    call: Call
    token: Token
    first: bool
    overlaps: bool


@dataclass(frozen=True)
class StreamReplaced:
    """Twilio asks what next for a call, so the stream that it had is gone."""

    call: Call


@dataclass(frozen=True)
class StreamLost:
    """A call's stream is gone, and the call may come back by another."""

    call: Call
    reason: m.StreamEndReason


@dataclass(frozen=True)
class Reconnecting:
    """Nothing brings the call's sound until its next stream is up."""

    call: Call


@dataclass(frozen=True)
class ListenerShown:
    """A one-way stream came with a good token."""

    ask: Ask[m.StreamStart]
    token: Token


@dataclass(frozen=True)
class ListenerTaken:
    """The one-way stream at this gateway carries the call from now on."""

    call: Call
    gateway: str


@dataclass(frozen=True)
class ListenerReplaced:
    """Both a one-way stream and the call's next stream bring its sound for a moment."""

    call: Call
    gateway: str
    ordinal: int


Fact = (
    AdapterHere
    | GatewayHere
    | WorkerHere
    | AdapterBeat
    | GatewayBeat
    | WorkerBeat
    | AdapterLeft
    | WorkerLeft
    | AllClosing
    | Found
    | SessionBack
    | Announced
    | StreamFound
    | ClaimsOver
    | Sought
    | NumberFound
    | NumberMissing
    | PoolWanted
    | Wanted
    | Granted
    | Refused
    | NumberBack
    | SessionLost
    | SessionClosing
    | TurnWanted
    | TurnCome
    | PlacesDue
    | SidShown
    | SidKnown
    | SidWrong
    | LegStatus
    | Looked
    | Answered
    | LegOver
    | DialOver
    | GivenUp
    | NoCall
    | Stray
    | HangUp
    | CallEnding
    | Finished
    | CallOver
    | LegsHungUp
    | CallMissed
    | LetIn
    | StreamShown
    | StreamUp
    | StreamReplaced
    | StreamLost
    | Reconnecting
    | ListenerShown
    | ListenerTaken
    | ListenerReplaced
)
