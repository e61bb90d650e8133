"""What a journal promises: which rows each method writes, what is read back, and what survives.
The same on SQLite and on a PostgreSQL server, on which many stacks have their rows."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from trunkline.controller.journal.database import JournalError, Outcome, Work
from trunkline.controller.journal.postgres.register import Register
from trunkline.controller.journal.rows import SEEN_KEPT, DialRow, ListeningRow
from trunkline.controller.journal.store import Journal

from .test_journal import ACCOUNT, DIAL, ROW, open_at

PRIOR, WRITTEN = {"voice_url": "a", "trunk_sid": ""}, {"voice_url": "b"}
LISTENING = ListeningRow(
    call="c1",
    session="s1",
    secret_hash="hash",
    sid="CA1",
    theirs="outbound",
    name="trunkline-1",
    since=5.0,
)


#: Opens the journal of a test's stack, however often.
Opens = Callable[[], Awaitable[Journal]]


@pytest.fixture(params=["sqlite", "postgres"])
def opens(request: pytest.FixtureRequest, tmp_path: Path) -> Opens:
    if request.param == "sqlite":
        return lambda: open_at(tmp_path / "journal.sqlite3")
    url = request.getfixturevalue("database")
    stack, home = secrets.token_hex(6), secrets.token_hex(6)

    async def opened() -> Journal:
        return await Register(url, ACCOUNT, "test", home).take(stack)

    return opened


@pytest.fixture
async def journal(opens: Opens) -> AsyncIterator[Journal]:
    made = await opens()
    yield made
    await made.close()


# --------------------------------------------------------------------------- what survives


async def test_what_is_written_is_there_after_a_kill(opens: Opens) -> None:
    first = await opens()
    await first.plan(ROW, 5.0)
    # The next start sees it while the first was never closed.
    second = await opens()
    assert await second.open_overrides() == [ROW]
    await second.close()
    await first.close()


async def test_an_error_that_nobody_foresaw_leaves_nobody_waiting(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(work: Sequence[Work]) -> list[Outcome]:
        raise RuntimeError("nobody foresaw it")

    with monkeypatch.context() as patched:
        patched.setattr(journal._db, "run", fails)
        async with asyncio.timeout(5.0):
            both = asyncio.gather(
                journal.plan(ROW, 5.0), journal.dial_asked(DIAL), return_exceptions=True
            )
            assert [type(outcome) for outcome in await both] == [RuntimeError, RuntimeError]
    async with asyncio.timeout(5.0):
        await journal.plan(ROW, 5.0)
    assert await journal.open_overrides() == [ROW] and await journal.open_dials() == []


async def test_what_fails_takes_nothing_from_what_is_written_with_it(journal: Journal) -> None:
    first, again, bad, dial = await asyncio.gather(
        journal.plan(ROW, 5.0),
        journal.plan(ROW, 6.0),
        journal._do(lambda db: db.execute("INSERT INTO nowhere VALUES (1)")),
        journal.dial_asked(DIAL),
        return_exceptions=True,
    )
    assert (first, dial) == (None, True)
    assert isinstance(again, JournalError)
    assert isinstance(bad, JournalError)
    assert await journal.open_overrides() == [ROW]
    assert await journal.open_dials() == [DIAL]


async def test_closing_waits_for_what_was_asked_for(opens: Opens) -> None:
    journal = await opens()
    asked = asyncio.gather(journal.dial_asked(DIAL), journal.plan(ROW, 5.0))
    await asyncio.sleep(0)
    await journal.close()
    assert await asked == [True, None]
    again = await opens()
    assert (await again.open_overrides(), await again.open_dials()) == ([ROW], [DIAL])
    await again.close()


# --------------------------------------------------------------------------- overrides


async def test_life_of_an_override(journal: Journal) -> None:
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
async def test_closed_overrides_are_kept(journal: Journal, state: str) -> None:
    await journal.plan(ROW, 5.0)
    await journal.set_state("o1", state, 6.0)  # type: ignore[arg-type]  # an OverrideState
    assert await journal.open_overrides() == []
    assert await journal.override("o1") == replace(ROW, state=state)


async def test_a_new_row_knows_nothing_of_its_number(journal: Journal) -> None:
    known = replace(ROW, state="applied", prior=PRIOR, written=WRITTEN, uncertain_until=9.0)
    await journal.plan(known, 5.0)
    assert await journal.override("o1") == ROW


async def test_the_oldest_open_override_comes_first(journal: Journal) -> None:
    for override, since in (("b", 7.0), ("c", 5.0), ("a", 7.0), ("d", 6.0)):
        await journal.plan(replace(ROW, id=override, since=since), since)
    await journal.set_state("d", "left_alone", 8.0)
    assert [row.id for row in await journal.open_overrides()] == ["c", "a", "b"]


async def test_a_plan_is_not_made_twice(journal: Journal) -> None:
    await journal.plan(ROW, 5.0)
    with pytest.raises(JournalError):
        await journal.plan(replace(ROW, number="+14155550000", holders={}), 6.0)
    assert await journal.open_overrides() == [ROW]


async def test_an_intent_may_be_replaced(journal: Journal) -> None:
    await journal.plan(ROW, 5.0)
    await journal.intend("o1", WRITTEN, PRIOR, 6.0)
    prior = dict(PRIOR)
    await journal.intend("o1", prior, WRITTEN, 7.0)
    prior["voice_url"] = "changed after it was written down"
    assert await journal.override("o1") == replace(ROW, prior=PRIOR, written=WRITTEN)


async def test_a_holder_is_kept_once_with_its_last_secret(journal: Journal) -> None:
    await journal.plan(ROW, 5.0)
    await journal.add_holder("o1", "s1", "another")
    assert await journal.override("o1") == replace(ROW, holders={"s1": "another"})


async def test_what_is_said_of_an_override_that_is_not_there_is_an_error(
    journal: Journal,
) -> None:
    for saying in (
        journal.intend("o2", PRIOR, WRITTEN, 6.0),
        journal.set_state("o2", "applied", 6.0),
        journal.add_holder("o2", "s1", "hash"),
    ):
        with pytest.raises(JournalError):
            await saying
    assert await journal.override("o2") is None and await journal.open_overrides() == []


async def test_overrides_do_not_touch_one_another(journal: Journal) -> None:
    other = replace(ROW, id="o2", since=6.0, holders={"s9": "hash9"})
    await journal.plan(ROW, 5.0)
    await journal.plan(other, 6.0)
    await journal.intend("o1", PRIOR, WRITTEN, 7.0)
    assert await journal.open_overrides() == [replace(ROW, prior=PRIOR, written=WRITTEN), other]
    await journal.set_state("o1", "restored", 8.0)
    assert await journal.open_overrides() == [other]


# --------------------------------------------------------------------------- dials


async def test_life_of_a_dial(journal: Journal) -> None:
    assert await journal.dial_asked(DIAL)
    assert await journal.open_dials() == [DIAL]
    await journal.dial_taken(DIAL.request, "CA1")
    taken = replace(DIAL, sid="CA1", state="taken")
    assert await journal.open_dials() == [taken]
    await journal.dial_closed(DIAL.request)
    assert await journal.open_dials() == []
    assert await journal.closed_dials(DIAL.asked) == [replace(taken, state="closed")]


async def test_a_dial_is_not_asked_twice(journal: Journal) -> None:
    assert await journal.dial_asked(DIAL)
    await journal.dial_taken(DIAL.request, "CA1")
    assert not await journal.dial_asked(replace(DIAL, callee="+14155550000"))
    assert await journal.open_dials() == [replace(DIAL, sid="CA1", state="taken")]


async def test_a_closed_dial_stays_closed(journal: Journal) -> None:
    await journal.dial_asked(DIAL)
    await journal.dial_closed(DIAL.request)
    await journal.dial_taken(DIAL.request, "CA2")
    assert await journal.open_dials() == []
    assert await journal.closed_dials(0.0) == [replace(DIAL, state="closed")]
    assert not await journal.dial_asked(DIAL)


async def test_a_dial_that_is_not_there_is_not_made(journal: Journal) -> None:
    await journal.dial_taken("x" * 32, "CA1")
    await journal.dial_closed("x" * 32)
    assert await journal.open_dials() == [] and await journal.closed_dials(0.0) == []


async def test_closed_dials_are_those_that_were_asked_for_lately(journal: Journal) -> None:
    def dial(name: str, asked: float) -> DialRow:
        return replace(DIAL, request=name * 32, asked=asked)

    for row in (dial("a", 10.0), dial("b", 20.0), dial("c", 30.0), dial("d", 40.0)):
        await journal.dial_asked(row)
        if row.asked < 40.0:
            await journal.dial_closed(row.request)
    found = await journal.closed_dials(20.0)
    assert {row.request[0] for row in found} == {"b", "c"}


# --------------------------------------------------------------------------- calls that were heard


# --------------------------------------------------------------------------- listening


async def test_a_call_that_is_listened_to_has_a_row_until_nothing_of_it_is_left(
    opens: Opens,
) -> None:
    first = await opens()
    await first.listening_asked(LISTENING)
    await first.listening_asked(replace(LISTENING, name="trunkline-2", since=6.0))
    await first.listening_asked(replace(LISTENING, call="c2", since=7.0))
    second = await opens()
    found = (await second.open_rows()).listening
    assert [(row.call, row.name) for row in found] == [("c1", "trunkline-2"), ("c2", "trunkline-1")]
    assert found[0] == replace(LISTENING, name="trunkline-2", since=6.0)
    assert await second.newest() == 7.0
    await second.listening_closed("c1")
    await second.listening_closed("c1")
    assert [row.call for row in (await second.open_rows()).listening] == ["c2"]
    await second.close()
    await first.close()


async def test_a_call_is_heard_once(journal: Journal) -> None:
    for sid, since in (("CA2", 6.0), ("CA1", 5.0), ("CA2", 9.0)):
        await journal.note_seen(sid, since)
    assert await journal.seen(0.0) == [("CA1", 5.0), ("CA2", 6.0)]
    assert await journal.seen(6.0) == [("CA2", 6.0)]


async def test_calls_are_forgotten_after_a_day(journal: Journal) -> None:
    for sid, since in (("CA1", 5.0), ("CA2", 6.0), ("CA3", SEEN_KEPT + 5.5)):
        await journal.note_seen(sid, since)
    assert [sid for sid, _ in await journal.seen(0.0)] == ["CA2", "CA3"]


# --------------------------------------------------------------------------- epochs


async def test_epochs_may_begin_later(journal: Journal) -> None:
    found = [await journal.begin_epoch(7, 0.0, least) for least in (1, 29_000_000, 5)]
    assert found == [1, 29_000_000, 29_000_001]


async def test_epochs_count_up(opens: Opens) -> None:
    for expected in (1, 2, 3):
        journal = await opens()
        assert await journal.begin_epoch(1, 0.0) == expected
        await journal.close()


async def test_epochs_count_up_from_one(journal: Journal) -> None:
    assert [await journal.begin_epoch(pid, 0.0) for pid in (7, 7, 9)] == [1, 2, 3]


async def test_the_newest_time_in_it(journal: Journal) -> None:
    """By it a clock that was set back is known."""
    assert await journal.newest() == 0.0
    await journal.begin_epoch(1, 10.0)
    await journal.plan(ROW, 20.0)
    assert await journal.newest() == 20.0
    await journal.dial_asked(replace(DIAL, asked=30.0))
    await journal.note_seen("CA1", 25.0)
    assert await journal.newest() == 30.0


# --------------------------------------------------------------------------- what cannot be read


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [
        ("prior", "no JSON", "prior: "),
        ("prior", None, "prior is not there"),
        ("written", '{"voice_url": "w", "trunk_sid": ""}', "lacks trunk_sid"),
        ("state", "soon", "soon"),
        ("since", 1e300, "since: 1e+300 is no time"),
        ("uncertain_until", float("inf"), "uncertain_until: inf is no time"),
    ],
)
async def test_an_override_that_cannot_be_read_keeps_nobody_from_the_others(
    journal: Journal, column: str, value: object, why: str
) -> None:
    for override in ("o1", "o2"):
        await journal.plan(replace(ROW, id=override), 5.0)
        await journal.intend(override, {"voice_url": "p"}, {"voice_url": "w"}, 6.0)
    where, values = journal._dialect.where("id = ?", "o1")
    update = f"UPDATE overrides SET {column} = ? WHERE {where}"
    await journal._do(lambda db: db.execute(update, (value, *values)))
    assert [row.id for row in await journal.open_overrides()] == ["o2"]
    assert await journal.override("o1") is None
    (row,) = await journal.unreadable()
    assert (row.table, row.id, row.number) == ("override", "o1", ROW.number)
    text = row.text(journal.name)
    assert (
        text.startswith(f"{journal.name}: override o1 (***1234) cannot be read (") and why in text
    )
    # It may be made anew.
    await journal.forget("o1")
    assert await journal.unreadable() == []
    await journal.plan(ROW, 7.0)
    assert len(await journal.open_overrides()) == 2
