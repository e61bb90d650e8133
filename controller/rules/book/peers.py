"""The peers on the control socket, and the answers that they were given.

A request is answered once. Asked again (the same peer and id, after a reconnect) it gets the answer
that it got, or, while it is being worked on, nothing until that is done. A peer may have
:data:`MOST_WAITING` requests under way, so that none can fill the memory with them.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from trunkline.bus import messages as m
from trunkline.bus.refusals import KINDS

#: Answers kept for each peer: far more than can be under way when a connection breaks.
ANSWERS_KEPT: Final = 1000
#: Requests of one peer that may be under way: those of a client with thousands of calls, and more
#: than a gateway lets wait.
MOST_WAITING: Final = 4_000
#: Forgotten gateways whose counts are kept.
COUNTS_KEPT: Final = 1000
#: A peer that was not heard of for this long is forgotten (seconds).
FORGOTTEN_AFTER: Final = 60.0
#: A gateway whose last beat is older has stalled or died (seconds).
GATEWAY_LOST_AFTER: Final = 2.0
#: A peer's beats are answered once in this time (seconds): it gives us up after 10 s of silence.
PULSE_EVERY: Final = 4.0


@dataclass
class Peer:
    """A gateway, worker or client that said Hello. The bus's word for a client is ``adapter``."""

    id: str
    role: m.Role
    pid: int
    heard: float
    #: when it last got a sign of life of ours
    pulsed: float = float("-inf")
    #: ids of requests that are being worked on
    working: set[int] = field(default_factory=set)
    answers: OrderedDict[int, m.Reply] = field(default_factory=OrderedDict)
    #: gateway: streams in its last beat
    streams: int = 0
    #: gateway: how much it has refused, by kind
    refused: dict[str, int] = field(default_factory=dict)
    #: messages of the bus that it has dropped, by the reason
    dropped: dict[str, int] = field(default_factory=dict)
    #: the histograms of its last beat; None: none has come
    measured: dict[str, m.Tally] | None = None
    #: gateway, worker: the machine on which it runs; "": it did not say
    host: str = ""
    #: worker: where gateways and clients reach it
    endpoint: str | None = None
    #: worker: its last counts of each of its calls
    stats: dict[str, m.CallStats] = field(default_factory=dict)
    #: worker: how many calls of other controllers it has
    others: int = 0
    leaving: bool = False
    #: the connection that has its name is there
    connected: bool = True

    @property
    def ref(self) -> m.WorkerRef:
        """How others reach this worker."""
        assert self.endpoint is not None, "a worker without an endpoint is refused"
        return m.WorkerRef(id=self.id, endpoint=self.endpoint)

    def said_hello(self, hello: m.Hello, now: float) -> None:
        """It has said Hello. A worker at another endpoint is another process, which has counted
        nothing yet."""
        self.pid, self.heard, self.leaving, self.connected = hello.pid, now, False, True
        self.host = hello.host
        if self.endpoint != hello.endpoint:
            self.endpoint, self.stats = hello.endpoint, {}

    def counted(self, stats: Iterable[m.CallStats]) -> Counter[str]:
        """A worker's counts of calls that are known. Returns how much of them is new: a worker that
        gets a call again begins with 0."""
        new: Counter[str] = Counter()
        for one in stats:
            before = self.stats.get(one.call)
            if before is None or one.frames_in < before.frames_in:
                before = m.CallStats(call=one.call, generation=0)
            for name in ("frames_in", "frames_out", "frames_lost", "underruns"):
                new[name] += max(0, getattr(one, name) - getattr(before, name))
            self.stats[one.call] = one
        return new

    def forget(self, call: str) -> None:
        """The call is over."""
        self.stats.pop(call, None)

    def excuse(self, seconds: float) -> None:
        """The controller itself did not run for this long, so the peer is not late."""
        self.heard += seconds

    def heard_beat(self, beat: m.Beat, now: float) -> bool:
        """It lives. True: a sign of life of ours is due in answer."""
        self.heard, self.dropped = now, beat.dropped
        due = now - self.pulsed >= PULSE_EVERY
        if due:
            self.pulsed = now
        return due

    def note_others(self, others: int) -> None:
        """A worker says that it has so many calls which are not this controller's."""
        self.others = others

    def note_streams(self, streams: int) -> None:
        """A gateway says how many streams it has."""
        self.streams = streams

    def refuses(self, refused: dict[str, int]) -> dict[str, int]:
        """A gateway says how much it has refused since its start. Returns how much of it is new.
        Unknown kinds are left out, because no gateway of ours sends them."""
        before = self.refused
        self.refused = {kind: count for kind, count in refused.items() if kind in KINDS}
        return {kind: max(0, n - before.get(kind, 0)) for kind, n in self.refused.items()}

    def measures(self, tallies: dict[str, m.Tally]) -> dict[str, m.Tally] | None:
        """It says what it has measured since its start. Returns what it said before; None: this is
        its first word here."""
        before, self.measured = self.measured, tallies
        return before

    def leave(self) -> None:
        """It has said Goodbye."""
        self.leaving = True

    def connection_lost(self) -> None:
        """It may come back on another one."""
        self.connected = False

    def silent(self, now: float, limit: float) -> bool:
        """It holds its connection, and nothing was heard on it for so many seconds: it hangs, or is
        not well and says so by its silence."""
        return self.connected and not self.leaving and now - self.heard >= limit

    def works_on(self, request: int) -> None:
        """Its request is being worked on: asked again, it waits for the same answer."""
        self.working.add(request)

    def answered(self, reply: m.Reply) -> None:
        """Kept for a while: a peer that lost its connection asks again."""
        self.working.discard(reply.id)
        if isinstance(reply.body, m.StatusReport):
            return  # it is large, and the next one is as good
        self.answers[reply.id] = reply
        while len(self.answers) > ANSWERS_KEPT:
            self.answers.popitem(last=False)


