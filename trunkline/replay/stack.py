"""Plays a cassette against a stack that is started for it. The stack has a directory of its own,
and its only carrier is the replay."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from typing import Final

from trunkline.adapter.call import Call
from trunkline.adapter.line import Line
from trunkline.bus import settings
from trunkline.bus.errors import InvalidRequestError, TrunklineError
from trunkline.bus.launch import Launched, StackInfo, apart, free_ports, trunkline_argv
from trunkline.bus.runtime_dir import temporary_directory

from ..stack.controller_client import controller_client, get_status
from .call import Asked, CallPlayer, Lines
from .cassette import Cassette
from .ourselves import hold
from .stream import Player
from .twilio import Twilio

#: Seconds within which the stack has to write its URL to the number, or to place the call.
BEGINS_WITHIN: Final = 30.0
#: Seconds that the call may last after our side's last action.
ENDS_WITHIN: Final = 20.0
_LOOK_EVERY: Final = 0.05


async def replay(taped: Cassette, *, fast: bool) -> Cassette:
    """Play the call again. Returns the cassette of this run. StackUnavailableError where the stack
    does not come up."""
    outbound = taped.direction.startswith("outbound")
    ours, theirs = _parties(taped, outbound=outbound)
    asked, lines = Asked(), Lines("")
    directory = temporary_directory("trunkline-replay-")
    environment = apart(directory)
    player = Player(environment["TWILIO_ACCOUNT_SID"], environment["TWILIO_AUTH_TOKEN"], fast)
    twilio = Twilio(player.account, ours, taped.call, lines, asked)
    playing = twilio.player = CallPlayer(taped, lines, player, asked=asked)
    try:
        async with twilio.serving() as rest:
            (port,) = free_ports(1)
            environment |= {
                "TRUNKLINE_TWILIO_API_URL": rest,
                "TRUNKLINE_HTTP_PORT": str(port),
                "TRUNKLINE_PUBLIC_URL": f"http://127.0.0.1:{port}",
            }
            launched = Launched(
                trunkline_argv("up", "--gateways", "1", "--codec-workers", "1"),
                directory,
                "up",
                environment,
                what="the stack for the replay",
                cwd=directory,
                own_session=True,
            )
            try:
                info = await launched.until_ready()
                async with _line(info, ours, theirs if outbound else None) as line:
                    callee = theirs if outbound else ""
                    return await _play(taped, info, line, callee, twilio, playing)
            finally:
                await asyncio.to_thread(launched.stop)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _parties(taped: Cassette, *, outbound: bool) -> tuple[str, str]:
    """Our number and the other side's."""
    forms = [each.form for each in (*taped.hooks, *taped.rest) if each.form.get("From")]
    if not forms:
        raise InvalidRequestError(
            "the cassette has neither a webhook nor the request that placed its call, so a stack "
            "cannot be given the call: play its streams to an agent (--against ws://…)"
        )
    from_, to = str(forms[0]["From"]), str(forms[0].get("To", ""))
    return (from_, to) if outbound else (to, from_)


@contextlib.asynccontextmanager
async def _line(info: StackInfo, ours: str, theirs: str | None) -> AsyncIterator[Line]:
    callees = None if theirs is None else [theirs]
    line = Line(
        ours, allowed_callees=callees, bus=info.bus, auth_token=info.auth_token, report=False
    )
    async with line:
        yield line


async def _play(
    taped: Cassette,
    info: StackInfo,
    line: Line,
    callee: str,
    twilio: Twilio,
    playing: CallPlayer,
) -> Cassette:
    client = asyncio.create_task(_our_side(taped, line, callee, playing))
    begun = asyncio.create_task(twilio.created.wait() if callee else _armed(info))
    try:
        await asyncio.wait({client, begun}, timeout=BEGINS_WITHIN, return_when="FIRST_COMPLETED")
        if not begun.done():
            if client.done():
                await client  # raises the reason
            raise InvalidRequestError(
                f"the stack did not begin the call within {BEGINS_WITHIN:g} s: try again when the "
                "machine is less busy"
            )
        playing.begin(_begins_at(taped, outbound=bool(callee)))
        now = await playing.run()
        await asyncio.wait({client}, timeout=ENDS_WITHIN if now.streams else 1.0)
    finally:
        begun.cancel()
        client.cancel()
        with contextlib.suppress(asyncio.CancelledError, TrunklineError, TimeoutError):
            await client
    return now


def _begins_at(taped: Cassette, *, outbound: bool) -> float:
    """The cassette's time at which the replay begins: that of the request which placed the call, or
    of the first webhook or stream."""
    if outbound and (orders := [e.at for e in taped.rest if e.path.endswith("/Calls.json")]):
        return orders[0]
    hooks, streams = [e.at for e in taped.hooks], [each.opened for each in taped.streams]
    return min(hooks + streams, default=0.0)


async def _armed(info: StackInfo) -> None:
    """Wait until the stack takes calls to the number."""
    found = settings.load(env_file=None, bus=info.bus, auth_token=info.auth_token)
    async with controller_client(found) as client:
        while True:
            overrides = (await get_status(client))["overrides"]
            if any(each["state"] == "applied" for each in overrides):
                return
            await asyncio.sleep(_LOOK_EVERY)


async def _our_side(taped: Cassette, line: Line, callee: str, playing: CallPlayer) -> None:
    call: Call
    if callee:
        order = next((e.form for e in taped.rest if e.path.endswith("/Calls.json")), {})
        wanted = order.get("MachineDetection")
        call = await line.place_call(
            callee, attach_stream="a-leg", timeout=60.0, machine_detection=wanted
        )
    else:
        call = await line.wait_for_call(60.0)
    await hold(call, taped, playing.until, ENDS_WITHIN)
