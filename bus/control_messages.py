"""Messages of the control plane: between the controller and gateways, codec workers, adapters.

Each is a map with its name as ``type``. See messages.py for units, docs/bus.md for the story.
"""

# ruff: noqa: RUF012  # msgspec gives each instance an empty list or dict of its own

from __future__ import annotations

from typing import Any, Literal

from .errors import CallFailedError, ErrorInfo, TimedOutError, TrunklineError
from .redact import redact_number
from .wire import (
    PROTOCOL,
    Counts,
    DialMode,
    Direction,
    EndedReason,
    Endpoint,
    Fields,
    Figures,
    Known,
    Message,
    Name,
    Number,
    Ordinal,
    PeerName,
    Record,
    Role,
    Seconds,
    Span,
    StreamEndReason,
    Text,
)

# --------------------------------------------------------------------------- shared records


class WorkerRef(Record, frozen=True):
    """A codec worker and the endpoint of its media ROUTER (new at each start of its process)."""

    id: PeerName
    endpoint: Endpoint


class Placement(Record, frozen=True):
    """Where a call's sound is worked on. ``(epoch, n)`` orders placements; the newest holds.

    The controller makes it. Which of the two workers is *active* is the gateway's decision alone,
    and is told by the generation.
    """

    epoch: Number
    n: Number
    primary: WorkerRef
    standby: WorkerRef | None = None


class CallInfo(Record, frozen=True):
    """A call, as the controller tells it and as peers announce it to a restarted controller.

    ``call`` is trunkline's id (32 hex digits, made before Twilio is asked). ``sid`` is the CallSid
    of the leg that carries our stream. ``secret`` lets the session's adapter attach to the workers.
    ``dialled_sid`` is the leg that we dialled, where that is another one (b-leg, originate).
    ``caller`` is From as the carrier reported it; ``caller_rewritten``: we dialled from another.
    """

    call: Name
    session: Name
    sid: Name
    direction: Direction
    caller: Text
    callee: Text
    secret: Name
    #: which of the call's streams is its present or last one; 0: none has been up
    ordinal: Ordinal = 0
    #: the ordinal of the earliest stream of it that is known; 0: none is
    first: Ordinal = 0
    dialled_sid: Name | None = None
    dial_request: Name | None = None
    mode: DialMode | None = None
    placement: Placement | None = None
    max_duration: Seconds | None = None
    #: seconds since the call's first stream started, when this was sent; None: not yet
    age: Seconds | None = None
    trace: Fields = {}
    caller_rewritten: bool = False
    #: adapter: a controller was asked to send digits, and has not answered
    digits: bool = False


