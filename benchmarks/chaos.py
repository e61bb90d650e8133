"""The chaos suite: 20 calls talk full duplex while every kind of process is killed, stopped, ended.

    python benchmarks/chaos.py                      10 minutes
    python benchmarks/chaos.py --seconds 60 --seed 7

First single processes are hit, one at a time or overlapping within bounds (chaos_faults.py); calls
must go on. Then the stack as a whole; calls may be lost, numbers never. Only processes that were
started here are hit, by pid, and all sound is loopback. Every frame in both directions carries its
number, so that the carrier's own records show what came, what came twice and what did not.

It fails unless every override is restored, no frame is doubled, every lost frame is reported, and
no call is lost but those of a killed client (hung up, and its numbers as before, within 10 s).
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import queue
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent.parent))

import click
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.chaos_faults import Fault, plan, whole
from benchmarks.chaos_judge import Verdict, judge
from benchmarks.chaos_stack import PRIOR, Client, Stack, numbered_recording
from benchmarks.processes import OWN_NUMBER, Run, callee, carrier
from trunkline.bus.process import EXIT_DONE, EXIT_PENDING
from trunkline.carrier_sim.client import ENDED

PAGE = Path(__file__).parent.parent / "docs" / "chaos.md"

#: What is known of a run that failed.
KEPT: Final = Path(__file__).parent.parent / "out" / "chaos"

CALLS: Final = 20
#: Seconds of one call, from and to.
CALL_SECONDS: Final = (10.0, 40.0)
#: Seconds that one round of the whole stack's scenario takes.
ROUND: Final = 9.0
#: After a client's kill.
CLIENT_GONE_WITHIN: Final = 10.0
#: A killed controller is there again.
BACK_WITHIN: Final = 1.5
#: After a SIGTERM, or the supervisor's death.
STACK_ENDS_WITHIN: Final = 4.0
#: A hole in what the far end hears belongs to a fault that began so long before it at most.
BELONGS: Final = 2.5
_STEP: Final = 0.02


def busy() -> float:
    """Seconds that this machine may add to a bound: one, or more where it has too much to do."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


@dataclass
class Injected:
    """A fault as it was carried out. ``at``, ``until``: monotonic."""

    kind: str
    how: str
    pid: int
    at: float
    until: float


@dataclass
class Caller:
    """Somebody who calls an inbound slot that waits."""

    number: str
    sid: str | None = None
    again: float = 0.0


@dataclass
class Score:
    """What is counted."""

    verdicts: list[Verdict] = field(default_factory=list)
    faults: list[Injected] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    #: calls that ended with a client, or in the scenario of the whole stack
    with_client: int = 0
    with_stack: int = 0
    requests_failed: Counter[str] = field(default_factory=Counter)
    most_at_once: int = 0
    restores: int = 0
    #: seconds, by what was waited for
    took: dict[str, float] = field(default_factory=dict)

    def waited(self, what: str, seconds: float) -> None:
        self.took[what] = max(seconds, self.took.get(what, 0.0))


