"""The real ``twilio`` package against a carrier that fails: what each failure says it did."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from trunkline.carrier_sim.bots import Silence
from trunkline.carrier_sim.faults import Fault
from trunkline.carrier_sim.habits import HABITS
from trunkline.carrier_sim.sim import CarrierSim
from trunkline.controller.twilio.calls import CallOrder
from trunkline.controller.twilio.carrier import CallState, RestFailure, TwilioCarrier, backoff
from trunkline.controller.twilio.probe import Prober

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


@pytest.mark.parametrize("form", HABITS["unset-fields"])
async def test_fields_that_are_not_set_are_empty_however_rest_shows_them(form: str) -> None:
    async with CarrierSim(habits={"unset-fields": form}) as sim:
        sim.add_number(OURS)
        carrier = TwilioCarrier(sim.account_sid, sim.auth_token, sim.base_url, timeout=1.0)
        found = await carrier.find_number(OURS)
        carrier.close()
    assert found is not None and found.routed_to == ""
    names = ("voice_url", "voice_fallback_url", "voice_application_sid", "trunk_sid")
    assert [found.fields[name] for name in names] == [""] * 4


async def test_a_number_is_found_behind_longer_ones_that_contain_it() -> None:
    async with CarrierSim() as sim:
        for number in (OURS + "9", OURS + "8", OURS):
            sim.add_number(number)
        carrier = TwilioCarrier(sim.account_sid, sim.auth_token, sim.base_url, timeout=1.0)
        found = await carrier.find_number(OURS)
        carrier.close()
    assert found is not None and found.number == OURS


async def test_whoever_watches_hears_how_long_each_request_took(carrier: TwilioCarrier) -> None:
    seen: list[tuple[str, float, str | None]] = []
    carrier.watched_by(lambda *request: seen.append(request))
    await carrier.find_number(OURS)
    with pytest.raises(RestFailure):
        await carrier.fetch_call("CA" + "0" * 32)
    assert [(name, fault) for name, _, fault in seen] == [
        ("find_number", None),
        ("fetch_call", "refused"),
    ]
    assert all(0 < seconds < 1 for _, seconds, _ in seen)


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


async def test_a_call_that_waits_for_its_turn_is_listed_though_it_has_not_started(
    sim: CarrierSim, carrier: TwilioCarrier
) -> None:
    order = CallOrder(THEIRS, OURS, "<Response><Pause/></Response>", 60, 20, "")
    call = await carrier.create_call(order)
    await carrier.end_call(call.sid)  # so that nothing moves it any more
    record = sim.calls[call.sid].record
    record.status, record.started = "queued", None
    found = await carrier.list_calls(THEIRS, OURS, time.time())
    assert [(each.sid, each.status) for each in found] == [(call.sid, "queued")]


async def test_who_answers_is_found_out_in_the_background(
    sim: CarrierSim, carrier: TwilioCarrier
) -> None:
    document, callback = "<Response><Pause/></Response>", "http://127.0.0.1:9/s?d=7"
    order = CallOrder(THEIRS, OURS, document, 60, 20, callback, "DetectMessageEnd")
    call = await carrier.create_call(order)
    asked = sim.calls[call.sid].record.options.detection
    assert asked is not None
    assert (asked.mode, asked.is_async) == ("DetectMessageEnd", True)
    assert (asked.callback, asked.callback_method) == (callback, "POST")
    await carrier.end_call(call.sid)


async def answered(sim: CarrierSim, carrier: TwilioCarrier) -> CallState:
    """A call that somebody has answered, and says nothing."""
    sim.add_callee(THEIRS, Silence())
    order = CallOrder(THEIRS, OURS, "<Response><Pause length='9'/></Response>", 60, 20, "")
    call = await carrier.create_call(order)
    await sim.wait_for(sim.calls[call.sid], "in-progress")
    return call


async def test_a_one_way_stream_is_asked_for_with_its_token(
    sim: CarrierSim, carrier: TwilioCarrier
) -> None:
    call = await answered(sim, carrier)
    await carrier.start_stream(call.sid, "wss://127.0.0.1:9/twilio/stream", "secret-token")
    (stream,) = sim.calls[call.sid].streams
    assert (stream.one_way, stream.verb.track) == (True, "inbound_track")
    assert stream.verb.url == "wss://127.0.0.1:9/twilio/stream"
    assert stream.verb.parameters == {"nonce": "secret-token"}
    with pytest.raises(RestFailure) as caught:
        await carrier.start_stream("CA" + "0" * 32, "wss://h/s", "t")
    assert caught.value.gone
    await carrier.end_call(call.sid)


async def test_both_tracks_are_asked_for_and_stopped_by_their_name(
    sim: CarrierSim, carrier: TwilioCarrier
) -> None:
    call = await answered(sim, carrier)
    await carrier.listen(call.sid, "wss://127.0.0.1:9/twilio/stream", "secret-token", "both")
    (stream,) = sim.calls[call.sid].leg.sides
    assert (stream.verb.track, stream.verb.name) == ("both_tracks", "both")
    assert stream.verb.parameters == {"nonce": "secret-token"}
    await carrier.stop_stream(call.sid, "both")
    assert sim.calls[call.sid].leg.sides == []
    # One that is over, or of a call that is over or was never there, is stopped.
    await carrier.stop_stream(call.sid, "both")
    await carrier.end_call(call.sid)
    await carrier.stop_stream(call.sid, "both")
    await carrier.stop_stream("CA" + "0" * 32, "both")
    with pytest.raises(RestFailure) as caught:
        await carrier.listen(call.sid, "wss://h/s", "t", "n")
    assert caught.value.code == 21220
    sim.add_fault("rest", "status", path="/Streams/", status=503)
    with pytest.raises(RestFailure) as caught:
        await carrier.stop_stream(call.sid, "both")
    assert caught.value.uncertain


async def test_a_call_that_rings_on_after_completed_is_canceled(
    sim: CarrierSim, carrier: TwilioCarrier
) -> None:
    sim.exchange.beliefs.contradict(["completed-ends-ringing"])
    sim.add_callee(THEIRS, "no-answer")
    order = CallOrder(THEIRS, OURS, "<Response><Pause/></Response>", 60, 20, "http://127.0.0.1:9/s")
    sid = (await carrier.create_call(order)).sid
    await sim.wait_for(sim.calls[sid], "ringing")
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
    if fault.kind.startswith("timeout"):  # it gets no answer, however long it waits
        carrier._http.timeout = 0.1
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


async def test_the_other_token_after_a_401(caplog: pytest.LogCaptureFixture) -> None:
    """A rotation while requests are made: no call is dialled twice, and nobody is asked in vain."""
    async with CarrierSim(auth_token="old", auth_token_secondary="new") as sim:
        sim.add_number(OURS, voice_url="https://example.com/voice")
        sim.add_callee(THEIRS, "no-answer")
        carrier = TwilioCarrier(sim.account_sid, "old", sim.base_url, secondary="new")
        order = CallOrder(THEIRS, OURS, "<Response/>", 60, 20, "http://127.0.0.1:9/s")
        try:
            assert len(await carrier.list_numbers()) == 1
            assert caplog.messages == []
            sim.credentials.promote()  # "old" is void from here on
            sim.rest_log.clear()
            assert (await carrier.create_call(order)).to == THEIRS
            assert [(entry.status, entry.code) for entry in sim.rest_log] == [
                (401, 20003),
                (201, 0),
            ]
            assert len(sim.calls) == 1
            assert caplog.messages == [
                "Twilio refuses TWILIO_AUTH_TOKEN: TWILIO_AUTH_TOKEN_SECONDARY is used now"
            ]
            sim.rest_log.clear()
            found = await carrier.find_number(OURS)
            assert found is not None
            await carrier.write_number(found.sid, {"voice_url": ""})
            assert [entry.status for entry in sim.rest_log] == [200, 200]
            # The next rotation, the other way round.
            sim.credentials.secondary = "old"
            sim.credentials.promote()
            assert len(await carrier.list_numbers()) == 1
            assert caplog.messages[1:] == [
                "Twilio refuses TWILIO_AUTH_TOKEN_SECONDARY: TWILIO_AUTH_TOKEN is used now"
            ]
        finally:
            carrier.close()


async def test_neither_token_is_good() -> None:
    async with CarrierSim(auth_token="third") as sim:
        carrier = TwilioCarrier(sim.account_sid, "old", sim.base_url, secondary="new")
        try:
            for _ in range(2):
                sim.rest_log.clear()
                with pytest.raises(RestFailure) as caught:
                    await carrier.list_numbers()
                assert caught.value.refused_credentials and caught.value.status == 401
                assert [entry.status for entry in sim.rest_log] == [401, 401]
        finally:
            carrier.close()


async def test_only_a_401_asks_with_the_other_token() -> None:
    fault = Fault(where="rest", kind="status", status=503)
    async with CarrierSim(auth_token="old", auth_token_secondary="new") as sim:
        carrier = TwilioCarrier(sim.account_sid, "old", sim.base_url, secondary="new")
        try:
            with sim.faults.during(fault), pytest.raises(RestFailure):
                await carrier.list_numbers()
            assert [entry.status for entry in sim.rest_log] == [503]
        finally:
            carrier.close()


async def test_twilio_quotes_a_url_without_its_password(
    sim: CarrierSim, carrier: TwilioCarrier
) -> None:
    found = await carrier.find_number(OURS)
    assert found is not None
    with pytest.raises(RestFailure) as caught:
        await carrier.write_number(found.sid, {"voice_url": "https://me:pa55@x y.example"})
    assert "https://me:***@x y.example" in str(caught.value.error("write"))
    assert "pa55" not in str(caught.value) + str(caught.value.error("write"))
    order = CallOrder(THEIRS, OURS, "<Response/>", 60, 20, "https://me:pa55@x.example/s")
    assert "pa55" not in repr(order)


def test_backoff_grows_and_keeps_to_retry_after() -> None:
    waits = [backoff(n, RestFailure("x", status=500)) for n in range(1, 12)]
    assert waits == sorted(waits) and waits[0] < 0.5 and waits[-1] == 30.0
    asked = RestFailure("x", status=429, repeatable=True, retry_after=9.0)
    assert backoff(1, asked) == 9.0
    for_ever = RestFailure("x", status=429, repeatable=True, retry_after=1e9)
    assert backoff(1, for_ever) == 120.0


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A proxy in the environment, and none that must not be used; nobody listens there."""
    for name in list(os.environ):
        if name.upper() in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
            monkeypatch.delenv(name)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        proxy = f"http://me:secret@127.0.0.1:{held.getsockname()[1]}"
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy)
        yield proxy.replace("secret", "***")


