"""The seal: sealed, bound to its number, readable with either token, short enough for Twilio."""

from __future__ import annotations

import random
import string

import pytest

from trunkline.bus.errors import InvalidRequestError
from trunkline.controller.twilio.seal import LONGEST_URL, Seal, SealKeys

BASE = "https://line.example.com/path"
NUMBER = "+14155551234"
PRIOR = {"voice_url": "https://me:pa55word@agent.example.com/voice?a=1&b=2", "voice_method": "GET"}


def make(keys: SealKeys | None = None, prior: dict[str, str] = PRIOR) -> str:
    return (keys or SealKeys("token")).voice_url(BASE, "0123abcd", "5tack", NUMBER, prior)


def test_round_trip() -> None:
    url = make()
    seal = Seal.read(url)
    assert seal is not None
    assert (seal.base, seal.override, seal.stack) == (BASE, "0123abcd", "5tack")
    assert SealKeys("token").prior(seal, NUMBER) == PRIOR


def test_url_is_that_of_the_voice_webhook_and_shows_nothing_of_the_prior() -> None:
    url = make()
    assert url.startswith(f"{BASE}/twilio/voice?")
    assert "pa55word" not in url and "agent" not in url


def test_same_settings_look_different_each_time() -> None:
    assert make() != make()


def test_former_token_still_reads() -> None:
    seal = Seal.read(make(SealKeys("old")))
    assert seal is not None
    assert SealKeys("new", "old").prior(seal, NUMBER) == PRIOR
    assert SealKeys("new").prior(seal, NUMBER) is None


@pytest.mark.parametrize("field", ["override", "stack", "sealed", "number"])
def test_tampering_is_noticed(field: str) -> None:
    seal = Seal.read(make())
    assert seal is not None
    number = NUMBER
    if field == "number":
        number = "+14155559999"
    else:
        value = getattr(seal, field)
        flipped = value[:-3] + ("AAA" if value[-3:] != "AAA" else "BBB")
        seal = Seal(**{**vars(seal), field: flipped})
    assert SealKeys("token").prior(seal, number) is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://example.com/voice",
        "https://example.com/twilio/voice",
        "https://example.com/twilio/voice?o=1&s=2",
        "https://[broken/twilio/voice?o=1&s=2&p=3",
    ],
)
def test_what_is_no_seal(url: str) -> None:
    assert Seal.read(url) is None


@pytest.mark.parametrize("sealed", ["!", "AAAA", "é", "A" * 400])
def test_what_is_not_sealed(sealed: str) -> None:
    assert SealKeys("token").prior(Seal(BASE, "o", "s", sealed), NUMBER) is None


def test_too_long_is_refused_and_says_so() -> None:
    letters = string.ascii_letters + string.digits + "-_"
    noise = "".join(random.Random(1).choices(letters, k=LONGEST_URL))
    with pytest.raises(InvalidRequestError, match="too long") as caught:
        make(prior={"voice_url": f"https://example.com/{noise}"})
    assert "***1234" in str(caught.value) and NUMBER not in str(caught.value)
