"""One call of a live run, beside a carrier of this test's own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from trunkline.controller.twilio.carrier import CallOrder, CallState
from trunkline.live.listener import Asked, Listener
from trunkline.live.trial import LiveRun, Trial, UnreachedError
from trunkline.live.verdicts import Verdicts

from .bench import NUMBER, TOKEN


class Carrier:
    """Takes the call, asks nobody, and shows it as ended."""

    async def create_call(self, order: CallOrder) -> CallState:
        return CallState("CA1", "queued", order.to, order.from_)

    async def fetch_call(self, sid: str) -> CallState:
        return CallState(sid, "failed", NUMBER, NUMBER)


async def test_callbacks_that_the_last_one_has_overtaken_are_waited_for() -> None:
    carrier: Any = Carrier()
    listener = Listener((TOKEN,), "stack", "https://line.example.com")
    trial = Trial(LiveRun(carrier, listener, Verdicts(), NUMBER, NUMBER), "talk")
    trial.sid = "CA1"

    def call_back(status: str) -> None:
        form = {"CallSid": "CA1", "CallStatus": status}
        listener.callbacks.append(Asked("/twilio/status", "", form, signed=None))  # type: ignore[arg-type]  # nobody looks
        listener.news.tell()

    call_back("completed")
    asyncio.get_running_loop().call_later(0.05, call_back, "in-progress")
    await trial.told_all(("in-progress", "completed"), 5.0)
    assert trial.told == ["completed", "in-progress"]


async def test_a_call_that_does_not_reach_us_is_told_without_the_urls_password() -> None:
    carrier: Any = Carrier()
    listener = Listener((TOKEN,), "stack", "https://me:pa55@line.example.com")
    trial = Trial(LiveRun(carrier, listener, Verdicts(), NUMBER, NUMBER), "talk")
    with pytest.raises(UnreachedError) as caught:
        await trial.place("<Hangup/>")
    assert "CA1 reached https://me:***@line.example.com/twilio/voice" in str(caught.value)