class SessionInfo(Record, frozen=True):
    """An adapter's session, as it opens it and as it announces it again to a restarted controller.

    ``session`` and ``secret`` are made by the adapter (32 hex digits each); the journal keeps only
    a hash of the secret. ``armed``: a wait_for_call is waiting. ``number`` may be ``"any"``: the
    pool picks. ``account`` is the account SID the user gave, or None to take the stack's own.
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
    #: trace context of the wait_for_call: what a call that comes in belongs to
    trace: Fields = {}


class StreamInfo(Record, frozen=True):
    """A live stream at a gateway, as it announces it to a restarted controller."""

    info: CallInfo
    stream_sid: Name
    generation: Number
    active: Name | None = None  # id of the worker that has the call now
    #: it brings the far end's sound and takes none of ours (see StreamTurn)
    one_way: bool = False


class CallStats(Record, frozen=True):
    """Counters of one call at its active worker, since that worker opened it."""

    call: Known
    generation: Number
    frames_in: Number = 0
    frames_out: Number = 0
    frames_lost: Number = 0
    underruns: Number = 0
    seconds: Seconds = 0.0


class StreamStats(Record, frozen=True):
    """What a gateway tells of one stream at each beat."""

    call: Known
    ordinal: Ordinal
    frames_in: Number = 0
    frames_out: Number = 0


# --------------------------------------------------------------------------- control: upwards


class Hello(Message, frozen=True):
    """First message of a peer on a new control socket, and again whenever it sees a new epoch.

    ``peer`` stays the same for the life of the process (the ZeroMQ identity does not). It
    announces what the peer holds, so that a restarted controller knows the world again.

    A name belongs to the connection that said it first, until that is gone, and a connection has
    one name. What else comes in the peer's name, on another connection, is dropped. ``key`` is made
    at random by the process and said to nobody else. With it the process may come back on a newer
    connection at once, and without it nobody may have the name for as long as the controller
    remembers the peer (a minute). ``connection`` counts the peer's sockets from 1, so that a Hello
    of an older one, which can arrive late, is known as such.

    Answered by :class:`Welcome` or :class:`Refused`; not at all where the name is another's.
    """

    role: Role
    peer: PeerName
    pid: Number
    version: tuple[Number, Number] = PROTOCOL
    connection: Number = 0
    key: Name = ""
    #: codec_worker: the endpoint of its media ROUTER, and the calls that it has
    endpoint: Endpoint | None = None
    calls: list[CallStats] = []
    #: gateway: its live streams
    streams: list[StreamInfo] = []
    #: adapter: its sessions
    sessions: list[SessionInfo] = []
    account: Name | None = None


class Beat(Message, frozen=True):
    """Sent by every peer each 0.5 s (an adapter's renews the leases of its sessions; it comes from
    a thread of its own, so that a blocked event loop does not lose the call). One in
    4 s is answered by Pulse.

    ``refused``, of a gateway: how much it has refused since it started, by kind (bus/refusals.py).
    A stranger can cause that: it is only shown.
    ``dropped``: how many messages of the bus it has dropped, by the reason. "undecodable" is what
    its peers did wrong, and "fault" what it did wrong itself.
    """

    peer: PeerName
    calls: list[CallStats] = []
    streams: list[StreamStats] = []
    sessions: list[Name] = []
    refused: Counts = {}
    dropped: Counts = {}


class Goodbye(Message, frozen=True):
    """The peer ends in an orderly way: a worker's calls are placed elsewhere, an adapter's sessions
    were closed before, a gateway takes no new streams."""

    peer: PeerName


class OpenSession(Message, frozen=True):
    """adapter: begin a session on a number of the account. Idempotent by session id.

    Errors: NumberNotFoundError, AccountMismatchError, CarrierError, InvalidRequestError.
    No lease is taken yet. On "any" it waits for a free number of the pool, behind those who asked
    before (PoolQueued tells its place); NumberBusyError when its ttl runs out. -> SessionOpened
    """

    info: SessionInfo


class SessionOpened(Message, frozen=True):
    session: Name
    number: Text
    number_sid: Name
    account: Name
    public_url: Text | None


class Arm(Message, frozen=True):
    """adapter: take the lease on the session's number, journal and write the override, and let one
    call in. Idempotent while armed. After it, CallStarted comes as an event. -> Armed

    Errors: NumberBusyError, NumberRoutedElsewhereError, CarrierError, WrongModeError.
    """

    session: Name


class Armed(Message, frozen=True):
    session: Name


class Disarm(Message, frozen=True):
    """adapter: nobody waits any more (timeout, cancelled); the override stays until the session
    closes. A call that started meanwhile is hung up. -> Done"""

    session: Name


class Dial(Message, frozen=True):
    """adapter: place a call. Idempotent by ``request`` (32 hex digits, journalled before Twilio is
    asked). ``timeout`` counts from when Twilio was asked: what is not answered then is hung up and
    DialFailed(status="timeout") is told. -> Dialled once Twilio has taken it; before that
    DialQueued events tell its place when it has to wait its turn.

    Errors: CarrierError, InvalidRequestError, LimitReachedError, WrongModeError; b-leg: as Arm's,
    for the callee.
    """

    session: Name
    request: Name
    to: Text
    mode: DialMode
    timeout: Seconds
    max_duration: Seconds
    trace: Fields = {}


class Dialled(Message, frozen=True):
    """``sid`` is the leg that we dialled. In originate mode the call is live from now on as far as
    trunkline can tell; in the others CallStarted follows."""

    call: Name
    sid: Name


class CancelDial(Message, frozen=True):
    """adapter: the caller of place_call is gone; hang up whatever came of the request. -> Done"""

    session: Name
    request: Name


class HangUp(Message, frozen=True):
    """adapter: end this call (``reason`` "hang_up", or "max_duration"). -> Done once REST took it;
    CallEnded follows."""

    session: Name
    call: Name


class SendDigits(Message, frozen=True):
    """adapter: DTMF by REST ``<Play digits>``. -> Done

    A leg that does not carry our stream (b-leg, originate) gets a pause behind the digits, so that
    the call lives on. Done comes once Twilio has taken the document.

    A leg that carries our stream loses it to the new document. A one-way stream (StreamTurn) brings
    the far end's sound meanwhile, and the document ends in ``<Connect><Stream>``. Done comes once
    that stream is back. One row of digits is sent at a time; the next ones wait.

    Errors: WrongModeError (the call is over, or ends meanwhile), TimedOutError (the stream is not
    back within 10 s and the digits' own time), CarrierError, StackUnavailableError (the controller
    was started again meanwhile, so it is not known whether they were sent; they are not repeated).
    """

    session: Name
    call: Name
    digits: Text


class CloseSession(Message, frozen=True):
    """adapter: hang up what it has, restore its numbers, end the session. -> SessionClosed"""

    session: Name


class SessionClosed(Message, frozen=True):
    """``pending``: numbers whose restore did not succeed yet and is being tried on."""

    session: Name
    pending: list[Text] = []


class GetStatus(Message, frozen=True):
    """Anyone: the object of ``trunkline status --json``. -> StatusReport"""


class StatusReport(Message, frozen=True):
    status: dict[Known, Any]


class VoiceWebhook(Message, frozen=True):
    """gateway: Twilio posted to /twilio/voice with a valid signature. ``form`` holds the fields
    (the first value of each), ``query`` the query of the URL that was called (the override's seal,
    a redirect's call, a dial's request). -> VoiceAnswer"""

    form: Fields
    query: Fields = {}


class VoiceAnswer(Message, frozen=True):
    """What the gateway is to render.

    - stream: ``<Connect><Stream><Parameter name="nonce" value=token/></Stream></Connect>`` and
      ``<Redirect>`` to the voice URL with ``redirect_query``
    - reject: ``<Response><Reject/></Response>`` exactly (a caller that is not allowed)
    - busy: ``<Reject reason="busy"/>`` (nobody waits, or the session has a call)
    - hangup: ``<Hangup/>`` (after a deliberate end)
    - pause: ``<Pause length="1"/><Redirect>`` (not known yet; also what a gateway says by itself
      when the controller does not answer)
    """

    kind: Literal["stream", "reject", "busy", "hangup", "pause"]
    token: Name | None = None
    redirect_query: Fields = {}


class StatusCallback(Message, frozen=True):
    """gateway: Twilio posted to /twilio/status with a valid signature. -> Done"""

    form: Fields
    query: Fields = {}


class StreamStart(Message, frozen=True):
    """gateway: a socket sent ``start`` with this token. -> StreamAccepted or StreamRefused.

    The token is used up by being accepted. It is bound to ``call_sid``, is good for a time, and has
    to be shown by ``gateway`` itself.
    """

    token: Name
    call_sid: Name
    stream_sid: Name
    gateway: PeerName


class StreamAccepted(Message, frozen=True):
    """The stream carries this call. ``info`` has the placement, the secret and the ordinal; the
    gateway opens the primary with generation ``first_generation(ordinal)``. ``first`` is False
    when an earlier stream of the call existed: then outbound position is the worker's to know.

    ``one_way``: it brings the far end's sound only, and waits: the gateway keeps its newest frames
    until StreamTurn says that it carries the call. ``overlaps``: the stream before it brings the
    same sound, and goes on. The gateway opens this one once it has brought 160 ms, so that the
    worker can join the two.
    """

    info: CallInfo
    first: bool
    one_way: bool = False
    overlaps: bool = False


class StreamRefused(Message, frozen=True):
    why: Text


class StreamClosed(Message, frozen=True):
    """gateway: a stream that had been accepted is over. Notification (no answer); the beats'
    stream lists repair a lost one."""

    call: Name
    ordinal: Ordinal
    reason: StreamEndReason
    gateway: PeerName


class CallMoved(Message, frozen=True):
    """gateway: the call now runs on ``worker`` with ``generation``. Notification."""

    call: Name
    generation: Number
    worker: PeerName
    gateway: PeerName


class WebhooksRefused(Message, frozen=True):
    """gateway: voice webhooks whose signature was missing or wrong, by the number (To) that they
    named, since it was last said. Notification, twenty a second at most; what a stranger may have
    made up, so it is only counted."""

    gateway: PeerName
    numbers: Counts


class CallHeard(Message, frozen=True):
    """adapter: somebody looked at the report of a call that is over. So long its answers took, and
    so long the far end took to yield, each time that it did. Notification, once for a call: it is
    only counted."""

    peer: PeerName
    latency: Figures
    time_to_yield: Figures


class Done(Message, frozen=True):
    """The request was carried out; there is nothing more to say."""


RequestBody = (
    OpenSession
    | Arm
    | Disarm
    | Dial
    | CancelDial
    | HangUp
    | SendDigits
    | CloseSession
    | GetStatus
    | VoiceWebhook
    | StatusCallback
    | StreamStart
)
ReplyBody = (
    SessionOpened
    | Armed
    | Dialled
    | SessionClosed
    | StatusReport
    | VoiceAnswer
    | StreamAccepted
    | StreamRefused
    | Done
)


class Request(Message, frozen=True):
    """Answered exactly once by a Reply with the same id. The same (peer, id) asked again (after a
    reconnect) is the same request: the controller answers it from what it did, once. A request
    whose ``ttl`` has run out is not begun."""

    peer: PeerName
    id: Number
    ttl: Span
    body: RequestBody
    trace: Fields = {}


class Reply(Message, frozen=True):
    id: Number
    body: ReplyBody | None = None
    error: ErrorInfo | None = None


# --------------------------------------------------------------------------- control: downwards


class Welcome(Message, frozen=True):
    """The controller knows the peer now. ``stack`` is the id of the stack: it stays the same for as
    long as its state directory lives. ``epoch`` counts up at each start of a controller on that
    directory. ``unknown_sessions``: announced sessions that it would not take back (lease
    long gone, wrong secret): their calls are over."""

    epoch: Number
    stack: Name
    pid: Number
    account: Name
    public_url: Text | None
    lead_ms: Number
    version: tuple[Number, Number] = PROTOCOL
    unknown_sessions: list[Name] = []


class Refused(Message, frozen=True):
    """The peer may not join: another protocol major, another account, or a Hello that could not be
    handled. It says why and ends."""

    error: ErrorInfo


class Pulse(Message, frozen=True):
    """Answer to a Beat, once in 4 s. A new epoch here means: say Hello again.

    To gateways it also comes whenever ``workers`` changes: how many codec workers are well, as far
    as is known. Without one no sound moves, and the gateway's health check says so.
    """

    epoch: Number
    stack: Name
    #: False: this controller does not know the peer; say Hello
    known: bool = True
    workers: Number | None = None


class CallStarted(Message, frozen=True):
    """to the session's adapter: the call's first stream is up; attach to both of its workers. It is
    said again where a stream that was thought to be gone is still there: after CallReconnecting, or
    after the controller's restart."""

    info: CallInfo


