"""The report of a call: everything that the ear says of it, as it stands in the JSON.

Times are seconds of the recording, from its first sample on. A figure that is not known is None,
for example a percentile of fewer than 20 samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np

#: Fewer samples than this have no percentiles.
LEAST_SAMPLES: Final = 20
_DECIMALS: Final = 3


def rounded(seconds: float) -> float:
    """To the millisecond: what is finer is no more than noise."""
    return round(float(seconds), _DECIMALS)


class _Figures(msgspec.Struct, frozen=True, kw_only=True):
    """``report["latency"]["p95"]`` is the same as ``report.latency.p95``."""

    def __getitem__(self, name: str) -> Any:
        if name not in self.__struct_fields__:
            raise KeyError(name)
        return getattr(self, name)


class Segment(_Figures, frozen=True, kw_only=True):
    """Speech with no gap over 0.3 s."""

    start: float
    end: float


class Side(_Figures, frozen=True, kw_only=True):
    """One side's sound."""

    segments: list[Segment]
    speech_seconds: float
    #: RMS over the segments; a full-scale square wave has 0 dBFS. None: this side never spoke
    level_dbfs: float | None
    #: frames of 20 ms that lie flat against full scale
    clipped_frames: int


class Sides(_Figures, frozen=True, kw_only=True):
    ours: Side
    theirs: Side


class Answer(_Figures, frozen=True, kw_only=True):
    """Their first segment after one of ours ended, with none of ours between."""

    #: the end of ours, as the far end heard it
    after: float
    start: float
    latency: float


class Yield(_Figures, frozen=True, kw_only=True):
    """Ours began while theirs ran."""

    at: float
    #: until theirs ended; None: theirs outlasted ours
    seconds: float | None


class FalseYield(_Figures, frozen=True, kw_only=True):
    """They stopped for a backchannel."""

    at: float


class Interruption(_Figures, frozen=True, kw_only=True):
    """They began while ours ran, and both spoke for ``seconds``."""

    at: float
    seconds: float


class Digit(_Figures, frozen=True, kw_only=True):
    """A key that was heard as a tone, or that the line told of. ``side``: "ours" or "theirs"."""

    at: float
    side: str
    digit: str


class Spread(_Figures, frozen=True, kw_only=True):
    """How a figure is spread over a call. The percentiles are None under 20 samples."""

    n: int
    p50: float | None
    p90: float | None
    p95: float | None
    max: float | None


class Report(_Figures, frozen=True, kw_only=True):
    """One call. Read ``reliable`` first: where the recording is bad, the agent is not to blame."""

    seconds: float
    reliable: bool
    unreliable_because: list[str]
    sides: Sides
    answers: list[Answer]
    yields: list[Yield]
    false_yields: list[FalseYield]
    interruptions_by_them: list[Interruption]
    talk_over_seconds: float
    silences: list[Segment]
    digits: list[Digit]
    #: frames of 20 ms: those that the line counted, or holes that were found in the words
    frames_lost: int
    #: how unevenly their sound arrived; None where nobody noted it
    jitter_ms: float | None
    latency: Spread
    time_to_yield: Spread

    def to_json(self) -> str:
        """The report as one JSON object, on one line."""
        return msgspec.json.encode(self).decode()


def spread(samples: Sequence[float]) -> Spread:
    """How these times (seconds) are spread. A percentile is interpolated between its neighbours."""
    percentiles: list[float | None] = [None, None, None]
    if len(samples) >= LEAST_SAMPLES:
        percentiles = [rounded(p) for p in np.percentile(samples, (50, 90, 95))]
    p50, p90, p95 = percentiles
    most = rounded(max(samples)) if samples else None
    return Spread(n=len(samples), p50=p50, p90=p90, p95=p95, max=most)
