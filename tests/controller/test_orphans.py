"""What other stacks left: taken once they are gone, let be while they are being started again."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from simulation.account import PRIOR
from simulation.memory_journal import MemoryJournal

from trunkline.bus.locks import FileLock
from trunkline.bus.settings import private_state_dir
from trunkline.controller import events as ev
from trunkline.controller.core import Core
from trunkline.controller.journal import orphans as orphan_rules
from trunkline.controller.journal import state_dir
from trunkline.controller.journal.database import DatabaseAwayError, StackHeldError
from trunkline.controller.journal.orphans import Orphan, Orphans, watch
from trunkline.controller.journal.reading import OpenRows
from trunkline.controller.journal.store import Journal
from trunkline.controller.rules.book import Identity, Rules
from trunkline.controller.shell import Shell
from trunkline.controller.twilio.probe import Prober
from trunkline.controller.twilio.seal import Seal

from .bench import DIAL, ORDER
from .fake_carrier import OURS, nobody
from .machine import ACCOUNT, Machine, stack_id


class Start:
    """A controller that starts beside what others left. ``answers``: their gateways are there."""

    def __init__(self, machine: Machine, answers: bool = False) -> None:
        self.machine = machine
        self.answers = answers
        self.asked: list[tuple[str, str]] = []
        self.orphans = Orphans.find(machine.directory, ACCOUNT, "us", self._present)
        self.ops = machine.ops("ours", MemoryJournal())
        identity = Identity("ours", 1, 1, ACCOUNT, "https://l", machine.time.wall(), 0.0)
        self.core = Core(identity, Rules(), orphans=self.orphans.rows)
        self.shell = Shell(self.core, self.ops, asyncio.Event(), self.orphans, machine.time.clock)

    async def _present(self, base: str, stack: str) -> bool:
        self.asked.append((base, stack))
        return self.answers

    async def run(self) -> None:
        """Carry out what the start says, until all of it is done."""
        self.shell._feed(ev.Tick())
        for orphan in self.orphans.found:
            self.shell._spawn(orphan.hang_up_left(self.ops))
        while self.shell._tasks:
            await asyncio.wait(self.shell._tasks)
        assert self.shell._fatal is None

    async def close(self) -> None:
        await self.orphans.close()


async def test_what_a_stack_left_is_put_back_and_hung_up(machine: Machine) -> None:
    journal = await machine.overridden(OURS, stack_id("aaa"))
    call = await machine.carrier.create_call(ORDER)
    await journal.dial_asked(replace(DIAL, asked=machine.time.wall()))
    await journal.close()
    start = Start(machine)
    assert OURS in start.core.book.leases  # nobody gets it before that
    await start.run()
    assert machine.voice_url(OURS) == PRIOR and machine.carrier.calls[call.sid].ended
    assert start.asked == [("https://line.example.com", stack_id("aaa"))]
    assert not start.core.book.leases
    assert await start.orphans.open_overrides() == []
    await start.close()
    assert Orphans.find(machine.directory, ACCOUNT, "us", start._present).found == []


async def test_a_stack_that_its_keeper_starts_again_is_let_be(machine: Machine) -> None:
    await (await machine.overridden(OURS, stack_id("aaa"))).close()
    start = Start(machine, answers=True)
    lock: list[FileLock] = []

    def comes_back() -> None:
        lock.append(FileLock(machine.directory / "stacks" / stack_id("aaa") / "lock", "it"))

    machine.time.at(machine.time.now + 3.0, comes_back)
    await start.run()
    assert machine.voice_url(OURS) != PRIOR and lock
    assert not start.core.book.leases
    assert start.core.book.counts["overrides left_alone"] == 1
    lock[0].release()
    await start.close()


async def test_a_stack_whose_controller_never_comes_back_is_taken(machine: Machine) -> None:
    await (await machine.overridden(OURS, stack_id("aaa"))).close()
    start = Start(machine, answers=True)
    began = machine.time.now
    await start.run()
    assert machine.voice_url(OURS) == PRIOR
    assert machine.time.now - began >= orphan_rules.COMES_BACK_WITHIN
    await start.close()


class Watched:
    """A stack in a database that is away from time to time. ``moves_at``: it shows that it lives.
    ``takes``: what each try to take it comes to."""

    stack = stack_id("aaa")
    rows = OpenRows([], [], [], [])
    silent_for = 10.0
    on_a_network = True
    fleet = False

    def __init__(
        self,
        machine: Machine,
        away: tuple[float, float] = (0.0, 0.0),
        moves_at: float = math.inf,
        takes: Sequence[Any] = (),
    ) -> None:
        self._time = machine.time
        self._away = away
        self._moves_at = moves_at
        self._takes = list(takes)
        self._began = machine.time.now

    @property
    def passed(self) -> float:
        return self._time.now - self._began

    async def look(self) -> None:
        if self._away[0] <= self.passed < self._away[1]:
            raise DatabaseAwayError("it does not answer")
        if self.passed >= self._moves_at:
            raise StackHeldError(self.stack, "it")

    async def open(self) -> Any:
        taken = self._takes.pop(0)
        if isinstance(taken, Exception):
            raise taken
        return taken

    def release(self) -> None:
        pass


async def test_an_outage_does_not_count_while_a_stack_is_watched(machine: Machine) -> None:
    ops = machine.ops("ours")
    left = Watched(machine)
    assert await watch(left, ops) and left.passed == 10.0
    left = Watched(machine, away=(6.0, 11.0))
    assert await watch(left, ops) and left.passed == 22.5  # ten since the look that came late
    left = Watched(machine, away=(6.0, 11.0), moves_at=13.0)
    with pytest.raises(StackHeldError):
        await watch(left, ops)
    left = Watched(machine, away=(0.0, math.inf))
    with pytest.raises(DatabaseAwayError):
        await watch(left, ops)
    assert left.passed == 32.5
    ops.hurry()
    assert not await watch(Watched(machine), ops)


async def test_a_stack_is_watched_again_if_the_database_goes_away_before_it_is_taken(
    machine: Machine,
) -> None:
    journal = MemoryJournal()
    left = Watched(machine, takes=[DatabaseAwayError("it does not answer"), journal])
    taken = await Orphan(left, nobody).take(machine.ops("ours"))
    assert taken is not None and taken.journal is journal
    assert left.passed == orphan_rules.COMES_BACK_SOON + 2 * left.silent_for


async def test_a_damaged_journal_of_another_stack_is_left_as_it_is(machine: Machine) -> None:
    await (await machine.overridden(OURS, stack_id("aaa"))).close()
    path = machine.directory / "stacks" / stack_id("aaa") / "journal.sqlite3"
    path.write_bytes(b"no database" * 500)
    start = Start(machine)
    await start.run()
    assert path.read_bytes() == b"no database" * 500
    FileLock(path.with_name("lock"), "free").release()


@pytest.mark.parametrize("old", [False, True])
async def test_a_private_stack_that_left_nothing_is_cleared_away(tmp_path: Path, old: bool) -> None:
    base = tmp_path / "state"
    private = private_state_dir(base, "p1")
    path = private / "stacks" / stack_id("aaa") / "journal.sqlite3"
    await (await Journal.in_file(path, account=ACCOUNT, stack="x")).close()
    mine = base / "stacks" / stack_id("bbb") / "journal.sqlite3"
    await (await Journal.in_file(mine, account=ACCOUNT, stack="y")).close()
    if old:
        os.utime(path, (1.0, 1.0))
        os.utime(mine, (1.0, 1.0))
    here = Machine(tmp_path)
    assert Start(here).orphans.found == []
    assert private.exists() != old  # all of its directory: none is ever used again
    assert mine.exists()
    shutil.rmtree(base)


async def test_what_another_start_clears_away_meanwhile_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = private_state_dir(tmp_path, "p1")
    (private / "stacks").mkdir(parents=True)
    listed = state_dir._inside(tmp_path / "private")
    shutil.rmtree(private)
    monkeypatch.setattr(state_dir, "_roots", lambda base: listed)
    assert state_dir.others(tmp_path, ACCOUNT, "us") == ([], [])


async def test_other_accounts_and_live_stacks_are_not_looked_at(machine: Machine) -> None:
    await (await machine.overridden(OURS, stack_id("aaa"))).close()
    foreign = machine.directory / "stacks" / "0f0f0fabc"
    shutil.copytree(machine.directory / "stacks" / stack_id("aaa"), foreign)
    lock = FileLock(machine.directory / "stacks" / stack_id("aaa") / "lock", "lives")
    assert Start(machine).orphans.found == []
    lock.release()
    assert [o.stack for o in Start(machine).orphans.found] == [stack_id("aaa")]


async def test_a_stack_that_lives_here_is_known_by_its_lock(machine: Machine) -> None:
    """Its tunnel may be down, and nobody answers at its public URL."""
    await (await machine.overridden(OURS, stack_id("aaa"))).close()
    seal = Seal.read(machine.voice_url(OURS))
    assert seal is not None
    nowhere = "http://127.0.0.1:1"
    prober = Prober(machine.directory, "us")
    assert not await prober(nowhere, seal.stack)
    path = machine.directory / "stacks" / seal.stack / "lock"
    for holder, lives in (("controller (pid 7)", True), ("us", False)):
        lock = FileLock(path, holder)  # ours: we have taken what it left
        assert await prober(nowhere, seal.stack) == lives
        lock.release()
    private = private_state_dir(machine.directory, "p1")
    lock = FileLock(private / "stacks" / stack_id("bbb") / "lock", "controller (pid 8)")
    assert await prober(nowhere, stack_id("bbb"))
    lock.release()
    assert not await prober(nowhere, stack_id("bbb"))
    prober.close()


@pytest.mark.parametrize("looks", [True, False])
def test_who_only_looks_at_our_stack_does_not_make_it_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: bool
) -> None:
    stack = state_dir.own(tmp_path, ACCOUNT, "us")
    stack.journal.touch()
    stack.release()
    held = state_dir.take(stack.path, "another controller, which starts")
    waited = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if looks:
            held.release()

    monkeypatch.setattr(state_dir.time, "sleep", sleep)
    ticks = itertools.count()
    monkeypatch.setattr(state_dir.time, "monotonic", lambda: next(ticks) * 0.1)
    again = state_dir.own(tmp_path, ACCOUNT, "us")
    assert (again.id == stack.id) == looks
    assert len(waited) == (1 if looks else 19)
    held.release()
    again.release()
