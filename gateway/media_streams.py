"""The protocol of one Media Streams socket, without I/O: text messages in, typed events out, and
the three messages that go back.

Rules (Twilio's documents voice/media-streams/websocket-messages, voice/twiml/stream):

- ``connected`` comes first, then one ``start``, then ``media``, ``dtmf``, ``mark``, then ``stop``.
- ``timestamp`` is milliseconds from the stream's start, in a JSON string, and says where a frame
  lies, but only to about a frame: :class:`_Track` has the rule.
- ``tracks`` of ``start`` says which tracks come: ``inbound``, and ``outbound`` too where a call is
  listened to. Both have their timestamps on the stream's one clock.
- ``sequenceNumber`` counts the messages from ``start`` on. A message whose number is not the next
  one is counted as wrong, and taken all the same, because nothing else is wrong with it.
- Each mark that we sent comes back once. One more is counted as wrong, and ignored.
- To the carrier go ``media``, ``mark`` and ``clear`` with exactly the documented fields: one field
  more is error 31951 there.

The peer's mistakes are counted by kind in :attr:`MediaStream.bad`, and never end a live stream:
:meth:`MediaStream.receive` raises for no input. Before ``start`` the peer is a stranger, and only a
few messages and little text are read. More than that is a :class:`Violation`, which closes the
socket. So is anything that no stream begins with: a binary message, one that is too long, or a
``start`` with another media format. :mod:`.admission` says how long a peer may be a stranger, and
:mod:`.pace` how much it may say later.
"""

from __future__ import annotations

import binascii
from collections import Counter
from typing import Final

import msgspec

from trunkline.bus.wire import Shown

from .twilio_forms import is_sid

#: Messages and bytes of text that are read before ``start``.
MAX_MESSAGES_BEFORE_START: Final = 16
MAX_BYTES_BEFORE_START: Final = 16 * 1024
#: A longer message is not looked at (one of Twilio's with a frame of 20 ms has some 380 bytes).
MAX_MESSAGE_BYTES: Final = 64 * 1024
#: Longest mark name that is believed.
MAX_NAME: Final = 256
#: Parameters of one ``start`` (Twilio allows 500 characters each, name and value together).
MAX_PARAMETERS: Final = 32
#: Digits that are believed of one stream: ten a second for seven minutes.
MAX_DIGITS: Final = 4_096
#: Largest believable ``timestamp``: a week in milliseconds.
MAX_TIMESTAMP: Final = 7 * 24 * 3600 * 1000

SAMPLES_PER_MS: Final = 8


# ------------------------------------------------------------------------- events, to the caller


class Connected(msgspec.Struct, frozen=True):
    """The carrier's greeting."""


class Start(Shown, frozen=True):
    """The stream begins. ``parameters`` are the TwiML's ``<Parameter>`` elements."""

    call_sid: str
    stream_sid: str
    parameters: dict[str, str]


class Media(msgspec.Struct, frozen=True, gc=False):
    """Sound: ``payload`` (mu-law, 8 kHz) begins at ``position`` samples of this stream.
    ``outbound``: the far end hears it, and does not say it."""

    position: int
    payload: bytes
    outbound: bool = False


class Dtmf(msgspec.Struct, frozen=True):
    """The ``index``-th digit (from 1) of this stream: one of ``0-9*#A-D``."""

    index: int
    digit: str


class MarkReturned(msgspec.Struct, frozen=True):
    """Playback reached the mark, or a clear threw it out."""

    name: str


class Stop(msgspec.Struct, frozen=True):
    """The stream is over (the call ended, or moved on to the next verb)."""


class Violation(msgspec.Struct, frozen=True):
    """A stranger did something that it may not do: close the socket. ``why`` is for the log."""

    why: str


Event = Connected | Start | Media | Dtmf | MarkReturned | Stop | Violation


# ----------------------------------------------------------------------- the messages on the wire


class _In(msgspec.Struct, tag_field="event", gc=False, kw_only=True):
    sequenceNumber: int | None = None


class _MediaBody(msgspec.Struct, gc=False):
    payload: bytes
    timestamp: int | None = None
    chunk: int | None = None
    track: str = "inbound"


class _Media(_In, tag="media"):
    media: _MediaBody
    streamSid: str | None = None


class _DtmfBody(msgspec.Struct):
    digit: str


class _Dtmf(_In, tag="dtmf"):
    dtmf: _DtmfBody
    streamSid: str | None = None


class _MarkBody(msgspec.Struct):
    name: str


class _Mark(_In, tag="mark"):
    mark: _MarkBody
    streamSid: str | None = None


