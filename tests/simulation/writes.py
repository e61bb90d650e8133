"""What must be true of every single write to a number, whatever comes of it."""

from __future__ import annotations

from trunkline.controller.journal.rows import OverrideRow
from trunkline.controller.twilio.seal import Seal, SealKeys, without_passwords

#: Those of the simulation's controllers.
KEYS = SealKeys("token")


def wrong_write(
    fields: dict[str, str], rows: list[OverrideRow], stands: str, *, in_flight: bool
) -> list[str]:
    """What is wrong with writing ``fields``, in words. ``rows``: the journal's open ones of this
    number; ``stands``: its voice_url now, unless another write of ours is on its way
    (``in_flight``).

    What is written stands in the journal before, its passwords sealed, and nothing is undone but
    what is ours.
    """
    seal = Seal.read(fields.get("voice_url", ""))
    if seal is not None:
        known = next((row.written for row in rows if row.id == seal.override), None)
        if known is None or KEYS.show(known, seal.override) != fields:
            return [f"{fields} was written, and not journalled before: {rows}"]
        if known == fields != without_passwords(fields):
            return [f"a password stands in the journal: {rows}"]
        return []
    wrong = []
    if not any(row.state == "restoring" for row in rows):
        wrong.append(f"{fields} was put back, and not journalled before: {rows}")
    if "voice_url" in fields and Seal.read(stands) is None and not in_flight:
        wrong.append(f"{fields} was written over {stands}, which is not ours")
    return wrong
