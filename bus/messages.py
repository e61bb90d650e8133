"""Every message on the bus: the contract between the rooms.

Two planes. **control**: the controller binds a ROUTER; gateways, codec workers and adapters each
connect one DEALER. **media**: each codec worker binds a ROUTER; gateways and adapters connect one
DEALER to each worker that carries their calls. Every ZeroMQ message is one frame of msgpack: a
frozen Struct of one of the tagged unions at the end of each section. ``docs/bus.md`` tells the same
as prose.

Units, everywhere:

- *position*: samples at 8 kHz, counted from the call's start (outbound: of all that the adapter has
  spoken in this call; inbound: of call time). A PCM sample at 24 kHz has position index // 3.
- *stream position*: samples at 8 kHz within one Media Stream, from ``media.timestamp``.
- *ordinal*: which Media Stream of the call, from 1; a call gets a new one when it is redirected.
- *generation*: ``ordinal << 16 | switches``: counted up by the gateway each time it moves the call
  to another worker, and started anew, higher, by each new stream. Every media message carries its
  call and generation; a receiver drops what is older than the newest it has seen for that call.
- payload: raw mu-law (G.711), 8 kHz, one byte a sample. pcm: PCM16 little-endian mono 24 kHz.
- times: seconds, float. Deadlines travel as time left (ttl), since clocks differ between hosts.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from .errors import ErrorInfo

#: (major, minor). A peer with another major is refused by name; minors only add fields and
#: messages.
PROTOCOL = (1, 1)

Role = Literal["gateway", "codec_worker", "adapter"]
Direction = Literal["inbound", "outbound"]
EndedReason = Literal["stop", "close", "error", "max_duration", "hang_up"]
StreamEndReason = Literal["stop", "close", "error"]
DialMode = Literal["a-leg", "b-leg", "originate"]


def first_generation(ordinal: int) -> int:
    """The generation with which stream ``ordinal`` of a call begins."""
    return ordinal << 16


class Record(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A value that messages carry, by field names. New fields come with a default."""


class Message(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag=True):
    """A control message: a map with its class's name as the tag."""


class Packed(msgspec.Struct, frozen=True, array_like=True):
    """An element of the paced media batches: an array, because there are thousands a second."""


