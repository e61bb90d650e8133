"""The pool: numbers for sessions on "any", handed out in the order in which they were asked for.

Which numbers there are is the setting TRUNKLINE_NUMBERS, or all of the account. A number is free
when no session is on it and nothing of it is still to be put back. A session that finds none waits,
and hears its place. Nobody overtakes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final

#: After a restart sessions have this long to say which numbers they are on (seconds).
SETTLES_WITHIN: Final = 2.5


class Pool:
    """``numbers``: the configured ones; empty: those of the account, once they were listed."""

    def __init__(self, numbers: Sequence[str]) -> None:
        self.configured = bool(numbers)
        self._numbers = tuple(numbers)
        self._listed_until = float("-inf")
        #: session ids, first come first; with the place that each was told
        self._waiting: dict[str, int] = {}

    def __len__(self) -> int:
        """Sessions that wait."""
        return len(self._waiting)

    @property
    def size(self) -> int:
        """How many numbers there are, free or not."""
        return len(self._numbers)

    @property
    def waiting(self) -> list[str]:
        """The sessions that wait, in their order."""
        return list(self._waiting)

    def known(self, now: float) -> bool:
        """Which numbers there are is known, and not from too long ago."""
        return self.configured or now < self._listed_until

    def listed(self, numbers: Sequence[str], until: float) -> None:
        """The account's numbers, good until then."""
        self._numbers, self._listed_until = tuple(numbers), until

    def add(self, session: str) -> None:
        """It waits behind all others; asked twice, it keeps its place."""
        self._waiting.setdefault(session, 0)

    def drop(self, session: str) -> None:
        """It waits no longer."""
        self._waiting.pop(session, None)

    def hand_out(self, used: Collection[str]) -> tuple[str, str] | None:
        """(session, number) of the next who gets one; None: nobody waits, or no number is free.
        The session waits no longer."""
        number = next((n for n in self._numbers if n not in used), None)
        if number is None or not self._waiting:
            return None
        session = next(iter(self._waiting))
        del self._waiting[session]
        return session, number

    def new_places(self) -> Iterator[tuple[str, int]]:
        """(session, place from 1) of those whose place has changed since they last heard it."""
        for place, session in enumerate(list(self._waiting), 1):
            if self._waiting[session] != place:
                self._waiting[session] = place
                yield session, place
