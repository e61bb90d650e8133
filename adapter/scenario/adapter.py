"""TwilioAgentAdapter: a phone number as langwatch-scenario's VoiceAgentAdapter.

A drop-in for scenario's own: same constructor, methods and errors. It holds a
:class:`~trunkline.Line` on the stack that it joins (or starts), so webhooks, sockets, pacing and
the number's restore are that stack's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span
from scenario.types import AgentRole
from scenario.voice import AdapterCapabilities, AudioChunk, VoiceAgentAdapter

from trunkline.bus.digits import check_digits
from trunkline.bus.errors import NumberNotFoundError, SettingsError, WrongModeError
from trunkline.bus.messages import ANY_NUMBER, Answerer
from trunkline.bus.redact import mask_url, redact_number
from trunkline.bus.settings import pasted, same_url

from ..call import Call
from ..client.telemetry import figures
from ..dial_rules import DialPlan, callee_set, caller_set, check_e164, check_seconds, plan_dial
from ..line import Line
from ..pcm16 import pcm16
from ..turns.gate_options import GateOptions, SpeechGateSetting, read_gate_options
from ..turns.greeting import GREETING_TIMEOUT, check_greeting, greet, hear_greeting
from ..turns.speech_gate import GateCounters
from ..turns.turns import PIECE, Heard
from .greeting_turn import GreetingTurn, running_scenario
from .handed_digits import HandedDigits
from .join import Joined, join, leave
from .private_stack import StackRequest
from .spans import Attributes, dialling, set_attributes, set_twilio, sound_arrived
from .tunnel_readiness import TunnelReadiness, wait_for_tunnel

if TYPE_CHECKING:
    from trunkline.ear.figures import Report

log = logging.getLogger("scenario.voice.twilio")

TwilioAdapterMode = Literal["idle", "answer", "call"]
TwilioStreamEndedReason = Literal["stop", "close", "error", "none", "max_duration", "hang_up"]

DEFAULT_HTTP_PORT = 8765

NO_STREAM = "TwilioAgentAdapter: no live media stream. Call place_call() or wait_for_call() first."


class TwilioAgentAdapter(VoiceAgentAdapter):
    """An agent on the other end of a phone call.

    ``account_sid`` and ``auth_token`` are those of your account, and ``phone_number`` is one of its
    numbers (E.164), or "any". ``public_base_url`` is needed only where no running stack is joined.
    ``allowed_callers``: who may call, as a carrier reports it (numbers, ``sip:…``, ``client:…``,
    ``anonymous``, …; None: everyone). ``allowed_callees``: whom an a-leg call may dial (None:
    nobody). ``tunnel_readiness`` is asked before an a-leg call. ``on_dtmf`` (a function, or a
    coroutine function) gets each digit. ``bus``: address of the stack to join.
    ``speech_gate=False`` hands out the line's silence too, so that turns last until
    ``response_max_duration``; a mapping sets ``hangover_ms`` (400) and ``preroll_ms`` (300), for
    the calls that come after.

    ValueError for numbers that are not E.164 (shown redacted), and for options of the gate that
    are unknown or out of range.
    """

    capabilities: ClassVar[AdapterCapabilities] = AdapterCapabilities(
        streaming_transcripts=False,
        native_vad=False,
        dtmf=True,
        interruption=True,
        input_formats=["mulaw/8000"],
        output_formats=["mulaw/8000"],
    )

    def __init__(
        self,
        *,
        account_sid: str,
        auth_token: str,
        phone_number: str,
        public_base_url: str | None = None,
        allowed_callers: list[str] | None = None,
        allowed_callees: list[str] | None = None,
        tunnel_readiness: TunnelReadiness | None = None,
        on_dtmf: Callable[[str], Any] | None = None,
        http_port: int = DEFAULT_HTTP_PORT,
        role: AgentRole = AgentRole.AGENT,
        validate_signature: bool = True,
        bus: str | None = None,
        speech_gate: SpeechGateSetting = True,
    ) -> None:
        super().__init__()
        if phone_number != ANY_NUMBER:
            check_e164(phone_number)
        # None is taken as well: a test that is skipped where there are no credentials may make its
        # adapter before it is skipped.
        self.account_sid = pasted(account_sid or "")
        self.auth_token = pasted(auth_token or "")
        self.phone_number = phone_number
        self.public_base_url = public_base_url
        self.allowed_callers = caller_set(allowed_callers)
        self.allowed_callees = callee_set(allowed_callees) or None
        self.tunnel_readiness = tunnel_readiness
        self.on_dtmf = on_dtmf
        self.http_port = http_port
        self.role = role  # type: ignore[misc]  # scenario reads it from the instance
        self.validate_signature = validate_signature
        self.bus = bus
        self.speech_gate = speech_gate
        if not validate_signature:
            log.warning(
                "TwilioAgentAdapter: validate_signature=False — inbound webhooks accept any "
                "payload without signature checks. Use only in tests; do not deploy to production."
            )
        #: the far end's first words (PCM16 24 kHz), where the last call asked for
        #: ``callee_speaks_first`` and somebody spoke; it outlives the call and disconnect()
        self.greeting: bytes | None = None
        self._connecting = asyncio.Lock()
        self._joined: Joined | None = None
        self._line: Line | None = None
        self._is_calling = False
        self._call: Call | None = None
        #: the present call, or the one before
        self._last_call: Call | None = None
        self._heard: Heard | None = None
        self._digits = HandedDigits(lambda: self.on_dtmf, self._look_at_end)
        self._answered: Context | None = None
        self._marked: Context | None = None
        self._gate_before = GateCounters()

    def __repr__(self) -> str:
        return (
            f"TwilioAgentAdapter(phone_number={self.phone_number!r}, account_sid='***', "
            f"auth_token='***', public_base_url={mask_url(self.public_base_url)!r})"
        )

    # ------------------------------------------------------------------ connecting

    async def connect(self) -> None:
        """Join a stack (or start one) and open the number; nothing at the carrier is changed.

        Does nothing when it is connected already. Raises RuntimeError where a stack must be started
        and there is no ``public_base_url``, NumberNotFoundError (a RuntimeError, too) where the
        account has no such number, SettingsError, AccountMismatchError, StackUnavailableError,
        CarrierError.
        """
        async with self._connecting:
            if self._line is not None:
                return
            if not self.account_sid:
                raise SettingsError("TwilioAgentAdapter: account_sid is required to connect.")
            wanted = StackRequest(
                self.account_sid,
                self.auth_token,
                self.public_base_url or "",
                self.http_port,
                self.validate_signature,
            )
            joined = await join(self.bus, wanted)
            try:
                line = await self._open_line(joined)
            except BaseException:
                await asyncio.shield(leave(joined))
                raise
            self._joined, self._line = joined, line
            self._forget_call()
            self.agent_hung_up = False
            self._digits.received = 0
            self._gate_before = GateCounters()
            self.greeting = None
        set_twilio(
            trace.get_current_span(),
            phone_number_sid=line.number_sid,
            validate_signature=self.validate_signature,
            webhook_port=self.http_port,
        )

    async def _open_line(self, joined: Joined) -> Line:
        line = Line(
            self.phone_number,
            allowed_callers=self.allowed_callers,
            allowed_callees=self.allowed_callees,
            bus=joined.bus,
            account=self.account_sid,
            auth_token=self.auth_token,
        )
        try:
            await line.open()
        except NumberNotFoundError as error:
            raise NumberNotFoundError(
                "No incoming phone number found on this Twilio account matching "
                f"{redact_number(self.phone_number)!r}. Check that the number is purchased and "
                "in E.164 (`trunkline doctor` lists the account's, and phone_number='any' takes "
                "one of them).",
                number=error.number,
            ) from error
        if joined.private is None:
            self._warn_of_ignored(line)
        return line

    async def _allow_as_set(self, line: Line) -> None:
        """Lists of who may call and whom we may dial hold from now on, if they were changed
        meanwhile in the adapter's attributes."""
        self.allowed_callers = caller_set(self.allowed_callers)
        self.allowed_callees = callee_set(self.allowed_callees) or None
        await line.allow(self.allowed_callers, self.allowed_callees)

    def _warn_of_ignored(self, line: Line) -> None:
        ignored = []
        if self.http_port != DEFAULT_HTTP_PORT:
            ignored.append("http_port")
        if not self.validate_signature:
            ignored.append("validate_signature=False")
        given = self.public_base_url
        if given and line.public_url and not same_url(given, line.public_url):
            ignored.append("public_base_url")
        if ignored:
            log.warning(
                "TwilioAgentAdapter: joined a running stack, so %s: ignored (the stack's own "
                "settings hold)",
                ", ".join(ignored),
            )

    async def disconnect(self) -> None:
        """Hang up, put the number back, leave the stack; not connected: nothing.

        A restore that fails is logged and does not stop this. The controller keeps trying to
        restore the number.
        """
        line, joined = self._line, self._joined
        if line is None or joined is None:
            return
        self._line = self._joined = None
        call = self._call
        reason = self.stream_ended_reason
        try:
            await line.close()
        finally:
            await asyncio.shield(leave(joined))
        await self._digits.finish()
        if self._heard is not None:
            await self._heard.look_at_rest()
        if call is not None and call.carries_sound and reason == "none":
            reason = "close"  # it lived until just now
        span = trace.get_current_span()
        set_twilio(
            span,
            frames_received=self.frames_received,
            dtmf_received=self._digits.received,
            stream_ended_reason=reason,
            webhook_invocations=line.webhooks,
            webhook_rejected=line.webhooks_rejected,
            rest_restore_failed=bool(line.pending_restores),
        )
        set_attributes(span, {**self._gate_attributes(), **self._report_attributes(call)})
        self._forget_call()

    def is_connected(self) -> bool:
        """False once disconnected, and once the call is over and all of it was handed out."""
        if self._line is None:
            return False
        if self._heard is None or self._heard.has_more:
            return True
        self.agent_hung_up = self._heard.call.ended_by_far_end
        return False

    @property
    def number(self) -> str:
        """The number that is held: ``phone_number``, or the one that "any" was given. RuntimeError
        unless connected."""
        return self._assert_connected().number

    @property
    def stream_ended_reason(self) -> TwilioStreamEndedReason:
        """How the present call's stream ended; "none" while it lives, without a call, and for a
        call that has no stream (originator-only)."""
        call = self._call
        return (call.ended_reason if call is not None and call.carries_sound else None) or "none"

    @property
    def speech_gate(self) -> SpeechGateSetting:
        """As it was given. A new value holds from the next call on."""
        return self._speech_gate

    @speech_gate.setter
    def speech_gate(self, given: SpeechGateSetting) -> None:
        self._gate_options: GateOptions | None = read_gate_options(given, log.warning)
        self._speech_gate = given

    @property
    def gate_counters(self) -> GateCounters:
        """How much the speech gate held back in all calls since connect(), and how often speech
        began. Sound that no turn has asked for yet is counted at the call's end at the latest. The
        counters are kept after disconnect()."""
        return self._gate_before + (GateCounters() if self._heard is None else self._heard.counters)

    def _gate_attributes(self) -> dict[str, int]:
        if self._gate_options is None:
            return {}
        counters = dataclasses.asdict(self.gate_counters)
        return {f"voice.twilio.speech_gate.{name}": n for name, n in counters.items()}

    def _report_attributes(self, call: Call | None) -> Attributes:
        """The figures of the whole call, if somebody has looked at its report before. The ear costs
        nothing where nobody has, or where no span is recorded."""
        if call is None or not call.was_judged or not trace.get_current_span().is_recording():
            return {}
        return figures(call.sid, call.report())

    @property
    def frames_received(self) -> int:
        """20 ms frames heard of the present call."""
        return 0 if self._call is None else self._call.heard_samples // 160

    def report(self) -> Report:
        """How both sides of the call have talked with each other; see ``Call.report``. Of the
        present call, or of the last one, also after disconnect(). WrongModeError where there was
        none, or it carries no sound."""
        if self._last_call is None:
            raise WrongModeError(NO_STREAM)
        return self._last_call.report()

    @property
    def answered_by(self) -> Answerer | None:
        """Who has answered the present call, or the last one; see ``Call.answered_by``."""
        return None if self._last_call is None else self._last_call.answered_by

    async def wait_answered_by(self, timeout: float = 30.0) -> Answerer:
        """Wait until it is known who has answered; see ``Call.wait_answered_by``. WrongModeError
        where there was no call."""
        if self._last_call is None:
            raise WrongModeError(NO_STREAM)
        return await self._last_call.wait_answered_by(timeout)

    # ------------------------------------------------------------------ calls

    async def place_call(
        self,
        to: str,
        *,
        timeout: float = 120.0,
        attach_stream_to_self: bool | None = None,
        attach_stream: Literal["a-leg", "b-leg"] | None = None,
        max_call_duration_seconds: int | None = None,
        callee_speaks_first: bool = False,
        greeting_timeout: float = GREETING_TIMEOUT,
        machine_detection: Literal["Enable", "DetectMessageEnd"] | None = None,
    ) -> None:
        """Call ``to`` and wait for the call's stream; see ``Line.place_call``.

        ``callee_speaks_first`` waits for the far end's greeting, too: ``greeting`` has its sound.
        Within a running scenario it is recorded as a turn of the far end, and no later turn takes
        it for its answer. It ends where a turn does, ``response_max_duration`` at the latest.

        Also raises TunnelNotReadyError where ``tunnel_readiness`` fails (a-leg; nothing is
        dialled then), and WrongModeError while another call of this adapter is being set up.
        """
        line = self._assert_connected()
        line.check_mode("call", "TwilioAgentAdapter", "adapter")
        plan = plan_dial(
            to,
            attach_stream=attach_stream,
            attach_stream_to_self=attach_stream_to_self,
            max_call_duration_seconds=max_call_duration_seconds,
            allowed_callees=self.allowed_callees,
            owner="TwilioAgentAdapter",
            machine_detection=machine_detection,
        )
        check_greeting(greeting_timeout, wanted=callee_speaks_first, mode=plan.mode)
        check_seconds(timeout)
        with self._one_at_a_time():
            if plan.mode == "a-leg":
                url = self.public_base_url or line.public_url
                await wait_for_tunnel(self.tunnel_readiness, url)
            await self._drop_call()
            await self._allow_as_set(line)
            with dialling(type(self).__name__, plan.to, line.number) as span:
                began = time.monotonic()
                call = await line.dial(plan, timeout)
                self._take(call, span, None if plan.mode == "originator-only" else began)
                self._log_placed(plan, call, line)
            if callee_speaks_first:
                await self._hear_greeting(greeting_timeout)

    def _log_placed(self, plan: DialPlan, call: Call, line: Line) -> None:
        to = redact_number(plan.to)
        if plan.mode == "b-leg":
            log.info(
                "TwilioAgentAdapter: rewrote callee %s voice_url to %s/twilio/voice",
                to,
                mask_url(line.public_url),
            )
        log.info(
            "TwilioAgentAdapter: placed call %s from %s to %s",
            call.dialled_sid or "(Twilio has not told its SID yet)",
            redact_number(line.number),
            to,
        )

    async def wait_for_call(
        self,
        timeout: float = 120.0,
        *,
        callee_speaks_first: bool = False,
        greeting_timeout: float = GREETING_TIMEOUT,
    ) -> None:
        """Wait until someone calls the number and the call's stream is up; see
        ``Line.wait_for_call``. ``callee_speaks_first``: as for :meth:`place_call`; the far end is
        the caller here. Also raises WrongModeError while another call of this adapter is being set
        up."""
        line = self._assert_connected()
        line.check_mode("answer", "TwilioAgentAdapter", "adapter")
        check_seconds(timeout)
        check_greeting(greeting_timeout)
        with self._one_at_a_time():
            await self._drop_call()
            await self._allow_as_set(line)
            with dialling(type(self).__name__, line.number) as span:
                base = mask_url(line.public_url)
                log.info("TwilioAgentAdapter: webhook set to %s/twilio/voice", base)
                began = time.monotonic()
                self._take(await line.wait_for_call(timeout), span, began)
            if callee_speaks_first:
                await self._hear_greeting(greeting_timeout)

    @contextlib.contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        """WrongModeError while another call of this adapter is being set up: both would come up,
        and the first would go on, heard by nobody."""
        if self._is_calling:
            raise WrongModeError(
                "TwilioAgentAdapter: place_call() or wait_for_call() is under way already, and an "
                "adapter has one call at a time. Wait for that one, or make an adapter for each."
            )
        self._is_calling = True
        try:
            yield
        finally:
            self._is_calling = False

    async def _hear_greeting(self, timeout: float) -> None:
        """Hear the greeting of the call that was just taken, and record it. Cancelled: the call is
        hung up and forgotten."""
        call, heard = self._call, self._heard
        assert call is not None and heard is not None
        turn = GreetingTurn(self)
        try:
            if heard.gate is None:
                await greet(call, timeout, log, began=turn.began)
            else:
                call.greeting = await hear_greeting(
                    heard,
                    timeout=timeout,
                    age=call.age,
                    log=log,
                    tail_silence=self.response_tail_silence,
                    longest=self.response_max_duration,
                    began=turn.began,
                )
            self.greeting = call.greeting
            if call.greeting is not None:
                await turn.ended(call.greeting)
        except BaseException:
            call.abandon()
            if call is self._call:
                self._forget_call()
            raise

    async def _drop_call(self) -> None:
        """Before a new dial: hang the last call up, and forget it with all that was heard of it."""
        call, heard = self._call, self._heard
        if call is not None and call.ended_reason is None:
            await call.hang_up()
        await self._digits.finish()
        if heard is not None:
            await heard.look_at_rest()
        self._forget_call()
        self.agent_hung_up = False
        self.greeting = None

    def _take(self, call: Call, span: Span, began: float | None) -> None:
        self._call = self._last_call = call
        self._heard = Heard(call, self._gate_options, piece=PIECE)
        self._digits.follow(call)
        latency = None if began is None else round((time.monotonic() - began) * 1000)
        # Of two legs it is the dialled one's. Where Twilio has not told that, the span has none.
        sid = call.sid if call.direction == "inbound" else call.dialled_sid
        set_twilio(span, call_sid=sid, stream_connect_latency_ms=latency)

    def _forget_call(self) -> None:
        self._digits.drop()
        self._gate_before = self.gate_counters
        self._call = self._heard = None
        self._answered = self._marked = None

    def _look_at_end(self, call: Call) -> None:
        if call is self._call:
            self.agent_hung_up = call.ended_by_far_end
            if call.ended_reason == "max_duration":
                log.warning(
                    "TwilioAgentAdapter: max call duration reached; call %s ended", call.sid
                )

    # ------------------------------------------------------------------ sound

    async def send_audio(self, chunk: AudioChunk) -> None:
        """Say ``chunk``; returns when it was sent, or cut off by :meth:`interrupt`.

        RuntimeError "no live media stream" without a call, or after its end. Inside :meth:`call`,
        and in any other step of a running script, nothing is said once the far end has hung up: its
        farewell is still heard, and the rest of the script leads on to the judge. ValueError for
        anything but PCM16 (a WAV file's bytes, for instance).
        """
        pcm = pcm16(chunk.data)
        call = self._live_call()
        if call is None:
            return
        if self._heard is not None:
            self._heard.end_answer()
        try:
            sent = await call.send_audio(pcm)
        except WrongModeError:
            # The call may have ended since it was looked at: events come in on another thread.
            if self._live_call() is not None:
                raise
        else:
            if sent < len(pcm) // 2 and call.ending:
                self._live_call()  # outside of a scenario an unsaid rest is an error

    def _live_call(self) -> Call | None:
        """The live call; None where the far end has hung up within a scenario. RuntimeError where
        there is no call that carries sound, or it is over."""
        self._assert_connected()
        call = self._call
        if call is not None and not call.ending and call.carries_sound:
            return call
        if call is not None and call.ended_by_far_end and self._within_scenario:
            log.info("TwilioAgentAdapter: the far end has hung up; what was to be said is not")
            return None
        raise RuntimeError(NO_STREAM)

    @property
    def _within_scenario(self) -> bool:
        """A turn, or any other step of a script that scenario.run carries out."""
        return self._voice_turn_context is not None or running_scenario() is not None

    async def recv_audio(self, timeout: float) -> AudioChunk:
        """The next speech of the far end (without the speech gate: the next sound).

        An empty chunk once the call has ended and all was handed out. asyncio.TimeoutError when
        nothing comes for ``timeout`` seconds. RuntimeError without a call.
        """
        self._assert_connected()
        heard = self._heard
        if heard is None or (self._call is not None and not self._call.carries_sound):
            raise RuntimeError(NO_STREAM)
        check_seconds(timeout)
        turn = self._voice_turn_context
        pcm = await heard.next_chunk(
            timeout,
            most_silence=self.response_max_duration,
            first=turn is not None and turn is not self._answered,
            arrived=self._mark_arrival,
        )
        if pcm:
            self._answered = turn
        elif self._call is not None and self._call.ended_by_far_end:
            self.agent_hung_up = True
        return AudioChunk(data=pcm)

    def _mark_arrival(self, size: int) -> None:
        """One span in each turn for the first sound that came in while it lasted."""
        turn = self._voice_turn_context
        if turn is None or turn is self._marked:
            return
        self._marked = turn
        sound_arrived(type(self).__name__, turn, size)

    async def interrupt(self) -> None:
        """Drop all queued sound, here and at the carrier. RuntimeError without a live call."""
        call = self._live_call()
        if call is not None:
            await call.interrupt()

    async def send_dtmf(self, tones: str) -> None:
        """Send digits ``0-9*#``, ``w`` (0.5 s) and ``W`` (1 s), in every mode.

        ValueError for other characters; RuntimeError without a call in progress (as for
        :meth:`send_audio`, not within a running scenario whose call the far end has hung up).
        """
        call = self._call
        if call is not None and call.ended_by_far_end and self._within_scenario:
            check_digits(tones)
            log.info("TwilioAgentAdapter: the far end has hung up; no digits are sent")
            return
        if self._line is None or call is None or call.ending:
            raise RuntimeError(
                "TwilioAgentAdapter: no active call; send_dtmf requires an in-progress call"
            )
        check_digits(tones)
        await call.send_dtmf(tones)

    # ------------------------------------------------------------------ inside

    def _assert_connected(self) -> Line:
        if self._line is None:
            raise RuntimeError(
                "TwilioAgentAdapter: not connected; call connect() or use `async with`."
            )
        return self._line
