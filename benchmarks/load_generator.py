"""Twilio's part of many calls, as lean as Python has it: the carrier of the benchmarks.

    python benchmarks/load_generator.py --port 9080 --sound speech

One process, one thread while there is sound. It answers as much REST as a call needs, opens the
Media Stream that the call's TwiML names, sends a frame every 20 ms on it, and notes when each
message of the other side arrived. carrier_sim plays Twilio faithfully; this plays it cheaply, so
that the two cores belong to what is measured.

Rules:

- Frames are due at absolute times. The calls are spread over :data:`PHASES` moments of the 20 ms,
  because Twilio's calls do not beat together either.
- An arrival is the moment at which the *kernel* took it in (SO_TIMESTAMPNS), and not the moment at
  which this process got round to reading it. Where two messages of one stream are read at once,
  both count as having come with the later one. So a load generator that is late can make the
  other side look worse than it is, and never better.
- Messages are kept as they came and read after the measurement (arrivals.py).
- It knows its own CPU time, and how late its ticks were: a load generator that is the bottleneck
  has to say so.

REST runs in threads of its own, which sleep while the calls talk. Orders come as lines of JSON on
stdin, each answered by one line on stdout (see :class:`LoadGenerator`). Linux only.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import queue
import resource
import select
import socket
import struct
import sys
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit
from xml.etree import ElementTree

sys.path.insert(0, str(Path(__file__).parent.parent))

import click
import msgspec

from benchmarks import chaos_code
from trunkline.carrier_sim import mulaw, wav, ws_frames
from trunkline.carrier_sim.signature import sign
from trunkline.carrier_sim.stream_messages import CONNECTED, Writer

FRAME_SECONDS: Final = 0.020
#: Moments within 20 ms at which calls send; a call stays at its own.
PHASES: Final = 10
STEP: Final = FRAME_SECONDS / PHASES
#: With few calls it still looks up every 10 ms.
IDLE_STEPS: Final = 5
#: Up to so many streams every arrival is read at once. With more of them reading waits for the next
#: tick, because a wake-up for each message would cost more than the message.
FEW: Final = 10
#: What may lie unread at the other side: 30 s of sound. One that does not read for so long is gone.
SEND_BUFFER: Final = 1 << 20

NS_PER_SAMPLE: Final = 125_000

_SO_TIMESTAMPNS: Final = 35
_TIMESPEC: Final = struct.Struct("qq")
_ANCILLARY: Final = 64


# ------------------------------------------------------------------------------ a stream


class Stream:
    """One Media Stream. ``sound``: its frames, played in a loop from ``place`` on."""

    def __init__(
        self, sock: socket.socket, sound: list[bytes], place: int, call_sid: str, account: str
    ) -> None:
        self.call_sid = call_sid
        #: when each frame since the stream began was sent, in ns
        self.sent_at = array("q")
        #: arrivals since the last ``begin``: the kernel's time in ns, the samples, and the text
        self.times = array("q")
        self.sizes = array("q")
        self.texts: list[bytes] = []
        #: keep the texts; else only their times and sizes are kept
        self.keeps = True
        #: when a ``clear`` arrived
        self.clears = array("q")
        self.sock = sock
        self.open = True
        #: its call was hung up
        self.stopping = False
        self._sound = itertools.cycle(sound[place % len(sound) :] + sound[: place % len(sound)])
        self._writer = Writer("MZ" + os.urandom(16).hex(), call_sid, account)
        self._reader = ws_frames.FrameReader()
        #: the kernel's time at which all that arrived will have been played, and the marks in it
        self._played = 0
        self._marks: deque[tuple[int, str]] = deque()
        #: characters of a media message that are not its payload
        self._around = 0
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def start(self, parameters: dict[str, str]) -> None:
        """``connected`` and ``start``."""
        self._write(ws_frames.frame(CONNECTED))
        self._write(ws_frames.frame(self._writer.start(parameters)))

    def send_frame(self) -> None:
        """The next 20 ms."""
        now = time.time_ns()
        media = self._writer.media(next(self._sound), len(self.sent_at) * 20)
        self._write(ws_frames.frame(media))
        self.sent_at.append(now)
        if self._marks:
            self._return_marks(now)

    def stop(self) -> None:
        """The call is over: ``stop``, and the WebSocket's close."""
        if self.open:
            self._write(ws_frames.frame(self._writer.stop()))
            self._write(ws_frames.frame(b"\x03\xe8", ws_frames.CLOSE))
            self.close()

    def close(self) -> None:
        """No more of it."""
        self.open = False
        self.sock.close()

    def _write(self, data: bytes) -> None:
        if not self.open:
            return
        try:
            if self.sock.send(data) == len(data):
                return
        except BlockingIOError:
            pass
        except OSError:  # it has gone away: reading will tell
            return
        print(f"{self.call_sid}: the other side does not read", file=sys.stderr)
        self.close()

    def read(self) -> bool:
        """Note what arrived. False: the other side has closed."""
        try:
            data, ancillary, _, _ = self.sock.recvmsg(65536, _ANCILLARY)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        if ancillary:
            seconds, nanoseconds = _TIMESPEC.unpack(ancillary[0][2])
            at = seconds * 1_000_000_000 + nanoseconds
        else:  # the kernel begins to stamp a moment after it was asked to
            at = time.time_ns()
        for opcode, text in self._reader.feed(data):
            if opcode == ws_frames.TEXT:
                self._message(at, text)
            elif opcode == ws_frames.CLOSE:
                self._write(ws_frames.frame(text, ws_frames.CLOSE))
                return False
            elif opcode == ws_frames.PING:
                self._write(ws_frames.frame(text, ws_frames.PONG))
        return True

    def _message(self, at: int, text: bytes) -> None:
        if b'"payload"' in text:
            self.times.append(at)
            if self.keeps:
                self.texts.append(text)
            if not self._around:
                self._around = len(text) - len(msgspec.json.decode(text)["media"]["payload"])
            # Three quarters of the characters are samples; an equals sign fills up the last four.
            size = (len(text) - self._around) * 3 // 4 - text.count(b"=")
            self.sizes.append(size)
            self._played = max(at, self._played) + size * NS_PER_SAMPLE
            return
        message = msgspec.json.decode(text)
        if message["event"] == "mark":
            self._marks.append((self._played, message["mark"]["name"]))
        elif message["event"] == "clear":
            self._played = at
            self.clears.append(at)
            self._return_marks(self._marks[-1][0] if self._marks else 0)

    def _return_marks(self, until: int) -> None:
        while self._marks and self._marks[0][0] <= until:
            self._write(ws_frames.frame(self._writer.mark(self._marks.popleft()[1])))


