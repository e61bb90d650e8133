"""Putting an override on a number: journal, read, compare, journal, write, journal.

Named fault points (for crash tests) stand between the steps; ``faults`` is called with their names.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from msgspec.structs import replace

from trunkline.bus.clock import Clock, monotonic
from trunkline.bus.errors import (
    CarrierError,
    NumberBusyError,
    NumberNotFoundError,
    NumberRoutedElsewhereError,
    TrunklineError,
)
from trunkline.bus.redact import redact_number

from . import marks
from .carrier import GONE, Carrier, RestFailure, backoff
from .journal import JournalStore, OverrideRow
from .marks import MarkKeys
from .numbers import NumberSettings

log = logging.getLogger("trunkline.controller")

T = TypeVar("T")

#: Late effects of a write whose answer never came are looked for this long (seconds).
UNCERTAIN_SECONDS: Final = 60.0
#: Another stack's mark: asked this often, this far apart, whether that stack lives.
PROBES: Final = 3
PROBE_EVERY: Final = 5.0
#: Between two tries while the stack ends (seconds).
HURRIED_PAUSE: Final = 0.4

FAULT_POINTS: Final = (
    "apply.before-intent",
    "apply.planned",
    "apply.intent",
    "apply.answered",
    "apply.committed",
    "restore.before-intent",
    "restore.intent",
    "restore.answered",
    "restore.committed",
    "dial.before-intent",
    "dial.intent",
    "dial.answered",
    "dial.committed",
)


def no_faults(point: str) -> None:
    """The fault hook of real life."""


@dataclass
class Workshop:
    """What every operation on numbers and calls needs. ``probe(base, stack)``: does that stack
    live? ``wall``: Unix time. ``pause``: asyncio.sleep, or a fake."""

    stack: str
    public_url: str = field(repr=False)
    carrier: Carrier
    journal: JournalStore
    keys: MarkKeys
    wall: Callable[[], float]
    probe: Callable[[str, str], Awaitable[bool]]
    fallback_to_prior: bool = True
    take_over_routed: bool = False
    clock: Clock = monotonic
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    faults: Callable[[str], None] = no_faults
    #: overrides that have a restore under way, and why each did not succeed yet
    pending: dict[str, str] = field(default_factory=dict)
    #: the stack ends: nothing new is tried on, and pauses are short
    hurried: asyncio.Event = field(default_factory=asyncio.Event)

    def hurry(self) -> None:
        self.hurried.set()

    def too_late(self, wait: float, deadline: float) -> bool:
        """There is no time for another try after ``wait`` seconds."""
        return self.hurried.is_set() or self.clock() + wait > deadline

    async def rest(self, seconds: float) -> None:
        """Pause; at the stack's end not longer than :data:`HURRIED_PAUSE`."""
        if self.hurried.is_set():
            await self.pause(min(seconds, HURRIED_PAUSE))
            return
        hurry = asyncio.ensure_future(self.hurried.wait())
        pause = asyncio.ensure_future(self.pause(seconds))
        try:
            await asyncio.wait((hurry, pause), return_when=asyncio.FIRST_COMPLETED)
            if pause.done():
                pause.result()
        finally:
            hurry.cancel()
            pause.cancel()


async def retried(
    shop: Workshop, doing: str, ask: Callable[[], Awaitable[T]], deadline: float
) -> T:
    """``ask()`` until it succeeds, for what is safe to repeat: with back-off and Retry-After.

    Raises the CarrierError of the last failure at ``deadline``, or at once when repeating is of no
    use.
    """
    attempt = 0
    while True:
        try:
            return await ask()
        except RestFailure as failure:
            attempt += 1
            wait = backoff(attempt, failure)
            if not failure.repeatable or shop.too_late(wait, deadline):
                raise failure.error(doing) from failure
            log.warning("Twilio could not %s (%s); again in %.2g s", doing, failure.text, wait)
            await shop.rest(wait)


