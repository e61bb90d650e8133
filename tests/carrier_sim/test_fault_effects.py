"""The effect of each fault rule on the wire."""

from __future__ import annotations

import asyncio

import pytest
import requests
from twilio.base.exceptions import TwilioRestException
from twilio.rest import Client

from trunkline.carrier_sim.sim import CarrierSim

from .server import CALLER, HANGUP, OURS, Customer, listen


@pytest.fixture(autouse=True)
def account(sim: CarrierSim, customer: Customer) -> None:
    sim.add_number(OURS, voice_url=customer.base + "/voice")
    customer.on_stream = listen
    customer.pages["/voice"] = customer.connect("<Redirect>/on</Redirect>")
    customer.pages["/on"] = HANGUP


def raw_write(sim: CarrierSim, timeout: float) -> requests.Response:
    path = (
        f"/2010-04-01/Accounts/{sim.account_sid}/IncomingPhoneNumbers/{sim.numbers[OURS].sid}.json"
    )
    with requests.Session() as session:
        session.trust_env = False  # no proxy of the environment
        return session.post(
            sim.base_url + path,
            data={"FriendlyName": "changed"},
            auth=(sim.account_sid, sim.auth_token),
            timeout=timeout,
        )


async def test_rest_429_with_retry_after(sim: CarrierSim) -> None:
    sim.add_fault("rest", "status", retry_after=2.0, count=1)
    answer = await asyncio.to_thread(raw_write, sim, 5.0)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "2")
    assert answer.json()["code"] == 20429
    assert sim.number_writes == []
    assert (await asyncio.to_thread(raw_write, sim, 5.0)).status_code == 200


async def test_rest_503(sim: CarrierSim, twilio: Client) -> None:
    sim.add_fault("rest", "status", status=503, method="GET")
    with pytest.raises(TwilioRestException) as caught:
        await asyncio.to_thread(twilio.incoming_phone_numbers(sim.numbers[OURS].sid).fetch)
    assert caught.value.status == 503


async def test_rest_latency(sim: CarrierSim) -> None:
    sim.add_fault("rest", "latency", seconds=0.1)
    start = sim.now()
    assert (await asyncio.to_thread(raw_write, sim, 5.0)).status_code == 200
    assert sim.now() - start >= 0.1


@pytest.mark.parametrize(
    ("kind", "done", "seen"),
    [
        ("timeout_before", False, requests.ReadTimeout),
        ("timeout_after", True, requests.ReadTimeout),
        ("reset", False, requests.ConnectionError),
        ("reset_after", True, requests.ConnectionError),
    ],
)
async def test_rest_is_silent_or_resets(
    sim: CarrierSim, kind: str, done: bool, seen: type[Exception]
) -> None:
    sim.add_fault("rest", kind)
    with pytest.raises(seen):
        await asyncio.to_thread(raw_write, sim, 0.2)
    assert bool(sim.number_writes) is done


async def test_rest_late_effect(sim: CarrierSim) -> None:
    sim.add_fault("rest", "late_effect", seconds=0.3)
    with pytest.raises(requests.ReadTimeout):
        await asyncio.to_thread(raw_write, sim, 0.1)
    assert sim.number_writes == []
    await sim.wait_until(lambda: bool(sim.number_writes))


async def test_connection_refused_and_back(sim: CarrierSim) -> None:
    await sim.refuse_connections()
    with pytest.raises(requests.ConnectionError):
        await asyncio.to_thread(raw_write, sim, 5.0)
    await sim.accept_connections()
    assert (await asyncio.to_thread(raw_write, sim, 5.0)).status_code == 200


async def test_webhook_dropped(sim: CarrierSim, customer: Customer) -> None:
    sim.add_fault("webhook", "drop", path="/voice$")
    call = await sim.place_inbound_call(CALLER, OURS, "silence")
    assert await sim.wait_for(call) == "failed"
    assert sim.judge.codes() == [11205] and customer.posts == []


async def test_webhook_delayed(sim: CarrierSim, customer: Customer) -> None:
    sim.add_fault("webhook", "delay", seconds=0.1)
    call = await sim.place_inbound_call(CALLER, OURS, "silence")
    start = sim.now()
    await sim.wait_for(call, "in-progress")
    assert sim.now() - start >= 0.1


async def test_webhook_duplicated(sim: CarrierSim, customer: Customer) -> None:
    sim.add_fault("webhook", "duplicate", path="/voice$")
    call = await sim.place_inbound_call(CALLER, OURS, "silence")
    await sim.wait_for_stream(call)
    assert len(customer.posts) == 2 and customer.posts[0][1] == customer.posts[1][1]
    assert len(call.streams) == 1


