"""How a rule finds what it needs among ten thousand entries, without looking at all of them.

- :class:`Groups` keeps things under a key that they share and that never changes. For example, it
  finds all calls of one session.
- :class:`Rounds` goes through all things in steps, a thousand at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Generic, TypeVar

T = TypeVar("T")

#: So many things are looked at in one tick. A look costs 1 to 3 µs, so this is a few milliseconds.
AT_ONCE: Final = 1_000


class Groups(Generic[T]):
    """By the group's key, and in it by the thing's own id, in the order in which they came."""

    def __init__(self) -> None:
        self._groups: dict[str, dict[str, T]] = {}

    def add(self, key: str, name: str, thing: T) -> None:
        """It belongs to this group."""
        group = self._groups.setdefault(key, {})
        group[name] = thing

    def drop(self, key: str, name: str) -> None:
        """It is over. Nothing where it is not there."""
        group = self._groups.get(key)
        if group is not None:
            group.pop(name, None)
            if not group:
                del self._groups[key]

    def of(self, key: str) -> Iterator[T]:
        """All of the group, as it is now."""
        return iter(tuple(self._groups.get(key, {}).values()))


class Rounds(Generic[T]):
    """Each step looks at some of the things, and the next one goes on behind them. If there are
    :data:`AT_ONCE` or fewer, each step looks at all. If there are ten times as many, each of them
    is looked at in every tenth step."""

    def __init__(self, things: Mapping[str, T]) -> None:
        self._things = things
        self._round: list[tuple[str, T]] = []
        self._next = 0
        #: those of this step
        self.now: list[T] = []

    def step(self) -> bool:
        """Look at the next ones. True: a round begins with them. Things that came since the round
        began wait for the next round, and those that are gone are left out."""
        begins = self._next >= len(self._round)
        if begins:
            self._round, self._next = list(self._things.items()), 0
        step = self._round[self._next : self._next + AT_ONCE]
        self._next += AT_ONCE
        things = self._things
        self.now = [thing for name, thing in step if things.get(name) is thing]
        return begins