class PackedMessage(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A media message: an array that begins with its class's name."""


# --------------------------------------------------------------------------- shared records


class WorkerRef(Record, frozen=True):
    """A codec worker and the endpoint of its media ROUTER (new at each start of its process)."""

    id: str
    endpoint: str


class Placement(Record, frozen=True):
    """Where a call's sound is worked on. ``(epoch, n)`` orders placements; the newest holds.

    The controller makes it. Which of the two workers is *active* is the gateway's decision alone,
    and is told by the generation.
    """

    epoch: int
    n: int
    primary: WorkerRef
    standby: WorkerRef | None = None


class CallInfo(Record, frozen=True):
    """A call, as the controller tells it and as peers announce it to a restarted controller.

    ``call`` is trunkline's id (32 hex digits, made before Twilio is asked). ``sid`` is the CallSid
    of the leg that carries our stream. ``secret`` lets the session's adapter attach to the workers.
    ``dialled_sid`` is the leg that we dialled, where that is another one (b-leg, originate).
    """

    call: str
    session: str
    sid: str
    direction: Direction
    caller: str
    callee: str
    secret: str
    ordinal: int = 0
    dialled_sid: str | None = None
    dial_request: str | None = None
    mode: DialMode | None = None
    placement: Placement | None = None
    max_duration: float | None = None
    #: seconds since the call's first stream started, when this was sent; None: not yet
    age: float | None = None
    trace: dict[str, str] = {}


class SessionInfo(Record, frozen=True):
    """An adapter's session, as it opens it and as it announces it again to a restarted controller.

    ``session`` and ``secret`` are made by the adapter (32 hex digits each); the journal keeps only
    a hash of the secret. ``armed``: a wait_for_call is waiting. ``number`` may be ``"any"``: the
    pool picks. ``account`` is the account SID the user gave, or None to take the stack's own.
    """

    session: str
    secret: str
    number: str
    account: str | None = None
    allowed_callers: list[str] | None = None
    allowed_callees: list[str] | None = None
    armed: bool = False
    mode: Literal["idle", "answer", "call"] = "idle"
    calls: list[CallInfo] = []
    #: dial requests under way: request id -> how it was asked
    dials: list[Dial] = []
    #: trace context of the wait_for_call: what a call that comes in belongs to
    trace: dict[str, str] = {}


class StreamInfo(Record, frozen=True):
    """A live stream at a gateway, as it announces it to a restarted controller."""

    info: CallInfo
    stream_sid: str
    generation: int
    active: str | None = None  # id of the worker that has the call now


class CallStats(Record, frozen=True):
    """Counters of one call at its active worker, since that worker opened it."""

    call: str
    generation: int
    frames_in: int = 0
    frames_out: int = 0
    frames_lost: int = 0
    underruns: int = 0
    seconds: float = 0.0


class StreamStats(Record, frozen=True):
    """What a gateway tells of one stream at each beat."""

    call: str
    ordinal: int
    frames_in: int = 0
    frames_out: int = 0


# --------------------------------------------------------------------------- control: upwards


class Hello(Message, frozen=True):
    """First message of a peer on a new control socket, and again whenever it sees a new epoch.

    ``peer`` stays the same for the life of the process (the ZeroMQ identity does not). It
    announces what the peer holds, so that a restarted controller knows the world again.
    Answered by :class:`Welcome` or :class:`Refused`.
    """

    role: Role
    peer: str
    pid: int
    version: tuple[int, int] = PROTOCOL
    #: codec_worker: the endpoint of its media ROUTER, and the calls that it has
    endpoint: str | None = None
    calls: list[CallStats] = []
    #: gateway: its live streams
    streams: list[StreamInfo] = []
    #: adapter: its sessions
    sessions: list[SessionInfo] = []
    account: str | None = None


class Beat(Message, frozen=True):
    """Sent by every peer each 0.5 s (an adapter's renews the leases of its sessions; it comes from
    a thread of its own, so that a blocked event loop does not lose the call). Answered by Pulse."""

    peer: str
    calls: list[CallStats] = []
    streams: list[StreamStats] = []
    sessions: list[str] = []


class Goodbye(Message, frozen=True):
    """The peer ends in an orderly way: a worker's calls are placed elsewhere, an adapter's sessions
    were closed before, a gateway takes no new streams."""

    peer: str


class OpenSession(Message, frozen=True):
    """adapter: begin a session on a number of the account. Idempotent by session id.

    Errors: NumberNotFoundError, AccountMismatchError, CarrierError, InvalidRequestError.
    No lease is taken yet. -> SessionOpened
    """

    info: SessionInfo


class SessionOpened(Message, frozen=True):
    session: str
    number: str
    number_sid: str
    account: str
    public_url: str | None


class Arm(Message, frozen=True):
    """adapter: take the lease on the session's number, journal and write the override, and let one
    call in. Idempotent while armed. After it, CallStarted comes as an event. -> Armed

    Errors: NumberBusyError, NumberRoutedElsewhereError, CarrierError, WrongModeError.
    """

    session: str


class Armed(Message, frozen=True):
    session: str


class Disarm(Message, frozen=True):
    """adapter: nobody waits any more (timeout, cancelled); the override stays until the session
    closes. A call that started meanwhile is hung up. -> Done"""

    session: str


class Dial(Message, frozen=True):
    """adapter: place a call. Idempotent by ``request`` (32 hex digits, journalled before Twilio is
    asked). ``timeout`` counts from when Twilio was asked: what is not answered then is hung up and
    DialFailed(status="timeout") is told. -> Dialled once Twilio has taken it; before that
    DialQueued events tell its place when it has to wait its turn.

    Errors: CarrierError, InvalidRequestError, WrongModeError; b-leg: as Arm's, for the callee.
    """

    session: str
    request: str
    to: str
    mode: DialMode
    timeout: float
    max_duration: float
    trace: dict[str, str] = {}


class Dialled(Message, frozen=True):
    """``sid`` is the leg that we dialled. In originate mode the call is live from now on as far as
    trunkline can tell; in the others CallStarted follows."""

    call: str
    sid: str


class CancelDial(Message, frozen=True):
    """adapter: the caller of place_call is gone; hang up whatever came of the request. -> Done"""

    session: str
    request: str


class HangUp(Message, frozen=True):
    """adapter: end this call (``reason`` "hang_up", or "max_duration"). -> Done once REST took it;
    CallEnded follows."""

    session: str
    call: str


class SendDigits(Message, frozen=True):
    """adapter: DTMF by REST ``<Play digits>`` to the leg that does not carry our stream (b-leg,
    originate), followed by a pause so that the call lives on. -> Done

    Errors: WrongModeError where the leg carries our stream (the adapter sends tones then).
    """

    session: str
    call: str
    digits: str


class CloseSession(Message, frozen=True):
    """adapter: hang up what it has, restore its numbers, end the session. -> SessionClosed"""

    session: str


class SessionClosed(Message, frozen=True):
    """``pending``: numbers whose restore did not succeed yet and is being tried on."""

    session: str
    pending: list[str] = []


class GetStatus(Message, frozen=True):
    """Anyone: the object of ``trunkline status --json``. -> StatusReport"""


class StatusReport(Message, frozen=True):
    status: dict[str, Any]


class VoiceWebhook(Message, frozen=True):
    """gateway: Twilio posted to /twilio/voice with a valid signature. ``form`` holds the fields
    (the first value of each), ``query`` the query of the URL that was called (the override's mark,
    a redirect's call, a dial's request). -> VoiceAnswer"""

    form: dict[str, str]
    query: dict[str, str] = {}


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
    token: str | None = None
    redirect_query: dict[str, str] = {}


class StatusCallback(Message, frozen=True):
    """gateway: Twilio posted to /twilio/status with a valid signature. -> Done"""

    form: dict[str, str]
    query: dict[str, str] = {}


class StreamStart(Message, frozen=True):
    """gateway: a socket sent ``start`` with this token. -> StreamAccepted or StreamRefused.

    The token is used up by being accepted; it is bound to ``call_sid``.
    """

    token: str
    call_sid: str
    stream_sid: str
    gateway: str


class StreamAccepted(Message, frozen=True):
    """The stream carries this call. ``info`` has the placement, the secret and the ordinal; the
    gateway opens the primary with generation ``first_generation(ordinal)``. ``first`` is False
    when an earlier stream of the call existed: then outbound position is the worker's to know."""

    info: CallInfo
    first: bool


class StreamRefused(Message, frozen=True):
    why: str


class StreamClosed(Message, frozen=True):
    """gateway: a stream that had been accepted is over. Notification (no answer); the beats'
    stream lists repair a lost one."""

    call: str
    ordinal: int
    reason: StreamEndReason
    gateway: str


class Switched(Message, frozen=True):
    """gateway: the call now runs on ``worker`` with ``generation``. Notification."""

    call: str
    generation: int
    worker: str
    gateway: str


class WebhooksRefused(Message, frozen=True):
    """gateway: voice webhooks whose signature was missing or wrong, by the number (To) that they
    named, since it was last said. Notification, twenty a second at most; what a stranger may have
    made up, so it is only counted."""

    gateway: str
    numbers: dict[str, int]


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

    peer: str
    id: int
    ttl: float
    body: RequestBody
    trace: dict[str, str] = {}


class Reply(Message, frozen=True):
    id: int
    body: ReplyBody | None = None
    error: ErrorInfo | None = None


# --------------------------------------------------------------------------- control: downwards


class Welcome(Message, frozen=True):
    """The controller knows the peer now. ``epoch`` counts up at each start of a controller on this
    state directory. ``unknown_sessions``: announced sessions that it would not take back (lease
    long gone, wrong secret): their calls are over."""

    epoch: int
    controller: str
    pid: int
    account: str
    public_url: str | None
    lead_ms: int
    version: tuple[int, int] = PROTOCOL
    unknown_sessions: list[str] = []


class Refused(Message, frozen=True):
    """The peer may not join (another protocol major, another account); it says why and ends."""

    error: ErrorInfo


class Pulse(Message, frozen=True):
    """Answer to a Beat. A new epoch here means: say Hello again."""

    epoch: int
    controller: str
    #: False: this controller does not know the peer; say Hello
    known: bool = True


class CallStarted(Message, frozen=True):
    """to the session's adapter: the call's first stream is up; attach to both of its workers."""

    info: CallInfo


class CallPlaced(Message, frozen=True):
    """to the call's gateway and adapter: a newer placement. The gateway, when its active worker is
    not in it or gone, opens the new primary; the adapter attaches to both."""

    call: str
    placement: Placement


class CallReconnecting(Message, frozen=True):
    """to the adapter: the call's stream is gone, the call may come back by a new one."""

    call: str
    ordinal: int


class CallEnded(Message, frozen=True):
    """to the adapter: the call is over. The worker's StreamOver comes on the media plane after the
    last sound; the adapter drains up to it (1 s at most) before it reports the end."""

    call: str
    reason: EndedReason
    by_far_end: bool = False


class DialFailed(Message, frozen=True):
    """to the adapter: the dial ended without a call. ``status``: busy, no-answer, failed, canceled,
    or timeout (of place_call)."""

    request: str
    call: str
    status: str
    sid: str | None = None
    text: str = ""


class DialQueued(Message, frozen=True):
    """to the adapter: the dial waits for its turn (TRUNKLINE_CALLS_PER_SECOND); first is 1."""

    request: str
    place: int
    seconds: float


class SessionLost(Message, frozen=True):
    """to the adapter: the lease ran out or was taken away; its numbers are restored."""

    session: str
    why: str


class WebhooksCounted(Message, frozen=True):
    """to the session's adapter: so many voice webhooks more came for it, ``rejected`` of them were
    refused (signature, caller, or busy). The redirects of a known call are not counted."""

    session: str
    received: int
    rejected: int = 0


class CloseStream(Message, frozen=True):
    """to a gateway: close this call's socket (its REST hang-up did not, or cannot, end it)."""

    call: str


Event = (
    CallStarted
    | CallPlaced
    | CallReconnecting
    | CallEnded
    | DialFailed
    | DialQueued
    | SessionLost
    | WebhooksCounted
    | CloseStream
)
Notification = StreamClosed | Switched | WebhooksRefused

#: what the controller's ROUTER receives
ToController = Hello | Beat | Goodbye | Request | StreamClosed | Switched | WebhooksRefused
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
    | SessionLost
    | WebhooksCounted
    | CloseStream
)


