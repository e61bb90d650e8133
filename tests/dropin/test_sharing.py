"""Many tests, few numbers: one number shared by callers, and a pool that queues fairly."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from talk import armed

from trunkline import Line
from trunkline.carrier_sim.client import SimClient
from trunkline.errors import NumberBusyError
from trunkline.pytest_plugin import SIM_NUMBERS, PhoneStack

pytestmark = [pytest.mark.e2e, pytest.mark.carrier_sim]

ANNE, BERT, CARL = "+14155556201", "+14155556202", "+14155556203"

#: Another process: answers one call of one caller, says who it was, waits to be told to end.
ANSWERING = """
import asyncio, sys
from trunkline import Line

async def main():
    async with Line(sys.argv[1], allowed_callers=[sys.argv[2]]) as line:
        waiting = asyncio.ensure_future(line.wait_for_call(30))
        await asyncio.sleep(0.3)
        print("ready", flush=True)
        call = await waiting
        print(call.caller, flush=True)
        sys.stdin.readline()

asyncio.run(main())
"""


async def test_sessions_on_one_number_each_get_their_own_callers(
    phone_stack: PhoneStack, carrier_sim: SimClient, own_number: Callable[[], str]
) -> None:
    number = own_number()
    prior = carrier_sim.numbers()[number]["voice_url"]
    mine = phone_stack.adapter(number, allowed_callers=[ANNE])
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
            waiting = await armed(mine, carrier_sim)
            assert await asyncio.to_thread(other.stdout.readline) == "ready\n"
            # A third one that could mean the same calls is refused by name.
            async with Line(number, allowed_callers=[ANNE, CARL], bus=phone_stack.bus) as third:
                with pytest.raises(NumberBusyError, match="disjoint allowed_callers"):
                    await third.wait_for_call(1)
            carrier_sim.place_call(BERT, number, "silence")
            assert await asyncio.to_thread(other.stdout.readline) == f"{BERT}\n"
            assert not waiting.done()
            stranger = carrier_sim.place_call(CARL, number, "silence")
            carrier_sim.wait_for(stranger["sid"])
            carrier_sim.place_call(ANNE, number, "silence")
            await waiting
            assert mine._call is not None and mine._call.caller == ANNE
        # The number stays ours for as long as one of them has it.
        assert carrier_sim.numbers()[number]["voice_url"] != prior
        other.stdin.write("\n")
        other.stdin.flush()
        assert await asyncio.to_thread(other.wait, 10) == 0
        assert carrier_sim.numbers()[number]["voice_url"] == prior
    finally:
        other.kill()
        other.communicate()


async def test_one_number_places_many_calls_at_once_from_many_sessions(
    phone_stack: PhoneStack, carrier_sim: SimClient, own_number: Callable[[], str]
) -> None:
    number = own_number()
    callees = [f"+14155563{n:03d}" for n in range(20)]
    for callee in callees:
        carrier_sim.add_callee(callee, "echo")

    async def one(callee: str) -> str:
        async with phone_stack.adapter(number, allowed_callees=[callee]) as agent:
            await agent.place_call(callee, attach_stream="a-leg")
            assert agent._call is not None
            return agent._call.callee

    assert await asyncio.gather(*(one(callee) for callee in callees)) == callees
    assert [w for w in carrier_sim.number_writes() if w["number"] == number] == []


async def test_the_pool_is_handed_out_in_the_order_of_asking(phone_stack: PhoneStack) -> None:
    lines = [await Line.any(bus=phone_stack.bus).open() for _ in SIM_NUMBERS]
    order: list[str] = []

    async def wait(name: str) -> None:
        async with Line.any(bus=phone_stack.bus) as line:
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


async def test_an_adapter_takes_a_number_of_the_pool(
    phone_stack: PhoneStack, carrier_sim: SimClient
) -> None:
    agent = phone_stack.adapter("any", allowed_callees=["+14155557777"])
    async with agent:
        await agent.place_call("+14155557777", attach_stream="a-leg")
        assert agent._call is not None
        assert agent._call.caller in SIM_NUMBERS
        assert carrier_sim.call(agent._call.sid)["from"] == agent._call.caller
