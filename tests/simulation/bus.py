"""The bus of the simulation: ROUTERs and DEALERs that behave as ZeroMQ was measured to.

Within one connection messages keep their order; between connections they overtake one another by
their delays, and a process that was stopped finds those of all connections in any order. A
connection breaks when either end dies or closes: what had not crossed by then may be lost, from
some message on, and what did cross comes before the news. A send to a peer that is gone returns
False. A stopped peer's connections stay; its messages wait.
"""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .clock import Process, SimHandle, SimLoop, current

#: Between two tries to connect (seconds).
RECONNECT: float = 0.1
#: A lost connection is seen by the other end after so long.
NEWS: tuple[float, float] = (0.0005, 0.003)


@dataclass(eq=False)
class Pipe:
    """One direction of a connection."""

    to: Process
    deliver: Callable[[bytes], None]
    delay: float
    last: float = 0.0
    cut: bool = False
    waiting: list[Any] = field(default_factory=list)


class SimBus:
    """All sockets of the simulated machine."""

    def __init__(self, loop: SimLoop, rng: random.Random) -> None:
        self.loop = loop
        self.rng = rng
        #: connections take longer than usual: a busy machine
        self.slow = 1.0
        #: how long a message was under way at most, to a process that ran (seconds)
        self.longest = 0.0
        self._routers: dict[str, Router] = {}
        self._numbers = itertools.count(1)
        self.connections: list[Connection] = []

    # ------------------------------------------------------------------ as trunkline.bus.sockets

    def bind_router(
        self,
        context: object,
        endpoint: str,
        on_message: Callable[[bytes, bytes], None],
        *,
        curve: object = None,
        tells_keys: bool = False,
    ) -> tuple[Router, str]:
        router = Router(self, endpoint, current.get(), on_message)
        self._routers[endpoint] = router
        return router, endpoint

    def connect_dealer(
        self,
        context: object,
        endpoint: str,
        on_message: Callable[[bytes], None],
        *,
        on_connected: Callable[[], None],
        on_disconnected: Callable[[], None],
        on_refused: Callable[[], None] | None = None,
        curve: object = None,
    ) -> Dealer:
        dealer = Dealer(self, current.get(), on_message, on_connected, on_disconnected)
        dealer.on_refused = on_refused
        self.loop.call_later(self.rng.uniform(*NEWS), self._connect, dealer, endpoint)
        return dealer

    def _connect(self, dealer: Dealer, endpoint: str) -> None:
        if dealer.closed:
            return
        router = self._routers.get(endpoint)
        dead = router is None or router.closed or not router.owner.alive
        if dead and dealer.on_refused is not None:
            dealer.on_refused()
            return
        if router is None or dead or router.owner.paused:
            self.loop.call_later(RECONNECT, self._connect, dealer, endpoint)
            return
        identity = b"d%d" % next(self._numbers)
        connection = Connection(self, dealer, router, identity)
        self.connections.append(connection)
        router.connections[identity] = connection
        dealer.connection = connection
        dealer.on_connected()

    # ------------------------------------------------------------------ delivery and loss

    def delay(self, endpoint: str) -> float:
        """Of a new pipe: most are quick, some are not. Sound has quicker ways: what playout knows
        of the carrier holds on a machine that keeps up."""
        if not endpoint.endswith("/control"):
            return self.rng.uniform(0.0002, 0.008)
        if self.rng.random() < 0.1:
            return self.rng.uniform(0.005, 0.06) * self.slow
        return self.rng.uniform(0.0002, 0.002) * self.slow

    def send(self, pipe: Pipe, payload: bytes) -> None:
        now = self.loop.time()
        pipe.last = max(pipe.last, now + pipe.delay * self.rng.uniform(0.5, 1.5))
        self.longest = max(self.longest, pipe.last - now)
        handle = self.loop.call_at(
            pipe.last, self._deliver, pipe, payload, context=pipe.to.context.copy()
        )
        pipe.waiting.append(handle)

    def _deliver(self, pipe: Pipe, payload: bytes) -> None:
        pipe.waiting.pop(0)
        pipe.deliver(payload)

    def lose(self, pipe: Pipe) -> None:
        """The sending end is gone: from some message on, what has not crossed is lost. What waits
        for a stopped process has crossed, as far as there was room for it."""
        pipe.cut = True
        now = self.loop.time()
        crossed = sum(handle.when() <= now for handle in pipe.waiting)
        if self.rng.random() < 0.5:
            crossed = self.rng.randint(0, crossed)
        kept = self.rng.randint(crossed, len(pipe.waiting))
        for handle in pipe.waiting[kept:]:
            handle.cancel()
        del pipe.waiting[kept:]

    def shuffle(self, held: list[SimHandle]) -> list[SimHandle]:
        """What a stopped process finds when it goes on: each connection's messages, and the news of
        its end after them, in their order; one connection's before or after another's by chance."""
        by_pipe: dict[Pipe | None, deque[SimHandle]] = {}
        for handle in held:
            by_pipe.setdefault(self._pipe_of(handle), deque()).append(handle)
        found = []
        while by_pipe:
            pipe = self.rng.choice(list(by_pipe))
            for _ in range(self.rng.randint(1, 40)):
                if by_pipe[pipe]:
                    found.append(by_pipe[pipe].popleft())
            if not by_pipe[pipe]:
                del by_pipe[pipe]
        return found

    def _pipe_of(self, handle: SimHandle) -> Pipe | None:
        """The pipe whose message, or end, the event is; None for a process's own events."""
        if handle._callback == self._deliver:
            pipe: Pipe = handle._args[0]
            return pipe
        owner = getattr(handle._callback, "__self__", None)
        return owner.down if isinstance(owner, Connection) else None

    def break_connection(self, connection: Connection) -> None:
        """Both ends live, and lose sight of one another."""
        connection.break_(both=True)


