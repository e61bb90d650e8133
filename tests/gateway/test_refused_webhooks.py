"""Voice webhooks that were refused for their signature are told to the controller, in bounds."""

from __future__ import annotations

import pytest

from trunkline.bus.testing import until
from trunkline.gateway import authenticator

from .stack import FORM
from .test_app import Client, Controller


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, int]]:
    monkeypatch.setattr(authenticator, "REFUSED_TOLD_AFTER", 0.0)
    return []


@pytest.fixture
def client(told: list[dict[str, int]]) -> Client:
    client = Client(Controller())
    client.authenticator.refused = told.append
    return client


async def test_they_are_told_together_by_number(client: Client, told: list[dict[str, int]]) -> None:
    for to in ("+14155557777", "+14155557777", "+14155558888"):
        await client.post("/twilio/voice", {**FORM, "To": to}, token="other")
    await until(lambda: told)
    assert told == [{"+14155557777": 2, "+14155558888": 1}]
    await client.post("/twilio/voice", FORM, token="other")
    await until(lambda: told[1:])
    assert told[1:] == [{"+14155557777": 1}]


async def test_what_names_no_number_or_is_no_voice_webhook_is_not_told(
    client: Client, told: list[dict[str, int]]
) -> None:
    await client.post("/twilio/voice", {"CallSid": FORM["CallSid"]}, token="other")
    await client.post("/twilio/voice", {**FORM, "To": "sip:me@example.com"}, token="other")
    await client.post("/twilio/status", FORM, token="other")
    await client.post("/twilio/voice", FORM)
    await client.post("/twilio/voice", {**FORM, "To": "+14155558888"}, token="other")
    await until(lambda: told)
    assert told == [{"+14155558888": 1}], "the last one alone"


async def test_made_up_numbers_are_bounded(client: Client, told: list[dict[str, int]]) -> None:
    for n in range(authenticator.MAX_REFUSED_NUMBERS + 50):
        client.authenticator.refused_voice(f"+1415555{n:04d}")
    await until(lambda: told)
    assert len(told[0]) == authenticator.MAX_REFUSED_NUMBERS
