"""A call in the client's thread: its audio state, and how its instructions reach sockets and users.

Everything here runs on the client's own loop, but for the boxes, which users read from theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

import msgspec

from trunkline.bus import messages as m
from trunkline.bus.clock import Clock
from trunkline.bus.digits import CALL_ENDED_FIRST, presses
from trunkline.bus.errors import WrongModeError
from trunkline.bus.redact import redact_number
from trunkline.bus.sound import (
    FRAME,
    LINE_RATE,
    MOST_GATHERED,
    MOST_KEPT,
    NOT_TAKEN,
    POSITION_BYTES,
)

from .call_audio import CallAudio
from .call_instructions import Ended, HeardDigit, InterruptDone, MarkDone, Send, Spoken
from .outbound import Utterance
from .thread_bridge import Bell, Box, SoundBox

log = logging.getLogger("trunkline.adapter")

#: At most this much heard sound (bytes of PCM16) waits for its user.
MOST_HEARD_BYTES = MOST_KEPT * LINE_RATE * 2
#: A hang-up waits at most this long until the far end has heard everything that was said.
PLAYED_WITHIN = 1.0
#: A worker opens a stream within this time, once the controller has let it in.
OPENED_WITHIN = 2.0
#: The carrier may take this long to begin a document that it has taken.
BEGUN_WITHIN = 0.5

Sender = Callable[[str, m.ToWorker], bool]


class CallMedia:
    """One call. ``send(worker, message)`` is the media plane's; False means that it could not.
    ``taped``: its sound is kept for a report."""

    def __init__(self, info: m.CallInfo, send: Sender, clock: Clock, *, taped: bool = True) -> None:
        self.info = info
        self._clock = clock
        self._began = clock() - (info.age or 0.0)
        self._over_at: float | None = None
        self.audio = CallAudio(info.call, self._began, info.first or info.ordinal, taped=taped)
        self.sound = SoundBox(MOST_HEARD_BYTES, self._piece_changed)
        self._loop = asyncio.get_running_loop()
        self.digits: Box[str] = Box()
        #: rung when the call has ended (``ended_reason`` is set), when who answered is known, and
        #: when a worker has opened a stream
        self.changed = Bell()
        #: the controller's CallEnded, which may come before the last sound
        self.controller_ended: m.CallEnded | None = None
        #: set once all that was heard is in the box
        self.ended_reason: m.EndedReason | None = None
        #: the user said something since the last interrupt
        self.spoke = False
        self._send = send
        self._spoken: dict[Utterance, asyncio.Future[int]] = {}
        self._interrupts: list[tuple[int, asyncio.Future[None]]] = []
        self._marks: dict[str, asyncio.Future[bool]] = {}
        self._mark_count = 0
        #: one row of digits at a time
        self._digits_turn = asyncio.Lock()
        #: the dial, where the call was up before it was answered
        self.dial_asked: asyncio.Future[m.Dialled] | None = None
        #: a controller has been asked to send digits, and has not answered
        self.digits_asked = False

    @property
    def call(self) -> str:
        return self.info.call

    def describe(self) -> m.CallInfo:
        """``info`` as it is now, with its age and the newest stream that a worker has named. After
        a restart the controller counts on from there."""
        return msgspec.structs.replace(
            self.info,
            ordinal=max(self.info.ordinal, self.audio.generation >> 16),
            age=self.age,
            digits=self.digits_asked,
        )

    @property
    def age(self) -> float:
        """Seconds since the call's first stream came up; of a call that is over, until then."""
        return (self._clock() if self._over_at is None else self._over_at) - self._began

    @property
    def carries_stream(self) -> bool:
        """Our stream is on the leg that we dialled (or that called us)."""
        return self.info.mode in (None, "a-leg")

    @property
    def saying(self) -> bool:
        """Some of the sound to be said has not been sent yet."""
        return bool(self._spoken)

    # ------------------------------------------------------------------ what the user asks

    async def say(self, pcm: bytes) -> int:
        """Say ``pcm`` behind the sound that is queued; returns the number of samples that were
        sent. Cancelled: stops saying it."""
        if self.ended_reason is not None or self.controller_ended is not None:
            return 0
        self.spoke = True
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        utterance = self.audio.say(pcm, self._clock())
        self._spoken[utterance] = future
        self.act()
        try:
            return await future
        except asyncio.CancelledError:
            self.audio.give_up(utterance, self._clock())
            self.act()
            raise
        finally:
            self._spoken.pop(utterance, None)

    async def interrupt(self) -> None:
        """Drop all queued sound; returns when the worker has done it (or 0.25 s later)."""
        if self.controller_ended is not None:
            return
        self.spoke = False
        serial = self.audio.interrupt(self._clock())
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._interrupts.append((serial, future))
        self.act()
        await future

    def say_by_hand(self, pcm: bytes) -> None:
        """Somebody at the console speaks into the call, behind the sound that is queued."""
        if self.controller_ended is None and len(pcm) % 2 == 0:
            self.spoke = True
            self.audio.say(pcm, self._clock())
            self.act()

    def interrupt_by_hand(self) -> None:
        """Somebody at the console drops all queued sound."""
        if self.controller_ended is None:
            self.spoke = False
            self.audio.interrupt(self._clock())
            self.act()

    async def played_out(self, timeout: float) -> bool:
        """Wait until the far end has heard all that was said. False: it has not within ``timeout``
        seconds, or it cannot be known, or nothing was said since the last interrupt."""
        if not self.spoke or self.controller_ended is not None or self.audio.active is None:
            return False
        self._mark_count += 1
        name = f"m{self._mark_count}"
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._marks[name] = future
        self.audio.set_mark(name)
        self.act()
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            return False
        finally:
            self._marks.pop(name, None)

    async def wait_ended(self, timeout: float | None) -> bool:
        """Wait until the call has ended; False: it has not within ``timeout`` seconds."""
        return await self.changed.wait_until(lambda: self.ended_reason is not None, timeout)

    async def between_words(self, send: Callable[[], Awaitable[None]]) -> None:
        """Do ``send`` (digits) once all that was said so far has been heard. Sound that is said
        from now on waits until ``send`` is over. One such at a time."""
        said = list(self._spoken.values())
        barrier = self.audio.put_barrier()
        try:
            async with self._digits_turn:
                if said:
                    await asyncio.wait(said)
                await self.played_out(PLAYED_WITHIN)
                await send()
        finally:
            self.audio.take_barrier(barrier)
            self.act()

    def played(self, digits: str, age: float) -> None:
        """The far end has heard ``digits``; the call had this age when the first one began."""
        if self.audio.tape is not None:
            for after, digit in presses(digits):
                self.audio.tape.key(age + after, digit, ours=True)

    async def wait_stream(self, ordinal: int) -> None:
        """Wait until a worker has opened this stream or a later one. What is said before would go
        to the stream before it, which is over."""

        def there() -> bool:
            return self.audio.generation >> 16 >= ordinal or self.controller_ended is not None

        await self.changed.wait_until(there, OPENED_WITHIN)

    async def until_played(self, send: Callable[[], Awaitable[None]], seconds: float) -> None:
        """Do ``send`` (digits on another leg than our stream's), and let them be played, for
        ``seconds``: the next document, or a hang-up, would cut them off. One such at a time.
        WrongModeError where the call ends first."""
        async with self._digits_turn:
            await send()
            until = self._clock() + seconds
            if await self.wait_ended(seconds + BEGUN_WITHIN) and self._clock() < until:
                raise WrongModeError(CALL_ENDED_FIRST)

    async def wait_answered_by(self, timeout: float) -> m.Answerer | None:
        """Wait until it is known who has answered; None: it is not, or the call has ended."""

        def over() -> bool:
            return self.info.answered_by is not None or self.ended_reason is not None

        await self.changed.wait_until(over, timeout)
        return self.info.answered_by

    def _piece_changed(self) -> None:
        """In the thread of whoever listens: other pieces of sound are wanted from now on."""
        with contextlib.suppress(RuntimeError):  # the client was closed meanwhile
            self._loop.call_soon_threadsafe(self._gather)

    def _gather(self) -> None:
        self.audio.gather(gathered(self.sound.piece))
        self.act()

    # ------------------------------------------------------------------ what the bus says

    def dialled(self, asked: asyncio.Future[m.Dialled]) -> None:
        """The controller has answered the dial, after the call's stream was up: it knows the SID of
        the leg that we dialled by now."""
        if not asked.cancelled() and asked.exception() is None:
            self.info = msgspec.structs.replace(self.info, dialled_sid=asked.result().sid)

    def answered_by_told(self, answered_by: m.Answerer) -> None:
        """The controller says who has answered."""
        self.info = msgspec.structs.replace(self.info, answered_by=answered_by)
        self.changed.ring()

    def ended(self, event: m.CallEnded) -> None:
        """The controller says that the call is over: drain, then tell."""
        if self.controller_ended is None:
            self.controller_ended = event
            self._over_at = self._clock() - event.ago
            self.audio.call_ended(event.reason, self._clock(), event.ago)
            self.act()

    def heard(self, worker: str, sound: m.Sound, now: float) -> None:
        """A worker says what the far end said."""
        pcm = self.audio.heard(worker, sound, now)
        if pcm:
            dropped = self.sound.put(pcm)
            if dropped:
                self.audio.lost.add("inbound", dropped // POSITION_BYTES, NOT_TAKEN)

    def act(self) -> None:
        """Carry out the instructions of the audio state."""
        blocked = False
        for instruction in self.audio.take_instructions():
            if isinstance(instruction, Send):
                speak = isinstance(instruction.message, m.Speak)
                if (blocked and speak) or not self._send(instruction.worker, instruction.message):
                    # Sound stays in order: after a piece that could not go, no other piece of this
                    # batch goes.
                    blocked = blocked or speak
                    self.audio.unsent(instruction.message)
            elif isinstance(instruction, HeardDigit):
                self.digits.put(instruction.digit)
            elif isinstance(instruction, Spoken):
                self._settle_spoken(instruction.utterance)
            elif isinstance(instruction, InterruptDone):
                self._settle_interrupts(instruction.serial)
            elif isinstance(instruction, MarkDone):
                mark = self._marks.get(instruction.name)
                if mark is not None and not mark.done():
                    mark.set_result(instruction.played)
            else:
                self._finish(instruction)

    def _settle_spoken(self, utterance: Utterance) -> None:
        future = self._spoken.get(utterance)
        if future is not None and not future.done():
            assert utterance.sent is not None
            future.set_result(utterance.sent)

    def _settle_interrupts(self, serial: int) -> None:
        waiting = self._interrupts
        self._interrupts = [(n, f) for n, f in waiting if n > serial]
        for number, future in waiting:
            if number <= serial and not future.done():
                future.set_result(None)

    def _finish(self, ended: Ended) -> None:
        self.ended_reason = ended.reason
        if self._over_at is None:
            self._over_at = self._clock()
        self.sound.close()
        self.digits.close()
        self.changed.ring()
        self._settle_interrupts(self.audio.out.serial)
        log.info(
            "call %s with %s ended: %s",
            self.info.sid,
            redact_number(
                self.info.caller if self.info.direction == "inbound" else self.info.callee
            ),
            ended.reason,
        )


def gathered(piece: int) -> int:
    """How many samples a worker is to gather for whoever takes ``piece`` bytes at a time. 0: it
    gathers nothing, because a frame is enough. A piece that is more than a worker gathers comes in
    equal parts."""
    samples = -(-piece // POSITION_BYTES)
    return 0 if samples <= FRAME else -(-samples // -(-samples // MOST_GATHERED))


def with_placement(info: m.CallInfo, placement: m.Placement) -> m.CallInfo:
    """``info`` with a newer placement; an older one changes nothing."""
    known = info.placement
    if known is not None and (known.epoch, known.n) >= (placement.epoch, placement.n):
        return info
    return msgspec.structs.replace(info, placement=placement)