# --------------------------------------------------------------------- the other side's REST

#: Opens a Media Stream: its URL, the call's SID, the TwiML's parameters.
Connect = Callable[[str, str, dict[str, str]], Stream]


@dataclass
class PhoneCall:
    """A call that somebody asked for, and its stream once that is up."""

    sid: str
    form: dict[str, str]
    events: list[str]
    status: str = "queued"
    stream: Stream | None = None
    began: float = field(default_factory=time.time)

    def resource(self) -> dict[str, Any]:
        """As REST shows it."""
        created = time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(self.began))
        return {
            "sid": self.sid,
            "status": self.status,
            "to": self.form.get("To"),
            "from": self.form.get("From"),
            "direction": "outbound-api",
            "date_created": created,
            "duration": None,
        }


class Account:
    """REST of one account: its number, and calls that connect as soon as they are asked for."""

    def __init__(self, sid: str, token: str, number: str, connect: Connect) -> None:
        self._sid, self._token, self._number = sid, token, number
        self._connect = connect
        self._calls: dict[str, PhoneCall] = {}

    def answer(self, method: str, path: str, query: str, form: list[tuple[str, str]]) -> Any:
        """The JSON of one request; None: there is no such resource."""
        resource = path.rsplit(f"/Accounts/{self._sid}", 1)[-1].removesuffix(".json").strip("/")
        kind, _, sid = resource.partition("/")
        if method == "POST" and resource == "Calls":
            return self._create(form)
        if kind == "Calls" and sid in self._calls:
            return self._update(self._calls[sid], dict(form))
        number = {"sid": "PN" + self._sid[2:], "phone_number": self._number}
        if kind == "IncomingPhoneNumbers":
            return number if sid else _page("incoming_phone_numbers", [number])
        if resource == "Calls":
            wanted = dict(parse_qsl(query))
            found = [c.resource() for c in self._calls.values()]
            return _page("calls", [c for c in found if c["to"] == wanted.get("To", c["to"])])
        return {"sid": self._sid, "status": "active"} if not resource else None

    def _create(self, form: list[tuple[str, str]]) -> dict[str, Any]:
        events = [value for name, value in form if name == "StatusCallbackEvent"]
        call = PhoneCall("CA" + os.urandom(16).hex(), dict(form), events)
        self._calls[call.sid] = call
        created = call.resource()
        threading.Thread(target=self._begin, args=(call,), daemon=True).start()
        return created

    def _begin(self, call: PhoneCall) -> None:
        call.status = "in-progress"
        self._call_back(call, "answered")
        verb = ElementTree.fromstring(call.form["Twiml"]).find("Connect/Stream")
        assert verb is not None, call.form
        parameters = {p.attrib["name"]: p.attrib["value"] for p in verb.findall("Parameter")}
        call.stream = self._connect(verb.attrib["url"], call.sid, parameters)

    def _update(self, call: PhoneCall, form: dict[str, str]) -> dict[str, Any]:
        if form.get("Status") in ("completed", "canceled") and call.status != "completed":
            call.status = "completed"
            if call.stream is not None:
                call.stream.stopping = True
            threading.Thread(target=self._call_back, args=(call, "completed"), daemon=True).start()
        return call.resource()

    def _call_back(self, call: PhoneCall, event: str) -> None:
        """A status callback, signed, where one was asked for."""
        url = call.form.get("StatusCallback")
        if not url or event not in call.events:
            return
        form = {
            "AccountSid": self._sid,
            "CallSid": call.sid,
            "CallStatus": call.status,
            "Direction": "outbound-api",
            "From": call.form["From"],
            "To": call.form["To"],
        }
        parts = urlsplit(url)
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "X-Twilio-Signature": sign(self._token, url, form.items()),
        }
        connection = HTTPConnection(parts.netloc, timeout=10)
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        connection.request("POST", target, urlencode(form), headers)
        connection.getresponse().read()
        connection.close()


