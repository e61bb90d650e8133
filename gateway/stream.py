"""The record of one Media Stream at its gateway. No I/O.

:mod:`.streams` alone changes it, with one exception: :mod:`.watcher` adds and removes the console's
listeners, by ``keep``, ``tap`` and ``untap``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from msgspec.structs import replace

from trunkline.bus import messages as m
from trunkline.bus.sound import WIRE_RATE

#: This much inbound sound is kept for a worker that takes over: 10 s, in samples.
RING_SAMPLES: Final = 10 * WIRE_RATE
#: The ring may exceed its limit by this much before old frames are dropped: 0.5 s.
_SLACK: Final = WIRE_RATE // 2
#: Frames that the ring holds at most, whatever their lengths (a carrier sends 50 a second).
RING_FRAMES: Final = 2_000
#: This many of the last digits of one stream are kept.
DIGITS_KEPT: Final = 256
#: Marks that the carrier has not returned, at most; older ones are forgotten.
MARKS_KEPT: Final = 1_000


class Wire(Protocol):
    """The texts of one stream's outgoing messages (a MediaStream)."""

    clear: bytes

    def media(self, payload: bytes) -> bytes: ...
    def mark(self, name: str) -> bytes: ...


class Tap(Protocol):
    """Somebody who hears both sides of a stream, in mu-law."""

    def heard(self, position: int, payload: bytes) -> None: ...
    def said(self, payload: bytes) -> None: ...
    def cleared(self) -> None: ...


@dataclass(slots=True)
class Ring:
    """The recent inbound sound of one stream, oldest first. Each frame has the form in which it was
    sent to a worker, or would have been sent if one had the call."""

    frames: deque[m.InFrame] = field(default_factory=deque)
    samples: int = 0
    #: once a frame begins here or later, the oldest frames exceed their limit by :data:`_SLACK`
    _full_at: int = -1

    @property
    def end(self) -> int:
        """The position that follows the newest sound."""
        return self.frames[-1].position + len(self.frames[-1].payload) if self.frames else 0

    def add(self, frame: m.InFrame) -> None:
        """Keep one frame. The oldest frames lie in cold memory, so they are not looked at for each
        new one. Half a second of old frames is dropped at a time."""
        self.frames.append(frame)
        self.samples = samples = self.samples + len(frame.payload)
        if (
            frame.position >= self._full_at
            or samples > RING_SAMPLES + _SLACK
            or len(self.frames) > RING_FRAMES
        ):
            self.trim()

    def trim(self) -> None:
        """Drop the frames that are older than 10 s before the end."""
        frames = self.frames
        if not frames:
            return
        last = frames[-1]
        oldest = last.position + len(last.payload) - RING_SAMPLES
        while (
            self.samples > RING_SAMPLES
            or frames[0].position + len(frames[0].payload) <= oldest
            or len(frames) > RING_FRAMES
        ):
            self.samples -= len(frames.popleft().payload)
        self._full_at = frames[0].position + RING_SAMPLES + _SLACK


