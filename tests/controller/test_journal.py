"""The journal: durable rows, epochs, and files that are torn, foreign or newer."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from trunkline.controller.journal import DialRow, JournalError, Override, SqliteJournal


def override(**changes: object) -> Override:
    row = Override(
        id="o1",
        number="+14155551234",
        number_sid="PN1",
        session="s1",
        secret_hash="h",
        state="planned",
        since=10.0,
    )
    return replace(row, **changes)


DIAL = DialRow(
    request="r1",
    call="c1",
    session="s1",
    to="+1",
    from_="+2",
    mode="a-leg",
    state="planned",
    since=1.0,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "stack" / "journal.sqlite3"


@pytest.fixture
def journal(path: Path) -> Iterator[SqliteJournal]:
    journal = SqliteJournal(path)
    yield journal
    journal.close()


def test_an_override_is_there_for_the_next_process_until_it_is_closed(
    journal: SqliteJournal, path: Path
) -> None:
    applied = override(
        state="applied", prior={"voice_url": "https://a", "trunk_sid": None}, written={"x": "y"}
    )
    journal.put_override(override())
    journal.put_override(applied)
    other = SqliteJournal(path)
    assert other.open_overrides() == [applied]
    other.close()
    for state in ("restored", "left_alone"):
        journal.put_override(replace(applied, state=state))
        assert journal.open_overrides() == []


def test_dials_are_open_until_ended(journal: SqliteJournal) -> None:
    journal.put_dial(DIAL)
    live = replace(DIAL, state="live", sid="CA1")
    journal.put_dial(live)
    assert journal.open_dials() == [live]
    journal.put_dial(replace(live, state="ended"))
    assert journal.open_dials() == []


def test_the_epoch_counts_up_over_restarts(path: Path) -> None:
    seen = []
    for _ in range(3):
        journal = SqliteJournal(path)
        seen.append(journal.next_epoch())
        journal.close()
    assert seen == [1, 2, 3]


def test_the_file_is_for_its_owner_alone(journal: SqliteJournal, path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("point", ["before applied", "after applied"])
def test_a_crash_leaves_the_row_before_or_after_and_never_between(path: Path, point: str) -> None:
    class Crash(Exception):
        pass

    def fault(name: str) -> None:
        if name == point:
            raise Crash

    journal = SqliteJournal(path, fault=fault)
    journal.put_override(override())
    with pytest.raises(Crash):
        journal.put_override(override(state="applied", prior={}))
    journal.close()
    again = SqliteJournal(path)
    assert [row.state for row in again.open_overrides()] == [
        "planned" if point.startswith("before") else "applied"
    ]
    again.close()


def test_a_file_that_is_no_database_is_refused_and_kept(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"these are somebody's notes, " * 100)
    with pytest.raises(JournalError, match="left as it is"):
        SqliteJournal(path)
    assert path.read_bytes().startswith(b"these are somebody's notes")


def test_a_torn_file_is_refused_and_kept(path: Path) -> None:
    journal = SqliteJournal(path)
    for n in range(200):
        journal.put_override(override(id=f"o{n}"))
    journal.close()
    whole = path.read_bytes()
    torn = whole[:5000] + b"\xff" * 6000 + whole[11000:]
    path.write_bytes(torn)
    with pytest.raises(JournalError, match="restore --account"):
        SqliteJournal(path)
    assert path.read_bytes() == torn


def test_another_programs_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE theirs (x)")
    db.commit()
    db.close()
    with pytest.raises(JournalError, match="another program's"):
        SqliteJournal(path)


def test_a_newer_journal_is_refused(journal: SqliteJournal, path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(JournalError, match="newer trunkline"):
        SqliteJournal(path)
