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

import msgspec

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


class Fact(msgspec.Struct, frozen=True):
    """Something that happened, or that is needed."""


# --------------------------------------------------------------------------- peers and the clock


class AdapterHere(Fact, frozen=True):
    """A client has said Hello."""

    hello: m.Hello


class GatewayHere(Fact, frozen=True):
    """A gateway has said Hello, and lists its streams."""

    hello: m.Hello


class WorkerHere(Fact, frozen=True):
    """A codec worker has said Hello, and lists its calls."""

    hello: m.Hello


class AdapterBeat(Fact, frozen=True):
    beat: m.Beat


class GatewayBeat(Fact, frozen=True):
    beat: m.Beat


class WorkerBeat(Fact, frozen=True):
    beat: m.Beat


class AdapterLeft(Fact, frozen=True):
    """A client has said Goodbye."""

    peer: str


class WorkerLeft(Fact, frozen=True):
    """A codec worker has said Goodbye."""

    peer: str


class AllClosing(Fact, frozen=True):
    """The stack ends."""


# --------------------------------------------------------------------------- a restart


class Found(Fact, frozen=True):
    """What the journals have open at the start. ``orphans``: rows of stacks that are gone."""

    overrides: Sequence[OverrideRow]
    dials: Sequence[DialRow]
    orphans: Sequence[OverrideRow]


class SessionBack(Fact, frozen=True):
    """A client has announced a session that is known or was claimed. ``info``: what it has."""

    info: m.SessionInfo


class Announced(Fact, frozen=True):
    """Everything that a client announced has been taken in. ``unknown``: sessions it has not."""

    hello: m.Hello
    unknown: list[str]


class StreamFound(Fact, frozen=True):
    """A gateway that said Hello has this stream."""

    gateway: str
    stream: m.StreamInfo


class ClaimsOver(Fact, frozen=True):
    """No session announces itself any more. What nobody has claimed is nobody's."""


# --------------------------------------------------------------------------- numbers


class Sought(Fact, frozen=True):
    """A number's SID is needed (of "any": the account's numbers)."""

    number: str
    seeker: Seeker
    deadline: float


class NumberFound(Fact, frozen=True):
    """The account has the number that was sought."""

    seeker: Seeker
    number: str
    sid: str


class NumberMissing(Fact, frozen=True):
    """There is no such number, none is free, or Twilio does not tell."""

    seeker: Seeker
    error: TrunklineError


class PoolWanted(Fact, frozen=True):
    """A session waits for whichever number is free."""

    session: str


class Wanted(Fact, frozen=True):
    """A session wants our override on a number, to wait for calls or for a b-leg dial."""

    want: Want
    number: str
    sid: str


class Granted(Fact, frozen=True):
    """Our override is on the number, and the session holds it."""

    want: Want


class Refused(Fact, frozen=True):
    """The session does not get the number."""

    want: Want
    error: TrunklineError


class NumberBack(Fact, frozen=True):
    """A number is as it was. ``sessions``: those that close, and have waited for it."""

    sessions: tuple[str, ...]


class SessionLost(Fact, frozen=True):
    """A session is over although its client has not closed it. ``why``: what the client is told."""

    session: str
    why: str


class SessionClosing(Fact, frozen=True):
    """A session closes, or is lost: nothing of it may be left."""

    session: str


# --------------------------------------------------------------------------- dials


class TurnWanted(Fact, frozen=True):
    """A dial waits until no other dial's call can come to its callee's number."""

    dial: Dial


class TurnCome(Fact, frozen=True):
    """The callee's number is the dial's."""

    dial: Dial


class PlacesDue(Fact, frozen=True):
    """Those who wait in a queue are told their places again, where these changed."""


class SidShown(Fact, frozen=True):
    """Something names the SID of a dial's leg: Twilio's answer, a callback, a webhook, a stream.

    ``guessed``: it was found in the list of calls, where those of two dials look alike.
    ``journalled``: the journal has it already.
    """

    dial: Dial
    sid: str
    guessed: bool = False
    journalled: bool = False