async def apply(shop: Workshop, row: OverrideRow, deadline: float) -> OverrideRow:
    """Journal ``row`` (planned), write our settings to its number, and return the applied row.

    A row that is in the journal already (found after a restart, with its prior) is continued with
    the same id, so a late effect of the earlier write changes nothing now; it may come after the
    restore, so the row stays uncertain. Errors: NumberBusyError, NumberRoutedElsewhereError,
    NumberNotFoundError, InvalidRequestError, CarrierError. After an error the row is closed, or,
    where a write may have taken effect, left open for a restore.
    """
    taken_up = row.prior is not None
    if taken_up:
        row = await _take_up(shop, row, deadline)
    else:
        row = await _plan(shop, row, deadline)
    now_certain = await _write(shop, row, deadline, taken_up)
    shop.faults("apply.answered")
    now = shop.wall()
    until = 0.0 if now_certain else now + UNCERTAIN_SECONDS
    await shop.journal.set_state(row.id, "applied", now, until)
    shop.faults("apply.committed")
    log.info("number %s now calls us (override %s)", redact_number(row.number), row.id)
    return replace(row, state="applied", uncertain_until=until)


async def _plan(shop: Workshop, row: OverrideRow, deadline: float) -> OverrideRow:
    shop.faults("apply.before-intent")
    await shop.journal.plan(row, shop.wall())
    shop.faults("apply.planned")
    try:
        return await _intend(shop, row, await _read(shop, row, deadline))
    except TrunklineError:
        # Nothing has been written.
        await shop.journal.set_state(row.id, "restored", shop.wall())
        raise


async def _read(shop: Workshop, row: OverrideRow, deadline: float) -> NumberSettings:
    """The number's fields. NumberNotFoundError where it is gone, or CarrierError."""
    try:
        return await retried(
            shop,
            f"read number {redact_number(row.number)}",
            lambda: shop.carrier.read_number(row.number_sid),
            deadline,
        )
    except CarrierError as error:
        if error.status == GONE:
            raise _released(row) from error
        raise


def _released(row: OverrideRow) -> NumberNotFoundError:
    return NumberNotFoundError(
        f"number {redact_number(row.number)} is not on this Twilio account any more",
        number=row.number,
    )


async def _intend(shop: Workshop, row: OverrideRow, found: NumberSettings) -> OverrideRow:
    """Journal what was there and what we are going to write."""
    prior = await _prior(shop, found)
    written = what_to_write(
        prior,
        voice_url=shop.keys.voice_url(
            shop.public_url, row.id, shop.stack, row.number, _changed(prior, shop)
        ),
        fallback_to_prior=shop.fallback_to_prior,
        take_over_routed=shop.take_over_routed,
        number=row.number,
    )
    await shop.journal.intend(row.id, prior, written, shop.wall())
    shop.faults("apply.intent")
    return replace(row, prior=prior, written=written)


async def _take_up(shop: Workshop, row: OverrideRow, deadline: float) -> OverrideRow:
    """A row that an earlier controller planned: its write may have happened, or may still come.

    What someone else wrote meanwhile becomes the prior. After an error the row stays open.
    """
    assert row.prior is not None
    try:
        found = await _read(shop, row, deadline)
        if is_ours(found.voice_url, row.id) or found.voice_url == row.prior["voice_url"]:
            return row
        return await _intend(shop, row, found)
    except TrunklineError:
        await _give_up(shop, row, True)
        raise


def what_to_write(
    prior: dict[str, str],
    *,
    voice_url: str,
    fallback_to_prior: bool,
    take_over_routed: bool,
    number: str,
) -> dict[str, str]:
    """The fields of an override. NumberRoutedElsewhereError where voice_url would not be used."""
    written = {"voice_url": voice_url, "voice_method": "POST"}
    if fallback_to_prior and prior["voice_url"]:
        written["voice_fallback_url"] = prior["voice_url"]
        written["voice_fallback_method"] = prior["voice_method"] or "POST"
    for field_name, what in (("voice_application_sid", "TwiML app"), ("trunk_sid", "SIP trunk")):
        if prior[field_name]:
            if not take_over_routed:
                raise NumberRoutedElsewhereError(
                    f"number {redact_number(number)}: its calls are taken by the {what} "
                    f"{prior[field_name]}, so its voice_url is not used; set "
                    "TRUNKLINE_TAKE_OVER_ROUTED=1 to take it over while it is used here",
                    number=number,
                    routed_to=prior[field_name],
                )
            written[field_name] = ""
    if prior["voice_receive_mode"] == "fax":
        written["voice_receive_mode"] = "voice"
    return written


