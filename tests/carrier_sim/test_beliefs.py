"""The carrier where it contradicts a belief: one test for each, by its name.

Each asserts the contradicted form; the believed one is tested where it belongs. Most run on a clock
that the test turns. Those about the wire have real sockets.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.responses import Response
from twilio.base.exceptions import TwilioRestException
from twilio.request_validator import RequestValidator
from twilio.rest import Client

from trunkline.carrier_sim.bots import BotSpec, Busy, NoAnswer, Play, Silence
from trunkline.carrier_sim.call import Call
from trunkline.carrier_sim.far_ends import start_bot
from trunkline.carrier_sim.mulaw import SILENCE
from trunkline.carrier_sim.sim import CarrierSim

from .bench import CONNECT, Bench, Socket
from .server import CALLEE, CALLER, OURS, REJECT, Customer, Page, call_in, callbacks, refused

SOUND = bytes(range(160))
REDIRECT = CONNECT.format("<Redirect>/again</Redirect>")


def contradicting(name: str) -> Bench:
    return Bench(contradict=(name,))


def test_a_name_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="no belief pigs-fly"):
        CarrierSim(contradict=("pigs-fly",))


# Numbers


async def written(sim: CarrierSim, twilio: Client, **fields: str) -> Any:
    """The number as it is read right after a write."""
    number = twilio.incoming_phone_numbers(sim.numbers[OURS].sid)
    await asyncio.to_thread(lambda: number.update(**fields))
    return await asyncio.to_thread(number.fetch)


async def test_numbers_read_as_written(sim: CarrierSim, twilio: Client) -> None:
    sim.add_number(OURS, voice_url="https://old.example/")
    sim.exchange.beliefs.contradict(["numbers-read-as-written"])
    assert (await written(sim, twilio, voice_url="https://new.example/")).voice_url == (
        "https://old.example/"
    )
    (listed,) = await asyncio.to_thread(twilio.incoming_phone_numbers.list)
    assert listed.voice_url == "https://old.example/"
    shown = sim.rest._shown(sim.numbers[OURS], sim.now() + 4.0)
    assert shown["voice_url"] == "https://new.example/"


async def test_urls_are_kept_verbatim(sim: CarrierSim, twilio: Client) -> None:
    sim.add_number(OURS)
    sim.exchange.beliefs.contradict(["urls-are-kept-verbatim"])
    found = await written(sim, twilio, voice_url="https://new.example/v?a=1#rc=3")
    assert found.voice_url == "https://new.example/v?a=1"
    assert sim.numbers[OURS].voice_url == "https://new.example/v?a=1#rc=3"


async def test_urls_may_be_long(sim: CarrierSim, twilio: Client) -> None:
    sim.add_number(OURS)
    sim.exchange.beliefs.contradict(["urls-may-be-long"])
    url = "https://new.example/"
    fits = url + "x" * (1000 - len(url))
    assert (await written(sim, twilio, voice_url=fits)).voice_url == fits
    with pytest.raises(TwilioRestException) as caught:
        await written(sim, twilio, voice_url=fits + "x")
    assert caught.value.code == 21402


async def test_one_route_deletes_the_other(sim: CarrierSim, twilio: Client) -> None:
    sim.add_number(OURS, trunk_sid="TK" + "1" * 32)
    sim.exchange.beliefs.contradict(["one-route-deletes-the-other"])
    found = await written(sim, twilio, voice_application_sid="AP" + "1" * 32)
    assert (found.voice_application_sid, found.trunk_sid) == ("AP" + "1" * 32, "TK" + "1" * 32)


async def test_voice_url_counts_at_once(
    sim: CarrierSim, customer: Customer, twilio: Client
) -> None:
    sim.exchange.beliefs.contradict(["voice-url-counts-at-once"])
    sim.add_number(OURS, voice_url=customer.base + "/old")
    customer.pages["/old"] = customer.pages["/new"] = REJECT
    await written(sim, twilio, voice_url=customer.base + "/new")
    await sim.wait_for(await sim.place_inbound_call(CALLER, OURS, "silence"))
    assert [path for path, _, _ in customer.posts] == ["/old"]
    later = sim.exchange.number_for_calls(sim.numbers[OURS], sim.now() + 5.0)
    assert later.voice_url == customer.base + "/new"


def test_routed_numbers_ignore_voice_url() -> None:
    bench = contradicting("routed-numbers-ignore-voice-url")
    bench.x.numbers[OURS].trunk_sid = "TK" + "1" * 32
    bench.inbound()
    assert bench.fetches[0][1].url == "https://h/1234"


# Webhooks


async def posted(sim: CarrierSim, customer: Customer, query: str = "", page: Page = REJECT) -> Call:
    """A call whose voice_url has this query and fragment, to its end."""
    call = await call_in(sim, customer, page, query=query)
    await sim.wait_for(call)
    return call


async def test_webhooks_are_signed(sim: CarrierSim, customer: Customer) -> None:
    sim.exchange.beliefs.contradict(["webhooks-are-signed"])
    await posted(sim, customer)
    assert "x-twilio-signature" not in customer.posts[0][2]


async def test_query_is_kept(sim: CarrierSim, customer: Customer) -> None:
    sim.exchange.beliefs.contradict(["query-is-kept"])
    seen: list[str] = []
    customer.saw_url = seen.append
    await posted(sim, customer, "?a=1#rc=1")
    assert seen == [customer.base + "/voice"]
    _, form, headers = customer.posts[0]
    assert RequestValidator(sim.auth_token).validate(seen[0], form, headers["x-twilio-signature"])


async def test_fragment_is_not_signed(customer: Customer) -> None:
    contradicted, given = ["fragment-is-not-signed"], {"signed-url": "given"}
    async with CarrierSim(contradict=contradicted, habits=given) as sim:
        await posted(sim, customer, "?a=1#rc=1")
    _, form, headers = customer.posts[0]
    validator = RequestValidator(sim.auth_token)
    url = customer.base + "/voice?a=1#rc=1"
    assert validator.compute_signature(url, form) == headers["x-twilio-signature"]


async def test_fragment_is_followed(sim: CarrierSim, customer: Customer) -> None:
    sim.exchange.beliefs.contradict(["fragment-is-followed"])
    call = await posted(sim, customer, "#rc=3&rp=all", lambda form: Response(status_code=503))
    assert call.status == "failed" and len(customer.posts) == 1


async def test_webhooks_may_take_15_s(sim: CarrierSim, customer: Customer) -> None:
    sim.exchange.beliefs.contradict(["webhooks-may-take-15-s"])
    began = sim.now()
    customer.delay = 30.0
    call = await posted(sim, customer)
    assert call.status == "failed" and sim.judge.codes() == [11205]
    assert 1.5 < sim.now() - began < 5.0


def test_fallback_is_asked() -> None:
    bench = contradicting("fallback-is-asked")
    bench.x.numbers[OURS].voice_fallback_url = "https://h/fallback"
    call = bench.inbound()
    bench.fail()
    assert not bench.fetches and call.record.end_reason == "application-error"


async def test_webhooks_name_their_call(sim: CarrierSim, customer: Customer) -> None:
    sim.exchange.beliefs.contradict(["webhooks-name-their-call"])
    await posted(sim, customer)
    _, form, headers = customer.posts[0]
    assert form["CallSid"].startswith("CA") and "CallStatus" not in form
    signature = headers["x-twilio-signature"]
    assert RequestValidator(sim.auth_token).validate(customer.base + "/voice", form, signature)


# Before the answer


async def test_rest_shows_new_calls(sim: CarrierSim, customer: Customer, twilio: Client) -> None:
    sim.exchange.beliefs.contradict(["rest-shows-new-calls"])
    call = await call_in(sim, customer)
    fetch = twilio.calls(call.sid).fetch
    assert await refused(fetch) == (404, 20404)
    call.record.created_at -= 3.0
    assert (await asyncio.to_thread(fetch)).status in ("ringing", "in-progress")


def answered_with(name: str, document: str) -> Call:
    bench = contradicting(name)
    call = bench.inbound()
    bench.answer(f"<Response>{document}</Response>")
    return call


def test_pause_keeps_ringing() -> None:
    call = answered_with("pause-keeps-ringing", "<Pause/><Redirect>/again</Redirect>")
    assert call.record.status == "in-progress"


def test_reject_is_busy() -> None:
    call = answered_with("reject-is-busy", '<Reject reason="busy"/>')
    assert [status for _, status in call.record.history] == ["ringing", "no-answer"]


def test_reject_does_not_answer() -> None:
    call = answered_with("reject-does-not-answer", '<Reject reason="busy"/>')
    assert [s for _, s in call.record.history] == ["ringing", "in-progress", "completed"]


# Calls that are placed


async def told(sim: CarrierSim, customer: Customer, twilio: Client, bot: BotSpec) -> list[str]:
    """The statuses of the callbacks of a call to such a callee."""
    return [form["CallStatus"] for form, _ in await callbacks(sim, customer, twilio, bot)]


async def test_callbacks_for_each_event(
    sim: CarrierSim, customer: Customer, twilio: Client
) -> None:
    sim.exchange.beliefs.contradict(["callbacks-for-each-event"])
    assert await told(sim, customer, twilio, Silence(hang_up_after=0.1)) == ["completed"]


async def test_callbacks_name_the_cause(
    sim: CarrierSim, customer: Customer, twilio: Client
) -> None:
    sim.exchange.beliefs.contradict(["callbacks-name-the-cause"])
    assert await told(sim, customer, twilio, Busy()) == ["initiated", "ringing", "completed"]


def test_completed_ends_ringing() -> None:
    bench = contradicting("completed-ends-ringing")
    bench.x.callees[CALLEE] = NoAnswer()
    call = bench.outbound(CALLEE)
    bench.run(0.1)
    bench.x.end_by_api(call, "completed", bench.now)
    assert call.record.status == "ringing"
    bench.x.end_by_api(call, "canceled", bench.now)
    assert call.record.status == "canceled"


def test_time_limit_ends_calls() -> None:
    bench = contradicting("time-limit-ends-calls")
    bench.x.callees[CALLEE] = Silence()
    call = bench.outbound(CALLEE, time_limit=1.0)
    bench.run(3.0)
    assert call.record.status == "in-progress"


async def test_new_calls_are_listed(sim: CarrierSim, twilio: Client) -> None:
    sim.add_number(OURS)
    sim.exchange.beliefs.contradict(["new-calls-are-listed"])
    call = await sim.place_inbound_call(CALLER, OURS, "silence")
    assert await asyncio.to_thread(twilio.calls.list) == []
    call.record.created_at -= 31.0
    assert [c.sid for c in await asyncio.to_thread(twilio.calls.list)] == [call.sid]


async def test_429_is_not_processed(sim: CarrierSim, twilio: Client) -> None:
    sim.add_number(OURS)
    sim.add_callee(CALLEE, NoAnswer())
    sim.exchange.beliefs.contradict(["429-is-not-processed"])
    sim.add_fault("rest", "status", status=429)
    create = {"to": CALLEE, "from_": OURS, "twiml": "<Response/>"}
    with pytest.raises(TwilioRestException) as caught:
        await asyncio.to_thread(lambda: twilio.calls.create(**create))
    assert caught.value.status == 429
    assert [call.record.to for call in sim.calls.values()] == [CALLEE]


async def detected(sim: CarrierSim, customer: Customer, twilio: Client) -> Any:
    """A call that asks who has answered, once the carrier knows it. It ends by itself later."""
    sim.add_number(OURS)
    sim.add_callee(CALLEE, "hand-over:music:0.2,hang_up_after=6")
    customer.pages["/status"] = ""
    call = await asyncio.to_thread(
        lambda: twilio.calls.create(
            to=CALLEE,
            from_=OURS,
            twiml='<Response><Pause length="9"/></Response>',
            machine_detection="Enable",
            machine_detection_speech_end_threshold=500,  # the least
            async_amd="true",
            async_amd_status_callback=customer.base + "/status?d=7",
        )
    )
    found = sim.calls[str(call.sid)]
    await sim.wait_until(lambda: bool(found.record.answered_by))
    await sim.wait_until(lambda: not sim._tasks)
    return await asyncio.to_thread(twilio.calls(found.sid).fetch)


async def test_async_amd_calls_back(sim: CarrierSim, customer: Customer, twilio: Client) -> None:
    sim.exchange.beliefs.contradict(["async-amd-calls-back"])
    assert (await detected(sim, customer, twilio)).answered_by == "human"
    assert customer.posts == []


async def test_async_amd_names_the_call(
    sim: CarrierSim, customer: Customer, twilio: Client
) -> None:
    sim.exchange.beliefs.contradict(["async-amd-names-the-call"])
    await detected(sim, customer, twilio)
    ((path, form, _),) = customer.posts
    assert path == "/status"
    assert sorted(form) == ["AccountSid", "AnsweredBy", "MachineDetectionDuration"]


# Media Streams


async def test_upgrades_are_signed(sim: CarrierSim, customer: Customer) -> None:
    sim.exchange.beliefs.contradict(["upgrades-are-signed"])
    bot = Play(audio=SOUND, hang_up_after=0.1)
    await sim.wait_for(await call_in(sim, customer, bot=bot))
    assert "x-twilio-signature" not in customer.upgrades[0]


def test_parameters_arrive() -> None:
    assert Socket("parameters-arrive").events("start")[0]["customParameters"] == {}


def test_frames_of_20_ms() -> None:
    socket = Socket("frames-of-20-ms")
    for n in range(5):
        socket.stream.inbound(SOUND, 10.0 + n / 50)
    shown = [(m["timestamp"], m["chunk"], len(m["payload"])) for m in socket.events("media")]
    assert shown == [("0", "1", 428), ("40", "2", 428)]  # 320 bytes, in base64


def test_silence_is_sent() -> None:
    socket = Socket("silence-is-sent")
    for frame in (SOUND, SILENCE, bytes(SILENCE), SOUND):
        socket.stream.inbound(frame, 10.0)
    assert [m["timestamp"] for m in socket.events("media")] == ["0", "60"]


def test_timestamps_from_stream_start() -> None:
    socket = Socket("timestamps-from-stream-start")
    for _ in range(2):
        socket.stream.inbound(SOUND, 10.0)
    assert [m["timestamp"] for m in socket.events("media")] == ["3000", "3020"]


def test_digits_arrive() -> None:
    socket = Socket("digits-arrive")
    socket.stream.key("5", 10.0)
    assert socket.events("dtmf") == []


def test_marks_wait_for_playback() -> None:
    socket = Socket("marks-wait-for-playback")
    socket.hear(SOUND * 50)
    socket.mark("end")
    assert socket.marks == ["end"]


def test_clear_empties_buffer() -> None:
    socket = Socket("clear-empties-buffer")
    socket.hear(SOUND * 2)
    socket.mark("end")
    socket.say("clear")
    assert socket.marks == ["end"]
    assert [socket.stream.take(10.0 + n / 50) for n in range(3)] == [SOUND, SOUND, SILENCE]
    assert socket.marks == ["end"]


def test_clear_returns_marks() -> None:
    socket = Socket("clear-returns-marks")
    socket.hear(SOUND * 2)
    socket.mark("end")
    socket.say("clear")
    assert [socket.stream.take(10.0 + n / 50) for n in range(3)] == [SILENCE] * 3
    assert socket.marks == []


def test_playback_starts_at_once() -> None:
    socket = Socket("playback-starts-at-once")
    socket.hear(SOUND * 1)
    heard = [socket.stream.take(10.0 + n / 50) for n in range(22)]
    assert heard.index(SOUND) == 20 and heard[21] == SILENCE
    socket.hear(SOUND * 1, 11.0)
    assert [socket.stream.take(11.0), socket.stream.take(11.4)] == [SILENCE, SOUND]


def test_ten_minutes_are_buffered() -> None:
    socket = Socket("ten-minutes-are-buffered")
    socket.hear(SOUND * 3000)
    socket.say("media", media={"payload": "AAAA"})
    assert [error.code for error in socket.judge.errors] == [31931]


@pytest.mark.parametrize(
    ("name", "ended_by"),
    [
        ("next-verb-after-close", "close"),
        ("next-verb-after-break", "broken"),
        ("next-verb-after-refusal", "error 31920"),
    ],
)
def test_next_verb(name: str, ended_by: str) -> None:
    bench = contradicting(name)
    others = {"close", "broken", "error 31920"} - {ended_by}
    for how in sorted(others):
        call = streaming(bench)
        bench.over(call, how)
        assert bench.fetches.pop()[1].url == "https://h/again"
    call = streaming(bench)
    bench.over(call, ended_by)
    assert not bench.fetches and call.record.status == "completed"
    assert call.record.end_reason == f"stream-{name.removeprefix('next-verb-after-')}"


def streaming(bench: Bench) -> Call:
    call = bench.inbound(start_bot(Silence()))
    bench.answer(REDIRECT)
    bench.run(0.1)
    return call


def test_stop_before_close() -> None:
    socket = Socket("stop-before-close")
    socket.stream.stop(10.0)
    assert socket.events("stop") == [] and socket.stream.ended_by == "stop"
