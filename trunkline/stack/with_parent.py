"""Programs of others that must not outlive us: tunnels, and honcho in tests.

They know nothing of our parent pipe, so each runs under a small process of ours (the hidden command
``trunkline with-parent``) that ends it when the pipe closes, and otherwise behaves like it.
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

    SIGTERM to the process returned is passed on; ``grace`` seconds later comes SIGKILL.
    """
    return await asyncio.create_subprocess_exec(
        *trunkline_argv("with-parent", "--grace", str(grace), "--", *argv),
        env={**clean_environment(), PARENT_FD_VARIABLE: str(parent.read_fd)},
        stdin=asyncio.subprocess.DEVNULL,
        pass_fds=(parent.read_fd,),
        **popen,
    )


def run_with_parent(argv: Sequence[str], grace: float) -> int:
    """Run ``argv`` until it ends, SIGTERM or SIGINT comes, or the parent is gone; its status.

    A program that has to be killed, or that a signal of ours ends, counts as done.
    """

    async def main(stop: asyncio.Event) -> int:
        environment = dict(os.environ)
        environment.pop(PARENT_FD_VARIABLE, None)  # the descriptor is not passed on
        async with Supervisor(within=grace) as supervisor:
            program = supervisor.keep(argv[0], argv, environment, again=False, ours=False)
            asked = await supervisor.until(stop)
        return EXIT_DONE if asked else max(program.ended.result(), EXIT_DONE)

    return run(main)
