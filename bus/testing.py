"""Doubles for tests of whatever speaks on the bus: a controller, a clock, a wait, a terminal that
hangs up, and poison.

They stand in the bus because the tests of every room use them, and because whoever changes the
contract has to change its double too. They need no more than the bus does (no pytest), and
`make lint` sees to it that no room imports this module.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec
import zmq

from . import messages as m
from .errors import ErrorInfo, TrunklineError
from .sockets import BusSocket, bind_router

T = TypeVar("T")

Context = zmq.Context[zmq.Socket[bytes]]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(m.ToController).decode


async def until(condition: Callable[[], T | None], seconds: float = 10.0) -> T:
    """Wait until ``condition()`` is true, and return its value; TimeoutError after ``seconds``."""
    async with asyncio.timeout(seconds):
        while not (found := condition()):  # noqa: ASYNC110  # ZeroMQ's own threads set no event of ours
            await asyncio.sleep(0.001)
    return found


@contextlib.contextmanager
def hanging_up(does: signal.Handlers) -> Iterator[None]:
    """Programs that are started in the block do this on SIGHUP. In a run of the tests under
    ``nohup`` they would otherwise ignore it."""
    before = signal.signal(signal.SIGHUP, does)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def poison(name: str = "p1", call: str = "c" * 32) -> dict[str, bytes]:
    """What a rogue may send to any socket, by what is wrong with it: each is to be dropped. Some of
    it names the peer ``name``, or the call ``call``."""
    pack = msgspec.msgpack.encode
    bad, deep, huge = b"\xa8" + b"\xff" * 8, b"\x91" * 100_000, 2**64 - 1
    found = {
        "nothing": b"",
        "no msgpack": b"\xc1",
        "half a message": pack(["Detach", call])[:-5],
        "a name without an end": b"\xdb\xff\xff\xff\xff",
        "lists in lists": deep,
        "maps in maps": b"\x81\x01" * 100_000,
        "a tag that is none": pack([huge, {}]),
        "17 bytes with a text that is no UTF-8": b"\x92" + pack("Detach") + bad,
        "a field too few": pack(["Detach"]),
        "a huge generation": pack(["CloseCall", call, huge]),
        "a negative position": pack(["Speak", call, 65_536, -1, b""]),
        "a huge position": pack(["Inbound", [[call, 65_536, 1, huge, b"\xff"]], []]),
        "a huge acknowledgement": pack(["Inbound", [], [[call, 65_536, 2**62]]]),
        "an endless silence": pack(["Resume", call, 65_536, 1, 0, 0, float("inf"), 0, 0, 0]),
        "a time that is no number": pack(["Resume", call, 65_536, 1, 0, 0, float("nan"), 0, 0, 0]),
        "a name of two lines": pack(["MediaHello", "adapter", "a\nERROR b", 2]),
        "a name of a megabyte": pack(["Attach", "x" * 2**20, "s"]),
    }
    for what, field in {
        "a name that is no UTF-8": bad,
        "a name of lists": deep,
        "a name of two lines, to a controller": pack("a\nERROR b"),
        "a long name, to a controller": pack("x" * 129),
        "a number for a name": pack(huge),
    }.items():
        found[what] = b"\x82" + pack("type") + pack("Goodbye") + pack("peer") + field
    hello: dict[str, Any] = {"type": "Hello", "role": "adapter", "peer": name, "pid": 1}
    session = {"session": "a\nb", "secret": "s", "number": "any"}
    wrong: dict[str, dict[str, Any]] = {
        "a pid that is none": {"pid": huge},
        "another role": {"role": "king"},
        "a session of two lines": {"sessions": [session]},
    }
    for what, fields in wrong.items():
        found[what] = pack(hello | fields)
    return found


class FakeClock:
    """A monotonic clock that stands still until the test moves ``now``."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class FakeController:
    """A ROUTER that welcomes whoever says Hello, and answers requests as ``answers`` says.

    ``answers`` maps the class of a request's body to its answer: the body of the reply, a
    TrunklineError that refuses it, a function of the request's body that returns one of the two,
    or None, which leaves the request waiting (see :meth:`answer_last`). All other requests get what
    :meth:`usual` returns. ``welcome`` replaces fields of the Welcome; a test may change them later.
    """

    def __init__(self, context: Context, endpoint: str, **welcome: Any) -> None:
        self.epoch = 1
        self.welcome: dict[str, Any] = {
            "stack": "stack-1",
            "pid": os.getpid(),
            "account": "AC1",
            "public_url": None,
            "lead_ms": 60,
        } | welcome
        #: every Hello is refused with this error
        self.refuse: TrunklineError | None = None
        #: nothing is read: what arrives is dropped
        self.mute = False
        self.answers: dict[type, Any] = {}
        #: all messages, in order
        self.got: list[m.ToController] = []
        #: the identity of each Hello's connection; events go to the last one
        self.peers: list[bytes] = []
        self._context = context
        self._endpoint = endpoint
        self._waiting: list[tuple[int, bytes]] = []
        self._socket: BusSocket
        self.start()

    def start(self) -> None:
        self._socket, _ = bind_router(self._context, self._endpoint, self._receive)

    def stop(self) -> None:
        """Vanish, as a controller does that is killed. :meth:`start` brings another one."""
        self._socket.close()

    # ------------------------------------------------------------------ what came

    @property
    def requests(self) -> list[m.RequestBody]:
        """The bodies of all requests."""
        return [message.body for message in self.got if isinstance(message, m.Request)]

    def all(self, kind: type[T]) -> list[T]:
        """All messages and all bodies of requests that are of this kind."""
        both: list[object] = (
            [*self.got]
            if kind is m.Request
            else [x.body if isinstance(x, m.Request) else x for x in self.got]
        )
        return [found for found in both if isinstance(found, kind)]

    async def wait_for(self, kind: type[T], count: int = 1) -> T:
        """The ``count``-th of :meth:`all`, once it is there."""
        return (await until(lambda: self.all(kind)[count - 1 : count]))[0]

    # ------------------------------------------------------------------ what is said

    def usual(self, body: m.RequestBody) -> m.ReplyBody:
        """The answer to a request for which ``answers`` has none. Subclasses know more."""
        return m.Done()

    def tell(self, message: m.Event | m.Welcome | m.Refused) -> None:
        """Send this to the peer that said Hello last."""
        self._send(message, self.peers[-1])

    def answer_last(self, body: m.ReplyBody) -> None:
        """Answer the newest request that was left waiting."""
        number, identity = self._waiting.pop()
        self._send(m.Reply(id=number, body=body), identity)

    def _send(self, message: msgspec.Struct, identity: bytes) -> None:
        assert self._socket.send(_encode(message), identity)

    def _receive(self, identity: bytes, payload: bytes) -> None:
        if self.mute:
            return
        message = _decode(payload)
        self.got.append(message)
        if isinstance(message, m.Hello):
            self.peers.append(identity)
            if self.refuse is not None:
                self.tell(m.Refused(error=ErrorInfo.of(self.refuse)))
            else:
                self.tell(m.Welcome(epoch=self.epoch, **self.welcome))
        elif isinstance(message, m.Beat):
            self._send(m.Pulse(epoch=self.epoch, stack=self.welcome["stack"]), identity)
        elif isinstance(message, m.Request):
            self.reply(message, identity)

    def reply(self, request: m.Request, identity: bytes) -> None:
        answer = self.answers.get(type(request.body), self.usual)
        if callable(answer):
            answer = answer(request.body)
        if answer is None:
            self._waiting.append((request.id, identity))
        elif isinstance(answer, TrunklineError):
            self._send(m.Reply(id=request.id, error=ErrorInfo.of(answer)), identity)
        else:
            self._send(m.Reply(id=request.id, body=answer), identity)
