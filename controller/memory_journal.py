"""A journal that lives in memory: for what has no stack (``restore --account``), and for tests."""

from __future__ import annotations

from msgspec.structs import replace

from .journal import DialRow, OverrideRow, OverrideState


class MemoryJournal:
    """A JournalStore without a file."""

    def __init__(self) -> None:
        self.overrides: dict[str, OverrideRow] = {}
        self.dials: dict[str, DialRow] = {}
        self.epoch = 0

    async def begin_epoch(self, pid: int, now: float) -> int:
        self.epoch += 1
        return self.epoch

    async def open_overrides(self) -> list[OverrideRow]:
        return [row for row in self.overrides.values() if row.open]

    async def override(self, override: str) -> OverrideRow | None:
        return self.overrides.get(override)

    async def plan(self, row: OverrideRow, now: float) -> None:
        assert row.id not in self.overrides
        self.overrides[row.id] = replace(row, state="planned", prior=None, written=None)

    async def add_holder(self, override: str, session: str, secret_hash: str) -> None:
        row = self.overrides[override]
        self.overrides[override] = replace(row, holders={**row.holders, session: secret_hash})

    async def intend(
        self, override: str, prior: dict[str, str], written: dict[str, str], now: float
    ) -> None:
        row = self.overrides[override]
        self.overrides[override] = replace(row, prior=prior, written=written)

    async def set_state(
        self, override: str, state: OverrideState, now: float, uncertain_until: float = 0.0
    ) -> None:
        row = self.overrides[override]
        self.overrides[override] = replace(row, state=state, uncertain_until=uncertain_until)

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
        row = self.dials[request]
        if row.state != "closed":
            self.dials[request] = replace(row, sid=sid, state="taken")

    async def dial_closed(self, request: str) -> None:
        row = self.dials.get(request)
        if row is not None:
            self.dials[request] = replace(row, state="closed")

    async def close(self) -> None:
        """Nothing to close."""
