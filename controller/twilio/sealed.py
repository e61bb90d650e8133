"""The account's numbers that carry a seal. Each seal becomes a row of the journal, so that its
number is put back by the same path, and with the same comparison, as one that was journalled
before.

``trunkline restore --account`` does so for the numbers of every stack that is gone. A stack whose
own journal is lost, or has rows that cannot be read, does it at its start for its own numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, NamedTuple

from trunkline.bus.errors import CarrierError
from trunkline.bus.redact import redact_number

from ..journal.reading import Unreadable
from ..journal.rows import OverrideRow
from .number_settings import NumberSettings
from .operations import Operations, retried
from .override import row_of
from .seal import Seal

log = logging.getLogger("trunkline.controller")

#: A start waits this long for Twilio's list of numbers (seconds). Nothing is lost without it:
#: whoever arms one of them reads it first, and opens its seal then.
LISTED_WITHIN: Final = 10.0


class Sealed(NamedTuple):
    """A number with a seal. ``prior``: the fields from before, None where another token sealed
    them."""

    number: NumberSettings
    seal: Seal
    prior: dict[str, str] | None


async def sealed_numbers(ops: Operations, within: float = 0.0) -> list[Sealed]:
    """The account's numbers that carry a seal, of any stack. Numbers with other URLs are left out.
    ``within``: for how many seconds the list is asked for again where Twilio fails; 0: it is asked
    for once. CarrierError: the account could not be listed."""
    deadline = ops.clock() + within
    numbers = await retried(ops, "list the account's numbers", ops.carrier.list_numbers, deadline)
    seals = [(number, Seal.read(number.voice_url)) for number in numbers]
    return [
        Sealed(number, seal, ops.keys.prior(seal, number.number))
        for number, seal in seals
        if seal is not None
    ]


async def journal_seal(ops: Operations, sealed: Sealed) -> OverrideRow:
    """Journal the override that the number's seal describes, and return its row for ``restore``."""
    assert sealed.prior is not None, "the seal could be opened"
    row = row_of(sealed.number, sealed.seal, sealed.prior)
    await ops.found(row)
    return row


async def find_own(ops: Operations, unreadable: Sequence[Unreadable]) -> None:
    """Look for this stack's seals on the account's numbers. Journal the overrides that the journal
    does not have, or has only in a row that cannot be read. Such a row is removed, unless the
    account could not be listed, or the seal was made with another auth token."""
    try:
        found = await sealed_numbers(ops, LISTED_WITHIN)
    except CarrierError as error:
        log.error(
            "numbers that this stack has overridden could not be looked for (%s): run `trunkline "
            "restore --account` when it has ended",
            error,
        )
        return
    own = {sealed.seal.override: sealed for sealed in found if sealed.seal.stack == ops.stack}
    broken = {row.id: row for row in unreadable if row.table == "override"}
    for override, sealed in own.items():
        shown = redact_number(sealed.number.number)
        if sealed.prior is None:
            log.error(
                "number %s: its override was made with another auth token; set "
                "TWILIO_AUTH_TOKEN_SECONDARY to that one",
                shown,
            )
        elif override in broken or await ops.journal.override(override) is None:
            await journal_seal(ops, sealed)
            log.warning("number %s says what it was before, and is put back", shown)
    for override, row in broken.items():
        if override not in own:
            await ops.journal.forget(override)
            shown = redact_number(row.number)
            log.warning("number %s carries no override of this stack any more", shown)