def _changed(prior: dict[str, str], shop: Workshop) -> dict[str, str]:
    """The part of ``prior`` that we change: what the mark carries."""
    names = ["voice_url", "voice_method"]
    if shop.fallback_to_prior and prior["voice_url"]:
        names += ["voice_fallback_url", "voice_fallback_method"]
    names += [name for name in ("voice_application_sid", "trunk_sid") if prior[name]]
    if prior["voice_receive_mode"] == "fax":
        names.append("voice_receive_mode")
    return {name: prior[name] for name in names}


async def _prior(shop: Workshop, found: NumberSettings) -> dict[str, str]:
    """What the number's fields are without any override of trunkline's."""
    mark = marks.read(found.voice_url)
    if mark is None:
        return found.fields
    shown = redact_number(found.number)
    known = shop.keys.prior(mark, found.number)
    if mark.stack == shop.stack:
        row = await shop.journal.override(mark.override)
        before = row.prior if row is not None and row.prior is not None else known
    else:
        before = known
        if before is not None and await lives(shop, mark.base, mark.stack):
            raise NumberBusyError(
                f"number {shown} is used by another trunkline stack ({mark.stack}), which lives",
                number=found.number,
                holder=f"stack {mark.stack}",
            )
    if before is None:
        # It looks like a mark, and was made with a token that is not ours: someone else's.
        return found.fields
    log.warning(
        "number %s still had an override of stack %s, which is gone; its prior settings are kept",
        shown,
        mark.stack,
    )
    return found.fields | before


async def lives(shop: Workshop, base: str, stack: str) -> bool:
    """Another stack answers at its public URL, or does so within 10 s."""
    for attempt in range(PROBES):
        if attempt:
            await shop.rest(PROBE_EVERY)
        if await shop.probe(base, stack):
            return True
    return False


async def _write(shop: Workshop, row: OverrideRow, deadline: float, taken_up: bool) -> bool:
    """Write our settings until they stand there, or ``deadline``.

    False: an earlier try got no answer and was not seen to land, so it may still take effect.
    ``taken_up``: an earlier controller may have tried any number of times.
    """
    assert row.written is not None and row.prior is not None
    shown = redact_number(row.number)
    written = row.written
    attempt = 0
    unanswered = 2 if taken_up else 0
    writing = False
    while True:
        try:
            writing = False
            if unanswered:
                found = await shop.carrier.read_number(row.number_sid)
                if is_ours(found.voice_url, row.id):
                    return unanswered == 1
            writing = True
            await shop.carrier.write_number(row.number_sid, written)
            return unanswered == 0
        except RestFailure as failure:
            attempt += 1
            if writing and failure.uncertain:
                unanswered += 1
            wait = backoff(attempt, failure)
            if not failure.repeatable or shop.too_late(wait, deadline):
                await _give_up(shop, row, unanswered > 0)
                if failure.gone:
                    raise _released(row) from failure
                raise failure.error(f"write number {shown}") from failure
            log.warning("number %s not written (%s); again in %.2g s", shown, failure.text, wait)
            await shop.rest(wait)


async def _give_up(shop: Workshop, row: OverrideRow, uncertain: bool) -> None:
    now = shop.wall()
    if uncertain:
        await shop.journal.set_state(row.id, "restoring", now, now + UNCERTAIN_SECONDS)
    else:
        await shop.journal.set_state(row.id, "restored", now)


def is_ours(voice_url: str, override: str) -> bool:
    """True where the override with this id stands in ``voice_url``."""
    mark = marks.read(voice_url)
    return mark is not None and mark.override == override
