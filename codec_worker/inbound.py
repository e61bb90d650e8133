"""One call's inbound sound, without I/O: its positions, its losses, and frames that are asked for
again.

Frames come with a stream position (``media.timestamp``), because the carrier's TCP stalls and
bursts. The client gets them in *call time*, which runs on over all streams of the call.

The rules:

1. Nothing is handed out before :meth:`Inbound.resume`, because only the client knows how far it has
   heard the call. Until then a ring keeps up to 300 s of frames, and later the newest 10 s.
2. Within a stream, call time runs with stream position. A frame that was heard before is dropped,
   and a frame that overlaps with heard sound is cut. A gap between two frames is counted as lost
   and skipped: the sound after the gap says how long it was.
3. Between two streams call time runs with the clock: the time between them is lost sound. The first
   stream of a call has call time 0 at its first sound, wherever its positions begin. But if they
   begin later than 1 s, it has call time 0 at position 0, and what did not come is lost sound.
   A stream that *joins* brought the same sound as the stream before it for a while. It continues
   where the earlier stream ended, without a seam (``join.py``), and sound that both brought is
   heard once. Earlier streams at another gateway may still bring sound, and bring it late where
   that gateway stood still. Each is heard until it has reached the later stream's sound, or has
   ended. The later one's sound waits so long, but for 2 s at most.
4. A seam (gap, end of a stream) ends the filter's history: the samples that the filter holds back
   are handed out as if silence followed.
5. A client may ask for its sound in larger pieces (:attr:`Inbound.gathers`). Whole frames without a
   seam between them then wait until they make up a piece. Anything else, for example a gap or the
   stream's end, flushes what waits. So does the beat of the worker where no more frames come
   (:meth:`Inbound.overdue`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from trunkline.bus.sound import FRAME, WIRE_RATE

from .join import by_clock, by_sound
from .mulaw import SILENCE
from .playout import CAPACITY, SAMPLE_NS
from .resample import HELD_PAST, LOOKAHEAD, RATIO, History, Upsampler

#: The ring keeps this many samples that were handed out: 10 s.
RING: Final = 10 * WIRE_RATE
#: If the first stream's positions begin later than this (1 s), its beginning counts as lost. If
#: they begin earlier, its first sample counts as the call's first.
_LATEST_START: Final = WIRE_RATE

#: A join compares the last 1 s of the old stream with the first 3 s of the new one. A gateway keeps
#: 2 s of a one-way stream that waits, so all of that is compared.
_JOIN_OLD: Final = WIRE_RATE
_JOIN_NEW: Final = 3 * WIRE_RATE
#: At most this much of later streams' sound (2 s) waits at a joint. The old stream's gateway is
#: told to close it after 1 s.
_MOST_WAITING: Final = 2 * WIRE_RATE

_TAIL: Final = bytes([SILENCE]) * LOOKAHEAD


class InboundFrame(msgspec.Struct, frozen=True, gc=False):
    """mu-law that begins at ``position`` of stream ``ordinal`` and came at ``arrival`` (ns)."""

    arrival: int
    ordinal: int
    position: int
    payload: bytes


class SoundPiece(msgspec.Struct, frozen=True, gc=False):
    """PCM16 24 kHz of the ``call``-th call. The piece begins at call time ``position``, and
    ``stream_end`` is the stream position that follows it. ``lost``: samples at 8 kHz just before
    the piece that never arrived. ``codes``: the mu-law from which ``pcm`` was decoded."""

    call: int
    position: int
    ordinal: int
    stream_end: int
    lost: int
    pcm: bytes
    codes: bytes


class _Run:
    """Frames without a gap, to be decoded in one go."""

    __slots__ = ("data", "ends", "joined", "lost", "ordinal", "past", "start")

    def __init__(self, ordinal: int, start: tuple[int, int], lost: int, past: bytes | None) -> None:
        self.ordinal = ordinal
        #: call time and stream position of the run's first sample
        self.start = start
        #: samples just before the run that never arrived
        self.lost = lost
        #: the sound before the run, for the filter; None: the run continues the one before it
        self.past = past
        self.data: list[bytes] = []
        #: the run continues the one before it, though that belongs to another stream
        self.joined = False
        #: a seam follows the run
        self.ends = False


class Inbound:
    """The inbound sound of one call at one worker."""

    # Slots: see Call in call.py.
    __slots__ = (
        "_base", "_history", "_joins", "_last_arrival", "_late", "_looked_at", "_more", "_next",
        "_open", "_ordinal", "_out", "_owed", "_past", "_ring", "_ring_samples", "_runs",
        "_waiting", "gathers", "lost", "resumed",
    )  # fmt: skip

    def __init__(self) -> None:
        #: samples at 8 kHz that never arrived, since this worker has the call
        self.lost = 0
        self.resumed = False
        #: the client wants pieces of at least this many samples; 0: sound as it comes
        self.gathers = 0
        self._ring: deque[InboundFrame] = deque()
        self._ring_samples = 0
        self._ordinal = 0  # stream of the newest frame fed; 0: no frame yet
        self._next = 0  # next position of that stream
        self._base = 0  # call time = base + stream position
        self._last_arrival: int | None = None
        self._past = b""  # mu-law just before _next, for a filter that starts there
        #: whole frames that follow the last batch without a seam, while nothing else waits. Sound
        #: nearly always comes like this, so it is spared the cost of a run
        self._more: list[bytes] = []
        self._runs: list[_Run] = []
        self._open: _Run | None = None  # the last run, while frames may still follow without a seam
        #: the filter as the last batch left it; None: no sound yet, or none since a seam or a pause
        self._history: History | None = None
        self._out = (0, 0)  # call time and stream position of the next output
        self._looked_at = 0  # _next as :meth:`overdue` found it last
        self._owed = 0  # lost samples not yet reported
        self._joins: set[int] = set()  # streams that join the one before
        self._late: set[int] = set()  # streams before the newest that may still bring sound
        self._waiting = 0  # samples that wait at a joint, behind such a stream

    # ------------------------------------------------------------------ in

    def add(self, frame: InboundFrame) -> bool:
        """A frame arrived. True: hand out now what waits."""
        payload = frame.payload
        length = len(payload)
        self._ring.append(frame)
        samples = self._ring_samples + length
        bound = RING if self.resumed else CAPACITY
        while samples > bound:
            samples -= len(self._ring.popleft().payload)
        self._ring_samples = samples
        if not self.resumed:
            return False
        if (
            frame.position == self._next
            and frame.ordinal == self._ordinal
            and self._history is not None
            and not self._runs
            and (length == FRAME or length == 2 * FRAME)
        ):
            assert self._last_arrival is not None
            self._next += length
            arrival = self._last_arrival + length * SAMPLE_NS
            self._last_arrival = arrival if arrival < frame.arrival else frame.arrival
            self._more.append(payload)
            return self._next - self._out[1] - LOOKAHEAD >= self.gathers
        if not self._waiting:
            self._feed(frame)
        elif self._waiting + length <= _MOST_WAITING:
            self._waiting += length
        else:
            self.none_late()
        return True

    def add_late(self, frames: Sequence[InboundFrame]) -> None:
        """Frames arrived of a stream before the newest. They are taken together, because the joint
        is found by their sound."""
        if not frames:
            return
        ordinal = frames[0].ordinal
        newer = (at for at, kept in enumerate(self._ring) if kept.ordinal > ordinal)
        place = next(newer, len(self._ring))
        for at, frame in enumerate(frames, place):
            self._ring.insert(at, frame)
            self._ring_samples += len(frame.payload)
        if self.resumed:
            if ordinal == self._ordinal:
                for frame in frames:
                    self._feed(frame)
            self._feed_behind_joint()

    def awaits(self, ordinal: int) -> bool:
        """Sound of this stream, which is not the newest, may still be heard."""
        return self._ordinal <= ordinal and ordinal in self._late

    def none_late(self, ordinal: int | None = None) -> None:
        """No more sound comes of this stream, which is not the newest. None: nor of any other, or
        none is waited for any more."""
        if ordinal is None:
            self._late.clear()
        else:
            self._late.discard(ordinal)
        if self._waiting:
            self._feed_behind_joint()

    def replace_ring(self, frames: Sequence[InboundFrame]) -> None:
        """Take the gateway's ring of its stream in place of ours, which is no more complete.
        Nothing is handed out until the next ``resume``."""
        self.pause()
        if frames:
            ordinal = frames[0].ordinal
            self._ring = deque(f for f in self._ring if f.ordinal < ordinal)
            self._ring.extend(frames)
            self._ring_samples = sum(len(f.payload) for f in self._ring)

    def join(self, ordinal: int, late: Iterable[int] = ()) -> None:
        """The stream ``ordinal`` brought the same sound as the one before it for a while. ``late``:
        these streams before the newest may still bring sound, from other gateways."""
        self._joins.add(ordinal)
        self._late = set(late)

    def pause(self) -> None:
        """Hand out nothing until the next ``resume``. Frames that still wait are dropped here,
        because the ring has them."""
        self.resumed = False
        self.gathers = 0
        self._more.clear()
        self._runs.clear()
        self._open = None
        self._history = None
        self._owed = 0
        self._waiting = 0

    def resume(
        self, ordinal: int, position: int, call_position: int, idle_ns: int, now: int
    ) -> None:
        """The client has heard up to ``position`` of stream ``ordinal`` (0: nothing yet), which is
        ``call_position`` in call time. It heard that ``idle_ns`` ago. The ring is fed from there.
        """
        self.pause()
        self.resumed = True
        self._ordinal = ordinal
        self._next = position
        self._base = call_position - position
        self._last_arrival = now - idle_ns if ordinal or idle_ns else None
        self._past = b""
        for frame in self._ring:
            if frame.ordinal == ordinal and frame.position < position:
                self._past = (self._past + frame.payload[: position - frame.position])[-LOOKAHEAD:]
        for frame in self._ring:
            if not self._feed(frame):
                break

    def remember(self, ordinal: int, position: int, heard: bytes, arrival: int) -> None:
        """The client heard this sound last, up to ``position`` of a stream that may have brought it
        to another worker. The next stream's joint is found by it."""
        at = 0
        for at, kept in enumerate(self._ring, 1):
            if (kept.ordinal, kept.position) >= (ordinal, position):
                at -= 1
                break
            if kept.ordinal == ordinal and kept.position + len(kept.payload) >= position:
                return
        if heard:
            last = heard[-_JOIN_OLD:]
            self._ring.insert(at, InboundFrame(arrival, ordinal, position - len(last), last))
            self._ring_samples += len(last)

    def end_stream(self) -> None:
        """No more comes on this stream, so the filter may give out the samples that it holds
        back."""
        self.none_late()
        self._close_run()

    def _close_run(self) -> None:
        self._settle()
        if self._open is not None:
            self._open.ends = True
            self._open = None
        elif self._history is not None and not self._runs:
            # A batch has taken the run already; only the filter's last samples are left.
            tail = _Run(self._ordinal, self._out, 0, None)
            tail.ends = True
            self._runs.append(tail)

    def _settle(self) -> None:
        """Make a run of the frames that follow the last batch, before other sound follows."""
        if self._more:
            run = _Run(self._ordinal, self._out, 0, None)
            run.data, self._more = self._more, []
            self._open = run
            self._runs.append(run)

    def _feed_behind_joint(self) -> None:
        """Take the frames that wait at the joint, if they need not wait any more."""
        self._waiting = 0
        if self.resumed:
            for frame in [f for f in self._ring if f.ordinal > self._ordinal]:
                if not self._feed(frame):
                    break

    def _feed(self, frame: InboundFrame) -> bool:
        """Take a frame that need not follow the last one: see the rules. False: it waits at the
        joint, with all that follow it."""
        self._settle()
        ordinal, position, payload = frame.ordinal, frame.position, frame.payload
        if ordinal < self._ordinal:
            return True
        lost, stream = 0, self._ordinal
        joins = ordinal > stream and ordinal in self._joins and self._last_arrival is not None
        if joins:
            joined = self._join_stream(frame)
            if joined is None:
                return False
            lost = joined
        elif ordinal > stream:
            lost = self._begin_stream(frame)
        elif position > self._next:
            lost = position - self._next
        if position < self._next:
            payload = payload[self._next - position :]
            position = self._next
        if not payload:
            return True  # heard before, so it does not show when new sound last came
        arrival = frame.arrival
        if ordinal == stream and self._last_arrival is not None:
            # The frame may have waited until we read it. But it was spoken no later than the last
            # arrival plus what lies between the two.
            arrival = min(arrival, self._last_arrival + (lost + len(payload)) * SAMPLE_NS)
        self._last_arrival = arrival
        if lost:
            self._close_run()
            self._past = b""
        self.lost += lost
        run = self._open
        if run is None:
            fresh = lost > 0 or self._history is None or bool(self._runs)
            start = (self._base + position, position)
            run = self._open = _Run(ordinal, start, lost, self._past if fresh else None)
            self._runs.append(run)
        run.data.append(payload)
        self._next = position + len(payload)
        return True

    def _join_stream(self, frame: InboundFrame) -> int | None:
        """The new stream goes on where the one before it ended; returns what was lost between.
        None: the one before it goes on so long."""
        assert self._last_arrival is not None
        heard = self._base + self._next
        begins = frame.arrival - len(frame.payload) * SAMPLE_NS
        clock = (self._last_arrival - begins) // SAMPLE_NS
        head = self._head(frame)
        both = by_sound(self._tail(), head, clock)
        if both is None:
            late = any(self.awaits(ordinal) for ordinal in self._late if ordinal < frame.ordinal)
            if late and len(head) <= _MOST_WAITING:
                self._waiting = len(head)
                return None
            both = by_clock(clock)
        lost = max(0, -both)
        self._next = frame.position + max(0, both)
        self._base = heard + lost - self._next
        self._ordinal = frame.ordinal
        if not lost:
            self._go_on_in(frame.ordinal, heard)
        return lost

    def _go_on_in(self, ordinal: int, heard: int) -> None:
        """Let the filter go on from the one stream to the other, as if they were one."""
        unbroken = self._open is not None or (self._history is not None and not self._runs)
        if unbroken:
            run = _Run(ordinal, (heard, self._next), 0, None)
            run.joined = True
            self._open = run
            self._runs.append(run)

    def _tail(self) -> bytes:
        """The end of the present stream's sound, as far as the ring has it without a gap."""
        parts: list[bytes] = []
        begin, size = self._next, 0
        for frame in reversed(self._ring):
            if frame.ordinal != self._ordinal or frame.position >= begin:
                continue
            if frame.position + len(frame.payload) < begin or size >= _JOIN_OLD:
                break
            parts.append(frame.payload[: begin - frame.position])
            size += len(parts[-1])
            begin = frame.position
        return b"".join(reversed(parts))

    def _head(self, first: InboundFrame) -> bytes:
        """The beginning of a new stream's sound, as far as the ring has it without a gap."""
        parts: list[bytes] = []
        end = first.position
        for frame in self._ring:
            if frame.ordinal != first.ordinal or frame.position < end:
                continue
            if frame.position > end or end - first.position >= _JOIN_NEW:
                break
            parts.append(frame.payload)
            end += len(frame.payload)
        return b"".join(parts)

    def _begin_stream(self, frame: InboundFrame) -> int:
        """Fix where the new stream stands in call time; returns what was lost before it."""
        self._close_run()
        heard = self._base + self._next
        if self._last_arrival is None:
            lost = frame.position if frame.position > _LATEST_START else 0
        else:
            silent = (frame.arrival - self._last_arrival) // SAMPLE_NS
            lost = max(0, silent - len(frame.payload))
        self._ordinal = frame.ordinal
        self._base = heard + lost - frame.position
        self._next = frame.position
        self._past = b""
        return lost

    # ------------------------------------------------------------------ out

    def overdue(self) -> bool:
        """Frames wait for others, and no frame has come since this was asked last."""
        before, self._looked_at = self._looked_at, self._next
        return before == self._next and bool(self._more)

    def take_frames(self) -> bytes | None:
        """The whole frames that follow the last batch, behind the past that the filter needs. None:
        there are no such frames, or the filter does not have its past yet, and then they become a
        run."""
        if not self._more:
            return None
        history = self._history
        assert history is not None
        past = history.tail
        if len(past) != HELD_PAST:
            self._settle()
            return None
        window = b"".join((past, *self._more))
        history.tail = self._more[-1][-HELD_PAST:]
        self._more.clear()
        return window

    def frames_decoded(self, place: int, window: bytes, pcm: bytes) -> SoundPiece:
        """``pcm`` was decoded from what :meth:`take_frames` returned. ``place``: the call's place
        among all that are handed out together."""
        position, stream_position = self._out
        codes = window[LOOKAHEAD:-LOOKAHEAD]
        stream_end = stream_position + len(codes)
        self._out = (position + len(codes), stream_end)
        owed, self._owed = self._owed, 0
        return SoundPiece(place, position, self._ordinal, stream_end, owed, pcm, codes)

    @property
    def has_runs(self) -> bool:
        """Runs wait to be decoded, one after the other."""
        return bool(self._runs)

    def take_run(self) -> tuple[_Run, History, bytes]:
        """The first run, the filter's history for it, and its sound."""
        run = self._runs.pop(0)
        if self._history is None or run.past is not None:
            self._history = Upsampler.history(run.past or b"")
            self._out = run.start
        if run.ends:
            run.data.append(_TAIL)
        return run, self._history, run.data[0] if len(run.data) == 1 else b"".join(run.data)

    def run_decoded(self, place: int, run: _Run, pcm: bytes, codes: bytes) -> SoundPiece | None:
        """``pcm`` was decoded from the run, and begins with ``codes``. None: the filter still holds
        all of it back. ``place``: as for :meth:`frames_decoded`."""
        lost = self._owed + run.lost
        position, stream_position = self._out
        if run.joined:
            stream_position = position - run.start[0] + run.start[1]
            self._out = (position, stream_position)
        if run.ends:
            self._history = None
        elif run is self._open:
            self._open = None
        samples = len(pcm) // (2 * RATIO)
        if not samples:
            self._owed = lost
            return None
        self._owed = 0
        stream_end = stream_position + samples
        self._out = (position + samples, stream_end)
        return SoundPiece(place, position, run.ordinal, stream_end, lost, pcm, codes[:samples])