class _Format(msgspec.Struct):
    encoding: str = "audio/x-mulaw"
    sampleRate: int = 8000
    channels: int = 1


class _StartBody(msgspec.Struct):
    callSid: str
    streamSid: str | None = None
    customParameters: dict[str, str] = {}
    tracks: object = None
    mediaFormat: _Format | None = None


class _Start(_In, tag="start"):
    start: _StartBody
    streamSid: str | None = None


class _Connected(_In, tag="connected"):
    pass


class _Stop(_In, tag="stop"):
    streamSid: str | None = None


_KNOWN = frozenset({"media", "dtmf", "mark", "start", "connected", "stop"})
_DIGITS = frozenset("0123456789*#ABCD")

# Numbers arrive as JSON strings: lax decoding takes both.
_decode = msgspec.json.Decoder(
    _Media | _Dtmf | _Mark | _Start | _Connected | _Stop, strict=False
).decode


def classify(text: bytes) -> str:
    """Why ``text`` could not be read: not-json, not-object, unknown-event, base64 or fields."""
    try:
        message = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "not-json"
    if not isinstance(message, dict):
        return "not-object"
    event = message.get("event")
    if isinstance(event, str) and event not in _KNOWN:
        return "unknown-event"
    body = message.get("media")
    if event == "media" and isinstance(body, dict) and isinstance(body.get("payload"), str):
        try:
            binascii.a2b_base64(body["payload"].encode(), strict_mode=True)
        except (binascii.Error, UnicodeEncodeError):
            return "base64"
    return "fields"


class _Track:
    """Where the frames of one track lie.

    Twilio's timestamps come from a clock, and do not lie on a grid of 20 ms: 72 frames in a row
    were seen to take 1,438 ms (docs/beliefs.md, habit ``timestamps``). As positions they would cut
    off sound here, and leave a hole there. The chunk number says exactly how many frames lie
    between two. So a frame lies where its number puts it, as long as its timestamp is less than a
    frame away from that; farther away the timestamp holds. Without a number a frame follows the one
    before it, as long as its timestamp is less than half a frame away. Without a timestamp it
    always follows the one before it.
    """

    __slots__ = ("_chunk", "_next")

    def __init__(self) -> None:
        self._chunk: int | None = None
        self._next = 0

    def place(self, timestamp: int | None, chunk: int | None, size: int) -> int:
        """The position of a frame of ``size`` samples."""
        position, within = self._next, size // 2
        if timestamp is not None:
            if chunk is not None and self._chunk is not None:
                position += (chunk - self._chunk - 1) * size
                within = size
            by_clock = timestamp * SAMPLES_PER_MS
            if position < 0 or not -within < by_clock - position < within:
                position = by_clock
        self._chunk, self._next = chunk, position + size
        return position


