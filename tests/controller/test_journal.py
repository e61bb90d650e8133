"""The journal: durable, migrated, private; a torn or foreign file is refused and left as it is."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trunkline.controller.journal import file as journal_file
from trunkline.controller.journal.database import JournalError
from trunkline.controller.journal.rows import DialRow, OverrideRow
from trunkline.controller.journal.store import Journal, peek

ACCOUNT = "AC" + "1" * 32

ROW = OverrideRow(
    id="o1",
    number="+14155551234",
    number_sid="PN1",
    session="s1",
    state="planned",
    since=5.0,
    holders={"s1": "hash"},
)
DIAL = DialRow(
    request="r" * 32,
    session="s1",
    secret_hash="hash",
    call="c1",
    mode="a-leg",
    callee="+14155557777",
    caller="+14155551234",
    timeout=30.0,
    max_duration=300.0,
    token_hash="th",
    sid=None,
    state="asked",
    asked=7.0,
)


async def open_at(path: Path, account: str = ACCOUNT) -> Journal:
    return await Journal.in_file(path, account=account, stack="stack")


async def test_what_is_asked_for_at_once_waits_for_the_disk_together(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    journal = await open_at(path)
    said: list[str] = []
    await journal._do(lambda db: db.set_trace_callback(said.append))
    dials = [msgspec.structs.replace(DIAL, request=f"{n:032x}") for n in range(100)]
    assert await asyncio.gather(*(journal.dial_asked(dial) for dial in dials)) == [True] * 100
    assert said.count("COMMIT") <= 2, "the first, and all that came while it was written"
    assert len(peek(path).dials) == 100
    await journal.close()


async def test_only_the_user_reads_it_and_it_is_fully_durable(tmp_path: Path) -> None:
    path = tmp_path / "stack" / "journal.sqlite3"
    journal = await open_at(path)
    await journal.plan(ROW, 5.0)
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    settings = await journal._do(
        lambda db: [
            db.execute(f"PRAGMA {p}").fetchone()[0] for p in ("journal_mode", "synchronous")
        ]
    )
    assert settings == ["wal", 2]
    await journal.close()


@pytest.mark.parametrize("damage", ["text", "torn", "middle"])
async def test_torn_file_is_refused_and_left_as_it_is(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "journal.sqlite3"
    if damage == "text":
        path.write_bytes(b"these are my notes, not a database\n" * 200)
    else:
        journal = await open_at(path)
        for n in range(200):
            await journal.plan(ROW.__class__(**{**_fields(ROW), "id": f"o{n}"}), 5.0)
        await journal.close()
        data = path.read_bytes()
        if damage == "torn":
            path.write_bytes(data[: len(data) // 2 + 100])
        else:
            path.write_bytes(data[:12_288] + b"\xff" * 8192 + data[20_480:])
    before = path.read_bytes()
    with pytest.raises(JournalError, match=str(path)):
        await open_at(path)
    assert path.read_bytes() == before


def _fields(row: OverrideRow) -> dict[str, object]:
    return {name: getattr(row, name) for name in row.__struct_fields__}


async def test_foreign_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE theirs (x)")
    db.commit()
    db.close()
    before = path.read_bytes()
    with pytest.raises(JournalError, match="another program"):
        await open_at(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("whose", ["theirs", "ours, torn"])
async def test_what_a_crash_left_beside_a_file_that_is_refused_is_left_there(
    tmp_path: Path, whose: str
) -> None:
    """SQLite moves it into the database when its last connection is closed, but for one that only
    reads."""
    path = tmp_path / "journal.sqlite3"
    if whose == "theirs":
        db = sqlite3.connect(path)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE theirs (x)")
        db.commit()
    else:
        journal = await open_at(path)
        for n in range(200):
            await journal.plan(ROW.__class__(**{**_fields(ROW), "id": f"o{n}"}), 5.0)
        await journal.close()
        db = sqlite3.connect(path)
        db.execute("UPDATE overrides SET state = 'restored' WHERE id = 'o7'")
        db.commit()
    path = as_a_crash_leaves_it(path)
    db.close()
    if whose != "theirs":
        data = path.read_bytes()
        path.write_bytes(data[:12_288] + b"\xff" * 8192 + data[20_480:])
    wal = path.with_name(f"{path.name}-wal")
    before = (path.read_bytes(), wal.read_bytes())
    with pytest.raises(JournalError, match="left as it is"):
        await open_at(path)
    assert (path.read_bytes(), wal.read_bytes()) == before


def as_a_crash_leaves_it(path: Path) -> Path:
    """A copy of a database that is open, with what has not been moved into it yet."""
    crashed = path.parent / "crashed"
    crashed.mkdir()
    for name in (path.name, f"{path.name}-wal"):
        (crashed / name).write_bytes((path.parent / name).read_bytes())
    return crashed / path.name


async def test_an_older_file_is_brought_up_step_by_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.sqlite3"
    journal = await open_at(path)
    await journal.plan(ROW, 5.0)
    await journal.close()
    more = ("ALTER TABLE meta ADD COLUMN one TEXT", "UPDATE meta SET one = 'x'; CREATE INDEX m")
    monkeypatch.setattr(journal_file, "MIGRATIONS", (*journal_file.MIGRATIONS, *more))
    with pytest.raises(JournalError):  # the second of the two is wrong, and not done in part
        await open_at(path)
    assert version_of(path) == len(journal_file.MIGRATIONS) - 1
    done = (more[0], "UPDATE meta SET one = COALESCE(one, '') || 'y'")
    monkeypatch.setattr(journal_file, "MIGRATIONS", (*journal_file.MIGRATIONS[: -len(more)], *done))
    for _ in range(2):
        journal = await open_at(path)
        assert await journal.open_overrides() == [ROW]
        found = await journal._do(lambda db: db.execute("SELECT one FROM meta").fetchall())
        assert found == [("y",), ("y",)]
        await journal.close()
    assert version_of(path) == len(journal_file.MIGRATIONS)


def version_of(path: Path) -> int:
    db = sqlite3.connect(path)
    found = int(db.execute("PRAGMA user_version").fetchone()[0])
    db.close()
    return found


async def test_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    await (await open_at(path)).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(JournalError, match="newer"):
        await open_at(path)


async def test_another_accounts_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    await (await open_at(path)).close()
    with pytest.raises(JournalError, match="another Twilio account"):
        await open_at(path, "AC" + "2" * 32)


# --------------------------------------------------------------------------- what was lost


async def test_a_journal_gets_its_name_once_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A death while it is made leaves no file of that name, and the next start makes one."""
    path = tmp_path / "stack" / "journal.sqlite3"

    def dies(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "rename", dies)
        journal_file.connect(path, ACCOUNT, "stack")
    assert not path.exists() and list(path.parent.iterdir())
    journal = await open_at(path)
    await journal.plan(ROW, 5.0)
    await journal.close()
    assert [found.name for found in path.parent.iterdir()] == [path.name]


