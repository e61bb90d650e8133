"""The controller's process: settings in, exit status out.

A thin shell around :class:`~.core.Core`: it owns the ROUTER, the timer, the journal and the REST
client, feeds events in and carries instructions out. On SIGTERM numbers come first; what could not
be put back within :data:`STOP_WITHIN` stays in the journal, and the exit status says so.

An operation that fails in a way that nobody foresaw ends the process: the next start takes up from the
journal, by the same path.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import shutil
import sys
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import zmq

from trunkline.bus import messages as m
from trunkline.bus import tracing
from trunkline.bus.clock import monotonic
from trunkline.bus.curve import stop_authenticator
from trunkline.bus.errors import CarrierError, InternalError, SettingsError, TrunklineError
from trunkline.bus.locks import FileLock
from trunkline.bus.process import EXIT_DONE, EXIT_FAILED, EXIT_PENDING, run, setup_logging
from trunkline.bus.redact import redact_number
from trunkline.bus.settings import Settings
from trunkline.bus.sockets import BusSocket, bind_router

from . import instructions as do
from . import state_dir, status, work
from .carrier import RestFailure, TwilioCarrier
from .console import HOST, Console
from .core import TICK_SECONDS, AnyEvent, Core, Identity, Rules
from .instructions import Instruction
from .journal import JournalError, OverrideRow, SqliteJournal
from .marks import MarkKeys
from .overrides import Workshop
from .probe import Prober
from .restore import restore
from .state_dir import StackDir, StackRunsError

log = logging.getLogger("trunkline.controller")

#: From SIGTERM until the process ends whatever is still to be done (honcho kills after 5 s).
STOP_WITHIN: Final = 3.4

#: Traced requests that are not answered yet, as far as they are looked after.
MOST_SPANS: Final = 1000

_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(m.ToController)


def main(settings: Settings) -> int:
    """Run a controller until SIGTERM, SIGINT or the end of the parent; returns the exit status.

    A missing setting raises SettingsError before anything is touched. What else stands in the way
    (another stack, a damaged journal, credentials) is one line on stderr and status 1.
    """
    for name in ("account_sid", "auth_token", "public_url"):
        settings.require(name)
    end_logging = setup_logging("controller", settings.log_format)
    try:
        return run(lambda stop: serve(settings, stop))
    except (StackRunsError, JournalError, SettingsError, CarrierError) as error:
        print(f"trunkline controller: {error}", file=sys.stderr)
        return EXIT_FAILED
    finally:
        end_logging()


async def serve(settings: Settings, stop: asyncio.Event) -> int:
    """Run a controller on the running loop until ``stop``; errors as main's."""
    holder = f"controller (pid {os.getpid()}, {settings.bus})"
    address = settings.address
    address.make_directory()
    locks = [state_dir.lock_state_dir(settings.state_dir, holder)]
    try:
        if address.directory is not None:
            locks.append(state_dir.lock_bus_dir(address.directory, holder))
        return await _serve_locked(settings, stop, holder, locks)
    finally:
        for lock in locks:
            lock.release()


async def _serve_locked(
    settings: Settings, stop: asyncio.Event, holder: str, locks: list[FileLock]
) -> int:
    account = settings.require("account_sid")
    stack = state_dir.own(settings.state_dir, account, holder)
    locks.append(stack.lock)
    journal = await SqliteJournal.open(stack.journal, account=account, stack=stack.id)
    token = settings.require("auth_token")
    carrier = TwilioCarrier(account, token, settings.twilio_api_url)
    prober = Prober()
    shop = Workshop(
        stack=stack.id,
        public_url=settings.require("public_url"),
        carrier=carrier,
        journal=journal,
        keys=MarkKeys(token, settings.auth_token_secondary.get_secret_value()),
        wall=time.time,
        probe=prober,
        fallback_to_prior=settings.fallback_to_prior,
        take_over_routed=settings.take_over_routed,
    )
    orphans = await Orphans.find(settings, account, holder, shop)
    locks += [found.lock for found in orphans.stacks]
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        epoch = await journal.begin_epoch(os.getpid(), time.time())
        identity = Identity(
            stack=stack.id,
            epoch=epoch,
            pid=os.getpid(),
            account=account,
            public_url=shop.public_url,
            started_wall=time.time(),
            started=monotonic(),
        )
        rules = Rules(settings.lead_ms, settings.calls_per_second, settings.numbers)
        core = Core(
            identity,
            rules,
            await journal.open_overrides(),
            await journal.open_dials(),
            orphans.rows,
        )
        shell = Shell(core, shop, orphans.shops, stop)
        return await shell.run(settings, context)
    finally:
        stop_authenticator(context)
        context.destroy(linger=100)
        carrier.close()
        prober.close()
        await journal.close()
        await orphans.close()


