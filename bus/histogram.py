"""A histogram of times: how many figures lie in each bucket.

A process counts figures where they arise, which costs an increment, and tells the controller its
counts with its beats (:class:`~.control_messages.Tally`). ``/metrics`` has the sums of all
processes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from .control_messages import Tally

#: Seconds by which a timer is late. No call hears up to 60 ms of it, which is the default lead.
LATENESS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.06, 0.1, 0.2, 0.5, 1.0)
#: Seconds by which the slowest frame of a stream in 5 s was later than the quickest one.
JITTER: Final = (0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0)


class Histogram:
    """``bounds``: seconds up to which a figure counts in each bucket."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        #: how often a figure lay in each bucket, and beyond the last bucket
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def count(self, seconds: float) -> None:
        """Count one figure more. A timer may be early by a fraction of a millisecond, which counts
        as 0."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        if seconds > 0.0:
            self.sum += seconds

    def tally(self) -> Tally:
        """All that was counted so far."""
        return Tally(counts=list(self.counts), sum=self.sum)

    def add(self, now: Tally, before: Tally | None) -> None:
        """Add what another process counted from ``before`` (None: its start) to ``now``. A tally
        with other buckets, or one that shrinks, was not made by this release, and is left out."""
        then = before or Tally(counts=[0] * len(now.counts))
        if not len(now.counts) == len(then.counts) == len(self.counts):
            return
        more = [new - old for new, old in zip(now.counts, then.counts, strict=True)]
        if min(more) < 0 or now.sum < then.sum:
            return
        self.counts = [mine + new for mine, new in zip(self.counts, more, strict=True)]
        self.sum += now.sum - then.sum