async def test_a_stand_in_on_this_machine_needs_no_proxy(
    proxied: str, carrier: TwilioCarrier
) -> None:
    found = await carrier.find_number(OURS)
    assert found is not None and found.number == OURS


async def test_a_dead_proxy_is_named_and_nothing_was_sent(proxied: str) -> None:
    carrier = TwilioCarrier("AC1", "token", timeout=5.0)
    with pytest.raises(RestFailure) as caught:
        await carrier.list_numbers()
    carrier.close()
    assert caught.value.repeatable and not caught.value.uncertain
    assert str(caught.value.error("list the numbers")) == (
        "Twilio could not list the numbers: no answer: Connection refused through the proxy "
        f"{proxied} (HTTPS_PROXY)"
    )


async def test_a_proxy_that_refuses_is_named_and_nothing_was_sent(
    sim: CarrierSim, proxied: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in takes no CONNECT, as a proxy that wants a password takes none."""
    monkeypatch.setenv("HTTPS_PROXY", sim.base_url)
    carrier = TwilioCarrier("AC1", "token", timeout=5.0)
    with pytest.raises(RestFailure) as caught:
        await carrier.end_call("CA1")
    carrier.close()
    assert caught.value.repeatable and not caught.value.uncertain
    assert re.fullmatch(
        rf"Tunnel connection failed: 4\d\d .* through the proxy {sim.base_url} \(HTTPS_PROXY\)",
        caught.value.text,
    )


async def test_a_proxy_that_cannot_be_spoken_to_is_named_and_nothing_was_sent(
    proxied: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "carrier-pigeon://proxy.example")
    carrier = TwilioCarrier("AC1", "token", timeout=5.0)
    with pytest.raises(RestFailure) as caught:
        await carrier.end_call("CA1")
    carrier.close()
    assert not caught.value.uncertain
    assert caught.value.text.endswith(
        " through the proxy carrier-pigeon://proxy.example (HTTPS_PROXY)"
    )


@contextlib.asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """A server of this machine that answers every request so; its base URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def http(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def test_what_a_proxy_answers_in_twilios_place_names_it(
    sim: CarrierSim, proxied: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain http through a proxy that answers by itself; and Twilio's own refusal through one."""
    elsewhere = "http://elsewhere.example"
    carrier = TwilioCarrier(sim.account_sid, sim.auth_token, elsewhere, timeout=5.0)
    async with answering(http("502 Bad Gateway", b"<html>no route</html>")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy)
        for asking in (carrier.list_numbers(), carrier.read_number("PN1")):
            with pytest.raises(RestFailure) as caught:
                await asking
            assert caught.value.text.endswith(f" through the proxy {proxy} (HTTP_PROXY)")
    monkeypatch.setenv("HTTP_PROXY", sim.base_url)
    with pytest.raises(RestFailure) as caught:
        await carrier.read_number("PN" + "0" * 32)
    assert caught.value.code == 20404 and "proxy" not in caught.value.text
    carrier.close()


async def test_the_prober_asks_this_machine_directly(proxied: str, tmp_path: Path) -> None:
    async with answering(http("200 OK", b'{"stack":"st1","ok":true}')) as base:
        prober = Prober(tmp_path, "a test")
        assert await prober(base, "st1")
        assert not await prober.present(base, "st2")
        prober.close()
