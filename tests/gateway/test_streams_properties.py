"""Whatever dies, stops, wakes or is placed when: the carrier hears every frame once and in order,
and a worker that has the call has all inbound sound from the ring on, once and in order.

The workers here are honest but slow: each has queues in both directions, may be stopped with both
full, and goes on where it was when it wakes, not knowing that it lost the call.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from trunkline.bus import messages as m

from .model import FRAME, Bench, accepted, payload_at, placement, played, position_of, worker

NAMES = ("a", "b", "c")


@dataclass
class Peer:
    """One life of a worker, with the adapter behind it: it can say any position."""

    ref: m.WorkerRef
    stopped: bool = False
    generation: int = 0
    ordinal: int = 0
    has_call: bool = False
    #: the next position that it will say; None: its stream has no position yet
    next: int | None = None
    acknowledged: int | None = None
    #: on their way to the gateway
    outbox: deque[m.WorkerToGateway] = field(default_factory=deque)
    #: inbound positions that it has of the present generation
    heard: list[int] = field(default_factory=list)
    ended: bool = False


class Calls(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        self.lives = dict.fromkeys(NAMES, 1)
        self.peers: dict[str, Peer] = {}
        self.dead: set[str] = set()
        self.n = 1
        self.ordinal = 1
        self.socket = 1
        self.inbound = 0
        self.first = True
        self.acknowledged = 0
        #: socket -> how many of its texts were looked at, and the position that has to follow
        self.written: dict[int, tuple[int, int | None]] = {}
        for name in NAMES:
            self._born(name)

    def _born(self, name: str) -> None:
        ref = worker(name, self.lives[name])
        self.peers[name] = Peer(ref)

    @initialize(primary=st.sampled_from(NAMES), standby=st.none() | st.sampled_from(NAMES))
    def begin(self, primary: str, standby: str | None) -> None:
        self.bench.accept(1, accepted(self._placement(primary, standby)))

    def _placement(self, primary: str, standby: str | None) -> m.Placement:
        other = None if standby is None or standby == primary else self.peers[standby].ref
        return placement(self.n, self.peers[primary].ref, other)

    # ------------------------------------------------------------------ the carrier

    @rule(frames=st.integers(1, 5))
    def carrier_sends(self, frames: int) -> None:
        for _ in range(frames):
            self.bench.heard(self.socket, self.inbound)
            self.inbound += FRAME

    @rule()
    def flush(self) -> None:
        self.bench.flush()

    @precondition(lambda self: self.ordinal < 4)
    @rule(primary=st.sampled_from(NAMES), standby=st.none() | st.sampled_from(NAMES))
    def stream_breaks_and_comes_back(self, primary: str, standby: str | None) -> None:
        self.bench.run(self.bench.streams.closed(self.socket, "error", self.bench.now))
        self.ordinal += 1
        self.socket += 1
        self.n += 1
        self.inbound = 0
        self.bench.accept(
            self.socket,
            accepted(self._placement(primary, standby), ordinal=self.ordinal, first=False),
        )

    # ------------------------------------------------------------------ the controller

    @rule(primary=st.sampled_from(NAMES), standby=st.none() | st.sampled_from(NAMES))
    def place(self, primary: str, standby: str | None) -> None:
        self.n += 1
        told = m.CallPlaced(call="c1", placement=self._placement(primary, standby))
        self.bench.run(self.bench.streams.call_placed(told, self.bench.now))

    # ------------------------------------------------------------------ the workers

    @rule(name=st.sampled_from(NAMES))
    def handshake(self, name: str) -> None:
        peer = self.peers[name]
        if peer.ref.endpoint in self.bench.links:
            self.bench.up(peer.ref)

    @rule(name=st.sampled_from(NAMES))
    def reads(self, name: str) -> None:
        peer = self.peers[name]
        if not peer.stopped:
            for message in self.bench.take(peer.ref):
                self._take(peer, message)

    def _take(self, peer: Peer, message: m.ToWorker) -> None:
        if isinstance(message, m.OpenCall):
            if message.generation <= peer.generation:
                return
            self._opens(peer, message)
        elif isinstance(message, m.Inbound):
            for frame in message.frames:
                if frame.generation == peer.generation and peer.has_call:
                    assert frame.payload == payload_at(frame.position)
                    peer.heard.append(frame.position)
            for written in message.written:
                if written.generation == peer.generation:
                    peer.acknowledged = written.position
                    self.acknowledged = max(self.acknowledged, written.position)
        elif isinstance(message, m.StreamEnded):
            if message.generation == peer.generation:
                assert not peer.ended
                peer.ended = True
        elif isinstance(message, m.CloseCall) and message.generation > peer.generation:
            peer.has_call = False

    def _opens(self, peer: Peer, message: m.OpenCall) -> None:
        later = message.ordinal > peer.ordinal
        peer.generation, peer.ordinal, peer.has_call = message.generation, message.ordinal, True
        peer.ended = False
        peer.heard = [frame.position for frame in message.ring]
        if message.out_next is not None:
            peer.next = message.out_next
        elif later or peer.next is None:
            peer.next = self.acknowledged
        elif peer.acknowledged is not None:
            peer.next = peer.acknowledged

    @rule(turns=st.integers(1, 4), frames=st.integers(1, 3), kept=st.integers(0, 2))
    def all_run(self, turns: int, frames: int, kept: int) -> None:
        """Turns of everybody's loop; the ``kept`` last messages of each worker stay under way."""
        for _ in range(turns):
            self.carrier_sends(frames)
            self.flush()
            for name in NAMES:
                self.handshake(name)
                self.reads(name)
                self.ticks(name)
                self.speaks(name, frames)
                self.delivers(name, max(0, len(self.peers[name].outbox) - kept))
            self.bench.wait(0.1)

    @rule(name=st.sampled_from(NAMES), turns=st.integers(1, 8))
    def one_is_stopped_for_a_while(self, name: str, turns: int) -> None:
        """It had said more than arrived; after the others went on it wakes and says the rest."""
        self.speaks(name, 3)
        self.stops(name)
        self.all_run(turns, 1, 0)
        self.wakes(name)
        self.speaks(name, 3)
        self.delivers(name, 100)

    @rule(name=st.sampled_from(NAMES), frames=st.integers(1, 4))
    def speaks(self, name: str, frames: int) -> None:
        peer = self.peers[name]
        if peer.stopped or not peer.has_call or peer.next is None or peer.ended:
            return
        batch = []
        for _ in range(frames):
            batch.append(m.OutFrame("c1", peer.generation, peer.next, payload_at(peer.next)))
            peer.next += FRAME
        peer.outbox.append(m.Outbound(batch))

    @rule(name=st.sampled_from(NAMES))
    def ticks(self, name: str) -> None:
        peer = self.peers[name]
        if not peer.stopped:
            peer.outbox.append(m.Tick(peer.ref.id, 0))

    @rule(name=st.sampled_from(NAMES), messages=st.integers(1, 10))
    def delivers(self, name: str, messages: int) -> None:
        """What the worker sent arrives, also while it is stopped."""
        peer = self.peers[name]
        if peer.ref.endpoint not in self.bench.links:
            peer.outbox.clear()
        for _ in range(min(messages, len(peer.outbox))):
            self.bench.say(peer.ref, peer.outbox.popleft())

    @rule(name=st.sampled_from(NAMES))
    def refuses(self, name: str) -> None:
        peer = self.peers[name]
        if not peer.stopped and peer.has_call:
            peer.outbox.append(m.OpenRefused("c1", peer.generation, "draining"))
            peer.has_call = False

    @rule(name=st.sampled_from(NAMES))
    def stops(self, name: str) -> None:
        self.peers[name].stopped = True

    @rule(name=st.sampled_from(NAMES))
    def wakes(self, name: str) -> None:
        self.peers[name].stopped = False

    @rule(name=st.sampled_from(NAMES), arrived=st.integers(0, 3))
    def dies(self, name: str, arrived: int) -> None:
        """Killed: some of what it had sent still arrives, then the connection is lost."""
        self.delivers(name, arrived)
        peer = self.peers[name]
        if peer.ref.endpoint in self.bench.links:
            self.bench.lost(peer.ref)
        self.lives[name] += 1
        self._born(name)

    @rule(name=st.sampled_from(NAMES))
    def loses_its_connection(self, name: str) -> None:
        """The network breaks; the worker lives on and knows of nothing."""
        peer = self.peers[name]
        if peer.ref.endpoint in self.bench.links:
            self.bench.lost(peer.ref)

    @rule(seconds=st.sampled_from([0.1, 0.3, 0.6, 1.2, 2.5]))
    def time_passes(self, seconds: float) -> None:
        self.bench.wait(seconds)

    # ------------------------------------------------------------------ what must hold

    @invariant()
    def every_frame_is_written_once_and_in_order(self) -> None:
        """Looks at what is new since the last step."""
        for socket in range(1, self.socket + 1):
            seen, follows = self.written.get(socket, (0, 0 if socket == 1 else None))
            texts = self.bench.written.get(socket, [])
            for position in played(texts[seen:]):
                assert follows is None or position == follows
                follows = position + FRAME
            self.written[socket] = len(texts), follows

    @invariant()
    def who_has_the_call_has_all_sound(self) -> None:
        for peer in self.peers.values():
            if peer.heard:
                assert peer.heard == list(range(peer.heard[0], peer.heard[-1] + FRAME, FRAME))

    def teardown(self) -> None:
        """Once all is well again, the call is somewhere, and sound flows both ways."""
        if not self.bench.opened_links:
            return
        bench = self.bench
        for name in NAMES:
            self.peers[name].stopped = False
        self.place("a", "b")
        for _ in range(30):
            for name in NAMES:
                self.handshake(name)
                self.ticks(name)
                self.delivers(name, 100)
                self.reads(name)
                if self.peers[name].ref.endpoint not in bench.links:
                    self.bench.take(self.peers[name].ref)
            bench.wait(0.1)
        (info,) = bench.streams.announce(bench.now)
        peer = next(p for p in self.peers.values() if p.ref.id == info.active)
        assert peer.has_call
        assert peer.generation == info.generation
        before = len(bench.played(self.socket))
        self.carrier_sends(1)
        bench.flush()
        for name in NAMES:
            self.speaks(name, 2)
            self.delivers(name, 100)
            self.reads(name)
        assert len(bench.played(self.socket)) == before + 2
        assert peer.heard[-1] == self.inbound - FRAME
        self.every_frame_is_written_once_and_in_order()
        self.who_has_the_call_has_all_sound()


def test_positions_tell_themselves() -> None:
    for position in (0, 160, 160 * 70_000):
        assert position_of(payload_at(position)) == position


TestCalls = Calls.TestCase
TestCalls.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
