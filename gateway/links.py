"""The connections of one gateway to its workers, and whether these are usable. No I/O.

One connection goes to each worker of a live placement, also to the standby. So the standby is known
to be usable before it is needed. A connection that was lost is never used again. A connection that
no stream needs is kept for a while, for the next call.

Frames and acknowledgements are gathered for each worker. They leave together (:meth:`Links.flush`),
and before any other message to that worker.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

from trunkline.bus import messages as m
from trunkline.bus.sound import WIRE_RATE

from .instructions import CloseLink, Instruction, OpenLink, SendToWorker

#: A worker that has sent nothing for this long has stalled (seconds). A worker with nothing else to
#: say sends Tick.
TICK_LIMIT: Final = 0.5
#: An unused connection is kept this long for the next call (seconds).
UNUSED_SECONDS: Final = 5.0


@dataclass(slots=True)
class Link:
    """The connection to one worker."""

    worker: m.WorkerRef
    #: when a message last came, or when the link was opened. If this gateway has stood still since,
    #: that time is added, because the worker is not to blame for it
    heard: float
    #: a lost link is not used again; :meth:`Links.revive` puts a new one in its place
    phase: Literal["connecting", "up", "lost"] = "connecting"
    #: no message has come for too long
    stalled: bool = False
    #: frames that the next flush sends; this worker got an OpenCall for each of their calls
    batch: list[m.InFrame] = field(default_factory=list)
    #: by call, how far its sound was written: generation, position, and when the carrier will have
    #: played it; the next flush says so
    written: dict[str, tuple[int, int, float]] = field(default_factory=dict)
    #: the worker wants in one message what two flushes would send
    pairs: bool = False
    #: the first of those two flushes has been skipped
    half: bool = False
    #: since when no stream needs this connection; None while one does
    unused_since: float | None = None

    @property
    def endpoint(self) -> str:
        return self.worker.endpoint

    @property
    def usable(self) -> bool:
        """A call may go to this worker, at once or when the connection is up."""
        return self.phase != "lost" and not self.stalled


class Links:
    """All connections to workers. Instructions are appended to ``out``."""

    def __init__(self, out: list[Instruction]) -> None:
        self._out = out
        self.by_endpoint: dict[str, Link] = {}
        #: the links that had something to send at the last flush; a flush where none had does not
        #: count
        self._used: list[Link] = []

    @property
    def in_pairs(self) -> bool:
        """All workers for which the last flush had something want pairs now."""
        return bool(self._used) and all(link.pairs for link in self._used)

    @property
    def at_rest(self) -> bool:
        """There is no connection."""
        return not self.by_endpoint

    def worker(self, endpoint: str | None) -> str | None:
        """The id of the worker at this endpoint, if we have a connection to it."""
        link = None if endpoint is None else self.by_endpoint.get(endpoint)
        return None if link is None else link.worker.id

    # ------------------------------------------------------------------ connections come and go

    def connect(self, workers: Iterable[m.WorkerRef], now: float) -> None:
        """Open a connection to each of these workers to which there is none."""
        for worker in workers:
            if worker.endpoint not in self.by_endpoint:
                self.by_endpoint[worker.endpoint] = Link(worker, now)
                self._out.append(OpenLink(worker))

    def revive(self, workers: Iterable[m.WorkerRef], now: float) -> None:
        """The same as ``connect``, but a lost connection counts as none."""
        workers = list(workers)
        for worker in workers:
            link = self.by_endpoint.get(worker.endpoint)
            if link is not None and link.phase == "lost":
                del self.by_endpoint[worker.endpoint]
        self.connect(workers, now)

    def up(self, endpoint: str, now: float) -> Link | None:
        """The handshake is done. None: the connection was lost or closed meanwhile."""
        link = self.by_endpoint.get(endpoint)
        if link is None or link.phase != "connecting":
            return None
        link.phase, link.heard = "up", now
        return link

    def lose(self, link: Link) -> None:
        """The connection is gone. Frames that were gathered for it are dropped here, because the
        rings of their streams have them too."""
        link.phase = "lost"
        link.batch.clear()
        link.written.clear()
        self._out.append(CloseLink(link.endpoint))

    def close_unused(self, used: Collection[str | None], now: float) -> None:
        """Close the connections that no stream has needed for a while."""
        for endpoint, link in list(self.by_endpoint.items()):
            if endpoint in used:
                link.unused_since = None
            elif link.unused_since is None:
                link.unused_since = now
            elif now - link.unused_since >= UNUSED_SECONDS:
                if link.phase != "lost":
                    self._out.append(CloseLink(endpoint))
                del self.by_endpoint[endpoint]

    # ------------------------------------------------------------------ whether they are usable

    def excuse(self, seconds: float) -> None:
        """The gateway itself stood still for ``seconds``, which makes no worker late."""
        for link in self.by_endpoint.values():
            link.heard += seconds

    def fallen_silent(self, now: float) -> list[Link]:
        """The connections whose workers have stalled since the last look. All of them are marked
        before any call moves, so that no call moves to another worker that is silent too."""
        silent = [
            link
            for link in self.by_endpoint.values()
            if link.usable and now - link.heard > TICK_LIMIT
        ]
        for link in silent:
            link.stalled = True
        return silent

    # ------------------------------------------------------------------ messages to the workers

    def flush(self, now: float | None = None, *, all_of_it: bool = False) -> bool:
        """Send what was gathered, and how far sound was written: one Inbound to each worker. True:
        some of that waits for the next flush, because its worker wants frames in pairs."""
        waits = False
        used = [link for link in self.by_endpoint.values() if link.batch or link.written]
        if used:
            self._used = used
        for link in self.by_endpoint.values():
            if link.pairs and not (link.half or all_of_it) and (link.batch or link.written):
                link.half = waits = True
            else:
                self._flush(link, now)
        return waits

    def _flush(self, link: Link, now: float | None = None) -> None:
        link.half = False
        if link.batch or link.written:
            written = [
                m.WrittenTo(call, generation, position, _ahead(plays_until, now))
                for call, (generation, position, plays_until) in link.written.items()
            ]
            inbound = m.Inbound(link.batch, written, now)
            self._out.append(SendToWorker(link.endpoint, inbound))
            link.batch = []
            link.written.clear()

    def send(self, link: Link, message: m.ToWorker) -> None:
        """Send ``message``, behind all that was gathered for the worker."""
        self._flush(link)
        if isinstance(message, m.OpenCall):
            link.pairs = False
        self._out.append(SendToWorker(link.endpoint, message))


def _ahead(plays_until: float, now: float | None) -> int | None:
    """Samples that lie unplayed at the carrier; None: it is not known."""
    return None if now is None else max(0, round((plays_until - now) * WIRE_RATE))