class CallPlaced(Message, frozen=True):
    """to the call's gateway and adapter: a newer placement. The gateway, when its active worker is
    not in it or gone, opens the new primary; the adapter attaches to both. A gateway whose Hello
    shows an older placement is told again."""

    call: Name
    placement: Placement


class CallReconnecting(Message, frozen=True):
    """to the adapter: the call's stream is gone, the call may come back by a new one."""

    call: Name
    ordinal: Ordinal
    reason: StreamEndReason = "error"


class CallEnded(Message, frozen=True):
    """to the adapter: the call is over. The worker's StreamOver comes on the media plane after the
    last sound; the adapter drains up to it (1 s at most) before it reports the end. ``ago``: Twilio
    is known to have ended it so many seconds before; no sound is missing from that time on."""

    call: Name
    reason: EndedReason
    by_far_end: bool = False
    ago: Span = 0.0


class DialFailed(Message, frozen=True):
    """to the adapter: the dial ended without a call. ``status``: busy, no-answer, failed, canceled,
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
    """to the adapter: the dial waits for its turn; first is 1. Either so many a second are asked
    for (TRUNKLINE_CALLS_PER_SECOND), or (``for_number``) another b-leg call is being set up on the
    callee's number, and how many ``seconds`` that takes is not known (0)."""

    request: Name
    place: Number
    seconds: Seconds
    for_number: bool = False


