"""One measurement: N calls of one side, all of which begin to talk at one moment.

A *side* is what is measured: trunkline's Line, an adapter, a peer. Each runs on the same carrier
(load_generator.py), which talks on every call all the time, and the side's client takes what it
hears. CPU is user and system time of all processes of the side, supervisor, keepers and client
too, divided by the seconds of speech that the carrier got.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil

from benchmarks import arrivals, chaos_code
from benchmarks.processes import ROOT, Run, callee, role

#: The interpreter of the peers' own virtual environment (``make bench`` makes it).
PEERS: Final = ROOT / ".venv-peers" / "bin" / "python"
#: Between the last call's coming up and the first word; and after the last, for what is under way.
SETTLE, REST = 1.0, 0.5
#: A load generator whose ticks are later than this (p99) was kept from its work.
LATE_MS: Final = 5.0
#: A load generator that spends more of a core than this has none left.
FULL: Final = 0.8
#: Cores that others may spend during a measurement.
OTHERS: Final = 0.2


@dataclass(frozen=True)
class Side:
    """What is measured. ``stack``: gateways and codec workers, 0 without one, None as ``up``
    starts it by itself. ``client``: the module of its client, and that one's arguments."""

    name: str
    client: str
    stack: int | None = 0
    python: Path = Path(sys.executable)
    adapter: str = ""
    #: frames of a call that it may still be gathering when the call ends, which are not lost
    gathers: int = 0
    #: seconds of sound that its Line takes at a time; 0: as it comes
    at_least: float = 0.1


def line(count: int | None) -> Side:
    """trunkline's Line on so many gateways and codec workers."""
    return Side(
        "trunkline, as up starts it" if count is None else "trunkline", "client_line", count
    )


#: A Line that takes each frame as it comes.
PROMPT: Final = Side("trunkline, 20 ms at a time", "client_line", 1, at_least=0.0)
ADAPTER: Final = Side("trunkline's adapter", "client_adapter", 1, adapter="trunkline")
SCENARIO: Final = Side(
    "langwatch-scenario", "client_adapter", python=PEERS, adapter="langwatch-scenario", gathers=4
)
PIPECAT: Final = Side("pipecat", "peer_pipecat", python=PEERS)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, to the nanosecond (its CPU clock: Linux)."""
    return time.clock_gettime((~pid << 3) | 2)


def pss(pid: int) -> int:
    """Bytes of memory that a process answers for: its own, and its share of what it shares."""
    for row in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if row.startswith("Pss:"):
            return int(row.split()[1]) * 1024
    raise ValueError(f"smaps_rollup of {pid} has no Pss")


def machine_seconds() -> float:
    """CPU seconds that the whole machine has spent so far."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


def others_share(seconds: float = 1.0) -> float:
    """How many cores the machine spends now, while nothing of ours runs."""
    before = machine_seconds()
    time.sleep(seconds)
    return (machine_seconds() - before) / seconds


