"""Between the client's thread and the loops of its users: bells, and boxes that lose nothing.

A user may run several event loops (pytest-asyncio makes one for each test) and cancel whatever it
awaits. So everything that arrives is kept in a box with a lock. A user waits for the box's bell,
and then takes from the box without awaiting, so that a cancelled wait has taken nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class _Waker:
    """Wakes the listeners of one loop: all that were rung since it last ran, at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._lock = threading.Lock()
        self._rung: list[_Listener] = []

    def ring(self, listener: _Listener) -> None:
        with self._lock:
            self._rung.append(listener)
            first = len(self._rung) == 1
        if first:
            held = getattr(_held, "wakers", None)
            if held is None:
                self.call()
            else:
                held.append(self)

    def call(self) -> None:
        loop = self._loop()
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it was closed meanwhile
                loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        with self._lock:
            rung, self._rung = self._rung, []
        for listener in rung:
            listener.wake()


_held = threading.local()
_wakers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Waker] = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def rung_together() -> Iterator[None]:
    """Bells that this thread rings in the block are heard at its end. So each loop is woken once,
    however many of its coroutines listen, and only when this thread has done its work and leaves
    the interpreter to it."""
    _held.wakers = []
    try:
        yield
    finally:
        wakers, _held.wakers = _held.wakers, None
        for waker in wakers:
            waker.call()