class PoolQueued(Message, frozen=True):
    """to the session's adapter: all numbers of the pool are in use; its OpenSession is answered
    when one becomes free. ``place``: first is 1."""

    session: Name
    place: Number


class SessionLost(Message, frozen=True):
    """to the adapter: the lease ran out or was taken away; its numbers are restored."""

    session: Name
    why: Text


class WebhooksCounted(Message, frozen=True):
    """to the session's adapter: so many voice webhooks more came for it, ``rejected`` of them were
    refused (signature, caller, or busy). The redirects of a known call are not counted. ``why``
    says why a call did not become the session's, and ``caller`` is its From, redacted. Nothing is
    counted for one that was let in and was over before its stream came."""

    session: Name
    received: Number
    rejected: Number = 0
    caller: Text = ""
    why: Text = ""


class CloseStream(Message, frozen=True):
    """to a gateway: close this call's socket (its REST hang-up did not, or cannot, end it).
    ``one_way``: close only a one-way stream there, the one with this ordinal. Without an ordinal it
    is the one that waits for its turn."""

    call: Name
    one_way: bool = False
    ordinal: Ordinal | None = None


class StreamTurn(Message, frozen=True):
    """to a gateway: the call's stream is gone, because digits are played by REST. The call's
    one-way stream, which has waited at this gateway, carries its inbound sound from now on, as the
    stream ``info.ordinal``. Where there is none any more, the gateway says StreamClosed."""

    info: CallInfo


Event = (
    CallStarted
    | CallPlaced
    | CallReconnecting
    | CallEnded
    | DialFailed
    | DialQueued
    | PoolQueued
    | SessionLost
    | WebhooksCounted
    | CloseStream
    | StreamTurn
)
Notification = StreamClosed | CallMoved | WebhooksRefused | CallHeard

#: what the controller's ROUTER receives
ToController = Hello | Beat | Goodbye | Request | Notification
#: what a control DEALER receives
FromController = (
    Welcome
    | Refused
    | Pulse
    | Reply
    | CallStarted
    | CallPlaced
    | CallReconnecting
    | CallEnded
    | DialFailed
    | DialQueued
    | PoolQueued
    | SessionLost
    | WebhooksCounted
    | CloseStream
    | StreamTurn
)
