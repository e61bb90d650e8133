"""A phone call as its user sees it: PCM16 in and out, digits, interrupt, hang-up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from trunkline.bus.clock import monotonic
from trunkline.bus.digits import check_digits, seconds_of
from trunkline.bus.errors import WrongModeError
from trunkline.bus.messages import Answerer, EndedReason
from trunkline.bus.redact import redact_number
from trunkline.bus.sound import FRAME, MOST_KEPT, NOT_TAKEN, TOO_MUCH_QUEUED

from .client.call_audio import Lost
from .client.call_media import PLAYED_WITHIN, CallMedia
from .client.client import BusClient
from .client.session import ClientSession
from .client.telemetry import tell
from .dial_rules import check_seconds
from .pcm16 import BYTES_A_SECOND, pcm16

if TYPE_CHECKING:
    from trunkline.ear.figures import Report

    from .client.call_tape import CallTape, Samples
    from .turns.by_hand import Turn

#: ``hang_up`` waits this long for the call to be over once the carrier took the hang-up.
ENDED_WITHIN = 3.0


class Digits:
    """The DTMF digits that the far end presses, each handed out once; ends with the call."""

    def __init__(self, media: CallMedia) -> None:
        self._media = media

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        box = self._media.digits
        while True:
            # Asked before the box is looked into, because the client's thread may put the last
            # digit in and close the box between the two.
            closed = box.closed
            digit = box.take()
            if digit is not None:
                return digit
            if closed:
                raise StopAsyncIteration
            await box.bell.wait_until(box.ready, None)


class Call:
    """One phone call of a :class:`~trunkline.Line`.

    Sound is PCM16 little-endian, mono, 24 kHz, as bytes. A call may be used from any event loop of
    the process that made it.
    """

    def __init__(
        self,
        client: BusClient,
        session: ClientSession,
        media: CallMedia,
        *,
        detects_machines: bool = False,
    ) -> None:
        self._client = client
        self._detects_machines = detects_machines
        self._session = session
        self._media = media
        #: digits of the far end: ``async for digit in call.dtmf``
        self.dtmf = Digits(media)
        #: sound that was heard, and that nobody has taken yet
        self.sound = media.sound
        #: the far end's first words (PCM16 24 kHz), where ``callee_speaks_first`` asked for it;
        #: ``recv_audio`` begins right behind it. None: nobody spoke, or nobody asked
        self.greeting: bytes | None = None
        #: somebody has looked at the call's report
        self.was_judged = False
        #: the figures of the report were sent to OpenTelemetry and /metrics
        self._told = False

    def __repr__(self) -> str:
        state = self.ended_reason or "live"
        return (
            f"Call(sid={self.sid!r}, {self.direction}, {redact_number(self.caller)} -> "
            f"{redact_number(self.callee)}, {state})"
        )

    @property
    def sid(self) -> str:
        """CallSid of the leg that carries our stream (originator-only: of the leg we dialled)."""
        return self._media.info.sid

    @property
    def dialled_sid(self) -> str | None:
        """CallSid of the leg that we dialled. It is another one than ``sid`` in b-leg mode, and the
        same in the other modes. None for inbound calls, and for a moment if a b-leg call was up
        before Twilio had answered our request for it."""
        info = self._media.info
        return info.sid if info.mode == "a-leg" else info.dialled_sid

    @property
    def direction(self) -> Literal["inbound", "outbound"]:
        return self._media.info.direction

    @property
    def caller(self) -> str:
        """From as the carrier reported it: a number, ``sip:…``, ``client:…``, a word, or "". For
        an a-leg or originated call it is the number that the call was dialled from."""
        return self._media.info.caller

    @property
    def caller_rewritten(self) -> bool:
        """The carrier reported another caller than the number that this call was dialled from.
        Only a b-leg call can tell: of a call that comes in nobody knows who dialled it."""
        return self._media.info.caller_rewritten

    @property
    def callee(self) -> str:
        return self._media.info.callee

    @property
    def answered_by(self) -> Answerer | None:
        """Who has answered, by Twilio's detection of answering machines: human, machine_start,
        machine_end_beep, machine_end_silence, machine_end_other, fax, unknown. None until that is
        known, and for ever where ``place_call(…, machine_detection=…)`` did not ask."""
        return self._media.info.answered_by

    async def wait_answered_by(self, timeout: float = 30.0) -> Answerer:
        """Wait until it is known who has answered.

        Raises asyncio.TimeoutError when nothing is told within ``timeout`` seconds, WrongModeError
        when ``place_call`` did not ask for it, or when the call ends before.
        """
        check_seconds(timeout)
        if not self._detects_machines:
            raise WrongModeError("wait_answered_by: place_call was not given machine_detection")
        found = await self._media.wait_answered_by(timeout)
        if found is not None:
            return found
        if self.ended_reason is not None:
            raise WrongModeError(
                f"wait_answered_by: the call ended ({self.ended_reason}) before that was known"
            )
        raise TimeoutError(f"who answered was not told within {timeout:g} s ({self._state()})")

    @property
    def ended_reason(self) -> EndedReason | None:
        """How the call ended; None while it is live. "stop", "close" and "error" say how its stream
        ended, "max_duration" that it reached its longest duration, "hang_up" that our side hung
        up. It is set once all that was heard can be taken."""
        return self._media.ended_reason

    @property
    def age(self) -> float:
        """Seconds since the call's stream came up first; of a call that is over, how many it
        lasted."""
        return self._media.age

    @property
    def ending(self) -> bool:
        """The call is over at the carrier; its last sound may still be coming in."""
        return self._media.controller_ended is not None or self._media.ended_reason is not None

    @property
    def carries_sound(self) -> bool:
        """False for an originator-only call."""
        return self._media.info.mode != "originate"

    @property
    def ended_by_far_end(self) -> bool:
        """True once the call has ended because the far end hung up."""
        ended = self._media.controller_ended
        return ended is not None and ended.by_far_end

    @property
    def lost(self) -> Lost:
        """Samples (8 kHz) that were lost so far, by direction and reason."""
        return self._media.audio.lost

    @property
    def heard_to(self) -> int:
        """How far the far end's sound has come, in samples at 8 kHz since the call's start."""
        return self._media.audio.heard_to

    @property
    def heard_samples(self) -> int:
        """Samples (8 kHz) that were heard so far."""
        return self._media.audio.heard_samples

    def report(self) -> Report:
        """How both sides have talked with each other so far: latency of answers, time to yield,
        talk-over and silences, from the sound alone, and the keys that were pressed (docs/ear.md).
        A call is kept for an hour of it.

        This takes about 0.3 ms of computing for each second of the call. WrongModeError for an
        originator-only call, which carries no sound, and for a call of ``Line(…, report=False)``,
        which keeps none.
        """
        tape, audio = self._tape("report"), self._media.audio
        self.was_judged = True
        from trunkline.ear.figures import Digit
        from trunkline.ear.listen import listen

        ours, theirs = tape.sides()
        keys = [
            Digit(at=round(at, 3), side="ours" if is_ours else "theirs", digit=digit)
            for at, digit, is_ours in tape.pressed()
        ]
        # Sound that the user did not take, or queued beyond measure, is no fault of the line.
        lost = sum(
            samples
            for why, samples in audio.lost.reasons.copy().items()
            if why not in (NOT_TAKEN, TOO_MUCH_QUEUED)
        )
        report = listen(
            ours,
            theirs,
            frames_lost=-(-lost // FRAME),
            frames_late=audio.late // FRAME,
            jitter_ms=tape.jitter_ms,
            keys=keys,
        )
        if self.ended_reason is not None and not self._told:
            self._told = True
            tell(self._client, self._media.info.trace, self.sid, report)
        return report

    def both_sides(self) -> tuple[Samples, Samples]:
        """(ours, theirs): what both sides have said so far, on one clock, as PCM16 at 8 kHz: numpy
        arrays of int16, one value a sample. WrongModeError as for :meth:`report`."""
        return self._tape("both_sides").sides()

    @property
    def keeps_sound(self) -> bool:
        """True if :meth:`report` works: the call carries sound, and keeps it."""
        return self.carries_sound and self._media.audio.tape is not None

    async def send_audio(self, pcm: bytes) -> int:
        """Say ``pcm`` behind the sound that is queued; returns how many of its samples were sent.

        Returns when its last frame has been sent to the carrier, or at once when
        :meth:`interrupt` or the end of the call cuts it off. Cancelled: the rest is
        dropped.

        Raises ValueError for anything but bytes of whole 16-bit samples (a WAV file's bytes, an
        array of floats), WrongModeError when the call has ended or carries no sound
        (originator-only).
        """
        pcm = pcm16(pcm)
        self._check_live("send_audio")
        if not pcm:
            return 0
        return await self._client.run(self._media.say(pcm))

    async def say(self, sound: str | PathLike[str] | bytes) -> int:
        """Say a WAV file of any kind (its path), or PCM16 as ``send_audio`` does; returns how many
        samples were sent. InvalidRequestError for what is no PCM WAV file, FileNotFoundError where
        there is none."""
        if not isinstance(sound, str | PathLike):
            return await self.send_audio(sound)
        from trunkline.bus import wav

        path = Path(sound)
        try:
            samples = await asyncio.to_thread(wav.read, path)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"say: there is no file {str(path)!r}: name a WAV file, because trunkline itself "
                "makes no speech of text"
            ) from None
        return await self.send_audio(samples.tobytes())

    async def next_turn(self, timeout: float = 10.0) -> Turn:
        """Hear the far end's next turn out: its sound, and its latency.

        A turn begins with speech and ends after about a second without, 30 s of it at most. Sound
        behind it is left for the next turn, or for ``recv_audio``. Raises asyncio.TimeoutError when
        nobody begins to speak within ``timeout`` seconds, WrongModeError when the call ends before,
        ValueError (timeout). If it is cancelled, what it has heard is left as well.
        """
        check_seconds(timeout)
        self._check_sound("next_turn")
        from .turns.by_hand import next_turn

        return await next_turn(self, timeout)

    async def barge_in(self, pcm: bytes, after: float = 1.2, *, timeout: float = 10.0) -> int:
        """Break into the far end's speech: say ``pcm`` once it has been speaking for ``after``
        seconds. Returns how many samples were sent; the far end's sound is left for ``next_turn``.

        If the far end pauses at that moment, this waits until it speaks again. Raises
        asyncio.TimeoutError when nobody begins to speak within ``timeout`` seconds, or when the far
        end's turn ends before it could be broken into; ValueError (after, timeout); and what
        ``send_audio`` raises.
        """
        pcm = pcm16(pcm)
        check_seconds(after, "after")
        check_seconds(timeout)
        self._check_live("barge_in")
        from .turns.by_hand import wait_until_speaking

        await wait_until_speaking(self, after, timeout)
        return await self.send_audio(pcm)

    async def recv_audio(self, timeout: float | None = None, *, at_least: float = 0.0) -> bytes:
        """All that was heard since the last time, at least something.

        b"" once the call has ended and all was handed out (every time then). Raises
        asyncio.TimeoutError when nothing comes for ``timeout`` seconds (None: waits for ever).

        ``at_least`` waits for so many seconds of sound, or for the call's end. Whoever can do with
        pieces of 100 ms, for instance speech to text, spares four of five wake-ups and messages,
        because the stack then sends such pieces, up to the next ``recv_audio`` that asks for
        others. Where ``timeout`` comes first, the sound is left for the next time. ValueError for
        an ``at_least`` over 300 s, which is as much as a call keeps.
        """
        if timeout is not None:
            check_seconds(timeout)
        enough = 1
        if at_least:
            check_seconds(at_least, "at_least")
            if at_least > MOST_KEPT:
                raise ValueError(f"at_least: a call keeps {MOST_KEPT} s of sound, got {at_least!r}")
            enough = max(1, int(at_least * BYTES_A_SECOND))
        if not await self.sound.wait(timeout, enough):
            less = f"less than {at_least:g} s" if len(self.sound) else "nothing"
            raise TimeoutError(f"{less} was heard for {timeout:g} s ({self._state()})")
        return self.sound.take_all()

    async def send_dtmf(self, digits: str, tones: bool = False) -> None:
        """Send DTMF digits: ``0-9``, ``*``, ``#``; ``w`` waits 0.5 s, ``W`` 1 s.

        The carrier plays them like the keys of a telephone, because menus listen for those.

        Inbound and a-leg calls have one leg, which carries our stream. There, speech that is under
        way is finished first, and speech that is sent meanwhile waits. The stream is away for as
        long as the digits take and about a second more. The far end is heard meanwhile all the
        same, and this returns once the stream is back. In the other modes the digits go to the leg
        that we dialled, which carries no stream of ours. They are played at once, whatever is being
        said, and this returns once they have been played.

        ``tones``: say them as tones (ITU-T Q.23) in our own sound, behind the sound that is queued,
        for a far end that listens to sound. This returns when they have been sent.

        Raises ValueError for other characters; WrongModeError when the call has ended, or ends
        meanwhile; TimedOutError when the stream is not back within 10 s and the digits' own time;
        CarrierError when the carrier refuses; StackUnavailableError when no controller answers, or
        when it was started again and nobody knows whether they were sent.
        """
        check_digits(digits)
        self._check_live("send_dtmf", sound=tones)
        if tones:
            from .dtmf import tones as as_sound  # numpy: Line.open has imported it

            await self._client.run(self._media.say(as_sound(digits)))
        else:
            await self._client.run(self._send_digits(digits))

    async def _send_digits(self, digits: str) -> None:
        async def send() -> None:
            self._check_live("send_dtmf", sound=False)
            await self._session.send_digits(self._media, digits)

        if self._media.carries_stream:
            await self._media.between_words(send)
        else:
            await self._media.until_played(send, seconds_of(digits))

    async def interrupt(self) -> None:
        """Stop speaking at once: drop the sound that is queued here and at the carrier.

        A ``send_audio`` under way returns with the samples sent. WrongModeError when the call has
        ended or carries no sound (originator-only).
        """
        self._check_live("interrupt")
        await self._client.run(self._media.interrupt())

    async def hang_up(self) -> None:
        """End the call, once all sound that was sent is heard (1 s at most), and wait for its end
        (3 s at most). Nothing when it is over. Raises CarrierError when the carrier refuses,
        StackUnavailableError when no controller answers."""
        if self.ended_reason is not None:
            return
        await self._client.run(self._hang_up())
        await self._media.wait_ended(ENDED_WITHIN)

    def abandon(self) -> None:
        """Hang up without waiting, as a cancelled ``place_call`` does."""
        if not self.ending:
            self._client.post(self._session.abandon(self._media))

    async def _hang_up(self) -> None:
        await self._media.played_out(PLAYED_WITHIN)
        try:
            await self._session.hang_up(self._media)
        except WrongModeError:
            if self._media.controller_ended is None:
                raise

    async def wait_ended(self, timeout: float | None = None) -> EndedReason:
        """Wait for the call's end; returns its ``ended_reason``. Raises asyncio.TimeoutError when
        it has not ended within ``timeout`` seconds (None: waits for ever)."""
        if timeout is not None:
            check_seconds(timeout)
        if not await self._media.wait_ended(timeout):
            raise TimeoutError(f"the call has not ended within {timeout:g} s ({self._state()})")
        reason = self.ended_reason
        assert reason is not None
        return reason

    def _state(self) -> str:
        """The call's state in words, for an error of something that did not happen."""
        if not self.carries_sound:
            return "it carries no sound"
        if self.ending:
            return "it is being hung up"
        gone = self._media.audio.stream_gone_at
        if gone is None:
            return "its stream is up"
        return f"its stream has been gone for {monotonic() - gone:.1f} s, and may come again"

    def _tape(self, what: str) -> CallTape:
        """What both sides have said."""
        self._check_sound(what)
        tape = self._media.audio.tape
        if tape is None:
            raise WrongModeError(f"{what}: this call keeps no sound, by its Line(report=False)")
        return tape

    def _check_sound(self, what: str) -> None:
        if not self.carries_sound:
            raise WrongModeError(f"{what}: an originator-only call carries no sound")

    def _check_live(self, what: str, *, sound: bool = True) -> None:
        if self.ending:
            reason = self._media.ended_reason or "ending"
            raise WrongModeError(f"{what}: no live media stream, the call has ended ({reason})")
        if sound and not self.carries_sound:
            raise WrongModeError(
                f"{what}: no live media stream, an originator-only call carries no sound"
            )
