"""Messages of the media plane: between a codec worker and the gateways and clients of its calls.

Each is an array that begins with its name: there are thousands a second. See messages.py for units,
docs/bus.md for the story.
"""

from __future__ import annotations

import msgspec

from .wire import (
    PROTOCOL,
    Direction,
    Fields,
    Gathered,
    Known,
    Moment,
    Name,
    Number,
    Ordinal,
    Packed,
    PackedMessage,
    PeerName,
    Position,
    Role,
    Span,
    StreamEndReason,
    Text,
)

# --------------------------------------------------------------------------- media: to a worker


class MediaHello(PackedMessage, frozen=True):
    """First message of a gateway or a client on a media DEALER. It is not answered, but a worker
    that speaks another major answers MediaRefused. ``peer`` is the control peer id."""

    role: Role
    peer: PeerName
    major: Number = PROTOCOL[0]


class InFrame(Packed, frozen=True):
    """Sound as the carrier sent it: ``payload`` begins at ``position`` of stream ``ordinal``. It is
    one frame, or two that the gateway has read together."""

    call: Known
    generation: Number
    ordinal: Ordinal
    position: Position
    payload: bytes


class WrittenTo(Packed, frozen=True):
    """The gateway handed sound up to outbound ``position`` (exclusive) to the carrier's socket.
    ``ahead``: samples of that sound that lie unplayed at the carrier when this is sent. So a worker
    knows how long the carrier's buffer was dry if the gateway stood still. None: the gateway does
    not say."""

    call: Known
    generation: Number
    position: Position
    ahead: Position | None = None


class Inbound(PackedMessage, frozen=True):
    """gateway -> worker: everything that the gateway gathered for this worker since the last
    Inbound, over 20 ms at most, or over 40 where the worker wants frames in pairs (Pair).
    ``frames`` are the sound of all calls, in the order in which it came. ``written`` acknowledges
    one Outbound or several: how far each call's sound was written. It comes with the frames because
    a message of its own would wake the worker once more.

    ``at``: the gateway's monotonic clock (seconds) when it sends this. On one host that is the
    worker's clock too, so the worker knows how long the message was on its way. If ``at`` lies
    before the worker's last look at the socket, or in the future, it is another host's clock; the
    worker ignores it.
    """

    frames: list[InFrame]
    written: list[WrittenTo] = msgspec.field(default_factory=list)
    at: Moment | None = None


class DigitIn(Packed, frozen=True):
    """A DTMF digit that the carrier reported: the ``index``-th (from 1) of its stream."""

    ordinal: Ordinal
    index: Number
    digit: Known


class OpenCall(PackedMessage, frozen=True):
    """gateway -> worker: from now on you are the active worker of this call.

    Sent for a new stream, and when the gateway moves the call to another worker. The worker takes
    the call if ``generation`` is newer than its own. A worker that knows the call goes on from what
    it knows.

    - ``out_next``: the outbound position that follows the last frame written to this stream's
      socket (0 for a call's first stream). None for a later stream: then the worker goes on at the
      last position acknowledged to it. A fresh worker goes on at the position in the client's
      Resume.
    - ``ring``: the recent inbound frames of this stream (up to 10 s). A fresh worker needs those
      from the position named in the client's Resume.
    - ``digits``: the recent digits likewise. The client ignores those that it has.
    - ``secret``: an Attach must show it.
    - ``playback``: the playback generation (clears sent).
    - ``lead_ms``: how much sound to keep ahead in the carrier's buffer.
    - ``ahead``: samples of this stream that lie unplayed at the carrier now, so that the next
      worker does not put its lead on top of the last worker's lead. For a stream that has ended,
      the samples that lay there at its end.
    - ``one_way``: the stream takes no sound of ours; playout stays frozen until the next stream.
    - ``joins``: the stream already brought the far end's sound while the stream before it still
      did. The worker joins the two, so that nothing is heard twice. If one of the two streams
      before it is at another gateway, the worker takes that stream's frames up to the joint, its
      digits and its StreamEnded, though their generation is older. It even takes that stream's
      OpenCall, if that comes behind this one.
    """

    call: Name
    generation: Number
    ordinal: Ordinal
    secret: Name
    out_next: Position | None
    playback: Number
    ring: list[InFrame]
    digits: list[DigitIn]
    lead_ms: Number
    trace: Fields
    ahead: Position = 0
    one_way: bool = False
    joins: bool = False


class MarkReached(PackedMessage, frozen=True):
    """gateway -> worker: the carrier returned this mark. If a clear threw the mark out, the worker
    no longer waits for it, and ignores this message."""

    call: Known
    generation: Number
    name: Text


class Digit(PackedMessage, frozen=True):
    """gateway -> worker: a DTMF digit arrived."""

    call: Known
    generation: Number
    digit: DigitIn


