"""The attackers of the hostile suite: one process each, on the loopback, at the lowest priority.

Started with one JSON object: ``attack`` (a name of :data:`ATTACKS`), ``seconds``, ``seed``, the
public ``port``, the ``bus`` (its directory) and what the attacker has captured: requests with their
signatures, and the tokens of streams. It uses no auth token. It prints ``{"done": …}`` with how
many attempts it made and how each ended, by name::

    {"done": "half bodies", "outcomes": {"closed": 96, "408": 4}}

An attempt was *refused* unless its outcome is one of :data:`LET_IN` or :data:`HARMLESS`. Every
attempt ends: the attacker waits :data:`PATIENCE` seconds for the other side to end it, and says
``kept`` where it did not.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
import resource
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import uvloop

from benchmarks.hostile_bus import rogue
from benchmarks.protocol import say
from trunkline.bus.refusals import Kind
from trunkline.bus.twilio_urls import STATUS_PATH, STREAM_PATH, VOICE_PATH

#: Seconds that an attacker waits for the end of each attempt.
PATIENCE: Final = 25.0
#: Outcomes of attempts that got what they wanted.
LET_IN: Final = frozenset(("kept", "stream", "200", "204"))
#: Outcomes of messages that any peer may send: they cost memory, which is bounded.
HARMLESS: Final = frozenset(("held", "told to say Hello"))
#: An outcome that the kernel decides, so that nothing of ours can count it.
NOT_OURS: Final = "no connection"
ROGUE: Final = "rogue on the bus"
#: Sockets that one attacker has open at most.
MOST: Final = 4_000
#: One message of a started stream: 20 ms of silence.
_MEDIA: Final = (
    '{"event":"media","sequenceNumber":"%d","media":{"track":"inbound","chunk":"%d",'
    '"timestamp":"%d","payload":"' + base64.b64encode(b"\xff" * 160).decode() + '"},'
    '"streamSid":"%s"}'
)

#: What goes on being sent on a connection.
More = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Attacker:
    """What all attacks have: the target, what was captured, and the outcomes so far."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.port: int = order["port"]
        self.host = f"127.0.0.1:{self.port}"
        self.bus = Path(order["bus"])
        self.rng = random.Random(f"{order['seed']} {order['attack']}")
        #: signed requests that were seen: ``path`` with query, ``form``, ``signature``
        self.captured: list[dict[str, Any]] = order["captured"]
        #: the signature of a WebSocket upgrade: the same for each of them, as their URL is
        self.upgrade_signature: str = order["upgrade_signature"]
        #: streams of other people's calls: ``call_sid``, ``nonce``
        self.streams: list[dict[str, str]] = order["streams"]
        #: ids that stand in the log and in the status: gateways, workers, sessions
        self.peers: dict[str, list[str]] = order["peers"]
        self.outcomes: Counter[str] = Counter()
        self.until = asyncio.get_running_loop().time() + order["seconds"]
        self._room = asyncio.Semaphore(MOST)

    @property
    def goes_on(self) -> bool:
        left: float = self.until - asyncio.get_running_loop().time()
        return left > 0

    # ------------------------------------------------------------------ requests

    def post(self, path: str, body: bytes, *headers: str, length: int | None = None) -> bytes:
        """A webhook as Twilio would send it, but for what is wrong with it."""
        length = len(body) if length is None else length
        head = [f"POST {path} HTTP/1.1", f"Host: {self.host}", f"Content-Length: {length}"]
        if not any(header.lower().startswith("content-type") for header in headers):
            head.append("Content-Type: application/x-www-form-urlencoded")
        return ("\r\n".join([*head, *headers, "", ""])).encode() + body

    def upgrade(self) -> bytes:
        """The captured upgrade, once more."""
        return (
            f"GET {STREAM_PATH} HTTP/1.1\r\nHost: {self.host}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(self.rng.randbytes(16)).decode()}\r\n"
            f"X-Twilio-Signature: {self.upgrade_signature}\r\n\r\n"
        ).encode()

    # ------------------------------------------------------------------ attempts

    async def attempt(self, data: bytes, more: More | None = None, *, then: bytes = b"") -> None:
        """Connect, send, go on with ``more``, and wait for the other side's end of it.

        ``then`` follows once the connection is a WebSocket, and ``more`` after that: what comes in
        one piece with an upgrade's head is lost, as no peer sends before it has the answer.
        """
        async with self._room:
            self.outcomes[await self._outcome(data, more, then)] += 1

    async def _outcome(self, data: bytes, more: More | None, then: bytes) -> str:
        try:
            async with asyncio.timeout(PATIENCE):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except (OSError, TimeoutError):
            return NOT_OURS
        sending: asyncio.Future[None] | None = None
        answer = b""
        try:
            writer.write(data)
            async with asyncio.timeout(PATIENCE + (0 if more is None else 60)):
                if then:
                    answer = await reader.readuntil(b"\r\n\r\n")
                    writer.write(then)
                if more is not None:
                    sending = asyncio.ensure_future(more(writer))
                while piece := await reader.read(65_536):
                    answer = (answer + piece)[:4_096]
                    if whole := _answered(answer):
                        return whole
        except TimeoutError:
            return "kept"
        except (OSError, asyncio.IncompleteReadError):
            pass  # a reset is an end, too
        finally:
            if sending is not None:
                sending.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await sending
            writer.transport.abort()
        return "closed"

    async def crowd(self, size: int, attempts: Iterator[Awaitable[None]]) -> None:
        """``size`` attackers make one attempt after the other while there is time."""

        async def one() -> None:
            for attempt in attempts:
                await attempt
                if not self.goes_on:
                    return

        await asyncio.gather(*(one() for _ in range(size)))

    async def stream_in(self, rate: float, attempts: Iterator[Awaitable[None]], most: int) -> None:
        """Begin ``rate`` attempts a second while there is time, ``most`` of them at most, and wait
        for the end of all."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        running: set[asyncio.Future[None]] = set()
        for count, attempt in enumerate(attempts, 1):
            running.add(asyncio.ensure_future(attempt))
            await asyncio.sleep(max(0.0, began + count / rate - loop.time()))
            if not self.goes_on or count >= most:
                break
        await asyncio.gather(*running)


def _answered(answer: bytes) -> str:
    """How a whole answer ends the attempt; "" while there is more to come."""
    head, end, rest = answer.partition(b"\r\n\r\n")
    if not end:
        return ""
    status = head.split(b" ", 2)[1].decode("latin-1")
    if status != "101":
        if b"content-length: 0" in head.lower() or rest or status == "204":
            return "stream" if b"<Stream" in rest else "hung up" if status == "200" else status
        return ""
    # A close frame: the code that it gives.
    at = rest.rfind(b"\x88")
    return "" if at < 0 or len(rest) < at + 4 else str(int.from_bytes(rest[at + 2 : at + 4], "big"))


def text_frame(data: bytes) -> bytes:
    """One masked WebSocket text message; its mask is zero."""
    size = len(data)
    if size < 126:
        return bytes((0x81, 0x80 | size)) + bytes(4) + data
    if size < 65_536:
        return b"\x81\xfe" + size.to_bytes(2, "big") + bytes(4) + data
    return b"\x81\xff" + size.to_bytes(8, "big") + bytes(4) + data


def start_frame(call_sid: str, stream_sid: str, nonce: str) -> bytes:
    """``connected`` and ``start``, as Twilio sends them."""
    start = {
        "event": "start",
        "sequenceNumber": "1",
        "start": {
            "accountSid": "AC" + "0" * 32,
            "streamSid": stream_sid,
            "callSid": call_sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {"nonce": nonce},
        },
        "streamSid": stream_sid,
    }
    connected = {"event": "connected", "protocol": "Call", "version": "1.0.0"}
    return b"".join(text_frame(json.dumps(message).encode()) for message in (connected, start))


def sid(rng: random.Random, prefix: str) -> str:
    return prefix + rng.randbytes(16).hex()


# --------------------------------------------------------------------------- the attacks


async def unsigned(a: Attacker) -> None:
    """Webhooks that nobody has signed, or that somebody has signed for something else."""
    captured = a.captured[0]

    def attempts() -> Iterator[Awaitable[None]]:
        while True:
            form = urlencode({**captured["form"], "CallSid": sid(a.rng, "CA")}).encode()
            right = f"X-Twilio-Signature: {captured['signature']}"
            wrong = f"X-Twilio-Signature: {base64.b64encode(a.rng.randbytes(20)).decode()}"
            yield a.attempt(a.post(VOICE_PATH, form))
            yield a.attempt(a.post(VOICE_PATH, form, wrong))
            yield a.attempt(a.post(VOICE_PATH, form, right))
            yield a.attempt(a.post(STATUS_PATH, form, right))
            yield a.attempt(a.post(VOICE_PATH, b"{", "Content-Type: application/json", wrong))
            yield a.attempt(a.post(VOICE_PATH, b"\xff\xfe=%zz", wrong))

    await a.crowd(20, attempts())


async def half_bodies(a: Attacker) -> None:
    """Unsigned webhooks whose body stays half."""

    def attempts() -> Iterator[Awaitable[None]]:
        while True:
            yield a.attempt(a.post(VOICE_PATH, b"CallSid=CA", length=1_000))

    await a.stream_in(100.0, attempts(), 4_000)


async def slow_loris(a: Attacker) -> None:
    """Requests whose head comes a byte a second and has no end."""

    async def drip(writer: asyncio.StreamWriter) -> None:
        while True:
            await asyncio.sleep(1.0)
            writer.write(b"x")

    def attempts() -> Iterator[Awaitable[None]]:
        while True:
            yield a.attempt(f"POST {VOICE_PATH} HTTP/1.1\r\nX-Slow: ".encode(), drip)

    await a.stream_in(400.0, attempts(), 600)


async def idle(a: Attacker) -> None:
    """2,500 connections on which nothing is ever said."""

    def attempts() -> Iterator[Awaitable[None]]:
        while True:
            yield a.attempt(b"")

    await a.stream_in(2_000.0, attempts(), 2_500)


async def no_start(a: Attacker) -> None:
    """2,000 sockets, each with the captured upgrade, on which no ``start`` comes."""

    def attempts() -> Iterator[Awaitable[None]]:
        while True:
            yield a.attempt(a.upgrade())

    await a.stream_in(1_000.0, attempts(), 2_000)


async def big_messages(a: Attacker) -> None:
    """Messages of 1 MB on sockets that have not been let in."""
    message = text_frame(b"[" * 1_000_000)

    def attempts() -> Iterator[Awaitable[None]]:
        while True:
            yield a.attempt(a.upgrade(), then=message)

    await a.crowd(10, attempts())


async def tokens(a: Attacker) -> None:
    """``start`` messages with a token that is wrong, empty, used up, or another call's."""
    used, other = a.streams[0], a.streams[-1]

    def attempts() -> Iterator[Awaitable[None]]:
        while True:
            for call_sid, nonce in (
                (used["call_sid"], a.rng.randbytes(16).hex()),
                (used["call_sid"], ""),
                (used["call_sid"], used["nonce"]),
                (other["call_sid"], used["nonce"]),
                (sid(a.rng, "CA"), other["nonce"]),
                ("CA" + "9" * 1_000, "x" * 10_000),
            ):
                start = start_frame(call_sid, sid(a.rng, "MZ"), nonce)
                yield a.attempt(a.upgrade(), then=start)

    await a.crowd(10, attempts())


