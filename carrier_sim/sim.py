"""CarrierSim: the carrier in a program's own event loop, and the shell around all that does no I/O.

async with CarrierSim(port=0) as sim:
    sim.add_number("+14155551234", voice_url="https://example.com/voice")
    sim.add_callee("+14155557777", Echo())
    call = await sim.place_inbound_call("+14155550000", "+14155551234", Record())
    await call.wait_for("completed")
    assert not sim.errors
"""

from __future__ import annotations

import asyncio
import ssl
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from .account import ENDED, Call, Number, NumberWrite, number_sid
from .bots import Answering, Bot, BotSpec, bot_from, parse_bot, start_bot
from .circuit import TICK_SECONDS
from .control import ControlApi
from .exchange import Exchange, Line, Options
from .faults import Fault, Faults, Rule
from .http_message import Request, Response
from .http_server import Fate, HttpServer
from .judge import ErrorRecord, Judge
from .leg import Fetch
from .rest import Refused, RestApi, RestLogEntry, refusal
from .signature import Credentials, Signer, basic_credentials
from .stream import Stream
from .stream_socket import StreamSocket
from .wav import write_pcm
from .webhooks import WebhookEntry, Webhooks, call_fields

#: Credentials that go with no real account.
ACCOUNT_SID: Final = "AC" + "5" * 32
AUTH_TOKEN: Final = "carrier-sim-token"
#: How long a request that is never answered is kept open.
_HANG_SECONDS: Final = 60.0
#: A tick later than this lets waiting sockets be read before it is served.
_LATE: Final = 0.003


