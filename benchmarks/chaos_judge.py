"""What became of one call: the carrier's own records beside what the client says. No I/O.

The carrier keeps what its far end said and heard, sample by sample, from the answer on; every frame
carries its number (chaos_code.py). So it is known which frames came, which came twice and which did
not come, and that is compared with what the client reports as lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks import chaos_code
from trunkline.adapter.client.call_audio import IN_DOUBT

#: Frames that a loss may be off by, for each stream of the call that broke. What the client did not
#: hear between two streams is measured by the clock, at the far end's arrival here.
OFF_BY_EACH_STREAM: Final = 3.0
#: Of what the far end did not hear no more than this may go unreported: the carrier plays
#: 20 ms at a time. The frame that it was playing is heard whole or not at all, and counts in part.
PLAYED_IN_PART: Final = 1.0
#: Frames that may be on their way when a call ends; what was said last is waited for, at most 1 s.
AT_THE_END: Final = 5
#: A hole that the far end heard counts from here on (seconds); below it is a frame that came late.
HOLE: Final = 0.02


@dataclass
class Verdict:
    """One call. Frames are of 20 ms."""

    sid: str
    kind: str
    seconds: float
    streams: int
    #: frames that the far end, the client heard twice
    doubled_out: int = 0
    doubled_in: int = 0
    #: frames that were not heard, and those that were reported
    lost_out: int = 0
    lost_in: int = 0
    reported_out: float = 0.0
    reported_in: float = 0.0
    #: (monotonic time, seconds) of holes that the far end heard in our speech
    holes: list[tuple[float, float]] = field(default_factory=list)
    #: (monotonic time, frames) of what the far end did not hear, by when it should have
    gaps: list[tuple[float, int]] = field(default_factory=list)
    #: what the client says of its losses, by reason (samples)
    why: dict[str, int] = field(default_factory=dict)
    #: the call ended although we wanted it on
    dropped: bool = False
    problems: list[str] = field(default_factory=list)

    @property
    def longest(self) -> float:
        return max((seconds for _, seconds in self.holes), default=0.0)


def judge(
    report: dict[str, Any],
    carrier_call: dict[str, Any],
    played: bytes,
    *,
    cut: bool = False,
    late: float = 0.0,
) -> Verdict:
    """``report``: the client's; ``carrier_call``: the carrier's description of the call that has
    the stream; ``played``: mu-law that its far end heard. ``cut``: the stack, or its number's
    holder, was taken away meanwhile, so the call may end and nobody is left to report. ``late``:
    by how many frames the carrier itself is late at times: what lay there is not known better."""
    # A stream that was closed before we had the call had not been let in.
    streams = [
        s
        for s in carrier_call["streams"]
        if s["opened_at"] is not None and (s["ended_at"] is None or s["ended_at"] > report["began"])
    ]
    verdict = Verdict(
        sid=report["sid"],
        kind=report["kind"],
        seconds=report["ended"] - report["began"],
        streams=len(streams),
        reported_out=report["lost_out"],
        reported_in=report["lost_in"],
        dropped=not report["hung_up"],
        why=report["lost_why"],
    )
    if report["problem"]:
        verdict.problems.append(report["problem"])
    if verdict.dropped and not cut:
        verdict.problems.append(f"ended by itself: {report['reason']}")
    _outbound(verdict, report, carrier_call, played)
    if report["kind"] != "b-leg":  # nobody speaks at the other end of that one
        _inbound(verdict, report, carrier_call, streams, cut=cut)
    else:
        verdict.reported_in = 0.0
    in_doubt = {"in": 0.0, "out": verdict.why.get(IN_DOUBT, 0) / chaos_code.FRAME}
    broke = max(0, len(streams) - 1)
    off = (OFF_BY_EACH_STREAM + late) * broke + 1.0
    for way, lost, said, untold in (
        ("out", verdict.lost_out, verdict.reported_out, (PLAYED_IN_PART + late) * broke),
        ("in", verdict.lost_in, verdict.reported_in, off),
    ):
        if cut:
            continue
        if lost - said > untold:
            verdict.problems.append(f"{lost} frames lost {way}, {said:.1f} reported")
        elif said - in_doubt[way] - lost > off + AT_THE_END:
            verdict.problems.append(f"{said:.1f} frames reported lost {way}, {lost} were")
    for way, doubled in (("out", verdict.doubled_out), ("in", verdict.doubled_in)):
        if doubled:
            verdict.problems.append(f"{doubled} frames doubled {way}")
    return verdict


def _outbound(
    verdict: Verdict, report: dict[str, Any], carrier_call: dict[str, Any], played: bytes
) -> None:
    heard = chaos_code.read_ulaw(played)
    verdict.doubled_out = heard.doubled
    if not heard.numbers:
        if report["sent_frames"] > AT_THE_END:
            verdict.problems.append("the far end heard nothing")
        return
    # The reader counts from 0; the first frame tells where in the numbers that is.
    skew = (report["first"] - heard.numbers[0]) % chaos_code.CODES
    before = (chaos_code.CODES - skew) % chaos_code.CODES
    said = round(report["sent_frames"])
    after = max(0, said - (before + heard.numbers[-1] - heard.numbers[0] + 1))
    verdict.lost_out = before + heard.lost + (after if after > AT_THE_END else 0)
    answered = carrier_call["media_started"]
    where = dict(zip(heard.numbers, heard.places, strict=True))
    for first, count in heard.missing:
        verdict.gaps.append((answered + where[first + count] / 8000, count))
    for place, samples in heard.holes():
        if samples / 8000 > HOLE:
            verdict.holes.append((answered + place / 8000, samples / 8000))


def _inbound(
    verdict: Verdict,
    report: dict[str, Any],
    carrier_call: dict[str, Any],
    streams: list[dict[str, Any]],
    *,
    cut: bool,
) -> None:
    verdict.doubled_in = report["heard_doubled"]
    verdict.lost_in = sum(count for _, count in report["heard_missing"])
    if report["heard_first"] is None:
        if streams and verdict.seconds > 1.0 and not cut:
            verdict.problems.append("the client heard nothing")
        return
    # What the far end said from the first stream to the call's end, but for what came and what is
    # missing in between. A stream that ended with the call has brought all that the carrier, which
    # may be late, has sent.
    final = streams[-1]
    ends = [at for at, status in carrier_call["history"] if status == "completed"]
    if final["ended_by"] == "stop" or not ends:
        ends = [final["opened_at"] + final["frames_in"] / 50]
    outside = round((ends[0] - streams[0]["opened_at"]) * 50) - report["heard_span"]
    verdict.lost_in += outside if outside > AT_THE_END else 0
