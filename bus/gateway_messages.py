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
    """A live stream at a gateway, as it announces it to a restarted controller."""

    info: CallInfo
    stream_sid: Name
    generation: Number
    active: Name | None = None  # id of the worker that has the call now
    #: it brings the far end's sound and takes none of ours (see StreamTurn)
    one_way: bool = False


class StreamStats(Record, frozen=True):
    """How much sound one stream has brought and taken, as its gateway tells at each beat."""

    call: Known
    ordinal: Ordinal
    frames_in: Number = 0
    frames_out: Number = 0


class Keys(Record, frozen=True):
    """Digits that Twilio has played to the far end for us. ``age``: of their call, when the first
    one began."""

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
    - pause: ``<Pause length="1"/><Redirect>`` (not known yet; the gateway also renders it by itself
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
    """gateway: a socket sent ``start`` with this token. -> StreamAccepted or StreamRefused

    The token is used up by being accepted. It is bound to ``call_sid``, is good for a time, and has
    to be shown by ``gateway`` itself.
    """

    token: Name
    call_sid: Name
    stream_sid: Name
    gateway: PeerName


class StreamAccepted(Message, frozen=True):
    """The stream carries this call.

    ``info`` has the placement, the secret and the ordinal; the gateway opens the primary with
    generation ``first_generation(ordinal)``. ``first`` is False when an earlier stream of the call
    existed. Then only the worker knows at which outbound position the call goes on.

    A ``one_way`` stream brings the far end's sound only, and waits: the gateway keeps its newest
    frames until StreamTurn says that it carries the call. ``overlaps``: the stream before it brings
    the same sound, and goes on. The gateway opens this one once it has brought 160 ms, so that the
    worker can join the two.

    If ``info.theirs`` is set, the call is listened to. Its stream brings two tracks, and takes no
    sound. The gateway carries each track as if it were a stream of its own, with its own id on the
    media plane (see CallInfo). The controller hears of the inbound one alone.

    ``keys`` were played before this stream, which is back behind them. They are for the call's
    recording: no stream brings their tones.
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
    """gateway: how many voice webhooks had no signature, or a wrong one, since the last of these
    messages, by the number (To) that they named.

    It comes twenty times a second at most. A stranger may have made the webhooks up, so they are
    counted, and change nothing else.
    """

    gateway: PeerName
    numbers: Counts


class Level(Record, frozen=True):
    """How loud one call's stream was at its gateway since the last Levels of it.

    ``far`` and ``ours`` have one byte for each 100 ms, the oldest first, for a piece of it: 0 is
    silence, and each step is 0.5 dB, so that 127 is full scale. ``lead_ms``: how much of our sound
    lies unplayed at the carrier. ``jitter_ms``: how unevenly the far end's frames arrive (RFC 3550,
    6.4.1).
    """

    call: Known
    far: bytes
    ours: bytes
    lead_ms: Number = 0
    jitter_ms: Number = 0


class Levels(Message, frozen=True):
    """gateway: how loud its streams are. Said three times a second while a Watch holds, and never
    otherwise."""

    gateway: PeerName
    levels: list[Level]


class CallSound(Message, frozen=True):
    """gateway: sound of a call that a Watch names, about three times a second. ``mulaw`` has both
    sides, interleaved: the far end's sample, and the one of ours that it heard at that moment. It
    begins at ``at``, in samples at 8 kHz since the call's first stream came up."""

    gateway: PeerName
    call: Known
    at: Position
    mulaw: bytes


# ---------------------------------------------------------------- events of the controller


class Watch(Message, frozen=True):
    """to each gateway: somebody looks at the console. For this many ``seconds`` tell Levels of all
    streams, and CallSound of the calls in ``sound``. A later Watch takes the place of this one;
    one of 0 seconds ends it."""

    seconds: Seconds
    sound: list[Name] = []


class CloseStream(Message, frozen=True):
    """to a gateway: close this call's socket (its REST hang-up did not, or cannot, end it).

    ``one_way``: close only a one-way stream there, the one with this ordinal. Without an ordinal it
    is the one that waits for its turn.
    """

    call: Name
    one_way: bool = False
    ordinal: Ordinal | None = None


class StreamTurn(Message, frozen=True):
    """to a gateway: the call's stream is gone, because digits are played by REST. The call's
    one-way stream, which has waited at this gateway, carries its inbound sound from now on, as the
    stream ``info.ordinal``. Where there is none any more, the gateway says StreamClosed."""

    info: CallInfo
