"""One run of the chaos suite: its clients, its calls, and faults on single processes.

A :class:`Chaos` looks after everything in one loop (:meth:`Chaos.step`). It hears what clients say,
calls those that wait for a call, wakes processes that were stopped, starts killed clients again,
and judges each call that is over. Whoever waits for something waits in that loop.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import random
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import chaos_code
from benchmarks.chaos_faults import Fault
from benchmarks.chaos_judge import judge, never_sent
from benchmarks.chaos_score import QUIET, Injected, Score
from benchmarks.chaos_stack import PRIOR, Client, Stack, numbered_recording
from benchmarks.processes import OWN_NUMBER, Run, callee
from trunkline.carrier_sim.client import ENDED
from trunkline.carrier_sim.mulaw import FRAME_SECONDS
from trunkline.gateway.process import DRAIN_SECONDS

#: All that is known of a run that failed.
KEPT: Final = Path(__file__).parent.parent / "out" / "chaos"

CALLS: Final = 20
CLIENTS: Final = 4
#: Seconds of one call, from and to.
CALL_SECONDS: Final = (10.0, 40.0)
#: Seconds after a client's kill within which its calls are hung up and its numbers are as before.
CLIENT_GONE_WITHIN: Final = 10.0
#: Seconds within which a killed controller is there again.
BACK_WITHIN: Final = 1.5
#: Processes that want to run, for each core, above which nothing can be said of any bound.
TOO_BUSY: Final = 4.0
#: Seconds that the carrier's clock may be late (99 of 100 ticks are better): above it the lead of
#: 60 ms is used up, and a hole says nothing of the stack.
TOO_LATE: Final = 0.06
_STEP: Final = 0.02


class MachineTooBusyError(RuntimeError):
    """Other work on this machine takes so much that a bound would say nothing."""


def busy() -> float:
    """Seconds that this machine may add to a bound: one, or more where it has much to do."""
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    if load > TOO_BUSY:
        raise MachineTooBusyError(
            f"machine too busy: {load:.1f} processes want each core, and above {TOO_BUSY:g} no "
            "bound holds; end other work, or wait"
        )
    return max(1.0, load)


@dataclass
class Caller:
    """Somebody who calls an inbound slot that waits."""

    number: str
    sid: str | None = None
    #: when it called, and when it calls again
    called: float = 0.0
    again: float = 0.0


class Chaos:
    """One run."""

    def __init__(
        self,
        run: Run,
        seed: int,
        say: Callable[[str], None],
        call_seconds: tuple[float, float] = CALL_SECONDS,
        calls: int = CALLS,
        apart: float = 0.0,
    ) -> None:
        self.run = run
        #: as for judge()
        self._apart = apart
        self.calls = calls
        self._call_seconds = call_seconds
        self.sim = run.sim
        self.stack = Stack(run)
        self.seed = seed
        self.score = Score()
        self.say = say
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
        self.cut_from: float | None = None
        self._began = time.monotonic()
        self._speech = run.directory / "numbered.wav"

    def wishes(self) -> dict[str, list[dict[str, Any]]]:
        """Who calls whom: four clients, each with a share of the calls. Six calls use numbers that
        are overridden for it."""
        numbers = list(PRIOR)
        slots: list[dict[str, Any]] = [
            {"kind": "a-leg", "number": OWN_NUMBER, "callee": callee(n)}
            for n in range(self.calls - 6)
        ]
        slots.append({"kind": "b-leg", "number": numbers[8], "callee": numbers[9]})
        slots += [{"kind": "inbound", "number": number} for number in numbers[:5]]
        for n, slot in enumerate(slots):
            slot["first"] = n * 197
        share = -(-len(slots) // CLIENTS)
        begins = range(0, len(slots), share)
        return {f"client {n + 1}": slots[at : at + share] for n, at in enumerate(begins)}

    def start(self) -> None:
        numbered_recording(self._speech)
        for n in range(self.calls):
            self.sim.add_callee(callee(n), f"wav:{self._speech},loop")
        self.run.up()
        for name in self.wishes():
            self._start_client(name)

    def _start_client(self, name: str) -> None:
        shortest, longest = self._call_seconds
        arguments = {
            "slots": self.wishes()[name],
            "shortest": shortest,
            "longest": longest,
            "seed": self.seed,
        }
        self.clients[name] = Client(self.run, name, arguments, self._said)
        self._up[name] = {}

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
                _wake(pid)
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
        self.say(f"[red]{text}[/red]")

    def _take(self, name: str, message: dict[str, Any]) -> None:
        if "waiting" in message:
            self._callers[name, message["slot"]] = Caller(message["waiting"])
        elif "up" in message:
            caller = self._callers.pop((name, message["slot"]), None)
            asked = message["asked"] if caller is None else caller.called
            self.score.ups.append((message["at"], message["at"] - asked))
            self._up[name][message["up"]] = message
        elif "over" in message:
            report = message["over"]
            self._up[name].pop(report["sid"], None)
            self._judge(report, self.clients[name].process.pid)
        elif "failed" in message:
            self._request_failed(name, message)

    def _request_failed(self, name: str, message: dict[str, Any]) -> None:
        self._callers.pop((name, message["slot"]), None)
        if self._cut(message["at"]):
            return
        wish = self.wishes()[name][message["slot"]]
        controllers_killed = [
            fault.at
            for fault in self.score.faults
            if (fault.kind, fault.how) == ("controller", "SIGKILL")
        ]
        began = [
            self.sim.call(call["sid"])["history"][0][0]
            for call in self.sim.calls()
            if call["to"] == wish.get("callee")
        ]
        if never_sent(message, controllers_killed, began):
            self.score.never_sent += 1
        else:
            self.problem(f"{name}, {message['kind']}: a request failed: {message['failed']}")

    def _still(self, pid: int, since: float, until: float) -> float:
        """Seconds for which the process was stopped meanwhile."""
        return sum(
            max(0.0, min(fault.until, until) - max(fault.at, since))
            for fault in self.score.faults
            if fault.pid == pid and fault.how == "SIGSTOP"
        )

    def _cut(self, ended: float) -> bool:
        return self.cut_from is not None and ended >= self.cut_from

    def _judge(self, report: dict[str, Any], client: int) -> None:
        sid = report["sid"]
        call = self.sim.call(sid)
        cut = self._cut(report["ended"])
        late = self.sim.load()["late_p99_ms"] / 1000
        if late > TOO_LATE:
            raise MachineTooBusyError(
                f"machine too busy: the carrier's own clock is {late * 1000:.0f} ms late at times"
            )
        still = self._still(client, call["history"][-1][0], report["ended"])
        found = judge(
            report,
            call,
            self.sim.played(sid),
            cut=cut,
            late=late / FRAME_SECONDS,
            still=still / FRAME_SECONDS,
            apart=self._apart,
        )
        self.score.verdicts.append(found)
        if cut and found.dropped:
            self.score.with_stack += 1
        for text in found.problems:
            self.problem(f"call {sid} ({found.kind}, {found.streams} streams): {text}")
        if found.problems:
            gaps = ", ".join(f"{n} at {self._since(at):.2f} s" for at, n in found.gaps)
            self.say(f"  {found.seconds:.1f} s; lost to the far end: {gaps}; said: {found.why}")
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
        caller.called = time.monotonic()
        caller.sid = self.sim.place_call(person, caller.number, bot)["sid"]

    def hit(self, fault: Fault) -> None:
        """Carry a fault out."""
        number = getattr(signal, fault.how)
        now = time.monotonic()
        if fault.kind == "client":
            running = [n for n in self.clients if n not in self._killed]
            name = running[fault.which % len(running)]
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
        # An ended gateway goes on with its calls for so long, and breaks their streams only then.
        drains = DRAIN_SECONDS if (fault.kind, fault.how) == ("gateway", "SIGTERM") else 0.0
        until = now + fault.seconds + drains
        self.score.faults.append(Injected(fault.kind, fault.how, pid, now, until))
        length = f" for {fault.seconds:.1f} s" if fault.seconds else ""
        self.say(f"  {self._since(now):6.2f} s  {fault.how} to {fault.kind} {pid}{length}")

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
        # A controller that was away in between counts its sessions' leases from the start.
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
        """Messages of a dead client are old, except for calls that were over."""
        kept = []
        while not self._said.empty():
            kept.append(self._said.get())
        for who, message in kept:
            if who != name or "over" in message:
                self._said.put((who, message))

    def _judge_orphan(self, sid: str) -> None:
        heard = chaos_code.read_ulaw(self.sim.played(sid))
        if heard.doubled:
            self.problem(f"call {sid} of a killed client: {heard.doubled} frames doubled out")

    def all_up(self) -> None:
        """Wait until every slot has its call."""
        self.until(lambda: sum(map(len, self._up.values())) >= self.calls, "all calls are up", 25.0)

    def alone(self, faults: Iterable[Fault]) -> None:
        """Single processes are hit, each when all that the last one broke has been mended."""
        for fault in faults:
            self.during(QUIET)
            self.hit(fault)
            self.during(self.score.faults[-1].until - time.monotonic())
            self.mended()
        self.during(QUIET)

    def overlapping(self, faults: Iterable[Fault], seconds: float) -> None:
        """Single processes are hit, each at its time."""
        began = time.monotonic()
        for fault in faults:
            self.during(began + fault.at - time.monotonic())
            self.hit(fault)
        self.during(began + seconds - time.monotonic())
        self.mended()

    def mended(self) -> None:
        """Wait until every process runs again, and killed clients have been replaced."""
        self.until(lambda: not self._stopped, "what was stopped goes on", 6.0)
        self.until(lambda: not self._killed, "killed clients are back", 15.0)
        self.until(self.run.complete, "what was killed is back", 10.0)

    def renew(self) -> None:
        """All calls end, and others take their place."""
        told = time.monotonic()
        for client in self.clients.values():
            client.tell("renew")
        self.until(
            lambda: all(c["at"] > told for calls in self._up.values() for c in calls.values()),
            "all calls are over",
            15.0,
        )

    def leave(self) -> None:
        """Clients hang up and leave."""
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

    def close(self) -> None:
        """End all that runs, however the run went."""
        for _, pid in self._stopped:
            _wake(pid)
        for client in self.clients.values():
            client.close()


def _wake(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it was killed meanwhile
        os.kill(pid, signal.SIGCONT)
