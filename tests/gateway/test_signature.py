"""Signatures, by the check value of Twilio's documents and against each known fault."""

from __future__ import annotations

import hashlib
from urllib.parse import urlencode

import pytest

from trunkline.gateway.signature import (
    Form,
    SignatureCheck,
    is_shared_key,
    objection,
    shown,
    url_forms,
    without_user_info,
)

from . import stack

TOKEN = "12345"
BASE = "https://line.example.com"
CHECK = SignatureCheck(TOKEN)


def sign(text: str, token: str = TOKEN) -> bytes:
    return stack.sign(text, token=token).encode()


def test_the_check_value_of_the_documents() -> None:
    body = urlencode(
        {
            "CallSid": "CA1234567890ABCDE",
            "Digits": "1234",
            "From": "+14158675309",
            "Caller": "+14158675309",
            "To": "+18005551212",
        }
    )
    form = Form.parse(body.encode())
    signature = b"RSOYDt4T1cUTdK1PDd93/VVr8B8="
    base = "https://mycompany.com"
    assert CHECK.form(base, "/myapp.php", "foo=1&bar=2", form, signature)
    assert not CHECK.form(base, "/myapp.php", "foo=1&bar=3", form, signature)
    assert not CHECK.form(base, "/myapp.php", "", form, signature)
    assert not CHECK.form("http://mycompany.com", "/myapp.php", "foo=1&bar=2", form, signature)
    assert not SignatureCheck("12346").form(base, "/myapp.php", "foo=1&bar=2", form, signature)


def test_blank_fields_are_signed() -> None:
    form = Form.parse(b"To=%2B1&FromCity=&CallSid=CA1")
    signed = sign(f"{BASE}/twilio/voiceCallSidCA1FromCityTo+1")
    assert CHECK.form(BASE, "/twilio/voice", "", form, signed)


def test_repeated_fields_are_sorted_and_counted_once() -> None:
    form = Form.parse(b"Media=b&Media=a&Media=b&CallSid=CA1")
    assert CHECK.form(BASE, "/x", "", form, sign(f"{BASE}/xCallSidCA1MediaaMediab"))
    assert form.first() == {"Media": "b", "CallSid": "CA1"}


def test_the_query_is_signed_as_it_came() -> None:
    signed = sign(f"{BASE}/twilio/voice?m=a%2Fb&empty=&x=%C3%A9CallSidCA1")
    form = Form.parse(b"CallSid=CA1")
    assert CHECK.form(BASE, "/twilio/voice", "m=a%2Fb&empty=&x=%C3%A9", form, signed)
    assert not CHECK.form(BASE, "/twilio/voice", "m=a/b&empty=&x=é", form, signed)


def test_text_beyond_ascii() -> None:
    form = Form.parse(b"FromCity=Malm%C3%B6")
    assert CHECK.form(BASE, "/v", "", form, sign(f"{BASE}/vFromCityMalmö"))


@pytest.mark.parametrize(
    ("url", "forms"),
    [
        ("https://a.example/v", {"https://a.example/v", "https://a.example:443/v"}),
        ("http://a.example/v", {"http://a.example/v", "http://a.example:80/v"}),
        ("wss://a.example/v", {"wss://a.example/v", "wss://a.example:443/v"}),
        ("ws://a.example/v", {"ws://a.example/v", "ws://a.example:80/v"}),
        ("https://a.example:443/v", {"https://a.example/v", "https://a.example:443/v"}),
        ("https://a.example:8443/v", {"https://a.example/v", "https://a.example:8443/v"}),
        (
            "https://us%40er:pa55@a.example/v?x=1",
            {
                "https://us%40er:pa55@a.example/v?x=1",
                "https://us%40er:pa55@a.example:443/v?x=1",
                "https://a.example/v?x=1",
                "https://a.example:443/v?x=1",
            },
        ),
        (
            "wss://u:p@a.example:8443/v",
            {
                "wss://u:p@a.example:8443/v",
                "wss://u:p@a.example/v",
                "wss://a.example:8443/v",
                "wss://a.example/v",
            },
        ),
        (
            "https://u:p@[2001:db8::1]:8443/v",
            {
                "https://u:p@[2001:db8::1]:8443/v",
                "https://u:p@[2001:db8::1]/v",
                "https://[2001:db8::1]:8443/v",
                "https://[2001:db8::1]/v",
            },
        ),
        ("https://[::1]/v", {"https://[::1]/v", "https://[::1]:443/v"}),
        # A host whose name stands in the scheme too.
        ("http://http:8765/v", {"http://http:8765/v", "http://http/v"}),
    ],
)
def test_the_forms_that_may_be_signed(url: str, forms: set[str]) -> None:
    found = url_forms(url)
    assert set(found) == forms
    assert len(found) == len(forms) and found[0] == url


@pytest.mark.parametrize("signed", ["https://u:p@a.example:8443", "https://a.example"])
def test_every_form_is_good_for_every_kind_of_request(signed: str) -> None:
    base, stream = "https://u:p@a.example:8443", signed.replace("https", "wss")
    form = Form.parse(b"CallSid=CA1")
    assert CHECK.form(base, "/v", "x=1", form, sign(f"{signed}/v?x=1CallSidCA1"))
    digest = hashlib.sha256(b"{}").hexdigest()
    query = f"bodySHA256={digest}"
    assert CHECK.json(base, "/v", query, b"{}", sign(f"{signed}/v?{query}"))
    assert CHECK.upgrade(base, "/s", "", sign(f"{stream}/s"))


