"""``--keep-alive``: keeps one working process of the stack running.

honcho ends everything when one of its children exits, so each line of the Procfile starts a keeper:
a supervisor with one child. It starts the working process again when that dies or hangs, ends with
it on SIGTERM and SIGINT, and has its exit status. The keeper of a gateway holds the listening
socket, so that connections wait while the gateway is away instead of being refused.
"""

from __future__ import annotations

import asyncio
import contextlib

from trunkline.bus.launch import trunkline_argv
from trunkline.bus.process import run, setup_logging
from trunkline.bus.settings import Settings

from .children import SILENT_FOR, settings_environment
from .public_port import PublicPort
from .supervisor import Supervisor, exit_status


def keep_alive(settings: Settings, role: str) -> int:
    """Keep ``trunkline ROLE`` running until SIGTERM, SIGINT or the end of the parent.

    Returns its exit status. A working process that fails at its first start says why itself, and is
    not started again.
    """
    argv, pass_fds = trunkline_argv(role), []
    with contextlib.ExitStack() as held:
        held.callback(setup_logging(f"{role}-keeper", settings.log_format))
        if role == "gateway":
            port = PublicPort.claim(settings.http_host, settings.http_port, settings.bus)
            held.callback(port.close)
            argv += ["--listen-fd", str(port.fd)]
            pass_fds.append(port.fd)

        async def keep(stop: asyncio.Event) -> int:
            async with Supervisor() as supervisor:
                environment = settings_environment(settings, role)
                silent_for = SILENT_FOR[role]
                child = supervisor.keep(
                    role, argv, environment, pass_fds=pass_fds, silent_for=silent_for
                )
                await supervisor.until(stop)
            return exit_status(child.ended.result(), role)

        return run(keep)
