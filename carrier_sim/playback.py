"""The carrier's buffer of one stream: audio that came in and has not been played yet, and marks.

No I/O; ``now`` is monotonic seconds. Positions count the samples (= bytes of μ-law) accepted since
the stream began. They never fall: after a ``clear`` they go on behind everything thrown away.
Source: TD voice/media-streams/websocket-messages. A mark comes back when playback reaches it. A
``clear`` empties the buffer and returns all pending marks at once. Audio beyond ten minutes in the
buffer is thrown away (31931).
"""

from __future__ import annotations

from array import array
from collections import deque
from typing import Final

import msgspec

from .mulaw import FRAME_BYTES, RATE, SILENCE

MAX_BUFFERED: Final = 600 * RATE


class Span(msgspec.Struct, frozen=True):
    """A stretch in which the far end heard the stream's audio without a hole.

    Times are monotonic seconds; positions are samples accepted. ended_by is "dry" (the buffer had
    nothing more), "clear" or "close"; "" while it goes on.
    """

    started: float
    ended: float
    from_position: int
    to_position: int
    ended_by: str


class Arrivals:
    """Every media message taken: when it came, its samples, how many lay buffered before it."""

    __slots__ = ("depths", "sizes", "times")

    def __init__(self) -> None:
        self.times: array[float] = array("d")
        self.sizes: array[int] = array("l")
        self.depths: array[int] = array("l")


class PlaybackBuffer:
    """The audio that waits, the position of playback, and the record for the metrics."""

    __slots__ = (
        "_buffer",
        "_from_position",
        "_held_until",
        "_marks",
        "_started",
        "accepted",
        "arrivals",
        "clears",
        "discarded",
        "longest",
        "played",
        "spans",
        "starts_after",
    )

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._marks: deque[tuple[int, str]] = deque()
        self._started: float | None = None
        self._from_position = 0
        #: Position behind the last sample taken into the buffer.
        self.accepted = 0
        #: Position of playback; accepted - played samples are buffered.
        self.played = 0
        #: Samples thrown away by clear or by the end of the stream.
        self.discarded = 0
        #: (time, samples thrown away) of each clear.
        self.clears: list[tuple[float, int]] = []
        self.arrivals = Arrivals()
        #: Samples that are buffered at most.
        self.longest = MAX_BUFFERED
        #: Seconds between the first audio of a stretch and its playback.
        self.starts_after = 0.0
        self._held_until = 0.0
        self.spans: list[Span] = []

    def add(self, now: float, audio: bytes) -> bool:
        """Audio from the server. False when the buffer is full and it was thrown away."""
        size, depth = len(audio), len(self._buffer)
        if depth + size > self.longest:
            return False
        if not depth and self._started is None:
            self._held_until = now + self.starts_after
        arrivals = self.arrivals
        arrivals.times.append(now)
        arrivals.sizes.append(size)
        arrivals.depths.append(depth)
        self._buffer += audio
        self.accepted += size
        return True

    def mark(self, name: str) -> list[str]:
        """A mark from the server. Returns it at once when nothing is buffered before it."""
        if not self._buffer and not self._marks:
            return [name]
        self._marks.append((self.accepted, name))
        return []

    def clear(self, now: float) -> list[str]:
        """Throw the buffer away. Returns all pending marks."""
        self.clears.append((now, len(self._buffer)))
        self._drop("clear")
        return self.take_marks()

    def take_marks(self) -> list[str]:
        """All pending marks; they are pending no longer."""
        names = [name for _, name in self._marks]
        self._marks.clear()
        return names

    def close(self) -> None:
        """The stream has ended: the rest of the buffer is not played."""
        self._drop("close")
        self._marks.clear()

    def take(self, now: float) -> bytes:
        """The next 20 ms for the far end, which begins to hear it now."""
        buffer = self._buffer
        if not buffer:
            if self._started is not None:
                self._end_span(now, "dry")
            return SILENCE
        if self._started is None:
            if now < self._held_until:
                return SILENCE
            self._started, self._from_position = now, self.played
        if len(buffer) >= FRAME_BYTES:
            frame = bytes(buffer[:FRAME_BYTES])
            del buffer[:FRAME_BYTES]
            self.played += FRAME_BYTES
            return frame
        size = len(buffer)
        frame = bytes(buffer) + SILENCE[size:]
        buffer.clear()
        self.played += size
        self._end_span(now + size / RATE, "dry")
        return frame

    def reached(self) -> list[str]:
        """Marks that playback has come to since the last call."""
        if not self._marks:
            return []
        names = []
        while self._marks and self._marks[0][0] <= self.played:
            names.append(self._marks.popleft()[1])
        return names

    @property
    def buffered(self) -> int:
        """Samples waiting."""
        return len(self._buffer)

    @property
    def pending_marks(self) -> int:
        """Marks waiting."""
        return len(self._marks)

    def all_spans(self, now: float) -> list[Span]:
        """The finished spans, and the one under way up to now."""
        if self._started is None:
            return list(self.spans)
        live = Span(self._started, now, self._from_position, self.played, "")
        return [*self.spans, live]

    def _drop(self, why: str) -> None:
        self.discarded += len(self._buffer)
        self._buffer.clear()
        if self._started is not None:
            # The frame taken last is heard to its end.
            heard_until = self._started + (self.played - self._from_position) / RATE
            self._end_span(heard_until, why)
        self.played = self.accepted

    def _end_span(self, ended: float, why: str) -> None:
        if self._started is None:
            return
        self.spans.append(Span(self._started, ended, self._from_position, self.played, why))
        self._started = None
