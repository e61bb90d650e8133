"""Who may stay where there is not room for all. No I/O.

Whoever reaches the public port can hold something there: a connection, half of a request, a socket
without a ``start``. How much of each there may be is bounded, and a bound that turns newcomers away
would let those who came first, and do nothing, keep everybody else out. So:

1. The newcomer is let in, always. Where there is no room, the oldest goes.
2. Where it is known to whom a place belongs, each owner has a share. Whoever has more than that
   loses the oldest of its own. A connection's owner is its address
   (:func:`trunkline.bus.hosts.owner_of`), a signed webhook's is its call.

For example, with room for three and a share of two::

    enter(a, "x")   enter(b, "y")   enter(c, "x")   nobody goes
    enter(d, "x")                                   a goes: the oldest of x, which has two
    enter(e, "z")                                   b goes: the oldest of all
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Places(Generic[T]):
    """At most ``room`` at a time, and ``share`` of one owner (None: as many as there is room)."""

    def __init__(self, room: int, share: int | None = None) -> None:
        self.room = room
        self.share = share
        #: all that have a place, each with its owner; the oldest comes first
        self._all: OrderedDict[T, str | None] = OrderedDict()
        #: the same by owner; the oldest comes first
        self._owned: dict[str, OrderedDict[T, None]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, who: object) -> bool:
        return who in self._all

    def __iter__(self) -> Iterator[T]:
        """All that have a place, the oldest first."""
        return iter(self._all)

    @property
    def oldest(self) -> T | None:
        """Who would go next; None where there is nobody."""
        return next(iter(self._all), None)

    def enter(self, who: T, owner: str | None = None) -> T | None:
        """Give ``who`` the newest place, even if it has an older one. Returns the one that has lost
        its place for it; None: there was room. ``owner`` None: nobody knows."""
        self.leave(who)
        goes = None
        owned = self._owned.get(owner) if owner is not None else None
        if owned is not None and self.share is not None and len(owned) >= self.share:
            goes = next(iter(owned))
        elif len(self._all) >= self.room:
            goes = self.oldest
        if goes is not None:
            self.leave(goes)
        self._all[who] = owner
        if owner is not None:
            self._owned.setdefault(owner, OrderedDict())[who] = None
        return goes

    def leave(self, who: T) -> None:
        """Give up the place of ``who``, if it has one."""
        owner = self._all.pop(who, None)
        if owner is not None:
            owned = self._owned[owner]
            del owned[who]
            if not owned:
                del self._owned[owner]
