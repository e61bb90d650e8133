"""Stacks of the account, on other machines, that fall silent in the database while we serve.

Whoever sees that first takes the stack's journal. If the stack was of our fleet, we run it: its
clients come to us with their sessions' secrets, its gateways ask us about its calls, and these go
on. It is a restart of that stack, in another place. We do so until nothing of it is left.

Of any other stack the numbers are put back and the calls hung up, as a start does with what was
left before it (:mod:`.journal.orphans`). So a machine that dies for ever leaves no number behind
for longer than its lease, as long as one controller of the account runs.

For example, of two machines with one public URL, B sees A's beat stand still for 10 s. No gateway
hears A's controller. B takes A's row, and serves A's clients on its own socket as stack A. When
their sessions have ended B closes A's journal, and A is no more.

There are such stacks only where journals are in PostgreSQL. :mod:`.process` makes this watcher, and
:mod:`.shell` runs it from its start to its end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Container, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from trunkline.bus import messages as m

from .journal.database import JournalError
from .journal.orphans import Orphan, Orphans, Present
from .journal.places import Left
from .journal.rows import OverrideRow
from .twilio.apply_restore import restore
from .twilio.operations import Operations

if TYPE_CHECKING:
    from .shell import Shell

log = logging.getLogger("trunkline.controller")

#: How often the database is asked for silent stacks (seconds). A stack is silent after 10 s, so a
#: death is noticed 10 to 12.5 s after the last beat.
EVERY: Final = 2.5


class Stacks(Protocol):
    """Where stacks show that they live (:class:`.journal.postgres.register.Register`)."""

    async def silent(self, but: Container[str]) -> Sequence[Left]:
        """Stacks with open rows, or of the fleet, whose beat has not moved for the time of a lease
        while we watched. ``but``: ids of stacks that need not be told. JournalError: the database
        does not answer, and then nobody can be seen to be silent."""
        ...

    @property
    def fleet(self) -> list[tuple[str, str]]:
        """The stacks of the fleet with the addresses of their buses, as ``silent`` last found them:
        ``[("3fa9c2d01b7e", "tcp://10.0.0.1:7000"), …]``."""
        ...


class OtherStacks:
    """``orphans``: what was left before we started, to which the stacks that fall silent are added.
    ``run``: makes a shell for a stack from the operations on its journal. ``left``: stacks of the
    fleet that the last process of this state directory ran as its guests when it died. Its lock is
    ours now, so their beats need not be watched."""

    def __init__(
        self,
        stacks: Stacks,
        orphans: Orphans,
        ops: Operations,
        present: Present,
        run: Callable[[Operations], Awaitable[Shell]],
        left: Sequence[Left] = (),
    ) -> None:
        self._stacks = stacks
        self._orphans = orphans
        self._ops = ops
        self._present = present
        self._run = run
        self._left = left
        self._lock: Callable[[str], asyncio.Lock]
        self._count: Callable[[str], None]
        self._host: Callable[[Shell], Awaitable[None]]

    async def watch(
        self,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        lock: Callable[[str], asyncio.Lock],
        count: Callable[[str], None],
        fleet_seen: Callable[[list[m.ControllerRef]], None],
        host: Callable[[Shell], Awaitable[None]],
    ) -> None:
        """Watch until cancelled. All that it needs of the shell is given to it: ``spawn`` keeps a
        task, and ends the process if the task fails. ``lock`` gives the lock of a number: one write
        at a time goes to it. ``count`` counts, for /metrics, what has become of an override.
        ``fleet_seen`` hears which controllers there are, and ``host`` serves a shell."""
        self._lock, self._count, self._host = lock, count, host
        for orphan in self._orphans.add(self._left, self._present):
            spawn(self._take_over(orphan))
        while True:
            await self._ops.sleep(EVERY)
            known = {orphan.stack for orphan in self._orphans.found} | {self._ops.stack}
            try:
                found = await self._stacks.silent(known)
            except JournalError as error:
                log.debug("other stacks are not looked at now: %s", error)
                continue
            fleet_seen(refs(self._stacks.fleet))
            for orphan in self._orphans.add(found, self._present):
                log.warning("stack %s is silent", orphan.stack)
                spawn(self._take_over(orphan))

    async def _take_over(self, orphan: Orphan) -> None:
        """All of one stack, until nothing of it is left. An error ends our try alone: the stack is
        looked at again, by us or by another controller."""
        try:
            ops = await orphan.take(self._ops)
            if ops is not None and orphan.fleet:
                await self._host(await self._run(ops))
            elif ops is not None:
                await self._put_back(orphan, ops)
        except JournalError as error:
            log.error("stack %s: %s", orphan.stack, error)
        if self._ops.hurried.is_set():
            return  # we end, and the exit status needs its journal open to see what is left
        await orphan.close()
        self._orphans.drop(orphan)

    async def _put_back(self, orphan: Orphan, ops: Operations) -> None:
        """Put the numbers of a stack back and hang its calls up, all at once.

        A session of ours that wants one of its numbers need not wait: whoever comes to the number
        first opens its seal, and the other one finds another's override. A number that Twilio does
        not take back holds up no other one.
        """
        rows = await ops.journal.open_overrides()
        restored = (self._restored(ops, row) for row in rows)
        await asyncio.gather(orphan.hang_up_left(self._ops), *restored)

    async def _restored(self, ops: Operations, row: OverrideRow) -> None:
        async with self._lock(row.number):
            self._count(f"overrides {await restore(ops, row)}")


def refs(fleet: Iterable[tuple[str, str]]) -> list[m.ControllerRef]:
    """The fleet, for peers."""
    return [m.ControllerRef(stack=stack, bus=bus) for stack, bus in fleet]
