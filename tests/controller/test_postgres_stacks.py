"""The journal on a PostgreSQL server: who comes after a stack that fell silent, and what the stacks
of a fleet have together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace as replace_ops
from typing import Any

import pytest
from msgspec.structs import replace
from simulation.account import PRIOR

from benchmarks.postgres_server import PASSWORD, Server
from trunkline.bus import messages as m
from trunkline.bus.errors import LimitReachedError, NumberBusyError
from trunkline.bus.testing import until
from trunkline.controller.journal import places
from trunkline.controller.journal.database import DatabaseAwayError, JournalError, StackHeldError
from trunkline.controller.journal.orphans import Orphans
from trunkline.controller.journal.postgres import stacks
from trunkline.controller.journal.postgres.register import Register
from trunkline.controller.journal.postgres.stacks import Place
from trunkline.controller.journal.store import Journal
from trunkline.controller.other_stacks import OtherStacks
from trunkline.controller.restore_command import RestoreRun
from trunkline.controller.twilio.apply_restore import apply
from trunkline.controller.twilio.operations import Operations
from trunkline.controller.usage import Caps

from .fake_carrier import OURS, row_for
from .machine import Machine, stack_id
from .postgres_journal import PLACE, STACK, ask, in_fleet, opened, ours, stand_still
from .test_journal import ACCOUNT, DIAL, ROW


async def overridden(machine: Machine, url: str, stack: str = STACK) -> Journal:
    """A stack on another machine has overridden a number, and journalled it."""
    sid = machine.carrier.add_number(OURS)
    journal = await opened(url, "elsewhere", stack)
    ops = machine.ops(stack, journal)
    await apply(ops, replace(row_for(sid, f"o-{stack}"), number=OURS), machine.time.now + 30)
    return journal


async def test_restore_puts_back_what_another_machine_left(machine: Machine, url: str) -> None:
    """It waits for as long as a stack that lives would have shown itself."""
    stand_still(await overridden(machine, url))  # and it is never heard of again
    (written,) = ask(url, "SELECT written FROM trunkline.overrides")[0]
    assert "token" not in written
    settings = machine.settings.changed(database_url=url)
    run = RestoreRun(machine.ops(), dry_run=False)
    began = machine.time.now
    await run.database(settings, ACCOUNT)
    assert machine.voice_url(OURS) == PRIOR and not run.pending
    assert machine.time.now - began >= stacks.SILENT


async def test_a_dry_run_takes_nothing(machine: Machine, url: str) -> None:
    """Not even the journal of a stack that only stands still."""
    journal = await overridden(machine, url)
    stand_still(journal)
    run = RestoreRun(machine.ops(), dry_run=True)
    await run.database(machine.settings.changed(database_url=url), ACCOUNT)
    assert run.pending and [line.partition(":")[2][:23] for line in run.lines] == [
        " would be put back to h"
    ]
    assert len(await journal.open_overrides()) == 1 and machine.voice_url(OURS) != PRIOR
    await journal.close()


@pytest.mark.parametrize("dry_run", [False, True])
async def test_restore_lets_a_stack_be_that_lives(
    machine: Machine, url: str, dry_run: bool
) -> None:
    journal = await overridden(machine, url)
    settings = machine.settings.changed(database_url=url)
    run = RestoreRun(machine.ops(), dry_run=dry_run)
    register = ours(url, "restore")
    (left,) = await register.left(but="")
    await journal.note_seen("CA1", 1.0)  # it does something
    await run._in_database(left)
    assert machine.voice_url(OURS) != PRIOR and run.pending
    assert "controller (pid 7)" in run.lines[0] and "left alone" in run.lines[0]
    assert settings.database_url not in repr(settings)
    await journal.close()


async def test_behind_an_outage_restore_takes_no_stack_that_may_live(
    postgres: Server, machine: Machine, url: str
) -> None:
    """Its try to take the stack may come before the next try of the stack itself."""
    journal = await overridden(machine, url)
    stand_still(journal)
    (left,) = await ours(url, "restore").left(but="")
    postgres.stop()
    try:
        async with asyncio.timeout(stacks.START_WITHIN / 2):
            with pytest.raises(DatabaseAwayError):
                await left.look()
            with pytest.raises(DatabaseAwayError):
                await left.open()
    finally:
        postgres.start()
    assert len(await journal.open_overrides()) == 1
    with pytest.raises(StackHeldError):
        await left.look()
    await journal.close()


class Served:
    """A controller that serves on another machine, as far as it looks for silent stacks."""

    def __init__(self, machine: Machine, url: str, *, cut_off: bool = False) -> None:
        self.asked: list[str] = []
        self.cut_off = cut_off
        self.counts: list[str] = []
        self.looks = 0
        self.orphans = Orphans()
        ops = replace_ops(machine.ops("ours"), sleep=self._sleep, probe=self._lives)
        #: stacks that this one runs now, each until ``over``, and what was said of the fleet
        self.hosted: list[str] = []
        self.over = asyncio.Event()
        self.fleet: list[m.ControllerRef] = []
        here = Register(url, ACCOUNT, "there", "there", PLACE)
        self.others = OtherStacks(here, self.orphans, ops, self._present, self._run)
        self.tasks: list[asyncio.Task[None]] = []

    async def _sleep(self, seconds: float) -> None:
        self.looks += 1
        await asyncio.sleep(0.02)

    async def _present(self, base: str, stack: str) -> bool:
        return False

    async def _lives(self, base: str, stack: str) -> bool:
        self.asked.append(stack)
        return self.cut_off

    async def _run(self, ops: Operations) -> Any:
        return ops.stack

    async def _host(self, stack: Any) -> None:
        self.hosted.append(stack)
        await self.over.wait()

    def _fleet_seen(self, controllers: list[m.ControllerRef]) -> None:
        self.fleet = controllers

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        locks: dict[str, asyncio.Lock] = {}

        def spawn(work: Coroutine[Any, Any, None]) -> None:
            self.tasks.append(asyncio.get_running_loop().create_task(work))

        spawn(
            self.others.watch(
                spawn,
                lambda number: locks.setdefault(number, asyncio.Lock()),
                self.counts.append,
                self._fleet_seen,
                self._host,
            )
        )
        yield
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def fall_silent(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal's process is as good as dead, and the time of a lease is over."""
    stand_still(journal)
    monkeypatch.setattr(stacks, "SILENT", 0.0)