# --------------------------------------------------------------------------- media: to a worker


class MediaHello(PackedMessage, frozen=True):
    """First message of a gateway or an adapter on a media DEALER. Not answered; a worker that
    speaks another major answers MediaRefused. ``peer`` is the control peer id."""

    role: Role
    peer: str
    major: int = PROTOCOL[0]


class InFrame(Packed, frozen=True):
    """Sound as the carrier sent it: ``payload`` begins at ``position`` of stream ``ordinal``."""

    call: str
    generation: int
    ordinal: int
    position: int
    payload: bytes


class Inbound(PackedMessage, frozen=True):
    """gateway -> worker: all calls' frames that one tick of the gateway's loop received."""

    frames: list[InFrame]


class DigitIn(Packed, frozen=True):
    """A DTMF digit that the carrier reported: the ``index``-th (from 1) of its stream."""

    ordinal: int
    index: int
    digit: str


class OpenCall(PackedMessage, frozen=True):
    """gateway -> worker: from now on you are the active worker of this call.

    Sent for a new stream and when the gateway moves the call to another worker. The worker takes
    it when ``generation`` is newer than what it has; the old state, if it has some, goes on.

    ``out_next``: the outbound position that follows the last frame written to this stream's socket
    (0 for a call's first stream); None for a later stream: then the worker resumes at the last
    position acknowledged to it or, without state, at the one that the adapter's Resume names.
    ``ring``: the recent inbound frames of this stream (up to 10 s) that a fresh worker may need;
    the adapter's Resume says from where. ``digits`` likewise; the adapter ignores what it has.
    ``secret`` is what an Attach must show. ``playback`` is the playback generation (clears sent).
    ``lead_ms``: how much sound to keep ahead in the carrier's buffer.
    """

    call: str
    generation: int
    ordinal: int
    secret: str
    out_next: int | None
    playback: int
    ring: list[InFrame]
    digits: list[DigitIn]
    lead_ms: int
    trace: dict[str, str]