async def test_stream_refused(sim: CarrierSim) -> None:
    sim.add_fault("stream", "refuse", path="/stream", count=1)
    call = await sim.place_inbound_call(CALLER, OURS, "silence")
    await sim.wait_for(call)
    assert sim.judge.codes() == [31902] and call.record.end_reason == "hangup-verb"


async def test_stream_dropped_by_rule_and_by_hand(sim: CarrierSim) -> None:
    sim.add_fault("stream", "drop_socket", seconds=0.1)
    call = await sim.place_inbound_call(CALLER, OURS, "silence")
    await sim.wait_for(call)
    assert sim.judge.codes() == [31903] and call.streams[0].ended_by == "broken"
    sim.faults.clear()
    call = await sim.place_inbound_call(CALLER, OURS, "silence")
    sim.drop_stream(await sim.wait_for_stream(call))
    await sim.wait_for(call)
    assert sim.judge.codes(call.sid) == [31903]


async def test_a_rule_for_one_call_leaves_the_others_alone(sim: CarrierSim) -> None:
    first = await sim.place_inbound_call(CALLER, OURS, "silence")
    other = await sim.place_inbound_call(CALLER, OURS, "silence")
    await asyncio.gather(sim.wait_for_stream(first), sim.wait_for_stream(other))
    sim.add_fault("stream", "drop_socket", path=f"#{first.sid}$")
    await sim.wait_for(first)
    assert (sim.judge.codes(first.sid), sim.judge.codes(other.sid)) == ([31903], [])


async def test_a_rule_reaches_streams_that_are_live(sim: CarrierSim) -> None:
    call = await sim.place_inbound_call(CALLER, OURS, "silence")
    await sim.wait_for_stream(call)
    sim.add_fault("stream", "drop_socket")
    await sim.wait_for(call)
    assert sim.judge.codes() == [31903]


def numbers(customer: Customer) -> list[int]:
    return [int(m["media"]["chunk"]) for m in customer.events("media")]


async def test_stream_stalled_then_a_burst(sim: CarrierSim, customer: Customer) -> None:
    call = await sim.place_inbound_call(CALLER, OURS, "silence")
    stream = await sim.wait_for_stream(call)
    await sim.wait_until(lambda: len(numbers(customer)) >= 3)
    sim.stall_stream(stream, 0.3)
    stalled_at = sim.now()
    before = len(numbers(customer))
    await sim.wait_until(lambda: len(numbers(customer)) >= before + 12)
    # All that was held back came at once when the stall was over, in order.
    assert sim.now() - stalled_at >= 0.3
    assert numbers(customer) == list(range(1, len(numbers(customer)) + 1))


async def test_stream_stall_by_rule(sim: CarrierSim, customer: Customer) -> None:
    sim.add_fault("stream", "stall", seconds=0.1, duration=0.2)
    call = await sim.place_inbound_call(CALLER, OURS, "silence")
    await sim.wait_for_stream(call)
    await sim.wait_until(lambda: len(numbers(customer)) >= 20)
    assert numbers(customer)[:20] == list(range(1, 21))


async def test_stream_jitter_keeps_the_order(sim: CarrierSim, customer: Customer) -> None:
    sim.add_fault("stream", "jitter", duration=0.08, seed=3)
    await sim.place_inbound_call(CALLER, OURS, "silence")
    await sim.wait_until(lambda: len(numbers(customer)) >= 20)
    assert numbers(customer) == list(range(1, len(numbers(customer)) + 1))


async def test_stream_frames_lost(sim: CarrierSim, customer: Customer) -> None:
    sim.add_fault("stream", "drop_frames", probability=0.5, seed=3)
    await sim.place_inbound_call(CALLER, OURS, "silence")
    await sim.wait_until(lambda: len(numbers(customer)) >= 10)
    got = numbers(customer)
    assert got == sorted(set(got)) and got[-1] > len(got)


async def test_status_callback_dropped(sim: CarrierSim, customer: Customer) -> None:
    sim.numbers[OURS].status_callback = customer.base + "/status"
    sim.add_fault("status", "drop")
    call = await sim.place_inbound_call(CALLER, OURS, "silence")
    await sim.wait_for_stream(call)
    sim.hang_up(call)
    await sim.wait_until(lambda: bool(sim.errors))
    assert sim.judge.codes(call.sid) == [11205]


async def test_the_webhook_timeout(customer: Customer) -> None:
    held = asyncio.Event()

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await held.wait()
        writer.transport.abort()

    server = await asyncio.start_server(never, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with CarrierSim(webhook_timeout=0.1) as sim:
        sim.add_number(OURS, voice_url=f"http://127.0.0.1:{port}/")
        call = await sim.place_inbound_call(CALLER, OURS, "silence")
        assert await sim.wait_for(call) == "failed"
        assert sim.judge.codes() == [11205]
    held.set()
    server.close()
    await server.wait_closed()
