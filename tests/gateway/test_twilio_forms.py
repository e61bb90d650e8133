"""Which fields a webhook has, in every form that a carrier writes; and forms that are cut anew."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from trunkline.carrier_sim.account import CallOptions, CallRecord
from trunkline.carrier_sim.habits import CALLER_FORMS
from trunkline.carrier_sim.webhooks import call_form
from trunkline.gateway.signature import Form
from trunkline.gateway.twilio_forms import ANSWERED, REQUIRED, fault, is_party

from .stack import ACCOUNT, FORM

#: What REQUIRED allows besides the forms that the stand-in draws of itself.
OTHER_PARTIES = [
    "12345",
    "sip:anonymous@anonymous.invalid",
    "sips:alice@example.com:5061;transport=tls",
    "client:alice_1%40example",
    "whatsapp:+14155551234",
    "Private number",
    "UNAVAILABLE",
    "+7378742833",
]
PARTIES = [write("+14155551234") for write in CALLER_FORMS.values()] + OTHER_PARTIES


def changed(**changes: str | None) -> Form:
    """FORM with these fields instead; None: without it."""
    return Form([(n, v) for n, v in {**FORM, **changes}.items() if v is not None])


def record(**fields: str) -> CallRecord:
    """A call as the stand-in has it."""
    known = {"from_": "+14155551234", "to": "+14155557777", "status": "ringing"} | fields
    return CallRecord(
        sid=FORM["CallSid"],
        direction="inbound",
        options=CallOptions(),
        created_at=0.0,
        created=0.0,
        **known,
    )


@pytest.mark.parametrize("party", PARTIES)
@pytest.mark.parametrize("status", ["queued", "ringing", "in-progress", "completed", "no-answer"])
def test_what_the_carrier_sends_is_taken(party: str, status: str) -> None:
    form = Form(call_form(record(from_=party, to="client:bob", status=status), ACCOUNT))
    assert fault(form, ACCOUNT) is None and fault(form, None) is None
    assert fault(form, "AC" + "2" * 32) == "AccountSid is another account's"


@pytest.mark.parametrize("name", REQUIRED)
def test_each_field_is_there_once(name: str) -> None:
    assert fault(changed(**{name: None}), ACCOUNT) == f"{name} is given 0 times"
    twice = Form([*FORM.items(), (name, FORM[name])])
    assert fault(twice, ACCOUNT) == f"{name} is given 2 times"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AccountSid", ACCOUNT[:-1]),
        ("AccountSid", "CA" + ACCOUNT[2:]),
        ("CallSid", FORM["CallSid"] + "\n"),
        ("CallSid", FORM["CallSid"].replace("1", "G")),
        ("CallSid", FORM["CallSid"] + "0"),
        ("CallSid", ""),
        ("CallStatus", "Ringing"),
        ("CallStatus", ""),
        ("CallStatus", "ringing\0"),
    ],
)
def test_each_field_has_its_form(name: str, value: str) -> None:
    why = f"{name} is not written as Twilio writes it"
    assert fault(changed(**{name: value}), ACCOUNT) == why


@pytest.mark.parametrize(
    "text",
    ["+1415\r\n", "+1415555123٤", "sip:a\x1b[2J@b", "x" * 600, "+", "12+3", "<Play/>", "a:b c"],
)
def test_what_no_carrier_writes_is_no_party(text: str) -> None:
    assert not is_party(text)


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        ({"+1415FromCity": "x"}, "a field has a name that Twilio gives to none"),
        ({"": "x"}, "a field has a name that Twilio gives to none"),
        ({"Extra": "CallSidCA" + "5" * 32}, "a field holds the text of another one"),
        ({"Extra": "CallStatusringing"}, "a field holds the text of another one"),
        ({"AAccountSidAC5": ""}, "a field holds the text of another one"),
    ],
)
def test_no_field_holds_the_text_of_another(extra: dict[str, str], why: str) -> None:
    assert fault(changed(**extra), ACCOUNT) == why


@pytest.mark.parametrize(
    "name",
    ["ParentCallSid", "DialCallStatus", "SipHeader_X-Id", "SipHeader_X-Twilio-CallSid", "msg"],
)
def test_other_names_of_twilios_are_taken(name: str) -> None:
    assert fault(changed(**{name: FORM["CallSid"]}), ACCOUNT) is None


#: Who has answered, as the stand-in tells it.
DETECTED = {
    "AccountSid": ACCOUNT,
    "AnsweredBy": "machine_end_beep",
    "CallSid": FORM["CallSid"],
    "MachineDetectionDuration": "3210",
}


@pytest.mark.parametrize(
    "answered_by",
    [
        *("human", "fax", "unknown", "machine_start"),
        *("machine_end_beep", "machine_end_silence", "machine_end_other"),
    ],
)
def test_who_has_answered_is_told_without_a_status_and_to_callbacks_alone(answered_by: str) -> None:
    form = Form([*(DETECTED | {"AnsweredBy": answered_by}).items()])
    assert fault(form, ACCOUNT) is None and fault(form, None) is None
    assert fault(form, "AC" + "2" * 32) == "AccountSid is another account's"
    assert fault(form, ACCOUNT, of_voice=True) == "CallStatus is given 0 times"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"AnsweredBy": "robot"}, "AnsweredBy is not written as Twilio writes it"),
        ({"AnsweredBy": ""}, "AnsweredBy is not written as Twilio writes it"),
        ({"CallSid": "CA1"}, "CallSid is not written as Twilio writes it"),
        ({"CallStatus": "completed"}, "From is given 0 times"),
        ({"X": "AnsweredByhuman"}, "a field holds the text of another one"),
    ],
)
def test_an_odd_answer_is_none(changes: dict[str, str], why: str) -> None:
    assert fault(Form([*(DETECTED | changes).items()]), ACCOUNT) == why


NOT_SIGNED_SO = "a field holds the text of another one"


@pytest.mark.parametrize(("sid_at", "status_at"), [(4, 4), (4, 10), (7, 4), (7, 10)])
def test_a_real_field_is_not_hidden_where_a_name_and_a_value_meet(
    sid_at: int, status_at: int
) -> None:
    """A child call's webhook with the word on who has answered, cut as that word on the parent."""
    parent, sid = "CA" + "9" * 32, FORM["CallSid"]
    child = call_form(record(parent_call_sid=parent, status="completed"), ACCOUNT)
    whole = "".join(n + v for n, v in sorted([*child, ("AnsweredBy", "human")]))
    head, _, rest = whole.partition("CallSid" + sid)
    assert head == f"AccountSid{ACCOUNT}AnsweredByhumanApiVersion2010-04-01"
    middle, _, tail = rest.partition("CallSid" + parent)
    cut = [
        ("AccountSid", ACCOUNT),
        ("AnsweredBy", "human"),
        ("ApiVersion2010-04-01" + "CallSid"[:sid_at], "CallSid"[sid_at:]),
        (sid + middle[:status_at], middle[status_at:]),
        ("CallSid", parent),
        (tail[:5], tail[5:]),
    ]
    assert "".join(n + v for n, v in cut) == whole
    assert list(Form(cut)) == sorted(Form(cut))
    assert fault(Form(cut), ACCOUNT) == NOT_SIGNED_SO