def _page(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: rows, "next_page_uri": None, "page": 0, "page_size": 50, "end": len(rows)}


def serve(account: Account, port: int) -> ThreadingHTTPServer:
    """Answer REST in threads; returns at once."""

    class Rest(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _do(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            form = parse_qsl(self.rfile.read(size).decode(), keep_blank_values=True)
            path, _, query = self.path.partition("?")
            found = account.answer(self.command, path, query, form)
            body = json.dumps(found or {"code": 20404, "message": "not found", "status": 404})
            self.send_response(
                404 if found is None else 201 if path.endswith("Calls.json") else 200
            )
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_POST = _do

        def log_message(self, *_: Any) -> None:
            """Requests are not logged."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 1024

    server = Server(("127.0.0.1", port), Rest)
    # It polls whether it is to end, which it never is.
    threading.Thread(target=server.serve_forever, args=(3600.0,), daemon=True).start()
    return server


# ------------------------------------------------------------------------------ the whole


class LoadGenerator:
    """The streams and the clock. Orders, one JSON object a line:

    | order | answer |
    |---|---|
    | ``{"do": "begin"}`` | forget what arrived; what is counted counts from here: ``streams``.
    ``"keeps": false`` keeps no texts, for runs of many minutes |
    | ``{"do": "end"}`` | send no more; ``sent`` (frames of every call), CPU, waits, lateness |
    | ``{"do": "report", "path": P}`` | write what arrived to P, as msgpack: arrivals.py reads it |
    | ``{"do": "dial", "url": U, "count": N}`` | open N streams to U, without a call |
    """

    def __init__(self, sound: list[bytes], account_sid: str, token: str) -> None:
        self._sound, self._account_sid, self._token = sound, account_sid, token
        self._arrived: queue.SimpleQueue[Stream] = queue.SimpleQueue()
        self._orders: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._streams: list[Stream] = []
        self._phases: list[list[Stream]] = [[] for _ in range(PHASES)]
        self._poll = select.epoll()
        self._by_fd: dict[int, Stream] = {}
        self._talks = True
        self._places = itertools.count(0, 37)
        self._late = array("d")
        self._since = _clocks()

    # ------------------------------------------------------------------ from other threads

    def connect(self, url: str, call_sid: str, parameters: dict[str, str]) -> Stream:
        """Open a Media Stream (blocks); it talks from the next tick on."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        sock = socket.create_connection((parts.hostname, parts.port or 80), timeout=30)
        request = (
            f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n"
            f"X-Twilio-Signature: {sign(self._token, url)}\r\n\r\n"
        )
        sock.sendall(request.encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            more = sock.recv(1)  # nothing behind the head is taken
            if not more:
                raise OSError(f"{url} was not opened: {answer[:80]!r}")
            answer += more
        if not answer.startswith(b"HTTP/1.1 101"):
            raise OSError(f"{url} was not opened: {answer[:80]!r}")
        stream = Stream(sock, self._sound, next(self._places), call_sid, self._account_sid)
        stream.start(parameters)
        self._arrived.put(stream)
        return stream

    def read_orders(self) -> None:
        """Lines of stdin, until it ends; then the process does."""
        for line in sys.stdin:
            self._orders.put(line)
        os._exit(0)

    # ------------------------------------------------------------------ the loop

    def run(self) -> None:
        """Tick for ever."""
        began, n = time.monotonic(), 0
        while True:
            due = began + n * STEP
            self._wait(due)
            self._late.append(time.monotonic() - due)
            if not self._orders.empty():
                self._obey(msgspec.json.decode(self._orders.get()))
            while not self._arrived.empty():
                self._adopt(self._arrived.get())
            self._read(0.0)
            for stream in list(self._phases[n % PHASES]):
                if stream.stopping:
                    self._forget(stream)
                    stream.stop()
                elif self._talks:
                    stream.send_frame()
            n += 1
            while n % IDLE_STEPS and not self._phases[n % PHASES]:
                n += 1

    def _wait(self, due: float) -> None:
        """Until then; with few streams what arrives meanwhile is read at once."""
        while (left := due - time.monotonic()) > 0:
            if len(self._streams) > FEW:
                time.sleep(left)
            else:
                # An epoll object's own timeout counts whole milliseconds.
                if select.select([self._poll], [], [], left)[0]:
                    self._read(0.0)

    def _read(self, timeout: float) -> None:
        for fd, _ in self._poll.poll(timeout):
            stream = self._by_fd[fd]
            if not stream.read():
                self._forget(stream)
                stream.close()

    def _adopt(self, stream: Stream) -> None:
        self._phases[min(range(PHASES), key=lambda n: len(self._phases[n]))].append(stream)
        self._streams.append(stream)
        self._by_fd[stream.sock.fileno()] = stream
        self._poll.register(stream.sock, select.EPOLLIN)

    def _forget(self, stream: Stream) -> None:
        self._poll.unregister(stream.sock)
        del self._by_fd[stream.sock.fileno()]
        self._streams.remove(stream)
        for phase in self._phases:
            if stream in phase:
                phase.remove(stream)

    # ------------------------------------------------------------------ orders

    def _obey(self, order: dict[str, Any]) -> None:
        do = getattr(self, f"_{order.pop('do')}")
        if do == self._dial:  # it blocks, and the frames of those that are up are due
            threading.Thread(target=lambda: _say(do(**order)), daemon=True).start()
        else:
            _say(do(**order))

    def _begin(self, keeps: bool = True) -> dict[str, Any]:
        self._talks = True
        for stream in self._streams:
            stream.times, stream.sizes = array("q"), array("q")
            stream.texts, stream.clears = [], array("q")
            stream.keeps = keeps
        self._late = array("d")
        self._since = _clocks()
        return {"streams": len(self._streams)}

    def _end(self) -> dict[str, Any]:
        self._talks = False
        passed, used, waited = (b - a for a, b in zip(self._since, _clocks(), strict=True))
        late = sorted(self._late)
        return {
            "seconds": passed,
            "cpu_seconds": used,
            "waited_seconds": waited,
            "late_p99_ms": late[len(late) * 99 // 100] * 1000,
            "late_max_ms": late[-1] * 1000,
            "sent": {stream.call_sid: len(stream.sent_at) for stream in self._streams},
        }

    def _report(self, path: str) -> dict[str, Any]:
        found = [
            (
                s.call_sid,
                *(each.tobytes() for each in (s.times, s.sent_at, s.clears, s.sizes)),
                s.texts,
            )
            for s in self._streams
        ]
        Path(path).write_bytes(msgspec.msgpack.encode(found))
        return {"messages": sum(len(s.times) for s in self._streams)}

    def _dial(self, url: str, count: int) -> dict[str, Any]:
        for n in range(count):
            self.connect(url, f"CA{n:032x}", {})
        return {"streams": count}


def _clocks() -> tuple[float, float, float]:
    """Seconds: the time, our own CPU, and how long we were ready and waited for a core."""
    waited_ns = int(Path("/proc/thread-self/schedstat").read_text().split()[1])
    return time.monotonic(), time.process_time(), waited_ns / 1e9


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def sound_of(kind: str) -> list[bytes]:
    """The frames that the far ends say: ``speech``, or frames that are ``numbered``."""
    if kind == "numbered":
        ulaw = mulaw.encode(chaos_code.samples(0, chaos_code.CODES))
    else:
        ulaw = b"".join(wav.speech(name) for name in sorted(wav.transcripts()))
    return mulaw.frames(ulaw)


@click.command()
@click.option("--port", type=int, required=True, help="Of its REST.")
@click.option("--sound", type=click.Choice(["speech", "numbered"]), default="speech")
@click.option("--number", default="+14155551234", help="The account's number.")
def main(port: int, sound: str, number: str) -> None:
    """Play Twilio for many calls. The account is TWILIO_ACCOUNT_SID's."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a socket for each call
    sid, token = os.environ["TWILIO_ACCOUNT_SID"], os.environ["TWILIO_AUTH_TOKEN"]
    generator = LoadGenerator(sound_of(sound), sid, token)
    serve(Account(sid, token, number, generator.connect), port)
    threading.Thread(target=generator.read_orders, daemon=True).start()
    _say({"ready": True})
    generator.run()


if __name__ == "__main__":
    main()
