"""Phone calls by REST: what is repeated and what is not, and hang-ups that Twilio refuses."""

from __future__ import annotations

from typing import Any

import pytest

from trunkline.controller import events as ev
from trunkline.controller import instructions as do
from trunkline.controller.twilio import operations
from trunkline.controller.twilio.carrier import LONGEST_PAUSE

from .bench import DIAL, ORDER, Bench


async def create(bench: Bench, wanted: int = 100) -> Any:
    """``wanted``: it is, for as many times as somebody looks."""
    told: list[Any] = []
    looks = iter([True] * wanted)
    result = await operations.create(
        bench.ops,
        do.Create(DIAL, ORDER, bench.time.now + 30),
        lambda: next(looks, False),
        told.append,
    )
    assert told == [ev.AskedTwilio(DIAL.request)] * (wanted > 0)
    return result


@pytest.mark.parametrize("kinds", [[], ["429", "429"], ["refused", "429"]])
async def test_create_repeats_what_never_happened(kinds: list[str]) -> None:
    bench = Bench()
    bench.carrier.plan("create", *kinds)
    result = await create(bench)
    assert isinstance(result, ev.Taken) and len(bench.carrier.calls) == 1
    assert (await bench.journal.open_dials())[0].sid == result.sid


@pytest.mark.parametrize("kind", ["500", "500_after", "timeout_before", "timeout_after", "late"])
async def test_create_never_repeats_a_doubt(kind: str) -> None:
    bench = Bench()
    bench.carrier.plan("create", kind)
    assert isinstance(await create(bench), ev.Unsure)
    assert bench.carrier.count("create") == 1
    assert len(await bench.journal.open_dials()) == 1
    found = await operations.settle(bench.ops, DIAL, lambda: True, lambda sid: False)
    if kind in ("500", "timeout_before"):
        assert found == ev.NotFound(DIAL.request)
        assert await bench.journal.open_dials() == []
    else:
        assert isinstance(found, ev.Taken) and found.sid in bench.carrier.calls


async def test_create_of_what_nobody_wants_stops() -> None:
    bench = Bench()
    bench.carrier.plan("create", "429")
    assert isinstance(await create(bench, wanted=1), ev.CreateFailed)
    assert bench.carrier.count("create") == 1 and await bench.journal.open_dials() == []


async def test_what_was_given_up_while_the_journal_was_away_is_not_asked_for() -> None:
    bench = Bench()
    assert isinstance(await create(bench, wanted=0), ev.CreateFailed)
    assert bench.carrier.count("create") == 0 and await bench.journal.open_dials() == []


async def test_settle_leaves_other_calls_alone() -> None:
    bench = Bench()
    other = await bench.carrier.create_call(ORDER)
    assert await operations.settle(
        bench.ops, DIAL, lambda: True, lambda sid: sid == other.sid
    ) == ev.NotFound(DIAL.request)


@pytest.mark.parametrize("kind", ["500", "401", "403"])
async def test_hang_up_goes_on_for_ever_and_says_so_once(kind: str) -> None:
    """Credentials that are refused, or an account that is suspended, during a call, too."""
    bench = Bench()
    call = await bench.carrier.create_call(ORDER)
    bench.carrier.plan("end", *[kind] * 12)
    told: list[ev.EndFailed] = []
    sids = (call.sid,)
    assert await operations.end(bench.ops, "c1", sids, told.append) == ev.EndTaken("c1", sids)
    assert len(told) == 1 and bench.carrier.calls[call.sid].status == "completed"


async def test_the_log_says_how_long_a_pause_of_a_hurried_hang_up_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()
    call = await bench.carrier.create_call(ORDER)
    bench.ops.hurry()
    bench.carrier.plan("end", *["500"] * 8)
    await operations.end(bench.ops, "c1", (call.sid,), [].append)
    waits = {message.rpartition("again in ")[2] for message in caplog.messages}
    assert waits == {"0.25 s", f"{operations.HURRIED_PAUSE:g} s"}


async def test_a_refused_hang_up_is_settled_once_its_call_is_over() -> None:
    """Until then the dial's row is open, so that the next start knows of the call, and so does
    `trunkline restore`."""
    bench = Bench()
    taken = await create(bench)
    assert isinstance(taken, ev.Taken)
    bench.carrier.plan("end", *["400"] * 100)
    began, rows = bench.time.now, bench.journal.left.dials

    def time_limit() -> None:
        assert bench.journal.left.dials == rows != []
        bench.carrier.over(taken.sid)

    bench.time.at(began + 300.0, time_limit)
    await operations.hang_up_left(bench.ops, rows[0])
    assert bench.journal.left.dials == []
    assert 300.0 <= bench.time.now - began <= 300.0 + LONGEST_PAUSE
    assert bench.carrier.count("end") < 30


async def test_a_refused_hang_up_holds_up_no_other_leg() -> None:
    bench = Bench()
    legs = tuple([(await bench.carrier.create_call(ORDER)).sid for _ in range(2)])
    bench.carrier.plan("end", "400", "ok", "400", "400", "ok")
    ended = await operations.end(bench.ops, "c1", legs, [].append)
    assert ended == ev.EndTaken("c1", legs)
    asked = [what for operation, what in bench.carrier.log if operation == "end"]
    assert asked == [legs[0], legs[1], *[legs[0]] * 3]


@pytest.mark.parametrize(("kind", "asked"), [("404", 1), ("400", 1), ("500", 2), ("401", 2)])
async def test_where_nothing_can_be_known_of_its_call_it_is_settled_at_once(
    kind: str, asked: int, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench()
    call = await bench.carrier.create_call(ORDER)
    bench.carrier.plan("end", "400", "400")
    bench.carrier.plan("fetch", kind, "404")
    told: list[ev.EndFailed] = []
    assert await operations.end(bench.ops, "c1", (call.sid,), told.append) == ev.EndTaken(
        "c1", (call.sid,)
    )
    assert len(told) == asked - 1
    assert bench.carrier.count("fetch") == bench.carrier.count("end") == asked
    assert ("say how call" in caplog.text) == (kind == "400")