class WrittenTo(Packed, frozen=True):
    """The gateway handed sound up to outbound ``position`` (exclusive) to the carrier's socket."""

    call: str
    generation: int
    position: int


class Written(PackedMessage, frozen=True):
    """gateway -> worker: acknowledgements of one Outbound batch."""

    calls: list[WrittenTo]


class MarkReached(PackedMessage, frozen=True):
    """gateway -> worker: the carrier returned this mark, in this playback generation."""

    call: str
    generation: int
    name: str


class Digit(PackedMessage, frozen=True):
    """gateway -> worker: a DTMF digit arrived."""

    call: str
    generation: int
    digit: DigitIn


class StreamEnded(PackedMessage, frozen=True):
    """gateway -> worker: no more sound comes on stream ``ordinal``. It comes after the stream's
    last Inbound. The call may come back on a later stream, so playout freezes."""

    call: str
    generation: int
    ordinal: int
    reason: StreamEndReason


class CloseCall(PackedMessage, frozen=True):
    """gateway -> worker: the call has moved to another worker, or is over: forget it."""

    call: str
    generation: int


class Attach(PackedMessage, frozen=True):
    """adapter -> worker: I am this call's client. Sent to primary and standby as soon as a
    placement names them. A worker keeps it (also before OpenCall comes) for as long as the adapter
    is connected. Once the call is open here the worker answers Opened, to a wrong secret
    AttachRefused."""

    call: str
    secret: str


