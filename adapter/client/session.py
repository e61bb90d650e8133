"""A session in the client's thread: a number, its calls and dials, as the controller knows them.

The session runs on the client's own loop. Each Hello of the client says what the session holds
(``describe``), so that a restarted controller knows it again. Events for its calls come in by
``told``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from msgspec.structs import replace

from trunkline.bus import messages as m
from trunkline.bus.clock import Clock
from trunkline.bus.control import ControlClient
from trunkline.bus.errors import (
    StackUnavailableError,
    TimedOutError,
    TrunklineError,
    WrongModeError,
)
from trunkline.bus.redact import redact_number

from ..dial_rules import DialPlan
from .both_tracks import BothTracks, Track
from .call_media import PLAYED_WITHIN, CallMedia, with_placement
from .media_link import MediaPlane
from .missed_calls import MissedCalls
from .thread_bridge import Box

log = logging.getLogger("trunkline.adapter")

#: Once Twilio has a dial, the client ends it this long (seconds) after the dial's own timeout. The
#: controller looks once more (3 s) and hangs up (15 s) before that, and then says what it last
#: knew.
DIAL_GRACE = 20.0
#: A session's closing may take this long. After that the controller keeps trying to restore its
#: numbers.
CLOSE_WITHIN = 15.0


@dataclass
class _Dialling:
    request: m.Dial
    started: asyncio.Future[CallMedia] = field(repr=False)


class ClientSession:
    """One session. ``forget`` is called once it is over."""

    def __init__(
        self,
        control: ControlClient,
        media: MediaPlane,
        clock: Clock,
        forget: Callable[[ClientSession], None],
        info: m.SessionInfo,
    ) -> None:
        self.id = info.session
        #: as it was asked for
        self.info = info
        self.number = info.number
        self.mode: Literal["idle", "answer", "call"] = "idle"
        self.armed = False
        self.opened: m.SessionOpened | None = None
        #: why the session is gone; None while it lives
        self.lost: TrunklineError | None = None
        #: the controller was asked to close it
        self._closing = False
        #: keep the sound of calls that come up, for a report
        self.taped = True
        self.calls: dict[str, CallMedia] = {}
        #: inbound calls that nobody has taken yet
        self.incoming: Box[CallMedia] = Box()
        #: voice webhooks that came for the session, and how many of them were refused
        self.webhooks = 0
        self.webhooks_rejected = 0
        #: calls that came and did not become the session's
        self.missed = MissedCalls()
        #: numbers whose restore had not succeeded when the session was closed
        self.pending_restores: list[str] = []
        self._trace: dict[str, str] = {}
        self._dials: dict[str, _Dialling] = {}
        #: by call, of dials whose streams are still to come. The controller that was told may die
        #: before that, and Twilio does not say it again.
        self._answered_by: dict[str, m.Answerer] = {}
        #: one Arm or Disarm at a time: a Disarm hangs up a call that has come, and must not hang up
        #: the call of a later Arm
        self._arming = asyncio.Lock()
        self._control = control
        self._media = media
        self._clock = clock
        self._forget = forget

    def describe(self) -> m.SessionInfo:
        """The session and all that it holds, for OpenSession and Hello."""
        return replace(
            self.info,
            number=self.number,
            armed=self.armed,
            mode=self.mode,
            calls=[
                call.describe()
                for call in self.calls.values()
                if call.controller_ended is None and not (isinstance(call, Track) and call.outbound)
            ],
            dials=[dialling.request for dialling in self._dials.values()],
            trace=self._trace,
        )

    # ------------------------------------------------------------------ what the user asks

    async def open(self) -> m.SessionOpened:
        """Begin; no lease is taken yet. Errors as OpenSession's."""
        self.opened = await self._control.request(
            m.OpenSession(info=self.describe()), m.SessionOpened
        )
        self.number = self.opened.number
        return self.opened

    async def arm(self, timeout: float, trace: dict[str, str]) -> None:
        """Take the number's lease, write the override, let one call in. Errors as Arm's."""
        async with self._arming:
            self._check()
            self.mode = "answer"
            self.armed = True
            self._trace = trace
            try:
                await self._control.request(
                    m.Arm(session=self.id), m.Armed, timeout=timeout, trace=trace
                )
            except BaseException:
                self.armed = False
                raise

    async def disarm(self) -> None:
        """End the wait for a call; a call that came in meanwhile is hung up."""
        async with self._arming:
            self.armed = False
            if self.lost is None:
                with contextlib.suppress(WrongModeError):  # nothing was armed (any more)
                    await self._control.request(
                        m.Disarm(session=self.id), m.Done, timeout=CLOSE_WITHIN
                    )
            for call in self.incoming.take_all():
                await self.hang_up(call)

    async def dial(
        self, plan: DialPlan, request: str, timeout: float, trace: dict[str, str]
    ) -> CallMedia:
        """Place a call; returns once its stream is up (originate: once Twilio has taken it).

        Errors: CallFailedError, TimedOutError, and Dial's. Cancelled: the dial is cancelled too.
        """
        self._check()
        self.mode = "call"
        dial = m.Dial(
            session=self.id,
            request=request,
            to=plan.to,
            mode=plan.bus_mode,
            timeout=timeout,
            max_duration=float(plan.max_duration),
            machine_detection=plan.machine_detection,
            trace=trace,
        )
        dialling = _Dialling(dial, asyncio.get_running_loop().create_future())
        self._dials[request] = dialling
        asked = asyncio.ensure_future(self._control.request(dial, m.Dialled, trace=trace))
        media: CallMedia | None = None
        try:
            both: set[asyncio.Future[Any]] = {asked, dialling.started}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if dialling.started.done():
                media = dialling.started.result()
                media.dial_asked = asked
                asked.add_done_callback(media.dialled)
                return media
            dialled = asked.result()
            log.info(
                "placed call %s from %s to %s",
                dialled.sid,
                redact_number(self.number),
                redact_number(plan.to),
            )
            if plan.mode == "originator-only":
                return self._originated(plan, dialled, request)
            async with asyncio.timeout(timeout + DIAL_GRACE):
                return await dialling.started
        except TimeoutError as error:
            if not isinstance(error, TimedOutError):
                await self.cancel_dial(request)
                raise TimedOutError(
                    f"call to {redact_number(plan.to)}: no stream within {timeout:g} s, and the "
                    f"controller has not told within {DIAL_GRACE:g} s more what became of it"
                ) from None
            raise
        except asyncio.CancelledError:
            await self.cancel_dial(request)
            raise
        finally:
            if media is None:  # otherwise the call is up, and its dial is still to be answered
                asked.cancel()
            self._dials.pop(request, None)
            if not self._dials:
                self._answered_by.clear()
            if not dialling.started.done():
                dialling.started.cancel()
            elif not dialling.started.cancelled():
                dialling.started.exception()

    def _originated(self, plan: DialPlan, dialled: m.Dialled, request: str) -> CallMedia:
        info = m.CallInfo(
            call=dialled.call,
            session=self.id,
            sid=dialled.sid,
            direction="outbound",
            caller=self.number,
            callee=plan.to,
            secret="",
            dialled_sid=dialled.sid,
            dial_request=request,
            mode="originate",
            max_duration=float(plan.max_duration),
        )
        return self._take(info)

    async def cancel_dial(self, request: str) -> None:
        """Hang up whatever came of the dial. Errors are logged only, because the controller hangs
        up anyway when it finds that nobody claims the call."""
        self._dials.pop(request, None)
        for call in list(self.calls.values()):
            if call.info.dial_request == request:
                call.ended(m.CallEnded(call=call.call, reason="hang_up"))
                self._drop(call)
        if self.lost is not None:
            return
        try:
            await self._control.request(
                m.CancelDial(session=self.id, request=request), m.Done, timeout=CLOSE_WITHIN
            )
        except TrunklineError as error:
            log.warning("a given-up dial could not be cancelled: %s", error)

    async def hang_up(self, call: CallMedia) -> None:
        """End ``call`` by REST; nothing happens when it is over already."""
        if call.controller_ended is None and self.lost is None:
            await self._control.request(m.HangUp(session=self.id, call=call.call), m.Done)
            for media in self._tracks(call.call):
                media.audio.hung_up(self._clock())

    async def abandon(self, call: CallMedia) -> None:
        """Hang up a call whose user has gone away; an error is logged."""
        try:
            await self.hang_up(call)
        except TrunklineError as error:
            log.warning("a given-up call could not be hung up: %s", error)

    async def send_digits(self, call: CallMedia, digits: str) -> None:
        """Send DTMF digits by REST. Where the leg carries our stream, this returns once that stream
        is back. In a b-leg call they go to the leg that we dialled, so Twilio's answer to the dial
        is awaited before."""
        self._check()
        if call.info.mode == "b-leg" and call.dial_asked is not None:
            await asyncio.wait({call.dial_asked}, timeout=DIAL_GRACE)
        call.digits_asked = self._control.epoch is not None
        try:
            asked = m.SendDigits(session=self.id, call=call.call, digits=digits)
            answer = await self._control.request(asked, m.Message)
        finally:
            call.digits_asked = False
        if isinstance(answer, m.DigitsPlayed):
            call.played(digits, answer.age)
            await call.wait_stream(answer.ordinal)

    async def listen(
        self,
        call: str,
        sid: str,
        theirs: m.Direction,
        both: BothTracks,
        timeout: float,
        trace: dict[str, str],
    ) -> list[Track]:
        """Listen to the call at Twilio that ``sid`` names; returns its inbound track and its
        outbound one, once their stream is up. Errors as Listen's. Whoever cancels it has to call
        ``stop_listening``."""
        self._check()
        asked = m.Listen(session=self.id, call=call, sid=sid, theirs=theirs, trace=trace)
        try:
            up = await self._control.request(asked, m.Listening, timeout=timeout, trace=trace)
        except TimedOutError:
            await self.stop_listening(call)
            raise TimedOutError(
                f"no stream of call {sid} was up within {timeout:g} s, and the controller has not "
                "told meanwhile why"
            ) from None
        tracks = []
        for outbound in (False, True):
            track = Track(up.info, self._media.send, self._clock, both, outbound=outbound)
            self.calls[track.call] = track
            self._media.attach(track)
            tracks.append(track)
        return tracks

    async def stop_listening(self, call: str) -> None:
        """Nobody waits for the stream any more; an error is logged."""
        if self.lost is None:
            try:
                await self._control.request(
                    m.HangUp(session=self.id, call=call), m.Done, timeout=CLOSE_WITHIN
                )
            except TrunklineError as error:
                log.warning("a given-up stream could not be stopped: %s", error)

    def _tracks(self, call: str) -> list[CallMedia]:
        """The call as far as it is known here; both its tracks, where it is listened to."""
        found = (self.calls.get(track) for track in (call, m.outbound_track(call)))
        return [media for media in found if media is not None]

    async def close(self) -> None:
        """Hang up the session's calls, restore its numbers. A controller that cannot be asked is
        logged. Whoever still waits for a call, or for a dial, gets WrongModeError."""
        closed_meanwhile = WrongModeError("the line was closed meanwhile")
        self._give_up_dials(closed_meanwhile)
        try:
            if self.lost is None and self.opened is not None:
                # Sound that was all sent is heard to its end; an utterance under way is cut off.
                said = [call for call in self.calls.values() if not call.saying]
                await asyncio.gather(*(call.played_out(PLAYED_WITHIN) for call in said))
                self._closing = True
                closed = await self._control.request(
                    m.CloseSession(session=self.id), m.SessionClosed, timeout=CLOSE_WITHIN
                )
                self.pending_restores = closed.pending
                if closed.pending:
                    log.warning(
                        "%s: not restored yet; the controller keeps trying",
                        ", ".join(redact_number(number) for number in closed.pending),
                    )
        except TrunklineError as error:
            self.pending_restores = [self.number] if self.mode == "answer" else []
            log.warning(
                "session on %s could not be closed (%s); its lease runs out and the stack then "
                "restores its numbers",
                redact_number(self.number),
                error,
            )
        finally:
            self.lost = self.lost or closed_meanwhile
            self._end_all("hang_up")
            self._forget(self)

    def _check(self) -> None:
        if self.lost is not None:
            raise self.lost

    # ------------------------------------------------------------------ what the controller says

    def told(self, event: m.Event) -> None:
        """Each session of a client hears of each event, and takes what names it, or a call or dial
        of its own."""
        match event:
            case m.CallStarted(info=info) if info.session == self.id:
                self.started(info)
            case m.SessionLost(session=self.id):
                if self._closing:
                    return  # one of our beats named it, and arrived just after its end
                error = StackUnavailableError(f"the session was lost: {event.why}")
                self.lose(error, why=event.why)
            case m.WebhooksCounted(session=self.id):
                self.webhooks += event.received
                self.webhooks_rejected += event.rejected
                self.missed.add(event)
            case m.CallPlaced():
                self.placed(event.call, event.placement)
            case m.CallReconnecting() if event.call in self.calls:
                for media in self._tracks(event.call):
                    media.audio.stream_gone(event.ordinal, self._clock())
                if event.reason == "too_fast":
                    log.warning(
                        "call %s: its stream was cut off, because it sent more than twice real "
                        "time; waiting for a new one",
                        event.call,
                    )
                else:
                    log.info("call %s: its stream is gone, waiting for a new one", event.call)
            case m.AnsweredBy():
                self.answered_by_told(event)
            case m.InterruptByHand() if event.call in self.calls:
                self.calls[event.call].interrupt_by_hand()
            case m.SpeakByHand() if event.call in self.calls:
                self.calls[event.call].say_by_hand(event.pcm)
            case m.CallEnded():
                self.ended(event)
            case m.DialFailed():
                self.dial_failed(event)
            case m.DialQueued() if event.request in self._dials:
                self.dial_queued(event)

    def started(self, info: m.CallInfo) -> None:
        """A call's stream is up. Known calls get their newer placement, and the secret that their
        workers have: a restarted controller may have made another one."""
        known = self._tracks(info.call)
        for media in known:
            media.audio.stream_there(info.ordinal)
            if info.secret != media.info.secret:
                media.info = replace(media.info, secret=info.secret)
                self._media.attach_again(media)
        if known:
            if info.placement is not None:
                self.placed(info.call, info.placement)
            return
        if info.theirs is not None:
            return  # whoever waits for it is answered with Listening
        if info.caller_rewritten:
            log.warning(
                "call %s from %s to %s: the carrier reports its caller as %s",
                info.sid,
                redact_number(self.number),
                redact_number(info.callee),
                redact_number(info.caller),
            )
        dialling = self._dials.get(info.dial_request or "")
        if info.answered_by is None:
            info = replace(info, answered_by=self._answered_by.get(info.call))
        call = self._take(info)
        if dialling is not None:
            if not dialling.started.done():
                dialling.started.set_result(call)
        elif info.direction == "inbound":
            self.armed = False
            self.incoming.put(call)
        else:
            log.warning("call %s came of a dial that nobody waits for", info.sid)
            call.ended(m.CallEnded(call=info.call, reason="hang_up"))
            self._drop(call)

    def answered_by_told(self, event: m.AnsweredBy) -> None:
        """Who has answered. It may be told while the call's stream is still to come."""
        if event.call in self.calls:
            self.calls[event.call].answered_by_told(event.answered_by)
        elif self._dials:
            self._answered_by[event.call] = event.answered_by

    def _take(self, info: m.CallInfo) -> CallMedia:
        call = self.calls[info.call] = CallMedia(
            info, self._media.send, self._clock, taped=self.taped
        )
        self._media.attach(call)
        return call

    def placed(self, call_id: str, placement: m.Placement) -> None:
        for call in self._tracks(call_id):
            call.info = with_placement(call.info, placement)
            self._media.attach(call)

    def ended(self, event: m.CallEnded) -> None:
        for call in self._tracks(event.call):
            call.ended(event)
            if call.info.placement is None:
                self._drop(call)

    def dial_failed(self, event: m.DialFailed) -> None:
        dialling = self._dials.get(event.request)
        if dialling is not None and not dialling.started.done():
            request = dialling.request
            dialling.started.set_exception(event.error(request.to, request.timeout))
        known = self.calls.get(event.call)
        if known is not None:
            known.ended(m.CallEnded(call=event.call, reason="error"))
            self._drop(known)

    def dial_queued(self, event: m.DialQueued) -> None:
        if event.for_number:
            log.info(
                "dial waits for its turn on the callee's number: place %d (one b-leg call at a "
                "time is set up there)",
                event.place,
            )
            return
        log.info(
            "dial waits for its turn: place %d, about %.1f s (TRUNKLINE_CALLS_PER_SECOND)",
            event.place,
            event.seconds,
        )

    def lose(self, error: TrunklineError, why: str | None = None) -> None:
        """The session is gone: its calls are over, and whoever waits on it gets the error. ``why``:
        for the log, if the error itself says that the session was lost."""
        if self.lost is None:
            self.lost = error
            log.error("session on %s is lost: %s", redact_number(self.number), why or error)
            self._give_up_dials(error)
            self._end_all("error")

    def _give_up_dials(self, error: TrunklineError) -> None:
        for dialling in self._dials.values():
            if not dialling.started.done():
                dialling.started.set_exception(error)

    def poll(self, now: float) -> None:
        """Every 50 to 100 ms: the calls' own deadlines; calls that are drained are left."""
        for call in list(self.calls.values()):
            call.audio.poll(now)
            call.act()
            if call.ended_reason is not None:
                self._drop(call)

    def _end_all(self, reason: m.EndedReason) -> None:
        for call in list(self.calls.values()):
            call.ended(m.CallEnded(call=call.call, reason=reason))
            self._drop(call)
        self.incoming.close()

    def _drop(self, call: CallMedia) -> None:
        """Leave the call's workers, so that no more sound comes."""
        call.audio.poll(float("inf"))
        call.act()
        self._media.detach(call.call)
        self.calls.pop(call.call, None)
