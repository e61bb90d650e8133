"""``trunkline restore``: without a stack, numbers are put back and calls that were left hung up.

From the journals of stacks that are gone and, with ``--account``, from the marks that the account's
numbers carry. What a live stack holds is left alone: its lock is held, or it answers at its public
URL.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from dataclasses import dataclass, field
from typing import Final

from trunkline.bus.process import EXIT_DONE, EXIT_PENDING
from trunkline.bus.redact import mask_url, redact_number
from trunkline.bus.settings import Settings

from . import marks, state_dir
from .carrier import RestFailure, TwilioCarrier
from .journal import DialRow, OverrideRow, SqliteJournal, peek
from .journal_file import JournalError
from .marks import Mark, MarkKeys
from .memory_journal import MemoryJournal
from .numbers import NumberSettings
from .overrides import Workshop, lives
from .probe import Prober
from .restore import restore
from .state_dir import StackDir
from .work import hang_up_left

#: How long one number, or one call, is tried before it is said to be pending.
COMMAND_WITHIN: Final = 90.0


async def restore_command(
    settings: Settings, *, dry_run: bool, account: bool, force: bool
) -> tuple[int, list[str]]:
    """Returns the exit status (0 done, 3 something is still to be restored) and the lines to show.

    ``account``: from the marks too; with ``force`` also those of a stack that lives. Errors:
    SettingsError, CarrierError (the account could not be listed).
    """
    account_sid = settings.require("account_sid")
    token = settings.require("auth_token")
    carrier = TwilioCarrier.of(settings)
    prober = Prober(settings.state_path, _holder())
    shop = Workshop(
        stack="",
        public_url=settings.public_url or "",
        carrier=carrier,
        journal=MemoryJournal(),
        keys=MarkKeys(token, settings.auth_token_secondary.get_secret_value()),
        wall=time.time,
        probe=prober,
    )
    run = RestoreRun(shop, dry_run)
    try:
        await run.journals(settings, account_sid)
        if account:
            await run.marks(force)
    finally:
        carrier.close()
        prober.close()
    return (EXIT_PENDING if run.pending else EXIT_DONE), run.lines


def _holder() -> str:
    """How this command names itself in the locks that it holds."""
    return f"trunkline restore (pid {os.getpid()})"


@dataclass
class RestoreRun:
    """One run of the command. ``lines``: what it has to say; ``pending``: something is still to be
    restored; ``live``: ids of stacks on this machine whose lock is held."""

    shop: Workshop
    dry_run: bool
    lines: list[str] = field(default_factory=list)
    pending: bool = False
    live: set[str] = field(default_factory=set)

    def _still(self, line: str) -> None:
        self.lines.append(line)
        self.pending = True

    # ------------------------------------------------------------------ from the journals

    async def journals(self, settings: Settings, account: str) -> None:
        """What stacks that are gone have left in their journals."""
        gone, live = state_dir.others(settings.state_path, account, _holder())
        for stack in live:
            self.live.add(stack.path.name)
            try:
                rows, _ = peek(stack.journal)
            except JournalError as error:
                self._still(str(error))
                continue
            if rows:
                numbers = ", ".join(redact_number(row.number) for row in rows)
                self._still(
                    f"{stack.holder or 'a live stack'} uses {numbers}: left alone; end it to put "
                    "them back"
                )
        for found in gone:
            try:
                await self._journal(found, account)
            except JournalError as error:
                self._still(str(error))
            finally:
                found.release()

    async def _journal(self, stack: StackDir, account: str) -> None:
        journal = await SqliteJournal.open(stack.journal, account=account, stack=stack.id)
        try:
            shop = dataclasses.replace(self.shop, stack=stack.id, journal=journal, pending={})
            overrides, dials = await journal.open_overrides(), await journal.open_dials()
            await asyncio.gather(
                *(self._put_back(shop, row) for row in overrides),
                *(self._hang_up(shop, row) for row in dials),
            )
        finally:
            await journal.close()

    async def _put_back(self, shop: Workshop, row: OverrideRow) -> None:
        shown = redact_number(row.number)
        before = mask_url((row.prior or {}).get("voice_url")) or "(none)"
        if self.dry_run:
            self._still(f"{shown}: would be put back to {before}")
            return
        try:
            async with asyncio.timeout(COMMAND_WITHIN):
                outcome = await restore(shop, row)
        except TimeoutError:
            why = shop.pending.get(row.id, "no answer in time")
            self._still(f"{shown}: not restored yet ({why}); run this again")
            return
        if outcome == "restored":
            self.lines.append(f"{shown}: put back to {before}")
        else:
            self.lines.append(f"{shown}: changed by someone else meanwhile; left as it is")

    async def _hang_up(self, shop: Workshop, row: DialRow) -> None:
        what = f"a call from {redact_number(row.caller)} to {redact_number(row.callee)}"
        if self.dry_run:
            self._still(f"{what} would be hung up")
            return
        try:
            async with asyncio.timeout(COMMAND_WITHIN):
                await hang_up_left(shop, row)
        except TimeoutError:
            self._still(f"{what}: not hung up yet; run this again")

    # ------------------------------------------------------------------ from the marks

    async def marks(self, force: bool) -> None:
        """What the account's numbers themselves say that they were before."""
        try:
            numbers = await self.shop.carrier.list_numbers()
        except RestFailure as failure:
            raise failure.error("list the account's numbers") from failure
        found = []
        for number in numbers:
            mark = marks.read(number.voice_url)
            if mark is None:
                continue
            prior = self.shop.keys.prior(mark, number.number)
            if prior is None:
                self._still(
                    f"{redact_number(number.number)}: its override was made with another auth "
                    "token; set TWILIO_AUTH_TOKEN_SECONDARY to that one"
                )
            else:
                found.append((number, mark, prior))
        alive = set() if force else await self._alive({mark for _, mark, _ in found})
        rows = []
        for number, mark, prior in found:
            if mark.stack in alive:
                self._still(
                    f"{redact_number(number.number)}: in use by stack {mark.stack}, which lives: "
                    "left alone (--force takes it)"
                )
                continue
            row = _row(number, mark, prior)
            await self.shop.journal.plan(row, self.shop.wall())
            await self.shop.journal.intend(
                row.id, row.prior or {}, row.written or {}, self.shop.wall()
            )
            rows.append(row)
        await asyncio.gather(*(self._put_back(self.shop, row) for row in rows))

    async def _alive(self, found: set[Mark]) -> set[str]:
        """The stacks of these marks that live: their lock is held here, or they answer."""
        asked = sorted({(mark.base, mark.stack) for mark in found if mark.stack not in self.live})
        answers = await asyncio.gather(*(lives(self.shop, base, stack) for base, stack in asked))
        answering = {stack for (_, stack), yes in zip(asked, answers, strict=True) if yes}
        return self.live | answering


def _row(number: NumberSettings, mark: Mark, prior: dict[str, str]) -> OverrideRow:
    """The override that a mark describes: what we wrote follows from what we kept."""
    written = {"voice_url": number.voice_url, "voice_method": "POST"}
    if "voice_fallback_url" in prior:
        written["voice_fallback_url"] = prior["voice_url"]
        written["voice_fallback_method"] = prior["voice_method"] or "POST"
    written |= {name: "" for name in ("voice_application_sid", "trunk_sid") if name in prior}
    if "voice_receive_mode" in prior:
        written["voice_receive_mode"] = "voice"
    return OverrideRow(
        id=mark.override,
        number=number.number,
        number_sid=number.sid,
        session="",
        state="applied",
        prior=number.fields | prior,
        written=written,
    )
