"""Whether gateways send what came in 40 ms together, in one message instead of two. No I/O.

For each frame a gateway looks at the sockets of its calls and wakes its workers, and it does so
twice as often where it has many calls. Where nobody would notice, half as many looks, reads,
messages and wake-ups are enough. Nobody notices if two things are true:

1. Every call takes its sound in pieces of more than a frame (``Gather``). So no frame is handed out
   by itself.
2. No call has just sent all that it has. Its speaker may be waiting for the acknowledgement of
   these 20 ms before it says the next 20 ms.

If all calls are also in mid-utterance, no new speech is urgent, so the worker need not read between
ticks.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from trunkline.bus import messages as m
from trunkline.bus.sound import FRAME

from .call import Call

#: For this long after a call runs out of sound, its speaker is answered at once.
ANSWER_NS: Final = 200_000_000
#: A call with this many samples in hand is in mid-utterance.
IN_HAND: Final = 5 * FRAME


class Pairs:
    """What the gateways of one worker were told last: to send in pairs, or as frames come."""

    def __init__(self) -> None:
        #: the gateways send in pairs
        self.on = False
        #: the gateways send in pairs, and all calls are in mid-utterance
        self.all_speak = False

    def choose(self, calls: Collection[Call], since_end: int) -> list[tuple[bytes, m.Pair]]:
        """The messages to gateways that are due now. ``since_end``: how long ago a call last ran
        out of sound (ns)."""
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
