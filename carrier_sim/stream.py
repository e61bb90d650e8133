"""One Media Stream, without its socket: the messages that it sends, and those that it takes.

No I/O: ``send`` takes the text of each message in order. States: connecting -> live -> ended. Times
are monotonic seconds. Source: TD voice/media-streams/websocket-messages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from . import stream_messages
from .beliefs import Beliefs
from .judge import Judge
from .mulaw import RATE, is_quiet
from .pacing import StreamMetrics, measure
from .playback import PlaybackBuffer
from .twiml import Stream as StreamVerb

#: The tracks that a one-way stream may bring (TD voice/twiml/stream, attribute track).
TRACKS: Final = {
    "inbound_track": ("inbound",),
    "outbound_track": ("outbound",),
    "both_tracks": ("inbound", "outbound"),
}
#: Where the carrier contradicts tracks-share-a-clock: by how many ms the outbound track is ahead.
OTHER_CLOCK_MS: Final = 200
#: By how many ms the timestamps of frames leave the grid of 20 ms, one after the other, in the form
#: ``off-grid`` of the habit ``timestamps``.
OFF_GRID_MS: Final = (0, -2, 1, -9, 0, 7, -3, 9, -1, 4, 0)


def check_url(verb: StreamVerb, allow_ws: bool, *, one_way: bool = False) -> tuple[int, str] | None:
    """The error number and text with which Twilio refuses a stream's url or track, or None."""
    if verb.track not in TRACKS:
        return 31941, f"track={verb.track!r} is none of {', '.join(TRACKS)}"
    if verb.track != "inbound_track" and not one_way:
        return 31941, f"track={verb.track!r}: a bidirectional stream takes inbound_track only"
    try:
        url = urlsplit(verb.url)
        port_is_bad = url.port == 0
    except ValueError as e:
        return 31923, f"{verb.url!r}: {e}"
    if not url.scheme or "://" not in verb.url:
        return 31923, f"{verb.url!r} is no absolute URL"
    if url.scheme not in ("wss", "ws") or (url.scheme == "ws" and not allow_ws):
        return 31922, f"scheme {url.scheme!r} of {verb.url!r}: wss is wanted"
    if not url.hostname or port_is_bad or any(c.isspace() for c in verb.url):
        return 31923, f"{verb.url!r} has no valid host"
    if url.query:
        return 31920, f"{verb.url!r} has a query string, which <Stream> does not support"
    return None


