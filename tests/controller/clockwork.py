"""An account, and a controller's operations on it, on the simulation's clock, where every
resumption of a task is an event that is counted: a process can be killed after any of them, as with
SIGKILL.

The journal outlives it. A request to Twilio travels by itself: it takes effect, or not, whether or
not whoever asked is still there.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

from simulation.account import SlowAccount
from simulation.clock import Process, SimHandle, SimLoop, current
from simulation.memory_journal import MemoryJournal, SlowJournal
from simulation.writes import KEYS

from trunkline.controller.twilio.calls import CallOrder
from trunkline.controller.twilio.carrier import CallState
from trunkline.controller.twilio.number_settings import NumberSettings
from trunkline.controller.twilio.operations import Operations

from .fake_carrier import nobody
from .stage import URL

#: How much later than it was given up a late request takes effect (seconds).
LATE = 40.0


class SteadyAccount(SlowAccount):
    """An account at which everything takes the same time, and nothing fails that is not planned.
    ``made``: the calls that came of each dial; ``writes``: all writes to numbers; ``asked``: how
    many requests there were."""

    WAY = (0.05, 0.05)
    REFUSAL = (0.1, 0.1)
    LATE = (LATE, LATE)

    def __init__(self, loop: SimLoop, journal: MemoryJournal) -> None:
        super().__init__(loop, journal, random.Random(0))
        self.made: dict[str, list[str]] = defaultdict(list)
        self.writes: list[dict[str, str]] = []
        self.asked = 0

    def fate(self, operation: str, what: Any) -> str:
        self.asked += 1
        return super().fate(operation, what)

    async def write_number(self, sid: str, fields: dict[str, str]) -> NumberSettings:
        self.writes.append(fields)
        return await super().write_number(sid, fields)

    def make_call(self, order: CallOrder) -> CallState:
        request = parse_qs(urlsplit(order.status_callback).query)["d"][0]
        call = super().make_call(order)
        self.made[request].append(call.sid)
        if len(self.made[request]) > 1:
            self.problems.append(f"dial {request} led to {self.made[request]}")
        return call


async def a_step() -> None:
    """The process may die here."""
    await asyncio.sleep(0)


@contextlib.contextmanager
def last_words_unheard() -> Iterator[None]:
    """What killed tasks would still say when they are collected (their ``finally`` has no loop any
    more) reaches nobody, as it reaches nobody in a process that was killed."""
    before = sys.unraisablehook
    gc.collect()
    gc.freeze()  # what is there already need not be looked at again and again
    sys.unraisablehook = lambda unraisable: None
    try:
        yield
    finally:
        gc.unfreeze()
        gc.collect()
        sys.unraisablehook = before


class CountingLoop(SimLoop):
    """``dies_at``: a process is killed once it has had so many events. ``before``: called with the
    process at each event that is about to happen."""

    def __init__(self) -> None:
        super().__init__()
        self.had: Counter[Process] = Counter()
        self.dies_at: dict[Process, int] = {}
        self.before: Callable[[Process], None] = lambda process: None

    def _run(self, handle: SimHandle) -> None:
        process = handle.process
        self.before(process)
        had = self.had[process]
        if had == self.dies_at.get(process):
            self.kill(process)
        self.had[process] = had + 1
        super()._run(handle)


class Clockwork:
    """The loop, the account, the journal, and processes that use them."""

    def __init__(self) -> None:
        self.loop = CountingLoop()
        current.set(self.loop.world)
        self.journal = MemoryJournal()
        self.account = SteadyAccount(self.loop, self.journal)
        self.started = 0

    def ops(self) -> Operations:
        return Operations(
            stack="stack",
            public_url=URL,
            carrier=self.account,
            journal=SlowJournal(self.journal, a_step),  # type: ignore[arg-type]  # by __getattr__
            keys=KEYS,
            wall=self.account.wall,
            probe=nobody,
            clock=self.loop.time,
        )

    def process(self) -> Process:
        self.started += 1
        return Process(f"controller-{self.started}", "controller")

    def run(self, seconds: float, over: Callable[[], bool] | None = None) -> None:
        with self.loop.running():
            self.loop.run_until(self.loop.time() + seconds, over)
        assert not self.loop.failures, self.loop.failures
        assert not self.account.problems, self.account.problems

    @property
    def outside(self) -> tuple[float, int, int, int]:
        """What changes whenever anything but a process's own memory does: the time, the account,
        requests on their way, the journal."""
        loop, account = self.loop, self.account
        return loop.time(), loop.had[loop.world], account.asked, self.journal.changes

    @property
    def left(self) -> list[Any]:
        """What is not closed, not ended, or not as it has to be."""
        rows = self.journal.left
        found: list[Any] = [*rows.overrides, *rows.dials]
        found += [call for call in self.account.calls.values() if not call.ended]
        for sid, number in self.account.numbers.items():
            if number != self.account.expected[sid]:
                found.append(number)
        return found
