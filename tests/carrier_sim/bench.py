"""Call control and one stream, on a clock that the test turns, with a shell that takes notes."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

from trunkline.carrier_sim.account import CallOptions
from trunkline.carrier_sim.beliefs import Beliefs
from trunkline.carrier_sim.bots import Silence
from trunkline.carrier_sim.call import Call
from trunkline.carrier_sim.circuit import TICK_SECONDS
from trunkline.carrier_sim.exchange import Exchange, Fetched
from trunkline.carrier_sim.far_ends import Bot, start_bot
from trunkline.carrier_sim.judge import Judge
from trunkline.carrier_sim.leg import Fetch
from trunkline.carrier_sim.numbers import Number, number_sid
from trunkline.carrier_sim.options import Options
from trunkline.carrier_sim.stream import Stream
from trunkline.carrier_sim.twiml import Stream as StreamVerb

OURS, OTHER = "+14155551234", "+14155554321"
CALLER, CALLEE = "+14155550000", "+14155557777"
SID, CALL, ACCOUNT = "MZ" + "a" * 32, "CA" + "b" * 32, "AC" + "c" * 32
CONNECT = '<Response><Connect><Stream url="wss://h/s"/></Connect>{}</Response>'


class Bench:
    """The exchange, its clock, and its requests to the network. Takes the fields of Options."""

    def __init__(self, **options: Any) -> None:
        self.now = 100.0
        self.fetches: list[tuple[Call, Fetch, int]] = []
        self.opened: list[tuple[Call, Stream]] = []
        #: by stream, its messages to the server
        self.sent: defaultdict[str, list[bytes]] = defaultdict(list)
        self.closed: list[Stream] = []
        self.callbacks: list[tuple[str, str, str]] = []
        #: numbers that were called and that nobody has
        self.strangers: list[str] = []
        self.judge = Judge(lambda: self.now)
        self.x = Exchange("AC1", Options(**options), self.judge, self, lambda: 1e9 + self.now)
        for phone in (OURS, OTHER):
            self.x.numbers[phone] = Number(
                sid=number_sid(phone), phone_number=phone, voice_url=f"https://h/{phone[-4:]}"
            )

    # The exchange's shell

    def fetch(self, call: Call, fetch: Fetch, fetch_id: int) -> None:
        self.fetches.append((call, fetch, fetch_id))

    def open_stream(self, call: Call, stream: Stream) -> None:
        self.opened.append((call, stream))
        stream.send = self.sent[stream.sid].append
        stream.opened(self.now)

    def close_stream(self, stream: Stream) -> None:
        self.closed.append(stream)

    def status_callback(self, call: Call, event: str, status: str) -> None:
        self.callbacks.append((call.sid, event, status))

    def nobody_has(self, number: str) -> None:
        self.strangers.append(number)

    def wake(self) -> None:
        """The test turns the clock, which has every tick."""

    # The test's side

    def answer(self, text: str, content_type: str = "text/xml") -> None:
        """The oldest webhook is answered."""
        self._fetched(Fetched(text.encode(), content_type))

    def fail(self, code: int = 11200) -> None:
        self._fetched(Fetched(code=code, text="no"))

    def _fetched(self, result: Fetched) -> None:
        call, fetch, fetch_id = self.fetches.pop(0)
        self.x.fetched(call, fetch, fetch_id, result, self.now)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK_SECONDS)):
            self.now += TICK_SECONDS
            self.x.tick(self.now)

    def inbound(self, bot: Bot | None = None) -> Call:
        return self.x.inbound(CALLER, OURS, bot or start_bot(Silence()), self.now)

    def outbound(self, to: str, twiml: str = CONNECT.format(""), **options: Any) -> Call:
        return self.x.outbound(OURS, to, CallOptions(twiml=twiml, **options), self.now)

    def events(self, call: Call) -> list[str]:
        return [status for sid, _, status in self.callbacks if sid == call.sid]

    def over(self, call: Call, how: str = "close") -> None:
        """The call's newest stream ends: by the server's close, as a rule."""
        call.streams[-1].end(self.now, how)
        self.x.streams.over(call, call.streams[-1], self.now)


class Socket:
    """A stream that is open, 3 s after its call began, and the messages that it sends."""

    def __init__(self, *contradicted: str) -> None:
        self.sent: list[dict[str, Any]] = []
        self.judge = Judge(lambda: 0.0)
        self.stream = Stream(
            SID,
            CALL,
            ACCOUNT,
            StreamVerb("wss://h/s", parameters={"nonce": "n1", "x": "<&>"}),
            self.judge,
            beliefs=Beliefs(contradicted),
            call_began=7.0,
        )
        self.stream.send = lambda message: self.sent.append(json.loads(message))
        self.stream.opened(10.0)

    def events(self, name: str) -> list[dict[str, Any]]:
        return [message[name] for message in self.sent if message["event"] == name]

    def tell(self, message: object) -> None:
        """The server sends this text, or this as JSON."""
        text = message if isinstance(message, str) else json.dumps(message)
        self.stream.message(text.encode(), 10.0)

    def say(self, event: str, **body: object) -> None:
        self.tell({"event": event, "streamSid": SID, **body})

    def hear(self, sound: bytes, now: float = 10.0) -> None:
        assert self.stream.playback.add(now, sound)

    def mark(self, name: str) -> None:
        self.say("mark", mark={"name": name})

    @property
    def marks(self) -> list[str]:
        return [mark["name"] for mark in self.events("mark")]