def test_a_beat_that_does_not_move_for_the_time_of_a_lease_is_silence() -> None:
    beats = stacks.Beats()
    for at in (100.0, 102.5, 105.0):
        assert beats.silent({"a": 1, "b": 7}, at) == set()
    assert beats.silent({"a": 1, "b": 8, "c": 1}, 107.5) == set()
    assert beats.silent({"a": 1, "b": 8, "c": 1}, 109.9) == set()
    assert beats.silent({"a": 1, "b": 8, "c": 1}, 112.4) == {"a"}
    assert beats.silent({"b": 8}, 114.9) == set()  # whoever has ended, and begins again, is new
    assert beats.silent({"a": 1, "b": 8}, 117.4) == set()
    assert beats.silent({"a": 1, "b": 8}, 117.5) == {"b"}


def test_an_outage_makes_no_stack_look_dead() -> None:
    """Nobody can look, and the next look may come before the stacks' next beats."""
    beats = stacks.Beats()
    for at in (100.0, 102.5, 105.0):
        beats.silent({"a": 1}, at)
    assert beats.silent({"a": 1}, 117.5) == set()
    for at in (120.0, 122.5, 125.0):
        assert beats.silent({"a": 1}, at) == set()
    assert beats.silent({"a": 1}, 127.5) == {"a"}


