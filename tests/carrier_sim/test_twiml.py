"""The TwiML parser: the verbs that run, and the problems that it lists."""

from __future__ import annotations

import pytest

from trunkline.carrier_sim import twiml
from trunkline.carrier_sim.twiml import parse


def codes(text: str) -> list[int]:
    return [p.code for p in parse(text).problems]


def test_all_verbs() -> None:
    document = parse(
        '<?xml version="1.0" encoding="UTF-8"?><Response>'
        '<Say voice="Polly.Joanna">Hello &amp; welcome</Say><Pause length="3"/><Pause/>'
        '<Play digits="1w2#"/>'
        '<Connect action="/x"><Stream url="wss://h/s" name="n">'
        '<Parameter name="nonce" value="ab"/></Stream></Connect>'
        '<Dial timeout="5"><Number>+14155557777</Number></Dial>'
        '<Redirect method="GET">/next</Redirect><Reject reason="busy"/><Hangup/></Response>'
    )
    assert document.problems == ()
    assert document.verbs == (
        twiml.Say("Hello & welcome"),
        twiml.Pause(3.0),
        twiml.Pause(1.0),
        twiml.Play(digits="1w2#"),
        twiml.Connect(twiml.Stream("wss://h/s", name="n", parameters={"nonce": "ab"}), "/x"),
        twiml.Dial("+14155557777", timeout=5.0),
        twiml.Redirect("/next", "GET"),
        twiml.Reject("busy"),
        twiml.Hangup(),
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "<Response>",
        "<response/>",
        "<Twiml/>",
        "<Response/><Response/>",
        '<!DOCTYPE x [<!ENTITY a "b">]><Response>&a;</Response>',
        "<Response><Say>&nbsp;</Say></Response>",
    ],
)
def test_no_document_is_12100(text: str) -> None:
    document = parse(text)
    assert document.verbs is None
    assert codes(text) == [12100]


@pytest.mark.parametrize(
    ("inner", "kept"),
    [
        ("<say>x</say>", 0),
        ("<Gather/>", 0),
        ('<Pause len="1"/>', 1),
        ('<Pause length="a"/>', 1),
        ('<Pause length="٣"/>', 1),
        ('<Reject reason="no"/>', 1),
        ("<Connect/>", 0),
        ("<Connect><Stream/></Connect>", 0),
        ('<Connect><Stream url="wss://a/b"/><Stream url="wss://a/b"/></Connect>', 0),
        ('<Connect><Stream url="wss://a/b" foo="1"/></Connect>', 1),
        ('<Connect><Stream url="wss://a/b"><Parameter value="1"/></Stream></Connect>', 1),
        ('<Play digits="12x"/>', 0),
        ("<Play/>", 0),
        ("<Play>https://h/hello.wav</Play>", 0),
        ("<Hangup><Say>x</Say></Hangup>", 1),
        ("text<Hangup/>", 1),
        ("<Dial/>", 0),
        ('<Redirect method="PUT">/a</Redirect>', 1),
    ],
)
def test_schema_warnings_leave_the_rest(inner: str, kept: int) -> None:
    document = parse(f"<Response>{inner}</Response>")
    assert document.verbs is not None and len(document.verbs) == kept
    assert {p.code for p in document.problems} == {12200}


def test_a_parameter_of_500_characters_is_too_long() -> None:
    def one(size: int) -> twiml.Document:
        value = "x" * (size - 1)
        return parse(
            '<Response><Connect><Stream url="wss://h/s">'
            f'<Parameter name="n" value="{value}"/></Stream></Connect></Response>'
        )

    assert one(499).problems == ()
    assert [p.code for p in one(500).problems] == [12200]