async def replays(a: Attacker) -> None:
    """Captured webhooks of calls that are over: as they were, and with their fields split anew, so
    that the same signature holds over another CallSid."""

    def attempts() -> Iterator[Awaitable[None]]:
        while True:
            for seen in a.captured:
                header = f"X-Twilio-Signature: {seen['signature']}"
                body = urlencode(seen["form"]).encode()
                yield a.attempt(a.post(seen["path"], body, header))
                form = dict(seen["form"])
                form["CallSid"] += "CallStatus" + form.pop("CallStatus", "")
                yield a.attempt(a.post(seen["path"], urlencode(form).encode(), header))

    await a.crowd(5, attempts())


async def upgrade_storm(a: Attacker) -> None:
    """The captured upgrade, again and again, each with a made-up token."""

    def attempts() -> Iterator[Awaitable[None]]:
        while True:
            start = start_frame(sid(a.rng, "CA"), sid(a.rng, "MZ"), a.rng.randbytes(16).hex())
            yield a.attempt(a.upgrade(), then=start)

    await a.crowd(500, attempts())


def flood(rate: float) -> Callable[[Attacker], Awaitable[None]]:
    """A stream that was let in by a stolen token and sends at ``rate`` times real time; 0: as fast
    as the socket takes it."""

    async def run(a: Attacker) -> None:
        stolen = a.streams.pop()
        stream_sid = sid(a.rng, "MZ")

        async def send(writer: asyncio.StreamWriter) -> None:
            loop = asyncio.get_running_loop()
            began, sent = loop.time(), 0
            while True:
                due = 500 if not rate else int((loop.time() - began) * 50 * rate) - sent
                for _ in range(due):
                    sent += 1
                    text = _MEDIA % (sent + 1, sent, sent * 20, stream_sid)
                    writer.write(text_frame(text.encode()))
                await writer.drain()
                if rate:
                    await asyncio.sleep(0.02)

        start = start_frame(stolen["call_sid"], stream_sid, stolen["nonce"])
        await a.attempt(a.upgrade(), send, then=start)

    return run


