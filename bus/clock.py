"""The one monotonic clock, injected everywhere; state machines get its reading as an argument."""

from __future__ import annotations

import time
from collections.abc import Callable

#: A monotonic clock: seconds as float. CLOCK_MONOTONIC, so one machine's processes agree on it.
Clock = Callable[[], float]

monotonic: Clock = time.monotonic


def until_next(period: float, now: float) -> float:
    """Seconds from ``now`` to the first whole multiple of ``period`` that is half a period away or
    more: 0.5 to 1.5 periods.

    Signs of life may be given at any time, so every process of the machine gives them at these
    moments. Then signs of several kinds share one wake-up, and whoever hears several processes is
    woken once for all of them.
    """
    return ((now / period + 0.5) // 1 + 1) * period - now
