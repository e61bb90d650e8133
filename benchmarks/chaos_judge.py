"""Judges one call: the carrier's own records beside the client's report. No I/O.

The carrier keeps all that its far end said and heard, sample by sample, from the answer on. Every
frame carries its number (chaos_code.py). So the records show every frame that is missing or came
twice. The judge compares them with the losses that the client reports.

The two may differ where a stream broke, and only there. Per break, too little may be reported by
this much, which follows from how streams are cut:

- To the far end: less than a frame. The carrier plays whole frames at ticks 20 ms apart. It begins
  a stretch of sound at the tick after the sound arrived, and from then on plays that part of a tick
  later than any process of ours can know. A carrier that is late besides sees the break before it
  has played the frames that were due. Its record of the last sound that it played says how many
  those were, so exactly that is allowed.
- To the client: less than a frame. The far end's speech between two streams is whole frames. The
  client counts the time between the last frame of the one stream and the first frame of the other.
  Every frame waits up to 20 ms at the gateway that reads the sockets, and these two may wait at
  different ones. A carrier that is late makes the second of them later, and so the count larger.

Too much may be reported for these reasons:

- Nobody hears of a gateway's death in time. It is dated back to that gateway's last words, and all
  that its worker then took to lie at the carrier is reported. That is the lead and what may be sent
  ahead of acknowledgements at most, eight frames. But the carrier plays on until it sees that the
  stream is gone: all of that, where the gateway stood still before it was killed. And of what was
  not acknowledged, a gateway may have written one message, two frames. A carrier that is late plays
  that much more.
- A client that stands still while its call ends reads of the end late, and cannot tell how late. So
  long as it stood still, it takes the far end to have spoken on.
- Sound whose fate nobody can know is reported as lost, with a reason of its own
  (:data:`~trunkline.bus.sound.IN_DOUBT`), and is an upper bound.

At the call's end, a few frames may be on their way.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks import chaos_code
from trunkline.bus.sound import IN_DOUBT, TOGETHER
from trunkline.carrier_sim.mulaw import FRAME_SECONDS
from trunkline.codec_worker.playout import AHEAD_NS, DEFAULT_LEAD_NS, FRAME_NS

#: Frames of 20 ms, for each stream that broke: the one that is cut in part, and what is taken to
#: have lain at the carrier or been on its way.
CUT_IN_PART: Final = 1.0
AT_THE_CARRIER: Final = (DEFAULT_LEAD_NS + AHEAD_NS) / FRAME_NS + TOGETHER
#: Frames that may be on their way when a call ends. The end waits for the last words, at most 1 s.
AT_THE_END: Final = 5

#: Shorter silence (seconds) is no hole: a frame came late.
HOLE: Final = 0.02
#: What a dial's error says where nobody has heard of Twilio's answer.
NOT_KNOWN: Final = "Twilio has not said whether it has the call"


@dataclass
class Verdict:
    """One call. Frames are of 20 ms."""

    sid: str
    kind: str
    seconds: float
    streams: int
    #: frames that the far end, or the client, heard twice
    doubled_out: int = 0
    doubled_in: int = 0
    #: frames that were not heard, and those that were reported
    lost_out: int = 0
    lost_in: int = 0
    reported_out: float = 0.0
    reported_in: float = 0.0
    #: (monotonic time, seconds) of holes that the far end heard in our speech
    holes: list[tuple[float, float]] = field(default_factory=list)
    #: (monotonic time, frames) that the far end did not hear, by when it should have
    gaps: list[tuple[float, int]] = field(default_factory=list)
    #: samples that the client reports as lost, by reason
    why: dict[str, int] = field(default_factory=dict)
    #: the call ended although we wanted it on
    dropped: bool = False
    problems: list[str] = field(default_factory=list)


def judge(
    report: dict[str, Any],
    carrier_call: dict[str, Any],
    played: bytes,
    *,
    cut: bool = False,
    late: float = 0.0,
    still: float = 0.0,
    apart: float = 0.0,
) -> Verdict:
    """``report`` is the client's; ``carrier_call`` is the carrier's description of the call that
    has the stream; ``played`` is the mu-law that its far end heard. ``cut``: the stack, or its
    number's holder, was taken away meanwhile, so the call may end and nobody is left to report.
    ``late``: the carrier itself is late by so many frames at times, so more may be reported.
    ``still``: the client stood still for so many frames when the call ended. ``apart``: two streams
    of a call may come by ways that differ by so many frames, where there is more than a loopback
    between carrier and gateway."""
    # One that was closed before we had the call had not been let in.
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
    # The last stream broke as well, unless it ended with its call.
    broke = len(streams) - sum(stream["ended_by"] == "stop" for stream in streams[-1:])
    untold = (CUT_IN_PART + apart) * broke
    overtold = (AT_THE_CARRIER + late) * broke + CUT_IN_PART + AT_THE_END
    in_doubt = verdict.why.get(IN_DOUBT, 0) / chaos_code.FRAME
    due = sum(_due_when_it_broke(stream) for stream in streams[:-1])
    for way, lost, said, unplayed, unknown in (
        ("out", verdict.lost_out, verdict.reported_out, due, in_doubt),
        ("in", verdict.lost_in, verdict.reported_in, 0.0, still),
    ):
        if cut:
            continue
        if lost - said > untold + unplayed:
            verdict.problems.append(f"{lost} frames lost {way}, {said:.1f} reported")
        elif said - lost > overtold + unknown:
            verdict.problems.append(f"{said:.1f} frames reported lost {way}, {lost} were")
    for way, doubled in (("out", verdict.doubled_out), ("in", verdict.doubled_in)):
        if doubled:
            verdict.problems.append(f"{doubled} frames doubled {way}")
    return verdict


def never_sent(
    request: dict[str, Any], controllers_killed: Iterable[float], calls_began: Iterable[float]
) -> bool:
    """Whether a request failed because a killed controller had journalled its dial and did not get
    it to the carrier.

    No later controller may dial again, because none can know that: the carrier may have the call.
    So the request fails at its timeout (docs/survival.md). The judge does know it, because the
    carrier's records have no call to that callee which began meanwhile. All times are monotonic.
    """
    since, until = request["asked"], request["at"]
    return (
        NOT_KNOWN in request["failed"]
        and any(since <= at <= until for at in controllers_killed)
        and not any(since <= at <= until for at in calls_began)
    )


def _due_when_it_broke(stream: dict[str, Any]) -> float:
    """Frames that a carrier on time would have played before the stream broke. While sound lies
    there it plays without a pause, so a frame is under way at the break, unless it is late."""
    utterances = stream["metrics"]["utterances"]
    if not utterances or utterances[-1]["ended_by"] != "close":
        return 0.0
    late: float = stream["ended_at"] - utterances[-1]["ended"]
    return max(0.0, late / FRAME_SECONDS)


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
    # The frames that the far end said from the first stream to the call's end, without those that
    # came and those that are missing in between. Whole frames are counted, because the end cuts the
    # last one off. A stream that ended with the call has brought all that the carrier sent, and the
    # carrier may be late.
    final = streams[-1]
    ends = [at for at, status in carrier_call["history"] if status == "completed"]
    if final["ended_by"] == "stop" or not ends:
        ends = [final["opened_at"] + final["frames_in"] / 50]
    outside = int((ends[0] - streams[0]["opened_at"]) * 50) - report["heard_span"]
    verdict.lost_in += outside if outside > AT_THE_END else 0
