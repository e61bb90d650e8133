"""One leg of a call: the TwiML interpreter, in 20 ms steps.

No I/O. Events come in as method calls with ``now``. Instructions come out, and the exchange takes
them with ``take_instructions``. Sound passes through ``emit`` (20 ms towards the far end) and
``receive`` (20 ms from it).

The rules:

- An inbound leg rings until its first verb other than Pause, Redirect or Reject, which answers it
  (TD voice/twiml/pause, reject). Reject ends a ringing leg with busy or no-answer, an answered one
  with completed.
- A document replaces the program that runs, wherever it stands; a stream or dialled leg under way
  ends.
- A one-way stream (<Start><Stream>, or by REST) runs beside all that and through every document,
  until <Stop>, REST, the server or the call's end ends it.
- <Connect><Stream> lasts until the stream has ended, however it ended. Then its ``action`` is
  fetched, or the next verb runs; with no verb left, the call ends.
- When no TwiML can be had ("application error"), a leg that still rings ends as failed. In one that
  was answered the caller hears an error tone, and it ends as completed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final
from urllib.parse import urljoin, urlsplit

import msgspec

from . import tones, twiml, wav
from .beliefs import Beliefs
from .detection import Detector
from .mulaw import FRAME_SECONDS, SILENCE, frames
from .stream import Stream


class Answer(msgspec.Struct, frozen=True):
    """Pick the call up."""


class Fetch(msgspec.Struct, frozen=True):
    """Ask the customer's server for TwiML; ``params`` go with the usual ones."""

    url: str
    method: str
    params: tuple[tuple[str, str], ...] = ()


class OpenStream(msgspec.Struct, frozen=True):
    """Make the stream after ``delay`` seconds and connect it; then ``stream_started``, and
    ``stream_over`` once it has ended or was refused."""

    verb: twiml.Stream
    delay: float = 0.0


class OpenSide(msgspec.Struct, frozen=True):
    """Connect a one-way stream; then ``side_started``."""

    verb: twiml.Stream


class CloseStream(msgspec.Struct, frozen=True):
    """Send stop and close the socket. ``moved``: a new document ends it."""

    stream: Stream
    moved: bool = False


class PlaceDial(msgspec.Struct, frozen=True):
    """Dial the second leg; then ``bridge`` and ``dial_over``."""

    verb: twiml.Dial


class DropDial(msgspec.Struct, frozen=True):
    """End the dialled leg."""


class End(msgspec.Struct, frozen=True):
    """End the call with a status, for a reason."""

    status: str
    reason: str


class Report(msgspec.Struct, frozen=True):
    """For the judge."""

    code: int
    text: str


class Detected(msgspec.Struct, frozen=True):
    """Who has answered, after so much listening."""

    answered_by: str
    milliseconds: int


Instruction = (
    Detected
    | Answer
    | Fetch
    | OpenStream
    | OpenSide
    | CloseStream
    | PlaceDial
    | DropDial
    | End
    | Report
)

#: Documents that may follow one another with no sound, pause or stream between them.
MAX_HOPS: Final = 50


