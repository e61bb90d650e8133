"""Turns: a call's sound through the speech gate, with the timeouts that end turns.

langwatch-scenario's turn is: the first chunk within ``response_timeout``, then chunks until none
comes for ``response_tail_silence``, or ``response_max_duration`` of them have come. A phone line is
never quiet, so :class:`Heard` decides by these rules when no chunk comes:

- Inside an answer, ``timeout`` is counted in seconds of *sound* without speech. So the turn ends at
  the same place of the sound, even where the network stalls or whoever asks is late.
- Before an answer, ``timeout`` is counted by the clock. For the first chunk of a turn it ends the
  wait only on a line that brings nothing. As soon as the line has brought
  ``most_silence`` seconds of silence, that silence is the answer. If ``most_silence`` is None,
  silence never is an answer, and all of it is kept.
- After the call's end all speech that is left is handed out, then b"" for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from trunkline.bus.clock import monotonic

from ..call import Call
from ..pcm16 import BYTES_A_SECOND
from .gate_options import GateOptions
from .spectrum import RATE
from .speech_gate import GateCounters, SpeechGate

#: The gate looks at sound in pieces of 100 ms, so that sound which waited long still falls into
#: turns. In the middle of words a piece is handed out at a time, as scenario's own adapter does.
PIECE: Final = 4_800
#: A line that has brought nothing for this long (seconds) is dead, and the clock counts its time.
_DEAD_AFTER = 0.5
#: Between two looks at the clock at least this many seconds pass.
_LEAST = 0.001
#: The gate has these options where nobody asks for others.
STANDARD: Final = GateOptions()


class Heard:
    """The hearing side of one call. ``options``: how its gate is set; None hands everything out as
    it comes. ``piece``: inside an answer up to this many bytes of sound may wait for one another.
    """

    def __init__(
        self,
        call: Call,
        options: GateOptions | None = STANDARD,
        *,
        piece: int = 1,
    ) -> None:
        self.call = call
        self._piece = piece
        self.gate = SpeechGate(options) if options is not None else None
        #: sound that came in and has not passed the gate yet
        self._waiting = bytearray()
        #: the last speech, after the call's end
        self._last = b""
        self._heard_at = monotonic()

    async def next_chunk(
        self,
        timeout: float,
        *,
        most_silence: float | None,
        first: bool,
        arrived: Callable[[int], None] | None = None,
    ) -> bytes:
        """The next PCM16 24 kHz to hand out; b"" once the call has ended and all was handed out.

        ``first``: a turn waits for the beginning of its answer; on a live line that lasts until
        there is speech, or ``most_silence`` seconds of silence (which are handed out then), even
        where ``timeout`` is less. ``arrived`` gets the number of bytes that came in.
        Raises asyncio.TimeoutError.
        """
        if self.gate is None:
            pcm = await self.call.recv_audio(timeout)
            if pcm and arrived is not None:
                arrived(len(pcm))
            return pcm
        gate, sound = self.gate, self.call.sound
        # A piece or two may be looked at between the timeout and the look at the clock.
        gate.keep = max(gate.keep, timeout + 1.0 if most_silence is None else most_silence)
        began = monotonic()
        self._take_in(arrived)
        silent_from = gate.heard_seconds + len(self._waiting) / BYTES_A_SECOND
        while True:
            self._take_in(arrived)
            self._push_piece()
            chunk, self._last = self._last or gate.take(), b""
            if chunk:
                return chunk
            if gate.answering and self._answer_is_over(timeout, began):
                gate.end_answer()
                raise TimeoutError(
                    f"no speech for {timeout:g} s: the answer is over ({self.call._state()})"
                )
            if self._waiting:
                continue
            if sound.drained:
                return gate.flush()
            if not gate.answering:
                silence = gate.heard_seconds - silent_from
                if most_silence is not None and silence >= most_silence:
                    return gate.take_silence(most_silence)
                late = monotonic() - began >= timeout
                if late and not (first and self._alive()):
                    raise TimeoutError(f"no speech for {timeout:g} s ({self.call._state()})")
                left = None if most_silence is None else most_silence - silence
            else:
                left = timeout - gate.silence
            due = began + timeout
            if first or gate.answering:
                due = max(due, self._heard_at + _DEAD_AFTER)
            # How soon an answer is heard is what a test measures, so its beginning does not wait.
            piece = self._piece if gate.answering else 1
            wait = max(_LEAST, due - monotonic())
            await sound.wait(wait, _enough(gate, left), piece)

    def _answer_is_over(self, timeout: float, began: float) -> bool:
        assert self.gate is not None
        if self.gate.silence >= timeout:
            return not self.gate.undecided
        return monotonic() - began >= timeout and not self._alive() and not self._waiting

    def _alive(self) -> bool:
        """Sound is coming in, speech or not."""
        return monotonic() - self._heard_at < _DEAD_AFTER

    def _take_in(self, arrived: Callable[[int], None] | None) -> None:
        fresh = self.call.sound.take_all()
        if fresh:
            self._waiting += fresh
            self._heard_at = monotonic()
            if arrived is not None:
                arrived(len(fresh))

    def _push_piece(self) -> None:
        if self._waiting and self.gate is not None:
            piece = bytes(self._waiting[:PIECE])
            del self._waiting[:PIECE]
            self.gate.push(piece)

    @property
    def speaking(self) -> bool:
        """A word goes on at the end of all that has passed the gate."""
        return self.gate is not None and self.gate.speaking

    @property
    def since_onset(self) -> float:
        """Seconds of sound that came in since the last speech began."""
        assert self.gate is not None
        unseen = (len(self._waiting) + len(self.call.sound)) / BYTES_A_SECOND
        return self.gate.heard_seconds + unseen - self.gate.began / RATE

    def end_answer(self) -> None:
        """The user speaks, so an answer that was under way is over."""
        if self.gate is not None:
            self.gate.end_answer()

    @property
    def undecided(self) -> bool:
        """The last sound may be the beginning of speech."""
        return self.gate is not None and self.gate.undecided

    @property
    def counters(self) -> GateCounters:
        """The gate's counters; zeros without one."""
        return GateCounters() if self.gate is None else self.gate.counters

    async def look_at_rest(self) -> None:
        """Let the gate look at all that came in, so that its counters are of the whole call."""
        self._take_in(None)
        while self.gate is not None and self._waiting:
            self._push_piece()
            await asyncio.sleep(0)

    def rest(self) -> bytes:
        """All that came in and was not handed out, for whoever hears the call from here on."""
        held = b"" if self.gate is None else self.gate.take_rest()
        rest = self._last + held + bytes(self._waiting)
        self._last = b""
        self._waiting.clear()
        return rest

    @property
    def has_more(self) -> bool:
        """Something may still be handed out: the call lives, or speech of it is left."""
        if self.call.ended_reason is None:
            return True
        if self.gate is None:
            return not self.call.sound.drained
        self._take_in(None)
        while self._waiting:
            self._push_piece()
        self._last += self.gate.flush()
        return bool(self._last)


def _enough(gate: SpeechGate, left: float | None) -> int:
    """Bytes of sound that are worth a wake-up: a piece of words that go on, or of a quiet line
    (speech that begins in it is handed out from its beginning on, by its pre-roll); where speech
    may be about to begin or to end, enough for the gate to look at; or ``left`` seconds of silence.
    """
    enough = PIECE if gate.quiet else min(gate.patience + 1, PIECE)
    return enough if left is None else max(1, min(enough, int(left * BYTES_A_SECOND)))
