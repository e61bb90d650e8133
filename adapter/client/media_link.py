"""The media plane at the client: one DEALER to each worker that carries one of its calls.

A link is opened for the first call that names the worker, and closed with the last call. When the
connection is lost, the socket is thrown away and a new socket tries the same endpoint. (A worker
that died never comes back there: the controller then names another.) On each new connection the
link says MediaHello and attaches all of its calls.

A client that did not run for a while (a stopped process, a busy machine) finds messages of all its
workers at once, and cannot know which came first. Everything that the old worker of a call sent has
to be read before another worker takes the call over. Otherwise sound that the old worker had
acknowledged would be said twice. So the :class:`MediaPlane` holds back the new worker's messages
until the client has caught up.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec
import zmq

from trunkline.bus import messages as m
from trunkline.bus.clock import Clock
from trunkline.bus.curve import ClientCurve
from trunkline.bus.sockets import BusSocket, connect_dealer
from trunkline.bus.wall import Wall

from .call_media import CallMedia
from .thread_bridge import rung_together

log = logging.getLogger("trunkline.adapter")

#: A client that did not run for this long (seconds) has to catch up ...
STALLED = 0.15
#: ... which takes this long: ZeroMQ's own thread reads the sockets 8 KiB at a time, in turn.
CATCH_UP = 0.06

_encoder = msgspec.msgpack.Encoder()


OfOneCall = (
    m.Opened | m.Interrupted | m.MarkPlayed | m.DigitHeard | m.Loss | m.StreamOver | m.AttachRefused
)


class WorkerLink:
    """The connection to one worker."""

    def __init__(self, plane: MediaPlane, worker: m.WorkerRef) -> None:
        self.worker = worker
        self.calls: dict[str, CallMedia] = {}
        self._plane = plane
        self._socket: BusSocket | None = None
        self._connected = False
        self._receive = plane.wall.door(m.WorkerToAdapter, self._take_in, f"worker {worker.id}")
        self._open()

    def _open(self) -> None:
        self._connected = False
        self._socket = connect_dealer(
            self._plane.context,
            self.worker.endpoint,
            self._receive,
            on_connected=self._on_connected,
            on_disconnected=self._on_disconnected,
            curve=self._plane.curve,
        )

    def _on_connected(self) -> None:
        self._connected = True
        self.send(m.MediaHello("adapter", self._plane.peer))
        for call in self.calls.values():
            self.send(m.Attach(call.call, call.info.secret))

    def _on_disconnected(self) -> None:
        self.close()
        for call in self.calls.values():
            call.audio.worker_lost(self.worker.id, self._plane.clock())
        self._open()

    def add(self, call: CallMedia) -> None:
        """Attach ``call`` here, once."""
        if call.call not in self.calls:
            self.calls[call.call] = call
            if self._connected:
                self.send(m.Attach(call.call, call.info.secret))

    def attach_again(self, call: CallMedia) -> None:
        """Attach ``call`` again, because its secret has changed."""
        if call.call in self.calls:
            self.send(m.Attach(call.call, call.info.secret))

    def remove(self, call: str) -> None:
        if self.calls.pop(call, None) is not None:
            self.send(m.Detach(call))

    def send(self, message: m.ToWorker) -> bool:
        return (
            self._connected
            and self._socket is not None
            and self._socket.send(_encoder.encode(message))
        )

    def close(self, linger: int = 0) -> None:
        self._connected = False
        if self._socket is not None:
            self._socket.close(linger)
            self._socket = None

    def _take_in(self, message: m.WorkerToAdapter) -> None:
        """One message of the worker. Users are woken last: they need the interpreter, too."""
        now = self._plane.clock()
        with rung_together():
            self._plane.runs(now)
            if isinstance(message, m.Heard):
                self._heard(message, now)
            elif not isinstance(message, m.Tick):
                self._told(message, now)
            self._plane.polls(now)

    def _heard(self, message: m.Heard, now: float) -> None:
        worker, calls = self.worker.id, self.calls
        for sound in message.sounds:
            call = calls.get(sound.call)
            if call is not None:
                call.heard(worker, sound, now)
        for acknowledged in message.acknowledged:
            call = calls.get(acknowledged.call)
            if call is not None and call.audio.acknowledge(worker, acknowledged, now):
                call.act()

    def _told(self, message: OfOneCall | m.MediaRefused, now: float) -> None:
        worker = self.worker.id
        if isinstance(message, m.MediaRefused):
            log.error("worker %s refuses this client: %s", worker, message.text)
        elif message.call in self.calls:
            audio = self.calls[message.call].audio
            if self._plane.holds(self, message.call) or audio.may_overtake(worker, message, now):
                self._plane.hold(self, message)
            else:
                self.take(message, now)

    def take(self, message: OfOneCall, now: float) -> None:
        """Take a message that is for one call."""
        worker = self.worker.id
        call = self.calls.get(message.call)
        if call is None:
            return
        if isinstance(message, m.Opened):
            call.audio.opened(worker, message, now)
            call.act()
            call.changed.ring()
            self._plane.attach(call)  # leaves the workers of older placements
        elif isinstance(message, m.Interrupted):
            call.audio.interrupted(worker, message, now)
        elif isinstance(message, m.MarkPlayed):
            call.audio.mark_played(worker, message)
        elif isinstance(message, m.DigitHeard):
            call.audio.digit_heard(worker, message)
        elif isinstance(message, m.Loss):
            call.audio.loss(worker, message)
        elif isinstance(message, m.StreamOver):
            call.audio.stream_over(worker, message, now)
        else:
            log.error("worker %s refuses the secret of call %s", worker, message.call)
        call.act()


class MediaPlane:
    """All links of one client."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        peer: str,
        curve: ClientCurve | None,
        clock: Clock,
        poll: Callable[[float], None] = lambda now: None,
    ) -> None:
        self.context = context
        self.wall = Wall(log, clock=clock)
        self.peer = peer
        self.curve = curve
        self.clock = clock
        #: to be called at each message, once it was taken
        self.polls = poll
        self._links: dict[str, WorkerLink] = {}
        #: when the client was last seen to run, and until when it catches up
        self._ran_at = clock()
        self._caught_up_at = 0.0
        self._held: list[tuple[WorkerLink, OfOneCall]] = []

    def runs(self, now: float) -> None:
        """The client runs: to be called at each message, before it is taken."""
        if now - self._ran_at > STALLED:
            self._caught_up_at = now + CATCH_UP
            for link in self._links.values():
                for call in link.calls.values():
                    call.audio.stalled(self._ran_at, self._caught_up_at)
        self._ran_at = now

    def rested(self, now: float) -> None:
        """There was no call until now, so the client had no reason to run, and did not stall."""
        self._ran_at = now

    def holds(self, link: WorkerLink, call: str) -> bool:
        """A message of ``link`` for ``call`` is held back, so the next ones have to wait as
        well."""
        return any(held is link and message.call == call for held, message in self._held)

    def hold(self, link: WorkerLink, message: OfOneCall) -> None:
        """Keep ``message`` until the client has caught up."""
        self._held.append((link, message))

    def poll(self, now: float) -> None:
        """To be called every 50 to 100 ms while there are calls: messages that were held back are
        taken once the client has caught up."""
        self.runs(now)
        if self._held and now >= self._caught_up_at:
            held, self._held = self._held, []
            for link, message in held:
                link.take(message, now)

    def send(self, worker: str, message: m.ToWorker) -> bool:
        """Send to a worker; False when there is no connection to it, or its queue is full."""
        link = self._links.get(worker)
        return link is not None and link.send(message)

    def attach(self, call: CallMedia) -> None:
        """Attach ``call`` to the workers of its placement, and leave those of older placements
        (but for the active one, which the gateway may still be using)."""
        placement = call.info.placement
        if placement is None:
            return
        wanted = {placement.primary.id: placement.primary}
        if placement.standby is not None:
            wanted[placement.standby.id] = placement.standby
        for ref in wanted.values():
            link = self._links.get(ref.id)
            if link is not None and link.worker.endpoint != ref.endpoint:
                # Another process has this worker's name now, and none of the old process's calls.
                link.close()
                for other in link.calls.values():
                    other.audio.worker_lost(ref.id, self.clock())
                fresh = self._links[ref.id] = WorkerLink(self, ref)
                for other in link.calls.values():
                    fresh.add(other)
                link = fresh
            if link is None:
                link = self._links[ref.id] = WorkerLink(self, ref)
            link.add(call)
        for link in list(self._links.values()):
            if link.worker.id not in wanted and link.worker.id != call.audio.active:
                self._leave(link, call.call)

    def attach_again(self, call: CallMedia) -> None:
        """Attach ``call`` again at all its workers, because its secret has changed."""
        for link in self._links.values():
            link.attach_again(call)

    def detach(self, call: str) -> None:
        """The call is over: leave all workers."""
        for link in list(self._links.values()):
            self._leave(link, call)

    def _leave(self, link: WorkerLink, call: str) -> None:
        link.remove(call)
        if not link.calls:
            link.close(linger=100)
            self._links.pop(link.worker.id, None)

    def close(self) -> None:
        for link in self._links.values():
            link.close(linger=100)
        self._links.clear()