class StreamEnded(PackedMessage, frozen=True):
    """gateway -> worker: no more sound comes on stream ``ordinal``. This comes after the stream's
    last Inbound, which also says how far sound was written to the stream. The call may come back on
    a later stream, so playout freezes. ``unplayed``: samples that lay at the carrier at the end,
    and were never heard. The gateway says so because the worker may read this late, or may have got
    the call only now. None: the gateway speaks an older minor, and the worker has to reckon by its
    own clock."""

    call: Known
    generation: Number
    ordinal: Ordinal
    reason: StreamEndReason
    unplayed: Position | None = None


class CloseCall(PackedMessage, frozen=True):
    """gateway -> worker: the call has moved to another worker, or is over: forget it."""

    call: Known
    generation: Number


class Attach(PackedMessage, frozen=True):
    """client -> worker: I am this call's client. Sent to primary and standby as soon as a
    placement names them. A worker keeps the Attach (also before OpenCall comes) for as long as the
    client is connected. Once the call is open at the worker, it answers Opened, or AttachRefused if
    the secret is wrong."""

    call: Name
    secret: Name


class Resume(PackedMessage, frozen=True):
    """client -> worker: answer to Opened; the worker hands out nothing of the call before it.

    - ``ordinal``, ``position``: the client has heard up to this stream position, and wants the
      sound from there on (0, 0 on a fresh call).
    - ``call_position``: the call time of that point.
    - ``idle``: seconds since the client last heard something. By these a fresh worker counts the
      sound that no stream delivered.
    - ``acknowledged``: the outbound position acknowledged so far.
    - ``floor``: outbound sound before this position was interrupted and must not be sent.
    - ``interrupt``: the serial of the client's last interrupt. If the worker does not know that
      interrupt yet, some of the interrupted sound may lie at the carrier, and a Clear follows.
    - ``heard``: the last sound that the client has heard, as mu-law, up to ``position``. By it a
      worker that did not have that stream finds where the next stream goes on.
    """

    call: Known
    generation: Number
    ordinal: Ordinal
    position: Position
    call_position: Position
    idle: Span
    acknowledged: Position
    floor: Position
    interrupt: Number
    heard: bytes = b""


class Gather(PackedMessage, frozen=True):
    """client -> worker: from now on hand out this call's sound in pieces of at least ``samples``
    samples at 8 kHz, because nobody would be woken by less. 0: hand it out as it comes. Every
    Resume resets it to 0. Sent when the wanted length changes, and behind a Resume. Sound that
    already waits for a longer piece is then handed out at once. A seam, a digit or the stream's end
    does not wait for a piece to be full."""

    call: Known
    generation: Number
    samples: Gathered


class Speak(PackedMessage, frozen=True):
    """client -> worker: ``pcm`` begins at outbound ``position``; its length is a multiple of three
    samples. It follows the last Speak without a gap, but for the jump after an interrupt."""

    call: Known
    generation: Number
    position: Position
    pcm: bytes


class Interrupt(PackedMessage, frozen=True):
    """client -> worker: drop all queued sound, and clear the sound that lies at the carrier. The
    next speech begins at ``resume_at``. ``serial`` counts the call's interrupts from 1.
    -> Interrupted"""

    call: Known
    generation: Number
    serial: Number
    resume_at: Position


class SetMark(PackedMessage, frozen=True):
    """client -> worker: tell me when sound up to outbound ``position`` has been played. The client
    sends it again after a Resume. If the sound has already been sent, the mark goes out at once.
    -> MarkPlayed"""

    call: Known
    generation: Number
    name: Text
    position: Position


class Detach(PackedMessage, frozen=True):
    """client -> worker: the client is done with this call. The worker forgets it as soon as it has
    no stream either."""

    call: Known


ToWorker = (
    MediaHello
    | Inbound
    | OpenCall
    | MarkReached
    | Digit
    | StreamEnded
    | CloseCall
    | Attach
    | Resume
    | Gather
    | Speak
    | Interrupt
    | SetMark
    | Detach
)


# --------------------------------------------------------------------------- media: from a worker


class OutFrame(Packed, frozen=True):
    """Sound to write to the call's socket now, as one message: a frame, a part of one, or two whole
    ones. It begins at ``position``."""

    call: Known
    generation: Number
    position: Number
    payload: bytes


class Outbound(PackedMessage, frozen=True):
    """worker -> gateway: all of this gateway's frames that are due in one tick, and the frames that
    share a message with these. The gateway writes a frame if its generation is current and its
    position follows the last one written. It drops and counts other frames, and acknowledges with
    its next Inbound. ``ends``: a call has run out of sound, and its speaker may be waiting for the
    acknowledgement before it says the next 20 ms. So the gateway sends that Inbound at once, and
    does not wait for a frame."""

    frames: list[OutFrame]
    ends: bool = False


class Clear(PackedMessage, frozen=True):
    """worker -> gateway: send ``clear``; the next frame begins at ``next_position``. The playback
    generation becomes ``playback``."""

    call: Known
    generation: Number
    next_position: Number
    playback: Number


