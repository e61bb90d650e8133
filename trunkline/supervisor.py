"""``trunkline up``: the whole stack in the foreground.

The supervisor holds the public port, starts one controller, the gateways and the codec workers as
its children, and starts again what dies. It ends them in the order that puts the numbers first: the
controller, then the rest, all within 4 s. Children write to stderr themselves; nothing is relayed.

When a child fails at its first start its settings are wrong (it says so itself), and the whole
stack ends with status 1. When the supervisor is killed its children see its pipe close and end as
on SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

import click
import msgspec

from trunkline.ask import controller, get_status
from trunkline.bus import hosts
from trunkline.bus.clock import monotonic
from trunkline.bus.errors import SettingsError, StackUnavailableError, TrunklineError
from trunkline.bus.process import EXIT_DONE, EXIT_FAILED, EXIT_PENDING, run, setup_logging
from trunkline.bus.redact import mask_url
from trunkline.bus.settings import Settings
from trunkline.children import (
    END_WITHIN,
    Child,
    ParentPipe,
    settings_environment,
    trunkline_argv,
)
from trunkline.controller.state_dir import StackRunsError, lock_bus_dir, lock_state_dir
from trunkline.keep_alive import exit_status
from trunkline.public_port import PublicPort
from trunkline.tunnel import Tunnel

log = logging.getLogger("trunkline.supervisor")

#: What the controller has to put the numbers back before gateways and workers are asked to end.
CONTROLLER_FIRST: Final = 2.8
#: Between two looks whether all children have joined.
_LOOK_EVERY: Final = 0.1
#: After this long without a complete stack, say what is missing.
_SAY_MISSING_AFTER: Final = 15.0


def up(settings: Settings, *, gateways: int, codec_workers: int, tunnel: str | None) -> int:
    """Run a stack until SIGTERM, SIGINT or the end of the parent; returns the exit status.

    Raises SettingsError (PortTakenError among them), StackRunsError and TunnelError before anything
    is started.
    """
    settings.require("account_sid")
    settings.require("auth_token")
    if tunnel is None:
        settings.require("public_url")
    settings.address.make_directory()
    _refuse_beside_another(settings)
    end_logging = setup_logging("supervisor", settings.log_format)
    try:
        port = PublicPort.claim(settings.http_host, settings.http_port, settings.bus)
        try:
            return run(lambda stop: _up(settings, port, gateways, codec_workers, tunnel, stop))
        finally:
            port.close()
    finally:
        end_logging()


def _refuse_beside_another(settings: Settings) -> None:
    """StackRunsError where a controller lives at the bus or the state directory.

    Ours would be refused there too, but until then our gateways and codec workers would join the
    other stack.
    """
    holder = f"supervisor (pid {os.getpid()}, {settings.bus})"
    lock_state_dir(settings.state_path, holder).release()
    address = settings.address
    if address.directory is not None:
        lock_bus_dir(address.directory, holder).release()
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


async def _up(
    settings: Settings,
    port: PublicPort,
    gateways: int,
    codec_workers: int,
    tunnel: str | None,
    stop: asyncio.Event,
) -> int:
    host, number = port.address
    async with _opened(tunnel, host, number) as opened:
        given: dict[str, Any] = {"http_port": number}
        if opened is not None:
            given["public_url"] = opened.url
        settings = settings.model_copy(update=given)
        supervisor = Supervisor(settings, port.fd, gateways, codec_workers)
        return await supervisor.run(stop, opened)


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
        self, settings: Settings, listen_fd: int, gateways: int, codec_workers: int
    ) -> None:
        self._settings = settings
        self._parent = ParentPipe()
        environment = settings_environment(settings)

        def child(name: str, *argv: str, pass_fds: Sequence[int] = ()) -> Child:
            return Child(name, trunkline_argv(*argv), environment, self._parent, pass_fds=pass_fds)

        self.controller = child("controller", "controller")
        self.gateways = [
            child(f"gateway {n}", "gateway", "--listen-fd", str(listen_fd), pass_fds=(listen_fd,))
            for n in range(1, gateways + 1)
        ]
        self.codec_workers = [
            child(f"codec worker {n}", "codec-worker") for n in range(1, codec_workers + 1)
        ]

    async def run(self, stop: asyncio.Event, tunnel: Tunnel | None = None) -> int:
        """Keep everything running until ``stop`` or an end that is final."""
        children = [self.controller, *self.gateways, *self.codec_workers]
        keeping = {asyncio.create_task(child.keep()): child for child in children}
        stopping = asyncio.create_task(stop.wait())
        telling = asyncio.create_task(self._tell_when_ready(tunnel))
        watched: set[asyncio.Task[Any]] = {*keeping, stopping}
        if tunnel is not None:
            watched.add(asyncio.create_task(tunnel.ended()))
        try:
            done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            failed = stopping not in done
            if failed and tunnel is not None and not done & keeping.keys():
                log.error("the tunnel at %s ended, so the stack ends", tunnel.url)
            # A child whose end is final has said why itself.
        finally:
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
        """Print one line once our controller answers and every child has joined."""
        wanted = {"gateways": len(self.gateways), "codec_workers": len(self.codec_workers)}

        def complete(status: dict[str, Any]) -> bool:
            ours = status["controller"]["pid"] == self.controller.pid
            return ours and all(len(status[k]) >= n for k, n in wanted.items())

        await _until(complete, self)
        settings = self._settings
        if tunnel is not None and not await tunnel.wait_reachable():
            log.warning("%s cannot be reached through the tunnel yet", tunnel.url)
        via = f" through {tunnel.kind.name}" if tunnel else ""
        console = (
            f", console at http://127.0.0.1:{settings.console_port}"
            if settings.console_port
            else ""
        )
        click.echo(
            f"trunkline is ready: {mask_url(settings.public_url)}{via} -> "
            f"{hosts.join(settings.http_host, settings.http_port)}"
            f" ({wanted['gateways']} gateways, {wanted['codec_workers']} codec workers)"
            f"{console}, bus {settings.bus}"
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
