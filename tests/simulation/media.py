"""One Media Stream between the simulated carrier and a gateway: the carrier's end of it.

Sound that comes is played one after the other; what lies unplayed when the stream breaks, or at a
``clear``, is never heard. What the person says is a run of mu-law codes that names its own place.
"""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from trunkline.gateway.stream_socket import StreamSocket

if TYPE_CHECKING:
    from .exchange import Exchange, Leg
    from .peers import GatewayPeer

RATE: Final = 8000
#: Sound of the person comes in frames of this length (seconds).
FRAME: Final = 0.1
_SAMPLES: Final = int(RATE * FRAME)


@dataclass(frozen=True)
class LetIn:
    """A stream that was let in: its call, and which of the call's streams it is; where in the
    person's sound it begins, and was let in."""

    call: str
    ordinal: int
    base: int
    accepted: int


class WebSocketEnd:
    """What a StreamSocket needs of its WebSocket."""

    def __init__(self, media: Media) -> None:
        self._media = media
        self.is_open = True

    def believe(self) -> None:
        """Larger messages are let in from now on: nothing to do here."""

    def read_out(self) -> None:
        """Nothing waits here: what was sent is handed over at its time."""

    def send_text(self, text: bytes) -> None:
        if self.is_open:
            self._media.to_carrier(text)

    def close(self, code: int) -> None:
        if self.is_open:
            self.is_open = False
            self._media.closed_by_gateway()

    def drop(self) -> None:
        raise AssertionError("a stream that does as carriers do is never cut off")


class Media:
    """A stream of ``leg`` at ``gateway``. ``over`` is set when it is gone, to how."""

    def __init__(self, exchange: Exchange, leg: Leg, gateway: GatewayPeer, token: str) -> None:
        self.exchange = exchange
        self.leg = leg
        self.gateway = gateway
        loop = exchange.loop
        self.over: asyncio.Future[str] = loop.create_future()
        self.began = loop.time()
        self.sid = f"MZ{leg.sid[6:]}{leg.streams:04x}"
        gateway.shell.media[self.sid] = self
        #: index of the person's sound at which the stream begins
        self.base = leg.index(self.began)
        self._frames = 0
        self._up = self._down = self.began
        self._delay = exchange.rng.uniform(0.001, 0.02)
        self._playing: list[tuple[float, bytes]] = []
        self._play_until = self.began
        self._marks: dict[str, asyncio.TimerHandle] = {}
        self._web = WebSocketEnd(self)
        self._end: StreamSocket | None = None
        gateway.process.on_death.append(self._gateway_died)
        self._at_gateway(self._open)
        self._send({"event": "connected", "protocol": "Call", "version": "1.0.0"})
        start = {
            "streamSid": self.sid,
            "callSid": leg.sid,
            "customParameters": {"nonce": token},
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        }
        self._send({"event": "start", "sequenceNumber": "1", "start": start, "streamSid": self.sid})
        self._timer = loop.call_later(FRAME, self._speak)

    def let_in(self, call: str, ordinal: int) -> None:
        """The controller let the stream in, as one of ``call``."""
        here = LetIn(call, ordinal, self.base, self.leg.index(self.exchange.loop.time()))
        self.leg.let_in.append(here)

    # ------------------------------------------------------------------ to the gateway

    def _at_gateway(self, work: Any, *args: Any) -> None:
        loop = self.exchange.loop
        self._up = max(self._up, loop.time() + self._delay * self.exchange.rng.uniform(0.5, 1.5))
        loop.call_at(self._up, work, *args, context=self.gateway.process.context.copy())

    def _open(self) -> None:
        shell = self.gateway.shell
        self._end = shell.connect()
        assert self._end is not None
        self._end.opened(self._web)  # type: ignore[arg-type]  # what it uses of a WebSocket

    def _send(self, message: dict[str, Any]) -> None:
        self._at_gateway(self._text, json.dumps(message).encode())

    def _text(self, text: bytes) -> None:
        if self._end is not None and self._web.is_open:
            self._end.text(text)

    def _speak(self) -> None:
        if self.over.done():
            return
        position = self._frames * _SAMPLES
        self._frames += 1
        start = self.base + position
        payload = self.leg.says(start, start + _SAMPLES)
        media = {
            "timestamp": str(position // 8),
            "track": "inbound",
            "payload": base64.b64encode(payload).decode(),
        }
        self._send({"event": "media", "media": media, "streamSid": self.sid})
        self._timer = self.exchange.loop.call_at(
            self.began + (self._frames + 1) * FRAME, self._speak
        )

    def press(self, digit: str) -> None:
        """The person presses a key."""
        self._send({"event": "dtmf", "dtmf": {"digit": digit}, "streamSid": self.sid})

    # ------------------------------------------------------------------ from the gateway

    def to_carrier(self, text: bytes) -> None:
        self._later(self._received, text)

    def _later(self, work: Any, *args: Any) -> None:
        loop = self.exchange.loop
        self._down = max(
            self._down, loop.time() + self._delay * self.exchange.rng.uniform(0.5, 1.5)
        )
        loop.call_at(self._down, work, *args, context=loop.world.context.copy())

    def _received(self, text: bytes) -> None:
        if self.over.done():
            return
        message = json.loads(text)
        now = self.exchange.loop.time()
        if message["event"] == "media":
            payload = base64.b64decode(message["media"]["payload"])
            start = max(now, self._play_until)
            self._playing.append((start, payload))
            self._play_until = start + len(payload) / RATE
        elif message["event"] == "mark":
            name = message["mark"]["name"]
            at = max(now, self._play_until)
            self._marks[name] = self.exchange.loop.call_at(at, self._return_mark, name)
        else:
            assert message["event"] == "clear", message
            self._cut(now)
            for name, timer in list(self._marks.items()):
                timer.cancel()
                self._return_mark(name)

    def _return_mark(self, name: str) -> None:
        self._marks.pop(name, None)
        if not self.over.done():
            self._send({"event": "mark", "mark": {"name": name}, "streamSid": self.sid})

    def _cut(self, now: float) -> None:
        """What has been played by now was heard; the rest never is."""
        for start, payload in self._playing:
            played = payload[: max(0, round((now - start) * RATE))]
            if played:
                self.leg.heard.append(played)
        self._playing.clear()
        self._play_until = now

    # ------------------------------------------------------------------ its end

    def stop(self) -> None:
        """The call is over, or goes on with another verb: Twilio says ``stop`` and closes."""
        self._finish("stop")
        self._send({"event": "stop", "streamSid": self.sid})
        self._at_gateway(self._lost, True)

    def closed_by_gateway(self) -> None:
        self._later(self._finish, "close")
        self._at_gateway(self._lost, True)

    def _gateway_died(self) -> None:
        seen = self.exchange.rng.uniform(0.001, self.exchange.sees_dead_within)
        loop = self.exchange.loop
        loop.call_later(seen, self._finish, "error", context=loop.world.context.copy())

    def broken(self) -> None:
        """The network between Twilio and the gateway breaks."""
        self._finish("error")
        self._at_gateway(self._lost, False)

    def _lost(self, clean: bool) -> None:
        self._web.is_open = False
        end, self._end = self._end, None
        if end is not None:
            end.closed(clean)

    def _finish(self, how: str) -> None:
        if self.over.done():
            return
        # At the end of a call the buffer is cut off; a person who hangs up hears no more.
        self._cut(self.exchange.loop.time())
        self._timer.cancel()
        for timer in self._marks.values():
            timer.cancel()
        self.over.set_result(how)