class Leg:
    """The interpreter of one leg."""

    def __init__(self, call_sid: str, *, beliefs: Beliefs | None = None) -> None:
        self.call_sid = call_sid
        self._beliefs = beliefs or Beliefs()
        self.answered = False
        self.ended = False
        self.stream: Stream | None = None
        #: The stream that <Connect> waits for.
        self.connecting: twiml.Stream | None = None
        #: One-way streams.
        self.sides: list[Stream] = []
        #: Seconds until the next <Connect> opens its stream.
        self.seam = 0.0
        self.peer: Leg | None = None
        #: Finds out who has answered, until it knows.
        self.detector: Detector | None = None
        self._program: deque[twiml.Verb] = deque()
        self._url = ""
        #: The verb under way: idle, sound, pause, stream, fetch, dial, bridge.
        self.doing = "idle"
        self._sound: deque[bytes] = deque()
        self._keys: dict[int, list[str]] = {}
        self._sound_at = 0
        self._last_words = False
        self._pause = 0
        self._after: tuple[str, str] | None = None
        self._hops = 0
        self._inbox: deque[bytes] = deque(maxlen=10)
        self._pressed: list[str] = []
        #: Not taken yet.
        self.instructions: list[Instruction] = []

    def take_instructions(self) -> list[Instruction]:
        """The instructions since the last time, in order."""
        instructions, self.instructions = self.instructions, []
        return instructions

    def run(self, verbs: Sequence[twiml.Verb], url: str, now: float) -> None:
        """Run a document from its start. ``url``: where it came from; "" for inline TwiML."""
        if self.ended:
            return
        self._drop_current(moved=True)
        self._program = deque(verbs)
        self._url = url
        self._hops += 1
        if self._hops > MAX_HOPS:
            self._report(11200, f"more than {MAX_HOPS} documents in a row without a sound")
            self.application_error(now)
            return
        self._next(now)

    def fetching(self) -> None:
        """The exchange fetches a document that no verb asks for: the first one, or one by REST."""
        self._drop_current()
        self.doing = "fetch"

    def application_error(self, now: float) -> None:
        """No TwiML could be had; the rules say how the leg ends."""
        if self.ended:
            return
        self._drop_current()
        self._program.clear()
        if not self.answered:
            self._finish("failed", "application-error")
            return
        self._last_words = True
        self._play(tones.sine(480.0, 500) + tones.sine(380.0, 500))

    def stream_started(self, stream: Stream) -> None:
        """The stream asked for exists (its socket may still be connecting)."""
        self.stream, self.connecting = stream, None

    def start_side(self, verb: twiml.Stream) -> None:
        """A one-way stream, asked for by <Start> or by REST."""
        self.instructions.append(OpenSide(verb))

    def side_started(self, stream: Stream) -> None:
        """The one-way stream asked for exists."""
        self.sides.append(stream)

    def stop_side(self, stream: Stream) -> None:
        """End a one-way stream."""
        if stream in self.sides:
            self.sides.remove(stream)
            self.instructions.append(CloseStream(stream))

    def stream_over(self, now: float) -> None:
        """The stream has ended or could not be opened."""
        if self.ended or self.doing != "stream":
            return
        self.stream = None
        self._done(now)

    def bridge(self, peer: Leg) -> None:
        """The dialled leg was answered: each end hears the other."""
        self.peer, self.doing = peer, "bridge"
        self._inbox.clear()

    def dial_over(self, status: str, duration: int, child_sid: str, now: float) -> None:
        """The dialled leg has ended."""
        if self.ended or self.doing not in ("dial", "bridge"):
            return
        self.peer = None
        params = (
            ("DialCallStatus", status),
            ("DialCallSid", child_sid),
            ("DialCallDuration", str(duration)),
            ("DialBridged", "true" if status == "completed" else "false"),
        )
        self._done(now, params)

    def hang_up(self, status: str, reason: str) -> None:
        """The leg ends from outside: far end, REST, time limit."""
        if not self.ended:
            self._drop_current()
            self._finish(status, reason)

    def key(self, digit: str, now: float) -> None:
        """The far end pressed a key."""
        if self.stream is not None and self.stream.live:
            self.stream.key(digit, now)
        elif self.doing == "bridge" and self.peer is not None:
            self.peer._pressed.append(digit)

    def emit(self, now: float) -> bytes:
        """The next 20 ms towards the far end."""
        frame = self._emit(now)
        for side in self.sides:
            if side.live:
                side.outbound(frame)
        return frame

    def _emit(self, now: float) -> bytes:
        doing = self.doing
        if doing == "stream":
            stream = self.stream
            return stream.take(now) if stream is not None and stream.live else SILENCE
        if doing == "bridge":
            return self._peer_sound()
        if doing == "sound":
            frame = self._sound.popleft()
            self._pressed += self._keys.get(self._sound_at, ())
            self._sound_at += 1
            if not self._sound:
                self._done(now)
            return frame
        if doing == "pause":
            self._pause -= 1
            if self._pause <= 0:
                self._done(now)
        return SILENCE

    def hear_who(self, words: bytes) -> None:
        """20 ms of the far end's words, for the detection of answering machines."""
        if self.detector is not None and (found := self.detector.hear(words)):
            self.instructions.append(Detected(found, self.detector.milliseconds))
            self.detector = None

    def receive(self, frame: bytes, now: float) -> None:
        """20 ms from the far end."""
        stream = self.stream
        for side in self.sides:
            if side.live:
                side.inbound(frame, now)
        if stream is not None:
            if stream.live:
                stream.inbound(frame, now)
        elif self.doing == "bridge":
            self._inbox.append(frame)

    def take_pressed(self) -> list[str]:
        """Keys whose tone ended in the frame emitted last."""
        if not self._pressed:
            return []
        pressed, self._pressed = self._pressed, []
        return pressed

    def _peer_sound(self) -> bytes:
        peer = self.peer
        return peer._inbox.popleft() if peer is not None and peer._inbox else SILENCE

    def _next(self, now: float) -> None:
        while self.doing == "idle" and not self.ended:
            if not self._program:
                self._finish("completed", "twiml")
                return
            self._begin(self._program.popleft(), now)

    def _begin(self, verb: twiml.Verb, now: float) -> None:
        if not self.answered and not self._leaves_ringing(verb):
            self.answered = True
            self.instructions.append(Answer())
        match verb:
            case twiml.Say(text=text):
                self._play(wav.say(text))
            case twiml.Pause(seconds=seconds):
                self._hops = 0
                self._pause = round(seconds / FRAME_SECONDS)
                self.doing = "pause" if self._pause else "idle"
            case twiml.Play(digits=digits):
                self._play(tones.dtmf(digits))
                self._keys = tones.keys(digits)
            case twiml.Connect():
                self._hops = 0
                self.doing = "stream"
                self._after = (verb.action, verb.method) if verb.action else None
                self.connecting = verb.stream
                self.instructions.append(OpenStream(verb.stream, self.seam))
                self.seam = 0.0
            case twiml.Start():
                self.start_side(verb.stream)
            case twiml.Stop(name=name):
                for side in [side for side in self.sides if side.verb.name == name]:
                    self.stop_side(side)
            case twiml.Redirect(url=url, method=method):
                self._fetch(url, method, (), now)
            case twiml.Reject(reason=reason):
                busy = reason == "busy" and self._beliefs.hold("reject-is-busy")
                if self.answered:
                    self._finish("completed", "reject")
                else:
                    self._finish("busy" if busy else "no-answer", "reject")
            case twiml.Hangup():
                self._finish("completed", "hangup-verb")
            case twiml.Dial():
                self.doing = "dial"
                self._after = (verb.action, verb.method) if verb.action else None
                self.instructions.append(PlaceDial(verb))

    def _leaves_ringing(self, verb: twiml.Verb) -> bool:
        match verb:
            case twiml.Pause():
                return self._beliefs.hold("pause-keeps-ringing")
            case twiml.Reject():
                return self._beliefs.hold("reject-does-not-answer")
        return isinstance(verb, twiml.Redirect)

    def _play(self, audio: bytes) -> None:
        self._sound = deque(frames(audio))
        self._keys = {}
        self._sound_at = 0
        self._hops = 0
        self.doing = "sound" if self._sound else "idle"

    def _done(self, now: float, params: tuple[tuple[str, str], ...] = ()) -> None:
        self.doing = "idle"
        if self._last_words:
            self._finish("completed", "application-error")
            return
        after, self._after = self._after, None
        if after is not None:
            self._fetch(after[0], after[1], params, now)
            return
        self._next(now)

    def _fetch(
        self, url: str, method: str, params: tuple[tuple[str, str], ...], now: float
    ) -> None:
        target = urljoin(self._url, url) if self._url else url
        if urlsplit(target).scheme not in ("http", "https"):
            self._report(11100, f"{url!r} is no http URL and there is none to resolve it against")
            self.application_error(now)
            return
        self.doing = "fetch"
        self.instructions.append(Fetch(target, method, params))

    def _drop_current(self, *, moved: bool = False) -> None:
        if self.stream is not None:
            self.instructions.append(CloseStream(self.stream, moved))
            self.stream = None
        self.connecting = None
        if self.doing in ("dial", "bridge"):
            self.instructions.append(DropDial())
        self.peer = None
        self._after = None
        self._sound.clear()
        self._last_words = False
        self.doing = "idle"

    def _finish(self, status: str, reason: str) -> None:
        self.doing, self.ended = "idle", True
        self._program.clear()
        for side in list(self.sides):
            self.stop_side(side)
        self.instructions.append(End(status, reason))

    def _report(self, code: int, text: str) -> None:
        self.instructions.append(Report(code, text))