class _Listener:
    """One coroutine that waits at a bell, on its loop. The bell keeps this object, and its timer,
    from one wait to the next."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        waker = _wakers.get(loop)
        if waker is None:  # nobody else makes it: this is the loop's own thread
            waker = _wakers[loop] = _Waker(loop)
        self.waker = waker
        #: the bell was rung, and this loop has not run since
        self.rung = False
        #: the coroutine waits for this; None: it does not wait
        self.future: asyncio.Future[bool] | None = None
        #: the wait ends at this time (the loop's clock); None: only with a ring
        self._until: float | None = None
        #: fires at ``_until`` or before. A wait that ends with a ring leaves the timer to the next
        #: wait
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def wait(self, until: float | None) -> asyncio.Future[bool]:
        """Resolves True at the next ring, False at ``until`` (the loop's clock)."""
        self.future = future = self.loop.create_future()
        self._until = until
        if until is not None and (self._timer is None or until < self._timer_at):
            self._set_timer(until)
        return future

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = self.loop.call_at(at, self._late), at

    def _late(self) -> None:
        self._timer = None
        if self.future is not None and self._until is not None:
            if self._until <= self._timer_at:
                self._settle(False)
            else:
                self._set_timer(self._until)

    def wake(self) -> None:
        self.rung = False
        self._settle(True)

    def _settle(self, rung: bool) -> None:
        future = self.future
        if future is not None and not future.done():
            future.set_result(rung)


class Bell:
    """Rung from any thread; wakes coroutines of any loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: all listeners that ever waited here, but for those of closed loops. Most bells have one
        #: listener, which waits again and again. Whoever rings reads this tuple without the lock,
        #: so it is replaced and never changed.
        self._listeners: tuple[_Listener, ...] = ()

    def ring(self) -> None:
        # A coroutine that begins to wait just now asks its ``ready`` once more before it sleeps.
        for listener in self._listeners:
            if listener.future is not None and not listener.rung:
                listener.rung = True
                listener.waker.ring(listener)

    async def wait_until(self, ready: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until ``ready()`` (asked now and at each ring); False when ``timeout`` seconds pass
        first. None waits for ever."""
        if ready():
            return True
        loop = asyncio.get_running_loop()
        until = None if timeout is None else loop.time() + timeout
        listener = self._listener(loop)
        try:
            while True:
                future = listener.wait(until)
                if ready():
                    return True
                rung = await future
                if ready():
                    return True
                if not rung:
                    return False
        finally:
            listener.future = None

    def _listener(self, loop: asyncio.AbstractEventLoop) -> _Listener:
        """A listener of this loop that does not wait now. Only the loop's own thread uses it."""
        for listener in self._listeners:
            if listener.loop is loop and listener.future is None:
                return listener
        listener = _Listener(loop)
        with self._lock:
            others = [other for other in self._listeners if not other.loop.is_closed()]
            self._listeners = (*others, listener)
        return listener


class Box(Generic[T]):
    """Arrivals that nobody has taken yet; the bell is rung for each arrival and at the end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: deque[T] = deque()
        self.bell = Bell()
        #: nothing more will be put in
        self.closed = False

    def put(self, item: T) -> None:
        with self._lock:
            self._items.append(item)
        self.bell.ring()

    def close(self) -> None:
        self.closed = True
        self.bell.ring()

    def take(self) -> T | None:
        """The oldest item, or None when the box is empty."""
        with self._lock:
            return self._items.popleft() if self._items else None

    def take_all(self) -> list[T]:
        with self._lock:
            items = list(self._items)
            self._items.clear()
        return items

    def ready(self) -> bool:
        """Something can be taken, or nothing more will ever come."""
        return bool(self._items) or self.closed


class SoundBox:
    """Sound that was heard and not taken yet: PCM16 24 kHz, bounded; the oldest goes first.

    ``piece_changed`` is called, in the thread of whoever waits, when ``piece`` has changed."""

    def __init__(self, most_bytes: int, piece_changed: Callable[[], None] = lambda: None) -> None:
        self._lock = threading.Lock()
        self._parts: deque[bytes] = deque()
        self._bytes = 0
        self._most = most_bytes
        self.bell = Bell()
        self.closed = False
        #: this many bytes are worth a wake-up of whoever waits, or waited last
        self._enough = 1
        #: sound may come in pieces of this many bytes, because nobody needs any of it sooner
        self.piece = 1
        self._piece_changed = piece_changed

    def put(self, pcm: bytes) -> int:
        """Add; returns the bytes of old sound that had to be dropped."""
        dropped = 0
        with self._lock:
            self._parts.append(pcm)
            self._bytes += len(pcm)
            while self._bytes > self._most:
                old = len(self._parts.popleft())
                self._bytes -= old
                dropped += old
        if self._bytes >= self._enough:
            self.bell.ring()
        return dropped

    def put_back(self, pcm: bytes) -> None:
        """Put sound that was taken back, in front of the rest."""
        if pcm:
            with self._lock:
                self._parts.appendleft(pcm)
                self._bytes += len(pcm)
            self.bell.ring()

    def close(self) -> None:
        """Nothing more comes. ``piece_changed`` is let go, because its owner mostly holds this box.
        If the two held each other, a call's sound would stay in memory until the next collection
        of garbage."""
        self.closed = True
        self._piece_changed = lambda: None
        self.bell.ring()

    def __len__(self) -> int:
        """Bytes that can be taken."""
        return self._bytes

    def __bool__(self) -> bool:
        return True

    def take_all(self) -> bytes:
        with self._lock:
            pcm = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts.clear()
            self._bytes = 0
        return pcm

    def ready(self) -> bool:
        """Enough can be taken, or nothing ever will be."""
        return self._bytes >= self._enough or self.closed

    def wait(
        self, timeout: float | None, enough: int = 1, piece: int | None = None
    ) -> Coroutine[Any, Any, bool]:
        """Wait until ``enough`` bytes can be taken, or nothing more comes; False: ``timeout``
        seconds have passed. ``piece``: sound may come so many bytes at a time from now on; None: as
        many as are enough."""
        self._enough = enough
        piece = enough if piece is None else piece
        if piece != self.piece:
            self.piece = piece
            self._piece_changed()
        return self.bell.wait_until(self.ready, timeout)

    @property
    def drained(self) -> bool:
        """Nothing is in it, and nothing more will be."""
        return self.closed and self._bytes == 0
