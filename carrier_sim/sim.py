"""CarrierSim: the carrier in a program's own event loop, the shell around the parts without I/O.

async with CarrierSim(port=0) as sim:
    sim.add_number("+14155551234", voice_url="https://example.com/voice")
    sim.add_callee("+14155557777", Echo())
    call = await sim.place_inbound_call("+14155550000", "+14155551234", Record())
    await sim.wait_for(call, "completed")
    assert not sim.errors
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
import time
from array import array
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Final, Self

import msgspec

from .account import ENDED
from .bots import Answering, BotSpec, bot_from, parse_bot
from .call import Call
from .circuit import TICK_SECONDS
from .control import ControlApi
from .exchange import Exchange
from .faults import Fault, Faults, Rule
from .http_message import Request, Response
from .http_server import HttpServer
from .judge import Judge
from .leg import Detected, Fetch
from .line.profiles import profile
from .numbers import Number, number_sid
from .options import Options
from .rest import RestApi
from .rest_door import RestDoor
from .signature import Credentials, Signer
from .stream import Stream
from .stream_socket import StreamSocket
from .webhooks import Form, Webhooks, call_form, status_form, stream_form

log = logging.getLogger("trunkline.carrier_sim")

#: Credentials that go with no real account.
ACCOUNT_SID: Final = "AC" + "5" * 32
AUTH_TOKEN: Final = "carrier-sim-token"  # noqa: S105  # of an account that does not exist
#: How much later a status callback comes that others overtake (habit ``callback-order``): seconds.
OVERTAKEN_BY: Final = 0.2
_FAILS: Final = "a call to %r fails: no callee has that number; %s"
#: Of more callees than this, a message names the first ones.
_TOLD: Final = 6
#: A tick may come so much before its time (seconds).
_EARLY: Final = 0.0005
#: If a tick is later than this (seconds), what waits in the sockets is read before it.
_LATE: Final = 0.003


def _trust(ca_file: str | Path | None = None) -> ssl.SSLContext:
    """The system's authorities, and those of ``ca_file``."""
    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(str(ca_file))
    return context


