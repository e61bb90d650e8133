"""Pages of the console that are open, and what is pushed to them as server-sent events.

While nobody looks nothing runs here. With the first page begins one task, which all pages share.
Three times a second it pushes levels, and about once a second the stack as it is, each encoded
once. It also renews the Watch by which gateways know that somebody looks, and ends it with the last
page. A page that does not read what it is sent is closed; the browser opens it again.

A page gets four kinds of events (the HTML standard, "Server-sent events": a name, one line of data,
and an empty line)::

    event: over       calls that have ended (live.call with ``over_at``), all of them at first
    event: entries    what has happened (timeline.Entry), likewise
    event: state      the whole stack (live.snapshot)
    event: levels     {"<call>": [lead in ms, jitter in ms, far, ours]}; the last two are a byte
                      for each 100 ms, in hex: ``{"c1": [60, 3, "0102", "007f"]}``
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import msgspec

from trunkline.bus import messages as m

from . import events as ev
from .timeline import Timeline

#: Levels are pushed every LEVELS_EVERY seconds, as often as gateways tell them. Every
#: STATE_AT_EACH-th of these pushes also has the state of the stack, which is larger and changes
#: less: a meter that moves once a second looks broken, and a list of calls does not.
LEVELS_EVERY: Final = 0.3
STATE_AT_EACH: Final = 4
#: A Watch lasts for WATCH_SECONDS, so gateways stop by themselves if this controller dies. It is
#: renewed with every WATCH_AT_EACH-th push (each 3 s), while 2 s of it are still to go.
WATCH_SECONDS: Final = 5.0
WATCH_AT_EACH: Final = 10
#: Pages and listeners at a time, and chunks that may wait for each. Without bounds any user of this
#: machine could fill the controller's memory by opening pages and reading none. 50 chunks are 15 s
#: of a page.
MOST_PAGES: Final = 16
MOST_LISTENERS: Final = 8
MOST_WAITING: Final = 50

_encode = msgspec.json.Encoder().encode


class Queue(asyncio.Queue[bytes | None]):
    """What waits for one page, or for one listener: chunks of its answer. None is its end.

    It has room for one more than :data:`MOST_WAITING`, so the end always fits in.
    """

    def __init__(self) -> None:
        super().__init__(MOST_WAITING + 1)

    def push(self, chunk: bytes | None) -> None:
        """Add a chunk, or the end. Where too much waits already the chunk is dropped and the end
        put in its place: nobody is there, or the reader is too slow to be live."""
        if self.qsize() < MOST_WAITING:
            self.put_nowait(chunk)
        elif not self.full():
            self.put_nowait(None)


def event(name: str, data: Any) -> bytes:
    """One server-sent event. JSON has no line break in it, so the data is one line, as it must
    be."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), _encode(data))


