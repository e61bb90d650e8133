"""The codec worker's process: the media ROUTER, the 20 ms timer, and the controller's connection.

A thin shell around :class:`~trunkline.codec_worker.calls.Calls`. Messages are taken as they come;
what they brought is worked on once the socket is empty (or has had its burst), so that frames of
many calls share one product. Ticks stand on absolute deadlines: a late one changes no later one,
and missed ones are not made up for (the playouts send all that is due).

Nothing here touches the disk, and logging only puts records into a bounded queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import os
import secrets
import sys
import time
from collections.abc import Callable
from typing import Final

import msgspec
import zmq

from trunkline.bus import messages as m
from trunkline.bus.control import ControlClient
from trunkline.bus.curve import stop_authenticator
from trunkline.bus.errors import SettingsError, TrunklineError
from trunkline.bus.process import EXIT_DONE, EXIT_FAILED, run, setup_logging
from trunkline.bus.settings import Settings, load
from trunkline.bus.sockets import BusSocket, bind_router

from .calls import Calls
from .playout import FRAME_NS

log = logging.getLogger("trunkline.codec_worker")

#: Ticks between two signs of life (100 ms).
BEAT_TICKS: Final = 5
#: Ticks between two looks at what is to be logged (1 s).
REPORT_TICKS: Final = 50
#: How long a worker that is to end goes on with calls that have not moved away yet.
DRAIN_SECONDS: Final = 2.0

Clock = Callable[[], int]


class WorkerProcess:
    """Sockets and clock of one codec worker, on the running loop."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        settings: Settings,
        *,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        self.peer = f"codec_worker-{os.getpid()}-{secrets.token_hex(2)}"
        self.calls = Calls(self.peer)
        self.failed: TrunklineError | None = None
        #: set when the worker can do no more (the controller refused it)
        self.over = asyncio.Event()
        #: ticks that came so late that others were skipped
        self.missed_ticks = 0
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self._decoder = msgspec.msgpack.Decoder(m.ToWorker)
        self._encoder = msgspec.msgpack.Encoder()
        self._work_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0
        self._ticks = 0
        self._reported: dict[str, int] = {}
        self._empty = asyncio.Event()  # draining, and no calls are left
        settings.address.make_directory()
        self._socket: BusSocket
        self._socket, self.endpoint = bind_router(
            context, settings.address.worker(), self._receive, curve=settings.curve
        )
        self.control = ControlClient(
            context,
            settings.address,
            peer=self.peer,
            hello=self._hello,
            beat=lambda: m.Beat(peer=self.peer, calls=self.calls.stats(self._clock())),
            on_event=self._ignore,
            on_refused=self._refused,
            curve=settings.curve,
        )

    def start(self) -> None:
        """Begin to tick and to talk to the controller."""
        self._deadline = self._clock() + FRAME_NS
        self._set_timer()
        self.control.start()

    async def drain(self, timeout: float = DRAIN_SECONDS) -> None:
        """Say Goodbye, and go on until all calls have moved away, ``timeout`` seconds at most."""
        self.calls.draining = True
        await self.control.close()
        with contextlib.suppress(TimeoutError):  # the gateways move the rest when we are gone
            async with asyncio.timeout(timeout):
                await self._empty.wait()

    def close(self) -> None:
        """Stop at once."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._socket.close()

    # ------------------------------------------------------------------ the controller

    def _hello(self) -> m.Hello:
        return m.Hello(
            role="codec_worker",
            peer=self.peer,
            pid=os.getpid(),
            endpoint=self.endpoint,
            calls=self.calls.stats(self._clock()),
        )

    def _ignore(self, event: m.Event) -> None:
        """No event is meant for a worker: calls come from gateways, on the media plane."""
        log.debug("the controller told a worker %s", type(event).__name__)

    def _refused(self, error: TrunklineError) -> None:
        self.failed = error
        self.over.set()

    # ------------------------------------------------------------------ messages

    def _receive(self, peer: bytes, payload: bytes) -> None:
        try:
            message = self._decoder.decode(payload)
        except msgspec.MsgspecError:
            self.calls.dropped["undecodable"] += 1
            return
        try:
            self.calls.receive(peer, message, self._clock())
        except Exception:  # one call's bad message must not end all calls
            log.exception("a %s failed", type(message).__name__)
        if not self._work_scheduled:
            self._work_scheduled = True
            self._loop.call_soon(self._work)

    def _work(self) -> None:
        self._work_scheduled = False
        if self.calls.work(self._clock(), self._deadline) and not self._work_scheduled:
            self._work_scheduled = True
            self._loop.call_soon(self._work)
        self._send()

    def _send(self) -> None:
        gone: set[bytes] = set()
        while out := self.calls.take():
            for peer, message in out:
                if peer not in gone and not self._socket.send(self._encoder.encode(message), peer):
                    gone.add(peer)
                    self.calls.gone(peer, self._clock())

    # ------------------------------------------------------------------ the timer

    def _set_timer(self) -> None:
        # loop.time() and the clock both read CLOCK_MONOTONIC.
        self._timer = self._loop.call_at(self._deadline / 1e9, self._tick)

    def _tick(self) -> None:
        now = self._clock()
        following = self._deadline + FRAME_NS
        if following <= now:
            missed = (now - following) // FRAME_NS + 1
            self.missed_ticks += missed
            following += missed * FRAME_NS
        self._deadline = following
        self._set_timer()
        self._ticks += 1
        self.calls.tick(now, following)
        if self.calls.draining and not self.calls.calls:
            self._empty.set()
        if self._ticks % BEAT_TICKS == 0:
            self.calls.beat(now)
        self._send()
        if self._ticks % REPORT_TICKS == 0:
            self._report()

    def _report(self) -> None:
        complaints = self.calls.complaints
        while complaints:
            log.warning("%s", complaints.popleft())
        dropped = dict(self.calls.dropped)
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
            print(f"trunkline codec-worker: {error}", file=sys.stderr)
            return EXIT_FAILED
        worker.start()
        log.info("codec worker %s at %s", worker.peer, worker.endpoint)
        # What exists now lives as long as the process: the collector need not look at it.
        gc.collect()
        gc.freeze()
        waits = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(worker.over.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        await worker.drain()
        worker.close()
        if worker.failed is not None:
            print(f"trunkline codec-worker: {worker.failed}", file=sys.stderr)
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
        print(f"trunkline codec-worker: {error}", file=sys.stderr)
        return EXIT_FAILED
    stop_logging = setup_logging("codec_worker", settings.log_format)
    try:
        return run(functools.partial(serve, settings))
    finally:
        stop_logging()


if __name__ == "__main__":
    sys.exit(main())
