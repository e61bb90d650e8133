"""Commands that are kept running together, and the order in which they end.

``trunkline up`` uses a supervisor for a whole stack and another for the stand-in carrier of
``--sim``, ``--keep-alive`` uses one for a single process, and ``trunkline with-parent`` for a
program that is not ours::

    async with Supervisor() as supervisor:
        child = supervisor.keep("controller", argv, environment)
        asked = await supervisor.until(stop)
    status = child.ended.result()  # every child has ended
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Self

from trunkline.bus.clock import monotonic
from trunkline.bus.launch import ParentPipe
from trunkline.bus.process import EXIT_DONE, EXIT_PENDING

from .children import Child

log = logging.getLogger("trunkline.stack.supervisor")

#: Seconds from the request to end until children that are left are killed (honcho kills after 5 s).
END_WITHIN: Final = 3.8


class Supervisor:
    """Children that run until the block ends, or until they end for good.

    Each reads a pipe that this process holds, so it also ends when this process is killed. At the
    end of the block the first child is asked to end. The others are asked once it has ended, or
    ``head_start`` seconds later. A child that is left ``within`` seconds after the first request is
    killed.
    """

    def __init__(self, *, head_start: float = 0.0, within: float = END_WITHIN) -> None:
        self.pipe = ParentPipe()
        self._head_start = head_start
        self._within = within
        self._children: list[Child] = []

    def keep(
        self,
        name: str,
        argv: Sequence[str],
        environment: Mapping[str, str],
        *,
        pass_fds: Sequence[int] = (),
        again: bool = True,
        silent_for: float | None = None,
        heard: Callable[[bool], None] | None = None,
        ours: bool = True,
    ) -> Child:
        """Start a command, and start it again when it dies.

        ``again=False``: it is never started again. ``silent_for``: seconds without a sign of life
        after which it is killed. ``heard``: called when signs of life come, with whether this run
        of the child has said that it is ready. ``ours=False``: the program is not trunkline's, and
        gets none of our pipes.
        """
        pipe = self.pipe if ours else None
        child = Child(
            name,
            argv,
            environment,
            pipe,
            pass_fds=pass_fds,
            again=again,
            silent_for=silent_for,
            heard=heard,
        )
        child.start()
        self._children.append(child)
        return child

    async def until(self, stop: asyncio.Event, *others: asyncio.Task[Any]) -> bool:
        """Wait until ``stop`` is set, a child ends for good, or one of ``others`` is done.

        Returns whether ``stop`` is set.
        """
        stopping = asyncio.create_task(stop.wait())
        ends = (child.ended for child in self._children)
        try:
            await asyncio.wait({stopping, *ends, *others}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        return stop.is_set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end()

    async def end(self) -> None:
        """End all children. Raises the OSError of a child that could not be started."""
        deadline = monotonic() + self._within
        # SIGTERM to the whole process group reaches the other children before we ask them.
        for child in self._children:
            child.keep_no_longer()
        for child in self._children[:1]:
            child.stop()
            await asyncio.wait({child.ended}, timeout=self._head_start)
        for child in self._children:
            child.stop()
        for child in self._children:
            await asyncio.wait({child.ended}, timeout=max(0.0, deadline - monotonic()))
            if not child.ended.done():
                log.error("%s did not end in time and is killed", child.name)
                child.kill()
        self.pipe.close()
        await asyncio.gather(*(child.ended for child in self._children))


def exit_status(status: int, role: str) -> int:
    """The exit status of a keeper whose ``trunkline ROLE`` ended with ``status``.

    A process that SIGTERM ended before it had its handler had nothing to put back yet, so that
    counts as done. A controller that had to be killed (-9) may have left numbers to put back, which
    its journal has.
    """
    if status >= 0:
        return status
    return EXIT_PENDING if status == -9 and role == "controller" else EXIT_DONE
