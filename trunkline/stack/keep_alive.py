"""``--keep-alive``: a process that keeps one working process of the stack running.

honcho ends everything when one of its children exits, so each line of the Procfile starts a keeper:
it starts the working process again when that dies, ends with it on SIGTERM and SIGINT, and has its
exit status. The keeper of a gateway holds the listening socket, so that connections wait while the
gateway is away instead of being refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from trunkline.bus.launch import ParentPipe, trunkline_argv
from trunkline.bus.process import EXIT_DONE, EXIT_PENDING, run, setup_logging
from trunkline.bus.settings import Settings
from trunkline.stack.children import END_WITHIN, Child, settings_environment
from trunkline.stack.public_port import PublicPort

log = logging.getLogger("trunkline.stack.supervisor")


def keep_alive(settings: Settings, role: str, *, argv: Sequence[str] = ()) -> int:
    """Keep ``trunkline ROLE`` running until SIGTERM, SIGINT or the end of the parent.

    ``argv`` are further options for the working process. Returns its exit status; a working
    process that fails at its first start (it says why itself) is not started again.
    """
    end_logging = setup_logging(f"{role}-keeper", settings.log_format)
    port = None
    try:
        if role == "gateway":
            port = PublicPort.claim(settings.http_host, settings.http_port, settings.bus)
            argv = (*argv, "--listen-fd", str(port.fd))
        pass_fds = () if port is None else (port.fd,)
        return run(lambda stop: _keep(settings, role, list(argv), pass_fds, stop))
    finally:
        if port is not None:
            port.close()
        end_logging()


async def _keep(
    settings: Settings,
    role: str,
    argv: list[str],
    pass_fds: tuple[int, ...],
    stop: asyncio.Event,
) -> int:
    parent = ParentPipe()
    child = Child(
        role,
        trunkline_argv(role, *argv),
        settings_environment(settings),
        parent,
        pass_fds=pass_fds,
    )
    keeping = asyncio.create_task(child.keep())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({keeping, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if keeping.done():
            return exit_status(keeping.result(), role)
        child.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_WITHIN):
                return exit_status(await asyncio.shield(keeping), role)
        log.error("%s did not end within %g s and is killed", role, END_WITHIN)
        child.kill()
        return exit_status(await keeping, role)
    finally:
        stopping.cancel()
        parent.close()


def exit_status(status: int, role: str) -> int:
    """The keeper's exit status for a working process that ended with ``status``.

    One that SIGTERM ended before it was up had nothing to put back; a controller that had to be
    killed may have left something, which its journal knows.
    """
    if status >= 0:
        return status
    killed = status == -9
    return EXIT_PENDING if killed and role == "controller" else EXIT_DONE
