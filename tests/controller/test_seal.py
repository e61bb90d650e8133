"""The seal: sealed, bound to its number, readable with either token, short enough for Twilio."""

from __future__ import annotations

import random
import string

import pytest

from trunkline.bus.errors import InvalidRequestError, SettingsError
from trunkline.bus.redact import mask_url
from trunkline.controller.twilio.seal import (
    LONGEST_URL,
    Seal,
    SealKeys,
    are_whole,
    without_passwords,
)

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


# --------------------------------------------------------------------------- in the journal

FIELDS = {
    "voice_url": "https://me:p@55:w%2Ford@agent.example.com:8443/voice?a=b@c#d",
    "voice_fallback_url": "http://:only@h",
    "status_callback": "https://me@agent.example.com/a:b@c",
    "voice_method": "POST",
    "trunk_sid": "",
}


def test_passwords_are_sealed_in_their_urls_and_come_back() -> None:
    keys = SealKeys("token")
    hidden = keys.hide(FIELDS, "o1")
    assert keys.show(hidden, "o1") == FIELDS
    assert keys.hide(FIELDS, "o1") != hidden
    text = str(hidden)
    assert "w%2Ford" not in text and ":only" not in text
    assert hidden["voice_url"].startswith("https://me:trunkline-sealed.")
    assert hidden["voice_url"].endswith("@agent.example.com:8443/voice?a=b@c#d")
    # Whatever shows a URL masks it, sealed or not.
    assert mask_url(hidden["voice_url"]) == mask_url(FIELDS["voice_url"])
    unchanged = ("status_callback", "voice_method", "trunk_sid")
    assert all(hidden[name] == FIELDS[name] for name in unchanged)


def test_the_other_token_of_a_rotation_opens_them_and_a_strange_one_says_so() -> None:
    hidden = SealKeys("old").hide(FIELDS, "o1")
    assert SealKeys("new", "old").show(hidden, "o1") == FIELDS
    with pytest.raises(SettingsError, match="set TWILIO_AUTH_TOKEN_SECONDARY to that one"):
        SealKeys("new").show(hidden, "o1")
    # A sealed password that was copied into another row opens nothing.
    with pytest.raises(SettingsError):
        SealKeys("old").show(hidden, "o2")


def test_what_an_earlier_version_has_journalled_in_the_clear_is_read() -> None:
    assert SealKeys("token").show(FIELDS, "o1") == FIELDS


def test_passwords_that_were_dropped_are_known_to_be() -> None:
    dropped = without_passwords(SealKeys("token").hide(FIELDS, "o1"))
    assert dropped == without_passwords(FIELDS)
    assert dropped["voice_url"] == "https://me:***@agent.example.com:8443/voice?a=b@c#d"
    assert not are_whole(dropped) and are_whole(FIELDS)
