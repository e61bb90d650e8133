"""Listening in: both tracks of a call that somebody else has placed, on real processes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import requests

from trunkline import Line
from trunkline.adapter.tap import Tap
from trunkline.bus.errors import CarrierError
from trunkline.carrier_sim.mulaw import decode
from trunkline.ear.listen import listen

from .stack import ALICE, BOB, CALLEE, Stack, calling, until

#: An agent platform's own call: its agent speaks, hears the other end out, and speaks again.
AGENT = """<Response><Pause length="2"/><Say>one</Say><Pause length="3"/><Say>three</Say>
<Pause length="2"/></Response>"""
OTHER_END = "speech:austen-0920,when_silent=0.8,repeat"
#: Seconds that a figure of a tap may differ from the far end's.
NEAR = 0.03


def placed(stack: Stack, twiml: str, bot: str) -> str:
    """The CallSid of a call that the account's owner has placed past us."""
    stack.sim.add_callee(CALLEE, bot)
    base = stack.environment["TRUNKLINE_TWILIO_API_URL"]
    made = requests.post(
        f"{base}/2010-04-01/Accounts/{stack.account}/Calls.json",
        data={"To": CALLEE, "From": BOB, "Twiml": twiml},
        auth=(stack.account, stack.token),
        timeout=5,
    )
    return str(made.json()["sid"])


@asynccontextmanager
async def listening(stack: Stack, sid: str, theirs: str = "outbound") -> AsyncIterator[Tap]:
    async with (
        Line(ALICE, bus=stack.bus) as line,
        line.listen(sid, theirs=theirs) as tap,  # type: ignore[arg-type]  # a test's own words
    ):
        yield tap


def streams(stack: Stack, sid: str) -> list[dict[str, object]]:
    """The call's streams at the carrier, which are ours."""
    return [stack.sim.stream(stream["sid"]) for stream in stack.sim.call(sid)["streams"]]


async def test_both_sides_of_a_call_of_somebody_else_are_heard_and_judged(stack: Stack) -> None:
    sid = placed(stack, AGENT, OTHER_END)
    stack.sim.wait_for(sid, "in-progress")
    pieces = []
    async with listening(stack, sid) as tap:
        (row,) = stack.status()["listening"]
        assert (row["sid"], row["theirs"], row["state"]) == (sid, "outbound", "live")
        assert stack.status()["calls"] == [], "it is no call of ours"
        async for piece in tap:
            pieces.append(piece)
        assert tap.ended_reason == "stop"
        report = tap.report()
    assert pieces[0][0] == 0.0
    for (at, ours, theirs), (after, _, _) in pairwise(pieces):
        assert len(ours) == len(theirs)
        assert after == pytest.approx(at + len(ours) / 48_000)
    # The far end's own record has both sides on one clock, from the call's beginning on.
    played, said = decode(stack.sim.played(sid)), decode(stack.sim.said(sid))
    truth = listen(said, played)
    assert report.reliable, report.unreliable_because
    assert report.frames_lost == 0 and report.jitter_ms is not None
    began = truth.sides.theirs.segments[0].start - report.sides.theirs.segments[0].start
    for side in ("ours", "theirs"):
        found, known = report.sides[side].segments, truth.sides[side].segments
        edges = [(each.start + began, each.end + began) for each in found]
        # What was said before we listened we have not heard.
        expected = [(each.start, each.end) for each in known][-len(edges) :]
        assert np.allclose(edges[1:], expected[1:], atol=NEAR), side
    assert report.sides.theirs.level_dbfs == pytest.approx(truth.sides.theirs.level_dbfs, abs=0.5)
    await until(lambda: "listening" not in stack.status(), "the stack holds nothing of it")


async def test_the_call_goes_on_when_we_stop_listening(stack: Stack) -> None:
    sid = placed(stack, '<Response><Pause length="30"/></Response>', "echo")
    stack.sim.wait_for(sid, "in-progress")
    async with listening(stack, sid, "inbound") as tap:
        async for at, _, _ in tap:
            if at > 0.5:
                break
        (stream,) = streams(stack, sid)
        assert stream["state"] == "live"
    assert tap.ended_reason == "hang_up"
    (stream,) = streams(stack, sid)
    assert (stream["state"], stream["ended_by"]) == ("ended", "stop"), "by REST"
    assert stack.sim.call(sid)["status"] == "in-progress"
    stack.sim.hang_up(sid)


async def test_a_call_of_our_own_can_be_listened_to(stack: Stack, tmp_path: Path) -> None:
    async with calling(stack, OTHER_END) as call, listening(stack, call.sid, "inbound") as tap:
        await call.say(b"\x10\x20" * 24_000)
        await asyncio.sleep(2.5)
        await call.hang_up()
        async for _ in tap:
            pass
        own, tapped = call.report(), tap.report()
    assert tapped.sides.ours.speech_seconds == pytest.approx(own.sides.ours.speech_seconds, abs=0.1)
    assert [x.latency for x in tapped.answers] == pytest.approx(
        [x.latency for x in own.answers], abs=NEAR
    )


async def test_a_call_that_there_is_not_is_refused_by_name(stack: Stack) -> None:
    sid = "CA" + "0" * 32
    async with Line(ALICE, bus=stack.bus) as line:
        with pytest.raises(CarrierError, match=f"there is no call {sid}") as refused:
            async with line.listen(sid):
                pass
        assert refused.value.status == 404
        with pytest.raises(ValueError, match="no CallSid"):
            async with line.listen("+14155557777"):
                pass
    assert "listening" not in stack.status()


@pytest.mark.parametrize("dies", ["gateway", "codec_worker", "controller"])
async def test_listening_survives_the_death_of(dies: str, stack: Stack) -> None:
    sid = placed(stack, '<Response><Say>one</Say><Pause length="60"/></Response>', OTHER_END)
    stack.sim.wait_for(sid, "in-progress")
    async with listening(stack, sid) as tap:
        heard = 0.0
        killed = False
        async for at, ours, _ in tap:
            heard = at + len(ours) / 48_000
            if heard > 1.0 and not killed:
                killed = True
                (row,) = stack.status()["listening"]
                pid = (
                    stack.status()["controller"]["pid"]
                    if dies == "controller"
                    else stack.pid_of(f"{dies}s", row[dies])
                )
                os.kill(pid, signal.SIGKILL)
            if heard > 6.0:
                break
        lost = sum(tap.lost.values()) / 8000
        if dies != "gateway":
            assert lost == 0.0
        else:
            stack.provoked.add(31903)
            assert 0.0 < lost < 2 * 3.0, "both tracks, and it is counted"
        if dies == "controller":
            await until(lambda: stack.complete(2, 2), "the controller is back")
    assert tap.ended_reason == "hang_up"
    assert all(stream["state"] == "ended" for stream in streams(stack, sid))
    assert stack.sim.call(sid)["status"] == "in-progress"
    stack.sim.hang_up(sid)
