"""Digits that the carrier presses on a leg that carries our stream: nothing is lost by it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator

import pytest

from trunkline import Call, Line
from trunkline.bus.sound import WIRE_RATE
from trunkline.codec_worker.join import TOLERANCE
from trunkline.errors import StackUnavailableError

from .sound import compare, from_pcm, from_wire, speech
from .stack import (
    ALICE,
    BOB,
    CALLEE,
    CAROL,
    Ear,
    Stack,
    be_called,
    called,
    checked,
    standing,
    stopped,
    until,
)

#: Someone who talks all the time.
TALKS = {"kind": "wav", "speech": "austen-0870", "loop": True}


def check_heard_once(stack: Stack, call: Call, heard: bytes) -> None:
    """Every sample that the far end said was heard, once and in its place."""
    said = from_wire(stack.sim.said(call.sid))
    compare(from_pcm(heard), said, alone=False).check()
    assert (call.lost.inbound, call.lost.outbound) == (0, 0), call.lost


def streams(stack: Stack, call: Call) -> list[dict[str, object]]:
    return stack.sim.call(call.sid)["streams"]


def digits(stack: Stack, call: Call) -> str:
    heard: str = stack.sim.call(call.sid)["digits_heard"]
    return heard


async def under_way(stack: Stack, call: Call) -> None:
    await until(lambda: call.heard_samples > 4000, "the far end is heard")


async def test_the_far_end_is_heard_throughout(stack: Stack) -> None:
    """Called, and calling by our own leg, under two gateways; two calls of each, and digits twice
    in each of them, because how long the carrier takes is drawn by its seed."""
    print(f"carrier_sim --seed {stack.sim.health()['seed']}")
    stack.sim.add_callee(CALLEE, TALKS | {"hears": "digits"})
    async with (
        Line(ALICE, bus=stack.bus) as alice,
        Line(BOB, bus=stack.bus) as bob,
        Line(CAROL, allowed_callees=[CALLEE], bus=stack.bus) as calling,
    ):
        calls = await asyncio.gather(
            *(be_called(stack, line, TALKS | {"hears": "digits"}) for line in (alice, bob)),
            *(calling.place_call(CALLEE, timeout=20.0, attach_stream="a-leg") for _ in range(2)),
        )
        ears = [Ear(call) for call in calls]
        await asyncio.gather(*(under_way(stack, call) for call in calls))
        for keys in ("1#", "42w*"):
            await asyncio.gather(*(call.send_dtmf(keys) for call in calls))
            # It returns when the call has its stream again.
            for call in calls:
                assert [s["state"] for s in streams(stack, call) if s["state"] == "live"], keys
        assert [digits(stack, call) for call in calls] == ["1#42*"] * 4
        sent = speech(1.0, first=2)
        counts = await asyncio.gather(*(call.send_audio(sent) for call in calls))
        assert counts == [len(sent) // 2] * 4
        rows = [stack.call_status(call.sid) for call in calls]
        assert [row["frames_lost"] for row in rows] == [0] * 4, rows
        await asyncio.gather(*(call.hang_up() for call in calls))
        heard = [await ear.all() for ear in ears]
    for call, sound in zip(calls, heard, strict=True):
        check_heard_once(stack, call, sound)
        compare(from_pcm(sent), from_wire(stack.far_end_heard(call.sid))).check()
        assert call.ended_reason == "hang_up"


async def test_what_is_being_said_comes_first_and_what_is_said_meanwhile_waits(
    stack: Stack,
) -> None:
    before, meanwhile = speech(1.5, first=1), speech(1.0, first=3)
    async with called(stack, {"kind": "record", "hears": "digits"}) as call:
        over: list[asyncio.Task[int] | asyncio.Task[None]] = []
        first = asyncio.ensure_future(call.send_audio(before))
        await until(lambda: stack.played_seconds(call.sid) > 0.3, "the first is being said")
        pressing = asyncio.ensure_future(call.send_dtmf("7"))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(call.send_audio(meanwhile))
        for each in (first, pressing, second):
            each.add_done_callback(over.append)
        await pressing
        assert digits(stack, call) == "7"
        assert (await first, await second) == (len(before) // 2, len(meanwhile) // 2)
        assert over == [first, pressing, second]
        await call.hang_up()
    one, *_, last = [sound for sound in stack.stream_sound(call.sid) if sound]
    compare(from_pcm(before), from_wire(one)).check()
    compare(from_pcm(meanwhile), from_wire(last)).check()
    assert (call.lost.inbound, call.lost.outbound) == (0, 0), call.lost


async def test_tones_are_for_far_ends_that_listen_to_sound(stack: Stack) -> None:
    """A menu that knows only the carrier's own keys, and one that knows only tones."""
    for hears, as_tones, as_keys in (("digits", "", "1#"), ("tones", "1#", "1#")):
        async with Line(ALICE, bus=stack.bus) as line:
            call = await be_called(stack, line, {"kind": "record", "hears": hears})
            await call.send_dtmf("1#", tones=True)
            if as_tones:
                await until(lambda c=call: digits(stack, c) == "1#", "the tones were heard")
            assert len(streams(stack, call)) == 1
            await call.send_dtmf("9")
            assert digits(stack, call) == (as_keys if as_tones else "9")
            await call.hang_up()