@dataclass
class Orphans:
    """The journals of stacks that are gone, locked by us, and their open rows."""

    stacks: list[StackDir] = field(default_factory=list)
    rows: list[OverrideRow] = field(default_factory=list)
    #: override id -> the workshop with its journal
    shops: dict[str, Workshop] = field(default_factory=dict)
    journals: list[SqliteJournal] = field(default_factory=list)

    @classmethod
    async def find(cls, settings: Settings, account: str, holder: str, shop: Workshop) -> Orphans:
        found = cls()
        gone, _ = state_dir.others(settings.state_dir, account, holder)
        for stack in gone:
            try:
                journal = await SqliteJournal.open(stack.journal, account=account, stack=stack.id)
            except JournalError as error:
                log.error("%s", error)
                stack.release()
                continue
            rows = await journal.open_overrides()
            if not rows and stack.is_private:
                # A private stack that ended and left nothing behind.
                await journal.close()
                shutil.rmtree(stack.path, ignore_errors=True)
                stack.release()
                continue
            found.stacks.append(stack)
            found.journals.append(journal)
            found.rows += rows
            of_stack = dataclasses.replace(shop, stack=stack.id, journal=journal, pending={})
            found.shops |= {row.id: of_stack for row in rows}
        return found

    async def close(self) -> None:
        for journal in self.journals:
            await journal.close()


