"""A run beside an earlier one: did answers, or yields, become slower? No I/O.

The median of a handful of calls moves by itself. So the change of the median is bootstrapped: both
runs' samples are drawn again many times. The change is believed where the interval that holds 95 %
of the draws lies above 0. A change that nobody would hear is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

#: A slower median is told only beyond this (seconds).
LEAST_CHANGE: Final = 0.05
DRAWS: Final = 4_000
#: Draws are the same in each run, so that a verdict can be repeated.
_SEED: Final = 1
#: Of a test: figure -> samples.
Figures = Mapping[str, Sequence[float]]


def change(before: Sequence[float], now: Sequence[float]) -> tuple[float, float, float]:
    """(change of the median, its 95 % interval)."""
    random = np.random.default_rng(_SEED)

    def medians(samples: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        drawn = random.choice(np.asarray(samples, float), (DRAWS, len(samples)))
        found: np.ndarray[tuple[int], np.dtype[np.float64]] = np.median(drawn, axis=1)
        return found

    low, high = np.percentile(medians(now) - medians(before), (2.5, 97.5))
    return float(np.median(now) - np.median(before)), float(low), float(high)


def slower(test: str, before: Figures, now: Figures) -> Iterator[str]:
    """What has become slower in a test, one line for each figure."""
    for name, samples in now.items():
        earlier = before.get(name, ())
        if not samples or not earlier:
            continue
        median, low, high = change(earlier, samples)
        if low > 0.0 and median > LEAST_CHANGE:
            yield (
                f"{test}: {name} is slower by {1000 * median:.0f} ms than the baseline (median of "
                f"{len(samples)}; 95 % interval {1000 * low:.0f} to {1000 * high:.0f} ms)"
            )
