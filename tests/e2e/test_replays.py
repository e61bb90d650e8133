"""Somebody has captured a webhook of a call, signature and all, and sends it again."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from twilio.request_validator import RequestValidator
from urllib3 import PoolManager

from trunkline import Line
from trunkline.bus.twilio_urls import OVERRIDE_FIELD
from trunkline.controller.rules.book import CLAIM_SECONDS

from .stack import ALICE, CALLER, Stack, be_called, until


class Captured:
    """The first webhook of a call, as it went by. ``signature``: what it came with."""

    def __init__(self, stack: Stack, call_sid: str) -> None:
        entry = next(e for e in stack.sim.webhook_log() if e["call_sid"] == call_sid)
        assert entry["kind"] == "webhook" and entry["status"] == 200
        self.url: str = entry["url"].partition("#")[0]
        assert f"?{OVERRIDE_FIELD}=" in self.url
        self.form: dict[str, str] = entry["form"]
        validator = RequestValidator(stack.token)
        self.signature: str = validator.compute_signature(self.url, self.form)

    def send(self, form: dict[str, str] | None = None) -> tuple[int, str]:
        """Send it again, with these fields instead: the status and the document of the answer."""
        with PoolManager() as pool:
            answer = pool.request(
                "POST",
                self.url,
                body=urlencode(form or self.form),
                headers={
                    "Content-Type": "application/x-www-form-urlencoded",
                    "X-Twilio-Signature": self.signature,
                },
                timeout=10.0,
                retries=False,
            )
        return answer.status, answer.data.decode()

    def cut_elsewhere(self) -> dict[str, str]:
        """Fields of the same signed text, with a CallSid that nobody has heard."""
        form = {name: value for name, value in self.form.items() if name != "CallStatus"}
        form["CallSid"] += f"CallStatus{self.form['CallStatus']}"
        return form


def epoch(stack: Stack) -> int:
    """The running controller's; 0 while none answers."""
    try:
        return int(stack.status()["controller"]["epoch"])
    except OSError:
        return 0


async def test_a_replayed_webhook_makes_no_second_call(new_stack: Callable[[], Stack]) -> None:
    stack = new_stack()
    stack.up(gateways=1, codec_workers=1)
    async with Line(ALICE, bus=stack.bus) as line:
        call = await be_called(stack, line, "silence")
        captured = Captured(stack, call.sid)
        status, document = await asyncio.to_thread(captured.send)
        assert status == 200 and "<Pause" in document and "<Stream" not in document
        assert await call.send_audio(bytes(4_800)) == 2_400
        assert len(stack.sim.call(call.sid)["streams"]) == 1
        await call.hang_up()
        await until(lambda: not stack.live_calls(), "the call is over")

        waiting = asyncio.ensure_future(line.wait_for_call(60.0))
        await asyncio.sleep(0.3)  # the line waits for the next call
        await check(captured, waiting)

        before = stack.status()["controller"]
        os.kill(before["pid"], signal.SIGKILL)
        started = time.monotonic()
        await until(lambda: epoch(stack) == before["epoch"] + 1, "the controller is back")
        await until(lambda: stack.complete(1, 1), "all know it again")
        await check(captured, waiting)
        await asyncio.sleep(max(0.0, started + CLAIM_SECONDS + 2.0 - time.monotonic()))
        await check(captured, waiting)

        # An honest caller reaches the line that has waited all along, under the same override.
        stack.sim.place_call(CALLER, ALICE, "silence")
        async with asyncio.timeout(30.0):
            honest = await waiting
        assert honest.sid != call.sid
        await honest.hang_up()
        assert stack.voice(ALICE)["voice_url"].partition("#")[0] == captured.url
    await until(lambda: not stack.live_calls(), "all calls are over")
    said = stack.lines("up")
    assert any(f"call {call.sid} came, which is over" in line for line in said)
    assert any("CallSid is not written as Twilio writes it" in line for line in said)
    assert not any(captured.signature in line for line in said)


async def check(captured: Captured, waiting: asyncio.Future[Any]) -> None:
    """Neither the webhook itself nor one that is cut from it lets anybody in."""
    status, document = await asyncio.to_thread(captured.send)
    assert status == 200 and "<Hangup/>" in document and "<Stream" not in document
    cut = captured.cut_elsewhere()
    status, document = await asyncio.to_thread(captured.send, cut)
    assert status == 403 and document.startswith("forbidden: odd fields")
    if waiting.done():
        pytest.fail(f"a replay was taken for a call: {waiting.result()}")