class Peers:
    """All peers, by peer id."""

    def __init__(self) -> None:
        self.by_id: dict[str, Peer] = {}
        #: the counts of forgotten gateways: how much each had refused when it was last heard
        self._refused: OrderedDict[str, dict[str, int]] = OrderedDict()

    def hello(self, hello: m.Hello, now: float) -> Peer:
        """It is here, for the first time or again."""
        peer = self.by_id.get(hello.peer)
        if peer is None:
            # It counts from its own start, and so what it told before must not be counted again.
            before = self._refused.pop(hello.peer, {})
            peer = Peer(hello.peer, hello.role, hello.pid, now, refused=before)
            self.by_id[hello.peer] = peer
        peer.said_hello(hello, now)
        return peer

    def get(self, peer: str) -> Peer | None:
        """None: it has not said Hello to this controller, or was not heard of for long."""
        return self.by_id.get(peer)

    def host_of(self, peer: str | None) -> str:
        """The machine on which it runs; "": that is not known."""
        found = self.by_id.get(peer or "")
        return "" if found is None else found.host

    def answer(self, peer: str, reply: m.Reply) -> bool:
        """The peer's request has this answer. False: it is not there any more to get it."""
        found = self.by_id.get(peer)
        if found is not None:
            found.answered(reply)
        return found is not None

    def excuse(self, seconds: float) -> None:
        for peer in self.by_id.values():
            peer.excuse(seconds)

    def forget(self, peer: str) -> None:
        """Forget the peer. How much a gateway has refused is kept, because it counts from its own
        start and may come back."""
        found = self.by_id.pop(peer, None)
        if found is None or not found.refused:
            return
        self._refused[peer] = found.refused
        while len(self._refused) > COUNTS_KEPT:
            self._refused.popitem(last=False)

    def forget_lost(self, now: float) -> None:
        """Forget who is long gone."""
        for peer in [p.id for p in self.by_id.values() if now - p.heard > FORGOTTEN_AFTER]:
            self.forget(peer)
