"""The journal on a PostgreSQL server: what an outage does to it, and who comes after a stack that
fell silent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import replace as replace_ops
from pathlib import Path
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace
from simulation.account import PRIOR

from benchmarks.postgres_server import PASSWORD, Server
from trunkline.bus import messages as m
from trunkline.bus.errors import LimitReachedError, NumberBusyError
from trunkline.bus.process import EXIT_DONE, EXIT_PENDING
from trunkline.bus.settings import load
from trunkline.bus.testing import until
from trunkline.carrier_sim.sim import CarrierSim
from trunkline.controller import process
from trunkline.controller.journal import places, store
from trunkline.controller.journal.database import (
    DatabaseAwayError,
    JournalError,
    Outcome,
    Work,
)
from trunkline.controller.journal.orphans import Orphans
from trunkline.controller.journal.postgres import register, stacks
from trunkline.controller.journal.postgres import server as postgres_server_module
from trunkline.controller.journal.postgres.register import Register
from trunkline.controller.journal.postgres.stacks import Place
from trunkline.controller.journal.store import Journal
from trunkline.controller.other_stacks import OtherStacks
from trunkline.controller.restore_command import RestoreRun
from trunkline.controller.twilio.apply_restore import apply
from trunkline.controller.twilio.operations import Operations
from trunkline.controller.usage import Caps
from trunkline.stack.controller_client import controller_client

from .fake_carrier import OURS, row_for
from .machine import Machine, stack_id
from .postgres_journal import STACK, ask, opened, ours
from .test_journal import ACCOUNT, DIAL, ROW

PLACE = Place("tcp://here:7000", "https://line.example.com")


# --------------------------------------------------------------------------- an outage


def database_of(journal: Journal) -> stacks.PostgresDatabase:
    found = journal._db
    assert isinstance(found, stacks.PostgresDatabase)
    return found


def lose_commit(journal: Journal, *, after: bool) -> None:
    """The next COMMIT gets no answer: the connection breaks ``after`` it has taken effect, or
    before."""
    database = database_of(journal)
    connection = database._connection
    assert connection is not None
    execute = connection.execute

    def breaks(sql: Any, *args: Any) -> Any:
        if sql != "COMMIT":
            return execute(sql, *args)
        if after:
            execute(sql)
        connection.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    connection.execute = breaks  # type: ignore[method-assign]  # of this one connection alone


def waits_for_an_answer(journal: Journal) -> bool:
    """Its thread has asked the server something, and has not heard what came of it."""
    connection = database_of(journal)._connection
    assert connection is not None
    return connection.info.transaction_status == psycopg.pq.TransactionStatus.ACTIVE


def count_tries(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets an item for each transaction that the journal begins from now on."""
    database, tries = database_of(journal), list[int]()
    run = database.run

    def counted(work: Sequence[Work]) -> list[Outcome]:
        tries.append(len(work))
        return run(work)

    monkeypatch.setattr(database, "run", counted)
    return tries