async def test_who_serves_puts_back_what_a_stack_left_that_falls_silent(
    machine: Machine, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is let be for as long as it shows that it lives."""
    journal = await overridden(machine, url)
    served = Served(machine, url)
    async with served.watching():
        await until(lambda: served.looks > 5)
        assert machine.voice_url(OURS) != PRIOR and served.orphans.found == []
        fall_silent(journal, monkeypatch)
        await until(lambda: machine.voice_url(OURS) == PRIOR)
        await until(lambda: served.orphans.found == [])
        assert served.counts == ["overrides restored"] and served.asked == [STACK]
    assert ask(url, "SELECT state FROM trunkline.overrides") == [("restored",)]
    assert ask(url, "SELECT owner IS NULL FROM trunkline.stacks") == [(True,)]
    with pytest.raises(JournalError, match="taken"):
        await journal.open_dials()
    await journal.close()


async def test_a_stack_of_the_fleet_that_falls_silent_is_run_here(
    machine: Machine, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it has nothing in its journal: a client may have a session there. Peers hear where it
    is, and while it is run here its numbers stay as they are."""
    sid = machine.carrier.add_number(OURS)
    theirs = Register(url, ACCOUNT, "dead", "dead", Place("tcp://dead:7000", PLACE.public_url))
    journal = await theirs.take(STACK, runs=True)
    await apply(
        machine.ops(STACK, journal), replace(row_for(sid), number=OURS), machine.time.now + 30
    )
    idle = await theirs.take("idle", runs=True)
    served = Served(machine, url)
    async with served.watching():
        dead = [m.ControllerRef(stack=stack, bus="tcp://dead:7000") for stack in (STACK, "idle")]
        await until(lambda: served.fleet == sorted(dead, key=lambda ref: ref.stack))
        assert served.hosted == []
        for each in (journal, idle):
            fall_silent(each, monkeypatch)
        await until(lambda: sorted(served.hosted) == sorted([STACK, "idle"]))
        await until(lambda: {ref.bus for ref in served.fleet} == {PLACE.endpoint})
        assert machine.voice_url(OURS) != PRIOR
        served.over.set()
        await until(lambda: served.orphans.found == [] and served.fleet == [])
    with pytest.raises(JournalError, match="taken"):
        await journal.open_dials()
    for each in (journal, idle):
        await each.close()


async def test_a_number_belongs_to_one_stack_of_the_fleet(url: str) -> None:
    """Of two that want it at once, one gets it, and the other hears where it is."""
    journals = [await in_fleet(url, n).take(stack_id(f"f{n}"), runs=True) for n in range(2)]
    rows = [replace(ROW, id=f"o{n}") for n in range(2)]
    plans = (journal.plan(row, 5.0) for journal, row in zip(journals, rows, strict=True))
    outcomes = await asyncio.gather(*plans, return_exceptions=True)
    first = outcomes.index(None)
    busy = outcomes[1 - first]
    assert isinstance(busy, NumberBusyError)
    assert (busy.number, busy.bus) == (ROW.number, f"tcp://host{first}:7000")
    assert f"controller {first}" in busy.holder
    await journals[first].set_state(rows[first].id, "restored", 6.0)
    await journals[1 - first].plan(rows[1 - first], 7.0)
    for journal in journals:
        await journal.close()


async def test_caps_and_the_pace_are_those_of_the_fleet(url: str) -> None:
    """However many ask at once, and whichever stack they ask."""
    caps, minute = Caps(calls=3), 60.0
    journals = [
        await in_fleet(url, n, caps, rate=1 / minute).take(stack_id(f"f{n}"), runs=True)
        for n in range(2)
    ]
    dials = [replace(DIAL, request=f"r{n}", asked=time.time()) for n in range(6)]
    outcomes = await asyncio.gather(
        *(journals[n % 2].dial_asked(dial) for n, dial in enumerate(dials)),
        return_exceptions=True,
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, LimitReachedError)]
    assert outcomes.count(True) == len(refused) == 3
    assert all("TRUNKLINE_MAX_CALLS=3 " in str(error) for error in refused)
    taken = outcomes.index(True)
    again = journals[taken % 2]
    assert not await again.dial_asked(dials[taken])  # it is there, and counts once
    await again.dial_closed(dials[taken].request, 1.0)
    assert await again.dial_asked(replace(DIAL, request="later", asked=time.time()))

    waits = sorted(await asyncio.gather(*(journals[n % 2].turn() for n in range(10))))
    assert waits[0] == 0.0  # and the others are a minute apart, less what has passed since
    assert all((n - 0.5) * minute < wait <= n * minute for n, wait in enumerate(waits[1:], 1))
    for journal in journals:
        await journal.close()


