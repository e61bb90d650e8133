"""Whole calls over real sockets: a server in this loop that answers webhooks and the stream."""

from __future__ import annotations

import json

from starlette.responses import Response
from starlette.websockets import WebSocket
from twilio.request_validator import RequestValidator

from trunkline.carrier_sim.bots import Busy, Play, Silence
from trunkline.carrier_sim.call import Call
from trunkline.carrier_sim.sim import CarrierSim

from .server import CALLEE, CALLER, OURS, XML, Customer, listen, media

SOUND = bytes(range(1, 161)) * 10


async def call_us(sim: CarrierSim, customer: Customer, after: str = "", **bot: object) -> Call:
    sim.add_number(OURS, voice_url=customer.base + "/voice")
    customer.pages.setdefault("/voice", customer.connect(after))
    return await sim.place_inbound_call(CALLER, OURS, {"kind": "silence", **bot})


async def test_an_echo_over_the_wire(sim: CarrierSim, customer: Customer) -> None:
    sim.add_number(OURS, voice_url=customer.base + "/voice")
    customer.pages["/voice"] = customer.connect()
    bot = Play(audio=SOUND, after=0.1, hang_up_after=0.6)
    call = await sim.place_inbound_call(CALLER, OURS, bot)
    assert await sim.wait_for(call) == "completed"
    assert call.record.end_reason == "far-end"
    assert SOUND in bytes(call.said) and SOUND in bytes(call.played)
    assert sim.errors == []
    (stream,) = call.streams
    assert stream.ended_by == "stop"
    await sim.wait_until(lambda: bool(customer.events("stop")))
    frames = customer.events("media")
    assert [m["media"]["chunk"] for m in frames] == [str(n + 1) for n in range(len(frames))]
    assert [m["media"]["timestamp"] for m in frames] == [str(20 * n) for n in range(len(frames))]
    numbers = [m["sequenceNumber"] for m in customer.messages if "sequenceNumber" in m]
    assert numbers == [str(n + 1) for n in range(len(numbers))]
    assert stream.metrics(sim.now()).frames_in == len(frames)


async def test_the_webhook_is_signed_with_blank_fields(sim: CarrierSim, customer: Customer) -> None:
    url = customer.base + "/voice?mark=a%20b&x=1"
    sim.add_number(OURS, voice_url=url + "#rc=2&rp=all")
    customer.pages["/voice"] = "<Response><Reject/></Response>"
    call = await sim.place_inbound_call(CALLER, OURS, "silence")
    await sim.wait_for(call, "no-answer")
    _, form, headers = customer.posts[0]
    assert form["FromCity"] == "" and form["CallStatus"] == "ringing"
    assert (form["From"], form["To"], form["Direction"]) == (CALLER, OURS, "inbound")
    validator = RequestValidator(sim.auth_token)
    assert validator.validate(url, form, headers["x-twilio-signature"])
    del form["FromCity"]
    assert not validator.validate(url, form, headers["x-twilio-signature"])


async def test_a_get_webhook_is_signed_over_its_query(sim: CarrierSim, customer: Customer) -> None:
    seen: list[str] = []

    def page(form: dict[str, str]) -> Response:
        seen.append(form["CallSid"])
        return Response("<Response><Reject/></Response>", media_type="text/xml")

    customer.pages["/voice"] = page
    sim.add_number(OURS, voice_url=customer.base + "/voice", voice_method="GET")
    call = await sim.place_inbound_call(CALLER, OURS, "silence")
    await sim.wait_for(call, "no-answer")
    assert seen == [call.sid]


