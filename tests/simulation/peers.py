"""The processes of the stack in the simulation: their own code, in thin shells of this world.

The controller is the real shell and core, with a journal that survives it. A gateway is the real
shell of the gateway. A codec worker is the real ``Calls``, ticked more coarsely than in life. All
say Hello and beat with the real ``ControlClient``, gateways and workers one for each controller.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Final

import msgspec

from trunkline.bus import messages as m
from trunkline.bus.endpoints import BusAddress
from trunkline.bus.errors import TrunklineError
from trunkline.bus.fleet import Fleet
from trunkline.bus.sound import TOGETHER
from trunkline.bus.twilio_urls import STACK_FIELD
from trunkline.codec_worker.calls import Calls
from trunkline.controller.core import Core
from trunkline.controller.journal.database import DatabaseAwayError, JournalError
from trunkline.controller.journal.orphans import Orphans
from trunkline.controller.journal.rows import SEEN_KEPT, DialRow, OverrideRow
from trunkline.controller.other_stacks import OtherStacks, refs
from trunkline.controller.rules.book import Identity, Rules
from trunkline.controller.rules.book.peers import Peers
from trunkline.controller.shell import Shell
from trunkline.controller.twilio.operations import Operations
from trunkline.controller.twilio.seal import SealKeys
from trunkline.gateway import instructions as do
from trunkline.gateway.app import ANSWER_WITHIN
from trunkline.gateway.authenticator import Authenticator
from trunkline.gateway.refusals import Refusals
from trunkline.gateway.shell import Shell as GatewayShell

from .bus import SimBus
from .clock import Process, SimLoop
from .database import Database, Hold, Register
from .twilio import Twilio

if TYPE_CHECKING:
    from .media import Media

ACCOUNT: Final = "AC" + "1" * 32
#: The buses of the hosts; where there is no fleet, of the only one.
HOSTS: Final = (BusAddress.parse("ipc:///sim"), BusAddress.parse("ipc:///sim-2"))
#: A worker's ticks and signs of life, coarser than in life so that a run takes less.
TICK_NS: Final = 40_000_000
BEAT_SECONDS: Final = 0.2
#: Dials that ended so recently are known to a restarted controller.
CLOSED_DIALS_KEPT: Final = 3600.0


def machine_of(name: str) -> str:
    """The machine on which a gateway or a worker runs: there are two, and a process that is started
    again may come up on the other one."""
    return f"machine-{sum(name.encode()) % 2}"


_encode = msgspec.msgpack.Encoder().encode
_to_worker = msgspec.msgpack.Decoder(m.ToWorker)


class CheckedPeers(Peers):
    """The peers, each of whose requests is answered once."""

    def __init__(self, answered_twice: list[str]) -> None:
        super().__init__()
        self._answered_twice = answered_twice

    def answer(self, peer: str, reply: m.Reply) -> bool:
        found = self.get(peer)
        if found is not None and reply.id in found.answers:
            told = f"{peer} {reply.id} got {reply} after {found.answers[reply.id]}"
            self._answered_twice.append(told)
        return super().answer(peer, reply)


class ControllerPeer:
    """One start of the controller of a host. ``fleet``: there is another host. ``heard(stack)``: a
    gateway hears the controller of that stack."""

    def __init__(
        self,
        process: Process,
        loop: SimLoop,
        rng: random.Random,
        twilio: Twilio,
        database: Database,
        public_url: str,
        answered_twice: list[str],
        database_away: Callable[[], float],
        host: int,
        *,
        fleet: bool,
        heard: Callable[[str], bool],
    ) -> None:
        self.process = process
        self.loop = loop
        self.host = host
        #: of its own stack, and of those that it runs or has run for the other host
        self.cores: list[Core] = []
        self.shell: Shell | None = None
        self.stop = asyncio.Event()
        self.failed: BaseException | None = None
        self._answered_twice = answered_twice
        self._fleet = fleet
        self._heard = heard
        bus = HOSTS[host].text

        async def pause() -> None:
            await asyncio.sleep(rng.uniform(0.0005, 0.006))
            while (left := database_away()) > 0.0:
                if journal.given_up:
                    raise DatabaseAwayError("the database does not answer")
                await asyncio.sleep(min(left, 0.1))

        journal = self._journal = database.begin(host, bus, pause)
        self._register = Register(database, host, bus, pause)
        self._ops = Operations(
            stack=journal.row.stack,
            public_url=public_url,
            carrier=twilio,
            journal=journal,  # type: ignore[arg-type]  # by __getattr__
            keys=SealKeys("token"),
            wall=twilio.wall,
            probe=self._lives,
            clock=loop.time,
        )
        loop.in_process(process, loop.create_task, self._run())

    @property
    def living(self) -> list[Core]:
        """The cores of the stacks that it runs now."""
        shells = [] if self.shell is None else [self.shell, *self.shell._guests.values()]
        return [shell.core for shell in shells]

    async def _lives(self, base: str, stack: str) -> bool:
        return self._fleet and self._heard(stack)

    async def _run(self) -> None:
        try:
            await self._serve()
        except TrunklineError as error:
            if self._journal.row.owner is self._journal or not isinstance(error, JournalError):
                self.failed = error  # else it stood still, and its stack was taken
        await self._journal.close()
        self.loop.kill(self.process)

    async def _serve(self) -> None:
        self._register.look()
        core = await self._begun(self._ops)
        orphans = Orphans()
        others = beating = None
        if self._fleet:
            beating = self.loop.create_task(_shown(self._ops))
            left = self._register.left(but=self._ops.stack)
            others = OtherStacks(
                self._register, orphans, self._ops, self._lives, self._run_too, left
            )
        self.shell = Shell(core, self._ops, self.stop, orphans, clock=self.loop.time, others=others)
        if self._fleet:
            self.shell.fleet_seen(refs(self._register.fleet))
        self.shell.listen(None, HOSTS[self.host].control, None)  # type: ignore[arg-type]  # the bus is ours
        try:
            await self.shell.serve()
        finally:
            if beating is not None:
                beating.cancel()
            for orphan in orphans.found:
                await orphan.close()

    async def _begun(self, ops: Operations) -> Core:
        journal = ops.journal
        identity = Identity(
            stack=ops.stack,
            epoch=await journal.begin_epoch(1, ops.wall()),
            pid=1,
            account=ACCOUNT,
            public_url=ops.public_url,
            started_wall=ops.wall(),
            started=self.loop.time(),
            fleet=self._fleet,
        )
        overrides: list[OverrideRow] = await journal.open_overrides()
        dials: list[DialRow] = await journal.open_dials()
        dials += await journal.closed_dials(identity.started_wall - CLOSED_DIALS_KEPT)
        rules = Rules(60, 20.0)
        seen = await journal.seen(identity.started_wall - SEEN_KEPT)
        core = Core(identity, rules, overrides, dials, seen=seen)
        core.book.peers = core.book.workers.peers = CheckedPeers(self._answered_twice)
        self.cores.append(core)
        return core

    async def _run_too(self, ops: Operations) -> Shell:
        """Another host's stack."""
        self.loop.create_task(_shown(ops))
        return Shell(await self._begun(ops), ops, asyncio.Event(), clock=self.loop.time)


