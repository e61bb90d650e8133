"""Whole calls over real sockets: a server in this loop that answers webhooks and the stream."""

from __future__ import annotations

import itertools
import json

import pytest
from starlette.responses import Response
from starlette.websockets import WebSocket
from twilio.request_validator import RequestValidator
from twilio.rest import Client

from trunkline.carrier_sim.bots import BotSpec, Busy, Play, Silence
from trunkline.carrier_sim.habits import HABITS, Habits
from trunkline.carrier_sim.sim import CarrierSim

from .server import (
    CALLER,
    HANGUP,
    OURS,
    REJECT,
    Customer,
    call_in,
    callbacks,
    listen,
    media,
    twilio_client,
)

SOUND = bytes(range(1, 161)) * 10


async def test_an_echo_over_the_wire(sim: CarrierSim, customer: Customer) -> None:
    bot = Play(audio=SOUND, after=0.1, hang_up_after=0.6)
    call = await call_in(sim, customer, bot=bot)
    assert await sim.wait_for(call) == "completed"
    assert call.record.end_reason == "far-end"
    assert SOUND in bytes(call.said)
    # The echo is whole and in order. A busy machine may leave holes in it, which are 0xFF.
    assert SOUND in bytes(call.played).replace(b"\xff", b"")
    assert sim.errors == []
    (stream,) = call.streams
    assert stream.ended_by == "stop"
    await sim.wait_until(lambda: bool(customer.events("stop")))
    frames = customer.events("media")
    assert [m["media"]["chunk"] for m in frames] == [str(n + 1) for n in range(len(frames))]
    first = int(frames[0]["media"]["timestamp"])
    assert str(first) in HABITS["first-timestamp"]
    off = [int(m["media"]["timestamp"]) - first - 20 * n for n, m in enumerate(frames)]
    assert -9 <= min(off) <= max(off) <= 9  # the habit ``timestamps``
    numbers = [m["sequenceNumber"] for m in customer.messages if "sequenceNumber" in m]
    assert numbers == [str(n + 1) for n in range(len(numbers))]
    assert stream.metrics(sim.now()).frames_in == len(frames)


async def test_the_webhook_is_signed_with_blank_fields(sim: CarrierSim, customer: Customer) -> None:
    call = await call_in(sim, customer, REJECT, query="?mark=a%20b&x=1#rc=2&rp=all")
    await sim.wait_for(call, "no-answer")
    url = customer.base + "/voice?mark=a%20b&x=1"
    _, form, headers = customer.posts[0]
    assert form["FromCity"] == "" and form["CallStatus"] == "ringing"
    assert form["CallToken"].startswith("%7B%22parentCallInfoToken%22%3A%22eyJ")
    assert (form["From"], form["To"], form["Direction"]) == (CALLER, OURS, "inbound")
    validator = RequestValidator(sim.auth_token)
    assert validator.validate(url, form, headers["x-twilio-signature"])
    del form["FromCity"]
    assert not validator.validate(url, form, headers["x-twilio-signature"])


async def test_a_get_webhook_is_signed_over_its_query(sim: CarrierSim, customer: Customer) -> None:
    seen: list[str] = []

    def page(form: dict[str, str]) -> Response:
        seen.append(form["CallSid"])
        return Response(REJECT, media_type="text/xml")

    call = await call_in(sim, customer, page, voice_method="GET")
    await sim.wait_for(call, "no-answer")
    assert seen == [call.sid]


async def test_the_upgrade_is_signed(sim: CarrierSim, customer: Customer) -> None:
    call = await call_in(sim, customer)
    await sim.wait_for_stream(call)
    signature = customer.upgrades[0]["x-twilio-signature"]
    check = RequestValidator(sim.auth_token).validate
    assert any(check(customer.stream_url + end, {}, signature) for end in ("", "/"))


async def test_parameters_keys_and_marks(sim: CarrierSim, customer: Customer) -> None:
    async def serve(customer: Customer, socket: WebSocket) -> None:
        await customer.receive(socket)
        start = await customer.receive(socket)
        sid = start["streamSid"]
        await socket.send_text(media(sid, "/" * 428))
        for name in ("one", "two"):
            mark = {"event": "mark", "streamSid": sid, "mark": {"name": name}}
            await socket.send_text(json.dumps(mark))
            await socket.send_text(media(sid, "/" * 4 * 8000))
        await socket.send_text(json.dumps({"event": "clear", "streamSid": sid}))
        await listen(customer, socket)

    customer.on_stream = serve
    page = customer.connect(parameters='<Parameter name="nonce" value="&lt;1&gt;"/>')
    bot = Silence(dtmf=((0.1, "5"),), hang_up_after=0.5)
    call = await call_in(sim, customer, page, bot=bot)
    await sim.wait_for(call, "completed")
    await sim.wait_until(lambda: bool(customer.events("stop")))
    assert customer.events("start")[0]["start"]["customParameters"] == {"nonce": "<1>"}
    assert [m["mark"]["name"] for m in customer.events("mark")] == ["one", "two"]
    assert [m["dtmf"]["digit"] for m in customer.events("dtmf")] == ["5"]
    assert call.streams[0].playback.discarded > 0 and sim.errors == []