async def test_two_rows_of_digits_go_one_after_the_other_and_a_hang_up_ends_both(
    stack: Stack,
) -> None:
    async with called(stack, "record") as call:
        await asyncio.gather(call.send_dtmf("12"), call.send_dtmf("34"))
        assert digits(stack, call) == "1234"
        # The next row would take 20 s, so that it is under way when we hang up.
        both = [asyncio.ensure_future(call.send_dtmf(keys)) for keys in ("5" + 20 * "W", "6")]
        await until(lambda: len(streams(stack, call)) > 5, "the next row is on its way")
        await call.hang_up()
        ends = await asyncio.gather(*both, return_exceptions=True)
        assert [type(end).__name__ for end in ends] == ["WrongModeError"] * 2, ends
        assert call.ended_reason == "hang_up"


@contextlib.asynccontextmanager
async def in_the_seam(stack: Stack) -> AsyncIterator[tuple[Call, Ear, asyncio.Task[None]]]:
    """A call whose digits are half played, its ear, and the send_dtmf that goes on. The rest of
    them comes 3 s later: time for a blow between the two."""
    async with called(stack, TALKS | {"hears": "digits"}) as call:
        ear = Ear(call)
        await under_way(stack, call)
        pressing = asyncio.ensure_future(call.send_dtmf("12WWW34"))
        await until(lambda: digits(stack, call) == "12", "the digits are being played")
        yield call, ear, pressing


async def test_a_worker_that_dies_in_the_seam_costs_nothing(stack: Stack) -> None:
    async with in_the_seam(stack) as (call, ear, pressing):
        worker = stack.call_status(call.sid)["codec_worker"]
        os.kill(stack.pid_of("codec_workers", worker), signal.SIGKILL)
        await pressing
        assert digits(stack, call) == "1234"
        await call.send_audio(speech(0.5))
        await call.hang_up()
        check_heard_once(stack, call, await ear.all())


async def test_a_gateway_that_stands_still_at_the_joint_costs_nothing(stack: Stack) -> None:
    """It stands still while the stream comes back, to this gateway or to the other one. What the
    far end said until then waits to be read there. Three times, so that both may be met."""
    async with called(stack, TALKS | {"hears": "digits"}) as call:
        ear = Ear(call)
        await under_way(stack, call)
        for n, key in enumerate("123", 1):
            pressing = asyncio.ensure_future(call.send_dtmf(key))
            await until(lambda n=n: len(streams(stack, call)) > 2 * n, "the stream comes back")
            with stopped(stack.pid_of("gateways", stack.call_status(call.sid)["gateway"])):
                await asyncio.sleep(0.5)
            await pressing
        assert digits(stack, call) == "123"
        await call.send_audio(speech(0.5))
        await call.hang_up()
        check_heard_once(stack, call, await ear.all())


