"""Orphans: journals around our state directory whose stacks are gone, with rows still open.

A test that runs without a stack starts a private one. If everything of it is killed at once, nobody
is left to put its number back. The next controller of the same user and account does it.

In PostgreSQL these are the stacks of other machines too, and their lease takes the lock's place.

A stack is gone when its lock is free and none of its gateways answers at its public URL. The lock
alone does not tell: while a controller is being started again by its keeper the lock is free, and
taking its journal then would hang up calls that go on. We take the journal of a stack that is gone.
It is ours from then on: its numbers are put back, and the calls of its dials are hung up.

For example, ``pytest`` was killed with everything below it. Its private stack's directory lies in
``<state dir>/private/``, with a free lock and one override in the state "applied". The next
controller of this user finds it at its start, asks at the public URL that the override's own seal
names, hears nothing, locks the directory, and puts the number back. A start that comes more than a
minute later removes the directory.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from trunkline.bus.errors import SettingsError

from ..twilio.operations import Operations, hang_up_left, stop_left
from ..twilio.seal import Seal
from . import state_dir
from .database import DatabaseAwayError, JournalError, StackHeldError
from .places import Left, LeftInFile
from .rows import OverrideRow
from .state_dir import StackDir
from .store import Journal, peek

log = logging.getLogger("trunkline.controller")

#: A stack whose gateways answer has this long to come back (seconds). A keeper starts a controller
#: again within a second or two; a machine that is busy may need some more.
COMES_BACK_WITHIN: Final = 15.0
ASK_EVERY: Final = 2.0
#: How often a stack that may live is looked at while we wait for a sign of it (seconds).
LOOK_EVERY: Final = 2.5
#: A database that lets nobody look is waited for so long (seconds).
LOOKS_WITHIN: Final = 30.0
#: A stack whose public URL we do not know cannot be asked, so it just gets so many seconds.
COMES_BACK_SOON: Final = 5.0
#: The journal of a private stack that left nothing open is deleted so many seconds after the last
#: write to it. Sooner, it might be that of a stack with nothing open whose keeper is just starting
#: its controller again.
KEPT: Final = 60.0

#: ``present(base, stack)``: a gateway at ``base`` (a public URL) says that it is one of ``stack``,
#: whether it hears its controller or not (:meth:`..twilio.probe.Prober.present`).
Present = Callable[[str, str], Awaitable[bool]]


def clear_away(stack: StackDir) -> None:
    """Remove the state directory of a private stack, which leaves nothing open. Its lock is ours;
    no later stack has the same directory."""
    if stack.private_root is not None:
        shutil.rmtree(stack.private_root, ignore_errors=True)


async def watch(left: Left, ops: Operations) -> bool:
    """Watch a stack that may live for as long as one that lives is never silent; True: it is dead.
    False: we end before that is known. StackHeldError: it lives. DatabaseAwayError: nobody can look
    for a long time.

    While the database is away no stack can show itself. So the time before a look that comes late
    does not count.
    """
    since = looked_at = ops.clock()
    silent_for = 0.0
    while silent_for < left.silent_for:
        await ops.pause(LOOK_EVERY)
        if ops.hurried.is_set():
            return False
        try:
            await left.look()
        except DatabaseAwayError:
            if ops.clock() - looked_at > LOOKS_WITHIN:
                raise
            continue
        now = ops.clock()
        if now - looked_at > left.silent_for / 2:
            since = now
        looked_at, silent_for = now, now - since
    return True


class Orphan:
    """A stack of the account that seemed to be gone when we looked. ``rows``: its open overrides,
    as they were then; what is done goes by the journal, once that is ours. ``fleet``: another
    controller may run the stack, so that its sessions and calls go on."""

    def __init__(self, left: Left, present: Present) -> None:
        self.stack = left.stack
        self.rows = left.rows.overrides
        self.fleet = left.fleet
        self._left = left
        self._present = present
        self.journal: Journal | None = None
        self._taking: asyncio.Task[Operations | None] | None = None

    async def take(self, ops: Operations) -> Operations | None:
        """``ops`` with the stack's journal; None: the stack lives, or its journal cannot be used.

        Each of its numbers asks for this, and its dials do too. All get the one answer. The task is
        shielded, so one of them that is cancelled does not cancel it for the others.
        """
        if self._taking is None:
            self._taking = asyncio.get_running_loop().create_task(self._take(ops))
        try:
            return await asyncio.shield(self._taking)
        except StackHeldError as error:
            log.info("stack %s lives again (%s)", self.stack, error.holder)
            return None
        except (JournalError, SettingsError) as error:
            log.error("%s", error)
            return None

    async def _take(self, ops: Operations) -> Operations | None:
        """Give the stack time to come back, and take its journal if it does not. A controller that
        its keeper is just starting again must find its numbers as it left them.

        A lock that is taken meanwhile comes out as StackHeldError of ``open``. In a database there
        is no lock to try, so a stack is watched for ``silent_for`` seconds, and then asked a last
        time: one that only lost the database still answers its calls. If the database goes away
        before the journal is taken, the stack is watched once more.
        """
        stack = self.stack
        rows = [ops.opened(row) for row in self.rows]
        seals = [Seal.read((row.written or {}).get("voice_url", "")) for row in rows]
        bases = {seal.base for seal in seals if seal is not None}
        if self.fleet:
            bases.add(ops.public_url)
        if not bases:
            # Nobody can be asked. Give a keeper time to start the controller again.
            await ops.pause(COMES_BACK_SOON)
        until = ops.clock() + COMES_BACK_WITHIN
        while ops.clock() < until and not ops.hurried.is_set():
            if not any(
                await asyncio.gather(*(self._present(base, stack) for base in sorted(bases)))
            ):
                break
            await ops.pause(ASK_EVERY)
        while self.journal is None:
            if not await watch(self._left, ops):
                return None
            if self._left.on_a_network and any(
                await asyncio.gather(*(ops.probe(base, stack) for base in sorted(bases)))
            ):
                log.info("stack %s lives, and is cut off from the database: it is let be", stack)
                return None
            try:
                self.journal = await self._left.open()
            except DatabaseAwayError:
                if not self._left.silent_for:
                    raise
        return dataclasses.replace(ops, stack=stack, journal=self.journal)

    async def hang_up_left(self, ops: Operations) -> None:
        """Hang up the calls of the stack's dials, which nobody can claim, and stop streams that
        nobody hears. Nothing is done where the stack lives. The shell starts one of these for each
        orphan; numbers go through the core, because a session of ours may want one of them."""
        taken = await self.take(ops)
        if taken is not None:
            rows = await taken.journal.open_rows()
            await asyncio.gather(
                *(hang_up_left(taken, dial) for dial in rows.dials),
                *(stop_left(taken, row) for row in rows.listening),
            )

    async def give_up(self, within: float) -> None:
        """The process ends. A take that is under way is given up, and a journal waits for its
        database no longer than that (seconds)."""
        await self._take_no_more()
        if self.journal is not None:
            await self.journal.give_up(within)

    async def _take_no_more(self) -> None:
        if self._taking is not None and not self._taking.done():
            self._taking.cancel()
            await asyncio.wait({self._taking})

    async def close(self) -> None:
        """Give up a take that is under way, and let go of the journal and then of its lock."""
        await self._take_no_more()
        if self.journal is not None:
            await self.journal.close()
        self._left.release()


class Orphans:
    """All orphans, whether they were found at the start or later, and whose each open override
    is."""

    def __init__(self, found: Sequence[Orphan] = ()) -> None:
        self.found = found
        self._of = {row.id: orphan for orphan in found for row in orphan.rows}

    @classmethod
    def find(cls, directory: Path, account: str, holder: str, present: Present) -> Orphans:
        """Look around ``directory``, the state directory; nothing is taken yet. Journals that
        cannot be read are logged. A private stack that left nothing is cleared away.

        A lock is held only while its journal is looked at: a keeper may be starting that very stack
        again, and must get it.
        """
        found = []
        gone, _ = state_dir.others(directory, account, holder)
        for stack in gone:
            try:
                rows = peek(stack.journal)
                for row in rows.unreadable:
                    log.error("%s", row.text(stack.journal))
                if rows.overrides or rows.dials or rows.listening:
                    left = LeftInFile(stack.path, rows, account, holder)
                    found.append(Orphan(left, present))
                elif not rows.unreadable and time.time() - stack.journal.stat().st_mtime > KEPT:
                    clear_away(stack)
            except JournalError as error:
                log.error("%s", error)
            finally:
                stack.release()
        return cls(found)

    def add(self, left: Sequence[Left], present: Present) -> list[Orphan]:
        """Add stacks that a database shows; returns those that have anything to be done. A stack of
        the fleet counts even without open rows, because its clients look for it."""
        added = []
        for stack in left:
            for row in stack.rows.unreadable:
                log.error("%s", row.text(f"stack {stack.stack}"))
            if stack.fleet or stack.rows.overrides or stack.rows.dials or stack.rows.listening:
                orphan = Orphan(stack, present)
                added.append(orphan)
                self._of |= {row.id: orphan for row in orphan.rows}
        self.found = [*self.found, *added]
        return added

    def drop(self, orphan: Orphan) -> None:
        """The stack is put back, or lives. If it falls silent once more, it is another orphan."""
        self.found = [other for other in self.found if other is not orphan]
        self._of = {row: other for row, other in self._of.items() if other is not orphan}

    @property
    def rows(self) -> list[OverrideRow]:
        """Open overrides of all of them. A new core begins with these as leases to be put back."""
        return [row for orphan in self.found for row in orphan.rows]

    def of(self, override: str) -> Orphan | None:
        """Whose override this is; None: it is our own."""
        return self._of.get(override)

    async def open_overrides(self) -> list[OverrideRow]:
        """The open overrides of the stacks that were taken: they count for our exit status. Those
        of stacks that were not taken are not ours to speak of."""
        pending = []
        for orphan in self.found:
            if orphan.journal is not None:
                pending += await orphan.journal.open_overrides()
        return pending

    async def give_up(self, within: float) -> None:
        """The process ends: each as :meth:`Orphan.give_up`."""
        for orphan in self.found:
            await orphan.give_up(within)

    async def close(self) -> None:
        """All at once: each needs some of the end's time if the database is away."""
        await asyncio.gather(*(orphan.close() for orphan in self.found))
