"""Putting numbers back. One path for a closed session, a lost lease, a start, SIGTERM and
``trunkline restore``.

Compare, then restore: only what is still ours is written, field by field; what someone else changed
is left alone and reported. A read that failed never leads to a write. A write that may still take
effect is looked for until it can no more (60 s). Whatever fails is tried again, with back-off and
Retry-After, until it succeeds; until then it is pending.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from trunkline.bus.process import EXIT_DONE, EXIT_PENDING
from trunkline.bus.redact import mask_url, redact_number
from trunkline.bus.settings import Settings

from . import marks, state_dir
from .carrier import RestFailure, TwilioCarrier, backoff
from .journal import OverrideRow, SqliteJournal
from .marks import Mark, MarkKeys
from .memory_journal import MemoryJournal
from .numbers import NumberSettings
from .overrides import UNCERTAIN_SECONDS, Workshop, is_ours, lives
from .probe import Prober

log = logging.getLogger("trunkline.controller")

Outcome = Literal["restored", "left_alone"]

#: How often a number is read again while a late write may come.
REREAD_EVERY: Final = 5.0
#: How long ``trunkline restore`` tries on one number before it says that it is pending.
COMMAND_WITHIN: Final = 90.0


async def restore(shop: Workshop, row: OverrideRow) -> Outcome:
    """Put the number of ``row`` back and close the row; returns when that has succeeded.

    While it goes on ``shop.pending`` says what it waits for.
    """
    shop.faults("restore.before-intent")
    if row.prior is None:
        # Planned, and nothing was written.
        return await _close(shop, row, "restored")
    now = shop.wall()
    late = row.uncertain_until
    if row.state != "applied":
        # A write of ours was under way: its effect may still come.
        late = max(late, now + UNCERTAIN_SECONDS) if row.state == "planned" else late
    shop.pending[row.id] = "being restored"
    try:
        await shop.journal.set_state(row.id, "restoring", now, late)
        shop.faults("restore.intent")
        outcome = await _until_back(shop, row, late)
        return await _close(shop, row, outcome)
    finally:
        shop.pending.pop(row.id, None)


async def _until_back(shop: Workshop, row: OverrideRow, late: float) -> Outcome:
    """Read, compare, write, until the number is back.

    ``late``: until then a write of the override may take effect (OverrideRow.uncertain_until);
    ``loose``: until then one of the restore's own may. A read that shows the one write that had no
    answer in place settles that.
    """
    assert row.prior is not None
    shown = redact_number(row.number)
    attempt = 0
    unanswered, loose = 0, 0.0
    writing = False
    while True:
        try:
            writing = False
            found = await shop.carrier.read_number(row.number_sid)
            if await stands(shop, row, found):
                writing = True
                await shop.carrier.write_number(row.number_sid, back(row, found))
                writing = False
                shop.faults("restore.answered")
                if max(late, loose) <= shop.wall():
                    return "restored"
                unanswered += 1 if unanswered else 0  # which of them landed is not known any more
            else:
                as_before = found.voice_url == row.prior["voice_url"]
                if as_before and unanswered == 1:
                    unanswered, loose = 0, 0.0
                if max(late, loose) <= shop.wall():
                    if as_before:
                        return "restored"
                    log.warning(
                        "number %s was changed by someone else meanwhile; it is left as it is",
                        shown,
                    )
                    return "left_alone"
            shop.pending[row.id] = "an earlier write may still take effect; reading again"
            await shop.rest(min(REREAD_EVERY, max(0.1, max(late, loose) - shop.wall())))
        except RestFailure as failure:
            if failure.gone:
                log.warning("number %s is not on the account any more", shown)
                return "left_alone"
            attempt += 1
            if writing and failure.uncertain:
                unanswered += 1
                loose = shop.wall() + UNCERTAIN_SECONDS
                await shop.journal.set_state(row.id, "restoring", shop.wall(), max(late, loose))
            shop.pending[row.id] = str(failure.error("restore the number"))
            wait = backoff(attempt, failure)
            log.error(
                "number %s is not restored yet (%s); again in %.2g s", shown, failure.text, wait
            )
            await shop.rest(wait)


async def stands(shop: Workshop, row: OverrideRow, found: NumberSettings) -> bool:
    """True where the override of ``row``, or an earlier one of this stack, is on the number.

    An earlier one can be there: a write of it took effect late. It is on our own journal, and its
    holder is gone, so it is ours to undo too.
    """
    if is_ours(found.voice_url, row.id):
        return True
    mark = marks.read(found.voice_url)
    if mark is None or mark.stack != shop.stack:
        return False
    other = await shop.journal.override(mark.override)
    return other is not None and not other.open and other.number == row.number


def back(row: OverrideRow, found: NumberSettings) -> dict[str, str]:
    """What to write: each field that still has our value gets its prior one.

    A field that someone else changed, while our voice_url stood there, keeps their value.
    """
    assert row.prior is not None and row.written is not None
    fields = {"voice_url": row.prior["voice_url"]}
    for name, value in row.written.items():
        if name != "voice_url" and found.fields[name] == value and row.prior[name] != value:
            fields[name] = row.prior[name]
    return fields


async def _close(shop: Workshop, row: OverrideRow, outcome: Outcome) -> Outcome:
    await shop.journal.set_state(row.id, outcome, shop.wall())
    shop.faults("restore.committed")
    if row.prior is not None and outcome == "restored":
        log.info("number %s is as it was before", redact_number(row.number))
    return outcome


# --------------------------------------------------------------------------- without a stack


@dataclass
class _Report:
    """What ``restore_command`` says. ``pending``: something is still to be restored."""

    lines: list[str]
    pending: bool = False


async def restore_command(
    settings: Settings, *, dry_run: bool, account: bool, force: bool
) -> tuple[int, list[str]]:
    """``trunkline restore``: put numbers back from the journals of stacks that are gone, and with
    ``account`` from the marks that the account's numbers carry.

    Returns the exit status (0 done, 3 something is still to be restored) and the lines to show.
    What a live stack holds is left alone, unless ``account`` comes with ``force``. Errors:
    SettingsError, JournalError, CarrierError (the account could not be listed).
    """
    account_sid = settings.require("account_sid")
    token = settings.require("auth_token")
    secondary = settings.auth_token_secondary.get_secret_value()
    carrier = TwilioCarrier(account_sid, token, settings.twilio_api_url)
    prober = Prober()
    shop = Workshop(
        stack="",
        public_url=settings.public_url or "",
        carrier=carrier,
        journal=MemoryJournal(),
        keys=MarkKeys(token, secondary),
        wall=time.time,
        probe=prober,
    )
    report = _Report([])
    try:
        await _from_journals(shop, settings, account_sid, dry_run, report)
        if account:
            await _from_marks(shop, dry_run, force, report)
    finally:
        carrier.close()
        prober.close()
    return (EXIT_PENDING if report.pending else EXIT_DONE), report.lines


async def _from_journals(
    shop: Workshop, settings: Settings, account: str, dry_run: bool, report: _Report
) -> None:
    holder = f"trunkline restore (pid {os.getpid()})"
    gone, live = state_dir.others(settings.state_dir, account, holder)
    for stack in live:
        rows = await _peek(stack.journal, account, stack.path.name)
        if rows:
            numbers = ", ".join(redact_number(row.number) for row in rows)
            report.lines.append(
                f"{stack.holder or 'a live stack'} uses {numbers}: left alone; end it to put them back"
            )
            report.pending = True
    for found in gone:
        journal = await SqliteJournal.open(found.journal, account=account, stack=found.id)
        try:
            rows = await journal.open_overrides()
            of_stack = dataclasses.replace(shop, stack=found.id, journal=journal, pending={})
            await asyncio.gather(*(_restore_one(of_stack, row, dry_run, report) for row in rows))
        finally:
            await journal.close()
            found.release()


async def _peek(path: Path, account: str, stack: str) -> list[OverrideRow]:
    """The open rows of a live stack's journal (SQLite lets others read)."""
    journal = await SqliteJournal.open(path, account=account, stack=stack)
    try:
        return await journal.open_overrides()
    finally:
        await journal.close()


