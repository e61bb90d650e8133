"""Stands in for ``trunkline up``: the doubles at TRUNKLINE_BUS, until told to end."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from fake_stack import FakeStack

from trunkline.bus import messages as m
from trunkline.bus.process import run
from trunkline.bus.settings import load


async def main(stop: asyncio.Event) -> int:
    settings = load(env_file=None)
    assert settings.address.directory is not None
    stack = FakeStack(settings.address.directory)
    stack.controller.account = settings.account_sid
    stack.controller.answers[m.GetStatus] = m.StatusReport(
        status={"gateways": [{"id": "g1"}], "codec_workers": [{"id": "w1"}]}
    )
    await stop.wait()
    await stack.close()
    return 0


if __name__ == "__main__":
    status = run(main)
    found = load(env_file=None)
    Path(sys.argv[1]).write_text(f"ended {found.http_port} {found.public_url}")
    sys.exit(status)