def test_another_port_user_or_host_is_another_url() -> None:
    for base, signed in (
        ("https://a.example", "https://a.example:80/v"),
        ("https://a.example:8443", "https://a.example:443/v"),
        ("https://a.example", "https://u:p@a.example/v"),
        ("https://u:p@a.example", "https://u@a.example/v"),
        ("https://u:p@a.example:8443", "https://u/v"),
        ("https://[2001:db8::1]", "https://[2001/v"),
    ):
        assert not CHECK.form(base, "/v", "", Form([]), sign(signed))


def test_either_token_may_sign_and_no_third() -> None:
    both = SignatureCheck("new", "old")
    form, text = Form.parse(b"To=1"), f"{BASE}/vTo1"
    assert both.form(BASE, "/v", "", form, sign(text, "new"))
    assert both.form(BASE, "/v", "", form, sign(text, "old"))
    assert not both.form(BASE, "/v", "", form, sign(text, "third"))
    assert both.upgrade(BASE, "/s", "", sign("wss://line.example.com/s", "old"))
    assert not SignatureCheck("new", "").form(BASE, "/v", "", form, sign(text, ""))
    assert "either auth token" in both.tried and "the auth token" in CHECK.tried
    with pytest.raises(ValueError, match="without an auth token"):
        SignatureCheck("", "")


@pytest.mark.parametrize(
    ("settings", "shared"),
    [
        (None, False),
        (b"", False),
        (b"algorithm=HMAC_SHA1", False),
        (b"algorithm=", False),
        (b"key=webhooks_sharedkey_1,algorithm=HMAC_SHA256", True),
        (b"algorithm=HMAC_SHA256", True),
        (b" Algorithm = hmac_sha256 ", True),
        (b"key=webhooks_sharedkey_1", True),
        (b"key=webhooks_sharedkey_1,algorithm=HMAC_SHA1", True),
        (b"algorithm=HMAC_SHA512", True),
    ],
)
def test_a_shared_key_is_known_by_its_header(settings: bytes | None, shared: bool) -> None:
    assert is_shared_key(settings) == shared
    assert objection(b"right", settings, lambda _: True) == ("shared key" if shared else None)


def test_what_is_objected_to() -> None:
    assert objection(None, None, lambda _: True) == "unsigned"
    assert objection(b"", None, lambda _: True) == "unsigned"
    assert objection(b"x", None, lambda signature: signature == b"y") == "wrong signature"
    assert objection(b"y", None, lambda signature: signature == b"y") is None


def test_the_checked_url_is_shown_without_password_and_values() -> None:
    base = "https://user:pa55@a.example:8443/base"
    assert shown(base, "/v", "") == "https://user:***@a.example:8443/base/v"
    assert shown(base, "/v", "o=1&p=sealed") == ("https://user:***@a.example:8443/base/v?o=…&p=…")
    assert shown("https://a.example", "/v", "a%0Ab=1&=2&" + "c=1&" * 9) == (
        "https://a.example/v?" + "?=…&" * 2 + "c=…&" * 6 + "…"
    )


def test_a_url_without_its_user() -> None:
    assert without_user_info("https://u:p@a.example:1/b?c@d") == "https://a.example:1/b?c@d"
    assert without_user_info("https://a.example/b@c") == "https://a.example/b@c"


def test_an_upgrade_may_be_signed_with_a_slash_behind_its_url() -> None:
    assert CHECK.upgrade(
        "https://a.example", "/twilio/stream", "", sign("wss://a.example/twilio/stream/")
    )


def test_an_upgrade_signed_otherwise() -> None:
    base, path = "https://a.example", "/twilio/stream"
    for text in (
        "https://a.example/twilio/stream",
        "wss://a.example:80/twilio/stream",
        "wss://b.example/twilio/stream",
        "wss://a.example/twilio/stream?x=1",
    ):
        assert not CHECK.upgrade(base, path, "", sign(text))
    assert not CHECK.upgrade(base, path, "", None)
    assert not CHECK.upgrade(base, path, "", b"")
    assert not CHECK.upgrade(base, path, "", b"\xff\xfe")


def test_json_bodies() -> None:
    body = b'{"CallSid": "CA1"}'
    query = f"bodySHA256={hashlib.sha256(body).hexdigest()}"
    signed = sign(f"{BASE}/twilio/status?{query}")
    assert CHECK.json(BASE, "/twilio/status", query, body, signed)
    assert not CHECK.json(BASE, "/twilio/status", query, body + b" ", signed)
    assert not CHECK.json(BASE, "/twilio/status", query, body, sign(f"{BASE}/twilio/status"))
    assert not CHECK.json(BASE, "/twilio/status", "", body, sign(f"{BASE}/twilio/status"))
    twice = f"{query}&bodySHA256=00"
    assert not CHECK.json(BASE, "/s", twice, body, sign(f"{BASE}/s?{twice}"))
    strange = "bodySHA256=%FF"
    assert not CHECK.json(BASE, "/s", strange, body, sign(f"{BASE}/s?{strange}"))


@pytest.mark.parametrize("url", ["", "nonsense", "ftp://a.example", "https://a.example:port"])
def test_a_public_url_that_cannot_be_read_fails_closed(url: str) -> None:
    assert not CHECK.form(url, "/v", "", Form([]), sign(url + "/v"))


def test_forms_that_cannot_be_read() -> None:
    with pytest.raises(ValueError, match="codec"):
        Form.parse(b"a=\xff")
    with pytest.raises(ValueError, match="codec"):
        Form.parse(b"a=%FF")
    with pytest.raises(ValueError, match="fields"):
        Form.parse(b"&".join(b"a=1" for _ in range(600)))


def test_the_token_is_not_shown() -> None:
    assert TOKEN not in repr(CHECK)
