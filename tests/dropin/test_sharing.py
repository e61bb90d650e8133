"""Many tests, few numbers: one number shared by callers, and a pool that queues fairly."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest
from scene import Scene
from talk import armed

from trunkline import Line
from trunkline.bus.settings import load
from trunkline.errors import NumberBusyError
from trunkline.pytest_plugin import SIM_NUMBERS
from trunkline.stack.controller_client import controller_client, get_status

pytestmark = [pytest.mark.e2e, pytest.mark.carrier_sim]

ANNE, BERT, CARL = "+14155556201", "+14155556202", "+14155556203"

#: Another process: answers one call of one caller, says who it was, waits to be told to end.
ANSWERING = """
import asyncio, sys
from trunkline import Line
from trunkline.bus.settings import load

async def main():
    async with Line(sys.argv[1], allowed_callers=[sys.argv[2]]) as line:
        call = await line.wait_for_call(30)
        print(call.caller, flush=True)
        sys.stdin.readline()

asyncio.run(main())
"""


async def until_waiting(scene: Scene, number: str, sessions: int) -> None:
    """Until so many sessions wait for a call to the number."""
    bus, token = scene.stack.bus, scene.stack.auth_token
    async with (
        asyncio.timeout(30.0),
        controller_client(load(env_file=None, bus=bus, auth_token=token)) as client,
    ):
        while True:
            found = (await get_status(client))["sessions"]
            if [row["mode"] for row in found if row["number"] == number].count(
                "answer"
            ) == sessions:
                return
            await asyncio.sleep(0.02)


async def test_sessions_on_one_number_each_get_their_own_callers(scene: Scene) -> None:
    number = scene.number()
    prior = scene.sim.numbers()[number]["voice_url"]
    mine = scene.stack.adapter(number, allowed_callers=[ANNE])
    other = subprocess.Popen(  # noqa: ASYNC220  # it starts before anything waits
        [sys.executable, "-P", "-c", ANSWERING, number, BERT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ.copy(),
    )
    assert other.stdin is not None and other.stdout is not None
    try:
        async with mine:
            waiting = await armed(mine, scene.sim)
            await until_waiting(scene, number, 2)
            # A third one that could mean the same calls is refused by name.
            async with Line(number, allowed_callers=[ANNE, CARL], bus=scene.stack.bus) as third:
                with pytest.raises(NumberBusyError, match="disjoint allowed_callers"):
                    await third.wait_for_call(1)
            scene.sim.place_call(BERT, number, "silence")
            assert await asyncio.to_thread(other.stdout.readline) == f"{BERT}\n"
            assert not waiting.done()
            stranger = scene.sim.place_call(CARL, number, "silence")
            scene.sim.wait_for(stranger["sid"])
            scene.sim.place_call(ANNE, number, "silence")
            await waiting
            assert mine._call is not None and mine._call.caller == ANNE
        # The number stays ours for as long as one of them has it.
        assert scene.sim.numbers()[number]["voice_url"] != prior
        other.stdin.write("\n")
        other.stdin.flush()
        assert await asyncio.to_thread(other.wait, 10) == 0
        assert scene.sim.numbers()[number]["voice_url"] == prior
    finally:
        other.kill()
        other.communicate()


async def test_the_pool_is_handed_out_in_the_order_of_asking(scene: Scene) -> None:
    lines = [await Line.any(bus=scene.stack.bus).open() for _ in SIM_NUMBERS]
    order: list[str] = []

    async def wait(name: str) -> None:
        async with Line.any(bus=scene.stack.bus) as line:
            assert line.number in SIM_NUMBERS
            order.append(name)

    async def asked(name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(wait(name))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(task), 0.1)
        return task

    try:
        assert sorted(line.number for line in lines) == sorted(SIM_NUMBERS)
        given_up = await asked("given up")
        waiting = [await asked(name) for name in ("first", "second", "third")]
        given_up.cancel()
        await lines.pop().close()
        await asyncio.wait_for(asyncio.gather(*waiting), 10)
        assert order == ["first", "second", "third"]
    finally:
        for line in lines:
            await line.close()


async def test_an_adapter_takes_a_number_of_the_pool(scene: Scene) -> None:
    agent = scene.stack.adapter("any", allowed_callees=["+14155557777"])
    async with agent:
        await agent.place_call("+14155557777", attach_stream="a-leg")
        assert agent._call is not None
        assert scene.sim.call(agent._call.sid)["from"] == agent.number
        assert agent.number in SIM_NUMBERS
    with pytest.raises(RuntimeError, match="not connected"):
        _ = agent.number
