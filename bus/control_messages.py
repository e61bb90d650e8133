"""The control plane: how a peer joins and stays known, and the envelopes of its requests.

Peers are gateways, codec workers and clients; each has one connection to the controller. This
module has the messages that every kind of peer sends or gets. adapter_messages.py has those of
clients alone, gateway_messages.py those of gateways alone. The unions at the end name everything
that may travel in each direction. Each message is a map with its class's name as ``type``. See
messages.py for units, docs/bus.md for the story.
"""

# ruff: noqa: RUF012  # msgspec gives each instance an empty list or dict of its own

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from .adapter_messages import (
    AnsweredBy,
    Arm,
    Armed,
    CallEnded,
    CallHeard,
    CallReconnecting,
    CallStarted,
    CancelDial,
    CloseSession,
    Dial,
    DialFailed,
    Dialled,
    DialQueued,
    DigitsPlayed,
    Disarm,
    HangUp,
    InterruptByHand,
    Listen,
    Listening,
    OpenSession,
    PoolQueued,
    SendDigits,
    SessionClosed,
    SessionInfo,
    SessionLost,
    SessionOpened,
    SpeakByHand,
    WebhooksCounted,
)
from .call_records import Placement
from .errors import ErrorInfo
from .gateway_messages import (
    CallMoved,
    CallSound,
    CloseStream,
    Levels,
    StatusCallback,
    StreamAccepted,
    StreamClosed,
    StreamInfo,
    StreamRefused,
    StreamStart,
    StreamStats,
    StreamTurn,
    VoiceAnswer,
    VoiceWebhook,
    Watch,
    WebhooksRefused,
)
from .wire import (
    PROTOCOL,
    Counts,
    Endpoint,
    Fields,
    Known,
    Message,
    Name,
    Number,
    PeerName,
    Record,
    Role,
    Seconds,
    Span,
    Sum,
    Text,
)


class CallStats(Record, frozen=True):
    """Counters of one call at its active worker, since that worker opened it."""

    call: Known
    generation: Number
    frames_in: Number = 0
    frames_out: Number = 0
    frames_lost: Number = 0
    underruns: Number = 0
    seconds: Seconds = 0.0


class Tally(Record, frozen=True):
    """A histogram of one process since its start. ``counts``: how often a figure lay in each
    bucket, and beyond the last bucket. ``sum``: of all figures. Both sides know the buckets
    (bus/histogram.py)."""

    counts: Annotated[list[Number], Meta(max_length=64)]
    sum: Sum = 0.0


# ---------------------------------------------------------------- joining, and staying known


class Hello(Message, frozen=True):
    """First message of a peer on a new control socket. It says Hello again whenever a Pulse shows
    a new epoch, or that the controller does not know it.

    ``peer`` stays the same for the life of the process (the ZeroMQ identity does not). The Hello
    announces everything that the peer holds, so that a restarted controller learns it again.

    A name belongs to the connection that said it first, until that connection is gone, and a
    connection has one name. Whatever comes in the peer's name on another connection is dropped.
    ``key`` is made at random by the process, which says it to nobody else. With the key the process
    may come back on a newer connection at once. Without it nobody may have the name for as long as
    the controller remembers the peer (a minute). ``connection`` counts the peer's sockets from 1,
    so that the controller recognises a Hello of an older socket, which can arrive late.

    ``stack``: the stack that the peer wants, and whose sessions or streams it announces. Empty: the
    stack of the controller at this address. Without a database the field means nothing.

    Answered by :class:`Welcome`, :class:`Moved` or :class:`Refused`. There is no answer if the name
    is another peer's.
    """

    role: Role
    peer: PeerName
    pid: Number
    version: tuple[Number, Number] = PROTOCOL
    connection: Number = 0
    key: Name = ""
    #: gateway, codec_worker: the machine on which it runs, or "" where it does not say. A call is
    #: placed on a worker on its gateway's machine, if there is one with room.
    host: Name = ""
    #: codec_worker: the endpoint of its media ROUTER, and the calls that it has
    endpoint: Endpoint | None = None
    calls: list[CallStats] = []
    #: gateway: its live streams
    streams: list[StreamInfo] = []
    #: client: its sessions
    sessions: list[SessionInfo] = []
    account: Name | None = None
    stack: Name = ""


class ControllerRef(Record, frozen=True):
    """A controller of the fleet: its stack's id, and the address of its bus (``TRUNKLINE_BUS``). If
    a controller has died, another one runs its stack at an address of its own."""

    stack: Name
    bus: Endpoint


class Welcome(Message, frozen=True):
    """The controller knows the peer now.

    ``stack`` is the id of the stack: it stays the same for as long as its state directory lives.
    ``epoch`` counts up at each start of a controller on that directory. ``unknown_sessions`` are
    announced sessions that the controller did not take back, because their lease was long gone or
    their secret wrong. Their calls are over. ``fleet``: as in :class:`Fleet`.
    """

    epoch: Number
    stack: Name
    pid: Number
    account: Name
    public_url: Text | None
    lead_ms: Number
    version: tuple[Number, Number] = PROTOCOL
    unknown_sessions: list[Name] = []
    fleet: list[ControllerRef] = []


