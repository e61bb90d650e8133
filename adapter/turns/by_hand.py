"""Turns of a call without langwatch-scenario: hear one out, or break into it.

The speech gate says where speech begins and where it ends, as in a scenario. Sound that the gate
holds back is put back for whoever listens next, so ``next_turn`` and ``recv_audio`` may be used in
turns.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from trunkline.bus.errors import WrongModeError
from trunkline.bus.sound import WIRE_RATE

from ..call import Call
from ..pcm16 import BYTES_A_SECOND
from .greeting import LONGEST, TAIL_SILENCE
from .turns import Heard

#: A turn may begin this much before somebody looked for it, because the last message was not read
#: yet (seconds).
_BEFORE: Final = 0.3


@dataclass(frozen=True)
class Turn:
    """The far end's words in one turn: PCM16 at 24 kHz, with their pauses.

    ``latency``: seconds from the end of our words, as the far end heard it, to the first sound of
    this turn, as ``call.report()`` has it. None where it answers nothing of ours, for example in a
    greeting, and where the call has no report.
    """

    pcm: bytes = field(repr=False)
    latency: float | None

    @property
    def seconds(self) -> float:
        return len(self.pcm) / BYTES_A_SECOND


async def next_turn(call: Call, timeout: float) -> Turn:
    """Hear the far end's next turn out; see ``Call.next_turn``."""
    heard = Heard(call)
    unread = len(call.sound) / BYTES_A_SECOND
    begins = call.heard_to / WIRE_RATE - unread - _BEFORE
    pcm = bytearray()
    try:
        pcm += await _words(heard, timeout)
        while len(pcm) < LONGEST * BYTES_A_SECOND:
            try:
                more = await heard.next_chunk(TAIL_SILENCE, most_silence=None, first=False)
            except TimeoutError:
                break
            if not more:
                break
            pcm += more
        latency = await _latency(call, begins)
    except BaseException:  # it is raised again
        # Nobody gets this turn, so whoever listens next hears all of it.
        call.sound.put_back(bytes(pcm) + heard.rest())
        raise
    call.sound.put_back(heard.rest())
    return Turn(bytes(pcm), latency)


async def _latency(call: Call, begins: float) -> float | None:
    """The latency of the first answer that begins at this second of the call or later."""
    if not call.keeps_sound:
        return None
    answers = await asyncio.to_thread(lambda: call.report().answers)
    return next((each.latency for each in answers if each.start >= begins), None)


async def wait_until_speaking(call: Call, after: float, timeout: float) -> None:
    """Wait until the far end has been speaking for ``after`` seconds, and speaks at that moment.

    In a pause of its turn, wait until it speaks again. asyncio.TimeoutError where its turn ends
    first. All of its sound is put back.
    """
    heard = Heard(call)
    pcm = bytearray()
    try:
        pcm += await _words(heard, timeout)
        await asyncio.sleep(after - heard.since_onset)
        await heard.look_at_rest()
        while not heard.speaking:
            try:
                pcm += await _words(heard, TAIL_SILENCE)
            except TimeoutError:
                raise TimeoutError(
                    f"the far end's turn was over before it could be broken into: it spoke for "
                    f"less than after={after:g} s"
                ) from None
    finally:
        call.sound.put_back(bytes(pcm) + heard.rest())


async def _words(heard: Heard, timeout: float) -> bytes:
    """The first words within ``timeout`` seconds. WrongModeError where the call ends before."""
    words = await heard.next_chunk(timeout, most_silence=None, first=False)
    if not words:
        raise WrongModeError("the call has ended, and nothing more was said")
    return words
