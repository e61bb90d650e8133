"""Twilio's REST fails: refused, too late, unanswered, answered by silence after all was done."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest
from e2e.stack import ALICE, BOB, CAROL, DAVE, DEFAULTS, PRIOR, Stack, until

from trunkline import Line
from trunkline.errors import CarrierError


def on_writes_of(stack: Stack, number: str, **fault: Any) -> int:
    """A rule for writes of this number's settings."""
    sid = stack.sim.numbers()[number]["sid"]
    return stack.sim.add_fault("rest", method="POST", path=re.escape(sid), **fault)


async def call_into_silence(stack: Stack, callee: str) -> None:
    """Twilio neither takes the call nor answers: nothing rings, and nobody waits for ever."""
    stack.sim.add_callee(callee, "no-answer")
    stack.sim.add_fault("rest", kind="timeout_before", method="POST", path=r"/Calls\.json")
    async with Line(ALICE, allowed_callees=[callee], bus=stack.bus) as line:
        with pytest.raises(TimeoutError):
            await line.place_call(callee, timeout=2.0, attach_stream="a-leg")
    assert stack.calls_to(callee) == []


async def test_twilios_rest_while_numbers_are_armed_and_restored(
    new_stack: Callable[[], Stack],
) -> None:
    stack = new_stack()
    stack.up(gateways=1, codec_workers=1)
    states = stack.overrides

    refused: dict[str, Any] = {"kind": "status", "status": 429, "retry_after": 0.5, "count": 2}
    internal: dict[str, Any] = {"kind": "status", "status": 503, "count": 1}
    lines = [await Line(number, bus=stack.bus).open() for number in PRIOR]
    calling = asyncio.ensure_future(call_into_silence(stack, "+14158889003"))
    on_writes_of(stack, ALICE, **refused)
    on_writes_of(stack, BOB, **internal)
    on_writes_of(stack, CAROL, kind="reset_after", count=1)
    waiting = [asyncio.ensure_future(line.wait_for_call(60.0)) for line in lines]
    await until(lambda: list(states().values()) == ["applied"] * 4, "all are armed")
    assert all(map(stack.held, PRIOR))
    for task in waiting:
        task.cancel()

    # Refused for 4 s, in which all four can be seen.
    on_writes_of(stack, ALICE, **refused | {"retry_after": 2.0})
    on_writes_of(stack, BOB, **internal)
    on_writes_of(stack, CAROL, kind="reset", count=1)
    on_writes_of(stack, DAVE, kind="timeout_after", count=1)
    closing = asyncio.gather(*(line.close() for line in lines))
    # Tried until it succeeds, and shown as pending until then.
    await until(lambda: set(states().values()) == {"restoring"}, "all are shown as pending")
    await until(lambda: stack.changed_numbers() == {}, "all are as before")
    await until(lambda: ALICE not in states(), "what was refused is settled")
    await until(lambda: DAVE not in states(), "what had no answer is, once it is seen to be done")
    await asyncio.gather(closing, calling)
    assert sum(rule["fired"] for rule in stack.sim.faults()) == 1 + 2 * (2 + 1 + 1) + 1
    for number in PRIOR:  # nothing was written that had not to be
        urls = [w["after"]["voice_url"] for w in stack.sim.number_writes() if w["number"] == number]
        assert [url == PRIOR[number]["voice_url"] for url in urls] == [False, True], number
    # What had no answer, or an error that tells nothing, may take effect late: it is watched for a
    # minute, and a stack that ends before says so.
    assert {states().get(BOB), states().get(CAROL)} == {"restoring"}
    assert stack.stop() == 3
    stack.check_nothing_left()


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 429, "retry_after": 0.5, "count": 1},
        {"kind": "timeout_after", "count": 1},
        {"kind": "late_effect", "seconds": 1.5, "count": 1},
        {"kind": "reset_after", "count": 1},
    ],
    ids=["429", "timeout after", "late effect", "reset after"],
)
async def test_twilios_rest_while_dialling_calls_once(stack: Stack, fault: dict[str, Any]) -> None:
    callee = "+14158889001"
    stack.sim.add_callee(callee, "echo")
    stack.sim.add_fault("rest", method="POST", path=r"/Calls\.json", **fault)
    async with Line(ALICE, allowed_callees=[callee], bus=stack.bus) as line:
        call = await line.place_call(callee, timeout=40.0, attach_stream="a-leg")
        assert await call.send_audio(bytes(4_800)) == 2_400
        assert [c["sid"] for c in stack.calls_to(callee)] == [call.sid]
        await call.hang_up()
    assert stack.live_calls() == []


@pytest.mark.parametrize(
    ("fault", "timeout", "error"),
    [
        ({"kind": "late_effect", "seconds": 4.0, "count": 1}, 2.0, TimeoutError),
        ({"kind": "status", "status": 400, "count": 1}, 20.0, CarrierError),
    ],
    ids=["effect after the timeout", "refused"],
)
async def test_twilios_rest_while_dialling_leaves_no_call_ringing(
    stack: Stack, fault: dict[str, Any], timeout: float, error: type[Exception]
) -> None:
    callee = "+14158889002"
    stack.sim.add_callee(callee, "no-answer")
    rule = stack.sim.add_fault("rest", method="POST", path=r"/Calls\.json", **fault)
    async with Line(ALICE, allowed_callees=[callee], bus=stack.bus) as line:
        with pytest.raises(error):
            await line.place_call(callee, timeout=timeout, attach_stream="a-leg")
        late = fault["kind"] == "late_effect"
        if late:
            await until(lambda: stack.calls_to(callee), "the call came all the same")
        await until(lambda: not stack.live_calls(), "it is hung up")
        assert len(stack.calls_to(callee)) == int(late)
    assert {r["id"]: r["fired"] for r in stack.sim.faults()}[rule] == 1


async def test_someone_else_changes_voice_url_meanwhile(stack: Stack) -> None:
    """Alice's is theirs then. Bob's has its prior one again, so only that is not ours any more."""
    theirs = {"voice_url": "https://someone.else.example/voice", "voice_method": "POST"}
    alice, bob = PRIOR[ALICE]["voice_url"], PRIOR[BOB]["voice_url"]
    lines = [Line(number, bus=stack.bus) for number in (ALICE, BOB)]
    async with lines[0], lines[1]:
        waiting = [asyncio.ensure_future(line.wait_for_call(60.0)) for line in lines]
        await until(lambda: stack.armed(ALICE) and stack.armed(BOB), "both are armed")
        assert stack.voice(ALICE)["voice_fallback_url"] == alice
        assert stack.voice(BOB)["voice_fallback_url"] == bob
        for number, by_hand in ((ALICE, theirs), (BOB, {"voice_url": bob})):
            ours = {name: value for name, value in stack.voice(number).items() if value}
            stack.sim.add_number(number, **ours | by_hand)
        for task in waiting:
            task.cancel()
    await until(lambda: stack.overrides() == {}, "both are settled")
    fallback = {"voice_fallback_url": alice, "voice_fallback_method": "GET"}
    assert stack.changed_numbers() == {ALICE: DEFAULTS | theirs | fallback}, "and is left alone"
    writes = [w["number"] for w in stack.sim.number_writes()]
    assert (writes.count(ALICE), writes.count(BOB)) == (1, 2), "ours, and Bob's put back"
    assert any("changed by someone else" in line for line in stack.lines("up"))
    stack.sim.add_number(ALICE, **PRIOR[ALICE])
