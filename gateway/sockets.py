"""Reads the Media Streams sockets of all calls together.

A loop that watches each socket by itself wakes up for every frame: 50 times a second for each call,
and a wake-up costs more than the frame. So the descriptors of all calls stand in one selector of
their own. With a call or two the loop watches that selector, and a frame is handed on as it comes.
From :data:`CLOCKED_FROM` calls on nothing watches the selector. Instead, every :data:`PERIOD` all
sockets that have something are read in one go, and their frames leave in one message to each
worker. From :data:`DENSE_FROM` calls on a wake-up serves so many calls that the period can be half
as long. Where nobody waits for a single frame (``patient``), the period is :data:`PATIENT_PERIOD`,
and one look, one read of a socket and one message are enough for two frames.

Looks by the clock stand where the monotonic clock is a whole multiple of the period. The workers of
the same machine read a little after that (see ``codec_worker/process.py``), so a frame that has
waited here does not wait again for a worker.
"""

from __future__ import annotations

import asyncio
import logging
import select
import selectors
import sys
from collections.abc import Callable
from typing import Final

from trunkline.bus.clock import monotonic
from trunkline.bus.histogram import LATENESS, Histogram
from trunkline.bus.wall import Wall

log = logging.getLogger("trunkline.gateway")

#: Seconds between two looks at all sockets. A frame of the carrier lasts as long.
PERIOD: Final = 0.02
#: The same, where there are many sockets.
DENSE_PERIOD: Final = 0.01
#: The same, where all sound is taken in large pieces.
PATIENT_PERIOD: Final = 0.04
#: From this many sockets on they are read by the clock.
CLOCKED_FROM: Final = 3
#: From this many sockets on they are read twice as often.
DENSE_FROM: Final = 48


if sys.platform == "linux":

    class _Selector:
        """epoll, without what ``selectors`` does for each event."""

        def __init__(self) -> None:
            self._epoll = select.epoll()
            self.fileno = self._epoll.fileno
            self.unregister = self._epoll.unregister

        def register(self, descriptor: int) -> None:
            self._epoll.register(descriptor, select.EPOLLIN)

        def ready(self, most: int) -> list[int]:
            """The descriptors that have something to read."""
            return [descriptor for descriptor, _ in self._epoll.poll(0, most)]

else:

    class _Selector:
        """kqueue, by way of ``selectors``."""

        def __init__(self) -> None:
            self._selector = selectors.DefaultSelector()
            self.fileno = self._selector.fileno
            self.unregister = self._selector.unregister

        def register(self, descriptor: int) -> None:
            self._selector.register(descriptor, selectors.EVENT_READ)

        def ready(self, most: int) -> list[int]:
            return [key.fd for key, _ in self._selector.select(0)]


class Sockets:
    """The sockets that are read together on the running loop. ``after`` is called after each look,
    when everything that had come was handed out. If reading one of them raises, the ``wall`` counts
    and logs that, and the others are read all the same. ``patient`` says whether nobody waits for a
    single frame."""

    def __init__(
        self,
        after: Callable[[], None],
        wall: Wall | None = None,
        patient: Callable[[], bool] = lambda: False,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._after = after
        self._patient = patient
        #: seconds before the next look, and before the one that was last due
        self._period = self._waited = PERIOD
        self._wall = Wall(log) if wall is None else wall
        #: made with the first socket, because it takes a descriptor of its own
        self._selector: _Selector | None = None
        self._readable: dict[int, Callable[[], object]] = {}
        self._watched = False
        self._reading = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        #: how late the clock has woken this process
        self.lateness = Histogram(LATENESS)

    @property
    def clocked(self) -> bool:
        """The sockets are read by the clock: whatever has come is read within a period, and then
        ``after`` is called."""
        return self._timer is not None

    @property
    def flushes(self) -> bool:
        """``after`` is going to be called soon, by the clock or by the read that goes on."""
        return self._reading or self._timer is not None

    @property
    def read_within(self) -> float:
        """How long data that a look finds may have waited to be read (seconds)."""
        return max(PERIOD, self._waited) if self.clocked else 0.0

    @property
    def in_pairs(self) -> bool:
        """A period brings two frames of each call."""
        return self.clocked and self._period == PATIENT_PERIOD

    def add(self, descriptor: int, readable: Callable[[], object]) -> None:
        """Call ``readable`` whenever there is something to read."""
        if self._selector is None:
            self._selector = _Selector()
        self._selector.register(descriptor)
        self._readable[descriptor] = readable
        self._choose()

    def remove(self, descriptor: int) -> None:
        """The socket is read no more; to be called before it is closed."""
        if descriptor in self._readable:
            assert self._selector is not None
            self._selector.unregister(descriptor)
            del self._readable[descriptor]
            self._choose()

    def _choose(self) -> None:
        """Choose whether sockets are read by the clock or as data comes: their number decides."""
        assert self._selector is not None
        count = len(self._readable)
        if (count >= CLOCKED_FROM) != self.clocked:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            else:
                self._set_timer()
                self._waited = self._period
        watch = 0 < count < CLOCKED_FROM
        if watch != self._watched:
            self._watched = watch
            if watch:
                self._loop.add_reader(self._selector.fileno(), self._read)
            else:
                self._loop.remove_reader(self._selector.fileno())

    def _set_timer(self) -> None:
        # The loop counts whole milliseconds, so a look may come a little early. It counts as the
        # one that was due if it is early by less than a quarter of a period.
        if self._patient():
            period = PATIENT_PERIOD
        else:
            period = PERIOD if len(self._readable) < DENSE_FROM else DENSE_PERIOD
        self._period = period
        self._timer_at = ((self._loop.time() + period / 4) // period + 1) * period
        self._timer = self._loop.call_at(self._timer_at, self._tick)

    def _tick(self) -> None:
        # Not loop.time(): that is when the loop last looked at its clock, in whole milliseconds.
        self.lateness.count(monotonic() - self._timer_at)
        self._waited = self._period
        self._set_timer()
        self._read()

    def _read(self) -> None:
        """Read the sockets: the selector says that some have data, or the clock is due."""
        self._reading = True
        try:
            self._read_all()
        finally:
            self._reading = False
        self._after()

    def _read_all(self) -> None:
        assert self._selector is not None
        if self._watched and len(self._readable) == 1:
            (readable,) = self._readable.values()  # it is the only socket
            self._wall.shield("frame of a carrier", readable)
            return
        for descriptor in self._selector.ready(len(self._readable)):
            found = self._readable.get(descriptor)
            if found is not None:  # a socket that was read before may have closed this one
                try:
                    found()
                except Exception as error:  # noqa: BLE001  # the others' sound is read too
                    self._wall.fault("frame of a carrier", error)
