"""Call control: who calls whom, how a leg's instructions are carried out, when a call ends.

No I/O. The exchange holds the account's numbers, calls and callees. ``tick``, REST (rest.py) and
the shell's answers drive it. The shell (sim.py) does all that needs a network, and calls back.
Every time is an argument.
"""

from __future__ import annotations

import heapq
import itertools
import math
import secrets
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from . import twiml
from .account import CallOptions, CallRecord, Sids
from .beliefs import Beliefs
from .bots import Answering, BotSpec, Busy, Failed, NoAnswer, Silence
from .call import Call
from .call_streams import CallStreams
from .circuit import Circuit, Switchboard
from .detection import Detector
from .far_ends import Bot, start_bot
from .habits import CALLER_FORMS, Habits
from .judge import Judge
from .leg import (
    Answer,
    CloseStream,
    Detected,
    DropDial,
    End,
    Fetch,
    Leg,
    OpenSide,
    OpenStream,
    PlaceDial,
    Report,
)
from .numbers import Number, Numbers
from .options import Options
from .stream import Stream

#: Where the carrier contradicts voice-url-counts-at-once: seconds until calls find a write.
CALLS_SETTLE: Final = 4.0


class Fetched(msgspec.Struct, frozen=True):
    """The answer to a webhook: a body, or the error number and text of its failure."""

    body: bytes = b""
    content_type: str = ""
    code: int = 0
    text: str = ""