async def _from_marks(shop: Workshop, dry_run: bool, force: bool, report: _Report) -> None:
    try:
        numbers = await shop.carrier.list_numbers()
    except RestFailure as failure:
        raise failure.error("list the account's numbers") from failure
    found = []
    for number in numbers:
        mark = marks.read(number.voice_url)
        if mark is None:
            continue
        prior = shop.keys.prior(mark, number.number)
        if prior is None:
            report.lines.append(
                f"{redact_number(number.number)}: its override was made with another auth token; "
                "set TWILIO_AUTH_TOKEN_SECONDARY to that one"
            )
            report.pending = True
        else:
            found.append((number, mark, prior))
    stacks = {(mark.base, mark.stack) for _, mark, _ in found}
    if force:
        alive: set[tuple[str, str]] = set()
    else:
        answers = await asyncio.gather(*(lives(shop, base, stack) for base, stack in stacks))
        alive = {which for which, answer in zip(stacks, answers, strict=True) if answer}
    for number, mark, prior in found:
        if (mark.base, mark.stack) in alive:
            report.lines.append(
                f"{redact_number(number.number)}: in use by stack {mark.stack}, which answers at its "
                "public URL: left alone (--force takes it)"
            )
            report.pending = True
            continue
        row = _row(number, mark, prior)
        await shop.journal.plan(row, shop.wall())
        await shop.journal.intend(row.id, row.prior or {}, row.written or {}, shop.wall())
        await _restore_one(shop, row, dry_run, report)


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


async def _restore_one(shop: Workshop, row: OverrideRow, dry_run: bool, report: _Report) -> None:
    shown = redact_number(row.number)
    before = mask_url((row.prior or {}).get("voice_url")) or "(none)"
    if dry_run:
        report.lines.append(f"{shown}: would be put back to {before}")
        report.pending = True
        return
    try:
        async with asyncio.timeout(COMMAND_WITHIN):
            outcome = await restore(shop, row)
    except TimeoutError:
        why = shop.pending.get(row.id, "no answer in time")
        report.lines.append(f"{shown}: not restored yet ({why}); run this again")
        report.pending = True
        return
    if outcome == "restored":
        report.lines.append(f"{shown}: put back to {before}")
    else:
        report.lines.append(f"{shown}: changed by someone else meanwhile; left as it is")
