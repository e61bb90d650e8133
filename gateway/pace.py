"""How much a stream may send in which time. No I/O.

A carrier sends 20 ms of sound every 20 ms, numbered by its own clock. Rules:

1. A message counts for the sound that it brings, and for LEAST at least. A mark that comes back
   does not count: there are no more of them than were sent.
2. In a window of WINDOW seconds a stream may bring MOST times as much as the window lasts. More is
   *too fast*, and nothing more is taken from it.
3. A window begins with its first message. If nothing was read for a while before, because the
   network or this process stood still, the sound that comes next is late, and not too fast. So the
   window counts as longer by that time.
4. A stream that was slow, because the network was, is in arrears: it has brought less sound than
   the time since its socket was opened. The missing sound may come at once as well. So a window
   also allows the arrears that there are at its beginning. Arrears beyond ARREARS seconds are
   forgotten, so that nobody can save up more.
5. A frame's position does not run ahead of the clock by more than AHEAD seconds. It does not run
   back either: sound that ends before the newest frame's end has been brought already. Such a
   position is wrong, and its frame is thrown away. Positions count from the first frame's, because
   a carrier may count from the call's creation.
6. The jitter of a window is how much later its latest frame came than its earliest one. For each
   frame that is measured against the sound that had come before it. The jitter of a window is
   counted when the next one begins. Two frames that were read together count as one.
"""

from __future__ import annotations

import math
from typing import Final, Literal

from trunkline.bus.histogram import JITTER, Histogram
from trunkline.bus.sound import WIRE_RATE

from . import media_streams as ms

WINDOW: Final = 5.0
MOST: Final = 2.0
#: A message counts for this many seconds at least.
LEAST: Final = 0.01
AHEAD: Final = 10.0
ARREARS: Final = 20.0

Verdict = Literal["fine", "too fast", "misplaced"]


class Pace:
    """The pace of one stream, whose socket was opened at ``now`` of the monotonic clock. ``jitter``
    counts the jitter of all streams."""

    # With many calls, others push this object out of the processor's caches between two frames.
    # Slots keep its attributes in the object, so that no dict has to be fetched from memory too.
    __slots__ = (
        "_behind", "_ends", "_first", "_heard", "_jitter", "_least", "_left", "_most", "_opened",
        "next",
    )  # fmt: skip

    def __init__(self, now: float, jitter: Histogram | None = None) -> None:
        self._jitter = jitter or Histogram(JITTER)
        #: in this window: the arrears at its earliest frame and at its latest one
        self._least, self._most = math.inf, -math.inf
        self._opened = self._heard = self._ends = now
        #: seconds of sound that may still come in this window
        self._left = 0.0
        #: the arrears, in seconds of sound; below 0: the stream is ahead
        self._behind = 0.0
        #: the first frame's position
        self._first: int | None = None
        #: the end of the newest frame, which is the position that the next frame is to have
        self.next = 0

    @property
    def behind(self) -> float:
        """How late the stream's newest message came (seconds): by how much the sound up to and
        including that message falls short of the time since the socket was opened. Below 0: the
        stream is ahead. ARREARS is the most."""
        return self._behind

    def judge(self, event: ms.Event | None, now: float) -> Verdict:
        """Count one message, which meant ``event``. *too fast*: the stream sends more than it may.
        *misplaced*: the frame's position cannot be right."""
        passed = now - self._heard
        self._heard = now
        behind = self._behind
        if now >= self._ends:
            self._ends = now + WINDOW
            self._left = MOST * (WINDOW + passed) + max(behind, 0.0)
            if self._most >= self._least:
                self._jitter.count(self._most - self._least)
                self._least, self._most = math.inf, -math.inf
        behind += passed
        if behind > ARREARS:
            behind = ARREARS
        if type(event) is not ms.Media:
            counts_for = 0.0 if type(event) is ms.MarkReturned else LEAST
            self._behind = behind - counts_for
            self._left -= counts_for
            return "too fast" if self._left < 0 else "fine"
        if behind < self._least:
            self._least = behind
        if behind > self._most:
            self._most = behind
        position, samples = event.position, len(event.payload)
        counts_for = samples / WIRE_RATE
        if counts_for < LEAST:
            counts_for = LEAST
        self._behind = behind - counts_for
        self._left -= counts_for
        if self._left < 0:
            return "too fast"
        if self._first is None:
            self._first = position
        end = position + samples
        if end <= self.next or position > self._first + (now - self._opened + AHEAD) * WIRE_RATE:
            return "misplaced"
        self.next = end
        return "fine"
