"""One fake clock for all simulated processes: an event loop whose time jumps from event to event.

Every event belongs to a *process* (the one that was current when it was scheduled), by a context
variable, so tasks and timers of real code carry it along. Killing a process means that none of its
events happens any more: nothing is cancelled, no ``finally`` runs, as with SIGKILL. Pausing one
holds its events back until it goes on, as with SIGSTOP. Events of the same instant happen in the
order in which they were scheduled, so a run follows from its seed alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


class Process:
    """A simulated process. ``kind``: controller, gateway, codec_worker, client; the world itself
    (the network, the carrier, people) is a process that never dies."""

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self.kind = kind
        self.alive = True
        self.paused = False
        #: called once when it dies
        self.on_death: list[Callable[[], None]] = []
        self.held: list[SimHandle] = []
        self.context = contextvars.copy_context()
        self.context.run(current.set, self)

    def __repr__(self) -> str:
        return self.name


current: contextvars.ContextVar[Process] = contextvars.ContextVar("process")


class SimHandle(asyncio.TimerHandle):
    """An event: a handle that is made quickly, for there are millions."""

    __slots__ = ("process",)

    def __init__(
        self,
        when: float,
        callback: Callable[..., Any],
        args: Any,
        loop: SimLoop,
        context: contextvars.Context | None,
    ) -> None:
        self._callback = callback
        self._args = args
        self._when = when
        self._context = contextvars.copy_context() if context is None else context
        self.process: Process = self._context.get(current, loop.world)
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True


class OutOfTime(Exception):
    """The run did not come to an end within the events that it may take."""


class SimLoop(asyncio.AbstractEventLoop):
    """The loop. ``failures``: exceptions that nobody took, with what was going on."""

    def __init__(self, most_events: int = 3_000_000) -> None:
        self._now = 1000.0
        self._order = itertools.count()
        self._ready: deque[SimHandle] = deque()
        self._timers: list[tuple[float, int, SimHandle]] = []
        self._most_events = most_events
        #: tasks are held, so that none is collected (and its ``finally`` run) in the middle
        self._tasks: list[asyncio.Task[Any]] = []
        self._of: dict[asyncio.Task[Any], Process] = {}
        self.events = 0
        self.failures: list[str] = []
        self.world = Process("world", "world")

    # ------------------------------------------------------------------ what asyncio needs

    def time(self) -> float:
        return self._now

    def time_ns(self) -> int:
        return int(self._now * 1e9)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_soon(
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = SimHandle(self._now, callback, args, self, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]  # there is one thread

    def call_later(
        self,
        delay: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        timer = SimHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]  # typeshed's has more overloads
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[T]:
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # the dead leave theirs
        self._tasks.append(task)
        self._of[task] = current.get() if context is None else context.get(current, self.world)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.failures.append(f"{current.get()}: {context.get('message')}: {error!r}")

    def untaken(self) -> list[str]:
        """Exceptions that tasks of living processes ended with, and nobody has looked at."""
        ended = [t for t in self._tasks if t.done() and t._log_traceback]  # type: ignore[attr-defined]  # as asyncio's own report
        ended = [task for task in ended if self._of[task].alive]
        return [f"{task.get_name()}: {task.exception()!r}" for task in ended]

    # ------------------------------------------------------------------ processes

    def in_process(self, process: Process, work: Callable[..., T], *args: Any) -> T:
        """Run ``work`` now, as the process."""
        return process.context.copy().run(work, *args)

    def kill(self, process: Process) -> None:
        if process.alive:
            process.alive = False
            process.held.clear()
            for tell in process.on_death:
                tell()

    def pause(self, process: Process) -> None:
        process.paused = True

    def resume(
        self, process: Process, shuffle: Callable[[list[SimHandle]], list[SimHandle]]
    ) -> None:
        """Let it go on with what ``shuffle`` makes of the events that were held back."""
        process.paused = False
        self._ready.extend(shuffle(process.held))
        process.held.clear()

    def forget(self) -> None:
        """The run is over: what was going on in it ends unheard, that of dead processes too. Else
        coroutines would protest, some day, that nobody awaits them."""
        for task in self._tasks:
            coroutine = task.get_coro()
            if not task.done() and isinstance(coroutine, Coroutine):
                with contextlib.suppress(Exception):  # what is left to be done fails anyhow
                    coroutine.close()
        self._tasks.clear()
        self._of.clear()
        self._ready.clear()
        self._timers.clear()

    # ------------------------------------------------------------------ running

    @contextlib.contextmanager
    def running(self) -> Iterator[SimLoop]:
        asyncio._set_running_loop(self)
        try:
            yield self
        finally:
            asyncio._set_running_loop(None)

    def run_until(self, until: float, over: Callable[[], bool] | None = None) -> None:
        """Let everything happen up to ``until``, or until ``over`` (asked at each instant that is a
        whole second). Raises OutOfTime."""
        second = int(self._now) + 1
        ready, timers = self._ready, self._timers
        while True:
            while ready:
                self._run(ready.popleft())
            if not timers or timers[0][0] > until:
                self._now = max(self._now, until)
                return
            when = timers[0][0]
            if over is not None and when >= second:
                self._now = max(self._now, float(second))
                if over():
                    return
                second = int(when) + 1
            self._now = max(self._now, when)
            while timers and timers[0][0] <= self._now:
                timer = heapq.heappop(timers)[2]
                if not timer._cancelled:
                    ready.append(timer)

    def _run(self, handle: SimHandle) -> None:
        if handle._cancelled:
            return
        process = handle.process
        if not process.alive:
            return
        if process.paused:
            process.held.append(handle)
            return
        self.events += 1
        if self.events > self._most_events:
            raise OutOfTime(f"{self.events} events, and no end at {self._now:.1f} s")
        try:
            handle._context.run(handle._callback, *handle._args)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the run's finding
            self.call_exception_handler({"message": repr(handle._callback), "exception": error})
