"""The second half of a chaos run: the stack as a whole is hit, and at last it is ended.

Calls may be lost here, numbers never.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Final

import psutil

from benchmarks.chaos_run import Chaos, busy
from benchmarks.chaos_score import Injected
from trunkline.bus.process import EXIT_DONE, EXIT_PENDING
from trunkline.carrier_sim.client import ENDED
from trunkline.controller.twilio.override import UNCERTAIN_SECONDS

#: Seconds after a SIGTERM, or after the supervisor's death.
STACK_ENDS_WITHIN: Final = 4.0
#: The faults that kill a controller.
WRITERS: Final = ("controller", "all", "supervisor")


def wholes(chaos: Chaos, rounds: list[str]) -> None:
    """The stack as a whole is hit, in these ways."""
    chaos.renew()
    for what in rounds:
        chaos.say(f"the stack as a whole: {what}")
        chaos.until(lambda: len(chaos.stack.overridden()) >= 3, "numbers are in use", 20.0)
        chaos.cut_from = chaos.cut_from or time.monotonic()
        _hit(chaos, what)
        chaos.until(chaos.run.complete, "the stack is back", 15.0)


def _hit(chaos: Chaos, what: str) -> None:
    run, stack = chaos.run, chaos.stack
    numbers = stack.overridden()
    at = time.monotonic()
    top = run.stack_process
    assert top is not None
    name, how = what.split(",")[0].split()
    chaos.score.faults.append(Injected(name, how, top.pid, at, at))
    if name == "controller":
        os.kill(stack.processes("controller")[0].pid, signal.SIGTERM)
        _restored(chaos, numbers, at, what)
        return
    family = stack.processes("all")
    if name == "all":
        run.kill_stack()
        run.start_stack()
        # Sessions of clients that live are claimed again: their numbers need no restore.
        return
    os.kill(top.pid, signal.SIGKILL if name == "supervisor" else signal.SIGTERM)
    chaos.until(
        lambda: not any(p.is_running() and p.status() != "zombie" for p in family),
        f"{what}: all processes have ended",
        STACK_ENDS_WITHIN + busy(),
    )
    chaos.score.waited(f"{name} {how}: all ended", time.monotonic() - at)
    if name == "stack":
        # A controller that was killed may have died while it wrote to a number. That write may land
        # for so long, and until then the restore of the number is not final, which the status says.
        killed = (f.at for f in chaos.score.faults if f.how == "SIGKILL" and f.kind in WRITERS)
        allowed = {EXIT_DONE}
        if any(at - then < UNCERTAIN_SECONDS for then in killed):
            allowed.add(EXIT_PENDING)
        if top.wait() not in allowed:
            chaos.problem(f"{what}: exit status {top.returncode}")
    if stack.changed():
        chaos.problem(f"{what}: all ended, not as before: {stack.changed()}")
    _restored(chaos, numbers, at, what)
    run.start_stack()


def _restored(chaos: Chaos, numbers: list[str], at: float, what: str) -> None:
    stack = chaos.stack
    chaos.until(
        lambda: all(stack.restored_at(n, at) for n in numbers),
        f"{what}: {len(numbers)} numbers are put back",
        STACK_ENDS_WITHIN + busy(),
    )
    times = [stack.restored_at(n, at) or at for n in numbers]
    chaos.score.waited(f"{what}: numbers restored", max(times, default=at) - at)


def end(chaos: Chaos) -> None:
    """Clients leave, the stack ends; nothing is left."""
    chaos.leave()
    stack = chaos.stack

    def as_before() -> None:
        if stack.changed():
            chaos.problem(f"numbers are not as they were: {stack.changed()}")

    as_before()
    live = [call["sid"] for call in chaos.sim.calls() if call["status"] not in ENDED]
    if live:
        chaos.problem(f"calls live on: {live}")
    top = chaos.run.stack_process
    assert top is not None
    family = stack.processes("all")
    top.terminate()
    # 3: a dial that was cut off is not settled; that none of its calls lives is known here.
    if top.wait(10.0) not in (EXIT_DONE, EXIT_PENDING):
        chaos.problem(f"the stack ended with status {top.returncode}")
    _, left = psutil.wait_procs(family, 2.0)
    if left:
        chaos.problem(f"processes are left: {left}")
    as_before()
    health = chaos.sim.health()
    if not health["ok"]:
        chaos.problem(f"the carrier itself failed: {health['failures']}")
    chaos.score.restores = len(stack.put_back())
