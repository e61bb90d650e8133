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
    assert '"&lt;a&amp;b&gt;&quot;&apos;"' in text
    parameter = ElementTree.fromstring(text).find("Connect/Stream/Parameter")
    assert parameter is not None
    assert parameter.attrib == {"name": "nonce", "value": token}


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
