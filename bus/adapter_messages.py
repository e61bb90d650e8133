"""Messages between a client and the controller: sessions, dials, and calls.

The client asks: the classes from ``OpenSession`` to ``SessionClosed`` are bodies of its requests
and of their replies (``Request`` and ``Reply`` in control_messages.py). The controller reports what
happens to the client's calls: the classes from ``CallStarted`` on are events, and nobody answers
them. Nobody answers ``CallHeard`` either, which the client sends.

For example, a wait_for_call asks ``Arm`` and is answered ``Armed``. When somebody calls,
``CallStarted`` comes, and ``CallEnded`` when the call is over. See messages.py for units.
"""

# ruff: noqa: RUF012  # msgspec gives each instance an empty list or dict of its own

from __future__ import annotations

from typing import Literal

from .call_records import CallInfo
from .errors import CallFailedError, TimedOutError, TrunklineError
from .redact import redact_number
from .wire import (
    Answerer,
    DialMode,
    Direction,
    EndedReason,
    Fields,
    Figures,
    MachineDetection,
    Message,
    Name,
    Number,
    Ordinal,
    PeerName,
    Record,
    Seconds,
    Span,
    StreamEndReason,
    TestName,
    Text,
)


class SessionInfo(Record, frozen=True):
    """A client's session, as it opens it and as it announces it again to a restarted controller.

    ``session`` and ``secret`` are made by the client (32 hex digits each); the journal keeps only
    a hash of the secret. ``armed``: a wait_for_call is waiting. ``number`` may be ``"any"``: the
    pool picks. ``account`` is the account SID the user gave, or None to take the stack's own.
    ``test`` is the test that it serves, for people to read.
    """

    session: Name
    secret: Name
    number: Text
    account: Name | None = None
    allowed_callers: list[Text] | None = None
    allowed_callees: list[Text] | None = None
    armed: bool = False
    mode: Literal["idle", "answer", "call"] = "idle"
    calls: list[CallInfo] = []
    #: dial requests under way, each as it was asked
    dials: list[Dial] = []
    #: trace context of the wait_for_call: an incoming call belongs to it
    trace: Fields = {}
    test: TestName = ""


# ---------------------------------------------------------------- requests, and their replies


class OpenSession(Message, frozen=True):
    """client: begin a session on a number of the account. -> SessionOpened

    Idempotent by session id. No lease is taken yet. A session on "any" waits for a free number of
    the pool, behind those who asked before it, and PoolQueued tells its place. It fails with
    NumberBusyError when its ttl runs out.

    Errors: NumberNotFoundError, AccountMismatchError, CarrierError, InvalidRequestError.
    """

    info: SessionInfo


class SessionOpened(Message, frozen=True):
    session: Name
    number: Text
    number_sid: Name
    account: Name
    public_url: Text | None


class Arm(Message, frozen=True):
    """client: take the lease on the session's number, journal and write the override, and let one
    call in. -> Armed

    Idempotent while armed. After it, CallStarted comes as an event.

    Errors: NumberBusyError, NumberRoutedElsewhereError, CarrierError, WrongModeError.
    """

    session: Name


class Armed(Message, frozen=True):
    session: Name


class Disarm(Message, frozen=True):
    """client: nobody waits any more (timeout, cancelled). -> Done

    The override stays until the session closes. A call that started meanwhile is hung up.
    """

    session: Name


class Dial(Message, frozen=True):
    """client: place a call. -> Dialled, once Twilio has taken it

    Idempotent by ``request`` (32 hex digits, journalled before Twilio is asked). Where the dial has
    to wait its turn, DialQueued events tell its place. ``timeout`` counts from when Twilio was
    asked: a dial without an answer is then hung up, and DialFailed(status="timeout") follows.

    With ``machine_detection`` (a-leg only) Twilio finds out who answers, and AnsweredBy tells it.

    Errors: CarrierError, InvalidRequestError, LimitReachedError, WrongModeError; in b-leg mode also
    those of Arm, for the callee's number.
    """

    session: Name
    request: Name
    to: Text
    mode: DialMode
    timeout: Seconds
    max_duration: Seconds
    machine_detection: MachineDetection | None = None
    trace: Fields = {}


class Dialled(Message, frozen=True):
    """``sid`` is the leg that we dialled. In originate mode the call is live from now on as far as
    trunkline can tell; in the others CallStarted follows."""

    call: Name
    sid: Name


class CancelDial(Message, frozen=True):
    """client: nobody waits for this place_call any more. If the dial led to a call, hang it up.
    -> Done"""

    session: Name
    request: Name


class HangUp(Message, frozen=True):
    """client: end this call. -> Done, once REST took it

    CallEnded follows, with the reason "hang_up".
    """

    session: Name
    call: Name


class SendDigits(Message, frozen=True):
    """client: DTMF by REST ``<Play digits>``. -> Done, or DigitsPlayed

    A leg that does not carry our stream (b-leg, originate) gets a pause behind the digits, so that
    the call lives on. Done comes once Twilio has taken the document.

    A leg that carries our stream loses it to the new document. A one-way stream (StreamTurn) brings
    the far end's sound meanwhile, and the document ends in ``<Connect><Stream>``. DigitsPlayed
    comes once that stream is back. One row of digits is sent at a time; the next ones wait.

    Errors: WrongModeError (the call is over, or ends meanwhile), TimedOutError (the call
    has had no stream for 10 s, so no digits were sent; or the stream is not back within 10 s and
    the digits' own time), CarrierError, StackUnavailableError (the controller was started again
    meanwhile, so it is not known whether they were sent; they are not repeated).
    """

    session: Name
    call: Name
    digits: Text


