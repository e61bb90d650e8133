"""How a rule finds a few things among very many."""

from __future__ import annotations

from trunkline.controller.rules.book.groups import AT_ONCE, Groups, Rounds


def test_a_group_has_its_things_in_the_order_in_which_they_came() -> None:
    groups: Groups[str] = Groups()
    for name in ("b", "a"):
        groups.add("session", name, name.upper())
    groups.add("other", "c", "C")
    found = groups.of("session")
    groups.drop("session", "b")
    groups.drop("session", "nobody")
    groups.drop("nothing", "b")
    assert list(found) == ["B", "A"]  # as it was when it was asked for
    assert (list(groups.of("session")), list(groups.of("nothing"))) == (["A"], [])


def test_few_things_are_looked_at_in_each_step() -> None:
    things = {"a": 1, "b": 2}
    rounds = Rounds(things)
    rounds.step()
    assert rounds.now == [1, 2]
    del things["a"]
    things["c"] = 3
    rounds.step()
    assert rounds.now == [2, 3]


def test_many_things_are_each_looked_at_once_in_a_round() -> None:
    things = {str(n): n for n in range(2 * AT_ONCE + 7)}
    rounds = Rounds(things)
    seen: list[int] = []
    for step in range(3):
        rounds.step()
        seen += rounds.now
        assert len(rounds.now) <= AT_ONCE
        if step == 0:
            del things[str(AT_ONCE)]  # it is over before its turn
            things["late"] = -1
    assert seen == [n for n in range(2 * AT_ONCE + 7) if n != AT_ONCE]
    rounds.step()
    assert rounds.now[0] == 0  # the next round, which has the late one at its end