async def test_a_full_disk_is_called_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's error for it is that of a file which may not grow."""
    open_whole = sqlite3.connect

    def without_room(*args: Any, **named: Any) -> sqlite3.Connection:
        db = open_whole(*args, **named)
        db.execute("PRAGMA max_page_count = 1")
        return db

    monkeypatch.setattr(sqlite3, "connect", without_room)
    with pytest.raises(JournalError, match=r"the disk is full.*make room") as refused:
        await open_at(tmp_path / "journal.sqlite3")
    assert "move" not in str(refused.value)


async def test_an_empty_file_was_a_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    await (await open_at(path)).close()
    assert not journal_file.is_cut(path)
    path.write_bytes(b"")
    assert journal_file.is_cut(path)
    for look in (open_at(path), asyncio.to_thread(peek, path)):
        with pytest.raises(JournalError, match=f"{path}: .*cut.*restore --account"):
            await look
    assert path.read_bytes() == b""
    path.with_name(f"{path.name}-wal").write_bytes(b"wal")
    aside = journal_file.set_aside(path)
    assert not path.exists() and aside.read_bytes() == b""
    assert aside.with_name(f"{aside.name}-wal").read_bytes() == b"wal"
    await (await open_at(path)).close()


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [
        ("prior", "no JSON", "prior: "),
        ("prior", "[1]", "prior: "),
        ("prior", '{"voice_url": 7}', "prior: "),
        ("prior", b"\xff", "prior: "),
        ("prior", None, "prior is not there"),
        ("prior", "{}", "lacks voice_url"),
        ("written", "", "written: "),
        ("written", None, "written is not there"),
        ("written", '{"voice_url": "w", "trunk_sid": ""}', "lacks trunk_sid"),
        ("written", "{}", "lacks voice_url"),
        ("state", "soon", "soon"),
        ("since", "yesterday", "since"),
        ("since", 1e300, "since: 1e+300 is no time"),
        ("since", -1.0, "since: -1 is no time"),
        ("uncertain_until", float("inf"), "uncertain_until: inf is no time"),
        ("number_sid", b"PN1", "number_sid"),
    ],
)
async def test_an_override_that_cannot_be_read_keeps_nobody_from_the_others(
    tmp_path: Path, column: str, value: object, why: str
) -> None:
    path = tmp_path / "journal.sqlite3"
    journal = await open_at(path)
    for override in ("o1", "o2"):
        await journal.plan(msgspec.structs.replace(ROW, id=override), 5.0)
        await journal.intend(override, {"voice_url": "p"}, {"voice_url": "w"}, 6.0)
    update = f"UPDATE overrides SET {column} = ? WHERE id = 'o1'"
    await journal._do(lambda db: db.execute(update, (value,)))
    assert [row.id for row in await journal.open_overrides()] == ["o2"]
    assert await journal.override("o1") is None
    (row,) = await journal.unreadable()
    assert (row.table, row.id, row.number) == ("override", "o1", ROW.number)
    text = row.text(path)
    assert text.startswith(f"{path}: override o1 (***1234) cannot be read (") and why in text
    assert "`trunkline restore --account`" in text
    assert peek(path).unreadable == [row]
    # It may be made anew.
    await journal.forget("o1")
    assert await journal.unreadable() == []
    await journal.plan(ROW, 7.0)
    assert len(await journal.open_overrides()) == 2
    await journal.close()


