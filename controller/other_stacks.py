"""Stacks of the account, on other machines, that fall silent in the database while we serve.

Whoever sees that first takes the stack's journal, puts its numbers back and hangs its calls up, as
a start does with what was left before it (:mod:`.journal.orphans`). So a machine that dies for ever
leaves no number behind for longer than its lease, as long as one controller of the account runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Container, Coroutine, Sequence
from typing import Any, Final, Protocol

from .journal.database import JournalError
from .journal.orphans import Orphan, Orphans, Present
from .journal.places import Left
from .journal.rows import OverrideRow
from .twilio.apply_restore import restore
from .twilio.operations import Operations

log = logging.getLogger("trunkline.controller")

#: How often they are looked at.
EVERY: Final = 2.5


class Stacks(Protocol):
    """Where stacks show that they live (:class:`.journal.postgres.register.Register`)."""

    async def silent(self, but: Container[str]) -> Sequence[Left]:
        """Those with open rows that have not shown themselves for the time of a lease."""
        ...


class OtherStacks:
    """``orphans``: what was left before we started, and from now on these, too."""

    def __init__(self, stacks: Stacks, orphans: Orphans, ops: Operations, present: Present) -> None:
        self._stacks = stacks
        self._orphans = orphans
        self._ops = ops
        self._present = present
        self._lock: Callable[[str], asyncio.Lock]
        self._count: Callable[[str], None]

    async def watch(
        self,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        lock: Callable[[str], asyncio.Lock],
        count: Callable[[str], None],
    ) -> None:
        """Until it is cancelled. ``spawn`` keeps a task, ``lock`` is the lock of a number, by which
        one write at a time goes to it, and ``count`` counts what has become of an override."""
        self._lock, self._count = lock, count
        while True:
            await self._ops.sleep(EVERY)
            known = {orphan.stack for orphan in self._orphans.found} | {self._ops.stack}
            try:
                found = await self._stacks.silent(known)
            except JournalError as error:
                log.debug("other stacks are not looked at now: %s", error)
                continue
            for orphan in self._orphans.add(found, self._present):
                log.warning("stack %s is silent, and has left numbers or calls", orphan.stack)
                spawn(self._put_back(orphan))

    async def _put_back(self, orphan: Orphan) -> None:
        """All of one stack. A session of ours that wants one of its numbers need not wait: whoever
        comes to the number first opens its seal, and the other one finds another's override."""
        try:
            ops = await orphan.take(self._ops)
            if ops is not None:
                rows = await ops.journal.open_overrides()
                restored = (self._restored(ops, row) for row in rows)
                await asyncio.gather(orphan.hang_up_left(self._ops), *restored)
        except JournalError as error:
            log.error("stack %s: %s", orphan.stack, error)
        await orphan.close()
        self._orphans.drop(orphan)

    async def _restored(self, ops: Operations, row: OverrideRow) -> None:
        async with self._lock(row.number):
            self._count(f"overrides {await restore(ops, row)}")