class Chaos:
    """One run."""

    def __init__(self, run: Run, seed: int, say: Callable[[str], None]) -> None:
        self.run = run
        self.sim = run.sim
        self.stack = Stack(run)
        self.seed = seed
        self.score = Score()
        self._say = say
        self._rng = random.Random(f"{seed} callers")
        self._said: queue.SimpleQueue[tuple[str, dict[str, Any]]] = queue.SimpleQueue()
        self.clients: dict[str, Client] = {}
        #: client -> its live calls' SIDs
        self._up: dict[str, dict[str, dict[str, Any]]] = {}
        self._callers: dict[tuple[str, int], Caller] = {}
        self._stopped: list[tuple[float, int]] = []
        #: clients that were killed -> (when, their calls)
        self._killed: dict[str, tuple[float, list[str]]] = {}
        #: while the stack as a whole is hit: since when; calls may be cut
        self._cut_from: float | None = None
        self._began = time.monotonic()
        self._speech = run.directory / "numbered.wav"

    # ------------------------------------------------------------------ clients

    def wishes(self) -> dict[str, list[dict[str, Any]]]:
        """Who calls whom: four clients of five calls."""
        numbers = list(PRIOR)
        slots: list[dict[str, Any]] = [
            {"kind": "a-leg", "number": OWN_NUMBER, "callee": callee(n)} for n in range(14)
        ]
        slots.append({"kind": "b-leg", "number": numbers[8], "callee": numbers[9]})
        slots += [{"kind": "inbound", "number": number} for number in numbers[:5]]
        for n, slot in enumerate(slots):
            slot["first"] = n * 197
        return {f"client {n + 1}": slots[n * 5 : n * 5 + 5] for n in range(CALLS // 5)}

    def start(self) -> None:
        numbered_recording(self._speech)
        for n in range(CALLS):
            self.sim.add_callee(callee(n), f"wav:{self._speech},loop")
        self.run.up()
        for name in self.wishes():
            self._start_client(name)

    def _start_client(self, name: str) -> None:
        shortest, longest = CALL_SECONDS
        arguments = {
            "slots": self.wishes()[name],
            "shortest": shortest,
            "longest": longest,
            "seed": self.seed,
        }
        self.clients[name] = Client(self.run, name.replace(" ", "-"), arguments, self._said)
        self.clients[name].name = name
        self._up[name] = {}

    # ------------------------------------------------------------------ the loop

    def step(self) -> None:
        """Look after everything for a moment."""
        deadline = time.monotonic() + _STEP
        while True:
            try:
                name, message = self._said.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            self._take(name, message)
        now = time.monotonic()
        for until, pid in list(self._stopped):
            if now >= until:
                self._stopped.remove((until, pid))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        for key, caller in self._callers.items():
            if now >= caller.again:
                caller.again = now + 0.25
                self._call_in(key, caller)
        for name in list(self._killed):
            self._look_after_killed(name, now)
        live = sum(len(calls) for calls in self._up.values())
        self.score.most_at_once = max(self.score.most_at_once, live)

    def _since(self, at: float) -> float:
        return at - self._began

    def during(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.step()

    def until(self, condition: Callable[[], object], what: str, seconds: float) -> bool:
        """Go on until the condition; a problem is noted when it does not come in time."""
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > seconds:
                self.problem(f"not within {seconds:g} s: {what}")
                return False
            self.step()
        return True

    def problem(self, text: str) -> None:
        self.score.problems.append(text)
        self._say(f"[red]{text}[/red]")

    # ------------------------------------------------------------------ what clients say

    def _take(self, name: str, message: dict[str, Any]) -> None:
        if "waiting" in message:
            self._callers[name, message["slot"]] = Caller(message["waiting"])
        elif "up" in message:
            self._callers.pop((name, message["slot"]), None)
            self._up[name][message["up"]] = message
        elif "over" in message:
            report = message["over"]
            self._up[name].pop(report["sid"], None)
            self._judge(report)
        elif "failed" in message:
            self._request_failed(name, message)

    def _request_failed(self, name: str, message: dict[str, Any]) -> None:
        self._callers.pop((name, message["slot"]), None)
        error = message["failed"]
        self.score.requests_failed[error.split("(")[0]] += 1
        if not self._cut(message["at"]):
            self.problem(f"{name}, {message['kind']}: a request failed: {error}")

    def _cut(self, ended: float) -> bool:
        return self._cut_from is not None and ended >= self._cut_from

    def _judge(self, report: dict[str, Any]) -> None:
        sid = report["sid"]
        cut = self._cut(report["ended"])
        late = self.sim.load()["late_p99_ms"] / 20
        found = judge(report, self.sim.call(sid), self.sim.played(sid), cut=cut, late=late)
        self.score.verdicts.append(found)
        if cut and found.dropped:
            self.score.with_stack += 1
        for text in found.problems:
            self.problem(f"call {sid} ({found.kind}, {found.streams} streams): {text}")
        if found.problems:
            gaps = ", ".join(f"{n} at {self._since(at):.2f} s" for at, n in found.gaps)
            self._say(f"  {found.seconds:.1f} s; lost to the far end: {gaps}; said: {found.why}")
            self._keep(report)

    def _keep(self, report: dict[str, Any]) -> None:
        """All that is known of a call with a problem goes to out/chaos."""
        sid = report["sid"]
        KEPT.mkdir(parents=True, exist_ok=True)
        known = report | {"carrier": self.sim.call(sid)}
        (KEPT / f"{sid}.json").write_text(json.dumps(known, indent=1))
        (KEPT / f"{sid}-heard.ulaw").write_bytes(self.sim.played(sid))
        (KEPT / f"{sid}-said.ulaw").write_bytes(self.sim.said(sid))

    def _call_in(self, key: tuple[str, int], caller: Caller) -> None:
        """Call a slot that waits, once its number is ours; again after a busy."""
        if caller.sid is not None:
            call = self.sim.call(caller.sid)
            if call["status"] not in ENDED:
                return
        if caller.number not in self.stack.overridden():
            return
        person = f"+1415777{self._rng.randrange(10_000):04d}"
        bot = f"wav:{self._speech},loop"
        caller.sid = self.sim.place_call(person, caller.number, bot)["sid"]

    # ------------------------------------------------------------------ faults on one process

    def hit(self, fault: Fault) -> None:
        """Carry a fault out."""
        number = getattr(signal, fault.how)
        now = time.monotonic()
        if fault.kind == "client":
            well = [n for n in self.clients if n not in self._killed]
            name = well[fault.which % len(well)]
            pid = self.clients[name].process.pid
            if fault.how != "SIGSTOP":
                self._killed[name] = (now, list(self._up[name]))
        else:
            found = self.stack.processes(fault.kind)
            if not found:
                return
            pid = found[fault.which % len(found)].pid
        os.kill(pid, number)
        if fault.how == "SIGSTOP":
            self._stopped.append((now + fault.seconds, pid))
        self.score.faults.append(Injected(fault.kind, fault.how, pid, now, now + fault.seconds))
        length = f" for {fault.seconds:.1f} s" if fault.seconds else ""
        self._say(f"  {self._since(now):6.2f} s  {fault.how} to {fault.kind} {pid}{length}")

    def _look_after_killed(self, name: str, now: float) -> None:
        """A killed client's calls are hung up and its numbers as before; then it comes again."""
        at, sids = self._killed[name]
        waited = now - at
        numbers = [
            slot["callee"] if slot["kind"] == "b-leg" else slot["number"]
            for slot in self.wishes()[name]
            if slot["kind"] != "a-leg"
        ]
        left = [sid for sid in sids if self.sim.call(sid)["status"] not in ENDED]
        changed = [n for n in self.stack.changed() if n in numbers]
        # A controller that was away in between counts its sessions' leases anew.
        away = [f.until + BACK_WITHIN for f in self.score.faults if f.kind == "controller"]
        if left or changed:
            if now - max([at, *away]) < CLIENT_GONE_WITHIN + busy():
                return
            self.problem(f"{waited:.1f} s after {name} was killed: {left}, numbers {changed}")
        elif max([at, *away]) == at:
            self.score.waited("a killed client's calls hung up, numbers restored", waited)
        self.score.with_client += len(sids)
        for sid in sids:
            self._judge_orphan(sid)
        del self._killed[name]
        for key in [key for key in self._callers if key[0] == name]:
            del self._callers[key]
        self.clients[name].close()
        self._drain(name)
        self._start_client(name)

    def _drain(self, name: str) -> None:
        """What a dead client had said is old."""
        kept = []
        while not self._said.empty():
            kept.append(self._said.get())
        for who, message in kept:
            if who != name or "over" in message:
                self._said.put((who, message))

    def _judge_orphan(self, sid: str) -> None:
        from benchmarks import chaos_code

        heard = chaos_code.read_ulaw(self.sim.played(sid))
        if heard.doubled:
            self.problem(f"call {sid} of a killed client: {heard.doubled} frames doubled out")

    # ------------------------------------------------------------------ the two parts

    def singles(self, seconds: float) -> None:
        """Single processes are hit."""
        self._say(f"{seconds:.0f} s: single processes are hit while {CALLS} calls talk")
        self.until(lambda: sum(map(len, self._up.values())) >= CALLS, "all calls are up", 25.0)
        began = time.monotonic()
        for fault in plan(self.seed, seconds):
            self.during(began + fault.at - time.monotonic())
            self.hit(fault)
        self.during(began + seconds - time.monotonic())
        self.until(lambda: not self._stopped, "what was stopped goes on", 6.0)
        self.until(lambda: not self._killed, "killed clients are back", 15.0)
        self.until(self.run.complete, "what was killed is back", 10.0)
        told = time.monotonic()
        for client in self.clients.values():
            client.tell("renew")
        self.until(
            lambda: all(c["at"] > told for calls in self._up.values() for c in calls.values()),
            "all calls are over",
            15.0,
        )

    def wholes(self, rounds: list[str]) -> None:
        """The stack as a whole is hit."""
        for what in rounds:
            self._say(f"the stack as a whole: {what}")
            self.until(lambda: len(self.stack.overridden()) >= 3, "numbers are in use", 20.0)
            self._cut_from = self._cut_from or time.monotonic()
            self._whole(what)
            self.until(self.run.complete, "the stack is back", 15.0)

    def _whole(self, what: str) -> None:
        numbers = self.stack.overridden()
        at = time.monotonic()
        top = self.run.stack_process
        assert top is not None
        name, how = what.split(",")[0].split()
        self.score.faults.append(Injected(name, how, top.pid, at, at))
        if name == "controller":
            os.kill(self.stack.processes("controller")[0].pid, signal.SIGTERM)
            self._restored(numbers, at, STACK_ENDS_WITHIN + busy(), what)
            return
        family = self.stack.processes("all")
        if name == "all":
            self.run.kill_stack()
            self.run.start_stack()
            # Sessions of clients that live are claimed again: their numbers need no restore.
            return
        os.kill(top.pid, signal.SIGKILL if name == "supervisor" else signal.SIGTERM)
        self.until(
            lambda: not any(p.is_running() and p.status() != "zombie" for p in family),
            f"{what}: all processes have ended",
            STACK_ENDS_WITHIN + busy(),
        )
        self.score.waited(f"{name} {how}: all ended", time.monotonic() - at)
        if name == "stack" and top.wait() != 0:
            self.problem(f"{what}: exit status {top.returncode}")
        if self.stack.changed():
            self.problem(f"{what}: all ended, not as before: {self.stack.changed()}")
        self._restored(numbers, at, STACK_ENDS_WITHIN + busy(), what)
        self.run.start_stack()

    def _restored(self, numbers: list[str], at: float, within: float, what: str) -> None:
        self.until(
            lambda: all(self.stack.restored_at(n, at) for n in numbers),
            f"{what}: {len(numbers)} numbers are put back",
            within,
        )
        times = [self.stack.restored_at(n, at) or at for n in numbers]
        self.score.waited(f"{what}: numbers restored", max(times, default=at) - at)

    def end(self) -> None:
        """Clients leave, the stack ends; nothing is left."""
        for client in self.clients.values():
            client.tell("stop")
        self.until(
            lambda: all(c.process.poll() is not None for c in self.clients.values()),
            "clients have left",
            25.0,
        )
        for client in self.clients.values():
            client.close()
        while not self._said.empty():
            self._take(*self._said.get())
        changed = self.stack.changed()
        if changed:
            self.problem(f"numbers are not as they were: {changed}")
        live = [c["sid"] for c in self.sim.calls() if c["status"] not in ENDED]
        if live:
            self.problem(f"calls live on: {live}")
        top = self.run.stack_process
        assert top is not None
        family = self.stack.processes("all")
        top.terminate()
        # 3: a dial that was cut off is not settled; that none of its calls lives is known here.
        if top.wait(10.0) not in (EXIT_DONE, EXIT_PENDING):
            self.problem(f"the stack ended with status {top.returncode}")
        _, left = psutil.wait_procs(family, 2.0)
        if left:
            self.problem(f"processes are left: {left}")
        if self.stack.changed():
            self.problem(f"numbers are not as they were: {self.stack.changed()}")
        health = self.sim.health()
        if not health["ok"]:
            self.problem(f"the carrier itself failed: {health['failures']}")
        self.score.restores = self.stack.restores()


# ---------------------------------------------------------------------- what is shown


def fault_rows(score: Score) -> list[list[str]]:
    """By kind and signal: how often, and the longest hole that a far end heard after it."""
    holes = [hole for verdict in score.verdicts for hole in verdict.holes]
    found: dict[tuple[str, str], list[float]] = {}
    alone: dict[tuple[str, str], list[float]] = {}
    for fault in score.faults:
        after = [seconds for at, seconds in holes if fault.at - 0.1 <= at <= fault.until + BELONGS]
        longest = max(after, default=0.0)
        found.setdefault((fault.kind, fault.how), []).append(longest)
        others = [
            other
            for other in score.faults
            if other is not fault
            and other.at - BELONGS <= fault.until + BELONGS
            and fault.at <= other.until + BELONGS
        ]
        if not others:
            alone.setdefault((fault.kind, fault.how), []).append(longest)
    rows = []
    for (kind, how), each in found.items():
        single = alone.get((kind, how))
        rows.append(
            [
                kind,
                how,
                str(len(each)),
                f"{max(each) * 1000:.0f}",
                "–" if single is None else f"{max(single) * 1000:.0f} ({len(single)})",
            ]
        )
    return rows


def total_rows(score: Score) -> list[list[str]]:
    verdicts = score.verdicts
    kept = [v for v in verdicts if not v.dropped]
    dropped = len(verdicts) - len(kept) - score.with_stack

    longest = max((v.longest for v in kept), default=0.0)

    def total(name: str) -> float:
        return float(sum(getattr(v, name) for v in kept))

    return [
        ["faults injected", str(len(score.faults))],
        ["calls", f"{len(verdicts) + score.with_client}, {score.most_at_once} at once"],
        ["seconds of calls", f"{sum(v.seconds for v in verdicts):.0f}"],
        ["calls kept", str(len(kept))],
        ["calls that ended with their killed client", str(score.with_client)],
        ["calls that ended with the whole stack", str(score.with_stack)],
        ["calls lost otherwise", str(dropped)],
        ["streams (reconnections)", f"{total('streams'):.0f} ({total('streams') - len(kept):.0f})"],
        [
            "frames doubled, to the far end / to the client",
            f"{sum(v.doubled_out for v in verdicts)} / {sum(v.doubled_in for v in verdicts)}",
        ],
        [
            "frames lost to the far end, reported",
            f"{total('lost_out'):.0f}, {total('reported_out'):.0f}",
        ],
        [
            "frames lost to the client, reported",
            f"{total('lost_in'):.0f}, {total('reported_in'):.0f}",
        ],
        ["longest hole at a far end (ms)", f"{longest * 1000:.0f}"],
        ["overrides put back", str(score.restores)],
        ["overrides not as before", str(sum("as they were" in p for p in score.problems))],
        *([what, f"{seconds:.1f} s"] for what, seconds in sorted(score.took.items())),
    ]


FAULT_HEAD: Final = ["process", "signal", "times", "longest hole (ms)", "alone (times)"]


def show(score: Score, seed: int, console: Console) -> None:
    table = Table(title=f"faults (seed {seed})")
    for n, head in enumerate(FAULT_HEAD):
        table.add_column(head, justify="left" if n < 2 else "right")
    for row in fault_rows(score):
        table.add_row(*row)
    console.print(table)
    table = Table(title="what became of it")
    table.add_column("")
    table.add_column("", justify="right")
    for row in total_rows(score):
        table.add_row(*row)
    console.print(table)


def page(score: Score, seed: int, seconds: float) -> str:
    """docs/chaos.md."""
    lines = [
        "# Chaos",
        "",
        f"`make chaos`, {seconds:.0f} s with seed {seed}: {CALLS} calls talk full duplex while",
        "every kind of process of the stack, and the clients, are killed, stopped and ended; then",
        "the stack as a whole. Every 20 ms frame carries its number, so that the carrier's own",
        f"records show what came. {platform.system()}, {os.cpu_count()} cores for all of it, the",
        "carrier included.",
        "",
        "| " + " | ".join(FAULT_HEAD) + " |",
        "|---|---|---:|---:|---:|",
        *("| " + " | ".join(row) + " |" for row in fault_rows(score)),
        "",
        "A hole is silence that a far end heard inside our speech, after the fault (others may",
        "have overlapped; *alone*: those that did not).",
        "",
        "| | |",
        "|---|---:|",
        *("| " + " | ".join(row) + " |" for row in total_rows(score)),
    ]
    return "\n".join([*lines, ""])


@click.command()
@click.option("--seconds", default=600.0, show_default=True, type=click.FloatRange(30.0))
@click.option("--seed", type=int, help="Repeat the faults of a run. Default: a new one.")
@click.option("--page/--no-page", "write_page", default=False, help="Write docs/chaos.md.")
def main(seconds: float, seed: int | None, write_page: bool) -> None:
    """Kill, stop and end every kind of process while 20 calls talk."""
    console = Console(width=max(100, Console().width))
    seed = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    console.print(f"seed {seed}")
    rounds = whole(seed, max(2, round(seconds / 100)))
    with carrier(0, keep_audio=True) as run:
        chaos = Chaos(run, seed, console.print)
        try:
            chaos.start()
            chaos.singles(max(15.0, seconds - ROUND * len(rounds)))
            chaos.wholes(rounds)
            chaos.end()
        finally:
            for _, pid in chaos._stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            for client in chaos.clients.values():
                client.close()
        show(chaos.score, seed, console)
        if write_page:
            PAGE.write_text(page(chaos.score, seed, seconds))
            console.print(f"written to {PAGE}")
        if chaos.score.problems:
            KEPT.mkdir(parents=True, exist_ok=True)
            (KEPT / "processes.log").write_text(run.tails(1_000_000))
            for text in chaos.score.problems:
                console.print(f"[red]{text}[/red]")
            console.print(f"{len(chaos.score.problems)} problems; repeat with --seed {seed}")
            raise SystemExit(1)
        console.print("nothing was lost that was not reported, nothing came twice")


if __name__ == "__main__":
    main()
