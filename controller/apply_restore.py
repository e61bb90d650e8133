"""Putting an override on a number and the number back: the one loop that carries out both.

What to do next is decided in :mod:`.override`, which also explains the doubt about a write without
an answer. Here stand the steps that take time, each written down before Twilio is touched. Restores
take this one path for a closed session, a lost lease, a start, SIGTERM and ``trunkline restore``.

=================  ==========================  =======================
journal            Twilio                      fault point
=================  ==========================  =======================
plan               read the number             ``apply.planned``
prior and ours                                 ``apply.intent``
\\                  write ours                  ``apply.answered``
applied                                        ``apply.committed``
restoring          read: is it still ours?     ``restore.intent``
restoring, until   write the prior fields      ``restore.answered``
restored                                       ``restore.committed``
=================  ==========================  =======================

A process may die between any two of these lines. The next one finds in the journal what may stand
on the number, and goes on from there by the same path. Tests let it die at each named fault point.
"""

from __future__ import annotations

import logging
from typing import Literal

from msgspec.structs import replace

from trunkline.bus.errors import NumberBusyError, NumberNotFoundError, TrunklineError
from trunkline.bus.redact import redact_number

from . import instructions as do
from .carrier import RestFailure, backoff
from .journal import OverrideRow, OverrideState
from .numbers import NumberSettings
from .operations import Operations
from .override import (
    Done,
    Event,
    Job,
    Plan,
    Put,
    Read,
    Write,
    is_ours,
    remembered,
    still_ours,
    what_to_write,
)
from .seal import Seal

log = logging.getLogger("trunkline.controller")

Outcome = Literal["restored", "left_alone"]


async def put_on(ops: Operations, instruction: do.Apply) -> do.Applied | do.ApplyFailed:
    """Apply an override; says whether its row is still open after a failure."""
    try:
        return do.Applied(await apply(ops, instruction.row, instruction.deadline))
    except TrunklineError as error:
        row = await ops.journal.override(instruction.row.id)
        return do.ApplyFailed(instruction.row, error, open=row is not None and row.open)


async def apply(ops: Operations, row: OverrideRow, deadline: float) -> OverrideRow:
    """Journal ``row`` (planned), write our settings to its number, and return the applied row.

    A row that already has a prior was planned by an earlier controller, whose write may have
    landed, or may still land. It goes on under the same id, so that a late effect changes nothing.
    Errors: NumberBusyError, NumberRoutedElsewhereError, NumberNotFoundError, InvalidRequestError,
    CarrierError. After an error the row is closed, or, where a write may have taken effect, left
    open for a restore.
    """
    if row.prior is None:
        ops.faults("apply.before-intent")
        await ops.journal.plan(row, ops.wall())
        ops.faults("apply.planned")
    errand = _Errand(ops, row, "apply", deadline)
    try:
        done = await errand.run()
    except TrunklineError:
        if errand.write.doubt == "none":
            # No write of ours is on the number, so there is nothing to put back.
            await errand.note("restored")
        else:
            await errand.note("restoring", errand.write.until)
        raise
    until = None if done.certain else errand.write.until
    uncertain_until = await errand.note("applied", until)
    ops.faults("apply.committed")
    log.info("number %s now calls us (override %s)", redact_number(row.number), row.id)
    return replace(errand.row, state="applied", uncertain_until=uncertain_until)


async def restore(ops: Operations, row: OverrideRow) -> Outcome:
    """Put the number of ``row`` back and close the row; returns when that has succeeded.

    Whatever fails is tried again, for as long as it takes: a number that is left to us answers
    nobody once we are gone. Meanwhile ``ops.pending`` says what it waits for.
    """
    ops.faults("restore.before-intent")
    outcome: Outcome = "restored"
    errand = _Errand(ops, row, "restore")
    # A row without a prior was planned, and nothing was written.
    if row.prior is not None:
        await errand.note("restoring", errand.write.until)
        ops.faults("restore.intent")
        try:
            if (await errand.run()).left:
                outcome = "left_alone"
                errand.report_left()
        except NumberNotFoundError as gone:
            outcome = "left_alone"
            log.warning("%s", gone)
    await errand.note(outcome)
    ops.faults("restore.committed")
    if row.prior is not None and outcome == "restored":
        log.info("number %s is as it was before", redact_number(row.number))
    return outcome


