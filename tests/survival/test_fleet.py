"""Two stacks of one account, on two hosts as it were, with one public URL and one database."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

from e2e.stack import BOB, CALLER, CAROL, Stack, be_called, until

from benchmarks.postgres_server import Server
from trunkline import Line
from trunkline.bus.launch import free_ports

from .conversations import BROKEN, UNREACHED, talking

CALLEE: Final = "+14158889999"
#: An owner's death is seen by its beat, which stands still for 10 s, and is looked at every 2.5 s.
TAKEN_WITHIN: Final = 20.0
#: Its clients have 9 s to come, and then numbers are put back.
PUT_BACK_WITHIN: Final = 40.0


class Balancer:
    """Stands at the public URL, and gives each connection to a host: ``hooks`` and ``streams`` are
    ports of gateways, the first of which is tried first."""

    def __init__(self, hooks: list[int], streams: list[int]) -> None:
        self.hooks, self.streams = hooks, streams
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            head = await reader.readuntil(b"\r\n")
            ports = self.streams if b"/twilio/stream" in head else self.hooks
            for port in ports:
                with contextlib.suppress(OSError):
                    there, onward = await asyncio.open_connection("127.0.0.1", port)
                    break
            else:
                return
            onward.write(head)
            try:
                await asyncio.gather(_pass(reader, onward), _pass(there, writer))
            finally:
                onward.close()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # one of the two has gone
        finally:
            writer.close()
            self._tasks.discard(task)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
    writer.close()


@contextlib.asynccontextmanager
async def two_hosts(
    new_stack: Callable[[], Stack], postgres: Server
) -> AsyncIterator[tuple[Stack, Stack, Balancer]]:
    """Both have a gateway and a codec worker. Webhooks come to the first host, streams to the
    second."""
    one = new_stack()
    two = Stack()
    (port,) = free_ports(1)
    shared = {
        "TRUNKLINE_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "TRUNKLINE_DATABASE_URL": postgres.database(),
    }
    for name in ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TRUNKLINE_TWILIO_API_URL"):
        shared[name] = one.environment[name]
    for stack in (one, two):
        stack.environment |= shared
        stack.public_url = shared["TRUNKLINE_PUBLIC_URL"]
    two.sim = one.sim
    balancer = Balancer([one.public, two.public], [two.public, one.public])
    server = await asyncio.start_server(balancer.serve, "127.0.0.1", port)
    try:
        one.up(gateways=1, codec_workers=1)
        two.up(gateways=1, codec_workers=1)
        await until(lambda: one.complete(2, 2) and two.complete(2, 2), "they are one fleet")
        yield one, two, balancer
    finally:
        del two.sim
        two.close()
        server.close()
        await balancer.close()
        await server.wait_closed()


async def test_a_call_s_webhook_and_stream_come_to_different_hosts(
    new_stack: Callable[[], Stack], postgres: Server
) -> None:
    async with two_hosts(new_stack, postgres) as (one, two, balancer):
        one.sim.add_callee(CALLEE, "silence")
        for stack in (one, two):  # whose line it is does not matter
            async with Line(BOB, bus=stack.bus) as line:
                call = await be_called(stack, line, "silence")
                assert await call.send_audio(bytes(48_000)) == 24_000
                gateway = stack.pid_of("gateways", stack.call_status(call.sid)["gateway"])
                assert gateway in [process.pid for process in two.family()]
                await call.hang_up()
            async with Line(CAROL, allowed_callees=[CALLEE], bus=stack.bus) as line:
                call = await line.place_call(CALLEE, timeout=20.0, attach_stream="a-leg")
                assert await call.send_audio(bytes(48_000)) == 24_000
                await call.hang_up()
        assert one.changed_numbers() == {}
        # A number belongs to one stack: a line of the other one goes there, and shares it.
        async with (
            Line(BOB, allowed_callers=[CALLEE], bus=one.bus) as line,
            Line(BOB, allowed_callers=[CALLER], bus=two.bus) as other,
        ):
            first = asyncio.ensure_future(line.wait_for_call(30.0))
            await until(lambda: one.held(BOB), "the number is armed")
            second = asyncio.ensure_future(other.wait_for_call(30.0))
            await until(lambda: len(one.status()["sessions"]) == 2, "the other line is there")
            await until(
                lambda: all(row["mode"] == "answer" for row in one.status()["sessions"]),
                "it waits there",
            )
            sids = [one.sim.place_call(who, BOB, "silence")["sid"] for who in (CALLER, CALLEE)]
            assert [(await second).sid, (await first).sid] == sids
        assert one.changed_numbers() == {} and two.status()["sessions"] == []
        # A stream that breaks comes back by a webhook at the other host.
        balancer.hooks.reverse()
        async with talking(one) as conversations:
            one.provoked |= BROKEN | UNREACHED
            (call,) = conversations.calls
            await conversations.both_ways(0.5)
        conversations.check_whole()


async def test_a_host_dies_for_ever_while_its_calls_talk(
    new_stack: Callable[[], Stack], postgres: Server
) -> None:
    """Its sessions go on at the other host, and what nobody claims is put back."""
    async with two_hosts(new_stack, postgres) as (one, _two, _):
        left = one.client("wait", CAROL)
        await until(lambda: one.armed(CAROL), "a client that is to die waits")
        async with (
            Line(BOB, bus=one.bus) as answering,
            talking(one, later=1) as conversations,
        ):
            waiting = asyncio.ensure_future(answering.wait_for_call(60.0))
            await until(lambda: one.armed(BOB), "the number is armed")
            one.provoked |= BROKEN | UNREACHED
            one.kill_stack()
            left.kill()
            died = time.monotonic()
            await conversations.both_ways(2.0)
            # It is asked of the host that is left, and answered once that runs the session's stack.
            again = await conversations.line.place_call(
                conversations.later[0], timeout=40.0, attach_stream="a-leg"
            )
            assert time.monotonic() - died < TAKEN_WITHIN
            await again.hang_up()
            # A number that was armed at the dead host is answered as before.
            one.sim.place_call(CALLER, BOB, "silence")
            call = await waiting
            assert await call.send_audio(bytes(48_000)) == 24_000
            await conversations.both_ways(0.5)
        conversations.check(streams=1)
        await until(
            lambda: one.changed_numbers() == {},
            "all numbers are as before",
            PUT_BACK_WITHIN - (time.monotonic() - died),
        )
        assert one.live_calls() == []