@pytest.mark.parametrize("column", ["id", "number", "number_sid", "state", "prior", "since"])
async def test_a_text_that_is_no_utf8_spoils_its_own_row_alone(tmp_path: Path, column: str) -> None:
    """SQLite keeps it. Python's sqlite3 would give up all rows of the query."""
    path = tmp_path / "journal.sqlite3"
    journal = await open_at(path)
    await journal.plan(msgspec.structs.replace(ROW, id="o1", holders={}), 5.0)
    await journal.plan(msgspec.structs.replace(ROW, id="o2"), 6.0)
    spoil = f"UPDATE overrides SET {column} = CAST(x'ff' AS TEXT) WHERE id = 'o1'"
    await journal._do(lambda db: db.execute(spoil))
    assert [row.id for row in await journal.open_overrides()] == ["o2"]
    assert len(await journal.unreadable()) == len(peek(path).unreadable) == 1
    assert await journal.newest() == 6.0
    await journal.close()


@pytest.mark.parametrize(
    ("column", "value"),
    [("state", "ringing"), ("asked", "now"), ("timeout", float("inf")), ("mode", b"a-leg")],
)
async def test_a_dial_that_cannot_be_read(tmp_path: Path, column: str, value: object) -> None:
    path = tmp_path / "journal.sqlite3"
    journal = await open_at(path)
    await journal.dial_asked(DIAL)
    await journal._do(lambda db: db.execute(f"UPDATE dials SET {column} = ?", (value,)))
    assert await journal.open_dials() == []
    (row,) = await journal.unreadable()
    assert (row.table, row.id) == ("dial", DIAL.request)
    text = row.text(path)
    assert text.startswith(f"{path}: dial {DIAL.request} (***7777) cannot be read (")
    assert column in text and "its time limit ends it" in text
    await journal.close()


async def test_heard_calls_that_cannot_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are left out, and their webhooks are doubtful all the same: of an override that is older
    than the controller no call is believed at once."""
    path = tmp_path / "journal.sqlite3"
    journal = await open_at(path)
    for sid in ("CA1", "CA2", "CA3"):
        await journal.note_seen(sid, 5.0)
    assert len(await journal.seen(0.0)) == 3 and not caplog.records
    update = "UPDATE seen SET since = 'later' WHERE sid = 'CA1'"
    await journal._do(lambda db: db.execute(update))
    update = "UPDATE seen SET sid = CAST(x'ff' AS TEXT) WHERE sid = 'CA3'"
    await journal._do(lambda db: db.execute(update))
    assert await journal.seen(0.0) == [("CA2", 5.0), ("\ufffd", 5.0)]
    assert f"{path}: of 1 calls it cannot be read when they were heard" in caplog.text
    await journal.close()


async def test_the_newest_time_in_it(tmp_path: Path) -> None:
    """By it a clock that was set back is known. A value that is no time does not count."""
    journal = await open_at(tmp_path / "journal.sqlite3")
    assert await journal.newest() == 0.0
    await journal.begin_epoch(1, 10.0)
    await journal.plan(ROW, 20.0)
    assert await journal.newest() == 20.0
    await journal.dial_asked(msgspec.structs.replace(DIAL, asked=30.0))
    await journal.note_seen("CA1", 25.0)
    assert await journal.newest() == 30.0
    await journal._do(lambda db: db.execute("UPDATE dials SET asked = 'later'"))
    assert await journal.newest() == 25.0
    await journal.close()
