"""Benchmark client: one TwilioAgentAdapter for each call, trunkline's or langwatch-scenario's own.

Both have one interface, so both are driven by the same code. trunkline's joins the stack at
TRUNKLINE_BUS. Scenario's has a port and a server of its own for each call, all in one process, as
that package works; only its REST base is replaced, so that the real ``twilio`` package talks to the
carrier of the benchmark.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

import twilio.rest
from scenario.voice import AudioChunk
from scenario.voice.adapters import twilio as theirs
from twilio.http.http_client import TwilioHttpClient

from benchmarks.protocol import read_order, say, wait_for


class ToCarrier(TwilioHttpClient):  # type: ignore[misc]  # the package is untyped
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
    ToCarrier.base = base
    original = twilio.rest.Client.__init__

    def patched(self: Any, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("http_client", ToCarrier())
        original(self, *args, **kwargs)

    twilio.rest.Client.__init__ = patched  # of this process only


def adapters(order: dict[str, Any]) -> list[Any]:
    """One for each call, not connected yet."""
    account = {
        "account_sid": order["sid"],
        "auth_token": order["token"],
        "phone_number": order["number"],
        "allowed_callees": order["callees"],
    }
    if order["adapter"] == "trunkline":
        from trunkline import TwilioAgentAdapter

        return [TwilioAgentAdapter(**account) for _ in order["callees"]]
    redirect_rest(order["api"])
    return [
        theirs.TwilioAgentAdapter(
            **account, public_base_url=f"http://127.0.0.1:{port}", http_port=port
        )
        for port in order["ports"]
    ]


async def listening(port: int) -> None:
    """Until somebody listens there: scenario's adapter gives its server 0.2 s, which on a busy
    machine is not enough, and a call that comes before it is lost."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


class Listener:
    """Takes what an adapter hears until it is told to stop. A turn may end before the call does."""

    def __init__(self, adapter: Any) -> None:
        self._adapter = adapter
        self._bytes = 0
        self._stopped = False
        self._task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        while not self._stopped:
            try:
                data = (await self._adapter.recv_audio(1.0)).data
            except TimeoutError:
                continue
            self._bytes += len(data)
            if not data:  # the turn, or the call, is over
                await asyncio.sleep(0.1)

    async def stop(self) -> float:
        """Returns how many seconds were heard."""
        self._stopped = True
        await self._task
        return self._bytes / 48_000


async def main(order: dict[str, Any], pcm: bytes) -> None:
    every = adapters(order)
    began = time.monotonic()
    await asyncio.gather(*(adapter.connect() for adapter in every))
    if order["adapter"] != "trunkline":
        await asyncio.gather(*(listening(port) for port in order["ports"]))
    dials = zip(every, order["callees"], strict=True)
    await asyncio.gather(
        *(adapter.place_call(to, timeout=60.0, attach_stream="a-leg") for adapter, to in dials)
    )
    listeners = [Listener(adapter) for adapter in every]
    say(ready=len(every), setup_seconds=time.monotonic() - began)
    await wait_for("go")
    await asyncio.gather(*(adapter.send_audio(AudioChunk(data=pcm)) for adapter in every))
    say(done=True)
    await wait_for("end")
    heard = await asyncio.gather(*(listener.stop() for listener in listeners))
    # The speech gate of trunkline's hands out speech alone: what was lost cannot be told.
    whole = None
    if order["adapter"] != "trunkline":
        whole = {a._call_sid: n for a, n in zip(every, heard, strict=True)}
    await asyncio.gather(*(adapter.disconnect() for adapter in every))
    say(heard=whole)


if __name__ == "__main__":
    asyncio.run(main(*read_order()))
