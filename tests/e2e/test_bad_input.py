"""Wrong input at every edge: a clear error, and nothing harmed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator

import pytest
from twilio.request_validator import RequestValidator
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from trunkline import Call
from trunkline.errors import TrunklineError

from .sound import compare, from_pcm, from_wire, speech
from .stack import Ear, Stack, called, calling

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


# ---------------------------------------------------------------- strangers at the public port


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
