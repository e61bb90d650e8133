"""Carries out the state machine's instructions that take time: REST and the journal.

Each is a coroutine that comes back with a result; what may be repeated is repeated here, with
back-off, and nothing else is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from trunkline.bus.errors import CallFailedError, TrunklineError
from trunkline.bus.redact import redact_number

from . import instructions as do
from .carrier import CallOrder, RestFailure, backoff
from .journal import DialRow
from .overrides import UNCERTAIN_SECONDS, Workshop, apply, retried

log = logging.getLogger("trunkline.controller")

#: Whoever asked for a hang-up is told after this long that Twilio does not take it.
TELL_AFTER: Final = 15.0
#: A call that may have come of a dial tells so itself within this time, as a rule.
EVIDENCE_WITHIN: Final = 3.0
#: How often it is looked for after that.
LOOK_EVERY: Final = 2.0
#: A call that Twilio makes now may come of a dial that was asked for so long before (seconds).
OTHERS_ASKED_BEFORE: Final = 600.0


async def look_up(shop: Workshop, number: str, deadline: float) -> do.NumberFound | do.LookUpFailed:
    try:
        found = await retried(
            shop,
            f"look up number {redact_number(number)}",
            lambda: shop.carrier.find_number(number),
            deadline,
        )
    except TrunklineError as error:
        return do.LookUpFailed(number, error)
    return do.NumberFound(number, None if found is None else found.sid)


async def list_numbers(shop: Workshop, deadline: float) -> do.NumbersListed | do.LookUpFailed:
    try:
        found = await retried(shop, "list numbers", shop.carrier.list_numbers, deadline)
    except TrunklineError as error:
        return do.LookUpFailed("any", error)
    return do.NumbersListed(tuple((n.number, n.sid) for n in found))


async def put_on(shop: Workshop, instruction: do.Apply) -> do.Applied | do.ApplyFailed:
    """Apply an override; says whether its row is still open after a failure."""
    try:
        return do.Applied(await apply(shop, instruction.row, instruction.deadline))
    except TrunklineError as error:
        row = await shop.journal.override(instruction.row.id)
        return do.ApplyFailed(instruction.row, error, open=row is not None and row.open)


async def create(
    shop: Workshop,
    row: DialRow,
    order: CallOrder,
    deadline: float,
    wanted: Callable[[], bool],
    tell: Callable[[do.AskedTwilio], None],
) -> do.Taken | do.CreateFailed | do.Unsure:
    """Ask Twilio for a call: again only where it cannot have taken it, while it is ``wanted``."""
    shown = redact_number(row.callee)
    shop.faults("dial.before-intent")
    if not await shop.journal.dial_asked(row):
        # Asked by an earlier controller, whose answer the client has not got.
        gone = CallFailedError(f"the dial to {shown} is over", status="canceled")
        return do.CreateFailed(row.request, gone)
    shop.faults("dial.intent")
    tell(do.AskedTwilio(row.request))
    attempt = 0
    while True:
        try:
            call = await shop.carrier.create_call(order)
            break
        except RestFailure as failure:
            error = failure.error(f"call {shown}")
            if failure.uncertain:
                return do.Unsure(row.request, error)
            attempt += 1
            wait = backoff(attempt, failure)
            if not failure.repeatable or not wanted() or shop.too_late(wait, deadline):
                await shop.journal.dial_closed(row.request)
                return do.CreateFailed(row.request, error)
            log.warning("call to %s not placed (%s); again in %.2g s", shown, failure.text, wait)
            await shop.rest(wait)
            if not wanted():
                await shop.journal.dial_closed(row.request)
                return do.CreateFailed(row.request, error)
    shop.faults("dial.answered")
    await shop.journal.dial_taken(row.request, call.sid)
    shop.faults("dial.committed")
    return do.Taken(row.request, call.sid, call.status)


async def settle(
    shop: Workshop,
    row: DialRow,
    unsettled: Callable[[], bool],
    belongs: Callable[[str], bool],
) -> do.Taken | do.NotFound | None:
    """Look for the call that may have come of ``row``, until none can come any more.

    ``unsettled()``: nobody else has found it. ``belongs(sid)``: that call is another's. What the
    list shows is a guess (calls look alike there), so a callback or a stream, which name the
    dial, are given :data:`EVIDENCE_WITHIN` first, and the guess is not journalled.
    """
    last = row.asked + row.timeout + UNCERTAIN_SECONDS  # no call of this dial is younger
    until = min(shop.wall() + UNCERTAIN_SECONDS, last)
    attempt = 0
    await shop.rest(EVIDENCE_WITHIN)
    while unsettled():
        try:
            found = await shop.carrier.list_calls(row.callee, row.caller, row.asked)
        except RestFailure as failure:
            attempt += 1
            log.warning("calls could not be listed (%s)", failure.text)
            await shop.rest(backoff(attempt, failure))
            continue
        if not unsettled():
            return None
        ours = [
            call
            for call in found
            if not belongs(call.sid)
            and call.direction in ("", "outbound-api")
            and (call.created is None or call.created <= last)
        ]
        if ours:
            call = min(ours, key=lambda c: c.created or 0.0)
            return do.Taken(row.request, call.sid, call.status, guessed=True)
        if shop.wall() >= until:
            await shop.journal.dial_closed(row.request)
            return do.NotFound(row.request)
        await shop.rest(LOOK_EVERY)
    return None


async def end(
    shop: Workshop, call: str, sids: tuple[str, ...], tell: Callable[[do.EndFailed], None]
) -> do.Ended:
    """Hang all legs up; goes on until Twilio takes it."""
    began = shop.clock()
    told = False
    for sid in sids:
        attempt = 0
        while True:
            try:
                await shop.carrier.end_call(sid)
                break
            except RestFailure as failure:
                attempt += 1
                error = failure.error(f"hang up {sid}")
                lasting = not failure.repeatable and not failure.refused_credentials
                if not told and (lasting or shop.clock() - began >= TELL_AFTER):
                    told = True
                    tell(do.EndFailed(call, error))
                if lasting:
                    log.error("%s", error)
                    break
                wait = backoff(attempt, failure)
                log.warning("call %s not hung up (%s); again in %.2g s", sid, failure.text, wait)
                await shop.rest(wait)
    return do.Ended(call)


async def hang_up_left(shop: Workshop, row: DialRow) -> None:
    """The controller and the client of this dial are gone: hang up what came of it, and close its
    row."""
    sid = row.sid
    if sid is None:
        # Calls of other dials, those that are over among them, look like its own.
        others = await shop.journal.open_dials()
        others += await shop.journal.closed_dials(row.asked - OTHERS_ASKED_BEFORE)
        known = {other.sid for other in others}
        found = await settle(shop, row, lambda: True, lambda sid: sid in known)
        if not isinstance(found, do.Taken):
            return  # there is none, and the row is closed
        sid = found.sid
    log.warning("call %s: nobody claims it; it is hung up", sid)
    await end(shop, row.call, (sid,), lambda failed: log.error("%s", failed.error))
    await shop.journal.dial_closed(row.request)


async def fetch(shop: Workshop, call: str, sid: str) -> do.Fetched:
    try:
        return do.Fetched(call, sid, (await shop.carrier.fetch_call(sid)).status)
    except RestFailure as failure:
        if failure.gone:
            return do.Fetched(call, sid, "completed")
        log.warning("the status of call %s could not be fetched (%s)", sid, failure.text)
        return do.Fetched(call, sid, None)


async def instruct(shop: Workshop, instruction: do.Instruct) -> do.Instructed:
    try:
        # Digits are not idempotent: they are sent once.
        await shop.carrier.instruct_call(instruction.sid, instruction.twiml)
    except RestFailure as failure:
        return do.Instructed(instruction.asked, failure.error("send the digits"))
    return do.Instructed(instruction.asked, None)


async def start_stream(shop: Workshop, instruction: do.StartStream) -> do.StreamAsked:
    """Once: without it the digits are sent all the same."""
    error = None
    try:
        await shop.carrier.start_stream(instruction.sid, instruction.url, instruction.token)
    except RestFailure as failure:
        error = failure.error("open a one-way stream")
        log.warning("call %s: %s", instruction.sid, error)
    return do.StreamAsked(instruction.call, instruction.digits, error)


async def play_digits(shop: Workshop, instruction: do.PlayDigits) -> do.DigitsTold:
    """Digits are not idempotent: asked again only where Twilio cannot have taken them."""
    attempt = 0
    while True:
        try:
            await shop.carrier.instruct_call(instruction.sid, instruction.twiml)
        except RestFailure as failure:
            attempt += 1
            wait = backoff(attempt, failure)
            error = failure.error("send the digits")
            sent = failure.uncertain
            if sent or not failure.repeatable or shop.too_late(wait, instruction.deadline):
                return do.DigitsTold(instruction.call, instruction.digits, error, unsure=sent)
            log.warning(
                "digits for call %s not taken (%s); again in %.2g s",
                instruction.sid,
                failure.text,
                wait,
            )
            await shop.rest(wait)
        else:
            return do.DigitsTold(instruction.call, instruction.digits, None)