class SidKnown(Fact, frozen=True):
    """The dial's leg has this SID."""

    dial: Dial
    sid: str


class SidWrong(Fact, frozen=True):
    """The SID that the dial had by guess is not its leg's."""

    dial: Dial
    sid: str


class LegStatus(Fact, frozen=True):
    """Twilio says how a leg of ours stands: by callback, in its answer, or because we asked."""

    dial: Dial
    sid: str
    status: str


class Looked(Fact, frozen=True):
    """REST has said what it knows of the dial's call, or has not answered."""

    dial: Dial


class Answered(Fact, frozen=True):
    """The far end has picked up."""

    dial: Dial


class LegOver(Fact, frozen=True):
    """Twilio says that our leg of the dial is over."""

    dial: Dial


class DialOver(Fact, frozen=True):
    """The dial has ended, and no call came of it."""

    dial: Dial


class GivenUp(Fact, frozen=True):
    """Nobody waits for the dial any more."""

    dial: Dial
    why: str


class NoCall(Fact, frozen=True):
    """A dial ends without a call. ``text``: what is known of it."""

    dial: Dial
    status: str
    text: str


class Stray(Fact, frozen=True):
    """A call at Twilio that belongs to nothing that we know."""

    sid: str


# --------------------------------------------------------------------------- calls


class HangUp(Fact, frozen=True):
    """A call is not wanted any more. ``asked``: who is told once Twilio has taken it;
    ``then_failed``: its dial's timeout is told then."""

    call: str
    reason: m.EndedReason
    asked: Asked | None = None
    then_failed: bool = False


class CallEnding(Fact, frozen=True):
    """A call is being hung up."""

    call: Call


class Finished(Fact, frozen=True):
    """A call is over at Twilio."""

    call: Call
    reason: m.EndedReason


class CallOver(Fact, frozen=True):
    """A call has ended, told once. ``was_silent``: it was one without sound."""

    call: Call
    by_far_end: bool
    was_silent: bool


class LegsHungUp(Fact, frozen=True):
    """REST has taken the hang-up of a call."""

    call: Call


class CallMissed(Fact, frozen=True):
    """A call was let in, and is over before its stream came."""

    call: Call


class LetIn(Fact, frozen=True):
    """A webhook is to be answered with a stream for the call, once its former one is out of the
    way."""

    ask: Ask[m.VoiceWebhook]
    call: Call


# --------------------------------------------------------------------------- streams and digits


class StreamShown(Fact, frozen=True):
    """A stream came with a good token. Which leg it shows has been taken in."""

    ask: Ask[m.StreamStart]
    token: Token
    placement: m.Placement


class StreamUp(Fact, frozen=True):
    """A stream is its call's from now on; the gateway is answered last. ``overlaps``: a one-way
    stream goes on beside it for a moment."""

    ask: Ask[m.StreamStart]
    call: Call
    token: Token
    first: bool
    overlaps: bool


class StreamReplaced(Fact, frozen=True):
    """Twilio asks what next for a call, so the stream that it had is gone."""

    call: Call


class StreamLost(Fact, frozen=True):
    """A call's stream is gone, and the call may come back by another."""

    call: Call
    reason: m.StreamEndReason


class Reconnecting(Fact, frozen=True):
    """Nothing brings the call's sound until its next stream is up."""

    call: Call


class ListenerShown(Fact, frozen=True):
    """A one-way stream came with a good token."""

    ask: Ask[m.StreamStart]
    token: Token


class ListenerTaken(Fact, frozen=True):
    """The one-way stream at this gateway carries the call from now on."""

    call: Call
    gateway: str


class ListenerReplaced(Fact, frozen=True):
    """Both a one-way stream and the call's next stream bring its sound for a moment."""

    call: Call
    gateway: str
    ordinal: int