class Stream:
    """A stream of a call."""

    def __init__(
        self,
        sid: str,
        call_sid: str,
        account_sid: str,
        verb: StreamVerb,
        judge: Judge,
        *,
        one_way: bool = False,
        beliefs: Beliefs | None = None,
        call_began: float | None = None,
        timestamps: str = "grid",
        first_timestamp: int = 0,
    ) -> None:
        """Timestamps count from ``call_began`` where the carrier contradicts that belief.
        ``timestamps`` and ``first_timestamp`` (in ms) are forms of the habits of these names."""
        self.sid = sid
        self.call_sid = call_sid
        self.verb = verb
        #: It takes nothing from the server, and has no marks and no keys.
        self.one_way = one_way
        #: Its sound differs from that of the call's other streams in the lowest bit.
        self.altered = False
        #: It was connected once more after the server had closed it.
        self.again = False
        self.state = "connecting"
        self.opened_at: float | None = None
        self.ended_at: float | None = None
        #: Why it ended: stop (by the carrier), close (by the server), broken, or "error N".
        self.ended_by = ""
        self.beliefs = beliefs or Beliefs()
        self.playback = PlaybackBuffer()
        if not self.beliefs.hold("ten-minutes-are-buffered"):
            self.playback.longest = 60 * RATE
        if not self.beliefs.hold("playback-starts-at-once"):
            self.playback.starts_after = 0.4
        self.frames_in = 0
        self.invalid = 0
        self.digits_sent = ""
        #: Set by the shell once the socket is open.
        self.send: Callable[[bytes], None] = _nowhere
        #: Decides for each frame to the server whether it is lost (a fault rule); None: never.
        self.lose: Callable[[], bool] | None = None
        self._judge = judge
        self._writer = stream_messages.Writer(sid, call_sid, account_sid)
        self._call_began = call_began
        #: The timestamp of the first frame in ms, and by how many ms the others leave the grid.
        self._first_timestamp = first_timestamp
        self._off_grid = OFF_GRID_MS if timestamps == "off-grid" else (0,)
        #: Where the carrier contradicts frames-of-20-ms: the first of two frames for one message.
        self._half = b""

    @property
    def live(self) -> bool:
        """Open and not ended."""
        return self.state == "live"

    def opened(self, now: float) -> None:
        """The upgrade was answered with 101."""
        assert self.state == "connecting", f"{self.sid}: opened in state {self.state}"
        self.state, self.opened_at = "live", now
        self.send(stream_messages.CONNECTED)
        if self._call_began is not None and not self.beliefs.hold("timestamps-from-stream-start"):
            self._first_timestamp += round((now - self._call_began) * 1000)
        arrive = self.beliefs.hold("parameters-arrive")
        parameters = self.verb.parameters if arrive else {}
        self.send(self._writer.start(parameters, TRACKS[self.verb.track]))

    def outbound(self, frame: bytes) -> None:
        """20 ms of sound that the far end hears. It comes before ``inbound`` of these 20 ms."""
        if "outbound" not in TRACKS[self.verb.track]:
            return
        writer = self._writer
        timestamp = self._timestamp(writer.chunk_outbound, 20)
        if not self.beliefs.hold("tracks-share-a-clock"):
            timestamp += OTHER_CLOCK_MS
        if (self.lose is not None and self.lose()) or (
            is_quiet(frame) and not self.beliefs.hold("silence-is-sent")
        ):
            writer.lost_outbound()
            return
        self.send(writer.media_outbound(frame, timestamp))

    def inbound(self, frame: bytes, now: float) -> None:
        """20 ms of sound from the far end."""
        writer = self._writer
        tracks = TRACKS[self.verb.track]
        if "inbound" not in tracks:
            return
        if "outbound" in tracks and not writer.chunk_outbound:
            return  # it was opened between the two tracks' sound of these 20 ms
        if self.lose is not None and self.lose():
            writer.lost()
            return
        if is_quiet(frame) and not self.beliefs.hold("silence-is-sent"):
            writer.lost()
            return
        timestamp = self._timestamp(writer.chunk, 20)
        if not self.beliefs.hold("frames-of-20-ms"):
            if not self._half:
                self._half = frame
                return
            frame, self._half = self._half + frame, b""
            timestamp = self._timestamp(writer.chunk, 40)
        self.frames_in += 1
        if self.altered:
            frame = bytes(byte ^ 1 for byte in frame)
        self.send(writer.media(frame, timestamp))

    def _timestamp(self, chunk: int, ms: int) -> int:
        """The timestamp of a frame that ``chunk`` others of ``ms`` each came before."""
        return self._first_timestamp + chunk * ms + self._off_grid[chunk % len(self._off_grid)]

    def take(self, now: float) -> bytes:
        """20 ms of playback for the far end; marks that it reaches are sent."""
        frame = self.playback.take(now)
        for name in self.playback.reached():
            self.send(self._writer.mark(name))
        return frame

    def key(self, digit: str, now: float) -> None:
        """The far end pressed a key."""
        if not self.beliefs.hold("digits-arrive"):
            return
        self.digits_sent += digit
        self.send(self._writer.dtmf(digit))

    def message(self, data: bytes | bytearray | memoryview, now: float) -> None:
        """A text message from the server."""
        if self.state != "live":
            return
        if self.one_way:
            self.invalid += 1
            self._error(31951, f"{bytes(data[:60])!r} on a stream that takes no messages")
            return
        try:
            message = stream_messages.read(data, self.sid)
        except stream_messages.InvalidMessage as e:
            self.invalid += 1
            self._error(31951, str(e))
            return
        if isinstance(message, bytes):
            if not self.playback.add(now, message):
                self._error(31931, f"{len(message)} bytes over ten minutes of buffered audio")
        elif isinstance(message, stream_messages.Mark):
            name = message.mark.name
            waits = self.beliefs.hold("marks-wait-for-playback")
            for reached in self.playback.mark(name) if waits else [name]:
                self.send(self._writer.mark(reached))
        else:
            self._clear(now)

    def _clear(self, now: float) -> None:
        if self.beliefs.hold("clear-empties-buffer"):
            names = self.playback.clear(now)
        else:
            names = self.playback.take_marks()
        if self.beliefs.hold("clear-returns-marks"):
            for name in names:
                self.send(self._writer.mark(name))

    def binary(self, size: int) -> None:
        """A binary message from the server, which is never right."""
        self.invalid += 1
        self._error(31950, f"a binary message of {size} bytes: text is wanted")

    def stop(self, now: float) -> None:
        """The carrier ends the stream: ``stop`` is sent; the shell closes the socket behind it."""
        if self.state == "live" and self.beliefs.hold("stop-before-close"):
            self.send(self._writer.stop())
        self.end(now, "stop")

    def end(self, now: float, ended_by: str) -> None:
        """It is over, for the reason given; the first reason stays."""
        if self.state == "ended":
            return
        self.state, self.ended_at, self.ended_by = "ended", now, ended_by
        self.playback.close()

    def metrics(self, now: float) -> StreamMetrics:
        """The metrics so far."""
        return measure(self.playback, self.frames_in, self.ended_at or now)

    def _error(self, code: int, text: str) -> None:
        self._judge.error(code, text, call_sid=self.call_sid, stream_sid=self.sid)


def _nowhere(message: bytes) -> None:
    """Where messages go while there is no socket."""
