"""The mark in a voice_url: readable with the token alone, by nobody else, and never too long."""

from __future__ import annotations

import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.controller.marks import (
    LONGEST_URL,
    Mark,
    MarkedUrl,
    MarkSeal,
    MarkTooLongError,
    UnreadableMarkError,
    find_mark,
)

PRIOR = {
    "voice_url": "https://me:hunter2@old.example/voice?a=1&b=2",
    "voice_method": "POST",
    "voice_fallback_url": "",
    "trunk_sid": None,
}


def test_a_mark_is_read_back_from_the_url_alone() -> None:
    mark = Mark("o1", "s1", PRIOR)
    url = MarkSeal(["token"]).url("https://line.example/base/", mark)
    found = find_mark(url)
    assert found is not None
    assert (found.base, found.override, found.stack) == ("https://line.example/base", "o1", "s1")
    assert MarkSeal(["token"]).open(found) == mark


@given(
    st.dictionaries(st.text(max_size=20), st.one_of(st.none(), st.text(max_size=60)), max_size=9)
)
def test_any_prior_settings_survive(prior: dict[str, str | None]) -> None:
    seal = MarkSeal(["token"])
    found = find_mark(seal.url("https://line.example", Mark("o", "s", prior)))
    assert found is not None and seal.open(found).prior == prior


def test_nothing_of_the_prior_url_shows() -> None:
    url = MarkSeal(["token"]).url("https://line.example", Mark("o", "s", PRIOR))
    assert "hunter2" not in url and "old.example" not in url


def test_a_mark_of_the_former_token_is_read_with_it_as_secondary() -> None:
    found = find_mark(MarkSeal(["old"]).url("https://line.example", Mark("o", "s", PRIOR)))
    assert found is not None
    assert MarkSeal(["new", "old"]).open(found).prior == PRIOR
    with pytest.raises(UnreadableMarkError, match="TWILIO_AUTH_TOKEN_SECONDARY"):
        MarkSeal(["new"]).open(found)


def test_a_damaged_mark_is_told() -> None:
    found = find_mark(MarkSeal(["token"]).url("https://line.example", Mark("o", "s", PRIOR)))
    assert found is not None
    for sealed in (found.sealed[:-3], "A" + found.sealed[1:], "", "%%%"):
        with pytest.raises(UnreadableMarkError):
            MarkSeal(["token"]).open(MarkedUrl(found.base, "o", "s", sealed))


def test_settings_that_do_not_fit_are_refused() -> None:
    long = {"voice_url": "https://old.example/" + secrets.token_hex(LONGEST_URL)}
    with pytest.raises(MarkTooLongError, match="shorten"):
        MarkSeal(["token"]).url("https://line.example", Mark("o", "s", long))


@pytest.mark.parametrize(
    "url",
    [
        None,
        "",
        "https://old.example/voice",
        "https://old.example/twilio/voice",
        "https://old.example/twilio/voice?o=1&s=2",
        "https://old.example/twilio/voice?o=1&o=2&s=2&p=3",
        "https://[broken/twilio/voice?o=1&s=2&p=3",
    ],
)
def test_what_we_did_not_write_has_no_mark(url: str | None) -> None:
    assert find_mark(url) is None


def test_a_seal_needs_a_token() -> None:
    with pytest.raises(ValueError, match="auth token"):
        MarkSeal(["", ""])
