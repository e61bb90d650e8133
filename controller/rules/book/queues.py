"""Queues of outgoing calls, fair between sessions: some a second, or one at a time.

Twilio starts one call a second, unless the account may more, and queues the rest in an order of its
own. A dial that waits here can still be cancelled, and its client hears its place.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator
from typing import Final

#: A tick may come this late (seconds) without lowering the rate: the next call is then due as if
#: the tick had been on time.
LATE_TICK: Final = 0.15


class FairQueue:
    """Dial requests that wait. A session's dials leave in order, sessions take turns."""

    def __init__(self) -> None:
        self._queues: OrderedDict[str, deque[str]] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def add(self, session: str, request: str) -> None:
        queue = self._queues.setdefault(session, deque())
        queue.append(request)

    def drop(self, session: str, request: str) -> None:
        queue = self._queues.get(session)
        if queue is not None and request in queue:
            queue.remove(request)
            if not queue:
                del self._queues[session]

    def pop(self) -> str:
        """The request whose turn it is. KeyError where none waits."""
        session, queue = self._queues.popitem(last=False)
        request = queue.popleft()
        if queue:
            self._queues[session] = queue
        return request

    def order(self) -> list[str]:
        """All that wait, in the order in which they will leave."""
        rest = [deque(queue) for queue in self._queues.values()]
        found = []
        while rest:
            for queue in rest:
                found.append(queue.popleft())
            rest = [queue for queue in rest if queue]
        return found


class DialQueue(FairQueue):
    """``rate``: calls a second."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self._gap = 1.0 / rate
        self._next = float("-inf")

    def take(self, now: float) -> str | None:
        """The dial whose turn it is, or None: none waits, or it is too early."""
        if not self._queues or now < self._next:
            return None
        # A tick that came late does not lower the rate; time in which nobody waited is no credit.
        self._next = (self._next if now - self._next <= LATE_TICK else now) + self._gap
        return self.pop()

    def seconds(self, place: int, now: float) -> float:
        """How long the dial at ``place`` (from 1) has to wait."""
        return max(0.0, self._next - now) + (place - 1) * self._gap


class TurnQueues:
    """The dials that wait for their turn on a callee's number, by number."""

    def __init__(self) -> None:
        self._by_number: defaultdict[str, FairQueue] = defaultdict(FairQueue)

    def __len__(self) -> int:
        """Numbers that dials wait for."""
        return len(self.numbers())

    def add(self, number: str, session: str, request: str) -> None:
        self._by_number[number].add(session, request)

    def drop(self, number: str, session: str, request: str) -> None:
        if number in self._by_number:  # most dials never waited
            self._by_number[number].drop(session, request)

    def numbers(self) -> list[str]:
        """The numbers that dials wait for."""
        return [number for number, queue in self._by_number.items() if queue]

    def pop(self, number: str) -> str:
        """The request whose turn it is on the number."""
        return self._by_number[number].pop()

    def places(self) -> Iterator[tuple[int, str]]:
        """(place from 1, request) of all that wait."""
        for queue in self._by_number.values():
            yield from enumerate(queue.order(), 1)