def test_a_second_call_within_a_header_of_sip_cannot_take_the_first_ones_place() -> None:
    other = {"CallSid": "CA" + "7" * 32, "CallStatus": "ringing", "From": "+1", "To": "+2"}
    text = "x" + "".join(n + v for n, v in other.items()) + "Zz"
    pairs = sorted([*FORM.items(), ("ApiVersion", "2010-04-01"), ("SipHeader_X-A", text)])
    whole = "".join(n + v for n, v in pairs)
    sid = FORM["CallSid"]
    before, _, after = whole.partition("CallSid" + sid + "CallStatus")
    middle, _, tail = after.partition(text)
    forged = [
        ("AccountSid", ACCOUNT),
        (before.removeprefix("AccountSid" + ACCOUNT) + "CallSid", ""),
        (sid + "CallStatus", middle + "x"),
        *other.items(),
        ("Zz", tail),
    ]
    assert "".join(n + v for n, v in forged) == whole
    assert list(Form(forged)) == sorted(Form(forged))
    assert fault(Form(forged), ACCOUNT) == NOT_SIGNED_SO


@pytest.mark.parametrize("name", ["AnsweredByhumanCallSid", "Api2010CallSid", "_CallSid"])
def test_a_name_that_ends_like_a_field_is_one_of_letters_alone(name: str) -> None:
    assert fault(changed(**{name: FORM["CallSid"]}), ACCOUNT) == NOT_SIGNED_SO


def joined(texts: list[str], count: int) -> list[list[str]]:
    """With each ``count`` texts that follow one another as one."""
    starts = range(len(texts) - count + 1)
    return [[*texts[:n], "".join(texts[n : n + count]), *texts[n + count :]] for n in starts]


def split(texts: list[str]) -> Iterator[list[str]]:
    """With one more border, anywhere."""
    for n, text in enumerate(texts):
        for at in range(1 if n else 0, len(text)):
            yield [*texts[:n], text[:at], text[at:], *texts[n + 1 :]]


def other_cuts(texts: list[str]) -> Iterator[list[str]]:
    """With one border moved to anywhere, and with two dropped that follow one another. Then with
    one more and with one less where all blank texts but one at the end are left out."""
    for one_less in joined(texts, 2):
        yield from split(one_less)
    yield from joined(texts, 3)
    without_blanks = [*filter(None, texts), ""]
    yield from split(without_blanks)
    yield from joined(without_blanks, 2)


@pytest.mark.parametrize("of", ["call", "answered call", "detection"])
def test_no_other_cut_of_a_signed_text_is_taken(of: str) -> None:
    """Of three forms: a child call's, without and with the word on who has answered, and that of
    the word alone."""
    child = record(from_="anonymous", parent_call_sid="CA" + "9" * 32)
    pairs = sorted(call_form(child, ACCOUNT))
    if of == "answered call":
        pairs = sorted([*pairs, ("AnsweredBy", "human")])
    if of == "detection":
        pairs = sorted(DETECTED.items())
    texts = [text for pair in pairs for text in pair]
    required = Form(pairs)
    taken = 0
    for parts in other_cuts(texts):
        form = Form(list(zip(parts[::2], parts[1::2], strict=True)))
        if list(form) == sorted(form) and fault(form, ACCOUNT) is None:
            taken += 1
            assert all(form.getlist(n) == required.getlist(n) for n in REQUIRED), parts
            # Another text is no answer, and nobody takes it for one.
            answers = [a for a in form.getlist("AnsweredBy") if ANSWERED["AnsweredBy"](a)]
            assert answers in ([], required.getlist("AnsweredBy")), parts
    assert taken, "the form itself is among them"
