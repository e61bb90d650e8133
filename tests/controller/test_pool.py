"""The pool: who waits for a number gets one in turn, and nobody waits for ever."""

from __future__ import annotations

from trunkline.bus import messages as m
from trunkline.controller import events as ev
from trunkline.controller import instructions as do

from .fake_carrier import OURS, SECOND, THEIRS
from .stage import Stage


def asks(stage: Stage, ttl: float = 60.0) -> tuple[m.SessionInfo, int]:
    info = stage.info("any")
    asked = stage.ask("a1", m.OpenSession(info=info), ttl)
    stage.look_up()
    return info, asked


def closes(stage: Stage, info: m.SessionInfo) -> None:
    stage.body("a1", stage.ask("a1", m.CloseSession(session=info.session)), m.SessionClosed)
    stage.pass_time(0.1)
    stage.look_up()


def places(stage: Stage, info: m.SessionInfo) -> list[int]:
    return [e.place for e in stage.events("a1", m.PoolQueued) if e.session == info.session]


def test_who_finds_none_waits_its_turn() -> None:
    stage = Stage(pool=(OURS, SECOND))
    first, second, third, fourth = (asks(stage) for _ in range(4))
    assert [stage.answered("a1", asked) for _, asked in (first, second, third, fourth)] == [
        *(True, True),
        *(False, False),
    ]
    assert (places(stage, third[0]), places(stage, fourth[0])) == ([1], [2])
    closes(stage, second[0])
    assert stage.body("a1", third[1], m.SessionOpened).number == SECOND
    assert places(stage, fourth[0]) == [2, 1]
    # A newcomer does not overtake.
    fifth = asks(stage)
    closes(stage, first[0])
    assert stage.body("a1", fourth[1], m.SessionOpened).number == OURS
    assert not stage.answered("a1", fifth[1])


def test_a_number_that_is_being_put_back_is_not_free_yet() -> None:
    stage = Stage(pool=(OURS,))
    info, _ = asks(stage)
    stage.arm(info)
    _, waits = asks(stage)
    stage.ask("a1", m.CloseSession(session=info.session))
    stage.pass_time(1.0)
    assert not stage.answered("a1", waits)
    stage.feed(ev.Restored(stage.take(do.Restore).override, "restored"))
    stage.look_up()
    assert stage.body("a1", waits, m.SessionOpened).number == OURS


def test_who_gives_up_leaves_the_queue() -> None:
    stage = Stage(pool=(OURS,))
    holder, _ = asks(stage)
    given_up, asked = asks(stage)
    waits, waiting = asks(stage)
    stage.body("a1", stage.ask("a1", m.CloseSession(session=given_up.session)), m.SessionClosed)
    assert stage.error("a1", asked) == "WrongModeError"
    stage.pass_time(0.2)
    assert places(stage, waits) == [2, 1]
    closes(stage, holder)
    assert stage.body("a1", waiting, m.SessionOpened).number == OURS


def test_a_client_that_died_while_it_waited_leaves_the_queue() -> None:
    stage = Stage(pool=(OURS,))
    stage.hello("adapter", "a2")
    holder, _ = asks(stage)
    stage.ask("a2", m.OpenSession(info=stage.info("any")))
    _, waiting = asks(stage)
    stage.beating.remove("a2")
    stage.pass_time(10.0)
    closes(stage, holder)
    assert stage.body("a1", waiting, m.SessionOpened).number == OURS


def test_the_wait_ends_with_the_time_it_was_given() -> None:
    stage = Stage(pool=(OURS,))
    asks(stage)
    _, asked = asks(stage, ttl=5.0)
    stage.pass_time(4.9)
    assert not stage.answered("a1", asked)
    stage.pass_time(0.3)
    assert stage.error("a1", asked) == "NumberBusyError"


def test_a_number_that_somebody_named_is_not_handed_out() -> None:
    stage = Stage(pool=(OURS, SECOND))
    stage.open(OURS)
    _, asked = asks(stage)
    assert stage.body("a1", asked, m.SessionOpened).number == SECOND


def test_the_accounts_numbers_are_asked_for_once() -> None:
    stage = Stage()
    first, second, third = (stage.ask("a1", m.OpenSession(info=stage.info("any"))) for _ in "123")
    stage.take(do.ListNumbers)
    assert not stage.all_work(do.ListNumbers)
    stage.feed(ev.NumbersListed(((OURS, "PN1"), (SECOND, "PN2"))))
    assert stage.body("a1", first, m.SessionOpened).number == OURS
    assert stage.body("a1", second, m.SessionOpened).number == SECOND
    assert not stage.answered("a1", third)


def test_an_account_without_a_number() -> None:
    stage = Stage()
    asked = stage.ask("a1", m.OpenSession(info=stage.info("any")))
    stage.feed(ev.NumbersListed(()))
    assert stage.error("a1", asked) == "NumberNotFoundError"


def test_after_a_restart_those_who_have_numbers_speak_first() -> None:
    stage = Stage(pool=(OURS,), epoch=2)
    _, asked = asks(stage)
    assert not stage.answered("a1", asked)
    held = stage.info(OURS, mode="call", allowed_callees=[THEIRS])
    stage.hello("adapter", "a2", sessions=[held])
    stage.pass_time(3.0)
    stage.look_up()
    assert not stage.answered("a1", asked)
    assert stage.events("a1", m.PoolQueued)
