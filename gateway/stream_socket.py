"""One Media Streams socket: brings what the carrier sends on it to the rules.

Frames, digits and returned marks of an open stream go to :class:`~.streams.Streams`. Everything
else goes to :class:`~.admission.Admission`. From ``start`` on :mod:`.pace` judges each message
first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trunkline.bus import tracing
from trunkline.bus.sound import FRAME

from . import media_streams as ms
from .admission import Applicant
from .pace import Pace, Verdict
from .websocket import WebSocket

if TYPE_CHECKING:
    from .shell import Shell

#: A frame that did not come by a look at the sockets waits at most this long for more, for example
#: a frame that was held until its stream was open.
FLUSH_SECONDS: Final = 0.01


class StreamSocket:
    """The handler of one socket, whose place among all is ``applicant``."""

    def __init__(self, shell: Shell, applicant: Applicant) -> None:
        self.number = applicant.number
        self.protocol = ms.MediaStream()
        self.pace = Pace(shell.clock(), shell.jitter)
        #: the pace of the outbound track, where the stream brings one
        self._second_pace = Pace(shell.clock(), shell.jitter)
        self.socket: WebSocket | None = None
        #: the open stream's span, where its call is traced
        self.span: tracing.RoomSpan | None = None
        #: writes to the call's cassette; None: nobody wants one
        self.tape = None if shell.cassettes is None else shell.cassettes.tape()
        self._shell = shell
        self._applicant = applicant

    @property
    def is_open(self) -> bool:
        return self.socket is not None and self.socket.is_open

    def opened(self, socket: WebSocket) -> None:
        self.socket = socket

    def text(self, data: bytes) -> None:
        self._take_in(self._receive(data))

    def two_texts(self, first: bytes, second: bytes) -> None:
        """Two messages that were read together. If both are frames of an open stream, and they
        continue what came before without a gap, they are one frame of 40 ms from here on. Otherwise
        they are taken one after the other."""
        one = self._receive(first)
        if (
            type(one) is not ms.Media
            or self._applicant.state != "live"
            or one.position != self.pace.next
            or one.outbound
            or len(one.payload) != FRAME
        ):
            self._take_in(one)
            if self.is_open:
                self.text(second)
            return
        other = self._receive(second)
        if (
            type(other) is ms.Media
            and other.position == one.position + FRAME
            and not other.outbound
            and len(other.payload) == FRAME
        ):
            self._take_in(ms.Media(one.position, one.payload + other.payload))
            return
        self._take_in(one)
        if self.is_open:
            self._take_in(other)

    def _receive(self, data: bytes) -> ms.Event | None:
        if self.tape is not None:
            self.tape.heard(data)
        return self.protocol.receive(data)

    def _take_in(self, event: ms.Event | None) -> None:
        if type(event) is ms.Media and self._applicant.state == "live" and not event.outbound:
            # Nearly every event is a frame. Frames skip the checks that the others need.
            shell = self._shell
            verdict = self.pace.judge(event, shell.clock())
            if verdict == "fine":
                if shell.streams.media(self.number, event.position, event.payload):
                    shell.flush_within(FLUSH_SECONDS)
            else:
                self._wrong(verdict)
        else:
            self._came(event)

    def binary(self) -> None:
        self._came(self.protocol.binary())

    def too_long(self) -> None:
        self._came(self.protocol.too_long())

    def no_message(self) -> None:
        self._came(None)

    def closed(self, clean: bool) -> None:
        self._shell.ended(self.number, "close" if clean else "error")
        self._shell.disconnected(self.number)

    def _came(self, event: ms.Event | None) -> None:
        """A message came. ``event`` is what it means, None if it means nothing."""
        if self.protocol.started:
            second = type(event) is ms.Media and event.outbound
            pace = self._second_pace if second else self.pace
            verdict = pace.judge(event, self._shell.clock())
            if verdict != "fine":
                self._wrong(verdict)
                return
        if event is None:
            return
        if self._applicant.state == "live":
            self.take(event)
        else:
            self._heard(event)

    def _wrong(self, verdict: Verdict) -> None:
        if verdict == "too fast":
            self._shell.apply(self._shell.admission.too_fast(self.number))
        else:
            self.protocol.bad["timestamp"] += 1

    def take(self, event: ms.Event) -> None:
        """An event of the open stream."""
        shell, number = self._shell, self.number
        if type(event) is ms.Media:
            number = -number if event.outbound else number
            if shell.streams.media(number, event.position, event.payload):
                shell.flush_within(FLUSH_SECONDS)
        elif isinstance(event, ms.Dtmf):
            shell.digit(number, event)
        elif isinstance(event, ms.MarkReturned):
            shell.apply(shell.streams.mark_returned(number, event.name))
        else:
            self._heard(event)

    def _heard(self, event: ms.Event) -> None:
        shell = self._shell
        shell.apply(shell.admission.heard(self.number, event, shell.clock()))