async def bus(a: Attacker) -> None:
    """A process of the same user on the bus that says what no peer of ours would."""
    for outcome in rogue(a.bus, a.peers, a.rng):
        a.outcomes[outcome] += 1
        if not a.goes_on:
            return


ATTACKS: Final[dict[str, Callable[[Attacker], Awaitable[None]]]] = {
    "unsigned webhooks": unsigned,
    "half bodies": half_bodies,
    "slow loris": slow_loris,
    "2,500 idle sockets": idle,
    "2,000 sockets without start": no_start,
    "1 MB messages": big_messages,
    "wrong and stolen tokens": tokens,
    "replays": replays,
    "signed upgrade storm": upgrade_storm,
    "flood at 100 times real time": flood(100.0),
    "flood at full speed": flood(0.0),
    ROGUE: bus,
}

#: The kind of refusal (bus/refusals.py) that an attack is there to cause. A run without one of it
#: fails, because then the attack did not come as far as it should.
CAUSES: Final[dict[str, Kind]] = {
    "unsigned webhooks": "wrong signature",
    "half bodies": "too slow",
    "slow loris": "too slow",
    "2,500 idle sockets": "too slow",
    "2,000 sockets without start": "no start",
    "1 MB messages": "bad start",
    "wrong and stolen tokens": "wrong token",
    "replays": "odd fields",
    "signed upgrade storm": "wrong token",
    "flood at 100 times real time": "too fast",
    "flood at full speed": "too fast",
}


def many_descriptors() -> None:
    """Have as many descriptors as there may be."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000), hard))


async def main(order: dict[str, Any]) -> None:
    attacker = Attacker(order)
    await ATTACKS[order["attack"]](attacker)
    say(done=order["attack"], outcomes=dict(attacker.outcomes))


if __name__ == "__main__":
    many_descriptors()
    uvloop.run(main(json.loads(sys.argv[1])))
