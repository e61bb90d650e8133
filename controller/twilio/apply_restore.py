"""Putting an override on a number and the number back: the one loop that carries out both.

:mod:`.override` decides each next step, and explains the doubt about a write without an answer.
Here stand the steps that take time. Each is written down before Twilio is touched::

    journal                         Twilio
    planned                         read: what is there?
    planned, with prior and ours    write ours
    applied

    restoring                       read: is it still ours?
    restoring, with until when      write the prior fields
    restored, or left alone

The process may die between any two of these, and tests/controller/test_every_step.py lets it. The
next one finds in the journal what may stand on the number, and goes on from there by the same path:
there is no other for a closed session, a lost lease, a start, SIGTERM or ``trunkline restore``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from msgspec.structs import replace

from trunkline.bus.errors import NumberBusyError, NumberNotFoundError, SettingsError, TrunklineError
from trunkline.bus.redact import redact_number

from .. import events as ev
from .. import instructions as do
from ..journal.rows import OverrideRow, OverrideState
from .carrier import RestFailure, backoff
from .number_settings import NumberSettings
from .operations import Operations
from .override import READ_HOLDS, Done, Event, Put, Read, Write, still_ours, what_to_write
from .seal import Seal, are_whole, without_passwords

log = logging.getLogger("trunkline.controller")

Outcome = Literal["restored", "left_alone"]


async def put_on(ops: Operations, asked: do.Apply) -> ev.Applied | ev.ApplyFailed:
    """Apply an override; says whether its row is still open after a failure."""
    try:
        return ev.Applied(await apply(ops, asked.row, asked.deadline))
    except TrunklineError as error:
        row = await ops.journal.override(asked.row.id)
        return ev.ApplyFailed(asked.row, error, open=row is not None and row.open)


async def apply(ops: Operations, row: OverrideRow, deadline: float) -> OverrideRow:
    """Journal ``row`` (planned), write our settings to its number, and return the applied row.

    A row that already has a prior was planned by an earlier controller, whose write may have
    landed, or may still land. It goes on under the same id, so that a late effect changes nothing.
    Errors: NumberBusyError, NumberRoutedElsewhereError, NumberNotFoundError, InvalidRequestError,
    CarrierError. After an error the row is closed, or, where a write may have taken effect, left
    open for a restore.
    """
    if row.prior is None:
        await ops.journal.plan(row, ops.wall())
    row = ops.opened(row)
    write = Write.of("apply", row, ops.wall(), ops.clock())
    errand = _Errand(ops, row, write, deadline)
    try:
        done = await errand.run()
    except TrunklineError:
        # If no write is in doubt, none has landed: an answered one would have ended the job. So
        # there is nothing to put back.
        if write.doubt == "none":
            await errand.close("restored")
        else:
            await errand.note("restoring", write.until)
        raise
    uncertain_until = await errand.note("applied", 0.0 if done.certain else write.until)
    log.info("number %s now calls us (override %s)", redact_number(row.number), row.id)
    return replace(errand.row, state="applied", uncertain_until=uncertain_until)


async def restore(
    ops: Operations, row: OverrideRow, waits: Callable[[str], None] = lambda why: None
) -> Outcome:
    """Put the number of ``row`` back and close the row; returns when that has succeeded.

    Whatever fails is tried again, for as long as it takes: a number that is left to us answers
    nobody once we are gone. ``waits`` hears before each pause why there is one.
    """
    try:
        row = ops.opened(row)
    except SettingsError as error:
        # The row's password was sealed with another token. Without that we would write a wrong
        # password, so wait: a start that is given the token goes on.
        log.error("%s", error)
        waits(str(error))
        await asyncio.Event().wait()
    write = Write.of("restore", row, ops.wall(), ops.clock())
    errand = _Errand(ops, row, write, waits=waits)
    outcome: Outcome = "restored"
    # A row without a prior was planned, and nothing was written.
    if row.prior is not None:
        # A start that finds this row goes on at once, and keeps the number for nobody.
        await errand.note("restoring", write.until)
        try:
            if (await errand.run()).left:
                outcome = "left_alone"
                errand.report_left()
        except NumberNotFoundError as gone:
            outcome = "left_alone"
            log.warning("%s", gone)
    await errand.close(outcome)
    if row.prior is not None and outcome == "restored":
        log.info("number %s is as it was before", redact_number(row.number))
    return outcome


@dataclass
class _Errand:
    """One job on its way: carries out what its :class:`Write` says, and tells it what came.

    ``deadline``: when an apply gives up; a restore never does. ``found``: the last read.
    ``over``: the fields that an apply planned to write over. They are not always the prior ones: a
    dead stack's override may have stood there. ``lates``: how often the journal took too long.
    """

    ops: Operations
    row: OverrideRow
    write: Write
    deadline: float = float("inf")
    waits: Callable[[str], None] = lambda why: None
    found: NumberSettings | None = None
    over: dict[str, str] | None = None
    lates: int = 0

    async def run(self) -> Done:
        """NumberNotFoundError where the number is gone; errors of an apply as :func:`apply`."""
        todo: Read | Put | Done = Read()
        failures = 0
        while not isinstance(todo, Done):
            event: Event = "unread" if isinstance(todo, Read) else "refused"
            try:
                if isinstance(todo, Read):
                    event = await self._read(todo)
                else:
                    event = await self._put(todo)
                todo = self.write.step(event, self.ops.clock())
            except RestFailure as failure:
                failures += 1
                if event == "refused" and failure.uncertain:
                    event = "lost"
                # The doubt has to be known before an apply gives up.
                todo = self.write.step(event, self.ops.clock())
                await self._failed(event, failure, backoff(failures, failure))
        return todo

    async def _read(self, read: Read) -> Event:
        """Read the number, and say whose voice_url it has.

        An apply does not count an earlier override of this stack as *ours*: :func:`_prior` looks up
        what that one replaced. A restore does, and undoes it together with its own.
        """
        ops, row = self.ops, self.row
        if read.after:
            self.waits("what it shows may change yet; reading again")
            await ops.pause(read.after)
        self.found = found = await ops.carrier.read_number(row.number_sid)
        if await override_is_on(ops, row, found, earlier=self.write.job == "restore"):
            return "ours"
        if self.over is not None:  # an apply's own plan: whatever differs from it is somebody's
            return "prior" if dict(found.fields) == self.over else "other"
        if row.prior is None or found.voice_url != row.prior["voice_url"]:
            return "other"
        # Whoever put voice_url back by hand may have left other fields as we wrote them.
        return "ours" if self.write.job == "restore" and still_ours(row, found) else "prior"

    async def _put(self, put: Put) -> Event:
        """Write the fields of this job, journalled before. If the journal was long in coming,
        nothing is written: somebody may have changed the number since it was read."""
        began = self.ops.clock()
        if put.anew:
            await self._intend()
        # An apply needs no further note: "planned" says that its write may be under way.
        restoring = self.write.job == "restore"
        if restoring:
            await self.note("restoring", put.until)
        if self.ops.clock() - began > READ_HOLDS * 2.0**self.lates:
            self.lates += 1
            return "late"
        row, found = self.row, self.found
        assert row.prior is not None and row.written is not None and found is not None
        fields = row.written
        if restoring:
            fields = still_ours(row, found)
            if found.voice_url != row.prior["voice_url"]:
                fields["voice_url"] = row.prior["voice_url"]
        await self.ops.carrier.write_number(row.number_sid, fields)
        return "written"

    async def _intend(self) -> None:
        """Journal the number's present fields, and those that we are going to write.

        All of its voice fields are kept, not only those that change. Then we can tell later which
        of the others somebody has changed meanwhile.
        """
        ops, row, found = self.ops, self.row, self.found
        assert found is not None
        prior = await _prior(ops, found)
        if row.prior is not None and self.write.doubt != "none":
            # Somebody changed voice_url. What stands there of our other fields is not theirs.
            prior |= still_ours(row, found)
        written = what_to_write(
            prior,
            fallback_to_prior=ops.fallback_to_prior,
            take_over_routed=ops.take_over_routed,
            number=row.number,
        )
        changed = {name: prior[name] for name in written}
        written["voice_url"] = ops.keys.voice_url(
            ops.public_url, row.id, ops.stack, row.number, changed
        )
        self.row = replace(row, prior=prior, written=written)
        await ops.intend(self.row)
        self.over = dict(found.fields)

    async def _failed(self, event: Event, failure: RestFailure, wait: float) -> None:
        """Pause, or raise the error of a number that is gone, or of an apply that gives up."""
        ops, number = self.ops, self.row.number
        applying = self.write.job == "apply"
        # A 404 to a write may also mean the TwiML app or SIP trunk that a restore puts back.
        if failure.gone and (applying or event == "unread"):
            raise NumberNotFoundError(
                f"number {redact_number(number)} is not on this Twilio account any more",
                number=number,
            ) from failure
        doing = f"{'read' if event == 'unread' else 'write'} number {redact_number(number)}"
        error = failure.error(doing)
        if applying and (not failure.repeatable or ops.too_late(wait, self.deadline)):
            raise error from failure
        if not applying and event != "unread":
            await self.note("restoring", self.write.until)
        self.waits(str(error))
        level = logging.WARNING if applying else logging.ERROR
        wait = ops.until_again(wait)
        log.log(level, "Twilio could not %s (%s); again in %.2g s", doing, failure.text, wait)
        await ops.pause(wait)

    async def note(self, state: OverrideState, until: float = 0.0) -> float:
        """Journal the row's state. ``until``: a write may land until then, on the monotonic clock;
        returns it as Unix time, which outlives this process."""
        wall = self.ops.wall()
        ahead = until - self.ops.clock()
        uncertain_until = wall + ahead if ahead > 0 else 0.0
        await self.ops.journal.set_state(self.row.id, state, wall, uncertain_until)
        return uncertain_until

    async def close(self, outcome: Outcome) -> None:
        """Journal that the override is over. Nobody needs the passwords of its URLs any more: they
        go once it is certain that nobody reads the row as an open one."""
        await self.note(outcome)
        row = self.row
        if row.prior is not None and row.written is not None:
            prior, written = without_passwords(row.prior), without_passwords(row.written)
            if (prior, written) != (row.prior, row.written):
                await self.ops.journal.intend(row.id, prior, written, self.ops.wall())

    def report_left(self) -> None:
        """Say that somebody else's fields were left alone, and which of ours are still on the same
        number. Only the owner of their URL can say whether these are in its way."""
        assert self.found is not None
        ours = ", ".join(still_ours(self.row, self.found))
        log.warning(
            "number %s was changed by someone else meanwhile; it is left as it is%s",
            redact_number(self.row.number),
            f"; still as we set them: {ours}" if ours else "",
        )


async def override_is_on(
    ops: Operations, row: OverrideRow, found: NumberSettings, earlier: bool
) -> bool:
    """True where the override of ``row`` is on the number, or an ``earlier`` one of this stack.

    An earlier one can be there because a write of it took effect late. It is in our own journal,
    and its holder is gone, so it is ours to undo too.
    """
    seal = Seal.read(found.voice_url)
    if seal is None or seal.override == row.id:
        return seal is not None
    if not earlier or seal.stack != ops.stack:
        return False
    other = await ops.journal.override(seal.override)
    return other is not None and not other.open and other.number == row.number


async def _prior(ops: Operations, found: NumberSettings) -> dict[str, str]:
    """The number's fields as they are without any override of trunkline's.

    A stack that died may have left its override there. Its seal holds the true prior fields, and
    taking them over keeps them: otherwise our restore would put that dead stack's URL back.
    """
    seal = Seal.read(found.voice_url)
    if seal is None:
        return dict(found.fields)
    shown = redact_number(found.number)
    before = ops.keys.prior(seal, found.number)
    if seal.stack == ops.stack:
        row = await ops.journal.override(seal.override)
        if row is not None and row.prior is not None and are_whole(row.prior):
            before = ops.opened(row).prior
    elif before is not None and await ops.lives(seal.base, seal.stack):
        raise NumberBusyError(
            f"number {shown} is used by another trunkline stack ({seal.stack}), which lives",
            number=found.number,
            holder=f"stack {seal.stack}",
        )
    if before is None:
        # It looks like a seal, and was made with a token that is not ours: someone else's.
        return dict(found.fields)
    log.warning(
        "number %s still had an override of stack %s, which is gone; its prior settings are kept",
        shown,
        seal.stack,
    )
    return found.fields | before
