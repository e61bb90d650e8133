"""The record of one Media Stream at its gateway. :mod:`.streams` alone writes it. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from msgspec.structs import replace

from trunkline.bus import messages as m
from trunkline.bus.sound import WIRE_RATE

#: Inbound sound that is kept for a worker that takes over: 10 s, in samples.
RING_SAMPLES: Final = 10 * WIRE_RATE
#: How much more there may be until it is looked at: 0.5 s.
_SLACK: Final = WIRE_RATE // 2
#: Frames that the ring holds at most, whatever their lengths (a carrier sends 50 a second).
RING_FRAMES: Final = 2_000
#: Digits that are kept of one stream.
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
    """The recent inbound sound of one stream, oldest first; each frame as it was told to a worker,
    or would have been."""

    frames: deque[m.InFrame] = field(default_factory=deque)
    samples: int = 0
    #: a frame from this position on shows that some are too old by :data:`_SLACK` samples
    _full_at: int = -1

    @property
    def end(self) -> int:
        """The position that follows the newest sound."""
        return self.frames[-1].position + len(self.frames[-1].payload) if self.frames else 0

    def add(self, frame: m.InFrame) -> None:
        """Keep one frame. The oldest frames lie in cold memory, so they are not looked at for each
        new one. Half a second of them is let go at a time."""
        self.frames.append(frame)
        self.samples = samples = self.samples + len(frame.payload)
        if (
            frame.position >= self._full_at
            or samples > RING_SAMPLES + _SLACK
            or len(self.frames) > RING_FRAMES
        ):
            self.trim()

    def trim(self) -> None:
        """Let go of what is older than 10 s before the end."""
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
    #: of the placement, the primary first
    workers: list[m.WorkerRef] = field(init=False)
    #: endpoint of the worker that has, or is to have, the call in this generation; None: nobody
    active: str | None = None
    #: OpenCall of this generation has been sent to ``active``
    opened: bool = False
    #: endpoints of workers that were sent an OpenCall and no CloseCall since
    holders: set[str] = field(default_factory=set)
    #: endpoint -> until when it is not asked again (it refused the call)
    refused: dict[str, float] = field(default_factory=dict)
    #: clears written
    playback: int = 0
    #: when the carrier will have played all that was written
    plays_until: float = 0.0
    #: seconds of written sound that were due to be played while this process stood still. The
    #: stream may have ended when that time began, and then they count as lost. 0: everything that
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
    #: it brings sound and takes none
    one_way: bool = False
    #: the stream before it brought its first frames too
    joins: bool = False
    frames_in: int = 0
    frames_out: int = 0
    #: who hears its sound: a recording, and the console while somebody looks
    taps: tuple[Tap, ...] = ()
    #: a meter's, which needs our own sound alone: the far end's is in the ring
    keeps: Callable[[bytes], object] | None = None

    @property
    def call(self) -> str:
        return self.info.call

    @property
    def ordinal(self) -> int:
        return self.info.ordinal

    def tap(self, tap: Tap) -> None:
        """It hears the stream from now on."""
        self.taps = (*self.taps, tap)

    def untap(self, tap: Tap) -> None:
        """It hears the stream no more."""
        self.taps = tuple(each for each in self.taps if each is not tap)

    @property
    def is_second_track(self) -> bool:
        """It is the outbound track of a call that is listened to: the controller, which knows the
        call by its inbound track, hears nothing of it."""
        return self.socket < 0

    def keep(self, keeps: Callable[[bytes], object] | None) -> None:
        """It gets our sound from now on; None: nobody does."""
        self.keeps = keeps

    @property
    def stats(self) -> m.StreamStats:
        """Its counters, for Beat."""
        return m.StreamStats(
            call=self.call,
            ordinal=self.ordinal,
            frames_in=self.frames_in,
            frames_out=self.frames_out,
        )

    def announced(self, active: str | None, now: float) -> m.StreamInfo:
        """It, for Hello. ``active``: the id of the worker that has the call."""
        return m.StreamInfo(
            info=replace(self.info, age=(self.info.age or 0.0) + now - self.accepted_at),
            stream_sid=self.stream_sid,
            generation=self.generation,
            active=active,
            one_way=self.one_way,
        )

    def open_call(self, lead_ms: int, now: float) -> m.OpenCall:
        """Gives the call to a worker, with everything that it needs to go on from here."""
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
        """Samples that lay unplayed at the carrier at this time."""
        return max(0, round((self.plays_until - at) * WIRE_RATE))

    @property
    def lost(self) -> int:
        """Samples that the carrier had not played when the stream ended."""
        return self.unplayed(self.ended_at) + round(self.in_doubt * WIRE_RATE)

    def stood_still(self, since: float, until: float) -> None:
        """Nothing was read since then. The stream may have gone in that time, and the news of it
        still waits."""
        self.in_doubt += max(0.0, min(self.plays_until, until) - since)

    def __post_init__(self) -> None:
        self.place(self.info.placement)

    def place(self, placement: m.Placement | None) -> None:
        """These are its workers from now on."""
        self.info = replace(self.info, placement=placement)
        both = () if placement is None else (placement.primary, placement.standby)
        self.workers = [worker for worker in both if worker is not None]
