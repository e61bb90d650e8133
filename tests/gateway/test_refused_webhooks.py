"""Refused voice webhooks are told to the controller by kind and number, in bounds."""

from __future__ import annotations

import pytest

from trunkline.bus.testing import until
from trunkline.gateway import authenticator

from .stack import FORM
from .test_app import Client, Controller

Told = list[tuple[str, dict[str, int]]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    monkeypatch.setattr(authenticator, "REFUSED_TOLD_AFTER", 0.0)
    return []


@pytest.fixture
def client(told: Told) -> Client:
    client = Client(Controller())
    client.authenticator.refused = lambda *of_kind: told.append(of_kind)
    return client


async def test_they_are_told_together_by_number(client: Client, told: Told) -> None:
    for to in ("+14155557777", "+14155557777", "+14155558888"):
        await client.post("/twilio/voice", {**FORM, "To": to}, token="other")
    await until(lambda: told)
    assert told == [("wrong signature", {"+14155557777": 2, "+14155558888": 1})]
    await client.post("/twilio/voice", FORM, token="other")
    await until(lambda: told[1:])
    assert told[1:] == [("wrong signature", {"+14155557777": 1})]


async def test_what_names_no_number_or_is_no_voice_webhook_is_not_told(
    client: Client, told: Told
) -> None:
    await client.post("/twilio/voice", {"CallSid": FORM["CallSid"]}, token="other")
    await client.post("/twilio/voice", {**FORM, "To": "sip:me@example.com"}, token="other")
    await client.post("/twilio/status", FORM, token="other")
    await client.post("/twilio/voice", FORM)
    await client.post("/twilio/voice", {**FORM, "To": "+14155558888"}, token="other")
    await until(lambda: told)
    assert told == [("wrong signature", {"+14155558888": 1})], "the last one alone"


async def test_made_up_numbers_are_bounded(client: Client, told: Told) -> None:
    for n in range(authenticator.MAX_REFUSED_NUMBERS + 50):
        client.authenticator.refused_voice("unsigned", f"+1415555{n:04d}")
    await until(lambda: told)
    assert len(told[0][1]) == authenticator.MAX_REFUSED_NUMBERS


async def test_each_kind_is_told_apart(client: Client, told: Told) -> None:
    await client.post("/twilio/voice", {**FORM, "CallSid": "odd"})
    await client.post("/twilio/voice", FORM, token="other")
    await until(lambda: told)
    assert told == [
        ("odd fields", {FORM["To"]: 1}),
        ("wrong signature", {FORM["To"]: 1}),
    ]
