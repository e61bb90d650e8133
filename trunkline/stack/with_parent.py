"""Programs of others that must not outlive us: tunnels, and honcho in tests.

They know nothing of our parent pipe, so each runs under a small process of ours (the hidden command
``trunkline with-parent``) that ends it when the pipe closes, and otherwise behaves like it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from trunkline.bus.launch import ParentPipe, trunkline_argv
from trunkline.bus.process import EXIT_DONE, PARENT_FD_VARIABLE, run


async def start_with_parent(
    argv: Sequence[str],
    parent: ParentPipe,
    *,
    grace: float,
    **popen: Any,
) -> asyncio.subprocess.Process:
    """Start ``argv`` so that it ends with this process.

    SIGTERM to the process returned is passed on; ``grace`` seconds later comes SIGKILL.
    """
    return await asyncio.create_subprocess_exec(
        *trunkline_argv("with-parent", "--grace", str(grace), "--", *argv),
        env={**os.environ, PARENT_FD_VARIABLE: str(parent.read_fd)},
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
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=sys.stdout,
            stderr=sys.stderr,
        )
        ended = asyncio.create_task(process.wait())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if ended.done():
            return max(ended.result(), 0)
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                process.send_signal(number)
            await asyncio.wait({ended}, timeout=grace)
            if ended.done():
                break
        return EXIT_DONE

    return run(main)
