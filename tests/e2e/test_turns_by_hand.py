"""Turns of a call without scenario: say, hear out, break in."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from trunkline import Line
from trunkline.bus import wav
from trunkline.bus.errors import InvalidRequestError, WrongModeError
from trunkline.carrier_sim.wav import SPEECH_DIR

from .sound import speech
from .stack import ALICE, CALLEE, Stack


async def test_a_call_is_held_in_turns(stack: Stack, tmp_path: Path) -> None:
    # It greets when our stream is there to hear all of it.
    stack.sim.add_callee(CALLEE, "speech:austen-0920,after=2,greets,when_silent=0.7,repeat")
    async with Line(ALICE, allowed_callees=[CALLEE], bus=stack.bus) as line:
        call = await line.place_call(CALLEE, timeout=20.0, attach_stream="a-leg")
        with pytest.raises(TimeoutError):
            await call.next_turn(timeout=0.01)
        greeting = await call.next_turn(timeout=20)
        assert greeting.latency is None
        assert 5.0 < greeting.seconds < 6.5
        sent = await call.say(SPEECH_DIR / "austen-0930.wav")
        assert sent == len(wav.read(SPEECH_DIR / "austen-0930.wav"))
        answer = await call.next_turn()
        assert answer.latency == pytest.approx(0.7 + 0.34, abs=0.25)
        await call.say(speech(1.0))
        await call.barge_in(speech(1.5), after=1.2)
        rest = await call.next_turn()
        assert rest.seconds > 4.0, "what was heard before the barge-in is part of the turn"
        (tmp_path / "words.wav").write_text("no sound")
        with pytest.raises(InvalidRequestError, match="no PCM WAV"):
            await call.say(tmp_path / "words.wav")
        await call.hang_up()
        report = call.report()
        with pytest.raises(WrongModeError):
            await call.next_turn(timeout=1)
        (broke_in,) = report.yields
        begun = max(s.start for s in report.sides.theirs.segments if s.start < broke_in.at)
        assert broke_in.at - begun == pytest.approx(1.2, abs=0.3)


async def test_nobody_speaks(stack: Stack) -> None:
    stack.sim.add_callee(CALLEE, "silence")
    async with Line(ALICE, allowed_callees=[CALLEE], bus=stack.bus) as line:
        call = await line.place_call(CALLEE, timeout=20.0, attach_stream="a-leg")
        with pytest.raises(TimeoutError):
            await call.barge_in(speech(1.0), timeout=0.3)
        asyncio.get_running_loop().call_later(0.3, stack.sim.hang_up, call.sid)
        with pytest.raises(WrongModeError, match="has ended"):
            await call.next_turn(timeout=10)
