"""``trunkline up``: the whole stack in the foreground.

The supervisor holds the public port, starts one controller, the gateways and the codec workers as
its children, and starts again what dies. It ends them in the order that puts the numbers first: the
controller, then the rest, all within 4 s. Children write to stderr themselves; nothing is relayed.

With ``--sim`` a stand-in carrier is one more child, the first one up and the last one down, so that
it still answers while numbers are put back. With ``--ready-file`` a file says how to reach the
stack, from the moment when all of it has joined until its end begins (bus/launch.py reads it).

When a child fails at its first start its settings are wrong (it says so itself), and the whole
stack ends with status 1. When the supervisor is killed its children see its pipe close and end as
on SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from trunkline.bus import hosts
from trunkline.bus.clock import monotonic
from trunkline.bus.errors import SettingsError, StackUnavailableError, TrunklineError
from trunkline.bus.launch import ParentPipe, StackInfo, trunkline_argv, write_ready_file
from trunkline.bus.process import EXIT_DONE, EXIT_FAILED, EXIT_PENDING, run, setup_logging
from trunkline.bus.redact import mask_url
from trunkline.bus.settings import Settings
from trunkline.controller.journal.state_dir import StackRunsError, check_free
from trunkline.stack import stand_in
from trunkline.stack.ask import controller, get_status
from trunkline.stack.children import END_WITHIN, Child, describe, settings_environment
from trunkline.stack.keep_alive import exit_status
from trunkline.stack.public_port import PublicPort
from trunkline.stack.stand_in import StandIn
from trunkline.stack.tunnel import Tunnel

log = logging.getLogger("trunkline.stack.supervisor")

#: What the controller has to put the numbers back before gateways and workers are asked to end.
CONTROLLER_FIRST: Final = 2.8
#: Between two looks whether all children have joined.
_LOOK_EVERY: Final = 0.1
#: After this long without a complete stack, say what is missing.
_SAY_MISSING_AFTER: Final = 15.0


@dataclass(frozen=True)
class Wishes:
    """What ``trunkline up`` was asked for, apart from settings."""

    gateways: int = 2
    codec_workers: int = 2
    tunnel: str | None = None
    sim: bool = False
    ready_file: Path | None = None


def up(settings: Settings, wishes: Wishes) -> int:
    """Run a stack until SIGTERM, SIGINT or the end of the parent; returns the exit status.

    Raises SettingsError (PortTakenError among them), StackRunsError and TunnelError before anything
    is started.
    """
    if not wishes.sim:
        settings.require("account_sid")
        settings.require("auth_token")
        if wishes.tunnel is None:
            settings.require("public_url")
    if wishes.ready_file is not None and not wishes.ready_file.parent.is_dir():
        raise SettingsError(f"--ready-file {wishes.ready_file}: there is no such directory")
    settings.address.make_directory()
    _refuse_beside_another(settings, wishes)
    any_port = wishes.sim and "http_port" not in settings.model_fields_set
    end_logging = setup_logging("supervisor", settings.log_format)
    try:
        port = PublicPort.claim(
            settings.http_host, 0 if any_port else settings.http_port, settings.bus
        )
        try:
            if wishes.ready_file is not None:
                wishes.ready_file.unlink(missing_ok=True)  # of a stack that was killed
            status = run(lambda stop: _up(settings, port, wishes, stop))
            log.info("ended with status %d", status)
            return status
        finally:
            port.close()
    finally:
        end_logging()


def _refuse_beside_another(settings: Settings, wishes: Wishes) -> None:
    """StackRunsError where a controller lives at the bus or the state directory.

    Ours would be refused there too, but until then our gateways and codec workers would join the
    other stack.
    """
    address = settings.address
    # Beside the stand-in carrier it gets a state directory of its own.
    check_free(None if wishes.sim else settings.state_path, address.directory)
    if address.directory is not None:
        return
    host = "0.0.0.0" if address.host == "*" else address.host
    # What else is wrong with the address the controller says itself.
    with contextlib.suppress(SettingsError):
        try:
            hosts.listen(host, address.port).close()
        except hosts.PortTakenError as error:
            raise StackRunsError(
                f"another controller, or another program, listens at TRUNKLINE_BUS={settings.bus}; "
                "end it, or use another address"
            ) from error


async def _up(settings: Settings, port: PublicPort, wishes: Wishes, stop: asyncio.Event) -> int:
    host, number = port.address
    async with contextlib.AsyncExitStack() as held:
        carrier = None
        if wishes.sim:
            own = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="trunkline-sim-")))
            carrier = StandIn(settings, own)
            held.push_async_callback(carrier.close)
            info = await carrier.ready(stop)
            if info is None:
                return EXIT_DONE if stop.is_set() else _carrier_ended(carrier)
            settings = stand_in.fit(settings, info, number, own / "state")
        tunnel = await held.enter_async_context(_opened(wishes.tunnel, host, number))
        given: dict[str, Any] = {"http_port": number}
        if tunnel is not None:
            given["public_url"] = tunnel.url
        supervisor = Supervisor(settings.model_copy(update=given), port.fd, wishes, carrier)
        return await supervisor.run(stop, tunnel)


def _carrier_ended(carrier: StandIn) -> int:
    log.error(
        "the stand-in carrier ended (%s), so the stack ends", describe(carrier.ended.result())
    )
    return EXIT_FAILED


@contextlib.asynccontextmanager
async def _opened(tunnel: str | None, host: str, port: int) -> AsyncIterator[Tunnel | None]:
    if tunnel is None:
        yield None
        return
    opened = await Tunnel.open(tunnel, host, port)
    try:
        yield opened
    finally:
        await opened.close()


class Supervisor:
    """The children of one stack, and the order in which they end."""

    def __init__(
        self, settings: Settings, listen_fd: int, wishes: Wishes, carrier: StandIn | None = None
    ) -> None:
        self._settings = settings
        self._ready_file = wishes.ready_file
        self._carrier = carrier
        self._parent = ParentPipe()
        environment = settings_environment(settings)
        held = () if carrier is None else (carrier.pipe.write_fd,)

        def child(name: str, *argv: str, pass_fds: Sequence[int] = ()) -> Child:
            fds = (*pass_fds, *held)
            return Child(name, trunkline_argv(*argv), environment, self._parent, pass_fds=fds)

        self.controller = child("controller", "controller")
        self.gateways = [
            child(f"gateway {n}", "gateway", "--listen-fd", str(listen_fd), pass_fds=(listen_fd,))
            for n in range(1, wishes.gateways + 1)
        ]
        self.codec_workers = [
            child(f"codec worker {n}", "codec-worker") for n in range(1, wishes.codec_workers + 1)
        ]

    async def run(self, stop: asyncio.Event, tunnel: Tunnel | None = None) -> int:
        """Keep everything running until ``stop`` or an end that is final."""
        children = [self.controller, *self.gateways, *self.codec_workers]
        keeping = {asyncio.create_task(child.keep()): child for child in children}
        stopping = asyncio.create_task(stop.wait())
        telling = asyncio.create_task(self._tell_when_ready(tunnel))
        watched: set[asyncio.Task[Any]] = {*keeping, stopping}
        carrier = self._carrier
        if carrier is not None:
            watched.add(carrier.ended)
        if tunnel is not None:
            watched.add(asyncio.create_task(tunnel.ended()))
        try:
            done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            failed = stopping not in done
            if carrier is not None and carrier.ended in done:
                _carrier_ended(carrier)
            elif failed and tunnel is not None and not done & keeping.keys():
                log.error("the tunnel at %s ended, so the stack ends", tunnel.url)
            # A child whose end is final has said why itself.
        finally:
            if self._ready_file is not None:
                self._ready_file.unlink(missing_ok=True)
            for task in (stopping, telling):
                task.cancel()
            await asyncio.gather(telling, return_exceptions=True)
            status = await self._end(keeping)
            self._parent.close()
        return EXIT_FAILED if failed else status

    async def _end(self, keeping: dict[asyncio.Task[int], Child]) -> int:
        """End all children, the controller first; the stack's exit status."""
        deadline = monotonic() + END_WITHIN
        controller_task = next(t for t, child in keeping.items() if child is self.controller)
        self.controller.stop()
        await asyncio.wait({controller_task}, timeout=CONTROLLER_FIRST)
        for child in keeping.values():
            child.stop()
        _, late = await asyncio.wait(keeping, timeout=max(0.0, deadline - monotonic()))
        for task in late:
            log.error("%s did not end in time and is killed", keeping[task].name)
            keeping[task].kill()
        if late:
            await asyncio.wait(late)
        status = exit_status(controller_task.result(), "controller")
        return status if status in (EXIT_DONE, EXIT_PENDING) else EXIT_DONE

    async def _tell_when_ready(self, tunnel: Tunnel | None) -> None:
        """Once our controller answers and every child has joined: write the ready file, then print
        one line."""
        wanted = {"gateways": len(self.gateways), "codec_workers": len(self.codec_workers)}

        def complete(status: dict[str, Any]) -> bool:
            ours = status["controller"]["pid"] == self.controller.pid
            return ours and all(len(status[k]) >= n for k, n in wanted.items())

        status = await _until(complete, self)
        settings, console = self._settings, status["controller"].get("console")
        sim = None if self._carrier is None else settings.twilio_api_url
        if self._ready_file is not None:
            info = StackInfo(
                account_sid=settings.account_sid,
                auth_token=settings.require("auth_token"),
                pid=os.getpid(),
                bus=settings.bus,
                public_url=settings.require("public_url"),
                console=console,
                sim=sim,
            )
            write_ready_file(self._ready_file, info)
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


async def _until(
    complete: Callable[[dict[str, Any]], bool], supervisor: Supervisor
) -> dict[str, Any]:
    """The stack's status once it is ``complete``; says once what is missing if that is late."""
    began = monotonic()
    said = False
    status: dict[str, Any] = {}
    while True:
        with contextlib.suppress(StackUnavailableError):
            async with controller(supervisor._settings) as client:
                while True:
                    try:
                        status = await get_status(client)
                    except (TrunklineError, msgspec.ValidationError) as error:
                        log.warning("the controller's status cannot be had: %s", error)
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
