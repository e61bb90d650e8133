"""The rows of a journal: what each method writes, and what is read back. A journal on another
database has to pass these tests too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from trunkline.controller.journal.file import JournalError
from trunkline.controller.journal.rows import SEEN_KEPT, DialRow
from trunkline.controller.journal.store import SqliteJournal

from .test_journal import DIAL, ROW, open_at

PRIOR, WRITTEN = {"voice_url": "a", "trunk_sid": ""}, {"voice_url": "b"}


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[SqliteJournal]:
    made = await open_at(tmp_path / "journal.sqlite3")
    yield made
    await made.close()


# --------------------------------------------------------------------------- overrides


async def test_life_of_an_override(journal: SqliteJournal) -> None:
    await journal.plan(ROW, 5.0)
    assert await journal.open_overrides() == [ROW]
    await journal.add_holder("o1", "s2", "hash2")
    await journal.intend("o1", PRIOR, WRITTEN, 6.0)
    planned = replace(ROW, prior=PRIOR, written=WRITTEN, holders={"s1": "hash", "s2": "hash2"})
    assert await journal.override("o1") == planned
    await journal.set_state("o1", "applied", 7.0)
    assert await journal.open_overrides() == [replace(planned, state="applied")]
    await journal.set_state("o1", "restoring", 8.0, 68.0)
    restoring = replace(planned, state="restoring", uncertain_until=68.0)
    assert await journal.open_overrides() == [restoring]
    await journal.set_state("o1", "restored", 9.0)
    assert await journal.open_overrides() == []
    closed = await journal.override("o1")
    assert closed == replace(planned, state="restored") and not closed.open


@pytest.mark.parametrize("state", ["restored", "left_alone"])
async def test_closed_overrides_are_kept(journal: SqliteJournal, state: str) -> None:
    await journal.plan(ROW, 5.0)
    await journal.set_state("o1", state, 6.0)  # type: ignore[arg-type]  # an OverrideState
    assert await journal.open_overrides() == []
    assert await journal.override("o1") == replace(ROW, state=state)


async def test_a_new_row_knows_nothing_of_its_number(journal: SqliteJournal) -> None:
    known = replace(ROW, state="applied", prior=PRIOR, written=WRITTEN, uncertain_until=9.0)
    await journal.plan(known, 5.0)
    assert await journal.override("o1") == ROW


async def test_the_oldest_open_override_comes_first(journal: SqliteJournal) -> None:
    for override, since in (("b", 7.0), ("c", 5.0), ("a", 7.0), ("d", 6.0)):
        await journal.plan(replace(ROW, id=override, since=since), since)
    await journal.set_state("d", "left_alone", 8.0)
    assert [row.id for row in await journal.open_overrides()] == ["c", "a", "b"]


async def test_a_plan_is_not_made_twice(journal: SqliteJournal) -> None:
    await journal.plan(ROW, 5.0)
    with pytest.raises(JournalError):
        await journal.plan(replace(ROW, number="+14155550000", holders={}), 6.0)
    assert await journal.open_overrides() == [ROW]


async def test_an_intent_may_be_replaced(journal: SqliteJournal) -> None:
    await journal.plan(ROW, 5.0)
    await journal.intend("o1", WRITTEN, PRIOR, 6.0)
    prior = dict(PRIOR)
    await journal.intend("o1", prior, WRITTEN, 7.0)
    prior["voice_url"] = "changed after it was written down"
    assert await journal.override("o1") == replace(ROW, prior=PRIOR, written=WRITTEN)


async def test_a_holder_is_kept_once_with_its_last_secret(journal: SqliteJournal) -> None:
    await journal.plan(ROW, 5.0)
    await journal.add_holder("o1", "s1", "another")
    assert await journal.override("o1") == replace(ROW, holders={"s1": "another"})


async def test_what_is_said_of_an_override_that_is_not_there_is_an_error(
    journal: SqliteJournal,
) -> None:
    for saying in (
        journal.intend("o2", PRIOR, WRITTEN, 6.0),
        journal.set_state("o2", "applied", 6.0),
        journal.add_holder("o2", "s1", "hash"),
    ):
        with pytest.raises(JournalError):
            await saying
    assert await journal.override("o2") is None and await journal.open_overrides() == []


async def test_overrides_do_not_touch_one_another(journal: SqliteJournal) -> None:
    other = replace(ROW, id="o2", since=6.0, holders={"s9": "hash9"})
    await journal.plan(ROW, 5.0)
    await journal.plan(other, 6.0)
    await journal.intend("o1", PRIOR, WRITTEN, 7.0)
    await journal.set_state("o1", "restored", 8.0)
    assert await journal.open_overrides() == [other]


# --------------------------------------------------------------------------- dials


async def test_life_of_a_dial(journal: SqliteJournal) -> None:
    assert await journal.dial_asked(DIAL)
    assert await journal.open_dials() == [DIAL]
    await journal.dial_taken(DIAL.request, "CA1")
    taken = replace(DIAL, sid="CA1", state="taken")
    assert await journal.open_dials() == [taken]
    await journal.dial_closed(DIAL.request)
    assert await journal.open_dials() == []
    assert await journal.closed_dials(DIAL.asked) == [replace(taken, state="closed")]


async def test_a_dial_is_not_asked_twice(journal: SqliteJournal) -> None:
    assert await journal.dial_asked(DIAL)
    await journal.dial_taken(DIAL.request, "CA1")
    assert not await journal.dial_asked(replace(DIAL, callee="+14155550000"))
    assert await journal.open_dials() == [replace(DIAL, sid="CA1", state="taken")]


async def test_a_closed_dial_stays_closed(journal: SqliteJournal) -> None:
    await journal.dial_asked(DIAL)
    await journal.dial_closed(DIAL.request)
    await journal.dial_taken(DIAL.request, "CA2")
    assert await journal.open_dials() == []
    assert await journal.closed_dials(0.0) == [replace(DIAL, state="closed")]
    assert not await journal.dial_asked(DIAL)


async def test_a_dial_that_is_not_there_is_not_made(journal: SqliteJournal) -> None:
    await journal.dial_taken("x" * 32, "CA1")
    await journal.dial_closed("x" * 32)
    assert await journal.open_dials() == [] and await journal.closed_dials(0.0) == []


async def test_closed_dials_are_those_that_were_asked_for_lately(journal: SqliteJournal) -> None:
    def dial(name: str, asked: float) -> DialRow:
        return replace(DIAL, request=name * 32, asked=asked)

    for row in (dial("a", 10.0), dial("b", 20.0), dial("c", 30.0), dial("d", 40.0)):
        await journal.dial_asked(row)
        if row.asked < 40.0:
            await journal.dial_closed(row.request)
    found = await journal.closed_dials(20.0)
    assert {row.request[0] for row in found} == {"b", "c"}


# --------------------------------------------------------------------------- calls that were heard


async def test_a_call_is_heard_once(journal: SqliteJournal) -> None:
    for sid, since in (("CA2", 6.0), ("CA1", 5.0), ("CA2", 9.0)):
        await journal.note_seen(sid, since)
    assert await journal.seen(0.0) == [("CA1", 5.0), ("CA2", 6.0)]
    assert await journal.seen(6.0) == [("CA2", 6.0)]


async def test_calls_are_forgotten_after_a_day(journal: SqliteJournal) -> None:
    for sid, since in (("CA1", 5.0), ("CA2", 6.0), ("CA3", SEEN_KEPT + 5.5)):
        await journal.note_seen(sid, since)
    assert [sid for sid, _ in await journal.seen(0.0)] == ["CA2", "CA3"]


# --------------------------------------------------------------------------- epochs


async def test_epochs_may_begin_later(journal: SqliteJournal) -> None:
    found = [await journal.begin_epoch(7, 0.0, least) for least in (1, 29_000_000, 5)]
    assert found == [1, 29_000_000, 29_000_001]


async def test_epochs_count_up_from_one(journal: SqliteJournal) -> None:
    assert [await journal.begin_epoch(pid, 0.0) for pid in (7, 7, 9)] == [1, 2, 3]
