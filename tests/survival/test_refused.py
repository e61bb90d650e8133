"""A second controller, stack or lease where there may be one: refused by name, and harmless."""

from __future__ import annotations

import asyncio

import pytest
from e2e.stack import ALICE, CALLER, Stack, until

from trunkline import Line
from trunkline.bus.launch import free_ports


def another(stack: Stack, **same: str) -> dict[str, str]:
    """Settings of a second stack on the same account, apart in everything but ``same``."""
    public, console = free_ports(2)
    return {
        "TRUNKLINE_PUBLIC_URL": f"http://127.0.0.1:{public}",
        "TRUNKLINE_HTTP_PORT": str(public),
        "TRUNKLINE_CONSOLE_PORT": str(console),
        "TRUNKLINE_BUS": f"ipc://{stack.directory}/bus2",
        "TRUNKLINE_STATE_DIR": str(stack.directory / "state2"),
    } | same


@pytest.mark.parametrize(
    ("argv", "shared"),
    [
        (("controller",), "TRUNKLINE_BUS"),
        (("controller",), "TRUNKLINE_STATE_DIR"),
        (("up",), "TRUNKLINE_BUS"),
        (("up",), "TRUNKLINE_STATE_DIR"),
        (("up",), "TRUNKLINE_HTTP_PORT"),
    ],
)
async def test_a_second_one_is_refused_by_name(
    stack: Stack, argv: tuple[str, ...], shared: str
) -> None:
    before = stack.status()["controller"]
    async with Line(ALICE, bus=stack.bus) as line:
        waiting = asyncio.ensure_future(line.wait_for_call(30.0))
        await until(lambda: stack.held(ALICE), "the number is armed")
        settings = another(stack, **{shared: stack.environment[shared]})
        refused = await asyncio.to_thread(stack.command, *argv, **settings)
        assert refused.returncode == 1, refused
        named = f"{shared}={stack.environment[shared]}"
        (said,) = [line for line in refused.stderr.splitlines() if named in line]
        assert stack.bus in said or f"pid {before['pid']}" in said, refused
        # The first one is as it was: none of the second one's processes has joined its bus.
        now = stack.status()
        assert now["controller"] == before
        assert (len(now["gateways"]), len(now["codec_workers"])) == (2, 2)
        assert stack.held(ALICE)
        sid = stack.sim.place_call(CALLER, ALICE)["sid"]
        call = await waiting
        assert call.sid == sid
        await call.hang_up()
