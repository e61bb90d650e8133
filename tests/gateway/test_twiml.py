"""The documents, byte for byte."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from trunkline.bus.messages import VoiceAnswer
from trunkline.gateway import twiml

BASE = "https://line.example.com"
PROLOG = '<?xml version="1.0" encoding="UTF-8"?>'


def test_reject_is_exactly_this() -> None:
    assert twiml.render(VoiceAnswer(kind="reject"), BASE) == "<Response><Reject/></Response>"


def test_busy_and_hangup() -> None:
    assert twiml.render(VoiceAnswer(kind="busy"), BASE) == (
        PROLOG + '<Response><Reject reason="busy"/></Response>'
    )
    assert twiml.render(VoiceAnswer(kind="hangup"), BASE) == (
        PROLOG + "<Response><Hangup/></Response>"
    )


def test_stream() -> None:
    answer = VoiceAnswer(kind="stream", token="t0k", redirect_query={"call": "c1", "m": "a b&c"})
    assert twiml.render(answer, BASE) == (
        PROLOG + "<Response><Connect>"
        '<Stream url="wss://line.example.com/twilio/stream">'
        '<Parameter name="nonce" value="t0k"/></Stream></Connect>'
        '<Redirect method="POST">https://line.example.com/twilio/voice'
        "?call=c1&amp;m=a+b%26c#rc=3&amp;rp=all</Redirect></Response>"
    )


def test_a_local_stack_speaks_plain_ws() -> None:
    text = twiml.render(VoiceAnswer(kind="stream", token="t"), "http://127.0.0.1:8765")
    assert '<Stream url="ws://127.0.0.1:8765/twilio/stream">' in text
    assert ">http://127.0.0.1:8765/twilio/voice#rc=3&amp;rp=all</Redirect>" in text


def test_values_are_escaped() -> None:
    token = "<a&b>\"'"
    text = twiml.render(VoiceAnswer(kind="stream", token=token), BASE)
    assert '"&lt;a&amp;b&gt;&quot;&#x27;"' in text
    parameter = ElementTree.fromstring(text).find("Connect/Stream/Parameter")
    assert parameter is not None
    assert parameter.attrib == {"name": "nonce", "value": token}


def test_user_info_goes_to_twilio_and_every_other_stream_does_without() -> None:
    """Twilio documents a password in webhooks' URLs only. Whether it is the one who refuses it for
    a stream, or a proxy that demands it, the call's next document offers the other form."""
    base = "https://u:p&1@line.example.com:8443/base"
    answer = VoiceAnswer(kind="stream", token="t", redirect_query={"c": "1"})
    query, urls = "o=1", []
    for tries in range(1, 5):
        document = ElementTree.fromstring(twiml.render(answer, base, query))
        stream = document.find("Connect/Stream")
        assert stream is not None
        urls.append(stream.attrib["url"])
        redirect = document.findtext("Redirect")
        assert redirect == f"{base}/twilio/voice?c=1&offered={tries}#rc=3&rp=all"
        query = redirect.partition("?")[2].partition("#")[0]
    with_user, without = "wss://u:p&1@line.example.com:8443", "wss://line.example.com:8443"
    assert urls == [f"{each}/base/twilio/stream" for each in (with_user, without) * 2]
    again = twiml.render(VoiceAnswer(kind="pause", redirect_query={"c": "1"}), base, query)
    assert "?c=1&amp;offered=4&amp;waited=1#" in again


@pytest.mark.parametrize(
    ("public_url", "path", "local"),
    [
        ("https://x.example", "/twilio/voice", "/twilio/voice"),
        ("https://x.example/base", "/twilio/voice", "/twilio/voice"),
        ("https://x.example/base", "/base/twilio/voice", "/twilio/voice"),
        ("https://x.example/a/b", "/a/b/twilio/voice", "/twilio/voice"),
        ("https://x.example/a%20b", "/a b/twilio/voice", "/twilio/voice"),
        ("https://x.example/twilio", "/twilio/voice", "/twilio/voice"),
        ("https://x.example/twilio", "/twilio/twilio/voice", "/twilio/voice"),
        ("https://x.example/base", "/base/metrics", "/base/metrics"),
        ("https://x.example/base", "/base/base/twilio/voice", "/base/base/twilio/voice"),
        ("https://x.example/base", "/other/twilio/voice", "/other/twilio/voice"),
        ("https://x.example", "/base/twilio/voice", "/base/twilio/voice"),
        (None, "/twilio/voice", "/twilio/voice"),
        (None, "/base/twilio/voice", "/base/twilio/voice"),
    ],
)
def test_a_proxy_may_cut_the_public_path_off_or_not(
    public_url: str | None, path: str, local: str
) -> None:
    assert twiml.local_path(path, public_url, {"/twilio/voice"}) == local


def test_a_stream_needs_a_token() -> None:
    with pytest.raises(ValueError, match="token"):
        twiml.render(VoiceAnswer(kind="stream"), BASE)


def test_pause_asks_again_with_what_was_asked() -> None:
    assert twiml.render(VoiceAnswer(kind="pause"), BASE, "m=1&x=") == (
        PROLOG + '<Response><Pause length="1"/><Redirect method="POST">'
        "https://line.example.com/twilio/voice?m=1&amp;x=&amp;waited=1#rc=3&amp;rp=all"
        "</Redirect></Response>"
    )
    answer = VoiceAnswer(kind="pause", redirect_query={"call": "c1"})
    assert "?call=c1&amp;waited=4#" in twiml.render(answer, BASE, "m=1&waited=3")


def test_pauses_end() -> None:
    query, asked = "m=1", 0
    while "<Pause" in (document := twiml.pause(BASE, query)):
        redirect = ElementTree.fromstring(document).findtext("Redirect")
        assert redirect is not None
        query = redirect.partition("?")[2].partition("#")[0]
        asked += 1
        assert asked <= 100
    assert asked == twiml.MAX_WAITS
    assert "<Hangup/>" in document


@pytest.mark.parametrize("waited", ["", "x", "٣", "-1", "9" * 5000])
def test_a_count_that_is_none_does_no_harm(waited: str) -> None:
    assert twiml.pause(BASE, f"waited={waited}").startswith(PROLOG)
