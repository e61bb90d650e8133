"""Messages between a gateway and the controller: webhooks, and the Media Streams of calls.

The gateway asks whether a webhook or a stream is let in: the classes from ``VoiceWebhook`` to
``StreamRefused`` are bodies of its requests and of their replies (``Request`` and ``Reply`` in
control_messages.py). The others are notifications, which nobody answers: the gateway's, and then
the controller's.

For example, Twilio posts to /twilio/voice. The gateway asks ``VoiceWebhook``, is answered
``VoiceAnswer`` with a token, and renders that. Twilio opens a stream that shows the token; the
gateway asks ``StreamStart``, and ``StreamAccepted`` says which call it carries.
"""

# ruff: noqa: RUF012  # msgspec gives each instance an empty list or dict of its own

from __future__ import annotations

from typing import Literal

from .call_records import CallInfo
from .refusals import Kind
from .wire import (
    Counts,
    Fields,
    Known,
    Message,
    Name,
    Number,
    Ordinal,
    PeerName,
    Position,
    Record,
    Seconds,
    StreamEndReason,
    Text,
)


class StreamInfo(Record, frozen=True):
    """A live stream at a gateway, as the gateway announces it to a restarted controller."""

    info: CallInfo
    stream_sid: Name
    generation: Number
    active: Name | None = None  # id of the worker that has the call now
    #: the stream brings the far end's sound and takes no sound of ours (see StreamTurn)
    one_way: bool = False


class StreamStats(Record, frozen=True):
    """How much sound one stream has brought and taken, as its gateway says at each beat."""

    call: Known
    ordinal: Ordinal
    frames_in: Number = 0
    frames_out: Number = 0


class Keys(Record, frozen=True):
    """Digits that Twilio has played to the far end for us. ``age``: how old their call was when the
    first digit began."""

    digits: Text
    age: Seconds


# ---------------------------------------------------------------- requests, and their replies


class VoiceWebhook(Message, frozen=True):
    """gateway: Twilio posted to /twilio/voice with a valid signature. -> VoiceAnswer

    ``form`` holds the fields (the first value of each), ``query`` the query of the URL that was
    called (the override's seal, a redirect's call, a dial's request).
    """

    form: Fields
    query: Fields = {}


class VoiceAnswer(Message, frozen=True):
    """Which document the gateway is to render.

    - stream: ``<Connect><Stream><Parameter name="nonce" value=token/></Stream></Connect>`` and
      ``<Redirect>`` to the voice URL with ``redirect_query``
    - reject: ``<Response><Reject/></Response>`` exactly (a caller that is not allowed)
    - busy: ``<Reject reason="busy"/>`` (nobody waits, or the session has a call)
    - hangup: ``<Hangup/>`` (after a deliberate end)
    - pause: ``<Pause length="1"/><Redirect>`` (the answer is not known yet; if the controller does
      not answer, the gateway renders this document, too)
    """

    kind: Literal["stream", "reject", "busy", "hangup", "pause"]
    token: Name | None = None
    redirect_query: Fields = {}


class StatusCallback(Message, frozen=True):
    """gateway: Twilio posted to /twilio/status with a valid signature. -> Done"""

    form: Fields
    query: Fields = {}


class StreamStart(Message, frozen=True):
    """gateway: a socket sent ``start`` with this token. -> StreamAccepted or StreamRefused

    A token can be accepted only once. It is bound to ``call_sid``, is good for a limited time, and
    has to be shown by ``gateway`` itself.
    """

    token: Name
    call_sid: Name
    stream_sid: Name
    gateway: PeerName


