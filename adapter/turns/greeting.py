"""The far end speaks first: its greeting is heard to its end before anything else is done.

A greeting begins with the first speech that the speech gate finds, pre-roll included, and ends
where a turn would: after :data:`TAIL_SILENCE` seconds without speech behind the hangover. The next
sound that is handed out begins right behind its last sample, so nothing is lost and nothing comes
twice. Where nobody speaks in time, the sound of that wait is handed out next.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from trunkline.bus.messages import LONGEST_WAIT

from ..pcm16 import BYTES_A_SECOND

if TYPE_CHECKING:
    from ..call import Call
    from .turns import Heard

#: Seconds from the stream's start in which a greeting has to begin, where nothing is said.
GREETING_TIMEOUT: Final = 10.0
#: Seconds of sound without speech that end a greeting, and the longest that one may be: the
#: defaults of langwatch-scenario's ``response_tail_silence`` and ``response_max_duration``.
TAIL_SILENCE: Final = 0.6
LONGEST: Final = 30.0

#: How much longer to listen where the last frames before the timeout may be the first of speech.
_DECIDED_WITHIN = 0.3


def check_greeting(timeout: float, *, wanted: bool = False, mode: str = "b-leg") -> None:
    """ValueError unless ``greeting_timeout`` is a positive number of seconds and, where a greeting
    is wanted, a call in this stream mode carries sound."""
    number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if not number or not 0 < timeout <= LONGEST_WAIT:
        raise ValueError(
            f"greeting_timeout must be a positive number of seconds, {LONGEST_WAIT} at most, "
            f"got {timeout!r}."
        )
    if wanted and mode == "originator-only":
        raise ValueError(
            "callee_speaks_first=True needs a call with sound; an originator-only call "
            "(attach_stream_to_self=False) has none."
        )


async def hear_greeting(
    heard: Heard,
    *,
    timeout: float,
    age: float,
    log: logging.Logger,
    tail_silence: float = TAIL_SILENCE,
    longest: float = LONGEST,
    began: Callable[[], None] | None = None,
) -> bytes | None:
    """Wait for the greeting and hear it out: PCM16 24 kHz, or None where there is none.

    Speech has to begin ``timeout`` seconds after the stream's start, which was ``age`` seconds
    ago. ``began`` is called when it does. A warning says so where nobody spoke, where the call
    ended first, and where the greeting was cut at ``longest`` seconds (the rest of it is heard
    next).
    """
    pcm = bytearray(await _first_words(heard, timeout, age, log))
    if not pcm:
        return None
    if began is not None:
        began()
    while len(pcm) < longest * BYTES_A_SECOND:
        try:
            more = await heard.next_chunk(tail_silence, most_silence=None, first=False)
        except TimeoutError:
            return bytes(pcm)
        if not more:  # the call has ended
            return bytes(pcm)
        pcm += more
    log.warning(
        "the greeting has not ended within %g s; it is cut there, the call goes on", longest
    )
    return bytes(pcm)


async def _first_words(heard: Heard, timeout: float, age: float, log: logging.Logger) -> bytes:
    for seconds in (max(0.0, timeout - age), _DECIDED_WITHIN):
        try:
            words = await heard.next_chunk(seconds, most_silence=None, first=False)
        except TimeoutError:
            if heard.undecided:
                continue
            break
        if not words:
            log.warning("the call ended before anybody spoke; there is no greeting")
        return words
    log.warning(
        "nobody spoke within %g s of the stream's start (greeting_timeout); the call goes on, its "
        "greeting is None",
        timeout,
    )
    return b""


async def greet(
    call: Call, timeout: float, log: logging.Logger, began: Callable[[], None] | None = None
) -> None:
    """Set ``call.greeting``, for a call whose sound is not heard through a gate. Sound behind
    the greeting is put back for ``recv_audio``."""
    from .turns import Heard  # numpy: Line.open has imported it

    heard = Heard(call)
    call.greeting = await hear_greeting(heard, timeout=timeout, age=call.age, log=log, began=began)
    call.sound.put_back(heard.rest())
