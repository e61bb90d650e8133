"""What the ears of clients have heard, over all calls whose reports somebody looked at."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

#: Seconds up to which a figure counts, bucket by bucket: a person waits for an answer for about
#: one second gladly, and for five with doubts.
BUCKETS: Final = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)


class Histogram:
    """How often a figure was how large."""

    def __init__(self) -> None:
        #: how often it lay in each bucket, and beyond the last one
        self.counts = [0] * (len(BUCKETS) + 1)
        self.sum = 0.0

    def count(self, figures: Iterable[float]) -> None:
        """So often more."""
        for figure in figures:
            self.counts[bisect_left(BUCKETS, figure)] += 1
            self.sum += figure


class HeardCalls:
    """Both figures of all calls."""

    def __init__(self) -> None:
        self.latency = Histogram()
        self.time_to_yield = Histogram()
