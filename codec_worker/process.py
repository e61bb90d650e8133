"""The codec worker's process: the media ROUTER, the 20 ms timer, and the controller's connection.

A thin shell around :class:`~trunkline.codec_worker.calls.Calls`. Waking a process costs more than
working on a message, so how the worker is woken follows from how much there is to do:

- Without calls messages are read as they come, and the timer only gives signs of life. While nobody
  is connected, no timer is set.
- With one or two calls the clock is the gateway's message, which brings the carrier's frame. It is
  read as it comes. Then the frames that are due are sent, and the sound that came is handed out, in
  one go. The timer only ticks when no message came in time.
- From :data:`CLOCKED_FROM` calls on the timer wakes the worker for each tick, and messages are read
  at that time, so that the frames of many calls share one product. With :data:`DENSE_FROM` calls,
  or while somebody speaks in small pieces, the timer wakes the worker twice as often, so that
  messages wait half as long. The gateways of this machine send what they gathered at whole
  multiples of 10 or 20 ms, and these wake-ups stand a little after that.
- Where all calls take their sound in large pieces, the gateways send what came in 40 ms together,
  and the ticks are as far apart (:mod:`.pairs`). Messages are still read each 20 ms, because a
  speaker who begins waits for the read. Only if all calls are in mid-utterance, they are read each
  40 ms, too.

Ticks stand on absolute deadlines. A late tick changes no later one, and missed ticks are not made
up for, because each playout sends all that is due.

Whatever wakes the worker runs as a *turn* (:meth:`WorkerProcess._turn`): an exception in it ends
that turn alone, and the timer of the next one is set. A worker is *healthy* while its turns come to
their end. An unhealthy worker says nothing. It sends no Tick, so gateways move its calls after half
a second; no Beat, so the controller gives it no more calls; and no sign of life, so its keeper
starts it again.

Nothing here touches the disk, and logging only puts records into a bounded queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import msgspec
import zmq

from trunkline.bus import messages as m
from trunkline.bus import tracing
from trunkline.bus.curve import stop_authenticator
from trunkline.bus.endpoints import remove_socket
from trunkline.bus.errors import SettingsError, TrunklineError
from trunkline.bus.fleet import Fleet
from trunkline.bus.histogram import LATENESS, Histogram
from trunkline.bus.process import (
    EXIT_DONE,
    EXIT_FAILED,
    complain,
    lives_while,
    rarely_collect_all,
    run,
    say_ready,
    setup_logging,
)
from trunkline.bus.settings import Settings, load
from trunkline.bus.sockets import BusSocket, bind_router
from trunkline.bus.sound import TOGETHER
from trunkline.bus.wall import Wall

from .calls import Calls
from .pairs import ANSWER_NS
from .playout import FRAME_NS

log = logging.getLogger("trunkline.codec_worker")

#: With many calls messages are read twice in a tick, this long apart.
READ_NS: Final = FRAME_NS // 2
#: Reads stand this long after whole multiples of READ_NS, because gateways send what they gathered
#: at those.
PHASE_NS: Final = 2_000_000
#: From this many calls on the clock is the timer, and not the messages of gateways.
CLOCKED_FROM: Final = 3
#: From this many calls on messages are read each READ_NS.
DENSE_FROM: Final = 48
#: Ticks that send pairs of frames (pair ticks) are this long apart. While gateways send in pairs
#: there are no others.
PAIR_NS: Final = 2 * FRAME_NS
#: While gateways send in pairs, and once after that, a pair tick leaves frames that fall due in the
#: last 5 ms before the next tick to that tick. Otherwise a pair tick that came a little late would
#: send two pairs of a call, and the next tick none.
SLACK_NS: Final = 5_000_000
#: Where the timer is the clock, pair ticks stand this long after whole multiples of PAIR_NS.
#: Gateways look at their sockets at those multiples, so each side has 18 ms or more for its work.
APART_NS: Final = PHASE_NS + FRAME_NS
#: If no message has brought a tick by this long after its deadline, the timer does.
GRACE_NS: Final = 8_000_000
#: One wake-up encodes speech for at most this long, so that neither a tick nor a message waits for
#: it.
ENCODE_NS: Final = 4_000_000
#: Signs of life are this long apart.
BEAT_NS: Final = 100_000_000
#: A worker is not healthy if none of its turns has come to its end for this long. After the same
#: time without a sign of life gateways move its calls.
UNHEALTHY_NS: Final = 500_000_000
#: At each tenth sign of life (1 s) the worker looks whether there is something to log.
REPORT_BEATS: Final = 10
#: A worker that is to end goes on for at most this long with calls that have not moved away yet.
DRAIN_SECONDS: Final = 2.0

#: Messages that begin or end a span.
_SPANNED: Final = frozenset((m.OpenCall, m.StreamEnded, m.CloseCall))

ClockNs = Callable[[], int]


def _following(deadline: int, step: int, now: int) -> int:
    """The first of ``deadline + n · step``, n at least 1, that lies after ``now``."""
    return deadline + step * max(1, (now - deadline) // step + 1)


class WorkerProcess:
    """Sockets and clock of one codec worker, on the running loop."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        settings: Settings,
        *,
        clock: ClockNs = time.monotonic_ns,
    ) -> None:
        self.peer = f"codec_worker-{os.getpid()}-{secrets.token_hex(2)}"
        self.calls = Calls(self.peer)
        self.failed: TrunklineError | None = None
        #: set when the controller has refused the worker, which then ends
        self.over = asyncio.Event()
        #: how late the timer has woken the worker
        self.lateness = Histogram(LATENESS)
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self._wall = Wall(log)
        self._receive = self._wall.gate(m.ToWorker, self._take, "a gateway or client")
        self._encoder = msgspec.msgpack.Encoder()
        #: when a turn last came to its end
        self._turned_at = clock()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0
        #: there are so many calls that the timer is the clock, and reads the socket
        self._clocked = False
        #: a message was received and not worked on yet
        self._received = False
        #: no message came in time for the last tick, so the timer brought it
        self._timer_ticked = False
        #: when the socket is read next
        self._read_at = 0
        #: when the next tick is due
        self._deadline = 0
        #: when the next tick that sends pairs is due
        self._pairs_at = 0
        #: at the last of those ticks gateways sent in pairs
        self._were_in_pairs = False
        #: when the next sign of life is due
        self._beat_at = 0
        self._beats = 0
        #: the counts of dropped messages as they were logged last
        self._reported: dict[str, int] = {}
        self._empty = asyncio.Event()  # the worker drains, and all calls have ended or moved away
        #: by call: the span of its stay here, and the generation that began it
        self._spans: dict[str, tuple[int, tracing.RoomSpan]] = {}
        settings.address.make_directory()
        self._host = settings.host
        self._socket: BusSocket
        self._socket, self.endpoint = bind_router(
            context,
            settings.address.worker(),
            self._receive,
            after=self._came,
            curve=settings.curve,
        )
        self.control = Fleet(
            context,
            settings.address,
            peer=self.peer,
            hello=lambda elsewhere: self._hello(),
            beat=self._control_beat,
            on_event=self._ignore,
            on_welcome=lambda welcome: say_ready(),
            on_refused=self._refused,
            curve=settings.curve,
            wall=self._wall,
        )

    @property
    def healthy(self) -> bool:
        """A turn came to its end lately, or there is nothing to do."""
        return self.calls.at_rest or self._clock() - self._turned_at < UNHEALTHY_NS

    def start(self) -> None:
        """Begin to give signs of life and to talk to the controller."""
        self._beat_at = self._clock() + BEAT_NS
        self._set_timer()
        self.control.start()

    async def drain(self) -> None:
        """Say Goodbye, and go on until all calls have ended or moved away, but for
        :data:`DRAIN_SECONDS` at most."""
        self.calls.draining = True
        self._set_timer()
        await self.control.close()
        with contextlib.suppress(TimeoutError):  # the gateways move the rest when we are gone
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._empty.wait()

    def close(self) -> None:
        """Stop at once."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for call in list(self._spans):
            self._end_span(call)
        self._socket.close(linger=100)
        remove_socket(self.endpoint)

    # ------------------------------------------------------------------ the controller

    def _hello(self) -> m.Hello:
        return m.Hello(
            role="codec_worker",
            peer=self.peer,
            pid=os.getpid(),
            host=self._host,
            endpoint=self.endpoint,
            calls=self.calls.stats(self._clock()),
        )

    @property
    def dropped(self) -> Counter[str]:
        """What the wall has stopped and what the calls have dropped, by the reason."""
        return self._wall.dropped + self.calls.dropped

    def _control_beat(self) -> m.Beat | None:
        if not self.healthy:
            return None
        stats = self.calls.stats(self._clock())
        return m.Beat(
            peer=self.peer,
            calls=stats,
            dropped=dict(self.dropped),
            measured={"wakeup_lateness": self.lateness.tally()},
        )

    def _ignore(self, event: m.Event) -> None:
        """No event is meant for a worker: calls come from gateways, on the media plane."""
        log.debug("the controller told a worker %s", type(event).__name__)

    def _refused(self, error: TrunklineError) -> None:
        self.failed = error
        self.over.set()

    # ------------------------------------------------------------------ messages

    def _take(self, peer: bytes, message: m.ToWorker) -> None:
        self._received = True
        self.calls.receive(peer, message, self._clock())
        if type(message) in _SPANNED:
            self._trace(message)

    def _trace(self, message: m.ToWorker) -> None:
        """Begin or end the span of a call's stay here. It lasts from the OpenCall until the stream
        ends, the call moves away, or the call is forgotten (:meth:`_beat`)."""
        if isinstance(message, m.OpenCall):
            call = self.calls.calls.get(message.call)
            if call is not None and call.generation == message.generation:
                self._end_span(message.call, message.generation)
                what: tracing.Attributes = {
                    "trunkline.peer": self.peer,
                    "trunkline.call": message.call,
                    "trunkline.generation": message.generation,
                }
                span = tracing.begin("trunkline.codec_worker.call", message.trace, what)
                if span is not None:
                    self._spans[message.call] = (message.generation, span)
        elif isinstance(message, m.StreamEnded | m.CloseCall):
            self._end_span(message.call, message.generation)

    def _end_span(self, call: str, generation: int | None = None) -> None:
        """End the call's span, unless that is a span of a newer generation than this."""
        begun, span = self._spans.get(call, (0, None))
        if span is not None and (generation is None or begun <= generation):
            del self._spans[call]
            span.end()

    def _turn(self, act: Callable[[int], None]) -> None:
        """Do one turn. Whatever ``act`` raises, the next turn comes."""
        now = self._clock()
        try:
            act(now)
            self._turned_at = now
        except Exception as error:  # noqa: BLE001  # counted, logged, and no sign of life is given
            soon = now + FRAME_NS
            self._deadline = max(self._deadline, soon)
            self._beat_at = max(self._beat_at, soon)
            self._set_timer()
            self._wall.fault("turn of the worker", error)

    def _came(self) -> None:
        """The socket woke the worker, and a burst of its messages was read."""
        if self._received and not self._clocked:
            self._received = False
            self._turn(self._answer)

    def _answer(self, now: int) -> None:
        """Work on the messages that woke the worker."""
        self._all_read(now)
        if self.calls.calls and (self._timer_ticked or now >= self._deadline - READ_NS):
            if self._timer_ticked or now > self._deadline + READ_NS:
                self._deadline = now  # from here on ticks stand where messages come
            self._timer_ticked = False
            self._tick(now)
        else:
            self._work(now, now)
        self._beat(now)
        self._choose_clock(now)
        self._send()

    def _all_read(self, now: int) -> None:
        """Tell the calls that every message was read, unless there was too much for one look."""
        if not self._socket.readable:
            self.calls.all_read(now)

    def _work(self, now: int, until: int) -> None:
        """Work on the messages at hand. Speech that is encoded now is sent as far as it falls due
        before ``until``. For a tick that is the time of the next one. Between ticks it is ``now``,
        so that later frames wait for the tick and keep their spacing."""
        more = self.calls.work(now, until)
        while more:
            self._send()  # so that nobody waits for the speech that is still to be encoded
            later = self._clock()
            if later - now >= ENCODE_NS:
                return
            more = self.calls.work(later, max(later, until) if until > now else later)

    def _send(self) -> None:
        gone: set[bytes] = set()
        while out := self.calls.take_instructions():
            # Encode all messages before the first one leaves, because each one that leaves wakes
            # ZeroMQ's own thread.
            ready = []
            for peer, message in out:
                try:
                    ready.append((peer, self._encoder.encode(message)))
                except Exception as error:  # noqa: BLE001  # the other messages leave
                    self._wall.fault(type(message).__name__, error)
            for peer, payload in ready:
                if peer not in gone and not self._socket.send(payload, peer):
                    gone.add(peer)
                    self.calls.disconnected(peer, self._clock())

    # ------------------------------------------------------------------ the timer

    def _choose_clock(self, now: int) -> None:
        """Choose whether messages or the timer are the clock, which the number of calls decides;
        tell gateways whether to send in pairs; and set the timer."""
        clocked = len(self.calls.calls) >= CLOCKED_FROM
        self.calls.choose_pairs(now)
        if clocked != self._clocked:
            self._clocked = clocked
            self._read_at = _following(PHASE_NS, FRAME_NS, now)
            self._deadline = _following(PHASE_NS, FRAME_NS, now)
            self._pairs_at = _following(APART_NS, PAIR_NS, now)
            self._socket.read_on_demand(clocked)
        self._set_timer()

    def _set_timer(self) -> None:
        at = self._beat_at
        if self.calls.at_rest:
            at = 0
        if self._clocked:
            at = self._read_at
        elif self.calls.calls:
            at = self._deadline + GRACE_NS
        if at != self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._timer_at = at
            if at:
                # loop.time() and the clock both read CLOCK_MONOTONIC.
                self._timer = self._loop.call_at(at / 1e9, self._wake)

    def _wake(self) -> None:
        self.lateness.count((self._clock() - self._timer_at) / 1e9)
        self._timer, self._timer_at = None, 0
        self._turn(self._timed)

    def _timed(self, now: int) -> None:
        """Work by the clock. When the next turn comes is fixed first, before anything may fail."""
        if self._clocked:
            dense = len(self.calls.calls) >= DENSE_FROM or now - self.calls.ended_at < ANSWER_NS
            phase, period = PHASE_NS, READ_NS if dense else FRAME_NS
            if self.calls.pairs.all_speak:
                phase, period = APART_NS, PAIR_NS
            elif self.calls.pairs.on:
                period = FRAME_NS
            self._read_at = _following(phase, period, now + READ_NS // 4)
            self._socket.read()
            self._all_read(now)
            self._received = False
            # The loop counts whole milliseconds, and so may be a little early.
            if now >= self._deadline - READ_NS // 2:
                self._tick(now)
            else:
                self._work(now, now)
        elif self.calls.calls and now >= self._deadline:
            # No message came. A gateway that stands still may soon write much in one go. Then the
            # last empty look at the socket before its acknowledgement shows how late that sound is,
            # so look now.
            self._socket.read()
            self._all_read(now)
            self._received = False
            self._tick(now)
            self._timer_ticked = True
        self._beat(now)
        self._choose_clock(now)
        self._send()

    def _tick(self, now: int) -> None:
        """Send what is due before the next tick, and do what the messages at hand brought.

        Every second tick sends pairs. While gateways send in pairs, the other ticks are left out,
        and the pair ticks stay where they are. The first pair tick after gateways have ended their
        pairs still sends what falls due before the next pair tick. Otherwise, where all calls fall
        silent at nearly one moment, the last words of most would leave 20 ms later than the words
        before."""
        in_pairs = self.calls.pairs.on
        of_pairs = in_pairs or now >= self._pairs_at - READ_NS
        if of_pairs:
            phase = APART_NS if self._clocked else self._deadline
            self._pairs_at = _following(phase, PAIR_NS, now + READ_NS // 4)
        following = self._pairs_at if in_pairs else _following(self._deadline, FRAME_NS, now)
        self._deadline = until = following
        if of_pairs:
            if in_pairs or self._were_in_pairs:
                until = self._pairs_at - SLACK_NS
            self._were_in_pairs = in_pairs
        self.calls.tick(now, until, TOGETHER if of_pairs else 1)
        if self._clocked:
            self._send()  # so that the frames that are due do not wait for the work below
        self._work(now, until)

    def _beat(self, now: int) -> None:
        if now >= self._beat_at:
            self._beat_at = _following(self._beat_at, BEAT_NS, now)
            self._beats += 1
            self.calls.beat(now)
            for call in self._spans.keys() - self.calls.calls.keys():
                self._end_span(call)
            if self._beats % REPORT_BEATS == 0:
                self._report()
        if self.calls.draining and self.calls.over:
            self._empty.set()

    def _report(self) -> None:
        complaints = self.calls.complaints
        while complaints:
            log.warning("%s", complaints.popleft())
        while self.calls.broken:
            self._wall.fault("call's sound", self.calls.broken.pop())
        dropped = self.dropped
        if dropped != self._reported:
            log.debug("dropped so far: %s", dropped)
            self._reported = dropped


async def serve(settings: Settings, stop: asyncio.Event) -> int:
    """Run a codec worker until ``stop``; returns the exit status."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        try:
            worker = WorkerProcess(context, settings)
        except (SettingsError, zmq.ZMQError) as error:
            complain("codec-worker", error)
            return EXIT_FAILED
        lives_while(lambda: worker.healthy)
        worker.start()
        log.info("codec worker %s at %s", worker.peer, worker.endpoint)
        rarely_collect_all()
        waits = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(worker.over.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        await worker.drain()
        worker.close()
        if worker.failed is not None:
            complain("codec-worker", worker.failed)
            return EXIT_FAILED
        return EXIT_DONE
    finally:
        stop_authenticator(context)
        context.destroy(linger=0)


def main(settings: Settings | None = None) -> int:
    """Run one codec worker in this process; returns its exit status. ``settings``: None reads the
    environment and ``.env``."""
    try:
        settings = settings or load()
    except SettingsError as error:
        complain("codec-worker", error)
        return EXIT_FAILED
    stop_logging = setup_logging("codec_worker", settings.log_format)
    try:
        return run(functools.partial(serve, settings))
    finally:
        stop_logging()


if __name__ == "__main__":
    sys.exit(main())
