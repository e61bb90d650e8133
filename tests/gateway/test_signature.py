"""Signatures, by the check value of Twilio's documents and against each known fault."""

from __future__ import annotations

import base64
import hashlib
import hmac
from urllib.parse import urlencode

import pytest

from trunkline.gateway.signature import Form, SignatureCheck, stream_base, url_forms

TOKEN = "12345"
BASE = "https://line.example.com"
CHECK = SignatureCheck(TOKEN)


def sign(text: str, token: str = TOKEN) -> bytes:
    return base64.b64encode(hmac.new(token.encode(), text.encode(), hashlib.sha1).digest())


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


def test_a_public_url_with_a_path_before_ours() -> None:
    form = Form.parse(b"")
    signed = sign("https://example.com/line/twilio/voice")
    assert CHECK.form("https://example.com/line", "/twilio/voice", "", form, signed)
    assert CHECK.form("https://example.com/line/", "/twilio/voice", "", form, signed)


@pytest.mark.parametrize(
    ("base", "signed_base"),
    [
        ("https://a.example", "https://a.example"),
        ("https://a.example", "https://a.example:443"),
        ("https://a.example:443", "https://a.example"),
        ("https://a.example:8443", "https://a.example:8443"),
        ("http://a.example", "http://a.example:80"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]:443"),
        ("https://u:p@a.example:443", "https://u:p@a.example"),
    ],
)
def test_with_and_without_the_port(base: str, signed_base: str) -> None:
    assert CHECK.form(base, "/v", "", Form.parse(b""), sign(f"{signed_base}/v"))


def test_another_port_is_another_url() -> None:
    assert url_forms("https://a.example:8443/v") == ["https://a.example:8443/v"]
    assert not CHECK.form("https://a.example", "/v", "", Form([]), sign("https://a.example:80/v"))
    assert not CHECK.form("https://a.example:8443", "/v", "", Form([]), sign("https://a.example/v"))


@pytest.mark.parametrize(
    ("base", "signed"),
    [
        ("https://a.example", "wss://a.example/twilio/stream"),
        ("https://a.example", "wss://a.example:443/twilio/stream"),
        ("https://a.example:443", "wss://a.example/twilio/stream"),
        ("http://127.0.0.1:8765", "ws://127.0.0.1:8765/twilio/stream"),
        ("http://a.example", "ws://a.example:80/twilio/stream"),
    ],
)
def test_upgrades_are_signed_over_the_stream_url(base: str, signed: str) -> None:
    assert CHECK.upgrade(base, "/twilio/stream", "", sign(signed))


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


def test_stream_base() -> None:
    assert stream_base("https://a.example/x") == "wss://a.example/x"
    assert stream_base("http://127.0.0.1:8765") == "ws://127.0.0.1:8765"