class DigitsPlayed(Message, frozen=True):
    """``age``: how old the call was when the first digit began. The call's report names the keys
    with their times. ``ordinal``: the stream that is back. A worker may open it a little later, and
    the client waits for that, for 2 s at most, before it says anything."""

    age: Seconds
    ordinal: Ordinal = 0


class Listen(Message, frozen=True):
    """client: bring both tracks of a call that exists, whoever has placed it. -> Listening, once
    its stream is up

    ``sid`` names the call at Twilio, and ``call`` is the id (32 hex digits, made by the client) by
    which HangUp ends the listening. HangUp stops the stream, and never the call itself. The same id
    asked again is the same request. ``theirs``: which track is the agent under test.

    Errors: CarrierError (there is no such call, it is not up, or no stream of it has come within
    15 s), InvalidRequestError.
    """

    session: Name
    call: Name
    sid: Name
    theirs: Direction
    trace: Fields = {}


class Listening(Message, frozen=True):
    """The stream with both tracks is up. CallReconnecting, CallStarted and CallEnded follow for it
    as for a call of ours."""

    info: CallInfo


class CloseSession(Message, frozen=True):
    """client: hang up its calls, restore its numbers, end the session. -> SessionClosed"""

    session: Name


class SessionClosed(Message, frozen=True):
    """``pending`` are the numbers whose restore has not succeeded yet. The controller goes on
    trying."""

    session: Name
    pending: list[Text] = []


class CallHeard(Message, frozen=True):
    """client: somebody looked at the report of a call that is over. ``latency``: how long each
    answer took. ``time_to_yield``: how long the far end took to yield, each time that it did.
    Sent once for a call. The controller only counts the figures."""

    peer: PeerName
    latency: Figures
    time_to_yield: Figures


# ---------------------------------------------------------------- events


class CallStarted(Message, frozen=True):
    """to the session's client: the call's first stream is up; attach to both of its workers.

    The controller sends it again when a stream that was thought to be gone is still there: after
    CallReconnecting, or after the controller's restart.
    """

    info: CallInfo


class CallReconnecting(Message, frozen=True):
    """to the client: the call's stream is gone, the call may come back by a new one."""

    call: Name
    ordinal: Ordinal
    reason: StreamEndReason = "error"


class CallEnded(Message, frozen=True):
    """to the client: the call is over.

    The worker's StreamOver comes on the media plane after the last sound. The client drains up to
    it, for 1 s at most, before it reports the end. ``ago``: Twilio is known to have ended the call
    that many seconds before. No sound is missing from that time on.
    """

    call: Name
    reason: EndedReason
    by_far_end: bool = False
    ago: Span = 0.0


class AnsweredBy(Message, frozen=True):
    """to the client: Twilio has found out who answered the call.

    It may come before the call's stream is up, and so before CallStarted. A client that says Hello
    gets this message again. A restarted controller learns who answered from the client's CallInfo.
    """

    call: Name
    answered_by: Answerer


class DialFailed(Message, frozen=True):
    """to the client: the dial ended without a call. ``status``: busy, no-answer, failed, canceled,
    or timeout (of place_call)."""

    request: Name
    call: Name
    status: Text
    sid: Name | None = None
    text: Text = ""

    def error(self, to: str, timeout: float) -> TrunklineError:
        """How ``place_call(to, timeout=timeout)`` fails."""
        why = f": {self.text}" if self.text else ""
        call = f"call to {redact_number(to)}"
        if self.status == "timeout":
            return TimedOutError(f"{call}: no stream within {timeout:g} s{why}")
        return CallFailedError(
            f"{call} was not answered ({self.status}){why}", status=self.status, sid=self.sid
        )


class DialQueued(Message, frozen=True):
    """to the client: the dial waits for its turn, at ``place`` (the first is 1).

    There are two queues. Either the stack asks Twilio for a few calls a second only
    (TRUNKLINE_CALLS_PER_SECOND), and the turn comes in ``seconds``. Or, with ``for_number``,
    another b-leg call is being set up on the callee's number. Nobody knows how long that takes, so
    ``seconds`` is 0.
    """

    request: Name
    place: Number
    seconds: Seconds
    for_number: bool = False


class PoolQueued(Message, frozen=True):
    """to the session's client: all numbers of the pool are in use. Its OpenSession is answered
    when one becomes free. ``place``: the first is 1."""

    session: Name
    place: Number


class SessionLost(Message, frozen=True):
    """to the client: the lease ran out or was taken away; its numbers are restored."""

    session: Name
    why: Text


class WebhooksCounted(Message, frozen=True):
    """to the session's client: more voice webhooks came for it.

    ``received`` counts the webhooks since the last WebhooksCounted. ``rejected`` of them were
    refused, for their signature, their caller, or because the session was busy. The redirects of a
    known call are not counted. ``why`` says why a call did not become the session's, and ``caller``
    is that call's From, redacted. A call that ends before its stream comes was already counted when
    it was let in, so a message about it has ``why`` and ``caller`` alone.
    """

    session: Name
    received: Number
    rejected: Number = 0
    caller: Text = ""
    why: Text = ""


class InterruptByHand(Message, frozen=True):
    """to the call's client: somebody at the console interrupts. All sound of ours that is queued
    is dropped, as by the test's own interrupt."""

    call: Name


class SpeakByHand(Message, frozen=True):
    """to the call's client: somebody at the console speaks into the call. ``pcm`` (PCM16, mono,
    24 kHz; two seconds at most) is said behind all that is queued, as by the test's own
    ``send_audio``."""

    call: Name
    pcm: bytes