def hand_out(upsampler: Upsampler, calls: Sequence[Inbound]) -> list[SoundPiece]:
    """Decode all that waits. Returns the sound of all calls; each call's is in order.

    One product does all calls to which only whole frames came. The others (at a stream's beginning,
    a gap, an end) take as many more products as the call with the most runs has runs."""
    usual: list[int] = []
    windows: list[bytes] = []
    seams: list[tuple[int, Inbound]] = []
    for place, call in enumerate(calls):
        window = call.take_frames()
        if window is not None:
            usual.append(place)
            windows.append(window)
        elif call.has_runs:
            seams.append((place, call))
    decoded = upsampler.frames(windows)
    result = [
        calls[place].frames_decoded(place, window, pcm)
        for place, window, pcm in zip(usual, windows, decoded, strict=True)
    ]
    if seams:
        _hand_out_runs(upsampler, seams, result)
    return result


def _hand_out_runs(
    upsampler: Upsampler, work: list[tuple[int, Inbound]], result: list[SoundPiece]
) -> None:
    """Decode the runs of the calls in ``work``, which are named by their place among all."""
    while work:
        runs, histories, chunks = zip(*(call.take_run() for _, call in work), strict=True)
        # The filter's output begins with the sample that follows its past.
        inputs = [
            (history.tail + chunk)[LOOKAHEAD:]
            for history, chunk in zip(histories, chunks, strict=True)
        ]
        decoded = upsampler.run(histories, chunks)
        for (place, call), run, pcm, codes in zip(work, runs, decoded, inputs, strict=True):
            piece = call.run_decoded(place, run, pcm, codes)
            if piece is not None:
                result.append(piece)
        work = [(place, call) for place, call in work if call.has_runs]