class Resume(PackedMessage, frozen=True):
    """adapter -> worker: answer to Opened; the worker hands out nothing of the call before it.

    ``ordinal``, ``position``: the stream position from which it wants inbound sound (what it has
    heard up to; 0, 0 on a fresh call); ``call_position``: the call time of that point;
    ``idle``: seconds since it last heard something, so that a worker without state can count what
    no stream delivered. ``played``: outbound position acknowledged so far. ``floor``: outbound
    sound before this position was interrupted and must not be sent (a Clear follows if some of it
    may lie at the carrier: when ``interrupt`` is newer than what the worker knows).
    """

    call: str
    generation: int
    ordinal: int
    position: int
    call_position: int
    idle: float
    played: int
    floor: int
    interrupt: int


class Speak(PackedMessage, frozen=True):
    """adapter -> worker: ``pcm`` begins at outbound ``position``; its length is a multiple of three
    samples. Contiguous, but for the jump after an interrupt."""

    call: str
    generation: int
    position: int
    pcm: bytes


class Interrupt(PackedMessage, frozen=True):
    """adapter -> worker: drop what is queued, clear what lies at the carrier; what is spoken next
    begins at ``resume_at``. ``serial`` counts the call's interrupts from 1. -> Interrupted"""

    call: str
    generation: int
    serial: int
    resume_at: int


class SetMark(PackedMessage, frozen=True):
    """adapter -> worker: tell me when sound up to outbound ``position`` has been played. Resent
    after a Resume; a position already sent is marked at once. -> MarkPlayed"""

    call: str
    generation: int
    name: str
    position: int


class Detach(PackedMessage, frozen=True):
    """adapter -> worker: the client is done with this call."""

    call: str


ToWorker = (
    MediaHello
    | Inbound
    | OpenCall
    | Written
    | MarkReached
    | Digit
    | StreamEnded
    | CloseCall
    | Attach
    | Resume
    | Speak
    | Interrupt
    | SetMark
    | Detach
)


# --------------------------------------------------------------------------- media: from a worker


class OutFrame(Packed, frozen=True):
    """Up to 160 bytes of sound to write to the call's socket now; it begins at ``position``."""

    call: str
    generation: int
    position: int
    payload: bytes