class CallHandle:
    """A call as a test sees it; `line` has all the rest."""

    def __init__(self, sim: CarrierSim, line: Line) -> None:
        self._sim = sim
        self.line = line

    @property
    def call(self) -> Call:
        """The Call resource."""
        return self.line.call

    @property
    def sid(self) -> str:
        return self.line.call.sid

    @property
    def status(self) -> str:
        return self.line.call.status

    @property
    def bot(self) -> Bot | None:
        """The bot at the far end, once there is one."""
        return self.line.bot

    @property
    def streams(self) -> list[Stream]:
        """Its Media Streams, oldest first."""
        return self.line.streams

    @property
    def played(self) -> bytearray:
        """μ-law that the far end has heard since the call was answered (`started` below)."""
        return self._circuit_audio("played")

    @property
    def said(self) -> bytearray:
        """μ-law that the far end has said, on the same time base."""
        return self._circuit_audio("said")

    @property
    def started(self) -> float | None:
        """Monotonic time of the first sample of `played` and `said`."""
        return self.line.circuit.connected_at if self.line.circuit else None

    def hang_up(self) -> None:
        """The far end hangs up."""
        self._sim.exchange.far_end_hangs_up(self.line, self._sim.now())

    async def wait_for(self, *statuses: str, timeout: float = 10.0) -> str:
        """Wait until the status is one of these (any end, if none is given).
        asyncio.TimeoutError."""
        wanted = frozenset(statuses) or ENDED
        await self._sim.wait_until(lambda: self.status in wanted, timeout)
        return self.status

    async def wait_for_stream(self, count: int = 1, timeout: float = 10.0) -> Stream:
        """Wait until its count-th stream is live. asyncio.TimeoutError."""
        await self._sim.wait_until(
            lambda: len(self.streams) >= count and self.streams[count - 1].live, timeout
        )
        return self.streams[count - 1]

    def _circuit_audio(self, name: str) -> bytearray:
        line = self.line
        if line.circuit is None:
            return bytearray()
        # Of a circuit between two legs, the second sees it the other way round.
        if line.circuit.near is not line.leg:
            name = {"played": "said", "said": "played"}[name]
        audio: bytearray = getattr(line.circuit, name)
        return audio


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
        options: Options | None = None,
        ca_file: str | Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        **more: object,
    ) -> None:
        """`more` are fields of Options (calls_per_second=1.0, wire_log=True, seed=7, …); ca_file is
        trusted for https and wss besides the system's authorities."""
        self.options = msgspec.structs.replace(options or Options(), **more)
        self.account_sid = account_sid
        self.credentials = Credentials(auth_token, auth_token_secondary)
        self.now = clock
        self.judge = Judge(clock)
        self.faults = Faults(self.options.seed)
        self.exchange = Exchange(account_sid, self.options, self.judge, self, wall)
        self.rest = RestApi(self.exchange, account_sid, self.credentials)
        self.signer = Signer(self.credentials, self.exchange.habits, self.exchange.beliefs)
        self.rest_log: list[RestLogEntry] = []
        self.control = ControlApi(self)
        self._tls = ssl.create_default_context()
        if ca_file:
            self._tls.load_verify_locations(str(ca_file))
        self.webhooks = Webhooks(
            self.signer,
            self._authorization,
            self.faults,
            clock,
            self.exchange.sids.new,
            timeout=self.options.webhook_timeout,
            connect_timeout=self.options.connect_timeout,
            tls=self._tls,
            beliefs=self.exchange.beliefs,
        )
        self._server = HttpServer(self._handle, host, port)
        self._sockets: dict[Stream, StreamSocket] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._callback_order: dict[str, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._t0 = 0.0
        self._ticks = 0
        self._faults_seen = 0
        #: Whether some stream's socket has to be looked at on each tick.
        self._disturbed = False
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        #: Seconds that each tick was late, and whether anything had gone wrong in a task.
        self.lateness: array[float] = array("d")
        self.failures: list[BaseException] = []

    # Life

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
    def port(self) -> int:
        return self._server.port

    @property
    def base_url(self) -> str:
        """What `https://api.twilio.com` is replaced by."""
        host = f"[{self._server.host}]" if ":" in self._server.host else self._server.host
        return f"http://{host}:{self.port}"

    # The account

    @property
    def auth_token(self) -> str:
        """The primary auth token; `credentials` has both, and promotes the secondary."""
        return self.credentials.primary

    def _authorization(self, url: str) -> str | None:
        """What a webhook to url says to a server that asks for a password."""
        if not self.exchange.beliefs.hold("webhook-user-info"):
            return None
        return basic_credentials(url)

    def add_number(self, phone_number: str, **fields: object) -> Number:
        """A number of the account, with any fields of Number (voice_url=…)."""
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
        """Who answers at a number outside of the account; a text is parsed by parse_bot."""
        self.exchange.callees[phone_number] = parse_bot(bot) if isinstance(bot, str) else bot

    def add_caller_id(self, phone_number: str) -> None:
        """A verified caller id: may be From although it is no number of the account."""
        self.exchange.caller_ids.add(phone_number)

    @property
    def numbers(self) -> dict[str, Number]:
        """By phone number."""
        return self.exchange.numbers

    @property
    def number_writes(self) -> list[NumberWrite]:
        """Every change of a number through REST, in order."""
        return self.exchange.number_writes

    @property
    def calls(self) -> dict[str, CallHandle]:
        """By SID, oldest first."""
        return {sid: CallHandle(self, line) for sid, line in self.exchange.lines.items()}

    @property
    def streams(self) -> dict[str, Stream]:
        """By SID, oldest first."""
        return self.exchange.streams

    @property
    def errors(self) -> list[ErrorRecord]:
        """What Twilio's debugger would show."""
        return self.judge.errors

    @property
    def webhook_log(self) -> list[WebhookEntry]:
        """Every webhook and status callback sent."""
        return self.webhooks.log

    async def place_inbound_call(
        self, from_: str, to: str, bot: BotSpec | str | dict[str, object]
    ) -> CallHandle:
        """Somebody calls a number of the account; the bot is the caller. KeyError, ValueError."""
        if isinstance(bot, str):
            spec = parse_bot(bot)
        else:
            spec = bot_from(bot) if isinstance(bot, dict) else bot
        if not isinstance(spec, Answering):
            raise ValueError(f"a caller cannot be {type(spec).__name__}")
        if to not in self.numbers:
            raise KeyError(f"{to} is no number of this account")
        kept = spec if self.options.keep_audio else msgspec.structs.replace(spec, keep=False)
        line = self.exchange.inbound(from_, to, start_bot(kept), self.now())
        return CallHandle(self, line)

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
        now = self.now()
        for line in self.exchange.lines.values():
            if line.call.live:
                self.exchange.far_end_hangs_up(line, now)
        self.exchange.lines.clear()
        self.exchange.streams.clear()
        self.exchange.number_writes.clear()
        self.faults.clear()
        self.judge.clear()
        self.rest_log.clear()
        self.webhooks.log.clear()
        self.lateness = array("d")

    async def wait_until(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        """Wait for a condition, looked at after each tick. asyncio.TimeoutError."""
        if condition():
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (condition, future)
        self._waiters.append(entry)
        try:
            async with asyncio.timeout(timeout):
                await future
        finally:
            if entry in self._waiters:
                self._waiters.remove(entry)

    # What the exchange wants (exchange.Shell)

    def fetch(self, line: Line, fetch: Fetch, fetch_id: int) -> None:
        form = [*call_fields(line.call, self.account_sid), *fetch.params]

        async def run() -> None:
            result = await self.webhooks.post(
                "webhook", line.call.sid, fetch.method, fetch.url, form
            )
            self.exchange.fetched(line, fetch, fetch_id, result, self.now())

        self._start(run())

    def open_stream(self, line: Line, stream: Stream) -> None:
        def over(ended: Stream) -> None:
            if ended.ended_by not in ("close", "stop"):
                self._stream_callback(line, ended, "stream-error")
            self._stream_callback(line, ended, "stream-stopped")
            self.exchange.stream_over(line, ended, self.now())

        def closed(connection: StreamSocket) -> None:
            self._sockets.pop(connection.stream, None)

        connection = StreamSocket(
            stream,
            self.judge,
            self.faults,
            self.now,
            self.signer,
            self.exchange.beliefs,
            over,
            closed,
        )
        self._sockets[stream] = connection

        async def run() -> None:
            await connection.connect(self._tls, self.options.stream_connect_timeout)
            if stream.live:
                self._stream_callback(line, stream, "stream-started")

        self._start(run())

    def close_stream(self, stream: Stream) -> None:
        connection = self._sockets.get(stream)
        if connection is not None:
            connection.finish()
        line = self.exchange.lines.get(stream.call_sid)
        if line is not None and stream.opened_at is not None:
            self._stream_callback(line, stream, "stream-stopped")

    def status_callback(self, line: Line, event: str, status: str) -> None:
        options, call = line.call.options, line.call
        url, method = options.status_callback, options.status_callback_method
        wanted = event in options.status_callback_event
        if line.number is not None:
            url, method = line.number.status_callback, line.number.status_callback_method
            wanted = event == "completed"
        if not self.exchange.beliefs.hold("callbacks-for-each-event"):
            wanted = wanted and event == "completed"
        if event == "completed" and not self.exchange.beliefs.hold("callbacks-name-the-cause"):
            status = "completed"
        if not url or not wanted:
            return
        form = [f for f in call_fields(call, self.account_sid) if f[0] != "CallStatus"]
        form += [
            ("CallStatus", status),
            ("CallbackSource", "call-progress-events"),
            ("SequenceNumber", str(line.callbacks)),
            ("Timestamp", time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime())),
        ]
        if event == "completed":
            seconds = call.duration or 0
            form += [("CallDuration", str(seconds)), ("Duration", str(-(-seconds // 60)))]
            code = {"busy": "486", "no-answer": "487", "failed": "404", "canceled": "487"}
            form.append(("SipResponseCode", code.get(status, "200")))
        line.callbacks += 1
        self._callback(call.sid, method, url, form)

    def _stream_callback(self, line: Line, stream: Stream, event: str) -> None:
        if not stream.verb.status_callback:
            return
        form = [
            ("AccountSid", self.account_sid),
            ("CallSid", line.call.sid),
            ("StreamSid", stream.sid),
            ("StreamName", stream.verb.name or stream.sid),
            ("StreamEvent", event),
            ("StreamError", stream.ended_by if event == "stream-error" else ""),
            ("Timestamp", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())),
        ]
        verb = stream.verb
        self._callback(line.call.sid, verb.status_callback_method, verb.status_callback, form)

    def _callback(self, sid: str, method: str, url: str, form: list[tuple[str, str]]) -> None:
        """Callbacks of one call go out one after the other."""
        before = self._callback_order.get(sid)

        async def run() -> None:
            if before is not None:
                await asyncio.wait([before])
            result = await self.webhooks.post("status", sid, method, url, form)
            if result.code:
                self.judge.error(result.code, f"status callback: {result.text}", call_sid=sid)

        self._callback_order[sid] = self._start(run())

    def _start(self, work: object) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures.append(error)

    # The media clock

    def _schedule(self) -> None:
        due = self._t0 + (self._ticks + 1) * TICK_SECONDS
        delay = max(0.0, due - self.now())
        self._timer = asyncio.get_running_loop().call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        due = self._t0 + (self._ticks + 1) * TICK_SECONDS
        if self.now() - due > _LATE:
            # We are late: what reached our sockets meanwhile came before this tick and counts so.
            # One round of the loop may run timers before sockets; the second has read them.
            loop = asyncio.get_running_loop()
            self._timer = loop.call_soon(lambda: setattr(self, "_timer", loop.call_soon(self._run)))
            return
        self._run()

    def _run(self) -> None:
        now = self.now()
        while (due := self._t0 + (self._ticks + 1) * TICK_SECONDS) <= now + 0.0005:
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

    # HTTP

    async def _handle(self, request: Request) -> Response | Fate:
        if request.path.startswith("/sim"):
            return await self.control.handle(request)
        fault = self.faults.match("rest", request.method, request.target)
        kind = fault.kind if fault else ""
        if fault is None:
            return self._answer(request, kind)
        if kind == "latency":
            await asyncio.sleep(fault.seconds)
            return self._answer(request, kind)
        if kind == "status":
            if fault.status == 429 and not self.exchange.beliefs.hold("429-is-not-processed"):
                self.rest.handle(request, self.now())
            headers: tuple[tuple[str, str], ...] = ()
            if fault.retry_after is not None:
                headers = (("Retry-After", f"{fault.retry_after:g}"),)
            code = 20429 if fault.status == 429 else 20500
            text = (
                "Too Many Requests"
                if fault.status == 429
                else "An internal server error has occurred"
            )
            answer = refusal(Refused(fault.status, code, text))
            self._log(request, fault.status, code, kind)
            return msgspec.structs.replace(answer, headers=headers)
        if kind in ("timeout_after", "reset_after"):
            self._answer(request, kind)
        else:
            self._log(request, 0, 0, kind)
        if kind in ("reset", "reset_after"):
            return Fate.RESET
        if kind == "late_effect":
            # The effect comes even if the client is gone by then.
            loop = asyncio.get_running_loop()
            loop.call_later(fault.seconds, lambda: self._answer(request, kind))
        wait = fault.seconds if kind.startswith("timeout") and fault.seconds else _HANG_SECONDS
        await asyncio.sleep(wait)
        return Fate.RESET

    def _answer(self, request: Request, fault: str) -> Response:
        response = self.rest.handle(request, self.now())
        code = 0
        if response.status >= 400:
            code = int(msgspec.json.decode(response.body)["code"])
        self._log(request, response.status, code, fault)
        return response

    def _log(self, request: Request, status: int, code: int, fault: str) -> None:
        self.rest_log.append(
            RestLogEntry(
                time=self.now(),
                method=request.method,
                path=request.path,
                query=request.query,
                form=request.form,
                status=status,
                code=code,
                fault=fault,
            )
        )

    def recording(self, sid: str, side: str = "played") -> bytes:
        """A WAV (PCM16, 8 kHz) of what a call's far end heard ("played") or said ("said")."""
        handle = self.calls[sid]
        return write_pcm(handle.played if side == "played" else handle.said)
