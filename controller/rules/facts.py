"""Facts: a rule tells them, and other rules hear them. ``HEARS`` in ``core.py`` says which.

A fact says that something has happened or is needed, and never what to do about it. So the rule
that tells it need not know who cares. For example, ``SessionClosing`` is told once; the numbers are
put back, dials are given up and calls are hung up because three rules hear it.

Facts are heard at once and depth first: everything that a fact leads to is over before the next one
is heard. A rule that must wait for the consequences of its own fact tells a second one, which comes
back to it (``StreamShown`` and ``LetIn`` are such).

Some pairs look alike and are not. ``SidShown`` is evidence, which may be late, repeated or
wrong; ``SidKnown`` is what the dial's rules made of it. ``Finished`` says that Twilio's call is
over; ``CallOver`` says that ours has ended, and is told once for every call. ``LegOver`` is our leg
of a dial, which for a b-leg dial is not the leg that carries the stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from trunkline.bus import messages as m
from trunkline.bus.errors import TrunklineError
from trunkline.bus.wire import Shown

from ..instructions import ReplyTo
from ..journal.rows import DialRow, ListeningRow, OverrideRow
from .book.call import Call
from .book.dial import Dial
from .book.lease import LeaseRequest
from .book.lookups import Seeker
from .book.tokens import Token

Body = TypeVar("Body", bound=m.RequestBody)


@dataclass(frozen=True)
class Ask(Generic[Body]):
    """A peer's request, heard by its body's type. ``reply_to``: whom to answer. ``ttl``: for how
    long the peer waits, which bounds what REST is given for it. Every request is answered once, at
    once or much later, by whichever rule comes to its end."""

    reply_to: ReplyTo
    body: Body
    ttl: float
    trace: dict[str, str] = field(default_factory=dict)


class Fact(Shown, frozen=True):
    """Something that happened, or that is needed. It carries the entities themselves where these
    live on in the book, and their ids where they may be gone by the time that it is heard."""


# --------------------------------------------------------------------------- peers and the clock


class ClientHere(Fact, frozen=True):
    """A client has said Hello."""

    hello: m.Hello


class GatewayHere(Fact, frozen=True):
    """A gateway has said Hello, and lists its streams."""

    hello: m.Hello


class WorkerHere(Fact, frozen=True):
    """A codec worker has said Hello, and lists its calls."""

    hello: m.Hello


class ClientBeat(Fact, frozen=True):
    """A client beats, and lists the sessions that it believes to have."""

    beat: m.Beat


class GatewayBeat(Fact, frozen=True):
    """A gateway beats, and lists its streams."""

    beat: m.Beat


class ClientLeft(Fact, frozen=True):
    """A client has said Goodbye. What it left open is closed, without waiting for its lease."""

    peer: str


class WorkerLeft(Fact, frozen=True):
    """A codec worker has said Goodbye. It goes on with its calls until they have moved."""


class AllClosing(Fact, frozen=True):
    """The stack ends. Every session is lost, whatever it is doing, and its numbers come first: the
    process may be killed after a few seconds."""


# --------------------------------------------------------------------------- a restart


class Found(Fact, frozen=True):
    """What the journals have at the start: open rows, and among the ``dials`` also those that were
    closed within a day, because the caps count them. ``orphans``: rows of stacks that are gone."""

    overrides: Sequence[OverrideRow]
    dials: Sequence[DialRow]
    orphans: Sequence[OverrideRow]
    listening: Sequence[ListeningRow]


class SessionBack(Fact, frozen=True):
    """A client has announced a session that is known, or was claimed just now. ``info``: the calls
    and dials that it has, and whether it waits for digits."""

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
    """No session announces itself any more. Whatever is unclaimed now belongs to nobody.

    A controller tells this once in its life: when the time for claims is over, or when the stack
    ends before that."""


# --------------------------------------------------------------------------- numbers


class Sought(Fact, frozen=True):
    """A number's SID is needed, to write to the number. It may be known already. Many who seek the
    same number are one request to Twilio. For the number "any", Twilio is asked for all numbers of
    the account."""

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
    """A session wants our override on a number, to wait for calls or for a b-leg dial. It is
    granted or refused later: another session may be there, or the number is still being put back.
    """

    request: LeaseRequest
    number: str
    sid: str


class Granted(Fact, frozen=True):
    """Our override is on the number, and the session holds it. Twilio has confirmed it, so a call
    to the number reaches us from now on."""

    request: LeaseRequest


class Refused(Fact, frozen=True):
    """The session does not get the number."""

    request: LeaseRequest
    error: TrunklineError


class NumberBack(Fact, frozen=True):
    """A number is as it was, or our override never got on it. ``sessions``: those that close, and
    have waited for it."""

    sessions: tuple[str, ...]


class SessionLost(Fact, frozen=True):
    """A session is over although its client has not closed it. ``why`` goes to the client, if it is
    still there to hear it."""

    session: str
    why: str


class SessionClosing(Fact, frozen=True):
    """A session closes, or is lost: nothing of it may be left. Its row begins with the numbers,
    because a number that is left to us answers nobody once we are gone."""

    session: str


# --------------------------------------------------------------------------- dials


class TurnWanted(Fact, frozen=True):
    """A dial waits until no other dial's call can come to its callee's number. B-leg dials always
    do; others do where a b-leg dial to the number is open or waits."""

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
    """The dial's leg has this SID. Its call is found by it from now on, and can be hung up."""

    dial: Dial
    sid: str