async def test_a_stack_that_answers_at_its_url_is_let_be(
    machine: Machine, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is cut off from the database, and its calls go on."""
    journal = await overridden(machine, url)
    served = Served(machine, url, cut_off=True)
    async with served.watching():
        fall_silent(journal, monkeypatch)
        await until(lambda: len(served.asked) >= 2)
        assert machine.voice_url(OURS) != PRIOR
        assert await journal.open_overrides() != []  # it is back, and nobody has its journal
    await journal.close()


async def test_of_several_that_look_one_takes_it(
    machine: Machine, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = await overridden(machine, url)
    writes = machine.carrier.count("write")
    fall_silent(journal, monkeypatch)
    several = [Served(machine, url) for _ in range(3)]
    for n, served in enumerate(several):
        served.others._stacks = Register(url, ACCOUNT, "there", f"there{n}", PLACE)
    async with several[0].watching(), several[1].watching(), several[2].watching():
        await until(lambda: machine.voice_url(OURS) == PRIOR)
        await until(lambda: not any(served.orphans.found for served in several))
    assert [served.counts for served in several if served.counts] == [["overrides restored"]]
    assert machine.carrier.count("write") == writes + 1
    await journal.close()


async def test_a_start_that_found_no_database_has_lost_nothing(
    machine: Machine, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacks, "START_WITHIN", 0.0)
    wrong = machine.settings.changed(database_url=url.replace(PASSWORD, "wr0ng"))
    stack = places.own_dir(wrong, ACCOUNT, "us")
    with pytest.raises(JournalError, match="password"):
        await places.open_own(wrong, ACCOUNT, "us", stack)
    settings = machine.settings.changed(database_url=url)
    stack = places.own_dir(settings, ACCOUNT, "us")
    stack, journal, _ = await places.open_own(settings, ACCOUNT, "us", stack)
    assert stack.new
    await journal.close()
    stack.release()


async def test_a_stack_that_another_machine_has_taken_is_begun_anew(
    machine: Machine, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """That machine puts its numbers back meanwhile."""
    caplog.set_level(logging.INFO)
    settings = machine.settings.changed(database_url=url)
    stack = places.own_dir(settings, ACCOUNT, "us")
    stack, journal, stacks_of = await places.open_own(settings, ACCOUNT, "us", stack)
    assert stacks_of is not None and stack.new
    first = stack.id
    await journal.plan(ROW, 5.0)
    stack.release()  # killed
    (left,) = await ours(url, "elsewhere").left(but="")
    taker = await left.open()
    stack = places.own_dir(settings, ACCOUNT, "us")
    assert stack.id == first
    stack, again, _ = await places.open_own(settings, ACCOUNT, "us", stack)
    assert stack.id != first and stack.new and await again.open_overrides() == []
    await again.close()
    stack.release()
    stack = places.own_dir(settings, ACCOUNT, "us")
    ask(url, "DELETE FROM trunkline.stacks")
    stack, lost, _ = await places.open_own(settings, ACCOUNT, "us", stack)
    # The account's numbers are asked then, as when a file is lost.
    assert not stack.new and not await lost.has_epochs()
    for each in (lost, taker, journal):
        await each.close()
    stack.release()
