"""The sound of both sides in, a report out."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import numpy as np

from . import digits, echo, faults, moving, segments, turns
from .figures import Digit, Report, Segment, Side, Sides, rounded, spread
from .levels import RATE, Samples

#: Recordings with more clipped frames than this share of a side's speech are unreliable.
TOO_MUCH_CLIPPED: Final = 0.01
#: Sound of ours that was later than this (frames of 20 ms) makes a recording unreliable. Less than
#: that moves an answer by no more than the ear itself may be wrong on a clean line, 60 ms.
LATE: Final = 3


def listen(
    ours: Samples,
    theirs: Samples,
    *,
    frames_lost: int | None = None,
    frames_late: int = 0,
    jitter_ms: float | None = None,
    keys: Iterable[Digit] = (),
) -> Report:
    """The report of a call, from both sides' sound on one clock: PCM16 at 8 kHz, as arrays.

    ``frames_lost``, ``frames_late`` (of ours, as the far end heard it) and ``jitter_ms`` are what
    the line itself counted, where somebody knows it. Holes in the words count as lost, too.
    ``keys`` are those that the line told of, because many of them have no tone in the sound.
    """
    seconds = max(len(ours), len(theirs)) / RATE
    our_side, our_digits, our_holes, _ = _side(ours, "ours")
    their_side, their_digits, their_holes, doubt = _side(theirs, "theirs")
    said, heard = our_side.segments, their_side.segments
    because = []
    for whose, side, missing in (("our", our_side, our_holes), ("their", their_side, their_holes)):
        if missing:
            because.append(f"{missing} frames of 20 ms are lost or late in {whose} speech")
        if side.clipped_frames > TOO_MUCH_CLIPPED * side.speech_seconds / 0.02:
            because.append(f"{whose} speech is clipped in {side.clipped_frames} frames of 20 ms")
        if not side.segments:
            because.append(f"there is no speech on {whose} side")
    if echo.of(ours, theirs, said, heard):
        because.append("their side has an echo of our speech")
    elif doubt is not None:
        because.append(doubt)
    if frames_late > LATE:
        because.insert(0, f"our speech reached the far end {frames_late} frames of 20 ms late")
    if frames_lost:
        because.insert(0, f"the line lost {frames_lost} frames of 20 ms")
    answers = turns.answers(said, heard)
    yields, false_yields, interruptions = turns.yields(said, heard)
    return Report(
        seconds=rounded(seconds),
        reliable=not because,
        unreliable_because=because,
        sides=Sides(ours=our_side, theirs=their_side),
        answers=answers,
        yields=yields,
        false_yields=false_yields,
        interruptions_by_them=interruptions,
        talk_over_seconds=turns.talk_over(said, heard),
        silences=turns.silences(said, heard, seconds),
        digits=digits.joined([*our_digits, *their_digits], keys),
        frames_lost=max(frames_lost or 0, our_holes + their_holes),
        jitter_ms=None if jitter_ms is None else round(jitter_ms, 1),
        latency=spread([answer.latency for answer in answers]),
        time_to_yield=spread([each.seconds for each in yields if each.seconds is not None]),
    )


def _side(samples: Samples, side: str) -> tuple[Side, list[Digit], int, str | None]:
    """One side, its keys, the frames that are missing in its words, and why it is not sure where
    they speak. Ours has no noise but what the test itself says."""
    pressed, silenced = digits.find(samples, side)
    loud = segments.loudness(samples, silenced)
    found = segments.find(samples, loud, silenced)
    spoken = sum(each.end - each.start for each in found)
    whole = Side(
        segments=found,
        speech_seconds=rounded(spoken),
        level_dbfs=_level(samples, found),
        clipped_frames=faults.clipped(samples),
    )
    doubt = moving.doubt(loud) if side == "theirs" else None
    return whole, pressed, faults.holes(samples, found), doubt


def _level(samples: Samples, spoken: list[Segment]) -> float | None:
    parts = [samples[round(each.start * RATE) : round(each.end * RATE)] for each in spoken]
    sound = np.concatenate(parts).astype(np.float64) if parts else np.zeros(0)
    power = float((sound**2).mean()) if len(sound) else 0.0
    return round(10 * math.log10(power / 32768.0**2), 1) if power else None
