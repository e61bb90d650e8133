"""A process stands still for a moment while calls speak: what the far end hears."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
from e2e.stack import stopped

if sys.platform != "linux":
    pytest.skip("the load generator needs Linux", allow_module_level=True)

from benchmarks import arrivals
from benchmarks.measure import PROMPT, Side, Trial, line
from trunkline.bus.sound import TOGETHER

pytestmark = pytest.mark.measures

#: In ms: the lead, and a frame.
LEAD, FRAME = 60.0, 20.0
#: How long the process stands still (seconds): less than the lead, more than that, and then much
#: more. The keeper of a gateway takes it for dead after 1.5 s.
STALLS = (0.03, 0.2)
LONGEST = {"codec_worker": 2.0, "gateway": 1.0, "client": 2.0}
#: Speech before, between and after them.
SPEAKS = 1.5
#: The process that stands still, how many calls speak, and how they are listened to.
CASES = [
    ("codec_worker", 1, PROMPT),
    ("codec_worker", 5, line(1)),
    ("gateway", 5, PROMPT),
    ("client", 5, line(1)),
]
Case = tuple[str, int, Side]


@dataclass
class Stalled:
    """What the carrier got of each call, and when each stall began (ms of the carrier's clock)."""

    frames: int
    calls: list[arrivals.Arrivals]
    edges: list[float]
    underruns: list[int]


def most_off(side: Side) -> float:
    """How far what lies at the carrier may be off (ms). A frame is sent in the tick before it is
    due, 20 ms early at most, or 35 where the sound of all calls is taken in large pieces. Half a
    frame is for its way."""
    return (35.0 if side.at_least else 20.0) + FRAME / 2


def stall(victim: str, calls: int, side: Side) -> Stalled:
    """Let so many calls speak, each to its end, and stop a process of theirs meanwhile."""
    stalls = (*STALLS, LONGEST[victim])
    with Trial(side, calls, sum(stalls) + SPEAKS * (len(stalls) + 2)) as trial:
        (pid,) = (pid for pid, name in trial.processes().items() if name == victim)
        trial.begin()
        trial.client.tell("go")
        time.sleep(SPEAKS)
        edges = []
        for seconds in stalls:
            time.sleep(SPEAKS)
            edges.append(time.time_ns() / 1e6)
            with stopped(pid):
                time.sleep(seconds)
        trial.client.read("done")
        underruns = [call["underruns"] for call in trial.run.status()["calls"]]
        _, heard, _ = trial.end()
    return Stalled(round(trial.seconds * 50), heard, edges, underruns)


@pytest.fixture(scope="module")
def all_stalled() -> dict[Case, Stalled]:
    """All cases at the same time, because most of it is waiting. Each has a stack of its own."""
    with ThreadPoolExecutor(len(CASES)) as pool:
        return dict(zip(CASES, pool.map(stall, *zip(*CASES, strict=True)), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_the_pace_moves_by_what_ran_dry_and_by_nothing_else(
    case: Case, all_stalled: dict[Case, Stalled]
) -> None:
    """Judged by the sound alone. How much lies unplayed at the carrier when a frame arrives is the
    lead again after every stall. It would be more if the pace had moved by less than what ran dry,
    and less if it had moved by more."""
    (victim, calls, side), stalled = case, all_stalled[case]
    stalls, off = (*STALLS, LONGEST[victim]), most_off(side)
    most_ahead = LEAD + off + TOGETHER * FRAME  # when a message has just come
    assert len(stalled.calls) == calls
    for call in stalled.calls:
        assert arrivals.wrong_frames(call, stalled.frames) == (0, 0)
        dry = np.maximum.accumulate(call.lateness)
        between = np.split(np.arange(len(dry)), np.searchsorted(call.times, stalled.edges))
        unplayed = [float(np.median((dry - call.lateness)[part])) for part in between]
        assert all(abs(ms - LEAD) <= off for ms in unplayed), unplayed
        ends = [float(dry[part[-1]]) for part in between]
        for seconds, grown in zip(stalls, np.diff(ends), strict=True):
            if victim == "client":  # more than that has been sent ahead
                assert grown < seconds * 500 + LEAD
            else:
                assert grown >= seconds * 1000 - most_ahead
    if victim != "client":
        least = sum(seconds * 1000 > LEAD for seconds in stalls)
        assert min(stalled.underruns) >= least, stalled.underruns
