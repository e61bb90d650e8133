"""Putting numbers back. One path for a closed session, a lost lease, a start, SIGTERM and
``trunkline restore``.

Compare, then restore: only what is still ours is written, field by field; what someone else changed
is left alone and reported. A read that failed never leads to a write. A write that may still take
effect is looked for until it can no more (60 s). Whatever fails is tried again, with back-off and
Retry-After, until it succeeds; until then it is pending.
"""

from __future__ import annotations

import logging
from typing import Final, Literal

from trunkline.bus.redact import redact_number

from . import marks
from .carrier import RestFailure, backoff
from .journal import OverrideRow
from .numbers import NumberSettings
from .overrides import UNCERTAIN_SECONDS, Workshop, is_ours

log = logging.getLogger("trunkline.controller")

Outcome = Literal["restored", "left_alone"]

#: How often a number is read again while a late write may come.
REREAD_EVERY: Final = 5.0
#: So long after an override was made, a read that does not show it may be out of date (seconds).
STALE_SECONDS: Final = 15.0
STALE_EVERY: Final = 1.0


async def restore(shop: Workshop, row: OverrideRow) -> Outcome:
    """Put the number of ``row`` back and close the row; returns when that has succeeded.

    While it goes on ``shop.pending`` says what it waits for.
    """
    shop.faults("restore.before-intent")
    if row.prior is None:
        # Planned, and nothing was written.
        return await _close(shop, row, "restored")
    late = row.uncertain_until
    if row.state == "planned":
        # A write of ours was under way: its effect may still come.
        late = max(late, shop.wall() + UNCERTAIN_SECONDS)
    applied = min(row.since, shop.wall()) if row.state == "applied" else float("-inf")
    shop.pending[row.id] = "being restored"
    try:
        await _note(shop, row, late)
        shop.faults("restore.intent")
        outcome = await _until_back(shop, row, late, applied + STALE_SECONDS)
        return await _close(shop, row, outcome)
    finally:
        shop.pending.pop(row.id, None)


async def _until_back(shop: Workshop, row: OverrideRow, late: float, stale: float) -> Outcome:
    """Read, compare, write, until the number is back.

    ``late``: until then a write of the override may take effect (OverrideRow.uncertain_until);
    ``loose``: until then one of the restore's own may. A read that shows the one write that had no
    answer in place settles that. While a write is under way the journal says that it may take
    effect: a crash leaves it so.

    ``stale``: until then a read that shows the number as it was before may be out of date. Twilio
    confirmed the override a moment ago, so such a read alone does not say that it is gone.
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
                await _note(shop, row, max(late, shop.wall() + UNCERTAIN_SECONDS))
                writing = True
                await shop.carrier.write_number(row.number_sid, back(row, found))
                writing, stale = False, 0.0
                shop.faults("restore.answered")
                if max(late, loose) <= shop.wall():
                    return "restored"
                unanswered += 1 if unanswered else 0  # which of them landed is not known any more
            else:
                as_before = found.voice_url == row.prior["voice_url"]
                if as_before and unanswered == 1:
                    unanswered, loose = 0, 0.0
                if as_before and stale > shop.wall():
                    shop.pending[row.id] = "the override is not seen; reading again"
                    await shop.rest(STALE_EVERY)
                    continue
                if max(late, loose) <= shop.wall():
                    if as_before:
                        return "restored"
                    log.warning(
                        "number %s was changed by someone else meanwhile; it is left as it is%s",
                        shown,
                        _still_ours(row, found),
                    )
                    return "left_alone"
            shop.pending[row.id] = "an earlier write may still take effect; reading again"
            await shop.rest(min(REREAD_EVERY, max(0.1, max(late, loose) - shop.wall())))
        except RestFailure as failure:
            if failure.gone and not writing:
                log.warning("number %s is not on the account any more", shown)
                return "left_alone"
            attempt += 1
            if writing:
                if failure.uncertain:
                    unanswered += 1
                    loose = shop.wall() + UNCERTAIN_SECONDS
                await _note(shop, row, max(late, loose))
            shop.pending[row.id] = str(failure.error("restore the number"))
            wait = backoff(attempt, failure)
            log.error(
                "number %s is not restored yet (%s); again in %.2g s", shown, failure.text, wait
            )
            await shop.rest(wait)


async def _note(shop: Workshop, row: OverrideRow, uncertain_until: float) -> None:
    await shop.journal.set_state(row.id, "restoring", shop.wall(), uncertain_until)


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


def _still_ours(row: OverrideRow, found: NumberSettings) -> str:
    """The fields that are left alone with a voice_url of someone else's, and are not as before:
    what they mean to that URL is for its owner to say."""
    assert row.prior is not None and row.written is not None
    ours = [
        name
        for name, value in row.written.items()
        if found.fields[name] == value and row.prior[name] != value
    ]
    if not ours:
        return ""
    return f"; its {' and '.join(ours)} {'is' if len(ours) == 1 else 'are'} still as we had set it"


async def _close(shop: Workshop, row: OverrideRow, outcome: Outcome) -> Outcome:
    await shop.journal.set_state(row.id, outcome, shop.wall())
    shop.faults("restore.committed")
    if row.prior is not None and outcome == "restored":
        log.info("number %s is as it was before", redact_number(row.number))
    return outcome
