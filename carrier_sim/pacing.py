"""Metrics of one stream: how evenly its audio arrived, and whether the far end heard holes.

Made from a PlaybackBuffer's record. An utterance is a run of played spans with holes shorter than
``UTTERANCE_GAP`` between them. Such a hole is an underrun: the buffer ran dry although more was to
come. A ``clear`` ends an utterance, and so does a longer hole.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Final

import msgspec

from .mulaw import FRAME_BYTES, RATE
from .playback import PlaybackBuffer, Span

#: Seconds.
UTTERANCE_GAP: Final = 0.4


class Utterance(msgspec.Struct, frozen=True, kw_only=True):
    """One utterance. drift_ms is how much later its last message came than its first, beyond the
    length of the audio between them: a lead of 60 ms shows as -60, a slow pacer as a positive
    number that grows with the length. slope is arrival time per audio time after the lead was
    filled (1.0 is exact); None when shorter than a second.
    """

    started: float
    ended: float
    audio_ms: float
    messages: int
    drift_ms: float
    slope: float | None
    gap_p50_ms: float
    gap_p99_ms: float
    gap_max_ms: float
    max_depth_ms: float
    underruns: int
    underrun_ms: float
    ended_by: str


class StreamMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """One stream so far. frames_* count messages of media. Gaps are between frames of 20 ms in
    utterances: of a message that holds several, each comes 20 ms after the one before it."""

    frames_in: int
    frames_out: int
    audio_out_ms: float
    played_ms: float
    discarded_ms: float
    buffered_ms: float
    clears: int
    gap_p50_ms: float
    gap_p99_ms: float
    gap_max_ms: float
    drift_max_ms: float
    max_depth_ms: float
    underruns: int
    underrun_ms: float
    utterances: tuple[Utterance, ...]


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value at a share (0 to 1) of an ordered list, nearest rank; 0.0 of an empty one."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def measure(buffer: PlaybackBuffer, frames_in: int, now: float) -> StreamMetrics:
    """The metrics of a stream at ``now``. ``frames_in``: the frames sent to the server so far."""
    arrivals = buffer.arrivals
    before = list(accumulate(arrivals.sizes, initial=0))
    groups = _group(buffer.all_spans(now))
    starts = [group[0].from_position for group in groups]
    utterances, gaps = [], []
    for index, group in enumerate(groups):
        first = bisect_left(before, starts[index], hi=len(arrivals.times))
        stop = (
            bisect_left(before, starts[index + 1], hi=len(arrivals.times))
            if index + 1 < len(groups)
            else len(arrivals.times)
        )
        utterance, own_gaps = _utterance(buffer, before, group, first, stop)
        utterances.append(utterance)
        gaps += own_gaps
    gaps.sort()
    return StreamMetrics(
        frames_in=frames_in,
        frames_out=len(arrivals.times),
        audio_out_ms=before[-1] * 1000 / RATE,
        played_ms=(buffer.played - buffer.discarded) * 1000 / RATE,
        discarded_ms=buffer.discarded * 1000 / RATE,
        buffered_ms=buffer.buffered * 1000 / RATE,
        clears=len(buffer.clears),
        gap_p50_ms=percentile(gaps, 0.5),
        gap_p99_ms=percentile(gaps, 0.99),
        gap_max_ms=gaps[-1] if gaps else 0.0,
        drift_max_ms=max((u.drift_ms for u in utterances), key=abs, default=0.0),
        max_depth_ms=max((u.max_depth_ms for u in utterances), default=0.0),
        underruns=sum(u.underruns for u in utterances),
        underrun_ms=sum(u.underrun_ms for u in utterances),
        utterances=tuple(utterances),
    )


def _group(spans: Sequence[Span]) -> list[list[Span]]:
    groups: list[list[Span]] = []
    for span in spans:
        last = groups[-1][-1] if groups else None
        if last and last.ended_by == "dry" and span.started - last.ended < UTTERANCE_GAP:
            groups[-1].append(span)
        else:
            groups.append([span])
    return groups


def _utterance(
    buffer: PlaybackBuffer, before: Sequence[int], group: list[Span], first: int, stop: int
) -> tuple[Utterance, list[float]]:
    times, sizes = buffer.arrivals.times[first:stop], buffer.arrivals.sizes[first:stop]
    depths = buffer.arrivals.depths[first:stop]
    more = [max(0, size - FRAME_BYTES) / RATE for size in sizes]
    gaps = [(b - a - late) * 1000 for (a, b), late in zip(pairwise(times), more, strict=False)]
    drift = 0.0
    if len(times) > 1:
        drift = (times[-1] - times[0]) * 1000 - (before[stop - 1] - before[first]) * 1000 / RATE
    holes = [(b.started - a.ended) * 1000 for a, b in pairwise(group)]
    ordered = sorted(gaps)
    utterance = Utterance(
        started=group[0].started,
        ended=group[-1].ended,
        audio_ms=sum(sizes) * 1000 / RATE,
        messages=len(times),
        drift_ms=drift,
        slope=_slope(times, [b - before[first] for b in before[first:stop]]),
        gap_p50_ms=percentile(ordered, 0.5),
        gap_p99_ms=percentile(ordered, 0.99),
        gap_max_ms=ordered[-1] if ordered else 0.0,
        max_depth_ms=max((d + s for d, s in zip(depths, sizes, strict=True)), default=0)
        * 1000
        / RATE,
        underruns=len(holes),
        underrun_ms=sum(holes),
        ended_by=group[-1].ended_by,
    )
    return utterance, gaps


def _slope(times: Sequence[float], positions: Sequence[int]) -> float | None:
    """Least-squares slope of arrival time over audio time, without the first 200 ms (the lead)."""
    pairs = [(p / RATE, t) for p, t in zip(positions, times, strict=True) if p >= RATE // 5]
    if len(pairs) < 3 or pairs[-1][0] - pairs[0][0] < 1.0:
        return None
    mean_p = sum(p for p, _ in pairs) / len(pairs)
    mean_t = sum(t for _, t in pairs) / len(pairs)
    spread = sum((p - mean_p) ** 2 for p, _ in pairs)
    return sum((p - mean_p) * (t - mean_t) for p, t in pairs) / spread
