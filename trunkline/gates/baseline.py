"""Compares a run with an earlier one: have answers or yields become slower? No I/O.

The median of a handful of calls varies by chance. So its change is bootstrapped: the samples of
both runs are drawn again many times, with replacement. The run is slower where the interval that
holds 95 % of the drawn changes lies above 0. A change that nobody would hear is not reported.

Of a few samples that interval is too narrow, and that of a single one has no width at all: the same
agent would fail by chance. So nothing is kept or compared under LEAST_SAMPLES.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

#: Seconds by which a median has to be slower to be reported.
LEAST_CHANGE: Final = 0.05
#: Samples that each run has to have. From 5 on, a run of the same agent fails about once in 60.
LEAST_SAMPLES: Final = 5
#: How often the samples are drawn.
DRAWS: Final = 4_000
#: The draws are the same each time, so that a verdict can be repeated.
_SEED: Final = 1
#: The figures of a test: name -> samples in seconds.
Figures = Mapping[str, Sequence[float]]


def change(before: Sequence[float], now: Sequence[float]) -> tuple[float, float, float]:
    """The change of the median, and the lower and upper end of its 95 % interval."""
    random = np.random.default_rng(_SEED)

    def medians(samples: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        drawn = random.choice(np.asarray(samples, float), (DRAWS, len(samples)))
        found: np.ndarray[tuple[int], np.dtype[np.float64]] = np.median(drawn, axis=1)
        return found

    low, high = np.percentile(medians(now) - medians(before), (2.5, 97.5))
    return float(np.median(now) - np.median(before)), float(low), float(high)


def slower(test: str, before: Figures, now: Figures) -> Iterator[str]:
    """The figures of a test that have become slower, a line for each."""
    for name, earlier, samples in _pairs(before, now):
        if min(len(earlier), len(samples)) < LEAST_SAMPLES:
            continue
        median, low, high = change(earlier, samples)
        if low > 0.0 and median > LEAST_CHANGE:
            yield (
                f"{test}: {name} is slower by {1000 * median:.0f} ms than the baseline (median of "
                f"{len(samples)}; 95 % interval {1000 * low:.0f} to {1000 * high:.0f} ms)"
            )


def too_few(test: str, before: Figures, now: Figures) -> Iterator[str]:
    """The figures of a test that have too few samples to be compared, a line for each."""
    for name, earlier, samples in _pairs(before, now):
        if (earlier or samples) and min(len(earlier), len(samples)) < LEAST_SAMPLES:
            yield (
                f"{test}: {name} is not compared with the baseline: that has {len(earlier)}, and "
                f"this run has {len(samples)}, where each needs {LEAST_SAMPLES}"
            )


def enough(now: Figures) -> dict[str, list[float]]:
    """The figures that a later run may be compared with."""
    return {name: list(found) for name, found in now.items() if len(found) >= LEAST_SAMPLES}


def not_added(test: str, now: Figures) -> Iterator[str]:
    """The figures of a test that have too few samples for that, a line for each."""
    for name, samples in now.items():
        if 0 < len(samples) < LEAST_SAMPLES:
            yield (
                f"{test}: {name} is not added to the baseline: it has {len(samples)}, where a "
                f"comparison needs {LEAST_SAMPLES} (--phone-repeat)"
            )


def _pairs(before: Figures, now: Figures) -> Iterator[tuple[str, Sequence[float], Sequence[float]]]:
    """Each figure of a test with its samples of both runs."""
    for name in sorted(before.keys() | now.keys()):
        yield name, before.get(name, ()), now.get(name, ())
