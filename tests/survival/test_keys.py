"""Clients on a tcp bus have keys of their own, which are changed while calls talk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from e2e.stack import Stack

from trunkline.bus.launch import free_ports

from .conversations import talking


@pytest.mark.measures
async def test_keys_are_rotated_under_calls(
    new_stack: Callable[[], Stack], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = new_stack()
    (port,) = free_ports(1)
    stack.bus = stack.environment["TRUNKLINE_BUS"] = f"tcp://127.0.0.1:{port}"
    stack.up(gateways=1, codec_workers=2)

    def made(name: str) -> str:
        done = stack.command("keys", "make", name)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.strip().removeprefix("TRUNKLINE_CLIENT_KEY=")

    async def status_with(key: str) -> int:
        """What `trunkline status` ends with, in a process that has no other key."""
        without = {"TWILIO_AUTH_TOKEN": "", "TRUNKLINE_CLIENT_KEY": key}
        return (await asyncio.to_thread(stack.command, "status", **without)).returncode

    first = made("runners-1")
    monkeypatch.setenv("TRUNKLINE_CLIENT_KEY", first)  # and this process has no token
    async with talking(stack, 2) as conversations:
        second = await asyncio.to_thread(made, "runners-2")
        assert await asyncio.gather(status_with(first), status_with(second)) == [0, 0]
        removed = await asyncio.to_thread(stack.command, "keys", "remove", "runners-1")
        shown = (await asyncio.to_thread(stack.command, "keys", "show")).stdout
        assert removed.returncode == 0 and "runners-2" in shown and "runners-1" not in shown
        # Who connects with the old key is refused, and its calls that are on go on.
        assert await asyncio.gather(status_with(first), status_with(second)) == [1, 0]
        await conversations.both_ways(0.5)
    conversations.check_whole()
    conversations.check_holes(0.1)
    assert first not in stack.tails() and second not in stack.tails()