class Viewers:
    """All pages, and all who listen to a call. ``snapshot``: the stack now. ``look``: tells the
    core that somebody looks, and for how long that holds; the core passes it on to the gateways.
    """

    def __init__(
        self,
        snapshot: Callable[[], dict[str, Any]],
        timeline: Timeline,
        look: Callable[[ev.Look], object],
    ) -> None:
        self._snapshot = snapshot
        self._timeline = timeline
        self._look = look
        self._pages: set[Queue] = set()
        self._listeners: dict[Queue, str] = {}
        #: the newest of each call since the last push; an older one that was not pushed is left out
        self._levels: dict[str, m.Level] = {}
        #: the timeline's entries, and its ended calls, up to which all open pages have been told
        self._told = 0
        self._told_over = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def looking(self) -> bool:
        """Somebody looks or listens. While nobody does, no gateway measures a level."""
        return bool(self._pages or self._listeners)

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """The one task that pushes, or none. Tests wait for its end."""
        return [] if self._task is None else [self._task]

    @property
    def pages_full(self) -> bool:
        """Another page would be one too many. It is asked before a page is answered, because 503
        can only be said then; :meth:`page` looks once more, as another may come between."""
        return len(self._pages) >= MOST_PAGES

    @property
    def listeners_full(self) -> bool:
        """As :attr:`pages_full`, for those who listen."""
        return len(self._listeners) >= MOST_LISTENERS

    def shown(self, message: m.Levels | m.CallSound) -> None:
        """A gateway says how loud its calls are, or brings the sound of one (``do.Show``). Sound
        goes on at once, because who listens hears each delay; levels wait for the next push."""
        if isinstance(message, m.Levels):
            self._levels.update((level.call, level) for level in message.levels)
            return
        chunk = struct.pack("<QI", message.at, len(message.mulaw)) + message.mulaw
        for queue, call in self._listeners.items():
            if call == message.call:
                queue.push(chunk)

    async def page(self) -> AsyncIterator[bytes]:
        """The events of one page, from the whole state on: the body of ``/api/live``. It ends when
        the browser leaves, when the page does not read, or with the controller.

        A page that comes later than others may get an entry twice, with its first chunk and with
        the next push. It knows it by its number.
        """
        if self.pages_full:
            return
        queue = Queue()
        timeline = self._timeline
        queue.push(event("over", list(timeline.over)))
        queue.push(event("entries", timeline.since(0)))
        queue.push(event("state", self._snapshot()))
        if not self._pages:
            self._told, self._told_over = timeline.count, timeline.count_over
        self._pages.add(queue)
        self._begin()
        try:
            while (chunk := await queue.get()) is not None:
                yield chunk
        finally:
            self._pages.discard(queue)

    async def listen(self, call: str) -> AsyncIterator[bytes]:
        """The sound of a call as chunks: position (8 bytes) and length (4), little-endian, and then
        both sides in interleaved mu-law.

        The position is in samples at 8 kHz since the call's first stream came up. So a listener can
        tell a gap from silence. The two samples of each side at 20 ms (sample 160) are
        ``a0 00 00 00 00 00 00 00  04 00 00 00  xx yy xx yy``, x the far end's and y ours.
        """
        if self.listeners_full:
            return
        queue = Queue()
        self._listeners[queue] = call
        self._begin()
        self._watch()
        try:
            while (chunk := await queue.get()) is not None:
                yield chunk
        finally:
            del self._listeners[queue]

    def close(self) -> None:
        """End all answers: a listener that closes waits for those that are being given."""
        for queue in (*self._pages, *self._listeners):
            queue.push(None)
        if self._task is not None:
            self._task.cancel()

    def _begin(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    def _watch(self) -> None:
        """Renew the Watch. It names each call that is listened to once, however many listen, so its
        gateway sends its sound once."""
        self._look(ev.Look(WATCH_SECONDS, tuple(dict.fromkeys(self._listeners.values()))))

    async def _run(self) -> None:
        """Push for as long as somebody looks, then end the Watch at once: gateways would otherwise
        measure for up to five seconds more, for nobody."""
        turn = 0
        while self.looking:
            if turn % WATCH_AT_EACH == 0:
                self._watch()
            if self._pages:
                self._push(turn)
            turn += 1
            await asyncio.sleep(LEVELS_EVERY)
        self._levels.clear()
        self._look(ev.Look(0.0, ()))

    def _push(self, turn: int) -> None:
        """What is new, to all pages in one chunk: encoding costs more than sending, and all pages
        show the same."""
        chunks = []
        timeline = self._timeline
        if timeline.count > self._told:
            chunks.append(event("entries", timeline.since(self._told)))
            self._told = timeline.count
        if timeline.count_over > self._told_over:
            chunks.append(event("over", timeline.over_since(self._told_over)))
            self._told_over = timeline.count_over
        # Behind the calls that are over: a page keeps the levels of these.
        if turn % STATE_AT_EACH == 0:
            chunks.append(event("state", self._snapshot()))
        if self._levels:
            levels = {
                level.call: (level.lead_ms, level.jitter_ms, level.far.hex(), level.ours.hex())
                for level in self._levels.values()
            }
            self._levels.clear()
            chunks.append(event("levels", levels))
        if chunks:
            together = b"".join(chunks)
            for queue in self._pages:
                queue.push(together)
