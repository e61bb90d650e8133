"""The journal on a PostgreSQL server: what an outage, or a bad network, does to it."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace

from benchmarks.postgres_server import PASSWORD, Server
from trunkline.bus.process import EXIT_DONE, EXIT_PENDING
from trunkline.bus.settings import Settings, load
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
from trunkline.controller.journal.store import Journal
from trunkline.stack.controller_client import controller_client

from .fake_carrier import nobody
from .machine import stack_id
from .postgres_journal import STACK, ask, in_fleet, opened, ours, stand_still
from .test_journal import ACCOUNT, DIAL, ROW


def database_of(journal: Journal) -> stacks.PostgresDatabase:
    found = journal._db
    assert isinstance(found, stacks.PostgresDatabase)
    return found


def lose_commit(journal: Journal, *, after: bool) -> None:
    """The next COMMIT gets no answer: the connection breaks ``after`` it has taken effect, or
    before. It is not that of a beat."""
    stand_still(journal)
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
    """Gets an item for each transaction that the journal begins from now on, beats apart."""
    stand_still(journal)
    database, tries = database_of(journal), list[int]()
    run = database.run

    def counted(work: Sequence[Work]) -> list[Outcome]:
        tries.append(len(work))
        return run(work)

    monkeypatch.setattr(database, "run", counted)
    return tries


def holds_tries(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Work that has failed is not tried again before this is set."""
    stand_still(journal)
    may_try = asyncio.Event()

    async def sleep(seconds: float) -> None:
        await may_try.wait()

    monkeypatch.setattr(journal, "_sleep", sleep)
    return may_try


