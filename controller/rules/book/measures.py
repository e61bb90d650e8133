"""What is measured for /metrics, over all processes and calls: histograms, and frames.

:data:`HISTOGRAMS` names each histogram with its buckets, and the values of its label. Some are
counted here, by the rules. Others are counted by gateways and workers, which tell them with their
beats; the figures of answers come from clients, with the reports that somebody looks at.

A process tells in each beat what it has counted since its start, so a lost beat loses no counts.
The first beat that we hear of a process is only noted, and not added up. An earlier controller may
have added those counts already, and Prometheus would take them for new.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, get_args

from trunkline.bus import messages as m
from trunkline.bus.histogram import JITTER, LATENESS, Histogram

from ...twilio.calls import RestFault, RestRequest

#: A person waits for an answer for about one second gladly, and for five with doubts.
SPOKEN: Final = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
SETUP: Final = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0)
#: A request to Twilio is given up after 8 s.
REST: Final = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 3.0, 5.0, 8.0, 10.0)
RESTORE: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)

#: The roles of processes that tell how late they are woken.
_ROLES: Final = ("gateway", "codec_worker", "controller")


@dataclass(frozen=True)
class Kind:
    """Its buckets, and the values that its label has, if it has one (``metrics.py`` names it)."""

    bounds: tuple[float, ...]
    values: tuple[str, ...] = ("",)


HISTOGRAMS: Final = {
    "answer_latency": Kind(SPOKEN),
    "time_to_yield": Kind(SPOKEN),
    "setup": Kind(SETUP, ("inbound", "outbound")),
    "jitter": Kind(JITTER),
    "wakeup_lateness": Kind(LATENESS, _ROLES),
    "rest": Kind(REST, get_args(RestRequest)),
    "restore": Kind(RESTORE),
}


class Measures:
    """All of it, since this controller's start."""

    def __init__(self) -> None:
        #: by name and the label's value
        self.histograms = {
            (name, value): Histogram(kind.bounds)
            for name, kind in HISTOGRAMS.items()
            for value in kind.values
        }
        self.rest_failed = Counter(dict.fromkeys(get_args(RestFault), 0))
        #: frames_in, frames_out, frames_lost and underruns of all calls
        self.frames = Counter({"frames_in": 0, "frames_out": 0, "frames_lost": 0, "underruns": 0})

    def count(self, name: str, seconds: float, value: str = "") -> None:
        """One more figure."""
        self.histograms[name, value].count(seconds)

    def heard(self, latency: Iterable[float], time_to_yield: Iterable[float]) -> None:
        """A client's ear has heard this of a call."""
        for seconds in latency:
            self.count("answer_latency", seconds)
        for seconds in time_to_yield:
            self.count("time_to_yield", seconds)

    def told(self, role: str, now: dict[str, m.Tally], before: dict[str, m.Tally] | None) -> None:
        """A process has counted ``now`` since its start, and had counted ``before`` when it last
        told us. None: it tells us for the first time, and nothing is added up."""
        for name, tally in now.items():
            histogram = self.histograms.get((name, role)) or self.histograms.get((name, ""))
            if histogram is not None and before is not None:
                histogram.add(tally, before.get(name))

    def carried(self, frames: Counter[str]) -> None:
        """So many frames more."""
        self.frames.update(frames)

    def asked_twilio(self, request: RestRequest, seconds: float, fault: RestFault | None) -> None:
        """A request to Twilio has taken so long, and has failed if there is a fault."""
        self.count("rest", seconds, request)
        if fault is not None:
            self.rest_failed[fault] += 1
