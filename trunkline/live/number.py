"""The number that a live run calls. It is overridden and put back as a session's number is.

The override is journalled before it is written, so that after a crash during the run the next start
of a stack, or ``trunkline restore``, puts the number back.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Final

from msgspec.structs import replace as with_fields

from trunkline.bus.clock import monotonic
from trunkline.bus.errors import NumberNotFoundError
from trunkline.bus.redact import redact_number
from trunkline.bus.settings import Settings
from trunkline.controller.journal import places, state_dir
from trunkline.controller.journal.rows import OverrideRow
from trunkline.controller.twilio.apply_restore import apply, restore
from trunkline.controller.twilio.carrier import RestFailure, TwilioCarrier
from trunkline.controller.twilio.operations import Operations, retried
from trunkline.controller.twilio.probe import Prober
from trunkline.controller.twilio.seal import LONGEST_URL

from .verdicts import Verdicts

#: Seconds within which Twilio has to answer a read or write of the number.
_WITHIN: Final = 30.0


@contextlib.asynccontextmanager
async def operations(settings: Settings, carrier: TwilioCarrier) -> AsyncIterator[Operations]:
    """The operations that overrides need. During the block the state directory is locked, which
    raises StackRunsError where a stack has locked it."""
    account = settings.require("account_sid")
    holder = f"trunkline doctor --live (pid {os.getpid()})"
    lock = state_dir.lock_state_dir(settings.state_path, holder)
    try:
        stack = places.own_dir(settings, account, holder)
        stack, journal, _ = await places.open_own(settings, account, holder, stack)
        try:
            prober = Prober(settings.state_path, holder)
            try:
                yield Operations.of(settings, stack.id, carrier, journal, prober)
            finally:
                prober.close()
                await journal.close()
        finally:
            stack.release()
    finally:
        lock.release()


@dataclass
class Override:
    """The override that a run has put on its number, and the monotonic time of the last write."""

    ops: Operations
    row: OverrideRow
    written_at: float

    async def write(self, fields: dict[str, str]) -> None:
        """Write further fields of the number, which are journalled first. Raises RestFailure."""
        row = self.row
        assert row.prior is not None and row.written is not None
        self.row = with_fields(row, written=row.written | fields)
        await self.ops.intend(self.row)
        await self.ops.carrier.write_number(row.number_sid, fields)
        self.written_at = monotonic()


async def override(ops: Operations, public_url: str, number: str) -> Override:
    """Put our voice_url on the number. Raises what ``Line.wait_for_call`` raises for a number."""
    ops = replace(ops, public_url=public_url)
    deadline = monotonic() + _WITHIN
    found = await retried(ops, "look up the number", lambda: _find(ops, number), deadline)
    if found is None:
        shown = redact_number(number)
        raise NumberNotFoundError(f"number {shown} is not on this account", number=number)
    row = OverrideRow(
        id=secrets.token_hex(8),
        number=number,
        number_sid=found,
        session="doctor --live",
        state="planned",
        since=time.time(),
    )
    applied = await apply(ops, row, deadline)
    return Override(ops, applied, monotonic())


async def _find(ops: Operations, number: str) -> str | None:
    found = await ops.carrier.find_number(number)
    return None if found is None else found.sid


async def put_back(made: Override) -> None:
    """Put the number back. Tries until that succeeds."""
    await restore(made.ops, made.row)


async def try_writes(made: Override, verdicts: Verdicts) -> None:
    """Write a long voice_url and a fallback URL of ours, read both again, and judge whether they
    are as they were written."""
    row, base = made.row, made.ops.public_url
    assert row.written is not None
    short = row.written["voice_url"]
    url, _, fragment = short.partition("#")
    long = f"{url}&x={'0' * (LONGEST_URL - len(short) - 3)}#{fragment}"
    fallback = {
        "voice_fallback_url": f"{base}/twilio/fallback",
        "voice_fallback_method": "POST",
    }
    try:
        await made.write({"voice_url": long, **fallback})
        verdicts.holds("urls-may-be-long", f"one of {len(long)} characters was taken")
        expected = long
    except RestFailure as failure:
        if failure.status != 400:
            raise failure.error("write the number") from failure
        verdicts.contradicted(
            "urls-may-be-long", f"one of {len(long)} characters was refused: {failure.text}"
        )
        expected = short
        try:
            await made.write({"voice_url": short, **fallback})
        except RestFailure as second:
            raise second.error("write the number") from second
    found = await retried(
        made.ops,
        "read the number",
        lambda: made.ops.carrier.read_number(row.number_sid),
        monotonic() + _WITHIN,
    )
    assert row.prior is not None
    name = "numbers-read-as-written"
    if found.fields["voice_fallback_url"] != fallback["voice_fallback_url"]:
        verdicts.contradicted(name, "a read right after a write showed what stood before")
        verdicts.unknown("urls-are-kept-verbatim", "what was written was not shown")
        return
    verdicts.holds(name, "a read right after a write showed it")
    verdicts.decide(
        "urls-are-kept-verbatim",
        found.voice_url == expected,
        f"{len(expected)} characters were written, {len(found.voice_url)} were read",
    )
