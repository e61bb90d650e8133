"""Menus and machines at the far end of real stacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from trunkline import Line
from trunkline.carrier_sim import sounds

from .sound import compare, from_pcm, from_wire, speech
from .stack import ALICE, CALLEE, Stack, until

#: Longer than a human's hello (2.4 s).
GREETING = "music:2.8+silence:0.2"
MENU = """
[main]
say = "music:3"
digits = { 1 = "message", "2.#" = "clerk" }

[message]
say = "beep:0.2"
listen = 20
silence = 2
then = "main"

[clerk]
say = ["music:0.5", "ringing:0.5"]
bot = "echo"
"""


async def test_a_message_is_left_behind_the_beep(stack: Stack) -> None:
    stack.sim.add_callee(CALLEE, f"voicemail:{GREETING},beep=0.4,silence=2.5")
    async with Line(ALICE, allowed_callees=[CALLEE], bus=stack.bus) as line:
        call = await line.place_call(
            CALLEE, timeout=20.0, attach_stream="a-leg", machine_detection="DetectMessageEnd"
        )
        assert call.answered_by is None
        assert await call.wait_answered_by(20.0) == call.answered_by == "machine_end_beep"
        message = speech(1.5)
        await call.send_audio(message)
        assert await call.wait_ended(20.0) == "stop"
        assert call.ended_by_far_end
    way = [visit["step"] for visit in stack.sim.call(call.sid)["way"]]
    assert way == ["greeting", "message"]
    said = stack.sim.said(call.sid)
    assert sounds.read(f"{GREETING}+beep:0.4") in said
    compare(from_pcm(message), from_wire(stack.far_end_heard(call.sid))).check()


@pytest.mark.parametrize(
    ("bot", "detection", "found"),
    [
        ("hand-over:music:1", "Enable", "human"),
        (f"voicemail:{GREETING}", "Enable", "machine_start"),
        ("hand-over:fax:3", "DetectMessageEnd", "fax"),
        ("hand-over:music:1,answered_by=unknown", "Enable", "unknown"),
    ],
)
async def test_who_answers_is_told(stack: Stack, bot: str, detection: str, found: str) -> None:
    stack.sim.add_callee(CALLEE, bot)
    async with Line(ALICE, allowed_callees=[CALLEE], bus=stack.bus) as line:
        call = await line.place_call(
            CALLEE,
            timeout=20.0,
            attach_stream="a-leg",
            machine_detection=detection,  # type: ignore[arg-type]  # one of the two
        )
        assert await call.wait_answered_by(20.0) == found
        await call.hang_up()


async def test_a_menu_is_gone_through_by_keys(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "menu.toml").write_text(MENU)
    stack.sim.add_callee(CALLEE, f"menu:{tmp_path / 'menu.toml'}")
    async with Line(ALICE, allowed_callees=[CALLEE], bus=stack.bus) as line:
        call = await line.place_call(CALLEE, timeout=20.0, attach_stream="a-leg")
        await call.send_dtmf("1")
        await call.send_audio(speech(1.0))
        await until(lambda: len(stack.sim.call(call.sid)["way"]) == 3, "the message is over")
        await call.send_dtmf("25#")
        await until(lambda: len(stack.sim.call(call.sid)["way"]) == 4, "the clerk is rung")
        said = len(stack.sim.said(call.sid))
        await until(
            lambda: len(stack.sim.said(call.sid)) > said + 1.2 * 8_000, "music and ringing are over"
        )
        while await call.recv_audio(timeout=1.0) == b"":
            pass
        sent = speech(1.0, first=1)
        await call.send_audio(sent)
        heard = b""
        while len(heard) < len(sent) + 24_000:
            heard += await call.recv_audio(timeout=5.0)
        compare(from_pcm(sent), from_pcm(heard)).check()
        await call.hang_up()
    way = [(visit["step"], visit["how"]) for visit in stack.sim.call(call.sid)["way"]]
    assert way == [("main", ""), ("message", "1"), ("main", "then"), ("clerk", "25#")]
    assert stack.sim.picture(call.sid).count("url(#taken)") == 3
