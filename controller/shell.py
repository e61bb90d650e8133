"""The controller on its loop: the ROUTER, the timer, and the operations that take time.

A thin shell around :class:`~.core.Core`: it feeds messages and results in as events, and carries
instructions out. One write at a time goes to each number, whether its override stands in our own
journal or in one that another stack left.

If an operation or the core fails in a way that nobody foresaw, the process ends: the next start
takes up from the journal, by the same path, and clients claim their sessions. A peer's message
cannot end it: messages are decoded behind the bus's wall (:mod:`trunkline.bus.wall`), and
:mod:`.peer_names` decides whether a peer speaks in its own name.

Two orders are kept. Messages to one peer leave in the order in which the core gave them. Writes
to one number happen one after the other (:meth:`Shell._number`): a restore that overtook the
override before it would put back nothing, and leave the number to us. All other operations run side
by side, and their results come back in any order; the rules are made for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import msgspec
import zmq

from trunkline.bus import messages as m
from trunkline.bus.clock import Clock, monotonic
from trunkline.bus.curve import CurveKeys
from trunkline.bus.errors import CarrierError, ErrorInfo, InvalidRequestError
from trunkline.bus.process import EXIT_FAILED, EXIT_PENDING, say_ready
from trunkline.bus.sockets import BusSocket, bind_router
from trunkline.bus.wall import Wall

from . import events as ev
from . import instructions as do
from .core import REST_SECONDS, TICK_SECONDS, AnyEvent, Core
from .events import Result
from .instructions import Instruction
from .journal.database import DatabaseAwayError, JournalError
from .journal.orphans import Orphans
from .other_stacks import OtherStacks
from .peer_names import PeerNames
from .rules import reception
from .spans import Spans
from .twilio import operations
from .twilio.apply_restore import put_on, restore
from .twilio.carrier import RestFailure
from .twilio.operations import Operations
from .what_is_left import say_what_is_left

log = logging.getLogger("trunkline.controller")

#: The process ends this long after SIGTERM, even if something is still to be done (seconds; honcho
#: kills after 5 s).
STOP_WITHIN: Final = 3.4
#: If this process stood still for longer (seconds), another machine may have taken its stack in the
#: database that they share. The database is asked about that before anything else is done.
MAY_BE_TAKEN: Final = 5.0

#: How often the connections of silent peers are asked after; a peer beats twice as often.
LOOK_SECONDS: Final = 1.0

#: Errors that end a controller and need no traceback: one line tells the user what to do.
_FORESEEN: Final = (CarrierError, JournalError)

#: Instructions that are one question to Twilio, with one result.
_PLAIN: Final[dict[type, Callable[[Operations, Any], Awaitable[Result]]]] = {
    do.LookUp: operations.look_up,
    do.ListNumbers: operations.list_numbers,
    do.Fetch: operations.fetch,
    do.Vouch: operations.vouch,
    do.Instruct: operations.instruct,
    do.StartStream: operations.start_stream,
    do.PlayDigits: operations.play_digits,
    do.OpenListening: operations.open_listening,
}

_encode = msgspec.msgpack.Encoder().encode


class _BegunRequest(msgspec.Struct, tag="Request"):
    """As much of a request as it takes to refuse it by name."""

    peer: m.PeerName
    id: m.Number


class _BegunHello(msgspec.Struct, tag="Hello"):
    """As much of a Hello."""

    peer: m.PeerName


_decode_begun = msgspec.msgpack.Decoder(_BegunRequest | _BegunHello).decode


class Shell:
    """One controller on the running loop: ``listen``, then ``serve``. It may ``host`` the stack of
    another controller, which has died: that has a shell of its own, on our socket."""

    def __init__(
        self,
        core: Core,
        ops: Operations,
        stop: asyncio.Event,
        orphans: Orphans | None = None,
        clock: Clock = monotonic,
        others: OtherStacks | None = None,
        spent: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.core = core
        self._ops = ops
        self._stop = stop
        self._orphans = orphans or Orphans()
        self._others = others
        self._clock = clock
        #: how long ago the end was asked for, which may have been while we started (seconds)
        self._spent = spent
        self._wall = Wall(log, core.book.count, clock=clock)
        self._router: BusSocket | None = None
        #: by stack
        self._guests: dict[str, Shell] = {}
        #: the connections that have asked for one of these
        self._at_guest: dict[bytes, Shell] = {}
        self._names = PeerNames(self._is_up)
        self._looked_at = clock()
        self._tasks: set[asyncio.Task[Any]] = set()
        #: notes to the journal that are under way
        self._noting = 0
        self._numbers: dict[str, asyncio.Lock] = {}
        self._spans = Spans(core.book.identity.stack)
        self._fatal: BaseException | None = None
        #: once we end: until when there is time for it
        self._ends_at = 0.0
        #: when the core was last given something
        self._fed_at = clock()
        #: while we ask whether the stack is still ours: what waits for the answer
        self._unsure: list[AnyEvent] | None = None
        self._changed = asyncio.Event()
        #: where the console hears how loud calls are
        self._show: Callable[[m.Levels | m.CallSound], object] = lambda message: None
        #: something came that is neither time nor a sign of life
        self._asked = asyncio.Event()

    def listen(
        self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, curve: CurveKeys | None
    ) -> str:
        """Bind the control socket; returns its endpoint. zmq.ZMQError where that cannot be."""
        gate = self._wall.gate(m.ToController, self._receive, "a peer", self._unreadable)
        self._router, bound = bind_router(context, endpoint, gate, curve=curve, tells_keys=True)
        return bound

    async def serve(self) -> int:
        """Serve until ``stop``, then put numbers back; returns the exit status. Raises the error
        that ended it."""
        assert self._router is not None, "listen comes first"
        ticking = asyncio.get_running_loop().create_task(self._tick())
        self._spawn(self._check_credentials())
        if self._others is not None:
            self._spawn(
                self._others.watch(
                    self._spawn, self._number, self.core.book.count, self.fleet_seen, self.host
                )
            )
        for orphan in self._orphans.found:
            self._spawn(orphan.hang_up_left(self._ops))
        try:
            await self._stop.wait()
            if self._fatal is None:
                await self._shut_down()
        finally:
            left = max(0.0, self._ends_at - self._clock())
            await self._ops.journal.give_up(left)
            await self._orphans.give_up(left)
            await self._cancel(ticking)
            self.close()
        return await self._exit_status()

    async def _cancel(self, ticking: asyncio.Task[None]) -> None:
        ticking.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(ticking, *self._tasks, return_exceptions=True)

    # ------------------------------------------------------------------ the fleet

    def fleet_seen(self, controllers: list[m.ControllerRef]) -> None:
        """Our peers hear which controllers there are."""
        for shell in (self, *self._guests.values()):
            shell._feed(ev.FleetSeen(controllers))

    async def host(self, guest: Shell) -> None:
        """Serve another stack on our socket, whose controller has died, until nothing of it is left
        or we end. What its clients do not claim is put back and hung up, as after any start."""
        stack = guest.core.book.identity.stack
        log.warning("stack %s is run here from now on, until nothing of it is left", stack)
        guest._feed(ev.FleetSeen(list(self.core.book.fleet)))
        self._guests[stack] = guest
        try:
            await guest._serve_as_guest(self._router, self._stop)
        finally:
            del self._guests[stack]
            self._changed.set()
            mine = [identity for identity, at in self._at_guest.items() if at is guest]
            for identity in mine:
                del self._at_guest[identity]
        log.warning("nothing is left of stack %s", stack)

    async def _serve_as_guest(self, router: BusSocket | None, stop: asyncio.Event) -> None:
        """Raises the error that ended it."""
        self._router = router
        ticking = asyncio.get_running_loop().create_task(self._tick())
        try:
            while self._fatal is None and not (stop.is_set() or self._is_over()):
                await self._ops.sleep(TICK_SECONDS)
            if self._fatal is None and stop.is_set():
                await self._shut_down()
        finally:
            await self._cancel(ticking)
        if self._fatal is not None:
            raise self._fatal

    def _is_over(self) -> bool:
        """Nobody has anything here, and all of it is written down."""
        return self.core.book.nothing_left and not self._tasks

    def _shell_of(self, hello: m.Hello) -> Shell | None:
        """Who serves the stack that this peer asks for; None: it is not here. If the stack is over
        and a client asks, this shell answers in its place, and says that the sessions are lost."""
        if hello.stack in ("", self.core.book.identity.stack):
            return self
        if hello.stack in self._guests:
            return self._guests[hello.stack]
        over = self.core.book.bus_of(hello.stack) is None
        return self if over and hello.role == "adapter" else None

    def close(self) -> None:
        """Listen no more; messages that were given out are still sent. May be called twice."""
        if self._router is not None:
            self._router.close(linger=100)

    async def _shut_down(self) -> None:
        """Put numbers back and hang up, for as long as there is time. The rest stays in the
        journal, and the exit status says so. REST is asked in a hurry, since honcho kills after 5
        s."""
        self._ends_at = self._clock() + STOP_WITHIN - self._spent()
        self._ops.hurry()
        self._feed(ev.Shutdown())
        while (self.core.book.busy or self._noting or self._guests) and self._fatal is None:
            left = self._ends_at - self._clock()
            if left < TICK_SECONDS / 10:
                return
            self._changed.clear()
            try:
                async with asyncio.timeout(min(left, TICK_SECONDS)):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _exit_status(self) -> int:
        """Name in the log whatever is left to be done, and return the status that says whether
        something is. Ask the journal and not the core, because the next start will find the
        journal."""
        if self._fatal is not None:
            if isinstance(self._fatal, _FORESEEN):
                raise self._fatal
            return EXIT_FAILED
        try:
            return await say_what_is_left(self._ops.journal, self._orphans)
        except DatabaseAwayError as error:
            log.error(
                "%s. What is still to be put back or hung up stands there: the next start, or "
                "`trunkline restore`, does it",
                error,
            )
            return EXIT_PENDING

    async def _check_credentials(self) -> None:
        """Credentials that Twilio refuses end the process at its start; the journal is kept."""
        try:
            await self._ops.carrier.find_number("+10000000")
        except RestFailure as failure:
            error = failure.error("be asked for this account")
            if failure.refused_credentials:
                raise error from failure
            log.warning("%s", error)
        say_ready()

    # ------------------------------------------------------------------ in

    def _receive(self, identity: bytes, message: m.ToController) -> None:
        """One message of a peer, for the stack that its connection has asked for."""
        if isinstance(message, m.Hello):
            shell = self._shell_of(message)
            if shell is None:
                bus = self.core.book.bus_of(message.stack)
                self._send(m.Moved(stack=message.stack, bus=bus), identity)
                return
            former = self._at_guest.get(identity, self)
            if former is not shell:
                former._let_go(identity)
            if shell is self:
                self._at_guest.pop(identity, None)
            else:
                self._at_guest[identity] = shell
        self._at_guest.get(identity, self)._take(identity, message)

    def _take(self, identity: bytes, message: m.ToController) -> None:
        """Give the message to the core, if it comes on the connection that has its peer's name. A
        Hello gets its connection the name first, unless something speaks against it."""
        peer = message.gateway if isinstance(message, m.GatewayNotification) else message.peer
        if isinstance(message, m.Hello):
            if (
                message.role != "adapter"
                and self._router is not None
                and self._router.by_client_key
            ):
                what = f"a Hello of a {message.role} that came by a client's key was dropped"
                self._wall.stop("roles of clients", what)
                return
            why = self._names.objection(message, identity)
            if why is not None:
                self._wall.stop(why, f"a Hello was dropped: {why}")
                return
            self._names.bind(message, identity)
        elif not self._names.has(peer, identity):
            if self._names.unknown(peer) and isinstance(message, m.Beat | m.Request):
                # It says Hello then, and asks again.
                self._send(reception.pulse(self.core.book, known=False), identity)
            else:
                what = type(message).__name__
                self._wall.stop("foreign names", f"a {what} in another's name was dropped")
            return
        self._feed(message)

    def _let_go(self, identity: bytes) -> None:
        """The connection goes to another stack. What its peer has here is as after the connection's
        end: nothing is sent to it any more, and its sessions wait for their secrets. A peer that
        has nothing here is forgotten at once, with its name."""
        peer = self._names.let_go(identity)
        if peer is not None:
            self._feed(ev.ConnectionLost(peer))
            self._names.forget_all_but(self.core.book.peers.by_id)

    def _unreadable(self, identity: bytes, payload: bytes, error: Exception) -> None:
        """A message cannot be read. If it is a request or a Hello, and says legibly who sent it,
        refuse it. Otherwise its sender would wait for ever, and send it again after each reconnect.
        Any other message is dropped."""
        names = self._at_guest.get(identity, self)._names
        try:
            begun = _decode_begun(payload)
        except Exception:  # noqa: BLE001  # it is neither
            return
        if isinstance(begun, _BegunHello):
            why = InvalidRequestError(f"the Hello of {begun.peer} cannot be read: {error}")
            self._send(m.Refused(error=ErrorInfo.of(why)), identity)
        elif names.has(begun.peer, identity):
            why = InvalidRequestError(f"the request cannot be read: {error}")
            self._send(m.Reply(id=begun.id, error=ErrorInfo.of(why)), identity)

    def _is_up(self, identity: bytes) -> bool:
        """Whether there is still a connection with this identity."""
        sign = _encode(reception.pulse(self.core.book, known=True))
        return self._router is not None and self._router.is_up(identity, sign)

    def _feed(self, event: AnyEvent) -> None:
        """Give the core an event, and carry out what it says. Nothing is asked of a core that has
        failed: its book may be half changed."""
        if self._fatal is not None:
            return
        now = self._clock()
        if now - self._fed_at > MAY_BE_TAKEN and self._ops.journal.shared and self._unsure is None:
            self._unsure = []
            self._spawn(self._confirm())
        self._fed_at = now
        if self._unsure is not None:
            self._unsure.append(event)
            return
        if isinstance(event, m.Request) and event.trace:
            self._spans.begin(event)
        try:
            instructions = self.core.handle(event, self._clock())
        except Exception as error:  # noqa: BLE001  # the process ends with it, and logs it
            self.core.book.count("internal errors")
            self._fail(error, f"{type(event).__name__} could not be handled")
            return
        for instruction in instructions:
            self._carry_out(instruction)
        self._changed.set()
        if not isinstance(event, ev.Tick | m.Beat):
            self._asked.set()

    async def _confirm(self) -> None:
        """We did not run for so long that another controller may run our stack by now. It has its
        calls then, and we must not hang them up. The error of a stack that is taken ends us."""
        await self._ops.journal.confirm()
        events, self._unsure = self._unsure or [], None
        for event in events:
            self._feed(event)

    async def _tick(self) -> None:
        """Time for the core, ten times a second. A late tick is not followed by several at once. At
        rest ticks are rarer until something comes, because each would wake the process for
        nothing."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            self._asked.clear()
            self._feed(ev.Tick())
            due = max(due + TICK_SECONDS, loop.time())
            if self.core.book.at_rest:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(REST_SECONDS):
                        await self._asked.wait()
            else:
                await asyncio.sleep(due - loop.time())
                self.core.book.measures.count("wakeup_lateness", loop.time() - due, "controller")
            self._wall.shield("look at connections", self._look_for_gone)

    def _look_for_gone(self) -> None:
        """Once a second, ask after the connections of peers that are silent. ZeroMQ tells a ROUTER
        nothing of a connection's end."""
        now = self._clock()
        peers = self.core.book.peers.by_id
        self._names.forget_all_but(peers)
        for connection, guest in list(self._at_guest.items()):
            if not guest._names.has_any(connection):
                del self._at_guest[connection]
        if now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        for peer in [peer for peer in peers.values() if peer.silent(now, LOOK_SECONDS)]:
            identity = self._names.connection(peer.id)
            if identity is not None and not self._is_up(identity):
                self._feed(ev.ConnectionLost(peer.id))

    # ------------------------------------------------------------------ out

    def _carry_out(self, instruction: Instruction) -> None:
        """Send messages to peers at once and in order. Every other instruction takes time, and gets
        a task of its own: a number whose restore hangs must not hold up another one."""
        if isinstance(instruction, do.Send):
            identity = self._names.connection(instruction.peer)
            if isinstance(instruction.message, m.Reply):
                self._spans.end(instruction.peer, instruction.message)
            if identity is not None:
                self._send(instruction.message, identity)
        elif isinstance(instruction, do.Show):
            self._show(instruction.message)
        else:
            self._spawn(self._work(instruction))

    def show_to(self, show: Callable[[m.Levels | m.CallSound], object]) -> None:
        """The console listens."""
        self._show = show

    def act(self, event: ev.Look | ev.ByHand) -> None:
        """The console wants this."""
        self._feed(event)

    def _send(self, message: m.FromController, identity: bytes) -> None:
        """One message to one connection. If it cannot be encoded, that is logged, and the others
        still leave."""
        router = self._router
        if router is not None:
            what = type(message).__name__
            self._wall.shield(what, lambda: router.send(_encode(message), identity))

    def _spawn(self, work_: Coroutine[Any, Any, None]) -> None:
        """Keep the task, and look at how it ends."""
        task = asyncio.get_running_loop().create_task(work_)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        """An operation ended. None may raise, because a failure at Twilio comes back as a result.
        So an exception is one that nobody foresaw, and only the journal can be trusted now."""
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._fail(error, "an operation failed")

    def _fail(self, error: BaseException, what: str) -> None:
        """The controller ends without another word to Twilio."""
        if self._fatal is None:
            if not isinstance(error, _FORESEEN):
                log.critical("%s; the controller ends", what, exc_info=error)
            self._fatal = error
            self._stop.set()
            self._changed.set()

    def _number(self, number: str) -> asyncio.Lock:
        """The lock of a number: of two writes to it the later one must be the later one at Twilio
        too."""
        return self._numbers.setdefault(number, asyncio.Lock())

    async def _work(self, instruction: Instruction) -> None:
        """One instruction, from its start to the result that the core hears. Most ask Twilio and
        come back with one result (:data:`_PLAIN`). The others differ: some wait for a number, some
        have two results, notes have none."""
        ops = self._ops
        plain = _PLAIN.get(type(instruction))
        if plain is not None:
            self._feed(await plain(ops, instruction))
        elif isinstance(instruction, do.Apply):
            async with self._number(instruction.row.number):
                self._feed(await put_on(ops, instruction))
        elif isinstance(instruction, do.Restore):
            await self._restore(instruction.override)
        elif isinstance(instruction, do.KeepHolder):
            # Behind the Apply that plans the row.
            async with self._number(instruction.number):
                await ops.journal.add_holder(
                    instruction.override, instruction.session, instruction.secret_hash
                )
        elif isinstance(instruction, do.Create):
            await self._create(instruction)
        elif isinstance(instruction, do.Settle):
            await self._settle(instruction)
        elif isinstance(instruction, do.NoteTaken):
            await self._note(ops.journal.dial_taken(instruction.request, instruction.sid))
        elif isinstance(instruction, do.NoteSeen):
            await self._note(ops.journal.note_seen(instruction.sid, instruction.since))
        elif isinstance(instruction, do.CloseDial):
            await self._note(ops.journal.dial_closed(instruction.request, instruction.seconds))
        elif isinstance(instruction, do.CloseListening):
            await self._note(ops.journal.listening_closed(instruction.call))
        elif isinstance(instruction, do.StopListening):
            self._feed(await operations.stop_listening(ops, instruction, self._feed))
        elif isinstance(instruction, do.End):
            self._feed(await operations.end(ops, instruction.call, instruction.sids, self._feed))

    async def _note(self, write: Coroutine[Any, Any, None]) -> None:
        """A note to the journal. The process does not end before it is written."""
        self._noting += 1
        try:
            await write
        finally:
            self._noting -= 1
            self._changed.set()

    async def _restore(self, override: str) -> None:
        """Put a number back, with the journal that has its row: ours, or that of a stack that is
        gone, whose lock has to be taken first. If that stack lives again, its number is its own."""
        ops = self._ops
        orphan = self._orphans.of(override)
        if orphan is not None:
            taken = await orphan.take(ops)
            if taken is None:
                self._feed(ev.Restored(override, "left_alone"))
                return
            ops = taken
        row = await ops.journal.override(override)
        if row is None or not row.open:
            self._feed(ev.Restored(override, "restored"))
            return
        async with self._number(row.number):
            self._feed(ev.Restored(override, await restore(ops, row)))

    async def _create(self, instruction: do.Create) -> None:
        """Ask for a call. Before each try, check that somebody still waits for it."""
        dials = self.core.book.dials
        request = instruction.row.request

        def wanted() -> bool:
            return dials[request].outcome is None

        self._feed(await operations.create(self._ops, instruction, wanted, self._feed))

    async def _settle(self, instruction: do.Settle) -> None:
        """Look for the call of a dial whose answer never came, until it is found, or something else
        has named it. Calls that are known to belong to others are not taken for it."""
        core = self.core
        request = instruction.row.request

        def unsettled() -> bool:
            dial = core.book.dials.get(request)
            return dial is not None and dial.state == "unsure"

        def belongs(sid: str) -> bool:
            return sid in core.book.by_sid or core.book.came_of_a_dial(sid, but=request)

        result = await operations.settle(self._ops, instruction.row, unsettled, belongs)
        if result is not None:
            self._feed(result)