def count_refusals(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """Gets an item for each connection that the server refuses from now on."""
    refused: list[Exception] = []
    away = postgres_server_module.Server.away

    def counted(self: postgres_server_module.Server, error: Exception) -> DatabaseAwayError:
        refused.append(error)
        return away(self, error)

    monkeypatch.setattr(postgres_server_module.Server, "away", counted)
    return refused


async def dial_that_waits(journal: Journal, url: str) -> tuple[int, asyncio.Future[bool]]:
    """Ask for dials until the COMMIT of one waits for a standby: the server's processes read their
    new settings one by one. Returns how many were asked for, and the last."""
    waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    asked = 0
    while True:
        asked += 1
        last = asyncio.ensure_future(journal.dial_asked(replace(DIAL, request=f"r{asked}")))
        await until(lambda last=last: last.done() or ask(url, waits))  # type: ignore[misc]  # bound at once
        if not last.done():
            return asked, last


async def test_a_connection_that_leads_nowhere_is_given_up(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A proxy may keep it up for a server that is gone; here the server's process for it stands."""
    journal = await opened(url)
    stand_still(journal)
    caplog.set_level(logging.WARNING)
    connection = database_of(journal)._connection
    assert connection is not None
    pid = connection.info.backend_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(store, "ANSWERS_WITHIN", 0.2)
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
    tries = count_tries(journal, monkeypatch)
    here = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    ask(postgres.url, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    try:
        ask(postgres.url, "SELECT pg_reload_conf()")
        asked, saying = await dial_that_waits(journal, url)
        tries.clear()
        await until(lambda: len(tries) >= 10)
        # The server needs a moment to notice that one was cut. If it did not, there would be more
        # and more.
        await until(lambda: ask(url, here)[0][0] <= 5)
        assert not saying.done()
    finally:
        ask(postgres.url, "ALTER SYSTEM RESET synchronous_standby_names")
        ask(postgres.url, "SELECT pg_reload_conf()")
    async with asyncio.timeout(10.0):
        assert await saying
    assert len(await journal.open_dials()) == asked
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
    database._count_up(database._connection)
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
    may_try = holds_tries(journal, monkeypatch)
    lose_commit(journal, after=True)
    saying = asyncio.ensure_future(journal.plan(replace(ROW, id="o2"), 6.0))
    await until(lambda: database_of(journal)._connection is None)
    ask(url, "DELETE FROM trunkline.overrides WHERE id = 'o2'")
    ask(url, "UPDATE trunkline.stacks SET beat = beat - 2")
    may_try.set()
    with pytest.raises(JournalError, match="a copy that lagged"):
        await saying
    await journal.close()


async def test_so_it_is_without_a_commit_in_doubt(url: str) -> None:
    """The connection broke between two transactions."""
    journal = await opened(url)
    await journal.plan(ROW, 5.0)
    ask(url, "UPDATE trunkline.stacks SET beat = beat - 1")
    with pytest.raises(JournalError, match="a copy that lagged"):
        await journal.open_overrides()
    await journal.close()


@pytest.mark.parametrize("after", [True, False])
async def test_at_the_end_a_commit_without_an_answer_answers_nothing_else(
    url: str, after: bool
) -> None:
    journal = await opened(url)
    await journal.give_up(5.0)
    lose_commit(journal, after=after)
    both = asyncio.gather(journal.plan(ROW, 5.0), journal.dial_asked(DIAL), return_exceptions=True)
    assert all(isinstance(error, DatabaseAwayError) for error in await both)
    rows = await journal.open_rows()
    assert (rows.overrides, rows.dials) == (([ROW], [DIAL]) if after else ([], []))
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
    monkeypatch.setattr(register, "look", lambda *args: over.wait(10.0))
    with pytest.raises(DatabaseAwayError, match="the database does not answer"):
        await ours(url).left(but="")
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
        await until(lambda: not any(thread.is_alive() for thread in journal._pool._threads))
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


def settings_of(directory: Path, url: str) -> Settings:
    """Of a controller whose journal is in this database. No Twilio answers."""
    return load(
        env_file=None,
        account_sid=ACCOUNT,
        auth_token="token",
        public_url="https://line.example.com",
        bus=f"ipc://{directory}/bus",
        state_dir=directory / "state",
        database_url=url,
        twilio_api_url="http://127.0.0.1:1",
    )


async def test_a_start_that_waits_for_the_database_can_be_ended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the 4 s that a stack has to end: for 2 of them the database may still answer."""
    refused = count_refusals(monkeypatch)
    settings = settings_of(tmp_path, "postgresql://127.0.0.1:1/db")
    stop = asyncio.Event()
    serving = asyncio.ensure_future(process.serve(settings, stop))
    await until(lambda: refused)
    stop.set()
    async with asyncio.timeout(4.0):
        assert await serving == EXIT_PENDING
    assert "ended before its start was done" in caplog.text


@pytest.mark.parametrize(
    ("owner", "question"),
    [
        (register.Register, "left"),
        (Journal, "has_epochs"),
        (Journal, "unreadable"),
        (process, "find_own"),
        (Journal, "begin_epoch"),
    ],
)
async def test_so_it_can_with_every_question_that_it_asks(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, owner: Any, question: str
) -> None:
    settings = settings_of(tmp_path, url)
    stack = places.own_dir(settings, ACCOUNT, "a start that was killed before its epoch began")
    stack, journal, _ = await places.open_own(settings, ACCOUNT, "it", stack)
    await journal.close()
    stack.release()

    asked = asyncio.Event()

    async def no_answer(*args: Any, **fields: Any) -> None:
        asked.set()
        await asyncio.Event().wait()

    async def nothing(*args: Any) -> None:
        """Twilio need not be asked, unless the test is about that."""

    monkeypatch.setattr(process, "find_own", nothing)
    monkeypatch.setattr(owner, question, no_answer)
    monkeypatch.setattr(process, "STARTED_WITHIN", 0.05)
    stop = asyncio.Event()
    serving = asyncio.ensure_future(process.serve(settings, stop))
    await asked.wait()
    stop.set()
    async with asyncio.timeout(5.0):
        assert await serving == EXIT_PENDING


async def test_an_end_does_not_wait_for_a_connection(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may take many seconds, and nothing can stop it. Orphans have a journal each."""
    monkeypatch.setattr(store, "LAST_WAIT", 0.02)
    for n in range(4):
        journal = await opened(url, "there", stack_id(f"{n:03}"))
        await journal.plan(ROW, 5.0)
        await journal.close()
    orphans = Orphans()
    found = orphans.add(await ours(url).left(but=""), nobody)
    journals = [await orphan._left.open() for orphan in found]
    over, connecting = threading.Event(), list[Any]()

    def connect(server: postgres_server_module.Server) -> None:
        connecting.append(server)
        over.wait(30.0)
        raise DatabaseAwayError("at last")

    monkeypatch.setattr(postgres_server_module.Server, "connect", connect)
    for orphan, journal in zip(found, journals, strict=True):
        orphan.journal = journal
        database_of(journal)._drop()
    asking = [asyncio.ensure_future(journal.open_rows()) for journal in journals]
    await until(lambda: len(connecting) == len(journals))
    began = time.monotonic()
    await orphans.give_up(0.0)
    with pytest.raises(DatabaseAwayError):
        await orphans.open_overrides()
    await orphans.close()
    assert time.monotonic() - began < 2.0
    over.set()
    assert all(
        isinstance(e, DatabaseAwayError)
        for e in await asyncio.gather(*asking, return_exceptions=True)
    )


async def test_a_take_that_is_given_up_takes_nothing_later(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process may have the stack by then, by another try, which would be fenced out."""
    await (await opened(url)).close()
    monkeypatch.setattr(register, "OPENS_WITHIN", 0.3)
    with psycopg.connect(url) as holds:
        holds.execute("SELECT 1 FROM trunkline.stacks FOR UPDATE")
        with pytest.raises(DatabaseAwayError, match="the database does not answer"):
            await opened(url)
    others = (
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid != pg_backend_pid() AND backend_type = 'client backend'"
    )
    await until(lambda: not ask(url, others))
    assert ask(url, "SELECT owner FROM trunkline.stacks") == [(None,)]


def alone(url: str) -> stacks.PostgresDatabase:
    """A stack's database, without a thread and without a journal."""
    return stacks.PostgresDatabase(
        postgres_server_module.Server(url), ACCOUNT, STACK, stacks.Claim("us", "us", "here")
    )


def test_a_cut_is_over_with_its_connection(url: str) -> None:
    """What breaks later is told with its reason."""
    database = alone(url).open()
    database.cut()
    with pytest.raises(DatabaseAwayError, match=r"the database does not answer\Z"):
        database.run([])
    database.cut()  # while there is none
    assert database.run([]) == []
    assert database._connection is not None
    ask(url, f"SELECT pg_terminate_backend({database._connection.info.backend_pid})")
    with pytest.raises(DatabaseAwayError, match="terminating connection"):
        database.run([])


def test_a_cut_meets_nothing_but_the_connection(url: str) -> None:
    """libpq may just have closed it in the other thread, and its descriptor be another file's."""
    database = alone(url).open()
    connection = database._connection
    assert connection is not None
    mine, theirs = socket.socketpair()
    connection.fileno = mine.fileno  # type: ignore[method-assign]  # of this one connection alone
    with mine, theirs:
        database.cut()
        mine.send(b"whole")
        assert theirs.recv(5) == b"whole"
    database._drop()


def test_answers_about_a_commit_in_doubt_count(url: str) -> None:
    """They show that the database goes on, so that the connection is not cut for a new one."""
    database = alone(url).open()
    before = database.answers
    assert database.run([]) == [] and database.answers == before + 1
    database._doubt = [], []
    assert database.run([]) == [] and database.answers == before + 4
    database.close()


def test_a_process_without_a_descriptor_left_waits_for_one(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = alone(url).open()
    database._drop()
    connect, made = postgres_server_module.Server.connect, list[psycopg.Connection[Any]]()

    def connected(self: postgres_server_module.Server) -> psycopg.Connection[Any]:
        made.append(connect(self))
        return made[-1]

    def dup(descriptor: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(postgres_server_module.Server, "connect", connected)
    with monkeypatch.context() as patched:
        patched.setattr(os, "dup", dup)
        with pytest.raises(DatabaseAwayError, match="Too many open files"):
            database.run([])
    assert made[0].closed and database.run([]) == []
    database.close()


async def test_a_journal_that_cannot_be_closed_is_told(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    journal = await opened(url)
    database = database_of(journal)

    def close() -> None:
        raise OSError("no close")

    with monkeypatch.context() as patched:
        patched.setattr(database, "close", close)
        await journal.close()
    assert "could not be closed: no close" in caplog.text
    database.close()
