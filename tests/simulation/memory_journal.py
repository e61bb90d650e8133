"""A journal that lives in memory, for tests that would wait for a disk too often.

It behaves as the one in SQLite does, errors included, because the tests that kill a controller at
every step run on this one: they would prove nothing if it were kinder.

One contract test holds both journals to the same behaviour.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from trunkline.controller.journal.file import JournalError
from trunkline.controller.journal.rows import SEEN_KEPT, DialRow, OverrideRow, OverrideState
from trunkline.controller.journal.store import Unreadable


class MemoryJournal:
    """The methods of SqliteJournal, without a file.

    Rows are frozen and replaced as a whole, so what was handed out never changes afterwards, as
    with a row that was read from a file.
    """

    def __init__(self) -> None:
        self.overrides: dict[str, OverrideRow] = {}
        self.dials: dict[str, DialRow] = {}
        #: CallSid -> when its webhook was heard first
        self.calls: dict[str, float] = {}
        self.epoch = 0

    async def begin_epoch(self, pid: int, now: float, least: int = 1) -> int:
        self.epoch = max(self.epoch + 1, least)
        return self.epoch

    async def open_overrides(self) -> list[OverrideRow]:
        rows = [row for row in self.overrides.values() if row.open]
        return sorted(rows, key=lambda row: (row.since, row.id))

    async def override(self, override: str) -> OverrideRow | None:
        return self.overrides.get(override)

    async def plan(self, row: OverrideRow, now: float) -> None:
        if row.id in self.overrides:
            raise JournalError(f"override {row.id} is in the journal already")
        self.overrides[row.id] = replace(
            row, state="planned", prior=None, written=None, uncertain_until=0.0
        )

    async def add_holder(self, override: str, session: str, secret_hash: str) -> None:
        row = self._known(override)
        self.overrides[override] = replace(row, holders={**row.holders, session: secret_hash})

    async def intend(
        self, override: str, prior: dict[str, str], written: dict[str, str], now: float
    ) -> None:
        # Copies, as a file keeps: whoever changes theirs later changes no journal.
        self._set(override, prior=dict(prior), written=dict(written))

    async def set_state(
        self, override: str, state: OverrideState, now: float, uncertain_until: float = 0.0
    ) -> None:
        self._set(override, state=state, uncertain_until=uncertain_until)

    def _set(self, override: str, **fields: Any) -> None:
        self.overrides[override] = replace(self._known(override), **fields)

    def _known(self, override: str) -> OverrideRow:
        # Rows are never removed, so an id that is not there is a fault of the caller's.
        if override not in self.overrides:
            raise JournalError(f"there is no override {override}")
        return self.overrides[override]

    async def open_dials(self) -> list[DialRow]:
        return [row for row in self.dials.values() if row.state != "closed"]

    async def closed_dials(self, since: float) -> list[DialRow]:
        rows = self.dials.values()
        return [row for row in rows if row.state == "closed" and row.asked >= since]

    async def dial_asked(self, row: DialRow) -> bool:
        if row.request in self.dials:
            return False
        self.dials[row.request] = row
        return True

    async def dial_taken(self, request: str, sid: str) -> None:
        row = self.dials.get(request)
        # Closed is final: the client was told how its dial ended.
        if row is not None and row.state != "closed":
            self.dials[request] = replace(row, sid=sid, state="taken")

    async def dial_closed(self, request: str, seconds: float | None = None) -> None:
        row = self.dials.get(request)
        if row is not None:
            seconds = row.seconds if seconds is None else seconds
            self.dials[request] = replace(row, state="closed", seconds=seconds)

    async def note_seen(self, sid: str, since: float) -> None:
        kept = {s: t for s, t in self.calls.items() if t >= since - SEEN_KEPT}
        self.calls = {sid: since} | kept

    async def seen(self, since: float) -> list[tuple[str, float]]:
        found = [(sid, heard) for sid, heard in self.calls.items() if heard >= since]
        return sorted(found, key=lambda heard: (heard[1], heard[0]))

    async def unreadable(self) -> list[Unreadable]:
        return []

    async def close(self) -> None:
        """Nothing to close."""