class Fleet(Message, frozen=True):
    """to every peer, when the list has changed: the controllers that share an account, a public URL
    and a database. The list is empty without a database.

    A gateway and a codec worker connect to each controller. A client goes to another controller if
    its own is gone.
    """

    controllers: list[ControllerRef]


class Moved(Message, frozen=True):
    """Answer to a Hello that asks for another stack than this controller runs. The stack is at
    ``bus``, as far as is known. None: the stack is over. This controller has run it for a
    controller that died, until nothing was left of it."""

    stack: Name
    bus: Endpoint | None = None


class Refused(Message, frozen=True):
    """The peer may not join: it speaks another protocol major, names another account, or its Hello
    could not be handled. A gateway or worker whose own controller refuses it reports
    ``error`` and ends. A client's requests fail with it."""

    error: ErrorInfo


class Beat(Message, frozen=True):
    """Sent by every peer each 0.5 s. One in 4 s is answered by Pulse.

    A client's Beat renews the leases of its sessions. It comes from a thread of its own, so that
    a blocked event loop does not lose the call.

    ``refused``, of a gateway: how much it has refused since it started, by kind (bus/refusals.py).
    A stranger can cause refusals, so they are only shown.
    ``dropped``: how many messages of the bus the peer has dropped, by the reason. "undecodable"
    counts mistakes of its peers, and "fault" its own.
    ``measured``: the peer's histograms, by name, for /metrics. A worker and a gateway have
    "wakeup_lateness", and a gateway also has "jitter".
    """

    peer: PeerName
    calls: list[CallStats] = []
    streams: list[StreamStats] = []
    sessions: list[Name] = []
    refused: Counts = {}
    dropped: Counts = {}
    measured: Annotated[dict[Known, Tally], Meta(max_length=64)] = {}


class Pulse(Message, frozen=True):
    """Answer to a Beat, once in 4 s. A new epoch here means: say Hello again.

    To gateways a Pulse also comes whenever ``workers`` changes: how many codec workers are healthy,
    as far as is known. Without a healthy worker no sound moves, and the gateway's health check says
    so.
    """

    epoch: Number
    stack: Name
    #: False: this controller does not know the peer; say Hello
    known: bool = True
    workers: Number | None = None


class Goodbye(Message, frozen=True):
    """The peer ends in an orderly way: a worker's calls are placed elsewhere, a client's sessions
    were closed before, a gateway takes no new streams."""

    peer: PeerName


# ---------------------------------------------------------------- for more than one kind of peer


class GetStatus(Message, frozen=True):
    """Anyone: the object of ``trunkline status --json``. -> StatusReport"""


class StatusReport(Message, frozen=True):
    status: dict[Known, Any]


class GetConsole(Message, frozen=True):
    """Anyone: where the console is, with the token that lets its page act. The token gives nothing
    away: whoever reaches the bus can hang up every call anyway. -> ConsoleLink"""


class ConsoleLink(Message, frozen=True):
    """``token`` is new at each start of the controller."""

    url: Text
    token: Name


class Done(Message, frozen=True):
    """The request was carried out. It has no other result."""


class CallPlaced(Message, frozen=True):
    """to the call's gateway and client: a newer placement.

    The client attaches to both workers of the placement. The gateway opens the call at the new
    primary, if its active worker is gone or does not belong to this placement. A gateway whose
    Hello shows an older placement gets this message again.
    """

    call: Name
    placement: Placement


# ---------------------------------------------------------------- requests and their replies

RequestBody = (
    OpenSession
    | Arm
    | Disarm
    | Dial
    | CancelDial
    | HangUp
    | SendDigits
    | Listen
    | CloseSession
    | GetStatus
    | GetConsole
    | VoiceWebhook
    | StatusCallback
    | StreamStart
)
ReplyBody = (
    SessionOpened
    | Armed
    | Dialled
    | DigitsPlayed
    | Listening
    | SessionClosed
    | StatusReport
    | ConsoleLink
    | VoiceAnswer
    | StreamAccepted
    | StreamRefused
    | Done
)


class Request(Message, frozen=True):
    """Answered exactly once by a Reply with the same id. If a peer sends the same ``id`` again
    (after a reconnect), it is the same request: the controller carries it out once, and repeats its
    answer. A request whose ``ttl`` has run out is not begun."""

    peer: PeerName
    id: Number
    ttl: Span
    body: RequestBody
    trace: Fields = {}


class Reply(Message, frozen=True):
    id: Number
    body: ReplyBody | None = None
    error: ErrorInfo | None = None


# ---------------------------------------------------------------- what travels in each direction

Event = (
    Fleet
    | CallStarted
    | CallPlaced
    | CallReconnecting
    | CallEnded
    | AnsweredBy
    | DialFailed
    | DialQueued
    | PoolQueued
    | SessionLost
    | WebhooksCounted
    | CloseStream
    | StreamTurn
    | Watch
    | InterruptByHand
    | SpeakByHand
)
GatewayNotification = StreamClosed | CallMoved | WebhooksRefused | Levels | CallSound
Notification = GatewayNotification | CallHeard

#: what the controller's ROUTER receives
ToController = Hello | Beat | Goodbye | Request | Notification
#: what a control DEALER receives
FromController = Welcome | Refused | Moved | Pulse | Reply | Event
