"""The stacks of an account in PostgreSQL, as one process sees them, and takes them.

A controller takes its own stack at its start, asks what others left, and looks every 2.5 s for
stacks that fall silent (:mod:`...other_stacks`). ``trunkline restore`` only asks and takes. What is
asked here runs in a thread for each question, since the journal's own thread may be waiting for a
database that is away.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Awaitable, Callable, Container
from functools import partial
from typing import TypeVar

from ...twilio.threads import DaemonPool
from ..database import DatabaseAwayError, StackHeldError
from ..store import Journal
from .server import OPENS_WITHIN, Server
from .stacks import SILENT, Beats, Claim, Found, Place, PostgresDatabase, beat_of, look

T = TypeVar("T")


class Register:
    """``holder``: how the process calls itself; "on" and the host's name are added, as in
    "controller (pid 4711, tcp://10.0.0.1:7000) on node-3". ``home``: the name of its state
    directory in the database, or a new one. ``place``: where the stacks that it runs are reached;
    None: it runs none.

    ``fleet``: the stacks that are served at our public URL, each with the address of its bus, as
    they were when last looked at."""

    def __init__(
        self,
        url: str,
        account: str,
        holder: str,
        home: str | None = None,
        place: Place | None = None,
    ) -> None:
        self._url = url
        self._account = account
        self._holder = f"{holder} on {socket.gethostname()}"
        # Not the pid and the host: both may be the same again after a restart of a container, and
        # then a process that was fenced out would take the next one's row for its own.
        self._owner = secrets.token_hex(8)
        self.home = home or secrets.token_hex(8)
        self._place = place
        self._beats = Beats()
        self.fleet: list[tuple[str, str]] = []

    def __repr__(self) -> str:
        return f"Register({self._holder})"

    async def take(
        self, stack: str, *, seen: int | None = None, passing: bool = False, runs: bool = False
    ) -> Journal:
        """The stack's journal. ``seen``: the beat that stood still while we watched. ``passing``:
        it is a private stack, whose rows go with it. ``runs``: peers may look for the stack here.
        StackHeldError: its beat has moved, so it lives. JournalError: the database cannot be used.

        A try that is given up asks nothing more. Its thread would else take the stack later, and
        whoever has it by then, this process too, would be fenced out.
        """
        place = self._place if runs else None
        claim = Claim(self._owner, self._holder, self.home, seen, passing, place)
        database = PostgresDatabase(Server(self._url), self._account, stack, claim)
        try:
            return await self._bounded(Journal.on(database.open))
        except BaseException:  # whatever ends it, a cancellation too
            database.interrupt()
            raise

    async def left(self, but: str) -> list[LeftInDatabase]:
        """All stacks with open rows, and those of the fleet, but for ``but``, whether they live or
        not: nobody has watched their beats yet. Each says how long it has to be watched."""
        found = await self._found(None)
        return [LeftInDatabase(self, stack) for stack in found if stack.stack != but]

    async def silent(self, but: Container[str]) -> list[LeftInDatabase]:
        """The stacks of :meth:`left` whose beat has stood still for the time of a lease while this
        was asked again and again. The first question only begins the watch, and finds none."""
        found = await self._found(self._beats)
        return [
            LeftInDatabase(self, stack, watched=True) for stack in found if stack.stack not in but
        ]

    async def _found(self, beats: Beats | None) -> list[Found]:
        """One look at the database."""
        public_url = None if self._place is None else self._place.public_url
        self.fleet, found = await self._asked(
            partial(look, self._url, self._account, public_url, beats)
        )
        return found

    async def beat(self, stack: str) -> int | None:
        """A stack's beat as it is now; None: its rows are gone."""
        return await self._asked(partial(beat_of, self._url, stack))

    async def _asked(self, question: Callable[[], T]) -> T:
        """The answer to a question, in a thread that ends with it."""
        pool = DaemonPool("trunkline-register", 1)
        try:
            return await self._bounded(pool.run(question))
        finally:
            pool.close()

    async def _bounded(self, question: Awaitable[T]) -> T:
        """Its answer. DatabaseAwayError: neither that nor an error has come in time."""
        try:
            async with asyncio.timeout(OPENS_WITHIN):
                return await question
        except TimeoutError:
            name = Server(self._url).name
            raise DatabaseAwayError(f"{name}: the database does not answer") from None


class LeftInDatabase:
    """The open rows of a stack that may still live (:class:`..places.Left`). It is dead if its beat
    does not move for ``silent_for`` seconds in which we look again and again. ``watched``: that has
    been done already, and it did not move. ``fleet``: the stack's clients look for it at the other
    controllers."""

    on_a_network = True

    def __init__(self, register: Register, found: Found, *, watched: bool = False) -> None:
        self.stack = found.stack
        self.holder = found.holder
        self.rows = found.rows
        ended = found.owner is None or found.home == register.home
        self.silent_for = 0.0 if watched or ended else SILENT
        self.fleet = found.fleet
        self._register = register
        self._beat = found.beat
        self._seen = None if ended else found.beat

    async def look(self) -> None:
        if await self._register.beat(self.stack) not in (self._beat, None):
            raise StackHeldError(self.stack, self.holder)

    async def open(self) -> Journal:
        return await self._register.take(self.stack, seen=self._seen, runs=self.fleet)

    def release(self) -> None:
        """Nothing: the journal says at its close that the stack has ended, so no lock is left."""
