"""The streams of all calls: how one is opened or refused, and how its call goes on after its end.

No I/O. ``CallStreams`` makes a stream and asks the exchange's shell to connect it. A stream whose
URL Twilio would not take is refused at once, with Twilio's error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import twiml
from .call import Call
from .stream import Stream, check_url

if TYPE_CHECKING:
    from .exchange import Exchange


class CallStreams:
    """Opens the streams of an exchange's calls, and hears of their end."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        #: All streams by SID, oldest first.
        self.by_sid: dict[str, Stream] = {}

    def open(self, call: Call, verb: twiml.Stream, now: float) -> None:
        """Open the stream that <Connect> asks for."""
        stream = self._new(call, verb)
        call.leg.stream_started(stream)
        if self._refuse(call, stream, now):
            call.leg.stream_over(now)
        else:
            self._exchange.shell.open_stream(call, stream)

    def open_later(self, call: Call, verb: twiml.Stream, when: float) -> None:
        """Open the stream at ``when``, if <Connect> still waits for it then."""

        def open_it(now: float) -> None:
            if call.leg.connecting is verb:
                self.open(call, verb, now)
                self._exchange.settle(call, now)

        self._exchange.at(when, open_it)

    def open_side(self, call: Call, verb: twiml.Stream, now: float, *, again: bool = False) -> None:
        """Open a one-way stream. It takes a while to begin (habit ``one-way-start``). ``again``: it
        takes the place of one that the server has closed."""
        exchange = self._exchange
        stream = self._new(call, verb, one_way=True)
        stream.again = again
        stream.altered = not exchange.beliefs.hold("streams-alike")
        if self._refuse(call, stream, now):
            return
        call.leg.side_started(stream)

        def connect(at: float) -> None:
            if stream in call.leg.sides:
                exchange.shell.open_stream(call, stream)

        exchange.at(now + float(exchange.habits.draw("one-way-start")), connect)

    def close(self, stream: Stream, now: float, *, moved: bool) -> None:
        """The carrier ends a stream. ``moved``: a new document does."""
        if moved and not self._exchange.beliefs.hold("update-sends-stop"):
            stream.end(now, "stop")
        else:
            stream.stop(now)
        self._exchange.shell.close_stream(stream)

    def over(self, call: Call, stream: Stream, now: float) -> None:
        """The socket is gone: closed by the server, broken, or never there."""
        leg, beliefs = call.leg, self._exchange.beliefs
        if leg.stream is stream:
            how = {"close": "close", "broken": "break"}.get(stream.ended_by, "refusal")
            if beliefs.hold(f"next-verb-after-{how}"):
                leg.stream_over(now)
            else:
                leg.hang_up("completed", f"stream-{how}")
            self._exchange.settle(call, now)
        elif stream in leg.sides:
            leg.sides.remove(stream)
            ends = stream.again or beliefs.hold("one-way-close-ends")
            if not ends and stream.ended_by == "close":
                self.open_side(call, stream.verb, now, again=True)

    def _new(self, call: Call, verb: twiml.Stream, *, one_way: bool = False) -> Stream:
        exchange = self._exchange
        stream = Stream(
            exchange.sids.new("MZ"),
            call.sid,
            exchange.account_sid,
            verb,
            exchange.judge,
            one_way=one_way,
            beliefs=exchange.beliefs,
            call_began=call.record.created_at,
            timestamps=exchange.habits.draw("timestamps"),
            first_timestamp=int(exchange.habits.draw("first-timestamp")),
        )
        call.streams.append(stream)
        self.by_sid[stream.sid] = stream
        return stream

    def _refuse(self, call: Call, stream: Stream, now: float) -> bool:
        """End a stream whose URL Twilio would not take, with its error. True: it was refused."""
        allow_ws = self._exchange.options.allow_ws
        refused = check_url(stream.verb, allow_ws, one_way=stream.one_way)
        if refused is None:
            return False
        code, text = refused
        self._exchange.judge.error(code, text, call_sid=call.sid, stream_sid=stream.sid)
        stream.end(now, f"error {code}")
        return True
