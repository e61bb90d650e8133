"""The bus client of a process: one daemon thread for each bus address, shared by all its lines.

The thread runs a loop of its own (uvloop where it is installed) that owns every ZeroMQ socket: the
connection to the controller, and one to each worker that carries a call. Its beats renew the leases
of all sessions, so a user's loop that is blocked, or a debugger, does not lose a call. Users'
coroutines cross over with :meth:`BusClient.run`; cancelling one cancels its work in the thread.

A forked child starts with no client (its copies of the sockets are never touched). At the end of
the process all sessions are closed, so that their numbers are restored.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import logging
import os
import secrets
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import zmq

from trunkline.bus import messages as m
from trunkline.bus.clock import monotonic
from trunkline.bus.control import ControlClient
from trunkline.bus.curve import ClientCurve
from trunkline.bus.endpoints import BusAddress
from trunkline.bus.errors import StackUnavailableError, TrunklineError

from .media_link import MediaPlane
from .session import ClientSession

log = logging.getLogger("trunkline.adapter")

T = TypeVar("T")

#: The client looks at its calls' deadlines when messages come, but at most this often (seconds). If
#: no messages come, a timer of the second period looks.
POLL_SECONDS = 0.05
POLL_AT_LATEST = 0.1
#: At the end of the process closing all sessions may take this long (seconds).
EXIT_WITHIN = 8.0

_lock = threading.Lock()
_clients: dict[str, BusClient] = {}
#: clients of a parent process: kept, so that nothing of theirs is closed here
_inherited: list[BusClient] = []


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class BusClient:
    """The client of one bus address, from :func:`acquire`; give it back with ``release``."""

    def __init__(self, address: BusAddress, curve: ClientCurve | None) -> None:
        self.address = address
        self.peer = f"a-{os.getpid()}-{secrets.token_hex(4)}"
        self.pid = os.getpid()
        self.users = 0
        self.control: ControlClient
        self.media: MediaPlane
        self.sessions: dict[str, ClientSession] = {}
        self._curve = curve
        #: the stack that has our sessions
        self._stack = ""
        self._loop = _new_loop()
        self._started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._stop: asyncio.Event
        self._polled_at = 0.0
        #: looks at the deadlines where no message comes; None: there is no call
        self._timer: asyncio.TimerHandle | None = None
        self._thread = threading.Thread(
            target=self._main, name=f"trunkline-{self.peer}", daemon=True
        )
        self._thread.start()
        self._started.result()

    # ------------------------------------------------------------------ for users' threads

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` in the client's thread; returns its result."""
        return await asyncio.wrap_future(self.post(work))

    def post(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Start ``work`` in the client's thread. RuntimeError in a forked child;
        StackUnavailableError where the thread has ended."""
        if self.pid != os.getpid():
            work.close()
            raise RuntimeError("this line was opened before a fork; open a new one in this process")
        if not self._thread.is_alive():
            work.close()
            raise StackUnavailableError("the bus client of this line has been closed")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def post_unheard(self, work: Coroutine[Any, Any, object]) -> None:
        """``post`` where nobody waits for what comes of it. Nothing is done where the thread has
        ended, or after a fork: nothing is open then."""
        with contextlib.suppress(RuntimeError):
            self.post(work)

    async def welcome(self, timeout: float) -> m.Welcome:
        """The controller's Welcome; StackUnavailableError when none comes in ``timeout`` s."""

        async def wait() -> m.Welcome:
            return await self.control.wait_welcome(timeout)

        return await self.run(wait())

    async def open_session(self, info: m.SessionInfo) -> ClientSession:
        """A new, open session; errors as OpenSession's."""

        async def open_it() -> ClientSession:
            session = ClientSession(self.control, self.media, monotonic, self._forget, info)
            self.sessions[session.id] = session
            try:
                await session.open()
            except Exception:  # it is raised again, for whoever opens
                self._forget(session)
                raise
            return session

        try:
            return await self.run(open_it())
        except asyncio.CancelledError:
            self.post_unheard(self._give_up(info))
            raise

    async def _give_up(self, info: m.SessionInfo) -> None:
        """Close a session whose user has gone away while it was being opened. The controller may
        have opened it all the same."""
        session = self.sessions.get(info.session)
        if session is None:
            return
        if session.opened is None:
            session.opened = m.SessionOpened(
                session=info.session, number=info.number, number_sid="", account="", public_url=None
            )
        await session.close()

    def tell_heard(self, latency: list[float], time_to_yield: list[float]) -> None:
        """Somebody has looked at the report of a call that is over: /metrics counts its figures. A
        client that has been closed meanwhile, or that a fork has left behind, tells nobody."""

        async def tell() -> None:
            self.control.notify(m.CallHeard(self.peer, latency, time_to_yield))

        self.post_unheard(tell())

    async def release(self) -> None:
        """Give the client back; the last one ends its thread."""
        if self._leave():
            await asyncio.to_thread(self.stop)

    def give_back(self) -> None:
        """``release`` for a thread of no loop; blocks as :meth:`stop` does."""
        if self._leave():
            self.stop()

    def _leave(self) -> bool:
        """Count one user less. True: it was the last one."""
        with _lock:
            self.users -= 1
            last = self.users == 0 and _clients.get(self.address.text) is self
            if last:
                del _clients[self.address.text]
            return last

    def stop(self) -> None:
        """Close all sessions, end the thread; blocks for :data:`EXIT_WITHIN` seconds at most."""
        if self.pid != os.getpid() or not self._thread.is_alive():
            return
        with contextlib.suppress(RuntimeError):  # it ended by itself just now
            self._loop.call_soon_threadsafe(self._end)
        self._thread.join(EXIT_WITHIN)

    # ------------------------------------------------------------------ the thread

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()

    async def _serve(self) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._stop = asyncio.Event()
            self.media = MediaPlane(context, self.peer, self._curve, monotonic, self.poll)
            self.control = ControlClient(
                context,
                self.address,
                peer=self.peer,
                hello=self._hello,
                beat=lambda: m.Beat(peer=self.peer, sessions=list(self.sessions)),
                on_event=self._told,
                on_welcome=self._welcomed,
                on_refused=self._refused,
                on_moved=lambda moved: self._follow_stack(moved.bus),
                curve=self._curve,
            )
            self.control.start()
        except BaseException as error:
            context.destroy(0)
            self._started.set_exception(error)
            raise
        self._started.set_result(None)
        try:
            await self._stop.wait()
            await asyncio.gather(*(session.close() for session in list(self.sessions.values())))
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self.media.close()
            await self.control.close()
            await _cancel_the_rest()
            context.term()

    def poll(self, now: float) -> None:
        """Look at the deadlines of all calls, if that was not done just now."""
        if now - self._polled_at < POLL_SECONDS:
            return
        self._polled_at = now
        self.media.poll(now)
        for session in list(self.sessions.values()):
            session.poll(now)
        self._look_later()

    def _look_later(self) -> None:
        """See that deadlines are looked at while there are calls, though no message comes. Each
        look puts the next one off, so the timer wakes nobody while messages come."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if any(session.calls for session in self.sessions.values()):
            self._timer = self._loop.call_later(POLL_AT_LATEST, self._look)

    def _look(self) -> None:
        self._timer = None
        self.poll(monotonic())

    def _end(self) -> None:
        self._stop.set()

    def _forget(self, session: ClientSession) -> None:
        self.sessions.pop(session.id, None)

    def _hello(self) -> m.Hello:
        """The Hello of this client. Its sessions belong to one stack, wherever that stack's
        controller is. Without a session, any stack will do."""
        sessions = [s.describe() for s in self.sessions.values() if s.opened is not None]
        return m.Hello(
            role="adapter",
            peer=self.peer,
            pid=self.pid,
            sessions=sessions,
            stack=self._stack if sessions else "",
        )

    def _follow_stack(self, bus: str | None) -> None:
        """Go to the controller that has our stack now."""
        if bus is not None:
            self.control.go(BusAddress.read(bus))

    def _fleet(self, controllers: Sequence[m.ControllerRef]) -> None:
        """Note which controllers to ask if ours is gone."""
        buses = dict.fromkeys(each.bus for each in controllers)
        others = (BusAddress.read(bus) for bus in buses if bus != self.address.text)
        self.control.ring = [self.address, *others]

    def _welcomed(self, welcome: m.Welcome) -> None:
        self._stack = welcome.stack
        self._fleet(welcome.fleet)
        for unknown in welcome.unknown_sessions:
            session = self.sessions.get(unknown)
            if session is not None:
                session.lose(
                    StackUnavailableError(
                        "the stack was away for too long: the session's lease is gone"
                    )
                )

    def _refused(self, error: TrunklineError) -> None:
        for session in list(self.sessions.values()):
            session.lose(error)

    def _told(self, event: m.Event) -> None:
        self._event(event)
        if self._timer is None:
            self.media.rested(monotonic())
            self._look_later()

    def _event(self, event: m.Event) -> None:
        if isinstance(event, m.Fleet):
            self._fleet(event.controllers)
            return
        if isinstance(event, m.PoolQueued):
            log.info("all numbers of the pool are in use: place %d in the queue", event.place)
        for session in list(self.sessions.values()):
            session.told(event)


async def _cancel_the_rest() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def acquire(address: BusAddress, curve: Callable[[], ClientCurve | None]) -> BusClient:
    """The process's client of ``address``, which is made if there is no such client; ``release()``
    it once."""
    with _lock:
        client = _clients.get(address.text)
        if client is None or not client._thread.is_alive():
            client = _clients[address.text] = BusClient(address, curve())
        client.users += 1
        return client


async def acquire_in_thread(make: Callable[[], BusClient]) -> BusClient:
    """Run ``make``, which calls :func:`acquire`, in a thread, because that blocks, and return its
    client. Cancelled: the client is given back as soon as it is there."""
    executor = concurrent.futures.ThreadPoolExecutor(1)
    made = executor.submit(make)
    try:
        return await asyncio.wrap_future(made)
    except asyncio.CancelledError:
        executor.submit(_give_back, made)  # the one thread runs this next
        raise
    finally:
        executor.shutdown(wait=False)


def _give_back(made: concurrent.futures.Future[BusClient]) -> None:
    if not made.cancelled() and made.exception() is None:
        made.result().give_back()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()  # the parent's may have been held by a thread that is not here
    _inherited.extend(_clients.values())
    _clients.clear()


#: Called at the end of the process, after all clients are closed.
after_clients: list[Callable[[], None]] = []


@atexit.register
def _at_exit() -> None:
    with _lock:
        clients = list(_clients.values())
        _clients.clear()
    for client in clients:
        client.stop()
    for finish in after_clients:
        finish()


os.register_at_fork(after_in_child=_after_fork_in_child)
