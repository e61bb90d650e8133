"""What must be true of every single write to a number, whatever comes of it."""

from __future__ import annotations

from trunkline.controller.journal.rows import OverrideRow
from trunkline.controller.twilio.seal import Seal


def wrong_write(
    fields: dict[str, str], rows: list[OverrideRow], stands: str, *, in_flight: bool
) -> list[str]:
    """What is wrong with writing ``fields``, in words. ``rows``: the journal's of this number;
    ``stands``: its voice_url now, unless another write of ours is on its way (``in_flight``).

    What is written stands in the journal before, and nothing is undone but what is ours.
    """
    rows = [row for row in rows if row.open]
    seal = Seal.read(fields["voice_url"])
    if seal is not None:
        if any(row.id == seal.override and row.written == fields for row in rows):
            return []
        return [f"{fields} was written, and not journalled before: {rows}"]
    wrong = []
    if not any(row.state == "restoring" for row in rows):
        wrong.append(f"{fields} was put back, and not journalled before: {rows}")
    if Seal.read(stands) is None and not in_flight:
        wrong.append(f"{fields} was written over {stands}, which is not ours")
    return wrong
