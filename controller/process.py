"""The controller's process: settings in, exit status out.

It holds the locks of its directories for life, opens the journal, and runs the shell
(:mod:`.shell`) and the console on one loop. On SIGTERM numbers come first. A number that could not
be put back in time stays in the journal, and the exit status says so: 0 nothing is left, 1 it could
not run, 3 something is still to be put back or hung up.

The order of a start is a promise::

    settings     a missing one is named before anything is touched
    locks        two controllers on one state directory would each put back what the other wrote
    journal      ours, then those that others left
    seals        only if rows are lost or cannot be read: the numbers say what they were
    core         a new epoch, with all that is open
    socket       a client that is welcomed must be able to claim what it had
    console      its port; then the log says where everything is

At the end numbers are put back first. Then journals are closed, once nothing writes to them any
more. Locks come last, because a free lock says that nobody uses its journal.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar

import zmq

from trunkline.bus import messages as m
from trunkline.bus.cassettes import Cassettes
from trunkline.bus.clock import monotonic
from trunkline.bus.curve import stop_authenticator
from trunkline.bus.errors import CarrierError, SettingsError
from trunkline.bus.locks import FileLock
from trunkline.bus.process import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_PENDING,
    complain,
    run,
    setup_logging,
    tell_slips,
)
from trunkline.bus.settings import Settings

from . import otlp, status
from .console import HOST, Console
from .core import Core
from .journal import file, places, state_dir
from .journal.database import JournalError
from .journal.orphans import Orphans, Present, clear_away
from .journal.rows import SEEN_KEPT
from .journal.state_dir import StackDir, StackRunsError
from .live import snapshot
from .other_stacks import OtherStacks, refs
from .pages import Pages
from .rules.book import Identity, Rules
from .shell import Shell
from .twilio.api_host import region_and_edge
from .twilio.carrier import TwilioCarrier
from .twilio.operations import Operations
from .twilio.probe import Prober
from .twilio.sealed import find_own
from .usage import DAY, Caps
from .viewers import Viewers

if TYPE_CHECKING:
    from .journal.postgres.register import LeftInDatabase, Register
    from .metrics import Metrics

log = logging.getLogger("trunkline.controller")

T = TypeVar("T")

#: A start that is not done when SIGTERM comes is given up after so many seconds. A file answers
#: long before, so only a database that is away is given up, or Twilio, if it has to be asked.
STARTED_WITHIN: Final = 2.0
#: Seconds by which the system's clock may go back unnoticed. A clock that NTP keeps goes back by
#: less. One that was hours fast is worth a line: the journal has Unix times, and what lies ahead of
#: the clock has to be taken for now.
CLOCK_SLACK: Final = 5.0


def main(settings: Settings) -> int:
    """Run a controller until SIGTERM, SIGINT or the end of the parent; returns the exit status.

    A missing setting raises SettingsError before anything is touched. Any other obstacle (another
    stack, a damaged journal, wrong credentials) is one line on stderr and status 1.
    """
    for name in ("account_sid", "auth_token", "public_url"):
        settings.require(name)
    region_and_edge(settings.region, settings.edge)
    end_logging = setup_logging("controller", settings.log_format)
    try:
        tell_slips(log)
        return run(lambda stop: serve(settings, stop))
    except (StackRunsError, JournalError, SettingsError, CarrierError) as error:
        complain("controller", error)
        return EXIT_FAILED
    finally:
        end_logging()


async def serve(settings: Settings, stop: asyncio.Event) -> int:
    """Run a controller on the running loop until ``stop``; errors as main's. Tests call this, too,
    with a stack in their own process.

    ``holder`` is what the locks say of us, for example "controller (pid 4711, ipc:///run/…)": the
    error of whoever wants the same directory names it. The bus is locked as well as the state
    directory, since two stacks with two state directories may still be given one bus.
    """
    holder = f"controller (pid {os.getpid()}, {settings.bus})"
    address = settings.address
    address.make_directory()
    locks = [state_dir.lock_state_dir(settings.state_path, holder)]
    ending = _EarlyEnd(stop)
    try:
        if address.directory is not None:
            locks.append(state_dir.lock_bus_dir(address.directory, holder))
            address.clear_away()
        return await _serve_locked(settings, stop, ending, holder, locks.append)
    finally:
        ending.close()
        for lock in locks:
            lock.release()


async def _serve_locked(
    settings: Settings,
    stop: asyncio.Event,
    ending: _EarlyEnd,
    holder: str,
    hold: Callable[[FileLock], None],
) -> int:
    """Open everything that has to be closed again, serve, and close it: first whatever may still
    write to a journal, and then the journals.

    EXIT_PENDING: we were to end, and it was too late to begin. If another machine has taken the
    stack's journal, :func:`.journal.places.open_own` begins a new stack in its place. So only the
    lock of the stack that it returns is given to ``hold``, which keeps it until all is over.
    """
    account = settings.require("account_sid")
    stack = places.own_dir(settings, account, holder)
    _set_aside(stack)
    opened = await ending.result_or_none(places.open_own(settings, account, holder, stack))
    if opened is None:
        return EXIT_PENDING
    stack, journal, stacks = opened
    hold(stack.lock)
    cassettes = Cassettes.of(settings)
    carrier = TwilioCarrier.of(settings, cassettes)
    prober = Prober(settings.state_path, holder)
    ops = Operations.of(settings, stack.id, carrier, journal, prober)
    orphans = Orphans()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        preparing = _prepare(settings, ops, account, holder, prober.present, stack, stacks)
        begun = await ending.result_or_none(preparing)
        if begun is None:
            return EXIT_PENDING
        core, orphans, left = begun
        carrier.watched_by(core.book.measures.asked_twilio)
        others, fleet = None, list[m.ControllerRef]()
        stack.begun()
        if stacks is not None:
            fleet = refs(stacks.fleet)

            # For a stack of the fleet whose controller has died (:mod:`.other_stacks`). Its core
            # has no orphans and no console: what others left is our own stack's business.
            async def run_too(of_another: Operations) -> Shell:
                core = await _core(settings, of_another, account, Orphans(), lost=False, fleet=True)
                return Shell(core, of_another, asyncio.Event())

            ours = [each for each in left if each.fleet and not each.silent_for]
            others = OtherStacks(stacks, orphans, ops, prober.present, run_too, ours)
        shell = Shell(core, ops, stop, orphans, others=others, spent=ending.spent)
        shell.fleet_seen(fleet)
        status = await _run(settings, shell, context)
    finally:
        stop_authenticator(context)
        context.destroy(linger=100)
        carrier.close()
        if cassettes is not None:
            cassettes.close()
        prober.close()
        await asyncio.gather(journal.close(), orphans.close())
    # Only where nothing is left: the journal of anything else is what the next start reads.
    if status == EXIT_DONE:
        clear_away(stack)
    return status


class _EarlyEnd:
    """The end, which may be asked for while we still start. The start then has
    :data:`STARTED_WITHIN` seconds, in which a journal on a disk always answers. If it is done by
    then, it goes on, and ends in good order right away."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._asked_at: float | None = None
        self._late = asyncio.ensure_future(self._wait(stop))

    async def _wait(self, stop: asyncio.Event) -> None:
        """Return when a start that is not done by then is given up."""
        await stop.wait()
        self._asked_at = monotonic()
        await asyncio.sleep(STARTED_WITHIN)

    def spent(self) -> float:
        """How many seconds ago the end was asked for. The start has taken these from the end's
        time."""
        return 0.0 if self._asked_at is None else monotonic() - self._asked_at

    async def result_or_none(self, work: Coroutine[Any, Any, T]) -> T | None:
        """The result of ``work``; None: it became too late for that, because a database or Twilio
        does not answer. What is still to be put back stands in the journal."""
        working = asyncio.ensure_future(work)
        try:
            await asyncio.wait({working, self._late}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            log.error("the stack was ended before its start was done: nothing is put back")
            return None
        finally:
            working.cancel()

    def close(self) -> None:
        self._late.cancel()


async def _prepare(
    settings: Settings,
    ops: Operations,
    account: str,
    holder: str,
    present: Present,
    stack: StackDir,
    stacks: Register | None,
) -> tuple[Core, Orphans, list[LeftInDatabase]]:
    """The core, from all that the journals and, if need be, the numbers say; and what others left,
    here and in the database."""
    journal = ops.journal
    orphans = Orphans.find(settings.state_path, account, holder, present)
    left: list[LeftInDatabase] = []
    fleet = False
    if stacks is not None:
        left = await stacks.left(but=stack.id)
        fleet = bool(stacks.fleet)
        # Those of our fleet may live, and if they do not their clients come here.
        orphans.add([each for each in left if not each.fleet], present)
    # A start that died while it asked for the numbers' seals has left a journal, and no epoch.
    lost = not stack.new and not await journal.has_epochs()
    if lost:
        log.error(
            "%s: the journal of stack %s is gone; a new one is begun, and the account's "
            "numbers are asked what they were before this stack overrode them",
            journal.name,
            stack.id,
        )
    unreadable = await journal.unreadable()
    for row in unreadable:
        log.error("%s", row.text(journal.name))
    if lost or unreadable:
        await find_own(ops, unreadable)
    core = await _core(settings, ops, account, orphans, lost=lost, fleet=fleet)
    return core, orphans, left


def _set_aside(stack: StackDir) -> None:
    """Give a journal that was cut to nothing another name. A new one is begun then, under the same
    id of the stack: numbers that were overridden name that id in their voice_url, and their seal
    says what they were before."""
    if file.is_cut(stack.journal):
        log.error(
            "%s: the journal is empty, and it was not when it got this name: somebody has cut it. "
            "It is %s now",
            stack.journal,
            file.set_aside(stack.journal).name,
        )


async def _core(
    settings: Settings,
    ops: Operations,
    account: str,
    orphans: Orphans,
    *,
    lost: bool,
    fleet: bool,
) -> Core:
    """A new epoch's state machine, with what the journals have open. ``lost``: the journal is gone,
    and nobody knows how many epochs there were. Then the epoch is the number of minutes since 1970,
    which no count of starts has reached (29.5 million in 2026): peers take a greater number for a
    newer controller, and would not listen to an epoch 1 behind an epoch 7. ``fleet``: the stack is
    one of a fleet.

    Closed dials of the last day are read too, because the caps count them, and so are the webhooks
    of the last day, because a replayed one has to be known.
    """
    journal = ops.journal
    now = time.time()
    ahead = await journal.newest() - now
    if ahead > CLOCK_SLACK:
        log.error(
            "%s: its newest row is %.0f s ahead of this machine's clock, which was set back: set "
            "it right. Until then times that lie ahead are taken for now",
            journal.name,
            ahead,
        )
    epoch = await journal.begin_epoch(os.getpid(), now, int(now // 60) if lost else 1)
    open_rows = await journal.open_rows()
    dials = open_rows.dials + await journal.closed_dials(now - DAY)
    rules = Rules(
        lead_ms=settings.lead_ms,
        calls_per_second=settings.calls_per_second,
        pool=settings.numbers,
        callers=settings.allowed_callers,
        callees=settings.allowed_callees,
        caps=Caps(settings.max_calls, settings.max_calls_per_hour, settings.max_minutes_per_day),
    )
    seen = await journal.seen(now - SEEN_KEPT)
    recordings = settings.recordings_dir
    # Behind all questions, because the core takes the time from here to its first tick for its own.
    identity = Identity(
        stack=ops.stack,
        epoch=epoch,
        pid=os.getpid(),
        account=account,
        public_url=ops.public_url,
        started_wall=time.time(),
        started=monotonic(),
        fleet=fleet,
        recordings_dir=None if recordings is None else str(recordings.absolute()),
        stand_in=settings.twilio_api_url,
    )
    return Core(
        identity, rules, open_rows.overrides, dials, orphans.rows, seen, open_rows.listening
    )


async def _run(settings: Settings, shell: Shell, context: zmq.Context[zmq.Socket[bytes]]) -> int:
    """Serve until stopped; returns the exit status.

    The socket is bound first. If it cannot be, nothing was promised to anybody. The console is
    closed after the shell has put numbers back, so that its pages show how.
    """
    core = shell.core
    try:
        endpoint = shell.listen(context, settings.address.control, settings.curve)
    except zmq.ZMQError as error:
        raise SettingsError(
            f"TRUNKLINE_BUS={settings.bus}: cannot listen there ({error}); another controller "
            "may run at this address"
        ) from error
    book = core.book
    viewers = Viewers(lambda: snapshot(book, monotonic()), core.timeline, shell.act)
    shell.show_to(viewers.shown)
    pages = Pages(
        viewers,
        book.is_live,
        shell.act,
        book.console_token,
        settings.recordings_dir,
        settings.cassettes_dir,
    )

    @functools.cache
    def metrics() -> Metrics:
        from .metrics import Metrics  # prometheus_client: only where somebody asks

        return Metrics(book, monotonic)

    console = Console(lambda: status.build(book, monotonic()), metrics, pages)
    pusher = None
    try:
        if otlp.chosen():
            pusher = otlp.Pusher(metrics(), book.identity.stack)
        console.start(settings.console_port)
        core.book.console_at(f"http://{HOST}:{console.port}")
        log.info(
            "stack %s, epoch %d, at %s; console at %s",
            core.book.identity.stack,
            core.book.identity.epoch,
            endpoint,
            core.book.console,
        )
        return await shell.serve()
    finally:
        shell.close()
        await console.close()
        if pusher is not None:
            await pusher.close()
