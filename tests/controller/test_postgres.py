"""The journal on a PostgreSQL server: its schema, its lease, and what an outage does to it."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import replace as replace_ops
from pathlib import Path
from typing import Any

import page_commands
import psycopg
import pytest
from msgspec.structs import replace
from simulation.account import PRIOR

from benchmarks.postgres_server import PASSWORD, Server
from trunkline.bus import messages as m
from trunkline.bus.errors import LimitReachedError, NumberBusyError, SettingsError
from trunkline.bus.process import EXIT_PENDING
from trunkline.bus.settings import load
from trunkline.bus.testing import until
from trunkline.controller import process
from trunkline.controller.journal import places
from trunkline.controller.journal.database import (
    DatabaseAwayError,
    JournalError,
    Outcome,
    StackHeldError,
    Work,
)
from trunkline.controller.journal.orphans import Orphans
from trunkline.controller.journal.postgres import server as postgres_server_module
from trunkline.controller.journal.postgres import stacks
from trunkline.controller.journal.postgres.register import Register
from trunkline.controller.journal.postgres.stacks import Place
from trunkline.controller.journal.store import Journal
from trunkline.controller.other_stacks import OtherStacks
from trunkline.controller.restore_command import RestoreRun
from trunkline.controller.rules.book.usage import Caps
from trunkline.controller.twilio.apply_restore import apply
from trunkline.controller.twilio.operations import Operations

from .fake_carrier import OURS, row_for
from .machine import Machine, stack_id
from .test_journal import ACCOUNT, DIAL, ROW

STACK = stack_id("aaa")
PAGE = page_commands.ROOT / "docs" / "database.md"
PLACE = Place("tcp://here:7000", "https://line.example.com")


@pytest.fixture(scope="module")
def database(postgres: Server) -> str:
    return postgres.database()


@pytest.fixture
def url(database: str) -> str:
    """A database without any table of ours."""
    ask(database, "DROP SCHEMA IF EXISTS trunkline CASCADE")
    return database


def ours(url: str, home: str = "here", holder: str = "controller (pid 7)") -> Register:
    return Register(url, ACCOUNT, holder, home)


async def opened(url: str, home: str = "here", stack: str = STACK) -> Journal:
    return (await ours(url, home).take(stack))[0]


def ask(url: str, sql: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as db:
        cursor = db.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []


def database_of(journal: Journal) -> stacks.PostgresDatabase:
    found = journal._db
    assert isinstance(found, stacks.PostgresDatabase)
    return found


# --------------------------------------------------------------------------- the schema


async def test_two_that_start_at_once_migrate_once(url: str) -> None:
    journals = await asyncio.gather(
        *(opened(url, f"home{n}", stack_id(f"{n:03}")) for n in range(4))
    )
    for journal in journals:
        await journal.close()
    found = ask(url, "SELECT number FROM trunkline.migrations ORDER BY number")
    assert [number for (number,) in found] == [
        n + 1 for n in range(len(postgres_server_module.migrations()))
    ]


async def test_an_older_schema_is_brought_up_step_by_step(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = await opened(url)
    await journal.plan(ROW, 5.0)
    await journal.close()
    known = postgres_server_module.migrations()
    more = ["ALTER TABLE stacks ADD COLUMN one text; UPDATE stacks SET one = 'x'; SELECT nothing"]
    monkeypatch.setattr(postgres_server_module, "migrations", lambda: known + more)
    with pytest.raises(JournalError, match="nothing"):  # its end is wrong, and nothing of it done
        await opened(url)
    more[0] = more[0].replace("; SELECT nothing", "")
    for _ in range(2):
        journal = await opened(url)
        assert await journal.open_overrides() == [ROW]
        await journal.close()
    assert ask(url, "SELECT one FROM trunkline.stacks") == [("x",)]
    monkeypatch.setattr(postgres_server_module, "migrations", lambda: known)
    with pytest.raises(JournalError, match="newer trunkline"):
        await opened(url)


async def test_a_user_who_may_not_make_schemas_uses_one_that_is_there(
    url: str, postgres: Server
) -> None:
    """Both are made, and old rows are removed, as docs/database.md says."""
    _, made, removed = page_commands.blocks(PAGE, "sql")
    role, schema = made.splitlines()
    ask(url, role)
    mine = url.replace(f"postgres:{PASSWORD}", "line:…")
    with pytest.raises(JournalError, match="permission denied"):
        await opened(mine)
    ask(url, schema)
    journal = await opened(mine)
    await journal.plan(ROW, 5.0)
    await journal.close()
    ask(mine, removed)
    assert ask(mine, "SELECT count(*) FROM trunkline.overrides") == [(1,)], "it is open"
    ask(mine, "UPDATE trunkline.overrides SET state = 'restored'")
    ask(mine, removed)
    assert ask(mine, "SELECT count(*) FROM trunkline.overrides") == [(0,)]


# --------------------------------------------------------------------------- the lease


async def test_a_stack_that_lives_is_not_taken(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks.PostgresDatabase, "beats", 0.05)
    journal = await opened(url)
    await journal.plan(ROW, 5.0)
    (left,) = await ours(url, "elsewhere").left(but="")
    assert left.rows.overrides == [ROW] and left.silent_for == stacks.SILENT
    assert left.holder.startswith("controller (pid 7) on ")
    (before,) = ask(url, "SELECT beat FROM trunkline.stacks")
    await until(lambda: ask(url, "SELECT beat FROM trunkline.stacks") > [before])  # by itself
    with pytest.raises(StackHeldError, match=r"controller \(pid 7\)"):
        await left.open()
    assert await journal.open_overrides() == [ROW]
    await journal.close()
    # It has said that it ended: nobody has to wait.
    (left,) = await ours(url, "elsewhere").left(but="")
    assert left.silent_for == 0.0
    await (await left.open()).close()


async def test_who_was_silent_is_fenced_out(url: str) -> None:
    """A controller that stood still writes nothing once another has its stack: its process ends."""
    silent = await opened(url)
    await silent.plan(ROW, 5.0)
    (left,) = await ours(url, "elsewhere", "controller (pid 8)").left(but="")
    taker = await left.open()
    with pytest.raises(JournalError, match=r"taken by controller \(pid 8\).*This process ends"):
        await silent.set_state("o1", "applied", 6.0)
    assert (await taker.open_overrides())[0].state == "planned"
    await taker.set_state("o1", "restored", 7.0)
    await silent.close()
    assert ask(url, "SELECT owner IS NULL FROM trunkline.stacks") == [(False,)]  # the taker's
    await taker.close()
    assert ask(url, "SELECT owner IS NULL FROM trunkline.stacks") == [(True,)]


async def test_the_next_start_in_the_same_directory_takes_its_stack_at_once(url: str) -> None:
    killed = await opened(url)
    await killed.plan(ROW, 5.0)
    again, new = await ours(url).take(STACK)
    assert not new and await again.open_overrides() == [ROW]
    with pytest.raises(JournalError, match="taken"):
        await killed.open_dials()
    await again.close()
    await killed.close()


async def test_dials_of_all_stacks_of_the_account_are_known(url: str, tmp_path: Path) -> None:
    one, two = await opened(url), await opened(url, stack=stack_id("bbb"))
    await one.dial_asked(DIAL)
    await one.dial_taken(DIAL.request, "CA1")
    await two.dial_asked(replace(DIAL, request="q" * 32))  # and Twilio never took it
    settings = load(database_url=url, account_sid=ACCOUNT, state_dir=str(tmp_path))
    found = [row for read in places.dialled(settings) for row in await asyncio.to_thread(read)]
    assert [(row.request, row.sid) for row in found] == [(DIAL.request, "CA1")]
    (read,) = places.dialled(settings.changed(account_sid="AC" + "0" * 32))
    assert read() == []
    await one.close()
    await two.close()


async def test_stacks_do_not_see_one_another(url: str) -> None:
    one, two = await opened(url), await opened(url, stack=stack_id("bbb"))
    await one.plan(ROW, 5.0)
    await one.dial_asked(DIAL)
    assert await two.open_overrides() == [] and await two.dial_asked(DIAL)
    await two.dial_closed(DIAL.request)
    assert await one.open_dials() == [DIAL]
    assert (await one.begin_epoch(1, 0.0), await two.begin_epoch(1, 0.0)) == (1, 1)
    await one.close()
    await two.close()


async def test_another_accounts_stack_is_refused(url: str) -> None:
    await (await opened(url)).close()
    with pytest.raises(JournalError, match="another Twilio account"):
        await Register(url, "AC" + "2" * 32, "us").take(STACK)


async def test_a_private_stack_goes_once_nothing_of_it_is_open(url: str) -> None:
    journal, _ = await ours(url).take(STACK, passing=True)
    await journal.plan(ROW, 5.0)
    await journal.close()
    journal, new = await ours(url).take(STACK, passing=True)
    assert not new
    await journal.set_state("o1", "restored", 6.0)
    await journal.close()
    assert ask(url, "SELECT id FROM trunkline.stacks") == []
    assert ask(url, "SELECT id FROM trunkline.overrides") == []


# --------------------------------------------------------------------------- an outage


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


@pytest.mark.parametrize("after", [True, False])
async def test_a_commit_without_an_answer_is_done_once(url: str, after: bool) -> None:
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
        postgres.stop(getattr(__import__("signal"), how))
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
        async with asyncio.timeout(10.0):  # the server stands still until the block is left
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


async def test_a_server_that_stood_still_goes_on(postgres: Server, url: str) -> None:
    journal = await opened(url)
    with postgres.stopped():
        saying = asyncio.gather(journal.plan(ROW, 5.0), journal.dial_asked(DIAL))
        await until(lambda: waits_for_an_answer(journal))
        assert not saying.done()
    assert await saying == [None, True]
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


def test_a_default_without_durability_is_overruled(postgres: Server) -> None:
    url = postgres.database()
    name = url.rpartition("/")[2]
    ask(url, f"ALTER DATABASE {name} SET synchronous_commit = off")
    server = postgres_server_module.Server(url)
    server.migrate()
    shown = server.once(lambda db: db.execute("SHOW synchronous_commit").fetchone())
    assert shown == ("on",)


# --------------------------------------------------------------------------- the password


@pytest.mark.parametrize(
    "bad",
    [
        "postgresql://u:5ecre7@127.0.0.1:1/db",
        "postgresql://u:5ecre7@127.0.0.1:1/db?nonsense=1",
        "postgresql://u@127.0.0.1:1/db?password=5ecre7",
        "postgresql://u:5ecre7@/db?host=/nowhere",
    ],
)
async def test_no_error_has_the_password(
    bad: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stacks, "START_WITHIN", 0.0)
    settings = load(env_file=None, database_url=bad)
    register = Register(settings.database_url, ACCOUNT, "us")
    with pytest.raises(JournalError) as caught:
        await register.take(STACK)
    told = f"{caught.value} {caught.value!r} {caught.value.__cause__} {settings} {register!r}"
    assert "5ecre7" not in told + caplog.text and "postgresql://" in told


async def test_a_wrong_password_is_told_by_the_server(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacks, "START_WITHIN", 0.0)
    with pytest.raises(JournalError, match="password authentication failed") as caught:
        await opened(url.replace(PASSWORD, "wr0ng"))
    assert "wr0ng" not in str(caught.value)


@pytest.mark.parametrize(
    "bad",
    [
        "mysql://u:5ecre7@host/db",
        "u:5ecre7@host/db",
        "postgresql://u:5ec/re7@host/db",
        "postgresql://host:5ecre7/db",
        "postgresql://[u:5ecre7@host/db",
    ],
)
def test_a_url_that_is_none_is_refused_unseen(bad: str) -> None:
    with pytest.raises(SettingsError, match=r"\ATRUNKLINE_DATABASE_URL: ") as caught:
        load(env_file=None, database_url=bad)
    assert "re7" not in str(caught.value)


def test_without_psycopg_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if "postgres" in name:
            raise ModuleNotFoundError("No module named 'psycopg'", name="psycopg")
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    settings = load(env_file=None, database_url="postgresql://h/db")
    with pytest.raises(SettingsError, match=r"pip install 'trunkline\[postgres\]'"):
        places.register(settings, ACCOUNT, "us")


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
    journal, _ = await theirs.take(STACK, runs=True)
    await apply(
        machine.ops(STACK, journal), replace(row_for(sid), number=OURS), machine.time.now + 30
    )
    idle, _ = await theirs.take("idle", runs=True)
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
    journals = [(await in_fleet(url, n).take(stack_id(f"f{n}"), runs=True))[0] for n in range(2)]
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
        (await in_fleet(url, n, caps, rate=50.0).take(stack_id(f"f{n}"), runs=True))[0]
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
    assert stacks_of is not None and not stack.lost
    first = stack.id
    await journal.plan(ROW, 5.0)
    stack.release()  # killed
    (left,) = await ours(url, "elsewhere").left(but="")
    taker = await left.open()
    stack = places.own_dir(settings, ACCOUNT, "us")
    assert stack.id == first
    stack, again, _ = await places.open_own(settings, ACCOUNT, "us", stack)
    assert stack.id != first and not stack.lost and await again.open_overrides() == []
    await again.close()
    stack.release()
    stack = places.own_dir(settings, ACCOUNT, "us")
    ask(url, "DELETE FROM trunkline.stacks")
    stack, lost, _ = await places.open_own(settings, ACCOUNT, "us", stack)
    assert stack.lost  # the account's numbers are asked then, as when a file is lost
    for each in (lost, taker, journal):
        await each.close()
    stack.release()