async def _shown(ops: Operations) -> None:
    """The stack lives, until its journal is closed or taken."""
    journal = ops.journal
    assert isinstance(journal, Hold)
    with contextlib.suppress(JournalError):
        await journal.beat(asyncio.sleep)


class SimShell(GatewayShell):
    """It says which streams were let in. ``media``: the carrier's ends, by stream SID."""

    media: dict[str, Media]

    def open_stream(self, opened: do.OpenStream) -> None:
        info = opened.accepted.info
        self.media[opened.stream_sid].let_in(info.call, info.ordinal)
        super().open_stream(opened)


class GatewayPeer:
    """A gateway: the shell and its connections to the controllers."""

    def __init__(self, process: Process, loop: SimLoop, host: int = 0) -> None:
        self.process = process
        self.loop = loop
        self.shell: SimShell
        self.client: Fleet
        self._address = HOSTS[host]
        loop.in_process(process, self._start)

    def _start(self) -> None:
        name = self.process.name

        def hello(elsewhere: Container[str]) -> m.Hello:
            streams = self.shell.streams.announce(self.loop.time())
            streams = [stream for stream in streams if stream.info.stack not in elsewhere]
            return m.Hello(role="gateway", peer=name, pid=1, host=machine_of(name), streams=streams)

        self.client = Fleet(
            None,  # type: ignore[arg-type]  # the bus is the simulation's
            self._address,
            peer=name,
            hello=hello,
            beat=lambda: m.Beat(peer=name, streams=self.shell.streams.stats()),
            on_event=lambda event: self.shell.event(event),
            on_welcome=lambda welcome: None,
            on_refused=lambda error: None,
            clock=self.loop.time,
        )
        refusals = Refusals(lambda seconds, call: None)
        self.shell = SimShell(
            name,
            Authenticator(None, lambda: None, refusals),  # HTTP is the exchange's
            self.client,  # type: ignore[arg-type]  # its requests are generic
            None,  # type: ignore[arg-type]  # the bus is the simulation's
            clock=self.loop.time,
        )
        self.shell.media = {}
        self.client.start()

    async def voice(self, form: dict[str, str], query: dict[str, str]) -> m.VoiceAnswer:
        """The voice webhook; a controller that does not answer means a pause."""
        body = m.VoiceWebhook(form=form, query=query)
        try:
            return await self.client.request(
                body, m.VoiceAnswer, timeout=ANSWER_WITHIN, stack=query.get(STACK_FIELD, "")
            )
        except TrunklineError:
            return m.VoiceAnswer(kind="pause")

    async def status(self, form: dict[str, str], query: dict[str, str]) -> bool | None:
        """The status callback; None: Twilio is to ask again."""
        body = m.StatusCallback(form=form, query=query)
        try:
            await self.client.request(
                body, m.Done, timeout=ANSWER_WITHIN, stack=query.get(STACK_FIELD, "")
            )
        except TrunklineError:
            return None
        return True