async def test_the_upgrade_is_signed(sim: CarrierSim, customer: Customer) -> None:
    call = await call_us(sim, customer)
    await sim.wait_for_stream(call)
    signature = customer.upgrades[0]["x-twilio-signature"]
    assert RequestValidator(sim.auth_token).validate(customer.stream_url, {}, signature)


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
    customer.pages["/voice"] = customer.connect(
        parameters='<Parameter name="nonce" value="&lt;1&gt;"/>'
    )
    call = await call_us(sim, customer, dtmf=[[0.1, "5"]], hang_up_after=0.5)
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
    customer.pages["/after"] = f"{XML}<Response><Hangup/></Response>"
    call = await call_us(sim, customer, "<Redirect>/after</Redirect>")
    await sim.wait_for(call, "completed")
    assert [path for path, _, _ in customer.posts] == ["/voice", "/after"]
    assert customer.posts[1][1]["CallStatus"] == "in-progress"
    assert call.streams[0].ended_by == "close"
    # Twilio logs 31921 for this too, but nothing is wrong.
    assert sim.errors == [] and [n.code for n in sim.judge.notices] == [31921]


async def test_status_callbacks_of_an_outbound_call(
    sim: CarrierSim, customer: Customer, twilio: object
) -> None:
    import asyncio

    sim.add_number(OURS)
    sim.add_callee(CALLEE, Silence(hang_up_after=0.1))
    sim.add_callee("+14155558888", Busy())
    customer.pages["/status"] = ""
    seen: dict[str, list[tuple[str, str]]] = {}
    for to in (CALLEE, "+14155558888"):
        call = await asyncio.to_thread(
            twilio.calls.create,  # type: ignore[attr-defined]  # a twilio Client
            to=to,
            from_=OURS,
            twiml="<Response><Pause length='9'/></Response>",
            status_callback=customer.base + "/status",
            status_callback_event=["initiated", "ringing", "answered", "completed"],
        )
        before = len(customer.posts)
        await sim.wait_for(sim.calls[call.sid])
        wanted = 4 if to == CALLEE else 3
        await sim.wait_until(lambda at=before, n=wanted: len(customer.posts) >= at + n)  # type: ignore[misc]  # bound defaults
        forms = [form for _, form, _ in customer.posts if form["CallSid"] == call.sid]
        seen[to] = [(form["SequenceNumber"], form["CallStatus"]) for form in forms]
    assert seen[CALLEE] == [
        ("0", "initiated"),
        ("1", "ringing"),
        ("2", "in-progress"),
        ("3", "completed"),
    ]
    assert seen["+14155558888"][-1] == ("2", "busy")
    last = customer.posts[-1]
    assert last[1]["SipResponseCode"] == "486" and last[1]["CallDuration"] == "0"
    signature = last[2]["x-twilio-signature"]
    assert RequestValidator(sim.auth_token).validate(customer.base + "/status", last[1], signature)


async def test_a_number_without_a_server_falls_back(sim: CarrierSim, customer: Customer) -> None:
    customer.pages["/old"] = "<Response><Reject reason='busy'/></Response>"
    sim.add_number(
        OURS, voice_url=customer.base + "/gone", voice_fallback_url=customer.base + "/old"
    )
    call = await sim.place_inbound_call(CALLER, OURS, "silence")
    assert await sim.wait_for(call) == "busy"
    assert sim.judge.codes() == [11200]
    assert customer.posts[1][1]["ErrorCode"] == "11200"


async def test_retries_of_the_fragment(sim: CarrierSim, customer: Customer) -> None:
    tries: list[str] = []

    def page(form: dict[str, str]) -> Response:
        tries.append(customer.posts[-1][2]["i-twilio-idempotency-token"])
        if len(tries) < 3:
            return Response("later", status_code=503)
        return Response("<Response><Reject/></Response>", media_type="text/xml")

    customer.pages["/voice"] = page
    sim.add_number(OURS, voice_url=customer.base + "/voice#rc=3&rp=5xx")
    call = await sim.place_inbound_call(CALLER, OURS, "silence")
    assert await sim.wait_for(call) == "no-answer"
    assert len(tries) == 3 and len(set(tries)) == 1 and sim.errors == []
