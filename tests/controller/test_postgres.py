"""The journal on a PostgreSQL server: its schema, its lease, and its password."""

from __future__ import annotations

import asyncio
import builtins
from pathlib import Path
from typing import Any

import page_commands
import psycopg
import pytest
from msgspec.structs import replace

from benchmarks.postgres_server import PASSWORD, Server
from trunkline.bus.errors import SettingsError
from trunkline.bus.settings import load
from trunkline.bus.testing import until
from trunkline.controller.journal import places
from trunkline.controller.journal.database import (
    JournalError,
    StackHeldError,
)
from trunkline.controller.journal.postgres import server as postgres_server_module
from trunkline.controller.journal.postgres import stacks
from trunkline.controller.journal.postgres.register import Register

from .machine import stack_id
from .postgres_journal import STACK, ask, opened, ours
from .test_journal import ACCOUNT, DIAL, ROW

PAGE = page_commands.ROOT / "docs" / "database.md"


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


async def test_who_migrates_is_waited_for_longer_than_a_row(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_server_module, "LOCKED_WITHIN", 0.001)
    monkeypatch.setattr(stacks, "START_WITHIN", 0.0)
    with psycopg.connect(url) as migrates:
        migrates.execute("SELECT pg_advisory_xact_lock(%s)", (postgres_server_module._MIGRATING,))
        starting = asyncio.ensure_future(opened(url))
        waits = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        await until(lambda: starting.done() or bool(ask(url, waits)))
    await (await starting).close()


async def test_a_step_that_waits_for_its_table_holds_up_no_beat_for_longer_than_a_lease(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An administrator reads the table, a newer release waits for it, and everybody else waits
    behind that one."""
    journal = await opened(url)
    known = postgres_server_module.migrations()
    more = [*known, "ALTER TABLE stacks ADD COLUMN one text"]
    monkeypatch.setattr(postgres_server_module, "LOCKED_WITHIN", 0.2)
    monkeypatch.setattr(stacks, "START_WITHIN", 0.0)
    with psycopg.connect(url) as administrator:
        administrator.execute("SELECT count(*) FROM trunkline.stacks")
        monkeypatch.setattr(postgres_server_module, "migrations", lambda: more)
        newer = asyncio.ensure_future(opened(url, "elsewhere", stack_id("new")))
        waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"
        await until(lambda: newer.done() or bool(ask(url, waits)))
        assert not newer.done()
        async with asyncio.timeout(stacks.SILENT):
            await journal.plan(ROW, 5.0)
            with pytest.raises(JournalError, match="lock timeout"):
                await newer
    await journal.close()


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


async def test_a_user_with_no_more_than_the_rows_uses_a_schema_that_is_whole(
    postgres: Server,
) -> None:
    url = postgres.database()
    await (await opened(url)).close()
    rights = "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA trunkline"
    ask(url, "DROP ROLE IF EXISTS few")
    ask(url, f"CREATE ROLE few LOGIN PASSWORD '{PASSWORD}'")
    ask(url, "GRANT USAGE ON SCHEMA trunkline TO few")
    ask(url, f"GRANT {rights} TO few")
    theirs = url.replace(f"postgres:{PASSWORD}", f"few:{PASSWORD}")
    journal = await opened(theirs)
    await journal.plan(ROW, 5.0)
    await journal.close()
    ask(url, "INSERT INTO trunkline.migrations (number) VALUES (99)")
    with pytest.raises(JournalError, match="newer trunkline"):
        await opened(theirs)


def test_what_a_url_says_of_the_network_counts() -> None:
    mine = postgres_server_module.Server("postgresql://db/lines?connect_timeout=20")
    others = postgres_server_module.Server("postgresql://db/lines")
    assert set(others._network) - set(mine._network) == {"connect_timeout"}


async def test_a_database_that_knows_no_encoding_is_used(postgres: Server, url: str) -> None:
    name = f"{url.rpartition('/')[2]}_ascii"
    ask(url, f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' TEMPLATE template0")
    theirs, row = postgres.url_of(name), replace(ROW, session="Grüße")
    for rows in ([], [row]):  # the second start reads what the first one has written
        journal = await opened(theirs)
        assert await journal.open_overrides() == rows
        if not rows:
            await journal.plan(row, 5.0)
        await journal.close()


def test_a_default_without_durability_is_overruled(postgres: Server) -> None:
    url = postgres.database()
    name = url.rpartition("/")[2]
    ask(url, f"ALTER DATABASE {name} SET synchronous_commit = off")
    server = postgres_server_module.Server(url)
    show = "SHOW synchronous_commit"
    shown = server.once(lambda db: db.execute(show).fetchone(), migrated=True)
    assert shown == ("on",)


def test_an_error_quotes_no_statement(url: str) -> None:
    server = postgres_server_module.Server(url)
    with psycopg.connect(url, autocommit=True) as db:
        with pytest.raises(psycopg.Error, match="t0ken") as caught:
            postgres_server_module.begin(db, "SELECT %s, nothing", ("t0ken",))
        assert server.said(caught.value) == 'column "nothing" does not exist'


def test_a_statement_that_no_server_supports_is_tried_once(url: str) -> None:
    """The same error of BEGIN is that of a standby, which is waited for."""
    with psycopg.connect(url, autocommit=True) as db, pytest.raises(psycopg.NotSupportedError):
        postgres_server_module.begin(db, "SELECT DISTINCT 1 FOR UPDATE")


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
    again = await ours(url).take(STACK)
    assert await again.open_overrides() == [ROW]
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
    journal = await ours(url).take(STACK, passing=True)
    await journal.plan(ROW, 5.0)
    await journal.close()
    journal = await ours(url).take(STACK, passing=True)
    await journal.set_state("o1", "restored", 6.0)
    await journal.close()
    assert ask(url, "SELECT id FROM trunkline.stacks") == []
    assert ask(url, "SELECT id FROM trunkline.overrides") == []


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
