"""The stacks of an account in PostgreSQL, as one process sees them, and takes them."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Container
from functools import partial

from ...twilio.threads import DaemonPool
from ..store import Journal
from .stacks import SILENT, Beats, Claim, Found, PostgresDatabase, with_open_rows


class Register:
    """``holder``: how the process calls itself. ``home``: the name of its state directory, or a new
    one."""

    def __init__(self, url: str, account: str, holder: str, home: str | None = None) -> None:
        self._url = url
        self._account = account
        self._holder = f"{holder} on {socket.gethostname()}"
        self._owner = secrets.token_hex(8)
        self.home = home or secrets.token_hex(8)
        self._beats = Beats()

    def __repr__(self) -> str:
        return f"Register({self._holder})"

    async def take(
        self, stack: str, *, seen: int | None = None, passing: bool = False
    ) -> tuple[Journal, bool]:
        """The stack's journal, and whether it was made just now. StackHeldError, JournalError."""
        claim = Claim(self._owner, self._holder, self.home, seen, passing)
        opened: list[PostgresDatabase] = []

        def connect() -> PostgresDatabase:
            opened.append(PostgresDatabase.open(self._url, self._account, stack, claim))
            return opened[0]

        journal = await Journal.on(connect)
        return journal, opened[0].new

    async def left(self, but: str) -> list[LeftInDatabase]:
        """All stacks with open rows but ours, whether they live or not."""
        found = await self._found(None)
        return [LeftInDatabase(self, stack) for stack in found if stack.stack != but]

    async def silent(self, but: Container[str]) -> list[LeftInDatabase]:
        """The same, but for those that have shown that they live since we began to ask."""
        found = await self._found(self._beats)
        return [
            LeftInDatabase(self, stack, watched=True) for stack in found if stack.stack not in but
        ]

    async def _found(self, beats: Beats | None) -> list[Found]:
        pool = DaemonPool("trunkline-register", 1)
        try:
            return await pool.run(partial(with_open_rows, self._url, self._account, beats))
        finally:
            pool.close()


class LeftInDatabase:
    """Rows of a stack (:class:`..places.Left`). It may live: if its beat has not moved after
    ``silent_for`` seconds, it does not. ``watched``: it has not for long enough."""

    on_a_network = True

    def __init__(self, register: Register, found: Found, *, watched: bool = False) -> None:
        self.stack = found.stack
        self.holder = found.holder
        self.rows = found.rows
        dead = watched or found.owner is None or found.home == register.home
        self.silent_for = 0.0 if dead else SILENT
        self._register = register
        self.beat = found.beat

    async def open(self) -> Journal:
        journal, _ = await self._register.take(self.stack, seen=self.beat)
        return journal

    def release(self) -> None:
        """Closing the journal does it."""
