"""Stands in for ``trunkline up``: the doubles at TRUNKLINE_BUS, until told to end.

    fake_up.py ENDED --ready-file FILE

ENDED tells of its end, and with what settings it ran.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from fake_stack import FakeStack

from trunkline.bus.launch import StackInfo, write_ready_file
from trunkline.bus.process import run
from trunkline.bus.settings import load


async def main(stop: asyncio.Event) -> int:
    settings = load(env_file=None)
    assert settings.address.directory is not None
    settings.address.make_directory()
    stack = FakeStack(settings.address.directory)
    stack.controller.welcome["account"] = settings.account_sid
    info = StackInfo(
        account_sid=settings.account_sid,
        auth_token=settings.require("auth_token"),
        pid=os.getpid(),
        bus=settings.bus,
    )
    write_ready_file(Path(sys.argv[3]), info)
    await stop.wait()
    await stack.close()
    return 0


if __name__ == "__main__":
    status = run(main)
    found = load(env_file=None)
    said = f"ended {found.http_port} {found.public_url} {found.console_port} {found.state_dir}"
    Path(sys.argv[1]).write_text(said)
    sys.exit(status)