class Shell(Protocol):
    """The network, as the exchange uses it."""

    def fetch(self, call: Call, fetch: Fetch, fetch_id: int) -> None:
        """Post the webhook; then ``Exchange.fetched``."""

    def open_stream(self, call: Call, stream: Stream) -> None:
        """Connect; then ``stream.opened``, later ``CallStreams.over``."""

    def close_stream(self, stream: Stream) -> None:
        """Close the socket behind the last message."""

    def status_callback(self, call: Call, event: str, status: str) -> None:
        """Post the status callback of the call, if there is one for this event."""

    def detected(self, call: Call, found: Detected) -> None:
        """Post who has answered."""

    def nobody_has(self, number: str) -> None:
        """Tell the user that a call fails because of that."""

    def wake(self) -> None:
        """Ticks have something to do again: ``first_due`` may be earlier than it was."""


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
        #: Habits and bad lines are drawn from it. GET /sim/health shows it, so that a run can be
        #: repeated.
        self.seed = options.seed or secrets.randbits(32)
        self.sids = Sids(options.seed)
        self.habits = Habits(self.seed, options.habits)
        self.beliefs = Beliefs(options.contradict)
        self.numbers = Numbers()
        #: Verified numbers that may be From.
        self.caller_ids: set[str] = set()
        #: Who answers at a number outside of the account.
        self.callees: dict[str, BotSpec] = {}
        #: All calls by SID, oldest first.
        self.calls: dict[str, Call] = {}
        #: The line of far ends that name none.
        self.line = options.line
        self._bots = 0
        self.streams = CallStreams(self)
        self.switchboard = Switchboard()
        self._timers: list[tuple[float, int, Callable[[float], None]]] = []
        self._count = itertools.count()
        self._next_dial = 0.0
        self._settling: deque[Call] = deque()

    def number_for_calls(self, number: Number, now: float) -> Number:
        """The number as a call that comes in now finds it."""
        holds = self.beliefs.hold("voice-url-counts-at-once")
        return number if holds else self.numbers.before(number, now - CALLS_SETTLE)

    def at(self, when: float, do: Callable[[float], None]) -> None:
        """Run ``do(now)`` at the first tick at or after ``when``."""
        heapq.heappush(self._timers, (when, next(self._count), do))
        self.shell.wake()

    def first_due(self) -> float:
        """Ticks before this time have nothing to do: -inf while there are circuits, and inf where
        nothing is scheduled."""
        if self.switchboard.busy:
            return -math.inf
        return self._timers[0][0] if self._timers else math.inf

    def tick(self, now: float) -> None:
        """One tick of the grid."""
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2](now)
        for circuit in self.switchboard.tick(now):
            far = circuit.far
            if isinstance(far, Bot):
                if far.hung_up:
                    self.far_end_hangs_up(self.calls[circuit.near.call_sid], now)
            elif far.instructions:
                self.settle(self.calls[far.call_sid], now)
            if circuit.near.instructions:
                self.settle(self.calls[circuit.near.call_sid], now)

    def bot(self, spec: Answering) -> Bot:
        """The far end of one call."""
        kept = spec if self.options.keep_audio else msgspec.structs.replace(spec, keep=False)
        self._bots += 1
        return start_bot(kept, self.line, f"{self.seed}:{self._bots}")  # type: ignore[arg-type]  # the union's base class

    def inbound(self, from_: str, to: str, bot: Bot, now: float) -> Call:
        """Somebody outside calls a number of the account."""
        call = self._inbound(from_, self.numbers[to], now)
        self._connect(call, bot)
        self._ask_number(call, now)
        return call

    def outbound(
        self,
        from_: str,
        to: str,
        options: CallOptions,
        now: float,
        *,
        parent: Call | None = None,
        on_answer: Callable[[float], None] | None = None,
    ) -> Call:
        """Place a call by REST, or by the <Dial> of its ``parent``. One by REST may have to wait
        for its turn (``calls_per_second``)."""
        direction = "outbound-dial" if parent else "outbound-api"
        call = self._new(from_, to, direction, "queued", None, options, now)
        call.on_answer = on_answer or (lambda at: self._start_program(call, at))
        if parent:
            call.parent, parent.child = parent, call
            call.record.parent_call_sid = parent.sid
        when = now
        if self.options.calls_per_second and not parent:
            when = max(now, self._next_dial)
            self._next_dial = when + 1 / self.options.calls_per_second
            call.record.queue_time_ms = round((when - now) * 1000)
        self.at(when, lambda at: self._launch(call, at))
        return call

    def _launch(self, call: Call, now: float) -> None:
        if not call.live:
            return
        self.shell.status_callback(call, "initiated", "initiated")
        to = call.record.to
        if to in self.numbers:
            self._ring(call, now)
            self._launch_to_own_number(call, self.numbers[to], now)
            return
        spec = self.callees.get(to)
        if spec is None or isinstance(spec, Failed):
            if spec is None:
                self.judge.error(13224, f"nobody has the number {to}", call_sid=call.sid)
                self.shell.nobody_has(to)
            ring = spec.ring if spec else 0.0
            self.at(now + ring, lambda at: self._end_if_live(call, "failed", "unroutable", at))
            return
        self._ring(call, now)
        if isinstance(spec, Busy):
            self.at(now + spec.ring, lambda at: self._end_if_live(call, "busy", "far-end", at))
        elif not isinstance(spec, NoAnswer):
            self.at(now + spec.ring, lambda at: self._bot_answers(call, spec, at))

    def _launch_to_own_number(self, call: Call, number: Number, now: float) -> None:
        """The other leg comes in at the number, and the two are the ends of one circuit."""
        if not self.beliefs.hold("own-number-asks"):
            self._connect(call, self.bot(Silence()))
            self._answered(call, now)
            return
        shown = CALLER_FORMS[self.habits.draw("caller-id")](call.record.from_)
        other = self._inbound(shown, number, now)
        other.other, call.other = call, other
        call.leg.answered = True
        other.circuit = self._connect(call, other.leg)
        self._ask_number(other, now)

    def _inbound(self, from_: str, number: Number, now: float) -> Call:
        number = self.number_for_calls(number, now)
        to = number.phone_number
        return self._new(from_, to, "inbound", "ringing", number, CallOptions(), now)

    def _ring(self, call: Call, now: float) -> None:
        call.record.move("ringing", now, self.wall())
        self.shell.status_callback(call, "ringing", "ringing")
        self.at(now + call.record.options.timeout, lambda at: self._give_up(call, at))

    def _bot_answers(self, call: Call, spec: Answering, now: float) -> None:
        if call.record.status == "ringing":
            self._connect(call, self.bot(spec))
            self._answered(call, now)

    def _ask_number(self, call: Call, now: float) -> None:
        number = call.number
        assert number is not None
        routed = bool(number.voice_application_sid or number.trunk_sid)
        if routed and self.beliefs.hold("routed-numbers-ignore-voice-url"):
            self._end_if_live(call, "failed", "routed-elsewhere", now)
        elif not number.voice_url:
            self._end_if_live(call, "failed", "no-voice-url", now)
        else:
            self.redirect(call, number.voice_url, number.voice_method, now)

    def _answered(self, call: Call, now: float) -> None:
        call.record.move("in-progress", now, self.wall())
        call.leg.answered = True
        if call.circuit:
            call.circuit.connect(now)
        self.shell.status_callback(call, "answered", "in-progress")
        limit = call.record.options.time_limit
        if self.beliefs.hold("time-limit-ends-calls"):
            self.at(now + limit, lambda at: self._end_if_live(call, "completed", "time-limit", at))
        self._detect(call)
        if call.on_answer:
            call.on_answer(now)

    def _start_program(self, call: Call, now: float) -> None:
        options = call.record.options
        waits = options.detection is not None and not options.detection.is_async
        if waits and not call.record.answered_by:
            return  # it begins once it is known who has answered
        if options.twiml:
            self.run_twiml(call, options.twiml, now)
        else:
            self.redirect(call, options.url, options.method, now)

    def _give_up(self, call: Call, now: float) -> None:
        if call.record.status == "ringing":
            self._end_if_live(call, "no-answer", "timeout", now)

    def run_twiml(self, call: Call, text: str, now: float) -> None:
        """Run inline TwiML, at the start of a call or in place of the document that runs.

        If that document is in a stream, the stream goes on for a third of the habit ``seam``. The
        stream after it begins a whole ``seam`` after its end.
        """
        seam = float(self.habits.draw("seam")) if call.leg.doing == "stream" else 0.0
        if not seam:
            self._run_now(call, text, now)
            return

        def take_effect(at: float) -> None:
            call.leg.seam = seam
            self._run_now(call, text, at)

        self.at(now + seam / 3, take_effect)

    def _run_now(self, call: Call, text: str, now: float) -> None:
        call.fetch_id += 1
        document = twiml.parse(text)
        self._list(call, document)
        if document.verbs is None:
            call.leg.application_error(now)
        else:
            call.leg.run(document.verbs, "", now)
        self.settle(call, now)

    def start_side(self, call: Call, verb: twiml.Stream, now: float) -> Stream:
        """REST starts a one-way stream."""
        call.leg.start_side(verb)
        self.settle(call, now)
        return call.streams[-1]

    def stop_side(self, call: Call, stream: Stream, now: float) -> None:
        """REST stops a one-way stream."""
        call.leg.stop_side(stream)
        self.settle(call, now)

    def redirect(self, call: Call, url: str, method: str, now: float) -> None:
        """Fetch TwiML from ``url``, in place of the document that runs, if there is one."""
        call.leg.fetching()
        self.settle(call, now)
        self._fetch(call, Fetch(url, method))

    def end_by_api(self, call: Call, status: str, now: float) -> None:
        """Status=completed or canceled."""
        ringing = call.record.status in ("queued", "ringing")
        if ringing and status == "completed" and not self.beliefs.hold("completed-ends-ringing"):
            return
        if status == "canceled" or ringing:
            self._end_if_live(call, "canceled", "canceled-by-api", now)
        else:
            self._end_if_live(call, "completed", "completed-by-api", now)

    def far_end_hangs_up(self, call: Call, now: float) -> None:
        """The person (bot) at the other end puts the receiver down."""
        status = "completed" if call.record.status == "in-progress" else "no-answer"
        self._end_if_live(call, status, "far-end", now)

    def _end_if_live(self, call: Call, status: str, reason: str, now: float) -> None:
        if call.live and not call.leg.ended:
            call.leg.hang_up(status, reason)
            self.settle(call, now)

    def fetched(self, call: Call, fetch: Fetch, fetch_id: int, result: Fetched, now: float) -> None:
        """A webhook was answered or failed."""
        if fetch_id != call.fetch_id or call.leg.ended:
            return
        if result.code:
            problem = twiml.Problem(result.code, result.text)
            document = twiml.Document(None, (problem,))
        else:
            document = twiml.parse_fetched(result.body, result.content_type, fetch.url)
        self._list(call, document)
        if document.verbs is None:
            self._fall_back(call, fetch, document.problems[0].code, now)
        else:
            call.leg.run(document.verbs, fetch.url, now)
            self.settle(call, now)

    def _fall_back(self, call: Call, fetch: Fetch, code: int, now: float) -> None:
        if call.number is not None:
            url, method = call.number.voice_fallback_url, call.number.voice_fallback_method
        else:
            options = call.record.options
            url, method = options.fallback_url, options.fallback_method
        if url and not call.used_fallback and self.beliefs.hold("fallback-is-asked"):
            call.used_fallback = True
            params = (("ErrorCode", str(code)), ("ErrorUrl", fetch.url))
            self._fetch(call, Fetch(url, method, params))
            return
        call.leg.application_error(now)
        self.settle(call, now)

    def _fetch(self, call: Call, fetch: Fetch) -> None:
        call.fetch_id += 1
        self.shell.fetch(call, fetch, call.fetch_id)

    def _list(self, call: Call, document: twiml.Document) -> None:
        for problem in document.problems:
            self.judge.error(problem.code, problem.text, call_sid=call.sid)

    def settle(self, call: Call, now: float) -> None:
        """Carry the leg's instructions out, and those that come of them, until none is left."""
        self._settling.append(call)
        if len(self._settling) > 1:
            return
        try:
            while self._settling:
                current = self._settling[0]
                for instruction in current.leg.take_instructions():
                    self._do(current, instruction, now)
                if not current.leg.instructions:
                    self._settling.popleft()
        finally:
            self._settling.clear()

    def _do(self, call: Call, instruction: object, now: float) -> None:
        match instruction:
            case Answer():
                self._answered(call, now)
                if call.other is not None and call.other.record.status == "ringing":
                    self._answered(call.other, now)
            case Fetch():
                self._fetch(call, instruction)
            case Detected():
                self._detected(call, instruction, now)
            case OpenStream(verb=verb, delay=delay) if delay:
                self.streams.open_later(call, verb, now + delay)
            case OpenStream(verb=verb):
                self.streams.open(call, verb, now)
            case OpenSide(verb=verb):
                self.streams.open_side(call, verb, now)
            case CloseStream(stream=stream, moved=moved):
                self.streams.close(stream, now, moved=moved)
            case PlaceDial(verb=verb):
                self._dial(call, verb, now)
            case DropDial():
                child, call.child = call.child, None
                if child is not None:
                    child.parent = None
                    status = "completed" if child.record.status == "in-progress" else "canceled"
                    self._end_if_live(child, status, "parent", now)
            case Report(code=code, text=text):
                self.judge.error(code, text, call_sid=call.sid)
            case End(status=status, reason=reason):
                self._ended(call, status, reason, now)

    def _detect(self, call: Call) -> None:
        """The call was answered, and the request wants to know by whom."""
        asked = call.record.options.detection
        if asked is None:
            return
        spec = call.bot.spec if call.bot is not None else None
        call.leg.detector = Detector(asked, spec.answered_by if spec is not None else None)
        if asked.is_async and not asked.callback:
            self.judge.error(21262, "no URL is given for AsyncAmd to call", call_sid=call.sid)

    def _detected(self, call: Call, found: Detected, now: float) -> None:
        asked = call.record.options.detection
        assert asked is not None
        call.record.answered_by = found.answered_by
        if not asked.is_async:
            self._start_program(call, now)
        elif asked.callback and self.beliefs.hold("async-amd-calls-back"):
            self.shell.detected(call, found)

    def _dial(self, call: Call, verb: twiml.Dial, now: float) -> None:
        caller = verb.caller_id or call.record.from_
        options = CallOptions(timeout=verb.timeout, time_limit=verb.time_limit)

        def answered(at: float) -> None:
            if call.child is child and not call.leg.ended:
                call.leg.bridge(child.leg)
                child.leg.bridge(call.leg)

        child = self.outbound(caller, verb.number, options, now, parent=call, on_answer=answered)

    def _ended(self, call: Call, status: str, reason: str, now: float) -> None:
        record = call.record
        record.end_reason = reason
        record.move(status, now, self.wall())
        if call.circuit is not None:
            self.switchboard.remove(call.circuit)
        self.shell.status_callback(call, "completed", status)
        if call.other is not None:
            self._other_end(call.other, status, now)
        parent = call.parent
        if parent is not None and parent.child is call:
            parent.child = None
            parent.leg.dial_over(status, record.duration or 0, call.sid, now)
            self.settle(parent, now)

    def _other_end(self, other: Call, status: str, now: float) -> None:
        """The call at the other end of the circuit has ended with this status."""
        if other.record.status == "in-progress":
            status = "completed"
        elif status == "completed" or other.record.direction == "inbound":
            # An inbound call whose caller hangs up before the answer ends as no-answer (TD
            # voice/twiml/changelog; it was canceled before that change).
            status = "no-answer"
        self._end_if_live(other, status, "far-end", now)

    def _new(
        self,
        from_: str,
        to: str,
        direction: str,
        status: str,
        number: Number | None,
        options: CallOptions,
        now: float,
    ) -> Call:
        sid, wall = self.sids.new("CA"), self.wall()
        record = CallRecord(
            sid=sid,
            from_=from_,
            to=to,
            direction=direction,
            status=status,
            options=options,
            created_at=now,
            created=wall,
            started=None if status == "queued" else wall,
            phone_number_sid=number.sid if number else "",
            history=[(now, status)],
        )
        call = Call(record, Leg(sid, beliefs=self.beliefs), number)
        self.calls[sid] = call
        return call

    def _connect(self, call: Call, far: Bot | Leg) -> Circuit:
        circuit = Circuit(call.leg, far, keep=self.options.keep_audio)
        call.circuit, call.bot = circuit, far if isinstance(far, Bot) else None
        self.switchboard.add(circuit)
        self.shell.wake()
        return circuit