class Connection:
    """One DEALER at one ROUTER."""

    def __init__(self, bus: SimBus, dealer: Dealer, router: Router, identity: bytes) -> None:
        self.bus = bus
        self.dealer = dealer
        self.router = router
        self.identity = identity
        self.broken = False
        self.up = Pipe(router.owner, self._at_router, bus.delay(router.endpoint))
        self.down = Pipe(dealer.owner, dealer.on_message, bus.delay(router.endpoint))

    def _at_router(self, payload: bytes) -> None:
        if not self.router.closed:
            self.router.on_message(self.identity, payload)

    def break_(self, both: bool = False) -> None:
        """The connection is gone. ``both``: the dealer has not closed it, so it is told."""
        if self.broken:
            return
        self.broken = True
        self.bus.connections.remove(self)
        self.router.connections.pop(self.identity, None)
        self.bus.lose(self.up)
        self.bus.lose(self.down)
        if both:
            now = self.bus.loop.time() + self.bus.rng.uniform(*NEWS)
            self.bus.loop.call_at(
                max(now, self.down.last if self.down.waiting else 0.0),
                self._tell,
                context=self.dealer.owner.context.copy(),
            )

    def _tell(self) -> None:
        if not self.dealer.closed:
            self.dealer.on_disconnected()


class Router:
    """A bound ROUTER, as far as BusSocket is used of it."""

    by_client_key = False

    def __init__(
        self,
        bus: SimBus,
        endpoint: str,
        owner: Process,
        on_message: Callable[[bytes, bytes], None],
    ) -> None:
        self.endpoint = endpoint
        self.owner = owner
        self.on_message = on_message
        self.closed = False
        self.connections: dict[bytes, Connection] = {}
        self._bus = bus
        owner.on_death.append(self._die)

    def send(self, payload: bytes, to: bytes) -> bool:
        connection = self.connections.get(to)
        if self.closed or connection is None:
            return False
        self._bus.send(connection.down, payload)
        return True

    def is_up(self, peer: bytes, sign: bytes) -> bool:
        return self.send(sign, peer)

    @property
    def readable(self) -> bool:
        """A message has crossed, and waits for its process to go on."""
        now = self._bus.loop.time()
        pipes = (connection.up for connection in self.connections.values())
        return any(pipe.waiting and pipe.waiting[0].when() <= now for pipe in pipes)

    def close(self, linger: int = 0) -> None:
        self._die()

    def _die(self) -> None:
        self.closed = True
        for connection in list(self.connections.values()):
            connection.break_(both=True)


class Dealer:
    """A connected DEALER, as far as BusSocket is used of it."""

    def __init__(
        self,
        bus: SimBus,
        owner: Process,
        on_message: Callable[[bytes], None],
        on_connected: Callable[[], None],
        on_disconnected: Callable[[], None],
    ) -> None:
        self.owner = owner
        self.connection: Connection | None = None
        self.closed = False
        self.on_refused: Callable[[], None] | None = None
        self.on_connected = on_connected
        self.on_disconnected = on_disconnected
        self._bus = bus
        self._on_message = on_message
        owner.on_death.append(self._die)

    def on_message(self, payload: bytes) -> None:
        if not self.closed:
            self._on_message(payload)

    def send(self, payload: bytes, to: bytes | None = None) -> bool:
        connection = self.connection
        if self.closed or connection is None or connection.broken:
            return False
        self._bus.send(connection.up, payload)
        return True

    def close(self, linger: int = 0) -> None:
        if self.closed:
            return
        self.closed = True
        if self.connection is not None:
            if linger:
                # What is queued still leaves, and the other end sees the loss after that.
                last = self.connection.up.last
                self._bus.loop.call_at(
                    max(last, self._bus.loop.time()) + NEWS[1],
                    self.connection.break_,
                    context=self._bus.loop.world.context.copy(),
                )
            else:
                self.connection.break_(both=False)

    def _die(self) -> None:
        self.closed = True
        if self.connection is not None:
            self.connection.break_(both=False)