async def test_closing_the_stream_goes_on_to_redirect(sim: CarrierSim, customer: Customer) -> None:
    async def hang_up(customer: Customer, socket: WebSocket) -> None:
        await customer.receive(socket)
        await socket.close(1000)

    customer.on_stream = hang_up
    customer.pages["/after"] = HANGUP
    call = await call_in(sim, customer, customer.connect("<Redirect>/after</Redirect>"))
    await sim.wait_for(call, "completed")
    assert [path for path, _, _ in customer.posts] == ["/voice", "/after"]
    assert customer.posts[1][1]["CallStatus"] == "in-progress"
    assert call.streams[0].ended_by == "close"
    # Twilio logs 31921 for this too, but nothing is wrong.
    assert sim.errors == [] and [n.code for n in sim.judge.notices] == [31921]


@pytest.mark.parametrize(
    ("bot", "statuses", "sip"),
    [
        (Silence(hang_up_after=0.1), ["initiated", "ringing", "in-progress", "completed"], "200"),
        (Busy(), ["initiated", "ringing", "busy"], "486"),
    ],
)
async def test_status_callbacks_of_an_outbound_call(
    sim: CarrierSim,
    customer: Customer,
    twilio: Client,
    bot: BotSpec,
    statuses: list[str],
    sip: str,
) -> None:
    found = await callbacks(sim, customer, twilio, bot)
    forms = [form for form, _ in found]
    assert [form["CallStatus"] for form in forms] == statuses
    assert [form["SequenceNumber"] for form in forms] == [str(n) for n in range(len(forms))]
    last, signature = found[-1]
    assert (last["SipResponseCode"], last["CallDuration"]) == (sip, "0")
    validator = RequestValidator(sim.auth_token)
    assert validator.validate(customer.base + "/status", last, signature)


async def test_a_status_callback_may_be_overtaken(customer: Customer) -> None:
    """The habit ``callback-order``, by a seed whose first callback comes late."""
    wanted = ["overtaken", "kept", "kept", "kept"]
    seed = next(n for n in itertools.count(1) if draws(Habits(n), "callback-order") == wanted)
    async with CarrierSim(seed=seed) as sim:
        with twilio_client(sim, sim.auth_token) as twilio:
            await callbacks(sim, customer, twilio, Silence(hang_up_after=0.1))
    arrived = [form["SequenceNumber"] for _, form, _ in customer.posts]
    assert sorted(arrived) == ["0", "1", "2", "3"] and arrived[0] == "1"


def draws(habits: Habits, name: str) -> list[str]:
    return [habits.draw(name) for _ in range(4)]


async def test_a_number_without_a_server_falls_back(sim: CarrierSim, customer: Customer) -> None:
    customer.pages["/old"] = "<Response><Reject reason='busy'/></Response>"
    old = customer.base + "/old"
    call = await call_in(sim, customer, query="/gone", voice_fallback_url=old)
    assert await sim.wait_for(call) == "busy"
    assert sim.judge.codes() == [11200]
    assert customer.posts[1][1]["ErrorCode"] == "11200"


async def test_retries_of_the_fragment(sim: CarrierSim, customer: Customer) -> None:
    tries: list[str] = []

    def page(form: dict[str, str]) -> Response:
        tries.append(customer.posts[-1][2]["i-twilio-idempotency-token"])
        if len(tries) < 3:
            return Response("later", status_code=503)
        return Response(REJECT, media_type="text/xml")

    call = await call_in(sim, customer, page, query="#rc=3&rp=5xx")
    assert await sim.wait_for(call) == "no-answer"
    assert len(tries) == 3 and len(set(tries)) == 1 and sim.errors == []


@pytest.mark.parametrize("count", [0, 2, 7])
async def test_the_log_names_the_callees_where_nobody_has_a_number(
    sim: CarrierSim, caplog: pytest.LogCaptureFixture, count: int
) -> None:
    for n in range(count):
        sim.add_callee(f"+1415555777{n}", "echo")
    sim.nobody_has("+14155550199")
    await sim.wait_until(lambda: bool(caplog.messages))
    there = {
        0: "there are none",
        2: "there are +14155557770, +14155557771",
        7: "there are +14155557770, +14155557771, +14155557772, +14155557773, +14155557774, "
        "+14155557775, …",
    }
    told = f"a call to '+14155550199' fails: no callee has that number; {there[count]}"
    assert caplog.messages == [told]