class Outbound(PackedMessage, frozen=True):
    """worker -> gateway: all of this gateway's frames that are due in one tick.
    The gateway writes those whose generation is current and whose position is the one that follows
    the last (others are dropped and counted), then acknowledges with Written."""

    frames: list[OutFrame]


class Clear(PackedMessage, frozen=True):
    """worker -> gateway: send ``clear``; the next frame begins at ``next_position``. The playback
    generation becomes ``playback``."""

    call: str
    generation: int
    next_position: int
    playback: int


class Mark(PackedMessage, frozen=True):
    """worker -> gateway: send ``mark`` with this name after what was written so far."""

    call: str
    generation: int
    name: str


class Tick(PackedMessage, frozen=True):
    """worker -> gateways and adapters, each 100 ms, whatever else it sends: the loop is alive.
    A gateway that has not seen one for 500 ms moves the calls of that worker."""

    worker: str
    n: int


class OpenRefused(PackedMessage, frozen=True):
    """worker -> gateway: it cannot take the call (draining, or too many)."""

    call: str
    generation: int
    why: str


class MediaRefused(PackedMessage, frozen=True):
    """worker -> gateway or adapter: another protocol major."""

    text: str


class AttachRefused(PackedMessage, frozen=True):
    """worker -> adapter: the secret is not this call's."""

    call: str


class Opened(PackedMessage, frozen=True):
    """worker -> adapter: this worker is now the active one; answer with Resume. ``out_next`` is the
    outbound position from which it needs sound, or None: the adapter's ``played`` decides.
    The adapter ignores an Opened older than the newest generation it has seen."""

    call: str
    generation: int
    ordinal: int
    out_next: int | None


class Sound(Packed, frozen=True):
    """Sound from the far end: ``pcm`` begins at call time ``position``. ``ordinal`` and
    ``stream_end``: the stream position that follows it (for Resume). ``lost``: samples at 8 kHz
    just before it that never arrived."""

    call: str
    generation: int
    position: int
    ordinal: int
    stream_end: int
    lost: int
    pcm: bytes


class Heard(PackedMessage, frozen=True):
    """worker -> adapter: what was heard in one tick, for all of its calls."""

    sounds: list[Sound]


class PlayedTo(Packed, frozen=True):
    """Sound up to outbound ``position`` (exclusive) was acknowledged by the gateway. ``idle``: less
    than one frame is left to send, and it goes out in time by itself."""

    call: str
    generation: int
    position: int
    idle: bool


class Played(PackedMessage, frozen=True):
    """worker -> adapter: acknowledgements of one tick."""

    calls: list[PlayedTo]


class Interrupted(PackedMessage, frozen=True):
    """worker -> adapter: interrupt ``serial`` is done; sound up to ``sent_to`` had been sent."""

    call: str
    generation: int
    serial: int
    sent_to: int


class MarkPlayed(PackedMessage, frozen=True):
    """worker -> adapter: the mark came back; ``played`` False: a clear came before it."""

    call: str
    generation: int
    name: str
    played: bool


class DigitHeard(PackedMessage, frozen=True):
    """worker -> adapter: a digit; the adapter ignores one it has (ordinal, index)."""

    call: str
    generation: int
    digit: DigitIn


class Loss(PackedMessage, frozen=True):
    """worker -> adapter: sound that was lost and why: inbound (never arrived), outbound (queue
    bound, or unplayed at the carrier when its stream broke). ``samples`` at 8 kHz."""

    call: str
    generation: int
    direction: Direction
    samples: int
    why: str


class StreamOver(PackedMessage, frozen=True):
    """worker -> adapter: all that stream ``ordinal`` brought has been handed out before this."""

    call: str
    generation: int
    ordinal: int
    reason: StreamEndReason


#: what a gateway's media DEALER receives
WorkerToGateway = Outbound | Clear | Mark | Tick | OpenRefused | MediaRefused
#: what an adapter's media DEALER receives
WorkerToAdapter = (
    Opened
    | Heard
    | Played
    | Interrupted
    | MarkPlayed
    | DigitHeard
    | Loss
    | StreamOver
    | Tick
    | AttachRefused
    | MediaRefused
)