class CarrierSim:
    """The carrier. Binds loopback unless told otherwise; port 0 takes a free port."""

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        account_sid: str = ACCOUNT_SID,
        auth_token: str = AUTH_TOKEN,
        auth_token_secondary: str = "",
        ca_file: str | Path | None = None,
        **options: object,
    ) -> None:
        """``options`` are the fields of Options (``calls_per_second=1.0, seed=7``, …). ``ca_file``
        is trusted for https and wss besides the system's authorities."""
        self.options = msgspec.structs.replace(Options(), **options)
        self.account_sid = account_sid
        self.credentials = Credentials(auth_token, auth_token_secondary)
        self.now = time.monotonic
        self.judge = Judge(self.now)
        self.faults = Faults(self.options.seed)
        self.exchange = Exchange(account_sid, self.options, self.judge, self, time.time)
        self.set_line(self.options.line)
        beliefs = self.exchange.beliefs
        self.rest = RestApi(self.exchange, account_sid, self.credentials)
        self.signer = Signer(self.credentials, self.exchange.habits, beliefs)
        self.control = ControlApi(self)
        self._tls = None if ca_file is None else _trust(ca_file)
        self.webhooks = Webhooks(self)
        self._door = RestDoor(self.rest, self.faults, beliefs, self.now)
        #: By phone number.
        self.numbers = self.exchange.numbers
        #: Every change of a number through REST, in order.
        self.number_writes = self.numbers.writes
        #: By SID, oldest first.
        self.calls = self.exchange.calls
        self.streams = self.exchange.streams.by_sid
        #: Everything that Twilio's debugger would show.
        self.errors = self.judge.errors
        #: Every REST request; every webhook and status callback that was sent.
        self.rest_log = self._door.log
        self.webhook_log = self.webhooks.log
        self._server = HttpServer(self._handle, host, port)
        self._sockets: dict[Stream, StreamSocket] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._callback_order: dict[str, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._t0 = 0.0
        self._ticks = 0
        #: The clock leaves ticks out, because nothing is to be done on them.
        self._rests = False
        self._faults_seen = 0
        #: Whether some stream's socket has to be looked at on each tick.
        self._disturbed = False
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        #: Seconds that each tick was late.
        self.lateness: array[float] = array("d")
        #: Errors of our own, of tasks in the background.
        self.failures: list[BaseException] = []

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def tls(self) -> ssl.SSLContext:
        """Whom https and wss trust. The system's authorities take 25 ms of a core to read. So they
        are read when they are first needed, which is rare, and in a thread beside the media clock.
        """
        if self._tls is None:
            self._tls = await asyncio.to_thread(_trust)
        return self._tls

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        await self.stop()
        if error is None and self.failures:
            raise self.failures[0]

    async def start(self) -> None:
        """Listen and start the media clock. OSError when the port is taken."""
        await self._server.start()
        self._t0, self._ticks = self.now(), 0
        self._schedule()

    async def stop(self) -> None:
        """Drop everything: no goodbye to anybody."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._rests = False
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in list(self._sockets.values()):
            connection.abort()
        await self._server.stop()
        for _, future in self._waiters:
            future.cancel()
        # Transports tell their protocols about the end in the loop's next round.
        await asyncio.sleep(0)

    async def refuse_connections(self) -> None:
        """Stop listening: clients see connection refused until accept_connections()."""
        await self._server.stop()

    async def accept_connections(self) -> None:
        """Listen again, on the same port."""
        await self._server.start()

    @property
    def base_url(self) -> str:
        """The carrier's URL, in place of ``https://api.twilio.com``."""
        host = f"[{self._server.host}]" if ":" in self._server.host else self._server.host
        return f"http://{host}:{self._server.port}"

    @property
    def auth_token(self) -> str:
        """The primary auth token; ``credentials`` has both, and promotes the secondary."""
        return self.credentials.primary

    def add_number(self, phone_number: str, **fields: object) -> Number:
        """A number of the account, with any fields of Number (``voice_url=…``)."""
        now = self.exchange.wall()
        number = msgspec.convert(
            {
                "sid": number_sid(phone_number),
                "phone_number": phone_number,
                "friendly_name": phone_number,
                "created": now,
                "updated": now,
                **fields,
            },
            Number,
        )
        self.exchange.numbers[phone_number] = number
        return number

    def add_callee(self, phone_number: str, bot: BotSpec | str) -> None:
        """Who answers at a number outside of the account; parse_bot reads a text."""
        self.exchange.callees[phone_number] = parse_bot(bot) if isinstance(bot, str) else bot

    def add_caller_id(self, phone_number: str) -> None:
        """A verified caller id: may be From although it is no number of the account."""
        self.exchange.caller_ids.add(phone_number)

    def set_line(self, name: str) -> None:
        """The line of later far ends that name none (line/profiles.py); "": their sound stays as it
        is. ValueError where there is no such line."""
        if name:
            profile(name)
        self.exchange.line = name

    async def place_inbound_call(
        self, from_: str, to: str, bot: BotSpec | str | dict[str, object]
    ) -> Call:
        """Somebody calls a number of the account; the bot is the caller. KeyError, ValueError."""
        if isinstance(bot, str):
            spec = parse_bot(bot)
        else:
            spec = bot_from(bot) if isinstance(bot, dict) else bot
        if not isinstance(spec, Answering):
            raise ValueError(f"a caller cannot be {type(spec).__name__}")
        if to not in self.numbers:
            raise KeyError(f"{to} is no number of this account")
        return self.exchange.inbound(from_, to, self.exchange.bot(spec), self.now())

    def hang_up(self, call: Call) -> None:
        """The far end hangs up."""
        self.exchange.far_end_hangs_up(call, self.now())

    def add_fault(self, where: str, kind: str, **fields: object) -> Rule:
        """Install a fault rule (see faults.Fault)."""
        return self.faults.add(msgspec.convert({"where": where, "kind": kind, **fields}, Fault))

    def drop_stream(self, stream: Stream) -> None:
        """Break a stream's socket now."""
        self._sockets[stream].drop()

    def stall_stream(self, stream: Stream, seconds: float) -> None:
        """Hold a stream's inbound messages back, then send them in one burst."""
        self._sockets[stream].stall(seconds)
        self._disturbed = True

    def reset(self) -> None:
        """Hang everybody up; forget calls, logs, errors and faults; keep numbers and callees."""
        for call in self.calls.values():
            if call.live:
                self.hang_up(call)
        self.calls.clear()
        self.streams.clear()
        self.number_writes.clear()
        self.faults.clear()
        self.judge.clear()
        self.rest_log.clear()
        self.webhook_log.clear()
        self.lateness = array("d")

    async def wait_for(self, call: Call, *statuses: str, timeout: float = 10.0) -> str:
        """Wait until the call has one of the statuses (any end, if none is given), and return it.
        asyncio.TimeoutError."""
        wanted = frozenset(statuses) or ENDED
        await self.wait_until(lambda: call.status in wanted, timeout)
        return call.status

    async def wait_for_stream(self, call: Call, count: int = 1, timeout: float = 10.0) -> Stream:
        """Wait until the call's count-th stream is live. asyncio.TimeoutError."""
        streams = call.streams
        await self.wait_until(lambda: len(streams) >= count and streams[count - 1].live, timeout)
        return streams[count - 1]

    async def wait_until(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        """Wait for a condition, looked at after each tick. asyncio.TimeoutError."""
        if condition():
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (condition, future)
        self._waiters.append(entry)
        self.wake()
        try:
            async with asyncio.timeout(timeout):
                await future
        finally:
            if entry in self._waiters:
                self._waiters.remove(entry)

    def wake(self) -> None:
        if self._rests:
            passed = self._point(self.now() + _EARLY)
            if self._timer is not None:
                self._timer.cancel()
                passed = min(passed, self._ticks)  # its tick may have been due already
            self._ticks = passed
            self._schedule()

    def fetch(self, call: Call, fetch: Fetch, fetch_id: int) -> None:
        form = [*call_form(call.record, self.account_sid), *fetch.params]

        async def run() -> None:
            result = await self.webhooks.post("webhook", call.sid, fetch.method, fetch.url, form)
            self.exchange.fetched(call, fetch, fetch_id, result, self.now())

        self._start(run())

    def open_stream(self, call: Call, stream: Stream) -> None:
        def over(ended: Stream) -> None:
            if ended.ended_by not in ("close", "stop"):
                self._stream_callback(call, ended, "stream-error")
            self._stream_callback(call, ended, "stream-stopped")
            self.exchange.streams.over(call, ended, self.now())

        def closed(connection: StreamSocket) -> None:
            self._sockets.pop(connection.stream, None)

        connection = StreamSocket(stream, self, over, closed)
        self._sockets[stream] = connection

        async def run() -> None:
            await connection.connect()
            if stream.live:
                self._stream_callback(call, stream, "stream-started")

        self._start(run())

    def close_stream(self, stream: Stream) -> None:
        connection = self._sockets.get(stream)
        if connection is not None:
            connection.finish()
        call = self.calls.get(stream.call_sid)
        if call is not None and stream.opened_at is not None:
            self._stream_callback(call, stream, "stream-stopped")

    def status_callback(self, call: Call, event: str, status: str) -> None:
        options, number, beliefs = call.record.options, call.number, self.exchange.beliefs
        last = event == "completed"
        if number is not None:
            url, method, wanted = number.status_callback, number.status_callback_method, last
        else:
            url, method = options.status_callback, options.status_callback_method
            wanted = event in options.status_callback_event
        if not url or not wanted:
            return
        if not last and not beliefs.hold("callbacks-for-each-event"):
            return
        if last and not beliefs.hold("callbacks-name-the-cause"):
            status = "completed"
        form = status_form(call, self.account_sid, event, status)
        call.callbacks += 1
        self._callback(call.sid, method, url, form)

    def detected(self, call: Call, found: Detected) -> None:
        asked = call.record.options.detection
        assert asked is not None
        form = [
            ("AccountSid", self.account_sid),
            ("AnsweredBy", found.answered_by),
            ("CallSid", call.sid),
            ("MachineDetectionDuration", str(found.milliseconds)),
        ]
        if not self.exchange.beliefs.hold("async-amd-names-the-call"):
            form = [field for field in form if field[0] != "CallSid"]
        self._callback(call.sid, asked.callback_method, asked.callback, form)

    def nobody_has(self, number: str) -> None:
        numbers = list(self.exchange.callees)
        more = ", …" if len(numbers) > _TOLD else ""
        there = f"there are {', '.join(numbers[:_TOLD])}{more}" if numbers else "there are none"
        # Whoever reads the log may be slow, and the media clock does not wait for that.
        tell = asyncio.to_thread(log.warning, _FAILS, number, there)
        self._start(tell)

    def _stream_callback(self, call: Call, stream: Stream, event: str) -> None:
        verb = stream.verb
        if verb.status_callback:
            form = stream_form(stream, self.account_sid, event)
            self._callback(call.sid, verb.status_callback_method, verb.status_callback, form)

    def _callback(self, sid: str, method: str, url: str, form: Form) -> None:
        """Post a callback behind the call's earlier ones. One that others overtake (habit
        ``callback-order``) is posted later, and the next ones do not wait for it."""
        before = self._callback_order.get(sid)
        is_overtaken = self.exchange.habits.draw("callback-order") == "overtaken"

        async def run() -> None:
            if is_overtaken:
                await asyncio.sleep(OVERTAKEN_BY)
            if before is not None:
                await asyncio.wait([before])
            result = await self.webhooks.post("status", sid, method, url, form)
            if result.code:
                self.judge.error(result.code, f"status callback: {result.text}", call_sid=sid)

        task = self._start(run())
        if not is_overtaken:
            self._callback_order[sid] = task

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures.append(error)

    async def _handle(self, request: Request) -> Response | None:
        if request.path.startswith("/sim"):
            return await self.control.handle(request)
        return await self._door.handle(request)

    def _due(self) -> float:
        return self._t0 + (self._ticks + 1) * TICK_SECONDS

    def _point(self, when: float) -> int:
        """The last point of the grid that is not after ``when``."""
        return math.floor((when - self._t0) / TICK_SECONDS)

    def _schedule(self) -> None:
        """Set the timer for the next tick, or for the first that has something to do. Where no
        tick has, nothing is set until ``wake``."""
        is_awake = self._sockets or self._waiters
        first = self._due() if is_awake else self.exchange.first_due()
        self._rests = first > self._due()
        self._timer = None
        if first == math.inf:
            return
        if self._rests:
            # ``first`` may itself be a point, or a rounding error beside one.
            self._ticks = self._point(first - _EARLY)
        delay = max(0.0, self._due() - self.now())
        self._timer = asyncio.get_running_loop().call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        if self.now() - self._due() > _LATE:
            # We are late. Bytes that reached our sockets meanwhile came before this tick, so they
            # are read first. One round of the loop may run timers before sockets; the second has
            # read them.
            loop = asyncio.get_running_loop()
            self._timer = loop.call_soon(lambda: setattr(self, "_timer", loop.call_soon(self._run)))
            return
        self._run()

    def _run(self) -> None:
        self._rests = False
        now = self.now()
        while (due := self._due()) <= now + _EARLY:
            self._ticks += 1
            self.lateness.append(now - due)
            self.exchange.tick(due)
        if self._disturbed or self._faults_seen != self.faults.version:
            self._faults_seen = self.faults.version
            for connection in list(self._sockets.values()):
                connection.tick(now)
            still = any(connection.disturbed for connection in self._sockets.values())
            self._disturbed = still or bool(self.faults.rules)
        for condition, future in self._waiters:
            if not future.done() and condition():
                future.set_result(None)
        self._schedule()
