"""A small pool of daemon threads for work that blocks, such as the REST client's and the journal's.

Unlike the standard executor's, these threads do not hold up the end of the process: a REST request
that hangs must not keep a controller from ending within its 4 s.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class DaemonPool:
    """``size`` threads that run calls in the order in which they were given. With one thread the
    calls never run at the same time, as SQLite's connection needs it (``check_same_thread``)."""

    def __init__(self, name: str, size: int) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{i}", daemon=True) for i in range(size)
        ]
        for thread in self._threads:
            thread.start()

    async def run(self, call: Callable[..., T], *args: Any) -> T:
        """``call(*args)`` in a thread. Cancelling gives up the answer, not the call: Python cannot
        stop a thread, and a request to Twilio that is on its way may take effect."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]  # T may be None

        def work() -> None:
            result, error = None, None
            try:
                result = call(*args)
            except BaseException as raised:  # noqa: BLE001  # handed to the one who asked
                error = raised
            # The process may be at its end: a call that outlives the loop has nobody to answer.
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, result, error)

        self._work.put(work)
        return await future

    def close(self) -> None:
        """Let the threads end after what they have. Those that take longer end with the process."""
        for _ in self._threads:
            self._work.put(None)

    def _run(self) -> None:
        """One thread: one call after the other, until the end comes out of the queue."""
        while (work := self._work.get()) is not None:
            work()
