"""A recorded call in order: who spoke when, waits for answers, keys, silences. No I/O."""

from __future__ import annotations

from typing import Final, Literal

import msgspec
import numpy as np

from trunkline.bus.wav import Samples
from trunkline.ear.figures import Report

Side = Literal["ours", "theirs", ""]
#: Characters of a strip, for the quietest level first, and the range of levels that they span, in
#: dB below the loudest.
_BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_RANGE_DB: Final = 45.0


class Moment(msgspec.Struct, frozen=True):
    """Something that happened at ``at`` seconds of the recording. ``side``: who did it, "" for
    neither."""

    at: float
    side: Side
    text: str


def moments(report: Report) -> list[Moment]:
    """Everything in the report that has a time, in order."""
    answers = {answer.start: answer.latency for answer in report.answers}
    found = [
        Moment(each.start, "ours", f"speak for {each.end - each.start:.1f} s")
        for each in report.sides.ours.segments
    ]
    for each in report.sides.theirs.segments:
        latency = answers.get(each.start)
        waited = "" if latency is None else f"answer after {latency:.2f} s, and "
        seconds = each.end - each.start
        found.append(Moment(each.start, "theirs", f"{waited}speak for {seconds:.1f} s"))
    for broken in report.yields:
        took = "never yield" if broken.seconds is None else f"yield in {broken.seconds:.2f} s"
        found.append(Moment(broken.at, "theirs", f"are interrupted, and {took}"))
    for false in report.false_yields:
        found.append(Moment(false.at, "theirs", "stop for a backchannel"))
    for begun in report.interruptions_by_them:
        found.append(Moment(begun.at, "theirs", f"interrupt; both speak for {begun.seconds:.2f} s"))
    for silence in report.silences:
        found.append(Moment(silence.start, "", f"silence of {silence.end - silence.start:.1f} s"))
    for key in report.digits:
        side: Side = "ours" if key.side == "ours" else "theirs"
        found.append(Moment(key.at, side, f"key {key.digit}"))
    found.append(Moment(report.seconds, "", "end"))
    return sorted(found, key=lambda moment: moment.at)


def strip(samples: Samples, width: int) -> str:
    """How loud a side is over the call, as a line of blocks that is ``width`` characters long."""
    if not len(samples) or width < 1:
        return " " * max(0, width)
    # A call with fewer samples than columns has a narrower strip.
    cut = np.linspace(0, len(samples), min(width, len(samples)), endpoint=False).astype(int)
    energy = np.add.reduceat(samples.astype(np.float64) ** 2, cut)
    rms = np.sqrt(energy / np.diff([*cut.tolist(), len(samples)]))
    loudest = float(rms.max())
    if loudest < 1.0:
        return " " * len(cut)
    below = 20 * np.log10(np.maximum(rms, 1e-3) / loudest)
    top = len(_BLOCKS) - 1
    steps = np.clip(np.rint((1 + below / _RANGE_DB) * top), 0, top).astype(int)
    return "".join(_BLOCKS[step] for step in steps.tolist())