async def test_a_controller_that_dies_in_the_seam_does_not_repeat_them(stack: Stack) -> None:
    """Nobody knows whether they were sent, so it is said by name; the call lives on."""
    stack.provoked |= {31921}  # the new controller does not know the token in the document
    async with in_the_seam(stack) as (call, ear, pressing):
        os.kill(stack.status()["controller"]["pid"], signal.SIGKILL)
        with pytest.raises(StackUnavailableError, match="not known"):
            await pressing
        sent = speech(0.5)
        assert await call.send_audio(sent) == len(sent) // 2  # once its stream is back
        assert digits(stack, call) == "1234"
        assert call.ended_reason is None
        # The next ones go as ever.
        await call.send_dtmf("5")
        assert digits(stack, call) == "12345"
        await call.hang_up()
        heard = await ear.all()
    # Sound that no stream brought is counted, and nothing was heard twice.
    lost = 6 * call.lost.inbound
    assert len(heard) + lost <= 6 * len(stack.sim.said(call.sid))


async def test_a_gateway_that_dies_in_the_seam_costs_what_it_heard(stack: Stack) -> None:
    stack.provoked |= {31903, 31921, 11200, 31902}
    async with in_the_seam(stack) as (call, ear, pressing):
        gateway = stack.call_status(call.sid)["gateway"]
        os.kill(stack.pid_of("gateways", gateway), signal.SIGKILL)
        await pressing
        assert digits(stack, call) == "1234"
        sent = speech(0.5)
        assert await call.send_audio(sent) == len(sent) // 2
        before = call.heard_samples
        await until(lambda: call.heard_samples > before + 4000, "the far end is heard again")
        await call.hang_up()
        await ear.all()


@pytest.fixture(scope="module")
def _shared_slow_stack() -> Iterator[Stack]:
    yield from standing(2, "--habit", "one-way-start=0.6")


@pytest.fixture
async def slow_stack(_shared_slow_stack: Stack) -> AsyncIterator[Stack]:
    """A stack beside a carrier that takes its time to start a one-way stream."""
    async for each in checked(_shared_slow_stack, 2):
        yield each


@pytest.mark.parametrize(
    ("belief", "lost"),
    [
        ("one-way-beside-connect", True),
        ("one-way-close-ends", False),
        ("update-sends-stop", False),
    ],
)
async def test_a_belief_that_is_wrong(belief: str, lost: bool, slow_stack: Stack) -> None:
    """The digits are heard, the call and its stream live on, and every loss is counted."""
    stack = slow_stack
    stack.provoked |= {31921}
    with stack.contradicting(belief):
        call, heard = await a_call_with_digits(stack)
    assert (call.lost.inbound > 0) == lost, call.lost
    assert call.lost.outbound == 0
    # In time: no second of it is missing that was not counted, and none came twice.
    assert -0.8 < too_long(stack, call, heard) < 0.4


@pytest.mark.measures
async def test_streams_that_are_not_alike_are_joined_by_the_clock(stack: Stack) -> None:
    """A belief that is wrong, too. The clock is as good as the processes are prompt, so this is one
    of the tests that measure."""
    print(f"carrier_sim --seed {stack.sim.health()['seed']}")
    stack.provoked |= {31921}
    with stack.contradicting("streams-alike"):
        call, heard = await a_call_with_digits(stack)
    assert (call.lost.inbound, call.lost.outbound) == (0, 0), call.lost
    joints = len(streams(stack, call)) - 1
    assert joints == 4
    assert abs(too_long(stack, call, heard)) <= joints * TOLERANCE / WIRE_RATE


def too_long(stack: Stack, call: Call, heard: bytes) -> float:
    """The seconds of sound that came twice, less those that are missing and were not counted."""
    seconds = len(heard) / 48_000 + call.lost.inbound / WIRE_RATE
    return seconds - len(stack.sim.said(call.sid)) / WIRE_RATE


async def a_call_with_digits(stack: Stack) -> tuple[Call, bytes]:
    """Be called, press keys twice, and hang up: the call, and all that was heard."""
    async with called(stack, TALKS | {"hears": "digits"}) as call:
        ear = Ear(call)
        await under_way(stack, call)
        for keys in ("1#", "2"):
            await call.send_dtmf(keys)
        assert digits(stack, call) == "1#2"
        sent = speech(0.5)
        assert await call.send_audio(sent) == len(sent) // 2
        await call.hang_up()
        return call, await ear.all()
