"""Parts of the stack die while calls are on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

from trunkline import Call, Line

from .sound import FRAME, RATE, compare, delay, from_pcm, from_wire, speech
from .stack import (
    ALICE,
    BOB,
    CALLEE,
    CALLER,
    CAROL,
    DAVE,
    Ear,
    Stack,
    be_called,
    stopped,
    until,
)

#: What the carrier notes when a stream's socket breaks.
BROKEN = {31903, 31921}

Blow = Callable[[Stack, Call], Awaitable[None]]


async def a_call_during(
    stack: Stack, blow: Blow, seconds: float = 4.0
) -> tuple[Call, bytes, bytes]:
    """A call with sound both ways; after 1.2 s of it something happens. The call, what we said,
    and what we heard."""
    bot = {"kind": "wav", "speech": "austen-0870", "loop": True}
    stack.sim.add_callee(CALLEE, bot)
    sent = speech(seconds, first=1)
    async with Line(ALICE, allowed_callees=[CALLEE], bus=stack.bus) as line:
        call = await line.place_call(CALLEE, timeout=20.0, attach_stream="a-leg")
        ear = Ear(call)
        speaking = asyncio.ensure_future(call.send_audio(sent))
        await until(lambda: stack.played_seconds(call.sid) > 1.2, "the call is under way")
        await blow(stack, call)
        assert await speaking == len(sent) // 2
        assert call.ended_reason is None
        await call.hang_up()
        heard = await ear.all()
    return call, sent, heard


def check_whole(stack: Stack, call: Call, sent: bytes, heard: bytes) -> None:
    """Not one frame was lost or came twice, either way; there was one stream all the time."""
    (played,) = stack.stream_sound(call.sid)
    assert len(played) == len(sent) // 6
    compare(from_pcm(sent), from_wire(played)).check()
    compare(from_pcm(heard), from_wire(stack.sim.said(call.sid)), alone=False).check()
    assert (call.lost.inbound, call.lost.outbound) == (0, 0), call.lost


async def kill_worker(stack: Stack, call: Call) -> None:
    worker = stack.call_status(call.sid)["codec_worker"]
    os.kill(stack.pid_of("codec_workers", worker), signal.SIGKILL)


async def stop_worker(stack: Stack, call: Call) -> None:
    worker = stack.call_status(call.sid)["codec_worker"]
    with stopped(stack.pid_of("codec_workers", worker)):
        await asyncio.sleep(3.0)


async def test_a_killed_codec_worker_costs_not_a_frame(frail_stack: Stack) -> None:
    call, sent, heard = await a_call_during(frail_stack, kill_worker)
    check_whole(frail_stack, call, sent, heard)


async def test_a_codec_worker_that_stands_still_for_3_s_costs_not_a_frame(
    frail_stack: Stack,
) -> None:
    call, sent, heard = await a_call_during(frail_stack, stop_worker, 5.5)
    check_whole(frail_stack, call, sent, heard)


async def test_a_killed_controller_is_not_noticed_by_calls_and_new_requests_succeed(
    frail_stack: Stack,
) -> None:
    frail_stack.sim.add_callee("+14155550101", "record")

    async def blow(stack: Stack, call: Call) -> None:
        before = stack.status()["controller"]
        os.kill(before["pid"], signal.SIGKILL)
        async with Line(BOB, allowed_callees=["+14155550101"], bus=stack.bus) as line:
            other = await line.place_call("+14155550101", timeout=20.0, attach_stream="a-leg")
            said = speech(0.5, first=1)
            assert await other.send_audio(said) == len(said) // 2
            await other.hang_up()
        async with Line(CAROL, bus=stack.bus) as line:
            inbound = await be_called(stack, line, "silence", CALLER)
            await inbound.hang_up()
        assert stack.status()["controller"]["epoch"] == before["epoch"] + 1

    call, sent, heard = await a_call_during(frail_stack, blow)
    check_whole(frail_stack, call, sent, heard)


async def test_a_killed_controller_loses_no_armed_number(frail_stack: Stack) -> None:
    stack = frail_stack
    async with Line(ALICE, bus=stack.bus) as line:
        waiting = asyncio.ensure_future(line.wait_for_call(30.0))
        await until(lambda: stack.held(ALICE), "the number is armed")
        epoch = stack.status()["controller"]["epoch"]
        os.kill(stack.status()["controller"]["pid"], signal.SIGKILL)
        # A caller in the meantime is let wait, by a gateway that finds no controller.
        sid = stack.sim.place_call(CALLER, ALICE)["sid"]
        call = await waiting
        assert call.sid == sid
        assert stack.status()["controller"]["epoch"] == epoch + 1
        await call.hang_up()


async def test_a_killed_gateway_is_replaced_and_the_call_comes_back(frail_stack: Stack) -> None:
    stack = frail_stack
    stack.provoked |= BROKEN

    async def blow(stack: Stack, call: Call) -> None:
        gateway = stack.call_status(call.sid)["gateway"]
        os.kill(stack.pid_of("gateways", gateway), signal.SIGKILL)

    call, sent, heard = await a_call_during(stack, blow)
    # Ours: nothing twice, and missing is what lay unplayed at the carrier, which is told.
    first, second = (from_wire(sound) for sound in stack.stream_sound(call.sid))
    whole = from_pcm(sent)
    compare(whole[: len(first)], first, alone=False).check()
    went_on = round(delay(second, whole, 1))
    compare(whole[went_on:], second).check()
    assert went_on >= len(first)
    # It is told by a model of the carrier's buffer, which may be a tick off at each end.
    assert abs(went_on - len(first) - 3 * call.lost.outbound) <= 2 * FRAME
    # Theirs: missing is what was said while there was no stream, which is told too.
    said, heard_ = from_wire(stack.sim.said(call.sid)), from_pcm(heard)
    begin, end = heard_[:RATE], heard_[-RATE:]
    compare(begin, said, alone=False).check()
    compare(end, said, alone=False).check()
    missing = delay(end, said) - delay(begin, said) - (len(heard_) - len(end))
    assert abs(missing - 3 * call.lost.inbound) <= 2 * FRAME


async def test_a_stream_that_breaks_comes_back(frail_stack: Stack) -> None:
    """The network fails instead of a process; the far end never knows more of it than a hole."""
    frail_stack.provoked |= BROKEN

    async def blow(stack: Stack, call: Call) -> None:
        stack.sim.drop_stream(stack.sim.call(call.sid)["streams"][0]["sid"])

    call, sent, _ = await a_call_during(frail_stack, blow, 3.0)
    assert len(frail_stack.sim.call(call.sid)["streams"]) == 2
    whole, second = from_pcm(sent), from_wire(frail_stack.stream_sound(call.sid)[1])
    compare(whole[-len(second) :], second).check()


async def test_restore_needs_no_stack_and_leaves_a_living_ones_numbers_alone(
    new_stack: Callable[[], Stack],
) -> None:
    stack = new_stack()
    stack.up(gateways=1, codec_workers=1)
    client = stack.client("wait", DAVE)
    await until(lambda: stack.held(DAVE), "the number is armed")
    # On another machine, which knows nothing but the account.
    left = stack.command("restore", "--account", TRUNKLINE_STATE_DIR="elsewhere")
    assert (left.returncode, stack.held(DAVE)) == (3, True), left
    client.kill()
    client.wait()
    stack.kill_stack()
    planned = stack.command("restore", "--dry-run")
    assert stack.held(DAVE), planned
    assert "secret" not in planned.stdout + planned.stderr
    done = stack.command("restore")
    assert (done.returncode, stack.changed_numbers()) == (0, {}), done
    stack.check_nothing_left()