class _Errand:
    """One job on its way: carries out what its :class:`Write` says, and tells it what came.

    ``deadline``: when an apply gives up; a restore never does. ``found``: what was read last.
    """

    def __init__(
        self, ops: Operations, row: OverrideRow, job: Job, deadline: float = float("inf")
    ) -> None:
        self.ops = ops
        self.row = row
        self.deadline = deadline
        self.write = Write(job, remembered(row, ops.wall(), ops.clock()))
        self.found: NumberSettings | None = None

    async def run(self) -> Done:
        """NumberNotFoundError where the number is gone; errors of an apply as :func:`apply`."""
        ops = self.ops
        todo: Read | Plan | Put | Done = Read()
        failures = 0
        ops.pending[self.row.id] = "being written"
        try:
            while not isinstance(todo, Done):
                try:
                    event = await self._carry_out(todo)
                except RestFailure as failure:
                    failures += 1
                    wait = backoff(failures, failure)
                    event = _failed(todo, failure)
                    # The doubt has to be known, and journalled, before this may give up.
                    following = self.write.step(event, ops.clock())
                    await self._failed(todo, failure, wait)
                    await ops.pause(wait)
                    todo = following
                else:
                    todo = self.write.step(event, ops.clock())
            return todo
        finally:
            ops.pending.pop(self.row.id, None)

    async def _carry_out(self, todo: Read | Plan | Put) -> Event:
        match todo:
            case Read():
                return await self._read(todo)
            case Plan():
                return await self._plan()
            case Put():
                return await self._put(todo)

    async def _read(self, todo: Read) -> Event:
        row = self.row
        if todo.after:
            self.ops.pending[row.id] = "an earlier write may still take effect; reading again"
            await self.ops.pause(todo.after)
        self.found = found = await self.ops.carrier.read_number(row.number_sid)
        as_prior = row.prior is not None and found.voice_url == row.prior["voice_url"]
        if self.write.job == "apply":
            ours = is_ours(found.voice_url, row.id)
            return "wanted" if ours else "replaced" if as_prior else "other"
        stands = await override_stands(self.ops, row, found)
        return "replaced" if stands else "wanted" if as_prior else "other"

    async def _plan(self) -> Event:
        """Journal what was there and what we are going to write."""
        ops, row, found = self.ops, self.row, self.found
        assert found is not None
        prior = await _prior(ops, found)
        if row.prior is not None:
            # Somebody changed voice_url while our other fields stood there; these are not theirs.
            prior |= still_ours(row, found)
        written = what_to_write(
            prior,
            fallback_to_prior=ops.fallback_to_prior,
            take_over_routed=ops.take_over_routed,
            number=row.number,
        )
        sealed = {name: prior[name] for name in written}
        written["voice_url"] = ops.keys.voice_url(
            ops.public_url, row.id, ops.stack, row.number, sealed
        )
        await ops.journal.intend(row.id, prior, written, ops.wall())
        ops.faults("apply.intent")
        self.row = replace(row, prior=prior, written=written)
        return "planned"

    async def _put(self, todo: Put) -> Event:
        row, found, job = self.row, self.found, self.write.job
        assert row.prior is not None and row.written is not None and found is not None
        fields = row.written
        if job == "restore":
            # An apply needs no such note: "planned" says that its write may be under way.
            await self.note("restoring", todo.until)
            fields = {"voice_url": row.prior["voice_url"]} | still_ours(row, found)
        await self.ops.carrier.write_number(row.number_sid, fields)
        self.ops.faults(f"{job}.answered")
        return "written"

    async def _failed(self, todo: Read | Plan | Put, failure: RestFailure, wait: float) -> None:
        """Log it, or raise the error of an apply that gives up, or of a number that is gone."""
        ops, shown = self.ops, redact_number(self.row.number)
        applying = self.write.job == "apply"
        # A 404 to a write may also mean the TwiML app or SIP trunk that a restore puts back.
        if failure.gone and (applying or isinstance(todo, Read)):
            raise NumberNotFoundError(
                f"number {shown} is not on this Twilio account any more", number=self.row.number
            ) from failure
        error = failure.error(f"{'read' if isinstance(todo, Read) else 'write'} number {shown}")
        if applying and (not failure.repeatable or ops.too_late(wait, self.deadline)):
            raise error from failure
        if not applying and isinstance(todo, Put):
            await self.note("restoring", self.write.until)
        ops.pending[self.row.id] = str(error)
        log.log(
            logging.WARNING if applying else logging.ERROR,
            "number %s is not %s yet (%s); again in %.2g s",
            shown,
            "overridden" if applying else "restored",
            failure.text,
            wait,
        )

    async def note(self, state: OverrideState, until: float | None = None) -> float:
        """Journal the row's state. ``until``: a write may land until then, on the monotonic clock;
        returns it as Unix time, which outlives this process."""
        wall = self.ops.wall()
        ahead = 0.0 if until is None else until - self.ops.clock()
        uncertain_until = wall + ahead if ahead > 0 else 0.0
        await self.ops.journal.set_state(self.row.id, state, wall, uncertain_until)
        return uncertain_until

    def report_left(self) -> None:
        """Say that somebody else's fields were left alone, and which of ours stand beside them:
        what those mean to their URL is for its owner to say."""
        assert self.found is not None
        ours = list(still_ours(self.row, self.found))
        beside = ""
        if ours:
            are = "is" if len(ours) == 1 else "are"
            beside = f"; its {' and '.join(ours)} {are} still as we had set it"
        log.warning(
            "number %s was changed by someone else meanwhile; it is left as it is%s",
            redact_number(self.row.number),
            beside,
        )


def _failed(todo: Read | Plan | Put, failure: RestFailure) -> Event:
    if isinstance(todo, Read):
        return "unread"
    return "lost" if failure.uncertain else "refused"


async def override_stands(ops: Operations, row: OverrideRow, found: NumberSettings) -> bool:
    """True where the override of ``row``, or an earlier one of this stack, is on the number.

    An earlier one can be there because a write of it took effect late. It is in our own journal,
    and its holder is gone, so it is ours to undo too.
    """
    if is_ours(found.voice_url, row.id):
        return True
    seal = Seal.read(found.voice_url)
    if seal is None or seal.stack != ops.stack:
        return False
    other = await ops.journal.override(seal.override)
    return other is not None and not other.open and other.number == row.number


async def _prior(ops: Operations, found: NumberSettings) -> dict[str, str]:
    """What the number's fields are without any override of trunkline's.

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
        if row is not None and row.prior is not None:
            before = row.prior
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
