"""One call of a live run, beside a carrier of this test's own."""

from __future__ import annotations

from typing import Any

import pytest

from trunkline.controller.twilio.carrier import CallOrder, CallState
from trunkline.live.listener import Listener
from trunkline.live.trial import LiveRun, Trial, UnreachedError
from trunkline.live.verdicts import Verdicts

from .bench import NUMBER, TOKEN


class Carrier:
    """Takes the call, asks nobody, and shows it as ended."""

    async def create_call(self, order: CallOrder) -> CallState:
        return CallState("CA1", "queued", order.to, order.from_)

    async def fetch_call(self, sid: str) -> CallState:
        return CallState(sid, "failed", NUMBER, NUMBER)


async def test_a_call_that_does_not_reach_us_is_told_without_the_urls_password() -> None:
    carrier: Any = Carrier()
    listener = Listener((TOKEN,), "stack", "https://me:pa55@line.example.com")
    trial = Trial(LiveRun(carrier, listener, Verdicts(), NUMBER, NUMBER), "talk")
    with pytest.raises(UnreachedError) as caught:
        await trial.place("<Hangup/>")
    assert "CA1 reached https://me:***@line.example.com/twilio/voice" in str(caught.value)
