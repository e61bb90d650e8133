"""What the adapter asks of Twilio's REST, and in which order, seen at the carrier."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import pytest
from beside import beside
from scene import Scene
from talk import armed, called

from trunkline.bus.testing import until
from trunkline.carrier_sim.client import SimClient
from trunkline.errors import NumberNotFoundError

if TYPE_CHECKING:
    from trunkline import TwilioAgentAdapter

pytestmark = [pytest.mark.e2e, pytest.mark.carrier_sim]


def hold() -> str:
    """The TwiML that keeps an a-leg call up, with scenario's own words."""
    from trunkline.adapter.twilio import PLACE_CALL_A_LEG_SAY_TEXT as WORDS

    return (
        '<?xml version="1.0" encoding="UTF-8"?><Response><Say voice="Polly.Joanna">'
        f'{WORDS}</Say><Pause length="120"/></Response>'
    )


def asked(sim: SimClient, number: str) -> list[tuple[str, str]]:
    """(method, what) of each request that names the number, in order."""
    sid = sim.numbers()[number]["sid"] if number in sim.numbers() else "none"
    found = []
    for entry in sim.rest_log():
        path = re.sub(r".*/Accounts/AC\w+", "", entry["path"])
        text = f"{path} {entry['query']} {entry['form']}"
        if sid in path or number in text:
            found.append((entry["method"], re.sub(r"(PN|CA)\w+", r"\1", path)))
    return found


def form_of_the_call(sim: SimClient, to: str) -> dict[str, Any]:
    (entry,) = [
        e for e in sim.rest_log() if e["path"].endswith("/Calls.json") and e["form"].get("To") == to
    ]
    return dict(entry["form"])


@beside
async def test_connect_looks_the_number_up_and_no_more(scene: Scene) -> None:
    number = scene.number()
    async with scene.stack.adapter(number) as agent:
        assert agent.is_connected()
    assert asked(scene.sim, number) == [("GET", "/IncomingPhoneNumbers.json")]
    with pytest.raises(RuntimeError, match=r"No incoming phone number found.*\*\*\*9999"):
        await scene.stack.adapter("+14155559999").connect()


@beside
async def test_answering_writes_the_voice_url_once_and_puts_it_back(scene: Scene) -> None:
    number = scene.number()
    prior = scene.sim.numbers()[number]
    async with scene.stack.adapter(number) as agent:
        await called(agent, scene.sim, "silence")
        during = scene.sim.numbers()[number]
        assert during["voice_url"].startswith(scene.stack.public_url + "/twilio/voice?")
        assert during["voice_fallback_url"] == prior["voice_url"]
        writes = [w for w in scene.sim.number_writes() if w["number"] == number]
        assert len(writes) == 1
    after = scene.sim.numbers()[number]
    assert {k: v for k, v in after.items() if "date" not in k} == {
        k: v for k, v in prior.items() if "date" not in k
    }
    assert asked(scene.sim, number)[:3] == [
        ("GET", "/IncomingPhoneNumbers.json"),
        ("GET", "/IncomingPhoneNumbers/PN.json"),
        ("POST", "/IncomingPhoneNumbers/PN.json"),
    ]


@beside
async def test_nobody_calls_and_the_number_is_put_back(scene: Scene) -> None:
    number = scene.number()
    before = scene.sim.numbers()[number]["voice_url"]
    async with scene.stack.adapter(number) as agent:
        for _ in range(2):
            with pytest.raises(asyncio.TimeoutError):
                await agent.wait_for_call(timeout=0.3)
        await until(lambda: scene.sim.numbers()[number]["voice_url"] != before)
    assert scene.sim.numbers()[number]["voice_url"] == before


@beside
async def test_b_leg(scene: Scene) -> None:
    ours, callee = scene.number(), scene.number()
    before = scene.sim.numbers()[callee]["voice_url"]
    async with scene.stack.adapter(ours) as agent:
        await agent.place_call(callee, timeout=20)
        assert scene.sim.numbers()[callee]["voice_url"].startswith(scene.stack.public_url)
        # Our leg's digits go by REST, and its callee's carrier hears them.
        await agent.send_dtmf("42")
    assert scene.sim.numbers()[callee]["voice_url"] == before
    assert asked(scene.sim, callee)[:4] == [
        ("GET", "/IncomingPhoneNumbers.json"),
        ("GET", "/IncomingPhoneNumbers/PN.json"),
        ("POST", "/IncomingPhoneNumbers/PN.json"),
        ("POST", "/Calls.json"),
    ]
    form = form_of_the_call(scene.sim, callee)
    assert (form["From"], form["To"], form["Twiml"]) == (ours, callee, hold())
    assert form["TimeLimit"] == "300"
    digits = [e["form"]["Twiml"] for e in scene.sim.rest_log() if "Play" in str(e["form"])]
    assert sum(text.startswith('<Response><Play digits="42"/>') for text in digits) == 1
    assert [w for w in scene.sim.number_writes() if w["number"] == ours] == []


