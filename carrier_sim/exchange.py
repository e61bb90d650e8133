"""Call control: who calls whom, what a leg's instruction leads to, when a call ends.

No I/O. The exchange holds the account's numbers, calls and callees, and is driven by `tick`, by
REST (through rest.py) and by answers of the shell; the shell (sim.py) does what needs a network and
calls back. Every time is an argument.

A call placed to one of the account's own numbers is two calls at Twilio: the outgoing leg A and the
inbound leg B, whose number's voice_url is asked. They are the two ends of one circuit; A is
answered when B is.
"""

from __future__ import annotations

import heapq
import itertools
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from . import caller_id, twiml
from .account import Call, CallOptions, Number, NumberWrite, Sids
from .beliefs import Beliefs
from .bots import Answering, Bot, BotSpec, Busy, Failed, NoAnswer, Silence, start_bot
from .circuit import Circuit, Switchboard
from .habits import Habits
from .judge import Judge
from .leg import (
    Answer,
    CloseStream,
    DropDial,
    End,
    Fetch,
    Leg,
    OpenSide,
    OpenStream,
    PlaceDial,
    Report,
)
from .stream import Stream, check_url

#: Content types that Twilio reads as TwiML (TD voice/twiml).
TWIML_TYPES = frozenset(["text/xml", "application/xml", "text/html"])
#: Where a write of a number does not count at once, calls find it after so many seconds.
CALLS_SETTLE = 4.0


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How the carrier behaves. calls_per_second None: no queue. seed 0: nothing ever repeats.

    habits: those that are pinned to one form (habits.py); contradict: beliefs (beliefs.py).
    """

    calls_per_second: float | None = None
    max_url_length: int = 2048
    allow_ws: bool = True
    validate_source: bool = True
    keep_audio: bool = True
    wire_log: bool = False
    detect_keys: bool = True
    webhook_timeout: float = 15.0
    connect_timeout: float = 10.0
    stream_connect_timeout: float = 10.0
    seed: int = 0
    habits: Mapping[str, str] = {}
    contradict: tuple[str, ...] = ()


class Line:
    """A call while it lives: its resource, its leg, its circuit, its streams."""

    def __init__(self, call: Call, leg: Leg, number: Number | None) -> None:
        self.call = call
        self.leg = leg
        self.number = number
        self.circuit: Circuit | None = None
        self.bot: Bot | None = None
        #: The line at the other end of the circuit, where that is a call of the carrier too.
        self.other: Line | None = None
        #: A dialled leg's parent, and a parent's dialled leg.
        self.parent: Line | None = None
        self.child: Line | None = None
        self.streams: list[Stream] = []
        #: Counts fetches, so that the answer to an outdated one is thrown away.
        self.fetch_id = 0
        self.used_fallback = False
        self.on_answer: Callable[[float], None] | None = None
        self.callbacks = 0


class Fetched(msgspec.Struct, frozen=True):
    """The answer to a webhook: a body, or the error number and text of its failure."""

    body: bytes = b""
    content_type: str = ""
    code: int = 0
    text: str = ""


class Shell(Protocol):
    """What the exchange needs done on the network."""

    def fetch(self, line: Line, fetch: Fetch, fetch_id: int) -> None:
        """Post the webhook; then `Exchange.fetched`."""

    def open_stream(self, line: Line, stream: Stream) -> None:
        """Connect; then `stream.opened`, later `Exchange.stream_over`."""

    def close_stream(self, stream: Stream) -> None:
        """Close the socket behind the last message."""

    def status_callback(self, line: Line, event: str, status: str) -> None:
        """Post the status callback of the call, if there is one for this event."""


class Exchange:
    """The account and all its calls."""

    def __init__(
        self,
        account_sid: str,
        options: Options,
        judge: Judge,
        shell: Shell,
        wall: Callable[[], float],
    ) -> None:
        self.account_sid = account_sid
        self.options = options
        self.judge = judge
        self.shell = shell
        self.wall = wall
        #: What habits are drawn from; shown by GET /sim/health, so that a run can be repeated.
        self.seed = options.seed or secrets.randbits(32)
        self.sids = Sids(options.seed)
        self.habits = Habits(self.seed, options.habits)
        self.beliefs = Beliefs(options.contradict)
        self.numbers: dict[str, Number] = {}
        self.number_writes: list[NumberWrite] = []
        self.caller_ids: set[str] = set()
        self.callees: dict[str, BotSpec] = {}
        self.lines: dict[str, Line] = {}
        self.streams: dict[str, Stream] = {}
        self.switchboard = Switchboard(detect_keys=options.detect_keys)
        self._timers: list[tuple[float, int, Callable[[float], None]]] = []
        self._count = itertools.count()
        self._next_dial = 0.0
        self._settling: deque[Line] = deque()

    @property
    def calls(self) -> dict[str, Call]:
        """All calls, by SID, oldest first."""
        return {sid: line.call for sid, line in self.lines.items()}

    def number_by_sid(self, sid: str) -> Number | None:
        """A number by its PN…"""
        return next((n for n in self.numbers.values() if n.sid == sid), None)

    def number_for_calls(self, number: Number, now: float) -> Number:
        """The number as a call that comes in now finds it."""
        holds = self.beliefs.hold("voice-url-counts-at-once")
        return number if holds else self.number_before(number, now - CALLS_SETTLE)

    def number_before(self, number: Number, since: float) -> Number:
        """The number as it was before all writes from `since` on."""
        for write in self.number_writes:
            if write.sid == number.sid and write.time >= since:
                return msgspec.structs.replace(number, **write.before)
        return number

    # Time

    def at(self, when: float, do: Callable[[float], None]) -> None:
        """Run do(now) at the first tick at or after when."""
        heapq.heappush(self._timers, (when, next(self._count), do))

    def tick(self, now: float) -> None:
        """One tick of the grid."""
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2](now)
        for circuit in self.switchboard.tick(now):
            far = circuit.far
            if isinstance(far, Bot):
                if far.hung_up:
                    self.far_end_hangs_up(self.lines[circuit.near.call_sid], now)
            elif far.pending:
                self._settle(self.lines[far.call_sid], now)
            if circuit.near.pending:
                self._settle(self.lines[circuit.near.call_sid], now)

    # Calls come in

    def inbound(self, from_: str, to: str, bot: Bot, now: float) -> Line:
        """Somebody outside calls a number of the account."""
        number = self.number_for_calls(self.numbers[to], now)
        line = self._line(from_, to, "inbound", "ringing", number, CallOptions(), now)
        line.bot = bot
        self._connect(line, bot)
        self._ask_number(line, now)
        return line

    def outbound(
        self,
        from_: str,
        to: str,
        options: CallOptions,
        now: float,
        *,
        parent: Line | None = None,
        on_answer: Callable[[float], None] | None = None,
    ) -> Line:
        """A call by REST (or by <Dial>, with its parent); queued by calls_per_second."""
        direction = "outbound-dial" if parent else "outbound-api"
        line = self._line(from_, to, direction, "queued", None, options, now)
        line.on_answer = on_answer or (lambda at: self._start_program(line, at))
        if parent:
            line.parent, parent.child = parent, line
            line.call.parent_call_sid = parent.call.sid
        when = now
        if self.options.calls_per_second and not parent:
            when = max(now, self._next_dial)
            self._next_dial = when + 1 / self.options.calls_per_second
            line.call.queue_time_ms = round((when - now) * 1000)
        self.at(when, lambda at: self._launch(line, at))
        return line

    def _launch(self, line: Line, now: float) -> None:
        call = line.call
        if not call.live:
            return
        self.shell.status_callback(line, "initiated", "initiated")
        if call.to in self.numbers:
            self.at(now + call.options.timeout, lambda at: self._give_up(line, at))
            self._ring(line, now)
            number = self.number_for_calls(self.numbers[call.to], now)
            if not self.beliefs.hold("own-number-asks"):
                self._connect(line, start_bot(Silence()))
                self._answered(line, now)
                return
            shown = caller_id.FORMS[self.habits.draw("caller-id")](call.from_)
            child = self._line(shown, call.to, "inbound", "ringing", number, CallOptions(), now)
            child.other, line.other = line, child
            line.leg.answered = True
            circuit = self._connect(line, child.leg)
            child.circuit = circuit
            self._ask_number(child, now)
            return
        spec = self.callees.get(call.to)
        if spec is None or isinstance(spec, Failed):
            if spec is None:
                self.judge.error(13224, f"nobody has the number {call.to}", call_sid=call.sid)
            ring = spec.ring if spec else 0.0
            self.at(now + ring, lambda at: self._end_if_live(line, "failed", "unroutable", at))
            return
        self._ring(line, now)
        self.at(now + call.options.timeout, lambda at: self._give_up(line, at))
        if isinstance(spec, Busy):
            self.at(now + spec.ring, lambda at: self._end_if_live(line, "busy", "far-end", at))
        elif not isinstance(spec, NoAnswer):
            self.at(now + spec.ring, lambda at: self._bot_answers(line, spec, at))

    def _ring(self, line: Line, now: float) -> None:
        line.call.move("ringing", now, self.wall())
        self.shell.status_callback(line, "ringing", "ringing")

    def _bot_answers(self, line: Line, spec: Answering, now: float) -> None:
        if line.call.status != "ringing":
            return
        line.bot = start_bot(self._kept(spec))  # type: ignore[arg-type]  # the union's base class
        self._connect(line, line.bot)
        self._answered(line, now)

    def _kept(self, spec: Answering) -> Answering:
        return spec if self.options.keep_audio else msgspec.structs.replace(spec, keep=False)

    def _ask_number(self, line: Line, now: float) -> None:
        number = line.number
        assert number is not None
        routed = bool(number.voice_application_sid or number.trunk_sid)
        if routed and self.beliefs.hold("routed-numbers-ignore-voice-url"):
            self._end_if_live(line, "failed", "routed-elsewhere", now)
        elif not number.voice_url:
            self._end_if_live(line, "failed", "no-voice-url", now)
        else:
            line.leg.fetching()
            self._fetch(line, Fetch(number.voice_url, number.voice_method))

    def _answered(self, line: Line, now: float) -> None:
        line.call.move("in-progress", now, self.wall())
        line.leg.answered = True
        if line.circuit:
            line.circuit.connect(now)
        self.shell.status_callback(line, "answered", "in-progress")
        limit = line.call.options.time_limit
        if self.beliefs.hold("time-limit-ends-calls"):
            self.at(now + limit, lambda at: self._end_if_live(line, "completed", "time-limit", at))
        if line.on_answer:
            line.on_answer(now)

    def _start_program(self, line: Line, now: float) -> None:
        options = line.call.options
        if options.twiml:
            self.run_twiml(line, options.twiml, now)
        else:
            line.leg.fetching()
            self._fetch(line, Fetch(options.url, options.method))

    def _give_up(self, line: Line, now: float) -> None:
        if line.call.status == "ringing":
            self._end_if_live(line, "no-answer", "timeout", now)

    # What REST and the far end do to a call

    def run_twiml(self, line: Line, text: str, now: float) -> None:
        """Inline TwiML: at the start of a call, or in place of what runs.

        A stream that it ends goes on for a moment, and its successor takes a while (habit `seam`).
        """
        seam = float(self.habits.draw("seam")) if line.leg.doing == "stream" else 0.0
        if not seam:
            self._run_now(line, text, now)
            return

        def take_effect(at: float) -> None:
            line.leg.seam = seam
            self._run_now(line, text, at)

        self.at(now + seam / 3, take_effect)

    def _run_now(self, line: Line, text: str, now: float) -> None:
        line.fetch_id += 1
        self._run(line, text, "", now)

    def start_side(self, line: Line, verb: twiml.Stream, now: float) -> Stream:
        """REST starts a one-way stream."""
        line.leg.start_side(verb)
        self._settle(line, now)
        return line.streams[-1]

    def stop_side(self, line: Line, stream: Stream, now: float) -> None:
        """REST stops a one-way stream."""
        line.leg.stop_side(stream)
        self._settle(line, now)

    def redirect(self, line: Line, url: str, method: str, now: float) -> None:
        """Fetch TwiML from url, in place of what runs."""
        line.leg.fetching()
        self._settle(line, now)
        self._fetch(line, Fetch(url, method))

    def end_by_api(self, line: Line, status: str, now: float) -> None:
        """Status=completed or canceled."""
        ringing = line.call.status in ("queued", "ringing")
        if ringing and status == "completed" and not self.beliefs.hold("completed-ends-ringing"):
            return
        if status == "canceled" or ringing:
            self._end_if_live(line, "canceled", "canceled-by-api", now)
        else:
            self._end_if_live(line, "completed", "completed-by-api", now)

    def far_end_hangs_up(self, line: Line, now: float) -> None:
        """The person (bot) at the other end puts the receiver down."""
        status = "completed" if line.call.status == "in-progress" else "no-answer"
        self._end_if_live(line, status, "far-end", now)

    def _end_if_live(self, line: Line, status: str, reason: str, now: float) -> None:
        if line.call.live and not line.leg.ended:
            line.leg.hang_up(status, reason)
            self._settle(line, now)

    # What the shell answers

    def fetched(self, line: Line, fetch: Fetch, fetch_id: int, result: Fetched, now: float) -> None:
        """A webhook was answered or failed."""
        if fetch_id != line.fetch_id or line.leg.ended:
            return
        call = line.call
        code, text = result.code, result.text
        if not code:
            kind = result.content_type.partition(";")[0].strip().lower()
            if kind not in TWIML_TYPES:
                code, text = 12300, f"Content-Type {result.content_type!r} from {fetch.url}"
            elif len(result.body) > twiml.MAX_FETCHED:
                code, text = 11750, f"{len(result.body)} bytes from {fetch.url}"
        if not code:
            document = twiml.parse(result.body)
            if document.verbs is not None:
                self._list(call.sid, document)
                line.leg.run(document.verbs, fetch.url, now)
                self._settle(line, now)
                return
            code, text = document.problems[0].code, f"{document.problems[0].text} ({fetch.url})"
        self.judge.error(code, text, call_sid=call.sid)
        self._fall_back(line, fetch, code, now)

    def _fall_back(self, line: Line, fetch: Fetch, code: int, now: float) -> None:
        if line.number is not None:
            url, method = line.number.voice_fallback_url, line.number.voice_fallback_method
        else:
            url, method = line.call.options.fallback_url, line.call.options.fallback_method
        if url and not line.used_fallback and self.beliefs.hold("fallback-is-asked"):
            line.used_fallback = True
            self._fetch(
                line, Fetch(url, method, (("ErrorCode", str(code)), ("ErrorUrl", fetch.url)))
            )
            return
        line.leg.application_error(now)
        self._settle(line, now)

    def stream_over(self, line: Line, stream: Stream, now: float) -> None:
        """The socket is gone: closed by the server, broken, or never there."""
        leg = line.leg
        if leg.stream is stream:
            how = {"close": "close", "broken": "break"}.get(stream.ended_by, "refusal")
            if self.beliefs.hold(f"next-verb-after-{how}"):
                leg.stream_over(now)
            else:
                leg.hang_up("completed", f"stream-{how}")
            self._settle(line, now)
        elif stream in leg.sides:
            leg.sides.remove(stream)
            ends = stream.again or self.beliefs.hold("one-way-close-ends")
            if not ends and stream.ended_by == "close":
                self._open_side(line, stream.verb, now, again=True)

    # Instructions of legs

    def _settle(self, line: Line, now: float) -> None:
        """Do what legs want until none wants more."""
        self._settling.append(line)
        if len(self._settling) > 1:
            return
        try:
            while self._settling:
                current = self._settling[0]
                for instruction in current.leg.take_instructions():
                    self._do(current, instruction, now)
                if not current.leg.pending:
                    self._settling.popleft()
        finally:
            self._settling.clear()

    def _do(self, line: Line, instruction: object, now: float) -> None:
        match instruction:
            case Answer():
                self._answered(line, now)
                if line.other is not None and line.other.call.status == "ringing":
                    self._answered(line.other, now)
            case Fetch():
                self._fetch(line, instruction)
            case OpenStream(verb=verb, delay=delay):
                if delay:
                    self._open_later(line, verb, now + delay)
                else:
                    self._open_stream(line, verb, now)
            case OpenSide(verb=verb):
                self._open_side(line, verb, now)
            case CloseStream(stream=stream, moved=moved):
                if moved and not self.beliefs.hold("update-sends-stop"):
                    stream.end(now, "stop")
                else:
                    stream.stop(now)
                self.shell.close_stream(stream)
            case PlaceDial(verb=verb):
                self._dial(line, verb, now)
            case DropDial():
                child, line.child = line.child, None
                if child is not None:
                    child.parent = None
                    status = "completed" if child.call.status == "in-progress" else "canceled"
                    self._end_if_live(child, status, "parent", now)
            case Report(code=code, text=text):
                self.judge.error(code, text, call_sid=line.call.sid)
            case End(status=status, reason=reason):
                self._ended(line, status, reason, now)

    def _open_later(self, line: Line, verb: twiml.Stream, when: float) -> None:
        """Open the stream then, if <Connect> still waits for it."""

        def open_it(now: float) -> None:
            if line.leg.connecting is verb:
                self._open_stream(line, verb, now)
                self._settle(line, now)

        self.at(when, open_it)

    def _open_stream(self, line: Line, verb: twiml.Stream, now: float) -> None:
        stream = self._new_stream(line, verb)
        line.leg.stream_started(stream)
        if self._refuse(line, stream, now):
            line.leg.stream_over(now)
        else:
            self.shell.open_stream(line, stream)

    def _open_side(
        self, line: Line, verb: twiml.Stream, now: float, *, again: bool = False
    ) -> None:
        stream = self._new_stream(line, verb, one_way=True)
        stream.again = again
        stream.altered = not self.beliefs.hold("streams-alike")
        if not self._refuse(line, stream, now):
            line.leg.side_started(stream)
            delay = float(self.habits.draw("one-way-start"))
            self.at(now + delay, lambda at: self._connect_side(line, stream))

    def _connect_side(self, line: Line, stream: Stream) -> None:
        if stream in line.leg.sides:
            self.shell.open_stream(line, stream)

    def _new_stream(self, line: Line, verb: twiml.Stream, *, one_way: bool = False) -> Stream:
        stream = Stream(
            self.sids.new("MZ"),
            line.call.sid,
            self.account_sid,
            verb,
            self.judge,
            wire_log=self.options.wire_log,
            one_way=one_way,
            beliefs=self.beliefs,
            call_began=line.call.created_at,
        )
        line.streams.append(stream)
        self.streams[stream.sid] = stream
        return stream

    def _refuse(self, line: Line, stream: Stream, now: float) -> bool:
        """End a stream whose URL Twilio would not take, with its error; whether it was one."""
        refused = check_url(stream.verb, self.options.allow_ws)
        if refused is None:
            return False
        code, text = refused
        self.judge.error(code, text, call_sid=line.call.sid, stream_sid=stream.sid)
        stream.end(now, f"error {code}")
        return True

    def _dial(self, line: Line, verb: twiml.Dial, now: float) -> None:
        caller = verb.caller_id or line.call.from_
        options = CallOptions(timeout=verb.timeout, time_limit=verb.time_limit)

        def answered(at: float) -> None:
            if line.child is child and not line.leg.ended:
                line.leg.bridge(child.leg)
                child.leg.bridge(line.leg)

        child = self.outbound(caller, verb.number, options, now, parent=line, on_answer=answered)

    def _ended(self, line: Line, status: str, reason: str, now: float) -> None:
        call = line.call
        call.end_reason = reason
        call.move(status, now, self.wall())
        if line.circuit is not None:
            self.switchboard.remove(line.circuit)
        self.shell.status_callback(line, "completed", status)
        other = line.other
        if other is not None and other.call.live:
            if other.call.status == "in-progress":
                self._end_if_live(other, "completed", "far-end", now)
            elif other.call.direction == "inbound":
                gone = "canceled" if status == "canceled" else "no-answer"
                self._end_if_live(other, gone, "far-end", now)
            else:
                failed = status if status != "completed" else "no-answer"
                self._end_if_live(other, failed, "far-end", now)
        parent = line.parent
        if parent is not None and parent.child is line:
            parent.child = None
            parent.leg.dial_over(status, call.duration or 0, call.sid, now)
            self._settle(parent, now)

    # Small parts

    def _line(
        self,
        from_: str,
        to: str,
        direction: str,
        status: str,
        number: Number | None,
        options: CallOptions,
        now: float,
    ) -> Line:
        sid = self.sids.new("CA")
        call = Call(
            sid=sid,
            from_=from_,
            to=to,
            direction=direction,
            status=status,
            options=options,
            created_at=now,
            created=self.wall(),
            phone_number_sid=number.sid if number else "",
            history=[(now, status)],
        )
        line = Line(call, Leg(sid, beliefs=self.beliefs), number)
        self.lines[sid] = line
        return line

    def _connect(self, line: Line, far: Bot | Leg) -> Circuit:
        circuit = Circuit(line.leg, far, keep=self.options.keep_audio)
        line.circuit = circuit
        self.switchboard.add(circuit)
        return circuit

    def _fetch(self, line: Line, fetch: Fetch) -> None:
        line.fetch_id += 1
        self.shell.fetch(line, fetch, line.fetch_id)

    def _run(self, line: Line, text: str, url: str, now: float) -> None:
        document = twiml.parse(text)
        self._list(line.call.sid, document)
        if document.verbs is None:
            line.leg.application_error(now)
        else:
            line.leg.run(document.verbs, url, now)
        self._settle(line, now)

    def _list(self, call_sid: str, document: twiml.Document) -> None:
        for problem in document.problems:
            self.judge.error(problem.code, problem.text, call_sid=call_sid)
