"""``--keep-alive``: keeps one working process of the stack running.

honcho ends everything when one of its children exits, so each line of the Procfile starts a keeper:
a supervisor with one child. It starts the working process again when that dies or hangs, ends with
it on SIGTERM and SIGINT, and has its exit status. The keeper of a gateway holds the listening
socket, so that connections wait while the gateway is away instead of being refused.
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
from trunkline.bus.process import run, setup_logging
from trunkline.bus.settings import Settings

from .children import SILENT_FOR, settings_environment
from .public_port import PublicPort
from .supervisor import END_WITHIN, Supervisor, exit_status

log = logging.getLogger("trunkline.stack.supervisor")

#: honcho sets it for what it starts.
HONCHO_PROCESS_NAME: Final = "HONCHO_PROCESS_NAME"
#: Seconds between two looks whether honcho is still there.
HONCHO_LOOK: Final = 1.0
#: Files in the health directory: their age says when the process last gave a sign of life, and when
#: it last gave one and had said that it is ready.
ALIVE_FILE: Final = "alive"
READY_FILE: Final = "ready"


def keep_alive(
    settings: Settings, role: str, health_dir: Path | None = None, drain: float | None = None
) -> int:
    """Keep ``trunkline ROLE`` running until SIGTERM, SIGINT or the end of the parent.

    ``health_dir``: where :func:`_health_files` are kept. ``drain``: how long a gateway goes on
    with its calls before it ends.

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
    """Set ``stop`` once our parent is gone, which is a process of honcho's. When its terminal is
    closed, honcho dies without a word to us, and we have a session of our own."""
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110  # nothing tells of it
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