class Shell:
    """One controller on the running loop."""

    def __init__(
        self, core: Core, shop: Workshop, orphans: dict[str, Workshop], stop: asyncio.Event
    ) -> None:
        self._core = core
        self._shop = shop
        self._orphans = orphans
        self._stop = stop
        self._router: BusSocket | None = None
        self._identities: dict[str, bytes] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        #: one write at a time to each number, whichever journal it comes from
        self._numbers: dict[str, asyncio.Lock] = {}
        self._spans: dict[tuple[str, int], tracing.RoomSpan] = {}
        self._fatal: BaseException | None = None
        self._changed = asyncio.Event()

    async def run(self, settings: Settings, context: zmq.Context[zmq.Socket[bytes]]) -> int:
        """Serve until stopped; returns the exit status."""
        try:
            self._router, endpoint = bind_router(
                context, settings.address.control, self._receive, curve=settings.curve
            )
        except zmq.ZMQError as error:
            raise SettingsError(
                f"TRUNKLINE_BUS={settings.bus}: cannot listen there ({error}); another controller "
                "may run at this address"
            ) from error
        console = Console(
            lambda: status.build(self._core, monotonic()), lambda: dict(self._core.counts)
        )
        ticking = asyncio.get_running_loop().create_task(self._tick())
        try:
            await console.start(settings.console_port)
            log.info(
                "stack %s, epoch %d, at %s; console at http://%s:%d",
                self._core.identity.stack,
                self._core.identity.epoch,
                endpoint,
                HOST,
                console.port,
            )
            self._spawn(self._check_credentials())
            await self._stop.wait()
            if self._fatal is None:
                await self._shut_down()
        finally:
            ticking.cancel()
            console.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(ticking, *self._tasks, return_exceptions=True)
            self._router.close(linger=100)
        return await self._exit_status()

    async def _shut_down(self) -> None:
        began = monotonic()
        self._shop.hurry()
        self._feed(do.Shutdown())
        while self._core.busy and self._fatal is None:
            left = STOP_WITHIN - (monotonic() - began)
            if left <= 0:
                return
            self._changed.clear()
            try:
                async with asyncio.timeout(min(left, TICK_SECONDS)):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _exit_status(self) -> int:
        if self._fatal is not None:
            if isinstance(self._fatal, TrunklineError):
                raise self._fatal
            return EXIT_FAILED
        pending = await self._shop.journal.open_overrides()
        for shop in {id(shop): shop for shop in self._orphans.values()}.values():
            pending += await shop.journal.open_overrides()
        for row in pending:
            log.error(
                "number %s is still to be restored: the next start, or `trunkline restore`, does it",
                redact_number(row.number),
            )
        return EXIT_PENDING if pending else EXIT_DONE

    async def _check_credentials(self) -> None:
        """Credentials that Twilio refuses end the process at its start; the journal is kept."""
        try:
            await self._shop.carrier.find_number("+10000000")
        except RestFailure as failure:
            error = failure.error("be asked for this account")
            if failure.refused_credentials:
                raise error from failure
            log.warning("%s", error)

    # ------------------------------------------------------------------ in

    def _receive(self, identity: bytes, payload: bytes) -> None:
        try:
            message = _decoder.decode(payload)
        except msgspec.MsgspecError as error:
            self._core.counts["unreadable messages"] += 1
            log.warning("a message on the control socket could not be read: %s", error)
            return
        told = isinstance(message, m.StreamClosed | m.Switched | m.WebhooksRefused)
        peer = message.gateway if told else message.peer
        self._identities[peer] = identity
        self._feed(message)

    def _feed(self, event: AnyEvent) -> None:
        now = monotonic()
        if isinstance(event, m.Request) and event.trace:
            self._begin_span(event)
        try:
            instructions = self._core.handle(event, now)
        except Exception as error:  # a bug must not end the reading of the socket
            self._core.counts["internal errors"] += 1
            log.exception("%s could not be handled", type(event).__name__)
            instructions = self._core.take()
            if isinstance(event, m.Request):
                asked = do.Asked(event.peer, event.id)
                self._core.fail(asked, InternalError(f"unexpected {type(error).__name__}"))
                instructions += self._core.take()
        for instruction in instructions:
            self._carry_out(instruction)
        self._changed.set()

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            self._feed(do.Tick())
            due = max(due + TICK_SECONDS, loop.time())
            await asyncio.sleep(due - loop.time())
            if len(self._identities) > 2 * len(self._core.peers.by_id) + 100:
                known = self._core.peers.by_id
                self._identities = {p: i for p, i in self._identities.items() if p in known}

    # ------------------------------------------------------------------ out

    def _carry_out(self, instruction: Instruction) -> None:
        if isinstance(instruction, do.Send):
            identity = self._identities.get(instruction.peer)
            if isinstance(instruction.message, m.Reply) and self._spans:
                self._end_span(instruction.peer, instruction.message)
            if identity is not None and self._router is not None:
                self._router.send(_encode(instruction.message), identity)
        else:
            self._spawn(self._work(instruction))

    def _begin_span(self, request: m.Request) -> None:
        """One span from when a traced request came until it is answered."""
        key = (request.peer, request.id)
        if key not in self._spans:
            name = f"trunkline.controller.{type(request.body).__name__}"
            what = {"trunkline.peer": self._core.identity.stack, "trunkline.client": request.peer}
            span = tracing.begin(name, request.trace, what)
            if span is not None:
                self._spans[key] = span
            if len(self._spans) > MOST_SPANS:
                self._spans.pop(next(iter(self._spans))).end(error="never answered")

    def _end_span(self, peer: str, reply: m.Reply) -> None:
        span = self._spans.pop((peer, reply.id), None)
        if span is not None:
            sid = reply.body.sid if isinstance(reply.body, m.Dialled) else None
            error = None if reply.error is None else reply.error.kind
            span.end({"trunkline.call_sid": sid}, error=error)

    def _spawn(self, work_: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work_)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and self._fatal is None:
            if not isinstance(error, TrunklineError):
                log.critical("an operation failed; the controller ends", exc_info=error)
            self._fatal = error
            self._stop.set()
            self._changed.set()

    def _number(self, number: str) -> asyncio.Lock:
        return self._numbers.setdefault(number, asyncio.Lock())

    async def _work(self, instruction: Instruction) -> None:
        shop = self._shop
        if isinstance(instruction, do.Apply):
            async with self._number(instruction.row.number):
                self._feed(await work.put_on(shop, instruction))
        elif isinstance(instruction, do.Restore):
            await self._restore(instruction.override)
        elif isinstance(instruction, do.LookUp):
            self._feed(await work.look_up(shop, instruction.number, instruction.deadline))
        elif isinstance(instruction, do.ListNumbers):
            self._feed(await work.list_numbers(shop, instruction.deadline))
        elif isinstance(instruction, do.KeepHolder):
            # Behind the Apply that plans the row.
            async with self._number(instruction.number):
                await shop.journal.add_holder(
                    instruction.override, instruction.session, instruction.secret_hash
                )
        elif isinstance(instruction, do.Create):
            await self._create(instruction)
        elif isinstance(instruction, do.Settle):
            await self._settle(instruction)
        elif isinstance(instruction, do.NoteTaken):
            await shop.journal.dial_taken(instruction.request, instruction.sid)
        elif isinstance(instruction, do.CloseDial):
            await shop.journal.dial_closed(instruction.request)
        elif isinstance(instruction, do.End):
            self._feed(await work.end(shop, instruction.call, instruction.sids, self._feed))
        elif isinstance(instruction, do.Fetch):
            self._feed(await work.fetch(shop, instruction.call, instruction.sid))
        elif isinstance(instruction, do.Instruct):
            self._feed(await work.instruct(shop, instruction))

    async def _restore(self, override: str) -> None:
        shop = self._orphans.get(override, self._shop)
        row = await shop.journal.override(override)
        if row is None or not row.open:
            self._feed(do.Restored(override, "restored"))
            return
        async with self._number(row.number):
            self._feed(do.Restored(override, await restore(shop, row)))

    async def _create(self, instruction: do.Create) -> None:
        dials = self._core.dials.by_request
        request = instruction.row.request

        def wanted() -> bool:
            return dials[request].gone is None

        result = await work.create(
            self._shop,
            instruction.row,
            instruction.order,
            instruction.deadline,
            wanted,
            self._feed,
        )
        self._feed(result)

    async def _settle(self, instruction: do.Settle) -> None:
        core = self._core
        request = instruction.row.request

        def unsettled() -> bool:
            dial = core.dials.by_request.get(request)
            return dial is not None and dial.state == "unsure"

        result = await work.settle(
            self._shop, instruction.row, unsettled, lambda sid: core.calls.knows(sid)
        )
        if result is not None:
            self._feed(result)
