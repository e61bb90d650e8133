"""Benchmark client: the same calls by langwatch-scenario's own TwilioAgentAdapter.

One adapter, port and server for each call, all in one process, as that package works. Only its REST
base is replaced, so that the real ``twilio`` package talks to carrier_sim.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

import twilio.rest
from scenario.voice import AudioChunk
from scenario.voice.adapters.twilio import TwilioAgentAdapter
from twilio.http.http_client import TwilioHttpClient

from benchmarks.protocol import say, wait_for
from benchmarks.speech import speech
from trunkline.bus.launch import free_ports


class ToCarrierSim(TwilioHttpClient):  # type: ignore[misc]  # the package is untyped
    """Sends what is meant for Twilio to ``base``."""

    base = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.session.trust_env = False  # the carrier is on this machine: no proxy

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        return super().request(
            method, url.replace("https://api.twilio.com", self.base), *args, **kwargs
        )


def redirect_rest(base: str) -> None:
    """Make every ``twilio.rest.Client`` of this process talk to ``base``."""
    ToCarrierSim.base = base
    original = twilio.rest.Client.__init__

    def patched(self: Any, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("http_client", ToCarrierSim())
        original(self, *args, **kwargs)

    twilio.rest.Client.__init__ = patched  # of this process only


async def listen(adapter: TwilioAgentAdapter) -> int:
    total = 0
    while chunk := (await adapter.recv_audio(30.0)).data:
        total += len(chunk)
    return total


async def talk(adapter: TwilioAgentAdapter, pcm: bytes) -> float:
    began = time.monotonic()
    await adapter.send_audio(AudioChunk(data=pcm))
    return time.monotonic() - began


async def main(
    number: str, callees: list[str], seconds: float, sid: str, token: str, api: str
) -> None:
    redirect_rest(api)
    pcm = speech(seconds)
    adapters = [
        TwilioAgentAdapter(
            account_sid=sid,
            auth_token=token,
            phone_number=number,
            public_base_url=f"http://127.0.0.1:{port}",
            http_port=port,
            allowed_callees=callees,
        )
        for port in free_ports(len(callees))
    ]
    began = time.monotonic()
    for adapter in adapters:
        await adapter.connect()
    await asyncio.gather(
        *(
            adapter.place_call(to, timeout=60.0, attach_stream="a-leg")
            for adapter, to in zip(adapters, callees, strict=True)
        )
    )
    listeners = [asyncio.create_task(listen(adapter)) for adapter in adapters]
    say(
        ready=len(adapters),
        setup_seconds=time.monotonic() - began,
        sids=[str(getattr(adapter, "_call_sid", "")) for adapter in adapters],
    )
    await wait_for("go")
    took = await asyncio.gather(*(talk(adapter, pcm) for adapter in adapters))
    say(done=True, took=took)
    await wait_for("end")
    await asyncio.gather(*(adapter.disconnect() for adapter in adapters))
    heard = await asyncio.gather(*listeners, return_exceptions=True)
    say(heard_seconds=[n / 48_000 if isinstance(n, int) else 0.0 for n in heard])


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    asyncio.run(main(**arguments))