class MediaStream:
    """The protocol's state on one socket: what the carrier may send now, and what it has sent."""

    # Slots: see Pace in pace.py.
    __slots__ = (
        "_both", "_bytes", "_digits", "_inbound", "_mark_head", "_marks", "_media_head",
        "_messages", "_outbound", "_sequence", "bad", "clear", "stopped", "stream_sid",
    )  # fmt: skip

    def __init__(self) -> None:
        #: how many mistakes the peer has made, by kind
        self.bad: Counter[str] = Counter()
        #: None until ``start``
        self.stream_sid: str | None = None
        self.stopped = False
        self._messages = 0
        self._bytes = 0
        self._inbound, self._outbound = _Track(), _Track()
        #: the stream brings an outbound track too
        self._both = False
        self._digits = 0
        #: the last message's ``sequenceNumber``
        self._sequence: int | None = None
        #: marks that were sent, and have not come back
        self._marks = 0
        self._media_head = b""
        self._mark_head = b""
        #: the text of ``clear``
        self.clear = b""

    @property
    def started(self) -> bool:
        return self.stream_sid is not None

    # ------------------------------------------------------------------ from the carrier

    def receive(self, text: bytes) -> Event | None:
        """The event in one text message; None when there is none (``bad`` counts why)."""
        if len(text) > MAX_MESSAGE_BYTES:
            return self.too_long()
        if self.stream_sid is None:
            self._messages += 1
            self._bytes += len(text)
            if self._messages > MAX_MESSAGES_BEFORE_START:
                return self._violation("too many messages before start")
            if self._bytes > MAX_BYTES_BEFORE_START:
                return self._violation("too much text before start")
        try:
            message = _decode(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return self._count(classify(text))
        number = message.sequenceNumber
        if number is not None:
            if self._sequence is not None and number != self._sequence + 1:
                self._count("sequence")
            self._sequence = number
        if type(message) is not _Media:
            return self._other(message)
        body = message.media
        timestamp, payload = body.timestamp, body.payload
        if (
            timestamp is None
            or not payload
            or not 0 <= timestamp <= MAX_TIMESTAMP
            or message.streamSid != self.stream_sid
            or body.track != "inbound"
            or self.stopped
        ):
            return self._media(message)
        return Media(self._inbound.place(timestamp, body.chunk, len(payload)), payload)

    def too_long(self) -> Event | None:
        """A message that was too long to be read at all."""
        if not self.started:
            return self._violation("a message that is too long before start")
        return self._count("too-long")

    def binary(self) -> Event | None:
        """A binary message: Media Streams has none."""
        if not self.started:
            return self._violation("a binary message before start")
        return self._count("binary")

    def _media(self, message: _Media) -> Event | None:
        """Any frame, also an incomplete or a wrong one."""
        body = message.media
        if self.stream_sid is None:
            return self._count("before-start")
        if self.stopped:
            return self._count("after-stop")
        if message.streamSid is not None and message.streamSid != self.stream_sid:
            return self._count("foreign-stream")
        timestamp = body.timestamp
        payload = body.payload
        outbound = body.track == "outbound" and self._both
        if body.track != "inbound" and not outbound:
            return self._count("track")
        if not payload:
            return self._count("empty")
        if timestamp is None:
            if outbound:  # without a timestamp nothing says where it lies against the other track
                return self._count("fields")
        elif not 0 <= timestamp <= MAX_TIMESTAMP:
            return self._count("fields")
        track = self._outbound if outbound else self._inbound
        return Media(track.place(timestamp, body.chunk, len(payload)), payload, outbound)

    def _other(self, message: _Dtmf | _Mark | _Start | _Connected | _Stop) -> Event | None:
        if isinstance(message, _Connected):
            return Connected()
        if isinstance(message, _Start):
            return self._start(message)
        if self.stream_sid is None:
            return self._count("before-start")
        if self.stopped:
            return self._count("after-stop")
        if message.streamSid is not None and message.streamSid != self.stream_sid:
            return self._count("foreign-stream")
        if isinstance(message, _Dtmf):
            if message.dtmf.digit not in _DIGITS:
                return self._count("fields")
            if self._digits >= MAX_DIGITS:
                return self._count("digits")
            self._digits += 1
            return Dtmf(self._digits, message.dtmf.digit)
        if isinstance(message, _Mark):
            if len(message.mark.name) > MAX_NAME:
                return self._count("fields")
            if not self._marks:
                return self._count("mark")
            self._marks -= 1
            return MarkReturned(message.mark.name)
        self.stopped = True
        return Stop()

    def _start(self, message: _Start) -> Event | None:
        if self.started:
            return self._count("second-start")
        body = message.start
        stream_sid = message.streamSid or body.streamSid or ""
        sids_are_right = is_sid("MZ", stream_sid) and is_sid("CA", body.callSid)
        if not sids_are_right or len(body.customParameters) > MAX_PARAMETERS:
            return self._count("fields")
        sound = body.mediaFormat
        if sound is not None and (
            sound.encoding != "audio/x-mulaw" or sound.sampleRate != 8000 or sound.channels != 1
        ):
            return self._violation("a media format that is not mu-law, 8000 Hz, mono")
        self._adopt(stream_sid)
        self._both = isinstance(body.tracks, list) and "outbound" in body.tracks
        return Start(body.callSid, stream_sid, body.customParameters)

    def _adopt(self, stream_sid: str) -> None:
        quoted = msgspec.json.encode(stream_sid)
        self.stream_sid = stream_sid
        self._media_head = b'{"event":"media","streamSid":' + quoted + b',"media":{"payload":"'
        self._mark_head = b'{"event":"mark","streamSid":' + quoted + b',"mark":{"name":'
        self.clear = b'{"event":"clear","streamSid":' + quoted + b"}"

    def _count(self, kind: str) -> Event | None:
        self.bad[kind] += 1
        return None

    def _violation(self, why: str) -> Violation:
        self.bad["violation"] += 1
        return Violation(why)

    # ------------------------------------------------------------------ to the carrier

    def media(self, payload: bytes) -> bytes:
        """The text of ``media`` with raw mu-law ``payload``. Only after ``start``."""
        return self._media_head + binascii.b2a_base64(payload, newline=False) + b'"}}'

    def mark(self, name: str) -> bytes:
        """The text of ``mark``. Only after ``start``."""
        self._marks += 1
        return self._mark_head + msgspec.json.encode(name) + b"}}"
