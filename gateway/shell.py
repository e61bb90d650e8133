"""The gateway's shell around its rules: the carrier's sockets on one side, DEALERs to the workers
on the other. It holds no rule. It feeds events to :class:`~.admission.Admission`, which decides who
is let in, and to :class:`~.streams.Streams`, which decides where a call runs; and it carries out
their instructions.

Inbound frames and acknowledgements leave together, in one message to each worker, because every
message wakes the other process. With a call or two they leave as soon as a frame has come, and with
more every 10, 20 or 40 ms (:mod:`.sockets`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Iterable
from typing import Any, Final, Protocol

import msgspec
import zmq
from msgspec.structs import replace

from trunkline.bus import hosts, tracing
from trunkline.bus import messages as m
from trunkline.bus.cassettes import Cassettes
from trunkline.bus.clock import Clock, monotonic
from trunkline.bus.curve import ClientCurve
from trunkline.bus.descriptors import for_strangers
from trunkline.bus.errors import TrunklineError
from trunkline.bus.histogram import JITTER, Histogram
from trunkline.bus.sockets import BusSocket, connect_dealer
from trunkline.bus.twilio_urls import stack_of
from trunkline.bus.wall import Wall

from . import instructions as do
from . import media_streams as ms
from .admission import MAX_STRANGERS, Admission
from .authenticator import Authenticator
from .recording import Recorder, Stereo, Track, listened, place_of
from .recording_file import Whose
from .sockets import Sockets
from .stream_socket import StreamSocket
from .streams import CHECK_SECONDS, Streams
from .watcher import Watcher
from .websocket import Refusal, Upgrade

log = logging.getLogger("trunkline.gateway")

#: An acknowledgement waits at most this long for a frame with which it can leave, and the first
#: frame of a pair for the second one. A frame lasts 20 ms.
ACKNOWLEDGE_SECONDS: Final = 0.025
#: A recording is written in blocks of this many bytes: half a second of both sides.
RECORDING_BLOCK: Final = 8_000

_encode = msgspec.msgpack.Encoder().encode


class Controller(Protocol):
    """The part of Fleet that the shell needs."""

    async def request(
        self,
        body: m.RequestBody,
        expect: type[m.Message],
        *,
        timeout: float | None = None,
        stack: str,
    ) -> m.Message: ...
    def notify(self, notification: m.Notification) -> bool: ...


class Shell:
    """All sockets and connections of the gateway with peer id ``peer``, on the running loop."""

    def __init__(
        self,
        peer: str,
        authenticator: Authenticator,
        controller: Controller,
        context: zmq.Context[zmq.Socket[bytes]],
        *,
        lead_ms: int = 60,
        curve: ClientCurve | None = None,
        recorder: Recorder | None = None,
        cassettes: Cassettes | None = None,
        clock: Clock = monotonic,
    ) -> None:
        self.peer = peer
        #: keeps an exception in the gateway from ending the loop or another call
        self.wall = Wall(log)
        self.controller = controller
        self.clock = clock
        self.cassettes = cassettes
        self.streams = Streams(peer, clock(), lead_ms)
        self.admission = Admission(peer, for_strangers(MAX_STRANGERS))
        self.watcher = Watcher(peer, self.streams, self._notify, clock, self._lateness)
        self.sockets: dict[int, StreamSocket] = {}
        #: how unevenly carriers' frames come
        self.jitter = Histogram(JITTER)
        #: set when no socket is left; None: nobody waits for that
        self._emptied: asyncio.Event | None = None
        self._authenticator = authenticator
        self._refusals = authenticator.refusals
        self._context = context
        self._curve = curve
        self._links: dict[str, BusSocket] = {}
        self._flushing: asyncio.TimerHandle | None = None
        self._recorder = recorder
        #: by socket: the stream's part in the recording of its call, and the stream's sound
        self._recordings: dict[int, tuple[Track, Stereo]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        #: the sockets of the streams that were let in
        self.carriers = Sockets(self._flush, self.wall, lambda: self.streams.in_pairs)
        #: wakes the gateway for its look at the clock; None: at rest, where time changes nothing
        self._timer: asyncio.TimerHandle | None = None
        #: when the next look at the clock is due. The timer is set for somewhat later, and a flush
        #: in between brings the look, which saves a wake-up
        self._check_at = 0.0

    # ------------------------------------------------------------------ the carrier's side

    def accept(self, upgrade: Upgrade) -> StreamSocket | Refusal:
        """Let a WebSocket upgrade in, or refuse it."""
        refusal = self._authenticator.refusal(upgrade)
        if refusal is not None:
            return refusal
        socket = self.connect(hosts.owner_of(upgrade.host) if upgrade.host else None)
        if socket is None:
            self._refusals.add("leaving", "a WebSocket")
            return Refusal(503, "leaving")
        return socket

    def connect(self, owner: str | None = None) -> StreamSocket | None:
        """A new socket, from the address ``owner``; None when this gateway ends."""
        applicant, room = self.admission.knock(self.clock(), owner)
        self.apply(room)
        if applicant is None:
            return None
        socket = self.sockets[applicant.number] = StreamSocket(self, applicant)
        if self._timer is None:
            self.streams.rested(self.clock())
            self._timer = self._loop.call_later(CHECK_SECONDS, self._check)
        return socket

    def ended(self, number: int, reason: m.StreamEndReason) -> None:
        """A socket's stream or connection has ended."""
        self.apply(self.admission.ended(number, reason))

    def disconnected(self, number: int) -> None:
        """A socket's connection is gone."""
        self.admission.disconnected(number)
        del self.sockets[number]
        for track in (number, -number):
            self._record(track, over=True)
        if self._emptied is not None and not self.sockets:
            self._emptied.set()

    async def _ask(self, ask: do.AskController) -> None:
        body = m.StreamStart(
            token=ask.token,
            call_sid=ask.start.call_sid,
            stream_sid=ask.start.stream_sid,
            gateway=self.peer,
        )
        try:
            answer = await self.controller.request(
                body, m.Message, timeout=ask.within, stack=stack_of(ask.token)
            )
        except TrunklineError as error:
            self.apply(self.admission.unanswered(ask.socket, str(error)))
            return
        socket = self.sockets.get(ask.socket)
        if socket is not None and not socket.is_open:  # it is being closed
            self.ended(ask.socket, "close")
        if isinstance(answer, m.StreamAccepted) and answer.keys is not None:
            self._pressed(answer.info, answer.keys)
        self.apply(self.admission.answered(ask.socket, answer, self.clock()))

    def _pressed(self, info: m.CallInfo, keys: m.Keys) -> None:
        """Name these keys of ours in the call's recording. That does not wait for the stream to be
        opened here, because a call that is hung up right after its keys ends before."""
        if self._recorder is not None:
            track = self._recorder.begin(info.sid, info.ordinal, first=False, age=info.age or 0.0)
            self._recorder.press(track, place_of(keys.age), "ours", keys.digits)
            self._recorder.end(track)

    def open_stream(self, opened: do.OpenStream) -> None:
        """Begin to carry a call: begin its span, and open a stream for each track."""
        socket, info = self.sockets[opened.socket], opened.accepted.info
        log.info("call %s: stream %d is up", info.sid, info.ordinal)
        socket.span = tracing.begin(
            "trunkline.gateway.stream",
            info.trace,
            {
                "trunkline.peer": self.peer,
                "trunkline.call_sid": info.sid,
                "trunkline.ordinal": info.ordinal,
            },
        )
        if socket.tape is not None:
            socket.tape.let_in(info.sid, opened.stream_sid)
        self._accept(opened.socket, opened, opened.accepted)
        if info.theirs is not None:
            second = replace(info, call=m.outbound_track(info.call))
            self._accept(-opened.socket, opened, replace(opened.accepted, info=second))
        self.watcher.opened(info.call)
        for event in opened.held:
            socket.take(event)

    def _accept(self, number: int, opened: do.OpenStream, accepted: m.StreamAccepted) -> None:
        """Begin the recording of one track of the socket, and give the track to the streams."""
        if accepted.one_way or accepted.overlaps:
            self._read_out(accepted.info.call)  # the stream before this one is closed now
        early = [(media.position, media.payload) for media in opened.early]
        recording = None
        if self._recorder is not None:
            info = accepted.info
            recording = self._recording(number, opened, info)
        self.apply(
            self.streams.accept(
                number,
                self.sockets[opened.socket].protocol,
                accepted,
                opened.stream_sid,
                self.clock(),
                () if recording is None else (recording,),
                early,
            )
        )

    def _recording(self, number: int, opened: do.OpenStream, info: m.CallInfo) -> Stereo:
        """A new Stereo, which puts the track's sound together for the call's recording. Both tracks
        of a call that is listened to write into one file, each into its own side."""
        assert self._recorder is not None
        age = info.age or 0.0
        if info.theirs is None:
            sound, name = Stereo(place_of(age, _waited(opened))), info.sid
        else:
            which = "inbound" if number > 0 else "outbound"
            sound = Stereo(place_of(age), begins=0, ours=which != info.theirs)
            name = listened(info.sid, info.call)
        first = opened.accepted.first and number > 0
        whose = Whose(info.sid, info.direction, info.caller, info.callee, test=info.test)
        track = self._recorder.begin(name, info.ordinal, first=first, age=age, whose=whose)
        self._recordings[number] = (track, sound)
        return sound

    def digit(self, number: int, event: ms.Dtmf) -> None:
        """The far end has pressed a key."""
        if self._recorder is not None and number in self._recordings:
            track, sound = self._recordings[number]
            self._recorder.press(track, sound.now, "theirs", event.digit)
        self.apply(self.streams.digit(number, event.index, event.digit))

    def _end_stream(self, ended: do.EndStream) -> None:
        socket = self.sockets[ended.socket]
        if bad := socket.protocol.bad:
            kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(bad.items()))
            self._refusals.add("bad message", f"of stream {ended.socket}", kinds, bad.total())
        # The news of the end may have waited this long to be read. Assume that it did: otherwise
        # sound that the carrier never played would count as played.
        at = self.clock() - self.carriers.read_within
        self.apply(self.streams.closed(ended.socket, ended.reason, at))
        if socket.span is not None:
            socket.span.end({"trunkline.stream_end": ended.reason})
        if socket.tape is not None:
            socket.tape.over(ended.reason)

    def _close_socket(self, number: int, code: int) -> None:
        found = self.sockets.get(abs(number))
        if found is not None and found.socket is not None:
            found.socket.close(code)

    def _drop_socket(self, number: int) -> None:
        found = self.sockets.get(number)
        if found is not None and found.socket is not None:
            found.socket.drop()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine as a task. The shell holds on to the task, and logs its failure."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a stream's start failed", exc_info=error)

    # ------------------------------------------------------------------ carrying out

    def apply(self, instructions: Iterable[do.Instruction]) -> None:
        """Carry the instructions out. If one fails, tell the rules, and carry out their answer."""
        for instruction in instructions:
            kind = type(instruction)
            if kind is do.WriteTexts:
                assert isinstance(instruction, do.WriteTexts)
                for number, text in instruction.texts:
                    target = self.sockets.get(number)
                    if target is not None and target.socket is not None:
                        target.socket.send_text(text)
                        if target.tape is not None:
                            target.tape.said(text)
            elif isinstance(instruction, do.SendToWorker):
                self._send(instruction.endpoint, instruction.message)
            elif isinstance(instruction, do.OpenLink):
                self._open(instruction.worker)
            elif isinstance(instruction, do.CloseLink):
                link = self._links.pop(instruction.endpoint, None)
                if link is not None:
                    link.close()
            elif isinstance(instruction, do.CloseSocket):
                if instruction.why:
                    log.info("stream socket %d closed: %s", instruction.socket, instruction.why)
                self._close_socket(instruction.socket, 1000)
            elif isinstance(instruction, do.RefuseSocket):
                refused = f"stream socket {instruction.socket}"
                self._refusals.add(instruction.kind, refused, instruction.why)
                self._close_socket(instruction.socket, instruction.code)
                if instruction.at_once:
                    self._drop_socket(instruction.socket)
            elif isinstance(instruction, do.DropSocket):
                self._drop_socket(instruction.socket)
            elif isinstance(instruction, do.AskController):
                self._spawn(self._ask(instruction))
            elif isinstance(instruction, do.Believe):
                believed = self.sockets.get(instruction.socket)
                if believed is not None and believed.socket is not None:
                    believed.socket.believe()
            elif isinstance(instruction, do.OpenStream):
                self.open_stream(instruction)
            elif isinstance(instruction, do.EndStream):
                self._end_stream(instruction)
            elif isinstance(instruction, do.Notify):
                if isinstance(instruction.notification, m.CallMoved):
                    log.warning(
                        "call %s moved to worker %s",
                        instruction.notification.call,
                        instruction.notification.worker,
                    )
                self.controller.notify(instruction.notification)

    def _lateness(self, number: int) -> float:
        socket = self.sockets.get(number)
        return 0.0 if socket is None else socket.pace.behind

    def _notify(self, notification: m.Notification) -> bool:
        return self.controller.notify(notification)

    def _send(self, endpoint: str, message: m.ToWorker) -> None:
        link = self._links.get(endpoint)
        if link is None or not link.send(_encode(message)):
            self.apply(self.streams.link_lost(endpoint, self.clock()))

    def flush_within(self, seconds: float) -> None:
        """Flush within ``seconds``, because something waits. While the sockets are being read, or
        where a clock reads them, the flush comes without a timer."""
        if self.carriers.flushes:
            return
        at = self._loop.time() + seconds
        if self._flushing is not None:
            if self._flushing.when() <= at:
                return
            self._flushing.cancel()
        self._flushing = self._loop.call_at(at, self._flush)

    def _flush(self, *, all_of_it: bool = False) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        all_of_it = all_of_it or self.carriers.in_pairs
        self.apply(self.streams.flush(self.clock(), all_of_it=all_of_it))
        if self.streams.waits and not self.carriers.clocked:
            self._flushing = self._loop.call_later(ACKNOWLEDGE_SECONDS, self._flush)
        if self._timer is not None and self.clock() >= self._check_at:
            self._timer.cancel()
            self._check()

    def _record(self, number: int, *, over: bool = False) -> None:
        """Give the recorder the stream's sound once that makes up a block, or all of it (``over``)
        at the stream's end."""
        if self._recorder is None or number not in self._recordings:
            return
        track, sound = self._recordings[number]
        if over or sound.waiting >= RECORDING_BLOCK:
            self._recorder.write(track, *sound.take())
        if over:
            del self._recordings[number]
            self._recorder.end(track)

    def _check(self) -> None:
        """Look at the clock. While the gateway is at rest the timer is not set again, because it
        would wake an idle process for nothing. The next socket sets it (:meth:`connect`)."""
        self._timer = None
        self.wall.shield("look at the clock", self._look)
        if self.sockets or not (self.admission.at_rest and self.streams.at_rest):
            self._check_at = self.clock() + CHECK_SECONDS
            self._timer = self._loop.call_later(1.5 * CHECK_SECONDS, self._check)

    def _look(self) -> None:
        for number in list(self._recordings):
            self._record(number)
        self.apply(self.admission.check(self.clock()))
        self.apply(self.streams.check(self.clock()))

    # ------------------------------------------------------------------ the workers' side

    def _open(self, worker: m.WorkerRef) -> None:
        endpoint = worker.endpoint

        def received(message: m.WorkerToGateway) -> None:
            if isinstance(message, m.MediaRefused):
                log.error("worker %s refuses this gateway: %s", worker.id, message.text)
            self.apply(self.streams.from_worker(endpoint, message, self.clock()))
            if isinstance(message, m.Outbound):
                if message.ends:
                    self._flush(all_of_it=True)
                else:
                    self.flush_within(ACKNOWLEDGE_SECONDS)

        def connected() -> None:
            link.send(_encode(m.MediaHello("gateway", self.peer)))
            self.apply(self.streams.link_up(endpoint, self.clock()))

        def disconnected() -> None:
            log.warning("the connection to worker %s is lost", worker.id)
            self.apply(self.streams.link_lost(endpoint, self.clock()))

        def refused() -> None:
            log.warning("worker %s is not there any more", worker.id)
            self.apply(self.streams.link_lost(endpoint, self.clock()))

        try:
            link = connect_dealer(
                self._context,
                endpoint,
                self.wall.door(m.WorkerToGateway, received, f"worker {worker.id}"),
                on_connected=connected,
                on_disconnected=disconnected,
                on_refused=refused,
                curve=self._curve,
            )
        except zmq.ZMQError as error:  # no descriptor is left: the call tries again in a second
            log.error("no connection to worker %s can be opened: %s", worker.id, error)
            self.apply(self.streams.link_lost(endpoint, self.clock()))
            return
        self._links[endpoint] = link

    # ------------------------------------------------------------------ the controller's side

    def event(self, event: m.Event) -> None:
        """An event of the controller. It is worked on in the loop's next turn, because a
        StreamAccepted that came before it is still on its way through the task that asked."""
        self._loop.call_soon(self.wall.shield, type(event).__name__, self._event, event)

    def _event(self, event: m.Event) -> None:
        if isinstance(event, m.CallPlaced):
            for track in self.streams.tracks(event.call):
                self.apply(self.streams.call_placed(replace(event, call=track), self.clock()))
        elif isinstance(event, m.CloseStream):
            if event.ordinal is None:
                self.apply(self.admission.not_needed(event.call))
            if not event.one_way:
                self._read_out(event.call)
                for track in self.streams.tracks(event.call):
                    self.apply(self.streams.close_stream(track, self.clock()))
            elif event.ordinal is not None:
                self._read_out(event.call)
                now = self.clock()
                self.apply(self.streams.close_one_way(event.call, event.ordinal, now))
        elif isinstance(event, m.Watch):
            self.watcher.watch(event)
        elif isinstance(event, m.StreamTurn):
            self.apply(self.admission.turn(event.info))
        else:
            log.warning("a gateway has no use for %s", type(event).__name__)

    def _read_out(self, call: str) -> None:
        """Take what the carrier has sent on the call's socket. If this process stood still, seconds
        of sound may wait there, and the controller's message may have been read before them."""
        number = self.streams.socket_of(call)
        found = None if number is None else self.sockets.get(number)
        if found is not None and found.socket is not None:
            found.socket.read_out()

    def close(self) -> None:
        """Report the ends of all streams, and close all sockets and connections."""
        self.admission.draining = True
        self.watcher.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._flushing is not None:
            self._flushing.cancel()
        for number in list(self.sockets):
            self.ended(number, "close")
            self._close_socket(number, 1001)
        for number in list(self._recordings):
            self._record(number, over=True)
        for link in self._links.values():
            link.close(linger=100)
        self._links.clear()

    async def wait_closed(self, seconds: float) -> None:
        """Wait until the carrier has answered the closing of all sockets, at most this long."""
        if self.sockets:
            self._emptied = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._emptied.wait()


def _waited(opened: do.OpenStream) -> int:
    """Samples that a one-way stream brought before its turn came. The call's age, as the controller
    told it, is the age at the turn. So the stream's place in the recording is this much earlier."""
    if not opened.accepted.one_way or not opened.early:
        return 0
    first, last = opened.early[0], opened.early[-1]
    return last.position + len(last.payload) - first.position
