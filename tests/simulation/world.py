"""One simulated stack, its users, its Twilio and its faults: made from a seed, run to quiescence.

First there is chaos for some seconds. Then no more faults come, what is dead is started again,
users finish, and everything has to come to rest within the time that late requests and leases take.
"""

from __future__ import annotations

import contextlib
import logging
import random
import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple
from unittest import mock

from trunkline.bus.sound import TOGETHER

from .bus import SimBus
from .client import SimClient
from .clock import Process, SimLoop, current
from .database import Database
from .exchange import PUBLIC_URL, Exchange
from .peers import TICK_NS, ControllerPeer, GatewayPeer, WorkerPeer
from .plain_codec import PlainDownsampler, PlainUpsampler
from .twilio import Twilio

OURS: Final = ("+14155550001", "+14155550002", "+14155550003")
PEOPLE: Final = tuple(f"+1650555100{n}" for n in range(6))
#: What may take longest to come to rest: late requests, and rows that are read again for 60 s.
REST_WITHIN: Final = 170.0
#: A worker's ticks are coarser than in life, so it fills the carrier's buffer up to this (seconds),
#: and clients have to reckon with it.
LEAD_AND_TICK: Final = 0.06 + TICK_NS / 1e9 + (TOGETHER - 1) * 0.02
#: What is dead is started again after so long (seconds).
KEEPER: Final = (0.2, 1.5)


class Outage(NamedTuple):
    """The database does not answer these hosts."""

    hosts: tuple[int, ...]
    begin: float
    end: float