def count_refusals(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """Gets an item for each connection that the server refuses from now on."""
    refused: list[Exception] = []
    away = postgres_server_module.Server.away

    def counted(self: postgres_server_module.Server, error: Exception) -> DatabaseAwayError:
        refused.append(error)
        return away(self, error)

    monkeypatch.setattr(postgres_server_module.Server, "away", counted)
    return refused


async def test_a_connection_that_leads_nowhere_is_given_up(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A proxy may keep it up for a server that is gone; here the server's process for it stands."""
    monkeypatch.setattr(store, "ANSWERS_WITHIN", 0.2)
    journal = await opened(url)
    caplog.set_level(logging.WARNING)
    idle = "query = 'COMMIT' AND datname = current_database()"
    ((pid,),) = ask(url, f"SELECT pid FROM pg_stat_activity WHERE {idle}")
    os.kill(pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(10.0):
            await journal.plan(ROW, 5.0)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert await journal.open_overrides() == [ROW]
    assert [record.message.partition(": ")[2][:22] for record in caplog.records] == [
        "the database does not ",
        "it answers again after",
    ]
    await journal.close()


async def test_a_commit_that_waits_for_a_standby_is_done_once_and_fills_no_server(
    postgres: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "ANSWERS_WITHIN", 0.2)
    monkeypatch.setattr(store, "AGAIN_AFTER", 0.02)
    monkeypatch.setattr(postgres_server_module, "LOCKED_WITHIN", 0.1)
    journal = await opened(url)
    ask(postgres.url, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    try:
        ask(postgres.url, "SELECT pg_reload_conf()")
        tries = count_tries(journal, monkeypatch)
        saying = asyncio.ensure_future(journal.plan(ROW, 5.0))
        await until(lambda: len(tries) >= 10)
        here = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        assert ask(url, here)[0][0] <= 5 and not saying.done()
    finally:
        ask(postgres.url, "ALTER SYSTEM RESET synchronous_standby_names")
        ask(postgres.url, "SELECT pg_reload_conf()")
    async with asyncio.timeout(10.0):
        await saying
    assert await journal.open_overrides() == [ROW]
    await journal.close()


async def test_a_machine_that_vanishes_in_a_transaction_holds_nobody_up(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server gives back its row and the fleet's lock. If it lives after all, it goes on."""
    monkeypatch.setattr(postgres_server_module, "SILENT_WITHIN", 0.3)
    near, far = [
        (await in_fleet(url, n, rate=50.0).take(stack_id(f"f{n}"), runs=True)) for n in range(2)
    ]
    database = database_of(far)
    assert database._connection is not None and database.dialect.shared is not None
    database._begin(database._connection)
    database.dialect.shared.turn(stacks._Transaction(database._connection))
    async with asyncio.timeout(10.0):
        assert await near.turn() == 0.0
        assert await far.turn() >= 0.0
    for journal in (near, far):
        await journal.close()


async def test_what_a_copy_that_lagged_has_lost_is_told(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was promoted while a COMMIT waited for its answer."""
    journal = await opened(url)
    await journal.plan(ROW, 5.0)
    lose_commit(journal, after=True)
    saying = asyncio.ensure_future(journal.plan(replace(ROW, id="o2"), 6.0))
    await until(lambda: database_of(journal)._connection is None)
    ask(url, "DELETE FROM trunkline.overrides WHERE id = 'o2'")
    ask(url, "UPDATE trunkline.stacks SET beat = beat - 2")
    with pytest.raises(JournalError, match="a copy that lagged"):
        await saying
    await journal.close()


async def test_what_many_ask_for_is_done_in_transactions_that_end_soon(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = await opened(url)
    tries = count_tries(journal, monkeypatch)
    asked = [replace(DIAL, request=f"r{n}") for n in range(2 * stacks.PostgresDatabase.most)]
    assert all(await asyncio.gather(*(journal.dial_asked(dial) for dial in asked)))
    assert sum(tries) == len(asked) and max(tries) == stacks.PostgresDatabase.most
    await journal.close()


async def test_a_start_without_an_answer_gives_up(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    monkeypatch.setattr(register, "OPENS_WITHIN", 0.05)
    monkeypatch.setattr(stacks.PostgresDatabase, "open", lambda *args: over.wait(10.0))
    with pytest.raises(DatabaseAwayError, match="the database does not answer"):
        await opened(url)
    over.set()


@pytest.mark.parametrize("after", [True, False])
async def test_a_commit_without_an_answer_is_done_once(
    url: str, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    monkeypatch.setattr(store, "AGAIN_AFTER", 0.02)
    journal = await opened(url)
    assert await journal.begin_epoch(1, 0.0) == 1
    for n, saying in enumerate(
        (
            lambda: journal.dial_asked(DIAL),  # done twice it would say that it was there already
            lambda: journal.plan(ROW, 5.0),  # and this would fail
            lambda: journal.begin_epoch(2, 0.0),  # and this would count twice
        )
    ):
        lose_commit(journal, after=after)
        assert await saying() == (True, None, 2)[n]
    assert await journal.open_dials() == [DIAL] and await journal.open_overrides() == [ROW]
    await journal.close()


async def test_what_is_asked_for_in_an_outage_waits_and_is_done_once(
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    postgres: Server,
    url: str,
) -> None:
    journal = await opened(url)
    await journal.plan(ROW, 5.0)
    for how in ("SIGINT", "SIGQUIT"):  # the second is a crash, with recovery at the next start
        postgres.stop(getattr(signal, how))
        saying = asyncio.gather(
            *(
                journal.dial_asked(replace(DIAL, request=f"{how}{n}", asked=float(n)))
                for n in range(20)
            ),
            journal.set_state("o1", "applied", 6.0),
        )
        tries = count_tries(journal, monkeypatch)
        await until(lambda tries=tries: len(tries) >= 2)  # type: ignore[misc]  # bound at once
        assert not saying.done()
        postgres.start()
        async with asyncio.timeout(10.0):
            assert await saying == [*[True] * 20, None]
    assert len(await journal.open_dials()) == 40
    assert "does not answer" in caplog.text and "it answers again after" in caplog.text
    assert caplog.text.count("does not answer") == 2  # once for each outage
    assert PASSWORD not in caplog.text
    await journal.close()


async def test_a_server_that_stands_still_holds_nobody_up_at_the_end(
    postgres: Server, url: str
) -> None:
    journal = await opened(url)
    with postgres.stopped():
        saying = asyncio.ensure_future(journal.plan(ROW, 5.0))
        await until(lambda: waits_for_an_answer(journal))
        assert not saying.done()
        # The server stands still until the block is left. That a stack ends in time all the same is
        # seen in tests/survival/test_database.py.
        async with asyncio.timeout(10.0):
            await journal.give_up()
            with pytest.raises(DatabaseAwayError):
                await saying
            with pytest.raises(DatabaseAwayError):
                await journal.open_overrides()
            await journal.close()
        assert not any(thread.is_alive() for thread in journal._pool._threads), "one still waits"
    again = await opened(url)
    assert await again.open_overrides() in ([], [ROW])
    await again.close()


async def test_a_server_that_is_far_away_is_asked_what_is_left(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An end has time for its answer, so the exit status is not that of an outage."""
    monkeypatch.setattr(store, "LAST_WAIT", 0.03)
    run = stacks.PostgresDatabase.run

    def from_afar(self: stacks.PostgresDatabase, work: Sequence[Work]) -> list[Outcome]:
        time.sleep(3 * store.LAST_WAIT)
        return run(self, work)

    monkeypatch.setattr(stacks.PostgresDatabase, "run", from_afar)
    async with CarrierSim() as sim:
        settings = load(
            env_file=None,
            account_sid=sim.account_sid,
            auth_token=sim.auth_token,
            public_url="https://line.example.com",
            bus=f"ipc://{tmp_path}/bus",
            state_dir=tmp_path / "state",
            twilio_api_url=sim.base_url,
            console_port=0,
            database_url=url,
        )
        stop = asyncio.Event()
        serving = asyncio.ensure_future(process.serve(settings, stop))
        async with controller_client(settings, timeout=20.0):
            pass  # it serves
        stop.set()
        async with asyncio.timeout(4.0):
            assert await serving == EXIT_DONE
    assert "does not answer" not in caplog.text


async def test_a_server_that_stood_still_goes_on(postgres: Server, url: str) -> None:
    journal = await opened(url)
    with postgres.stopped():
        saying = asyncio.gather(journal.plan(ROW, 5.0), journal.dial_asked(DIAL))
        await until(lambda: waits_for_an_answer(journal))
        assert not saying.done()
    assert await saying == [None, True]
    await journal.close()


async def test_a_standby_is_waited_for_until_it_is_promoted(
    monkeypatch: pytest.MonkeyPatch, postgres: Server, url: str
) -> None:
    """In a fail-over the address may lead to it sooner than it may be written to. The URL may have
    the address of a server that is gone, too."""
    journal = await opened(url.replace("@", "@127.0.0.1:1,"))
    postgres.stand_by()
    try:
        with pytest.raises(DatabaseAwayError, match="during recovery"):
            await ours(url, "elsewhere").left(but="")
        tries = count_tries(journal, monkeypatch)
        saying = asyncio.ensure_future(journal.plan(ROW, 5.0))
        await until(lambda: len(tries) >= 2 or saying.done())
        assert not saying.done()
    finally:
        postgres.promote()
    async with asyncio.timeout(10.0):
        await saying
    assert await journal.open_overrides() == [ROW]
    await journal.close()


async def test_a_start_waits_for_the_database_and_gives_up_by_name(
    postgres: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.stop()
    refused = count_refusals(monkeypatch)
    starting = asyncio.ensure_future(opened(url))
    await until(lambda: len(refused) >= 2)
    postgres.start()
    await (await starting).close()
    monkeypatch.setattr(stacks, "START_WITHIN", 0.1)
    nowhere = url.replace(f":{postgres.port}/", ":1/")
    with pytest.raises(JournalError, match=r"postgresql://127.0.0.1:1/\w+: the database does not"):
        await opened(nowhere)


async def test_a_start_that_waits_for_the_database_can_be_ended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the 4 s that a stack has to end: for 2 of them the database may still answer."""
    refused = count_refusals(monkeypatch)
    settings = load(
        env_file=None,
        account_sid=ACCOUNT,
        auth_token="token",
        public_url="https://line.example.com",
        bus=f"ipc://{tmp_path}/bus",
        state_dir=tmp_path / "state",
        database_url="postgresql://127.0.0.1:1/db",
    )
    stop = asyncio.Event()
    serving = asyncio.ensure_future(process.serve(settings, stop))
    await until(lambda: refused)
    stop.set()
    async with asyncio.timeout(4.0):
        assert await serving == EXIT_PENDING
    assert "did not answer before the stack was ended" in caplog.text


# --------------------------------------------------------------------------- whoever comes next


async def overridden(machine: Machine, url: str, stack: str = STACK) -> Journal:
    """A stack on another machine has overridden a number, and journalled it."""
    sid = machine.carrier.add_number(OURS)
    journal = await opened(url, "elsewhere", stack)
    ops = machine.ops(stack, journal)
    await apply(ops, replace(row_for(sid, f"o-{stack}"), number=OURS), machine.time.now + 30)
    return journal


async def test_restore_puts_back_what_another_machine_left(machine: Machine, url: str) -> None:
    """It waits for as long as a stack that lives would have shown itself."""
    await overridden(machine, url)  # and it is never heard of again
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
    assert journal._beating is not None
    journal._beating.cancel()
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
    await run._in_database(register, left)
    assert machine.voice_url(OURS) != PRIOR and run.pending
    assert "controller (pid 7)" in run.lines[0] and "left alone" in run.lines[0]
    assert settings.database_url not in repr(settings)
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
    assert journal._beating is not None
    journal._beating.cancel()
    monkeypatch.setattr(stacks, "SILENT", 0.0)


def test_a_beat_that_does_not_move_for_the_time_of_a_lease_is_silence() -> None:
    beats = stacks.Beats()
    assert beats.silent({"a": 1, "b": 7}, 100.0) == set()
    assert beats.silent({"a": 1, "b": 8, "c": 1}, 109.0) == set()
    assert beats.silent({"a": 1, "b": 8, "c": 1}, 110.0) == {"a"}
    # An outage in between lets nobody look: whoever is there afterwards beats before it is over.
    assert beats.silent({"a": 1, "b": 9, "c": 2}, 170.0) == {"a"}
    assert beats.silent({"b": 9, "c": 2}, 179.0) == set()
    assert beats.silent({"a": 1, "b": 9, "c": 3}, 180.0) == {"b"}


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


def in_fleet(url: str, n: int, caps: Caps | None = None, rate: float = 1.0) -> Register:
    place = Place(f"tcp://host{n}:7000", PLACE.public_url, caps or Caps(), rate)
    return Register(url, ACCOUNT, f"controller {n}", f"home{n}", place)


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
    caps = Caps(calls=3)
    journals = [
        await in_fleet(url, n, caps, rate=50.0).take(stack_id(f"f{n}"), runs=True) for n in range(2)
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
    assert waits[0] == 0.0 and 0.08 < waits[-1] <= 0.18
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
