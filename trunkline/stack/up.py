"""``trunkline up``: the whole stack in the foreground.

This process holds the public port, and starts one controller, the gateways and the codec workers
under a supervisor (supervisor.py), which starts a process again when it dies. At the end the
controller is asked to end first, because it puts the numbers back; then the others are, and all end
within 4 s. Each process writes its log to stderr itself.

With ``--sim`` a stand-in carrier is one more child. It comes up first and goes down last, so that
it still answers while numbers are put back. With ``--ready-file`` a file says how to reach the
stack. It is written when every process has joined, and deleted when the stack begins to end
(bus/launch.py reads it).

A child that fails before it was ever ready has wrong settings or surroundings, and says so itself.
Then the whole stack ends with status 1. When the supervisor is killed, its children see its pipe
close, and end as on SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from trunkline.bus import hosts
from trunkline.bus.clock import monotonic
from trunkline.bus.errors import SettingsError, StackUnavailableError, TrunklineError
from trunkline.bus.launch import StackInfo, check_ready_file, trunkline_argv, write_ready_file
from trunkline.bus.process import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_PENDING,
    Stop,
    StoppedError,
    run,
    setup_logging,
    tell_slips,
    unless,
)
from trunkline.bus.redact import mask_url
from trunkline.bus.runtime_dir import held_directory
from trunkline.bus.settings import Settings
from trunkline.controller.journal.state_dir import StackRunsError, check_free

from . import stand_in
from .children import SILENT_FOR, Child, one_console_port, settings_environment
from .controller_client import controller_client, get_status
from .public_port import PublicPort
from .stand_in import StandIn
from .supervisor import Supervisor, exit_status
from .tunnel import Tunnel

log = logging.getLogger("trunkline.stack.supervisor")

#: Seconds that the controller has to put the numbers back before the others are asked to end.
CONTROLLER_FIRST: Final = 2.8
#: Seconds between two looks at whether all children have joined.
_LOOK_EVERY: Final = 0.1
#: Seconds without a complete stack after which the log says what is missing.
_SAY_MISSING_AFTER: Final = 15.0


@dataclass(frozen=True)
class Wishes:
    """The options of ``trunkline up`` that are not settings."""

    gateways: int = 2
    codec_workers: int = 2
    tunnel: str | None = None
    sim: bool = False
    ready_file: Path | None = None


def up(settings: Settings, wishes: Wishes) -> int:
    """Run a stack until SIGTERM, SIGINT or the end of the parent; returns the exit status.

    Raises SettingsError (PortTakenError is one) and StackRunsError before anything is started, and
    TunnelError before the stack's own processes are.
    """
    if not wishes.sim:
        settings.require("account_sid", "; `trunkline up --sim` needs no account")
        settings.require("auth_token")
        if wishes.tunnel is None:
            settings.require("public_url")
    if wishes.ready_file is not None:
        check_ready_file(wishes.ready_file)
    settings.address.make_directory()
    _refuse_beside_another(settings, wishes)
    any_port = wishes.sim and "http_port" not in settings.given
    end_logging = setup_logging("supervisor", settings.log_format)
    try:
        tell_slips(log)
        port = PublicPort.claim(
            settings.http_host, 0 if any_port else settings.http_port, settings.bus
        )
        try:
            if wishes.ready_file is not None:
                wishes.ready_file.unlink(missing_ok=True)  # a stack that was killed left it
            status = run(lambda stop: _up(settings, port, wishes, stop))
            log.info("ended with status %d", status)
            return status
        finally:
            port.close()
    finally:
        end_logging()


def _refuse_beside_another(settings: Settings, wishes: Wishes) -> None:
    """Raise StackRunsError where a controller runs at the bus or in the state directory.

    Our controller would refuse to start there too. But by then our gateways and codec workers would
    have joined the other stack.
    """
    address = settings.address
    # With --sim the stack gets a state directory of its own.
    check_free(None if wishes.sim else settings.state_path, address.directory)
    if address.directory is not None:
        return
    host = "0.0.0.0" if address.host == "*" else address.host  # noqa: S104  # the bus will bind it
    # If anything else is wrong with the address, the controller says so itself.
    with contextlib.suppress(SettingsError):
        try:
            hosts.listen(host, address.port).close()
        except hosts.PortTakenError as error:
            raise StackRunsError(
                f"another controller, or another program, listens at TRUNKLINE_BUS={settings.bus}; "
                "end it, or use another address"
            ) from error


async def _up(settings: Settings, port: PublicPort, wishes: Wishes, stop: Stop) -> int:
    host, number = port.address
    async with contextlib.AsyncExitStack() as held:
        carrier = None
        if wishes.sim:
            own, lock = held.enter_context(held_directory("trunkline-sim-"))
            carrier = StandIn(settings, own, lock)
            held.push_async_callback(carrier.close)
            info = await carrier.ready(stop)
            if info is None:
                if stop.is_set():
                    return _ended_early(stop)
                log.error("%s, so the stack ends", carrier.describe_end())
                return EXIT_FAILED
            settings = stand_in.fit(settings, info, number, own / "state")
        tunnel = None
        given: dict[str, Any] = {"http_port": number}
        if wishes.tunnel is not None:
            try:
                tunnel = await unless(stop, Tunnel.open(wishes.tunnel, host, number))
            except StoppedError:
                return _ended_early(stop)
            held.push_async_callback(tunnel.close)
            given["public_url"] = tunnel.url
        settings = one_console_port(settings.changed(**given))
        return await run_stack(settings, port.fd, wishes, stop, carrier=carrier, tunnel=tunnel)


async def run_stack(
    settings: Settings,
    listen_fd: int,
    wishes: Wishes,
    stop: Stop,
    *,
    carrier: StandIn | None = None,
    tunnel: Tunnel | None = None,
) -> int:
    """Keep the stack's processes running until ``stop`` is set, or until a child, the carrier or
    the tunnel ends for good. Returns the exit status.

    The controller ends first. Until it has put the numbers back, gateways have to answer at the
    public URL.
    """
    ends: dict[asyncio.Task[Any], Callable[[], str]] = {}
    held: tuple[int, ...] = ()
    if carrier is not None:
        ends[carrier.ended] = carrier.describe_end
        held = (carrier.pipe.write_fd,)
    if tunnel is not None:
        ends[asyncio.create_task(tunnel.ended())] = tunnel.describe_end
    async with Supervisor(head_start=CONTROLLER_FIRST) as supervisor:

        def keep(name: str, *argv: str, pass_fds: Sequence[int] = ()) -> Child:
            return supervisor.keep(
                name,
                trunkline_argv(*argv),
                settings_environment(settings, argv[0]),
                pass_fds=(*pass_fds, *held),
                silent_for=SILENT_FOR[argv[0]],
            )

        controller = keep("controller", "controller")
        listen = ("--listen-fd", str(listen_fd))
        for n in range(1, wishes.gateways + 1):
            keep(f"gateway {n}", "gateway", *listen, pass_fds=(listen_fd,))
        for n in range(1, wishes.codec_workers + 1):
            keep(f"codec worker {n}", "codec-worker")
        is_up = asyncio.Event()
        telling = asyncio.create_task(_tell_when_ready(settings, wishes, controller, tunnel, is_up))
        try:
            asked = await supervisor.until(stop, *ends)
            # A child that has ended for good has said why itself.
            for end, describe_end in ends.items():
                if end.done():
                    log.error("%s, so the stack ends", describe_end())
        finally:
            if wishes.ready_file is not None:
                wishes.ready_file.unlink(missing_ok=True)
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
    status = exit_status(controller.ended.result(), "controller")
    if carrier is not None and status == EXIT_PENDING:
        log.info("what is left open stays so: the journal is deleted with the stand-in carrier")
    if not asked:
        return EXIT_FAILED
    if status == EXIT_PENDING:
        return EXIT_PENDING
    return EXIT_DONE if is_up.is_set() else _ended_early(stop)


def _ended_early(stop: Stop) -> int:
    """The exit status of a stack that was asked to end before all of its processes had joined.

    After Ctrl-C it is a failure, so that a script does not go on behind it. A service manager that
    sends SIGTERM asks for no more than the end, and would take any other status for a fault.
    """
    log.warning("interrupted before the stack was ready")
    return EXIT_FAILED if stop.interrupted else EXIT_DONE


async def _tell_when_ready(
    settings: Settings,
    wishes: Wishes,
    controller: Child,
    tunnel: Tunnel | None,
    is_up: asyncio.Event,
) -> None:
    """Wait until every process has joined our controller, and Twilio has taken the credentials, or
    could not be asked. Then set ``is_up``, write the ready file and print one line."""
    wanted = {"gateways": wishes.gateways, "codec_workers": wishes.codec_workers}

    def complete(status: dict[str, Any]) -> bool:
        ours = status["controller"]["pid"] == controller.pid
        return ours and controller.ready and all(len(status[k]) >= n for k, n in wanted.items())

    status = await _until(complete, settings)
    is_up.set()
    console = status["controller"].get("console")
    sim = settings.twilio_api_url if wishes.sim else None
    if wishes.ready_file is not None:
        info = StackInfo(
            account_sid=settings.account_sid,
            auth_token=settings.require("auth_token"),
            pid=os.getpid(),
            bus=settings.bus,
            public_url=settings.require("public_url"),
            console=console,
            sim=sim,
        )
        try:
            write_ready_file(wishes.ready_file, info)
        except OSError as error:  # the disk is full, or the directory has gone since the start
            log.error("--ready-file %s cannot be written: %s", wishes.ready_file, error.strerror)
    if tunnel is not None and not await tunnel.wait_reachable():
        log.warning("%s cannot be reached through the tunnel yet", tunnel.url)
    click.echo(
        f"trunkline is ready: {mask_url(settings.public_url)}"
        f"{f' through {tunnel.kind.name}' if tunnel else ''} -> "
        f"{hosts.join(settings.http_host, settings.http_port)}"
        f" ({wanted['gateways']} gateways, {wanted['codec_workers']} codec workers)"
        f"{f', console at {console}' if console else ''}, bus {settings.bus}"
        f"{f', carrier_sim at {sim} (account {settings.account_sid})' if sim else ''}"
    )


async def _until(complete: Callable[[dict[str, Any]], bool], settings: Settings) -> dict[str, Any]:
    """Wait until the stack's status is ``complete``, and return it. Where that takes long, the log
    says once what is missing."""
    began = monotonic()
    said = False
    status: dict[str, Any] = {}
    while True:
        with contextlib.suppress(StackUnavailableError):
            async with controller_client(settings) as client:
                while True:
                    try:
                        status = await get_status(client)
                    except (TrunklineError, msgspec.ValidationError) as error:
                        log.warning("the controller does not tell its status: %s", error)
                    if status and complete(status):
                        return status
                    if not said and monotonic() - began > _SAY_MISSING_AFTER:
                        said = True
                        log.warning("the stack is not complete yet: %s", _counts(status))
                    await asyncio.sleep(_LOOK_EVERY)


def _counts(status: dict[str, Any]) -> str:
    if not status:
        return "no answer from the controller"
    return f"{len(status['gateways'])} gateways, {len(status['codec_workers'])} codec workers"