class Trial:
    """The processes of one measurement, from the carrier's start to the last hang-up.

    Every call says ``seconds`` of speech. More of them are as many rounds, with new calls in each
    (Line alone)."""

    def __init__(self, side: Side, calls: int, *seconds: float) -> None:
        self.side, self.calls = side, calls
        self.rounds = [round(each * 50) / 50 for each in seconds]
        self.seconds = max(self.rounds)
        self.run = Run()
        self.setup_seconds = 0.0

    def __enter__(self) -> Trial:
        try:
            self._start()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def _start(self) -> None:
        run, side = self.run, self.side
        sound = "numbered" if side is PIPECAT else "speech"
        run.environment["TRUNKLINE_CALLS_PER_SECOND"] = "1000"
        self.carrier = run.start_load_generator(sound)
        if side.stack != 0:
            run.up(side.stack, side.stack)
        speech = run.directory / "speech.pcm"
        speech.write_bytes(chaos_code.pcm(0, round(self.seconds * 50)))
        order = run.order(side.adapter, [callee(n) for n in range(self.calls)], speech)
        order["rounds"], order["at_least"] = self.rounds, side.at_least
        self.client = run.talk_to(side.python, side.client, json.dumps(order))
        ready = self.client.read("ready")
        began = time.monotonic()
        if side is PIPECAT:
            url = f"ws://127.0.0.1:{order['ports'][0]}/ws"
            self.carrier.ask(do="dial", url=url, count=self.calls)
        self.setup_seconds = ready.get("setup_seconds", time.monotonic() - began)

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            print(self.run.tails(), file=sys.stderr)
        self.run.close()

    # ------------------------------------------------------------------ clocks

    def processes(self) -> dict[int, str]:
        """Every process of the side, by pid, and what it is."""
        tops = [psutil.Process(self.client.process.pid)]
        if self.side.stack != 0:
            assert self.run.stack_process is not None
            tops.append(psutil.Process(self.run.stack_process.pid))
        found = [process for top in tops for process in (top, *top.children(recursive=True))]
        return {process.pid: role(process) for process in found}

    def cpu(self, pids: dict[int, str]) -> dict[str, float]:
        """CPU seconds so far, by role."""
        return _sums(pids, cpu_seconds)

    def memory(self) -> dict[str, float]:
        """MB, by role."""
        return _sums(self.processes(), lambda pid: pss(pid) / 1e6)

    # ------------------------------------------------------------------ the measurement

    def begin(self, *, keeps: bool = True) -> int:
        """Let the carrier forget what arrived so far; on how many streams it did. ``keeps``: the
        sound itself as well, for runs that do not last minutes."""
        time.sleep(SETTLE)
        streams: int = self.carrier.ask(do="begin", keeps=keeps)["streams"]
        return streams

    def end(self) -> tuple[dict[str, Any], list[arrivals.Arrivals], Any]:
        """All has been said: the carrier's word, what arrived there, and what the client heard."""
        time.sleep(REST)
        carrier = self.carrier.ask(do="end")
        report = self.run.directory / "report"
        self.carrier.ask(do="report", path=str(report))
        time.sleep(REST)
        self.client.tell("end")
        return carrier, arrivals.read(report), self.client.read("heard")["heard"]

    def talk(self) -> dict[str, Any]:
        """Let all calls say their speech; what came of it, and what it cost."""
        streams = self.begin()
        pids = self.processes()
        before, machine, began = self.cpu(pids), machine_seconds(), time.monotonic()
        self.client.tell("go")
        if self.side is PIPECAT:
            time.sleep(self.seconds)
        else:
            self.client.read("done")
        spent = {name: used - before[name] for name, used in self.cpu(pids).items()}
        machine, took = machine_seconds() - machine, time.monotonic() - began
        memory = self.memory()
        carrier, heard, heard_there = self.end()
        own = carrier["cpu_seconds"] * took / carrier["seconds"]
        delivered = sum(call.samples for call in heard) / arrivals.RATE
        return {
            "side": self.side.name,
            "stack": self.side.stack,
            "calls": self.calls,
            "seconds": self.seconds,
            "streams": streams,
            "took_s": took,
            "setup_s": self.setup_seconds,
            **self._pace(heard),
            "lost_in": self._lost_inbound(carrier["sent"], heard_there),
            "cpu": sum(spent.values()) * 1000 / delivered if delivered else float("nan"),
            "cpu_by_process": {
                name: used * 1000 / delivered for name, used in spent.items() if delivered
            },
            "memory_mb": memory,
            "carrier_cpu": own * 1000 / (self.calls * took),
            "carrier_cores": own / took,
            "carrier_late_p99_ms": carrier["late_p99_ms"],
            "carrier_waited": carrier["waited_seconds"] / carrier["seconds"],
            "others_cores": max(0.0, machine - own - sum(spent.values())) / took,
            "load": os.getloadavg()[0],
        }

    def _lost_inbound(self, sent: dict[str, int], heard: dict[str, float] | None) -> int | None:
        """Whole frames that the client did not hear. None: from outside nobody can tell."""
        if heard is None:
            return None
        short = (frames - heard.get(sid, 0.0) / 0.02 for sid, frames in sent.items())
        return sum(int(frames) for frames in short if frames >= self.side.gathers + 1)

    def _pace(self, heard: Sequence[arrivals.Arrivals]) -> dict[str, Any]:
        jitter = arrivals.jitter(heard)
        dry = [arrivals.underruns(call) for call in heard]
        wanted = round(self.seconds * 50)
        echoes = self.side is PIPECAT
        wrong = [arrivals.wrong_frames(call, None if echoes else wanted) for call in heard]
        silent = (self.calls - len(heard)) * wanted
        return {
            "jitter_p50_ms": float(np.percentile(jitter, 50)) if len(jitter) else float("nan"),
            "jitter_p99_ms": float(np.percentile(jitter, 99)) if len(jitter) else float("nan"),
            "drift_ms": max((arrivals.drift(call) for call in heard), key=abs, default=0.0),
            "underruns": sum(count for count, _ in dry),
            "underrun_ms": sum(ms for _, ms in dry),
            "lost_out": sum(lost for lost, _ in wrong) + silent,
            "astray": sum(astray for _, astray in wrong),
        }


def _sums(pids: dict[int, str], value: Any) -> dict[str, float]:
    total: dict[str, float] = {}
    for pid, name in pids.items():
        total[name] = total.get(name, 0.0) + value(pid)
    return total


def measure(side: Side, calls: int, seconds: float) -> dict[str, Any]:
    """One measurement, with processes of its own."""
    with Trial(side, calls, seconds) as trial:
        return trial.talk()


def complaint(result: dict[str, Any]) -> str | None:
    """Why a measurement is not to be trusted, if it is not."""
    if result["others_cores"] > OTHERS:
        return f"other processes took {result['others_cores']:.1f} cores meanwhile"
    if result["carrier_late_p99_ms"] <= LATE_MS:
        return None
    late = f"its ticks came up to {result['carrier_late_p99_ms']:.0f} ms late (p99)"
    if result["carrier_cores"] > FULL:
        return f"the load generator was the bottleneck: {late}"
    waited = f"{result['carrier_waited']:.0%} of the time"
    return f"the load generator waited for a core {waited}: {late}"


def is_whole(result: dict[str, Any]) -> bool:
    """Every call was up, nothing ran dry, no frame was lost."""
    wrong = ("underruns", "lost_out", "astray", "lost_in")
    return result["streams"] == result["calls"] and not any(result[key] for key in wrong)