class Mark(PackedMessage, frozen=True):
    """worker -> gateway: send ``mark`` with this name after what was written so far."""

    call: Known
    generation: Number
    name: Text


class Tick(PackedMessage, frozen=True):
    """worker -> gateways and clients to which it has sent nothing else for 100 ms: the loop is
    alive. A gateway that has heard nothing from a worker for 500 ms moves the worker's calls."""

    worker: PeerName
    n: Number


class Pair(PackedMessage, frozen=True):
    """worker -> gateway: ``on``: send what came in 40 ms in one Inbound, because all of my calls
    take their sound in large pieces. So an Inbound wakes me half as often. Any other message goes
    out as it comes, behind the frames that wait. An OpenCall ends the sending in pairs."""

    on: bool


class OpenRefused(PackedMessage, frozen=True):
    """worker -> gateway: the worker does not take the call (it drains, has too many calls, or has
    this call with another secret), or gives the call back, because its sound cannot be worked on.
    ``why`` says which; the gateway tries another worker."""

    call: Known
    generation: Number
    why: Text


class MediaRefused(PackedMessage, frozen=True):
    """worker -> gateway or client: you speak another protocol major than I do."""

    text: Text


class AttachRefused(PackedMessage, frozen=True):
    """worker -> client: the secret is not this call's."""

    call: Known


class Opened(PackedMessage, frozen=True):
    """worker -> client: this worker is now the active one; answer with Resume. ``out_next`` is the
    outbound position from which the worker needs sound. None: the client's ``acknowledged``
    decides. ``unplayed``: samples that earlier streams lost, as far as this worker knows. They
    count only if this worker had the last of those streams until it ended, and this is the first
    Opened of a later stream. The client ignores an Opened older than the newest generation it has
    seen."""

    call: Known
    generation: Number
    ordinal: Ordinal
    out_next: Number | None
    unplayed: Number = 0


class Sound(Packed, frozen=True):
    """Sound from the far end: ``pcm`` begins at call time ``position``. ``ordinal`` and
    ``stream_end``: the stream position that follows the sound (for Resume). ``lost``: samples at
    8 kHz just before the sound that never arrived. ``codes``: the same sound as the carrier sent
    it, as mu-law at 8 kHz, one byte for each position. A client keeps ``codes`` for a call's
    report, because it is a sixth of ``pcm``; b"": the worker does not send it."""

    call: Known
    generation: Number
    position: Number
    ordinal: Ordinal
    stream_end: Number
    lost: Number
    pcm: bytes
    codes: bytes = b""


class AcknowledgedTo(Packed, frozen=True):
    """Sound up to outbound ``position`` (exclusive) was acknowledged by the gateway. ``idle``: less
    than one frame is left to send, and that rest goes out in time without more speech."""

    call: Known
    generation: Number
    position: Number
    idle: bool


class Heard(PackedMessage, frozen=True):
    """worker -> client: the sound that the client's calls heard in one tick, and how far their own
    sound was acknowledged in that tick. Either may be empty. Both go in one message because each
    message wakes the client."""

    sounds: list[Sound]
    acknowledged: list[AcknowledgedTo] = msgspec.field(default_factory=list)


class Interrupted(PackedMessage, frozen=True):
    """worker -> client: interrupt ``serial`` is done; sound up to ``sent_to`` had been sent."""

    call: Known
    generation: Number
    serial: Number
    sent_to: Number


class MarkPlayed(PackedMessage, frozen=True):
    """worker -> client: the mark came back. ``played`` False: a clear threw it out."""

    call: Known
    generation: Number
    name: Text
    played: bool


class DigitHeard(PackedMessage, frozen=True):
    """worker -> client: a digit. The client ignores a digit that it has already, by (ordinal,
    index)."""

    call: Known
    generation: Number
    digit: DigitIn


class Loss(PackedMessage, frozen=True):
    """worker -> client: outbound sound that was lost, and why (the queue's bound, or unplayed at
    the carrier when its stream broke). ``samples`` at 8 kHz. ``direction`` is always "outbound":
    inbound sound that never arrived stands in ``Sound.lost``."""

    call: Known
    generation: Number
    direction: Direction
    samples: Number
    why: Text


class StreamOver(PackedMessage, frozen=True):
    """worker -> client: all sound of stream ``ordinal`` has been handed out before this.
    ``late``: how long the far end has waited within our utterances, because their sound came late
    (samples at 8 kHz, since this worker has the call)."""

    call: Known
    generation: Number
    ordinal: Ordinal
    reason: StreamEndReason
    late: Number = 0


#: what a gateway's media DEALER receives
WorkerToGateway = Outbound | Clear | Mark | Tick | Pair | OpenRefused | MediaRefused
#: what a client's media DEALER receives
WorkerToAdapter = (
    Opened
    | Heard
    | Interrupted
    | MarkPlayed
    | DigitHeard
    | Loss
    | StreamOver
    | Tick
    | AttachRefused
    | MediaRefused
)