class WorkerPeer:
    """A codec worker: all of its calls, ticked by a timer."""

    def __init__(self, process: Process, loop: SimLoop, bus: SimBus, host: int = 0) -> None:
        self.process = process
        self.loop = loop
        self._address = HOSTS[host]
        self.endpoint = f"ipc:///sim/{process.name}"
        self.calls = Calls(process.name)
        self.draining = False
        self._bus = bus
        self._work_scheduled = False
        self._ticking = False
        loop.in_process(process, self._start)

    def _start(self) -> None:
        name = self.process.name
        self._socket, _ = self._bus.bind_router(None, self.endpoint, self._receive)
        self.client = Fleet(
            None,  # type: ignore[arg-type]  # the bus is the simulation's
            self._address,
            peer=name,
            hello=lambda elsewhere: m.Hello(
                role="codec_worker",
                peer=name,
                pid=1,
                host=machine_of(name),
                endpoint=self.endpoint,
                calls=self.calls.stats(self.loop.time_ns()),
            ),
            beat=lambda: m.Beat(peer=name, calls=self.calls.stats(self.loop.time_ns())),
            on_event=lambda event: None,
            on_welcome=lambda welcome: None,
            on_refused=lambda error: None,
            clock=self.loop.time,
        )
        self.client.start()
        self.loop.call_later(BEAT_SECONDS, self._beat)

    def drain(self) -> None:
        """SIGTERM: say Goodbye, and go when the calls have moved away (2 s at most)."""
        self.calls.draining = self.draining = True
        self.loop.in_process(self.process, self.loop.create_task, self.client.close())
        self.loop.call_later(
            2.0, self.loop.kill, self.process, context=self.loop.world.context.copy()
        )

    def _receive(self, identity: bytes, payload: bytes) -> None:
        self.calls.receive(identity, _to_worker.decode(payload), self.loop.time_ns())
        if not self._work_scheduled:
            self._work_scheduled = True
            self.loop.call_soon(self._work)

    def _work(self) -> None:
        self._work_scheduled = False
        now = self.loop.time_ns()
        self.calls.all_read(now)
        self.calls.work(now, now)
        self._send()
        if self.calls.calls and not self._ticking:
            self._ticking = True
            self.loop.call_later(TICK_NS / 1e9, self._tick)

    def _tick(self) -> None:
        now = self.loop.time_ns()
        if not self._socket.readable:
            self.calls.all_read(now)
        self.calls.work(now, now + TICK_NS)
        self.calls.tick(now, now + TICK_NS, 1 + now // TICK_NS % TOGETHER)
        self._send()
        self._ticking = bool(self.calls.calls)
        if self._ticking:
            self.loop.call_later(TICK_NS / 1e9, self._tick)

    def _beat(self) -> None:
        self.calls.beat(self.loop.time_ns())
        self._send()
        self.loop.call_later(BEAT_SECONDS, self._beat)

    def _send(self) -> None:
        gone: set[bytes] = set()
        while out := self.calls.take_instructions():
            for peer, message in out:
                if peer not in gone and not self._socket.send(_encode(message), peer):
                    gone.add(peer)
                    self.calls.disconnected(peer, self.loop.time_ns())
