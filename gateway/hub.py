"""The gateway's shell around its streams: sockets of the carrier on one side, DEALERs to the
workers on the other. It holds no rule: it feeds events to :class:`~.streams.Streams` and carries
out what that says.

Inbound frames and acknowledgements are flushed to the workers once per :data:`FLUSH_SECONDS`: one
message for all calls costs as much as one for a single frame, and what a message costs is waking
the other process.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import Counter, deque
from collections.abc import Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, Final, Protocol
from urllib.parse import unquote

import msgspec
import zmq

from trunkline.bus import messages as m
from trunkline.bus import tracing
from trunkline.bus.clock import Clock, monotonic
from trunkline.bus.curve import CurveKeys
from trunkline.bus.errors import TrunklineError
from trunkline.bus.sockets import BusSocket, connect_dealer

from . import instructions as do
from . import media_streams as ms
from . import twiml
from .app import Front
from .recording import Recorder, Stereo
from .signature import HEADER, SETTINGS_HEADER, Reason, objection, shown, stream_base
from .streams import CHECK_SECONDS, Streams
from .websocket import Refusal, Upgrade, WebSocket

log = logging.getLogger("trunkline.gateway")

#: How long inbound frames and acknowledgements are gathered. Each message wakes three threads, so
#: at few calls this sets the CPU of gateway, worker and client alike; a frame lasts 20 ms.
FLUSH_SECONDS: Final = 0.01
#: A recording is written in blocks of half a second.
RECORDING_BLOCK: Final = 8_000
#: Sockets that have not been let in yet, at most.
MAX_STRANGERS: Final = 200
#: Frames that are held while the controller is asked: 10 s.
MAX_HELD: Final = 500
#: Frames of a one-way stream that are kept while it waits for its turn: 2 s. The worker finds the
#: end of the stream before it among them.
MAX_WAITING: Final = 100
#: A one-way stream waits no longer than this (seconds).
TURN_WITHIN: Final = 20.0
#: A stream that overlaps the one before it is opened once it has brought so many frames (160 ms),
#: or after :data:`OVERLAP_WITHIN` seconds: so much both have brought then.
OVERLAP_FRAMES: Final = 8
OVERLAP_WITHIN: Final = 0.5
#: The controller is given at least this long for a ``start``, however late it came.
LEAST_ANSWER: Final = 0.5

_SERVED: Final = frozenset((twiml.STREAM_PATH,))

_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(m.WorkerToGateway)


class Controller(Protocol):
    """What the hub needs of ControlClient."""

    async def request(
        self, body: m.RequestBody, expect: type[m.Message], *, timeout: float | None = None
    ) -> m.Message: ...
    def notify(self, notification: m.Notification) -> bool: ...


class StreamSocket:
    """One Media Streams socket: a stranger, then held while the controller is asked, then live.

    Between the last two, a one-way stream waits for its turn, and a stream that overlaps the one
    before it waits until it has brought enough of what both bring.
    """

    def __init__(self, hub: Hub, number: int) -> None:
        self.number = number
        self.protocol = ms.MediaStream(hub.clock())
        self.socket: WebSocket | None = None
        self._hub = hub
        self._live = False
        #: events between ``start`` and the controller's answer; None before and after
        self._held: deque[ms.Event] | None = None
        #: the controller's answer, for a one-way stream that waits for its turn
        self._waits: tuple[m.StreamAccepted, str] | None = None
        #: set once a stream that overlaps has brought enough, or is closed
        self._overlaps: asyncio.Event | None = None
        self._closed: m.StreamEndReason | None = None
        self._span: tracing.RoomSpan | None = None
        self._timer: asyncio.TimerHandle | None = None

    # ------------------------------------------------------------------ the WebSocket's handler

    def opened(self, socket: WebSocket) -> None:
        self.socket = socket
        self._timer = asyncio.get_running_loop().call_later(ms.START_WITHIN, self._overdue)

    def text(self, data: bytes) -> None:
        event = self.protocol.receive(data)
        if event is None:
            return
        if self._live:
            if type(event) is ms.Media:
                if self._hub.streams.media(self.number, event.position, event.payload):
                    self._hub.flush_soon()
            else:
                self._take(event)
        else:
            self._before(event)

    def binary(self) -> None:
        self._violated(self.protocol.binary())

    def too_long(self) -> None:
        self._violated(self.protocol.too_long())

    def closed(self, clean: bool) -> None:
        self.end("close" if clean else "error")
        self._hub.gone(self.number)

    # ------------------------------------------------------------------ its life

    def _before(self, event: ms.Event) -> None:
        if isinstance(event, ms.Violation):
            self._violated(event)
        elif isinstance(event, ms.Start):
            token = event.parameters.get("nonce")
            if not token:
                self._hub.refuse(self, "its start has no token")
                return
            self._held = deque()
            self._hub.spawn(self._ask(event, token))
        elif isinstance(event, ms.Stop):
            self._stopped()
        elif self._held is not None:
            if self._waits is not None and len(self._held) >= MAX_WAITING:
                self._held.popleft()
            if len(self._held) < MAX_HELD:
                self._held.append(event)
            else:
                self._hub.counts["held-too-long"] += 1
            if self._overlaps is not None and len(self._held) >= OVERLAP_FRAMES:
                self._overlaps.set()

    def _violated(self, event: ms.Event | None) -> None:
        if isinstance(event, ms.Violation):
            self._hub.refuse(self, event.why)

    def _overdue(self) -> None:
        self._timer = None
        if self._held is None and not self._live:
            self._hub.refuse(self, "no start came in time")

    async def _ask(self, start: ms.Start, token: str) -> None:
        hub = self._hub
        body = m.StreamStart(
            token=token, call_sid=start.call_sid, stream_sid=start.stream_sid, gateway=hub.peer
        )
        left = max(self.protocol.deadline - hub.clock(), LEAST_ANSWER)
        try:
            answer = await hub.controller.request(body, m.Message, timeout=left)
        except TrunklineError as error:
            hub.refuse(self, f"the controller could not be asked: {error}", code=1013)
            return
        if not isinstance(answer, m.StreamAccepted):
            why = answer.why if isinstance(answer, m.StreamRefused) else type(answer).__name__
            hub.refuse(self, f"the controller refused it: {why}")
            return
        if self._is_open:
            self._disarm()
            assert self.socket is not None
            self.socket.believe()
            if answer.one_way:
                self._waits = answer, start.stream_sid
                hub.waits(self, answer.info.call)
                return
            if answer.overlaps:
                await self._overlap()
        self._go_live(answer, start.stream_sid)

    @property
    def _is_open(self) -> bool:
        return self._closed is None and self.socket is not None and self.socket.is_open

    async def _overlap(self) -> None:
        """Wait until enough has come for the worker to join it to the stream before."""
        if len(self._held or ()) >= OVERLAP_FRAMES:
            return
        self._overlaps = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(OVERLAP_WITHIN):
                await self._overlaps.wait()
        self._overlaps = None

    def turn(self, info: m.CallInfo) -> None:
        """The one-way stream is the call's stream from now on."""
        assert self._waits is not None
        accepted, stream_sid = self._waits
        self._waits = None
        self._go_live(msgspec.structs.replace(accepted, info=info), stream_sid)

    def _go_live(self, answer: m.StreamAccepted, stream_sid: str) -> None:
        hub, info = self._hub, answer.info
        if not self._is_open:
            hub.not_there(info, self._closed or "close")
            return
        self._live = True
        held, self._held = self._held or (), None
        log.info("call %s: stream %d is up", info.sid, info.ordinal)
        self._span = tracing.begin(
            "trunkline.gateway.stream",
            info.trace,
            {
                "trunkline.peer": hub.peer,
                "trunkline.call_sid": info.sid,
                "trunkline.ordinal": info.ordinal,
            },
        )
        early: list[ms.Media] = []
        if answer.one_way or answer.overlaps:
            early = [event for event in held if isinstance(event, ms.Media)]
        hub.accepted(self, answer, stream_sid, early)
        for event in held:
            if not early or not isinstance(event, ms.Media):
                self._take(event)

    def _take(self, event: ms.Event) -> None:
        hub, number = self._hub, self.number
        if isinstance(event, ms.Media):
            if hub.streams.media(number, event.position, event.payload):
                hub.flush_soon()
        elif isinstance(event, ms.Dtmf):
            hub.apply(hub.streams.digit(number, event.index, event.digit))
        elif isinstance(event, ms.MarkReturned):
            hub.apply(hub.streams.mark_returned(number, event.name))
        elif isinstance(event, ms.Stop):
            self._stopped()

    def _stopped(self) -> None:
        self.end("stop")
        if self.socket is not None:
            self.socket.close(1000)

    def end(self, reason: m.StreamEndReason) -> None:
        """The stream is over, for the first reason that is given."""
        if self._closed is None:
            self._closed = reason
            self._disarm()
            if self._overlaps is not None:
                self._overlaps.set()
            if self._live:
                if self.protocol.bad:
                    log.info(
                        "stream %d sent what it should not: %s", self.number, self.protocol.bad
                    )
                self._hub.apply(self._hub.streams.closed(self.number, reason, self._hub.clock()))
                if self._span is not None:
                    self._span.end({"trunkline.stream_end": reason})

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Hub:
    """All sockets and connections of the gateway with peer id ``peer``, on the running loop."""

    def __init__(
        self,
        peer: str,
        front: Front,
        controller: Controller,
        context: zmq.Context[zmq.Socket[bytes]],
        *,
        lead_ms: int = 60,
        curve: CurveKeys | None = None,
        recorder: Recorder | None = None,
        clock: Clock = monotonic,
    ) -> None:
        self.peer = peer
        self.controller = controller
        self.clock = clock
        self.streams = Streams(peer, clock(), lead_ms)
        self.sockets: dict[int, StreamSocket] = {}
        #: by call: one-way streams that wait for their turn
        self._waiting: dict[str, StreamSocket] = {}
        #: refused, held-too-long, unreadable: things that went wrong around the streams
        self.counts: Counter[str] = Counter()
        self.draining = False
        self._emptied: asyncio.Event | None = None
        self._front = front
        self._context = context
        self._curve = curve
        self._links: dict[str, BusSocket] = {}
        #: by endpoint and call: what was written and not acknowledged yet
        self._written: dict[str, dict[str, m.WrittenTo]] = {}
        self._flushing = False
        self._recorder = recorder
        #: by socket: the recording's file name and its sound
        self._recordings: dict[int, tuple[str, Stereo]] = {}
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(CHECK_SECONDS, self._check)

    # ------------------------------------------------------------------ the carrier's side

    def accept(self, upgrade: Upgrade) -> StreamSocket | Refusal:
        """Decide on a WebSocket upgrade."""
        public_url, check = self._front.public_url(), self._front.check
        if twiml.local_path(unquote(upgrade.path), public_url, _SERVED) != twiml.STREAM_PATH:
            return Refusal(404, "not found")
        if check is not None:
            why: Reason | None = "no public URL"
            checked = None
            if public_url is not None:
                base = stream_base(public_url)
                checked = shown(base, twiml.STREAM_PATH, upgrade.query)
                signed, settings = (upgrade.header(name) for name in (HEADER, SETTINGS_HEADER))
                matches = partial(check.upgrade, public_url, twiml.STREAM_PATH, upgrade.query)
                why = objection(signed, settings, matches)
            if why is not None:
                self._front.forbidden("a WebSocket", why, checked)
                return Refusal(403, "forbidden")
        strangers = len(self.sockets) - self.streams.live - len(self._waiting)
        if self.draining or strangers >= MAX_STRANGERS:
            return Refusal(503, "busy")
        socket = StreamSocket(self, next(self._numbers))
        self.sockets[socket.number] = socket
        return socket

    def accepted(
        self,
        socket: StreamSocket,
        accepted: m.StreamAccepted,
        stream_sid: str,
        early: Sequence[ms.Media] = (),
    ) -> None:
        """The controller let this socket's stream in. ``early``: what it has brought already, for
        a stream that is to be joined to the one before it."""
        recording = None
        if self._recorder is not None:
            recording = Stereo()
            name = self._recorder.name(accepted.info.sid, accepted.info.ordinal)
            self._recordings[socket.number] = (name, recording)
        self.apply(
            self.streams.accept(
                socket.number,
                socket.protocol,
                accepted,
                stream_sid,
                self.clock(),
                recording,
                [(media.position, media.payload) for media in early],
            )
        )

    def gone(self, number: int) -> None:
        """A socket's connection is gone."""
        self.sockets.pop(number, None)
        self._record(number, over=True)
        if self._emptied is not None and not self.sockets:
            self._emptied.set()

    def waits(self, socket: StreamSocket, call: str) -> None:
        """A one-way stream waits for its turn, and is kept when it ends meanwhile: how it ended is
        told then. An older one of the call is not needed any more."""
        self.close_waiting(call)
        self._waiting[call] = socket
        self._loop.call_later(TURN_WITHIN, self.close_waiting, call, socket)

    def close_waiting(self, call: str, only: StreamSocket | None = None) -> None:
        """Close the call's one-way stream if it still waits (and is this one)."""
        waiting = self._waiting.get(call)
        if waiting is not None and only in (None, waiting):
            del self._waiting[call]
            if waiting.socket is not None:
                waiting.socket.close(1000)

    def not_there(self, info: m.CallInfo, reason: m.StreamEndReason) -> None:
        """A stream that the controller counts on is gone already."""
        self.controller.notify(
            m.StreamClosed(call=info.call, ordinal=info.ordinal, reason=reason, gateway=self.peer)
        )

    def refuse(self, socket: StreamSocket, why: str, code: int = 1008) -> None:
        """Close a socket that is not let in."""
        self.counts["refused"] += 1
        log.warning("stream socket %d closed: %s", socket.number, why)
        if socket.socket is not None:
            socket.socket.close(code)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine as a task that is held, and whose failure is logged."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a stream's start failed", exc_info=error)

    # ------------------------------------------------------------------ carrying out

    def apply(self, instructions: Iterable[do.Instruction]) -> None:
        """Carry out; what fails on the way is told to the state, and its answer carried out too."""
        for instruction in instructions:
            kind = type(instruction)
            if kind is do.WriteText:
                assert isinstance(instruction, do.WriteText)
                target = self.sockets.get(instruction.socket)
                if target is not None and target.socket is not None:
                    target.socket.send_text(instruction.text)
            elif isinstance(instruction, do.SendToWorker):
                self._to_worker(instruction.endpoint, instruction.message)
            elif isinstance(instruction, do.OpenLink):
                self._open(instruction.worker)
            elif isinstance(instruction, do.CloseLink):
                self._written.pop(instruction.endpoint, None)
                link = self._links.pop(instruction.endpoint, None)
                if link is not None:
                    link.close()
            elif isinstance(instruction, do.CloseSocket):
                log.info("stream socket %d closed: %s", instruction.socket, instruction.why)
                closing = self.sockets.get(instruction.socket)
                if closing is not None and closing.socket is not None:
                    closing.socket.close(1000)
            elif isinstance(instruction, do.Notify):
                if isinstance(instruction.notification, m.Switched):
                    log.warning(
                        "call %s moved to worker %s",
                        instruction.notification.call,
                        instruction.notification.worker,
                    )
                self.controller.notify(instruction.notification)

    def _to_worker(self, endpoint: str, message: m.ToWorker) -> None:
        """Send in order, but for acknowledgements: the newest of each call waits for the flush."""
        if isinstance(message, m.Written):
            waiting = self._written.setdefault(endpoint, {})
            waiting.update((written.call, written) for written in message.calls)
            self.flush_soon()
            return
        waiting = self._written.pop(endpoint, {})
        if waiting and not self._send(endpoint, m.Written(list(waiting.values()))):
            return
        self._send(endpoint, message)

    def _send(self, endpoint: str, message: m.ToWorker) -> bool:
        link = self._links.get(endpoint)
        if link is not None and link.send(_encode(message)):
            return True
        self.apply(self.streams.link_lost(endpoint, self.clock()))
        return False

    def flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_later(FLUSH_SECONDS, self._flush)

    def _flush(self) -> None:
        self._flushing = False
        self.apply(self.streams.flush())
        for endpoint in list(self._written):
            # One that cannot be sent moves calls, and so takes what waited for another worker.
            waiting = self._written.pop(endpoint, None)
            if waiting:
                self._send(endpoint, m.Written(list(waiting.values())))

    def _record(self, number: int, *, over: bool = False) -> None:
        """Give the recorder what the recording has, once it is a block, or all of it at its end."""
        if self._recorder is None or number not in self._recordings:
            return
        name, sound = self._recordings[number]
        if over or sound.waiting >= RECORDING_BLOCK:
            self._recorder.write(name, sound.take())
        if over:
            del self._recordings[number]
            self._recorder.end(name)

    def _check(self) -> None:
        self._timer = self._loop.call_later(CHECK_SECONDS, self._check)
        for number in list(self._recordings):
            self._record(number)
        self.apply(self.streams.check(self.clock()))

    # ------------------------------------------------------------------ the workers' side

    def _open(self, worker: m.WorkerRef) -> None:
        endpoint = worker.endpoint

        def received(payload: bytes) -> None:
            try:
                message = _decoder.decode(payload)
            except msgspec.MsgspecError as error:
                self.counts["unreadable"] += 1
                log.warning("a message of worker %s could not be read: %s", worker.id, error)
                return
            if isinstance(message, m.MediaRefused):
                log.error("worker %s refuses this gateway: %s", worker.id, message.text)
            self.apply(self.streams.from_worker(endpoint, message, self.clock()))

        def connected() -> None:
            link.send(_encode(m.MediaHello("gateway", self.peer)))
            self.apply(self.streams.link_up(endpoint, self.clock()))

        def disconnected() -> None:
            log.warning("the connection to worker %s is lost", worker.id)
            self.apply(self.streams.link_lost(endpoint, self.clock()))

        link = connect_dealer(
            self._context,
            endpoint,
            received,
            on_connected=connected,
            on_disconnected=disconnected,
            curve=self._curve,
        )
        self._links[endpoint] = link

    # ------------------------------------------------------------------ the controller's side

    def event(self, event: m.Event) -> None:
        """An event of the controller. It waits its turn: a StreamAccepted that came before it is
        still on its way through the task that asked."""
        self._loop.call_soon(self._event, event)

    def _event(self, event: m.Event) -> None:
        if isinstance(event, m.CallPlaced):
            self.apply(self.streams.call_placed(event, self.clock()))
        elif isinstance(event, m.CloseStream):
            if event.ordinal is None:
                self.close_waiting(event.call)
            if not event.one_way:
                self.apply(self.streams.close_stream(event.call, self.clock()))
            elif event.ordinal is not None:
                now = self.clock()
                self.apply(self.streams.close_one_way(event.call, event.ordinal, now))
        elif isinstance(event, m.StreamTurn):
            waiting = self._waiting.pop(event.info.call, None)
            if waiting is None:
                self.not_there(event.info, "close")
            else:
                waiting.turn(event.info)
        else:
            log.warning("a gateway has no use for %s", type(event).__name__)

    def close(self) -> None:
        """Close all sockets and connections; the ends of streams are told before."""
        self.draining = True
        self._timer.cancel()
        for socket in list(self.sockets.values()):
            socket.end("close")
            if socket.socket is not None:
                socket.socket.close(1001)
        for number in list(self._recordings):
            self._record(number, over=True)
        for link in self._links.values():
            link.close(linger=100)
        self._links.clear()
        for task in self._tasks:
            task.cancel()

    async def wait_closed(self, seconds: float) -> None:
        """Wait until the carrier has answered the closing of all sockets, at most so long."""
        if self.sockets:
            self._emptied = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._emptied.wait()
