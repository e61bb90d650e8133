"""The messages of a Media Stream: strict reading of the server's, writing of the carrier's.

Source: TD voice/media-streams/websocket-messages. The server may send media, mark and clear, each
with exactly its documented fields and the stream's own streamSid; anything else is 31951 and is
dropped. ``sequenceNumber``, ``chunk`` and ``timestamp`` are JSON strings.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from .mulaw import SILENCE


class MediaBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    payload: str


class MarkBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str


class Media(msgspec.Struct, tag_field="event", tag="media", forbid_unknown_fields=True, gc=False):
    streamSid: str
    media: MediaBody


class Mark(msgspec.Struct, tag_field="event", tag="mark", forbid_unknown_fields=True, gc=False):
    streamSid: str
    mark: MarkBody


class Clear(msgspec.Struct, tag_field="event", tag="clear", forbid_unknown_fields=True, gc=False):
    streamSid: str


class InvalidMessage(ValueError):
    """The server sent something that a bidirectional stream does not take (31951)."""


_decoder: Final = msgspec.json.Decoder(Media | Mark | Clear)


def read(data: bytes | bytearray | memoryview, stream_sid: str) -> bytes | Mark | Clear:
    """One text message. The audio of ``media`` comes back as bytes. Raises InvalidMessage."""
    try:
        message: Media | Mark | Clear = _decoder.decode(data)
    except msgspec.DecodeError as e:
        raise InvalidMessage(f"{e} in {bytes(data[:120])!r}") from e
    if message.streamSid != stream_sid:
        raise InvalidMessage(f"streamSid {message.streamSid[:40]!r} is not this stream's")
    if not isinstance(message, Media):
        return message
    try:
        audio = binascii.a2b_base64(message.media.payload, strict_mode=True)
    except ValueError as e:
        raise InvalidMessage(f"media.payload is not base64: {e}") from e
    if not audio:
        raise InvalidMessage("media.payload is empty")
    return audio


CONNECTED: Final = b'{"event":"connected","protocol":"Call","version":"1.0.0"}'

_SILENCE_B64: Final = binascii.b2a_base64(SILENCE, newline=False)


class Writer:
    """The carrier's messages of one stream, numbered. The first number is taken by ``start``."""

    __slots__ = (
        "_account", "_call", "_head", "_head_outbound", "_sid", "chunk", "chunk_outbound",
        "sequence",
    )  # fmt: skip

    def __init__(self, stream_sid: str, call_sid: str, account_sid: str) -> None:
        self._sid, self._call, self._account = stream_sid, call_sid, account_sid
        head = b'","streamSid":"' + stream_sid.encode() + b'","media":{"track":"%b","chunk":"'
        self._head = head % b"inbound"
        self._head_outbound = head % b"outbound"
        self.sequence = 0
        self.chunk = 0
        #: The outbound track counts its own chunks.
        self.chunk_outbound = 0

    def start(self, parameters: Mapping[str, str], tracks: Sequence[str] = ("inbound",)) -> bytes:
        return self._event(
            "start",
            {
                "start": {
                    "accountSid": self._account,
                    "streamSid": self._sid,
                    "callSid": self._call,
                    "tracks": list(tracks),
                    "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                    "customParameters": dict(parameters),
                }
            },
        )

    def media(self, frame: bytes, timestamp_ms: int) -> bytes:
        """One frame of inbound audio; its chunk number is the next, from 1."""
        self.chunk += 1
        return self._media(self._head, self.chunk, frame, timestamp_ms)

    def media_outbound(self, frame: bytes, timestamp_ms: int) -> bytes:
        """One frame that the far end hears."""
        self.chunk_outbound += 1
        return self._media(self._head_outbound, self.chunk_outbound, frame, timestamp_ms)

    def _media(self, head: bytes, chunk: int, frame: bytes, timestamp_ms: int) -> bytes:
        self.sequence += 1
        payload = _SILENCE_B64 if frame is SILENCE else binascii.b2a_base64(frame, newline=False)
        return b'{"event":"media","sequenceNumber":"%d%b%d","timestamp":"%d","payload":"%b"}}' % (
            self.sequence,
            head,
            chunk,
            timestamp_ms,
            payload,
        )

    def lost(self) -> None:
        """A frame that is never sent: its chunk number is left out."""
        self.chunk += 1

    def lost_outbound(self) -> None:
        """The same of a frame that the far end hears."""
        self.chunk_outbound += 1

    def mark(self, name: str) -> bytes:
        return self._event("mark", {"mark": {"name": name}})

    def dtmf(self, digit: str) -> bytes:
        return self._event("dtmf", {"dtmf": {"track": "inbound_track", "digit": digit}})

    def stop(self) -> bytes:
        return self._event("stop", {"stop": {"accountSid": self._account, "callSid": self._call}})

    def _event(self, event: str, body: dict[str, object]) -> bytes:
        self.sequence += 1
        head = {"event": event, "sequenceNumber": str(self.sequence), "streamSid": self._sid}
        return msgspec.json.encode({**head, **body})