class StreamAccepted(Message, frozen=True):
    """The stream carries this call.

    ``info`` has the placement, the secret and the ordinal. The gateway opens the call at the
    primary with generation ``first_generation(ordinal)``. ``first`` is False when an earlier stream
    of the call existed. Then only the worker knows at which outbound position the call goes on.

    A ``one_way`` stream brings only the far end's sound, and waits: the gateway keeps its newest
    frames until StreamTurn says that the stream carries the call. ``overlaps``: the stream before
    this one brings the same sound, and is still up. The gateway opens the new stream once it has
    brought 160 ms, so that the worker can join the two.

    If ``info.theirs`` is set, the call is listened to. Its stream brings two tracks, and takes no
    sound. The gateway carries each track as if it were a stream of its own, with its own id on the
    media plane (see CallInfo). To the controller it reports the inbound track alone.

    ``keys`` were played after the last stream of ours had ended and before this one came up. No
    stream brings their tones, so the call's recording names them.
    """

    info: CallInfo
    first: bool
    one_way: bool = False
    overlaps: bool = False
    keys: Keys | None = None


class StreamRefused(Message, frozen=True):
    why: Text


# ---------------------------------------------------------------- notifications of the gateway


class StreamClosed(Message, frozen=True):
    """gateway: a stream that had been accepted is over. If this is lost, the controller learns it
    from the streams that the gateway's beats list."""

    call: Name
    ordinal: Ordinal
    reason: StreamEndReason
    gateway: PeerName


class CallMoved(Message, frozen=True):
    """gateway: the call now runs on ``worker`` with ``generation``."""

    call: Name
    generation: Number
    worker: PeerName
    gateway: PeerName


class WebhooksRefused(Message, frozen=True):
    """gateway: how many voice webhooks were refused for their signature or their fields since the
    last WebhooksRefused of this kind, by the number (To) that they named.

    Each kind is sent twenty times a second at most. A stranger may have made the webhooks up, so
    the controller only counts them.
    """

    gateway: PeerName
    kind: Kind
    numbers: Counts


class Level(Record, frozen=True):
    """How loud one call's stream was at its gateway since the last Levels of it.

    ``far`` and ``ours`` have one byte for each 100 ms, the oldest first. The byte is the loudness
    of one frame from that time: 0 is silence, each step is 0.5 dB, and 127 is full scale.
    ``lead_ms``: how much of our sound lies unplayed at the carrier. ``jitter_ms``: how unevenly the
    far end's frames arrive (RFC 3550, 6.4.1).
    """

    call: Known
    far: bytes
    ours: bytes
    lead_ms: Number = 0
    jitter_ms: Number = 0


class Levels(Message, frozen=True):
    """gateway: how loud its streams are. Sent three times a second while a Watch holds, and never
    otherwise."""

    gateway: PeerName
    levels: list[Level]


class CallSound(Message, frozen=True):
    """gateway: sound of a call that a Watch names, about three times a second. ``mulaw`` has both
    sides, interleaved: a sample of the far end, and the sample of ours that the far end heard at
    that moment. The sound begins at ``at``, in samples at 8 kHz since the call's first stream came
    up."""

    gateway: PeerName
    call: Known
    at: Position
    mulaw: bytes


# ---------------------------------------------------------------- events of the controller


class Watch(Message, frozen=True):
    """to each gateway: somebody looks at the console. For this many ``seconds`` send Levels of all
    streams, and CallSound of the calls in ``sound``. A later Watch replaces an earlier one, and a
    Watch of 0 seconds ends it."""

    seconds: Seconds
    sound: list[Name] = []


class CloseStream(Message, frozen=True):
    """to a gateway: close this call's socket. REST did not end the stream, or the stream has no
    call any more.

    ``one_way``: close only the call's one-way stream with this ordinal. Without an ordinal: the
    one-way stream that waits for its turn.
    """

    call: Name
    one_way: bool = False
    ordinal: Ordinal | None = None


class StreamTurn(Message, frozen=True):
    """to a gateway: the call's stream is gone, because digits are played by REST. The call's
    one-way stream, which has waited at this gateway, carries the call's inbound sound from now on,
    as the stream ``info.ordinal``. If the one-way stream is gone, the gateway says StreamClosed."""

    info: CallInfo
