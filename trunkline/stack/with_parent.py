"""Programs that are not trunkline's and must not outlive us: tunnels, and honcho in tests.

They do not know our parent pipe. So each runs under a small process of ours, the hidden command
``trunkline with-parent``, which ends it when the pipe closes, and has its exit status.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

from trunkline.bus.launch import ParentPipe, clean_environment, trunkline_argv
from trunkline.bus.process import EXIT_DONE, PARENT_FD_VARIABLE, run

from .supervisor import Supervisor


async def start_with_parent(
    argv: Sequence[str],
    parent: ParentPipe,
    *,
    grace: float,
    **popen: Any,
) -> asyncio.subprocess.Process:
    """Start ``argv`` so that it ends with this process. It gets no setting and no secret of ours.

    The process that is returned passes SIGTERM on to the program, and sends it SIGKILL ``grace``
    seconds later.
    """
    return await asyncio.create_subprocess_exec(
        *trunkline_argv("with-parent", "--grace", str(grace), "--", *argv),
        env={**clean_environment(), PARENT_FD_VARIABLE: str(parent.read_fd)},
        stdin=asyncio.subprocess.DEVNULL,
        pass_fds=(parent.read_fd,),
        **popen,
    )


def run_with_parent(argv: Sequence[str], grace: float) -> int:
    """Run ``argv`` until it ends, SIGTERM or SIGINT comes, or the parent is gone.

    Returns the program's exit status, or 0 where it was asked to end or a signal ended it.
    """

    async def main(stop: asyncio.Event) -> int:
        environment = dict(os.environ)
        environment.pop(PARENT_FD_VARIABLE, None)  # the descriptor is not passed on
        async with Supervisor(within=grace) as supervisor:
            program = supervisor.keep(argv[0], argv, environment, again=False, ours=False)
            asked = await supervisor.until(stop)
        return EXIT_DONE if asked else max(program.ended.result(), EXIT_DONE)

    return run(main)