class SidWrong(Fact, frozen=True):
    """The SID that the dial had by guess is not its leg's. What was done under it is undone."""

    dial: Dial
    sid: str


class LegStatus(Fact, frozen=True):
    """Twilio says how a leg of ours stands: by callback, in its answer, or because we asked. It may
    be old: callbacks overtake one another."""

    dial: Dial
    sid: str
    status: str


class Looked(Fact, frozen=True):
    """REST has said what it knows of the dial's call, or has not answered. A dial that was waiting
    for just this last look ends now."""

    dial: Dial


class Answered(Fact, frozen=True):
    """The far end has picked up."""

    dial: Dial


class AnsweredByKnown(Fact, frozen=True):
    """Twilio's detection of answering machines has come to its end on this leg of the dial."""

    dial: Dial
    sid: str
    answered_by: m.Answerer


class LegOver(Fact, frozen=True):
    """Twilio says that our leg of the dial is over. So the dial's call is over too."""

    dial: Dial


class DialOver(Fact, frozen=True):
    """The dial has ended without a call: it was refused, cancelled before Twilio was asked, or its
    request got lost."""

    dial: Dial


class GivenUp(Fact, frozen=True):
    """Nobody waits for the dial any more. It cannot always be taken back: where Twilio may have it,
    its call is hung up as soon as its SID is known."""

    dial: Dial


class NoCall(Fact, frozen=True):
    """A dial ends without a call. ``status`` and ``text`` are those of the client's DialFailed: how
    it ended, and anything that is known of why."""

    dial: Dial
    status: str
    text: str


class Stray(Fact, frozen=True):
    """A call at Twilio that belongs to nothing that we know. It costs money, so it is hung up."""

    sid: str


# --------------------------------------------------------------------------- calls


class HangUp(Fact, frozen=True):
    """A call is not wanted any more. ``reply_to``: who is answered once Twilio has taken the
    hang-up. ``tell_timeout``: only then the client hears that its dial has timed out, so that no
    phone rings any longer when it hears that."""

    call: str
    reason: m.EndedReason
    reply_to: ReplyTo | None = None
    tell_timeout: bool = False


class CallEnding(Fact, frozen=True):
    """A call is being hung up. Nothing new may begin in it."""

    call: Call


class Finished(Fact, frozen=True):
    """A call is over at Twilio."""

    call: Call
    reason: m.EndedReason


class CallOver(Fact, frozen=True):
    """A call has ended. Each call tells this once. ``by_far_end``: nobody here wanted that.
    ``was_silent``: it was a call without sound, whose client has heard of it all the same."""

    call: Call
    by_far_end: bool
    was_silent: bool


class LegsHungUp(Fact, frozen=True):
    """REST has taken the hang-up of a call, or the call was over before that. The call's stream may
    still bring sound for a moment."""

    call: Call


class CallMissed(Fact, frozen=True):
    """A call was let in, and is over before its stream came. The caller hung up meanwhile."""

    call: Call


class LetIn(Fact, frozen=True):
    """A webhook is to be answered with a stream for the call, once its former one is out of the
    way."""

    ask: Ask[m.VoiceWebhook]
    call: Call


# --------------------------------------------------------------------------- streams and digits


class StreamShown(Fact, frozen=True):
    """A stream came with a good token. Which leg it shows has been taken in by now. ``placement``:
    the workers that were found for it before that."""

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
    """Twilio asks for a call's next document, so the stream that the call had is gone. Its gateway
    may have died and have told nobody."""

    call: Call


class StreamLost(Fact, frozen=True):
    """A call's stream is gone, and the call may come back by another: Twilio follows the redirect
    behind it, or a one-way stream waits."""

    call: Call
    reason: m.StreamEndReason


class Reconnecting(Fact, frozen=True):
    """Nothing brings the call's sound until its next stream is up. The client has to know, because
    the far end's words are lost meanwhile."""

    call: Call
    reason: m.StreamEndReason


class ListenerShown(Fact, frozen=True):
    """A one-way stream came with a good token. It only listens, while digits are played."""

    ask: Ask[m.StreamStart]
    token: Token


class ListenerTaken(Fact, frozen=True):
    """The one-way stream at this gateway carries the call from now on."""

    call: Call
    gateway: str


class ListenerReplaced(Fact, frozen=True):
    """Both a one-way stream and the call's next stream bring its sound for a moment. ``ordinal``:
    the one-way stream's, by which it is told apart from the next one when it is closed."""

    call: Call
    gateway: str
    ordinal: int
