"""``--keep-alive``: keeps one working process of the stack running.

honcho ends everything when one of its children exits, so each line of the Procfile starts a keeper:
a supervisor with one child. The keeper starts the working process again when that dies or hangs. On
SIGTERM and SIGINT it ends the working process, and then ends with its exit status. The keeper of a
gateway holds the listening socket, so that connections wait while the gateway is away instead of
being refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from trunkline.bus.launch import trunkline_argv
from trunkline.bus.private import make_private
from trunkline.bus.process import run, setup_logging, tell_slips
from trunkline.bus.settings import Settings

from .children import SILENT_FOR, one_console_port, settings_environment
from .public_port import PublicPort
from .supervisor import END_WITHIN, Supervisor, exit_status

log = logging.getLogger("trunkline.stack.supervisor")

#: A variable that honcho sets for the processes that it starts.
HONCHO_PROCESS_NAME: Final = "HONCHO_PROCESS_NAME"
#: Seconds between two looks at whether honcho is still there.
HONCHO_LOOK: Final = 1.0
#: Files in the health directory. The age of the first tells when the process last gave a sign of
#: life, and that of the second when it last did so after it had said that it is ready.
ALIVE_FILE: Final = "alive"
READY_FILE: Final = "ready"


def keep_alive(
    settings: Settings, role: str, health_dir: Path | None = None, drain: float | None = None
) -> int:
    """Keep ``trunkline ROLE`` running until SIGTERM, SIGINT or the end of the parent.

    ``health_dir``: the directory for :data:`ALIVE_FILE` and :data:`READY_FILE`. ``drain``: seconds
    for which a gateway goes on with its calls after SIGTERM.

    Returns the exit status of ``trunkline ROLE``. If that fails before it was ever ready, it says
    why itself, and is not started again.
    """
    argv, pass_fds = trunkline_argv(role), []
    with contextlib.ExitStack() as held:
        held.callback(setup_logging(f"{role}-keeper", settings.log_format))
        if role == "controller":
            tell_slips(log)
            settings = one_console_port(settings)
        if role == "gateway":
            port = PublicPort.claim(settings.http_host, settings.http_port, settings.bus)
            held.callback(port.close)
            argv += ["--listen-fd", str(port.fd)]
            pass_fds.append(port.fd)
        if drain is not None:
            argv += ["--drain", str(drain)]
        heard = None if health_dir is None else _health_files(health_dir)

        async def keep(stop: asyncio.Event) -> int:
            if HONCHO_PROCESS_NAME in os.environ:
                watching = asyncio.create_task(_watch_honcho(stop))
                held.callback(watching.cancel)
            async with Supervisor(within=END_WITHIN + (drain or 0.0)) as supervisor:
                environment = settings_environment(settings, role)
                silent_for = SILENT_FOR[role]
                child = supervisor.keep(
                    role,
                    argv,
                    environment,
                    pass_fds=pass_fds,
                    silent_for=silent_for,
                    heard=heard,
                )
                await supervisor.until(stop)
            return exit_status(child.ended.result(), role)

        return run(keep)


async def _watch_honcho(stop: asyncio.Event) -> None:
    """Set ``stop`` once our parent, a process of honcho's, is gone. When its terminal is closed,
    honcho dies and tells us nothing, and we do not get the terminal's SIGHUP, because honcho has
    started us in a session of our own."""
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110  # there is no event to wait for
        await asyncio.sleep(HONCHO_LOOK)
    stop.set()


def _health_files(directory: Path) -> Callable[[bool], None]:
    """Make the directory, and return the function to call at each sign of life. Its argument says
    whether the process has been ready.

    Both files grow old while a process hangs or is being started again, so a probe needs no more
    than ``find alive -newermt '10 seconds ago'``. A file that cannot be written grows old, too. The
    log says so once, and the process runs on: it is for the probe to decide what that means.
    """
    make_private(directory)
    told = False

    def heard(ready: bool) -> None:
        nonlocal told
        try:
            (directory / ALIVE_FILE).touch()
            if ready:
                (directory / READY_FILE).touch()
        except OSError as error:
            if not told:
                log.warning("%s cannot be written: %s", error.filename, error.strerror)
            told = True

    return heard
