"""A report as lines of text."""

from __future__ import annotations

from collections.abc import Iterator

from trunkline.ear.figures import LEAST_SAMPLES, Report, Side, Spread


def lines(title: str, report: Report) -> Iterator[str]:
    """The lines of a report. Faults of the recording come first."""
    yield f"{title}: {report.seconds:.1f} s"
    for reason in report.unreliable_because:
        yield f"  UNRELIABLE: {reason}"
    yield from (_side("ours", report.sides.ours), _side("theirs", report.sides.theirs))
    yield f"  latency        {spread_text(report.latency)}"
    for answer in report.answers:
        yield f"    {answer.latency:6.2f} s  at {answer.start:.2f} s, after {answer.after:.2f} s"
    yield f"  time to yield  {spread_text(report.time_to_yield)}"
    for each in report.yields:
        took = "  never  " if each.seconds is None else f"{each.seconds:6.2f} s "
        yield f"    {took} at {each.at:.2f} s"
    for false in report.false_yields:
        yield f"  they stopped for a backchannel at {false.at:.2f} s"
    for begun in report.interruptions_by_them:
        yield f"  they interrupted at {begun.at:.2f} s, for {begun.seconds:.2f} s"
    yield f"  both spoke for {report.talk_over_seconds:.2f} s"
    for silence in report.silences:
        seconds = silence.end - silence.start
        yield f"  silence of {seconds:.1f} s, {silence.start:.1f} to {silence.end:.1f} s"
    for side in ("ours", "theirs"):
        keys = "".join(digit.digit for digit in report.digits if digit.side == side)
        if keys:
            yield f"  keys of {side}: {keys}"


def _side(name: str, side: Side) -> str:
    level = "" if side.level_dbfs is None else f", {side.level_dbfs:.0f} dBFS"
    clipped = f", {side.clipped_frames} frames clipped" if side.clipped_frames else ""
    return f"  {name:<13}  {side.speech_seconds:.1f} s of speech{level}{clipped}"


def spread_text(spread: Spread) -> str:
    """For instance "p50 0.81, p90 1.20, p95 1.41, max 1.77 s of 24"."""
    if spread.max is None:
        return "none"
    if spread.p50 is None:
        return f"max {spread.max:.2f} s of {spread.n} (percentiles need {LEAST_SAMPLES})"
    return (
        f"p50 {spread.p50:.2f}, p90 {spread.p90:.2f}, p95 {spread.p95:.2f}, "
        f"max {spread.max:.2f} s of {spread.n}"
    )
