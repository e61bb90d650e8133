"""The carrier's side of one stream, played from a cassette. No I/O.

The carrier's messages come again as they were and in their order, with three exceptions. Their
sequence numbers are counted anew. Marks are not those of the cassette, because the agent may send
others now: each comes back when the sound before it has been played, or at once after a ``clear``.
And ``start`` and ``stop`` have the present account, and ``start`` the present TwiML's parameters.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from trunkline.bus.sound import WIRE_RATE

from .cassette import Message, Stream
from .sound import filled, payload_of


class Carrier:
    """Decides which message the carrier sends when. ``taped``: the stream of the cassette.
    ``account``, ``parameters``: of the present call. Times are seconds since the stream's
    opening."""

    def __init__(self, taped: Stream, account: str, parameters: Mapping[str, str]) -> None:
        self._account = account
        self._parameters = parameters
        script = [
            (at - taped.opened, filled(message))
            for at, message in taped.heard
            if message.get("event") not in ("mark", "unreadable")
        ]
        self._stop = next((item for item in script if item[1].get("event") == "stop"), None)
        self._script = deque(item for item in script if item is not self._stop)
        self._plays_until = 0.0
        #: marks of the agent, each with the time at which it comes back
        self._marks: deque[tuple[float, str]] = deque()
        self._number = 0
        self._sid = taped.sid

    @property
    def next_at(self) -> float | None:
        """When the next message is due, but for the one that ends the stream. None: there is none
        left."""
        times = [queue[0][0] for queue in (self._script, self._marks) if queue]
        return min(times, default=None)

    @property
    def stops_at(self) -> float | None:
        """When the carrier ends the stream. None: it does not end it."""
        return None if self._stop is None else self._stop[0]

    @property
    def playing_until(self) -> float:
        """When all sound that the agent has sent by now will have been played."""
        return self._plays_until

    def due(self, now: float) -> list[Message]:
        """The messages that are due by ``now``, in order, but for the one that ends the stream."""
        out: list[Message] = []
        while (at := self.next_at) is not None and at <= now:
            if self._marks and self._marks[0][0] == at:
                mark = {"event": "mark", "streamSid": self._sid}
                out.append(self._numbered(mark | {"mark": {"name": self._marks.popleft()[1]}}))
            else:
                out.append(self._numbered(self._fitted(self._script.popleft()[1])))
        return out

    def stop(self) -> list[Message]:
        """The message that ends the stream, if the cassette has one."""
        return [] if self._stop is None else [self._numbered(self._fitted(self._stop[1]))]

    def answered(self, now: float, message: Message) -> None:
        """Take a message that the agent has sent."""
        event = message.get("event")
        if event == "media":
            self._plays_until = max(now, self._plays_until) + payload_of(message)[0] / WIRE_RATE
        elif event == "mark":
            body = message.get("mark")
            name = str(body.get("name", "")) if isinstance(body, dict) else ""
            self._marks.append((max(now, self._plays_until), name))
        elif event == "clear":
            self._plays_until = now
            self._marks = deque((now, name) for _, name in self._marks)

    def _fitted(self, message: Message) -> Message:
        """The message, with the present account and parameters."""
        event = str(message.get("event"))
        body = message.get(event)
        if event not in ("start", "stop") or not isinstance(body, dict):
            return message
        body = dict(body)
        if "accountSid" in body:
            body["accountSid"] = self._account
        if event == "start":
            body["customParameters"] = dict(self._parameters)
        return message | {event: body}

    def _numbered(self, message: Message) -> Message:
        if message.get("event") == "connected":
            return message
        self._number += 1
        return message | {"sequenceNumber": str(self._number)}
