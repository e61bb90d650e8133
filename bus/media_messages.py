"""Messages of the media plane: between a codec worker and the gateways and adapters of its calls.

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
    """First message of a gateway or an adapter on a media DEALER. Not answered; a worker that
    speaks another major answers MediaRefused. ``peer`` is the control peer id."""

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
    ``ahead``: samples of it that lie unplayed at the carrier as this is said. So a worker knows how
    long the carrier's buffer was dry where the gateway stood still. None: the gateway does not
    say."""

    call: Known
    generation: Number
    position: Position
    ahead: Position | None = None


class Inbound(PackedMessage, frozen=True):
    """gateway -> worker: everything that the gateway gathered for this worker since the last one,
    over 20 ms at most, or over 40 where the worker wants it in pairs (Pair). ``frames`` are the
    sound of all calls, in the order in which it came. ``written`` says how far each call's sound
    was written, for one Outbound or several. It comes with the frames because a message of its own
    would wake the worker once more.

    ``at``: the gateway's monotonic clock (seconds) as it says so. On one host that is the worker's
    clock too, so the worker knows how long this word was on its way. A worker that finds ``at``
    before its last look at the socket, or after now, has another host's clock, and passes it over.
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
    it if ``generation`` is newer than its own; if it knows the call, it goes on from what it knows.

    - ``out_next``: the outbound position that follows the last frame written to this stream's
      socket (0 for a call's first stream). None for a later stream: then the worker goes on at the
      last position acknowledged to it or, if it is fresh, at the one in the adapter's Resume.
    - ``ring``: the recent inbound frames of this stream (up to 10 s). A fresh worker needs those
      from the position on that the adapter's Resume names.
    - ``digits``: the recent digits likewise. The adapter ignores those that it has.
    - ``secret``: an Attach must show it.
    - ``playback``: the playback generation (clears sent).
    - ``lead_ms``: how much sound to keep ahead in the carrier's buffer.
    - ``ahead``: samples of this stream that lie unplayed there now, so that the next worker does
      not put its lead on top of the last one's. For a stream that has ended, the samples that lay
      there at its end.
    - ``one_way``: the stream takes no sound of ours; playout stays frozen until the next stream.
    - ``joins``: it brought the far end's sound already while the stream before it still did. The
      worker joins the two, so that nothing is heard twice.
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
    """gateway -> worker: the carrier returned this mark. That may be one which a clear threw out:
    the worker does not wait for it any more, and ignores it."""

    call: Known
    generation: Number
    name: Text


class Digit(PackedMessage, frozen=True):
    """gateway -> worker: a DTMF digit arrived."""

    call: Known
    generation: Number
    digit: DigitIn


class StreamEnded(PackedMessage, frozen=True):
    """gateway -> worker: no more sound comes on stream ``ordinal``. It comes after the stream's
    last Inbound, which also says how far sound was written to it. The call may come back on a
    later stream, so playout freezes. ``unplayed``: samples that lay at the carrier then, and were
    never heard; the worker may read this late, or have got the call only now. None: the gateway
    speaks an older minor, and the worker has to reckon by its own clock."""

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
    """adapter -> worker: I am this call's client. Sent to primary and standby as soon as a
    placement names them. A worker keeps it (also before OpenCall comes) for as long as the adapter
    is connected. Once the call is open here the worker answers Opened, to a wrong secret
    AttachRefused."""

    call: Name
    secret: Name


class Resume(PackedMessage, frozen=True):
    """adapter -> worker: answer to Opened; the worker hands out nothing of the call before it.

    - ``ordinal``, ``position``: the adapter has heard up to this stream position, and wants the
      sound from there on (0, 0 on a fresh call).
    - ``call_position``: the call time of that point.
    - ``idle``: seconds since it last heard something, by which a fresh worker counts the sound that
      no stream delivered.
    - ``acknowledged``: the outbound position acknowledged so far.
    - ``floor``: outbound sound before this position was interrupted and must not be sent. If
      ``interrupt`` is newer than the last one that the worker knows, some of that sound may lie at
      the carrier, and a Clear follows.
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


class Gather(PackedMessage, frozen=True):
    """adapter -> worker: from now on hand out this call's sound in pieces of so many samples at
    8 kHz at least, because nobody would be woken by less. 0 is as it comes, and so is every Resume.
    Sound that waits at the worker is handed out at once, when a larger piece was wanted before.
    Sent when that changes, and behind a Resume. A seam, a digit or the stream's end does not wait
    for a piece to be full."""

    call: Known
    generation: Number
    samples: Gathered


class Speak(PackedMessage, frozen=True):
    """adapter -> worker: ``pcm`` begins at outbound ``position``; its length is a multiple of three
    samples. Contiguous, but for the jump after an interrupt."""

    call: Known
    generation: Number
    position: Position
    pcm: bytes


class Interrupt(PackedMessage, frozen=True):
    """adapter -> worker: drop all queued sound, and clear the sound that lies at the carrier. The
    next speech begins at ``resume_at``. ``serial`` counts the call's interrupts from 1.
    -> Interrupted"""

    call: Known
    generation: Number
    serial: Number
    resume_at: Position