class World:
    """Everything of one seed. ``trace``: what happened, newest last."""

    def __init__(self, seed: int, *, tracing: bool = False, fleet: bool = False) -> None:
        self.seed = seed
        #: two hosts share a database and a public URL
        self.fleet = fleet
        #: for what only a fleet has, so that seeds mean what they do without one
        self.hosts = random.Random(f"{seed} hosts")
        self.rng = random.Random(f"{seed} world")
        self.loop = SimLoop()
        current.set(self.loop.world)
        self.trace: deque[str] = deque(maxlen=None if tracing else 400)
        self.tracing = tracing
        self.counts: Counter[str] = Counter()
        self.calm = False
        #: nothing dies, breaks or fails in this run
        self.peaceful = False
        self.outages: list[Outage] = []
        #: until when a host has no controller, because nobody starts one
        self.absent = [0.0, 0.0]
        self.power = True
        #: what happens next time that somebody is about to do this: "write", "create", "interrupt"
        self.traps: dict[str, Callable[[], None]] = {}
        #: clients ask who answers. Not in every run: one more webhook shifts all that a seed brings
        self.detects = random.Random(f"{seed} machine detection").random() < 0.14
        self.bus = SimBus(self.loop, random.Random(f"{seed} bus"))
        self.store = Database(self.loop.time, shared=fleet)
        ways = random.Random(f"{seed} twilio")
        self.twilio = Twilio(self.loop, self.store, ways, self.say, self.spring)
        self.exchange = Exchange(
            self.loop,
            random.Random(f"{seed} exchange"),
            random.Random(f"{seed} habits"),
            random.Random(f"{seed} machines"),
            self.twilio,
            self.say,
        )
        late = random.Random(f"{seed} carrier")
        self.exchange.sees_dead_within = late.choice((0.03, 0.03, 0.4))
        self.answered_twice: list[str] = []
        self.errors: list[str] = []
        self.controllers: list[ControllerPeer] = []
        self.controller_deaths: list[float] = []
        self.gateways: list[GatewayPeer] = self.exchange.gateways
        self.workers: list[WorkerPeer] = []
        self.clients: list[SimClient] = []

    def say(self, text: str) -> None:
        self.trace.append(f"{self.loop.time() - 1000.0:8.3f} {text}")

    def spring(self, what: str) -> None:
        """Somebody is about to do ``what``; the trap that was set for it is sprung, once."""
        trap = self.traps.pop(what, None)
        if trap is not None and not self.calm:
            trap()

    # ------------------------------------------------------------------ processes

    def _some_host(self) -> int:
        return self.hosts.randrange(2) if self.fleet else 0

    def start(self, kind: str, host: int | None = None) -> None:
        """Start a process, which its keeper starts again whenever it dies."""
        host = self._some_host() if host is None else host
        number = self.counts[f"started {kind}"] = self.counts[f"started {kind}"] + 1
        process = Process(f"{kind}-{number}", kind)
        self.say(f"{process} starts")
        peer: ControllerPeer | GatewayPeer | WorkerPeer
        if kind == "controller":
            peer = ControllerPeer(
                process,
                self.loop,
                self.rng,
                self.twilio,
                self.store,
                PUBLIC_URL,
                self.answered_twice,
                lambda: self._database_away(host),
                host,
                fleet=self.fleet,
                heard=self._heard,
            )
            self.controllers.append(peer)
            process.on_death.append(lambda: self.controller_deaths.append(self.loop.time()))
        elif kind == "gateway":
            peer = GatewayPeer(process, self.loop, host)
            self.gateways.append(peer)
        else:
            peer = WorkerPeer(process, self.loop, self.bus, host)
            self.workers.append(peer)
        process.on_death.append(lambda: self._keep(kind, process, host))

    def _keep(self, kind: str, process: Process, host: int) -> None:
        self.say(f"{process} is dead")
        delay = self.rng.uniform(*KEEPER)
        context = self.loop.world.context.copy()
        self.loop.call_later(delay, self._start_again, kind, host, context=context)

    def _start_again(self, kind: str, host: int) -> None:
        absent = kind == "controller" and self.absent[host] > self.loop.time()
        if self.power and not absent:
            self.start(kind, host)
        else:
            self.loop.call_later(0.2, self._start_again, kind, host)

    def _database_away(self, host: int) -> float:
        """For how long it will not answer this host (seconds); 0 or less: it answers."""
        ends = (outage.end for outage in self.outages if host in outage.hosts)
        return max(ends, default=0.0) - self.loop.time()

    def _heard(self, stack: str) -> bool:
        """A gateway hears the stack's controller."""
        living = (peer for peer in self.gateways if peer.process.alive and not peer.process.paused)
        return any(stack in (peer.client.stacks or ()) for peer in living)

    def client(self) -> SimClient:
        self.counts["started client"] += 1
        process = Process(f"client-{self.counts['started client']}", "client")
        self.say(f"{process} starts")
        client = SimClient(self, process, self._some_host())
        self.clients.append(client)
        return client

    def living(self, kind: str) -> list[Process]:
        peers: dict[str, list[Any]] = {
            "controller": self.controllers,
            "gateway": self.gateways,
            "codec_worker": self.workers,
            "client": self.clients,
        }
        return [peer.process for peer in peers[kind] if peer.process.alive]

    @property
    def controller(self) -> ControllerPeer | None:
        """One that lives."""
        return next((c for c in reversed(self.controllers) if c.process.alive), None)

    # ------------------------------------------------------------------ coming to rest

    def unrest(self) -> list[str]:
        """What has not come to its end yet."""
        found = []
        for client in self.clients:
            if client.process.alive and client.scripts:
                found.append(f"{client.process}: {client.scripts} scripts go on")
        left = self.store.left
        found += [f"the journal has {row}" for row in (*left.overrides, *left.dials)]
        for leg in self.exchange.legs.values():
            if leg.live and (leg.direction != "inbound" or not leg.elsewhere):
                found.append(f"{leg.sid} ({leg.direction} to {leg.to}) is {leg.status}")
        running = [c for c in self.controllers if c.process.alive and c.shell is not None]
        if not running:
            found.append("no controller runs")
        found += [f"{c.process} runs {len(c.living)} stacks" for c in running if len(c.living) > 1]
        for core in (core for controller in running for core in controller.living):
            found += [f"session {s.id[:6]} is {s.state}" for s in core.book.sessions.values()]
            found += [f"{n} has a lease" for n in core.book.leases]
            if core.book.claiming:
                found.append("the controller waits for claims")
            for peer in core.book.peers.by_id.values():
                if peer.working and peer.id in {p.name for p in self._all_living()}:
                    found.append(f"{peer.id}: requests {sorted(peer.working)} are not answered")
        return found

    def _all_living(self) -> list[Process]:
        kinds = ("controller", "gateway", "codec_worker", "client")
        return [process for kind in kinds for process in self.living(kind)]

    # ------------------------------------------------------------------ the patched outside

    @contextlib.contextmanager
    def patched(self) -> Iterator[None]:
        """The modules' sockets, ids and codec are this world's."""
        ids = random.Random(f"{self.seed} ids")

        def token_hex(count: int | None = None) -> str:
            return ids.randbytes(32 if count is None else count).hex()

        def token_bytes(count: int | None = None) -> bytes:
            return ids.randbytes(32 if count is None else count)

        patches: list[tuple[str, Any]] = [
            ("trunkline.bus.control.connect_dealer", self.bus.connect_dealer),
            ("trunkline.adapter.client.media_link.connect_dealer", self.bus.connect_dealer),
            ("trunkline.gateway.shell.connect_dealer", self.bus.connect_dealer),
            ("trunkline.controller.shell.bind_router", self.bus.bind_router),
            ("trunkline.adapter.client.client.monotonic", self.loop.time),
            ("trunkline.adapter.client.call_audio.LEAD_AND_MESSAGE", LEAD_AND_TICK),
            ("trunkline.adapter.line.trace_carrier", dict),
            ("trunkline.codec_worker.batches.Downsampler", PlainDownsampler),
            ("trunkline.codec_worker.batches.Upsampler", PlainUpsampler),
        ]
        with contextlib.ExitStack() as stack:
            for target, value in patches:
                stack.enter_context(mock.patch(target, value))
            stack.enter_context(mock.patch.object(secrets, "token_hex", token_hex))
            stack.enter_context(mock.patch.object(secrets, "token_bytes", token_bytes))
            stack.enter_context(self._logs())
            yield

    @contextlib.contextmanager
    def _logs(self) -> Iterator[None]:
        logger = logging.getLogger("trunkline")
        before = (logger.level, logger.propagate)
        handler = _Logs(self)
        logger.setLevel(logging.INFO if self.tracing else logging.ERROR)
        logger.propagate = False
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(before[0])
            logger.propagate = before[1]


class _Logs(logging.Handler):
    """Logs go into the trace; a traceback in them is an error of the run."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        text = f"{current.get()}: {record.levelname.lower()}: {record.getMessage()}"
        if record.exc_info:
            error = record.exc_info[1]
            text += f" ({type(error).__name__}: {error})"
            self._world.errors.append(text)
        self._world.say(text)
