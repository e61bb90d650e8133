"""The two calls of the demo by ``Line`` alone, for which ``pip install trunkline`` is enough."""

from __future__ import annotations

import asyncio

from trunkline.adapter.call import Call
from trunkline.adapter.line import Line
from trunkline.bus import wav
from trunkline.bus.clock import monotonic
from trunkline.bus.sound import LINE_RATE

from .measure import CallRecord, Handed
from .record import SET_UP_WITHIN, Stack, Watch
from .words import recording


async def answering(
    stack: Stack, number: str, caller: str, greeting: str, reply: str
) -> tuple[CallRecord, Watch]:
    """Somebody calls our number and speaks first. The test answers the call and replies."""
    watch = Watch(stack)
    before = stack.sim.numbers()[number]["voice_url"]
    async with Line(number, bus=stack.info.bus) as line:
        waiting = asyncio.create_task(line.wait_for_call(timeout=SET_UP_WITHIN))
        try:
            await watch.until_written(number, before, waiting)
            began = monotonic()
            bot = f"speech:{greeting},after=0.4"
            await asyncio.to_thread(stack.sim.place_call, caller, number, bot)
            call = await waiting
        finally:
            waiting.cancel()
        watch.sid, watch.set_up = call.sid, monotonic() - began
        await call.next_turn()
        await _say(call, watch, reply)
        await watch.note_loss()
        await call.hang_up()
    return await watch.record(), watch


async def calling(
    stack: Stack, number: str, callee: str, turns: list[tuple[str, str]], digits: str
) -> tuple[CallRecord, Watch]:
    """The test calls an agent, talks with it in turns, and presses keys."""
    watch = Watch(stack)
    async with Line(number, allowed_callees=[callee], bus=stack.info.bus) as line:
        began = monotonic()
        call = await line.place_call(callee, timeout=SET_UP_WITHIN, attach_stream="a-leg")
        watch.sid, watch.set_up = call.sid, monotonic() - began
        for question, _ in turns:
            await _say(call, watch, question)
            await call.next_turn()
        await call.send_dtmf(digits)
        await watch.note_loss()
        await call.hang_up()
    return await watch.record(), watch


async def _say(call: Call, watch: Watch, name: str) -> None:
    """Say a recording, and note when it was handed over."""
    pcm = wav.read(recording(name), LINE_RATE).tobytes()
    watch.handed.append(Handed("test", name, [(monotonic(), pcm)]))
    await call.say(pcm)
