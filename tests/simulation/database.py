"""The database of a simulated fleet: a row and a journal for each stack, and who has which.

Where there is one controller alone, it has one stack, whose journal is there at each start.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass, field
from typing import Any, Final

from trunkline.bus.errors import NumberBusyError
from trunkline.controller.journal.database import JournalError, StackHeldError
from trunkline.controller.journal.postgres.stacks import BEAT, Beats
from trunkline.controller.journal.reading import OpenRows
from trunkline.controller.journal.rows import DialRow, OverrideRow

from .memory_journal import MemoryJournal, SlowJournal

#: The id of the first stack; later ones have a number behind it.
FIRST: Final = "5tack"


@dataclass(eq=False)
class Row:
    """A stack's, with its journal. ``home``: the host that has it."""

    stack: str
    home: int
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    owner: Hold | None = None
    endpoint: str | None = None
    beat: int = 0


class Database:
    """All of them. ``now``: the simulation's clock. ``shared``: by two hosts."""

    def __init__(self, now: Callable[[], float], *, shared: bool) -> None:
        self.now = now
        self.shared = shared
        self.rows: dict[str, Row] = {}
        self._of_home: dict[int, str] = {}
        self._numbers = itertools.count(1)

    def begin(self, home: int, endpoint: str, pause: Pause) -> Hold:
        """A controller starts on the host: it has the stack of the last start there, unless another
        host has taken that."""
        row = self.rows.get(self._of_home.get(home, ""))
        if row is None or (row.owner is not None and row.home != home):
            number = next(self._numbers)
            row = Row(FIRST if number == 1 else f"{FIRST}{number}", home)
            self.rows[row.stack] = row
            self._of_home[home] = row.stack
        return Hold(self, row, home, endpoint, pause)

    def holder(self, number: str, but: str) -> str | None:
        """Another stack of the fleet that has the number."""
        for row in self.rows.values():
            held = (x.number for x in row.journal.left.overrides)
            if row.stack != but and row.owner is not None and number in held:
                return row.stack
        return None

    # ------------------------------------------------------------------ for whoever looks on

    @property
    def overrides(self) -> dict[str, OverrideRow]:
        """All that there have been, by id."""
        return {k: v for row in self.rows.values() for k, v in row.journal.overrides.items()}

    @property
    def dials(self) -> dict[str, DialRow]:
        """All that there have been, by request id."""
        return {k: v for row in self.rows.values() for k, v in row.journal.dials.items()}

    @property
    def left(self) -> OpenRows:
        """The rows that are open."""
        every = [row.journal.left for row in self.rows.values()]
        return OpenRows(*([x for left in every for x in left[n]] for n in range(4)))  # type: ignore[arg-type]  # four lists


Pause = Callable[[], Awaitable[None]]


class Hold(SlowJournal):
    """A process's hold on a stack's journal, from when it took it until another one does."""

    def __init__(
        self, database: Database, row: Row, home: int, endpoint: str, pause: Pause
    ) -> None:
        super().__init__(row.journal, self._paused)
        self.shared = database.shared
        self.name = row.stack
        self.row = row
        self._database = database
        self._wait = pause
        row.owner, row.home, row.endpoint = self, home, endpoint
        row.beat += 1

    async def _paused(self) -> None:
        await self._wait()
        if self.row.owner is not self:
            raise JournalError(f"stack {self.row.stack} was taken by host {self.row.home}")
        self.row.beat += 1

    async def confirm(self) -> None:
        await self._paused()

    async def turn(self) -> float:
        return 0.0

    async def plan(self, row: OverrideRow, now: float) -> None:
        await self._paused()
        holder = self._database.holder(row.number, self.row.stack)
        if holder is not None:
            raise NumberBusyError(f"number {row.number} is held by stack {holder}")
        await self._journal.plan(row, now)
        await self._wait()

    async def beat(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Show that the stack lives, until it is taken."""
        while True:
            await sleep(BEAT)
            await self._paused()

    async def close(self) -> None:
        if self.row.owner is self:
            self.row.owner = self.row.endpoint = None


class Left:
    """A stack of another host, which has not shown itself."""

    silent_for = 0.0
    on_a_network = True

    def __init__(self, register: Register, row: Row) -> None:
        self.stack = row.stack
        self.rows = row.journal.left
        self.fleet = row.owner is not None
        self._register = register
        self._row = row
        self._seen = row.beat

    async def look(self) -> None:
        """Nobody asks: it was watched already."""

    async def open(self) -> Any:
        register, row = self._register, self._row
        await register.pause()
        if row.owner is not None and row.home != register.home and row.beat != self._seen:
            raise StackHeldError(row.stack, f"host {row.home}")
        taken = Hold(register.database, row, register.home, register.endpoint, register.pause)
        if not self.fleet:
            row.endpoint = None
        return taken

    def release(self) -> None:
        """Closing the journal does it."""


class Register:
    """The stacks as one process sees them."""

    def __init__(self, database: Database, home: int, endpoint: str, pause: Pause) -> None:
        self.database = database
        self.home = home
        self.endpoint = endpoint
        self.pause = pause
        self.fleet: list[tuple[str, str]] = []
        self._beats = Beats()

    def look(self) -> None:
        rows = self.database.rows.values()
        self.fleet = [(row.stack, row.endpoint) for row in rows if row.endpoint is not None]

    def left(self, but: str) -> list[Left]:
        """Stacks of the fleet that this host had when it died."""
        rows = self.database.rows.values()
        mine = (row for row in rows if row.home == self.home and row.owner is not None)
        return [Left(self, row) for row in mine if row.stack != but]

    async def silent(self, but: Container[str]) -> list[Left]:
        await self.pause()
        self.look()
        rows = self.database.rows
        beats = {stack: row.beat for stack, row in rows.items()}
        silent = self._beats.silent(beats, self.database.now())
        found = [rows[stack] for stack in sorted(silent) if stack not in but]
        return [Left(self, row) for row in found if row.owner is not None or any(row.journal.left)]
