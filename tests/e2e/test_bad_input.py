"""Wrong input at every edge: a clear error, and nothing harmed."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import json
import re
from collections.abc import AsyncIterator
from urllib.parse import urlencode

import pytest
from twilio.request_validator import RequestValidator
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from trunkline import Call, Line
from trunkline.errors import (
    NumberBusyError,
    NumberNotFoundError,
    TrunklineError,
)

from .sound import compare, from_pcm, from_wire, speech
from .stack import ALICE, CALLEE, CALLER, Ear, Stack, called, calling, until

# ---------------------------------------------------------------- what a program hands over


async def test_wrong_sound_and_wrong_keys_are_refused_and_the_call_goes_on(stack: Stack) -> None:
    async with calling(stack, "record") as call:
        with pytest.raises(ValueError, match="3 bytes are not valid PCM16"):
            await call.send_audio(b"\0\0\0")
        with pytest.raises(ValueError, match="not str"):
            await call.send_audio("hello")  # type: ignore[arg-type]
        for keys in ("", "12a", "1\n", "<Play/>", "١"):
            with pytest.raises(ValueError, match="DTMF"):
                await call.send_dtmf(keys)
        assert await call.send_audio(b"") == 0
        with pytest.raises(asyncio.TimeoutError):
            while True:
                await call.recv_audio(0.0)
        # Samples that fill no frame, and no sample of the wire, are joined to what follows.
        sent = speech(1.0, first=1)
        cuts = [0, 2, 12, 960, 1922, 20_000, len(sent)]
        parts = [sent[a:b] for a, b in itertools.pairwise(cuts)]
        told = await asyncio.gather(*(call.send_audio(part) for part in parts))
        assert told == [len(part) // 2 for part in parts]
        await call.hang_up()
        with pytest.raises(TrunklineError, match="ended"):
            await call.send_audio(sent)
    compare(from_pcm(sent), from_wire(stack.far_end_heard(call.sid))).check()


async def test_numbers_that_are_none_of_ours_are_refused(stack: Stack) -> None:
    for number in ("4155551234", "+0155551234", "+1415555123x", "", "+14155551234\n"):
        with pytest.raises(ValueError, match=r"E\.164"):
            Line(number, bus=stack.bus)
    with pytest.raises(NumberNotFoundError, match=r"\*+0999"):
        await Line("+14155550999", bus=stack.bus).open()
    with pytest.raises(TrunklineError, match="account"):
        await Line(ALICE, bus=stack.bus, account="AC" + "9" * 32).open()
    async with Line(ALICE, bus=stack.bus) as line:
        with pytest.raises(NumberNotFoundError, match=r"\*+7777"):
            await line.place_call(CALLEE, timeout=10.0)
    assert stack.sim.number_writes() == []


async def test_a_number_is_held_by_one_line_at_a_time(stack: Stack) -> None:
    async with Line(ALICE, bus=stack.bus) as first, Line(ALICE, bus=stack.bus) as second:
        waiting = asyncio.ensure_future(first.wait_for_call(20.0))
        await until(lambda: stack.held(ALICE), "the number is armed")
        with pytest.raises(NumberBusyError, match=r"\*+1234"):
            await second.wait_for_call(5.0)
        waiting.cancel()
        await asyncio.wait([waiting])


# ---------------------------------------------------------------- strangers at the public port


def ask(
    stack: Stack, method: str, path: str, body: bytes = b"", **headers: str
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", stack.public, timeout=10.0)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


FORM = {"CallSid": "CA" + "0" * 32, "From": CALLER, "To": ALICE, "FromCity": ""}


def post(stack: Stack, path: str, signature: str | None, form: dict[str, str]) -> tuple[int, bytes]:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    if signature is not None:
        headers["X-Twilio-Signature"] = signature
    return ask(stack, "POST", path, urlencode(form).encode(), **headers)


@contextlib.asynccontextmanager
async def a_call_that_is_not_harmed(stack: Stack) -> AsyncIterator[Call]:
    """Sound both ways is whole, whatever happens meanwhile."""
    sent = speech(2.0, first=1)
    async with called(stack, {"kind": "wav", "speech": "austen-0870", "loop": True}) as call:
        ear = Ear(call)
        speaking = asyncio.ensure_future(call.send_audio(sent))
        yield call
        assert await speaking == len(sent) // 2
        await call.hang_up()
        heard = await ear.all()
    compare(from_pcm(sent), from_wire(stack.far_end_heard(call.sid))).check()
    compare(from_pcm(heard), from_wire(stack.sim.said(call.sid)), alone=False).check()
    assert len(stack.sim.call(call.sid)["streams"]) == 1


async def test_strangers_find_nothing_at_the_public_port(stack: Stack) -> None:
    async with a_call_that_is_not_harmed(stack):
        for method, path in [
            ("GET", "/"),
            ("GET", "/metrics"),
            ("GET", "/api/status"),
            ("POST", "/twilio/voice/"),
            ("GET", "/twilio/../metrics"),
            ("GET", "/sim/health"),
        ]:
            assert ask(stack, method, path)[0] == 404, path
        assert ask(stack, "GET", "/twilio/voice")[0] in (404, 405)
        status, body = ask(stack, "GET", "/healthz")
        assert (status, json.loads(body)["ok"]) == (200, True)
        # Nothing that a health check shows helps anybody.
        assert not re.search(rf"{stack.token}|{stack.account}|\+1415", body.decode())


async def test_webhooks_that_twilio_did_not_sign_are_forbidden(stack: Stack) -> None:
    url = f"{stack.public_url}/twilio/voice"
    right = RequestValidator(stack.token).compute_signature(url, FORM)
    async with a_call_that_is_not_harmed(stack) as call:
        known = FORM | {"CallSid": call.sid, "CallStatus": "completed"}
        for path in ("/twilio/voice", "/twilio/status"):
            for signature in (None, "", "x", right[::-1], "é"):
                assert post(stack, path, signature, known) == (403, b"forbidden")
        other = RequestValidator("another token").compute_signature(url, FORM)
        assert post(stack, "/twilio/voice", other, FORM)[0] == 403
        # A field more, one less, another URL: not what was signed.
        assert post(stack, "/twilio/voice", right, FORM | {"Digits": "1"})[0] == 403
        less = {name: value for name, value in FORM.items() if name != "FromCity"}
        assert post(stack, "/twilio/voice", right, less)[0] == 403
        assert post(stack, "/twilio/voice?a=1", right, FORM)[0] == 403
        # The very same as Twilio would have it is let in, and hears busy: nobody waits any more.
        status, body = post(stack, "/twilio/voice", right, FORM)
        assert (status, b"busy" in body) == (200, True)
        for junk in (b"\xff\xfe=%zz", b"a" * 100_000, b"{", b""):
            status, _ = ask(stack, "POST", "/twilio/voice", junk)
            assert status in (400, 403, 413)


@contextlib.asynccontextmanager
async def a_stream(stack: Stack) -> AsyncIterator[ClientConnection]:
    """A WebSocket whose upgrade Twilio has signed, as far as the gateway can tell."""
    url = stack.public_url.replace("http", "ws", 1) + "/twilio/stream"
    signature = RequestValidator(stack.token).compute_signature(url, {})
    async with connect(
        url, additional_headers={"X-Twilio-Signature": signature}, proxy=None
    ) as socket:
        yield socket


def start(stack: Stack, call_sid: str, **parameters: str) -> str:
    return json.dumps(
        {
            "event": "start",
            "sequenceNumber": "1",
            "streamSid": "MZ" + "0" * 32,
            "start": {
                "accountSid": stack.account,
                "callSid": call_sid,
                "streamSid": "MZ" + "0" * 32,
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": parameters,
            },
        }
    )


MEDIA = json.dumps(
    {
        "event": "media",
        "sequenceNumber": "2",
        "streamSid": "MZ" + "0" * 32,
        "media": {"track": "inbound", "chunk": "1", "timestamp": "0", "payload": "f39/" * 50},
    }
)
CONNECTED = json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"})


async def ends(socket: ClientConnection) -> bool:
    """The gateway closes it by itself; it says nothing before."""
    async with asyncio.timeout(10.0):
        try:
            await socket.recv()
        except ConnectionClosed:
            return True
    return False


async def test_streams_without_a_signature_or_a_token_carry_nothing(stack: Stack) -> None:
    url = stack.public_url.replace("http", "ws", 1) + "/twilio/stream"
    async with a_call_that_is_not_harmed(stack) as call:
        for headers in ({}, {"X-Twilio-Signature": "no"}):
            with pytest.raises(InvalidStatus) as refused:
                async with connect(url, additional_headers=headers, proxy=None):
                    pass
            assert refused.value.response.status_code == 403
        own = stack.sim.call(call.sid)["streams"][0]["parameters"]["nonce"]
        messages: dict[str, list[str | bytes]] = {
            "no token": [CONNECTED, start(stack, call.sid), MEDIA],
            "a wrong token": [CONNECTED, start(stack, call.sid, nonce="0" * 32), MEDIA],
            "a token that was used": [CONNECTED, start(stack, call.sid, nonce=own), MEDIA],
            "no text": [start(stack, call.sid, nonce="١" * 600)],
            "garbage": ["garbage", "{", "null", "[1]", '"x"', b"\0\1\2", '{"event": 1}'],
            "sound before the start": [MEDIA] * 50,
            "much": ["x" * 60_000] * 8,
            "a long message": ["[" * 70_000],
            "nothing": [],
        }

        async def try_(sent: list[str | bytes]) -> bool:
            async with a_stream(stack) as socket:
                with contextlib.suppress(ConnectionClosed):
                    for message in sent:
                        await socket.send(message)
                return await ends(socket)

        ended = await asyncio.gather(*(try_(sent) for sent in messages.values()))
        assert dict(zip(messages, ended, strict=True)) == dict.fromkeys(messages, True)
