"""A carrier's socket and two kinds of peers for the state of the streams, joined in memory."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from msgspec.structs import replace

from trunkline.bus import messages as m
from trunkline.gateway import instructions as do
from trunkline.gateway.streams import Streams

FRAME = 160
INFO = m.CallInfo(
    call="c1",
    session="s1",
    sid="CA1",
    direction="inbound",
    caller="+14155550001",
    callee="+14155550002",
    secret="secret",
    ordinal=1,
)
G1 = m.first_generation(1)
G2 = m.first_generation(2)


def worker(name: str, life: int = 1) -> m.WorkerRef:
    return m.WorkerRef(id=f"{name}{life}", endpoint=f"ipc:///bus/{name}{life}")


A, B, C = worker("a"), worker("b"), worker("c")


def placement(
    n: int, primary: m.WorkerRef, standby: m.WorkerRef | None = None, epoch: int = 1
) -> m.Placement:
    return m.Placement(epoch=epoch, n=n, primary=primary, standby=standby)


def accepted(
    where: m.Placement | None, *, call: str = "c1", ordinal: int = 1, first: bool = True
) -> m.StreamAccepted:
    info = replace(INFO, call=call, sid=f"CA-{call}", ordinal=ordinal, placement=where)
    return m.StreamAccepted(info=info, first=first)


def payload_at(position: int) -> bytes:
    """Sound that tells its own position (a multiple of 160, under 160 times 2**24)."""
    index = position // FRAME
    return bytes((index >> 16 & 255, index >> 8 & 255, index & 255)) + bytes(FRAME - 3)


def position_of(payload: bytes) -> int:
    return ((payload[0] << 16) + (payload[1] << 8) + payload[2]) * FRAME


def played(texts: list[bytes]) -> list[int]:
    """Positions of the sound in these texts of a PlainWire."""
    return [position_of(text[6:]) for text in texts if text.startswith(b"media ")]


class PlainWire:
    """Texts that are easy to read back."""

    clear = b"clear"

    def media(self, payload: bytes) -> bytes:
        return b"media " + payload

    def mark(self, name: str) -> bytes:
        return b"mark " + name.encode()


@dataclass
class Bench:
    """Streams with everything that it asked for written down."""

    streams: Streams = field(default_factory=lambda: Streams("g1", 0.0))
    now: float = 0.0
    #: endpoint -> messages sent there and not yet looked at
    sent: dict[str, deque[m.ToWorker]] = field(default_factory=dict)
    #: endpoints with an open DEALER
    links: set[str] = field(default_factory=set)
    opened_links: list[str] = field(default_factory=list)
    #: socket -> texts written to it
    written: dict[int, list[bytes]] = field(default_factory=dict)
    closed: list[int] = field(default_factory=list)
    told: list[m.Notification] = field(default_factory=list)

    def run(self, instructions: list[do.Instruction]) -> None:
        for one in instructions:
            if isinstance(one, do.OpenLink):
                assert one.worker.endpoint not in self.links, "a second DEALER to one worker"
                self.links.add(one.worker.endpoint)
                self.opened_links.append(one.worker.endpoint)
                self.sent[one.worker.endpoint] = deque()
            elif isinstance(one, do.CloseLink):
                self.links.remove(one.endpoint)
                self.sent.pop(one.endpoint)
            elif isinstance(one, do.SendToWorker):
                assert one.endpoint in self.links, "sent to a worker that is not connected"
                self.sent[one.endpoint].append(one.message)
            elif isinstance(one, do.WriteTexts):
                for socket, text in one.texts:
                    self.written.setdefault(socket, []).append(text)
            elif isinstance(one, do.CloseSocket):
                self.closed.append(one.socket)
            else:
                self.told.append(one.notification)

    # ------------------------------------------------------------------ events

    def accept(self, socket: int, answer: m.StreamAccepted) -> None:
        self.run(
            self.streams.accept(socket, PlainWire(), answer, f"MZ{socket}", self.now),
        )

    def up(self, who: m.WorkerRef) -> None:
        self.run(self.streams.link_up(who.endpoint, self.now))

    def lost(self, who: m.WorkerRef) -> None:
        self.run(self.streams.link_lost(who.endpoint, self.now))

    def say(self, who: m.WorkerRef, message: m.WorkerToGateway) -> None:
        self.run(self.streams.from_worker(who.endpoint, message, self.now))

    def tick(self, *who: m.WorkerRef) -> None:
        for one in who:
            self.say(one, m.Tick(one.id, 0))

    def sound(self, who: m.WorkerRef, generation: int, *positions: int, call: str = "c1") -> None:
        frames = [m.OutFrame(call, generation, p, payload_at(p)) for p in positions]
        self.say(who, m.Outbound(frames))

    def heard(self, socket: int, *positions: int) -> None:
        for position in positions:
            self.streams.media(socket, position, payload_at(position))

    def flush(self) -> None:
        self.run(self.streams.flush())

    def wait(self, seconds: float, ticking: tuple[m.WorkerRef, ...] = ()) -> None:
        """Time passes in steps of 100 ms; ``ticking`` workers tick."""
        end = self.now + seconds
        while self.now < end - 1e-9:
            self.now += 0.1
            self.tick(*ticking)
            self.run(self.streams.check(self.now))

    # ------------------------------------------------------------------ what came of it

    def take(self, who: m.WorkerRef) -> list[m.ToWorker]:
        """The messages to this worker since the last look."""
        found = list(self.sent.get(who.endpoint, ()))
        self.sent.get(who.endpoint, deque()).clear()
        return found

    def played(self, socket: int) -> list[int]:
        """Positions of the sound written to the socket."""
        return played(self.written.get(socket, []))


def up(bench: Bench, where: m.Placement) -> None:
    """A first stream on socket 1, its workers connected, OpenCall taken."""
    bench.accept(1, accepted(where))
    for who in (where.primary, where.standby):
        if who is not None:
            bench.up(who)
    bench.take(where.primary)


def opened(bench: Bench, who: m.WorkerRef) -> m.OpenCall:
    found = [message for message in bench.take(who) if isinstance(message, m.OpenCall)]
    assert len(found) == 1
    return found[0]
