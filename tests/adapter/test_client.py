"""The client's thread: shared by lines, by loops, not by forks; ended with its last user."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from fake_stack import OURS, FakeStack
from phone import answered, on_the_line

from trunkline import Line
from trunkline.adapter.client import client as bus_client
from trunkline.bus import messages as m
from trunkline.bus.testing import until


def client_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("trunkline-a-")]


async def test_lines_of_one_address_share_a_thread_and_end_it(stack: FakeStack) -> None:
    async with Line(OURS, bus=stack.bus):
        async with Line(OURS, bus=stack.bus):
            assert len(client_threads()) == 1
        assert len(client_threads()) == 1
    assert client_threads() == []


async def test_several_loops_use_one_line(stack: FakeStack) -> None:
    async with on_the_line(stack) as (call, info, _):

        def other_loop() -> tuple[int, bytes]:
            async def main() -> tuple[int, bytes]:
                return await call.send_audio(bytes(960)), await call.recv_audio(5)

            return asyncio.run(main())

        speaking = asyncio.ensure_future(asyncio.to_thread(other_loop))
        stack.workers[0].hear(info.call, bytes(480))
        assert await speaking == (480, bytes(480))


async def test_a_forked_child_has_no_client(stack: FakeStack) -> None:
    async with Line(OURS, bus=stack.bus) as line:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:  # the child
            try:
                asyncio.new_event_loop().run_until_complete(line.wait_for_call(1))
            except RuntimeError as error:
                os.write(write, str(error).encode())
            finally:
                os.write(write, b"|%d" % len(bus_client._clients))
                os._exit(0)
        await asyncio.to_thread(os.waitpid, pid, 0)
        os.close(write)
        said = os.read(read, 1000).decode()
        os.close(read)
        assert "before a fork" in said
        assert said.endswith("|0")


async def test_the_end_of_the_process_closes_its_sessions(stack: FakeStack) -> None:
    script = (
        "import asyncio, sys\n"
        "from trunkline import Line\n"
        "async def main():\n"
        f"    line = await Line({OURS!r}, bus={stack.bus!r}).open()\n"
        "    sys.stdout.write(line.number)\n"
        "asyncio.run(main())\n"
    )
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", script], capture_output=True, timeout=20
    )
    assert (done.returncode, done.stdout) == (0, OURS.encode()), done.stderr
    await stack.controller.wait_for(m.CloseSession)


def test_importing_a_line_imports_neither_scenario_nor_what_takes_long() -> None:
    script = (
        "import sys, trunkline, trunkline.errors\n"
        "trunkline.Line, trunkline.Call, trunkline.__version__\n"
        "assert not [n for n in sys.modules if n.split('.')[0] in"
        " ('scenario', 'litellm', 'opentelemetry', 'numpy', 'dotenv', 'platformdirs', 'click',"
        " 'requests', 'cryptography', 'phonenumbers', 'rich')]\n"
        "assert {'Line', 'Call', 'TwilioAgentAdapter'} <= set(dir(trunkline))\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)


async def test_a_client_looks_at_the_clock_while_it_has_calls_and_not_before(
    stack: FakeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline.bus.control.BEAT_SECONDS", 0.1)
    looks: list[float] = []
    poll = bus_client.BusClient.poll
    monkeypatch.setattr(
        bus_client.BusClient, "poll", lambda self, now: (looks.append(now), poll(self, now))
    )
    async with Line(OURS, bus=stack.bus) as line:
        looks.clear()
        # Beats tell that its loop has had the time for several looks.
        await stack.controller.wait_for(m.Beat, len(stack.controller.all(m.Beat)) + 3)
        assert not looks
        call, _ = await answered(stack, line)
        looks.clear()
        await until(lambda: len(looks) >= 5)
        assert max(b - a for a, b in itertools.pairwise(looks)) < 0.5
        assert call.ended_reason is None


async def test_a_line_that_is_given_up_while_its_client_is_made_gives_that_back(
    stack: FakeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, goes_on = threading.Event(), threading.Event()
    made = []

    def slowly(*arguments: Any) -> bus_client.BusClient:
        asked.set()
        goes_on.wait(10)
        made.append(bus_client.acquire(*arguments))
        return made[0]

    monkeypatch.setattr("trunkline.adapter.line.acquire", slowly)
    opening = asyncio.ensure_future(Line(OURS, bus=stack.bus).open())
    await until(asked.is_set)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    goes_on.set()
    await until(lambda: made)
    await until(lambda: not client_threads())


async def test_a_session_that_opens_just_as_its_user_goes_away_is_closed(stack: FakeStack) -> None:
    async with Line(OURS, bus=stack.bus) as line:
        stack.controller.answers[m.OpenSession] = None
        opening = asyncio.ensure_future(Line(OURS, bus=stack.bus).open())
        session = (await stack.controller.wait_for(m.OpenSession, 2)).info.session
        stack.controller.answer_last(
            m.SessionOpened(
                session=session, number=OURS, number_sid="", account="", public_url=None
            )
        )
        client = line._client
        assert client is not None
        while client.sessions[session].opened is None:  # in its thread; this loop hears nothing yet
            time.sleep(0.001)  # noqa: ASYNC251
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert (await stack.controller.wait_for(m.CloseSession)).session == session