class SetMark(PackedMessage, frozen=True):
    """adapter -> worker: tell me when sound up to outbound ``position`` has been played. Resent
    after a Resume; a position already sent is marked at once. -> MarkPlayed"""

    call: Known
    generation: Number
    name: Text
    position: Position


class Detach(PackedMessage, frozen=True):
    """adapter -> worker: the client is done with this call. The worker forgets it as soon as it has
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
    """worker -> gateway: all of this gateway's frames that are due in one tick, and those that go
    with them.
    The gateway writes those whose generation is current and whose position is the one that follows
    the last (others are dropped and counted), then acknowledges with its next Inbound.
    ``ends``: a call has now sent all that it has, and its speaker may wait for the word of it, to
    say the next 20 ms. So the gateway sends that Inbound at once, and does not wait for a frame."""

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
    """worker -> gateways and adapters to which it has said nothing else for 100 ms: the loop is
    alive. A gateway that has heard nothing of a worker for 500 ms moves its calls."""

    worker: PeerName
    n: Number


class Pair(PackedMessage, frozen=True):
    """worker -> gateway: ``on``: send what came in 40 ms in one Inbound, because all of my calls
    take their sound in large pieces. So an Inbound wakes me half as often.
    Everything else goes out as it comes, and takes along what waits. An OpenCall ends it."""

    on: bool


class OpenRefused(PackedMessage, frozen=True):
    """worker -> gateway: it does not take the call (it drains, has too many, or has this call with
    another secret), or gives it back, because the call's sound cannot be worked on. ``why`` says
    which; the gateway tries another worker."""

    call: Known
    generation: Number
    why: Text


class MediaRefused(PackedMessage, frozen=True):
    """worker -> gateway or adapter: another protocol major."""

    text: Text


class AttachRefused(PackedMessage, frozen=True):
    """worker -> adapter: the secret is not this call's."""

    call: Known


class Opened(PackedMessage, frozen=True):
    """worker -> adapter: this worker is now the active one; answer with Resume. ``out_next`` is the
    outbound position from which it needs sound, or None: the adapter's ``acknowledged`` decides.
    ``unplayed``: samples that the streams before lost, as far as this worker knows. They count if
    it had the last of those streams to its end, and this is the first Opened of a later one.
    The adapter ignores an Opened older than the newest generation it has seen."""

    call: Known
    generation: Number
    ordinal: Ordinal
    out_next: Number | None
    unplayed: Number = 0


class Sound(Packed, frozen=True):
    """Sound from the far end: ``pcm`` begins at call time ``position``. ``ordinal`` and
    ``stream_end``: the stream position that follows it (for Resume). ``lost``: samples at 8 kHz
    just before it that never arrived. ``codes``: the same sound as the carrier sent it, as mu-law
    at 8 kHz, one byte for each position. A client keeps that for a call's report, because it is a
    sixth of ``pcm``; b"": the worker does not say it."""

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
    than one frame is left to send, and it goes out in time by itself."""

    call: Known
    generation: Number
    position: Number
    idle: bool


class Heard(PackedMessage, frozen=True):
    """worker -> adapter: the sound that its calls heard in one tick, and how far their own sound
    was acknowledged in it. Either may be empty. They are one message because each message wakes the
    client."""

    sounds: list[Sound]
    acknowledged: list[AcknowledgedTo] = msgspec.field(default_factory=list)


class Interrupted(PackedMessage, frozen=True):
    """worker -> adapter: interrupt ``serial`` is done; sound up to ``sent_to`` had been sent."""

    call: Known
    generation: Number
    serial: Number
    sent_to: Number


class MarkPlayed(PackedMessage, frozen=True):
    """worker -> adapter: the mark came back; ``played`` False: a clear came before it."""

    call: Known
    generation: Number
    name: Text
    played: bool


class DigitHeard(PackedMessage, frozen=True):
    """worker -> adapter: a digit; the adapter ignores one it has (ordinal, index)."""

    call: Known
    generation: Number
    digit: DigitIn


class Loss(PackedMessage, frozen=True):
    """worker -> adapter: outbound sound that was lost, and why (the queue's bound, or unplayed at
    the carrier when its stream broke). ``samples`` at 8 kHz. ``direction`` is always "outbound":
    inbound sound that never arrived stands in ``Sound.lost``."""

    call: Known
    generation: Number
    direction: Direction
    samples: Number
    why: Text


class StreamOver(PackedMessage, frozen=True):
    """worker -> adapter: all sound of stream ``ordinal`` has been handed out before this.
    ``late``: how long the far end has waited inside of our utterances, because their sound came
    late (samples at 8 kHz, since this worker has the call)."""

    call: Known
    generation: Number
    ordinal: Ordinal
    reason: StreamEndReason
    late: Number = 0


#: what a gateway's media DEALER receives
WorkerToGateway = Outbound | Clear | Mark | Tick | Pair | OpenRefused | MediaRefused
#: what an adapter's media DEALER receives
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