@dataclass(slots=True)
class Stream:
    """One accepted Media Stream."""

    socket: int
    wire: Wire
    info: m.CallInfo
    stream_sid: str
    accepted_at: float
    generation: int
    #: the next outbound position; None: the next frame's, whatever it is (see OpenCall.out_next)
    out_next: int | None
    #: the workers of the placement, the primary first
    workers: list[m.WorkerRef] = field(init=False)
    #: endpoint of the worker that has, or is to have, the call in this generation; None: nobody
    active: str | None = None
    #: OpenCall of this generation has been sent to ``active``
    opened: bool = False
    #: endpoints of workers that were sent an OpenCall, and no CloseCall since then
    holders: set[str] = field(default_factory=set)
    #: endpoint -> until when it is not asked again (it refused the call)
    refused: dict[str, float] = field(default_factory=dict)
    #: clears written
    playback: int = 0
    #: when the carrier will have played all that was written
    plays_until: float = 0.0
    #: seconds of written sound that were due to be played while this process stood still. If the
    #: stream turns out to have ended in that time, all of them count as lost. 0: everything that
    #: came meanwhile was read, so the stream is known to go on
    in_doubt: float = 0.0
    ring: Ring = field(default_factory=Ring)
    digits: deque[m.DigitIn] = field(default_factory=lambda: deque(maxlen=DIGITS_KEPT))
    #: marks at the carrier: (name, playback generation at which it was sent)
    marks: deque[tuple[str, int]] = field(default_factory=lambda: deque(maxlen=MARKS_KEPT))
    #: when nobody has the call: when to try its workers again
    retry_at: float = 0.0
    #: how the stream ended, and when; None while it is live
    ended: m.StreamEndReason | None = None
    ended_at: float = 0.0
    #: the controller said that the call is over: nobody needs its state any more
    over: bool = False
    #: the stream brings sound and takes none
    one_way: bool = False
    #: the stream before this one also brought the sound with which this one begins
    joins: bool = False
    frames_in: int = 0
    frames_out: int = 0
    #: who hears both sides of the stream: a recording, and the console while somebody listens
    taps: tuple[Tap, ...] = ()
    #: gets our own sound for the console's meter, which finds the far end's sound in the ring
    keeps: Callable[[bytes], object] | None = None

    @property
    def call(self) -> str:
        return self.info.call

    @property
    def ordinal(self) -> int:
        return self.info.ordinal

    def tap(self, tap: Tap) -> None:
        """Let ``tap`` hear the stream from now on."""
        self.taps = (*self.taps, tap)

    def untap(self, tap: Tap) -> None:
        """Let ``tap`` hear the stream no more."""
        self.taps = tuple(each for each in self.taps if each is not tap)

    @property
    def is_second_track(self) -> bool:
        """This is the outbound track of a call that is listened to. The controller knows such a
        call by its inbound track, and hears nothing of the outbound one."""
        return self.socket < 0

    def keep(self, keeps: Callable[[bytes], object] | None) -> None:
        """Let ``keeps`` get our sound from now on; None: nobody gets it."""
        self.keeps = keeps

    @property
    def stats(self) -> m.StreamStats:
        """The stream's counters, for Beat."""
        return m.StreamStats(
            call=self.call,
            ordinal=self.ordinal,
            frames_in=self.frames_in,
            frames_out=self.frames_out,
        )

    def announced(self, active: str | None, now: float) -> m.StreamInfo:
        """The stream as Hello announces it. ``active``: the id of the worker that has the call."""
        return m.StreamInfo(
            info=replace(self.info, age=(self.info.age or 0.0) + now - self.accepted_at),
            stream_sid=self.stream_sid,
            generation=self.generation,
            active=active,
            one_way=self.one_way,
        )

    def open_call(self, lead_ms: int, now: float) -> m.OpenCall:
        """The message that gives the call to a worker, with all that the worker needs to go on."""
        call, generation, ordinal = self.call, self.generation, self.ordinal
        self.ring.trim()
        return m.OpenCall(
            call,
            generation,
            ordinal,
            self.info.secret,
            self.out_next,
            self.playback,
            [
                m.InFrame(call, generation, ordinal, frame.position, frame.payload)
                for frame in self.ring.frames
            ],
            list(self.digits),
            lead_ms,
            self.info.trace,
            self.lost if self.ended else self.unplayed(now),
            self.one_way,
            self.joins,
        )

    def unplayed(self, at: float) -> int:
        """Samples that lay unplayed at the carrier at the time ``at``."""
        return max(0, round((self.plays_until - at) * WIRE_RATE))

    @property
    def lost(self) -> int:
        """Samples that the carrier had not played when the stream ended."""
        return self.unplayed(self.ended_at) + round(self.in_doubt * WIRE_RATE)

    def stood_still(self, since: float, until: float) -> None:
        """Nothing was read from ``since`` to ``until``. The stream may have ended in that time, and
        the news of its end may still wait to be read."""
        self.in_doubt += max(0.0, min(self.plays_until, until) - since)

    def __post_init__(self) -> None:
        self.place(self.info.placement)

    def place(self, placement: m.Placement | None) -> None:
        """Let the stream's workers be those of ``placement`` from now on."""
        self.info = replace(self.info, placement=placement)
        both = () if placement is None else (placement.primary, placement.standby)
        self.workers = [worker for worker in both if worker is not None]
