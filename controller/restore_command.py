"""``trunkline restore``: without a stack, numbers are put back and calls that were left hung up.

There are two sources of the prior settings. The journals of stacks that are gone have all of them,
but only on the machine where the stacks ran. With ``--account`` the seals on the account's numbers
are read too, for instance on a laptop after the CI runner that made the override was thrown away.

The numbers of a live stack are left alone, because to take them would end the calls of somebody's
tests. A stack lives if its lock is held, if its beat in the database moves, or if it answers at its
public URL.

A run prints a line for each number and call, for example::

    ***1234: put back to https://me:***@agent.example.com/voice
    ***5678: changed by someone else meanwhile; left as it is
    a call from ***1234 to ***7777: not hung up yet; run this again

The status is 3 as soon as one line says that something is left, so that a script can repeat the
command. With ``--dry-run`` nothing is written, and each thing that would be done is such a line.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from dataclasses import dataclass, field
from typing import Final

from trunkline.bus.errors import SettingsError
from trunkline.bus.process import EXIT_DONE, EXIT_PENDING
from trunkline.bus.redact import mask_url, redact_number
from trunkline.bus.settings import Settings

from .journal import places, state_dir
from .journal.database import JournalError, StackHeldError
from .journal.file import IN_MEMORY
from .journal.orphans import watch
from .journal.places import Left
from .journal.rows import DialRow, ListeningRow, OverrideRow
from .journal.state_dir import StackDir
from .journal.store import Journal, peek
from .twilio.apply_restore import restore
from .twilio.carrier import TwilioCarrier
from .twilio.operations import Operations, hang_up_left, stop_left
from .twilio.probe import Prober
from .twilio.seal import Seal
from .twilio.sealed import journal_seal, sealed_numbers

#: How long one number, or one call, is tried before it is said to be pending (seconds). A write may
#: be in doubt for 60 s, so one lost answer does not make its number pending.
COMMAND_WITHIN: Final = 90.0


async def restore_command(
    settings: Settings, *, dry_run: bool, account: bool, force: bool
) -> tuple[int, list[str]]:
    """Returns the exit status (0 done, 3 something is still to be restored) and the lines to show.

    ``account``: from the seals too; with ``force`` also those of a stack that lives. Errors:
    SettingsError, CarrierError (the account could not be listed).
    """
    account_sid = settings.require("account_sid")
    if settings.state_dir is not None:  # the default one need not be there, and nothing makes it
        state_dir.check_writable(settings.state_dir)
    carrier = TwilioCarrier.of(settings)
    prober = Prober(settings.state_path, _holder())
    seals = await Journal.in_file(IN_MEMORY, account=account_sid, stack="")
    run = RestoreRun(Operations.of(settings, "", carrier, seals, prober), dry_run, force)
    try:
        await run.journals(settings, account_sid)
        await run.database(settings, account_sid)
        if account:
            await run.seals()
    finally:
        carrier.close()
        prober.close()
        await seals.close()
    return (EXIT_PENDING if run.pending else EXIT_DONE), run.lines


def _holder() -> str:
    """How this command names itself in the locks that it holds. A controller that starts meanwhile
    sees it there, and takes another stack of its directory."""
    return f"trunkline restore (pid {os.getpid()})"


@dataclass
class RestoreRun:
    """One run of the command. ``force``: the numbers of live stacks are taken by their seals;
    ``lines``: its output; ``pending``: something is still to be restored; ``live``: ids of stacks
    whose lock is held on this machine, or whose beat in the database moves."""

    ops: Operations
    dry_run: bool
    force: bool = False
    lines: list[str] = field(default_factory=list)
    pending: bool = False
    live: set[str] = field(default_factory=set)

    def _still(self, line: str) -> None:
        """Print the line, and end with the status that says that something is left to do."""
        self.lines.append(line)
        self.pending = True

    # ------------------------------------------------------------------ from the journals

    async def journals(self, settings: Settings, account: str) -> None:
        """Put back, and hang up, by the journals of stacks that are gone. A journal that cannot be
        read is named, and costs no other stack its turn. Live stacks are only listed."""
        gone, live = state_dir.others(settings.state_path, account, _holder())
        for stack in live:
            self.live.add(stack.path.name)
            try:
                rows = peek(stack.journal).overrides
            except JournalError as error:
                self._still(str(error))
                continue
            self._in_use(stack.holder, rows)
        for found in gone:
            try:
                await self._journal(found, account)
            except JournalError as error:
                self._still(str(error))
            finally:
                found.release()

    async def database(self, settings: Settings, account: str) -> None:
        """The same by the rows that stacks have in PostgreSQL, wherever these ran. All are waited
        for at once, because each may take the 10 s in which a live stack would show itself."""
        stacks = places.register(settings, account, _holder())
        if stacks is not None:
            try:
                found = await stacks.left(but="")
            except JournalError as error:
                self._still(str(error))
            else:
                await asyncio.gather(*(self._in_database(left) for left in found))

    async def _in_database(self, left: Left) -> None:
        """Put back, and hang up, by the rows of one stack in PostgreSQL. First watch it for longer
        than a live stack is ever silent. If its beat moves meanwhile, its numbers are left alone.
        """
        try:
            await watch(left, self.ops)  # to its end: this command is never hurried
            if self.dry_run:
                await self._looked_at(left)
            else:
                await self._with(await left.open(), left.stack)
        except StackHeldError as error:
            self.live.add(left.stack)
            self._in_use(error.holder, left.rows.overrides)
        except JournalError as error:
            self._still(str(error))

    async def _looked_at(self, left: Left) -> None:
        """Say what would be done, for ``--dry-run``. The stack is not taken: that would end its
        controller if it only stands still."""
        for row in left.rows.unreadable:
            self._still(row.text(f"stack {left.stack}"))
        await asyncio.gather(
            *(self._put_back(self.ops, row) for row in left.rows.overrides),
            *(self._hang_up(self.ops, row) for row in left.rows.dials),
            *(self._stop(self.ops, row) for row in left.rows.listening),
        )

    def _in_use(self, holder: str, rows: list[OverrideRow]) -> None:
        """Name the numbers of a stack that lives. A stack without any needs no line. With ``force``
        the seals say what becomes of each number."""
        if rows and not self.force:
            numbers = ", ".join(redact_number(row.number) for row in rows)
            self._still(
                f"{holder or 'a live stack'} uses {numbers}: left alone; end it to put them back"
            )

    async def _journal(self, stack: StackDir, account: str) -> None:
        """One stack that is gone: its lock is ours while we are at it."""
        await self._with(
            await Journal.in_file(stack.journal, account=account, stack=stack.id), stack.id
        )

    async def _with(self, journal: Journal, stack: str) -> None:
        """Put back, hang up and stop all that this journal has open, then close it. All at once: a
        number that Twilio refuses must not hold up the others for 90 s each."""
        try:
            ops = dataclasses.replace(self.ops, stack=stack, journal=journal)
            open_rows = await journal.open_rows()
            for row in open_rows.unreadable:
                self._still(row.text(journal.name))
            await asyncio.gather(
                *(self._put_back(ops, row) for row in open_rows.overrides),
                *(self._hang_up(ops, row) for row in open_rows.dials),
                *(self._stop(ops, row) for row in open_rows.listening),
            )
        finally:
            await journal.close()

    async def _put_back(self, ops: Operations, row: OverrideRow) -> None:
        """One number, within a time after which a person may as well try again. ``why`` collects
        the reasons of the pauses, so that the line can name the last one."""
        shown = redact_number(row.number)
        before = mask_url((row.prior or {}).get("voice_url")) or "(none)"
        try:
            ops.opened(row)
        except SettingsError as error:
            self._still(str(error))
            return
        if self.dry_run:
            self._still(f"{shown}: would be put back to {before}")
            return
        why = ["no answer in time"]
        try:
            async with asyncio.timeout(COMMAND_WITHIN):
                outcome = await restore(ops, row, why.append)
        except TimeoutError:
            self._still(f"{shown}: not restored yet ({why[-1]}); run this again")
            return
        if outcome == "restored":
            self.lines.append(f"{shown}: put back to {before}")
        else:
            self.lines.append(f"{shown}: changed by someone else meanwhile; left as it is")

    async def _hang_up(self, ops: Operations, row: DialRow) -> None:
        """One call that a dial of that stack may have become."""
        what = f"a call from {redact_number(row.caller)} to {redact_number(row.callee)}"
        if self.dry_run:
            self._still(f"{what} would be hung up")
            return
        try:
            async with asyncio.timeout(COMMAND_WITHIN):
                await hang_up_left(ops, row)
        except TimeoutError:
            self._still(f"{what}: not hung up yet; run this again")

    async def _stop(self, ops: Operations, row: ListeningRow) -> None:
        """The stream by which that stack listened to somebody's call."""
        if self.dry_run:
            self._still(f"a stream of call {row.sid} would be stopped")
            return
        try:
            async with asyncio.timeout(COMMAND_WITHIN):
                await stop_left(ops, row)
        except TimeoutError:
            self._still(f"a stream of call {row.sid}: not stopped yet; run this again")

    # ------------------------------------------------------------------ from the seals

    async def seals(self) -> None:
        """Put back by the seals that the account's numbers carry.

        Each seal becomes a row of a journal in memory, so that a number is put back by the same
        path, with the same comparison, as from a file.
        """
        found = []
        for sealed in await sealed_numbers(self.ops):
            if sealed.prior is None:
                self._still(
                    f"{redact_number(sealed.number.number)}: its override was made with another "
                    "auth token; set TWILIO_AUTH_TOKEN_SECONDARY to that one"
                )
            else:
                found.append(sealed)
        alive = set() if self.force else await self._alive({sealed.seal for sealed in found})
        rows = []
        for sealed in found:
            if sealed.seal.stack in alive:
                self._still(
                    f"{redact_number(sealed.number.number)}: in use by stack {sealed.seal.stack}, "
                    "which lives: left alone (--force takes it)"
                )
            else:
                rows.append(await journal_seal(self.ops, sealed))
        await asyncio.gather(*(self._put_back(self.ops, row) for row in rows))

    async def _alive(self, found: set[Seal]) -> set[str]:
        """The stacks of these seals that live: their lock is held here, or they answer.

        A stack with a free lock may still live, on another machine.
        """
        asked = sorted({(seal.base, seal.stack) for seal in found if seal.stack not in self.live})
        answers = await asyncio.gather(*(self.ops.lives(base, stack) for base, stack in asked))
        answering = {stack for (_, stack), yes in zip(asked, answers, strict=True) if yes}
        return self.live | answering