@beside
async def test_b_leg_to_a_number_that_is_not_ours_dials_nothing(scene: Scene) -> None:
    stranger = "+14155558888"
    async with scene.adapter() as agent:
        with pytest.raises(NumberNotFoundError):
            await agent.place_call(stranger, timeout=5)
    assert ("POST", "/Calls.json") not in asked(scene.sim, stranger)


async def test_b_leg_whose_callee_never_connects_times_out_and_is_hung_up(scene: Scene) -> None:
    ours, callee = scene.number(), scene.number()
    rule = scene.sim.add_fault("webhook", "delay", seconds=1.2, count=1)
    async with scene.stack.adapter(ours) as agent:
        with pytest.raises(asyncio.TimeoutError):
            await agent.place_call(callee, timeout=0.5)
        for call in [c for c in scene.sim.calls() if c["to"] == callee]:
            await asyncio.to_thread(scene.sim.wait_for, call["sid"])
        scene.sim.remove_fault(rule)
        await agent.place_call(callee, timeout=20)


@beside
async def test_a_leg(scene: Scene) -> None:
    callee = scene.callee("record")
    async with scene.adapter(callee) as agent:
        await agent.place_call(
            callee, timeout=20, attach_stream="a-leg", max_call_duration_seconds=30
        )
        await agent.send_dtmf("5#")
        call = scene.call(callee)
    form = form_of_the_call(scene.sim, callee)
    assert form["TimeLimit"] == "30"
    stream = scene.stack.public_url.replace("http://", "ws://") + "/twilio/stream"
    assert re.fullmatch(
        r'<\?xml version="1\.0" encoding="UTF-8"\?><Response><Connect>'
        rf'<Stream url="{re.escape(stream)}"><Parameter name="nonce" value="[0-9a-f]{{32}}"/>'
        r'</Stream></Connect><Redirect method="POST">[^<]+</Redirect></Response>',
        form["Twiml"],
    ), form["Twiml"]
    numbers = [what for _, what in asked(scene.sim, callee)]
    assert "/IncomingPhoneNumbers/PN.json" not in numbers
    assert [
        w for w in scene.sim.number_writes() if w["number"] in (agent.phone_number, callee)
    ] == []
    assert scene.sim.call(call["sid"])["digits_heard"] == "5#"
    assert scene.sim.wait_for(call["sid"])["status"] == "completed"


@beside
async def test_a_leg_that_nobody_answers_is_hung_up_before_the_timeout_is_told(
    scene: Scene,
) -> None:
    callee = scene.callee("no-answer")
    async with scene.adapter(callee) as agent:
        with pytest.raises(asyncio.TimeoutError):
            await agent.place_call(callee, timeout=3, attach_stream="a-leg")
        call = scene.call(callee)
        assert call["status"] == "canceled"


@beside
async def test_originator_only_rings_and_returns_at_once(scene: Scene) -> None:
    callee = scene.callee("record,ring=3")
    async with scene.adapter() as agent:
        await agent.place_call(callee, attach_stream_to_self=False)
        call = scene.call(callee)
        assert call["status"] in ("queued", "ringing", "initiated")
        await asyncio.to_thread(scene.sim.wait_for, call["sid"], "in-progress")
        await agent.send_dtmf("1")
    assert form_of_the_call(scene.sim, callee)["Twiml"] == hold()
    assert asked(scene.sim, callee) == [("POST", "/Calls.json")]
    # Disconnected, nothing that we dialled goes on.
    assert scene.sim.wait_for(call["sid"])["status"] == "completed"


@beside
async def test_a_caller_who_is_not_allowed_hears_the_reject_and_is_counted(scene: Scene) -> None:
    friend, stranger = "+14155556004", "+14155556005"
    agent: TwilioAgentAdapter = scene.stack.adapter(
        scene.number(), allowed_callers=[friend], allowed_callees=["+14155556006"]
    )
    async with agent:
        waiting = await armed(agent, scene.sim)
        refused = scene.sim.place_call(stranger, agent.phone_number, "silence")
        assert scene.sim.wait_for(refused["sid"])["status"] == "no-answer"
        assert not waiting.done()
        scene.sim.place_call(friend, agent.phone_number, "silence")
        await waiting
        answers = [e for e in scene.sim.webhook_log() if e["form"].get("From") == stranger]
        assert [e["status"] for e in answers] == [200]
        line = agent._line
        assert line is not None
    assert (line.webhooks, line.webhooks_rejected) == (2, 1)
