"""Whether gateways send what came in 40 ms together, in one message instead of two. No I/O.

A gateway looks at the sockets of its calls, and wakes its workers, for each frame, and twice as
often where it has many. Half as many looks, reads, messages and wake-ups do where nobody would
notice:

1. Every call takes its sound in pieces of more than a frame (``Gather``). So no frame of it is
   handed out by itself.
2. No call has just sent all that it has. Its speaker may be one who waits for the acknowledgement
   of 20 ms, to say the next ones.

While all calls are in the middle of words besides, no speech that comes is urgent. Then the worker
need not read either between its ticks.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from trunkline.bus import messages as m
from trunkline.bus.sound import FRAME

from .call import Call

#: So long after a call had sent all that it has, its speaker is answered as soon as can be.
ANSWER_NS: Final = 200_000_000
#: A call with so much in hand (samples) is in the middle of words.
IN_HAND: Final = 5 * FRAME


class Pairs:
    """What the gateways of one worker have been told of it."""

    def __init__(self) -> None:
        self.on = False
        #: and all calls are in the middle of words
        self.all_speak = False

    def choose(self, calls: Collection[Call], since_end: int) -> list[tuple[bytes, m.Pair]]:
        """What gateways are to be told now. ``since_end``: how long ago a call had last sent all
        that it has (ns)."""
        on = (
            bool(calls)
            and since_end >= ANSWER_NS
            and all(call.inbound.gathers > FRAME for call in calls)
        )
        self.all_speak = on and all(
            call.playout is not None and call.playout.unsent >= IN_HAND for call in calls
        )
        if on == self.on:
            return []
        self.on = on
        gateways = dict.fromkeys(call.gateway for call in calls if call.gateway is not None)
        return [(gateway, m.Pair(on)) for gateway in gateways]
