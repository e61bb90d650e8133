"""The real ``twilio`` package against a carrier that fails: what each failure says it did."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator

import pytest

from trunkline.carrier_sim.faults import Fault
from trunkline.carrier_sim.sim import CarrierSim
from trunkline.controller.carrier import CallOrder, RestFailure, TwilioCarrier, backoff

OURS = "+14155551234"
THEIRS = "+14155557777"


@pytest.fixture
async def sim() -> AsyncIterator[CarrierSim]:
    async with CarrierSim() as sim:
        sim.add_number(OURS, voice_url="https://example.com/voice")
        yield sim


@pytest.fixture
async def carrier(sim: CarrierSim) -> AsyncIterator[TwilioCarrier]:
    carrier = TwilioCarrier(sim.account_sid, sim.auth_token, sim.base_url, timeout=1.0)
    yield carrier
    carrier.close()


async def test_numbers(carrier: TwilioCarrier) -> None:
    found = await carrier.find_number(OURS)
    assert found is not None and found.voice_url == "https://example.com/voice"
    assert found.routed_to == "" and found.fields["voice_application_sid"] == ""
    assert await carrier.find_number(THEIRS) is None
    assert await carrier.list_numbers() == [found]
    written = await carrier.write_number(found.sid, {"voice_url": "", "voice_method": "GET"})
    assert written.fields["voice_url"] == "" and written.fields["voice_method"] == "GET"
    assert await carrier.read_number(found.sid) == written


async def test_calls(sim: CarrierSim, carrier: TwilioCarrier) -> None:
    order = CallOrder(THEIRS, OURS, "<Response><Pause/></Response>", 60, 20, "http://127.0.0.1:9/s")
    call = await carrier.create_call(order)
    assert (call.to, call.from_, call.direction) == (THEIRS, OURS, "outbound-api")
    found = await carrier.list_calls(THEIRS, OURS, time.time())
    assert [c.sid for c in found] == [call.sid]
    assert (await carrier.fetch_call(call.sid)).sid == call.sid
    await carrier.end_call(call.sid)
    await carrier.end_call(call.sid)  # over already: no error
    await carrier.end_call("CA" + "0" * 32)
    assert (await carrier.fetch_call(call.sid)).ended


async def test_a_call_that_rings_on_after_completed_is_canceled(
    sim: CarrierSim, carrier: TwilioCarrier
) -> None:
    sim.exchange.beliefs.contradict(["completed-ends-ringing"])
    sim.add_callee(THEIRS, "no-answer")
    order = CallOrder(THEIRS, OURS, "<Response><Pause/></Response>", 60, 20, "http://127.0.0.1:9/s")
    sid = (await carrier.create_call(order)).sid
    await sim.calls[sid].wait_for("ringing")
    await carrier.end_call(sid)
    assert (await carrier.fetch_call(sid)).status == "canceled"


async def test_call_that_twilio_refuses(carrier: TwilioCarrier) -> None:
    order = CallOrder("+1", OURS, "<Response/>", 60, 20, "http://127.0.0.1:9/s")
    with pytest.raises(RestFailure) as caught:
        await carrier.create_call(order)
    failure = caught.value
    assert (failure.status, failure.code) == (400, 21211)
    assert not failure.uncertain and not failure.repeatable
    error = failure.error("call ***0001")
    assert (error.status, error.code) == (400, 21211) and "Unable to" not in str(error)


@pytest.mark.parametrize(
    ("fault", "uncertain", "status"),
    [
        (Fault(where="rest", kind="status", status=429, retry_after=7.0), False, 429),
        (Fault(where="rest", kind="status", status=503), True, 503),
        (Fault(where="rest", kind="timeout_before", seconds=2.0), True, 0),
        (Fault(where="rest", kind="timeout_after", seconds=2.0), True, 0),
        (Fault(where="rest", kind="reset"), True, 0),
        (Fault(where="rest", kind="reset_after"), True, 0),
    ],
)
async def test_what_failures_mean(
    sim: CarrierSim, carrier: TwilioCarrier, fault: Fault, uncertain: bool, status: int
) -> None:
    found = await carrier.find_number(OURS)
    assert found is not None
    with sim.faults.during(fault), pytest.raises(RestFailure) as caught:
        await carrier.write_number(found.sid, {"voice_url": "https://b.example.com"})
    failure = caught.value
    assert (failure.uncertain, failure.status) == (uncertain, status)
    assert failure.repeatable
    assert failure.retry_after == (7.0 if status == 429 else None)


@pytest.mark.parametrize("status", [429, 503])
async def test_lists_fail_like_the_rest(
    sim: CarrierSim, carrier: TwilioCarrier, status: int
) -> None:
    """The package raises another exception for a page than for a record."""
    fault = Fault(where="rest", kind="status", status=status, retry_after=5.0)
    with sim.faults.during(fault), pytest.raises(RestFailure) as caught:
        await carrier.find_number(OURS)
    failure = caught.value
    assert (failure.status, failure.repeatable) == (status, True)
    assert failure.uncertain == (status == 503) and failure.retry_after == 5.0


async def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    carrier = TwilioCarrier("AC1", "token", f"http://127.0.0.1:{port}")
    with pytest.raises(RestFailure) as caught:
        await carrier.list_numbers()
    carrier.close()
    assert caught.value.repeatable and not caught.value.uncertain
    assert "no answer" in str(caught.value.error("list numbers"))


async def test_wrong_token(sim: CarrierSim) -> None:
    carrier = TwilioCarrier(sim.account_sid, "wrong", sim.base_url)
    with pytest.raises(RestFailure) as caught:
        await carrier.list_numbers()
    carrier.close()
    assert caught.value.refused_credentials and not caught.value.repeatable
    assert "wrong" not in str(caught.value.error("list numbers"))


def test_backoff_grows_and_keeps_to_retry_after() -> None:
    waits = [backoff(n) for n in range(1, 12)]
    assert waits == sorted(waits) and waits[0] < 0.5 and waits[-1] == 30.0
    asked = RestFailure("x", status=429, repeatable=True, retry_after=9.0)
    assert backoff(1, asked) == 9.0
    for_ever = RestFailure("x", status=429, repeatable=True, retry_after=1e9)
    assert backoff(1, for_ever) == 120.0
