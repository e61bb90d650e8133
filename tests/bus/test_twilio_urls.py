"""The URLs that Twilio calls: what the public URL's own form makes of them."""

from __future__ import annotations

from trunkline.bus.twilio_urls import status_url, stream_base, stream_url, voice_url


def test_streams_are_encrypted_where_the_public_url_is() -> None:
    assert stream_base("https://a.example/x") == "wss://a.example/x"
    assert stream_base("http://127.0.0.1:8765") == "ws://127.0.0.1:8765"
    assert stream_url("https://u:p@a.example/x/") == "wss://u:p@a.example/x/twilio/stream"


def test_webhooks_are_retried_and_may_have_a_query() -> None:
    assert voice_url("https://a.example/x/", "") == "https://a.example/x/twilio/voice#rc=3&rp=all"
    assert status_url("http://a.example", "d=1") == (
        "http://a.example/twilio/status?d=1#rc=3&rp=all"
    )
