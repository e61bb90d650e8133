"""Between the client's thread and the loops of its users: bells, and boxes that lose nothing.

A user may run several event loops (pytest-asyncio makes one for each test) and cancel whatever it
awaits. So what arrives is kept in a box with a lock; a user waits for the box's bell and then takes
from it without awaiting: a cancelled wait has taken nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class _Listener:
    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.event = asyncio.Event()
        self.rung = False

    def wake(self) -> None:
        self.rung = False
        self.event.set()


class Bell:
    """Rung from any thread; wakes coroutines of any loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: list[_Listener] = []

    def ring(self) -> None:
        with self._lock:
            for listener in self._listeners:
                if not listener.rung:
                    listener.rung = True
                    with contextlib.suppress(RuntimeError):  # that loop was closed meanwhile
                        listener.loop.call_soon_threadsafe(listener.wake)

    @contextlib.contextmanager
    def listen(self) -> Iterator[asyncio.Event]:
        """An event that is set whenever the bell rings, for the running loop."""
        listener = _Listener()
        with self._lock:
            self._listeners.append(listener)
        try:
            yield listener.event
        finally:
            with self._lock:
                self._listeners.remove(listener)

    async def wait_until(self, ready: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until ``ready()`` (asked now and at each ring); False when ``timeout`` seconds pass
        first. None waits for ever."""
        with self.listen() as rung:
            try:
                async with asyncio.timeout(timeout):
                    while not ready():
                        await rung.wait()
                        rung.clear()
            except TimeoutError:
                return ready()
        return True


class Box(Generic[T]):
    """What has arrived and was not taken yet; the bell is rung for each arrival and at the end."""

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
        """Something can be taken, or nothing ever will be."""
        return bool(self._items) or self.closed


class SoundBox:
    """Sound that was heard and not taken yet: PCM16 24 kHz, bounded; the oldest goes first."""

    def __init__(self, most_bytes: int) -> None:
        self._lock = threading.Lock()
        self._parts: deque[bytes] = deque()
        self._bytes = 0
        self._most = most_bytes
        self.bell = Bell()
        self.closed = False

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
        self.bell.ring()
        return dropped

    def put_back(self, pcm: bytes) -> None:
        """Put what was taken in front again."""
        if pcm:
            with self._lock:
                self._parts.appendleft(pcm)
                self._bytes += len(pcm)
            self.bell.ring()

    def close(self) -> None:
        self.closed = True
        self.bell.ring()

    def take_all(self) -> bytes:
        with self._lock:
            pcm = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts.clear()
            self._bytes = 0
        return pcm

    def ready(self) -> bool:
        """Something can be taken, or nothing ever will be."""
        return self._bytes > 0 or self.closed

    @property
    def drained(self) -> bool:
        """Nothing is in it, and nothing more will be."""
        return self.closed and self._bytes == 0
