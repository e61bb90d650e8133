"""A call while it lives: its record, its leg, its circuit, its streams, the calls beside it.

A call placed to one of the account's own numbers is two calls at Twilio: the outgoing leg A and the
inbound leg B, whose number's ``voice_url`` is asked. They are the two ends of one circuit.
"""

from __future__ import annotations

from collections.abc import Callable

from .account import CallRecord
from .circuit import Circuit
from .far_ends import Bot
from .leg import Leg
from .numbers import Number
from .stream import Stream


class Call:
    """One call of the account."""

    def __init__(self, record: CallRecord, leg: Leg, number: Number | None) -> None:
        self.record = record
        self.leg = leg
        #: The number of the account that was called, for an inbound call.
        self.number = number
        self.circuit: Circuit | None = None
        #: The bot at the far end, once there is one.
        self.bot: Bot | None = None
        #: The call at the other end of the circuit, where that is a call of the carrier too.
        self.other: Call | None = None
        #: The call whose <Dial> placed this one, and the one that this call's <Dial> placed.
        self.parent: Call | None = None
        self.child: Call | None = None
        #: Its Media Streams, oldest first.
        self.streams: list[Stream] = []
        #: Counts fetches, so that the answer to an outdated one is thrown away.
        self.fetch_id = 0
        self.used_fallback = False
        self.on_answer: Callable[[float], None] | None = None
        #: Status callbacks so far.
        self.callbacks = 0

    @property
    def sid(self) -> str:
        return self.record.sid

    @property
    def status(self) -> str:
        return self.record.status

    @property
    def live(self) -> bool:
        """Not ended."""
        return self.record.live

    @property
    def played(self) -> bytearray:
        """μ-law that the far end has heard since the call was answered (``started``)."""
        return self._audio()[0]

    @property
    def said(self) -> bytearray:
        """μ-law that the far end has said, on the same time base."""
        return self._audio()[1]

    @property
    def started(self) -> float | None:
        """Monotonic time of the first sample of ``played`` and ``said``."""
        return self.circuit.connected_at if self.circuit else None

    def _audio(self) -> tuple[bytearray, bytearray]:
        circuit = self.circuit
        if circuit is None:
            return bytearray(), bytearray()
        # The second of two legs sees their circuit the other way round.
        near = circuit.near is self.leg
        return (circuit.played, circuit.said) if near else (circuit.said, circuit.played)
